"""Images a second of a network: find the batch, confirm it, warm up, time the runs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch

from harness.errors import JobError
from harness.job import Job
from harness.jobs.device import Device, Runs, opened
from harness.jobs.fresh import in_fresh_process
from harness.jobs.timing import Probe, below_the_knee, knee, largest_batch, warm_up
from harness.jobs.workload import PROTOCOLS, Workload, applied
from harness.kinds import parse_memory
from harness.progress import Progress
from harness.result import Measurement
from harness.stats import doubts, summarise

# A batch that fitted in the search may not fit in the measurement, by the allocator's luck; more steps than these down
# mean that something else takes the memory.
MOST_STEPS_DOWN = 4

MOST_RETRIES = 2

Report = Callable[[Progress], None]
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]


class Steps(Protocol):
    """What is timed, by batch: a `Workload`, or a fake."""

    def step(self, batch: int) -> Callable[[], object]:
        """Make the step as the searches run it."""

    def compiled_step(self, batch: int) -> tuple[Callable[[], object], str]:
        """Make the step as the protocol wants it, and say why it is not compiled if it should be."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the measuring process brings home."""

    batch: int
    seconds: tuple[float, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TooLarge:
    """The measuring process ran out of memory."""

    batch: int


def work(job: Job, report: Report, *, device: str, threads: int) -> Outcome:
    """Measure one network on one device.

    On a GPU the largest batch is searched in a process of its own and confirmed by the measurement in another.  On a
    CPU `auto` takes the batch at which speed stops growing, found where it is measured.
    """
    wanted = job["batch"]
    if wanted == "largest" or (wanted == "auto" and device != "cpu"):
        timed = _at_largest_batch(job, report, device, threads)
    else:
        found = in_fresh_process(_measure, job, report, device, threads, None if wanted == "auto" else int(wanted))
        if isinstance(found, TooLarge):
            raise JobError(f"out of memory at batch {found.batch}")
        timed = found
    return _outcome(timed)


def _outcome(timed: Timed) -> Outcome:
    """Sum the runs up: im/s is batch times runs over their total time (design of the paper's 30 runs)."""
    summary = summarise(timed.seconds)
    throughput = Measurement(
        unit="im/s",
        value=timed.batch * len(timed.seconds) / sum(timed.seconds),
        low=timed.batch / summary.high,
        high=timed.batch / summary.low if summary.low > 0 else None,
        samples=timed.seconds,
        sample_unit="s",
    )
    facts = {
        "batch": timed.batch,
        "seconds_mean": summary.mean,
        "seconds_median": summary.median,
        "variation": summary.variation,
        **timed.facts,
    }
    metrics = {"throughput": throughput, "batch": Measurement(unit="images", value=timed.batch)}
    energy = timed.facts.get("nvml", {}).get("energy")
    if energy is not None:
        metrics["energy"] = Measurement(unit="J/image", value=energy / (timed.batch * len(timed.seconds)))
    return metrics, facts, [*doubts(timed.seconds), *timed.warnings]


def _at_largest_batch(job: Job, report: Report, device: str, threads: int) -> Timed:
    """Search in one process and measure in fresh ones; if the batch does not fit after all, with one image less."""
    probes = in_fresh_process(_search, job, report, device, threads)
    batch = max((probe.batch for probe in probes if probe.outcome == "fits"), default=0)
    if not batch:
        raise JobError(f"out of memory at batch 1 under {job['memory']}; give more with --memory")
    for stepped in range(min(MOST_STEPS_DOWN + 1, batch)):
        found = in_fresh_process(_measure, job, report, device, threads, batch - stepped)
        if isinstance(found, Timed):
            doubt = below_the_knee(probes)
            return replace(
                found,
                facts={**found.facts, "probes": [asdict(p) for p in probes], "steps_down": stepped},
                warnings=(*found.warnings, doubt) if doubt else found.warnings,
            )
    raise JobError(
        f"batch {batch} fitted in the search but not in the measurement: does something else use the memory?",
    )


def _search(job: Job, report: Report, device: str, threads: int) -> list[Probe]:
    """Find the largest batch under the job's cap; every probe is kept."""
    probes = []
    with opened(device, threads) as there, applied(PROTOCOLS[str(job["protocol"])]):
        workload = Workload(job, there.torch_name)
        room = there.limit_memory(parse_memory(str(job["memory"]))).room
        for probe in largest_batch(lambda batch: attempt(workload.step, batch, there), cap=room):
            probes.append(probe)
            report(Progress(job=job, phase=f"batch {probe.batch}: {probe.outcome}", done=len(probes)))
    return probes


def attempt(step_of: Callable[[int], Callable[[], object]], batch: int, device: Device) -> Probe:
    """Try one batch; only a lack of memory counts as too large, any other error passes."""
    device.forget()
    seconds, outcome = 0.0, "fits"
    try:
        step = step_of(batch)
        # Twice: a second run may find the first one's output still held.
        for _ in range(2):
            seconds = device.seconds_of(step)
    except (RuntimeError, MemoryError) as error:
        if not device.ran_out(error):
            raise
        outcome = "out of memory"
    memory = device.memory()
    return Probe(
        batch=batch,
        outcome=outcome,
        seconds=seconds,
        allocated=memory.allocated,
        reserved=memory.reserved,
    )


def _measure(job: Job, report: Report, device: str, threads: int, batch: int | None) -> Timed | TooLarge:
    """Build, check, warm up, time.  A batch of None is chosen where im/s stop growing."""
    report(Progress(job=job, phase="building"))
    with opened(device, threads) as there, applied(PROTOCOLS[str(job["protocol"])]):
        workload = Workload(job, there.torch_name)
        cap = parse_memory(str(dict(job.settings).get("memory", "all"))) if batch else None
        limit = there.limit_memory(cap)
        try:
            workload.check()
            timed = timed_on(there, workload, job, report, batch)
        except (RuntimeError, MemoryError) as error:
            if batch is None or not there.ran_out(error):
                raise
            return TooLarge(batch=batch)
    return replace(
        timed,
        facts={"flags": asdict(workload.flags), **limit.facts, **timed.facts},
        warnings=(*timed.warnings, *limit.warnings),
    )


def timed_on(device: Device, workload: Steps, job: Job, report: Report, batch: int | None) -> Timed:
    """Choose the batch if none was given, warm up, time the runs; what was disturbed is timed again, twice at most."""
    probes: tuple[Probe, ...] = ()
    before: tuple[float, ...] = ()
    if batch is None:
        report(Progress(job=job, phase="finding the batch"))
        found = knee(lambda size: _few_runs(workload.step(size), device))
        batch, probes, before = found.batch, found.probes, found.runs
    report(Progress(job=job, phase=f"warming up, batch {batch}"))
    step, not_compiled = workload.compiled_step(batch)
    # Before the warm-up, never after it: memory given back would be asked for again inside the first timed run.
    device.forget()
    yardstick = device.yardstick()
    warm = warm_up(step, device, before=before)
    runs, spoiled = _undisturbed(device, step, batch, job, report)
    memory = device.memory()
    facts: dict[str, Any] = {
        "warm_up": list(warm.seconds),
        "warm_up_steady": warm.steady,
        "wall": runs.wall,
        "peak_allocated": memory.allocated,
        "peak_reserved": memory.reserved,
        "not_compiled": not_compiled or None,
        "yardstick": None if yardstick is None else [yardstick, device.yardstick()],
        "disturbed": bool(runs.disturbances),
        "spoiled": [{"seconds": list(one.seconds), "by": list(one.disturbances)} for one in spoiled],
        **runs.facts,
    }
    if probes:
        facts["probes"] = [asdict(probe) for probe in probes]
    if device.torch_name == "cpu":
        facts["threads"] = torch.get_num_threads()
    warnings = [*runs.disturbances, *runs.warnings]
    if runs.disturbances:
        warnings[0] += f" (still so after {len(spoiled)} more tries)"
    if not warm.steady:
        warnings.append(f"the warm-up was not steady after {len(warm.seconds)} runs")
    if not_compiled:
        warnings.append(not_compiled)
    return Timed(batch=batch, seconds=runs.seconds, facts=facts, warnings=tuple(warnings))


def _undisturbed(
    device: Device, step: Callable[[], object], batch: int, job: Job, report: Report
) -> tuple[Runs, list[Runs]]:
    """Time the runs until nothing spoils them, three times at most; the last try counts, the others are kept beside."""
    repeats = int(job["repeats"])
    spoiled: list[Runs] = []

    def each(run: int) -> None:
        again = f", again because {spoiled[-1].disturbances[0]}" if spoiled else ""
        report(Progress(job=job, phase=f"timing, batch {batch}{again}", done=run, total=repeats))

    while True:
        runs = device.time_runs(step, repeats, each)
        if not runs.disturbances or len(spoiled) == MOST_RETRIES:
            return runs, spoiled
        spoiled.append(runs)


def _few_runs(step: Callable[[], object], device: Device) -> list[float]:
    """Time one run of a slow network, a few of a fast one."""
    runs = [device.seconds_of(step)]
    while len(runs) < 5 and sum(runs) < 0.3:
        runs.append(device.seconds_of(step))
    return runs
