"""One column against another, as in figure 1: our points over the published ones, or either alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.figure.style import PAPER, Style, family_styles, short, title_of
from harness.judge.table import Table
from harness.report.formatting import borrowed_remark, measured_point
from harness.specs import Row


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row in the figure.  `borrowed` tells that `y` is the published value because ours was not measured."""

    row: Row
    x: float
    y: float
    borrowed: bool = False


def points_figure(table: Table, style: Style = PAPER, points: str = "both") -> Figure:
    """Build the figure: a line through each family, published points hollow under ours.

    `points` is `both`, or `ours` or `published` for that alone, filled as in the paper.  Raises `HarnessError` where
    ours are requested and none was measured.
    """
    assert table.spec.axes
    x, y = table.spec.axes
    published = [] if points == "ours" else [p for row in table.spec.rows if (p := _published(table, row, x, y))]
    ours = [] if points == "published" else [p for row in table.spec.rows if (p := _measured(table, row, x, y))]
    if points == "ours" and not ours:
        raise HarnessError(nothing_measured(table))
    figure, axes = style.one_panel()
    axes.set_xscale("log")
    styles = family_styles(table)
    for drawn, solid in ((published, points == "published"), (ours, True)):
        for family, members in _families(drawn).items():
            # The order of the table is the order of size, and a line shows a family's curve.
            properties = style.line_properties(*styles[family], solid=solid)
            axes.plot([point.x for point in members], [point.y for point in members], **properties)
    column = {c.key: c for c in table.spec.columns}
    axes.set_xlabel(f"{column[x].label} ({column[x].unit}), log scale")
    axes.set_ylabel(f"{column[y].label} ({column[y].unit})")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=50))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.06, y=0.08)
    machine = f" ({column[x].machine})" if column[x].machine else ""
    here = f" ({short(table.machine.label)})" if table.machine else ""
    labels = (f"published{machine}" if points != "ours" else "", f"measured{here}" if ours else "")
    handles = [
        *style.family_handles(table, _families([*published, *ours]).keys() - {""}),
        *style.source_handles(*labels, solid=points == "published"),
    ]
    style.legend_below(axes, handles, columns=4 if style.grows else 3)
    figure.suptitle(title_of(table), fontsize=style.title)
    style.remark(figure, borrowed_remark("accuracy", [point.borrowed for point in ours]))
    _label(figure, axes, [*ours, *published], black=len(ours) or len(published), style=style)
    return figure


def nothing_measured(table: Table) -> str:
    """Return the message that there are no points of ours, and how to measure some."""
    name = table.spec.name
    return (
        f"nothing of '{name}' was measured yet, so there is nothing of ours to draw; "
        f"run `harness reproduce {name}`, or draw the paper's with --points published"
    )


def _published(table: Table, row: Row, *axes: str) -> Point | None:
    x, y = (table.cell(row.key, key).published_number for key in axes)
    return None if x is None or y is None else Point(row=row, x=x, y=y)


def _measured(table: Table, row: Row, *axes: str) -> Point | None:
    point = measured_point(*(table.cell(row.key, key) for key in axes))
    return Point(row=row, x=point[0], y=point[1], borrowed=point[2]) if point else None


def _families(points: Iterable[Point]) -> dict[str, list[Point]]:
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.row.family or "", []).append(point)
    return families


def _label(figure: Figure, axes: Axes, points: Sequence[Point], *, black: int, style: Style) -> None:
    """Label the points; the first `black` in black, the rest in grey.

    A label goes to the nearest free position.  A point without a free position has no label, rather than one under
    another.
    """
    figure.draw_without_rendering()
    bounds = axes.get_window_extent()
    occupied = [_around(axes, point, style) for point in points]
    occupied += [*_along_lines(axes, points[:black]), *_along_lines(axes, points[black:])]
    for number, point in enumerate(points):
        text = axes.annotate(
            short(point.row.label.rpartition(": ")[2]),  # what is in the legend is left out: "EfficientNet: B0" is B0
            (point.x, point.y),
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=style.label,
            color="black" if number < black else "#666666",
            zorder=4,
        )
        if not _move(text, occupied, bounds, style.label / PAPER.label):
            text.remove()


def _move(text: Annotation, occupied: list[Bbox], bounds: Bbox, scale: float) -> bool:
    """Move a label to the nearest free position around its point."""
    for distance in (6 * scale, 10 * scale, 15 * scale, 21 * scale, 28 * scale):
        for step in range(16):
            angle = math.pi / 8 * step + math.pi / 4
            across, up = math.cos(angle), math.sin(angle)
            text.set_position((distance * across, distance * up))
            text.set_horizontalalignment("left" if across > 0.3 else "right" if across < -0.3 else "center")
            text.set_verticalalignment("bottom" if up > 0.3 else "top" if up < -0.3 else "center")
            box = text.get_window_extent().padded(1)
            inside = bounds.x0 <= box.x0 and box.x1 <= bounds.x1 and bounds.y0 <= box.y0 and box.y1 <= bounds.y1
            if inside and not any(box.overlaps(other) for other in occupied):
                occupied.append(box)
                return True
    return False


def _around(axes: Axes, point: Point, style: Style) -> Bbox:
    """Return the space that a marker takes, in pixels."""
    x, y = axes.transData.transform((point.x, point.y))
    size = style.marker * 2 / 3 * axes.figure.dpi / 72
    return Bbox.from_extents(x - size, y - size, x + size, y + size)


def _along_lines(axes: Axes, points: Sequence[Point]) -> Iterable[Bbox]:
    """Yield small boxes along each family's line, so that no label is on it."""
    for members in _families(points).values():
        positions = [axes.transData.transform((p.x, p.y)) for p in members]
        for (x0, y0), (x1, y1) in pairwise(positions):
            steps = max(1, int(math.hypot(x1 - x0, y1 - y0) // 6))
            for step in range(1, steps):
                x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
                yield Bbox.from_extents(x - 1, y - 1, x + 1, y + 1)
