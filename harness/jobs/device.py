"""The CPU and the CUDA card as things that run a step, keep time and run out of memory."""

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from harness.errors import JobError
from harness.jobs.malloc import Asked, give_back_freed, keep_freed
from harness.jobs.yardstick import Yardstick
from harness.machine import GIB, CpuClock, cores, gpus
from harness.machine.watch import Monitor, watching

# Sentences by which libraries that torch calls say that memory ran out; torch's own allocator has a class for it.
_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
)

# Of the processor time of timed runs: with the heap kept the system has next to none.
WORTH_A_DOUBT = 0.05


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Timed runs: seconds of each, and the wall clock over all of them.

    `disturbances` are sentences about what spoiled them and makes them worth repeating, `warnings` about what is only
    worth knowing, `facts` what was seen.
    """

    seconds: tuple[float, ...]
    wall: float
    disturbances: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak bytes since `forget`: of tensors, and of what was taken from the device for them."""

    allocated: int
    reserved: int


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a cap on memory came to: `room` bytes for tensors (None: no bound), and the rest for the result."""

    room: int | None
    facts: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Device(Protocol):
    """What a measurement asks of a device."""

    torch_name: str

    def seconds_of(self, step: Callable[[], object]) -> float:
        """Run the step once and wait until the device has finished it."""

    def time_runs(self, step: Callable[[], object], repeats: int, each: Callable[[int], None]) -> Runs:
        """Time that many runs; `each` hears of every one that the device has been given."""

    def yardstick(self) -> float | None:
        """Give the seconds that a fixed piece of work takes just now; None where the device itself tells how it is."""

    def limit_memory(self, cap: int | None) -> Limit:
        """Hold what follows to so many bytes."""

    def memory(self) -> Memory:
        """Tell the peak since `forget`."""

    def forget(self) -> None:
        """Free what earlier steps left, so that they cannot disturb the next."""

    def ran_out(self, error: BaseException) -> bool:
        """Whether an error means that memory ran out, and nothing else."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, and nothing else."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _OUT_OF_MEMORY)


class Cpu:
    """This machine's processor, with a fixed number of threads."""

    torch_name = "cpu"

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._threads = threads
        self._keeps_freed = keep_freed()
        self._yardstick = Yardstick()
        self._before = _resident()
        self._capped = False

    def seconds_of(self, step: Callable[[], object]) -> float:
        """A step on the CPU is finished when it returns."""
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    def time_runs(self, step: Callable[[], object], repeats: int, each: Callable[[int], None]) -> Runs:
        """Time runs one by one, and note what others used of the processor meanwhile, and the system for us."""
        seconds = []
        before, asked, start = CpuClock.now(), Asked.now(), time.perf_counter()
        for run in range(repeats):
            seconds.append(self.seconds_of(step))
            each(run + 1)
        wall = time.perf_counter() - start
        after, asked = CpuClock.now(), Asked.now().since(asked)
        facts: dict[str, object] = {
            "freed_memory_kept": self._keeps_freed,
            "pages_asked_for": round(asked.pages / repeats),
            "system_share": round(asked.system / max(asked.seconds, 1e-9), 3),
        }
        warnings = memory_doubts(asked, repeats, capped=self._capped)
        if before is None or after is None:
            return Runs(seconds=tuple(seconds), wall=wall, warnings=tuple(warnings), facts=facts)
        others = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / wall
        stolen = (after.stolen - before.stolen) / wall
        own = (after.own - before.own) / wall
        facts |= {
            "cores_used": round(own, 2),
            "cores_used_by_others": round(others, 2),
            "cores_stolen": round(stolen, 2),
        }
        disturbances = tuple(_contention(others, stolen))
        if not disturbances:
            # Next to somebody else our threads have to wait, which says nothing about the network.
            warnings += thread_doubts(self._threads, cores(), own)
        return Runs(
            seconds=tuple(seconds),
            wall=wall,
            disturbances=disturbances,
            warnings=tuple(warnings),
            facts=facts,
        )

    def yardstick(self) -> float:
        """Lay it on."""
        return self._yardstick.seconds()

    def limit_memory(self, cap: int | None) -> Limit:
        """Cap the data that this process may hold, above what the libraries hold already."""
        if cap is None:
            return Limit(room=None)
        self._capped, self._keeps_freed = True, False
        give_back_freed()
        size = _data_size() + cap
        resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return Limit(room=cap, facts={"memory_cap": cap, "memory_cap_by": "RLIMIT_DATA"})

    def memory(self) -> Memory:
        """Peak resident bytes above those of an idle process; the CPU has no allocator of its own to ask."""
        peak = max(0, _resident(peak=True) - self._before)
        return Memory(allocated=peak, reserved=peak)

    def forget(self) -> None:
        """Free garbage and start the peak anew."""
        gc.collect()
        # 5 resets the peak resident size of the process; where it is not allowed the peak only ever grows.
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def ran_out(self, error: BaseException) -> bool:
        """As everywhere; and under a cap oneDNN may fail to get its scratch memory, which it tells in other words."""
        return ran_out_of_memory(error) or (self._capped and "could not create a primitive" in str(error))


def thread_doubts(threads: int, available: int, used: float) -> list[str]:
    """Doubt a number of threads that is not that of the cores, and threads that were kept waiting."""
    found = []
    if threads < available:
        found.append(f"torch was given {threads} of {available} cores: set OMP_NUM_THREADS={available} for all of them")
    if threads > available:
        found.append(f"torch was given {threads} threads for {available} cores, which then wait for each other")
    if used < 0.7 * min(threads, available):
        found.append(f"only {used:.1f} of {min(threads, available)} cores were busy: the network is too small for them")
    return found


def memory_doubts(asked: Asked, runs: int, *, capped: bool) -> list[str]:
    """Doubt runs that the system itself took part in: what they freed was given back and had to be asked for anew.

    Under a cap that is our own doing; elsewhere malloc could not be told to keep it.
    """
    share = asked.system / asked.seconds if asked.seconds > 0 else 0.0
    if share <= WORTH_A_DOUBT:
        return []
    anew = asked.pages * resource.getpagesize() / runs / 2**20
    remedy = "measure without --memory" if capped else "preload an allocator that keeps what is freed, as jemalloc"
    return [
        (
            f"the system took {share:.0%} of the processor time, each run asking it for {anew:.0f} MiB of memory "
            f"anew: {remedy}"
        )
    ]


def _contention(others: float, stolen: float) -> list[str]:
    found = []
    if others > 0.05:
        found.append(f"other processes used {others:.2f} cores while this was timed: measure again on an idle machine")
    if stolen > 0.02:
        found.append(f"the host took {stolen:.2f} cores away while this was timed: measure again when it is quiet")
    return found


def _status(name: str) -> int:
    """Bytes under a name of /proc/self/status; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith(f"{name}:")), None)
    return int(line.split()[1]) * 1024 if line else 0


def _resident(*, peak: bool = False) -> int:
    found = _status("VmHWM" if peak else "VmRSS")
    if found:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _data_size() -> int:
    return _status("VmData")


class Cuda:
    """One CUDA card.  Made in the process that measures, never in one that forks."""

    def __init__(self, index: int, monitor: Monitor | None) -> None:
        if not torch.cuda.is_available():
            raise JobError(f"torch {torch.__version__} finds no CUDA card that it can use; `harness doctor` says why")
        self.torch_name = f"cuda:{index}"
        self._index = index
        self._monitor = monitor
        torch.cuda.set_device(index)
        torch.zeros(1, device=self.torch_name)  # makes the context, whose share the cap leaves out
        torch.cuda.synchronize()
        if monitor is not None:
            monitor.own()

    def seconds_of(self, step: Callable[[], object]) -> float:
        """Wall clock with the device waited for on both sides."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def time_runs(self, step: Callable[[], object], repeats: int, each: Callable[[int], None]) -> Runs:
        """Time each run by a pair of events and wait once, at the end; the wall clock checks the sum."""
        events = [(_event(), _event()) for _ in range(repeats)]
        torch.cuda.synchronize()
        if self._monitor is not None:
            self._monitor.start()
        start = time.perf_counter()
        for run, (before, after) in enumerate(events, start=1):
            before.record()
            step()
            after.record()
            each(run)
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
        # Events count milliseconds.
        seconds = tuple(before.elapsed_time(after) / 1000 for before, after in events)
        doubts = clock_doubts(sum(seconds), wall)
        if self._monitor is None:
            doubts.append("NVML does not answer, so clocks, throttling and other processes were not watched")
            return Runs(seconds=seconds, wall=wall, warnings=tuple(doubts))
        window = self._monitor.stop()
        return Runs(
            seconds=seconds,
            wall=wall,
            disturbances=tuple(window.disturbances),
            warnings=(*doubts, *window.doubts),
            facts=window.facts(),
        )

    def yardstick(self) -> None:
        """NVML tells of clocks, throttling and other processes, and a card has no neighbours that it does not see."""

    def limit_memory(self, cap: int | None) -> Limit:
        """Hold torch's allocator to the cap less what the context itself takes, as it would on a card of that size."""
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        if cap is None or cap >= total:
            facts: dict[str, object] = {"memory_cap": total, "context": context, "emulated": False}
            return Limit(room=total - context, facts=facts)
        if cap <= context:
            raise JobError(f"a memory cap of {cap} bytes leaves nothing: the CUDA context alone takes {context}")
        torch.cuda.set_per_process_memory_fraction((cap - context) / total, self._index)
        return Limit(
            room=cap - context,
            facts={"memory_cap": cap, "context": context, "emulated": True},
            warnings=(emulation(cap, total),),
        )

    def memory(self) -> Memory:
        """Ask torch's allocator."""
        return Memory(allocated=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())

    def forget(self) -> None:
        """Give cached memory back and start the peaks anew."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def ran_out(self, error: BaseException) -> bool:
        """Only what torch, cuBLAS or cuDNN call a lack of memory."""
        return ran_out_of_memory(error)


def emulation(cap: int, total: int) -> str:
    """Say what a cap below the card's own memory can and cannot show."""
    return (
        f"a memory of {cap / GIB:.1f} GiB is emulated on a card of {total / GIB:.0f} GiB: the batch is one that fits, "
        "the speed is this card's own"
    )


def clock_doubts(by_events: float, wall: float) -> list[str]:
    """A disagreement of the two clocks of more than 2 %: the device was not busy all the time, or a clock is off."""
    if abs(wall / by_events - 1) <= 0.02:
        return []
    return [f"CUDA events say {by_events:.3f} s, the wall clock {wall:.3f} s: the host may not keep the card busy"]


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


@contextmanager
def opened(name: str, threads: int) -> Iterator[Device]:
    """Open `cpu` or `cuda:N` in this process, with NVML watching a card where it can."""
    if name == "cpu":
        yield Cpu(threads)
        return
    index = int(name.partition(":")[2] or 0)
    uuid = next((gpu.uuid for gpu in gpus() if gpu.index == index), None)
    with watching(uuid) as monitor:
        yield Cuda(index, monitor)
