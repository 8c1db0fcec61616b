"""A data set on the disk -> how many images and classes it has (table 6)."""

from typing import Any

from harness.job import Job
from harness.jobs.images import sizes
from harness.jobs.walk import Report
from harness.progress import Inputs, Progress
from harness.result import Measurement

UNITS = {"test_images": "images", "train_images": "images", "classes": "classes"}


def work(job: Job, inputs: Inputs, report: Report) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:
    """Count what is there; a split that is not there has no number.

    Raises `JobError` if there are no images at all.
    """
    data = str(job["data"])
    report(Progress(job=job, phase="counting images"))
    found = sizes(data, inputs.where(data))
    metrics = {name: Measurement(unit=UNITS[name], value=count) for name, count in found.items()}
    absent = [name.removesuffix("_images") for name in UNITS if name not in found]
    return metrics, {}, [f"{data} has no {split} images there" for split in absent]
