"""What runs on a node: the jobs of one task, measured as on any machine, and an outcome written for each.

submitit calls the task, and its `checkpoint` on the signal that announces a time limit or a preemption; the training
process has been signalled, too, and writes a checkpoint.
"""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.machine import usable_cores
from harness.plan.job import Job
from harness.plan.plan import dependencies
from harness.run.cluster.ledger import (
    JobOutcome,
    Ledger,
    append_json,
    read_array,
    read_lines,
    read_outcomes,
    write_json,
)
from harness.run.launch import Crashed, LocalLauncher
from harness.run.launch.local import join_training
from harness.run.launch.slurm import Resources
from harness.run.messages import Batch, Inputs, Inventory, Progress, Saved
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget, resolve_target
from harness.store.record import STRING
from harness.store.result import Result
from harness.store.store import Store

# How often a task may start again without having been stopped by a signal: its nodes failed, or something killed it.
MAX_DEATHS = 3

# How often a task may be stopped at the same checkpoint: its time limit is too short for one step.
MAX_STANDSTILLS = 5

# Seconds between two reports of progress.
REPORT_SECONDS = 2.0


@dataclass(kw_only=True)
class Task:
    """Jobs for one node, and the folder of their results: the `index`th task of an array, whose folder is `folder`.

    `workers` is the number of processes that load images (None: one for each core), `resources` are those that were
    requested.
    """

    jobs: tuple[Job, ...]
    runs: Path
    folder: Path
    index: int
    inputs: Inputs
    inventory: Inventory
    workers: int | None
    resources: Resources
    node_kind: str
    _launcher: "NodeLauncher | None" = field(init=False, default=None, repr=False)  # of one process

    def __call__(self) -> None:
        """Run the jobs that have no outcome yet."""
        if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1:
            # Every node of the allocation calls the task; the first leads, and each restart meets in a new folder.
            shared = self._file(f"work-{os.environ.get('SLURM_RESTART_COUNT', '0')}")
            if os.environ["SLURM_PROCID"] != "0":
                join_training(shared, max(1, self.resources.gpus))
                return
            _publish_rendezvous(shared)
            try:
                self._lead()
            finally:
                (shared / "over").touch()
        else:
            self._lead()

    def _lead(self) -> None:
        store, outcomes = Store(self.runs), OutcomeWriter(self._file("done"), self._file("progress"))
        if "SLURM_CPUS_PER_TASK" in os.environ:
            # Libraries that know nothing of Slurm would start a thread for each core of the node, in each process.
            threads = int(os.environ["SLURM_CPUS_PER_TASK"]) // max(1, self.resources.gpus)
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
        try:
            target, give_up = self._target(), self._reason_to_give_up()
        except HarnessError as error:
            target, give_up = resolve_target("cpu"), str(error)
        Ledger(runs=self.runs).save_machine(self.node_kind, target.machine, dict(target.software))
        self._log("began")
        finished = {outcome.key for outcome in read_outcomes(self._file("done")) if not outcome.unmet}
        left = [job for job in self.jobs if job.key not in finished]
        # The runner deals with prerequisites that failed.
        ready = [job for job in left if all(_newest(store, other) for other in prerequisites(job))]
        for job in left:
            if job not in ready:
                append_json(self._file("done"), asdict(JobOutcome(key=job.key, unmet=True)))
        self._launcher = NodeLauncher(self)
        workers = self.workers if self.workers is not None else _cores_of(target)
        known = (_newest(store, other) for job in ready for other in _all_prerequisites(job))
        runner = Runner(
            store=store,
            launcher=self._launcher,
            target=target,
            observer=outcomes,
            inputs=replace(self.inputs, workers=workers),
            inventory=self.inventory,
            results={result.job.key: result for result in known if result is not None},
        )
        # One whose result is saved has no outcome yet if the task died in between.
        saved = {job: runner.saved_since(self._submitted(), job) for job in ready}
        for job, result in saved.items():
            if result is not None:
                runner.collect(Saved(job=job, id=result.id))
        ready = [job for job in ready if saved[job] is None]
        if give_up:
            for job in ready:
                runner.fail(job, datetime.now(tz=UTC), give_up)
        else:
            self._run(runner, ready)

    def _run(self, runner: Runner, jobs: list[Job]) -> None:
        from submitit.core.utils import UncompletedJobError  # noqa: PLC0415 -- only here, and only on a node

        began = datetime.now(tz=UTC)
        try:
            with _ignoring_stop_signal():
                runner.launcher.warm()
            runner.measure(jobs, rerun=True)
        except UncompletedJobError as error:
            # Raised by submitit from its signal handler, when it does not requeue the task.
            reason = f"it ran into its time limit, and is not tried again ({error}); give it more --hours"
            for job in jobs:
                if job.key not in runner.results:
                    runner.fail(job, began, reason)
        except KeyboardInterrupt:
            # The training was signalled first, and this process is about to be.
            self._log("stopped")
            time.sleep(self.resources.notice)
            raise HarnessError("it was stopped, and has written a checkpoint") from None

    def checkpoint(self) -> Any:  # noqa: ANN401 -- a class of submitit's
        """Let a training write a checkpoint, and return how to continue: from there."""
        launcher = self._launcher
        if launcher is not None:
            launcher.stop()
            if any(job.kind == "train" for job in self.jobs):
                end = time.monotonic() + 0.9 * self.resources.notice
                while launcher.running and time.monotonic() < end:
                    time.sleep(0.1)
        self._log("stopped")
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 -- only here, and only on a node

        return DelayedSubmission(replace(self))  # without what belongs to this process

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.index}.{suffix}"

    def _target(self) -> ExecutionTarget:
        """Return the target on this node.

        Raises `HarnessError` where the requested GPUs do not exist: a CPU does not replace them.
        """
        target = resolve_target("cuda" if self.resources.gpus else "cpu")
        return target.with_workers(scale="full", jobs=1, cores=_cores_of(target), loaders=self.workers)

    def is_cancelled(self) -> bool:
        """Whether `harness cancel` has cancelled the array: it saves that before it calls Slurm."""
        try:
            return read_array(self.folder.with_suffix(".json")).cancelled
        except HarnessError:
            return False

    def _submitted(self) -> datetime:
        """Return when the array was submitted; now, if its file cannot be read."""
        try:
            return read_array(self.folder.with_suffix(".json")).submitted
        except HarnessError:
            return datetime.now(tz=UTC)

    def _log(self, event: str) -> None:
        """Write down that the task began or was stopped, on which node, and its last checkpoint."""
        files = (path.name for job in self.jobs for path in (self.runs / job.key).glob("checkpoint-*.safetensors"))
        node = os.environ.get("SLURMD_NODENAME", "")
        append_json(self._file("started"), {"what": event, "node": node, "reached": max(files, default="")})

    def _reason_to_give_up(self) -> str:
        """Return why the task is not tried again, if it has started too often without progress."""
        events = read_lines(self._file("started"), dict.fromkeys(("what", "node", "reached"), STRING))
        deaths = [
            event["node"]
            for event, following in zip_longest(events, events[1:], fillvalue={"what": "nothing"})
            if event["what"] == "began" and following["what"] != "stopped"
        ]
        if len(deaths) > MAX_DEATHS:
            nodes = ", ".join(dict.fromkeys(deaths))
            return f"its node failed or was taken away {len(deaths)} times without warning ({nodes})"
        reached = [event["reached"] for event in events if event["what"] == "stopped"][-MAX_STANDSTILLS:]
        standstill = len(reached) == MAX_STANDSTILLS and len(set(reached)) == 1
        if standstill and any(job.kind == "train" for job in self.jobs):
            return f"it was stopped {MAX_STANDSTILLS} times at {reached[0] or 'the beginning'}: give it more --hours"
        return ""


class NodeLauncher(LocalLauncher):
    """Distinguishes processes that the system killed for their memory, or that were cancelled, from crashes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Run a batch and yield its messages.  Raises `Crashed` if the process died."""
        before = killed_for_memory()
        try:
            yield from super().run(batch)
        except Crashed as crash:
            if self._task.is_cancelled():
                # This process is about to be ended as well, and has nothing to report.
                time.sleep(self._task.resources.notice)
            if killed_for_memory() > before:
                limit = os.environ.get("SLURM_MEM_PER_NODE")
                had = f" the {limit} MiB of the job" if limit else " what the job had"
                raise Crashed(f"out of memory: it needed more than{had}; give more with --job-memory") from crash
            raise


def killed_for_memory(system: Path = Path("/")) -> int:
    """Return how many processes of this Slurm job the system has killed for their memory; 0 where it does not say."""
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
            if not folder.name.startswith("job_"):
                continue
            group = mounted / str(folder).lstrip("/")
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    match = re.search(r"^oom_kill (\d+)$", (group / name).read_text(encoding="ascii"), re.MULTILINE)
                    return int(match[1]) if match else 0
    return 0


class OutcomeWriter(ProgressObserver):
    """Writes the outcomes of jobs to a file, and now and then the progress to another."""

    def __init__(self, done: Path, progress: Path) -> None:
        self._done, self._progress = done, progress
        self._reported = 0.0

    def starts(self, job: Job, number: int, total: int) -> None:  # noqa: ARG002 -- not written
        """Write which job is running."""
        self.progress(Progress(job=job, phase="starting"))

    def progress(self, progress: Progress) -> None:
        """Write how far a job is, not too often."""
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self._reported = time.monotonic()
            data = {name: value for name, value in asdict(progress).items() if name != "job"}
            write_json(self._progress, {**data, "key": progress.job.key})

    def finished(self, result: Result) -> None:
        """Write the outcome of a job whose result is in the store."""
        append_json(self._done, asdict(JobOutcome(key=result.job.key, id=result.id, error=result.error)))


def prerequisites(job: Job) -> tuple[Job, ...]:
    """Return the jobs that have to end before a job can start."""
    return (*(training for _, training in job.needs), *dependencies(job))


def _all_prerequisites(job: Job) -> Iterable[Job]:
    return (*job.lineage, *(other for job in dependencies(job) for other in (*job.lineage, job)))


def _newest(store: Store, job: Job) -> Result | None:
    """Return the newest good result of a job, else its newest failure."""
    return store.latest(job, lambda result: result.error is None) or store.latest(job, lambda _: True)


def _cores_of(target: ExecutionTarget) -> int:
    return target.machine.threads or usable_cores()


def _publish_rendezvous(folder: Path) -> None:
    """Write where the nodes of a training meet: at a free port of this one."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    rendezvous = {
        "nodes": int(os.environ["SLURM_JOB_NUM_NODES"]),
        "endpoint": f"{socket.gethostname()}:{port}",
        "id": f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}",
    }
    write_json(folder / "rendezvous.json", rendezvous)
    os.environ["HARNESS_SHARED_WORK"] = str(folder)


@contextmanager
def _ignoring_stop_signal() -> Iterator[None]:
    """Start processes that do not die of the signal that Slurm sends to every process of a step.

    Processes inherit that a signal is ignored; those that train install their own handler.
    """
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
