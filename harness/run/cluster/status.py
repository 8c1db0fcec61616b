"""Submitted arrays, what their tasks wrote, and Slurm's records -> the status of each task.

What a task wrote comes first, then the queue, then the accounting, which lags behind and may not exist.
"""

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from harness.plan.job import Job
from harness.run.cluster.ledger import Array, JobOutcome, Ledger
from harness.run.launch.slurm import Slurm, SlurmRecord

# A task that neither the queue nor the accounting has may still turn up within this time, or its files may: the
# accounting lags behind by seconds, and so does a shared file system.
GRACE = timedelta(seconds=20)


class State(Enum):
    """The state of a task.  A `LOST` one ended without a result for each of its jobs."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def open(self) -> bool:
        """Whether the task may still write results."""
        return self in (State.PENDING, State.RUNNING)


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """The status of one task; `reason` is a clause that says why it is pending or how it ended.

    `ended` is Slurm's state of a lost task, or `NEVER` for a pending one that will never start.
    """

    array: Array
    index: int
    state: State = State.PENDING
    reason: str = ""
    node: str = ""
    ended: str = ""
    outcomes: tuple[JobOutcome, ...] = ()
    log: Path = Path()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs of the task."""
        return self.array.tasks[self.index]

    @property
    def number(self) -> str:
        """Slurm's number of the task."""
        return self.array.number_of(self.index)

    @property
    def name(self) -> str:
        """A name of the task that does not depend on Slurm."""
        return f"{self.array.name}/{self.index}"

    @property
    def unfinished(self) -> tuple[Job, ...]:
        """The jobs that have no result yet."""
        finished = {outcome.key for outcome in self.outcomes if not outcome.unmet}
        return tuple(job for job in self.jobs if job.key not in finished)

    def state_of(self, job: Job) -> tuple[State, str]:
        """Return the state of one job and its reason: it may be done while others of its task are not."""
        for outcome in self.outcomes:
            if outcome.key == job.key and not outcome.unmet:
                return (State.FAILED, outcome.error) if outcome.error else (State.DONE, "")
        return self.state, self.reason


def task_statuses(ledger: Ledger, slurm: Slurm, *, locked: bool = False) -> list[TaskStatus]:
    """Return the status of every task, oldest first, with one query of the queue and at most one of the accounting.

    A caller that holds the ledger's lock also recovers arrays whose submitter died before saving their number.
    """
    arrays = ledger.arrays()
    if locked:
        arrays = [_recovered(ledger, slurm, array) for array in arrays]
    arrays = [array for array in arrays if array.number]
    open_numbers = [array.number for array in arrays if not array.closed]
    queue = slurm.queued(open_numbers) if open_numbers else {}
    outcomes = {array.name: ledger.outcomes(array) for array in arrays}
    gone = {
        array.number
        for array in arrays
        if not array.closed
        for index, jobs in enumerate(array.tasks)
        if array.number_of(index) not in queue and len(outcomes[array.name].get(index, ())) < len(jobs)
    }
    ended = slurm.ended(gone)
    statuses = []
    for array in arrays:
        for index in range(len(array.tasks)):
            number = array.number_of(index)
            queued, last = queue.get(number), ended.get(number)
            record = queued or last
            task = TaskStatus(
                array=array,
                index=index,
                node=record.node if record else "",
                outcomes=outcomes[array.name].get(index, ()),
                log=ledger.log_of(array, index),
            )
            state, reason, end = _state_of(ledger, task, queued, last)
            statuses.append(replace(task, state=state, reason=reason, ended=end))
    return statuses


def _state_of(
    ledger: Ledger, task: TaskStatus, queued: SlurmRecord | None, last: SlurmRecord | None
) -> tuple[State, str, str]:
    """Return the state of a task, the reason, and Slurm's state of a lost one, from its records in both lists."""
    now = datetime.now(tz=UTC)
    if not task.unfinished:
        errors = dict.fromkeys(outcome.error for outcome in task.outcomes if outcome.error)
        return (State.FAILED if errors else State.DONE), "; ".join(errors), ""
    if queued is not None and (queued.is_pending or queued.is_running):
        state = State.PENDING if queued.is_pending else State.RUNNING
        return state, queued.never_starts or queued.reason, "NEVER" if queued.never_starts else ""
    if task.array.cancelled:
        return State.CANCELLED, "cancelled", ""
    if task.array.closed:
        return State.LOST, "it ended without a result", "OVER"
    if last is None or last.is_pending or last.is_running:
        # Slurm forgets ended jobs after some minutes; without accounting, nothing more can be known.
        if now - max(task.array.submitted, _last_written(ledger, task)) < GRACE:
            return State.PENDING, "just submitted", ""
        return State.LOST, "Slurm does not know it any more", "UNKNOWN"
    if last.state == "COMPLETED" and now - _last_written(ledger, task) < GRACE:
        return State.RUNNING, "its files are still to come", ""
    if any(outcome.unmet for outcome in task.outcomes):
        return State.LOST, "what it takes weights from is not trained", "UNMET"
    return (State.CANCELLED if last.state == "CANCELLED" else State.LOST), _reason(last), last.state


def _reason(record: SlurmRecord) -> str:
    """Return in a clause how a task ended."""
    reasons = {
        "OUT_OF_MEMORY": "out of memory: it used more than it had asked Slurm for; give more with --job-memory",
        "TIMEOUT": "it ran into its time limit; give more with --hours",
        "DEADLINE": "it ran into its deadline",
        "NODE_FAIL": "its node failed",
        "BOOT_FAIL": "its node did not start",
        "PREEMPTED": "it was preempted and not requeued",
        "CANCELLED": "it was cancelled",
    }
    code = f" (exit code {record.reason})" if record.reason else ""
    return reasons.get(record.state, f"it ended as {record.state}{code} and left no result")


def _last_written(ledger: Ledger, task: TaskStatus) -> datetime:
    """Return when a task last wrote a file."""
    folder = ledger.folder_of(task.array)
    times = []
    for path in (folder / f"{task.index}.started", folder / f"{task.index}.done", task.log):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(times, default=0.0), tz=UTC)


def _recovered(ledger: Ledger, slurm: Slurm, array: Array) -> Array:
    """Return an array with its number, which Slurm knows where the submitter died before saving it."""
    if array.number or array.closed:
        return array
    numbers = {number.partition("_")[0] for number in slurm.queued((), name=array.name)}
    if not numbers:
        ledger.delete(array)
        return array
    array = replace(array, number=numbers.pop())
    ledger.save(array)
    return array
