"""Progress: live lines on a terminal, plain lines elsewhere, nothing with -q."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.cleaning import one_line
from harness.cli.console import note
from harness.plan.job import Job
from harness.run.forecast import Forecast
from harness.run.log import MINUTE, JobNamer, LogObserver, duration_left, numbered, outcome_line, time_left
from harness.run.messages import Progress
from harness.run.observer import ProgressObserver
from harness.store.result import Result

# Columns of the bar, and those that are too few for one.
WIDEST_BAR, NARROWEST_BAR = 40, 8

# Redrawing must not disturb what is measured.
REDRAWN_A_SECOND = 2


def fit(job: Job, name: str, text: str, width: int) -> str:
    """Return the name of a job and a text about it in a line of `width` columns.

    Settings behind the model's name are cut first, then the text; the model's name never is.
    """
    named = [str(job[part]) for part in _NAMING if job.get(part) and str(job[part]) in name]
    kept = max((name.index(part) + len(part) for part in named), default=0)
    room = width - cell_len(text) - 2
    if cell_len(name) > room and (room := max(room, cell_len(name[:kept]) + 1)) < cell_len(name):
        name = name[:kept] if room <= cell_len(name[:kept]) + 1 else f"{set_cell_size(name, room - 1).rstrip()}…"
    room = width - cell_len(name) - 2
    if cell_len(text) > room:
        text = f"{set_cell_size(text, room - 1).rstrip()}…" if room > 1 else ""
    return f"{name}: {text}" if text else name


# The settings that a job's name has and that tell it from others.
_NAMING = ("model", "first", "second")


class LiveObserver(ProgressObserver):
    """Keeps a line for each finished job, above those that change: one for each running job, and a bar.

    The changing lines disappear at the end.
    """

    def __init__(self, console: Console, named: JobNamer = str, forecast: Forecast | None = None) -> None:
        self._console, self._named, self._forecast = console, named, forecast
        self._lines: dict[str, tuple[Job, str, str]] = {}
        self._finished = self._total = 0
        self._waiting = ""
        self._live = Live(
            console=console, transient=True, refresh_per_second=REDRAWN_A_SECOND, get_renderable=self._display
        )

    def __enter__(self) -> Self:
        """Start the display."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""
        self._live.stop()

    def plans(self, jobs: Sequence[Job]) -> None:
        """Show the bar."""
        self._finished, self._total = 0, len(jobs)
        if self._forecast:
            self._forecast.plans(jobs)

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- the bar counts what has finished
        """Show the job."""
        self._total = total
        if self._forecast:
            self._forecast.starts(job)
        self._show(job, self._named(job), "starting")

    def progress(self, progress: Progress) -> None:
        """Show how far the job is."""
        if self._forecast:
            self._forecast.progress(progress)
        parts = [progress.phase]
        if progress.total:
            parts.append(f"{progress.done}/{progress.total}")
        if progress.rate:
            parts.append(f"{progress.rate:.1f} im/s")
            if progress.total > progress.done:
                parts.append(duration_left((progress.total - progress.done) / progress.rate))
        name = progress.overview or self._named(progress.job)
        self._show(progress.job, name, ", ".join(filter(None, parts)))

    def finished(self, result: Result) -> None:
        """Keep a line with the outcome."""
        if self._forecast:
            self._forecast.finished(result)
        self._finished += 1
        self._lines.pop(_slot(result.job), None)
        name = f"{numbered(self._finished, self._total)} {self._named(result.job)}"
        line = fit(result.job, one_line(name), one_line(outcome_line(result)), self._console.width)
        self._console.print(Text(line, style="red" if result.error is not None else ""))

    def waits(self, why: str) -> None:
        """Show the reason."""
        self._waiting = one_line(why)
        self._live.refresh()

    def _show(self, job: Job, name: str, text: str) -> None:
        self._waiting = ""
        self._lines[_slot(job)] = (job, one_line(name), one_line(text))

    def _display(self) -> RenderableType:
        """Return the lines that change.  They are drawn by another thread."""
        lines = [fit(*line, self._console.width) for line in list(self._lines.values())]
        texts = [Text(line) for line in ([self._waiting] if self._waiting else lines)]
        return Group(*texts, *([self._bar()] if self._total else []))

    def _bar(self) -> Text:
        text = f"{self._finished} of {self._total} job{'' if self._total == 1 else 's'}{time_left(self._forecast)}"
        share = self._forecast.share if self._forecast else None
        width = min(WIDEST_BAR, self._console.width - len(text) - 2)
        if width < NARROWEST_BAR:
            return Text(text)
        filled = round(width * (self._finished / self._total if share is None else share))
        return Text.assemble(("━" * filled, "green"), ("·" * (width - filled), "dim"), f"  {text}")


def _slot(job: Job) -> str:
    """Return the key of the line of a job: trainings run in parallel, all others one after the other."""
    return job.key if job.kind == "train" else ""


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is: on a terminal a line that changes, elsewhere one at the start and one a minute."""
    console, printed = _console(), time.monotonic()

    def in_a_log(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= MINUTE:
            printed = time.monotonic()
            note(f"{title}: {done}/{total}")

    if console is None:
        note(title)
        yield in_a_log
        return
    with Live(Text(title), console=console, transient=True, refresh_per_second=REDRAWN_A_SECOND) as live:
        yield lambda done, total: live.update(Text(f"{title}: {done}/{total}" if total else title))


def make_observer(*, quiet: bool, named: JobNamer = str, forecast: Forecast | None = None) -> ProgressObserver:
    """Choose how to show progress: on stderr, so that stdout holds the answer alone; `named` names a job."""
    console = _console()
    if quiet:
        return ProgressObserver()
    return LogObserver(note, named, forecast) if console is None else LiveObserver(console, named, forecast)


def _console() -> Console | None:
    """Return stderr, if it is a terminal that can show lines that change."""
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None
