"""Two files of predictions -> the images that only one of them has right: what a paired test needs, and no more.

`compare` reports everything about two runs; a gate compares dozens in a second, so here only one head is read from each
file, and names are compared by the checksums that the archive has of them.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.stats import Interval, mcnemar, paired_difference
from harness.store.possible import labels_problem, top_problem
from harness.store.predictions import damaged
from harness.store.real_labels import are_right, is_labelled, real_labels

# How many predictions may hold the label.  `real` is whether the first is among the labels of ImageNet-ReaL.
PREDICTIONS = {"top1": 1, "top5": 5, "real": 1}


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two runs over the same `images`.

    `before` and `now` are accuracies in percent, `difference` is now less before in points with Tango's 95 % interval,
    `p` is McNemar's, exact and two-sided.  `lost` names the images that only the first has right, `won` those that only
    the second has.
    """

    images: int
    before: float
    now: float
    difference: Interval
    p: float
    lost: tuple[str, ...]
    won: tuple[str, ...]


def paired_test(before: Path, now: Path, metric: str) -> PairedTest | None:
    """Compare two files by an accuracy, `top1`, `top5` or `real`, or `top1_HEAD`.

    None where a file is missing, has no such head or has other images, or where predictions do not give the metric.
    Raises `StoreError` if a file is damaged.
    """
    name, _, head = metric.partition("_")
    if name not in PREDICTIONS or not before.is_file() or not now.is_file():
        return None
    old, new = _read(before, head), _read(now, head)
    if old is None or new is None:
        return None
    (top, _, order), (top_now, labels, order_now) = old, new
    truth = _real(now, order_now) if name == "real" else labels[:, None]
    if order != order_now or truth is None:
        return None
    judged = is_labelled(truth)
    right, right_now = (are_right(t[:, : PREDICTIONS[name]], truth)[judged] for t in (top, top_now))
    lost, won = (_names(now, np.flatnonzero(judged)[flipped]) for flipped in (right & ~right_now, right_now & ~right))
    return PairedTest(
        images=len(right),
        before=100 * float(right.mean()),
        now=100 * float(right_now.mean()),
        difference=paired_difference(len(won), len(lost), len(right)),
        p=mcnemar(len(won), len(lost)),
        lost=lost,
        won=won,
    )


def _names(path: Path, indices: NDArray[np.intp]) -> tuple[str, ...]:
    """Return the names of some of the images; the file has all of them, which takes longer to read than the rest."""
    if not len(indices):
        return ()
    with np.load(path, allow_pickle=False) as data:
        return tuple(map(str, data["names"][indices]))


def _read(path: Path, head: str) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[int, ...]] | None:
    """Return the predictions of one head, the labels, and checksums of names and labels; None without that head."""
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as data:
            heads = data["heads"].tolist()
            head = head or ("softmax_sum" if "softmax_sum" in heads else "class")
            if head not in heads:
                return None
            order = tuple(archive.getinfo(f"{name}.npy").CRC for name in ("names", "labels"))
            top, labels = data[f"{head}.top"], data["labels"]
    except Exception as error:  # numpy, zipfile and zlib each have their own errors for damaged bytes
        raise damaged(path, error) from error
    if problem := labels_problem(labels) or top_problem(top, len(labels)):
        raise damaged(path, problem)
    return top, labels, order


_real_by_order: dict[tuple[int, ...], NDArray[np.int32] | None] = {}


def _real(path: Path, order: tuple[int, ...]) -> NDArray[np.int32] | None:
    """Return the ReaL labels of each image, a row each; None where the names are not ImageNet validation's."""
    if order not in _real_by_order:
        with np.load(path, allow_pickle=False) as data:
            _real_by_order[order] = real_labels(data["names"].tolist())
    return _real_by_order[order]
