"""Accuracy against the length of the training, a line a row, as figure 3 has it."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.diff import Verdict, judge
from harness.errors import HarnessError
from harness.figure.looks import PAPER, Style, look, remark, sheet, short, title_of, trace
from harness.figure.points import nothing_of_ours, sources
from harness.spec import Cell, Row
from harness.table import Filled, Table


@dataclass(frozen=True, kw_only=True)
class Line:
    """The values of one row, by epochs, shortest training first."""

    row: Row
    epochs: tuple[int, ...]
    values: tuple[float, ...]


def epochs_of(table: Table, style: Style = PAPER, points: str = "both") -> Figure:
    """Build the figure: published points hollow under ours, or either alone and filled.

    Raises `HarnessError` where ours are wanted and none was measured.
    """
    published = [] if points == "ours" else _lines(table, _printed)
    ours = [] if points == "published" else _lines(table, lambda filled: _measured(filled, table))
    if points == "ours" and not ours:
        raise HarnessError(nothing_of_ours(table))
    figure, axes = sheet(style, width=6.4, height=4.6)
    looks = {row.key: look(number) for number, row in enumerate(table.spec.rows)}
    for drawn, solid in ((published, points == "published"), (ours, True)):
        for line in drawn:
            color, marker = looks[line.row.key]
            axes.plot(line.epochs, line.values, **trace(style, color, marker, solid=solid))
    lengths = sorted({length for line in (*published, *ours) for length in line.epochs})
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xlabel("epochs")
    axes.set_ylabel(_unit(table))
    axes.margins(x=0.05, y=0.08)
    drawn_rows = {line.row.key for line in (*published, *ours)}
    handles = [
        Line2D([], [], color=looks[row.key][0], marker=looks[row.key][1], linestyle="none", label=short(row.label))
        for row in table.spec.rows
        if row.key in drawn_rows
    ]
    handles += sources("published" if published else "", "measured" if ours else "", solid=points == "published")
    for handle in handles:
        handle.set_markersize(style.marker)
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=3,
        frameon=False,
        fontsize=style.small,
    )
    figure.suptitle(title_of(table), fontsize=style.title)
    remark(figure, [_left_out(table)] if points != "published" else [], style)
    return figure


def _lines(table: Table, value_of: Callable[[Filled], float | None]) -> list[Line]:
    values: dict[str, dict[int, float]] = {}
    for (row, _), filled in table.cells.items():
        length, value = _epochs(filled.cell), value_of(filled)
        if length is not None and value is not None:
            values.setdefault(row, {})[length] = value
    return [
        Line(row=row, epochs=tuple(sorted(of)), values=tuple(of[length] for length in sorted(of)))
        for row in table.spec.rows
        if (of := values.get(row.key))
    ]


def _epochs(cell: Cell) -> int | None:
    length = cell.settings.get("epochs")
    return length if isinstance(length, int) else None


def _printed(filled: Filled) -> float | None:
    return filled.cell.printed.value if filled.cell.printed else None


def _measured(filled: Filled, table: Table) -> float | None:
    """Give our value where it was measured as the published one was: any other does not belong on the same axis."""
    if filled.measurement is None or isinstance(filled.measurement.value, str):
        return None
    apart = filled.cell.references and judge(filled, table.spec).verdict is Verdict.NOT_COMPARABLE
    return None if apart else filled.measurement.value


def _left_out(table: Table) -> str:
    lines = [f for f in table.cells.values() if f.measurement is not None and _epochs(f.cell) is not None]
    apart = [filled for filled in lines if _measured(filled, table) is None]
    if not apart:
        return ""
    why = judge(apart[0], table.spec).reason
    return f"{len(apart)} of our {len(lines)} values are not comparable and not drawn: {why}."


def _unit(table: Table) -> str:
    """Name the values: what they are in, and the metric where it says more."""
    units = dict.fromkeys(f.cell.unit for f in table.cells.values() if _epochs(f.cell) is not None)
    return f"accuracy ({', '.join(units)})"
