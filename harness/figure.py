"""`Table` -> a figure: our points over the published ones.  The only home of matplotlib.  Same input, same bytes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.spec import Row
from harness.table import Filled, Table

# Okabe and Ito's colours, told apart by the colour-blind; each family has a marker of its own as well, so that the
# figure can be read in black and white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SUFFIXES = (".png", ".svg", ".pdf")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "harness",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row in the figure.  `borrowed` tells that `y` is the published value because ours was not measured."""

    row: Row
    x: float
    y: float
    borrowed: bool = False


def draw(table: Table, path: Path) -> None:
    """Draw a table and write it, as PNG, SVG or PDF by the suffix: its two axes, or else its tokens layer by layer.

    Raises `HarnessError` for another suffix, a place that cannot be written, or a table with nothing to draw.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise HarnessError(f"-o {path}: a figure is written as {', '.join(SUFFIXES)}; choose one by the suffix")
    with mpl.rc_context(STYLE):
        figure = figure_of(table) if table.spec.axes else layers_of(table)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No date and no version in the file: the same results give the same bytes.
            metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
            figure.savefig(path, dpi=200, metadata=metadata[path.suffix.lower()])
        except OSError as error:
            raise HarnessError(f"-o {path}: {error.strerror}; name another file") from error


def figure_of(table: Table) -> Figure:
    """Build the figure: published points hollow, ours filled, a line through each family."""
    assert table.spec.axes
    x, y = table.spec.axes
    published = [point for row in table.spec.rows if (point := _published(table, row, x, y))]
    ours = [point for row in table.spec.rows if (point := _measured(table, row, x, y))]
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.grid(visible=True, which="major", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    looks = _looks(table)
    for points, filled in ((published, False), (ours, True)):
        for family, members in _families(points).items():
            color, marker = looks[family]
            # The order of the table is the order of size, and a line shows a family's curve.
            axes.plot(
                [point.x for point in members],
                [point.y for point in members],
                linestyle="-" if filled else ":",
                linewidth=1.1,
                color=color,
                marker=marker,
                markersize=6,
                markerfacecolor=color if filled else "white",
                markeredgecolor=color,
                zorder=3 if filled else 2,
            )
    column = {c.key: c for c in table.spec.columns}
    axes.set_xlabel(f"{column[x].label} ({column[x].unit}), log scale")
    axes.set_ylabel(f"{column[y].label} ({column[y].unit})")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=50))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.06, y=0.08)
    _legend(axes, table, looks, published, ours)
    figure.suptitle(_title(table), fontsize=10)
    _remark(figure, ours)
    _label(figure, axes, [*ours, *published], grey=len(ours))
    return figure


def layers_of(table: Table) -> Figure:
    """Build the figure of how alike class and distillation tokens are after each layer, a line a network."""
    lines = {
        str(filled.result.job["model"]): filled.result
        for filled in table.cells.values()
        if filled.result and filled.result.error is None and "by_layer" in filled.result.facts
    }
    if not lines:
        raise HarnessError(f"'{table.spec.name}' has no axes and no measured tokens, so there is nothing to draw")
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for (model, result), color, marker in zip(lines.items(), COLORS, MARKERS, strict=False):
        cosines = result.facts["by_layer"]
        axes.plot(range(len(cosines)), cosines, color=color, marker=marker, markersize=4, linewidth=1.1, label=model)
    axes.set_xlabel("layer (0: the learned embeddings)")
    axes.set_ylabel("cosine of class and distillation token")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _title(table: Table) -> str:
    name = table.spec.numbers.get(table.spec.edition, table.spec.name)
    return f"{name}. {table.spec.title}"


def _remark(figure: Figure, ours: Sequence[Point]) -> None:
    borrowed = sum(point.borrowed for point in ours)
    if borrowed:
        whose = "all our points" if borrowed == len(ours) else f"{borrowed} of our {len(ours)} points"
        figure.supxlabel(
            f"The accuracy of {whose} is the published one: it was not measured.", fontsize=8, color="#555555"
        )


def _published(table: Table, row: Row, x: str, y: str) -> Point | None:
    values = [_printed(table.cell(row.key, key)) for key in (x, y)]
    return None if values[0] is None or values[1] is None else Point(row=row, x=values[0], y=values[1])


def _printed(filled: Filled) -> float | None:
    return filled.cell.printed.value if filled.cell.printed else None


def _measured(table: Table, row: Row, x: str, y: str) -> Point | None:
    across, up = (table.cell(row.key, key) for key in (x, y))
    if across.measurement is None or isinstance(across.measurement.value, str):
        return None
    if up.measurement is not None and not isinstance(up.measurement.value, str) and _of_all_images(up):
        return Point(row=row, x=across.measurement.value, y=up.measurement.value)
    published = _printed(up)
    return None if published is None else Point(row=row, x=across.measurement.value, y=published, borrowed=True)


def _of_all_images(filled: Filled) -> bool:
    """Whether an accuracy is one of the published images: that of a sample does not belong among published ones."""
    images = filled.result.facts.get("images") if filled.result else None
    return not images or (bool(images["whole"]) and not filled.planned.other_weights)


def _families(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.row.family or "", []).append(point)
    return found


def _looks(table: Table) -> dict[str, tuple[str, str]]:
    """Give each family a colour and a marker, in the order in which the spec names them."""
    keys = [*table.spec.families, ""]
    return {key: (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i, key in enumerate(keys)}


def _legend(
    axes: Axes,
    table: Table,
    looks: dict[str, tuple[str, str]],
    published: Sequence[Point],
    ours: Sequence[Point],
) -> None:
    shown = _families([*published, *ours])
    handles = [
        Line2D([], [], color=looks[key][0], marker=looks[key][1], linestyle="none", label=family.label)
        for key, family in table.spec.families.items()
        if key in shown
    ]
    axis = table.spec.axes[0] if table.spec.axes else ""
    machine = next((c.machine for c in table.spec.columns if c.key == axis), None)
    grey = {"color": "#555555", "marker": "o"}
    handles.append(Line2D([], [], **grey, linestyle=":", markerfacecolor="white", label=f"published ({machine})"))  # type: ignore[arg-type]
    if ours and table.machine:
        handles.append(Line2D([], [], **grey, linestyle="-", label=f"measured ({table.machine.label})"))  # type: ignore[arg-type]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False, fontsize=8)


def _label(figure: Figure, axes: Axes, points: Sequence[Point], *, grey: int) -> None:
    """Name the points; the first `grey` in black, the rest in grey.

    Labels go where nothing is yet, nearest place first.  A point whose label finds no place stays without one, rather
    than under another.
    """
    figure.draw_without_rendering()
    bounds = axes.get_window_extent()
    taken = [_around(axes, point) for point in points]
    taken += [*_along_lines(axes, points[:grey]), *_along_lines(axes, points[grey:])]
    for number, point in enumerate(points):
        text = axes.annotate(
            _short(point.row),
            (point.x, point.y),
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=7,
            color="black" if number < grey else "#666666",
            zorder=4,
        )
        if not _place(text, taken, bounds):
            text.remove()


def _short(row: Row) -> str:
    """Leave out what the legend says already: "EfficientNet: B0" is B0."""
    return row.label.rpartition(": ")[2]


def _place(text: Annotation, taken: list[Bbox], bounds: Bbox) -> bool:
    """Move a label to the nearest free place around its point."""
    for distance in (6, 10, 15, 21, 28):
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


def _around(axes: Axes, point: Point) -> Bbox:
    """Give the space that a marker takes, in pixels."""
    x, y = axes.transData.transform((point.x, point.y))
    size = 4 * axes.figure.dpi / 72
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
