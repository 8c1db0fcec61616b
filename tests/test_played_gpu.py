"""A GPU that is played: a memory that runs out, a clock that drifts, an NVML that throttles or says nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from harness.job import Job
from harness.jobs.device import Limit, Memory, Runs
from harness.jobs.throughput import Timed, attempt, timed_on
from harness.jobs.timing import Probe, largest_batch
from harness.machine.watch import Monitor, Sample, Window
from harness.progress import Progress

MIB = 2**20
JOB = Job.of("throughput", {"model": "net", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"})


@dataclass
class PlayedCard:
    """A card with a memory of its own.  `speed` is images a second, `disturbances` those of each row of timed runs."""

    total: int = 1000 * MIB
    weights: int = 100 * MIB
    image: int = 7 * MIB
    speed: float = 100.0
    disturbances: list[tuple[str, ...]] = field(default_factory=list)
    broken: str = ""
    torch_name: str = "cuda:0"
    held: int = 0
    peak: int = 0
    batch: int = 0
    rows_timed: int = 0
    done: list[str] = field(default_factory=list)

    def step(self, batch: int) -> Callable[[], object]:
        """Hold the images, as a step that is made does."""
        self.batch = batch
        self.held += batch * self.image
        return self.run

    def compiled_step(self, batch: int) -> tuple[Callable[[], object], str]:
        return self.step(batch), ""

    def run(self) -> None:
        self.peak = max(self.peak, self.weights + self.held)
        if self.broken:
            raise RuntimeError(self.broken)
        if self.weights + self.held > self.total:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 MiB.")

    def seconds_of(self, step: Callable[[], object]) -> float:
        self.done.append("run")
        step()
        return self.batch / self.speed

    def time_runs(self, step: Callable[[], object], repeats: int, each: Callable[[int], None]) -> Runs:
        seconds = []
        for run in range(repeats):
            seconds.append(self.seconds_of(step))
            each(run + 1)
        disturbed = self.disturbances[self.rows_timed] if self.rows_timed < len(self.disturbances) else ()
        self.rows_timed += 1
        return Runs(seconds=tuple(seconds), wall=sum(seconds), disturbances=disturbed)

    def yardstick(self) -> None:
        return None

    def limit_memory(self, cap: int | None) -> Limit:
        return Limit(room=cap)

    def memory(self) -> Memory:
        return Memory(allocated=self.peak, reserved=self.peak)

    def forget(self) -> None:
        self.done.append("forget")
        self.held = self.peak = 0

    def ran_out(self, error: BaseException) -> bool:
        return isinstance(error, torch.cuda.OutOfMemoryError)


def search(card: PlayedCard) -> list[Probe]:
    return list(largest_batch(lambda batch: attempt(card.step, batch, card), cap=card.total))


def test_the_largest_batch_of_a_card_is_found_and_the_next_one_was_tried() -> None:
    # (1000 - 100) / 7 is 128.57.
    probes = search(PlayedCard())
    assert max(probe.batch for probe in probes if probe.outcome == "fits") == 128
    assert 129 in [probe.batch for probe in probes if probe.outcome == "out of memory"]
    assert len(probes) <= 12


def test_a_probe_that_failed_leaves_nothing_behind_for_the_next() -> None:
    card = PlayedCard()
    assert attempt(card.step, 500, card).outcome == "out of memory"
    assert attempt(card.step, 128, card).outcome == "fits"


def test_every_probe_keeps_its_memory_and_time() -> None:
    first = search(PlayedCard())[0]
    assert first == Probe(batch=1, outcome="fits", seconds=0.01, allocated=107 * MIB, reserved=107 * MIB)


@pytest.mark.parametrize(
    "message", ["CUDA error: an illegal memory access was encountered", "cuDNN error: NOT_SUPPORTED"]
)
def test_any_other_error_stops_the_search_with_its_own_message(message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        search(PlayedCard(broken=message))


def measure(card: PlayedCard) -> tuple[Timed, list[Progress]]:
    said: list[Progress] = []
    return timed_on(card, card, JOB, said.append, 50), said


def test_a_quiet_card_is_timed_once() -> None:
    card = PlayedCard()
    timed, _ = measure(card)
    assert timed.seconds == (0.5,) * 30
    assert timed.facts["disturbed"] is False
    assert timed.facts["spoiled"] == []
    assert timed.warnings == ()
    assert card.rows_timed == 1


def test_no_memory_is_given_back_between_the_warm_up_and_the_timed_runs() -> None:
    # It would be asked for again inside the first timed run, which would then be slow.
    card = PlayedCard()
    timed, _ = measure(card)
    last_forget = max(place for place, what in enumerate(card.done) if what == "forget")
    assert card.done[last_forget + 1 :] == ["run"] * (len(timed.facts["warm_up"]) + 30)


def test_a_card_has_no_yardstick_because_nvml_tells_how_it_is() -> None:
    assert measure(PlayedCard())[0].facts["yardstick"] is None


def test_a_throttled_row_is_timed_again_and_kept_beside() -> None:
    timed, said = measure(PlayedCard(disturbances=[("hot",)]))
    assert timed.facts["disturbed"] is False
    assert timed.facts["spoiled"] == [{"seconds": [0.5] * 30, "by": ["hot"]}]
    assert timed.warnings == ()
    assert said[-1].phase == "timing, batch 50, again because hot"


def test_a_card_that_stays_throttled_is_tried_three_times_and_marked() -> None:
    card = PlayedCard(disturbances=[("hot",), ("hot",), ("hot",), ("never asked",)])
    timed, _ = measure(card)
    assert card.rows_timed == 3
    assert timed.facts["disturbed"] is True
    assert len(timed.facts["spoiled"]) == 2
    assert timed.warnings == ("hot (still so after 2 more tries)",)


class NvmlError(Exception):
    """What NVML raises."""


@dataclass
class PlayedNvml:
    """An NVML whose card tells what it is told to; None is not supported."""

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
        return self._told(self.power)

    def nvmlDeviceGetClockInfo(self, handle: object, which: int) -> int:  # noqa: N802
        if which == self.NVML_CLOCK_MEM:
            return 877
        return self._told(self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0])

    def nvmlDeviceGetTemperature(self, handle: object, which: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:  # noqa: N802
        return self._told(self.reasons)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:  # noqa: N802
        return self._told(self.energy.pop(0) if len(self.energy) > 1 else self.energy[0])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:  # noqa: N802
        if self.running is None:
            raise NvmlError
        pids = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        return [SimpleNamespace(pid=pid) for pid in pids]

    def _told(self, value: int | None) -> int:
        if value is None:
            raise NvmlError
        return value


def watch(api: PlayedNvml, *, seconds: float = 0.0) -> Window:
    monitor = Monitor(api, handle=None)
    monitor.own()
    monitor.start()
    time.sleep(seconds)
    return monitor.stop()


def test_a_card_at_rest_raises_no_doubt() -> None:
    window = watch(PlayedNvml())
    assert (window.disturbances, window.doubts) == ([], [])
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
def test_a_card_that_slows_itself_down_disturbs_the_measurement(bit: int, name: str) -> None:
    assert watch(PlayedNvml(reasons=bit)).disturbances == [
        f"{name} in 100% of the timed window: look after cooling and power of the card"
    ]


def test_a_power_limit_is_a_remark_and_no_disturbance() -> None:
    window = watch(PlayedNvml(reasons=0x04))
    assert window.disturbances == []
    assert window.doubts == ["the power limit held the clocks down in 100% of the timed window"]


def test_another_process_is_told_from_our_own_context() -> None:
    # 7 was there before our context, 11 came with it, 12 comes while we time.
    window = watch(PlayedNvml(running=[[7], [7, 11], [7, 11, 12]]))
    assert window.disturbances == ["2 other processes used the card while it was timed: measure when it is idle"]
    assert watch(PlayedNvml(running=[[], [11], [11]])).disturbances == []


def test_clocks_that_move_are_doubted_with_both_numbers() -> None:
    assert watch(PlayedNvml(clocks=[1530, 1290])).doubts == [
        "the SM clock moved between 1290 and 1530 MHz: lock it with `nvidia-smi -lgc` for numbers that repeat"
    ]


def test_energy_is_the_difference_of_the_cards_own_counter_in_joules() -> None:
    assert watch(PlayedNvml(energy=[1_000_000, 1_250_000])).energy == 250.0


def test_what_a_card_does_not_tell_is_named_and_nothing_fails() -> None:
    window = watch(PlayedNvml(clocks=[None], reasons=None, power=None, energy=[None], running=None))
    assert window.energy is None
    assert window.disturbances == []
    (doubt,) = window.doubts
    assert doubt.startswith("the card did not tell ")
    assert set(doubt.removeprefix("the card did not tell ").split(", ")) == {
        "energy",
        "power",
        "other processes",
        "the SM clock",
        "throttle reasons",
    }


def test_a_window_is_sampled_ten_times_a_second() -> None:
    window = watch(PlayedNvml(), seconds=0.55)
    assert 4 <= len(window.samples) <= 8
    assert all(isinstance(sample, Sample) for sample in window.samples)
    assert window.samples[-1].seconds >= 0.5
