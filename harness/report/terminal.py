"""`Diff` -> the table as a terminal shows it: answer first, then reasons, then warnings."""

from collections.abc import Iterable, Mapping
from io import StringIO
from itertools import chain

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.cleaning import visible
from harness.judge.roofline import Roofline
from harness.judge.verdict import Diff, JudgedCell, Verdict, head_variants
from harness.report import ablation, formatting
from harness.specs import Column

STYLES = {
    Verdict.MATCH: "green",
    Verdict.NOISE: "cyan",
    Verdict.DEVIATES: "bold red",
    Verdict.EXPLAINED: "yellow",
    Verdict.NOT_COMPARABLE: "",
    Verdict.MISSING: "dim",
    Verdict.FAILED: "bold red",
}


def render_terminal(diff: Diff, *, width: int, color: bool, verbose: bool = False) -> str:
    """Render a table in `width` columns: cells on one line where they fit, else on two, else row by row."""
    console = _console(width=width, color=color)
    console.print(_shown(formatting.title(diff), style="bold"))
    if diff.table.machine:
        console.print(_shown(f"throughput measured on {diff.table.machine.label}", style="dim"))
    if diff.ablations:
        _print_ablation(console, diff)
    else:
        _print_cells(console, diff, width)
        console.print(_shown(formatting.legend(diff), style="dim"))
    _print_shapes(console, diff)
    _print_reasons(console, diff, verbose=verbose)
    for note in formatting.footnotes(diff, measured_only=not verbose):
        _hanging(console, f"[{note.mark}]", note.text, "dim")
    if diff.spec.note and verbose:
        _hanging(console, "note:", diff.spec.note, "dim")
    for warning in formatting.warnings(diff) if verbose else formatting.merged_warnings(diff, hint=", -v shows all"):
        _hanging(console, "warning:", warning, "yellow")
    console.print(_shown(f"{formatting.counts(diff)}."))
    return _text(console)


def _print_ablation(console: Console, diff: Diff) -> None:
    """Print the ablation at a small scale, a block for each column."""
    console.print(_shown(ablation.introduction(diff)))
    for column in diff.ablations:
        console.print()
        console.print(_shown(ablation.heading(column), style="bold"))
        grid = _grid("")
        for name in ("here", "95 % interval", "paper"):
            grid.add_column(name, justify="right", no_wrap=True)
        grid.add_column("", no_wrap=True)
        for label, measured, interval, published, sign in map(ablation.line, column.rows):
            style = {ablation.SAME: "green", ablation.OTHER: "red"}.get(sign, "")
            grid.add_row(_shown(label), measured, _shown(interval, style="dim"), published, _shown(sign, style=style))
        console.print(grid)
        console.print(_shown(f"{ablation.signs_sentence(column)}."))
    legend = (
        f"{ablation.SAME} same sign as published, {ablation.OTHER} opposite sign, {ablation.NEITHER} no published sign"
    )
    console.print(_shown(legend, style="dim"))


def _print_cells(console: Console, diff: Diff, width: int) -> None:
    for two_lines in (False, True):
        grid = _cells(diff, two_lines=two_lines)
        if console.measure(grid, options=console.options.update(width=10_000)).maximum <= width:
            console.print(grid)
            return
    _print_row_by_row(console, diff, width)


def _grid(*headings: str, right: bool = False) -> Grid:
    """A table with a rule below its heading; `right` aligns all columns but the first to the right."""
    grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, heading in enumerate(headings):
        grid.add_column(_shown(heading), justify="right" if right and number else "left")
    return grid


def _cells(diff: Diff, *, two_lines: bool) -> Grid:
    """The paper's layout; on one line, measured and published values have columns of their own."""
    grid = _grid()
    grid.add_column("", no_wrap=True)
    for column in diff.spec.columns:
        header = (
            f"{column.label}\n{formatting.remaining_unit(column.label, column.unit)}"
            if two_lines
            else formatting.heading(column.label, column.unit)
        )
        grid.add_column(_shown(header), justify="right", no_wrap=True)
        if not two_lines:
            grid.add_column(_shown("published", style="dim"), no_wrap=True)
    for heading, rows in formatting.row_groups(diff.spec.rows):
        if heading:
            grid.add_row(_shown(heading, style="italic"))
        for row in rows:
            cells = [_parts(diff.judged_cells[row.key, column.key]) for column in diff.spec.columns]
            texts = [Text("\n").join(parts) for parts in cells] if two_lines else chain.from_iterable(cells)
            grid.add_row(_shown(row.label), *texts)
    return grid


def _parts(judged: JudgedCell) -> tuple[Text, Text]:
    """The measured value, and the published one with the difference."""
    cell = formatting.cell_text(judged)
    measured = " ".join(filter(None, (cell.measured, cell.batch, cell.sign)))
    published = " ".join(filter(None, (cell.published, cell.difference)))
    return _shown(measured, style=STYLES[judged.verdict]), _shown(published, style="dim")


def _print_row_by_row(console: Console, diff: Diff, width: int) -> None:
    """For narrow windows and wide tables: a line a cell, under the row's name."""
    labels = [f" {formatting.heading(c.label, c.unit)}" for c in diff.spec.columns]
    indent = min(max(map(cell_len, labels), default=0), max(12, width // 2))
    for row in diff.spec.rows:
        console.print(_shown(" / ".join(filter(None, (row.group, row.label))), style="bold"))
        for column, label in zip(diff.spec.columns, labels, strict=True):
            line = Grid.grid(padding=(0, 1))
            line.add_column(width=indent)
            line.add_column(ratio=1)
            cell = Text("  ").join(part for part in _parts(diff.judged_cells[row.key, column.key]) if part)
            line.add_row(_shown(label, style="dim"), cell)
            console.print(line)


def _print_shapes(console: Console, diff: Diff) -> None:
    for shape in diff.shapes:
        _hanging(console, f"{shape.column.label}:", formatting.shape_sentence(shape), "")
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
    console = _console(width=width, color=color)
    for column, rows in rooflines.items():
        console.print(_shown(f"{column.label}: roofline", style="bold"))
        heading, *lines = formatting.roofline_table(column, rows)
        _print_lines(console, _grid(*heading, right=True), lines)
        if any(row.measured.share is None for row in rows):
            console.print(_shown("?: `harness doctor --peaks` measures the peaks of this machine", style="dim"))
    return _text(console)


def render_explanations(diff: Diff, *, width: int, color: bool) -> str:
    """Render what each crop and each way to read the heads gives for the accuracies of a table."""
    console = _console(width=width, color=color)
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


def _console(*, width: int, color: bool) -> Console:
    return Console(
        file=StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )


def _text(console: Console) -> str:
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
