"""`Plan` -> `Result`s: what is missing is measured, and saved before the next begins."""

import getpass
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from harness.errors import HarnessError
from harness.launch import Crashed
from harness.machine import Machine
from harness.plan import Job, Plan
from harness.progress import Batch, Progress, Saved
from harness.result import Result, new_id
from harness.store import Store


class Launcher(Protocol):
    """Where child processes run."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Do a batch of jobs and pass on what it says."""

    def unknown_models(self, names: tuple[str, ...]) -> dict[str, str]:
        """Ask which networks timm does not know."""


class Watcher(Protocol):
    """Somebody who looks on."""

    def starts(self, job: Job, number: int, total: int) -> None:
        """A job begins, the `number`th of `total`."""

    def progress(self, progress: Progress) -> None:
        """A job goes on."""

    def finished(self, result: Result) -> None:
        """A job ended, well or not."""

    def waits(self, why: str) -> None:
        """Nothing happens for now."""


def speed_lock() -> Path:
    """Name the file that every harness of this user holds while it measures a speed on this machine."""
    return Path(tempfile.gettempdir()) / f"harness-speed-{getpass.getuser()}.lock"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the work is done: the device as torch calls it, what is behind it, and the versions there."""

    device: str
    machine: Machine
    software: Mapping[str, str]
    lock: Path = field(default_factory=speed_lock)


@dataclass(kw_only=True)
class Done:
    """The newest result of each job by its key, and which of them this run made."""

    results: dict[str, Result] = field(default_factory=dict)
    measured: list[Result] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """Give the jobs that this run tried in vain."""
        return [result for result in self.measured if result.error is not None]

    def add(self, result: Result) -> None:
        """Note a result that this run made."""
        self.results[result.job.key] = result
        self.measured.append(result)


def run(  # noqa: PLR0913 -- the one place where all parts meet
    plan: Plan,
    store: Store,
    launcher: Launcher,
    site: Site,
    watcher: Watcher,
    *,
    rerun: bool = False,
    done: Done | None = None,
) -> Done:
    """Measure what the store does not have yet.

    `done` is filled as the work goes on, so that it holds what is finished if Ctrl-C ends it.  Raises `HarnessError`
    for a network that timm does not know, before anything is measured, and `StoreError` if results cannot be kept.
    """
    done = done if done is not None else Done()
    missing = []
    for job in plan.jobs:
        known = None if rerun else store.find(job, site.machine, dict(site.software))
        if known is not None:
            done.results[job.key] = known
        else:
            missing.append(job)
    if not missing:
        return done
    store.prepare()
    _check_models(plan, missing, launcher)
    number = 0
    for jobs in _batches(missing):
        with _the_machine_to_itself(watcher, site.lock if jobs[0].exclusive else None):
            for job in jobs if not rerun else ():
                # Another process may have measured it since this one looked.
                known = store.find(job, site.machine, dict(site.software))
                if known is not None:
                    done.results[job.key] = known
            left = [job for job in jobs if job.key not in done.results]
            _do(left, store, launcher, site, watcher, done, (number, len(missing)))
        number += len(jobs)
    return done


def _batches(jobs: Iterable[Job]) -> list[list[Job]]:
    """One process for each speed job; one for all other jobs of a kind."""
    together: dict[str, list[Job]] = {}
    for job in jobs:
        together.setdefault(job.key if job.exclusive else job.kind, []).append(job)
    return list(together.values())


def _do(  # noqa: PLR0913
    jobs: list[Job],
    store: Store,
    launcher: Launcher,
    site: Site,
    watcher: Watcher,
    done: Done,
    count: tuple[int, int],
) -> None:
    """Do a batch; if its process dies, the job in hand has failed and the rest goes on in another."""
    before, total = count
    left = list(jobs)
    while left:
        watcher.starts(left[0], before + len(jobs) - len(left) + 1, total)
        batch = Batch(
            jobs=tuple(left), device=site.device, machine=site.machine, software=site.software, runs=store.root
        )
        started = datetime.now(tz=timezone.utc)
        try:
            for message in launcher.run(batch):
                if isinstance(message, Progress):
                    watcher.progress(message)
                    continue
                left.remove(message.job)
                result = store.latest(message.job, lambda result, wanted=message.id: result.id == wanted)
                if result is None:
                    raise HarnessError(f"{store.root / message.job.key}: the result just written is gone; was it removed?")
                done.add(result)
                watcher.finished(result)
                if left:
                    watcher.starts(left[0], before + len(jobs) - len(left) + 1, total)
        except Crashed as crash:
            result = _failed(left.pop(0), site, started, str(crash))
            store.save(result)
            done.add(result)
            watcher.finished(result)


def _failed(job: Job, site: Site, started: datetime, error: str) -> Result:
    """Write down the end of a job whose process could not."""
    return Result(
        id=new_id(started),
        job=job,
        machine=site.machine,
        software=site.software,
        started=started,
        seconds=(datetime.now(tz=timezone.utc) - started).total_seconds(),
        error=error,
    )


def _check_models(plan: Plan, jobs: Iterable[Job], launcher: Launcher) -> None:
    """Refuse networks that timm does not know before anything is measured, all at once and with their place."""
    places: dict[str, str] = {}
    for job in jobs:
        if "model" in dict(job.settings):
            cell = plan.cells_of(job)[0]
            spec = next(spec for spec in plan.specs if spec.name == cell.spec)
            places.setdefault(str(job["model"]), f"{spec.path}: row '{cell.cell.row.key}'")
    unknown = launcher.unknown_models(tuple(places))
    if unknown:
        raise HarnessError("\n".join(f"{places[name]}: {reason}" for name, reason in unknown.items()))


@contextmanager
def _the_machine_to_itself(watcher: Watcher, path: Path | None) -> Iterator[None]:
    """Hold the machine against other harness processes while a speed is measured."""
    if path is None:
        yield
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        watcher.waits("another harness measures speed on this machine; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
