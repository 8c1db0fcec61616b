"""Accuracy or loss of trainings after each epoch, a panel a row of the table, from the history in the results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.errors import HarnessError
from harness.figure.style import COLORS, GREY, PALE, PAPER, Style, short, title_of, wrapped
from harness.judge.table import FilledCell, Table
from harness.plan.job import Job
from harness.specs import Column, Row
from harness.store.result import Result

# What a history holds of each epoch, and the label of its axis.
TOP1, LOSS = "top1", "loss"
_LABELS = {TOP1: "top-1 on the test images (%)", LOSS: "loss over the training images"}
_ACROSS = 4  # panels side by side on a page; more would be too narrow to read
_PANEL = 1.55  # inches of height on a page, with one line of title
_MOST_ON_SCREEN = 30  # panels
_BEFORE = ""  # in place of a column: the pre-training that no column has


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity after each epoch, of every seed of one training; epochs of fine-tuning follow those before it."""

    epochs: tuple[int, ...]
    seeds: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean over the seeds, epoch by epoch."""
        return tuple(fmean(values) for values in zip(*self.seeds, strict=True))


def curves_figure(table: Table, style: Style = PAPER, quantity: str = TOP1) -> Figure:
    """Build the figure: each seed thin, their mean bold, a colour a column, and the default row's means dotted.

    Fine-tuning follows the pre-training that it starts from.  Raises `HarnessError` where nothing of the table was
    trained.
    """
    curves = {row.key: _curves(table, row, quantity) for row in table.spec.rows}
    rows = [row for row in table.spec.rows if curves[row.key]]
    if not rows:
        raise HarnessError(_nothing_trained(table))
    columns = [column for column in table.spec.columns if any(column.key in curves[row.key] for row in rows)]
    colors = {column.key: COLORS[number % len(COLORS)] for number, column in enumerate(columns)} | {_BEFORE: GREY}
    every = _groups(rows, curves)
    groups = every[: _MOST_ON_SCREEN if not style.grows else None]
    figure, panels, height = _panels([", ".join(row.label for row in group) for group in groups], style)
    default = {key: curve for key, curve in curves.get(table.spec.default or "", {}).items() if key != _BEFORE}
    compared = [group[0] for group in groups if default and table.spec.default not in {row.key for row in group}]
    drawn: dict[str, list[Curve]] = {}
    for (row, *_), axes in zip(groups, panels, strict=True):
        dotted = default if row in compared else {}
        for key, curve in dotted.items():
            axes.plot(curve.epochs, curve.mean, linestyle=":", linewidth=style.line, color=colors[key], zorder=2)
        for key, curve in curves[row.key].items():
            if key != _BEFORE or curve not in dotted.values():
                _draw(axes, curve, colors[key], style)
                drawn.setdefault(key, []).append(curve)
    seeds = max(len(curve.seeds) for of in drawn.values() for curve in of)
    entries: list[tuple[str, dict[str, Any]]] = [
        *((_column_label(table, column), {"color": colors[column.key]}) for column in columns),
        *([("the pre-training", {"color": GREY})] if _BEFORE in drawn else []),
        *([("each seed", {"color": GREY, "linewidth": 0.4 * style.line})] if seeds > 1 else []),
        *([("the default row", {"color": GREY, "linestyle": ":"})] if compared else []),
    ]
    follows = any(_epochs_before(each.job) for filled in table.cells.values() for each in filled.trainings)
    style.frame(
        figure,
        # In the title: the table's own says ImageNet, where a small scale has something else.
        f"{title_of(table)}\n{_trained_on(table, rows)}",
        handles=[Line2D([], [], label=label, **properties) for label, properties in entries],
        remarks=[
            "Epochs of fine-tuning follow those of pre-training." if follows else "",
            _left_out(table, quantity),
            f"{len(every) - len(groups)} of {len(every)} panels have no room." if len(every) > len(groups) else "",
        ],
        height=height,
    )
    figure.supylabel(_LABELS[quantity], fontsize=style.font)
    return figure


def _draw(axes: Axes, curve: Curve, color: str, style: Style) -> None:
    for values in curve.seeds if len(curve.seeds) > 1 else ():
        axes.plot(curve.epochs, values, linewidth=0.4 * style.line, alpha=0.5, color=color, zorder=3)
    # A single epoch is a point, of which a line would show nothing.
    marker = "o" if len(curve.epochs) == 1 else None
    axes.plot(curve.epochs, curve.mean, marker=marker, linewidth=1.3 * style.line, color=color, zorder=4)


def _column_label(table: Table, column: Column) -> str:
    """Return a column's label, with the epochs of its trainings where its own number of them is not that."""
    cells = [filled for (_, key), filled in table.cells.items() if key == column.key and filled.planned.scaled_down]
    trainings = [training for filled in cells if "epochs" in filled.cell.settings for training in filled.trainings]
    lengths = sorted({int(training.job["epochs"]) for training in trainings})
    return short(column.label) + (f" ({', '.join(map(str, lengths))} here)" if lengths else "")


def _groups(rows: list[Row], curves: Mapping[str, Mapping[str, Curve]]) -> list[list[Row]]:
    """Group the rows that rest on the same trainings, as those of the heads of one model."""
    groups: list[list[Row]] = []
    for row in rows:
        group = next((group for group in groups if curves[group[0].key] == curves[row.key]), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def _curves(table: Table, row: Row, quantity: str) -> Mapping[str, Curve]:
    """Return the curve of each column of a row; columns that share a training have one curve, that of the first.

    Pre-training that is in no column comes under `_BEFORE`, where a fine-tuned model of the row starts from it.
    """
    by_trainings: dict[tuple[str, ...], tuple[str, Curve]] = {}
    cells = [(column.key, table.cell(row.key, column.key)) for column in table.spec.columns]
    before = [(_BEFORE, _starts(filled)) for _, filled in cells]
    for key, trainings in (*((key, filled.trainings) for key, filled in cells), *before):
        curve = _curve(trainings, quantity)
        if curve:
            by_trainings.setdefault(tuple(result.id for result in trainings), (key, curve))
    return dict(by_trainings.values())


def _starts(filled: FilledCell) -> tuple[Result, ...]:
    """Return the results of the trainings that those of a cell start from."""
    starts = (training.job.need("start") for training in filled.trainings)
    return tuple(filled.behind[start.key] for start in starts if start and start.key in filled.behind)


def _curve(trainings: Iterable[Result], quantity: str) -> Curve | None:
    rows = [values for training in trainings if (values := _values(training, quantity))]
    shared = sorted(set.intersection(*map(set, rows))) if rows else []
    if not shared:
        return None
    return Curve(epochs=tuple(shared), seeds=tuple(tuple(of[epoch] for epoch in shared) for of in rows))


def _values(training: Result, quantity: str) -> dict[int, float]:
    """Return a quantity of a training by epoch; empty where it failed or did not keep it."""
    history = training.facts["history"] if training.error is None else ()
    before = _epochs_before(training.job)
    return {before + int(epoch["epoch"]): float(epoch[quantity]) for epoch in history if quantity in epoch}


def _epochs_before(job: Job) -> int:
    start = job.need("start")
    return int(start["epochs"]) + _epochs_before(start) if start else 0


def _panels(titles: Sequence[str], style: Style) -> tuple[Figure, list[Axes], float]:
    """Return a figure with a panel a title, and the height that the panels need on a page, in inches."""
    count = len(titles)
    across = min(count, _ACROSS if style.grows else max(_ACROSS, ceil(sqrt(count))))
    down = -(-count // across)
    figure = style.empty_figure()
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for unused in axes[count:]:
        unused.remove()
    lines = 1
    for number, panel in enumerate(axes[:count]):
        panel.grid(visible=True, color=PALE, linewidth=0.6)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        if number + across >= count:  # the last of its column of panels
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("epochs", fontsize=style.small)
        panel.tick_params(labelsize=style.label)
        title = wrapped(figure, short(titles[number], 200), style.small, 0.86 * figure.get_figwidth() / across)
        panel.set_title(title, fontsize=style.small, loc="left")
        lines = max(lines, 1 + title.count("\n"))
    return (
        figure,
        axes[:count],
        0.5 + down * ((_PANEL if down > 1 else 1.5 * _PANEL) + (lines - 1) * 1.2 * style.small / 72),
    )


def _trained_on(table: Table, rows: list[Row]) -> str:
    """Return scale, images and seeds of the trainings: curves of a stand-in are not the paper's."""
    cells = [filled for (row, _), filled in table.cells.items() if filled.trainings and row in {r.key for r in rows}]
    images = dict.fromkeys(str(result.job["data"]) for filled in cells for result in filled.trainings)
    scales = dict.fromkeys(filled.planned.scale for filled in cells if filled.planned.scaled_down)
    seeds = max(len(filled.trainings) for filled in cells)
    scale = f" at the {', '.join(scales)} scale" if scales else ""
    return f"trained on {', '.join(images)}{scale}{f', {seeds} seeds' if seeds > 1 else ''}"


def _left_out(table: Table, quantity: str) -> str:
    trainings = {result.id: result for filled in table.cells.values() for result in filled.trainings}
    count = sum(not _values(result, quantity) for result in trainings.values())
    return f"{count} of {len(trainings)} trainings failed or kept no {quantity}, and are not drawn." if count else ""


def _nothing_trained(table: Table) -> str:
    """Return the message that there is nothing to draw, and how to train it."""
    name, failed = table.spec.name, [r for filled in table.cells.values() for r in filled.trainings]
    scale = next(filter(None, (filled.planned.scale for filled in table.cells.values())), "full")
    command = f"`harness reproduce {name} --train --scale {scale}`"
    if failed:
        return f"every training of '{name}' at the {scale} scale failed; {command} tries again"
    return (
        f"nothing of '{name}' was trained at the {scale} scale; name another with --train --scale, "
        f"or train with {command}"
    )
