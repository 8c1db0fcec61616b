"""What a person sees while work goes on: one live line on a terminal, plain lines elsewhere, nothing with -q."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.job import Job
from harness.progress import Progress
from harness.result import Result

MINUTE = 60.0

Named = Callable[[Job], str]


def line_of(result: Result) -> str:
    """Say in a line what a job came to."""
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


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def starts(self, job: Job, number: int, total: int) -> None:
        """Say nothing."""

    def progress(self, progress: Progress) -> None:
        """Say nothing."""

    def finished(self, result: Result) -> None:
        """Say nothing."""

    def waits(self, why: str) -> None:
        """Say nothing."""


class Lines(Quiet):
    """A line for each job that ended, on stderr: for logs and pipes."""

    def __init__(self, named: Named = str) -> None:
        self._named = named
        self._ended = self._total = 0
        self._said = time.monotonic()

    def progress(self, progress: Progress) -> None:
        """Say once a minute how far long work is: a log shall show that it goes on."""
        if time.monotonic() - self._said >= MINUTE and progress.total:
            self._said = time.monotonic()
            what = progress.together or f"{self._named(progress.job)}: {progress.phase}"
            print(f"{what}: {progress.done}/{progress.total}", file=sys.stderr, flush=True)

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- said when it has ended
        """Remember how many jobs there are."""
        self._total = total

    def finished(self, result: Result) -> None:
        """Print what the job came to."""
        # In the order in which they end: several may run side by side.
        self._ended += 1
        name = self._named(result.job)
        print(f"[{self._ended}/{self._total}] {name}: {line_of(result)}", file=sys.stderr, flush=True)

    def waits(self, why: str) -> None:
        """Print why."""
        print(why, file=sys.stderr, flush=True)


class LiveLine(Quiet):
    """A line that changes: job, phase, rate, time left; one for each of what runs side by side.  They go away."""

    def __init__(self, console: Console, named: Named = str) -> None:
        self._console, self._named = console, named
        self._live = Live(console=console, transient=True, refresh_per_second=4)
        self._jobs: dict[str, str] = {}
        self._lines: dict[str, Text] = {}
        self._began = console.get_time()
        self._spent: list[float] = []
        self._left = 0

    def __enter__(self) -> Self:
        """Take the line."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the line back."""
        self._live.stop()

    def starts(self, job: Job, number: int, total: int) -> None:
        """Show the job."""
        self._jobs[_slot(job)] = f"[{number}/{total}] {self._named(job)}"
        self._left = total - number
        self._show("starting", job)

    def progress(self, progress: Progress) -> None:
        """Show how far it is."""
        parts = [progress.phase]
        if progress.total:
            parts.append(f"{progress.done}/{progress.total}")
        if progress.rate:
            parts.append(f"{progress.rate:.1f} im/s")
            if progress.total > progress.done:
                parts.append(_left((progress.total - progress.done) / progress.rate))
        self._show(", ".join(filter(None, parts)), progress.job, progress.together)

    def finished(self, result: Result) -> None:
        """Leave a line above for a failure; count the time for the rest."""
        if result.job.kind == "train":
            self._lines.pop(_slot(result.job), None)
        if result.job.exclusive:
            self._spent.append(result.seconds)
        if result.error is not None:
            self._console.print(Text(f"{self._named(result.job)}: {line_of(result)}", style="red"))

    def waits(self, why: str) -> None:
        """Show why."""
        self._live.update(Text(why, no_wrap=True, overflow="ellipsis"))

    def _show(self, text: str, job: Job, together: str = "") -> None:
        rest = ""
        if self._spent and self._left:
            seconds = self._left * sum(self._spent) / len(self._spent)
            rest = f", {_left(seconds)}"
        slot = _slot(job)
        said = together or self._jobs.get(slot, self._named(job))
        # In a narrow window the name gives way to what changes.
        left = max(self._console.width - len(text) - len(rest) - 2, self._console.width // 4)
        said = said if len(said) <= left else f"{said[: left - 1]}…"
        self._lines[slot] = Text(f"{said}: {text}{rest}", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(*self._lines.values()))


def _slot(job: Job) -> str:
    """Name the line of a job: trainings run side by side, all else one after the other."""
    return job.key if job.kind == "train" else ""


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, on a terminal only."""
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _done, _total: None
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield lambda done, total: live.update(Text(f"{what}: {done}/{total}" if total else what))


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def watcher(*, quiet: bool, named: Named = str) -> Quiet:
    """Choose how to show progress: on stderr, so that stdout holds the answer alone; `named` says what a job is."""
    if quiet:
        return Quiet()
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    return LiveLine(console, named) if console.is_terminal and not console.is_dumb_terminal else Lines(named)
