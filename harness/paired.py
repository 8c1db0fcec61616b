"""Two files of predictions -> the images that one of them alone has right: what a paired test needs, and no more.

`compare` tells all about two runs; a gate compares dozens in a second, so here only one head is read of each file, and
names are compared by the checksums that the archive keeps of them.
"""

import importlib.util
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import StoreError
from harness.stats import Interval, mcnemar, paired_difference

# How many guesses may hold the label.  `real` asks whether the first guess is among the labels of ImageNet-ReaL.
GUESSES = {"top1": 1, "top5": 5, "real": 1}

_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs over the same `images`.

    `before` and `now` are accuracies in percent, `difference` is now less before in points with Tango's 95 % interval,
    `p` is McNemar's, exact and two-sided.
    """

    images: int
    before: float
    now: float
    difference: Interval
    p: float


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """What one head says of each image; `order` are checksums of names and labels."""

    order: tuple[int, ...]
    top: NDArray[np.int32]
    labels: NDArray[np.int32]


def pair(before: Path, now: Path, metric: str) -> Pair | None:
    """Compare two files by an accuracy, `top1`, `top5` or `real`, or `top1_HEAD`.

    None where a file is not there, has no such head, is of other images, or the metric cannot be told from guesses.
    Raises `StoreError` with a sentence if a file is damaged.
    """
    name, _, head = metric.partition("_")
    if name not in GUESSES or not before.exists() or not now.exists():
        return None
    then, answers = _read(before, head), _read(now, head)
    if then is None or answers is None or then.order != answers.order:
        return None
    truth = _real(now, answers.order) if name == "real" else answers.labels[:, None]
    if truth is None:
        return None
    judged = truth[:, 0] != _NONE
    right, right_now = (_right(one.top[:, : GUESSES[name]], truth)[judged] for one in (then, answers))
    lost, won, images = int((right & ~right_now).sum()), int((right_now & ~right).sum()), len(right)
    found = paired_difference(won, lost, images)
    return Pair(
        images=images,
        before=100 * float(right.mean()),
        now=100 * float(right_now.mean()),
        difference=Interval(value=100 * found.value, low=100 * found.low, high=100 * found.high),
        p=mcnemar(won, lost),
    )


# In the place of a label where there is none; a guess of -1 is an image that could not be read.
_NONE = -2


def _right(guesses: NDArray[np.int32], truth: NDArray[np.int32]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (guesses[:, :, None] == truth[:, None, :]).any(axis=(1, 2))
    return found


def _read(path: Path, head: str) -> _Answers | None:
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as data:
            heads = data["heads"].tolist()
            wanted = head or ("softmax_sum" if "softmax_sum" in heads else "class")
            if wanted not in heads:
                return None
            order = tuple(archive.getinfo(f"{name}.npy").CRC for name in ("names", "labels"))
            return _Answers(order=order, top=data[f"{wanted}.top"], labels=data["labels"])
    except Exception as error:  # numpy, zipfile and zlib fail each in their own ways on damaged bytes
        raise StoreError(f"{path}: the predictions are damaged ({error}); run the job again with --rerun") from error


_known: dict[tuple[int, ...], NDArray[np.int32] | None] = {}


def _real(path: Path, order: tuple[int, ...]) -> NDArray[np.int32] | None:
    """Give the ReaL labels of each image, a row each; None where the names are not ImageNet validation's."""
    if order not in _known:
        with np.load(path, allow_pickle=False) as data:
            _known[order] = _real_of(data["names"].tolist())
    return _known[order]


def _real_of(names: Sequence[str]) -> NDArray[np.int32] | None:
    found = [_VALIDATION.search(name) for name in names]
    everything = _labels()
    if everything is None or not names or not all(found):
        return None
    numbers = [int(match[1]) for match in found if match]
    if max(numbers) > len(everything) or min(numbers) < 1:
        return None
    return everything.take(np.array(numbers) - 1, axis=0)


@cache
def _labels() -> NDArray[np.int32] | None:
    """Read the labels that timm ships, a row for each of the 50,000 images, without importing timm (and torch)."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / "_info" / "imagenet_real_labels.json"
    if not path.exists():
        return None
    rows = json.loads(path.read_text(encoding="utf-8"))
    found = np.full((len(rows), max(map(len, rows))), _NONE, dtype=np.int32)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found
