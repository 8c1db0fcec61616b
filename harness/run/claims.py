"""Jobs -> the right to do them: of the processes that share a folder of runs, one does a job at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from harness.plan.job import Job

# Seconds between two looks whether another process has finished a job.
LOOK_SECONDS = 1.0


class Claims:
    """The jobs that this process does in a folder of runs; `report` is called with what it waits for.

    Two trainings of one job would write the same checkpoints, two evaluations remove each other's shards.  The system
    releases the locks of a process that ends, however it ends.
    """

    def __init__(self, root: Path, report: Callable[[str], None]) -> None:
        self._root, self._report = root, report
        self._locks: dict[str, FileLock] = {}
        self._reported: set[str] = set()

    def __enter__(self) -> Self:
        """Begin without any."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave all to others."""
        for lock in self._locks.values():
            lock.release()

    def take(self, jobs: Sequence[Job]) -> bool:
        """Take all of these jobs, or none if another process has one of them."""
        for job in jobs:
            lock = FileLock(self._root / ".locks" / f"{job.key}.lock")
            try:
                Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except Timeout:
                self.release(jobs)
                self._say(f"another harness process runs {job} in {self._root}/; waiting for it")
                return False
            except (OSError, NotImplementedError) as error:  # as on some network file systems
                self._say(f"{self._root}/ cannot be locked ({error}); run one command at a time there")
            else:
                self._locks[job.key] = lock
        return True

    def release(self, jobs: Sequence[Job]) -> None:
        """Leave these jobs to others."""
        for lock in filter(None, (self._locks.pop(job.key, None) for job in jobs)):
            lock.release()

    def _say(self, why: str) -> None:
        if why not in self._reported:
            self._reported.add(why)
            self._report(why)
