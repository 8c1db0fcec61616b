"""A train job -> its weights beside the result, and its numbers; on one device here, on several through torchrun."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import JobError
from harness.job import Job
from harness.jobs.training import process
from harness.jobs.training.assembly import Place
from harness.jobs.training.loop import Stopped
from harness.jobs.training.run import listening, train
from harness.jobs.training.world import World
from harness.progress import Inputs, Progress
from harness.result import Measurement

Report = Callable[[Progress], None]
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]

# The share of a training in which the device waits for images above which it is worth a word.
WAITING = 0.1


def work(  # noqa: PLR0913 -- what a training needs
    job: Job,
    inputs: Inputs,
    report: Report,
    *,
    devices: tuple[str, ...],
    runs: Path,
    weights: Path,
    cores: int = 0,
    processes: int = 0,
) -> Outcome:
    """Train a network, on every device side by side; `weights` is the file to write.

    `cores` of the processor are for it (0: all); `processes` share them, which tests do.  Raises `Stopped` if a signal
    asked for that.
    """
    count = processes or len(devices)
    place = Place(
        device=devices[0],
        workers=_workers(inputs, count),
        cores=cores or len(os.sched_getaffinity(0)),
        weights=inputs.weights,
        runs=runs,
    )
    batch = int(job["batch_size"])
    if batch % (count * nodes()):
        raise JobError(
            f"a batch of {batch} cannot be shared by {count * nodes()} devices; choose fewer with --device or --nodes"
        )
    weights.parent.mkdir(parents=True, exist_ok=True)
    if count * nodes() == 1:
        facts = train(job, inputs, place=place, world=World(), path=weights, report=report)
    else:
        facts = _side_by_side(job, inputs, place, weights, count, report)
    return _metrics(facts), facts, _doubts(facts)


def _workers(inputs: Inputs, count: int) -> int:
    """Share the reading processes; where there is one core, reading in the process itself disturbs less."""
    return max(1, inputs.workers // count) if inputs.workers else 0


def _metrics(facts: dict[str, Any]) -> dict[str, Measurement]:
    last = facts["history"][-1]
    found = {
        name: Measurement(unit="% top-1", value=last[name])
        for name in ("top1", "top1_class", "top1_distil")
        if name in last
    }
    if "top1_class" in found:
        found["top1_softmax_sum"] = found["top1"]
    return {**found, "hours": Measurement(unit="h", value=facts["hours"])}


def _doubts(facts: dict[str, Any]) -> list[str]:
    waiting = sum(row["waiting"] * row["seconds"] for row in facts["history"])
    share = waiting / max(1e-9, sum(row["seconds"] for row in facts["history"]))
    if share <= WAITING:
        return []
    return [f"the device waited for images {share:.0%} of the time: give more --workers, or smaller images"]


# Several processes.

# The file that says what is to be done, and the variable that names its folder where several nodes share the work.
WORK, SHARED = "work.json", "HARNESS_SHARED_WORK"


def launch(path: Path, count: int) -> list[str]:
    """Give the command that starts `count` processes on this node, beside those of the other nodes if there are any."""
    where = path.with_name("rendezvous.json")
    joined = ["--standalone"]
    if where.exists():
        told = json.loads(where.read_text(encoding="utf-8"))
        joined = [f"--nnodes={told['nodes']}", "--rdzv-backend=c10d"]
        joined += [f"--rdzv-endpoint={told['endpoint']}", f"--rdzv-id={told['id']}"]
    command = [sys.executable, "-m", "torch.distributed.run", *joined, f"--nproc-per-node={count}"]
    return [*command, "-m", "harness.jobs.training.process", str(path)]


def follow(folder: Path, count: int) -> None:
    """Take part in a training that another node leads, once it says what is to be done."""
    while not (folder / WORK).exists():
        if (folder / "over").exists():
            return
        time.sleep(0.2)
    with _ignoring(signal.SIGUSR2):
        running = subprocess.Popen(launch(folder / WORK, count), env=_environment())  # noqa: S603 -- our own command
    running.wait()


def _folder() -> contextlib.AbstractContextManager[str]:
    shared = os.environ.get(SHARED)
    return contextlib.nullcontext(shared) if shared else tempfile.TemporaryDirectory(prefix="harness-train-")


def nodes() -> int:
    """Count the nodes that share the training."""
    shared = os.environ.get(SHARED)
    if not shared:
        return 1
    return int(json.loads((Path(shared) / "rendezvous.json").read_text(encoding="utf-8"))["nodes"])


def _side_by_side(  # noqa: PLR0913, PLR0917 -- what a training needs
    job: Job, inputs: Inputs, place: Place, weights: Path, count: int, report: Report
) -> dict[str, Any]:
    with _folder() as folder:
        path = Path(folder) / WORK
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(process.described(job, inputs, place, weights)), encoding="utf-8")
        beside.replace(path)  # other nodes wait for it
        command = launch(path, count)
        # What starts the processes would die of a signal that they themselves listen to.
        with _ignoring(signal.SIGUSR2):
            running = subprocess.Popen(command, env=_environment())  # noqa: S603 -- our own command
        with listening() as asked:
            try:
                for progress in _told(path.with_name(process.PROGRESS), running, asked):
                    report(replace(progress, job=job))
            finally:
                if running.poll() is None:
                    running.terminate()
                code = running.wait()
        outcome = path.with_name(process.OUTCOME)
        if not outcome.exists():
            raise JobError(
                f"the processes of the training ended with exit code {code}; worker.log in the runs folder says why"
            )
        found: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
        if "stopped" in found:
            raise Stopped
        if "error" in found:
            raise JobError(found["error"])
        return found


@contextmanager
def _ignoring(one: signal.Signals) -> Iterator[None]:
    """Have processes that are started meanwhile ignore a signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(one, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(one, before)


def _environment() -> dict[str, str]:
    """Let the children find this very package, and share the cores."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    # Without the variable a restart with gloo fails now and then (pytorch issue 135712).
    steady = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return {**os.environ, **steady, "PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _told(path: Path, running: "subprocess.Popen[bytes]", asked: Callable[[], bool]) -> Iterator[Progress]:
    """Follow what the leading process says until all have ended, or until this one is asked to stop."""
    place = 0
    while running.poll() is None and not asked():
        time.sleep(0.2)
        if not path.exists():
            continue
        with path.open(encoding="utf-8") as file:
            file.seek(place)
            lines = [line for line in file if line.endswith("\n")]
            place += sum(len(line.encode()) for line in lines)
        for line in lines[-1:]:
            yield Progress(job=_NOBODY, **json.loads(line))


_NOBODY = Job(kind="train", settings=(), revision=0)
