"""`Job` -> measurements.  The only home of torch, torchvision and timm; started by `launch`, imported by nobody."""

from typing import Any

from harness.store.result import Measurement

# What the entry function of a job returns: metrics, facts and warnings of a result.
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]
