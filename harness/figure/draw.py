"""Draw the requested figure and write it to a file."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

from harness import atomic
from harness.errors import HarnessError

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except OSError as error:  # it needs a folder for its cache
    raise HarnessError(f"nothing can be drawn: {error}") from None

from harness.figure.catalog import select_chart
from harness.figure.curves import LOSS, TOP1, curves_figure
from harness.figure.epochs import epochs_figure
from harness.figure.layers import layers_figure
from harness.figure.points import points_figure
from harness.figure.strips import ratios_figure, runs_figure
from harness.figure.style import STYLES, Style
from harness.figure.trend import trend_figure
from harness.judge.table import Table
from harness.judge.trend import TableTrend

SUFFIXES = (".png", ".svg", ".pdf")

CHARTS: Mapping[str, Callable[[Table, Style, str], Figure]] = {
    "points": points_figure,
    "epochs": epochs_figure,
    "layers": lambda table, style, _: layers_figure(table, style),
    "runs": lambda table, style, _: runs_figure(table, style),
    "ratios": lambda table, style, _: ratios_figure(table, style),
    "curves": lambda table, style, _: curves_figure(table, style, TOP1),
    "losses": lambda table, style, _: curves_figure(table, style, LOSS),
}


def draw(  # noqa: PLR0913
    table: Table,
    path: Path,
    *,
    chart: str | None = None,
    points: str = "both",
    style: str = "paper",
    pareto: bool = False,
    trend: TableTrend | None = None,
) -> None:
    """Draw a table and write it, as PNG, SVG or PDF by the suffix; the rest is that of `render_figure`.

    Raises `HarnessError` as that does, and for another suffix or a file that cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise HarnessError(f"-o {path}: a figure is written as {', '.join(SUFFIXES)}; choose one by the suffix")
    content = render_figure(
        table, path.suffix.lower(), chart=chart, points=points, style=style, pareto=pareto, trend=trend
    )
    try:
        atomic.write(path, content)
    except OSError as error:
        raise HarnessError(f"-o {path}: {error.strerror}; name another file") from error


def render_figure(  # noqa: PLR0913
    table: Table,
    suffix: str,
    *,
    chart: str | None = None,
    points: str = "both",
    style: str = "paper",
    pareto: bool = False,
    trend: TableTrend | None = None,
) -> bytes:
    """Return a table as a figure, in the form of one of the `SUFFIXES`.

    `chart`, `points` and `style` are names of `harness.figure.catalog`; without a chart the table's default is drawn.
    `pareto` adds the Pareto fronts of a chart of points, and a `trend` is drawn in place of any chart.  Raises
    `HarnessError` for a table with nothing to draw, or a front of another chart.
    """
    name, sizes = "trend" if trend else select_chart(table.spec, chart), STYLES[style]
    if pareto and name != "points":
        raise HarnessError(f"--pareto: a chart of {name} has no Pareto front; leave it out, or name --x and --y")
    with mpl.rc_context(sizes.rc):
        if trend is not None:
            figure = trend_figure(table, trend, sizes)
        elif pareto:
            figure = points_figure(table, sizes, points, pareto=True)
        else:
            figure = CHARTS[name](table, sizes, points)
        return _saved(figure, suffix, sizes)


def trend_svg(table: Table, trend: TableTrend) -> str:
    """Return a trend as the text of an SVG; empty where no series of numbers has three results."""
    sizes = STYLES["paper"]
    with mpl.rc_context(sizes.rc):
        try:
            figure = trend_figure(table, trend, sizes)
        except HarnessError:
            return ""
        return _saved(figure, ".svg", sizes).decode()


def _saved(figure: Figure, suffix: str, sizes: Style) -> bytes:
    # No date and no version in the file: the same results give the same bytes.
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    content = BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=sizes.dpi, metadata=metadata[suffix])
    return content.getvalue()
