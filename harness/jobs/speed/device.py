"""The CPU and a CUDA GPU: how each runs a step, times it and limits its memory."""

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch

from harness.errors import JobError
from harness.jobs.speed.allocator import ResourceUsage, release_freed_memory, retain_freed_memory
from harness.jobs.speed.reference_workload import ReferenceWorkload
from harness.jobs.speed.timing import Iterations
from harness.jobs.too_large import OUT_OF_MEMORY, too_large
from harness.machine import GIB, CpuClock, gpus, usable_cores
from harness.machine.monitor import SAMPLE_SECONDS, Monitor, monitor_gpu

# Share of CPU time spent in the kernel: with allocator retention it is next to none.
MOST_SYSTEM_SHARE = 0.05

# What others may use of the CPU, and the host take of it, in cores.
MOST_OTHERS, MOST_STOLEN = 0.05, 0.02

# The kernel counts CPU time in ticks of 10 ms on each core: a few of them are no load, however short the time was.
NO_LOAD = 0.025
SLICE_SECONDS = 1.0

# Bytes of a GPU that are taken though no process has them.
HELD_BY_DRIVER = GIB

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Timings(Iterations):
    """Timed iterations, and the wall clock over all of them.

    `interference` are sentences about what disturbed some of them, `warnings` about what is only worth knowing.
    """

    wall: float
    interference: Sequence[str] = ()
    warnings: Sequence[str] = ()
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """A memory limit as it was set: `available` bytes for tensors (None: no limit), and the rest for the result."""

    available: int | None
    facts: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Device(Protocol):
    """What a measurement needs from a device, which tells in about `window` seconds what disturbs it."""

    torch_name: str
    window: float

    def time_step(self, step: Step) -> float:
        """Run the step once and wait until the device has finished it."""

    def time_steps(self, step: Step, repeats: int, on_step: Callable[[int], None]) -> Timings:
        """Time that many iterations; `on_step` gets the number of each one that the device has been given."""

    def stamp(self) -> Any:  # noqa: ANN401 -- each device has its own
        """Return a mark of this moment of the device's work, for `seconds_between`."""

    def seconds_between(self, earlier: Any, later: Any) -> float:  # noqa: ANN401
        """Return the seconds from one mark to another, which the device has both passed."""

    def time_reference_workload(self) -> float | None:
        """Return the seconds of a fixed piece of work; None where the device itself reports its state."""

    def set_memory_limit(self, limit: int | None) -> MemoryLimit:
        """Limit the memory of what follows to so many bytes."""

    def peak_memory(self) -> tuple[int, int]:
        """Return the peak bytes since `empty_cache`: allocated to tensors, and reserved from the device."""

    def empty_cache(self) -> None:
        """Free what earlier steps left behind and reset the peak."""

    def too_large(self, error: BaseException) -> str:
        """Return what a batch is too large for; empty if the error says something else."""
        return too_large(error)


class Cpu(Device):
    """This machine's CPU, with a fixed number of threads; `as_script` leaves malloc as the system has it.

    `fewer_threads` than cores are no oversight where a job sets their number.
    """

    torch_name = "cpu"
    window = SLICE_SECONDS

    def __init__(self, threads: int, *, as_script: bool = False, fewer_threads: bool = False) -> None:
        torch.set_num_threads(threads)
        self._threads = threads
        self._cores = min(threads, usable_cores()) if fewer_threads else usable_cores()
        self._as_script = as_script
        self._retains_memory = not as_script and retain_freed_memory()
        self._reference_workload = ReferenceWorkload()
        self._idle_memory = _resident_memory()
        self._limited = False

    def time_step(self, step: Step) -> float:
        """A step on the CPU is finished when it returns."""
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    def time_steps(self, step: Step, repeats: int, on_step: Callable[[int], None]) -> Timings:
        """Time iterations one by one; record what other processes used of the CPU, and the kernel for this one.

        Interference is measured over slices of about a second, or for an iteration that is longer.
        """
        seconds: list[float] = []
        usage_before, start = ResourceUsage.now(), time.perf_counter()
        marks = [(0, CpuClock.now())]
        for iteration in range(repeats):
            seconds.append(self.time_step(step))
            on_step(iteration + 1)
            if _ends_slice(seconds, marks[-1][0], repeats):
                marks.append((len(seconds), CpuClock.now()))
        usage, wall = ResourceUsage.now().since(usage_before), time.perf_counter() - start
        facts: dict[str, object] = {
            "freed_memory_kept": self._retains_memory,
            "pages_asked_for": round(usage.page_faults / repeats),
            "system_share": round(usage.system_seconds / max(usage.cpu_seconds, 1e-9), 3),
        }
        warnings = [] if self._as_script else page_fault_warnings(usage, repeats, limited=self._limited)
        loads = _loads_by_iteration(marks, seconds)
        disturbed = {index: load.disturbance for index, load in loads.items() if load.disturbance}
        all_of_it = CpuLoad.between(marks[0][1], marks[-1][1], seconds=wall)
        if all_of_it is not None:
            facts |= all_of_it.facts
            if not disturbed:
                # Under background load the threads have to wait, which says nothing about the model.
                warnings += thread_warnings(self._threads, self._cores, all_of_it.own)
        worst = max((loads[index] for index in disturbed), key=lambda load: load.others + load.stolen, default=None)
        return Timings(
            seconds=tuple(seconds),
            disturbed=disturbed,
            wall=wall,
            interference=worst.sentences if worst else [],
            warnings=warnings,
            facts=facts,
        )

    def stamp(self) -> float:
        """Read the clock."""
        return time.perf_counter()

    def seconds_between(self, earlier: float, later: float) -> float:
        """Subtract."""
        return later - earlier

    def time_reference_workload(self) -> float:
        """Time it."""
        return self._reference_workload.seconds()

    def set_memory_limit(self, limit: int | None) -> MemoryLimit:
        """Limit the data that this process may hold, above what the libraries hold already."""
        if limit is None:
            return MemoryLimit(available=None)
        self._limited, self._retains_memory = True, False
        release_freed_memory()
        size = _process_status("VmData") + limit
        resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return MemoryLimit(available=limit, facts={"memory_cap": limit, "memory_cap_by": "RLIMIT_DATA"})

    def peak_memory(self) -> tuple[int, int]:
        """Peak resident bytes above those of an idle process; on the CPU torch's allocator counts none."""
        peak = max(0, _resident_memory(peak=True) - self._idle_memory)
        return peak, peak

    def empty_cache(self) -> None:
        """Collect garbage and reset the peak."""
        gc.collect()
        # 5 resets the peak resident size of the process; where it is not allowed the peak only ever grows.
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def too_large(self, error: BaseException) -> str:
        """As everywhere; under a limit oneDNN may also fail to get its scratch memory, with a message of its own."""
        if self._limited and "could not create a primitive" in str(error):
            return OUT_OF_MEMORY
        return too_large(error)


@dataclass(frozen=True, kw_only=True)
class CpuLoad:
    """Who used the CPU in so many seconds, each in cores: this process, other processes, and the host for others."""

    seconds: float
    own: float
    others: float
    stolen: float

    @classmethod
    def between(cls, before: CpuClock | None, after: CpuClock | None, *, seconds: float) -> "CpuLoad | None":
        """Return the load between two looks at the counters; None where the system has none."""
        if before is None or after is None:
            return None
        own = after.own - before.own
        others = max(0.0, after.busy - before.busy - own)
        stolen = after.stolen - before.stolen
        return cls(seconds=seconds, own=own / seconds, others=others / seconds, stolen=stolen / seconds)

    @property
    def facts(self) -> dict[str, object]:
        """What a result records."""
        return {
            "cores_used": round(self.own, 2),
            "cores_used_by_others": round(self.others, 2),
            "cores_stolen": round(self.stolen, 2),
        }

    @property
    def disturbance(self) -> str:
        """What disturbs a measurement; empty if nothing does."""
        return " and ".join(sentence.partition(" while ")[0] for sentence in self.sentences)

    @property
    def sentences(self) -> list[str]:
        """A sentence for each of what disturbs a measurement, with its remedy."""
        sentences = []
        if self.others > max(MOST_OTHERS, NO_LOAD / self.seconds):
            sentences.append(
                f"other processes used {self.others:.2f} cores while this was timed: measure again on an idle machine"
            )
        if self.stolen > max(MOST_STOLEN, NO_LOAD / 2 / self.seconds):
            sentences.append(
                f"the host took {self.stolen:.2f} cores away while this was timed: measure again when the host is idle"
            )
        return sentences


def _loads_by_iteration(marks: Sequence[tuple[int, CpuClock | None]], seconds: Sequence[float]) -> dict[int, CpuLoad]:
    """Return the load of the slice of each iteration; `marks` are the first iterations of slices, with the counters."""
    loads: dict[int, CpuLoad] = {}
    for (begin, before), (end, after) in pairwise(marks):
        load = CpuLoad.between(before, after, seconds=sum(seconds[begin:end]))
        loads |= {index: load for index in range(begin, end) if load is not None}
    return loads


def _ends_slice(seconds: Sequence[float], begin: int, repeats: int) -> bool:
    """Whether a slice that began with that iteration ends here: it is long enough, and so is what is left."""
    left = (repeats - len(seconds)) * seconds[-1]
    return len(seconds) == repeats or min(sum(seconds[begin:]), left) >= SLICE_SECONDS


def thread_warnings(threads: int, cores: int, used: float) -> list[str]:
    """Return warnings about a number of threads other than that of the cores, and about threads that had to wait."""
    warnings = []
    if threads < cores:
        warnings.append(f"torch was given {threads} of {cores} cores: set OMP_NUM_THREADS={cores} for all of them")
    if threads > cores:
        warnings.append(f"torch was given {threads} threads for {cores} cores, which then wait for each other")
    if used < 0.7 * min(threads, cores):
        warnings.append(f"only {used:.1f} of {min(threads, cores)} cores were busy: the model is too small for them")
    return warnings


def page_fault_warnings(usage: ResourceUsage, repeats: int, *, limited: bool) -> list[str]:
    """Return a warning where the kernel took part of the time: freed memory was not retained and had to be paged in.

    Under a memory limit the harness itself turns retention off; elsewhere malloc has no such setting.
    """
    share = usage.system_seconds / usage.cpu_seconds if usage.cpu_seconds > 0 else 0.0
    if share <= MOST_SYSTEM_SHARE:
        return []
    size = usage.page_faults * resource.getpagesize() / repeats / 2**20
    remedy = "measure without --memory" if limited else "preload an allocator that retains it, such as jemalloc"
    message = f"the kernel took {100 * share:.0f} % of the CPU time, because freed memory is not retained"
    return [f"{message} and each iteration pages in {size:.0f} MiB: {remedy}"]


def _process_status(name: str) -> int:
    """Return the bytes under a name of /proc/self/status; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith(f"{name}:")), None)
    return int(line.split()[1]) * 1024 if line else 0


def _resident_memory(*, peak: bool = False) -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _process_status("VmHWM" if peak else "VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Cuda(Device):
    """One CUDA GPU.  Created in the process that measures, never in one that forks.

    `synchronize` waits for the device after each timed iteration, which the wall clock then times.
    """

    window = 2 * SAMPLE_SECONDS

    def __init__(self, index: int, monitor: Monitor | None, *, synchronize: bool = False) -> None:
        if not torch.cuda.is_available():
            raise JobError(f"torch {torch.__version__} finds no CUDA GPU that it can use; `harness doctor` says why")
        self.torch_name = f"cuda:{index}"
        self._index = index
        self._monitor = monitor
        self._synchronizes = synchronize
        before = monitor.memory_used() if monitor is not None else None
        torch.cuda.set_device(index)
        torch.zeros(1, device=self.torch_name)  # makes the context, whose share the memory limit leaves out
        torch.cuda.synchronize()
        after = monitor.memory_used() if monitor is not None else None
        # What the GPU holds more than before; where nobody says, all that is taken has to count as the context.
        self._context = None
        if before is not None and after is not None:
            self._context = max(0, after - before - torch.cuda.memory_reserved())
        if monitor is not None:
            monitor.mark_own_processes()

    def time_step(self, step: Step) -> float:
        """Wall clock, with the device synchronized on both sides."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def time_steps(self, step: Step, repeats: int, on_step: Callable[[int], None]) -> Timings:
        """Time each iteration by a pair of events and synchronize once, at the end; the wall clock checks the sum."""
        torch.cuda.synchronize()
        if self._monitor is not None:
            self._monitor.start()
        start = time.perf_counter()
        run = self._run_one_by_one if self._synchronizes else self._run_between_events
        seconds = run(step, repeats, on_step)
        wall = time.perf_counter() - start
        warnings = [] if self._synchronizes else clock_warnings(sum(seconds), wall)
        if self._monitor is None:
            warnings.append("NVML does not answer, so clocks, throttling and other processes were not monitored")
            return Timings(seconds=seconds, wall=wall, warnings=warnings)
        window = self._monitor.stop()
        return Timings(
            seconds=seconds,
            disturbed=window.disturbed(seconds),
            wall=wall,
            interference=window.interference,
            warnings=[*warnings, *window.warnings],
            facts=window.facts(),
        )

    @staticmethod
    def _run_between_events(step: Step, repeats: int, on_step: Callable[[int], None]) -> tuple[float, ...]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]  # type: ignore[no-untyped-call]
        for iteration, (before, after) in enumerate(events, start=1):
            before.record()
            step()
            after.record()
            on_step(iteration)
        torch.cuda.synchronize()
        # Events count milliseconds.
        return tuple(before.elapsed_time(after) / 1000 for before, after in events)

    def _run_one_by_one(self, step: Step, repeats: int, on_step: Callable[[int], None]) -> tuple[float, ...]:
        seconds = []
        for iteration in range(repeats):
            seconds.append(self.time_step(step))
            on_step(iteration + 1)
        return tuple(seconds)

    def stamp(self) -> Any:  # noqa: ANN401 -- torch's event has no types
        """Record an event in the stream of the device's work."""
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds_between(self, earlier: Any, later: Any) -> float:  # noqa: ANN401
        """Return what the device counted, which is in milliseconds."""
        return float(earlier.elapsed_time(later)) / 1000

    def time_reference_workload(self) -> None:
        """NVML reports clocks, throttling and other processes, and a GPU has no neighbours that it does not see."""

    def set_memory_limit(self, limit: int | None) -> MemoryLimit:
        """Limit torch's allocator to what a GPU with that much memory would leave next to the CUDA context.

        What other processes hold is no part of the context: it takes from what is free.
        """
        free, total = torch.cuda.mem_get_info()
        left = free + torch.cuda.memory_reserved()
        context = total - left if self._context is None else self._context
        warnings = []
        if self._context is None:
            warnings.append("NVML does not say what others hold of the GPU, so it counts as the CUDA context")
        others = max(0, total - left - context)
        facts: dict[str, object] = {"context": context, "held_by_others": others}
        if limit is None or limit >= total:
            if others > HELD_BY_DRIVER:
                warnings.append(held_warning(others, left))
            facts |= {"memory_cap": total, "emulated": False}
            return MemoryLimit(available=left, facts=facts, warnings=tuple(warnings))
        if limit <= context:
            raise JobError(
                f"a memory limit of {limit} bytes leaves nothing for the model, as the CUDA context alone takes "
                f"{context}; give more with --memory"
            )
        torch.cuda.set_per_process_memory_fraction((limit - context) / total, self._index)
        if left < limit - context:
            warnings.append(held_warning(others, left))
        return MemoryLimit(
            available=min(left, limit - context),
            facts={**facts, "memory_cap": limit, "emulated": True},
            warnings=(memory_limit_warning(limit, total), *warnings),
        )

    def peak_memory(self) -> tuple[int, int]:
        """Return what torch's allocator counted."""
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def empty_cache(self) -> None:
        """Release cached memory and reset the peaks."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_limit_warning(limit: int, total: int) -> str:
    """Return what a memory limit below the GPU's own memory can and cannot show."""
    return (
        f"a memory of {limit / GIB:.1f} GiB is emulated on a GPU of {total / GIB:.0f} GiB: the batch is one that fits, "
        "the throughput is this GPU's own"
    )


def held_warning(others: int, left: int) -> str:
    """Return that others hold memory of the GPU, and what they leave."""
    return (
        f"other processes hold {others / GIB:.1f} GiB of the GPU and leave {left / GIB:.1f}, which bounds the batch: "
        "measure when it is idle"
    )


def clock_warnings(by_events: float, wall: float) -> list[str]:
    """Return a warning where two clocks differ by more than 2 %: the GPU was not always busy, or a clock is off."""
    if abs(wall / by_events - 1) <= 0.02:
        return []
    return [f"CUDA events say {by_events:.3f} s, the wall clock {wall:.3f} s: the host may not keep the GPU busy"]


@contextmanager
def open_device(
    name: str, threads: int, *, as_script: bool = False, synchronize: bool = False, fewer_threads: bool = False
) -> Iterator[Device]:
    """Open `cpu` or `cuda:N` in this process, with NVML monitoring a GPU where it can."""
    if name == "cpu":
        yield Cpu(threads, as_script=as_script, fewer_threads=fewer_threads)
        return
    index = int(name.partition(":")[2] or 0)
    uuid = next((gpu.uuid for gpu in gpus() if gpu.index == index), None)
    with monitor_gpu(uuid) as monitor:
        yield Cuda(index, monitor, synchronize=synchronize)
