"""Each cell over time: its results, the noise band of each level, and what changed where the level did."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.cleaning import visible
from harness.errors import HarnessError
from harness.figure.style import COLORS, GREY, PALE, PAPER, Style, short, title_of
from harness.judge.table import Table
from harness.judge.trend import TableTrend, Trend
from harness.machine import Machine
from harness.report.formatting import heading
from harness.report.trend import cause_of, is_shown, row_of, size_of
from harness.store.result import Result

_ACROSS = 3  # panels side by side; more would have no room for what changed
_ON_A_SCREEN = 6  # panels that can be read from the last row
_PANEL = 1.75  # inches of height on a page
_LINE = 40  # letters of a line over a panel
_CHANGES = 3  # that are described over a panel
_BAND, _CHANGE = COLORS[0], COLORS[1]


def trend_figure(table: Table, table_trend: TableTrend, style: Style = PAPER) -> Figure:
    """Build the figure: a panel a series, all over the same time, clean results filled and noisy ones hollow.

    Raises `HarnessError` where no series of numbers has three results.
    """
    here = [trend for trend in table_trend.trends if _is_on(trend, table.machine)]
    trends = [trend for trend in here if is_shown(trend) and _numbers(trend)]
    if not trends:
        name = table.spec.name
        raise HarnessError(
            f"no cell of '{name}' has three results yet, so there is no trend to draw; "
            f"`harness reproduce {name} --rerun` adds a result to each"
        )
    drawable = len(trends)
    if not style.grows:
        trends = sorted(trends, key=lambda trend: not trend.changes)[:_ON_A_SCREEN]
    across = min(_ACROSS, len(trends))
    down = -(-len(trends) // across)
    figure = style.empty_figure()
    panels = figure.subplots(down, across, sharex=True, squeeze=False).flatten().tolist()
    for number, axes in enumerate(panels):
        if number >= len(trends):
            axes.remove()
            continue
        trend = trends[number]
        _draw(axes, trend, style)
        axes.set_title(_title(trend, row_of(trend, table_trend)), fontsize=style.label, loc="left")
        axes.set_ylabel(short(heading(trend.cell.column.label, trend.cell.unit), 26), fontsize=style.label)
        axes.tick_params(labelsize=style.label, labelbottom=number + across >= len(trends))
        locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.xaxis.get_offset_text().set_visible(number + across >= len(trends))
        axes.xaxis.get_offset_text().set_fontsize(style.label)
    machines = dict.fromkeys(trend.machine.label for trend in trends)
    few, others = len(here) - drawable, drawable - len(trends)
    style.frame(
        figure,
        title_of(table, f"Results over time, on {'; '.join(machines)}"),
        handles=_handles(trends, style),
        remarks=[
            f"Not drawn: {few} series of text, or of one or two results." if few else "",
            f"Changed ones first; not drawn: {others} more." if others else "",
        ],
        height=0.4 + _PANEL * down,
    )
    return figure


def _is_on(trend: Trend, machine: Machine | None) -> bool:
    """Whether the table shows the series: of throughputs, those of its machine."""
    job = trend.cells[0].job
    return machine is None or not (job and job.exclusive) or trend.machine.is_equivalent(machine)


def _day(result: Result) -> float:
    """Return when a result began, in matplotlib's days."""
    return result.started.timestamp() / 86_400


def _numbers(trend: Trend) -> bool:
    return any(isinstance(point.value, (int, float)) for point in trend.points)


def _draw(axes: Axes, trend: Trend, style: Style) -> None:
    axes.grid(visible=True, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for level in trend.levels:
        times = [_day(level.points[0].result), _day(level.points[-1].result)]
        if level.low is not None and level.high is not None:
            axes.fill_between(times, [level.low] * 2, [level.high] * 2, color=_BAND, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(times, [level.value] * 2, color=_BAND, linewidth=style.line, zorder=2)
    for point in trend.points:
        time = _day(point.result)
        if point.value is None:
            axes.plot([time], [0.03], "x", color="black", markersize=style.marker, transform=axes.get_xaxis_transform())
            continue
        if point.measurement and point.measurement.low is not None and point.measurement.high is not None:
            ends = [point.measurement.low, point.measurement.high]
            axes.plot([time] * 2, ends, color=GREY, linewidth=0.6 * style.line, zorder=2)
        axes.plot([time], [point.value], **_dot(style) | {"markerfacecolor": "white" if point.noisy else "black"})
    for number, change in enumerate(trend.changes, 1):
        axes.axvspan(_day(change.last_before), _day(change.first_after), color=_CHANGE, alpha=0.35, zorder=0)
        axes.annotate(
            str(number),
            (_day(change.first_after), 0.97),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(2, 0),
            verticalalignment="top",
            fontsize=style.label,
            color=_CHANGE,
        )
    axes.margins(y=0.12)


def _title(trend: Trend, name: str) -> str:
    """Return the name of a series, and a line or two for each of its newest changes."""
    numbered = list(enumerate(trend.changes, 1))[-_CHANGES:]
    texts = [f"{number}: {size_of(trend, change)}, {cause_of(change)}" for number, change in numbered]
    wrapped = (wrap(visible(text), _LINE, max_lines=2, placeholder=" …", subsequent_indent="   ") for text in texts)
    return "\n".join([short(name, _LINE), *(line for lines in wrapped for line in lines)])


def _dot(style: Style) -> dict[str, Any]:
    return {"linestyle": "none", "marker": "o", "color": "black", "markersize": style.marker / 2, "zorder": 3}


def _handles(trends: Sequence[Trend], style: Style) -> list[Artist]:
    points = [point for trend in trends for point in trend.points]
    dot = _dot(style)
    handles: list[Artist] = [Line2D([], [], label="result", **dot)]
    if any(point.noisy for point in points):
        handles.append(Line2D([], [], label="noisy result, not used", markerfacecolor="white", **dot))
    if any(point.value is None for point in points):
        handles.append(Line2D([], [], label="failed", **dot | {"marker": "x", "markersize": style.marker}))
    handles.append(Patch(color=_BAND, alpha=0.25, label="level, and where 99 % of results lie"))
    if any(trend.changes for trend in trends):
        handles.append(Patch(color=_CHANGE, alpha=0.35, label="level changed"))
    return handles
