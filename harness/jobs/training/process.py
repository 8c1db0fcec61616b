"""One process of a training that torchrun started: `python -m harness.jobs.training.process WORK`.

WORK is a JSON file that says what to do.  The leading process writes how far it is into `progress.jsonl` beside it, and
what came out into `outcome.json`, or its error.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.job import Job
from harness.jobs.fresh import sentence
from harness.jobs.training.assembly import Place
from harness.jobs.training.loop import Stopped
from harness.jobs.training.run import train
from harness.jobs.training.world import World
from harness.progress import Inputs, Progress
from harness.result import job_from, job_to

OUTCOME, PROGRESS = "outcome.json", "progress.jsonl"

# What a process that was told to stop ends with: its checkpoint is written.
STOPPED = 75


def described(job: Job, inputs: Inputs, place: Place, weights: Path) -> dict[str, Any]:
    """Write down work for other processes."""
    return {
        "job": job_to(job),
        "data": dict(inputs.data),
        "workers": place.workers,
        "cores": place.cores,
        "device": place.device,
        "folder": str(place.weights or ""),
        "runs": str(place.runs),
        "weights": str(weights),
    }


def main(path: Path) -> int:
    """Do the work of a file."""
    told = json.loads(path.read_text(encoding="utf-8"))
    kind = str(told["device"]).partition(":")[0]
    world = World.joined(kind)
    if kind == "cuda":
        torch.cuda.set_device(world.local)
    folder = Path(told["folder"]) if told["folder"] else None
    place = Place(
        device=f"cuda:{world.local}" if kind == "cuda" else "cpu",
        workers=int(told["workers"]),
        cores=int(told["cores"]),
        weights=folder,
        runs=Path(told["runs"]),
    )
    inputs = Inputs(data=told["data"], weights=folder, workers=place.workers)
    told_progress = _Progress(path.with_name(PROGRESS)) if world.leads else None
    try:
        found = train(
            job_from(told["job"]),
            inputs,
            place=place,
            world=world,
            path=Path(told["weights"]),
            report=told_progress or (lambda _: None),
        )
    except Stopped:
        if world.leads:
            path.with_name(OUTCOME).write_text(json.dumps({"stopped": True}), encoding="utf-8")
        return STOPPED
    except HarnessError as error:
        # Whichever process fails says why; the others end with it.
        path.with_name(OUTCOME).write_text(json.dumps({"error": sentence(error)}), encoding="utf-8")
        return 1
    if world.leads:
        path.with_name(OUTCOME).write_text(json.dumps(found), encoding="utf-8")
    world.leave()
    return 0


class _Progress:
    """Writes how far a training is, a line at most each half second."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < 0.5:
            return
        self._last = now
        told = {name: value for name, value in asdict(progress).items() if name != "job"}
        self._file.write(json.dumps(told) + "\n")
        self._file.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
