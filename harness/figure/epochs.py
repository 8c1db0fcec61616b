"""Accuracy against the length of the training, a line a row, as in figure 3."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from harness.errors import HarnessError
from harness.figure.points import nothing_measured
from harness.figure.style import PAPER, Style, line_style, title_of
from harness.judge.table import FilledCell, Table
from harness.judge.verdict import Verdict, judge
from harness.specs import Cell, Row


@dataclass(frozen=True, kw_only=True)
class EpochLine:
    """The values of one row, by epochs, shortest training first."""

    row: Row
    epochs: tuple[int, ...]
    values: tuple[float, ...]


def epochs_figure(table: Table, style: Style = PAPER, points: str = "both") -> Figure:
    """Build the figure: published points hollow under ours, or either alone and filled.

    Raises `HarnessError` where ours are requested and none was measured.
    """
    published = [] if points == "ours" else _lines(table, lambda filled: filled.published_number)
    ours = [] if points == "published" else _lines(table, lambda filled: _comparable(filled, table))
    if points == "ours" and not ours:
        raise HarnessError(nothing_measured(table))
    figure, axes = style.one_panel(width=6.4, height=4.6)
    styles = {row.key: line_style(number) for number, row in enumerate(table.spec.rows)}
    for lines, solid in ((published, points == "published"), (ours, True)):
        for line in lines:
            axes.plot(line.epochs, line.values, **style.line_properties(*styles[line.row.key], solid=solid))
    lengths = sorted({length for line in (*published, *ours) for length in line.epochs})
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xlabel("epochs")
    axes.set_ylabel(_label(table))
    axes.margins(x=0.05, y=0.08)
    drawn = {line.row.key for line in (*published, *ours)}
    handles = [style.marker_handle(row.label, *styles[row.key]) for row in table.spec.rows if row.key in drawn]
    labels = ("published" if published else "", "measured" if ours else "")
    style.legend_below(axes, [*handles, *style.source_handles(*labels, solid=points == "published")], columns=3)
    figure.suptitle(title_of(table), fontsize=style.title)
    style.remark(figure, _left_out(table) if points != "published" else "")
    return figure


def _lines(table: Table, value_of: Callable[[FilledCell], float | None]) -> list[EpochLine]:
    values: dict[str, dict[int, float]] = {}
    for (row, _), filled in table.cells.items():
        length, value = _epochs(filled.cell), value_of(filled)
        if length is not None and value is not None:
            values.setdefault(row, {})[length] = value
    lines = [(row, sorted(values[row.key].items())) for row in table.spec.rows if row.key in values]
    return [
        EpochLine(row=row, epochs=tuple(e for e, _ in line), values=tuple(v for _, v in line)) for row, line in lines
    ]


def _epochs(cell: Cell) -> int | None:
    length = cell.settings.get("epochs")
    return length if isinstance(length, int) else None


def _comparable(filled: FilledCell, table: Table) -> float | None:
    """Return our value where it was measured as the published one was: any other does not belong on the same axis."""
    if filled.cell.references and judge(filled, table.spec).verdict is Verdict.NOT_COMPARABLE:
        return None
    return filled.number


def _left_out(table: Table) -> str:
    measured = [f for f in table.cells.values() if f.measurement is not None and _epochs(f.cell) is not None]
    left_out = [filled for filled in measured if _comparable(filled, table) is None]
    if not left_out:
        return ""
    reason = judge(left_out[0], table.spec).reason
    return f"{len(left_out)} of our {len(measured)} values are not comparable and not drawn: {reason}."


def _label(table: Table) -> str:
    units = dict.fromkeys(f.cell.unit for f in table.cells.values() if _epochs(f.cell) is not None)
    return f"accuracy ({', '.join(units)})"
