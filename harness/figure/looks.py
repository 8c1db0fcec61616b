"""How every figure looks: colours, markers, and the two sizes in which people need it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.table import Table

# Okabe and Ito's colours, told apart by the colour-blind; each family has a marker of its own as well, so that the
# figure can be read in black and white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#555555", "#e4e4e4"


@dataclass(frozen=True, kw_only=True)
class Style:
    """What one place asks of a figure: inches, sizes of type and markers in points, dots an inch in a PNG.

    `grows` tells a page, on which a long table may take more height, from a screen, on which it may not.
    """

    name: str
    width: float
    height: float
    font: float
    title: float
    small: float
    label: float
    marker: float
    line: float
    dpi: int
    grows: bool

    @property
    def rc(self) -> dict[Any, Any]:
        """Matplotlib's settings; the same everywhere, so that the same results give the same bytes."""
        return {
            "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
            "font.size": self.font,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "harness",
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
            "text.parse_math": False,  # a name with two $ is no formula
        }


PAPER = Style(
    name="paper", width=8, height=5.2, font=9, title=10, small=8, label=7, marker=6, line=1.1, dpi=200, grows=True
)
# A screen of 1920 × 1080, to be read from the last row.
SLIDES = Style(
    name="slides",
    width=1920 / 144,
    height=7.5,
    font=17,
    title=20,
    small=15,
    label=12,
    marker=11,
    line=2.2,
    dpi=144,
    grows=False,
)
STYLES: Mapping[str, Style] = {style.name: style for style in (PAPER, SLIDES)}


def look(number: int) -> tuple[str, str]:
    """Give a colour and a marker; 49 pairs are different."""
    return COLORS[number % len(COLORS)], MARKERS[(number + number // len(COLORS)) % len(MARKERS)]


def looks_of(table: Table) -> dict[str, tuple[str, str]]:
    """Give each family a colour and a marker, in the order in which the spec names them; "" is for rows without one."""
    return {key: look(number) for number, key in enumerate([*table.spec.families, ""])}


def trace(style: Style, color: str, marker: str, *, solid: bool) -> dict[str, Any]:
    """Give how a line with its points looks: ours solid and filled, on top of published ones, dotted and hollow."""
    return {
        "linestyle": "-" if solid else ":",
        "linewidth": style.line,
        "color": color,
        "marker": marker,
        "markersize": style.marker,
        "markerfacecolor": color if solid else "white",
        "markeredgecolor": color,
        "zorder": 3 if solid else 2,
    }


def sheet(style: Style, *, width: float | None = None, height: float | None = None) -> tuple[Figure, Axes]:
    """Give an empty figure with one pair of axes; inches are for a page, a screen is always filled."""
    size = (width or style.width, height or style.height) if style.grows else (style.width, style.height)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(visible=True, which="major", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def short(text: str, most: int = 48) -> str:
    """Give a name on one line, cut where it would push the drawing aside."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def title_of(table: Table, more: str = "") -> str:
    """Name a figure as its edition does."""
    name = table.spec.numbers.get(table.spec.edition, table.spec.name)
    return short(f"{name}. {more or table.spec.title}", 90)


def remark(figure: Figure, sentences: Iterable[str], style: Style) -> None:
    """Say below a figure what its reader must know."""
    said = " ".join(filter(None, sentences))
    if said:
        figure.supxlabel(said, fontsize=style.small, color=GREY)
