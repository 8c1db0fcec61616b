"""Similarity of the class and the distillation token after each layer, a line a model."""

from collections import Counter

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.errors import HarnessError
from harness.figure.style import PAPER, Style, line_style, short, title_of
from harness.judge.table import Table


def layers_figure(table: Table, style: Style = PAPER) -> Figure:
    """Build the figure; rows that rest on the same measurement share a line.

    Raises `HarnessError` where no tokens were measured.
    """
    results = {
        filled.result.id: filled.result
        for filled in table.cells.values()
        if filled.result and filled.result.error is None and "by_layer" in filled.result.facts
    }
    if not results:
        raise HarnessError(f"'{table.spec.name}' has no axes and no measured tokens, so there is nothing to draw")
    figure, axes = style.one_panel(width=5.4)
    models = Counter(str(result.job["model"]) for result in results.values())
    for number, result in enumerate(results.values()):
        color, marker = line_style(number)
        model = str(result.job["model"])
        # The same model with other weights or at another size is described in full.
        label = model if models[model] == 1 else f"{result.job} {result.job.get('weights')}"
        axes.plot(
            result.facts["by_layer"],
            color=color,
            marker=marker,
            markersize=style.marker * 2 / 3,
            linewidth=style.line,
            label=short(label, 80),
        )
    axes.set_xlabel("layer (0: the learned embeddings)")
    axes.set_ylabel("cosine of class and distillation token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.frame(figure, title_of(table), handles=axes.get_lines(), height=3.2)
    return figure
