"""The predictions of each model for each image <-> one `.npz` file next to the result.

Every accuracy, agreement and comparison is derived from these files, so that no metric needs another evaluation pass.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import atomic
from harness.errors import StoreError
from harness.store.possible import labels_problem, scores_problem, top_problem
from harness.store.result import Result

# The ways to read a model: a single head, or two heads, apart and fused.  The paper adds the softmax outputs of the
# two (section 5.2); the authors' released code and timm average the logits.
HEADS = ("class", "distil", "softmax_sum", "logit_mean")

_FIELDS = ("top", "scores", "probability")


@dataclass(frozen=True, kw_only=True)
class Head:
    """The predictions of one head, or of two that are fused, for n images.

    `top` has the class indices of the five highest scores, best first, shape (n, 5), -1 where there are fewer classes
    or the image could not be read; `scores` has these scores, float32: logits, or for `softmax_sum` the sum of two
    probabilities; `probability` is the softmax probability of the first class, shape (n,).
    """

    top: NDArray[np.int32]
    scores: NDArray[np.float32]
    probability: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions by image name.  `labels` are the class indices of the dataset; both have length n.

    A model with one head has only `class`; one with two has all four of `HEADS`.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    heads: Mapping[str, Head]

    @property
    def main_head(self) -> str:
        """The head that top-1 is read from: the sum of both where there are two, as in the paper."""
        return "softmax_sum" if "softmax_sum" in self.heads else "class"

    def correct(self, head: str | None = None) -> NDArray[np.bool_]:
        """Return for each image whether the predicted class is the label."""
        correct: NDArray[np.bool_] = self.heads[head or self.main_head].top[:, 0] == self.labels
        return correct

    def take(self, order: Sequence[int] | NDArray[np.intp]) -> "Predictions":
        """Return the predictions for these images, in this order."""
        indices = np.asarray(order, dtype=np.intp)
        return Predictions(
            names=tuple(self.names[index] for index in indices),
            labels=self.labels[indices],
            heads={
                name: Head(**{field: getattr(head, field)[indices] for field in _FIELDS})
                for name, head in self.heads.items()
            },
        )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of the same model for the images of all parts."""
    return Predictions(
        names=tuple(name for part in parts for name in part.names),
        labels=np.concatenate([part.labels for part in parts]),
        heads=concatenate_heads([part.heads for part in parts]),
    )


def concatenate_heads(parts: Sequence[Mapping[str, Head]]) -> dict[str, Head]:
    """Return the heads of the same model for the images of all parts."""
    return {
        name: Head(**{field: np.concatenate([getattr(part[name], field) for part in parts]) for field in _FIELDS})
        for name in parts[0]
    }


def write(predictions: Predictions, path: Path, *, sync: bool = True) -> None:
    """Write a file without pickled objects; `sync` waits until the disk has it.

    Raises `StoreError` if the disk is full or the folder not writable.
    """
    arrays: dict[str, Any] = {
        "names": np.array(predictions.names, dtype=np.str_),
        "labels": predictions.labels,
        # Listed, so that a damaged archive cannot lose one unnoticed.
        "heads": np.array(list(predictions.heads), dtype=np.str_),
    }
    for name, head in predictions.heads.items():
        arrays |= {f"{name}.{field}": getattr(head, field) for field in _FIELDS}
    content = io.BytesIO()
    try:
        np.savez_compressed(content, **arrays)
        atomic.write(path, content.getvalue(), sync=sync)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; free some space or name another --runs") from error


def read(path: Path) -> Predictions:
    """Read a file.  Raises `StoreError` if it is missing or damaged."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StoreError(
            f"{path}: is no file, so it holds no predictions; remove it and run the job again with --rerun"
        )
    try:
        predictions = _parse(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path}: the predictions are gone; run the job again with --rerun") from None
    except Exception as error:  # numpy, zipfile and zlib each fail in their own way on damaged bytes
        raise damaged(path, error) from error
    if predictions is None:
        raise StoreError(f"{path}: holds no predictions")
    if problem := _problem(predictions):
        raise damaged(path, problem)
    return predictions


def read_of(result: Result, path: Path) -> Predictions:
    """Read the predictions of an evaluation.

    Raises `StoreError` if they are missing, damaged, or another run's: those that give another top-1.
    """
    predictions, top1 = read(path), result.metrics.get("top1")
    classes = result.facts.get("images", {}).get("classes_of")
    if classes and predictions.names and predictions.labels.max() >= classes:
        raise damaged(path, f"a label is {predictions.labels.max()}, but there are {classes} classes")
    if top1 is not None:
        check_accuracy(path, 100 * float(predictions.correct().mean()), top1.value, "top1")
    return predictions


def check_accuracy(path: Path, given: float, stored: float | str, metric: str) -> None:
    """Raise `StoreError` where predictions give another accuracy than the result that they belong to."""
    if isinstance(stored, str) or not abs(given - stored) <= 1e-6:
        raise damaged(path, f"they give a {metric} of {given:g} %, their result has {stored}")


def damaged(path: Path, reason: object) -> StoreError:
    """Return the error of a file of predictions that cannot be used."""
    return StoreError(f"{path}: the predictions are damaged ({reason}); run the job again with --rerun")


def _problem(predictions: Predictions) -> str:
    """Return why predictions cannot be; empty if they can."""
    count, heads = len(predictions.names), predictions.heads
    if "class" not in heads or not heads.keys() <= set(HEADS):
        return f"the heads are {', '.join(map(str, heads)) or 'none'}, not {HEADS[0]} or {', '.join(HEADS)}"
    if predictions.labels.shape != (count,):
        return f"{count} images, but labels of shape {predictions.labels.shape}"
    problems = [labels_problem(predictions.labels)]
    for head in heads.values():
        problems += [top_problem(head.top, count), scores_problem(head.scores, head.probability, count)]
    return next(filter(None, problems), "")


def _parse(content: bytes) -> Predictions | None:
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        if "heads" not in data:
            return None
        heads, names = data["heads"].tolist(), data["names"]
        if names.ndim != 1 or names.dtype.kind != "U":
            raise ValueError(f"the names are of shape {names.shape} and type {names.dtype}")
        return Predictions(
            names=tuple(names.tolist()),
            labels=data["labels"],
            heads={name: Head(**{field: data[f"{name}.{field}"] for field in _FIELDS}) for name in heads},
        )
