"""A model, a step or predictions -> one number with its interval, for a test that gates it."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.machine import usable_cores
from harness.machine.exclusive import exclusive_lock, speed_lock
from harness.plan.job import Job
from harness.run.launch import LocalLauncher
from harness.run.messages import Inputs, Inventory
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import resolve_target
from harness.specs.checked import Scalar, check
from harness.specs.kinds import KINDS, throughput_settings
from harness.specs.model_names import split_weights
from harness.stats import mean_interval, timing_warnings, wilson
from harness.store.store import Store

# A step is warmed up for at least so long and so often; the warnings tell where that was too little.
WARM_UP_SECONDS = 1.0
WARM_UP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class MeasuredValue:
    """A number that was measured: `low` and `high` bound `value` with 95 % confidence, `samples` are in `sample_unit`.

    `batch` is the batch size of a throughput.  `run` is the id of the run in the store; empty for what was measured in
    this process.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    samples: tuple[float, ...] = ()
    sample_unit: str = ""
    batch: int = 0
    warnings: tuple[str, ...] = ()
    run: str = ""

    def __str__(self) -> str:
        """Name, value and interval, with the warnings."""
        return self._text("")

    def _text(self, judgement: str) -> str:
        batch = f" at batch {self.batch}" if self.batch else ""
        added = "".join(f"; warning: {warning}" for warning in self.warnings)
        return f"{self.name}: {self.value:.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit}{batch}{judgement}{added}"

    def assert_at_least(self, floor: float) -> None:
        """Fail where even the upper end of the interval is lower: then the value is too low by more than chance."""
        __tracebackhide__ = True  # pytest then shows the line of the test
        if self.high < floor:
            raise AssertionError(self._text(f" is less than {floor:g}, by more than chance"))


@dataclass(frozen=True, kw_only=True)
class MeasurementSetup:
    """Where to measure, with which data and weights, and where results are stored."""

    runs: Path
    device: str = "auto"
    data: tuple[tuple[str, str], ...] = ()
    weights: Path | None = None


def throughput(setup: MeasurementSetup, model: str, res: int, settings: dict[str, Scalar]) -> MeasuredValue:
    """Measure the throughput of a timm model as `harness reproduce` does, whether or not it was measured before.

    Raises `HarnessError` where that fails.
    """
    job = _make_job("throughput", {"model": model, "res": res, **settings})
    return _measure(setup, job)


def accuracy(setup: MeasurementSetup, name: str, settings: dict[str, Scalar]) -> MeasuredValue:
    """Evaluate the weights `MODEL.TAG`; the same weights over the same images are evaluated once.

    Raises `HarnessError` where that fails.
    """
    model, tag = split_weights(name)
    if not tag:
        raise HarnessError(f"'{name}' names no weights; write MODEL.TAG, as deit_tiny_patch16_224.fb_in1k")
    job = _make_job("evaluate", {"data": "imagenet", "res": 224, **settings, "model": model, "weights": tag})
    data = str(job["data"])
    if data not in dict(setup.data):
        raise HarnessError(f"{name} needs images: pytest --harness-data {data}=PATH")
    inputs = Inputs(data=dict(setup.data), weights=setup.weights, workers=usable_cores())
    inventory = LocalLauncher().inspect(inputs, (job,))
    problems = [*inventory.problems, *inventory.missing.values()]
    if problems:
        raise HarnessError("\n".join(problems))
    return _measure(setup, job, inputs, inventory)


def step_throughput(step: Callable[[], object], *, batch: int, repeats: int) -> MeasuredValue:
    """Time a step of the caller's own in this process; on a GPU the step itself has to wait for the device."""
    with exclusive_lock(speed_lock(), lambda message: warnings.warn(message, stacklevel=3)):
        warm_up, start = 0, time.perf_counter()
        while warm_up < WARM_UP_STEPS or time.perf_counter() - start < WARM_UP_SECONDS:
            step()
            warm_up += 1
        marks = [time.perf_counter()]
        for _ in range(repeats):
            step()
            marks.append(time.perf_counter())
    seconds = tuple(after - before for before, after in pairwise(marks))
    mean = mean_interval(seconds)
    return MeasuredValue(
        name=getattr(step, "__name__", type(step).__name__).replace("<lambda>", "step"),
        unit="im/s",
        value=batch / mean.value,
        low=batch / mean.high,
        high=batch / (mean.low if mean.low > 0 else min(seconds)),
        samples=seconds,
        sample_unit="s",
        batch=batch,
        warnings=tuple(timing_warnings(seconds)),
    )


def prediction_accuracy(predictions: Iterable[int], labels: Iterable[int]) -> MeasuredValue:
    """Return the share of predictions that are right, in percent, with Wilson's interval.

    Raises `HarnessError` where their numbers differ or there are none.
    """
    first, second = [int(label) for label in predictions], [int(label) for label in labels]
    if len(first) != len(second) or not first:
        raise HarnessError(f"{len(first)} predictions for {len(second)} labels; give one for each, and at least one")
    hits, total = sum(one == other for one, other in zip(first, second, strict=True)), len(first)
    return MeasuredValue(name=f"{hits} of {total} right", unit="%", **vars(wilson(hits, total)))


def parse_data(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `NAME=PATH` of each text, as `imagenet=/data/imagenet`.

    Raises `HarnessError` for anything else.
    """
    data = []
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise HarnessError(f"--harness-data {text}: is not NAME=PATH, as imagenet=/data/imagenet")
        # A test may change the working folder.
        data.append((name, os.path.abspath(path) if os.path.exists(path) else path))  # noqa: PTH100, PTH110
    return tuple(data)


def _make_job(kind: str, settings: dict[str, Scalar]) -> Job:
    """Make a job from the arguments of a test, checked as those of a spec are."""
    known = KINDS[kind]
    for name, value in settings.items():
        if name not in known.settings:
            raise HarnessError(f"a {kind} job has no setting '{name}'{did_you_mean(name, known.settings)}")
        check(name, value, known.constraint(name))
    if kind == "throughput":
        return Job.of(kind, throughput_settings(settings, {}))
    return Job.of(kind, {**known.defaults, **settings})


def _measure(
    setup: MeasurementSetup, job: Job, inputs: Inputs | None = None, inventory: Inventory | None = None
) -> MeasuredValue:
    """Measure a throughput, or evaluate an accuracy unless it is stored.

    Raises `HarnessError` where the job fails.
    """
    store, target = Store(setup.runs), resolve_target(setup.device)
    store.prepare()
    runner = Runner(
        store=store,
        launcher=LocalLauncher(),
        target=replace(target, devices=(target.device,)),  # a test uses one device
        observer=ProgressObserver(),
        inputs=inputs or Inputs(),
        inventory=inventory or Inventory(),
    )
    runner.measure([job], rerun=job.exclusive)
    result = runner.results[job.key]
    if result.error is not None:
        raise HarnessError(f"{job}: {result.error}")
    measurement = result.metrics["throughput" if job.exclusive else "top1"]
    value = float(measurement.value)
    return MeasuredValue(
        name=str(job),
        unit=measurement.unit,
        value=value,
        low=value if measurement.low is None else measurement.low,
        high=value if measurement.high is None else measurement.high,
        samples=measurement.samples,
        sample_unit=measurement.sample_unit,
        batch=int(result.facts.get("batch", 0)) if job.exclusive else 0,
        warnings=result.warnings,
        run=result.id,
    )
