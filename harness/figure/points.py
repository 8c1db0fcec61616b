"""One column against another, as in figure 1: our points over the published ones, or either alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.figure.style import GREY, PAPER, Style, family_styles, line_style, log_ticks, short, title_of
from harness.judge.chain import broken_input
from harness.judge.table import FilledCell, Table
from harness.report.formatting import borrowed_remark, measured_point, remaining_unit
from harness.specs import Row
from harness.specs.kinds import KINDS

# Left, lower, right and upper edge in pixels.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row in the figure.  `borrowed` is the column whose value is the published one, as ours was not measured."""

    row: Row
    x: float
    y: float
    borrowed: str = ""


def points_figure(table: Table, style: Style = PAPER, points: str = "both", *, pareto: bool = False) -> Figure:
    """Build the figure: a line through each family, published points hollow under ours.

    `points` is `both`, or `ours` or `published` for that alone, filled as in the paper; `pareto` adds the Pareto front
    of each.  An axis over more than a decade is logarithmic, but for shares.  Raises `HarnessError` where ours are
    requested and none was measured, where no row has both values, and for a front where a column does not tell which
    way is better.
    """
    assert table.spec.axes
    x, y = table.spec.axes
    published = [] if points == "ours" else [p for row in table.spec.rows if (p := _published(table, row, x, y))]
    ours = [] if points == "published" else [p for row in table.spec.rows if (p := _measured(table, row, x, y))]
    if not published and not ours:
        reason = _not_comparable(table, ours) if points == "ours" else ""
        raise HarnessError(reason or (nothing_measured(table) if points == "ours" else _nothing_at_all(table)))
    figure, axes = style.one_panel()
    sides = ((published, points == "published", "published"), (ours, True, "measured"))
    for drawn, solid, _ in sides:
        _draw(axes, drawn, table, style, solid=solid)
    fronts = [_front(axes, drawn, table, name, style) for drawn, _, name in sides] if pareto else []
    shown = [*ours, *published]
    axes.margins(x=0.06, y=0.08)
    families = _families(table, shown)
    machines = dict.fromkeys(column.machine for column in table.spec.columns if column.key in (x, y) and column.machine)
    there, here = short(", ".join(machines)), short(table.machine.label) if table.machine else ""
    labels = (
        f"published ({there})".removesuffix(" ()") if published else "",
        f"measured ({here})".removesuffix(" ()") if ours else "",
    )
    solid = points == "published"
    color = GREY if table.spec.families else line_style(0)[0]
    handles = [
        *style.family_handles(table, families, face=None if ours or solid else "white"),
        *style.source_handles(*labels, solid=solid, color=color, joined=families.keys() != {""}),
        *filter(None, fronts),
    ]
    title = "\n".join([title_of(table), *_borrowed(table, ours)])
    remarks = [_left_out(table, shown, points), "" if solid else _not_comparable(table, ours)]

    def frame() -> None:
        _scale(axes, "x", _axis_label(table, x), [point.x for point in shown])
        _scale(axes, "y", _axis_label(table, y), [point.y for point in shown])
        style.frame(figure, title, handles=handles, remarks=remarks)

    frame()
    unlabelled = _label(figure, axes, table, shown, black=len(ours) or len(published), style=style)
    if unlabelled:
        remarks.append(f"{unlabelled} of {len(shown)} points have no label, for want of room.")
        frame()
    return figure


def nothing_measured(table: Table) -> str:
    """Return the message that there are no points of ours, and how to measure some."""
    name = table.spec.name
    return (
        f"nothing of '{name}' was measured yet, so there is nothing of ours to draw; "
        f"run `harness reproduce {name}`, or draw the paper's with --points published"
    )


def _nothing_at_all(table: Table) -> str:
    axes = " and ".join(f"'{key}'" for key in table.spec.axes or ())
    return (
        f"no row of '{table.spec.name}' has values of both {axes}; "
        f"measure them with `harness reproduce {table.spec.name}`, or name other columns with --x and --y"
    )


def _published(table: Table, row: Row, *axes: str) -> Point | None:
    x, y = (table.cell(row.key, key).published_number for key in axes)
    return None if x is None or y is None else Point(row=row, x=x, y=y)


def _measured(table: Table, row: Row, x: str, y: str) -> Point | None:
    """Return our point of a row: one value is ours, the other too or, if no machine decides it, the published one."""
    across, up = (table.cell(row.key, key) for key in (x, y))
    point = None if broken_input(across) else measured_point(across, up)
    if point and not (point[2] and _is_of_machine(up)):
        return Point(row=row, x=point[0], y=point[1], borrowed=y if point[2] else "")
    point = None if broken_input(up) else measured_point(up, across)
    if point and not (point[2] and _is_of_machine(across)):
        return Point(row=row, x=point[1], y=point[0], borrowed=x if point[2] else "")
    return None


def _is_of_machine(filled: FilledCell) -> bool:
    kind = KINDS.get(filled.cell.kind or "")
    return bool(filled.cell.machine or filled.cell.derivation or (kind and kind.exclusive))


def _borrowed(table: Table, ours: Sequence[Point]) -> list[str]:
    """Return a sentence for each axis on which points of ours have the published value."""
    remarks = (
        borrowed_remark(column.label, [point.borrowed == column.key for point in ours])
        for column in table.spec.columns
        if column.key in (table.spec.axes or ())
    )
    return list(filter(None, remarks))


def _left_out(table: Table, shown: Sequence[Point], points: str) -> str:
    count = len(table.spec.rows) - len({point.row.key for point in shown})
    which = {"ours": "measured ", "published": "published "}.get(points, "")
    return f"{count} of {len(table.spec.rows)} rows have no {which}value on one of the axes." if count else ""


def _not_comparable(table: Table, ours: Sequence[Point]) -> str:
    """Return how many points have both values of ours and are not drawn among published ones, and why not."""
    drawn = {point.row.key for point in ours}
    pairs = [[table.cell(row.key, key) for key in table.spec.axes or ()] for row in table.spec.rows]
    measured = [pair for pair in pairs if all(filled.number is not None for filled in pair)]
    left_out = [pair for pair in measured if pair[0].cell.row.key not in drawn]
    if not left_out:
        return ""
    reason = next(filter(None, map(broken_input, left_out[0])), "")
    return f"{len(left_out)} of our {len(measured)} points are not comparable and not drawn: {reason}."


def _draw(axes: Axes, points: Sequence[Point], table: Table, style: Style, *, solid: bool) -> None:
    styles = family_styles(table)
    for family, members in _families(table, points).items():
        properties = style.line_properties(*styles[family], solid=solid) | ({} if family else {"linestyle": "none"})
        axes.plot([point.x for point in members], [point.y for point in members], **properties)


def _axis_label(table: Table, key: str) -> str:
    """Return the label of a column with the unit of its values."""
    (column,) = (column for column in table.spec.columns if column.key == key)
    units = dict.fromkeys(filled.cell.unit for (_, of), filled in table.cells.items() if of == key)
    unit = remaining_unit(column.label, column.unit or ", ".join(filter(None, units)))
    return short(f"{column.label} ({unit})" if unit else column.label, 90)


def _scale(axes: Axes, name: str, label: str, values: Sequence[float]) -> None:
    """Label the axis `x` or `y`, and make it logarithmic where its values span more than a decade and are no shares."""
    low, high = min(values), max(values)
    if low <= 0 or high <= 10 * low or "%" in label:
        axes.set(**{f"{name}label": label})
        return
    axes.set(**{f"{name}label": f"{label}, log scale", f"{name}scale": "log"})
    log_ticks(axes.xaxis if name == "x" else axes.yaxis, low, high)


def _front(axes: Axes, points: Sequence[Point], table: Table, name: str, style: Style) -> Line2D | None:
    """Draw the steps through the points that no other one beats on both axes; return the entry of the legend."""
    x, y = (_direction(table, key) for key in table.spec.axes or ())
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (-x * point.x, -y * point.y)):
        if not front or y * point.y > y * front[-1].y:
            front.append(point)
    if len(front) < 2:
        return None
    front.sort(key=lambda point: point.x)
    (line,) = axes.plot(
        [point.x for point in front],
        [point.y for point in front],
        # Between two points of the front the one that is still good enough on x gives the y.
        drawstyle="steps-pre" if x > 0 else "steps-post",
        linestyle="-" if name == "measured" else "--",
        linewidth=3 * style.line,
        color=GREY,
        alpha=0.35,
        zorder=1,
        label=f"Pareto front, {name}",
    )
    return line


def _direction(table: Table, key: str) -> int:
    """Return 1 where a higher value of a column is better, -1 where a lower one is, as for every size."""
    cells = [filled.cell for (_, of), filled in table.cells.items() if of == key]
    ways = {cell.better or ("lower" if cell.kind == "count" else "") for cell in cells}
    if ways in ({"higher"}, {"lower"}):
        return 1 if ways == {"higher"} else -1
    raise HarnessError(
        f"--pareto: '{table.spec.name}' does not say which way '{key}' is better; "
        f'write better = "higher" or "lower" under [column.{key}] of {table.spec.path}'
    )


def _families(table: Table, points: Iterable[Point]) -> dict[str, list[Point]]:
    """Return the points of each family from left to right, as its line goes; "" is for rows without one."""
    families: dict[str, list[Point]] = {}
    for point in points:
        family = point.row.family or ""
        families.setdefault(family if family in table.spec.families else "", []).append(point)
    return {family: sorted(members, key=lambda point: (point.x, point.y)) for family, members in families.items()}


def _label(  # noqa: PLR0913
    figure: Figure, axes: Axes, table: Table, points: Sequence[Point], *, black: int, style: Style
) -> int:
    """Label the points; the first `black` in black, the rest in grey.

    A label goes to the nearest free position.  A point without a free position has no label, rather than one under
    another: returns how many those are.
    """
    unlabelled = 0
    figure.draw_without_rendering()
    bounds = axes.get_window_extent()
    occupied = [_around(axes, point, style) for point in points]
    for side in (points[:black], points[black:]):
        occupied += _along_lines(axes, [members for family, members in _families(table, side).items() if family])
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
        if not _move(text, point, occupied, bounds, style.label / PAPER.label):
            text.remove()
            unlabelled += 1
    return unlabelled


def _move(text: Annotation, point: Point, occupied: list[Box], bounds: Bbox, scale: float) -> bool:
    """Move a label to the nearest free position around its point."""
    assert text.axes
    x, y = text.axes.transData.transform((point.x, point.y))
    size, taken = text.get_window_extent(), np.array(occupied)
    for distance in (6 * scale, 10 * scale, 15 * scale, 21 * scale, 28 * scale):
        for step in range(16):
            angle = math.pi / 8 * step + math.pi / 4
            across, up = math.cos(angle), math.sin(angle)
            pixels = distance * text.axes.figure.dpi / 72
            left = x + across * pixels - size.width * (0 if across > 0.3 else 1 if across < -0.3 else 0.5) - 1
            low = y + up * pixels - size.height * (0 if up > 0.3 else 1 if up < -0.3 else 0.5) - 1
            right, high = left + size.width + 2, low + size.height + 2
            if not (bounds.x0 <= left and right <= bounds.x1 and bounds.y0 <= low and high <= bounds.y1):
                continue
            disjoint = (taken[:, 2] <= left) | (right <= taken[:, 0]) | (taken[:, 3] <= low) | (high <= taken[:, 1])
            if disjoint.all():
                text.set_position((distance * across, distance * up))
                text.set_horizontalalignment("left" if across > 0.3 else "right" if across < -0.3 else "center")
                text.set_verticalalignment("bottom" if up > 0.3 else "top" if up < -0.3 else "center")
                occupied.append((left, low, right, high))
                return True
    return False


def _around(axes: Axes, point: Point, style: Style) -> Box:
    """Return the space that a marker takes."""
    x, y = axes.transData.transform((point.x, point.y))
    size = style.marker * 2 / 3 * axes.figure.dpi / 72
    return (x - size, y - size, x + size, y + size)


def _along_lines(axes: Axes, families: Iterable[Sequence[Point]]) -> Iterable[Box]:
    """Yield small boxes along each family's line, so that no label is on it."""
    for members in families:
        positions = [axes.transData.transform((p.x, p.y)) for p in members]
        for (x0, y0), (x1, y1) in pairwise(positions):
            steps = max(1, int(math.hypot(x1 - x0, y1 - y0) // 6))
            for step in range(1, steps):
                x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
                yield (x - 1, y - 1, x + 1, y + 1)
