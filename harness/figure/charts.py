"""Draws the figure that is asked for, and writes it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.charts import chart_of
from harness.errors import HarnessError
from harness.figure.curves import LOSS, TOP1, curves_of
from harness.figure.epochs import epochs_of
from harness.figure.lanes import ratios_of, runs_of
from harness.figure.layers import layers_of
from harness.figure.looks import STYLES, Style
from harness.figure.points import figure_of
from harness.table import Table

SUFFIXES = (".png", ".svg", ".pdf")

_DRAWN: Mapping[str, Callable[[Table, Style, str], Figure]] = {
    "points": figure_of,
    "epochs": epochs_of,
    "layers": lambda table, style, _: layers_of(table, style),
    "runs": lambda table, style, _: runs_of(table, style),
    "ratios": lambda table, style, _: ratios_of(table, style),
    "curves": lambda table, style, _: curves_of(table, style, TOP1),
    "losses": lambda table, style, _: curves_of(table, style, LOSS),
}


def draw(table: Table, path: Path, *, chart: str | None = None, points: str = "both", style: str = "paper") -> None:
    """Draw a table and write it, as PNG, SVG or PDF by the suffix.

    `chart`, `points` and `style` are names of `harness.charts`; without a chart the table's usual one is drawn.  Raises
    `HarnessError` for another suffix, a place that cannot be written, or a table with nothing to draw.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise HarnessError(f"-o {path}: a figure is written as {', '.join(SUFFIXES)}; choose one by the suffix")
    drawn, look = _DRAWN[chart_of(table.spec, chart)], STYLES[style]
    with mpl.rc_context(look.rc):
        figure = drawn(table, look, points)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No date and no version in the file: the same results give the same bytes.
            metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
            figure.savefig(path, dpi=look.dpi, metadata=metadata[path.suffix.lower()])
        except OSError as error:
            raise HarnessError(f"-o {path}: {error.strerror}; name another file") from error
