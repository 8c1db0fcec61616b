"""`Diff` -> the table as a terminal shows it: answer first, then reasons, then doubts."""

from collections.abc import Mapping
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.diff import Diff, Finding, Verdict, readings
from harness.limits import Limits
from harness.report import effects, words
from harness.spec import Column

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
    """Draw a table into `width` columns: cells on one line where they fit, else on two, else row by row."""
    console = _console(width=width, color=color)
    console.print(Text(words.title(diff), style="bold"))
    if diff.table.machine:
        console.print(Text(f"speeds measured on {diff.table.machine.label}", style="dim"))
    if diff.effects:
        _print_effects(console, diff)
    else:
        _print_cells(console, diff, width)
        console.print(Text(words.legend(diff), style="dim"))
    _print_shapes(console, diff)
    _print_reasons(console, diff, verbose=verbose)
    for note in words.footnotes(diff, measured_only=not verbose):
        _hanging(console, f"[{note.mark}]", note.text, "dim")
    if diff.spec.note and verbose:
        _hanging(console, "note:", diff.spec.note, "dim")
    for doubt in words.doubts(diff) if verbose else words.doubts_in_short(diff, hint=", -v shows all"):
        _hanging(console, "doubt:", doubt, "yellow")
    console.print(Text(f"{words.counts(diff)}."))
    return _text(console)


def _print_effects(console: Console, diff: Diff) -> None:
    """Print what each row's change does at a small scale, a block for each column."""
    console.print(Text(effects.introduction(diff)))
    for column in diff.effects:
        console.print()
        console.print(Text(effects.heading(column), style="bold"))
        grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        grid.add_column("")
        for name in ("here", "95 % interval", "paper"):
            grid.add_column(name, justify="right", no_wrap=True)
        grid.add_column("", no_wrap=True)
        for label, measured, interval, published, sign in effects.lines(column):
            style = {effects.SAME: "green", effects.OTHER: "red"}.get(sign, "")
            grid.add_row(label, measured, Text(interval, style="dim"), published, Text(sign, style=style))
        console.print(grid)
        console.print(Text(f"{effects.signs_sentence(column)}."))
    legend = f"{effects.SAME} the sign in print, {effects.OTHER} the other one, {effects.NEITHER} none in print"
    console.print(Text(legend, style="dim"))


def _print_cells(console: Console, diff: Diff, width: int) -> None:
    for lines in (1, 2):
        grid = _grid(diff, two_lines=lines == 2)
        if console.measure(grid, options=console.options.update(width=10_000)).maximum <= width:
            console.print(grid)
            return
    _print_row_by_row(console, diff, width)


def _grid(diff: Diff, *, two_lines: bool) -> Grid:
    """Draw the paper's layout; on one line, what was measured and what was published stand in columns of their own."""
    grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    grid.add_column("", no_wrap=True)
    for column in diff.spec.columns:
        unit = _unit(diff, column.key)
        header = (
            f"{column.label}\n{words.unit_beside(column.label, unit)}"
            if two_lines
            else words.heading(column.label, unit)
        )
        grid.add_column(header, justify="right", no_wrap=True)
        if not two_lines:
            grid.add_column(Text("published", style="dim"), no_wrap=True)
    group = None
    for row in diff.spec.rows:
        if row.group != group:
            group = row.group
            if group and group != row.label:
                grid.add_row(Text(group, style="italic"))
        cells = [diff.findings[row.key, column.key] for column in diff.spec.columns]
        if two_lines:
            grid.add_row(Text(row.label), *(Text("\n").join(_parts(cell)) for cell in cells))
        else:
            grid.add_row(Text(row.label), *(part for cell in cells for part in _parts(cell)))
    return grid


def _unit(diff: Diff, column: str) -> str:
    """Give the unit of a column, or nothing where its rows have several."""
    units = {diff.findings[row.key, column].filled.cell.unit for row in diff.spec.rows}
    return units.pop() if len(units) == 1 else ""


def _parts(finding: Finding) -> tuple[Text, Text]:
    """Write what was measured, and what was published with the difference."""
    cell = words.written(finding)
    measured = " ".join(filter(None, (cell.measured, cell.batch, cell.sign)))
    published = " ".join(filter(None, (cell.published, cell.difference)))
    return Text(measured, style=STYLES[finding.verdict]), Text(published, style="dim")


def _print_row_by_row(console: Console, diff: Diff, width: int) -> None:
    """For narrow windows and wide tables: a line a cell, under the row's name."""
    labels = [f" {words.heading(c.label, _unit(diff, c.key))}" for c in diff.spec.columns]
    indent = min(max(map(cell_len, labels), default=0), max(12, width // 2))
    for row in diff.spec.rows:
        console.print(Text(" / ".join(filter(None, (row.group, row.label))), style="bold"))
        for column, label in zip(diff.spec.columns, labels, strict=True):
            line = Grid.grid(padding=(0, 1))
            line.add_column(width=indent)
            line.add_column(ratio=1)
            cell = Text("  ").join(part for part in _parts(diff.findings[row.key, column.key]) if part)
            line.add_row(Text(label, style="dim"), cell)
            console.print(line)


def _print_shapes(console: Console, diff: Diff) -> None:
    for shape in diff.shapes:
        _hanging(console, f"{shape.column.label}:", words.shape_sentence(shape), "")
        for reference, ratios in words.ratios_by_reference(shape):
            said = ", ".join(
                f"{r.row.label} {words.number(r.measured, None, significant=3)} "
                f"({words.number(r.published, None, significant=3)})"
                for r in ratios
            )
            _hanging(console, f"  × {reference.label} (published):", said, "")


def _print_reasons(console: Console, diff: Diff, *, verbose: bool) -> None:
    for verdict, reason, cells in words.reasons(diff) if verbose else words.reasons_in_short(diff):
        _hanging(console, f"{words.SIGNS[verdict]} {verdict}:", f"{cells}: {reason}", STYLES[verdict])
    if verbose:
        for finding in diff.findings.values():
            if finding.verdict is Verdict.MATCH:
                cell = finding.filled.cell
                _hanging(console, "✓ match:", f"{cell.column.label} of {cell.row.label}: {finding.reason}", "dim")


def _hanging(console: Console, head: str, body: str, style: str) -> None:
    """Print a remark whose lines after the first are indented, where the window has room for that."""
    if cell_len(head) > console.width // 2:
        console.print(Text(f"{head} {body}", style=style))
        return
    line = Grid.grid(padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(Text(head, style=style), Text(body, style=style))
    console.print(line)


def render_limits(limits: Mapping[Column, list[Limits]], *, width: int, color: bool) -> str:
    """Draw how close each network comes to what its machine can do."""
    console = _console(width=width, color=color)
    for column, rows in limits.items():
        console.print(Text(f"{column.label}: how close to the limit", style="bold"))
        heading, *lines = words.limits_lines(rows)
        grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for name in heading:
            grid.add_column(name, justify="right" if name else "left")
        for line in lines:
            grid.add_row(*(Text(part) for part in line))
        console.print(grid)
        if any(row.measured.share is None for row in rows):
            console.print(Text("?: `harness doctor --ceilings` measures what this machine can do", style="dim"))
    return _text(console)


def render_explanations(diff: Diff, *, width: int, color: bool) -> str:
    """Draw what each crop and each way to read the heads gives for the accuracies of a table."""
    console = _console(width=width, color=color)
    for finding in diff.findings.values():
        found = readings(finding.filled)
        if not found:
            continue
        heading, lines = words.readings_lines(finding, found)
        console.print(Text(f"\n{heading}", style="bold"))
        grid = Grid(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for name in lines[0]:
            grid.add_column(name)
        for line in lines[1:]:
            grid.add_row(*(Text(part) for part in line))
        console.print(grid)
    text = _text(console)
    if not text.strip():
        return ""
    return f"{text}{words.READINGS_LEGEND}\n"


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
