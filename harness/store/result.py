"""`Result`: the outcome of one run of a job <-> JSON."""

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from harness.errors import StoreError
from harness.machine import Machine
from harness.plan.job import Job

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of a job.

    `low` and `high` are the 95 % confidence interval of `value`, if there is one; `samples` are the raw samples behind
    it, in `sample_unit`.
    """

    unit: str
    value: float | str
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()
    sample_unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one run of a job on one machine.

    `started` is in UTC, `seconds` is the duration of the whole job.  `facts` is whatever else explains the metrics, as
    flags and the batch size.  `error` is None for a run that succeeded.
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
    """Return an id that sorts by time and that no two runs share, whatever host they are on."""
    return f"{started:%Y%m%dT%H%M%S}{started.microsecond:06d}Z-{secrets.token_hex(4)}"


def to_json(result: Result) -> str:
    """Return a result as JSON that people can read, too."""
    data = {
        "schema": SCHEMA,
        "id": result.id,
        "job": job_to_data(result.job),
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


def job_to_data(job: Job) -> dict[str, Any]:
    """Return a job as data, with the trainings that it needs."""
    data: dict[str, Any] = {"kind": job.kind, "revision": job.revision, "settings": dict(job.settings)}
    if job.needs:
        data["needs"] = {part: job_to_data(training) for part, training in job.needs}
    return data


def job_from_data(data: Mapping[str, Any]) -> Job:
    """Return the job that data describe."""
    return Job(
        kind=data["kind"],
        revision=data["revision"],
        settings=tuple(sorted(data["settings"].items())),
        needs=tuple(sorted((part, job_from_data(training)) for part, training in data.get("needs", {}).items())),
    )


def from_json(text: str) -> Result:
    """Return the result in a JSON text.  Raises `StoreError` with a clause that says what is wrong with it."""
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
    job = job_from_data(data["job"])
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
    measurement = Measurement(**{**data, "samples": tuple(float(sample) for sample in data["samples"])})
    numbers: list[object] = [measurement.value, measurement.low, measurement.high]
    if any(isinstance(n, bool) or not isinstance(n, (int, float, str, type(None))) for n in numbers):
        raise ValueError("a measurement is not a number")
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
        raise ValueError("a measurement is not finite")
    return measurement
