"""The style of every figure: colours, markers, and two sizes, for a page and for a screen."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.cleaning import visible
from harness.judge.table import Table

# Okabe and Ito's colours, told apart by the colour-blind; each family has a marker of its own as well, so that the
# figure can be read in black and white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#555555", "#e4e4e4"

_GAP = 0.06  # inches between the edge, the title, the drawing, the legend and the remark


@dataclass(frozen=True, kw_only=True)
class Style:
    """Sizes of a figure in inches, of type and markers in points, and dots per inch of a PNG.

    `grows` is true for a page, where a long table may take more height, and false for a screen.  `height` is that of
    the drawing on a page, to which title, legend and remark are added, and that of the whole screen.
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

    def empty_figure(self, *, width: float | None = None) -> Figure:
        """Return a figure without axes; `width`, in inches, is for a page, as a screen is always filled."""
        figure = Figure(figsize=((width if self.grows else None) or self.width, self.height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def one_panel(self, *, width: float | None = None) -> tuple[Figure, Axes]:
        """Return an empty figure with one pair of axes."""
        figure = self.empty_figure(width=width)
        axes = figure.add_subplot()
        axes.grid(visible=True, which="major", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        return figure, axes

    def frame(  # noqa: PLR0913
        self,
        figure: Figure,
        title: str,
        *,
        handles: Sequence[Artist] = (),
        remarks: Iterable[str] = (),
        height: float | None = None,
        label_width: float | None = None,
    ) -> float:
        """Put the title above a figure, legend and remarks below it, in as many lines as its width needs.

        `height`, in inches, is what the drawing with its labels has on a page, where the figure grows by the rest;
        returns what it has.  `label_width` is the width of the labels to the left and right of the axes, without
        it a fifth of the figure's.
        """
        across = 0.97 * figure.get_figwidth()
        heading = figure.suptitle(
            wrapped(figure, title, self.title, across), fontsize=self.title, verticalalignment="top", y=1
        )
        sentences = visible(" ".join(filter(None, remarks)))
        remark = figure.supxlabel(
            wrapped(figure, sentences, self.small, across),
            fontsize=self.small,
            color=GREY,
            verticalalignment="bottom",
            y=0,
        )
        legend = self._legend(figure, handles)
        above, below = _inches(heading) + _GAP, _inches(remark)
        entries = _inches(legend) if legend else 0
        if self.grows:
            figure.set_figheight((height or self.height) + above + entries + below)
        total = figure.get_figheight()
        heading.set_y(1 - _GAP / total)
        remark.set_y(_GAP / total)
        if legend:
            legend.set_bbox_to_anchor((0.5, below / total))
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0, (entries + below) / total, 1, 1 - (above + entries + below) / total))
        drawing = total - above - entries - below
        for axes in figure.axes:
            axes.set_xlabel(wrapped(figure, axes.get_xlabel(), self.font, across - (label_width or 0.2 * across)))
            axes.set_ylabel(wrapped(figure, axes.get_ylabel(), self.font, drawing - 0.6))
        return drawing

    def _legend(self, figure: Figure, handles: Sequence[Artist]) -> Legend | None:
        """Put a legend into a figure, with as many columns as its width allows, in place of an earlier one.

        On a screen its type is smaller where it would take more than a third of the height.
        """
        for earlier in tuple(figure.legends):
            earlier.remove()
        size, lines = self.small, 1
        while handles:
            columns = ceil(len(handles) / lines)
            legend = figure.legend(
                handles=handles,
                loc="lower center",
                bbox_to_anchor=(0.5, 0),
                borderaxespad=0,
                ncols=columns,
                frameon=False,
                fontsize=size,
            )
            box = legend.get_window_extent()
            if columns > 1 and box.width > figure.bbox.width:
                lines += 1
            elif not self.grows and size > 6 and box.height > figure.bbox.height / 3:
                size, lines = 0.85 * size, 1
            else:
                return legend
            legend.remove()
        return None

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

    def family_handles(
        self, table: Table, families: Iterable[str], *, marker: str = "", face: str | None = None
    ) -> list[Line2D]:
        """Return the entries of a legend for some families, where the table has any; "" is for rows without one.

        With a `marker` all families have that one.
        """
        labels = {**{key: family.label for key, family in table.spec.families.items()}, "": "other"}
        shown = set(families) if table.spec.families else ()
        return [
            self.marker_handle(labels[key], color, marker or own, face=face)
            for key, (color, own) in family_styles(table).items()
            if key in shown
        ]

    def source_handles(
        self, published: str, measured: str, *, solid: bool, color: str = GREY, joined: bool = True
    ) -> list[Line2D]:
        """Return the entries of a legend for hollow and filled markers; an empty label leaves its own out.

        `solid` fills the published ones, and points are `joined` by lines or not.
        """
        properties = {"linewidth": None} if joined else {"linestyle": "none"}
        return [
            Line2D([], [], label=label, **{**self.line_properties(color, "o", solid=filled), **properties})
            for label, filled in ((published, solid), (measured, True))
            if label
        ]


PAPER = Style(
    name="paper", width=8, height=4.3, font=9, title=10, small=8, label=7, marker=6, line=1.1, dpi=200, grows=True
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


def log_ticks(axis: Axis, low: float, high: float, form: str = "{:g}", share: float = 0.8) -> None:
    """Set the ticks of a logarithmic axis over these values, as many as have room on its share of the figure."""
    decades = log10(high / low) * 0.8 / share
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 7) if decades < 0.9 else (1, 2, 5) if decades < 4 else (1,)
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=50 if decades < 8 else 8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
    axis.set_minor_formatter(NullFormatter())


def wrapped(figure: Figure, text: str, size: float, inches: float) -> str:
    """Break a text of this size in points into lines that are at most so many inches long."""
    return "\n".join(_broken(figure, line, size, inches) for line in text.splitlines())


def _broken(figure: Figure, text: str, size: float, inches: float) -> str:
    lines, most = text, len(text)
    while most > 1 and width_of(figure, lines, size) > inches:
        most = int(0.95 * most)
        lines = textwrap.fill(text, most)
    return lines


def width_of(figure: Figure, text: str, size: float) -> float:
    """Return the width of a text of this size in points, in inches."""
    drawn = figure.text(0, 0, text, fontsize=size)
    width = drawn.get_window_extent().width
    drawn.remove()
    return width / figure.dpi


def _inches(artist: Text | Legend) -> float:
    """Return the height of a text or legend with the gap to what is above; 0 for an empty text."""
    if isinstance(artist, Text) and not artist.get_text():
        return _GAP
    figure = artist.get_figure()
    assert figure
    return artist.get_window_extent().height / figure.dpi + _GAP


def title_of(table: Table, more: str = "") -> str:
    """Return the title of a figure, with the name that its edition gives it."""
    name = table.spec.numbers.get(table.spec.edition, table.spec.name)
    return short(f"{name}. {more or table.spec.title}", 120)
