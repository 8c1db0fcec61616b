"""`Result`: the outcome of one run of a job <-> JSON."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import product
from typing import Any, TypeVar

from harness.errors import StoreError
from harness.machine import Machine
from harness.plan.job import Job
from harness.specs.checked import TABLE, TEXT, Constraint
from harness.store import possible
from harness.store.cost import cost_from
from harness.store.record import (
    AMOUNT,
    COUNT,
    ID,
    STRING,
    TABLES,
    TEXT_OR_NULL,
    RecordReader,
    number,
    refuse_as_damage,
)

SCHEMA = 1

T = TypeVar("T")


class UnusableResultError(StoreError):
    """A result that may be good, but not for this version or at this time: it is left as it is."""


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

    Read from a file, it has the types and ranges of `_RESULT` and `_FACTS` below, and is possible.

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
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # The name of a file may hold bytes that are no character.
    return text.encode(errors="backslashreplace").decode()


def job_to_data(job: Job) -> dict[str, Any]:
    """Return a job as data, with the trainings that it needs."""
    data: dict[str, Any] = {"kind": job.kind, "revision": job.revision, "settings": dict(job.settings)}
    if job.needs:
        data["needs"] = {part: job_to_data(training) for part, training in job.needs}
    return data


def verified(result: Result) -> Result:
    """Return a new result, or in its place the failure of its job where nobody could read it: it cannot be."""
    try:
        from_json(to_json(result))
    except (StoreError, TypeError, ValueError) as error:
        return replace(result, metrics={}, facts={}, warnings=(), error=f"its result {error}")
    return result


_NUMBER_TYPES = frozenset((int, float))
_NUMBER = number()
_NUMBER_OR_NULL = Constraint(types=(int, float, type(None)), form="a number or null")
_TIME = Constraint(types=(float,), above=0)
_TIMES = Constraint(types=(list,), items=_TIME, may_be_empty=True, required=True)
_TEXTS = Constraint(types=(list,), items=TEXT, may_be_empty=True, required=True)
_PERCENTAGE = number(least=0, most=100)
_FLAG = Constraint(types=(bool,), required=True)

_RESULT = {
    "id": ID,
    **dict.fromkeys(("job", "machine", "software", "metrics", "facts"), TABLES),
    "started": STRING,
    "seconds": number(least=0, most=1e9, required=True),  # thirty years
    "warnings": _TEXTS,
    "error": TEXT_OR_NULL,
}
_MEASUREMENT = {
    "unit": STRING,
    "value": Constraint(types=(int, float, str), form="a number or a string", required=True),
    **dict.fromkeys(("low", "high"), _NUMBER_OR_NULL),
    "samples": Constraint(types=(list,), items=_NUMBER, may_be_empty=True, required=True),
    "sample_unit": TEXT,
}
_MEASUREMENT_TYPES = frozenset(product(*(known.types for known in _MEASUREMENT.values())))

# Facts that the program reads; a job may leave more, which are only shown.
_FACTS = {
    "batch": Constraint(types=(int,), least=1),
    "disturbed": Constraint(types=(bool,)),
    "dropped": Constraint(types=(list,), items=TABLE, may_be_empty=True),
    "yardstick": Constraint(types=(list, type(None)), items=_TIME),
    "warm_up": Constraint(types=(list,), items=_TIME, may_be_empty=True),
    "hours": number(least=0),
    **dict.fromkeys(("parameters", "multiply_adds"), Constraint(types=(int,), least=0)),
    **dict.fromkeys(("images", "tests", "weights", "heads", "real", "took"), TABLE),
    **dict.fromkeys(("unreadable", "evaluations"), Constraint(types=(list,), items=TEXT, may_be_empty=True)),
    "history": Constraint(types=(list,), items=TABLE),
    "by_layer": Constraint(types=(list,), items=number(least=-1.001, most=1.001)),
}
_IMAGES = {
    **dict.fromkeys(("fingerprint", "said"), STRING),
    "whole": _FLAG,
    "name": TEXT,
    **dict.fromkeys(("images", "classes", "classes_of"), Constraint(types=(int,), least=0)),
    "of": Constraint(types=(int, type(None)), least=0),
}
_DROPPED = {"index": AMOUNT, "seconds": Constraint(types=(float,), above=0, required=True), "by": STRING}
_TRAINED = {"sha256": STRING, "origin": TEXT}
_WEIGHTS = dict.fromkeys(("sha256", "file", "origin"), STRING)
_REAL = {"images": AMOUNT, "labels_agree": number(least=0, most=1, required=True)}

# Facts without which a good result of a kind is not whole.
_PARTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("throughput", "train-speed"), ("batch",)),
    "evaluate": ("images", "weights"),
    "tokens": ("images", "weights", "by_layer"),
    "agreement": ("evaluations",),
    "train": ("images", "weights", "took", "history"),
}

# What the results of a folder have in common: data and what was made of them.
_last: dict[str, tuple[object, Any]] = {}


def _same(name: str, raw: object, make: Callable[[], T]) -> T:
    """Return what was made of equal data last time: of thousands of results most have the same job and machine."""
    last = _last.get(name)
    if last is None or last[0] != raw:
        last = _last[name] = raw, make()
    value: T = last[1]
    return value


class _ResultReader(RecordReader):
    """Reads one result, and refuses the first mistake in it."""

    def result(self, text: str) -> Result:
        data = self.parse(text)
        if not isinstance(data, dict) or "schema" not in data:
            raise StoreError("is not a result")
        schema = data["schema"]
        if type(schema) is int and schema > SCHEMA:
            raise UnusableResultError(f"has schema {schema}, this version reads {SCHEMA}; update the harness")
        if type(schema) is not int or schema != SCHEMA:
            self.refuse("its schema is none")
        data = self.table(data, _RESULT, more=True)
        started = self.time(data["started"], "started")
        if not data["id"].startswith(f"{started:%Y%m%dT%H%M%S}"):
            # The id orders results by their age.
            self.refuse(f"run {data['id']} says that it started at another time, {started:%Y-%m-%d %H:%M:%S}")
        job = _same("job", data["job"], lambda: self.job(data["job"], "job"))
        software = data["software"]
        result = Result(
            id=data["id"],
            job=job,
            machine=_same("machine", data["machine"], lambda: self.machine(data["machine"], "machine")),
            software=_same("software", software, lambda: self.mapping(software, TEXT, "software")),
            started=started,
            seconds=float(data["seconds"]),
            metrics={name: self._measurement(raw, "metrics", name) for name, raw in data["metrics"].items()},
            facts=self._facts(data["facts"], job.kind if data["error"] is None else ""),
            warnings=tuple(data["warnings"]),
            error=data["error"],
        )
        if problem := possible.result_problem(result):
            self.refuse(problem)
        return result

    def _measurement(self, raw: Any, *keys: str) -> Measurement:  # noqa: ANN401 -- whatever the file holds
        # Nearly every one has the usual names in the usual order, and right types.
        if not (
            isinstance(raw, dict)
            and tuple(raw) == tuple(_MEASUREMENT)
            and tuple(map(type, raw.values())) in _MEASUREMENT_TYPES
            and _NUMBER_TYPES.issuperset(map(type, raw["samples"]))
        ):
            raw = self.table(raw, _MEASUREMENT, *keys)
        return Measurement(**{**raw, "samples": tuple(map(float, raw["samples"]))})

    def _facts(self, raw: dict[str, Any], kind: str) -> dict[str, Any]:
        """Check the facts that the program reads; a `kind` has its own."""
        quickly: dict[str, Any] = {"warm_up": []} if _are_times(raw.get("warm_up")) else {}
        self.table({**raw, **quickly}, _FACTS, "facts", more=True)
        for name in _PARTS.get(kind, ()):
            if name not in raw:
                self.refuse(f"{name} in [facts] is missing, which every {kind} has")
        weights = _TRAINED if kind == "train" else _WEIGHTS
        for name, constraints in (("images", _IMAGES), ("tests", _IMAGES), ("real", _REAL), ("weights", weights)):
            if name in raw:
                self.table(raw[name], constraints, "facts", name, more=True)
        for head, accuracies in raw.get("heads", {}).items():
            self.mapping(accuracies, _PERCENTAGE, "facts", "heads", head)
        self.mapping(raw.get("took", {}), TEXT, "facts", "took")
        if "cost" in raw:
            cost_from(self, raw["cost"], "facts", "cost")
        for iteration in raw.get("dropped", ()):
            self.table(iteration, _DROPPED, "facts", "dropped")
        for epoch in raw.get("history", ()):
            if "epoch" not in epoch or not _NUMBER_TYPES.issuperset(map(type, epoch.values())):
                self.table(epoch, {**dict.fromkeys(epoch, _NUMBER), "epoch": COUNT}, "facts", "history")
        return raw


_READER = _ResultReader(refuse_as_damage)


def job_from_data(data: object) -> Job:
    """Return the job that data describe.  Raises `StoreError` with a clause that says what is wrong with them."""
    return _READER.job(data, "job")


def from_json(text: str) -> Result:
    """Return the result in a JSON text.

    Raises `StoreError` with a clause that says what is wrong with it; `UnusableResultError` for one of a later version.
    """
    try:
        return _READER.result(text)
    except json.JSONDecodeError as error:
        raise StoreError(f"is not complete JSON ({error})") from error


def _are_times(value: object) -> bool:
    """Whether a value is a list of times, as most are that are long."""
    return isinstance(value, list) and all(type(item) is float and item > 0 for item in value)
