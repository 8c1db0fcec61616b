"""Two evaluations -> `Comparison`: which network is better, and whether that is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.predictions import Predictions
from harness.result import Measurement, Result
from harness.stats import Interval, mcnemar, paired_difference, wilson

# The usual level; the interval of the difference is the 95 % one that belongs to it.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A result and the predictions that belong to it."""

    result: Result
    predictions: Predictions


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two.

    `head` is the one that was read; `top1` is over the images in common, in percent; `right` counts those that this
    one has right and the other wrong.  `alone` names the images that the other was not shown.  `real` (percent) and
    `labels_agree` (a fraction) are the result's own, over all its images; None where it has none for that head.
    """

    result: Result
    head: str
    top1: Interval
    right: int
    alone: tuple[str, ...]
    real: Measurement | None
    labels_agree: float | None

    @property
    def model(self) -> str:
        """Name the network."""
        return str(self.result.job["model"])


@dataclass(frozen=True, kw_only=True)
class Differing:
    """An image, its label, and two guesses that differ; all three are class indices, -1 for an image not read."""

    name: str
    label: int
    first: int
    second: int

    @property
    def decides(self) -> bool:
        """Whether one of the two is right, so that the image counts in the difference."""
        return self.label in (self.first, self.second)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations of the same `common` images.

    `difference` is the top-1 of the first less that of the second, in points; `p` is McNemar's, exact; `agreement` is
    the fraction of images with the same first guess.  `differing` has the other images, those that decide first.
    """

    first: Side
    second: Side
    common: int
    difference: Interval
    p: float
    agreement: float
    differing: tuple[Differing, ...]

    @property
    def better(self) -> Side | None:
        """Give the better one; None unless both the test and the interval exclude chance."""
        within = self.difference.low <= 0 <= self.difference.high
        if self.p >= SIGNIFICANT or within:
            return None
        return self.first if self.difference.value > 0 else self.second

    @property
    def borderline(self) -> bool:
        """Whether one of the test and the interval excludes chance and the other does not: with few images they may."""
        within = self.difference.low <= 0 <= self.difference.high
        return within != (self.p >= SIGNIFICANT)


def compare(first: Evaluated, second: Evaluated, head: str | None = None) -> Comparison:
    """Compare two networks on the images that both were shown, by `head` or by the main head of each.

    Raises `HarnessError` if they have no image in common, disagree about a label, or one has no such head.
    """
    heads = [_head(side, head) for side in (first, second)]
    ours, theirs = _common(first, second)
    one, other = first.predictions.take(ours), second.predictions.take(theirs)
    _check_labels(one, other, first, second)
    right, right_too = one.correct(heads[0]), other.correct(heads[1])
    guesses, guesses_too = (p.heads[head].top[:, 0] for p, head in zip((one, other), heads, strict=True))
    alone, alone_too = int((right & ~right_too).sum()), int((right_too & ~right).sum())
    found = paired_difference(alone, alone_too, len(ours))
    return Comparison(
        first=_side(first, heads[0], right, alone, second),
        second=_side(second, heads[1], right_too, alone_too, first),
        common=len(ours),
        difference=Interval(value=100 * found.value, low=100 * found.low, high=100 * found.high),
        p=mcnemar(alone, alone_too),
        agreement=float((guesses == guesses_too).mean()),
        differing=_differing(one, guesses.tolist(), guesses_too.tolist()),
    )


def _head(side: Evaluated, head: str | None) -> str:
    found = head or side.predictions.main
    if found not in side.predictions.heads:
        known = ", ".join(side.predictions.heads)
        raise HarnessError(f"--head {found}: {_called(side)} has no such head; it has {known}")
    return found


def _called(side: Evaluated) -> str:
    return f"{side.result.job['model']} (run {side.result.id})"


def _common(first: Evaluated, second: Evaluated) -> tuple[list[int], list[int]]:
    """Find where the images that both were shown stand, in the order of the first."""
    ours, theirs = _places(first), _places(second)
    common = [name for name in ours if name in theirs]
    if not common:
        shown = " and ".join(next(iter(names), "nothing") for names in (ours, theirs))
        raise HarnessError(
            f"{_called(first)} and {_called(second)} have no image in common (they begin with {shown}); compare two "
            "evaluations of one data set"
        )
    return [ours[name] for name in common], [theirs[name] for name in common]


def _places(side: Evaluated) -> dict[str, int]:
    names = side.predictions.names
    found = {name: place for place, name in enumerate(names)}
    if len(found) < len(names):
        twice = next(name for place, name in enumerate(names) if found[name] != place)
        raise HarnessError(f"{_called(side)} was shown several images called {twice}, which no name tells apart")
    return found


def _check_labels(one: Predictions, other: Predictions, first: Evaluated, second: Evaluated) -> None:
    differ = np.flatnonzero(one.labels != other.labels)
    if len(differ):
        place = int(differ[0])
        raise HarnessError(
            f"the label of {one.names[place]} is {one.labels[place]} for {_called(first)} but {other.labels[place]} "
            f"for {_called(second)}, and {len(differ):,} of {len(one.names):,} labels differ in all; evaluate both "
            "over the same folder"
        )


def _side(side: Evaluated, head: str, right: NDArray[np.bool_], alone: int, other: Evaluated) -> Side:
    hits, trials = int(right.sum()), len(right)
    low, high = wilson(hits, trials)
    shown = set(other.predictions.names)
    is_main = head == side.predictions.main
    return Side(
        result=side.result,
        head=head,
        top1=Interval(value=100 * hits / trials, low=100 * low, high=100 * high),
        right=alone,
        alone=tuple(name for name in side.predictions.names if name not in shown),
        # The result has this number for its main head alone.
        real=side.result.metrics.get("real") if is_main else None,
        labels_agree=side.result.facts.get("real", {}).get("labels_agree"),
    )


def _differing(one: Predictions, guesses: Sequence[int], guesses_too: Sequence[int]) -> tuple[Differing, ...]:
    rows = zip(one.names, one.labels.tolist(), guesses, guesses_too, strict=True)
    found = [
        Differing(name=name, label=label, first=first, second=second)
        for name, label, first, second in rows
        if first != second
    ]
    return tuple(sorted(found, key=lambda image: not image.decides))
