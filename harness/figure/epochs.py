"""Accuracy against the length of the training, a line a row, as in figure 3."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from harness.errors import HarnessError
from harness.figure.points import nothing_measured
from harness.figure.style import PAPER, Style, line_style, short, title_of
from harness.judge.table import FilledCell, Table
from harness.judge.verdict import Verdict, judge
from harness.specs import Cell


@dataclass(frozen=True, kw_only=True)
class Series:
    """The cells of one row that form a line, shortest training first; `label` tells it from others of the row."""

    label: str
    cells: tuple[FilledCell, ...]


def epochs_figure(table: Table, style: Style = PAPER, points: str = "both") -> Figure:
    """Build the figure: published points hollow under ours, or either alone and filled.

    Raises `HarnessError` where ours are requested and none was measured.
    """
    series = _series(table)
    published = [] if points == "ours" else _lines(series, lambda filled: filled.published_number)
    ours = [] if points == "published" else _lines(series, lambda filled: _comparable(filled, table))
    if points == "ours" and not ours:
        raise HarnessError(nothing_measured(table))
    figure, axes = style.one_panel(width=6.4)
    for lines, solid in ((published, points == "published"), (ours, True)):
        for number, line in lines:
            axes.plot(list(line), list(line.values()), **style.line_properties(*line_style(number), solid=solid))
    drawn = [*published, *ours]
    lengths = sorted({length for _, line in drawn for length in line})
    axes.set_xticks(lengths, _labels_apart(lengths))
    axes.set_xlabel("epochs")
    axes.set_ylabel(short(_label(table), 90))
    axes.margins(x=0.05, y=0.08)
    face = None if ours or points == "published" else "white"
    numbers = dict.fromkeys(number for number, _ in sorted(drawn, key=lambda line: line[0]))
    handles = [style.marker_handle(series[number].label, *line_style(number), face=face) for number in numbers]
    labels = ("published" if published else "", "measured" if ours else "")
    style.frame(
        figure,
        title_of(table),
        handles=[*handles, *style.source_handles(*labels, solid=points == "published")],
        remarks=[_left_out(table) if points != "published" else ""],
        height=3.8,
    )
    return figure


def _labels_apart(lengths: Sequence[int]) -> list[str]:
    """Return the labels of the ticks, empty where one would lie over that to its left."""
    labels, last = [], -math.inf
    for length in lengths:
        apart = length - last > 0.08 * (lengths[-1] - lengths[0])
        last = length if apart else last
        labels.append(str(length) if apart else "")
    return labels


def _series(table: Table) -> list[Series]:
    """Return a line for each row and metric; more where a row has several trainings of one length."""
    groups: dict[tuple[str, str], list[FilledCell]] = {}
    for (row, _), filled in table.cells.items():
        if _epochs(filled.cell) is not None:
            groups.setdefault((row, str(filled.cell.metric)), []).append(filled)
    split: dict[tuple[str, str, str], list[FilledCell]] = {}
    for (row, metric), cells in groups.items():
        several = len({_epochs(filled.cell) for filled in cells}) < len(cells)
        for filled in cells:
            others = sorted((name, str(value)) for name, value in filled.cell.settings.items() if name != "epochs")
            split.setdefault((row, metric, str(others) if several else ""), []).append(filled)
    lines = Counter(row for row, _, _ in split)
    return [
        Series(
            label=f"{cells[0].cell.row.label}, {cells[0].cell.column.label}"
            if lines[row] > 1
            else cells[0].cell.row.label,
            cells=tuple(sorted(cells, key=lambda filled: _epochs(filled.cell) or 0)),
        )
        for (row, _, _), cells in split.items()
    ]


def _lines(
    series: Sequence[Series], value_of: Callable[[FilledCell], float | None]
) -> list[tuple[int, dict[int, float]]]:
    """Return the number of each series that has values, with the values by epochs."""
    lines = []
    for number, line in enumerate(series):
        values = [(_epochs(filled.cell), value_of(filled)) for filled in line.cells]
        known = {length: value for length, value in values if length is not None and value is not None}
        if known:
            lines.append((number, known))
    return lines


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
