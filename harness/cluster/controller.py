"""Plan -> Slurm -> Results: what is missing is submitted once, and followed until it is there."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from harness.cluster.ledger import Array, Ledger, Mark, numbered
from harness.cluster.standing import Standing, State, standings
from harness.cluster.task import Task, needs_of
from harness.errors import HarnessError
from harness.job import Job
from harness.launch.slurm import NoAnswer, QueueFull, Resources, Settings, Slurm
from harness.plan import Plan
from harness.progress import Progress, Saved
from harness.run import Runner, failure

# Seconds between two looks at what the tasks wrote, and between two questions to Slurm.
LOOKING, ASKING = 0.5, 5.0

# Seconds until a queue that was full is tried again.
FULL = 30.0

# How often a task is submitted again that ended without a result through no fault of its own.
AGAIN = 2
NOT_ITS_FAULT = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REQUEUED", "UNMET", "OVER"}

# Jobs of a kind that share a task: what is small would spend its time importing torch, and networks share a pass.
PER_TASK = {"count": 50, "recipe": 50, "agreement": 50, "evaluate": 8, "tokens": 4}

# Minutes that a task of a kind may take, processors and bytes that it has on a node without cards.
MINUTES = {"throughput": 60, "ceilings": 30, "evaluate": 240, "tokens": 240}
CPU_MEMORY, GPU_MEMORY = 3 * 2**30, 64 * 2**30
GPU_CPUS = 8

# A training at the published scale is given this many times its published hours; what runs over is requeued.
MARGIN = 1.5

# Kinds of job that compute nothing worth a card.
WITHOUT_GPU = ("count", "recipe", "dataset", "agreement")


@dataclass(kw_only=True)
class Controller:
    """Submits what a runner would measure, and follows it.  Several may do so at once, on several hosts."""

    runner: Runner
    slurm: Slurm
    settings: Settings
    workers: int | None = None
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    ledger: Ledger = field(init=False)
    _began: datetime = field(default_factory=lambda: datetime.now(tz=UTC))
    _followed: set[tuple[str, str]] = field(default_factory=set)  # names of arrays, and keys of jobs in them
    _not_taken: list[Job] = field(default_factory=list)
    _why: str = ""
    _lost: set[str] = field(default_factory=set)
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = Ledger(runs=self.runner.store.root.absolute())

    def run(self, plan: Plan, *, rerun: bool = False, detach: bool = False) -> str:
        """Submit what is missing and is not on its way already, and follow it unless told to `detach`.

        Gives a sentence about what was submitted.  Raises `HarnessError` if Slurm refuses it.
        """
        self.slurm.check(self.settings)
        wanted = self.runner.missing(plan, rerun=rerun)
        if not wanted:
            return "nothing is missing"
        submitted, attached = self.submit(wanted, plan, rerun=rerun)
        if not detach:
            self.follow([*attached, *submitted], plan)
        parts = [f"{len(submitted) - len(self._not_taken)} jobs submitted"]
        if attached:
            parts.append(f"{len(attached)} on their way already")
        if self._not_taken:
            parts.append(f"{len(self._not_taken)} not taken ({self._why}): give the same command again later")
        return ", ".join(parts)

    def submit(self, wanted: Sequence[Job], plan: Plan, *, rerun: bool = False) -> tuple[list[Job], list[Job]]:
        """Submit those jobs that nobody has submitted; give these, and those that are on their way already."""
        with self.ledger.locked():
            standing = standings(self.ledger, self.slurm, locked=True)
            way = self._way(standing)
            attached = [job for job in wanted if job.key in way]
            # Another harness may have had its result since this one looked.
            todo = [job for job in wanted if job.key not in way and (rerun or not self.runner.known(job))]
            self._not_taken = self._submit(todo, {job.key: 0 for job in todo}, way, plan)
            self._close(standing)
        return todo, attached

    def _way(self, standing: Iterable[Standing]) -> dict[str, str]:
        """Say which jobs are on their way, each with the number of its task; they are followed from now on."""
        found: dict[str, str] = {}
        for one in standing:
            if one.state.open:
                found |= {job.key: one.number for job in one.left}
                self._followed |= {(one.array.name, job.key) for job in one.left}
        return found

    # Submitting.

    def _submit(self, todo: Sequence[Job], tries: Mapping[str, int], way: dict[str, str], plan: Plan) -> list[Job]:
        """Submit jobs, each group after those that it needs; give those that a full queue did not take.

        To be called with the lock held; `way` says what is on its way, and is added to.
        """
        left = list(todo)
        longest = self.slurm.longest_array() if left else 0
        while left:
            keys = {job.key for job in left}
            ready = [job for job in left if not keys & {one.key for one in needs_of(job)}]
            for (kind, after, resources), jobs in self._groups(ready, way, plan).items():
                tasks = _tasks(kind, jobs)
                for first in range(0, len(tasks), longest):
                    try:
                        self._submit_array(kind, tasks[first : first + longest], tries, after, resources, way)
                    except QueueFull as full:
                        self._why = str(full)
                        return [job for job in left if job.key not in way]
            left = [job for job in left if job.key not in way]
        return []

    def _groups(
        self, jobs: Iterable[Job], way: Mapping[str, str], plan: Plan
    ) -> dict[tuple[str, tuple[str, ...], Resources], list[Job]]:
        """Put together what is of a kind, asks for the same, and waits for the same."""
        found: dict[tuple[str, tuple[str, ...], Resources], list[Job]] = {}
        for job in jobs:
            after = sorted({way[one.key] for one in needs_of(job) if one.key in way})
            found.setdefault((job.kind, tuple(after), self.resources(job, plan)), []).append(job)
        return found

    def _submit_array(  # noqa: PLR0913, PLR0917 -- what an array is made of
        self,
        kind: str,
        tasks: Sequence[tuple[Job, ...]],
        tries: Mapping[str, int],
        after: Sequence[str],
        resources: Resources,
        way: dict[str, str],
    ) -> None:
        array = self.ledger.new(kind, tuple(tasks), tuple(max(tries[job.key] for job in jobs) for jobs in tasks))
        try:
            number = self.slurm.submit(
                [self._task(array, index, jobs, resources) for index, jobs in enumerate(tasks)],
                name=array.name,
                folder=self.ledger.folder_of(array),
                resources=resources,
                settings=self.settings,
                after=after,
                timeouts=100 if kind == "train" else 3,
            )
        except HarnessError:
            self.ledger.forget(array)
            raise
        array = numbered(array, number)
        self.ledger.keep(array)
        way |= {job.key: array.number_of(index) for index, jobs in enumerate(tasks) for job in jobs}
        self._followed |= {(array.name, job.key) for jobs in tasks for job in jobs}

    def _task(self, array: Array, index: int, jobs: tuple[Job, ...], resources: Resources) -> Task:
        return Task(
            jobs=jobs,
            runs=self.ledger.runs,
            folder=self.ledger.folder_of(array),
            index=index,
            inputs=self.runner.inputs,
            seen=self.runner.seen,
            workers=self.workers,
            gpus=resources.gpus,
            place=place_of(self.settings),
            notice=resources.notice,
        )

    def resources(self, job: Job, plan: Plan) -> Resources:
        """Say what a job asks for: what the user says, else what its kind takes."""
        settings = self.settings
        gpus = 0 if job.kind in WITHOUT_GPU else settings.gpus
        nodes = settings.nodes if job.kind == "train" else 1
        minutes = float(MINUTES.get(job.kind, 60))
        if job.kind == "train" and plan.stages.scale is None:
            # 24 hours where nothing was published: what runs over is requeued and goes on.
            hours = plan.stages.hours(job) or 24.0 * max(1, gpus) * nodes
            minutes = 60 * MARGIN * hours / (max(1, gpus) * nodes)
        if settings.hours is not None:
            minutes = min(minutes, 60 * settings.hours)
        alone = job.exclusive and not gpus
        memory = settings.memory or (0 if alone else GPU_MEMORY * gpus if gpus else CPU_MEMORY)
        cpus = 0 if alone else settings.cpus or (GPU_CPUS * gpus if gpus else 1)
        return Resources(minutes=max(1, round(minutes)), cpus=cpus, gpus=gpus, nodes=nodes, memory=memory, alone=alone)

    # Following.

    def follow(self, wanted: Sequence[Job], plan: Plan) -> None:
        """Wait until each job has a result, or is known to have none."""
        left = {job.key: job for job in wanted}
        numbers = {job.key: number for number, job in enumerate(wanted, 1)}
        asked, tried = self.now() - ASKING, self.now()
        standing: list[Standing] = []
        while True:
            self._take(left, numbers)
            if not left:
                return
            if self.now() - asked >= ASKING:
                asked = self.now()
                try:
                    standing = standings(self.ledger, self.slurm)
                    self._settle(standing, left, plan)
                except NoAnswer as silence:  # a controller that restarts forgets nothing
                    self.runner.watcher.waits(str(silence))
            if self._not_taken and self.now() - tried >= FULL:
                tried = self.now()
                self.submit([job for job in self._not_taken if job.key in left], plan)
            self._tell(standing, left, len(wanted))
            self.sleep(LOOKING)

    def _take(self, left: dict[str, Job], numbers: Mapping[str, int]) -> None:
        """Take the results that the tasks say are there."""
        for array in self.ledger.arrays():
            if array.over and not any((array.name, key) in self._followed for key in left):
                continue
            for marks in self.ledger.marks(array).values():
                for mark in marks:
                    if mark.key in left and not mark.unmet and self._is_ours(array, mark.key):
                        job = left.pop(mark.key)
                        self.runner.watcher.starts(job, numbers[job.key], len(numbers))
                        self.runner.take(Saved(job=job, id=mark.id))

    def _is_ours(self, array: Array, key: str) -> bool:
        """Whether a job of an array is followed: it was on its way when this command began, or came later."""
        return (array.name, key) in self._followed or array.submitted >= self._began

    def _settle(self, standing: Sequence[Standing], left: Mapping[str, Job], plan: Plan) -> None:
        """Submit again what was lost, and write down what is not tried again.

        Only what was lost twice in a row: for a moment a job may be in neither list of Slurm's.
        """
        for why in {
            f"Slurm job {one.array.number}: {one.why}" for one in standing if one.ended == "NEVER"
        } - self._said:
            self._said.add(why)
            self.runner.watcher.waits(why)
        lost = {one.name for one in standing if self._is_lost(one, left)}
        sure, self._lost = lost & self._lost, lost
        if not sure:
            return
        again: dict[str, Job] = {}
        tries: dict[str, int] = {}
        with self.ledger.locked():
            now = standings(self.ledger, self.slurm, locked=True)
            way = self._way(now)
            newest = {job.key: one.name for one in now for job in one.jobs}
            for one in now:
                if one.name not in sure or not self._is_lost(one, left):
                    continue
                tried = one.array.attempts[one.index]
                for job in one.left:
                    if job.key in way or job.key not in left or newest[job.key] != one.name:
                        continue
                    if tried < AGAIN and _not_its_fault(one, job):
                        again[job.key], tries[job.key] = job, tried + 1
                    else:
                        self._fail(one, job)
            todo = [job for job in plan.jobs if job.key in again]
            self._not_taken += self._submit(todo, tries, way, plan)

    def _is_lost(self, one: Standing, left: Mapping[str, Job]) -> bool:
        """Whether a task ended without the results that are waited for."""
        ended = one.state in (State.LOST, State.CANCELLED)
        return ended and any(job.key in left and self._is_ours(one.array, job.key) for job in one.left)

    def _fail(self, one: Standing, job: Job) -> None:
        """Write down that a job has failed without being able to say so itself."""
        why = f"{one.why}; Slurm job {one.number}, log {one.log}"
        result = failure(job, self.runner.site, one.array.submitted, why)
        self.runner.store.save(result)
        self.ledger.mark(one.array, one.index, Mark(key=job.key, id=result.id, error=result.error))

    def _close(self, standing: Sequence[Standing]) -> None:
        """Spare later commands the arrays of which nothing is still to come."""
        for array in {one.array.name: one.array for one in standing if not one.array.over}.values():
            if not any(one.state.open for one in standing if one.array.name == array.name):
                self.ledger.keep(replace(array, over=True))

    def _tell(self, standing: Sequence[Standing], left: Mapping[str, Job], total: int) -> None:
        """Show how many jobs run and wait, and how far one of them is."""
        ours = [one for one in standing if one.state.open and any(job.key in left for job in one.left)]
        running = [one for one in ours if one.state is State.RUNNING]
        counts = [
            f"{sum(len(one.left) for one in ours if one.state is state)} {state.value}"
            for state in (State.RUNNING, State.PENDING)
        ]
        if self._not_taken:
            counts.append(f"{len(self._not_taken)} not taken yet ({self._why})")
        together = f"Slurm: {', '.join(counts)}, {total - len(left)} of {total} done"
        first = next(iter(left.values()))
        told = self.ledger.progress(running[0].array, running[0].index) if running else {}
        phase = str(told.get("phase", ""))
        # Done is counted in jobs, so that a log says once a minute how many there are.
        self.runner.watcher.progress(
            Progress(job=first, phase=phase, together=together, done=total - len(left), total=total)
        )


def _not_its_fault(one: Standing, job: Job) -> bool:
    # A training that was stopped at its time limit goes on from its checkpoint.
    return one.ended in NOT_ITS_FAULT or (one.ended == "TIMEOUT" and job.kind == "train")


def _tasks(kind: str, jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    """Share jobs between tasks; evaluations of one task read the same images."""
    size = PER_TASK.get(kind, 1)
    together: dict[str, list[Job]] = {}
    for job in jobs:
        together.setdefault(str(job["data"]) if kind == "evaluate" else "", []).append(job)
    return [tuple(some[first : first + size]) for some in together.values() for first in range(0, len(some), size)]


def place_of(settings: Settings) -> str:
    """Name the kind of node that settings lead to, for what is remembered of it."""
    return hashlib.sha256(json.dumps(settings.place).encode()).hexdigest()[:12]
