"""Accuracy or loss of trainings after each epoch, a panel a row of the table, from the history in the results."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.errors import HarnessError
from harness.figure.style import COLORS, GREY, PALE, PAPER, Style, short, title_of
from harness.judge.table import Table
from harness.specs import Row
from harness.store.result import Result

# What a history holds of each epoch, and the label of its axis.
TOP1, LOSS = "top1", "loss"
_LABELS = {TOP1: "top-1 on the test images (%)", LOSS: "loss over the training images"}
_ACROSS = 4  # panels side by side; more would be too narrow to read
_PANEL = 1.55  # inches of height on a page


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity after each epoch, of every seed of one training."""

    epochs: tuple[int, ...]
    seeds: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean over the seeds, epoch by epoch."""
        return tuple(fmean(values) for values in zip(*self.seeds, strict=True))


def curves_figure(table: Table, style: Style = PAPER, quantity: str = TOP1) -> Figure:
    """Build the figure: each seed thin, their mean bold, a colour a column, and the default row's means dotted.

    Raises `HarnessError` where nothing of the table was trained.
    """
    curves = {row.key: _curves(table, row, quantity) for row in table.spec.rows}
    rows = [row for row in table.spec.rows if curves[row.key]]
    if not rows:
        scale = next(filter(None, (filled.planned.scale for filled in table.cells.values())), "full")
        raise HarnessError(
            f"nothing of '{table.spec.name}' was trained at the {scale} scale; name another with --train --scale, "
            f"or train with `harness reproduce {table.spec.name} --train --scale {scale}`"
        )
    columns = [column for column in table.spec.columns if any(column.key in curves[row.key] for row in rows)]
    colors = {column.key: COLORS[number % len(COLORS)] for number, column in enumerate(columns)}
    groups = _groups(rows, curves)
    figure, panels = _panels(len(groups), style)
    default = curves.get(table.spec.default or "", {})
    for (row, *others), axes in zip(groups, panels, strict=True):
        if row.key != table.spec.default:
            for key, curve in default.items():
                axes.plot(curve.epochs, curve.mean, linestyle=":", linewidth=style.line, color=colors[key], zorder=2)
        for key, curve in curves[row.key].items():
            for values in curve.seeds if len(curve.seeds) > 1 else ():
                axes.plot(curve.epochs, values, linewidth=0.4 * style.line, alpha=0.5, color=colors[key], zorder=3)
            # A single epoch is a point, of which a line would show nothing.
            marker = "o" if len(curve.epochs) == 1 else None
            axes.plot(
                *(curve.epochs, curve.mean), marker=marker, linewidth=1.3 * style.line, color=colors[key], zorder=4
            )
        more = f" + {len(others)} more" if others else ""
        axes.set_title(f"{short(row.label, 26 - len(more))}{more}", fontsize=style.small, loc="left")
    handles = [Line2D([], [], color=colors[column.key], label=short(column.label)) for column in columns]
    if default and len(groups) > 1:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="the default row"))
    style.figure_legend(figure, handles)
    figure.supylabel(_LABELS[quantity], fontsize=style.font)
    # In the title: the table's own says ImageNet, where a small scale has something else.
    figure.suptitle(f"{title_of(table)}\n{_trained_on(table, rows)}", fontsize=style.title)
    return figure


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
    """Return the curve of each column of a row; columns that share a training have one curve, that of the first."""
    by_trainings: dict[tuple[str, ...], tuple[str, Curve]] = {}
    for column in table.spec.columns:
        trainings = table.cell(row.key, column.key).trainings
        curve = _curve(trainings, quantity)
        if curve:
            by_trainings.setdefault(tuple(result.id for result in trainings), (column.key, curve))
    return dict(by_trainings.values())


def _curve(trainings: Iterable[Result], quantity: str) -> Curve | None:
    histories = [result.facts["history"] for result in trainings if result.error is None]
    rows = [{int(epoch["epoch"]): epoch[quantity] for epoch in history if quantity in epoch} for history in histories]
    shared = sorted(set.intersection(*map(set, rows))) if rows else []
    if not shared:
        return None
    return Curve(epochs=tuple(shared), seeds=tuple(tuple(float(of[epoch]) for epoch in shared) for of in rows))


def _panels(count: int, style: Style) -> tuple[Figure, list[Axes]]:
    across = min(_ACROSS, count)
    down = -(-count // across)
    figure = style.empty_figure(height=1.5 + _PANEL * down)
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for unused in axes[count:]:
        unused.remove()
    for number, panel in enumerate(axes[:count]):
        panel.grid(visible=True, color=PALE, linewidth=0.6)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        if number + across >= count:  # the last of its column of panels
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("epochs", fontsize=style.small)
        panel.tick_params(labelsize=style.label)
    return figure, axes[:count]


def _trained_on(table: Table, rows: list[Row]) -> str:
    """Return scale, images and seeds of the trainings: curves of a stand-in are not the paper's."""
    cells = [filled for (row, _), filled in table.cells.items() if filled.trainings and row in {r.key for r in rows}]
    images = dict.fromkeys(str(result.job["data"]) for filled in cells for result in filled.trainings)
    scales = dict.fromkeys(filled.planned.scale for filled in cells if filled.planned.scaled_down)
    seeds = max(len(filled.trainings) for filled in cells)
    scale = f" at the {', '.join(scales)} scale" if scales else ""
    return f"trained on {', '.join(images)}{scale}{f', {seeds} seeds' if seeds > 1 else ''}"
