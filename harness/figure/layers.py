"""How alike the class and the distillation token are after each layer, a line a network."""

from matplotlib.figure import Figure

from harness.errors import HarnessError
from harness.figure.looks import PAPER, Style, look, sheet
from harness.table import Table


def layers_of(table: Table, style: Style = PAPER) -> Figure:
    """Build the figure.

    Raises `HarnessError` where no tokens were measured.
    """
    lines = {
        str(filled.result.job["model"]): filled.result
        for filled in table.cells.values()
        if filled.result and filled.result.error is None and "by_layer" in filled.result.facts
    }
    if not lines:
        raise HarnessError(f"'{table.spec.name}' has no axes and no measured tokens, so there is nothing to draw")
    figure, axes = sheet(style, width=4.6, height=3.2)
    for number, (model, result) in enumerate(lines.items()):
        cosines = result.facts["by_layer"]
        color, marker = look(number)
        axes.plot(
            range(len(cosines)),
            cosines,
            color=color,
            marker=marker,
            markersize=style.marker * 2 / 3,
            linewidth=style.line,
            label=model,
        )
    axes.set_xlabel("layer (0: the learned embeddings)")
    axes.set_ylabel("cosine of class and distillation token")
    axes.legend(frameon=False, fontsize=style.small)
    return figure
