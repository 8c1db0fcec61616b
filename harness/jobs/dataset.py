"""A data set on the disk -> how many images and classes it has (table 6)."""

from typing import Any

import numpy as np

from harness.errors import JobError
from harness.jobs.images import facts_of, open_images
from harness.jobs.walk import Report
from harness.plan import Job
from harness.progress import Inputs, Progress
from harness.result import Measurement


def work(job: Job, inputs: Inputs, report: Report) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:
    """Count what is there; a split that is not there has no number."""
    data = str(job["data"])
    where = inputs.data[data]
    report(Progress(job=job, phase="counting images"))
    images = open_images(data, where)
    metrics = {
        "test_images": Measurement(unit="images", value=len(images)),
        "classes": Measurement(unit="classes", value=len(np.unique(images.labels))),
    }
    warnings = []
    try:
        training = open_images(data, where, split="train")
    except JobError as error:
        warnings.append(f"no training images: {error}")
    else:
        metrics["train_images"] = Measurement(unit="images", value=len(training))
    return metrics, {"images": facts_of(images)}, warnings
