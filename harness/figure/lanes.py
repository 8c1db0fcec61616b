"""Figures with a lane a row: every timed run of each speed, and each speed over the published one."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from harness.errors import HarnessError
from harness.figure.looks import GREY, PAPER, Style, looks_of, sheet, short, title_of
from harness.report.words import number
from harness.result import Measurement, Result
from harness.spec import Reference
from harness.table import Filled, Table

LANE = 0.2  # inches that a lane takes on a page


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One speed: what it is called, whose family it is, and the cell."""

    label: str
    family: str
    filled: Filled


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """The runs of one speed as shares of the mean that the table shows, in the order in which they were timed."""

    shares: tuple[float, ...]
    low: float
    high: float


def runs_of(table: Table, style: Style = PAPER) -> Figure:
    """Draw every timed run of each speed around its mean, first run at the top of its lane: drift leans, noise spreads.

    Raises `HarnessError` where no speed was measured.
    """
    lanes = _distinct(_lanes(table))
    figure, axes = sheet(style, height=1.4 + LANE * len(lanes))
    looks = looks_of(table)
    for place, lane in enumerate(lanes):
        color, _ = looks[lane.family]
        speeds = speeds_of(lane.filled)
        rows = [place - 0.32 + 0.64 * run / max(1, len(speeds.shares) - 1) for run in range(len(speeds.shares))]
        axes.plot(speeds.shares, rows, ".", color=color, markersize=style.marker / 2, zorder=3)
        axes.plot([speeds.low, speeds.high], [place, place], color="black", linewidth=1.3 * style.line, zorder=2)
        quarters = statistics.quantiles(speeds.shares, n=4, method="inclusive")
        axes.barh(place, quarters[2] - quarters[0], height=0.7, left=quarters[0], color=color, alpha=0.25, zorder=1)
    _name(figure, axes, [(lane.label, _said(lane.filled)) for lane in lanes], style)
    axes.axvline(1, color=GREY, linewidth=0.8, zorder=0)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel(
        "images a second of each run, as a share of the mean of all\n"
        "(each lane from top to bottom: first run to last; shaded: the middle half)"
    )
    axes.margins(x=0.03)
    handles = [
        *_families(table, lanes, style),
        Line2D([], [], color="black", linewidth=1.3 * style.line, label="95 % interval of the mean"),
    ]
    _legend(figure, handles, style)
    figure.suptitle(title_of(table, f"Timed runs on {_machine(table)}"), fontsize=style.title)
    return figure


def ratios_of(table: Table, style: Style = PAPER) -> Figure:
    """Draw each speed over the published one, family by family, with the middle of each family.

    Raises `HarnessError` where no speed was measured that was published too.
    """
    lanes = [lane for lane in _lanes(table) if lane.filled.cell.printed and lane.filled.cell.printed.value]
    if not lanes:
        raise HarnessError(
            f"nothing was published for the speeds of '{table.spec.name}' that were measured; "
            "--chart runs draws their runs"
        )
    order = [*table.spec.families, ""]
    lanes.sort(key=lambda lane: order.index(lane.family))  # stable: within a family the table's order
    figure, axes = sheet(style, height=1.6 + LANE * len(lanes))
    axes.set_xscale("log")
    looks = looks_of(table)
    for family in order:
        places = [place for place, lane in enumerate(lanes) if lane.family == family]
        sound = [ratio_of(lanes[place].filled)[0] for place in places if not is_wrong(lanes[place].filled, table)]
        for place in places:
            _dot(axes, place, lanes[place], table, style)
        if sound:
            middle = statistics.median(sound)
            ends = [places[0] - 0.4, places[-1] + 0.4]
            axes.plot([middle, middle], ends, color=looks[family][0], linewidth=3 * style.line, alpha=0.35, zorder=1)
        if places and places[0]:
            axes.axhline(places[0] - 0.5, color=GREY, linewidth=0.5)
    _name(
        figure,
        axes,
        [(lane.label, f"×{number(ratio_of(lane.filled)[0], None, significant=3)}") for lane in lanes],
        style,
    )
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 1.5, 2, 2.5, 3, 4, 5, 7), numticks=50))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _include_one(axes)
    published = next((lane.filled.cell.column.machine for lane in lanes), None)
    axes.set_xlabel(f"measured over published{f' ({published})' if published else ''}, log scale")
    hollow = Line2D(
        *([], []),
        color=GREY,
        marker="o",
        linestyle="none",
        markersize=style.marker,
        markerfacecolor="white",
        label="print known to be wrong",
    )
    middles = Line2D([], [], color=GREY, linewidth=3 * style.line, alpha=0.35, label="median of the family")
    wrong = [hollow] if any(is_wrong(lane.filled, table) for lane in lanes) else []
    _legend(figure, [*_families(table, lanes, style), middles, *wrong], style)
    figure.suptitle(title_of(table, f"Speed over the published one, on {_machine(table)}"), fontsize=style.title)
    return figure


def speeds_of(filled: Filled) -> Speeds:
    """Give the runs of a speed over its mean, which is batch times runs over their total time."""
    measured, result = _of(filled)
    value, batch = float(measured.value), int(result.facts["batch"])
    return Speeds(
        shares=tuple(batch / seconds / value for seconds in measured.samples),
        low=(measured.low or value) / value,
        high=(measured.high or value) / value,
    )


def ratio_of(filled: Filled) -> tuple[float, float, float]:
    """Give a speed over the published one with the ends of its interval."""
    measured, _ = _of(filled)
    assert filled.cell.printed
    assert filled.cell.printed.value
    value, published = float(measured.value), filled.cell.printed.value
    return value / published, (measured.low or value) / published, (measured.high or value) / published


def is_wrong(filled: Filled, table: Table) -> bool:
    """Whether the print is known to be wrong."""
    paper: list[Reference] = [r for r in filled.cell.references if r.source.kind == "paper"]
    marks = paper[0].printed.marks if paper else ()
    return any(table.spec.footnotes[mark].effect == "wrong" for mark in marks if mark in table.spec.footnotes)


def _lanes(table: Table) -> list[Lane]:
    speeds = {place: filled for place, filled in table.cells.items() if is_speed(filled)}
    if not speeds:
        name = table.spec.name
        raise HarnessError(f"no speed of '{name}' was measured yet; run `harness reproduce {name} --throughput-only`")
    several = len({column for _, column in speeds}) > 1
    return [
        Lane(
            label=short(f"{filled.cell.row.label}, {filled.cell.column.label}" if several else filled.cell.row.label),
            family=family if (family := filled.cell.row.family or "") in table.spec.families else "",
            filled=filled,
        )
        for filled in speeds.values()
    ]


def is_speed(filled: Filled) -> bool:
    """Whether a cell holds a measured speed with its runs."""
    measured = filled.measurement
    return (filled.cell.kind, filled.cell.metric) == ("throughput", "throughput") and bool(
        measured and len(measured.samples) > 1
    )


def _distinct(lanes: Sequence[Lane]) -> list[Lane]:
    """Keep one lane a run: rows that share a job show the same runs."""
    first: dict[str, Lane] = {}
    for lane in lanes:
        first.setdefault(_of(lane.filled)[1].id, lane)
    return list(first.values())


def _of(filled: Filled) -> tuple[Measurement, Result]:
    assert filled.measurement
    assert filled.result
    return filled.measurement, filled.result


def _said(filled: Filled) -> str:
    measured, result = _of(filled)
    return f"{float(measured.value):.4g} {filled.cell.unit} @{result.facts['batch']}"


def _machine(table: Table) -> str:
    return short(table.machine.label) if table.machine else "an unknown machine"


def _dot(axes: Axes, place: int, lane: Lane, table: Table, style: Style) -> None:
    """Draw one ratio with its interval; hollow where the print is wrong."""
    color, marker = looks_of(table)[lane.family]
    middle, low, high = ratio_of(lane.filled)
    axes.plot([low, high], [place, place], color=color, linewidth=style.line, zorder=2)
    face = "white" if is_wrong(lane.filled, table) else color
    axes.plot([middle], [place], marker, color=color, markerfacecolor=face, markersize=style.marker, zorder=3)


def _name(figure: Figure, axes: Axes, names: Sequence[tuple[str, str]], style: Style) -> None:
    """Write what each lane is on its left and what it came to on its right, the first lane on top."""
    height = figure.get_figheight() - 1.6
    size = min(style.small, 0.75 * 72 * height / max(1, len(names)))
    axes.set_yticks(range(len(names)), [label for label, _ in names], fontsize=size)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for place, (_, said) in enumerate(names):
        axes.annotate(
            said,
            (1, place),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(4, 0),
            verticalalignment="center_baseline",
            fontsize=size,
            color=GREY,
            annotation_clip=False,
        )


def _include_one(axes: Axes) -> None:
    """Mark where both speeds are the same, if that is near enough not to squeeze everything else together."""
    low, high = axes.get_xlim()
    if low / 2 <= 1 <= high * 2:
        axes.axvline(1, color=GREY, linewidth=0.8, zorder=0)


def _families(table: Table, lanes: Sequence[Lane], style: Style) -> list[Line2D]:
    shown, looks = {lane.family for lane in lanes}, looks_of(table)
    labels = {**{key: short(family.label) for key, family in table.spec.families.items()}, "": "other"}
    return [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=style.marker, label=labels[key])
        for key, (color, marker) in looks.items()
        if key in shown and len(looks) > 1
    ]


def _legend(figure: Figure, handles: Sequence[Line2D], style: Style) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=style.small)
