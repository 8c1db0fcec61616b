"""A training job on this process, or on those that torchrun started -> weights in a file, and what they cost."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.errors import JobError
from harness.job import Job
from harness.jobs import trained, weights
from harness.jobs.images import Images, facts_of, open_images
from harness.jobs.training.assembly import Place, assembled
from harness.jobs.training.checkpoint import Standing
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.logs import CSV_NAME, EVENTS_NAME
from harness.jobs.training.loop import Report, Training
from harness.jobs.training.world import World
from harness.progress import Inputs, Progress

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def train(  # noqa: PLR0913 -- what a training needs
    job: Job, inputs: Inputs, *, place: Place, world: World, path: Path, report: Report
) -> dict[str, Any]:
    """Train, write the weights to a file, and give what is to be known of them.

    Raises `Stopped` if a signal asked for that, with all that was done in a checkpoint, and `JobError` if it cannot be
    done.
    """
    hyper = Hyperparameters.of(job)
    report(Progress(job=job, phase=f"looking through {hyper.data}"))
    images, tests = (opened(hyper.data, inputs, split) for split in ("train", "test"))
    if place.device == "cpu":
        torch.set_num_threads(_threads(place, world))
    with listening() as asked:
        training = assembled(job, images, tests, place=place, world=world, report=report, asked=asked)
        standing = training.run()
    digest = _keep(training, path) if world.leads else ""
    world.wait()
    training.checkpoints.remove()
    return _facts(training, standing, digest, place)


def opened(data: str, inputs: Inputs, split: str) -> Images:
    """Open the images of a split of what the user gave, or of what a package brings along."""
    found = open_images(data, inputs.where(data), split=split)
    if found.streamed:
        raise JobError(f"--data {data}={inputs.where(data)}: a stream cannot be shuffled; give a folder, tar or hfds/…")
    return found


def _threads(place: Place, world: World) -> int:
    """Share the cores between the processes of a machine and those that read images for them."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return max(1, place.cores // here - place.workers)


def _keep(training: Training, path: Path) -> str:
    """Write the weights: beside, and renamed last.  Give their SHA-256."""
    state = {name: value.detach().cpu().contiguous() for name, value in training.finished.network.state_dict().items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # One entry: several have no order of their own, and the same weights would not be the same file.
        save_file(state, beside, metadata={"classes": str(training.images.classes)})
        digest = hashlib.sha256(beside.read_bytes()).hexdigest()
        beside.replace(path)
    except Exception as error:
        beside.unlink(missing_ok=True)
        raise JobError(f"{path}: the weights cannot be written ({error}); free some space and run again") from error
    return digest


def _facts(training: Training, standing: Standing, digest: str, place: Place) -> dict[str, Any]:
    hyper, world = training.hyper, training.world
    each = hyper.batch_size // world.size
    return {
        "weights": {"sha256": digest, "origin": "trained", "average": hyper.ema},
        "images": facts_of(training.images),
        "tests": facts_of(training.tests),
        "took": _took(training, place),
        "history": standing.history,
        "hours": standing.seconds / 3600,
        "steps": standing.steps_done,
        "resumed": standing.resumed,
        "processes": world.size,
        "batch_per_process": each,
        "threads": torch.get_num_threads() if training.device == "cpu" else None,
        "learning_rate": {"given": hyper.learning_rate, "for_batch": hyper.lr_batch or None, "set": hyper.scaled_rate},
        "parameters": sum(one.numel() for one in training.student.parameters()),
        "hyperparameters": asdict(hyper),
        "logs": [CSV_NAME, EVENTS_NAME],
    }


def _took(training: Training, place: Place) -> dict[str, str]:
    """Give the SHA-256 of the weights that it started from and learnt from."""
    job = training.job
    found = {part: trained.found(one, place.runs).sha256 for part, one in job.needs}
    for part in ("start", "teacher"):
        model, _, tag = str(job.get(part)).partition(".")
        if tag and part not in found:
            found[part] = weights.find(model, tag, place.weights).sha256
    return found


@contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Take the signals that ask to stop; the training looks between two steps."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before = {one: signal.signal(one, lambda *_: told.set()) for one in STOP_SIGNALS}
    try:
        yield told.is_set
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
