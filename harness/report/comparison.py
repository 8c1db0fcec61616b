"""`Comparison` -> text for a terminal, and JSON for other programs."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from harness.cleaning import json_text
from harness.judge.compare import Comparison, DifferingImage, Side
from harness.report.formatting import number, probability
from harness.stats import Interval
from harness.store.result import Measurement

SCHEMA = 1

# Names of images that fit into a sentence.
NAMED = 3

# Digits of a SHA-256 that tell files apart and can be read out.
DIGITS = 12


def render_comparison(comparison: Comparison, *, width: int, images: int) -> str:
    """Render who is compared, the numbers, the conclusion, and up to `images` images where the two differ."""
    first, second = comparison.first, comparison.second
    lines = [*_side_lines("A", first, second, width), *_side_lines("B", second, first, width), ""]
    lines += [*_table(comparison), ""]
    lines += wrap(_images_in_common(comparison), width)
    lines += wrap(f"Top-1 predictions agree on {100 * comparison.agreement:.2f} % of them.", width)
    lines += wrap(f"{conclusion(comparison)}.", width)
    lines += wrap("[ ]: 95 % intervals, Wilson's and, of the difference, Tango's; p: McNemar's test, exact", width)
    lines += _where_they_differ(comparison, width=width, images=images)
    return "\n".join(lines) + "\n"


def conclusion(comparison: Comparison) -> str:
    """Return in a sentence which one is better, or that there is no difference beyond chance."""
    difference, p = comparison.difference, probability(comparison.p)
    ahead, letter = (comparison.first, "A") if difference.value >= 0 else (comparison.second, "B")
    if difference.value < 0:
        difference = Interval(value=-difference.value, low=-difference.high, high=-difference.low)
    name, by = f"{ahead.result.job['model']} ({letter})", f"{_interval(difference)} points"
    if comparison.better:
        return f"{name} is {by} better; {p}"
    if comparison.borderline:
        return f"on the border of chance: {name} is {by} ahead, {p}; more images would tell"
    if difference.value == 0:
        return f"no difference beyond chance: both are right equally often, {by}, {p}"
    return f"no difference beyond chance: {name} is {by} ahead, {p}"


def render_comparison_json(comparison: Comparison, *, images: int) -> str:
    """Render everything as an object; numbers are numbers, units are in `unit`."""
    data = {
        "schema": SCHEMA,
        "first": _side(comparison.first),
        "second": _side(comparison.second),
        "images": comparison.common,
        "not_read": comparison.unread,
        "same_files": comparison.same_files,
        "difference": {"unit": "points", **_ends(comparison.difference)},
        "p": comparison.p,
        "agreement": comparison.agreement,
        "better": "first" if comparison.better is comparison.first else "second" if comparison.better else None,
        "conclusion": conclusion(comparison),
        "differ": len(comparison.differing),
        "differing": [
            {"image": image.name, "label": image.label, "first": image.first, "second": image.second}
            for image in comparison.differing[:images]
        ],
    }
    return json_text(data)


def _side(side: Side) -> dict[str, Any]:
    return {
        "run": side.result.id,
        "job": str(side.result.job),
        "settings": dict(side.result.job.settings),
        "weights": side.result.facts["weights"],
        "images": side.result.facts["images"],
        "only_here": len(side.unshared),
        "head": side.head,
        "top1": {"unit": "%", **_ends(side.top1)},
        "real": {"unit": "%", **_ends(side.real)} if side.real else None,
        "real_labels_agree": side.labels_agree,
        "right_alone": side.only_right,
    }


def _ends(interval: Interval | Measurement) -> dict[str, Any]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _side_lines(letter: str, side: Side, other: Side, width: int) -> list[str]:
    """The job of a run, how its settings differ from the other's, its weights and its images."""
    result, weights = side.result, side.result.facts["weights"]
    theirs = dict(other.result.job.settings)
    in_title = ("model", "data", "res", "crop", "weights")
    settings = [
        f"{name} {value}" for name, value in result.job.settings if theirs.get(name) != value and name not in in_title
    ]
    parts = [
        str(result.job),
        ", ".join([f"run {result.id}", f"head {side.head}", *settings]),
        f"weights {result.job['weights']}: {weights['file']}, SHA-256 {weights['sha256'][:DIGITS]}…",
        str(result.facts["images"]["said"]),
    ]
    lines = [line for part in parts for line in wrap(part, width - 3)]
    return [f"{' ' if number else letter}  {line}" for number, line in enumerate(lines)]


def _table(comparison: Comparison) -> list[str]:
    sides = (comparison.first, comparison.second)
    rows = [
        ["", "A", "B"],
        ["top-1, %", *(_interval(side.top1) for side in sides)],
        ["right alone, images", *(f"{side.only_right:,}" for side in sides)],
    ]
    if all(side.real for side in sides):
        whole = " of all its images" if comparison.unread or any(side.unshared for side in sides) else ""
        rows.append([f"ReaL{whole}, %", *(_interval(side.real) for side in sides if side.real)])
    if any(side.labels_agree is not None for side in sides):
        shares = ("" if side.labels_agree is None else f"{100 * side.labels_agree:.2f}" for side in sides)
        rows.append(["label is one of ReaL's, %", *shares])
    return _aligned(rows)


def _images_in_common(comparison: Comparison) -> str:
    first, second = comparison.first.unshared, comparison.second.unshared
    unread = (
        f" {comparison.unread:,} more, which one of them could not read, are left out." if comparison.unread else ""
    )
    if comparison.same_files is False:
        unread += " The files of these names have other sizes in A than in B, so they may not be the same images."
    if not first and not second:
        return f"Both were shown the same {comparison.common:,} images.{unread}"
    names = f"only A has {_few(first)}, only B {_few(second)}"
    return f"Compared are the {comparison.common:,} images in common; {names}.{unread}"


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none more"
    return f"{len(names):,} more ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"


def _where_they_differ(comparison: Comparison, *, width: int, images: int) -> list[str]:
    shown = comparison.differing[:images]
    if not shown:
        return []
    rows = [[str(image.label), *(_prediction(image, p) for p in (image.first, image.second))] for image in shown]
    predictions = _aligned([["label", "A", "B"], *rows])
    room = width - 2 - max(map(len, predictions))
    names = ["", *(_shortened(image.name, room) for image in shown)]
    heading = f"{len(shown):,} of the {len(comparison.differing):,} images where predictions differ, ✓ the right one:"
    return ["", *wrap(heading, width), *_aligned(list(zip(names, predictions, strict=True)))]


def _prediction(image: DifferingImage, prediction: int) -> str:
    return f"{prediction}{' ✓' if prediction == image.label else ''}"


def _shortened(name: str, room: int) -> str:
    """Cut a name on the left: what tells images apart is on the right."""
    return name if len(name) <= room else f"…{name[len(name) - max(room - 1, 8) :]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _interval(interval: Interval | Measurement) -> str:
    """Return `75.42 [73.11, 77.60]`; only the value where there is no interval."""
    value, low, high = (None if n is None else number(float(n), 2) for n in _ends(interval).values())
    return f"{value} [{low}, {high}]" if low is not None and high is not None else f"{value}"
