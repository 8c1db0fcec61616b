"""Fake machines, launchers and results."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.machine import GIB, Machine
from harness.plan.job import Job
from harness.run.launch import Crashed, LocalLauncher
from harness.run.messages import Batch, Inputs, Inventory, Progress, Saved
from harness.specs.importing.models import PublicWeights
from harness.store.result import Measurement, Result, new_id
from harness.store.store import Store

LAPTOP = Machine(device="cpu", name="Some Processor", memory=16 * GIB, cores=4, threads=4)
V100 = Machine(device="cuda", name="Tesla V100-SXM2-16GB", memory=16160 * 2**20)
H200 = Machine(device="cuda", name="NVIDIA H200", memory=143771 * 2**20)
VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "timm": "1.0.31", "numpy": "2.4.6"}

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

IMAGES = {"fingerprint": "f", "whole": True, "said": "all 10 images"}

# Facts that every result of a kind has, beside those of its images and weights.
FACTS: Mapping[str, Mapping[str, object]] = {
    "evaluate": {"images": IMAGES},
    "tokens": {"images": IMAGES, "by_layer": [0.06, 0.9]},
    "agreement": {"evaluations": []},
    "train": {"history": [{"epoch": 1, "top1": 50.0}]},
}


def result_of(  # a result as a job would leave it
    job: Job,
    *,
    machine: Machine = LAPTOP,
    software: Mapping[str, str] = VERSIONS,
    value: float = 100.0,
    minutes: int = 0,
    error: str | None = None,
    warnings: tuple[str, ...] = (),
) -> Result:
    started = NOON + timedelta(minutes=minutes)
    if job.kind == "count":
        metrics = {
            "params": Measurement(unit="M", value=value),
            "res": Measurement(unit="px", value=job["res"]),
            "macs": Measurement(unit="GMAC", value=value / 4),
        }
    else:
        metrics = {
            "throughput": Measurement(
                unit="im/s",
                value=value,
                low=0.99 * value,
                high=1.01 * value,
                samples=(4 / value,) * 30,
                sample_unit="s",
            )
        }
        if job.kind == "train-speed":
            metrics["step"] = Measurement(unit="ms", value=4000 / value)
    return Result(
        id=new_id(started),
        job=job,
        machine=machine,
        software=software,
        started=started,
        seconds=2.0,
        metrics={} if error else metrics,
        facts={} if error else {"batch": 4, **FACTS.get(job.kind, {}), **inputs_of(job)},
        warnings=warnings,
        error=error,
    )


def images_of(data: str, count: int = 100) -> dict[str, Any]:
    """The facts of some of the hundred images that a dataset is said to have."""
    part = f"all {count}" if count == 100 else f"{count} of the 100"
    shared = {"name": data, "fingerprint": f"{data}-{count}", "images": count, "of": 100}
    return {**shared, "whole": count == 100, "said": f"{part} images of {data}"}


def inputs_of(job: Job) -> dict[str, Any]:
    """The facts of a job's images and weights: whole, and made by the trainings that it needs."""
    facts: dict[str, Any] = {}
    if job.reads_images or job.needs:
        facts["images"] = images_of(f"{job.get('data')}{'/train' if job.kind == 'train' else ''}")
    made = {part: f"weights of {training.key}" for part, training in job.needs}
    if job.kind == "train":
        facts |= {"weights": {"sha256": f"weights of {job.key}", "origin": "trained"}, "took": made}
    elif made:
        facts["weights"] = {"sha256": made["weights"], "file": "w.safetensors", "origin": "trained"}
    elif job.kind in ("evaluate", "tokens"):
        name = f"{job.get('model')}.{job.get('weights')}"
        facts["weights"] = {"sha256": f"weights of {name}", "file": f"{name}.safetensors", "origin": "file"}
    return facts


def with_trainings(*results: Result) -> dict[str, Result]:
    """Results and those of every training behind them, by the key of their job."""
    trainings = {training.key: result_of(training) for result in results for training in result.job.lineage}
    return {**trainings, **{result.job.key: result for result in results}}


def with_facts(result: Result, **facts: Any) -> Result:  # noqa: ANN401 -- of any kind
    """The same result with other facts."""
    return replace(result, facts={**result.facts, **facts})


@dataclass
class FakeLauncher(LocalLauncher):
    """Runs jobs at once.  `value_of` returns a job's metric; a job in `crashes` kills the process."""

    value_of: Callable[[Job], float] = lambda job: 100.0
    errors: Mapping[str, str] = field(default_factory=dict)
    crashes: set[str] = field(default_factory=set)
    interrupts: set[str] = field(default_factory=set)
    unknown: Mapping[str, str] = field(default_factory=dict)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)
    names: Mapping[str, tuple[PublicWeights, ...]] = field(default_factory=dict)
    announce: Callable[[str], None] = print  # it imports nothing, so there is nothing to announce

    def stop(self) -> None:
        pass

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        self.batches.append(tuple(str(job) for job in batch.jobs))
        for job in batch.jobs:
            yield Progress(job=job, phase="working")
            model = str(job["model"])
            if f"{job.kind} {model}" in self.interrupts:
                raise KeyboardInterrupt
            if f"{job.kind} {model}" in self.crashes:
                raise Crashed("the process was ended by SIGSEGV")
            result = result_of(
                job,
                machine=batch.machine,
                software=batch.software,
                value=self.value_of(job),
                error=self.errors.get(f"{job.kind} {model}"),
            )
            Store(batch.runs).save(result)
            yield Saved(job=job, id=result.id)

    def inspect(self, inputs: Inputs, jobs: tuple[Job, ...]) -> Inventory:
        return self.inventory

    def model_names(self) -> dict[str, tuple[PublicWeights, ...]]:
        return dict(self.names)

    def unknown_models(self, names: tuple[str, ...]) -> dict[str, str]:
        return {name: self.unknown[name] for name in names if name in self.unknown}
