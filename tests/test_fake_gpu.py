"""A fake GPU: a memory that runs out, a clock that drifts, an NVML that reports throttling or nothing."""

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.jobs.speed.batch_size import Probe, largest_batch
from harness.jobs.speed.device import MemoryLimit, Timings
from harness.jobs.speed.throughput import TimedBatch, probe_batch, time_batch
from harness.jobs.too_large import too_large
from harness.machine.monitor import Monitor, Sample, Window
from harness.plan.job import Job
from harness.run.messages import Progress

MIB = 2**20
JOB = Job.of("throughput", {"model": "net", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"})


@dataclass
class FakeGpu:
    """A GPU with a memory of its own; `disturbed` are the iterations that a fan stopped, of all that are timed."""

    total: int = 1000 * MIB
    weights: int = 100 * MIB
    image: int = 7 * MIB
    throughput: float = 100.0
    disturbed: Container[int] = ()
    broken: str = ""
    torch_name: str = "cuda:0"
    allocated: int = 0
    peak: int = 0
    batch: int = 0
    windows: list[int] = field(default_factory=list)
    window: float = 0.0
    calls: list[str] = field(default_factory=list)

    smallest_batch = 1
    largest_batch = None

    def make_step(self, batch: int) -> Callable[[], object]:
        """Allocate the images, as a real step does."""
        self.batch = batch
        self.allocated += batch * self.image
        return self.run

    def make_compiled_step(self, batch: int) -> tuple[Callable[[], object], str]:
        return self.make_step(batch), ""

    def run(self) -> None:
        self.peak = max(self.peak, self.weights + self.allocated)
        if self.broken:
            raise RuntimeError(self.broken)
        if self.weights + self.allocated > self.total:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 MiB.")

    def time_step(self, step: Callable[[], object]) -> float:
        self.calls.append("run")
        step()
        return self.batch / self.throughput

    def time_steps(self, step: Callable[[], object], repeats: int, on_step: Callable[[int], None]) -> Timings:
        seconds = []
        for run in range(repeats):
            seconds.append(self.time_step(step))
            on_step(run + 1)
        begin = sum(self.windows)
        self.windows.append(repeats)
        hot = {index: "hot" for index in range(repeats) if begin + index in self.disturbed}
        interference = [f"hot in {len(hot)} iterations: check the fan"] if hot else []
        return Timings(seconds=tuple(seconds), disturbed=hot, wall=sum(seconds), interference=interference)

    def stamp(self) -> float:
        return 0.0

    def seconds_between(self, earlier: float, later: float) -> float:
        return later - earlier

    def time_reference_workload(self) -> None:
        return None

    def set_memory_limit(self, limit: int | None) -> MemoryLimit:
        return MemoryLimit(available=limit)

    def peak_memory(self) -> tuple[int, int]:
        return self.peak, self.peak

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")
        self.allocated = self.peak = 0

    def too_large(self, error: BaseException) -> str:
        return too_large(error)


def search(gpu: FakeGpu) -> list[Probe]:
    return list(largest_batch(lambda batch: probe_batch(gpu.make_step, batch, gpu), limit=gpu.total))


def test_the_largest_batch_of_a_gpu_is_found_and_the_next_one_was_tried() -> None:
    # (1000 - 100) / 7 is 128.57.
    probes = search(FakeGpu())
    assert max(probe.batch for probe in probes if probe.outcome == "fits") == 128
    assert 129 in [probe.batch for probe in probes if probe.outcome == "out of memory"]
    assert len(probes) <= 12


def test_a_probe_that_failed_leaves_nothing_behind_for_the_next() -> None:
    gpu = FakeGpu()
    assert probe_batch(gpu.make_step, 500, gpu).outcome == "out of memory"
    assert probe_batch(gpu.make_step, 128, gpu).outcome == "fits"


@dataclass
class AnotherLimit(FakeGpu):
    """A GPU on which more than 100 images fail with an error of its own."""

    says: str = ""

    def run(self) -> None:
        if self.batch > 100:
            raise RuntimeError(self.says)
        super().run()


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        ("Triton Error [CUDA]: out of memory", "out of memory"),
        ("GET was unable to find an engine to execute this computation", "out of memory for any algorithm of cuDNN"),
        ("Expected canUse32BitIndexMath(input) to be true, but got false.", "too many elements for 32-bit indices"),
    ],
)
def test_whatever_a_batch_is_too_large_for_the_search_goes_below_it_and_keeps_the_reason(
    says: str, outcome: str
) -> None:
    probes = {probe.batch: probe.outcome for probe in search(AnotherLimit(says=says))}
    assert (probes[100], probes[101]) == ("fits", outcome)


def test_every_probe_keeps_its_memory_and_time() -> None:
    first = search(FakeGpu())[0]
    assert first == Probe(batch=1, outcome="fits", seconds=0.01, allocated=107 * MIB, reserved=107 * MIB)


@pytest.mark.parametrize(
    "message", ["CUDA error: an illegal memory access was encountered", "cuDNN error: NOT_SUPPORTED"]
)
def test_any_other_error_stops_the_search_with_its_own_message(message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        search(FakeGpu(broken=message))


def measure(gpu: FakeGpu) -> tuple[TimedBatch, list[Progress]]:
    reported: list[Progress] = []
    workload: Any = gpu
    return time_batch(gpu, workload, JOB, reported.append, 50), reported


def test_without_interference_iterations_are_timed_once() -> None:
    gpu = FakeGpu()
    timed, _ = measure(gpu)
    assert timed.seconds == (0.5,) * 30
    assert (timed.facts["disturbed"], timed.facts["dropped"]) == (False, [])
    assert timed.warnings == ()
    assert gpu.windows == [30]


def test_no_memory_is_released_between_the_warm_up_and_the_timed_runs() -> None:
    # It would be requested again inside the first timed run, which would then be slow.
    gpu = FakeGpu()
    timed, _ = measure(gpu)
    last_release = max(index for index, call in enumerate(gpu.calls) if call == "empty_cache")
    assert gpu.calls[last_release + 1 :] == ["run"] * (len(timed.facts["warm_up"]) + 30)


def test_a_gpu_needs_no_reference_workload_because_nvml_reports_its_state() -> None:
    assert measure(FakeGpu())[0].facts["yardstick"] is None


def test_throttled_iterations_are_timed_again_and_what_was_dropped_is_kept() -> None:
    gpu = FakeGpu(disturbed=[3, 4, 31])
    timed, reported = measure(gpu)
    # Two of the thirty are missing, of the two that follow one, which the last replaces.
    assert gpu.windows == [30, 2, 1]
    assert timed.kept == (0, 1, 2, *range(5, 31), 32)
    assert (len(timed.seconds), timed.total) == (30, 33)
    assert timed.facts["dropped"] == [{"index": index, "seconds": 0.5, "by": "hot"} for index in (3, 4, 31)]
    assert timed.facts["disturbed"] is False
    assert timed.warnings == ("30 of 33 iterations clean, the others timed again: hot in 1 iterations",)
    assert reported[-1].phase == "timing, batch 50, again because hot in 1 iterations: check the fan"


def test_where_too_few_iterations_are_clean_they_count_but_the_result_is_noisy() -> None:
    gpu = FakeGpu(disturbed=range(6, 100))
    timed, _ = measure(gpu)
    assert sum(gpu.windows) == 60
    assert timed.kept == (0, 1, 2, 3, 4, 5)
    assert (timed.facts["disturbed"], len(timed.facts["dropped"])) == (True, 54)
    assert timed.warnings == ("hot in 6 iterations: check the fan (6 of 60 iterations clean)",)


def test_where_hardly_any_iteration_is_clean_the_first_thirty_count_and_the_result_is_noisy() -> None:
    timed, _ = measure(FakeGpu(disturbed=range(4, 100)))
    assert timed.kept == tuple(range(30))
    assert (timed.facts["disturbed"], len(timed.facts["dropped"])) == (True, 30)
    assert timed.warnings == ("hot in 4 iterations: check the fan (4 of 60 iterations clean)",)


def test_no_more_than_thirty_count_where_the_counters_needed_more_time_to_tell() -> None:
    gpu = FakeGpu(disturbed=[0], window=2.0)  # four iterations of half a second
    timed, _ = measure(gpu)
    assert gpu.windows == [30, 4]
    assert timed.kept == tuple(range(1, 31))
    assert [dropped["by"] for dropped in timed.facts["dropped"]] == ["hot", *["nothing, but enough were clean"] * 3]


class NvmlError(Exception):
    """The error that NVML raises."""


@dataclass
class FakeNvml:
    """An NVML that reports what it was given; None is not supported."""

    clocks: list[int | None] = field(default_factory=lambda: [1500])
    reasons: int | None = 0
    power: int | None = 250_000
    energy: list[int | None] = field(default_factory=lambda: [0])
    running: list[list[int]] | None = field(default_factory=lambda: [list[int]()])
    NVMLError: type[Exception] = NvmlError
    NVML_CLOCK_SM: int = 1
    NVML_CLOCK_MEM: int = 2
    NVML_TEMPERATURE_GPU: int = 0

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:  # noqa: N802
        return self._value(self.power)

    def nvmlDeviceGetClockInfo(self, handle: object, which: int) -> int:  # noqa: N802
        if which == self.NVML_CLOCK_MEM:
            return 877
        return self._value(self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0])

    def nvmlDeviceGetTemperature(self, handle: object, which: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:  # noqa: N802
        return self._value(self.reasons)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:  # noqa: N802
        return self._value(self.energy.pop(0) if len(self.energy) > 1 else self.energy[0])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:  # noqa: N802
        if self.running is None:
            raise NvmlError
        pids = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        return [SimpleNamespace(pid=pid) for pid in pids]

    def _value(self, value: int | None) -> int:
        if value is None:
            raise NvmlError
        return value


def monitored(api: FakeNvml, *, seconds: float = 0.0) -> Window:
    later = [0.0]
    monitor = Monitor(api, handle=None, now=lambda: time.monotonic() + later[0])
    monitor.mark_own_processes()
    monitor.start()
    time.sleep(seconds)
    if not seconds:
        later[0] = 2.0  # long enough for the counter of energy, though nobody waits
    return monitor.stop()


def test_an_idle_gpu_raises_no_warning() -> None:
    window = monitored(FakeNvml())
    assert (window.interference, window.warnings) == ([], [])
    sample = window.samples[-1]
    assert (sample.sm_clock, sample.memory_clock, sample.power, sample.temperature) == (1500, 877, 250.0, 60)


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0x08, "hardware slowdown"),
        (0x20, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"),
        (0x80, "hardware power brake"),
    ],
)
def test_throttling_is_interference(bit: int, name: str) -> None:
    assert monitored(FakeNvml(reasons=bit)).interference == [
        f"{name} in 100 % of the timed window: check cooling and power of the GPU"
    ]


def test_a_power_limit_is_a_warning_and_no_interference() -> None:
    window = monitored(FakeNvml(reasons=0x04))
    assert window.interference == []
    assert window.warnings == ["the power limit held the clocks down in 100 % of the timed window"]


def test_another_process_is_distinguished_from_our_own_context() -> None:
    # 7 was there before our context, 11 came with it, 12 comes while we time.
    window = monitored(FakeNvml(running=[[7], [7, 11], [7, 11, 12]]))
    assert window.interference == ["2 other processes used the GPU while it was timed: measure when it is idle"]
    assert monitored(FakeNvml(running=[[], [11], [11]])).interference == []


def test_clocks_that_move_raise_a_warning_with_both_numbers() -> None:
    assert monitored(FakeNvml(clocks=[1530, 1290])).warnings == [
        "the SM clock moved between 1290 and 1530 MHz: lock it with `nvidia-smi -lgc` for numbers that repeat"
    ]


def window_of(seconds: float) -> Window:
    """A window in which the counter moves by 250 joules, and as many seconds pass by a fake clock."""
    clock = [0.0]
    monitor = Monitor(FakeNvml(energy=[1_000_000, 1_250_000]), handle=None, now=lambda: clock[0])
    monitor.start()
    clock[0] = seconds
    return monitor.stop()


def test_energy_is_the_difference_of_the_gpus_own_counter_in_joules() -> None:
    assert (window_of(1.0).energy, window_of(1.0).warnings) == (250.0, [])


def test_no_energy_is_given_for_a_window_that_is_too_short_for_the_counter() -> None:
    window = window_of(0.3)
    assert window.energy is None
    assert window.warnings == [
        "no energy: the GPU's counter moves about ten times a second, too rarely for 0.3 s; give more --repeats"
    ]


def test_what_a_gpu_does_not_report_is_named_and_nothing_fails() -> None:
    window = monitored(FakeNvml(clocks=[None], reasons=None, power=None, energy=[None], running=None))
    assert window.energy is None
    assert window.interference == []
    (warning,) = window.warnings
    assert warning.startswith("the GPU does not report ")
    assert set(warning.removeprefix("the GPU does not report ").split(", ")) == {
        "energy",
        "power",
        "other processes",
        "the SM clock",
        "throttle reasons",
    }


def test_a_window_is_sampled_ten_times_a_second() -> None:
    window = monitored(FakeNvml(), seconds=0.55)
    assert 4 <= len(window.samples) <= 8
    assert all(isinstance(sample, Sample) for sample in window.samples)
    assert window.samples[-1].seconds >= 0.5
