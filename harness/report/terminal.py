"""`Diff` -> the table as a terminal shows it: summary first, then the table, reasons and warnings."""

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.cleaning import visible
from harness.judge.roofline import Roofline
from harness.judge.verdict import Diff, Verdict, head_variants
from harness.report import ablation, formatting, sheet
from harness.report.layout import STYLES, plain_console, sheet_lines
from harness.report.sheet import Sheet
from harness.specs import Column


def render_terminal(diff: Diff, *, width: int, color: bool, verbose: bool = False, everything: bool = False) -> str:
    """Render a table in `width` columns: the summary, a line a row, then reasons, footnotes and warnings.

    `everything` shows also rows and columns of which nothing was measured.
    """
    console = plain_console(width, color=color)
    console.print(_shown(formatting.title(diff), style="bold"))
    if diff.ablations:
        console.print(_shown(ablation.introduction(diff)))
    shown = sheet.table_sheets(diff, everything=everything, tolerances=verbose)
    for sentence in sheet.summary(diff) if diff.ablations else shown[0].summary:
        console.print(_shown(sentence))
    for part in shown:
        _print_sheet(console, part, headed=bool(diff.ablations))
    console.print()
    _print_shapes(console, diff, verbose=verbose)
    _print_reasons(console, diff, verbose=verbose)
    for note in formatting.footnotes(diff, measured_only=not verbose):
        _hanging(console, f"[{note.mark}]", note.text, "dim")
    if diff.spec.note and verbose:
        _hanging(console, "note:", diff.spec.note, "dim")
    for warning in formatting.warnings(diff) if verbose else formatting.merged_warnings(diff, hint=", -v shows all"):
        _hanging(console, "warning:", warning, "yellow")
    return _text(console)


def render_sheets(sheets: Sequence[Sheet], *, width: int, color: bool) -> str:
    """Render tables one below the other, each with its title and summary."""
    console = plain_console(width, color=color)
    for number, shown in enumerate(sheets):
        if number:
            console.print()
        console.print(_shown(shown.title, style="bold"))
        for sentence in shown.summary:
            console.print(_shown(sentence))
        _print_sheet(console, shown, headed=False)
    return _text(console)


def _print_sheet(console: Console, shown: Sheet, *, headed: bool) -> None:
    """Print a table between empty lines; one of several has its own heading."""
    if not shown.columns:
        return
    table = sheet_lines(console, shown)
    if table.by_sign and shown.verdicts:
        console.print(_shown(f"{formatting.legend(shown.verdicts)}.", style="dim"))
    console.print()
    if headed:
        console.print(_shown(shown.title, style="bold"))
    for line in table.lines:
        console.print(line)
    if table.left_out:
        console.print(_shown(f"Left out for want of room: {'; '.join(table.left_out)}."))
    for sentence in shown.left_out:
        console.print(_shown(sentence))


def _grid(*headings: str, right: bool = False) -> Grid:
    """A table with a rule below its heading; `right` aligns all columns but the first to the right."""
    grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, heading in enumerate(headings):
        grid.add_column(_shown(heading), justify="right" if right and number else "left")
    return grid


def _print_shapes(console: Console, diff: Diff, *, verbose: bool) -> None:
    for shape in diff.shapes:
        _hanging(console, f"{shape.column.label}:", f"{formatting.shape_sentence(shape)}.", "")
        if not verbose:
            continue
        if orders := formatting.orders_sentence(shape):
            _hanging(console, "  other machines:", f"{orders}.", "")
        for reference, ratios in formatting.ratios_by_reference(shape):
            text = ", ".join(
                f"{r.row.label} {formatting.number(r.measured, None, significant=3)} "
                f"({formatting.number(r.published, None, significant=3)})"
                for r in ratios
            )
            _hanging(console, f"  × {reference.label} (published):", text, "")


def _print_reasons(console: Console, diff: Diff, *, verbose: bool) -> None:
    for verdict, reason, cells in formatting.reasons(diff, merged=not verbose):
        _hanging(console, f"{formatting.SIGNS[verdict]} {verdict}:", f"{cells}: {reason}", STYLES[verdict])
    if verbose:
        for judged in diff.judged_cells.values():
            if judged.verdict is Verdict.MATCH:
                cell = judged.filled.cell
                _hanging(console, "✓ match:", f"{cell.column.label} of {cell.row.label}: {judged.reason}", "dim")


def _hanging(console: Console, head: str, body: str, style: str) -> None:
    """Print a remark whose lines after the first are indented, where the window has room for that."""
    if cell_len(head) > console.width // 2:
        console.print(_shown(f"{head} {body}", style=style))
        return
    line = Grid.grid(padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(_shown(head, style=style), _shown(body, style=style))
    console.print(line)


def render_roofline(rooflines: Mapping[Column, list[Roofline]], *, width: int, color: bool) -> str:
    """Render how close each model comes to the peak of its machine."""
    console = plain_console(width, color=color)
    for column, rows in rooflines.items():
        console.print(_shown(f"{column.label}: roofline", style="bold"))
        heading, *lines = formatting.roofline_table(column, rows)
        _print_lines(console, _grid(*heading, right=True), lines)
        if any(row.measured.share is None for row in rows):
            console.print(_shown("?: `harness doctor --peaks` measures the peaks of this machine", style="dim"))
    return _text(console)


def render_explanations(diff: Diff, *, width: int, color: bool) -> str:
    """Render what each crop and each way to read the heads gives for the accuracies of a table."""
    console = plain_console(width, color=color)
    for judged in diff.judged_cells.values():
        variants = head_variants(judged.filled)
        if variants:
            title, (heading, *lines) = formatting.head_table(judged, variants)
            console.print(_shown(f"\n{title}", style="bold"))
            _print_lines(console, _grid(*heading), lines)
    text = _text(console)
    return f"{text}{formatting.HEAD_LEGEND}\n" if text.strip() else ""


def _print_lines(console: Console, grid: Grid, lines: Iterable[Iterable[str]]) -> None:
    for line in lines:
        grid.add_row(*map(_shown, line))
    console.print(grid)


def _shown(text: str, style: str = "") -> Text:
    """Return text of others, without what a terminal would obey."""
    return Text(visible(text), style=style)


def _text(console: Console) -> str:
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
