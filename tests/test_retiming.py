"""What disturbed an iteration, and what is timed again: with a fake clock, a fake machine and simulated neighbours."""

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.jobs.speed.device import Cpu, CpuLoad
from harness.jobs.speed.timing import Iterations, time_until_clean
from harness.machine import CpuClock
from harness.machine.monitor import Sample, Window
from harness.plan.job import Job
from harness.report.export import records
from harness.report.html.runs import samples
from harness.store.result import Result, from_json, to_json
from harness.store.select import is_noisy
from tests.fakes import result_of, with_facts


def recorded(seconds: Sequence[float], disturbed: Sequence[bool]) -> tuple[Callable[[int], Iterations], list[int]]:
    """Return what times iterations as they were recorded, and how many it was asked for each time."""
    asked: list[int] = []

    def time_more(count: int) -> Iterations:
        begin = sum(asked)
        asked.append(count)
        flags = disturbed[begin : begin + count]
        return Iterations(
            seconds=tuple(seconds[begin : begin + count]),
            disturbed={index: "a neighbour" for index, flag in enumerate(flags) if flag},
        )

    return time_more, asked


def test_only_as_many_as_were_disturbed_are_timed_again() -> None:
    time_more, asked = recorded([1.0] * 60, [False, True, True] * 20)
    timed = time_until_clean(time_more, 9)
    # Six of nine are disturbed, four of the next six, three of the last three: twice nine is the limit.
    assert asked == [9, 6, 3]
    assert timed.clean == (0, 3, 6, 9, 12, 15)


def test_a_window_is_long_enough_to_tell_what_disturbs_it() -> None:
    time_more, asked = recorded([0.1] * 60, [True, *[False] * 59])
    assert len(time_until_clean(time_more, 30, window=1.0).clean) == 39
    assert asked == [30, 10]


def test_no_more_is_timed_than_there_is_time_for() -> None:
    time_more, asked = recorded([1.0] * 60, [True] * 60)
    assert len(time_until_clean(time_more, 10, seconds=13.5).seconds) == 13
    assert asked == [10, 3]


def test_disturbed_iterations_that_take_three_times_as_long_leave_no_time_to_repeat_them() -> None:
    # Ten take 1 s each when quiet, so 20 s are all there is; nine of three seconds and one of one have taken 28.
    time_more, asked = recorded([1.0, *[3.0] * 59], [False, *[True] * 59])
    time_until_clean(time_more, 10)
    assert asked == [10]


times = st.lists(st.floats(0.01, 10), min_size=24, max_size=24)
flags = st.lists(st.booleans(), min_size=24, max_size=24)


@given(times, flags, st.integers(1, 12), st.floats(0, 20))
def test_no_more_than_twice_as_many_are_timed_and_what_counts_was_not_disturbed(
    seconds: list[float], disturbed: list[bool], repeats: int, window: float
) -> None:
    time_more, asked = recorded(seconds, disturbed)
    timed = time_until_clean(time_more, repeats, window=window)
    assert repeats <= len(timed.seconds) == sum(asked) <= 2 * repeats
    assert timed.seconds == tuple(seconds[: len(timed.seconds)])
    assert [index in timed.clean for index in range(len(timed.seconds))] == [
        not flag for flag in disturbed[: len(timed.seconds)]
    ]
    for windows in range(1, len(asked)):
        before = seconds[: sum(asked[:windows])]
        expected = sum(before) + asked[windows] * statistics.fmean(before)
        assert expected <= 2 * repeats * min(before) + 1e-9


@given(st.lists(st.floats(0.99, 1.01), min_size=24, max_size=24), flags, st.randoms(use_true_random=False))
def test_how_long_an_iteration_took_decides_nothing(
    seconds: list[float], disturbed: list[bool], draw: random.Random
) -> None:
    shuffled = draw.sample(seconds, len(seconds))
    kept = [time_until_clean(recorded(each, disturbed)[0], 12).clean for each in (seconds, shuffled)]
    least = min(map(len, kept))
    assert kept[0][:least] == kept[1][:least]


@dataclass
class Neighbour:
    """Somebody else on the machine, who comes at random, stays a while and makes everything slower meanwhile."""

    draw: random.Random
    variation: float
    comes: float  # times a second
    stays: float  # seconds
    factor: float
    now: float = 0.0
    ends: float = 0.0
    begins: float = 0.0

    def __post_init__(self) -> None:
        self._plan()

    def _plan(self) -> None:
        self.begins = self.ends + self.draw.expovariate(self.comes)
        self.ends = self.begins + self.draw.expovariate(1 / self.stays)

    def time_more(self, count: int) -> Iterations:
        seconds, disturbed = [], {}
        for index in range(count):
            took = self.draw.gauss(1.0, self.variation)
            while self.ends < self.now:
                self._plan()
            if self.begins < self.now + took:
                took *= self.factor
                disturbed[index] = "a neighbour"
            self.now += took
            seconds.append(took)
        return Iterations(seconds=tuple(seconds), disturbed=disturbed)


def estimate(neighbour: Neighbour, *, all_count: bool) -> float:
    timed = neighbour.time_more(30) if all_count else time_until_clean(neighbour.time_more, 30)
    kept = range(30) if all_count else timed.clean
    return statistics.fmean(timed.seconds[index] for index in kept) if kept else 1.0


@pytest.mark.parametrize(("comes", "stays"), [(0.02, 5.0), (0.1, 1.0), (0.5, 0.2)])
@pytest.mark.parametrize("variation", [0.02, 0.1])
def test_dropping_what_was_disturbed_biases_the_mean_by_less_than_the_square_of_the_variation(
    comes: float, stays: float, variation: float
) -> None:
    # A long iteration is disturbed a little more often than a short one: the mean of the others is lower by
    # `comes` times the variance, which is less than half of the square of the variation here.
    draw = random.Random(1)
    neighbours = [Neighbour(draw, variation, comes, stays, factor=1.5) for _ in range(1000)]
    clean = [estimate(neighbour, all_count=False) for neighbour in neighbours]
    error = variation / (30 * 1000) ** 0.5
    assert statistics.fmean(clean) - 1 == pytest.approx(0, abs=variation**2 + 3 * error)
    # What the same neighbours do to thirty iterations that all count.
    everything = statistics.fmean(
        estimate(replace(neighbour, now=0.0, ends=0.0), all_count=True) for neighbour in neighbours[:200]
    )
    assert everything > 1.02


# The CPU.


@dataclass
class FakeMachine:
    """A clock that a step moves, and counters that others move during some of the steps."""

    step: float
    others: dict[int, float] = field(default_factory=dict)  # cores of others, by the number of the step
    stolen: dict[int, float] = field(default_factory=dict)
    now: float = 0.0
    steps: int = 0
    used: float = 0.0
    taken: float = 0.0

    def run(self) -> None:
        self.now += self.step
        self.used += self.others.get(self.steps, 0.0) * self.step
        self.taken += self.stolen.get(self.steps, 0.0) * self.step
        self.steps += 1

    def clock(self) -> CpuClock:
        return CpuClock(own=2 * self.now, busy=2 * self.now + self.used, stolen=self.taken)


@pytest.fixture
def on_fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeMachine, int], Any]:
    def time_steps(machine: FakeMachine, repeats: int) -> Any:  # noqa: ANN401
        monkeypatch.setattr(time, "perf_counter", lambda: machine.now)
        monkeypatch.setattr(CpuClock, "now", machine.clock)
        cpu = Cpu.__new__(Cpu)
        cpu._threads, cpu._cores, cpu._as_script, cpu._retains_memory, cpu._limited = 2, 2, True, True, False
        return cpu.time_steps(machine.run, repeats, lambda _: None)

    return time_steps


def test_a_long_iteration_is_judged_by_what_others_used_during_it_alone(
    on_fake: Callable[[FakeMachine, int], Any],
) -> None:
    timings = on_fake(FakeMachine(1.0, others={3: 0.5, 7: 0.04}, stolen={3: 0.03, 9: 0.1}), 10)
    assert timings.disturbed == {
        3: "other processes used 0.50 cores and the host took 0.03 cores away",
        9: "the host took 0.10 cores away",
    }
    assert timings.interference == [
        "other processes used 0.50 cores while this was timed: measure again on an idle machine",
        "the host took 0.03 cores away while this was timed: measure again when the host is idle",
    ]


def test_short_iterations_are_judged_by_slices_of_a_second(on_fake: Callable[[FakeMachine, int], Any]) -> None:
    # Slices of four; others use one core during one of them, a quarter over the slice.
    timings = on_fake(FakeMachine(0.25, others={5: 1.0}), 12)
    assert timings.disturbed == dict.fromkeys(range(4, 8), "other processes used 0.25 cores")


def test_no_slice_is_shorter_than_a_second_unless_all_is(on_fake: Callable[[FakeMachine, int], Any]) -> None:
    # Three slices of three and what is left, 0.8 s, in the last of them.
    timings = on_fake(FakeMachine(0.4, others={10: 1.0}), 11)
    assert list(timings.disturbed) == [6, 7, 8, 9, 10]
    assert list(on_fake(FakeMachine(0.1, others={0: 1.0}), 5).disturbed) == [0, 1, 2, 3, 4]


def test_nobody_else_is_no_disturbance(on_fake: Callable[[FakeMachine, int], Any]) -> None:
    timings = on_fake(FakeMachine(0.3), 30)
    assert (timings.disturbed, timings.interference) == ({}, [])
    assert timings.facts["cores_used"] == 2.0


@pytest.mark.parametrize(
    ("others", "stolen", "text"),
    [
        (0.05, 0.02, ""),
        (0.051, 0.0, "other processes used 0.05 cores"),
        (0.0, 0.021, "the host took 0.02 cores away"),
    ],
)
def test_a_load_disturbs_from_a_twentieth_of_a_core_on(others: float, stolen: float, text: str) -> None:
    assert CpuLoad(seconds=1.0, own=2.0, others=others, stolen=stolen).disturbance == text


def test_a_few_ticks_of_the_counters_are_no_load_in_a_short_time() -> None:
    # 20 ms of 100 are two ticks, which may be one of a second process, or how the kernel counts.
    assert CpuLoad(seconds=0.1, own=2.0, others=0.2, stolen=0.1).disturbance == ""
    assert CpuLoad(seconds=0.1, own=2.0, others=0.3, stolen=0.1).disturbance == "other processes used 0.30 cores"


def test_a_system_without_counters_reports_no_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuClock, "now", lambda: None)
    timings = Cpu(1).time_steps(lambda: None, 3, lambda _: None)
    assert (timings.disturbed, len(timings.seconds)) == ({}, 3)
    assert "cores_used" not in timings.facts


# The GPU.


def sample_at(seconds: float, *, reasons: int = 0, others: tuple[int, ...] = ()) -> Sample:
    return Sample(
        seconds=seconds, sm_clock=1500, memory_clock=877, power=250, temperature=60, reasons=reasons, others=others
    )


def test_a_sample_of_a_gpu_disturbs_the_iterations_between_its_neighbours() -> None:
    samples = [sample_at(0.0), sample_at(0.1), sample_at(0.2, reasons=0x40), sample_at(0.3), sample_at(0.4)]
    window = Window(samples=tuple(samples), energy=None, missing=())
    # Iterations of 40 ms: those that touch what lies between 0.1 and 0.3 s are 2 to 7.
    assert window.disturbed([0.04] * 12) == dict.fromkeys(range(2, 8), "hardware thermal slowdown")


def test_what_is_seen_first_or_last_disturbs_from_the_beginning_or_to_the_end() -> None:
    quiet = [sample_at(moment) for moment in (0.2, 0.3, 0.4)]
    samples = (sample_at(0.1, others=(7,)), *quiet, sample_at(0.5, others=(7, 8)))
    # Iterations of 90 ms: until 0.2 s and from 0.4 s on.
    disturbed = Window(samples=samples, energy=None, missing=()).disturbed([0.09] * 6)
    one, two = "1 other process used the GPU", "2 other processes used the GPU"
    assert disturbed == {0: one, 1: one, 2: one, 4: two, 5: two}


# Who reads it.

JOB = Job.of("throughput", {"model": "resnet18", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"})
DROPPED = [
    {"index": 4, "seconds": 0.09, "by": "other processes used 0.50 cores"},
    {"index": 30, "seconds": 0.05, "by": "the host took 0.03 cores away"},
]
NOTE = "30 of 32 iterations clean, the others timed again: other processes used 0.50 cores while this was timed"


def retimed(dropped: list[dict[str, Any]], **facts: Any) -> Result:  # noqa: ANN401
    return with_facts(result_of(JOB, warnings=(NOTE,)), dropped=dropped, **facts)


def test_what_was_dropped_is_stored_with_its_place_and_its_cause() -> None:
    result = retimed(DROPPED, disturbed=False)
    assert from_json(to_json(result)) == result


@pytest.mark.parametrize(
    ("dropped", "problem"),
    [
        ([{**DROPPED[0], "index": 31}], "is damaged (iteration 31 was dropped, of only 31 from 0 on)"),
        ([DROPPED[0], DROPPED[0]], "is damaged (an iteration was dropped twice)"),
        ([{**DROPPED[0], "seconds": 0}], "is damaged (seconds in [facts.dropped] must be above 0, not 0)"),
        ([{"index": 4, "seconds": 0.1}], "is damaged (by in [facts.dropped] is missing; it must be a string)"),
    ],
)
def test_iterations_that_cannot_have_been_dropped_are_damage(dropped: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(StoreError) as caught:
        from_json(to_json(retimed(dropped)))
    assert str(caught.value) == problem


def test_a_result_is_as_noisy_as_the_iterations_that_count() -> None:
    assert not is_noisy(retimed(DROPPED, disturbed=False))
    assert is_noisy(retimed(DROPPED, disturbed=True))
    assert is_noisy(retimed([], disturbed=False)), "a warning alone, as of a result that dropped nothing"


def test_the_page_of_a_run_and_the_export_tell_what_was_dropped() -> None:
    result = retimed(DROPPED, disturbed=False)
    ((_, (sentence, data)),) = samples(result)
    assert sentence == (
        "30 samples, mean 0.04000, median 0.04000 s; 2 more were dropped: other processes used 0.50 cores; the host "
        "took 0.03 cores away"
    )
    assert len(data["samples"]) == 30
    (line,) = records([result])
    assert json.loads(str(line["dropped"])) == DROPPED
    assert next(records([retimed([])]))["dropped"] is None
