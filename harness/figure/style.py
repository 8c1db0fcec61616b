"""The style of every figure: colours, markers, and two sizes, for a page and for a screen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.cleaning import visible
from harness.judge.table import Table

# Okabe and Ito's colours, told apart by the colour-blind; each family has a marker of its own as well, so that the
# figure can be read in black and white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#555555", "#e4e4e4"


@dataclass(frozen=True, kw_only=True)
class Style:
    """Sizes of a figure in inches, of type and markers in points, and dots per inch of a PNG.

    `grows` is true for a page, where a long table may take more height, and false for a screen.
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

    def empty_figure(self, *, width: float | None = None, height: float | None = None) -> Figure:
        """Return a figure without axes; inches are for a page, a screen is always filled."""
        size = (width or self.width, height or self.height) if self.grows else (self.width, self.height)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def one_panel(self, *, width: float | None = None, height: float | None = None) -> tuple[Figure, Axes]:
        """Return an empty figure with one pair of axes."""
        figure = self.empty_figure(width=width, height=height)
        axes = figure.add_subplot()
        axes.grid(visible=True, which="major", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        return figure, axes

    def line_properties(self, color: str, marker: str, *, solid: bool) -> dict[str, Any]:
        """Return the style of a line with points: solid and filled on top of others, or dotted and hollow."""
        return {
            "linestyle": "-" if solid else ":",
            "linewidth": self.line,
            "color": color,
            "marker": marker,
            "markersize": self.marker,
            "markerfacecolor": color if solid else "white",
            "markeredgecolor": color,
            "zorder": 3 if solid else 2,
        }

    def marker_handle(self, label: str, color: str, marker: str, *, face: str | None = None) -> Line2D:
        """Return the entry of a legend for a colour and its marker."""
        properties = self.line_properties(color, marker, solid=True) | {"linestyle": "none", "linewidth": None}
        return Line2D([], [], label=short(label), **properties | {"markerfacecolor": face or color})

    def family_handles(self, table: Table, families: Iterable[str]) -> list[Line2D]:
        """Return the entries of a legend for some families; "" is for rows without one."""
        labels = {**{key: family.label for key, family in table.spec.families.items()}, "": "other"}
        shown = set(families)
        return [self.marker_handle(labels[key], *pair) for key, pair in family_styles(table).items() if key in shown]

    def source_handles(self, published: str, measured: str, *, solid: bool) -> list[Line2D]:
        """Return the entries of a legend for hollow and filled markers; an empty label leaves its own out.

        `solid` fills the published ones.
        """
        return [
            Line2D([], [], label=label, **{**self.line_properties(GREY, "o", solid=filled), "linewidth": None})
            for label, filled in ((published, solid), (measured, True))
            if label
        ]

    def legend_below(self, axes: Axes, handles: Sequence[Line2D], *, columns: int) -> None:
        """Put a legend below the labels of the horizontal axis."""
        position = (0.5, -0.14)
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=position,
            ncols=columns,
            frameon=False,
            fontsize=self.small,
        )

    def figure_legend(self, figure: Figure, handles: Sequence[Artist]) -> None:
        """Put a legend at the lower edge of a figure."""
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=self.small)

    def remark(self, figure: Figure, sentence: str) -> None:
        """Put a sentence below a figure, if there is one."""
        if sentence:
            figure.supxlabel(sentence, fontsize=self.small, color=GREY)


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


def line_style(number: int) -> tuple[str, str]:
    """Return a colour and a marker; 49 pairs are different."""
    return COLORS[number % len(COLORS)], MARKERS[(number + number // len(COLORS)) % len(MARKERS)]


def family_styles(table: Table) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each family, in the order of the spec; "" is for rows without one."""
    return {key: line_style(number) for number, key in enumerate([*table.spec.families, ""])}


def short(text: str, most: int = 48) -> str:
    """Return a name on one line, cut where it would push the drawing aside."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def title_of(table: Table, more: str = "") -> str:
    """Return the title of a figure, with the name that its edition gives it."""
    name = table.spec.numbers.get(table.spec.edition, table.spec.name)
    return short(f"{name}. {more or table.spec.title}", 90)
