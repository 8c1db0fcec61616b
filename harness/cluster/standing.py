"""What was submitted, what its tasks wrote, and what Slurm says -> how each task stands.

What a task wrote is the truth; then what the queue says; then the accounting, which lags behind and may be missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from harness.cluster.ledger import Array, Ledger, Mark, numbered
from harness.job import Job
from harness.launch.slurm import Seen, Slurm

# Until then a task that neither the queue nor the accounting knows may still turn up, or its files may: the accounting
# lags behind by seconds, and so does a shared file system.
GRACE = timedelta(seconds=20)


class State(Enum):
    """How a task stands.  A `LOST` one ended without a result for each of its jobs."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def open(self) -> bool:
        """Whether something is still to come of it."""
        return self in (State.PENDING, State.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one task stands: `why` it waits or how it ended, in a clause.

    `ended` is Slurm's word for how a lost one ended, or `NEVER` for one that waits in vain.
    """

    array: Array
    index: int
    state: State
    why: str = ""
    node: str = ""
    ended: str = ""
    marks: tuple[Mark, ...] = ()
    log: Path = Path()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Give the jobs of the task."""
        return self.array.tasks[self.index]

    @property
    def number(self) -> str:
        """Give Slurm's number of the task."""
        return self.array.number_of(self.index)

    @property
    def name(self) -> str:
        """Name the task, whatever Slurm calls it."""
        return f"{self.array.name}/{self.index}"

    @property
    def left(self) -> tuple[Job, ...]:
        """Give the jobs that have no result yet."""
        done = {mark.key for mark in self.marks if not mark.unmet}
        return tuple(job for job in self.jobs if job.key not in done)


def standings(ledger: Ledger, slurm: Slurm, *, locked: bool = False) -> list[Standing]:
    """Say how every task stands, oldest first: one look at the queue, and one at the accounting if tasks have ended.

    Who holds the ledger's lock also finds again what somebody submitted who died before writing down its number.
    """
    known = ledger.arrays()
    if locked:
        known = [_found_again(ledger, slurm, array) for array in known]
    asked = [array for array in known if array.number and not array.over]
    queue = slurm.look(array.number for array in asked) if asked else {}
    found = [(array, ledger.marks(array)) for array in known if array.number]
    gone = {
        array.number
        for array, marks in found
        if not array.over
        for index, jobs in enumerate(array.tasks)
        if array.number_of(index) not in queue and len(marks.get(index, ())) < len(jobs)
    }
    ended = slurm.ended(gone)
    now = datetime.now(tz=UTC)
    return [
        _standing(ledger, array, index, marks.get(index, ()), queue, ended, now)
        for array, marks in found
        for index in range(len(array.tasks))
    ]


def _standing(  # noqa: PLR0913, PLR0917 -- all that is known of it
    ledger: Ledger,
    array: Array,
    index: int,
    marks: tuple[Mark, ...],
    queue: Mapping[str, Seen],
    ended: Mapping[str, Seen],
    now: datetime,
) -> Standing:
    number = array.number_of(index)
    seen = queue.get(number)

    def told(state: State, why: str = "", how: str = "") -> Standing:
        node = seen.node if seen else (ended[number].node if number in ended else "")
        return Standing(
            array=array,
            index=index,
            state=state,
            why=why,
            node=node,
            ended=how,
            marks=marks,
            log=ledger.log_of(array, index),
        )

    if len([mark for mark in marks if not mark.unmet]) == len(array.tasks[index]):
        errors = [mark.error for mark in marks if mark.error]
        return told(State.FAILED, "; ".join(dict.fromkeys(errors))) if errors else told(State.DONE)
    if seen is not None and (seen.waits or seen.runs):
        return told(
            State.PENDING if seen.waits else State.RUNNING, seen.never or seen.why, "NEVER" if seen.never else ""
        )
    if array.cancelled:
        return told(State.CANCELLED, "cancelled")
    if array.over:
        return told(State.LOST, "it ended without a result", "OVER")
    last = ended.get(number)
    if last is None or last.waits or last.runs:
        # Slurm forgets what ended some minutes ago; where there is no accounting that is all there is to know.
        if now - max(array.submitted, _last_sign(ledger, array, index)) < GRACE:
            return told(State.PENDING, "just submitted")
        return told(State.LOST, "Slurm does not know it any more", "UNKNOWN")
    if last.state == "COMPLETED" and now - _last_sign(ledger, array, index) < GRACE:
        return told(State.RUNNING, "its files are still to come")
    if any(mark.unmet for mark in marks):
        return told(State.LOST, "what it takes weights from is not trained", "UNMET")
    return told(State.CANCELLED if last.state == "CANCELLED" else State.LOST, _how(last), last.state)


def _how(seen: Seen) -> str:
    """Say how Slurm says that a task ended."""
    words = {
        "OUT_OF_MEMORY": "out of memory: it used more than it had asked Slurm for; give more with --job-memory",
        "TIMEOUT": "it ran into its time limit; give more with --hours",
        "DEADLINE": "it ran into its deadline",
        "NODE_FAIL": "its node failed",
        "BOOT_FAIL": "its node did not start",
        "PREEMPTED": "it was preempted and not requeued",
        "CANCELLED": "it was cancelled",
    }
    code = f" (exit code {seen.why})" if seen.why else ""
    return words.get(seen.state, f"it ended as {seen.state}{code} and left no result")


def _last_sign(ledger: Ledger, array: Array, index: int) -> datetime:
    """Say when a task last wrote something."""
    folder = ledger.folder_of(array)
    times = []
    for path in (folder / f"{index}.started", folder / f"{index}.done", ledger.log_of(array, index)):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times, default=0.0), tz=UTC)


def _found_again(ledger: Ledger, slurm: Slurm, array: Array) -> Array:
    """Find the number of an array whose submitter died before it could write it down."""
    if array.number or array.over:
        return array
    numbers = {number.partition("_")[0] for number in slurm.look((), name=array.name)}
    if not numbers:
        ledger.forget(array)
        return array
    found = numbered(array, numbers.pop())
    ledger.keep(found)
    return found
