"""`Ablation` of a table that was trained at a small scale -> text, without a published accuracy next to one of ours."""

import math
from typing import Any

from harness.judge.ablation import Ablation, AblationEffect
from harness.judge.verdict import Diff
from harness.report import formatting

# Whether a row's change helps or harms here as it does in the paper.
SAME, OTHER, NEITHER = "✓", "✗", "·"
WORDS = {SAME: "same sign", OTHER: "opposite sign", NEITHER: "no published sign"}


def signs_sentence(column: Ablation) -> str:
    """Return how often the sign is the published one, and how far the order agrees."""
    agreeing, changes = column.agreeing()
    clearly, clear = column.agreeing(clear=True)
    left_out = [f"left out: {', '.join(column.left_out)}"] if column.left_out else []
    if not changes:
        return "; ".join(["no change has a published sign", *left_out])
    noun, verb = ("change", "has") if changes == 1 else ("changes", "have")
    parts = [f"{agreeing} of {changes} {noun} {verb} the published sign"]
    if clear:
        parts.append(f"{clearly} of the {clear} with an interval that excludes zero")
    order = column.order
    if order is not None and not math.isnan(order.value):
        tau, low, high = (
            formatting.number(value, 2).replace("-", "−") for value in (order.value, order.low, order.high)
        )
        bounds = f" [{low}, {high}]" if not math.isnan(order.low) else ""
        parts.append(f"order of the changes: Kendall's τ {tau}{bounds}")
    return "; ".join([*parts, *left_out])


def introduction(diff: Diff) -> str:
    """Return what was trained, and what its numbers may be compared with."""
    scale = next(f.planned.scale for f in diff.table.cells.values() if f.planned.scaled_down)
    changes = next((f" with {f.planned.changes}" for f in diff.table.cells.values() if f.planned.changes), "")
    return (
        f"{scale} scale{changes}: small models on {diff.ablations[0].on}. Only differences from the default row are "
        "shown, ours next to the paper's; accuracies of a stand-in are not comparable with the published ones."
    )


def heading(column: Ablation) -> str:
    """Return the heading of a column, with the row that the others are compared with."""
    seeds = column.seeds
    return (
        f"{column.column.label}: points above or below '{column.default_row.label}' "
        f"(at this scale {formatting.number(column.default, 1)} %, mean of {seeds} seed{'s' if seeds > 1 else ''})"
    )


def line(effect: AblationEffect) -> tuple[str, str, str, str, str]:
    """Return label, measured difference, its interval (empty with one seed), the published difference and the sign."""
    interval = published = ""
    if effect.low is not None and effect.high is not None:
        interval = f"[{formatting.signed(effect.low, 1)}, {formatting.signed(effect.high, 1)}]"
    if effect.published is not None:
        published = formatting.signed(effect.published, 1)
    sign = NEITHER if effect.same_sign is None else SAME if effect.same_sign else OTHER
    return effect.row.label, formatting.signed(effect.measured, 1), interval, published, sign


def as_data(column: Ablation) -> dict[str, Any]:
    """Return the ablation of a column for other programs."""
    order = column.order
    return {
        "column": column.column.key,
        "default": column.default_row.key,
        "on": column.on,
        "rows": [
            {
                "row": effect.row.key,
                **{
                    name: getattr(effect, name)
                    for name in ("seeds", "measured", "low", "high", "published", "same_sign")
                },
            }
            for effect in column.rows
        ],
        "kendall": [None if math.isnan(v) else v for v in (order.value, order.low, order.high)] if order else None,
    }
