"""Models × the shards they lack -> partial predictions: one pass over the images, on one device or several.

A batch of images is read, preprocessed once for each distinct view, run through every model that lacks it, and the
predictions are saved whenever a shard is complete.
"""

import contextlib
import mmap
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import HarnessError, JobError
from harness.jobs import own_device
from harness.jobs.data.images import Images
from harness.jobs.data.loading import LIMITS, ImageBatch, load_batches
from harness.jobs.data.preprocess import Preprocessing
from harness.jobs.evaluate.device_batch import DeviceBatch, ThreadTuner
from harness.jobs.evaluate.partial import PartialPredictions, Shard
from harness.jobs.evaluate.predictor import Predictor
from harness.jobs.fresh import error_message, start_in_fresh_process
from harness.jobs.training.trained_weights import InputWeights
from harness.plan.job import Job
from harness.run.messages import Inputs, Progress, Report
from harness.store.predictions import Predictions, concatenate

# Images that are read and computed at once, at 224 pixels; a model of larger input takes fewer, by area.
BATCH_SIZE = {"cpu": 32, "cuda": 128}


@dataclass(kw_only=True)
class PendingEvaluation:
    """One evaluation of a pass: its weights, and the shards that it lacks."""

    job: Job
    weights: InputWeights
    partial: PartialPredictions
    view: Preprocessing
    missing: frozenset[Shard]


@dataclass(kw_only=True)
class PassOutcome:
    """What a pass leaves besides partial predictions: why jobs failed, unreadable images, and where the time went.

    `failed` is by the key of the job, `unreadable` by the position of the image; both say why.  `limits` are sentences
    about what kept images from being loaded as they should.  `seconds` of reading and of cropping are summed over the
    loader processes; `wall` is the time of the whole pass.
    """

    failed: dict[str, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    limits: dict[str, None] = field(default_factory=dict)
    images: int = 0
    wall: float = 0.0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, other: "PassOutcome") -> None:
        """Add the outcome of another group of models, or of another device."""
        self.failed |= other.failed
        self.unreadable |= other.unreadable
        self.limits |= other.limits
        self.images += other.images
        self.wall += other.wall
        for name, value in other.seconds.items():
            self.seconds[name] += value

    def count(self, batch: ImageBatch) -> None:
        """Add a batch that was read."""
        self.images += len(batch.positions)
        self.unreadable |= batch.unreadable
        self.seconds["read and decode"] += batch.read
        self.seconds["resize and crop"] += batch.cut

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of the block."""
        before = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - before

    @property
    def facts(self) -> dict[str, Any]:
        """What the result records of it."""
        seconds = {name: round(value, 3) for name, value in sorted(self.seconds.items())}
        return {"images_read": self.images, "wall": round(self.wall, 3), "seconds": seconds}


@dataclass(frozen=True, kw_only=True)
class PassCounter:
    """How many of `total` images each process of a pass has done; `process` is the index of this one.

    The forked processes share the memory: it needs no semaphore, and no room in /dev/shm.
    """

    total: int
    done: memoryview
    process: int = 0

    @classmethod
    def of(cls, processes: int, *, total: int) -> "PassCounter":
        """Return the counter that processes which are forked from now on share."""
        return cls(total=total, done=memoryview(mmap.mmap(-1, 8 * processes)).cast("Q"))

    def add(self, images: int) -> int:
        """Add the images that this process has done, and return those of all."""
        self.done[self.process] += images
        return sum(self.done)


@dataclass(kw_only=True)
class LoadedModel:
    """A model on the device, and its predictions of the current shard."""

    evaluation: PendingEvaluation
    predictor: Predictor
    buffer: list[Predictions] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EvaluationPass:
    """One pass over the images for a group of models that are on the device together.

    `batch_size` is the number of images that are read and computed at once; None leaves it to the device.
    """

    images: Images
    evaluations: Sequence[PendingEvaluation]
    inputs: Inputs
    report: Report
    group: str = ""
    batch_size: int | None = None

    def run(self, devices: Sequence[str]) -> PassOutcome:
        """Evaluate on these devices in parallel, with one process and every n-th shard for each.

        A single GPU has a process of its own as well: none can be forked from one that has used CUDA.
        A source that can only be streamed is read once, so it has one device.
        """
        missing = {shard for evaluation in self.evaluations for shard in evaluation.missing}
        shards = sorted(missing, key=lambda shard: shard.start)
        devices = list(devices[: 1 if self.images.streamed else max(1, len(shards))])
        counter = PassCounter.of(len(devices), total=sum(len(shard) for shard in shards))
        started = time.perf_counter()
        if devices == ["cpu"]:
            outcome = self._run_on(devices[0], shards, counter, workers=self.inputs.workers)
        else:
            outcome = self._run_in_parallel(devices, shards, counter)
        outcome.wall = time.perf_counter() - started
        return outcome

    def _run_in_parallel(self, devices: Sequence[str], shards: Sequence[Shard], counter: PassCounter) -> PassOutcome:
        workers = max(1, self.inputs.workers // len(devices)) if self.inputs.workers else 0
        pending = [
            start_in_fresh_process(
                self._run_on, device, shards[n :: len(devices)], replace(counter, process=n), workers=workers
            )
            for n, device in enumerate(devices)
        ]
        outcome = PassOutcome()
        for wait in pending:
            try:
                outcome.add(wait())
            except JobError as error:
                outcome.failed |= {evaluation.job.key: str(error) for evaluation in self.evaluations}
        return outcome

    def _run_on(self, device: str, shards: Sequence[Shard], counter: PassCounter, *, workers: int) -> PassOutcome:
        """Evaluate these shards on one device, in this process."""
        own_device.use(device)
        outcome = PassOutcome()
        with outcome.timed("load weights"):
            models = self._load_models(device, outcome)
        if not models:
            return outcome
        views = list(dict.fromkeys(model.evaluation.view for model in models))
        batches = _batches(shards, self._batch_size(device))
        positions = [positions for _, positions in batches]
        loader = load_batches(self.images, views, positions, workers=workers, pin=device != "cpu")
        started, done_before = time.perf_counter(), counter.add(0)
        threads, device_batch = ThreadTuner(workers=workers if device == "cpu" else 0), DeviceBatch(device, views)
        ended = time.perf_counter()
        for (shard, _), batch in zip(batches, loader, strict=True):
            arrived = time.perf_counter()
            outcome.seconds["wait for images"] += arrived - ended
            outcome.count(batch)
            device_batch.put(batch)
            for model in models:
                if shard in model.evaluation.missing and model.evaluation.job.key not in outcome.failed:
                    self._predict(model, batch, device_batch, outcome)
            if batch.positions[-1] == shard.stop - 1:
                with outcome.timed("write"):
                    self._save(shard, models, outcome)
            done = counter.add(len(batch.positions))
            self._report_progress(done, counter.total, (done - done_before) / (time.perf_counter() - started))
            ended = time.perf_counter()
            threads.observe(computing=ended - arrived, reading=batch.read + batch.cut)
        threads.restore()
        outcome.limits |= LIMITS
        return outcome

    def _load_models(self, device: str, outcome: PassOutcome) -> list[LoadedModel]:
        """Move the models to the device; one that does not load fails alone."""
        models = []
        for evaluation in self.evaluations:
            job = evaluation.job
            self.report(Progress(job=job, phase="loading weights"))
            try:
                model = evaluation.weights.load(res=evaluation.view.res, classes=self.images.classes).to(device)
            except (HarnessError, RuntimeError, OSError) as error:
                outcome.failed[job.key] = error_message(error)
                continue
            size = self.batch_size or max(1, self._batch_size(device) * 224**2 // evaluation.view.res**2)
            predictor = Predictor(model, precision=str(job["precision"]), batch_size=size)
            models.append(LoadedModel(evaluation=evaluation, predictor=predictor))
        return models

    def _batch_size(self, device: str) -> int:
        return self.batch_size or BATCH_SIZE[device.partition(":")[0]]

    def _predict(self, model: LoadedModel, batch: ImageBatch, device_batch: DeviceBatch, outcome: PassOutcome) -> None:
        """Run a batch through a model; if that fails, the model's job has failed.

        An unreadable image has no prediction.
        """
        job = model.evaluation.job
        try:
            with outcome.timed("to device and normalise"):
                images = device_batch.images(model.evaluation.view, str(job["norm"]))
            with outcome.timed("forward"):
                heads = model.predictor.predict(images)
        except (JobError, RuntimeError) as error:
            first, last = self.images.names[batch.positions[0]], self.images.names[batch.positions[-1]]
            outcome.failed[job.key] = f"{error_message(error)} (images {first} to {last})"
            return
        unreadable = [row for row, position in enumerate(batch.positions) if position in batch.unreadable]
        for head in heads.values():
            head.top[unreadable], head.scores[unreadable], head.probability[unreadable] = -1, 0, 0
        names = tuple(self.images.names[position] for position in batch.positions)
        model.buffer.append(Predictions(names=names, labels=self.images.labels[batch.positions], heads=heads))

    def _save(self, shard: Shard, models: Sequence[LoadedModel], outcome: PassOutcome) -> None:
        """Write the predictions of a shard, unless it has an unreadable image that must not be skipped."""
        complete = self.inputs.skip_unreadable or not any(
            n in outcome.unreadable for n in range(shard.start, shard.stop)
        )
        for model in models:
            evaluation = model.evaluation
            if complete and shard in evaluation.missing and evaluation.job.key not in outcome.failed:
                evaluation.partial.save(shard, concatenate(model.buffer))
            model.buffer = []

    def _report_progress(self, done: int, total: int, rate: float) -> None:
        models = len({(pending.job["model"], pending.job.get("weights")) for pending in self.evaluations})
        views = f", {len(self.evaluations)} evaluations" if len(self.evaluations) != models else ""
        title = f"{models} model{'s' if models != 1 else ''}{views} over {self.images.data}{self.group}"
        self.report(Progress(job=self.evaluations[0].job, phase="", overview=title, done=done, total=total, rate=rate))


def _batches(shards: Sequence[Shard], size: int) -> list[tuple[Shard, range]]:
    """Split the shards into batches of positions, so that none straddles two shards."""
    return [
        (shard, range(start, min(start + size, shard.stop)))
        for shard in shards
        for start in range(shard.start, shard.stop, size)
    ]
