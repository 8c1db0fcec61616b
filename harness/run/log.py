"""What the runner tells -> lines of text, in the order in which jobs finish."""

import time
from collections.abc import Callable, Sequence

from harness.plan.job import Job
from harness.run.forecast import Forecast
from harness.run.messages import Progress
from harness.run.observer import ProgressObserver
from harness.store.result import Measurement, Result

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
    first_two = [f"{name} {value_text(metric, digits=4)}" for name, metric in result.metrics.items()][:2]
    return ", ".join(first_two) or "done"


def value_text(metric: Measurement, *, digits: int = 6) -> str:
    """Return a metric with its unit and interval, in so many significant digits."""
    value = metric.value if isinstance(metric.value, str) else f"{metric.value:.{digits}g}"
    has_interval = metric.low is not None and metric.high is not None
    interval = f" [{metric.low:.{digits}g}, {metric.high:.{digits}g}]" if has_interval else ""
    return f"{value} {metric.unit}".rstrip() + interval


class LogObserver(ProgressObserver):
    """Writes a line for each finished job: for logs, pipes and notebooks."""

    def __init__(self, write: Callable[[str], object], named: JobNamer = str, forecast: Forecast | None = None) -> None:
        self._write, self._named, self._forecast = write, named, forecast
        self._finished = self._total = 0
        self._printed = time.monotonic()

    def plans(self, jobs: Sequence[Job]) -> None:
        """Count the jobs."""
        self._finished, self._total = 0, len(jobs)
        if self._forecast:
            self._forecast.plans(jobs)

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- printed when it has finished
        """Remember how many jobs there are."""
        self._total = total
        if self._forecast:
            self._forecast.starts(job)

    def progress(self, progress: Progress) -> None:
        """Write once a minute how far long work is: a log shall show that it continues."""
        if self._forecast:
            self._forecast.progress(progress)
        if time.monotonic() - self._printed >= MINUTE and progress.total:
            self._printed = time.monotonic()
            work = progress.overview or f"{self._named(progress.job)}: {progress.phase}"
            self._write(f"{work}: {progress.done}/{progress.total}{time_left(self._forecast)}")

    def finished(self, result: Result) -> None:
        """Write the outcome of the job."""
        if self._forecast:
            self._forecast.finished(result)
        # In the order in which they finish: several may run in parallel.
        self._finished += 1
        self._write(f"{numbered(self._finished, self._total)} {self._named(result.job)}: {outcome_line(result)}")

    def waits(self, why: str) -> None:
        """Write the reason."""
        self._write(why)


def numbered(number: int, total: int) -> str:
    """Return the number of a job among so many, in brackets and in equal width."""
    return f"[{number:>{len(str(total))}}/{total}]"


def time_left(forecast: Forecast | None) -> str:
    """Return how long all jobs will take, to follow something; empty where nothing tells."""
    seconds = forecast.seconds_left if forecast else None
    return "" if seconds is None else f", {duration_left(seconds)}"


def duration_left(seconds: float) -> str:
    """Return how long something will take."""
    return f"about {format_seconds(seconds)} left"


def format_seconds(seconds: float) -> str:
    """Return a time that is not exact: `52 s`, `12 min`, `3 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 * 60 else f"{seconds / 3600:.0f} h"
