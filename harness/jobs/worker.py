"""A batch of jobs -> one result each in the store.  What runs in the child process."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.jobs import ceilings, count, network, throughput
from harness.jobs.fresh import die_with_parent, sentence
from harness.plan import Job
from harness.progress import Batch, Progress, Saved
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
    for job in batch.jobs:
        result = _run(job, batch, report)
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


def _run(job: Job, batch: Batch, report: Callable[[Progress], None]) -> Result:
    started, clock = datetime.now(tz=UTC), time.perf_counter()
    metrics: dict[str, Measurement] = {}
    facts: dict[str, Any] = {}
    warnings: list[str] = []
    error = None
    try:
        metrics, facts, warnings = _do(job, batch, report)
    except Exception as problem:  # noqa: BLE001 -- a job's failure is a result, whatever it is
        error = sentence(problem)
    return Result(
        id=new_id(started),
        job=job,
        machine=batch.machine,
        software={**batch.software, **_seen_from_here(batch.device)},
        started=started,
        seconds=time.perf_counter() - clock,
        metrics=metrics,
        facts=facts,
        warnings=tuple(warnings),
        error=error,
    )


def _do(job: Job, batch: Batch, report: Callable[[Progress], None]) -> Outcome:
    if job.kind == "count":
        return count.work(job, report)
    if job.kind == "throughput":
        return throughput.work(job, report, device=batch.device, threads=batch.machine.threads)
    if job.kind == "ceilings":
        return ceilings.work(job, report, device=batch.device, threads=batch.machine.threads)
    raise NotImplementedError(f"no way to do {job.kind} jobs")


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
