"""Similarity of the class and the distillation token after each layer, a line a model."""

from matplotlib.figure import Figure

from harness.errors import HarnessError
from harness.figure.style import PAPER, Style, line_style
from harness.judge.table import Table


def layers_figure(table: Table, style: Style = PAPER) -> Figure:
    """Build the figure.

    Raises `HarnessError` where no tokens were measured.
    """
    results = {
        str(filled.result.job["model"]): filled.result
        for filled in table.cells.values()
        if filled.result and filled.result.error is None and "by_layer" in filled.result.facts
    }
    if not results:
        raise HarnessError(f"'{table.spec.name}' has no axes and no measured tokens, so there is nothing to draw")
    figure, axes = style.one_panel(width=4.6, height=3.2)
    for number, (model, result) in enumerate(results.items()):
        color, marker = line_style(number)
        size = style.marker * 2 / 3
        axes.plot(
            result.facts["by_layer"], color=color, marker=marker, markersize=size, linewidth=style.line, label=model
        )
    axes.set_xlabel("layer (0: the learned embeddings)")
    axes.set_ylabel("cosine of class and distillation token")
    axes.legend(frameon=False, fontsize=style.small)
    return figure
