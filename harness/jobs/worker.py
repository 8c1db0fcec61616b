"""A batch of jobs -> one result each in the store.  What runs in the child process."""

import contextlib
import importlib
import inspect
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
from harness.errors import HarnessError, JobError
from harness.jobs import Outcome, inventory, models, own_device, train
from harness.jobs.data.check import check_images
from harness.jobs.data.open import open_images
from harness.jobs.evaluate import evaluate
from harness.jobs.fresh import error_message, exit_with_parent
from harness.jobs.precision import hardware_warnings
from harness.jobs.speed.throughput import Shortening
from harness.jobs.speed.workload import flags_of
from harness.jobs.training.process import follow
from harness.jobs.training.trainer import TrainingStopped
from harness.machine import Machine, gpus, pin_gpus
from harness.plan.job import Job
from harness.run.messages import Batch, CheckReport, Inputs, Progress, Report, Saved
from harness.specs.kinds import KINDS, OUR_KINDS
from harness.store import predictions
from harness.store.result import Measurement, Result, new_id, verified
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

    def arguments(self, function: Callable[..., Outcome], job: Job) -> dict[str, Any]:
        """Return what a function that measures takes, by the names of its parameters.

        `device` is the one device of a measurement and `devices` all that the job may use, at least one; `ends` is when
        a measurement has to end, by the clock that all processes share, `shortening` all that may end one early, and
        `weights` the file that a training writes.
        """
        batch = self.batch
        ends = None if batch.seconds is None else self.began + batch.seconds
        given: dict[str, Any] = {
            "job": job,
            "report": self.report,
            "device": batch.device,
            "devices": batch.devices or (batch.device,),
            "threads": batch.machine.threads,
            "cores": batch.cores,
            "inputs": batch.inputs,
            "runs": batch.runs,
            "store": self.store,
            "weights": self.store.weights_for(job, self.result_id),
            "ends": ends,
            "shortening": Shortening(ends=ends, rivals=batch.rivals),
        }
        parameters = inspect.signature(function).parameters.values()
        missing = [each.name for each in parameters if each.default is each.empty and each.name not in given]
        if missing:
            raise JobError(f"{KINDS[job.kind].function} takes '{missing[0]}', but a job is given {', '.join(given)}")
        return {each.name: given[each.name] for each in parameters if each.name in given}


def entry_function(kind: str) -> Callable[..., Outcome]:
    """Import the function that measures a kind of job.  Raises `JobError` where that fails, in whichever way."""
    module, _, name = KINDS[kind].function.partition(":")
    try:
        function: Callable[..., Outcome] = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise JobError(f"{module}:{name} cannot be loaded ({type(error).__name__}: {error})") from error
    return function


# Ours are imported before a process is forked for each measurement, which then starts at once.
OUR_FUNCTIONS: Mapping[str, Callable[..., Outcome]] = {kind: entry_function(kind) for kind in OUR_KINDS}

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
        function = OUR_FUNCTIONS.get(job.kind) or entry_function(job.kind)
        metrics, facts, warnings = function(**context.arguments(function, job))
        _check_metrics(job.kind, metrics)
        return _finish(result, clock, metrics=metrics, facts=facts, warnings=tuple(warnings))
    except TrainingStopped:
        raise
    except Exception as error:  # noqa: BLE001 -- a job's failure is a result, whatever it is
        return _finish(result, clock, error=error_message(error))


def _check_metrics(kind: str, metrics: Mapping[str, Measurement]) -> None:
    """Raise `JobError` for metrics that the kind does not declare, or declares in another unit."""
    declared = KINDS[kind].metrics
    for name, measurement in metrics.items():
        if measurement.unit != declared.get(name):
            units = ", ".join(f"{metric} in '{unit}'" for metric, unit in declared.items())
            raise JobError(f"a {kind} job gave {name} in '{measurement.unit}', but its kind declares {units}")


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
