"""A training on several processes <-> `python -m harness.jobs.training.process WORK DEVICE…`.

Torchrun starts it once for each DEVICE of this node.  WORK is a JSON file with the job, its context and the file of the
weights.  The leading process writes its progress and
its facts, whichever process fails its error, into files in the same folder.  Nothing here is a pickle: the folder may
lie on a disk that others write to.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import atomic
from harness.errors import HarnessError, JobError
from harness.jobs import own_device
from harness.jobs.fresh import error_message
from harness.jobs.training.distributed import World
from harness.jobs.training.run import ProcessContext, signal_handler, stop_signals, train_in_process
from harness.jobs.training.trainer import TrainingStopped
from harness.machine import gpus
from harness.plan.job import Job
from harness.run.launch.local import PATIENCE_WITH_TRAINING, place_sockets
from harness.run.messages import Inputs, Progress, Report
from harness.store.leftovers import PROCESS_FILES
from harness.store.result import job_from_data, job_to_data

WORK, OUTCOME, PROGRESS = "work.json", "outcome.json", "progress.json"

# The variable that names the folder of these files where several nodes share a training.
SHARED = "HARNESS_SHARED_WORK"

# The exit code of a process that was told to stop: its checkpoint is written.
STOPPED = 75


# The process that starts the others.


def node_count() -> int:
    """Return the number of nodes that share the training."""
    shared = os.environ.get(SHARED)
    if not shared:
        return 1
    return int(json.loads((Path(shared) / "rendezvous.json").read_text(encoding="utf-8"))["nodes"])


def train_in_processes(
    job: Job, *, context: ProcessContext, path: Path, devices: Sequence[str], report: Report
) -> dict[str, Any]:
    """Train with a process for each of the devices of this node, and with those of other nodes that follow.

    Returns the facts.

    Raises as `train_in_process` does.
    """
    shared = os.environ.get(SHARED)
    # Next to the weights, where `runs prune` finds what a kill leaves.
    with (
        contextlib.nullcontext(shared) if shared else tempfile.TemporaryDirectory(prefix=PROCESS_FILES, dir=path.parent)
    ) as folder:
        work = Path(folder) / WORK
        # Other nodes wait for it.
        content = {"job": job_to_data(job), "context": asdict(context), "path": path}
        atomic.write(work, json.dumps(content, default=str), sync=False)
        torchrun = _start_torchrun(work, devices)
        with stop_signals() as stop_requested:
            try:
                for progress in _progress_of(work.with_name(PROGRESS), job, torchrun, stop_requested):
                    report(progress)
            finally:
                code = _end(torchrun)
        outcome = work.with_name(OUTCOME)
        if not outcome.exists():
            raise JobError(
                f"the processes of the training ended with exit code {code}; worker.log in the runs folder says why"
            )
        try:
            facts: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
        except ValueError as error:
            raise JobError(f"{outcome}: is damaged ({error}); run the same command again") from error
        if "stopped" in facts:
            raise TrainingStopped
        if "error" in facts:
            raise JobError(facts["error"])
        return facts


def follow(folder: Path, count: int) -> None:
    """Take part in a training that another node leads, once it has described the work."""
    while not (folder / WORK).exists():
        if (folder / "over").exists():
            return
        time.sleep(0.2)
    kind = json.loads((folder / WORK).read_text(encoding="utf-8"))["context"]["device"].partition(":")[0]
    devices = ["cpu"] * count if kind == "cpu" else [f"cuda:{gpu.index}" for gpu in gpus()][:count]
    _start_torchrun(folder / WORK, devices).wait()


def _start_torchrun(work: Path, devices: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a process for each of these devices of this node, which join those of the other nodes if there are any."""
    rendezvous, options = work.with_name("rendezvous.json"), ["--standalone"]
    if rendezvous.exists():
        meeting = json.loads(rendezvous.read_text(encoding="utf-8"))
        options = [f"--nnodes={meeting['nodes']}", "--rdzv-backend=c10d"]
        options += [f"--rdzv-endpoint={meeting['endpoint']}", f"--rdzv-id={meeting['id']}"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={len(devices)}"]
    command += ["-m", "harness.jobs.training.process", str(work), *devices]
    # torchrun would die of a signal that its processes handle; it inherits that this one ignores it.
    with signal_handler([signal.SIGUSR2], signal.SIG_IGN):
        return subprocess.Popen(command, env=_environment())  # noqa: S603 -- our own command


def _end(torchrun: "subprocess.Popen[bytes]") -> int | None:
    """End torchrun, which gives its processes half a minute, unless it has ended; return its exit code."""
    for end in (torchrun.terminate, torchrun.kill):
        if torchrun.poll() is None:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                torchrun.wait(PATIENCE_WITH_TRAINING / 2)  # before whoever waits for this process loses patience
    return torchrun.poll()


def _environment() -> dict[str, str]:
    """Return the environment in which the processes import this very package, and share the cores."""
    package = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    # Without the variable a restart with gloo fails now and then (pytorch issue 135712).
    stable = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return {**os.environ, **stable, "PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _progress_of(
    path: Path, job: Job, torchrun: "subprocess.Popen[bytes]", stop_requested: Callable[[], bool]
) -> Iterator[Progress]:
    """Yield what the leading process reports until all have ended, or until this one is asked to stop."""
    last = b""
    while torchrun.poll() is None and not stop_requested():
        time.sleep(0.2)
        if path.exists() and (content := path.read_bytes()) != last:
            last = content
            yield Progress(job=job, **json.loads(content))


# One of the processes that torchrun starts.


def main(work: Path, devices: Sequence[str]) -> int:
    """Take part in the training that a file describes, on one of this node's devices, and return the exit code."""
    place_sockets()
    content = json.loads(work.read_text(encoding="utf-8"))
    device, inputs = devices[int(os.environ["LOCAL_RANK"])], content["context"]["inputs"]
    own_device.use(device)
    world = World.join(device.partition(":")[0])
    context = ProcessContext(
        device=device,
        cores=content["context"]["cores"],
        inputs=Inputs(**{**inputs, "weights": Path(inputs["weights"]) if inputs["weights"] else None}),
        runs=Path(content["context"]["runs"]),
    )
    outcome = work.with_name(OUTCOME)
    try:
        facts = train_in_process(
            job_from_data(content["job"]),
            context=context,
            world=world,
            path=Path(content["path"]),
            report=_reporter(work.with_name(PROGRESS)) if world.leads else lambda _: None,
        )
    except TrainingStopped:
        if world.leads:
            atomic.write(outcome, json.dumps({"stopped": True}), sync=False)
        return STOPPED
    except HarnessError as error:
        # Whichever process fails says why; the others end with it.
        atomic.write(outcome, json.dumps({"error": error_message(error)}), sync=False)
        return 1
    if world.leads:
        atomic.write(outcome, json.dumps(facts), sync=False)
    world.leave()
    return 0


def _reporter(path: Path) -> Report:
    """Return what writes the newest progress to a file, at most each half second."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.5:
            return
        last = now
        fields = {name: value for name, value in asdict(progress).items() if name != "job"}
        atomic.write(path, json.dumps(fields), sync=False)

    return report


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
