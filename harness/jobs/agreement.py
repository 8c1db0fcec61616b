"""Two stored evaluations -> how often their first guesses differ (table 4)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import JobError
from harness.job import Job
from harness.jobs import score
from harness.plan import LABELS, evaluation_of
from harness.predictions import Predictions, read
from harness.result import Measurement, Result
from harness.store import Store

# How a spec names the ways to read a network with two heads.
_READ_AS = {"class": "class", "distil": "distil", "both": "softmax_sum", "mean": "logit_mean"}


def work(job: Job, store: Store) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:
    """Compare two classifiers image by image; `labels` stands for the ground truth.

    Raises `JobError` if an evaluation is missing or the two are not over the same images.
    """
    sides = [_side(str(job[side]), job, store) for side in ("first", "second")]
    predictions = [found for found, _, _ in sides if found is not None]
    if len({found.names for found in predictions}) > 1:
        raise JobError(f"{job['first']} and {job['second']} were evaluated over different images; run with --rerun")
    if not predictions:  # the labels with themselves, on whatever images
        return {"disagreement": Measurement(unit="fraction", value=0.0)}, {"evaluations": [], "differ": 0}, []
    guesses = [predictions[0].labels if found is None else found.heads[head].top[:, 0] for found, head, _ in sides]
    # An image that could not be read has no guess, and two without a guess do not agree.
    apart: NDArray[np.bool_] = (guesses[0] != guesses[1]) | (guesses[0] < 0)
    found = score.share(apart)
    measured = Measurement(
        unit="fraction",
        value=float(apart.mean()),
        low=None if found.low is None else found.low / 100,
        high=None if found.high is None else found.high / 100,
    )
    results = [result for _, _, result in sides if result is not None]
    facts = {
        "images": results[0].facts["images"],
        "evaluations": [result.id for result in results],
        "differ": int(apart.sum()),
    }
    return {"disagreement": measured}, facts, []


def _side(classifier: str, job: Job, store: Store) -> tuple[Predictions | None, str, Result | None]:
    """Give a classifier's predictions, which head of them is meant, and the result they belong to."""
    if classifier == LABELS:
        return None, "", None
    evaluation = evaluation_of(classifier, job)
    result = store.latest(evaluation, lambda one: one.error is None)
    if result is None:
        raise JobError(f"needs the evaluation of {classifier.partition('#')[0]}, which failed or is missing")
    predictions = read(store.predictions_of(result))
    return predictions, _head(classifier, predictions), result


def _head(classifier: str, predictions: Predictions) -> str:
    _, _, told = classifier.partition("#")
    head = _READ_AS.get(told, told) if told else predictions.main
    if head not in predictions.heads:
        known = ", ".join(name for name, of in _READ_AS.items() if of in predictions.heads)
        raise JobError(f"{classifier}: the network has no such head; there is {known}")
    return head
