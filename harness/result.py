"""What a run leaves behind, and how it stands in a file."""

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from harness.errors import StoreError
from harness.job import Job
from harness.machine import Machine

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of a job.

    `low` and `high` bound `value` with 95 % confidence where there is an interval.  `samples` are the raw samples
    behind it, in `sample_unit`.
    """

    unit: str
    value: float | str
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()
    sample_unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run of a job on one machine came to.

    `started` is UTC, `seconds` is the time of the whole job.  `facts` is whatever else belongs to the number: flags,
    batch, probes.  `error` is None for a run that succeeded.
    """

    id: str
    job: Job
    machine: Machine
    software: Mapping[str, str]
    started: datetime
    seconds: float
    metrics: Mapping[str, Measurement] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None


def new_id(started: datetime) -> str:
    """Give a name that sorts by time and that no two runs share, whatever host they are on."""
    return f"{started:%Y%m%dT%H%M%S}{started.microsecond:06d}Z-{secrets.token_hex(4)}"


def to_json(result: Result) -> str:
    """Write a result so that a person can read it and any program can load it."""
    data = {
        "schema": SCHEMA,
        "id": result.id,
        "job": job_to(result.job),
        "machine": asdict(result.machine),
        "software": dict(result.software),
        "started": result.started.isoformat(),
        "seconds": round(result.seconds, 3),
        "metrics": {name: asdict(measurement) for name, measurement in result.metrics.items()},
        "facts": dict(result.facts),
        "warnings": list(result.warnings),
        "error": result.error,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def job_to(job: Job) -> dict[str, Any]:
    """Write a job as data, with the trainings that it needs."""
    told: dict[str, Any] = {"kind": job.kind, "revision": job.revision, "settings": dict(job.settings)}
    if job.needs:
        told["needs"] = {part: job_to(one) for part, one in job.needs}
    return told


def job_from(data: Mapping[str, Any]) -> Job:
    """Read a job."""
    return Job(
        kind=data["kind"],
        revision=data["revision"],
        settings=tuple(sorted(data["settings"].items())),
        needs=tuple(sorted((part, job_from(one)) for part, one in data.get("needs", {}).items())),
    )


def from_json(text: str) -> Result:
    """Read a result.

    Raises `StoreError` with a clause that says what is wrong with it.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise StoreError(f"is not complete JSON ({error})") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise StoreError("is not a result")
    if data["schema"] != SCHEMA:
        raise StoreError(f"has schema {data['schema']}, this version reads {SCHEMA}; update the harness")
    try:
        return _result(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"is damaged ({type(error).__name__}: {error})") from error


def _result(data: Mapping[str, Any]) -> Result:
    job = job_from(data["job"])
    started = datetime.fromisoformat(data["started"])
    if started.tzinfo is None:
        started = started.replace(tzinfo=UTC)
    return Result(
        id=str(data["id"]),
        job=job,
        machine=Machine(**data["machine"]),
        software=dict(data["software"]),
        started=started,
        seconds=float(data["seconds"]),
        metrics={name: _measurement(value) for name, value in data["metrics"].items()},
        facts=dict(data["facts"]),
        warnings=tuple(str(warning) for warning in data["warnings"]),
        error=None if data["error"] is None else str(data["error"]),
    )


def _measurement(data: Mapping[str, Any]) -> Measurement:
    found = Measurement(**{**data, "samples": tuple(float(sample) for sample in data["samples"])})
    numbers: list[object] = [found.value, found.low, found.high]
    if any(isinstance(n, bool) or not isinstance(n, (int, float, str, type(None))) for n in numbers):
        raise ValueError("a measurement is not a number")
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
        raise ValueError("a measurement is not finite")
    return found
