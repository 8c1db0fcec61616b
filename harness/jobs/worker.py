"""A batch of jobs -> one result each in the store.  What runs in the child process."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness import atomic
from harness.errors import HarnessError
from harness.jobs import Outcome, count, inventory, models, own_device, recipe, train
from harness.jobs.data.check import check_images
from harness.jobs.data.open import inspect_dataset, open_images
from harness.jobs.evaluate import agreement, evaluate, tokens
from harness.jobs.fresh import error_message, exit_with_parent
from harness.jobs.precision import hardware_warnings
from harness.jobs.speed import peaks, throughput, train_speed
from harness.jobs.speed.workload import flags_of
from harness.jobs.training.process import follow
from harness.jobs.training.trainer import TrainingStopped
from harness.machine import Machine, gpus, pin_gpus
from harness.plan.job import Job
from harness.run.messages import Batch, CheckReport, Inputs, Progress, Report, Saved
from harness.store import predictions
from harness.store.result import Result, new_id, verified
from harness.store.store import Store

# Progress is reported at most this often, so that reporting never costs a measurement more.
REPORT_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What a job is run with; `result_id` is the id that its result will have."""

    batch: Batch
    store: Store
    report: Report
    result_id: str
    began: float = field(default_factory=time.monotonic)

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices that the job may use, at least one."""
        return self.batch.devices or (self.batch.device,)

    @property
    def measured_on(self) -> dict[str, Any]:
        """The one device of a measurement."""
        return {"device": self.batch.device, "threads": self.batch.machine.threads}

    @property
    def ends(self) -> float | None:
        """When a measurement that can be shortened has to end, by the clock that all processes share."""
        return None if self.batch.seconds is None else self.began + self.batch.seconds


# Evaluations are not here: those over the same images share a pass.
ENTRY_FUNCTIONS: Mapping[str, Callable[[Job, JobContext], Outcome]] = {
    "agreement": lambda job, context: agreement.measure_agreement(job, context.store),
    "ceilings": lambda job, context: peaks.measure_peaks(job, context.report, **context.measured_on),
    "count": lambda job, context: count.count_model(job, context.report),
    "dataset": lambda job, context: inspect_dataset(job, context.batch.inputs, context.report),
    "recipe": lambda job, _context: recipe.resolve_recipe(job),
    "throughput": lambda job, context: throughput.measure_throughput(
        job, context.report, ends=context.ends, **context.measured_on
    ),
    "tokens": lambda job, context: tokens.measure_token_cosines(
        job, context.batch.inputs, context.report, device=context.devices[0]
    ),
    "train": lambda job, context: train.train(
        job,
        context.batch.inputs,
        context.report,
        devices=context.devices,
        cores=context.batch.cores,
        runs=context.batch.runs,
        weights=context.store.weights_for(job, context.result_id),
    ),
    "train-speed": lambda job, context: train_speed.measure_train_speed(job, context.report, **context.measured_on),
}

# What the parent asks without running a job.
QUESTIONS: Mapping[str, Callable[..., object]] = {
    "unknown_models": models.unknown_model_messages,
    "inspect": inventory.inspect_inputs,
    "unfit_weights": inventory.unfit_weights,
    "model_names": models.model_names,
}


def run_batch(batch: Batch, pipe: Connection) -> None:
    """Run the jobs one after the other and save their results; a failing job fails alone."""
    _start_child()
    pin_gpus()
    store = Store(batch.runs)
    _redirect_output(str(store.log))
    # Files without a result are left alone while it may follow.
    folders = [store.root / job.key for job in batch.jobs if job.kind in ("evaluate", "train")]
    # A stopped training leaves a checkpoint, and the other jobs undone.
    with contextlib.suppress(TrainingStopped), atomic.occupying(folders):
        for result in _run_jobs(batch, store, _throttled(pipe)):
            store.save(result)
            pipe.send(Saved(job=result.job, id=result.id))
    pipe.close()


def answer(question: str, arguments: tuple[Any, ...], pipe: Connection) -> None:
    """Send the answer to one of the `QUESTIONS`."""
    _start_child()
    value = QUESTIONS[question](*arguments)
    with contextlib.suppress(BrokenPipeError):  # the parent was interrupted meanwhile
        pipe.send(value)
    pipe.close()


def check_dataset(inputs: Inputs, data: str, pipe: Connection) -> None:
    """Check every image of a dataset, sending reports of the progress and one of the outcome."""
    _start_child()
    report = _throttled(pipe)
    try:
        images = open_images(data, inputs.where(data))
        outcome = check_images(
            images, thorough=True, report=lambda done, total: report(CheckReport(done=done, total=total))
        )
    except HarnessError as error:
        outcome = CheckReport(problems=(str(error),))
    pipe.send(outcome)
    pipe.close()


def join_training(folder: Path, count: int) -> None:
    """Take part in a training that another node leads."""
    pin_gpus()
    follow(folder, count)


def _run_jobs(batch: Batch, store: Store, report: Report) -> Iterator[Result]:
    """Run evaluations, which a batch has only of the same images, in one pass, all other jobs one after the other.

    Each result is saved before the next is asked for: what a job could be resumed from goes last.
    """
    if batch.jobs[0].kind == "evaluate":
        yield from _run_evaluations(batch, store, report)
    else:
        for job in batch.jobs:
            result = _run_job(job, batch, store, report)
            yield result
            if job.kind == "train":
                train.clean_up(result, store)


def _run_job(job: Job, batch: Batch, store: Store, report: Report) -> Result:
    clock, result = time.perf_counter(), _empty_result(job, batch)
    context = JobContext(batch=batch, store=store, report=report, result_id=result.id)
    try:
        models.check_code(job)
        metrics, facts, warnings = ENTRY_FUNCTIONS[job.kind](job, context)
        return _finish(result, clock, metrics=metrics, facts=facts, warnings=tuple(warnings))
    except TrainingStopped:
        raise
    except Exception as error:  # noqa: BLE001 -- a job's failure is a result, whatever it is
        return _finish(result, clock, error=error_message(error))


def _run_evaluations(batch: Batch, store: Store, report: Report) -> Iterator[Result]:
    clock = time.perf_counter()
    pending = {job: _empty_result(job, batch) for job in batch.jobs}
    try:
        for job, outcome in evaluate.evaluate_batch(batch, report):
            if isinstance(outcome, str):
                yield _finish(pending.pop(job), clock, error=outcome)
                continue
            result = _finish(
                pending[job], clock, metrics=outcome.metrics, facts=outcome.facts, warnings=tuple(outcome.warnings)
            )
            if result.error is None:
                predictions.write(outcome.predictions, store.predictions_of(result))
            del pending[job]
            yield result
            outcome.partial.remove()
    except Exception as error:  # noqa: BLE001 -- a failure of the pass is the result of every job that it leaves
        yield from (_finish(result, clock, error=error_message(error)) for result in pending.values())


def _empty_result(job: Job, batch: Batch) -> Result:
    """Return the result of a job that starts now, with nothing measured yet."""
    started = datetime.now(tz=UTC)
    return Result(
        id=new_id(started), job=job, machine=batch.machine, software=batch.software, started=started, seconds=0.0
    )


def _finish(result: Result, clock: float, **outcome: Any) -> Result:  # noqa: ANN401 -- fields of a `Result`
    software = dict(result.software)
    if result.machine.device != "cpu":
        software["cudnn_seen"] = own_device.cudnn_version()
        if outcome.get("error") is None:
            outcome["warnings"] = (
                *outcome["warnings"],
                *_hardware_warnings(result.job, result.machine, outcome["facts"]),
            )
    return verified(replace(result, software=software, seconds=time.perf_counter() - clock, **outcome))


def _hardware_warnings(job: Job, machine: Machine, facts: Mapping[str, Any]) -> list[str]:
    """Return what the GPU lacks for the precision of a job."""
    architecture = next((gpu.architecture for gpu in gpus() if gpu.name == machine.name), None)
    if architecture is None:
        return []
    lowered, fused, compiled = facts.get("precision", job.get("precision")), True, bool(job.get("compile"))
    if job.kind == "throughput":
        flags = flags_of(job)
        lowered = flags.autocast or flags.dtype
        fused, compiled = flags.fused_attention, flags.compile is not None
    return hardware_warnings(str(lowered), architecture, fused=fused, compiled=compiled)


def _start_child() -> None:
    # Ctrl-C reaches the whole group; the parent decides what happens to this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()


def _throttled(pipe: Connection) -> Callable[[Progress | CheckReport], None]:
    """Return a function that sends reports, but for those of unfinished steps that follow too soon."""
    last = 0.0

    def report(progress: Progress | CheckReport) -> None:
        nonlocal last
        now = time.perf_counter()
        if progress.total and progress.done < progress.total and now - last < REPORT_SECONDS:
            return
        last = now
        pipe.send(progress)

    return report


def _redirect_output(log: str) -> None:
    """Write what libraries print to a file: the terminal belongs to the table."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(log, "ab", buffering=0) as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
