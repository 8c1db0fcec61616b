"""A batch of jobs -> one result each in the store.  What runs in the child process."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness import predictions
from harness.errors import HarnessError
from harness.job import Job
from harness.jobs import agreement, ceilings, count, dataset, evaluate, network, recipe, seen, throughput, tokens, train
from harness.jobs.check import check as check_images
from harness.jobs.fresh import die_with_parent, sentence
from harness.jobs.images import open_images
from harness.jobs.training.loop import Stopped
from harness.progress import Batch, Checked, Inputs, Progress, Saved, Seen
from harness.result import Measurement, Result, new_id
from harness.store import Store

Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]


def work(batch: Batch, pipe: Connection, log: str) -> None:
    """Do the jobs one after the other; a failing job fails alone."""
    # Ctrl-C reaches the whole group; what happens to this process is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    # NVML counts cards by their place; CUDA would count them by speed.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    _write_output_to(log)
    store = Store(batch.runs)
    report = _reporter(pipe)
    with contextlib.suppress(Stopped):  # a training that was told to stop leaves a checkpoint, and the rest undone
        for job, result in _results(batch, store, report):
            store.save(result)
            pipe.send(Saved(job=job, id=result.id))
    pipe.close()


def unknown_models(names: tuple[str, ...], pipe: Connection) -> None:
    """Answer which of these names timm does not know, with a sentence each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    unknown = {name: reason for name in names if (reason := network.unknown(name))}
    with contextlib.suppress(BrokenPipeError):  # whoever asked was interrupted meanwhile
        pipe.send(unknown)
    pipe.close()


def look(inputs: Inputs, jobs: tuple[Job, ...], pipe: Connection) -> None:
    """Answer what is there of the data and weights that these jobs need."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    found: Seen = seen.look(inputs, jobs)
    with contextlib.suppress(BrokenPipeError):  # whoever asked was interrupted meanwhile
        pipe.send(found)
    pipe.close()


def unfit(inputs: Inputs, jobs: tuple[Job, ...], pipe: Connection) -> None:
    """Answer which weights of these jobs cannot be read or do not fit, with a sentence each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    found = seen.unfit(inputs, jobs)
    with contextlib.suppress(BrokenPipeError):  # whoever asked was interrupted meanwhile
        pipe.send(found)
    pipe.close()


def follow(folder: Path, count: int) -> None:
    """Take part in a training that another node leads."""
    train.follow(folder, count)


def check(inputs: Inputs, data: str, pipe: Connection) -> None:
    """Look at every image of a data set, and say what is found as it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.perf_counter() - last >= 0.1:
            last = time.perf_counter()
            pipe.send(Checked(done=done, total=total))

    try:
        found = check_images(open_images(data, inputs.where(data)), thorough=True, report=report)
        last_word = Checked(lines=found.lines, notes=found.notes, problems=found.problems)
    except HarnessError as error:
        last_word = Checked(problems=(str(error),))
    pipe.send(last_word)
    pipe.close()


def _results(batch: Batch, store: Store, report: Callable[[Progress], None]) -> Iterator[tuple[Job, Result]]:
    """Do the jobs: evaluations over the same images in one pass, all others one after the other."""
    together: dict[str, list[Job]] = {}
    for job in batch.jobs:
        together.setdefault(str(job["data"]) if job.kind == "evaluate" else job.key, []).append(job)
    for jobs in together.values():
        if jobs[0].kind == "evaluate":
            yield from _evaluated(jobs, batch, store, report)
        else:
            yield jobs[0], _run(jobs[0], batch, store, report)


def _evaluated(
    jobs: list[Job], batch: Batch, store: Store, report: Callable[[Progress], None]
) -> Iterator[tuple[Job, Result]]:
    started, clock = datetime.now(tz=UTC), time.perf_counter()
    left = list(jobs)

    def result(job: Job, **told: Any) -> Result:  # noqa: ANN401 -- what a `Result` takes
        return _result(job, batch, started, time.perf_counter() - clock, **told)

    try:
        for job, found in evaluate.work(jobs, batch.inputs, _site(batch), report):
            left.remove(job)
            if isinstance(found, str):
                yield job, result(job, error=found)
                continue
            one = result(job, metrics=found.metrics, facts=found.facts, warnings=tuple(found.warnings))
            predictions.write(found.predictions, store.predictions_of(one))
            yield job, one
            found.parts.remove()
    except Exception as problem:  # noqa: BLE001 -- a failure of the pass is the result of every job it leaves
        for job in left:
            yield job, result(job, error=sentence(problem))


def _run(job: Job, batch: Batch, store: Store, report: Callable[[Progress], None]) -> Result:
    started, clock = datetime.now(tz=UTC), time.perf_counter()
    name = new_id(started)
    told: dict[str, Any] = {}
    try:
        metrics, facts, warnings = _do(job, name, batch, store, report)
        told = {"metrics": metrics, "facts": facts, "warnings": tuple(warnings)}
    except Stopped:
        raise
    except Exception as problem:  # noqa: BLE001 -- a job's failure is a result, whatever it is
        told = {"error": sentence(problem)}
    return _result(job, batch, started, time.perf_counter() - clock, name=name, **told)


def _result(
    job: Job,
    batch: Batch,
    started: datetime,
    seconds: float,
    name: str = "",
    **told: Any,  # noqa: ANN401
) -> Result:
    return Result(
        id=name or new_id(started),
        job=job,
        machine=batch.machine,
        software={**batch.software, **_seen_from_here(batch.device)},
        started=started,
        seconds=seconds,
        **told,
    )


def _do(job: Job, name: str, batch: Batch, store: Store, report: Callable[[Progress], None]) -> Outcome:
    if job.kind == "recipe":
        return recipe.work(job)
    if job.kind == "train":
        return train.work(
            job,
            batch.inputs,
            report,
            devices=batch.devices or (batch.device,),
            cores=batch.cores,
            runs=batch.runs,
            weights=store.weights_for(job, name),
        )
    if job.kind == "count":
        return count.work(job, report)
    if job.kind == "throughput":
        return throughput.work(job, report, device=batch.device, threads=batch.machine.threads)
    if job.kind == "ceilings":
        return ceilings.work(job, report, device=batch.device, threads=batch.machine.threads)
    if job.kind == "agreement":
        return agreement.work(job, store)
    if job.kind == "tokens":
        return tokens.work(job, batch.inputs, _site(batch), report)
    if job.kind == "dataset":
        return dataset.work(job, batch.inputs, report)
    raise NotImplementedError(f"no way to do {job.kind} jobs")


def _site(batch: Batch) -> evaluate.Site:
    return evaluate.Site(devices=batch.devices or (batch.device,), memory=batch.machine.memory, runs=batch.runs)


def _seen_from_here(device: str) -> dict[str, str]:
    """Tell what only torch knows of the software, without making a CUDA context."""
    if device == "cpu":
        return {}
    return {"cudnn_seen": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]


def _reporter(pipe: Connection) -> Callable[[Progress], None]:
    """Make a way to report that never costs the measurement more than a message each tenth of a second."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.perf_counter()
        if progress.total and progress.done < progress.total and now - last < 0.1:
            return
        last = now
        pipe.send(progress)

    return report


def _write_output_to(log: str) -> None:
    """Send what libraries print to a file: the terminal belongs to the table."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
