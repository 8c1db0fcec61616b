"""Jobs, earlier results and finished ones -> how long the jobs that are left will take."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean

from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Plan
from harness.run.messages import Progress
from harness.store.result import Result
from harness.store.store import Store

# Seconds that a job of a small model takes, before anything was measured: a kind without an entry may take any time.
USUAL_SECONDS: Mapping[str, float] = {
    "count": 0.5,
    "cost": 1.0,
    "recipe": 0.1,
    "agreement": 1.0,
    "dataset": 5.0,
    "tokens": 20.0,
    "throughput": 7.0,
    "train-speed": 60.0,
    "ceilings": 30.0,
}

# A model of so many billion MACs an image takes twice as long: on two cores of a Xeon, ResNet-18 (1.8) took 8 s,
# DeiT-B (17.6) 12 s and ViT-L/16 at 384 (191) 52 s.
DOUBLING_GMACS = 30.0

# Billion MACs a second that the models of Table 5 reach on the paper's GPU: DeiT-B has 17.6 and does 292 images/s.
PUBLISHED_GMACS_PER_SECOND = 5000.0

# What is left of a job that takes longer than expected, as a share of what it has taken.
OVERRUN = 0.1

# The settings beyond model and resolution that earlier results must share to tell how long a job takes.
_SAME = ("protocol", "step", "data", "recipe")

_Size = tuple[str, str]


@dataclass(kw_only=True)
class Forecast:
    """How long jobs take on a machine: as earlier results there tell, else by the MACs of their models.

    What has finished meanwhile scales the second.  `gmacs` are billion MACs an image by model and resolution,
    `parallel` is how many trainings run side by side.
    """

    store: Store
    machine: Machine
    gmacs: dict[_Size, float] = field(default_factory=dict)
    parallel: int = 1
    now: Callable[[], float] = time.monotonic
    _left: dict[str, Job] = field(default_factory=dict)
    _earlier: dict[str, float] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)
    _ends: dict[str, float] = field(default_factory=dict)  # when a running job ends, as it reports itself
    _taken: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # seconds and usual ones, by kind
    _passes: dict[str, float] = field(default_factory=dict)  # seconds of what has ended

    @classmethod
    def of(cls, plan: Plan, store: Store, machine: Machine, *, parallel: int = 1) -> "Forecast":
        """Make the forecast of a plan, whose published throughputs tell how large models are."""
        gmacs = {}
        for planned in plan.cells:
            references = planned.cell.references
            value = references[0].published.value if references else None
            if planned.job and planned.cell.metric == "throughput" and isinstance(value, float | int) and value > 0:
                gmacs[_size(planned.job)] = PUBLISHED_GMACS_PER_SECOND / value
        return cls(store=store, machine=machine, gmacs=gmacs, parallel=parallel)

    def plans(self, jobs: Sequence[Job]) -> None:
        """These jobs are going to be run."""
        self._left = {job.key: job for job in jobs}
        for record in (self._started, self._ends, self._passes):
            record.clear()
        related = cache(lambda prefix: tuple(self.store.related(prefix)))
        for job in jobs:
            if {"model", "res"} <= dict(job.settings).keys():
                for counted in related(Job.of("count", {"model": job["model"], "res": job["res"]}).key_prefix):
                    self._learn_size(counted)
            seconds = self._seconds_before(job, related(job.key_prefix))
            if seconds is not None:
                self._earlier[job.key] = seconds

    def starts(self, job: Job) -> None:
        """A job starts."""
        self._left.setdefault(job.key, job)
        self._started[job.key] = self.now()

    def progress(self, progress: Progress) -> None:
        """A job tells how far it is."""
        if progress.rate and progress.total:
            self._ends[_group(progress.job)] = self.now() + (progress.total - progress.done) / progress.rate

    def finished(self, result: Result) -> None:
        """A job has ended."""
        job = result.job
        self._left.pop(job.key, None)
        self._passes[_group(job)] = result.seconds
        self._learn_size(result)
        if result.error is None:
            self._taken.setdefault(job.kind, []).append((result.seconds, self._usual(job)))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all jobs have ended; None where nothing tells."""
        groups: dict[str, list[float | None]] = {}
        for job in self._left.values():
            groups.setdefault(_group(job), []).append(self._remaining(job))
        trainings, others = 0.0, 0.0
        for key, seconds in groups.items():
            known = [each for each in seconds if each is not None]
            if len(known) < len(seconds):
                return None
            if key in self._left and self._left[key].kind == "train":
                trainings += known[0]
            else:
                others += max(known)  # evaluations share a data pass
        running = sum(job.kind == "train" for job in self._left.values())
        return others + trainings / max(1, min(self.parallel, running))

    @property
    def share(self) -> float | None:
        """Share of the time that has passed, from 0 to 1; None where it is not known how much is left."""
        left = self.seconds_left
        if left is None:
            return None
        spent = sum(self._passes.values()) + sum(
            self.now() - self._started[key] for key in self._left if key in self._started
        )
        return spent / (spent + left) if spent + left else 1.0

    def _remaining(self, job: Job) -> float | None:
        if _group(job) in self._ends:
            return max(0.0, self._ends[_group(job)] - self.now())
        expected = self.expected(job)
        if expected is None or job.key not in self._started:
            return expected
        elapsed = self.now() - self._started[job.key]
        return max(expected - elapsed, OVERRUN * elapsed)

    def expected(self, job: Job) -> float | None:
        """Return the seconds that all of a job takes; None where nothing tells."""
        if job.key in self._earlier:
            return self._earlier[job.key]
        taken = self._taken.get(job.kind, [])
        if taken:
            return self._usual(job) * sum(seconds for seconds, _ in taken) / sum(usual for _, usual in taken)
        if job.kind in USUAL_SECONDS:
            return self._usual(job)
        # As long as those of its kind that run now.
        ends = [self._ends[key] - self._started[key] for key in self._ends if key in self._started]
        return fmean(ends) if ends and job.kind == "train" else None

    def _usual(self, job: Job) -> float:
        return USUAL_SECONDS.get(job.kind, 1.0) * (1 + self.gmacs.get(_size(job), 0.0) / DOUBLING_GMACS)

    def _seconds_before(self, job: Job, results: Iterable[Result]) -> float | None:
        """Return how long the newest result took that is like this job, on this machine."""
        like = [
            result
            for result in results
            if result.machine.is_equivalent(self.machine)
            and "shortened" not in result.facts
            and all(result.job.get(name) == job.get(name) for name in _SAME)
        ]
        own = [result for result in like if result.job.key == job.key]
        return max(own or like, key=lambda result: result.id).seconds if like else None

    def _learn_size(self, result: Result) -> None:
        macs = result.metrics.get("macs")
        if macs is not None:
            self.gmacs[_size(result.job)] = float(macs.value)


def _size(job: Job) -> _Size:
    return str(job.get("model")), "x".join(str(job[side]) for side in ("res", "width") if job.get(side))


def _group(job: Job) -> str:
    """Return what is the same for jobs that share a data pass."""
    return f"evaluate {job['data']}" if job.kind == "evaluate" else job.key
