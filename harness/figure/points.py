"""One column against another, as figure 1 has it: our points over the published ones, or either alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.figure.looks import GREY, PAPER, Style, looks_of, remark, sheet, short, title_of, trace
from harness.spec import Row
from harness.table import Filled, Table


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row in the figure.  `borrowed` tells that `y` is the published value because ours was not measured."""

    row: Row
    x: float
    y: float
    borrowed: bool = False


def figure_of(table: Table, style: Style = PAPER, points: str = "both") -> Figure:
    """Build the figure: a line through each family, published points hollow under ours.

    `points` is `both`, or `ours` or `published` for that alone, filled as the paper draws its own.  Raises
    `HarnessError` where ours are wanted and none was measured.
    """
    assert table.spec.axes
    x, y = table.spec.axes
    published = [] if points == "ours" else [p for row in table.spec.rows if (p := _published(table, row, x, y))]
    ours = [] if points == "published" else [p for row in table.spec.rows if (p := _measured(table, row, x, y))]
    if points == "ours" and not ours:
        raise HarnessError(nothing_of_ours(table))
    figure, axes = sheet(style)
    axes.set_xscale("log")
    looks = looks_of(table)
    for drawn, solid in ((published, points == "published"), (ours, True)):
        for family, members in _families(drawn).items():
            color, marker = looks[family]
            # The order of the table is the order of size, and a line shows a family's curve.
            line = trace(style, color, marker, solid=solid)
            axes.plot([point.x for point in members], [point.y for point in members], **line)
    column = {c.key: c for c in table.spec.columns}
    axes.set_xlabel(f"{column[x].label} ({column[x].unit}), log scale")
    axes.set_ylabel(f"{column[y].label} ({column[y].unit})")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=50))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.06, y=0.08)
    machine = f" ({column[x].machine})" if column[x].machine else ""
    here = f" ({short(table.machine.label)})" if table.machine else ""
    whose = sources(
        f"published{machine}" if points != "ours" else "",
        f"measured{here}" if ours else "",
        solid=points == "published",
    )
    _legend(axes, table, [*published, *ours], whose, style)
    figure.suptitle(title_of(table), fontsize=style.title)
    remark(figure, [_borrowed(ours)], style)
    _label(figure, axes, [*ours, *published], black=len(ours) or len(published), style=style)
    return figure


def nothing_of_ours(table: Table) -> str:
    """Say how to come by points of one's own."""
    name = table.spec.name
    return (
        f"nothing of '{name}' was measured yet, so there is nothing of ours to draw; "
        f"run `harness reproduce {name}`, or draw the paper's with --points published"
    )


def _borrowed(ours: Sequence[Point]) -> str:
    borrowed = sum(point.borrowed for point in ours)
    if not borrowed:
        return ""
    whose = "all our points" if borrowed == len(ours) else f"{borrowed} of our {len(ours)} points"
    return f"The accuracy of {whose} is the published one: it was not measured."


def _published(table: Table, row: Row, x: str, y: str) -> Point | None:
    values = [_printed(table.cell(row.key, key)) for key in (x, y)]
    return None if values[0] is None or values[1] is None else Point(row=row, x=values[0], y=values[1])


def _printed(filled: Filled) -> float | None:
    return filled.cell.printed.value if filled.cell.printed else None


def _measured(table: Table, row: Row, x: str, y: str) -> Point | None:
    across, up = (table.cell(row.key, key) for key in (x, y))
    if across.measurement is None or isinstance(across.measurement.value, str):
        return None
    if up.measurement is not None and not isinstance(up.measurement.value, str) and up.of_all_images:
        return Point(row=row, x=across.measurement.value, y=up.measurement.value)
    published = _printed(up)
    return None if published is None else Point(row=row, x=across.measurement.value, y=published, borrowed=True)


def _families(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.row.family or "", []).append(point)
    return found


def _legend(axes: Axes, table: Table, drawn: Sequence[Point], whose: Sequence[Line2D], style: Style) -> None:
    shown, looks = _families(drawn), looks_of(table)
    handles = [
        Line2D([], [], color=looks[key][0], marker=looks[key][1], linestyle="none", label=short(family.label))
        for key, family in table.spec.families.items()
        if key in shown
    ]
    handles += whose
    for handle in handles:
        handle.set_markersize(style.marker)
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=4 if style.grows else 3,
        frameon=False,
        fontsize=style.small,
    )


def sources(of_paper: str, of_ours: str, *, solid: bool) -> list[Line2D]:
    """Explain hollow and filled markers; an empty name leaves its own out, `solid` fills the published ones."""
    hollow = {} if solid else {"markerfacecolor": "white", "linestyle": ":"}
    grey = {"color": GREY, "marker": "o"}
    paper = Line2D([], [], **{**grey, **hollow}, label=of_paper)  # type: ignore[arg-type]
    ours = Line2D([], [], **grey, label=of_ours)  # type: ignore[arg-type]
    return [handle for handle, name in ((paper, of_paper), (ours, of_ours)) if name]


def _label(figure: Figure, axes: Axes, points: Sequence[Point], *, black: int, style: Style) -> None:
    """Name the points; the first `black` in black, the rest in grey.

    Labels go where nothing is yet, nearest place first.  A point whose label finds no place stays without one, rather
    than under another.
    """
    figure.draw_without_rendering()
    bounds = axes.get_window_extent()
    taken = [_around(axes, point, style) for point in points]
    taken += [*_along_lines(axes, points[:black]), *_along_lines(axes, points[black:])]
    for number, point in enumerate(points):
        text = axes.annotate(
            _short(point.row),
            (point.x, point.y),
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=style.label,
            color="black" if number < black else "#666666",
            zorder=4,
        )
        if not _place(text, taken, bounds, style.label / PAPER.label):
            text.remove()


def _short(row: Row) -> str:
    """Leave out what the legend says already: "EfficientNet: B0" is B0."""
    return short(row.label.rpartition(": ")[2])


def _place(text: Annotation, taken: list[Bbox], bounds: Bbox, scale: float) -> bool:
    """Move a label to the nearest free place around its point."""
    for distance in (6 * scale, 10 * scale, 15 * scale, 21 * scale, 28 * scale):
        for step in range(16):
            angle = math.pi / 8 * step + math.pi / 4
            across, up = math.cos(angle), math.sin(angle)
            text.set_position((distance * across, distance * up))
            text.set_horizontalalignment("left" if across > 0.3 else "right" if across < -0.3 else "center")
            text.set_verticalalignment("bottom" if up > 0.3 else "top" if up < -0.3 else "center")
            box = text.get_window_extent().padded(1)
            inside = bounds.x0 <= box.x0 and box.x1 <= bounds.x1 and bounds.y0 <= box.y0 and box.y1 <= bounds.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                return True
    return False


def _around(axes: Axes, point: Point, style: Style) -> Bbox:
    """Give the space that a marker takes, in pixels."""
    x, y = axes.transData.transform((point.x, point.y))
    size = style.marker * 2 / 3 * axes.figure.dpi / 72
    return Bbox.from_extents(x - size, y - size, x + size, y + size)


def _along_lines(axes: Axes, points: Sequence[Point]) -> Iterable[Bbox]:
    """Give small boxes along each family's line, so that labels do not lie on it."""
    for members in _families(points).values():
        places = [axes.transData.transform((p.x, p.y)) for p in members]
        for (x0, y0), (x1, y1) in pairwise(places):
            steps = max(1, int(math.hypot(x1 - x0, y1 - y0) // 6))
            for step in range(1, steps):
                x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
                yield Bbox.from_extents(x - 1, y - 1, x + 1, y + 1)
