"""A training job on one process -> all that takes part in it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.job import Job
from harness.jobs.images import Images
from harness.jobs.training.checkpoint import Checkpoints
from harness.jobs.training.data import erasing_of, mixing_of
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.loop import Report, Training
from harness.jobs.training.networks import Student, student_of, teacher_of
from harness.jobs.training.optimization import average_of, objective_of, optimizer_of, schedule_of
from harness.jobs.training.step import Step, arithmetic
from harness.jobs.training.world import World


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a training runs.

    `device` is torch's, `workers` are processes that read images, `cores` the processor's for all of it, `weights` is
    the user's folder, `runs` that of our results.
    """

    device: str
    workers: int
    cores: int
    weights: Path | None
    runs: Path


def assembled(  # noqa: PLR0913 -- what a training needs
    job: Job,
    images: Images,
    tests: Images,
    *,
    place: Place,
    world: World,
    report: Report,
    asked: Callable[[], bool],
) -> Training:
    """Build network, teacher, optimizer and the rest for a training.

    Raises `JobError` for what does not fit together.
    """
    hyper = Hyperparameters.of(job)
    _set_arithmetic(hyper)
    plain = student_of(job, classes=images.classes, folder=place.weights, runs=place.runs)
    student = Student(_placed(plain, hyper, place.device))
    student.train(not hyper.eval_mode)
    teacher = teacher_of(job, classes=images.classes, folder=place.weights, runs=place.runs)
    optimizer = optimizer_of(hyper, student.network)
    mixing = mixing_of(hyper, images.classes)
    step = Step(
        network=_wrapped(student, hyper, world),
        plain=student,
        teacher=None if teacher is None else _placed(teacher, hyper, place.device).requires_grad_(requires_grad=False),
        objective=objective_of(hyper, mixed=mixing is not None),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(
            torch.device(place.device).type, enabled=hyper.precision == "float16" and place.device != "cpu"
        ),
        norm=hyper.norm,
        erasing=erasing_of(hyper, place.device),
        mixing=mixing,
        average=average_of(hyper, student),
        arithmetic=arithmetic(hyper.precision, place.device),
        gradient_clip=hyper.gradient_clip,
    )
    return Training(
        job=job,
        hyper=hyper,
        images=images,
        tests=tests,
        student=student,
        step=step,
        schedule=schedule_of(hyper, optimizer),
        checkpoints=Checkpoints(place.runs / job.key, job),
        world=world,
        device=place.device,
        workers=place.workers,
        report=report,
        asked=asked,
    )


def _set_arithmetic(hyper: Hyperparameters) -> None:
    allowed = hyper.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cudnn.benchmark = True


def _placed(model: nn.Module, hyper: Hyperparameters, device: str) -> nn.Module:
    moved: Any = model.to(device)
    if hyper.channels_last:
        moved = moved.to(memory_format=torch.channels_last)
    placed: nn.Module = moved
    return placed


def _wrapped(student: Student, hyper: Hyperparameters, world: World) -> nn.Module:
    """Wrap for several processes and compile; both leave the student's own weights where they are."""
    found: Any = student
    if hyper.compile:
        found = torch.compile(found)
    if world.size > 1:
        found = DistributedDataParallel(found)
    wrapped: nn.Module = found
    return wrapped
