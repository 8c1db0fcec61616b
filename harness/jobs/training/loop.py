"""A network, images and a recipe -> epochs, each with its checkpoint, until it is trained or told to stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler

from harness.errors import JobError
from harness.job import Job
from harness.jobs.images import Images
from harness.jobs.training import chance, checkpoint
from harness.jobs.training.checkpoint import Checkpoints, Standing
from harness.jobs.training.data import Epoch, batches_of, transform_of
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.logs import Log
from harness.jobs.training.measure import accuracies
from harness.jobs.training.networks import Student
from harness.jobs.training.optimization import rate
from harness.jobs.training.step import Step
from harness.jobs.training.watch import STEPS_UNSEEN, Watch, WentWrong
from harness.jobs.training.world import World
from harness.progress import Progress

Report = Callable[[Progress], None]


class Stopped(Exception):  # noqa: N818 -- reads as what happened
    """The training was told to stop, and stands in a checkpoint."""


@dataclass(kw_only=True)
class Training:
    """All that takes part in a training.  `device` is torch's, `workers` read images, `asked` tells whether to stop."""

    job: Job
    hyper: Hyperparameters
    images: Images
    tests: Images
    student: Student
    step: Step
    schedule: Scheduler
    checkpoints: Checkpoints
    world: World
    device: str
    workers: int
    report: Report
    asked: Callable[[], bool] = lambda: False
    standing: Standing = field(default_factory=Standing)
    log: Log | None = None

    def run(self) -> Standing:
        """Train what is left to train.

        Raises `Stopped` if it was told to stop, and `JobError` if the loss goes wrong or a checkpoint cannot be kept.
        """
        self._resume()
        if self.world.leads:
            self.log = Log(self.checkpoints.folder, self.standing.history)
        for number in range(self.standing.epoch, self.hyper.epochs):
            self._epoch(number)
        if self.log is not None:
            self.log.close()
        return self.standing

    @property
    def finished(self) -> Student:
        """Give what is to be kept: the average where the recipe asks for it, else the network itself."""
        average = self.step.average
        found: Any = self.student if average is None else average.module
        student: Student = found
        return student

    # One epoch.

    def _epoch(self, number: int) -> None:
        self.schedule.step(number)
        epoch = Epoch.of(self.hyper, len(self.images), self.world, number)
        watch = Watch(world=self.world, every=self._unseen, counted=self.standing.counted)
        began, before = time.perf_counter(), self.standing.seconds
        try:
            self.steps(epoch, watch)
        except WentWrong as wrong:
            raise JobError(self._gone_wrong(wrong, number)) from wrong
        finally:
            self.standing.seconds = before + time.perf_counter() - began
        self._finish(number, epoch, watch)

    def steps(self, epoch: Epoch, watch: Watch) -> None:
        """Do the steps of an epoch that are left.

        Raises `Stopped` if the training was told to stop, and `WentWrong` if the loss goes wrong.
        """
        counted, first = self.standing.counted, self.standing.step
        source = batches_of(
            self.images,
            transform_of(self.hyper),
            epoch,
            seed=self.hyper.seed,
            first=first,
            workers=self.workers,
            pin=self.device != "cpu",
        )
        clock = time.perf_counter()
        for place, (images, targets) in enumerate(source, first):
            came = time.perf_counter()
            chance.of_step(self.hyper.seed, epoch.number, place, self.world.rank)
            watch.add(self.step(self._moved(images), targets.to(self.device, non_blocking=True)), place + 1)
            self.standing.step, self.standing.steps_done = place + 1, self.standing.steps_done + 1
            after = time.perf_counter()
            _add(counted, waiting=came - clock, stepping=after - clock, images=self.hyper.batch_size)
            clock = after
            self._tell(epoch, watch)
            if (place + 1) % self._unseen == 0 and self.world.any(self.asked(), self.device):
                watch.look(place + 1)
                self._save()
                raise Stopped
        watch.look(self.standing.step)

    def _finish(self, number: int, epoch: Epoch, watch: Watch) -> None:
        counted = self.standing.counted
        measured = accuracies(
            self.finished, self.tests, self.hyper, self.world, device=self.device, workers=self.workers
        )
        stepping = max(counted.get("stepping", 0.0), 1e-9)
        row: dict[str, Any] = {
            "epoch": number + 1,
            "steps": len(epoch.batches),
            "learning_rate": rate(self.step.optimizer),
            "loss": watch.mean,
            **measured,
            "images_per_second": round(counted.get("images", 0.0) / stepping, 1),
            "waiting": round(counted.get("waiting", 0.0) / stepping, 4),
            "seconds": round(stepping, 3),
        }
        self.standing = replace(
            self.standing,
            epoch=number + 1,
            step=0,
            history=[*self.standing.history, row],
            counted={"first": counted["first"]} if "first" in counted else {},
        )
        if self.log is not None:
            self.log.epoch(row)
        self._save()
        if self.world.any(self.asked(), self.device) and number + 1 < self.hyper.epochs:
            raise Stopped

    # Beginning and ending.

    def _resume(self) -> None:
        found = self.checkpoints.load(self.device)
        if found is None:
            return
        self.standing, tensors = found
        self.standing.resumed += 1
        self.student.network.load_state_dict(checkpoint.part(tensors, "network"), strict=True)
        average = checkpoint.part(tensors, "average")
        if self.step.average is not None:
            self.step.average.module.network.load_state_dict(average, strict=True)
        checkpoint.restore_optimizer(self.step.optimizer, tensors)
        self.step.scaler.load_state_dict(self.standing.scaler)

    def _save(self) -> None:
        if self.world.leads:
            average = self.step.average
            tensors = checkpoint.pack(
                self.student.network.state_dict(),
                average.module.network.state_dict() if average is not None else None,
                self.step.optimizer,
            )
            self.standing.scaler = self.step.scaler.state_dict()
            self.checkpoints.save(self.standing, tensors)
        self.world.wait()

    def _gone_wrong(self, wrong: WentWrong, number: int) -> str:
        last = self.checkpoints.newest()
        where = f"the last good checkpoint is {last.name}" if last else "there is no checkpoint before it"
        return (
            f"{wrong} of epoch {number + 1}, learning rate {rate(self.step.optimizer):g}; {where}; "
            "try a smaller learning_rate, or precision = 'float32'"
        )

    # Small things.

    @property
    def _unseen(self) -> int:
        return 1 if self.device == "cpu" else STEPS_UNSEEN

    def _moved(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, non_blocking=True)
        return images.contiguous(memory_format=torch.channels_last) if self.hyper.channels_last else images

    def _tell(self, epoch: Epoch, watch: Watch) -> None:
        if not self.world.leads:
            return
        counted, hyper, standing = self.standing.counted, self.hyper, self.standing
        last = standing.history[-1]["top1"] if standing.history else None
        stepping = max(counted.get("stepping", 0.0), 1e-9)
        parts = [
            f"epoch {epoch.number + 1} of {hyper.epochs}",
            f"loss {watch.mean:.3f}",
            *([f"top-1 {last:.1f} %"] if last is not None else []),
            f"rate {rate(self.step.optimizer):.1e}",
            f"waits {counted.get('waiting', 0.0) / stepping:.0%}",
        ]
        each = len(epoch.batches) * hyper.batch_size
        done = epoch.number * each + standing.step * hyper.batch_size
        total = hyper.epochs * each
        speed = counted.get("images", 0.0) / stepping
        self.report(Progress(job=self.job, phase=", ".join(parts), done=done, total=total, rate=speed))


def _add(counted: dict[str, float], **more: float) -> None:
    for name, value in more.items():
        counted[name] = counted.get(name, 0.0) + value
