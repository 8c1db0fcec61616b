"""What NVML sees of a card while something is timed on it: clocks, power, temperature, throttling, other processes."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from harness.machine import nvml

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons.  The first three are the card protecting itself; a power cap in
# software is how many cards run under load, and is a remark rather than a disturbance.
HARDWARE_SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}
POWER_CAP = 0x0000000000000004

SAMPLE_SECONDS = 0.1
CLOCKS_MOVED = 0.05


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a card: clocks in MHz, power in W, temperature in °C; None where the card does not tell."""

    seconds: float
    sm_clock: int | None
    memory_clock: int | None
    power: float | None
    temperature: int | None
    reasons: int | None
    others: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was seen between two moments: `energy` in joules by the card's counter, `missing` what it did not tell."""

    samples: tuple[Sample, ...]
    energy: float | None
    missing: tuple[str, ...]

    @property
    def disturbances(self) -> list[str]:
        """Say what makes the measurement worth repeating: the card slowed itself down, or somebody else used it."""
        found = []
        for bit, name in HARDWARE_SLOWDOWNS.items():
            share = _share(s.reasons is not None and bool(s.reasons & bit) for s in self.samples)
            if share:
                found.append(f"{name} in {share:.0%} of the timed window: look after cooling and power of the card")
        others = {process for sample in self.samples for process in sample.others or ()}
        if others:
            plural = "es" if len(others) > 1 else ""
            found.append(
                f"{len(others)} other process{plural} used the card while it was timed: measure when it is idle"
            )
        return found

    @property
    def doubts(self) -> list[str]:
        """Say what is worth knowing but does not spoil the number."""
        found = []
        clocks = [s.sm_clock for s in self.samples if s.sm_clock]
        if clocks and min(clocks) < (1 - CLOCKS_MOVED) * max(clocks):
            found.append(
                f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz: lock it with `nvidia-smi -lgc` for "
                "numbers that repeat"
            )
        share = _share(s.reasons is not None and bool(s.reasons & POWER_CAP) for s in self.samples)
        if share > 0.5:
            found.append(f"the power limit held the clocks down in {share:.0%} of the timed window")
        if self.missing:
            found.append(f"the card did not tell {', '.join(self.missing)}")
        return found

    def facts(self) -> dict[str, object]:
        """Give everything for the result."""
        return {
            "nvml": {
                "samples": [asdict(sample) for sample in self.samples],
                "energy": self.energy,
                "missing": list(self.missing),
            }
        }


def _share(flags: Iterable[bool]) -> float:
    seen = list(flags)
    return sum(seen) / len(seen) if seen else 0.0


class Monitor:
    """Samples a card from a thread between `start` and `stop`.

    `ours` are the processes that are not others: those that appeared on the card with our own context.  In a container
    NVML knows processes by other numbers than the container does, so our own number is of no use.
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

    def own(self) -> None:
        """Take note of our own context, which was just made."""
        self._ours = frozenset(self.processes() or ()) - frozenset(self._before or ())

    def start(self) -> None:
        """Begin to sample."""
        self._samples, self._missing = [], {}
        self._stop.clear()
        self._energy, self._started = self._joules(), self._now()
        self._thread = threading.Thread(target=self._sample_on, daemon=True, name="nvml")
        self._thread.start()

    def stop(self) -> Window:
        """End, and tell what was seen."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._samples.append(self.sample())
        after = self._joules()
        energy = after - self._energy if after is not None and self._energy is not None else None
        return Window(samples=tuple(self._samples), energy=energy, missing=tuple(self._missing))

    def sample(self) -> Sample:
        """Look once."""
        api, handle = self._api, self._handle
        milliwatts = self._ask("power", lambda: api.nvmlDeviceGetPowerUsage(handle))
        processes = self.processes()
        if processes is None:
            self._missing["other processes"] = None
        return Sample(
            seconds=self._now() - self._started,
            sm_clock=self._ask("the SM clock", lambda: api.nvmlDeviceGetClockInfo(handle, api.NVML_CLOCK_SM)),
            memory_clock=self._ask("the memory clock", lambda: api.nvmlDeviceGetClockInfo(handle, api.NVML_CLOCK_MEM)),
            power=None if milliwatts is None else milliwatts / 1000,
            temperature=self._ask(
                "the temperature", lambda: api.nvmlDeviceGetTemperature(handle, api.NVML_TEMPERATURE_GPU)
            ),
            reasons=self._ask("throttle reasons", lambda: api.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
            others=None if processes is None else tuple(sorted(set(processes) - self._ours)),
        )

    def processes(self) -> tuple[int, ...] | None:
        """List the processes that compute on the card, or None where that is not told."""
        try:
            running = self._api.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._api.NVMLError:
            return None
        return tuple(process.pid for process in running)

    def _sample_on(self) -> None:
        while not self._stop.is_set():
            self._samples.append(self.sample())
            self._stop.wait(SAMPLE_SECONDS)

    def _joules(self) -> float | None:
        """Read the energy counter, in millijoules since the driver was loaded; cards before Volta have none."""
        found = self._ask("energy", lambda: self._api.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if found is None else found / 1000

    def _ask(self, what: str, query: Callable[[], int]) -> int | None:
        try:
            return int(query())
        except self._api.NVMLError:
            self._missing[what] = None
            return None


@contextmanager
def watching(uuid: str | None) -> Iterator[Monitor | None]:
    """Give a monitor of a card, or None where NVML does not know it or is not there."""
    with nvml() as api:
        if api is None or uuid is None:
            yield None
            return
        try:
            handle = api.nvmlDeviceGetHandleByUUID(uuid)
        except api.NVMLError:
            yield None
            return
        yield Monitor(api, handle)
