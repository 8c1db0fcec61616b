"""`Table` -> a figure.  The only home of matplotlib.  Same input, same bytes."""

from harness.figure.charts import draw
from harness.figure.curves import curves_of
from harness.figure.epochs import epochs_of
from harness.figure.lanes import ratios_of, runs_of
from harness.figure.layers import layers_of
from harness.figure.looks import COLORS, MARKERS, PAPER, SLIDES, STYLES
from harness.figure.points import figure_of

STYLE = PAPER.rc

__all__ = [
    "COLORS",
    "MARKERS",
    "PAPER",
    "SLIDES",
    "STYLE",
    "STYLES",
    "curves_of",
    "draw",
    "epochs_of",
    "figure_of",
    "layers_of",
    "ratios_of",
    "runs_of",
]
