"""What runs on a node: the jobs of one task, done as on any machine, with a mark for each that has ended.

submitit calls the task, and its `checkpoint` on the signal that announces a time limit or a preemption; the training
process has by then been asked to stop, and writes where it stands.
"""

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.cluster.ledger import Mark, read_marks, write_mark, written
from harness.errors import HarnessError
from harness.job import Job
from harness.launch import Crashed, LocalLauncher
from harness.launch.local import take_part
from harness.plan import needed_by
from harness.progress import Batch, Inputs, Progress, Saved, Seen
from harness.result import Result
from harness.run import Done, Runner, Site, failure, lanes, site_of
from harness.store import Store

# How often a task may begin again without having been told to stop before: its nodes failed, or something killed it.
DEATHS = 3

# How often it may be told to stop without having come any further: its time limit is too short for one step.
STANDSTILLS = 5

# Seconds between two notes of how far it is.
TELLING = 2.0


@dataclass(kw_only=True)
class Task:
    """Jobs for one node, and where they belong: the `index`th task of an array, whose folder this is.

    `workers` are the processes that read images (None: as many as the node has cores to spare), `gpus` those that were
    asked for, `place` names the kind of node, `notice` is the seconds from the signal to the end.
    """

    jobs: tuple[Job, ...]
    runs: Path
    folder: Path
    index: int
    inputs: Inputs
    seen: Seen
    workers: int | None
    gpus: int
    place: str
    notice: float = 120.0
    _launcher: LocalLauncher | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to one process."""
        return {**self.__dict__, "_launcher": None}

    def __call__(self) -> None:
        """Do what is not done yet."""
        if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1:
            # Every node of the allocation calls the task; the first leads, and each restart meets in a new folder.
            shared = self._file(f"work-{os.environ.get('SLURM_RESTART_COUNT', '0')}")
            if os.environ["SLURM_PROCID"] != "0":
                take_part(shared, max(1, self.gpus))
                return
            _invite(shared)
            try:
                self._lead()
            finally:
                (shared / "over").touch()
        else:
            self._lead()

    def _lead(self) -> None:
        done = {mark.key for mark in read_marks(self._file("done")) if not mark.unmet}
        left = [job for job in self.jobs if job.key not in done]
        store, marks = Store(self.runs), Marks(self._file("done"), self._file("progress"))
        if "SLURM_CPUS_PER_TASK" in os.environ:
            # Libraries that know nothing of Slurm would start a thread for each core of the node, in each process.
            each = int(os.environ["SLURM_CPUS_PER_TASK"]) // max(1, self.gpus)
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, each)))
        try:
            site, doubt = self._site(), self._given_up()
        except HarnessError as error:
            site, doubt = site_of("cpu"), str(error)
        written(self.runs / ".slurm" / "nodes" / self.place, _described(site))
        self._note("began")
        ready = [job for job in left if self._has_what_it_needs(job, store, marks)]
        if doubt:
            for job in ready:
                result = failure(job, site, datetime.now(tz=UTC), doubt)
                store.save(result)
                marks.finished(result)
            return
        self._do(ready, store, site, marks)

    def _do(self, jobs: list[Job], store: Store, site: Site, marks: "Marks") -> None:
        self._launcher = NodeLauncher(cancelled=self._cancelled, notice=self.notice)
        inputs = replace(self.inputs, workers=_workers(self.workers, site))
        known = {one.key: result for job in jobs for one in _behind(job) if (result := _newest(store, one)) is not None}
        runner = Runner(
            store=store,
            launcher=self._launcher,
            site=site,
            watcher=marks,
            inputs=inputs,
            seen=self.seen,
            done=Done(results=known),
        )
        try:
            with _deaf_children():
                self._launcher.warm()
            runner.measure(jobs, rerun=True)
        except _not_requeued() as end:
            # Raised by submitit in the middle of whatever was going on, when it does not requeue the task.
            done = {mark.key for mark in read_marks(self._file("done"))}
            for job in (job for job in jobs if job.key not in done):
                why = f"it ran into its time limit, and is not tried again ({end}); give it more --hours"
                result = failure(job, site, datetime.now(tz=UTC), why)
                store.save(result)
                marks.finished(result)
        except KeyboardInterrupt:
            # The training was told to stop before this process was: whoever told it has a word for this one, too.
            self._note("stopped")
            time.sleep(self.notice)
            raise HarnessError("it was told to stop, and stands in a checkpoint") from None

    def checkpoint(self) -> Any:  # noqa: ANN401 -- submitit has its own word for it
        """Let a training write where it stands, and say how to go on: from there."""
        launcher = self._launcher
        if launcher is not None:
            launcher.stop()
            if any(job.kind == "train" for job in self.jobs):
                end = time.monotonic() + 0.9 * self.notice
                while launcher.busy and time.monotonic() < end:
                    time.sleep(0.1)
        self._note("stopped")
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 -- only here, and only on a node

        return DelayedSubmission(self)

    # Small things.

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.index}.{suffix}"

    def _site(self) -> Site:
        """Find what is on this node.

        Raises `HarnessError` where the cards that were asked for are not there: a CPU does not stand in for them.
        """
        site = site_of("cuda" if self.gpus else "cpu")
        cores = site.machine.threads or len(os.sched_getaffinity(0))
        return replace(site, lanes=lanes(site, scale="full", jobs=1, cores=cores, workers=self.workers))

    def _cancelled(self) -> bool:
        """Whether `harness cancel` has ended the array of this task: it writes that down before it tells Slurm."""
        try:
            told = json.loads(self.folder.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(told.get("cancelled"))

    def _note(self, what: str) -> None:
        """Write down that the task began or was told to stop, where, and how far it was."""
        node = os.environ.get("SLURMD_NODENAME", "")
        with self._file("started").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "node": node, "reached": self._reached()}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _reached(self) -> str:
        """Name the last checkpoint: one that does not change tells that nothing goes on."""
        files = (path.name for job in self.jobs for path in (self.runs / job.key).glob("checkpoint-*.safetensors"))
        return max(files, default="")

    def _given_up(self) -> str:
        """Say why the task is not tried again, if it has begun too often without coming further."""
        try:
            notes = [json.loads(line) for line in self._file("started").read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return ""
        deaths = [
            one["node"]
            for one, after in zip_longest(notes, notes[1:], fillvalue={"what": "nothing"})
            if one["what"] == "began" and after["what"] != "stopped"
        ]
        if len(deaths) > DEATHS:
            nodes = ", ".join(dict.fromkeys(deaths))
            return f"its node failed or was taken away {len(deaths)} times without warning ({nodes})"
        last = [note["reached"] for note in notes if note["what"] == "stopped"][-STANDSTILLS:]
        if len(last) == STANDSTILLS and len(set(last)) == 1 and any(job.kind == "train" for job in self.jobs):
            return f"it was stopped {STANDSTILLS} times at {last[0] or 'the beginning'}: give it more --hours"
        return ""

    def _has_what_it_needs(self, job: Job, store: Store, marks: "Marks") -> bool:
        """Whether each training that a job takes weights from has ended; one that failed is the runner's to say."""
        for one in needs_of(job):
            if _newest(store, one) is None:
                marks.unmet(job)
                return False
        return True


class NodeLauncher(LocalLauncher):
    """Tells what the system killed for its memory, and what died because it was cancelled, from what died of itself."""

    def __init__(self, *, cancelled: Callable[[], bool] = lambda: False, notice: float = 0.0) -> None:
        super().__init__()
        self._cancelled, self._notice = cancelled, notice

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Do a batch and pass on what it says.  Raises `Crashed` if the process died."""
        before = killed_for_memory()
        try:
            yield from super().run(batch)
        except Crashed as crash:
            if self._cancelled():
                time.sleep(self._notice)  # this process is about to be ended as well, and has nothing to tell
            if killed_for_memory() > before:
                asked = os.environ.get("SLURM_MEM_PER_NODE")
                had = f" the {asked} MiB of the job" if asked else " what the job had"
                raise Crashed(f"out of memory: it needed more than{had}; give more with --job-memory") from crash
            raise


def killed_for_memory(system: Path = Path("/")) -> int:
    """Count the processes of this Slurm job that the system has killed for their memory; 0 where it does not say."""
    try:
        lines = (system / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounted = system / "sys/fs/cgroup" / ("memory" if controllers else "")
        if controllers and "memory" not in controllers.split(","):
            continue
        for folder in (Path(path), *Path(path).parents):
            if folder.name.startswith("job_"):
                return _killed(mounted / str(folder).lstrip("/"))
    return 0


def _killed(group: Path) -> int:
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", (group / name).read_text(encoding="ascii"), re.MULTILINE)
            return int(found[1]) if found else 0
    return 0


class Marks:
    """A watcher that writes down what has ended, and now and then how far the rest is."""

    def __init__(self, done: Path, progress: Path) -> None:
        self._done, self._progress = done, progress
        self._told = 0.0

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- they stand in no note
        """Note which job is in hand."""
        self.progress(Progress(job=job, phase="starting"))

    def progress(self, progress: Progress) -> None:
        """Note how far it is, not too often."""
        if time.monotonic() - self._told >= TELLING:
            self._told = time.monotonic()
            told = {name: value for name, value in asdict(progress).items() if name != "job"}
            written(self._progress, {**told, "key": progress.job.key})

    def finished(self, result: Result) -> None:
        """Note what the job came to; its result is in the store."""
        write_mark(self._done, Mark(key=result.job.key, id=result.id, error=result.error))

    def unmet(self, job: Job) -> None:
        """Note that a job could not begin."""
        write_mark(self._done, Mark(key=job.key, unmet=True))

    def waits(self, why: str) -> None:
        """Say nothing."""


def needs_of(job: Job) -> tuple[Job, ...]:
    """Give the jobs that are to be done before one."""
    return (*(one for _, one in job.needs), *needed_by(job))


def _behind(job: Job) -> Iterable[Job]:
    return (*job.lineage, *(other for one in needed_by(job) for other in (*one.lineage, one)))


def _newest(store: Store, job: Job) -> Result | None:
    """Give the newest good result of a job, or its newest failure."""
    return store.latest(job, lambda result: result.error is None) or store.latest(job, lambda _: True)


def _workers(wanted: int | None, site: Site) -> int:
    return wanted if wanted is not None else max(1, site.machine.threads or len(os.sched_getaffinity(0)))


def _described(site: Site) -> dict[str, Any]:
    return {"machine": asdict(site.machine), "software": dict(site.software)}


def _invite(folder: Path) -> None:
    """Say where the nodes of a training meet: at a free port of this one."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as one:
        one.bind(("", 0))
        port = one.getsockname()[1]
    told = {"nodes": int(os.environ["SLURM_JOB_NUM_NODES"]), "endpoint": f"{socket.gethostname()}:{port}"}
    identity = f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    written(folder / "rendezvous.json", {**told, "id": identity})
    os.environ["HARNESS_SHARED_WORK"] = str(folder)


def _not_requeued() -> type[Exception]:
    from submitit.core.utils import UncompletedJobError  # noqa: PLC0415 -- only here, and only on a node

    return UncompletedJobError


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Start processes that do not die of the signal that Slurm sends to every process of a step.

    A signal that is ignored stays so in what a process starts; those that train listen to it of their own accord.
    """
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
