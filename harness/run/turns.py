"""Two Pythons -> how fast the same jobs are in each: pairs of fresh processes, whose steps take turns in random order.

What disturbs a machine disturbs both sides of a pair alike.  The pair of processes is the unit: its steps share two
memory layouts, so they are no independent samples of what a process does.
"""

import contextlib
import json
import random
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from harness.errors import HarnessError, JobError
from harness.plan.job import Job
from harness.run.interpreter import Interpreter, end, harness_alone

# Turns of a pair: enough that the median of their ratios is no worse than what two processes differ by anyway.
FEWEST_TURNS, MOST_TURNS, TURNS_SECONDS = 10, 40, 4.0

_MODULE = "harness.jobs.speed.turns"


@dataclass(frozen=True, kw_only=True)
class ProcessPair:
    """Two processes by turns, `before` and `now`: images a second of each.

    `slower` is the time of a step now over that before, the median of their turns.
    """

    before: float
    now: float
    slower: float


class FailsBeforeError(JobError):
    """A job fails in the old environment, so there is nothing to compare the new one with."""


@dataclass(kw_only=True)
class Environment:
    """A Python that has torch and timm, and the process of it that times steps."""

    interpreter: Interpreter
    folder: Path
    log: IO[bytes]
    process: "subprocess.Popen[bytes]" = field(init=False)
    software: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the process, which imports torch and timm meanwhile.

        Raises `HarnessError` for a Python that cannot be started.
        """
        self.process = self.interpreter.start(_MODULE, self.folder, self.log)

    def stop(self) -> None:
        """End the process."""
        end(self.process)

    def wait(self) -> None:
        """Wait until the process has imported what it needs, and says which versions.  Raises as `hear` does."""
        self.software = {name: str(value) for name, value in self.hear().items()}

    def tell(self, **command: Any) -> None:  # noqa: ANN401 -- whatever JSON takes
        """Send a command; an empty one ends what it reaches."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n" if command else b"\n")
            self.process.stdin.flush()
        except OSError:
            self.interpreter.fail(self.log, self.process.poll())

    def hear(self) -> dict[str, Any]:
        """Wait for the answer.  Raises `JobError` if it is an error, and `HarnessError` if the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.interpreter.fail(self.log, self.process.poll())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise JobError(answer["error"])
        return answer


@contextmanager
def open_sides(interpreters: Sequence[Interpreter]) -> Iterator[tuple[Environment, ...]]:
    """Start a process in each of these Pythons, with this harness in all of them, and end them afterwards.

    Raises `HarnessError` for a Python that cannot be started or lacks what it needs.
    """
    with harness_alone() as folder:
        sides: list[Environment] = []
        with contextlib.ExitStack() as stack:
            for interpreter in interpreters:
                log = stack.enter_context(TemporaryFile())
                sides.append(Environment(interpreter=interpreter, folder=folder, log=log))
                sides[-1].start()
                stack.callback(sides[-1].stop)
            for side in sides:
                side.wait()
            yield tuple(sides)


@dataclass(kw_only=True)
class Turns:
    """Measures pairs of jobs in two sides, before and now, on one device.

    `costs` are what the forward pass of each job does, by the job's key and the number of the side.
    """

    sides: tuple[Environment, ...]
    device: str
    threads: int
    draw: random.Random = field(default_factory=random.Random)
    batches: dict[str, int] = field(default_factory=dict)
    costs: dict[str, dict[int, dict[str, Any] | None]] = field(default_factory=dict)
    done: set[Job] = field(default_factory=set)

    def measure_pair(self, job: Job) -> ProcessPair:
        """Start a fresh process of a job on each side and let their steps take turns.

        Both have the batch of the job, or the one at which the throughput of the first saturates.  Raises `JobError`
        if the job fails on either side, of which `FailsBeforeError` is for the old one.
        """
        if job in self.done:
            self._renew()
        self.done.add(job)
        begun: list[Environment] = []
        try:
            # In random order, so that which begins first is no property of a side; the batch is that of the first.
            known = job.key in self.batches or isinstance(job["batch"], int)
            order = self.draw.sample(self.sides, len(self.sides)) if known else self.sides
            step = max(self._begin(side, job, begun) for side in order)
            turns = min(MOST_TURNS, max(FEWEST_TURNS, round(TURNS_SECONDS / (2 * step))))
            seconds: tuple[list[float], ...] = ([], [])
            for _ in range(turns):
                for side in self.draw.sample(self.sides, len(self.sides)):
                    side.tell(turn=1)
                    seconds[self.sides.index(side)].append(float(self._hear(side)["seconds"]))
        finally:
            for side in begun:
                with contextlib.suppress(HarnessError):  # what ended it, as Ctrl-C, is on its way already
                    side.tell()
        before, now = seconds
        batch = self.batches[job.key]
        return ProcessPair(
            before=batch / statistics.median(before),
            now=batch / statistics.median(now),
            slower=statistics.median(later / earlier for earlier, later in zip(before, now, strict=True)),
        )

    def _renew(self) -> None:
        """Start the processes of both sides anew.

        Those of the jobs are forked from them and share their memory layout: pairs of one job would not be independent.
        """
        self.done.clear()
        for side in self.sides:
            side.stop()
            side.start()
        for side in self.sides:
            side.wait()

    def _begin(self, side: Environment, job: Job, begun: list[Environment]) -> float:
        """Build a job on a side, and return the seconds of a turn."""
        settings = dict(job.without_code.settings)
        given = settings["batch"] if isinstance(settings["batch"], int) else None
        batch = self.batches.get(job.key, given)
        costs, number = self.costs.setdefault(job.key, {}), self.sides.index(side)
        counts = number not in costs  # the first pair of processes does
        side.tell(job=settings, device=self.device, threads=self.threads, batch=batch, counts=counts)
        answer = self._hear(side)
        begun.append(side)
        self.batches[job.key] = answer["batch"]
        if counts:
            costs[number] = answer["cost"]
        return float(answer["seconds"])

    def _hear(self, side: Environment) -> dict[str, Any]:
        try:
            return side.hear()
        except JobError as error:
            if side is self.sides[0]:
                raise FailsBeforeError(f"it fails in the old environment: {error}") from error
            raise JobError(f"it fails in the new environment: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The pairs of each job, the errors of those that failed, and whether Ctrl-C ended it early.

    `costs` are what a forward pass does before (0) and now (1), by the key of the job.
    """

    pairs: Mapping[Job, Sequence[ProcessPair]]
    failed: Mapping[Job, JobError]
    costs: Mapping[str, Mapping[int, dict[str, Any] | None]] = field(default_factory=dict)
    interrupted: bool = False


def take_turns(  # noqa: PLR0913
    jobs: Sequence[Job],
    measure: Callable[[Job], ProcessPair],
    is_decided: Callable[[Sequence[ProcessPair]], bool],
    *,
    seconds: float,
    report: Callable[[Job, Sequence[ProcessPair]], None],
    now: Callable[[], float] = time.monotonic,
) -> Measured:
    """Measure pairs of all jobs in turn, each until it is decided, for so many seconds at most."""
    ends, longest = now() + seconds, 0.0
    pairs: dict[Job, list[ProcessPair]] = {job: [] for job in jobs}
    failed: dict[Job, JobError] = {}
    open_jobs, next_jobs = list(jobs), deque(jobs)
    try:
        while next_jobs:
            job, began = next_jobs.popleft(), now()
            if began + longest > ends and all(pairs[each] for each in open_jobs):
                break
            try:
                pairs[job].append(measure(job))
            except JobError as error:
                failed[job] = error
                open_jobs.remove(job)
                continue
            longest = max(longest, now() - began)
            if is_decided(pairs[job]):
                open_jobs.remove(job)
            else:
                next_jobs.append(job)
            report(job, pairs[job])
    except KeyboardInterrupt:
        return Measured(pairs=pairs, failed=failed, interrupted=True)
    return Measured(pairs=pairs, failed=failed)
