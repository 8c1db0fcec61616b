"""Predictions -> accuracies, each with its confidence interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats import wilson
from harness.store.predictions import Predictions
from harness.store.real_labels import are_right, is_labelled, real_labels
from harness.store.result import Measurement

# Points above the accuracy of guessing: with neighbours' labels, as those numbered from 1, a model has two or three.
NEAR_CHANCE = 5.0


def accuracies(predictions: Predictions) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Return every accuracy of the predictions, in percent, and the facts behind them.

    `top1`, `top5` and `real` are those of the main head: for two heads the sum of their softmax outputs (section 5.2).
    `real` is ImageNet-ReaL (Beyer et al. 2020): whether the top-1 prediction is among the reassessed labels of the
    image; images without such labels are left out.
    """
    real = real_labels(predictions.names)
    by_head = {name: _accuracies_of_head(predictions, name, real) for name in predictions.heads}
    metrics = dict(by_head[predictions.main_head])
    if len(by_head) > 1:
        metrics |= {f"top1_{name}": accuracy["top1"] for name, accuracy in by_head.items()}
    facts: dict[str, Any] = {
        "heads": {name: {key: m.value for key, m in accuracy.items()} for name, accuracy in by_head.items()}
    }
    if real is not None:
        agree = are_right(predictions.labels[:, None], real)[is_labelled(real)]
        facts["real"] = {"images": len(agree), "labels_agree": int(agree.sum()) / max(1, len(agree))}
    return metrics, facts


def chance_warnings(metrics: Mapping[str, Measurement], classes: int, images: int) -> list[str]:
    """Return a warning about a top-1 accuracy, in percent, that is hardly above that of guessing."""
    top1, chance = metrics.get("top1"), 100 / classes
    if top1 is None or isinstance(top1.value, str) or top1.value > chance + NEAR_CHANCE:
        return []
    near = (
        f"top-1 is {top1.value:.2f} % on {images:,} images, and guessing gives {chance:.3g} % with {classes:,} classes"
    )
    return [f"{near}: are the labels numbered as the model's classes are, and are these its weights?"]


def _accuracies_of_head(predictions: Predictions, name: str, real: NDArray[np.int32] | None) -> dict[str, Measurement]:
    top = predictions.heads[name].top
    accuracy = {
        "top1": percentage(predictions.correct(name)),
        "top5": percentage((top == predictions.labels[:, None]).any(axis=1)),
    }
    if real is not None:
        hits = are_right(top[:, :1], real)[is_labelled(real)]
        if len(hits):
            accuracy["real"] = percentage(hits)
    return accuracy


def percentage(hits: NDArray[np.bool_]) -> Measurement:
    """Return the percentage of hits with its 95 % Wilson interval."""
    return Measurement(unit="%", **vars(wilson(int(hits.sum()), len(hits))))
