"""What each network said of each image <-> one `.npz` file beside the result.

Every accuracy, agreement and comparison is derived from these files, so no number needs a second pass over the images.
"""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import StoreError

TOP = 5

# The ways to read a network: a single head, or two heads apart and fused.  The paper adds the softmax outputs of the
# two (section 5.2); the authors' released code and timm average the logits.
HEADS = ("class", "distil", "softmax_sum", "logit_mean")

_FIELDS = ("top", "scores", "probability")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What one way of reading a network says of n images.

    `top` holds the class indices of the five highest scores, best first, shape (n, 5), -1 where there are fewer
    classes or the image could not be read; `scores` are theirs, float32: logits, or for `softmax_sum` the sum of two
    probabilities; `probability` is the softmax probability of the first, shape (n,).
    """

    top: NDArray[np.int32]
    scores: NDArray[np.float32]
    probability: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions by image name.  `labels` are the class indices of the data set; both have length n.

    A network with one head has `class` alone; one with two has all four of `HEADS`.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    heads: Mapping[str, Head]

    @property
    def main(self) -> str:
        """Name the head that top-1 is read from: the sum of both where there are two, as in the paper."""
        return "softmax_sum" if "softmax_sum" in self.heads else "class"

    def correct(self, head: str | None = None) -> NDArray[np.bool_]:
        """Tell for each image whether the first guess is the label."""
        found: NDArray[np.bool_] = self.heads[head or self.main].top[:, 0] == self.labels
        return found

    def take(self, order: Sequence[int] | NDArray[np.intp]) -> "Predictions":
        """Give the predictions of these images, in this order."""
        places = np.asarray(order, dtype=np.intp)
        return Predictions(
            names=tuple(self.names[place] for place in places),
            labels=self.labels[places],
            heads={
                name: Head(top=h.top[places], scores=h.scores[places], probability=h.probability[places])
                for name, h in self.heads.items()
            },
        )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Put parts of the same network's predictions one after the other."""
    heads = parts[0].heads
    return Predictions(
        names=tuple(name for part in parts for name in part.names),
        labels=np.concatenate([part.labels for part in parts]),
        heads={
            name: Head(
                top=np.concatenate([part.heads[name].top for part in parts]),
                scores=np.concatenate([part.heads[name].scores for part in parts]),
                probability=np.concatenate([part.heads[name].probability for part in parts]),
            )
            for name in heads
        },
    )


def write(predictions: Predictions, path: Path, *, sync: bool = True) -> None:
    """Write a file: beside, and renamed last, so that what exists is whole.  No pickle in it.

    `sync` waits until the disk has it; what can be made again does without.

    Raises `StoreError` if the disk is full or the folder not writable.
    """
    arrays: dict[str, Any] = {
        "names": np.array(predictions.names, dtype=np.str_),
        "labels": predictions.labels,
        # Listed, so that a damaged directory of the archive cannot lose one unnoticed.
        "heads": np.array(list(predictions.heads), dtype=np.str_),
    }
    for name, head in predictions.heads.items():
        arrays |= {f"{name}.{field}": getattr(head, field) for field in _FIELDS}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a folder that is none
            beside.unlink()
        raise StoreError(f"{path}: {error.strerror or error}; free some space or name another --runs") from error


def read(path: Path) -> Predictions:
    """Read a file.

    Raises `StoreError` with a sentence if it is missing or damaged.
    """
    try:
        found = _parsed(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path}: the predictions are gone; run the job again with --rerun") from None
    except Exception as error:  # numpy, zipfile and zlib fail each in their own ways on damaged bytes
        raise StoreError(f"{path}: the predictions are damaged ({error}); run the job again with --rerun") from error
    if found is None:
        raise StoreError(f"{path}: holds no predictions")
    return found


def _parsed(content: bytes) -> Predictions | None:
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        if "heads" not in data:
            return None
        heads = data["heads"].tolist()
        return Predictions(
            names=tuple(data["names"].tolist()),
            labels=data["labels"],
            heads={name: Head(**{field: data[f"{name}.{field}"] for field in _FIELDS}) for name in heads},
        )
