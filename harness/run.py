"""`Plan` -> `Result`s: what is missing is measured, and saved before the next begins."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness.errors import HarnessError
from harness.job import Job
from harness.launch import Crashed
from harness.machine import Machine, describe, gpu_index, gpus, software
from harness.machine.alone import alone, speed_lock
from harness.plan import Plan, needed_by
from harness.progress import Batch, Inputs, Progress, Saved, Seen, train_split
from harness.result import Result, new_id
from harness.store import Store


class Launcher(Protocol):
    """Where child processes run."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Do a batch of jobs and pass on what it says."""

    def stop(self) -> None:
        """End what runs, giving it time to keep what it has."""

    def unknown_models(self, names: tuple[str, ...]) -> dict[str, str]:
        """Ask which networks timm does not know."""

    def look(self, inputs: Inputs, jobs: tuple[Job, ...]) -> Seen:
        """Ask what is there of the data and weights that these jobs need."""


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


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What one training that runs beside others has: devices, a share of the cores, processes that read images."""

    devices: tuple[str, ...]
    cores: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the work is done: the device as torch calls it, what is behind it, and the versions there.

    `devices` are all that may share a pass over images; a speed is measured on `device` alone.  `lanes` are the devices
    of each training that may run beside others, and the processes that read images for it.
    """

    device: str
    machine: Machine
    software: Mapping[str, str]
    devices: tuple[str, ...] = ()
    lanes: tuple[Lane, ...] = ()
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


def site_of(device: str) -> Site:
    """Find the device that `--device` names and what is behind it.

    Raises `HarnessError` for a device that is not there.
    """
    machine = describe(device)
    index = 0 if device in ("auto", "cpu") else gpu_index(device)
    name = f"cuda:{index}" if machine.device == "cuda" else "cpu"
    every = device in ("auto", "cuda") and machine.device == "cuda"
    devices = tuple(f"cuda:{gpu.index}" for gpu in gpus() if gpu.name == machine.name) if every else (name,)
    return Site(device=name, machine=machine, software=software(machine), devices=devices)


def look(plan: Plan, launcher: Launcher, inputs: Inputs) -> tuple[Plan, Seen]:
    """Find out what is there of the data and weights that a plan needs; cells whose weights are not there are blocked.

    Raises `HarnessError` for images that are not what they should be.
    """
    jobs = tuple(job for job in plan.jobs if job.of_images)
    if not jobs:
        return plan, Seen()
    seen = launcher.look(inputs, jobs)
    if seen.problems:
        raise HarnessError("\n".join(seen.problems))
    missing = {job.key: seen.missing[name] for job in jobs for name in job.weights_names if name in seen.missing}
    return plan.without(missing), seen


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Measures what a store does not have, on one site, from what the user brought and what was seen of it."""

    store: Store
    launcher: Launcher
    site: Site
    watcher: Watcher
    inputs: Inputs = field(default_factory=Inputs)
    seen: Seen = field(default_factory=Seen)
    done: Done = field(default_factory=Done)

    def run(self, plan: Plan, *, rerun: bool = False) -> Done:
        """Measure what is missing.

        `done` is filled as the work goes on, so that it holds what is finished if Ctrl-C ends it.  Raises
        `HarnessError` for a network that timm does not know, before anything is measured, and `StoreError` if results
        cannot be kept.
        """
        missing = self.missing(plan, rerun=rerun)
        if missing:
            self.measure(missing, rerun=rerun)
        return self.done

    def missing(self, plan: Plan, *, rerun: bool = False) -> list[Job]:
        """Find what is to be measured, and make sure that it can be.  Raises as `run` does."""
        missing = [job for job in plan.jobs if rerun or not self.known(job)]
        if missing:
            self.store.prepare()
            _check_models(plan, missing, self.launcher)
        return missing

    def measure(self, missing: Sequence[Job], *, rerun: bool = False) -> None:
        """Measure these jobs, each speed with the machine to itself.  The store is to be prepared."""
        number = 0
        training = [job for job in missing if job.kind == "train"]
        if training:
            self._train(training, len(missing))
            number += len(training)
        for jobs in _batches(job for job in missing if job.kind != "train"):
            with alone(self.site.lock, self.watcher.waits) if jobs[0].exclusive else contextlib.nullcontext():
                # Another process may have measured it since this one looked.
                left = [job for job in jobs if rerun or not self.known(job)]
                self._do(left, number, len(missing))
            number += len(jobs)

    def of_these(self, kept: Mapping[str, Result], asked: Iterable[Job]) -> dict[str, Result]:
        """Leave out results of other images or weights than those that the user gave now.

        What was neither asked for nor is of images that were looked at is left as it is.
        """
        keys = {job.key for job in asked}

        def fits(result: Result) -> bool:
            data = str(result.job.get("data"))
            looked_at = data in self.seen.images or train_split(data) in self.seen.images
            if not _depends_on_inputs(result.job) or not (result.job.key in keys or looked_at):
                return True
            return self._stands(result)

        return {key: result for key, result in kept.items() if fits(result)}

    def known(self, job: Job) -> bool:
        """Take the result that the store has, if it may stand for measuring here."""
        if _depends_on_inputs(job):
            known = self.store.latest(job, self._stands)
        else:
            known = self.store.find(job, self.site.machine, self.site.software)
        if known is not None:
            self.done.results[job.key] = known
        return known is not None

    def _stands(self, result: Result) -> bool:
        """Whether an accuracy that was measured is what measuring it now would give: same images, same weights."""
        job, facts = result.job, result.facts
        if result.error is not None or job.kind == "dataset":  # counting is cheaper than knowing that nothing changed
            return False
        if needed_by(job):
            now = [self.done.results[one.key].id for one in needed_by(job) if one.key in self.done.results]
            return set(facts.get("evaluations", ())) == set(now) and bool(now)
        data = str(job["data"])
        images = self.seen.images.get(train_split(data) if job.kind == "train" else data)
        if images is None or facts["images"]["fingerprint"] != images["fingerprint"]:
            return False
        if job.kind == "train":
            return self.store.weights_of(result).is_file() and self._took_the_same(job, facts["took"])
        if job.needs:
            return self._took_the_same(job, {"weights": facts["weights"]["sha256"]})
        if facts.get("unreadable") and not self.inputs.skip_unreadable:
            return False
        here = self.seen.weights.get(job.weights_name, "")
        return bool(facts["weights"]["origin"] == "hub" if here is None else facts["weights"]["sha256"] == here)

    def _took_the_same(self, job: Job, took: Mapping[str, str]) -> bool:
        """Whether the weights that a result was made with are those that there are now."""
        for part, one in job.needs:
            now = self.done.results.get(one.key)
            if now is None or now.error is not None or now.facts["weights"]["sha256"] != took.get(part):
                return False
        names = {part: str(job.get(part)) for part in took if job.need(part) is None}
        return all(self.seen.weights.get(name) in (None, took[part]) for part, name in names.items())

    def _train(self, jobs: Sequence[Job], total: int) -> None:
        """Train side by side on the lanes there are, each when what it takes weights from is trained."""
        crew = Crew(self.launcher, self.site.lanes or (_whole(self.site, self.inputs),))
        waiting, number = list(jobs), 0
        try:
            while waiting or crew.busy:
                for job in [one for one in waiting if self._ready(one, waiting, crew)]:
                    waiting.remove(job)
                    number += 1
                    if not self._spoilt(job):
                        self._begin(crew, job, number, total)
                    if not crew.free:
                        break
                if crew.busy:
                    self._hear(crew)
        except BaseException:
            crew.stop()
            raise

    def _ready(self, job: Job, waiting: Sequence[Job], crew: "Crew") -> bool:
        behind = {one.key for one in job.lineage}
        return crew.free and not behind & ({one.key for one in waiting} | crew.busy.keys())

    def _begin(self, crew: "Crew", job: Job, number: int, total: int) -> None:
        self.watcher.starts(job, number, total)
        crew.begin(
            Batch(
                jobs=(job,),
                device=self.site.device,
                machine=self.site.machine,
                software=self.site.software,
                runs=self.store.root,
                inputs=self.inputs,
                devices=self.site.devices,
            )
        )

    def _hear(self, crew: "Crew") -> None:
        """Wait for what one of the trainings says."""
        job, message = crew.hear()
        if isinstance(message, Progress):
            self.watcher.progress(message)
        elif isinstance(message, Saved):
            self.take(message)
        elif isinstance(message, Crashed):
            self._fail(job, crew.began[job.key], str(message))
        elif job.key not in self.done.results:
            raise KeyboardInterrupt  # something else told it to stop: it stands in a checkpoint, and so do we

    def _spoilt(self, job: Job) -> bool:
        """Note that a job cannot be done, because a training that it takes weights from failed."""
        for one in job.lineage:
            known = self.done.results.get(one.key)
            if known is not None and known.error is not None:
                reason = (
                    known.error
                    if one.kind == "train" and "takes the weights" in known.error
                    else (f"it takes the weights of '{one}', which failed: {known.error}")
                )
                self._fail(job, datetime.now(tz=UTC), reason)
                return True
        return False

    def _fail(self, job: Job, started: datetime, why: str) -> None:
        result = failure(job, self.site, started, why)
        self.store.save(result)
        self._note(result)

    def _do(self, jobs: list[Job], before: int, total: int) -> None:
        """Do a batch; if its process dies, the job in hand has failed and the rest goes on in another."""
        left = [job for job in jobs if not (job.needs and self._spoilt(job))]
        while left:
            batch = Batch(
                jobs=tuple(left),
                device=self.site.device,
                machine=self.site.machine,
                software=self.site.software,
                runs=self.store.root,
                inputs=self.inputs,
                devices=self.site.devices,
            )
            started = datetime.now(tz=UTC)
            self.watcher.starts(left[0], before + len(jobs) - len(left) + 1, total)
            try:
                for message in self.launcher.run(batch):
                    if isinstance(message, Progress):
                        self.watcher.progress(message)
                        continue
                    left.remove(message.job)
                    self.take(message)
                    if left:
                        self.watcher.starts(left[0], before + len(jobs) - len(left) + 1, total)
            except Crashed as crash:
                self._fail(left.pop(0), started, str(crash))

    def take(self, saved: Saved) -> None:
        """Fetch a result that a child has just put into the store."""
        result = self.store.latest(saved.job, lambda result: result.id == saved.id)
        if result is None:
            raise HarnessError(f"{self.store.root / saved.job.key}: the result just written is gone; was it removed?")
        self._note(result)

    def _note(self, result: Result) -> None:
        self.done.add(result)
        self.watcher.finished(result)


def _depends_on_inputs(job: Job) -> bool:
    """Whether the outcome depends on images or weights of the user's, beside the job."""
    return bool(job.of_images or needed_by(job) or job.needs)


def lanes(site: Site, *, scale: str, jobs: int | None, cores: int, workers: int | None) -> tuple[Lane, ...]:
    """Share devices and cores between trainings that run side by side.

    At the published scale one has all the devices; small ones are many, and have a GPU or a core each.
    """
    devices = site.devices or (site.device,)
    on_cpu = devices[0] == "cpu"
    default = 1 if scale == "full" else (cores if on_cpu else len(devices))
    count = min(jobs or default, cores if on_cpu else len(devices))
    each = max(1, cores // count)
    # A core that trains alone also reads: a process beside it would only take its time.
    reading = workers if workers is not None else (0 if each == 1 else max(1, each // 2))
    return tuple(
        Lane(devices=devices if on_cpu else devices[place::count], cores=each, workers=reading)
        for place in range(count)
    )


def _whole(site: Site, inputs: Inputs) -> Lane:
    """Give a training all that there is."""
    return Lane(devices=site.devices or (site.device,), cores=site.machine.threads, workers=inputs.workers)


class Crew:
    """Trainings that run side by side, one on each lane."""

    def __init__(self, launcher: Launcher, lanes: Sequence[Lane]) -> None:
        self._launcher, self._idle = launcher, list(lanes)
        self._heard: queue.SimpleQueue[tuple[Job, Progress | Saved | Crashed | None]] = queue.SimpleQueue()
        self.busy: dict[str, Lane] = {}
        self.began: dict[str, datetime] = {}
        self._threads: list[threading.Thread] = []

    @property
    def free(self) -> bool:
        """Whether there is a lane for one more."""
        return bool(self._idle)

    def begin(self, batch: Batch) -> None:
        """Begin a training on a free lane."""
        job, lane = batch.jobs[0], self._idle.pop(0)
        self.busy[job.key], self.began[job.key] = lane, datetime.now(tz=UTC)
        inputs = replace(batch.inputs, workers=lane.workers)
        ours = replace(batch, inputs=inputs, devices=lane.devices, device=lane.devices[0], cores=lane.cores)
        thread = threading.Thread(target=self._follow, args=(job, ours), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, job: Job, batch: Batch) -> None:
        try:
            for message in self._launcher.run(batch):
                self._heard.put((job, message))
        except Crashed as crash:
            self._heard.put((job, crash))
        self._heard.put((job, None))

    def hear(self) -> tuple[Job, Progress | Saved | Crashed | None]:
        """Wait for what one of them says; nothing means that it ended."""
        while True:
            # In short spells, so that Ctrl-C is heard in between.
            with contextlib.suppress(queue.Empty):
                job, message = self._heard.get(timeout=0.2)
                break
        if message is None:
            self._idle.append(self.busy.pop(job.key))
        return job, message

    def stop(self) -> None:
        """End them all, with what they have in checkpoints."""
        self._launcher.stop()
        for thread in self._threads:
            thread.join()


def _batches(jobs: Iterable[Job]) -> list[list[Job]]:
    """One process for each speed job, one for each pass over images, one for all other jobs of a kind."""
    together: dict[str, list[Job]] = {}
    for job in jobs:
        shared = f"{job.kind} {job['data']}" if job.kind == "evaluate" else job.kind
        together.setdefault(job.key if job.exclusive else shared, []).append(job)
    return list(together.values())


def failure(job: Job, site: Site, started: datetime, error: str) -> Result:
    """Write down the end of a job whose process could not."""
    return Result(
        id=new_id(started),
        job=job,
        machine=site.machine,
        software=site.software,
        started=started,
        seconds=(datetime.now(tz=UTC) - started).total_seconds(),
        error=error,
    )


def _check_models(plan: Plan, jobs: Iterable[Job], launcher: Launcher) -> None:
    """Refuse networks that timm does not know before anything is measured, all at once and with their place."""
    places: dict[str, str] = {}
    for job in jobs:
        if "model" in dict(job.settings):
            cell = plan.cells_of(job)[0]
            spec = next(spec for spec in plan.specs if spec.id == cell.table)
            places.setdefault(str(job["model"]), f"{spec.path}: row '{cell.cell.row.key}'")
    unknown = launcher.unknown_models(tuple(places))
    if unknown:
        raise HarnessError("\n".join(f"{places[name]}: {reason}" for name, reason in unknown.items()))
