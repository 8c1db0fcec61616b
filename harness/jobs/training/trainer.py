"""A student, images and a recipe -> epochs, each with its checkpoint, until it is trained or told to stop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler

from harness.errors import JobError
from harness.jobs.data.images import Images
from harness.jobs.training import checkpoint, seeding
from harness.jobs.training.checkpoint import Checkpoints, TrainingState
from harness.jobs.training.data import Epoch, build_transform, read_batches
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.monitoring import CHECK_INTERVAL, CSV_NAME, DivergenceMonitor, TrainingDiverged, TrainingLog
from harness.jobs.training.optimization import learning_rate, set_learning_rate
from harness.jobs.training.step import Step
from harness.jobs.training.student import Student
from harness.jobs.training.validation import measure_accuracies
from harness.plan.job import Job
from harness.run.messages import Progress, Report


class TrainingStopped(Exception):  # noqa: N818 -- reads as what happened
    """The training was told to stop, and its state is in a checkpoint."""


@dataclass(kw_only=True)
class Trainer:
    """All that takes part in a training; `device` is torch's, `workers` are loader processes."""

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
    stop_requested: Callable[[], bool] = lambda: False
    state: TrainingState = field(default_factory=TrainingState)
    log: TrainingLog | None = None

    def run(self) -> TrainingState:
        """Train from the last checkpoint, or from the beginning, to the end.

        Raises `TrainingStopped` if it was told to stop, and `JobError` if the loss diverges, a checkpoint cannot be
        written, or the last one is of another training.
        """
        self._resume()
        if self.world.leads:
            with self._log_errors():
                self.log = TrainingLog(self.checkpoints.folder, self.state.history)
        try:
            for number in range(self.state.epoch, self.hyper.epochs):
                self._run_epoch(number)
        finally:
            if self.log is not None:
                with self._log_errors():
                    self.log.close()
        return self.state

    @contextmanager
    def _log_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(self.checkpoints.write_error(self.checkpoints.folder / CSV_NAME, error)) from error

    @property
    def final_student(self) -> Student:
        """The average where the recipe asks for it, else the student itself."""
        average = self.step.average
        student: Student = self.student if average is None else average.module
        return student

    def _resume(self) -> None:
        loaded = self.checkpoints.load(leads=self.world.leads)
        self.state, tensors = loaded or (self.state, {})
        steps = self.state.steps_done
        if int(self.world.sum(torch.tensor(steps, device=self.device))) != steps * self.world.size:
            raise JobError(f"{self.checkpoints.folder}: its processes do not read the same checkpoint; run it again")
        if not tensors:
            return
        self.state.resumed += 1
        self.student.model.load_state_dict(checkpoint.unpack(tensors, "network"), strict=True)
        if self.step.average is not None:
            self.step.average.module.model.load_state_dict(checkpoint.unpack(tensors, "average"), strict=True)
        checkpoint.restore_optimizer(self.step.optimizer, tensors)
        self.step.scaler.load_state_dict(self.state.scaler)

    def _run_epoch(self, number: int) -> None:
        set_learning_rate(self.schedule, self.hyper, number)
        epoch = Epoch.of(self.hyper, len(self.images), self.world, number)
        monitor = DivergenceMonitor(world=self.world, interval=self._check_interval, counted=self.state.counted)
        started, before = time.perf_counter(), self.state.seconds
        try:
            self.run_steps(epoch, monitor)
        except TrainingDiverged as error:
            raise JobError(self._divergence_message(error, number)) from error
        finally:
            self.state.seconds = before + time.perf_counter() - started
        self._finish_epoch(epoch, monitor)

    @property
    def _check_interval(self) -> int:
        return 1 if self.device == "cpu" else CHECK_INTERVAL

    def run_steps(self, epoch: Epoch, monitor: DivergenceMonitor) -> None:
        """Run the steps of an epoch that are left.

        Raises `TrainingStopped` if the training was told to stop, and `TrainingDiverged` if the loss diverges.
        """
        counted, first = self.state.counted, self.state.step
        batches = read_batches(
            self.images,
            build_transform(self.hyper),
            epoch,
            seed=self.hyper.seed,
            first=first,
            workers=self.workers,
            pin=self.device != "cpu",
        )
        ended = time.perf_counter()
        for step, (images, targets) in enumerate(batches, first):
            arrived = time.perf_counter()
            seeding.seed_step(self.hyper.seed, epoch.number, step, self.world.rank)
            images = images.to(self.device, non_blocking=True)  # noqa: PLW2901 -- the same batch
            if self.hyper.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)  # noqa: PLW2901
            monitor.record(self.step(images, targets.to(self.device, non_blocking=True)), step + 1)
            self.state.step, self.state.steps_done = step + 1, self.state.steps_done + 1
            now = time.perf_counter()
            counts = {"waiting": arrived - ended, "stepping": now - ended, "images": self.hyper.batch_size}
            for name, value in counts.items():
                counted[name] = counted.get(name, 0.0) + value
            ended = now
            self._report_progress(epoch, monitor)
            if (step + 1) % self._check_interval == 0 and self.world.any(self.stop_requested(), self.device):
                monitor.check(step + 1)
                self._save_checkpoint()
                raise TrainingStopped
        monitor.check(self.state.step)

    def _finish_epoch(self, epoch: Epoch, monitor: DivergenceMonitor) -> None:
        counted, finished = self.state.counted, epoch.number + 1
        accuracies = measure_accuracies(
            self.final_student, self.tests, self.hyper, self.world, device=self.device, workers=self.workers
        )
        stepping = max(counted.get("stepping", 0.0), 1e-9)
        row: dict[str, Any] = {
            "epoch": finished,
            "steps": len(epoch.batches),
            "learning_rate": learning_rate(self.step.optimizer),
            "loss": monitor.mean,
            **accuracies,
            "images_per_second": round(counted.get("images", 0.0) / stepping, 1),
            "waiting": round(counted.get("waiting", 0.0) / stepping, 4),
            "seconds": round(stepping, 3),
        }
        self.state = replace(
            self.state,
            epoch=finished,
            step=0,
            history=[*self.state.history, row],
            counted={"first": counted["first"]} if "first" in counted else {},
        )
        if self.log is not None:
            with self._log_errors():
                self.log.add(self.state.history)
        self._save_checkpoint()
        if self.world.any(self.stop_requested(), self.device) and finished < self.hyper.epochs:
            raise TrainingStopped

    def _save_checkpoint(self) -> None:
        if self.world.leads:
            average = self.step.average
            tensors = checkpoint.pack(
                self.student.model.state_dict(),
                average.module.model.state_dict() if average is not None else None,
                self.step.optimizer,
            )
            self.state.scaler = self.step.scaler.state_dict()
            self.checkpoints.save(self.state, tensors)
        self.world.wait()

    def _divergence_message(self, error: TrainingDiverged, number: int) -> str:
        last = self.checkpoints.newest()
        checkpoints = f"the last good checkpoint is {last.name}" if last else "there is no checkpoint before it"
        return (
            f"{error} of epoch {number + 1}, learning rate {learning_rate(self.step.optimizer):g}; {checkpoints}; "
            "try a smaller learning_rate, or precision = 'float32'"
        )

    def _report_progress(self, epoch: Epoch, monitor: DivergenceMonitor) -> None:
        if not self.world.leads:
            return
        hyper, state = self.hyper, self.state
        stepping = max(state.counted.get("stepping", 0.0), 1e-9)
        parts = [
            f"epoch {epoch.number + 1} of {hyper.epochs}",
            f"loss {monitor.mean:.3f}",
            *([f"top-1 {state.history[-1]['top1']:.1f} %"] if state.history else []),
            f"rate {learning_rate(self.step.optimizer):.1e}",
            f"waits {100 * state.counted.get('waiting', 0.0) / stepping:.0f} %",
        ]
        images = len(epoch.batches) * hyper.batch_size
        self.report(
            Progress(
                job=self.job,
                phase=", ".join(parts),
                done=epoch.number * images + state.step * hyper.batch_size,
                total=hyper.epochs * images,
                rate=state.counted.get("images", 0.0) / stepping,
            )
        )
