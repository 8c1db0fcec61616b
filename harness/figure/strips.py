"""Figures with a strip a row: every timed run of each throughput, and each throughput over the published one."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from harness.errors import HarnessError
from harness.figure.style import GREY, PAPER, Style, family_styles, log_ticks, short, title_of, width_of
from harness.judge.table import FilledCell, Table
from harness.report.formatting import number
from harness.store.result import Measurement, Result

STRIP_HEIGHT = 0.2  # inches that a strip takes on a page
_LABELS = 0.75  # inches that the axis and its label take


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One throughput: its label, its family, and the cell."""

    label: str
    family: str
    filled: FilledCell


@dataclass(frozen=True, kw_only=True)
class TimedRuns:
    """The runs of one throughput as shares of the mean that the table shows, in the order in which they were timed."""

    shares: tuple[float, ...]
    low: float
    high: float


def runs_figure(table: Table, style: Style = PAPER) -> Figure:
    """Draw every timed run of each throughput around its mean, the first at the top: drift leans, noise spreads.

    Raises `HarnessError` where no throughput was measured.
    """
    measured = _strips(table)
    strips = measured[: _most(style)]
    figure, axes = style.one_panel()
    styles = family_styles(table)
    for position, strip in enumerate(strips):
        color, _ = styles[strip.family]
        runs = timed_runs(strip.filled)
        count = len(runs.shares)
        heights = [position - 0.32 + 0.64 * run / max(1, count - 1) for run in range(count)]
        axes.plot(runs.shares, heights, ".", color=color, markersize=style.marker / 2, zorder=3)
        axes.plot([runs.low, runs.high], [position, position], color="black", linewidth=1.3 * style.line, zorder=2)
        if count > 1:
            low, _, high = statistics.quantiles(runs.shares, n=4, method="inclusive")
            axes.barh(position, high - low, height=0.7, left=low, color=color, alpha=0.25, zorder=1)
    axes.axvline(1, color=GREY, linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 2.5, 5, 10)))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel(
        "throughput of each run, as a share of the mean of all\n"
        "(each strip from top to bottom: first run to last; shaded: the middle half)"
    )
    axes.margins(x=0.03)
    interval = Line2D([], [], color="black", linewidth=1.3 * style.line, label="95 % interval of the mean")
    texts = [(strip.label, _throughput(strip.filled)) for strip in strips]
    has_interval = (_measured(strip.filled)[0].low is not None for strip in strips)
    shared = len(strips) - len({_measured(strip.filled)[1].id for strip in strips})
    height = style.frame(
        figure,
        title_of(table, f"Timed runs on {_machine(table)}"),
        handles=[
            *style.family_handles(table, {strip.family for strip in strips}, marker="."),
            *([interval] if any(has_interval) else []),
        ],
        remarks=[
            f"{shared} of the {len(strips)} strips show the runs of another one: their rows share a measurement."
            if shared
            else "",
            _without_room(len(measured) - len(strips), len(measured)),
        ],
        height=_LABELS + STRIP_HEIGHT * len(strips),
        label_width=_label_width(figure, texts, style),
    )
    _label(axes, texts, style, height)
    return figure


def ratios_figure(table: Table, style: Style = PAPER) -> Figure:
    """Draw each throughput over the published one, family by family, with the median of each family.

    Raises `HarnessError` where no throughput was measured that was published too.
    """
    measured = _strips(table)
    comparable = [strip for strip in measured if strip.filled.published_number]
    if not comparable:
        raise HarnessError(
            f"nothing was published for the throughputs of '{table.spec.name}' that were measured; "
            "--chart runs draws their runs"
        )
    order = [*table.spec.families, ""]
    # Stable: within a family the table's order.
    strips = sorted(comparable, key=lambda strip: order.index(strip.family))[: _most(style)]
    ratios = [throughput_ratio(strip.filled) for strip in strips]
    wrong = [is_wrong(strip.filled, table) for strip in strips]
    figure, axes = style.one_panel()
    axes.set_xscale("log")
    styles = family_styles(table)
    for position, (strip, (ratio, low, high)) in enumerate(zip(strips, ratios, strict=True)):
        color, marker = styles[strip.family]
        face = "white" if wrong[position] else color
        axes.plot([low, high], [position, position], color=color, linewidth=style.line, zorder=2)
        axes.plot([ratio], [position], marker, color=color, markerfacecolor=face, markersize=style.marker, zorder=3)
    for family in order:
        positions = [position for position, strip in enumerate(strips) if strip.family == family]
        right = [ratios[position][0] for position in positions if not wrong[position]]
        if right:
            ends = [positions[0] - 0.4, positions[-1] + 0.4]
            color = styles[family][0]
            axes.plot([statistics.median(right)] * 2, ends, color=color, linewidth=3 * style.line, alpha=0.35, zorder=1)
        if positions and positions[0]:
            axes.axhline(positions[0] - 0.5, color=GREY, linewidth=0.5)
    values = [f"×{number(ratio, None, significant=3)}" for ratio, _, _ in ratios]
    texts = [(strip.label, value) for strip, value in zip(strips, values, strict=True)]
    label_width = _label_width(figure, texts, style)
    low, high = axes.get_xlim()
    log_ticks(axes.xaxis, low, high, "×{:g}", share=1 - label_width / figure.get_figwidth())
    if low / 2 <= 1 <= high * 2:  # else a line at 1 would squeeze everything else together
        axes.axvline(1, color=GREY, linewidth=0.8, zorder=0)
    machines = dict.fromkeys(strip.filled.cell.column.machine for strip in strips if strip.filled.cell.column.machine)
    published = short(f"published ({', '.join(machines)})") if machines else "published"
    axes.set_xlabel(f"measured over {published}, log scale")
    kind = "median of the family" if table.spec.families else "median"
    median = Line2D([], [], color=GREY, linewidth=3 * style.line, alpha=0.35, label=kind)
    hollow = style.marker_handle("published value known to be wrong", GREY, "o", face="white")
    left_out = len(measured) - len(comparable)
    height = style.frame(
        figure,
        title_of(table, f"Measured over published throughput, on {_machine(table)}"),
        handles=[
            *style.family_handles(table, {strip.family for strip in strips}),
            *([] if all(wrong) else [median]),
            *([hollow] if any(wrong) else []),
        ],
        remarks=[
            f"{left_out} of the {len(measured)} measured throughputs have no published value and are not drawn."
            if left_out
            else "",
            _without_room(len(comparable) - len(strips), len(comparable)),
        ],
        height=_LABELS + STRIP_HEIGHT * len(strips),
        label_width=label_width,
    )
    _label(axes, texts, style, height)
    return figure


def timed_runs(filled: FilledCell) -> TimedRuns:
    """Return the runs of a throughput over its mean, which is batch size times runs over their total time."""
    measurement, result = _measured(filled)
    value, batch = float(measurement.value), int(result.facts["batch"])
    return TimedRuns(
        shares=tuple(batch / seconds / value for seconds in measurement.samples),
        low=(measurement.low or value) / value,
        high=(measurement.high or value) / value,
    )


def throughput_ratio(filled: FilledCell) -> tuple[float, float, float]:
    """Return a throughput over the published one, with the ends of its interval."""
    measurement, published = _measured(filled)[0], filled.published_number
    assert published
    value = float(measurement.value)
    return value / published, (measurement.low or value) / published, (measurement.high or value) / published


def is_wrong(filled: FilledCell, table: Table) -> bool:
    """Whether the published value is known to be wrong."""
    paper = next((r for r in filled.cell.references if r.source.kind == "paper"), None)
    return paper is not None and table.spec.is_wrong(paper.published)


def is_throughput(filled: FilledCell) -> bool:
    """Whether a cell holds a measured throughput."""
    return filled.cell.kind == filled.cell.metric == "throughput" and filled.measurement is not None


def _strips(table: Table) -> list[Strip]:
    measured = {key: filled for key, filled in table.cells.items() if is_throughput(filled)}
    if not measured:
        name = table.spec.name
        raise HarnessError(
            f"no throughput of '{name}' was measured yet; run `harness reproduce {name} --throughput-only`"
        )
    several = len({column for _, column in measured}) > 1
    return [
        Strip(
            label=short(f"{filled.cell.row.label}, {filled.cell.column.label}" if several else filled.cell.row.label),
            family=family if (family := filled.cell.row.family or "") in table.spec.families else "",
            filled=filled,
        )
        for filled in measured.values()
    ]


def _measured(filled: FilledCell) -> tuple[Measurement, Result]:
    assert filled.measurement
    assert filled.result
    return filled.measurement, filled.result


def _throughput(filled: FilledCell) -> str:
    measurement, result = _measured(filled)
    return f"{float(measurement.value):.4g} {filled.cell.unit} @{result.facts['batch']}"


def _machine(table: Table) -> str:
    return short(table.machine.label) if table.machine else "an unknown machine"


def _most(style: Style) -> int:
    """Return how many strips have room: with labels that can be read on a screen, with a file that can be on a page."""
    return 1400 if style.grows else 50


def _without_room(left_out: int, count: int) -> str:
    return f"{left_out} of {count} throughputs have no room and are not drawn." if left_out else ""


def _label_width(figure: Figure, texts: Sequence[tuple[str, str]], style: Style) -> float:
    """Return the width of the labels on both sides, in inches."""
    return sum(width_of(figure, "\n".join(side), style.small) for side in zip(*texts, strict=True)) + 0.3


def _label(axes: Axes, texts: Sequence[tuple[str, str]], style: Style, height: float) -> None:
    """Write the label of each strip on its left and its value on its right, the first strip on top.

    They are as small as the height of the drawing, in inches, needs.
    """
    size = min(style.small, 0.75 * 72 * (height - _LABELS) / len(texts))
    axes.set_yticks(range(len(texts)), [label for label, _ in texts], fontsize=size)
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for position, (_, value) in enumerate(texts):
        axes.annotate(
            value,
            (1, position),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(4, 0),
            verticalalignment="center_baseline",
            fontsize=size,
            color=GREY,
            annotation_clip=False,
        )
