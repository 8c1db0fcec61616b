"""Two evaluations -> `Comparison`: which model is better, and whether that is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.stats import Interval, mcnemar, paired_difference, wilson
from harness.store.predictions import Predictions
from harness.store.result import Measurement, Result

# The usual level; the interval of the difference is the 95 % one that belongs to it.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A result and the predictions that belong to it."""

    result: Result
    predictions: Predictions


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two evaluations.

    `head` is the one that was evaluated; `top1` is over the images in common, in percent; `only_right` counts those
    that this one has right and the other wrong.  `unshared` names the images that the other was not evaluated on.
    `real` (percent) and `labels_agree` (a fraction) are the result's own, over all its images; None where it has none
    for that head.
    """

    result: Result
    head: str
    top1: Interval
    only_right: int
    unshared: tuple[str, ...]
    real: Measurement | None
    labels_agree: float | None


@dataclass(frozen=True, kw_only=True)
class DifferingImage:
    """An image, its label, and two predictions that differ; all three are class indices."""

    name: str
    label: int
    first: int
    second: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations of the same `common` images, without those of the same names that one could not read: `unread`.

    `same_files` tells that images of the same names are the same files, as far as their sizes tell; None where the two
    do not have the same names.
    `difference` is the top-1 of the first less that of the second, in points; `p` is McNemar's, exact; `agreement` is
    the fraction of images with the same first prediction.  `differing` has the other images, those that decide first.
    """

    first: Side
    second: Side
    common: int
    unread: int
    same_files: bool | None
    difference: Interval
    p: float
    agreement: float
    differing: tuple[DifferingImage, ...]

    @property
    def better(self) -> Side | None:
        """The better one; None unless both the test and the interval exclude chance."""
        if self.p >= SIGNIFICANT or self._may_be_equal:
            return None
        return self.first if self.difference.value > 0 else self.second

    @property
    def borderline(self) -> bool:
        """Whether one of the test and the interval excludes chance and the other does not: with few images they may."""
        return self._may_be_equal != (self.p >= SIGNIFICANT)

    @property
    def _may_be_equal(self) -> bool:
        return self.difference.low <= 0 <= self.difference.high


def compare(first: Evaluation, second: Evaluation, head: str | None = None) -> Comparison:
    """Compare two models on the images that both were evaluated on, by `head` or by the main head of each.

    Raises `HarnessError` if they have no image in common, disagree about a label, or one has no such head.
    """
    heads = [_head(side, head) for side in (first, second)]
    indices = _common(first, second)
    shared = (first.predictions.take(indices[0]), second.predictions.take(indices[1]))
    in_common = len(shared[0].names)
    read = np.flatnonzero(_was_read(shared[0]) & _was_read(shared[1]))
    if not len(read):
        raise HarnessError(f"none of the {in_common:,} images in common was read by both; evaluate them again")
    shared = (shared[0].take(read), shared[1].take(read))
    _check_labels(shared, first, second)
    right = [predictions.correct(head) for predictions, head in zip(shared, heads, strict=True)]
    top = [predictions.heads[head].top[:, 0] for predictions, head in zip(shared, heads, strict=True)]
    only_right = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return Comparison(
        first=_side(first, heads[0], right[0], only_right[0], second),
        second=_side(second, heads[1], right[1], only_right[1], first),
        common=len(read),
        unread=in_common - len(read),
        same_files=_same_files(first, second),
        difference=paired_difference(*only_right, len(shared[0].names)),
        p=mcnemar(*only_right),
        agreement=float((top[0] == top[1]).mean()),
        differing=_differing(shared[0], top[0].tolist(), top[1].tolist()),
    )


def _head(side: Evaluation, head: str | None) -> str:
    name = head or side.predictions.main_head
    if name not in side.predictions.heads:
        known = ", ".join(side.predictions.heads)
        raise HarnessError(f"--head {name}: {_label(side)} has no such head; it has {known}")
    return name


def _label(side: Evaluation) -> str:
    return f"{side.result.job['model']} (run {side.result.id})"


def _common(first: Evaluation, second: Evaluation) -> tuple[list[int], list[int]]:
    """Return the indices of the shared images in each of the two, in the order of the first."""
    indices, others = _index_by_name(first), _index_by_name(second)
    common = [name for name in indices if name in others]
    if not common:
        shown = " and ".join(next(iter(names), "nothing") for names in (indices, others))
        raise HarnessError(
            f"{_label(first)} and {_label(second)} have no image in common (they begin with {shown}); compare two "
            "evaluations of one dataset"
        )
    return [indices[name] for name in common], [others[name] for name in common]


def _was_read(predictions: Predictions) -> NDArray[np.bool_]:
    """Return for each image whether it has a prediction: one that could not be read says nothing about a model."""
    readable: NDArray[np.bool_] = predictions.heads[predictions.main_head].top[:, 0] >= 0
    return readable


def _same_files(first: Evaluation, second: Evaluation) -> bool | None:
    prints = [side.result.facts["images"].get("fingerprint") for side in (first, second)]
    if set(first.predictions.names) != set(second.predictions.names) or None in prints:
        return None
    return bool(prints[0] == prints[1])


def _index_by_name(side: Evaluation) -> dict[str, int]:
    names = side.predictions.names
    indices = {name: index for index, name in enumerate(names)}
    if len(indices) < len(names):
        twice = next(name for index, name in enumerate(names) if indices[name] != index)
        raise HarnessError(f"{_label(side)} was shown several images called {twice}, which no name tells apart")
    return indices


def _check_labels(shared: tuple[Predictions, Predictions], first: Evaluation, second: Evaluation) -> None:
    one, other = shared
    differ = np.flatnonzero(one.labels != other.labels)
    if len(differ):
        index = int(differ[0])
        raise HarnessError(
            f"the label of {one.names[index]} is {one.labels[index]} for {_label(first)} but {other.labels[index]} "
            f"for {_label(second)}, and {len(differ):,} of {len(one.names):,} labels differ in all; evaluate both "
            "over the same folder"
        )


def _side(side: Evaluation, head: str, right: NDArray[np.bool_], only_right: int, other: Evaluation) -> Side:
    shown = set(other.predictions.names)
    return Side(
        result=side.result,
        head=head,
        top1=wilson(int(right.sum()), len(right)),
        only_right=only_right,
        unshared=tuple(name for name in side.predictions.names if name not in shown),
        # The result has this number for its main head only.
        real=side.result.metrics.get("real") if head == side.predictions.main_head else None,
        labels_agree=side.result.facts.get("real", {}).get("labels_agree"),
    )


def _differing(images: Predictions, top: Sequence[int], other_top: Sequence[int]) -> tuple[DifferingImage, ...]:
    rows = zip(images.names, images.labels.tolist(), top, other_top, strict=True)
    differing = [
        DifferingImage(name=name, label=label, first=first, second=second)
        for name, label, first, second in rows
        if first != second
    ]
    # Those that one of the two has right count in the difference.
    return tuple(sorted(differing, key=lambda image: image.label not in (image.first, image.second)))
