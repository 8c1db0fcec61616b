"""Throughputs of processes: ranks against scipy and by hand, and how often an unchanged one gives a false positive."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.gate.noise import drift_reference, process_throughput, rank_test, throughput_change
from harness.stats import Noise, noise_of

Process = list[float]

times = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=4)
sides = st.tuples(st.lists(times, min_size=1, max_size=4), st.lists(times, min_size=1, max_size=4))


def test_a_process_is_as_fast_as_its_median_run() -> None:
    assert process_throughput([0.5, 0.25, 4.0]) == 2.0


def test_noise_is_what_is_left_within_groups() -> None:
    # Logarithms 0 and 2 have variance 2 with one degree of freedom, 1, 1, 4 have 3 with two: (2 + 6) / 3.
    found = noise_of([[1, math.exp(2)], [math.e, math.e, math.exp(4)], [100]])
    assert found is not None
    assert found.spread == pytest.approx(math.sqrt(8 / 3))
    assert found.degrees == 3


def test_single_processes_show_no_noise() -> None:
    assert noise_of([[1.0], [2.0]]) is None
    assert noise_of([]) is None


def test_three_slower_processes_against_three_are_one_way_in_twenty() -> None:
    slower, faster = rank_test([[1.0, 1.1], [1.2], [1.3]], [[2.0], [2.1, 2.2], [2.3]])
    assert (slower, faster) == (1 / 20, 1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9).map(float), min_size=2, max_size=4),
    st.lists(st.integers(0, 9).map(float), min_size=2, max_size=4),
)
def test_with_one_run_a_process_the_test_is_scipys_permutation_of_mann_whitney(
    before: list[float], now: list[float]
) -> None:
    def count(one: Sequence[float], other: Sequence[float]) -> float:
        return float(sum((a > b) + (a == b) / 2 for a in one for b in other))

    slower, faster = rank_test([[one] for one in before], [[one] for one in now])
    ways: list[tuple[float, Literal["greater", "less"]]] = [(slower, "greater"), (faster, "less")]
    for found, way in ways:
        exact = scipy_stats.permutation_test(
            (now, before), count, permutation_type="independent", alternative=way, n_resamples=10**6
        )
        assert found == pytest.approx(exact.pvalue)


@settings(deadline=None)
@given(sides)
def test_exchanging_before_and_now_exchanges_slower_and_faster(found: tuple[list[Process], list[Process]]) -> None:
    before, now = found
    assert rank_test(before, now) == tuple(reversed(rank_test(now, before)))


@settings(deadline=None)
@given(sides, st.sampled_from([0.5, 2.0, 4.0]))
def test_the_unit_of_time_does_not_matter(found: tuple[list[Process], list[Process]], unit: float) -> None:
    before, now = found
    scaled = [[[unit * one for one in process] for process in side] for side in (before, now)]
    assert rank_test(*scaled) == rank_test(before, now)


def test_a_change_is_allowed_what_student_gives_for_the_noise() -> None:
    # One of one test, two-sided: Student's t of 4 degrees at 0.995 is 4.60409; a median of three has at most π/2 times
    # the variance of a mean: 0.02 · sqrt(π/2 · (1/3 + 1/3)) = 0.0204665; exp(4.60409 · 0.0204665) = 1.098812, which is
    # 9.8812 % gained or 1 - 1 / 1.098812 = 8.9926 % lost.
    found = throughput_change([[1.0]] * 3, [[1.25]] * 3, Noise(spread=0.02, degrees=4), tests=1)
    assert found.change == pytest.approx(-0.2)
    assert found.allowed == pytest.approx(0.089926, abs=1e-6)
    assert found.p == 1 / 20
    assert found.beyond_noise
    back = throughput_change([[1.25]] * 3, [[1.0]] * 3, Noise(spread=0.02, degrees=4), tests=1)
    assert back.change == pytest.approx(0.25)
    assert back.allowed == pytest.approx(0.098812, abs=1e-6)


@pytest.mark.parametrize(("times", "seen"), [(1.09, False), (1.11, True)])
def test_so_many_times_as_slow_and_so_many_times_as_fast_are_detected_alike(times: float, *, seen: bool) -> None:
    noise = Noise(spread=0.02, degrees=4)  # which allows 1.0988 times, as above
    one, other = [[1.0]] * 3, [[times]] * 3
    assert throughput_change(one, other, noise, tests=1).beyond_noise is seen
    assert throughput_change(other, one, noise, tests=1).beyond_noise is seen


def test_on_a_machine_without_noise_one_percent_is_no_change() -> None:
    found = throughput_change([[1.0]] * 3, [[1.009]] * 3, Noise(spread=0.0, degrees=100), tests=1)
    assert found.allowed == 0.01
    assert not found.beyond_noise


def test_a_large_effect_that_one_process_contradicts_is_not_beyond_noise() -> None:
    found = throughput_change([[1.0], [1.01], [2.5]], [[2.0], [2.1], [2.2]], Noise(spread=0.001, degrees=100), tests=1)
    assert found.change < -0.4
    assert found.p == 7 / 20  # 6 of the 9 pairs say slower; 6, 7, 8 and 9 come in 3 + 2 + 1 + 1 of 20 ways
    assert not found.beyond_noise


def test_two_processes_against_two_are_never_beyond_noise_however_far_apart() -> None:
    found = throughput_change([[1.0]] * 2, [[9.0]] * 2, Noise(spread=0.001, degrees=100), tests=1)
    assert abs(found.change) > found.allowed
    assert found.p == 1 / 6
    assert not found.beyond_noise


def test_runs_that_scatter_more_than_was_calibrated_raise_what_is_allowed() -> None:
    still = Noise(spread=0.001, degrees=100)
    calm = throughput_change([[1.0], [1.001], [1.002]], [[1.2], [1.201], [1.202]], still, tests=1)
    wild = throughput_change([[1.0], [1.001], [1.002]], [[1.05], [1.2], [1.5]], still, tests=1)
    assert calm.allowed == 0.01
    # Logarithms of 1.05, 1.2 and 1.5 have squares of 0.06495 about their mean; with the calm side that is, of 4 degrees
    # of freedom, 0.1274.  Student's t of 100 at 0.995, 2.626, and the root of π/2 · (1/3 + 1/3): 0.3424.
    assert wild.allowed == pytest.approx(1 - math.exp(-0.3424), abs=1e-3)


def test_so_does_the_noise_of_other_throughputs_of_the_check() -> None:
    sides = ([[1.0], [1.001], [1.002]], [[1.2], [1.201], [1.202]])
    found = throughput_change(*sides, Noise(spread=0.001, degrees=100), tests=1, current=Noise(spread=0.1, degrees=8))
    # Student's t of 100 degrees at 0.995 is 2.626, times 0.1, times the root of π/2 · (1/3 + 1/3): 0.2687.
    assert found.allowed == pytest.approx(1 - math.exp(-0.2687), abs=1e-3)


# The drift of the machine.


def test_machine_drift_is_measured_from_the_median_reference_and_beyond_its_noise() -> None:
    found = drift_reference([0.01 * math.exp(one) for one in (-0.02, 0.0, 0.02)])
    assert found is not None
    assert found.seconds == pytest.approx(0.01)
    # A standard deviation of 0.02, Student's t of 2 degrees at 0.995, 9.925, and the root of 1 + π/2/3: 0.2450; of
    # the median of nine the root of π/2 · (1/9 + 1/3): 0.1659.
    assert found.factor() == pytest.approx(math.exp(0.2450), rel=1e-3)
    assert found.factor(9) == pytest.approx(math.exp(0.1659), rel=1e-3)
    assert found.drift([0.0127]) == 0
    assert found.drift([0.0129]) == pytest.approx(0.29)
    assert found.drift([0.0079]) == 0
    assert found.drift([0.0078]) == pytest.approx(-0.22)
    assert found.drift([0.0119] * 9) == pytest.approx(0.19)
    assert found.drift([]) == 0


def test_a_machine_without_noise_may_still_drift_by_a_twentieth() -> None:
    found = drift_reference([0.01] * 20)
    assert found is not None
    assert found.factor() == found.factor(100) == 1.05


def test_two_reference_workloads_make_no_drift_reference() -> None:
    assert drift_reference([0.01, 0.01]) is None
    assert drift_reference([]) is None


# How often an unchanged measurement raises an alarm.


def processes(draw: np.random.Generator, count: int, *, spread: float, slower: float = 1.0) -> list[Process]:
    """Thirty runs each, which share the luck of their process."""
    return [list(slower * np.exp(draw.normal(0, spread) + draw.normal(0, 0.01, 30))) for _ in range(count)]


def alarms(*, spreads: Sequence[float], checks: int, slower: float = 1.0) -> tuple[int, int, int]:
    """Of so many checks of so many speeds: those that fail, that fail by ranks of processes alone, of runs alone."""
    draw = np.random.default_rng(20121)
    gate = ranks = pooled = 0
    for _ in range(checks):
        before = [processes(draw, 5, spread=spread) for spread in spreads]
        now = [processes(draw, 3, spread=spread, slower=slower) for spread in spreads]
        noise = noise_of([process_throughput(process) for process in side] for side in before)
        assert noise is not None
        found = [throughput_change(*sides, noise, tests=len(spreads)) for sides in zip(before, now, strict=True)]
        gate += any(one.beyond_noise and one.change < 0 for one in found)
        ranks += any(one.p <= 0.05 and one.change < 0 for one in found)
        pooled += any(
            scipy_stats.mannwhitneyu(np.ravel(b), np.ravel(n), alternative="less").pvalue < 0.05
            for b, n in zip(before, now, strict=True)
        )
    return gate, ranks, pooled


# A fifth of the checks by default, all with `-m simulations`.
CHECKS = (60, pytest.param(300, marks=pytest.mark.simulations))


@pytest.mark.parametrize("checks", CHECKS)
def test_ten_unchanged_throughputs_give_at_most_one_false_positive_in_a_hundred_checks(checks: int) -> None:
    gate, ranks, pooled = alarms(spreads=[0.02] * 10, checks=checks)
    # Ranks alone: ten tests at 5 % each, of which one in 56 ways and one in 28 are within: 1 - (1 - 2/56)^10 = 30 %.
    assert gate <= checks / 100
    assert checks / 5 <= ranks <= checks / 2
    # Iterations taken for independent samples, one throughput or ten: nearly every check is a false positive.
    assert pooled >= 0.95 * checks


@pytest.mark.parametrize("checks", CHECKS)
def test_also_where_some_models_are_noisier_than_others(checks: int) -> None:
    gate, _, _ = alarms(spreads=[0.005, 0.01, 0.02, 0.04], checks=checks)
    assert gate <= checks / 100


def test_a_fifth_slower_is_detected_nearly_always() -> None:
    gate, _, _ = alarms(spreads=[0.02], checks=100, slower=1.25)
    assert gate >= 90
