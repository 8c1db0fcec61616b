"""What NVML reports of a GPU while something is timed: clocks, power, temperature, throttling, other processes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

from harness.machine.nvidia import nvml

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons.  With these the GPU protects itself; a power cap in software is how
# many GPUs run under load, and makes a warning rather than interference.
HARDWARE_SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}
POWER_CAP = 0x0000000000000004

SAMPLE_SECONDS = 0.1
CLOCKS_MOVED = 0.05

# The counter of energy moves every 20 to 100 ms: over a second it is right to a tenth.
ENERGY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of a GPU: clocks in MHz, power in W, temperature in °C; None where the GPU does not report it."""

    seconds: float
    sm_clock: int | None
    memory_clock: int | None
    power: float | None
    temperature: int | None
    reasons: int | None
    others: tuple[int, ...] | None

    @property
    def disturbance(self) -> str:
        """What disturbs what is timed at this moment; empty if nothing does."""
        names = [name for bit, name in HARDWARE_SLOWDOWNS.items() if (self.reasons or 0) & bit]
        return " and ".join([*names, *([_used_by(len(self.others))] if self.others else [])])


@dataclass(frozen=True, kw_only=True)
class Window:
    """The samples of a timed window: `energy` in joules by the GPU's counter, `missing` what it did not report.

    `too_short` are the seconds of a window for which the counter moves too rarely.
    """

    samples: tuple[Sample, ...]
    energy: float | None
    missing: tuple[str, ...]
    too_short: float | None = None

    @property
    def interference(self) -> list[str]:
        """Reasons to repeat the measurement: the GPU slowed itself down, or other processes used it."""
        reasons = []
        for bit, name in HARDWARE_SLOWDOWNS.items():
            share = self._share_with(bit)
            if share:
                reasons.append(f"{name} in {100 * share:.0f} % of the timed window: check cooling and power of the GPU")
        others = {process for sample in self.samples for process in sample.others or ()}
        if others:
            reasons.append(f"{_used_by(len(others))} while it was timed: measure when it is idle")
        return reasons

    def disturbed(self, seconds: Sequence[float]) -> dict[int, str]:
        """Return what disturbed iterations, by their index, that took so long one after the other from the start on.

        A sample is of a moment: what it shows may have begun right after the one before, and lasted until the next.
        """
        moments = [0.0, *(sample.seconds for sample in self.samples), float("inf")]
        spans = list(pairwise(accumulate(seconds, initial=0.0)))
        disturbed: dict[int, str] = {}
        for number, sample in enumerate(self.samples):
            if reason := sample.disturbance:
                earliest, latest = moments[number], moments[number + 2]
                within = (index for index, (begin, end) in enumerate(spans) if begin < latest and end > earliest)
                disturbed |= {index: reason for index in within if index not in disturbed}
        return disturbed

    @property
    def warnings(self) -> list[str]:
        """What is worth knowing but does not invalidate the number."""
        warnings = []
        clocks = [s.sm_clock for s in self.samples if s.sm_clock]
        if clocks and min(clocks) < (1 - CLOCKS_MOVED) * max(clocks):
            warnings.append(
                f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz: lock it with `nvidia-smi -lgc` for "
                "numbers that repeat"
            )
        share = self._share_with(POWER_CAP)
        if share > 0.5:
            warnings.append(f"the power limit held the clocks down in {100 * share:.0f} % of the timed window")
        if self.too_short is not None:
            warnings.append(
                f"no energy: the GPU's counter moves about ten times a second, too rarely for {self.too_short:.2g} s; "
                "give more --repeats"
            )
        if self.missing:
            warnings.append(f"the GPU does not report {', '.join(self.missing)}")
        return warnings

    def facts(self) -> dict[str, object]:
        """Return everything for the result."""
        return {"nvml": {name: value for name, value in asdict(self).items() if name != "too_short"}}

    def _share_with(self, reason: int) -> float:
        """Return the share of the samples whose throttle reasons have this bit."""
        return sum(bool((sample.reasons or 0) & reason) for sample in self.samples) / max(1, len(self.samples))


def _used_by(processes: int) -> str:
    return f"{processes} other process{'es' if processes > 1 else ''} used the GPU"


class Monitor:
    """Samples a GPU from a thread between `start` and `stop`.

    Our own processes are those that appeared on the GPU with our own context.  In a container NVML knows processes by
    other numbers than the container does, so our own process id is of no use.
    """

    def __init__(self, api: Any, handle: Any, *, now: Callable[[], float] = time.monotonic) -> None:  # noqa: ANN401
        self._api, self._handle, self._now = api, handle, now
        self._before = self.processes()
        self._ours: frozenset[int] = frozenset()
        self._missing: dict[str, None] = {}
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._energy: float | None = None
        self._started = 0.0

    def mark_own_processes(self) -> None:
        """Record the processes that appeared with our own context, which was just created."""
        self._ours = frozenset(self.processes() or ()) - frozenset(self._before or ())

    def memory_used(self) -> int | None:
        """Return the bytes of the GPU that are taken, by whomever; None where that is not reported."""
        try:
            return int(self._api.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._api.NVMLError:
            return None

    def start(self) -> None:
        """Start sampling."""
        self._samples, self._missing = [], {}
        self._stop.clear()
        self._energy, self._started = self._joules(), self._now()
        self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True, name="nvml")
        self._thread.start()

    def stop(self) -> Window:
        """Stop sampling and return the window."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._samples.append(self.sample())
        after = self._joules()
        energy = after - self._energy if after is not None and self._energy is not None else None
        seconds = self._now() - self._started
        too_short = energy is not None and seconds < ENERGY_SECONDS
        return Window(
            samples=tuple(self._samples),
            energy=None if too_short else energy,
            missing=tuple(self._missing),
            too_short=seconds if too_short else None,
        )

    def sample(self) -> Sample:
        """Take one sample."""
        api, query = self._api, self._query
        milliwatts = query("power", api.nvmlDeviceGetPowerUsage)
        processes = self.processes()
        if processes is None:
            self._missing["other processes"] = None
        return Sample(
            seconds=self._now() - self._started,
            sm_clock=query("the SM clock", api.nvmlDeviceGetClockInfo, api.NVML_CLOCK_SM),
            memory_clock=query("the memory clock", api.nvmlDeviceGetClockInfo, api.NVML_CLOCK_MEM),
            power=None if milliwatts is None else milliwatts / 1000,
            temperature=query("the temperature", api.nvmlDeviceGetTemperature, api.NVML_TEMPERATURE_GPU),
            reasons=query("throttle reasons", api.nvmlDeviceGetCurrentClocksThrottleReasons),
            others=None if processes is None else tuple(sorted(set(processes) - self._ours)),
        )

    def processes(self) -> tuple[int, ...] | None:
        """Return the processes that compute on the GPU, or None where that is not reported."""
        try:
            running = self._api.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._api.NVMLError:
            return None
        return tuple(process.pid for process in running)

    def _sample_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._samples.append(self.sample())
            self._stop.wait(SAMPLE_SECONDS)

    def _joules(self) -> float | None:
        """Read the energy counter, in millijoules since the driver was loaded; GPUs before Volta have none."""
        millijoules = self._query("energy", self._api.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def _query(self, name: str, function: Callable[..., int], *arguments: int) -> int | None:
        try:
            return int(function(self._handle, *arguments))
        except self._api.NVMLError:
            self._missing[name] = None
            return None


@contextmanager
def monitor_gpu(uuid: str | None) -> Iterator[Monitor | None]:
    """Yield a monitor of a GPU, or None where NVML does not know it or is not there."""
    with nvml() as api:
        handle = None
        if api is not None and uuid is not None:
            with suppress(api.NVMLError):
                handle = api.nvmlDeviceGetHandleByUUID(uuid)
        yield None if handle is None else Monitor(api, handle)
