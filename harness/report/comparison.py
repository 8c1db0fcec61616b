"""`Comparison` -> text for a terminal, and JSON for other programs."""

import json
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from harness.compare import Comparison, Differing, Side
from harness.report.words import number
from harness.result import Measurement
from harness.stats import Interval

SCHEMA = 1

# Names of images that fit into a sentence.
NAMED = 3

# Digits of a SHA-256 that tell files apart and can be read out.
DIGITS = 12


def render_comparison(comparison: Comparison, *, width: int, images: int) -> str:
    """Write who is compared, the numbers, what they come to, and up to `images` images where the two differ."""
    one, other = comparison.first, comparison.second
    lines = [*_who("A", one, other, width), *_who("B", other, one, width), ""]
    lines += [*_table(comparison), ""]
    lines += wrap(_images_in_common(comparison), width)
    lines += wrap(f"First guesses agree on {100 * comparison.agreement:.2f} % of them.", width)
    lines += wrap(f"{conclusion(comparison)}.", width)
    lines += wrap("[ ]: 95 % intervals, Wilson's and, of the difference, Tango's; p: McNemar's test, exact", width)
    lines += _where_they_differ(comparison, width=width, images=images)
    return "\n".join(lines) + "\n"


def conclusion(comparison: Comparison) -> str:
    """Say in a sentence which one is better, or that chance would do."""
    found, p = comparison.difference, _probability(comparison.p)
    ahead, letter = (comparison.first, "A") if found.value >= 0 else (comparison.second, "B")
    if found.value < 0:
        found = Interval(value=-found.value, low=-found.high, high=-found.low)
    name, by = f"{ahead.model} ({letter})", f"{_interval(found)} points"
    if comparison.better:
        return f"{name} is {by} better; {p}"
    if comparison.borderline:
        return f"on the border of chance: {name} is {by} ahead, {p}; more images would tell"
    if found.value == 0:
        return f"no difference beyond chance: both are right equally often, {by}, {p}"
    return f"no difference beyond chance: {name} is {by} ahead, {p}"


def render_comparison_json(comparison: Comparison, *, images: int) -> str:
    """Write all of it as an object; numbers are numbers, units are in `unit`."""
    data = {
        "schema": SCHEMA,
        "first": _side(comparison.first),
        "second": _side(comparison.second),
        "images": comparison.common,
        "difference": {"unit": "points", **_ends(comparison.difference)},
        "p": comparison.p,
        "agreement": comparison.agreement,
        "better": "first" if comparison.better is comparison.first else "second" if comparison.better else None,
        "conclusion": conclusion(comparison),
        "differ": len(comparison.differing),
        "differing": [
            {"image": one.name, "label": one.label, "first": one.first, "second": one.second}
            for one in comparison.differing[:images]
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _side(side: Side) -> dict[str, Any]:
    return {
        "run": side.result.id,
        "job": str(side.result.job),
        "settings": dict(side.result.job.settings),
        "weights": side.result.facts["weights"],
        "images": side.result.facts["images"],
        "only_here": len(side.alone),
        "head": side.head,
        "top1": {"unit": "%", **_ends(side.top1)},
        "real": {"unit": "%", **_ends(side.real)} if side.real else None,
        "real_labels_agree": side.labels_agree,
        "right_alone": side.right,
    }


def _ends(found: Interval | Measurement) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _who(letter: str, side: Side, other: Side, width: int) -> list[str]:
    """Write the job of a run, what tells it from the other's, its weights and its images."""
    result, weights = side.result, side.result.facts["weights"]
    theirs = dict(other.result.job.settings)
    said = ("model", "data", "res", "crop", "weights")
    apart = [f"{name} {value}" for name, value in result.job.settings if theirs.get(name) != value and name not in said]
    parts = [
        str(result.job),
        ", ".join([f"run {result.id}", f"head {side.head}", *apart]),
        f"weights {result.job['weights']}: {weights['file']}, SHA-256 {weights['sha256'][:DIGITS]}…",
        str(result.facts["images"]["said"]),
    ]
    found = [line for part in parts for line in wrap(part, width - 3)]
    return [f"{' ' if place else letter}  {line}" for place, line in enumerate(found)]


def _table(comparison: Comparison) -> list[str]:
    sides = (comparison.first, comparison.second)
    rows = [
        ["", "A", "B"],
        ["top-1, %", *(_interval(side.top1) for side in sides)],
        ["right alone, images", *(f"{side.right:,}" for side in sides)],
    ]
    if all(side.real for side in sides):
        whole = " of all its images" if any(side.alone for side in sides) else ""
        rows.append([f"ReaL{whole}, %", *(_interval(side.real) for side in sides if side.real)])
    if any(side.labels_agree is not None for side in sides):
        rows.append(["label is one of ReaL's, %", *(_percent(side.labels_agree) for side in sides)])
    return _aligned(rows)


def _images_in_common(comparison: Comparison) -> str:
    first, second = comparison.first.alone, comparison.second.alone
    if not first and not second:
        return f"Both were shown the same {comparison.common:,} images."
    return f"Compared are the {comparison.common:,} images in common; only A has {_few(first)}, only B {_few(second)}."


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none more"
    return f"{len(names):,} more ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"


def _where_they_differ(comparison: Comparison, *, width: int, images: int) -> list[str]:
    found = comparison.differing[:images]
    if not found:
        return []
    guesses = [[str(one.label), _guess(one, one.first), _guess(one, one.second)] for one in found]
    beside = _aligned([["label", "A", "B"], *guesses])
    room = width - 2 - max(map(len, beside))
    names = ["", *(_shortened(one.name, room) for one in found)]
    heading = f"{len(found):,} of the {len(comparison.differing):,} images where first guesses differ, ✓ the right one:"
    return ["", *wrap(heading, width), *_aligned(list(zip(names, beside, strict=True)))]


def _guess(image: Differing, guess: int) -> str:
    return f"{'not read' if guess < 0 else guess}{' ✓' if guess == image.label else ''}"


def _shortened(name: str, room: int) -> str:
    """Cut a name on the left: what tells images apart stands on the right."""
    return name if len(name) <= room else f"…{name[len(name) - max(room - 1, 8) :]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _interval(found: Interval | Measurement) -> str:
    """Write `75.42 [73.11, 77.60]`; only the value where there is no interval."""
    value, low, high = (None if n is None else number(float(n), 2) for n in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]" if low is not None and high is not None else f"{value}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _probability(p: float) -> str:
    """Write a probability with two digits that count."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
