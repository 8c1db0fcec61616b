"""What the runner tells: which jobs there are, which one starts, how far it is, how it ended."""

from collections.abc import Sequence
from typing import Self

from harness.plan.job import Job
from harness.run.messages import Progress
from harness.store.result import Result


class ProgressObserver:
    """Is notified of what happens; this one shows nothing."""

    def __enter__(self) -> Self:
        """Start the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""

    def plans(self, jobs: Sequence[Job]) -> None:
        """These jobs are going to be run, unless others run them meanwhile."""

    def starts(self, job: Job, number: int, total: int) -> None:
        """A job starts, the `number`th of `total`."""

    def progress(self, progress: Progress) -> None:
        """A job has progressed."""

    def finished(self, result: Result) -> None:
        """A job has ended, with a metric or an error."""

    def waits(self, why: str) -> None:
        """Nothing can be run for now."""
