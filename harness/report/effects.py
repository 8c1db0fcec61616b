"""Effects of a table that was trained at a small scale -> text, without a published accuracy beside one of ours."""

import math
from collections.abc import Iterator
from typing import Any

from harness.diff import Diff
from harness.effects import Effect, Effects
from harness.report import words

# Whether a row's change helps or harms here as it does in print.
SAME, OTHER, NEITHER = "✓", "✗", "·"


def signs_sentence(effects: Effects) -> str:
    """Say how often the sign is the printed one, and how far the order agrees."""
    agree, of = effects.agreeing
    clear, of_clear = effects.clearly_agreeing
    if not of:
        return "no change has a sign in print"
    parts = [f"{agree} of {of} change{'' if of == 1 else 's'} {'has' if of == 1 else 'have'} the sign in print"]
    if of_clear:
        parts.append(f"{clear} of the {of_clear} whose interval leaves no doubt about it")
    if effects.order is not None and not math.isnan(effects.order.value):
        order = effects.order
        bounds = f" [{_correlation(order.low)}, {_correlation(order.high)}]" if not math.isnan(order.low) else ""
        parts.append(f"order of the changes: Kendall's τ {_correlation(order.value)}{bounds}")
    return "; ".join(parts)


def introduction(diff: Diff) -> str:
    """Say what was trained, and what its numbers may be compared with."""
    scale = next(f.planned.scale for f in diff.table.cells.values() if f.planned.small)
    return (
        f"{scale} scale: small networks on {diff.effects[0].on}. Only differences from the default row are shown, "
        "ours beside the paper's; accuracies of a stand-in say nothing of the published ones."
    )


def heading(effects: Effects) -> str:
    """Name a column, and the row with which its others are compared."""
    seeds = max(effect.seeds for effect in effects.rows)
    return (
        f"{effects.column.label}: points above or below '{effects.default_row.label}' "
        f"(at this scale {words.number(effects.default, 1)} %, mean of {seeds} seed{'s' if seeds > 1 else ''})"
    )


def sign(effect: Effect) -> str:
    """Give the sign of a verdict on an effect's own sign."""
    if effect.same_sign is None:
        return NEITHER
    return SAME if effect.same_sign else OTHER


def measured(effect: Effect) -> str:
    """Write the effect that was measured, with its interval."""
    return _points(effect.measured)


def interval(effect: Effect) -> str:
    """Write the interval; empty with one seed."""
    if effect.low is None or effect.high is None:
        return ""
    return f"[{_points(effect.low)}, {_points(effect.high)}]"


def published(effect: Effect) -> str:
    """Write the effect in print."""
    if effect.published is None:
        return ""
    return _points(effect.published) + "".join(f"[{mark}]" for mark in effect.marks)


def _correlation(value: float) -> str:
    return words.number(value, 2).replace("-", "−")


def _points(value: float) -> str:
    text = f"{value:+z.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def lines(effects: Effects) -> Iterator[tuple[str, str, str, str, str]]:
    """Give a line for each row: label, ours, its interval, the paper's, the sign."""
    for effect in effects.rows:
        yield effect.row.label, measured(effect), interval(effect), published(effect), sign(effect)


def as_data(effects: Effects) -> dict[str, Any]:
    """Give the effects of a column for other programs."""
    order = effects.order
    return {
        "column": effects.column.key,
        "default": effects.default_row.key,
        "on": effects.on,
        "rows": [
            {
                "row": effect.row.key,
                "seeds": effect.seeds,
                "measured": effect.measured,
                "low": effect.low,
                "high": effect.high,
                "published": effect.published,
                "same_sign": effect.same_sign,
            }
            for effect in effects.rows
        ],
        "kendall": [None if math.isnan(v) else v for v in (order.value, order.low, order.high)] if order else None,
    }
