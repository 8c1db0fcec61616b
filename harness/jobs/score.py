"""Predictions -> accuracies, each with its interval."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.predictions import Predictions
from harness.result import Measurement
from harness.stats import wilson

# ImageNet's validation images carry their number in their name, wherever they are kept.
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


def metrics_of(predictions: Predictions) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Give every accuracy that the predictions hold, in percent, and the facts behind them.

    `top1`, `top5` and `real` are those of the main head: for two heads the sum of their softmax outputs (section 5.2).
    `real` is ImageNet-ReaL (Beyer et al. 2020): whether the first guess is among the labels given anew to the image;
    images that were given none are left out.
    """
    real = real_labels(predictions)
    by_head = {name: _of_head(predictions, name, real) for name in predictions.heads}
    metrics = {name: m for name, m in by_head[predictions.main].items() if m is not None}
    if len(by_head) > 1:
        metrics |= {f"top1_{name}": found["top1"] for name, found in by_head.items() if found["top1"]}
    facts: dict[str, Any] = {
        "heads": {name: {key: m.value for key, m in found.items() if m} for name, found in by_head.items()}
    }
    if real is not None:
        judged = [(label, labels) for label, labels in zip(predictions.labels.tolist(), real, strict=True) if labels]
        facts["real"] = {
            "images": len(judged),
            "labels_agree": sum(label in labels for label, labels in judged) / max(1, len(judged)),
        }
    return metrics, facts


def _of_head(predictions: Predictions, name: str, real: list[frozenset[int]] | None) -> dict[str, Measurement | None]:
    head = predictions.heads[name]
    first = predictions.correct(name)
    among = (head.top == predictions.labels[:, None]).any(axis=1)
    found = {"top1": share(first), "top5": share(among), "real": None}
    if real is not None:
        kept = [(guess, labels) for guess, labels in zip(head.top[:, 0].tolist(), real, strict=True) if labels]
        if kept:
            found["real"] = share(np.array([guess in labels for guess, labels in kept]))
    return found


def share(hits: NDArray[np.bool_]) -> Measurement:
    """Give the percentage of hits with its 95 % Wilson interval."""
    count, total = int(hits.sum()), len(hits)
    low, high = wilson(count, total)
    return Measurement(unit="%", value=100 * count / total, low=100 * low, high=100 * high)


def real_labels(predictions: Predictions) -> list[frozenset[int]] | None:
    """Find the ReaL labels of each image by its name; None where the names are not ImageNet validation's."""
    found = [_VALIDATION.search(name) for name in predictions.names]
    if not found or not all(found):
        return None
    everything = _all_real_labels()
    numbers = [int(match[1]) for match in found if match]
    if max(numbers) > len(everything) or min(numbers) < 1:
        return None
    return [everything[number - 1] for number in numbers]


@cache
def _all_real_labels() -> list[frozenset[int]]:
    """Read the labels that timm ships: one list for each of the 50,000 images, in the order of their numbers."""
    text = (files("timm") / "data" / "_info" / "imagenet_real_labels.json").read_text(encoding="utf-8")
    return [frozenset(labels) for labels in json.loads(text)]
