"""Two stored evaluations -> how often their top-1 predictions differ (table 4)."""

import numpy as np
from numpy.typing import NDArray

from harness.errors import JobError
from harness.jobs import Outcome
from harness.jobs.evaluate import score
from harness.plan.job import Job
from harness.plan.plan import LABELS, classifier_evaluation
from harness.store.predictions import Predictions, read_of
from harness.store.result import Measurement, Result
from harness.store.store import Store

# What a spec calls the ways to read a model with two heads.
_HEAD_NAMES = {"class": "class", "distil": "distil", "both": "softmax_sum", "mean": "logit_mean"}


def measure_agreement(job: Job, store: Store) -> Outcome:
    """Compare two classifiers image by image; the classifier `labels` is the ground truth.

    Raises `JobError` if an evaluation is missing or the two are not over the same images.
    """
    sides = [_stored(str(job[side]), job, store) for side in ("first", "second")]
    evaluated = [side for side in sides if side is not None]
    if len({predictions.names for predictions, _, _ in evaluated}) > 1:
        raise JobError(f"{job['first']} and {job['second']} were evaluated over different images; run with --rerun")
    if not evaluated:  # the labels with themselves, on whatever images
        return {"disagreement": Measurement(unit="fraction", value=0.0)}, {"evaluations": [], "differ": 0}, []
    labels = evaluated[0][0].labels
    first, second = (labels if side is None else side[0].heads[side[1]].top[:, 0] for side in sides)
    # An image that could not be read has no prediction, and two without a prediction do not agree.
    differ: NDArray[np.bool_] = (first != second) | (first < 0)
    percentage = score.percentage(differ)
    disagreement = Measurement(
        unit="fraction",
        value=float(differ.mean()),
        low=None if percentage.low is None else percentage.low / 100,
        high=None if percentage.high is None else percentage.high / 100,
    )
    results = [result for _, _, result in evaluated]
    facts = {
        "images": results[0].facts["images"],
        "evaluations": [result.id for result in results],
        "differ": int(differ.sum()),
    }
    return {"disagreement": disagreement}, facts, []


def _stored(classifier: str, job: Job, store: Store) -> tuple[Predictions, str, Result] | None:
    """Return a classifier's predictions, the head that is meant, and the result they belong to; None for labels."""
    if classifier == LABELS:
        return None
    result = store.latest(classifier_evaluation(classifier, job), lambda result: result.error is None)
    if result is None:
        raise JobError(f"needs the evaluation of {classifier.partition('#')[0]}, which failed or is missing")
    predictions = read_of(result, store.predictions_of(result))
    return predictions, _head(classifier, predictions), result


def _head(classifier: str, predictions: Predictions) -> str:
    name = classifier.partition("#")[2]
    head = _HEAD_NAMES.get(name, name) if name else predictions.main_head
    if head not in predictions.heads:
        known = ", ".join(name for name, head in _HEAD_NAMES.items() if head in predictions.heads)
        raise JobError(f"{classifier}: the model has no such head; it has {known}")
    return head
