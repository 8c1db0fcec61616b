"""`Job` -> measurements.  The only home of torch, torchvision and timm; started by `launch`, imported by nobody.

The names here are what a function that measures a kind of job needs, ours or one of another package.
"""

from typing import Any

from harness.errors import JobError
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.store.result import Measurement

__all__ = ["Job", "JobError", "Measurement", "Outcome", "Progress", "Report"]

# What the entry function of a job returns: metrics, facts and warnings of a result.
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]
