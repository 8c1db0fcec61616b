"""A training job on this process, or on those that torchrun started -> weights in a file, and the facts of them."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness import atomic
from harness.errors import JobError
from harness.jobs import own_device
from harness.jobs.data.images import Images, image_facts
from harness.jobs.data.loading import LIMITS
from harness.jobs.data.open import open_images
from harness.jobs.precision import PRECISIONS
from harness.jobs.too_large import too_large
from harness.jobs.training.checkpoint import Checkpoints, TrainingState
from harness.jobs.training.data import build_erasing, build_mixing
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.losses import build_objective
from harness.jobs.training.monitoring import CSV_NAME, EVENTS_NAME
from harness.jobs.training.optimization import build_optimizer, build_schedule
from harness.jobs.training.step import Step
from harness.jobs.training.student import Student, build_student, build_teacher
from harness.jobs.training.trained_weights import find_input
from harness.jobs.training.trainer import Trainer
from harness.plan.job import Job
from harness.run.messages import Inputs, Progress, Report

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
class ProcessContext:
    """Where one process of a training runs.

    `device` is torch's, `cores` are the CPU cores of the whole training, `inputs` the user's, with the loader processes
    of this process alone, `runs` is the folder of our results.
    """

    device: str
    cores: int
    inputs: Inputs
    runs: Path


def train_in_process(job: Job, *, context: ProcessContext, world: World, path: Path, report: Report) -> dict[str, Any]:
    """Train, write the weights to a file, and return the facts of the training.

    The checkpoints stay: until its result is saved, the training is taken up from the last one.  Raises
    `TrainingStopped` if a signal asked for that, with all that was done in a checkpoint, and `JobError` if it cannot be
    done.
    """
    own_device.use(context.device)
    data = str(job["data"])
    report(Progress(job=job, phase=f"listing the images of {data}"))
    images, tests = (open_split(data, context.inputs, split) for split in ("train", "test"))
    if context.device == "cpu":
        # The processes of a machine and their loader processes share its cores.
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
        torch.set_num_threads(max(1, context.cores // processes - context.inputs.workers))
    with stop_signals() as stop_requested:
        trainer = assemble_trainer(
            job, images, tests, context=context, world=world, report=report, stop_requested=stop_requested
        )
        try:
            state = trainer.run()
        except (RuntimeError, MemoryError) as error:
            reason = too_large(error)
            if not reason:
                raise
            share = trainer.hyper.batch_size // world.size
            message = (
                f"{reason} with {share} images at once; give more devices, or --set batch_size=N for a smaller one"
            )
            raise JobError(message) from error
    digest = _save_weights(trainer, path) if world.leads else ""
    world.wait()
    return _facts(trainer, state, digest)


def open_split(data: str, inputs: Inputs, split: str) -> Images:
    """Open the images of a split, of what the user gave or of what a package brings along."""
    images = open_images(data, inputs.where(data), split=split)
    if images.streamed:
        raise JobError(f"--data {data}={inputs.where(data)}: a stream cannot be shuffled; give a folder, tar or hfds/…")
    return images


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Handle the signals that ask to stop; what is yielded tells between two steps whether one came."""
    stop = threading.Event()
    with signal_handler(STOP_SIGNALS, lambda *_: stop.set()):
        yield stop.is_set


@contextmanager
def signal_handler(numbers: Iterable[signal.Signals], handler: Any) -> Iterator[None]:  # noqa: ANN401 -- signal's own
    """Handle signals in the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


# Assembling.


def assemble_trainer(  # noqa: PLR0913 -- what a training needs
    job: Job,
    images: Images,
    tests: Images,
    *,
    context: ProcessContext,
    world: World,
    report: Report,
    stop_requested: Callable[[], bool],
) -> Trainer:
    """Build student, teacher, optimizer and the rest of a training.

    Raises `JobError` for what does not fit together.
    """
    hyper, classes = Hyperparameters.of(job), images.classes
    model = build_student(job, classes=classes, folder=context.inputs.weights, runs=context.runs)
    teacher = build_teacher(job, classes=classes, folder=context.inputs.weights, runs=context.runs)
    student, step = assemble_step(hyper, model, teacher, classes=classes, device=context.device, world=world)
    return Trainer(
        job=job,
        hyper=hyper,
        images=images,
        tests=tests,
        student=student,
        step=step,
        schedule=build_schedule(hyper, step.optimizer),
        checkpoints=Checkpoints(context.runs / job.key, job, _inputs(job, images, context)),
        world=world,
        device=context.device,
        workers=context.inputs.workers,
        report=report,
        stop_requested=stop_requested,
    )


def assemble_step(  # noqa: PLR0913 -- what a step needs
    hyper: Hyperparameters, model: nn.Module, teacher: nn.Module | None, *, classes: int, device: str, world: World
) -> tuple[Student, Step]:
    """Move a model and its teacher to the device and build the step that trains it there."""
    precision = PRECISIONS[hyper.precision]
    precision.set_tf32()
    torch.backends.cudnn.benchmark = True
    memory_format = torch.channels_last if hyper.channels_last else torch.preserve_format
    if teacher is not None:
        teacher = teacher.to(device).to(memory_format=memory_format).requires_grad_(requires_grad=False)
    student = Student(model.to(device).to(memory_format=memory_format), fixres=hyper.fixres)
    student.train(hyper.fixres or not hyper.eval_mode)
    optimizer = build_optimizer(hyper, student.model)
    mixing = build_mixing(hyper, classes)
    step = Step(
        model=_wrap(student, hyper, world),
        plain=student,
        teacher=teacher,
        objective=build_objective(hyper, mixed=mixing is not None),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(
            torch.device(device).type, enabled=hyper.precision == "float16" and device != "cpu"
        ),
        norm=hyper.norm,
        erasing=build_erasing(hyper, device),
        mixing=mixing,
        average=ModelEmaV3(student, decay=hyper.ema_decay) if hyper.ema else None,
        precision=precision,
        gradient_clip=hyper.gradient_clip,
    )
    return student, step


def _inputs(job: Job, images: Images, context: ProcessContext) -> dict[str, str]:
    """Return digests of what a training reads: its images, the weights that it starts from, and its teacher's."""
    parts = [part for part in ("start", "teacher") if job.need(part) or job.get(part)]
    files = {part: find_input(job, part, folder=context.inputs.weights, runs=context.runs).file for part in parts}
    return {"images": images.fingerprint, **{part: file.sha256 for part, file in files.items()}}


def _wrap(student: Student, hyper: Hyperparameters, world: World) -> nn.Module:
    """Compile and wrap for several processes; both leave the student's own weights where they are."""
    model: Any = student
    if hyper.compile:
        model = torch.compile(model)
    if world.size > 1:
        model = DistributedDataParallel(model)
    wrapped: nn.Module = model
    return wrapped


# What is left behind.


def _save_weights(trainer: Trainer, path: Path) -> str:
    """Write the weights and return their SHA-256."""
    state = trainer.final_student.model.state_dict()
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        with atomic.replacing(path) as temporary:
            # One entry: several have no order of their own, and the same weights would not be the same file.
            save_file(state, temporary, metadata={"classes": str(trainer.images.classes)})
            return hashlib.sha256(temporary.read_bytes()).hexdigest()
    except Exception as error:
        raise JobError(f"{path}: the weights cannot be written ({error}); free some space and run again") from error


def _facts(trainer: Trainer, state: TrainingState, digest: str) -> dict[str, Any]:
    hyper, world = trainer.hyper, trainer.world
    return {
        "weights": {"sha256": digest, "origin": "trained", "average": hyper.ema},
        "images": image_facts(trainer.images),
        "tests": image_facts(trainer.tests),
        "took": {part: digest for part, digest in trainer.checkpoints.inputs.items() if part != "images"},
        "history": state.history,
        "hours": state.seconds / 3600,
        "steps": state.steps_done,
        "resumed": state.resumed,
        "damaged_checkpoints": state.damaged,
        "processes": world.size,
        "batch_per_process": hyper.batch_size // world.size,
        "threads": torch.get_num_threads() if trainer.device == "cpu" else None,
        "learning_rate": {"given": hyper.learning_rate, "for_batch": hyper.lr_batch or None, "set": hyper.scaled_rate},
        "parameters": sum(parameter.numel() for parameter in trainer.student.parameters()),
        "hyperparameters": asdict(hyper),
        "logs": [CSV_NAME, EVENTS_NAME],
        "limits": list(LIMITS),
    }
