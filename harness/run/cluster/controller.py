"""Plan -> Slurm -> Results: missing jobs are submitted once, and followed until they have results."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from harness.errors import HarnessError
from harness.plan.job import Job
from harness.plan.plan import Plan
from harness.run.batches import share_processes
from harness.run.cluster.ledger import Array, JobOutcome, Ledger
from harness.run.cluster.status import State, TaskStatus, task_statuses
from harness.run.cluster.task import Task, prerequisites
from harness.run.launch.slurm import NoAnswer, QueueFull, Resources, Settings, Slurm
from harness.run.messages import Progress, Saved
from harness.run.runner import Runner

# Seconds between two readings of what the tasks wrote, and between two queries of Slurm.
POLL_FILES, POLL_SLURM = 0.5, 5.0

# Seconds until a full queue is tried again.
RETRY_FULL = 30.0

# How often a task is submitted again that ended without a result through no fault of its own.
RETRIES = 2
NOT_ITS_FAULT = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REQUEUED", "UNMET", "OVER"}

# How many jobs of a kind share a task: short jobs would take less time than importing torch, and evaluations share a
# data pass.
JOBS_PER_TASK = {"count": 50, "cost": 50, "recipe": 50, "agreement": 50, "evaluate": 8, "tokens": 4}

# The time limit of a task by kind, in minutes, and its memory and CPU cores without and with a GPU.
MINUTES = {"throughput": 60, "ceilings": 30, "evaluate": 240, "tokens": 240}
CPU_MEMORY, GPU_MEMORY = 3 * 2**30, 64 * 2**30
GPU_CPUS = 8

# The time limit of a training at the published scale, as a multiple of its published hours; then it is requeued.
MARGIN = 1.5

# Kinds of job that compute nothing worth a GPU.
WITHOUT_GPU = ("count", "cost", "recipe", "dataset", "agreement")


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
    _started: datetime = field(default_factory=lambda: datetime.now(tz=UTC))
    _followed: set[tuple[str, str]] = field(default_factory=set)  # names of arrays, and keys of jobs in them
    _rejected: list[Job] = field(default_factory=list)
    _rejection: str = ""
    _lost: set[str] = field(default_factory=set)
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = Ledger(runs=self.runner.store.root.absolute())

    def run(self, plan: Plan, *, rerun: bool = False, detach: bool = False) -> str:
        """Submit the missing jobs that are not submitted yet; unless `detach`, follow all of them until they end.

        Returns a sentence about what was submitted.  Raises `HarnessError` if Slurm refuses it.
        """
        self.slurm.check(self.settings)
        missing = self.runner.missing(plan, rerun=rerun)
        if not missing:
            return "nothing is missing"
        submitted, attached = self.submit(missing, plan, rerun=rerun)
        if not detach:
            self.follow([*attached, *submitted], plan)
        parts = [f"{len(submitted) - len(self._rejected)} jobs submitted"]
        if attached:
            parts.append(f"{len(attached)} on their way already")
        if self._rejected:
            parts.append(f"{len(self._rejected)} not taken ({self._rejection}): give the same command again later")
        return ", ".join(parts)

    def submit(self, jobs: Sequence[Job], plan: Plan, *, rerun: bool = False) -> tuple[list[Job], list[Job]]:
        """Submit the jobs that nobody has submitted; return these, and the ones that were submitted before."""
        with self.ledger.locked():
            statuses = task_statuses(self.ledger, self.slurm, locked=True)
            numbers = self._open_jobs(statuses)
            attached = [job for job in jobs if job.key in numbers]
            # Another harness may have saved a result in the meantime.
            new = [job for job in jobs if job.key not in numbers and (rerun or not self.runner.reuse(job))]
            self._rejected = self._submit(new, Counter(), numbers, plan)
            # Later commands do not query arrays without an open task.
            open_arrays = {task.array.name for task in statuses if task.state.open}
            for array in {task.array.name: task.array for task in statuses}.values():
                if not array.closed and array.name not in open_arrays:
                    self.ledger.save(replace(array, closed=True))
        return new, attached

    def _open_jobs(self, statuses: Iterable[TaskStatus]) -> dict[str, str]:
        """Return the number of the task of each unfinished job, by its key; the jobs are followed from now on."""
        numbers: dict[str, str] = {}
        for task in statuses:
            if task.state.open:
                numbers |= {job.key: task.number for job in task.unfinished}
                self._followed |= {(task.array.name, job.key) for job in task.unfinished}
        return numbers

    # Submitting.

    def _submit(
        self, jobs: Sequence[Job], attempts: Mapping[str, int], numbers: dict[str, str], plan: Plan
    ) -> list[Job]:
        """Submit jobs, each after its prerequisites; return those that a full queue rejected.

        The lock is held.  `numbers` has the tasks of all unfinished jobs, and is added to.
        """
        left = list(jobs)
        longest = self.slurm.longest_array() if left else 0
        while left:
            keys = {job.key for job in left}
            ready = [job for job in left if not keys & {other.key for other in prerequisites(job)}]
            # An array has one kind of job, which asks for the same resources and waits for the same tasks.
            groups: dict[tuple[str, tuple[str, ...], Resources], list[Job]] = {}
            for job in ready:
                after = tuple(sorted({numbers[other.key] for other in prerequisites(job) if other.key in numbers}))
                groups.setdefault((job.kind, after, self.resources(job, plan)), []).append(job)
            for (_, after, resources), members in groups.items():
                tasks = share_processes(members, largest=JOBS_PER_TASK)
                for first in range(0, len(tasks), longest):
                    try:
                        numbers |= self._submit_array(tasks[first : first + longest], attempts, after, resources)
                    except QueueFull as full:
                        self._rejection = str(full)
                        return [job for job in left if job.key not in numbers]
            left = [job for job in left if job.key not in numbers]
        return []

    def _submit_array(
        self, tasks: Sequence[tuple[Job, ...]], attempts: Mapping[str, int], after: Sequence[str], resources: Resources
    ) -> dict[str, str]:
        """Submit an array and return the number of the task of each job, by its key."""
        kind = tasks[0][0].kind
        array = self.ledger.new(kind, tuple(tasks), tuple(max(attempts[job.key] for job in jobs) for jobs in tasks))
        members = [
            Task(
                jobs=jobs,
                runs=self.ledger.runs,
                folder=self.ledger.folder_of(array),
                index=index,
                inputs=self.runner.inputs,
                inventory=self.runner.inventory,
                workers=self.workers,
                resources=resources,
                node_kind=self.settings.node_kind,
            )
            for index, jobs in enumerate(tasks)
        ]
        try:
            number = self.slurm.submit(
                members,
                folder=self.ledger.folder_of(array),
                resources=resources,
                settings=self.settings,
                after=after,
                timeouts=100 if kind == "train" else 3,
            )
        except HarnessError:
            self.ledger.delete(array)
            raise
        array = replace(array, number=number)
        self.ledger.save(array)
        self._followed |= {(array.name, job.key) for jobs in tasks for job in jobs}
        return {job.key: array.number_of(index) for index, jobs in enumerate(tasks) for job in jobs}

    def resources(self, job: Job, plan: Plan) -> Resources:
        """Return the resources of a job: the user's settings, else what its kind needs."""
        settings = self.settings
        gpus = 0 if job.kind in WITHOUT_GPU else settings.gpus
        nodes = settings.nodes if job.kind == "train" else 1
        minutes = float(MINUTES.get(job.kind, 60))
        if job.kind == "train" and plan.stages.scale is None:
            # 24 hours where nothing was published: at its time limit a training is requeued and continues.
            hours = plan.stages.hours(job) or 24.0 * max(1, gpus) * nodes
            minutes = 60 * MARGIN * hours / (max(1, gpus) * nodes)
        if settings.hours is not None:
            minutes = min(minutes, 60 * settings.hours)
        exclusive = job.exclusive and not gpus
        memory = settings.job_memory or (0 if exclusive else GPU_MEMORY * gpus if gpus else CPU_MEMORY)
        cpus = 0 if exclusive else settings.cpus or (GPU_CPUS * gpus if gpus else 1)
        return Resources(
            minutes=max(1, round(minutes)), cpus=cpus, gpus=gpus, nodes=nodes, memory=memory, exclusive=exclusive
        )

    # Following.

    def follow(self, jobs: Sequence[Job], plan: Plan) -> None:
        """Wait until each job has a result, or will have none."""
        self.runner.observer.plans(jobs)
        left = {job.key: job for job in jobs}
        positions = {job.key: position for position, job in enumerate(jobs, 1)}
        queried, retried = self.now() - POLL_SLURM, self.now()
        statuses: list[TaskStatus] = []
        while True:
            self._collect(left, positions)
            if not left:
                return
            if self.now() - queried >= POLL_SLURM:
                queried = self.now()
                try:
                    statuses = task_statuses(self.ledger, self.slurm)
                    self._handle_lost(statuses, left, plan)
                except NoAnswer as error:  # a controller that restarts forgets nothing
                    self.runner.observer.waits(str(error))
            if self._rejected and self.now() - retried >= RETRY_FULL:
                retried = self.now()
                self.submit([job for job in self._rejected if job.key in left], plan)
            self._report(statuses, left, len(jobs))
            self.sleep(POLL_FILES)

    def _collect(self, left: dict[str, Job], positions: Mapping[str, int]) -> None:
        """Collect the results that tasks have saved."""
        for array in self.ledger.arrays():
            if array.closed and not any((array.name, key) in self._followed for key in left):
                continue
            for outcomes in self.ledger.outcomes(array).values():
                for outcome in outcomes:
                    if outcome.key in left and not outcome.unmet and self._is_followed(array, outcome.key):
                        job = left.pop(outcome.key)
                        self.runner.observer.starts(job, positions[job.key], len(positions))
                        self.runner.collect(Saved(job=job, id=outcome.id))

    def _is_followed(self, array: Array, key: str) -> bool:
        """Whether a job of an array is followed: it was unfinished when this command started, or came later."""
        return (array.name, key) in self._followed or array.submitted >= self._started

    def _handle_lost(self, statuses: Sequence[TaskStatus], left: Mapping[str, Job], plan: Plan) -> None:
        """Submit the jobs of lost tasks again, or save that they have failed.

        A task is lost if it is so in two queries in a row: for a moment it may be in neither list of Slurm's.
        """
        never = {f"Slurm job {task.array.number}: {task.reason}" for task in statuses if task.ended == "NEVER"}
        for warning in never - self._warned:
            self._warned.add(warning)
            self.runner.observer.waits(warning)
        lost = {task.name for task in statuses if self._is_lost(task, left)}
        confirmed, self._lost = lost & self._lost, lost
        if not confirmed:
            return
        attempts: dict[str, int] = {}
        with self.ledger.locked():
            statuses = task_statuses(self.ledger, self.slurm, locked=True)
            numbers = self._open_jobs(statuses)
            newest = {job.key: task.name for task in statuses for job in task.jobs}
            for task in statuses:
                if task.name not in confirmed or not self._is_lost(task, left):
                    continue
                tried = task.array.attempts[task.index]
                for job in task.unfinished:
                    if job.key in numbers or job.key not in left or newest[job.key] != task.name:
                        continue
                    saved = self.runner.saved_since(task.array.submitted, job)
                    if saved is not None:  # the task died before it wrote that down
                        self.ledger.add_outcome(task.array, task.index, JobOutcome(key=job.key, id=saved.id))
                        continue
                    # A training that was stopped at its time limit continues from its checkpoint.
                    continues = task.ended == "TIMEOUT" and job.kind == "train"
                    if tried < RETRIES and (continues or task.ended in NOT_ITS_FAULT):
                        attempts[job.key] = tried + 1
                    else:
                        self._fail(task, job)
            again = [job for job in plan.jobs if job.key in attempts]
            self._rejected += self._submit(again, attempts, numbers, plan)

    def _is_lost(self, task: TaskStatus, left: Mapping[str, Job]) -> bool:
        """Whether a task ended without results that are waited for."""
        ended = task.state in (State.LOST, State.CANCELLED)
        return ended and any(job.key in left and self._is_followed(task.array, job.key) for job in task.unfinished)

    def _fail(self, task: TaskStatus, job: Job) -> None:
        """Save the failure of a job whose task could not."""
        reason = f"{task.reason}; Slurm job {task.number}, log {task.log}"
        result = self.runner.save_failure(job, task.array.submitted, reason)
        self.ledger.add_outcome(task.array, task.index, JobOutcome(key=job.key, id=result.id, error=result.error))

    def _report(self, statuses: Sequence[TaskStatus], left: Mapping[str, Job], total: int) -> None:
        """Report how many jobs are running and pending, and the phase of one of them."""
        tasks = [task for task in statuses if task.state.open and any(job.key in left for job in task.unfinished)]
        running = [task for task in tasks if task.state is State.RUNNING]
        counts = [
            f"{sum(len(task.unfinished) for task in tasks if task.state is state)} {state.value}"
            for state in (State.RUNNING, State.PENDING)
        ]
        if self._rejected:
            counts.append(f"{len(self._rejected)} not taken yet ({self._rejection})")
        done = total - len(left)
        self.runner.observer.progress(
            Progress(
                job=next(iter(left.values())),
                phase=str(self.ledger.progress(running[0].array, running[0].index).get("phase", "")) if running else "",
                overview=f"Slurm: {', '.join(counts)}, {done} of {total} done",
                # Counted in jobs, so that a log says once a minute how many have ended.
                done=done,
                total=total,
            )
        )
