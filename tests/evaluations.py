"""The evaluations of two models over ten images, as a pass would store them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from harness.judge.compare import Evaluation
from harness.plan.job import Job
from harness.store.predictions import Head, Predictions
from harness.store.result import Measurement, Result
from tests.fakes import LAPTOP, NOON, VERSIONS

NAMES = tuple(f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 11))
LABELS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)

# Right at the first six, wrong at the last four; and right at 0, 1, 2 and 6.
SIX = (0, 1, 2, 3, 4, 5, 11, 11, 11, 11)
FOUR = (0, 1, 2, 12, 12, 12, 6, 12, 12, 11)


def evaluation(model: str = "deit_tiny_patch16_224", **settings: Any) -> Job:  # noqa: ANN401 -- of any kind
    of_model: dict[str, Any] = {"model": model, "weights": "fb_in1k", "res": 224, "data": "imagenet"}
    view: dict[str, Any] = {"crop": 0.875, "interpolation": "bicubic", "norm": "imagenet", "precision": "float32"}
    return Job.of("evaluate", {**of_model, **view, **settings})


def result_of_evaluation(
    job: Job,
    *,
    minutes: int = 0,
    metrics: Mapping[str, float] | None = None,
    **facts: Any,  # noqa: ANN401 -- of any kind
) -> Result:
    started = NOON + timedelta(minutes=minutes)
    return Result(
        id=f"{started:%Y%m%dT%H%M%S}000000Z-0000000{minutes}",
        job=job,
        machine=LAPTOP,
        software=VERSIONS,
        started=started,
        seconds=2.0,
        metrics={
            name: Measurement(unit="%", value=value, low=max(0, value - 1), high=min(100, value + 1))
            for name, value in (metrics or {}).items()
        },
        facts={
            "weights": {"file": f"{job['model']}.safetensors", "sha256": "0123456789abcdef" * 4, "origin": "file"},
            "images": {
                "said": "10 of the 50,000 images of ImageNet, 10 of its 1,000 classes",
                "fingerprint": "f",
                "whole": False,
            },
            **facts,
        },
    )


def head_of(predicted: Sequence[int]) -> Head:
    top = np.full((len(predicted), 5), -1, dtype=np.int32)
    top[:, 0] = predicted
    return Head(
        top=top,
        scores=np.zeros((len(predicted), 5), dtype=np.float32),
        probability=np.zeros(len(predicted), dtype=np.float32),
    )


def predictions(
    predicted: Sequence[int], labels: Sequence[int] = LABELS, names: Sequence[str] = NAMES, **heads: Sequence[int]
) -> Predictions:
    """The predictions of a model with one head; more heads make its main one `softmax_sum`."""
    return Predictions(
        names=tuple(names),
        labels=np.array(labels, dtype=np.int32),
        heads={name: head_of(top1) for name, top1 in {"class": predicted, **heads}.items()},
    )


def tiny(predicted: Sequence[int] = SIX, **options: Any) -> Evaluation:  # noqa: ANN401 -- passed on
    return Evaluation(result=result_of_evaluation(evaluation()), predictions=predictions(predicted, **options))


def lite(predicted: Sequence[int] = FOUR, **options: Any) -> Evaluation:  # noqa: ANN401 -- passed on
    return Evaluation(
        result=result_of_evaluation(evaluation("tf_efficientnet_lite0"), minutes=1),
        predictions=predictions(predicted, **options),
    )
