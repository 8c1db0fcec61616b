"""The step of a training, from images on the device: images a second, its parts, memory, and hours of the schedule."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from harness.errors import JobError
from harness.jobs import Outcome, models
from harness.jobs.fresh import run_in_fresh_process
from harness.jobs.speed.device import Device, open_device
from harness.jobs.speed.throughput import TimedBatch, summarise, time_batch
from harness.jobs.training import seeding
from harness.jobs.training.data import Epoch
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.run import assemble_step
from harness.jobs.training.step import PARTS
from harness.jobs.training.student import build_student
from harness.machine import GIB
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.specs.datasets import DATASETS
from harness.specs.recipe import Recipes
from harness.stats import Interval, mean_interval
from harness.store.result import Measurement

# The recipe that lends the settings that change neither how long a step takes nor how many there are.
_LENDER = "deit-b"

# Small, for the same images are learnt again and again: a loss that diverges would end in numbers that are not finite.
_LEARNING_RATE = 1e-6

# On two cores a step of DeiT-Ti took twelve times as long, one of RegNetY-4GF seven times.
_NO_HALF = (
    "a CPU does not compute in float16 but converts each number, which takes many times as long: timed in float32, "
    "which a training here should have as well (--set precision=float32)"
)

# The head has as many classes as ImageNet where nothing is known of the images.
_CLASSES = 1000


class TrainingWorkload:
    """A model and the step that trains it, on its device."""

    def __init__(self, job: Job, device: Device) -> None:
        training = as_training(job)
        self._hyper, self._device = Hyperparameters.of(training), device
        self.warnings: tuple[str, ...] = ()
        if device.torch_name == "cpu" and self._hyper.precision == "float16":
            self._hyper, self.warnings = replace(self._hyper, precision="float32"), (_NO_HALF,)
        self.precision = self._hyper.precision
        self._classes = DATASETS[self._hyper.data].classes if self._hyper.data in DATASETS else _CLASSES
        model = build_student(training, classes=self._classes, folder=None, runs=Path())
        teacher = None
        if self._hyper.distilled:
            name = self._hyper.teacher
            teacher = models.build_with_random_weights(name, self._hyper.res, classes=self._classes)
        _, self._step = assemble_step(
            self._hyper, model, teacher, classes=self._classes, device=device.torch_name, world=World()
        )
        if self._step.scaler.is_enabled():
            # One that cannot overflow: the first steps at the usual scale do, and skip the update.
            self._step.scaler.load_state_dict({**self._step.scaler.state_dict(), "scale": 1.0})
        self.smallest_batch = 1 if self._step.mixing is None else 2  # which pairs images
        self.largest_batch = share_of(job)
        self._stamps: list[dict[str, Any]] = []
        self._loss = torch.zeros(())

    def make_step(self, batch: int) -> Callable[[], torch.Tensor]:
        """Return what is timed: a step of the trainer, on a batch of random images that is on the device already."""
        hyper, device = self._hyper, self._device.torch_name
        seeding.seed_step(hyper.seed, 0, 0, 0)
        shape = (batch, models.CHANNELS, hyper.res, hyper.res)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        if hyper.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, self._classes, (batch,), device=device)

        def step() -> torch.Tensor:
            stamps = {"start": self._device.stamp()}
            self._stamps.append(stamps)
            self._step.passed = lambda part: stamps.update({part: self._device.stamp()})
            self._loss = self._step(pixels, targets)
            return self._loss

        return step

    def make_compiled_step(self, batch: int) -> tuple[Callable[[], torch.Tensor], str]:
        """Return the step: the recipe says whether the model is compiled, and it was when it was built."""
        return self.make_step(batch), ""

    def check_loss(self) -> None:
        """Raise `JobError` unless the last step left a finite loss: numbers that are none take another time."""
        if not bool(torch.isfinite(self._loss).all()):
            raise JobError(f"the loss of '{self._hyper.model}' is {float(self._loss)} after the timed steps")

    def parts(self, kept: Sequence[int], timed: int) -> dict[str, list[float]]:
        """Return the seconds of each part in those that count of the last steps, which were the timed ones."""
        times: dict[str, list[float]] = {part: [] for part in PARTS}
        for index in kept:
            stamps = self._stamps[index - timed]
            marks = [stamps["start"], *(stamps[part] for part in PARTS)]
            for part, earlier, later in zip(PARTS, marks, marks[1:], strict=False):
                times[part].append(self._device.seconds_between(earlier, later))
        return times


def as_training(job: Job) -> Job:
    """Return the training whose step a job times: its settings, and a lender's where they make no difference."""
    lent = Recipes().find(_LENDER).settings
    steady = {"learning_rate": _LEARNING_RATE, "lr_batch": 0.0, "seed": 1}
    return Job.of("train", {**lent, **steady, **dict(job.settings)})


def share_of(job: Job) -> int:
    """Return the images of a step that one of the devices of the training has."""
    return int(as_training(job)["batch_size"]) // int(job["devices"])


def measure_train_speed(job: Job, report: Report, *, device: str, threads: int) -> Outcome:
    """Measure the step of a training on one device.

    With `batch = "auto"` a GPU takes its share of the recipe's batch, or half of that, and so on, until it fits; a CPU
    takes the batch size at which throughput stops growing.
    """
    share = share_of(job)
    batches: list[int | None] = [int(job["batch"])] if job["batch"] != "auto" else [None]
    searched = job["batch"] == "auto" and device != "cpu"
    if searched:
        training = as_training(job)
        fewest = 2 if training["mixup"] or training["cutmix"] else 1  # images that a step can have
        batches = [share >> halvings for halvings in range(share.bit_length()) if not share % (fewest << halvings)]
    for batch in batches:
        timed = run_in_fresh_process(_measure, job, report, device, threads, batch)
        if not isinstance(timed, str):
            return _outcome(job, timed, searched=searched)
    raise JobError(f"{timed} at batch {batches[-1]}")


def _measure(job: Job, report: Report, device: str, threads: int, batch: int | None) -> TimedBatch | str:
    """Build, warm up, time; a text if the batch is too large, which says for what.

    A batch of None is chosen where throughput saturates.
    """
    report(Progress(job=job, phase="building"))
    with open_device(device, threads) as opened:
        try:
            workload = TrainingWorkload(job, opened)
            timed = time_batch(opened, workload, job, report, batch)
        except Exception as error:
            reason = opened.too_large(error)
            if batch is None or not reason:
                raise
            return reason
        workload.check_loss()
        facts = {**timed.facts, "parts": workload.parts(timed.kept, timed.total), "precision": workload.precision}
        return replace(timed, facts=facts, warnings=(*timed.warnings, *workload.warnings))


def _outcome(job: Job, timed: TimedBatch, *, searched: bool) -> Outcome:
    """Add the parts of a step, its memory and the hours of the schedule to what is known of the iterations."""
    metrics, facts, warnings = summarise(timed)
    seconds, parts = mean_interval(timed.seconds), facts["parts"]
    metrics["step"] = _scaled(seconds, 1000, "ms")
    metrics |= {part: _scaled(mean_interval(times), 1000, "ms") for part, times in parts.items()}
    metrics["memory"] = Measurement(unit="GiB", value=facts["peak_allocated"] / GIB)
    share, steps, update = share_of(job), count_steps(job), fmean(parts["update"])
    if steps:
        # A step updates the weights once, of however many of the timed batches its share would be made.
        batches = share / timed.batch
        value, low, high = (
            batches * each - (batches - 1) * update for each in (seconds.value, seconds.low, seconds.high)
        )
        step = Interval(value=value, low=low, high=high)
        metrics["hours"], metrics["days"] = _scaled(step, steps / 3600, "h"), _scaled(step, steps / 86400, "d")
    else:
        warnings.append(f"no hours: nothing says how many images for training '{job['data']}' has")
    if searched and timed.batch < share:
        warnings.append(
            f"a share of {share} images does not fit and {timed.batch} were timed: a training here needs more devices, "
            "or a smaller batch_size"
        )
    return metrics, {**facts, "share": share, "steps": steps}, warnings


def _scaled(interval: Interval, factor: float, unit: str) -> Measurement:
    value, low, high = (factor * each for each in (interval.value, interval.low, interval.high))
    return Measurement(unit=unit, value=value, low=low, high=high)


def count_steps(job: Job) -> int:
    """Return the steps of the whole schedule as the trainer makes them; 0 where the number of images is not known."""
    hyper = Hyperparameters.of(as_training(job))
    images = DATASETS[hyper.data].train_images if hyper.data in DATASETS else 0
    return hyper.epochs * len(Epoch.of(hyper, images, World(), 0).batches) if images else 0
