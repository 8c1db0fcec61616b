"""Images a second of a model: find the batch, confirm it, warm up, time the iterations."""

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Protocol

import torch

from harness.errors import JobError
from harness.jobs import Outcome
from harness.jobs.fresh import run_in_fresh_process
from harness.jobs.speed.batch_size import Probe, find_saturation, largest_batch, saturation_warning
from harness.jobs.speed.device import Device, Timings, open_device
from harness.jobs.speed.timing import (
    Iterations,
    is_placed,
    time_until_clean,
    time_until_placed,
    warm_up,
    warm_up_briefly,
)
from harness.jobs.speed.workload import Workload, flags_of, set_flags
from harness.machine import GIB
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.specs.kinds import PERCENTILES, SCRIPT, parse_memory
from harness.stats import Interval, mean_interval, percentile, timing_warnings, variation
from harness.store.result import Measurement

# A batch that fitted in the search may not fit in the measurement, depending on fragmentation; more steps down than
# these mean that something else takes the memory.
MAX_STEPS_DOWN = 4

# Of a measurement that is shortened, and of the clean ones that count alone.
LEAST_ITERATIONS = 5

# Why a clean iteration does not count: it was timed for the counters to move, and there were enough already.
ENOUGH = "nothing, but enough were clean"

# Iterations before the timed ones in timm's benchmark.py.
SCRIPT_WARM_UP = 10


@dataclass(frozen=True, kw_only=True)
class Shortening:
    """What ends a measurement before all its iterations: the monotonic clock, or its place among `rivals`.

    `rivals` are the throughputs of other models, in images/s, that a quick measurement is compared with; None for one
    that is not quick.
    """

    ends: float | None = None
    rivals: Sequence[Interval] | None = None


WHOLE = Shortening()


@dataclass(frozen=True, kw_only=True)
class TimedBatch:
    """What the measuring process returns; `kept` are the indices of the iterations that count, among all timed ones."""

    batch: int
    seconds: tuple[float, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    kept: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """The number of timed iterations, those that were dropped included."""
        return len(self.kept) + len(self.facts["dropped"])


def measure_throughput(
    job: Job, report: Report, *, device: str, threads: int, shortening: Shortening = WHOLE
) -> Outcome:
    """Measure one model on one device.

    The largest batch, which `auto` takes on a GPU as published, is searched in a process of its own and confirmed by
    the measurement in another.  `modern`, and any protocol on a CPU, takes the saturation batch size instead; on a CPU
    it is determined where it is measured.
    """
    batch = job["batch"]
    if batch == "largest" or (batch == "auto" and device != "cpu"):
        return _with_latency(_time_found_batch(job, report, device, threads, shortening))
    size = None if batch == "auto" else int(batch)
    timed = run_in_fresh_process(_measure, job, report, device, threads, size, shortening)
    if isinstance(timed, str):
        raise JobError(f"{timed} at batch {batch}")
    return _with_latency(timed)


def _with_latency(timed: TimedBatch) -> Outcome:
    """Summarise the iterations, and how long a batch takes: the mean, and the percentiles that they are enough for."""
    metrics, facts, warnings = summarise(timed)
    mean = mean_interval(timed.seconds)
    latency = Measurement(unit="ms", value=1000 * mean.value, low=1000 * mean.low, high=1000 * mean.high)
    percentiles = {name: percentile(timed.seconds, percent) for name, percent in PERCENTILES.items()}
    more = {
        "latency": latency,
        **{name: Measurement(unit="ms", value=1000 * value) for name, value in percentiles.items() if value},
    }
    if facts["peak_allocated"]:
        more["peak_memory"] = Measurement(unit="GiB", value=facts["peak_allocated"] / GIB)
    if facts.get("compile_seconds"):
        more["compile_time"] = Measurement(unit="s", value=facts["compile_seconds"])
    return {**metrics, **more}, facts, warnings


def summarise(timed: TimedBatch) -> Outcome:
    """Summarise the iterations, as the paper does its 30: throughput is batch times iterations over the total time."""
    seconds = mean_interval(timed.seconds)
    images = timed.batch * len(timed.seconds)
    interval = throughput_interval(timed.batch, timed.seconds)
    throughput = Measurement(
        unit="im/s",
        value=interval.value,
        low=interval.low,
        high=interval.high if math.isfinite(interval.high) else None,
        samples=timed.seconds,
        sample_unit="s",
    )
    facts = {
        "batch": timed.batch,
        "seconds_mean": seconds.value,
        "seconds_median": median(timed.seconds),
        "variation": variation(timed.seconds),
        **timed.facts,
    }
    metrics = {"throughput": throughput, "batch": Measurement(unit="images", value=timed.batch)}
    energy = timed.facts.get("nvml", {}).get("energy")
    if energy is not None:
        metrics["energy"] = Measurement(unit="J/image", value=energy / images)
    return metrics, facts, [*timing_warnings(timed.seconds), *timed.warnings]


def throughput_interval(batch: int, seconds: Sequence[float]) -> Interval:
    """Return the images a second of iterations; the upper end is infinite where their mean may as well be zero."""
    mean = mean_interval(seconds)
    return Interval(
        value=batch * len(seconds) / sum(seconds),
        low=batch / mean.high,
        high=batch / mean.low if mean.low > 0 else math.inf,
    )


def saturates(job: Job) -> bool:
    """Whether a job's batch on a GPU is the one at which throughput stops growing, not the largest that fits.

    A whole GPU of today holds batches of which single tensors have several times 2³¹ elements.
    """
    return job["batch"] == "auto" and job["protocol"] == "modern"


def _time_found_batch(job: Job, report: Report, device: str, threads: int, shortening: Shortening) -> TimedBatch:
    """Search in one process and measure in fresh ones; if the batch does not fit after all, with less.

    One image less than the largest batch, half of the one at which throughput saturates.
    """
    batch, probes = run_in_fresh_process(_search, job, report, device, threads)
    if not batch:
        raise JobError(f"{probes[0].outcome} at batch 1 under {job['memory']}; give more with --memory")
    smaller = [batch >> n if saturates(job) else batch - n for n in range(MAX_STEPS_DOWN + 1)]
    for steps_down, size in enumerate(filter(lambda size: size > 0, smaller)):
        timed = run_in_fresh_process(_measure, job, report, device, threads, size, shortening)
        if not isinstance(timed, str):
            warning = saturation_warning(probes)
            return replace(
                timed,
                facts={**timed.facts, "probes": [asdict(p) for p in probes], "steps_down": steps_down},
                warnings=(*timed.warnings, warning) if warning else timed.warnings,
            )
    raise JobError(
        f"batch {batch} fitted in the search but not in the measurement: does something else use the memory?"
    )


def _search(job: Job, report: Report, device: str, threads: int) -> tuple[int, Sequence[Probe]]:
    """Find the batch under the job's memory limit, 0 if none fits; every probe is kept."""
    probes = []
    with open_for(job, device, threads) as opened:
        # cuDNN's own search would begin anew at each probe.
        set_flags(replace(flags_of(job), cudnn_benchmark=False))
        workload = Workload(job, opened.torch_name)
        limit = opened.set_memory_limit(parse_memory(str(job["memory"]))).available
        most = None if device == "cpu" else workload.most_images()
        if saturates(job):
            saturation = find_saturation(
                lambda batch: _time_if_it_fits(workload, batch, opened, job, report), largest=most
            )
            return saturation.batch, saturation.probes
        for probe in largest_batch(
            lambda batch: probe_batch(workload.make_step, batch, opened), limit=limit, most=most
        ):
            probes.append(probe)
            report(Progress(job=job, phase=f"batch {probe.batch}: {probe.outcome}", done=len(probes)))
    return max((probe.batch for probe in probes if probe.outcome == "fits"), default=0), probes


def open_for(job: Job, device: str, threads: int) -> AbstractContextManager[Device]:
    """Open a device as the switches of a job want it, with as many threads as it sets."""
    flags, requested = flags_of(job), job.get("threads", 0)
    return open_device(
        device,
        int(requested or threads),
        as_script=flags.as_script,
        synchronize=flags.synchronize,
        fewer_threads=bool(requested),
    )


def _time_if_it_fits(workload: Workload, batch: int, device: Device, job: Job, report: Report) -> list[float]:
    """Time a few iterations; none if the batch is too large."""
    report(Progress(job=job, phase=f"timing batch {batch}"))
    device.empty_cache()
    try:
        return _time_few_iterations(workload.make_step(batch), device)
    except Exception as error:
        if not device.too_large(error):
            raise
        return []


def probe_batch(make_step: Callable[[int], Callable[[], object]], batch: int, device: Device) -> Probe:
    """Try one batch; an error that does not say that it is too large propagates."""
    device.empty_cache()
    seconds, outcome = 0.0, "fits"
    try:
        step = make_step(batch)
        # Twice: during a second iteration the first one's output may still be allocated.
        for _ in range(2):
            seconds = device.time_step(step)
    except Exception as error:
        outcome = device.too_large(error)
        if not outcome:
            raise
    allocated, reserved = device.peak_memory()
    return Probe(batch=batch, outcome=outcome, seconds=seconds, allocated=allocated, reserved=reserved)


def _measure(  # noqa: PLR0913, PLR0917 -- what a fresh process is given
    job: Job, report: Report, device: str, threads: int, batch: int | None, shortening: Shortening
) -> TimedBatch | str:
    """Build, check, warm up, time; a text if the batch is too large, which says for what.

    A batch of None is chosen where throughput saturates.
    """
    report(Progress(job=job, phase="building"))
    with open_for(job, device, threads) as opened:
        set_flags(flags_of(job))
        workload = Workload(job, opened.torch_name)
        limit = opened.set_memory_limit(parse_memory(str(dict(job.settings).get("memory", "all"))) if batch else None)
        try:
            workload.check_output()
            timed = time_batch(opened, workload, job, report, batch, shortening)
            cost = workload.count_cost()  # last, so that the measurement is that of a process which did nothing else
        except Exception as error:
            reason = opened.too_large(error)
            if batch is None or not reason:
                raise
            return reason
    return replace(
        timed,
        facts={
            "flags": workload.flags.facts,
            **limit.facts,
            **({"compile_seconds": workload.compile_seconds} if workload.compile_seconds else {}),
            **timed.facts,
            **({"cost": cost} if cost else {}),
        },
        warnings=(*timed.warnings, *limit.warnings),
    )


class TimedWorkload(Protocol):
    """What is timed: a step for each batch size, and the batch sizes that it can have (None: no largest one)."""

    @property
    def smallest_batch(self) -> int:
        """The smallest batch size."""

    @property
    def largest_batch(self) -> int | None:
        """The largest batch size that is of use."""

    def make_step(self, batch: int) -> Callable[[], object]:
        """Return the step for a batch size."""

    def make_compiled_step(self, batch: int) -> tuple[Callable[[], object], str]:
        """Return the step as it is timed, and the reason if it is not compiled although it should be."""


def time_batch(  # noqa: PLR0913, PLR0917
    device: Device,
    workload: TimedWorkload,
    job: Job,
    report: Report,
    batch: int | None,
    shortening: Shortening = WHOLE,
) -> TimedBatch:
    """Choose the batch if none was given, warm up, time the iterations; those that something disturbed again."""
    probes: tuple[Probe, ...] = ()
    before: tuple[float, ...] = ()
    if batch is None:
        report(Progress(job=job, phase="finding the batch"))
        saturation = find_saturation(
            lambda size: _time_few_iterations(workload.make_step(size), device),
            smallest=workload.smallest_batch,
            largest=workload.largest_batch,
        )
        batch, probes, before = saturation.batch, saturation.probes, saturation.seconds
    report(Progress(job=job, phase=f"warming up, batch {batch}"))
    step, not_compiled = workload.make_compiled_step(batch)
    # Before the warm-up, never after it: released memory would be requested again inside the first timed iteration.
    device.empty_cache()
    reference = device.time_reference_workload()
    warm_up_seconds, steady = _warm_up(lambda: device.time_step(step), job, before, quick=shortening.rivals is not None)
    repeats = _iterations_until(shortening.ends, median(warm_up_seconds[-3:]), int(job["repeats"]))
    iterations, windows = _time_iterations(device, step, batch, job, report, repeats=repeats, shortening=shortening)
    noisy = len(iterations.clean) < min(repeats, len(iterations.seconds))
    kept = (iterations.clean if len(iterations.clean) >= LEAST_ITERATIONS else range(len(iterations.seconds)))[:repeats]
    allocated, reserved = device.peak_memory()
    facts: dict[str, Any] = {
        "warm_up": warm_up_seconds,
        "warm_up_steady": steady,
        "wall": sum(window.wall for window in windows),
        "peak_allocated": allocated,
        "peak_reserved": reserved,
        "not_compiled": not_compiled or None,
        "yardstick": None if reference is None else [reference, device.time_reference_workload()],
        "disturbed": noisy,
        "dropped": [
            {"index": index, "seconds": seconds, "by": iterations.disturbed.get(index, ENOUGH)}
            for index, seconds in enumerate(iterations.seconds)
            if index not in kept
        ],
        **_facts_of(windows),
    }
    if probes:
        facts["probes"] = [asdict(probe) for probe in probes]
    if device.torch_name == "cpu":
        facts["threads"] = torch.get_num_threads()
    warnings = [*retimed_warnings(iterations, windows, noisy=noisy), *_once(window.warnings for window in windows)]
    shortened, warning = _shortened(len(iterations.seconds), repeats, job, quick=shortening.rivals is not None)
    facts |= shortened
    warnings += warning
    if not steady:
        count = len(warm_up_seconds)
        warnings.append(f"the warm-up was not steady after {count} iterations: measure again when the machine is idle")
    if not_compiled:
        warnings.append(not_compiled)
    samples = tuple(iterations.seconds[index] for index in kept)
    return TimedBatch(batch=batch, seconds=samples, kept=tuple(kept), facts=facts, warnings=tuple(warnings))


def _warm_up(
    time_step: Callable[[], float], job: Job, before: Sequence[float], *, quick: bool
) -> tuple[list[float], bool]:
    """Warm up as the protocol says; return the seconds of each iteration, and whether they were steady if they have to.

    The published ones of a script were warmed up by so many iterations and no more.
    """
    if job.get("protocol") == SCRIPT:
        return [time_step() for _ in range(SCRIPT_WARM_UP)], True
    return (warm_up_briefly(time_step, before=before), True) if quick else warm_up(time_step, before=before)


def _shortened(timed: int, repeats: int, job: Job, *, quick: bool) -> tuple[dict[str, object], list[str]]:
    """Return what a result with too few iterations says of it: facts and warnings."""
    if quick:
        warning = f"a quick measurement of {timed} iterations: measure again without --quick"
        return {"shortened": timed, "quick": True}, [warning]
    if repeats < int(job["repeats"]):
        warning = f"{repeats} of {job['repeats']} iterations, for want of time: measure again without --budget"
        return {"shortened": repeats}, [warning]
    return {}, []


def _iterations_until(ends: float | None, seconds: float, repeats: int) -> int:
    """Return how many iterations there is time for, if one takes so many seconds: few, but not fewer than a few."""
    if ends is None:
        return repeats
    return min(repeats, max(LEAST_ITERATIONS, int((ends - time.monotonic()) / seconds)))


def _time_iterations(  # noqa: PLR0913
    device: Device,
    step: Callable[[], object],
    batch: int,
    job: Job,
    report: Report,
    *,
    repeats: int,
    shortening: Shortening,
) -> tuple[Iterations, list[Timings]]:
    """Time until enough iterations are clean, or until a quick one has its place, and return the windows as well."""
    windows: list[Timings] = []

    def time_more(count: int) -> Iterations:
        because = _once(window.interference for window in windows)
        again = f", again because {because[-1]}" if because and shortening.rivals is None else ""

        def on_step(iteration: int) -> None:
            report(Progress(job=job, phase=f"timing, batch {batch}{again}", done=iteration, total=count))

        windows.append(device.time_steps(step, count, on_step))
        return windows[-1]

    if (rivals := shortening.rivals) is not None:

        def has_place(seconds: Sequence[float]) -> bool:
            return is_placed(throughput_interval(batch, seconds), rivals)

        return time_until_placed(time_more, repeats, has_place), windows
    if repeats < int(job["repeats"]):  # no time for any of them again
        return time_more(repeats), windows
    seconds = math.inf if shortening.ends is None else shortening.ends - time.monotonic()
    return time_until_clean(time_more, repeats, window=device.window, seconds=seconds), windows


def _facts_of(windows: Sequence[Timings]) -> dict[str, Any]:
    """Return what is known of the last window with a clean iteration; the energy only of one that is all there is."""
    last = next((window for window in reversed(windows) if window.clean), windows[-1])
    facts: dict[str, Any] = dict(last.facts)
    if len(windows) > 1 and "nvml" in facts:
        facts["nvml"] = {**facts["nvml"], "energy": None}
    return facts


def retimed_warnings(iterations: Iterations, windows: Sequence[Timings], *, noisy: bool) -> list[str]:
    """Return how many iterations were clean and why not all of them, with a remedy where they were too few."""
    because = _once(window.interference for window in windows)
    if not because:
        return []
    clean, timed = len(iterations.clean), len(iterations.seconds)
    if noisy:
        return [f"{because[0]} ({clean} of {timed} iterations clean)", *because[1:]]
    return [f"{clean} of {timed} iterations clean, the others timed again: {because[0].partition(':')[0]}"]


def _once(texts: Iterable[Iterable[str]]) -> list[str]:
    """Return texts that differ in more than their numbers, each once, as it was last."""
    latest = {re.sub(r"[\d.]+", "#", text): text for group in texts for text in group}
    return list(latest.values())


def _time_few_iterations(step: Callable[[], object], device: Device) -> list[float]:
    """Time one iteration of a slow model, up to five of a fast one."""
    times = [device.time_step(step)]
    while len(times) < 5 and sum(times) < 0.3:
        times.append(device.time_step(step))
    return times
