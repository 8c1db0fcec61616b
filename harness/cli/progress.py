"""Progress: live lines on a terminal, plain lines elsewhere, nothing with -q."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.cleaning import one_line
from harness.cli.console import note
from harness.plan.job import Job
from harness.run.messages import Progress
from harness.run.observer import ProgressObserver
from harness.store.result import Result

MINUTE = 60.0

JobNamer = Callable[[Job], str]


def outcome_line(result: Result) -> str:
    """Return the outcome of a job in a line."""
    if result.error is not None:
        return f"failed: {result.error}"
    top1 = result.metrics.get("top1")
    if top1 and not isinstance(top1.value, str) and top1.low is not None and top1.high is not None:
        return f"top-1 {top1.value:.2f} % [{top1.low:.2f}, {top1.high:.2f}]"
    if top1 and result.job.kind == "train" and not isinstance(top1.value, str):
        return f"top-1 {top1.value:.2f} %, {result.seconds:.0f} s"
    throughput = result.metrics.get("throughput")
    if throughput and not isinstance(throughput.value, str):
        return f"{throughput.value:.1f} im/s at batch {result.facts.get('batch')}, {result.seconds:.0f} s"
    return "done"


class LogObserver(ProgressObserver):
    """Prints a line for each finished job to stderr: for logs and pipes."""

    def __init__(self, named: JobNamer = str) -> None:
        self._named = named
        self._finished = self._total = 0
        self._printed = time.monotonic()

    def progress(self, progress: Progress) -> None:
        """Print once a minute how far long work is: a log shall show that it continues."""
        if time.monotonic() - self._printed >= MINUTE and progress.total:
            self._printed = time.monotonic()
            work = progress.overview or f"{self._named(progress.job)}: {progress.phase}"
            note(f"{work}: {progress.done}/{progress.total}")

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- printed when it has finished
        """Remember how many jobs there are."""
        self._total = total

    def finished(self, result: Result) -> None:
        """Print the outcome of the job."""
        # In the order in which they finish: several may run in parallel.
        self._finished += 1
        name = self._named(result.job)
        note(f"[{self._finished}/{self._total}] {name}: {outcome_line(result)}")

    def waits(self, why: str) -> None:
        """Print the reason."""
        note(why)


class LiveObserver(ProgressObserver):
    """Shows a line that changes for each job in parallel: job, phase, rate, time left.  They disappear at the end."""

    def __init__(self, console: Console, named: JobNamer = str) -> None:
        self._console, self._named = console, named
        self._live = Live(console=console, transient=True, refresh_per_second=4)
        self._jobs: dict[str, str] = {}
        self._lines: dict[str, Text] = {}
        self._spent: list[float] = []
        self._left = 0

    def __enter__(self) -> Self:
        """Start the display."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""
        self._live.stop()

    def starts(self, job: Job, number: int, total: int) -> None:
        """Show the job."""
        self._jobs[_slot(job)] = f"[{number}/{total}] {self._named(job)}"
        self._left = total - number
        self._show("starting", job)

    def progress(self, progress: Progress) -> None:
        """Show how far the job is."""
        parts = [progress.phase]
        if progress.total:
            parts.append(f"{progress.done}/{progress.total}")
        if progress.rate:
            parts.append(f"{progress.rate:.1f} im/s")
            if progress.total > progress.done:
                parts.append(_time_left((progress.total - progress.done) / progress.rate))
        self._show(", ".join(filter(None, parts)), progress.job, progress.overview)

    def finished(self, result: Result) -> None:
        """Keep a line above for a failure; count the time for the estimate."""
        if result.job.kind == "train":
            self._lines.pop(_slot(result.job), None)
        if result.job.exclusive:
            self._spent.append(result.seconds)
        if result.error is not None:
            self._console.print(Text(one_line(f"{self._named(result.job)}: {outcome_line(result)}"), style="red"))

    def waits(self, why: str) -> None:
        """Show the reason."""
        self._live.update(Text(one_line(why), no_wrap=True, overflow="ellipsis"))

    def _show(self, text: str, job: Job, overview: str = "") -> None:
        rest = ""
        if self._spent and self._left:
            seconds = self._left * sum(self._spent) / len(self._spent)
            rest = f", {_time_left(seconds)}"
        slot = _slot(job)
        name = overview or self._jobs.get(slot, self._named(job))
        # In a narrow window the name is cut, not what changes.
        room = max(self._console.width - len(text) - len(rest) - 2, self._console.width // 4)
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        self._lines[slot] = Text(one_line(f"{name}: {text}{rest}"), no_wrap=True, overflow="ellipsis")
        self._live.update(Group(*self._lines.values()))


def _slot(job: Job) -> str:
    """Return the key of the line of a job: trainings run in parallel, all others one after the other."""
    return job.key if job.kind == "train" else ""


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, on a terminal only."""
    with Live(console=_console() or Console(quiet=True), transient=True, refresh_per_second=4) as live:
        yield lambda done, total: live.update(Text(f"{title}: {done}/{total}" if total else title))


def _time_left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def make_observer(*, quiet: bool, named: JobNamer = str) -> ProgressObserver:
    """Choose how to show progress: on stderr, so that stdout holds the answer alone; `named` names a job."""
    console = _console()
    if quiet:
        return ProgressObserver()
    return LogObserver(named) if console is None else LiveObserver(console, named)


def _console() -> Console | None:
    """Return stderr, if it is a terminal that can show lines that change."""
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None
