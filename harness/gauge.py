"""A network, a step or guesses -> one number with its interval, for a test that gates it."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from harness.cli.display import Quiet
from harness.errors import HarnessError, did_you_mean
from harness.job import Job
from harness.kinds import KINDS, SETTINGS, Scalar
from harness.launch import LocalLauncher
from harness.machine import cores
from harness.machine.alone import alone, speed_lock
from harness.progress import Inputs, Seen
from harness.result import Result
from harness.run import Runner, Site, site_of
from harness.stats import doubts, summarise, wilson
from harness.store import Store

# A step is warmed up for so long and so often at least; its own doubts tell where that was too little.
WARM_UP_SECONDS = 1.0
WARM_UP_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Gauged:
    """What was measured: `low` and `high` bound `value` with 95 % confidence, `samples` are in `sample_unit`.

    `batch` is that of a speed.  `run` is the id of the run in the store; empty for what was measured in this process.
    """

    what: str
    unit: str
    value: float
    low: float
    high: float
    samples: tuple[float, ...] = ()
    sample_unit: str = ""
    batch: int = 0
    doubts: tuple[str, ...] = ()
    run: str = ""

    def __str__(self) -> str:
        """Say what it is, with what makes it doubtful."""
        return self._said("")

    def _said(self, judgement: str) -> str:
        batch = f" at batch {self.batch}" if self.batch else ""
        doubted = "".join(f"; doubt: {doubt}" for doubt in self.doubts)
        return f"{self.what}: {self.value:.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit}{batch}{judgement}{doubted}"

    def assert_at_least(self, floor: float) -> None:
        """Fail where even the upper end of the interval is lower: less is more than chance."""
        __tracebackhide__ = True  # pytest then shows the line of the test
        if self.high < floor:
            raise AssertionError(self._said(f" is less than {floor:g}, by more than chance"))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to measure, what from, and where results are kept."""

    runs: Path
    device: str = "auto"
    data: tuple[tuple[str, str], ...] = ()
    weights: Path | None = None

    @property
    def site(self) -> Site:
        """Find the device and what is behind it; a test has one to itself."""
        site = site_of(self.device)
        return replace(site, devices=(site.device,))


def throughput(place: Place, model: str, res: int, settings: dict[str, Scalar]) -> Gauged:
    """Measure the speed of one of timm's networks, as `harness reproduce` does, whatever was measured before.

    Raises `HarnessError` where that fails.
    """
    job = _job("throughput", {"model": model, "res": res, **settings})
    return _gauged(_measured(place, job, Inputs(), Seen(), rerun=True), "throughput")


def accuracy(place: Place, network: str, settings: dict[str, Scalar]) -> Gauged:
    """Evaluate the weights `MODEL.TAG`; the same weights over the same images are evaluated once.

    Raises `HarnessError` where that fails.
    """
    model, _, tag = network.partition(".")
    if not tag:
        raise HarnessError(f"'{network}' names no weights; write MODEL.TAG, as deit_tiny_patch16_224.fb_in1k")
    job = _job("evaluate", {"data": "imagenet", "res": 224, **settings, "model": model, "weights": tag})
    data = str(job["data"])
    if data not in dict(place.data):
        raise HarnessError(f"{network} needs images: pytest --harness-data {data}=PATH")
    inputs = Inputs(data=dict(place.data), weights=place.weights, workers=cores())
    seen = LocalLauncher().look(inputs, (job,))
    problems = [*seen.problems, *seen.missing.values()]
    if problems:
        raise HarnessError("\n".join(problems))
    return _gauged(_measured(place, job, inputs, seen, rerun=False), "top1")


def step_throughput(step: Callable[[], object], *, batch: int, repeats: int) -> Gauged:
    """Time a step of the caller's own in this process; on a GPU the step itself has to wait for the device."""
    with alone(speed_lock(), lambda why: warnings.warn(why, stacklevel=3)):
        warm, began = 0, time.perf_counter()
        while warm < WARM_UP_RUNS or time.perf_counter() - began < WARM_UP_SECONDS:
            step()
            warm += 1
        marks = [time.perf_counter()]
        for _ in range(repeats):
            step()
            marks.append(time.perf_counter())
    seconds = tuple(after - before for before, after in pairwise(marks))
    summary = summarise(seconds)
    return Gauged(
        what=getattr(step, "__name__", type(step).__name__).replace("<lambda>", "step"),
        unit="im/s",
        value=batch * repeats / sum(seconds),
        low=batch / summary.high,
        high=batch / summary.low if summary.low > 0 else batch / min(seconds),
        samples=seconds,
        sample_unit="s",
        batch=batch,
        doubts=tuple(doubts(seconds)),
    )


def share_right(guesses: Iterable[int], labels: Iterable[int]) -> Gauged:
    """Give the share of guesses that are right, with Wilson's interval.

    Raises `HarnessError` where their numbers differ or there are none.
    """
    said, right = [int(one) for one in guesses], [int(one) for one in labels]
    if len(said) != len(right) or not said:
        raise HarnessError(f"{len(said)} guesses for {len(right)} labels; give one for each, and at least one")
    hits = sum(one == other for one, other in zip(said, right, strict=True))
    low, high = wilson(hits, len(said))
    return Gauged(
        what=f"{hits} of {len(said)} right", unit="%", value=100 * hits / len(said), low=100 * low, high=100 * high
    )


def parse_data(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `NAME=PATH` of each text, as `imagenet=/data/imagenet`.

    Raises `HarnessError` for anything else.
    """
    found = []
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise HarnessError(f"--harness-data {text}: is not NAME=PATH, as imagenet=/data/imagenet")
        # A test may change the working folder.
        found.append((name, os.path.abspath(path) if os.path.exists(path) else path))  # noqa: PTH100, PTH110
    return tuple(found)


def _job(kind: str, settings: dict[str, Scalar]) -> Job:
    """Make a job of what a test says, checked as a spec would be."""
    known = KINDS[kind]
    for name, value in settings.items():
        if name not in known.settings:
            raise HarnessError(f"a {kind} job has no setting '{name}'{did_you_mean(name, known.settings)}")
        if not SETTINGS[name].accepts(value):
            raise HarnessError(f"{name} = {value!r}: must be {SETTINGS[name].expectation()}")
    return Job.of(kind, {**known.defaults, **settings})


def _measured(place: Place, job: Job, inputs: Inputs, seen: Seen, *, rerun: bool) -> Result:
    store = Store(place.runs)
    store.prepare()
    runner = Runner(store=store, launcher=LocalLauncher(), site=place.site, watcher=Quiet(), inputs=inputs, seen=seen)
    runner.measure([job], rerun=rerun)
    return runner.done.results[job.key]


def _gauged(result: Result, metric: str) -> Gauged:
    if result.error is not None:
        raise HarnessError(f"{result.job}: {result.error}")
    found = result.metrics[metric]
    value = float(found.value)
    return Gauged(
        what=str(result.job),
        unit=found.unit,
        value=value,
        low=value if found.low is None else found.low,
        high=value if found.high is None else found.high,
        samples=found.samples,
        sample_unit=found.sample_unit,
        batch=int(result.facts.get("batch", 0)) if metric == "throughput" else 0,
        doubts=result.warnings,
        run=result.id,
    )
