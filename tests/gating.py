"""A small table, and runs of it as an earlier and a later day would leave them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.judge.judged import judged_tables
from harness.judge.verdict import Diff
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.specs import Spec, load
from harness.store.predictions import write
from harness.store.result import Measurement, Result
from harness.store.select import Selection
from harness.store.store import Store
from tests.evaluations import NAMES, predictions, result_of_evaluation
from tests.fakes import IMAGES, LAPTOP, NOON, VERSIONS, result_of

SPEC = """
[table]
title = "Small"
[source.paper]
kind = "paper"
cite = "the paper"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 1
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
better = "higher"
tolerance = "5%"
machine = "V100 16GB"
set = { batch = 4 }
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "%"
better = "higher"
tolerance = 0.05
set = { data = "imagenet" }
[column.real]
label = "Real"
job = "evaluate"
metric = "real"
unit = "%"
better = "higher"
tolerance = 0.05
set = { data = "imagenet" }
[row.tiny]
label = "Tiny"
set = { model = "tiny", res = 224, weights = "w" }
paper = { params = 5, speed = 1000, top1 = 72.2 }
"""

# Seconds of three runs of five processes, four images each: 100, 101, 102, 103 and 104 im/s by their medians.
FIVE = tuple((4 / speed, 4 / speed, 4 / (speed - 9)) for speed in (100, 101, 102, 103, 104))


def mine(tmp_path: Path, text: str = SPEC, name: str = "mine.toml") -> Spec:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load(path)


def options_of(**options: Any) -> Options:  # noqa: ANN401 -- passed on
    return Options(data=frozenset({"imagenet"}), **options)


def plan_of(spec: Spec, **options: Any) -> Plan:  # noqa: ANN401 -- passed on
    return make_plan([spec], options_of(**options))


def job_of_kind(spec: Spec, kind: str) -> Job:
    return next(job for job in plan_of(spec).jobs if job.kind == kind)


def run_id(minutes: int) -> str:
    return f"{NOON + timedelta(minutes=minutes):%Y%m%dT%H%M%S}000000Z-{minutes:08x}"


def save_throughput(
    store: Store,
    spec: Spec,
    minutes: int,
    seconds: Sequence[float],
    *,
    noisy: bool = False,
    reference_seconds: float | None = None,
    machine: Machine = LAPTOP,
    torch: str = "2.15.0",
    error: str | None = None,
    job: Job | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Result:
    value = 4 * len(seconds) / sum(seconds)
    result = Result(
        id=run_id(minutes),
        job=job or job_of_kind(spec, "throughput"),
        machine=machine,
        software={**VERSIONS, "torch": torch},
        started=NOON + timedelta(minutes=minutes),
        seconds=2.0,
        metrics={}
        if error
        else {"throughput": Measurement(unit="im/s", value=value, samples=tuple(seconds), sample_unit="s")},
        facts={
            "batch": 4,
            "disturbed": noisy,
            "yardstick": reference_seconds and [reference_seconds] * 2,
            **(facts or {}),
        },
        error=error,
    )
    store.save(result)
    return result


def save_count(store: Store, spec: Spec, minutes: int, value: float = 5.5, error: str | None = None) -> Result:
    result = Result(
        id=run_id(minutes),
        job=job_of_kind(spec, "count"),
        machine=LAPTOP,
        software=VERSIONS,
        started=NOON + timedelta(minutes=minutes),
        seconds=1.0,
        metrics={}
        if error
        else {"params": Measurement(unit="M", value=value), "macs": Measurement(unit="GMAC", value=value)},
        error=error,
    )
    store.save(result)
    return result


def save_accuracy(
    store: Store,
    spec: Spec,
    minutes: int,
    right: Sequence[bool],
    *,
    files: bool = True,
    fingerprint: str = "f",
    job: Job | None = None,
) -> Result:
    """Right or wrong at each of some images; the label is 0 everywhere."""
    value = 100 * sum(right) / len(right)
    job = job or job_of_kind(spec, "evaluate")
    weights = result_of(job).facts["weights"]
    made = result_of_evaluation(
        job, metrics={"top1": value}, images={**IMAGES, "fingerprint": fingerprint}, weights=weights
    )
    result = replace(made, id=run_id(minutes), started=NOON + timedelta(minutes=minutes))
    store.save(result)
    if files:
        names = [f"{NAMES[0]}-{number}" for number in range(len(right))]
        guesses = [0 if hit else 1 for hit in right]
        write(predictions(guesses, [0] * len(right), names), store.predictions_of(result))
    return result


def save_five(store: Store, spec: Spec, start: int = 0, **options: Any) -> None:  # noqa: ANN401 -- passed on
    for number, seconds in enumerate(FIVE):
        save_throughput(store, spec, start + number, seconds, **options)


def judge_selection(store: Store, spec: Spec, **options: Any) -> tuple[Selection, Diff]:  # noqa: ANN401 -- passed on
    judged = judged_tables([spec], options_of(**options), store, LAPTOP, newest_failures=True)
    return judged.selection, judged.diffs[0]
