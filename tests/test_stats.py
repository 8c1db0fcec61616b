"""Means and rank correlations against scipy, and warnings against numbers worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.stats import (
    kendall,
    least_values,
    mcnemar,
    mean_interval,
    percentile,
    rank_correlation,
    relative_drift,
    spearman,
    timing_warnings,
    variation,
    wilson,
)

whole = st.integers(min_value=-5, max_value=5).map(float)
pairs = st.lists(st.tuples(whole, whole), min_size=2, max_size=12)


def test_the_mean_of_four_samples_has_the_interval_that_a_textbook_gives() -> None:
    # Mean 2.5, deviation sqrt(5/3) = 1.29099; Student's t for 3 degrees of freedom is 3.18245, so the half width is
    # 3.18245 * 1.29099 / 2 = 2.05426.
    samples = [1.0, 2.0, 3.0, 4.0]
    mean = mean_interval(samples)
    assert mean.value == 2.5
    assert mean.low == pytest.approx(2.5 - 2.05426, abs=1e-4)
    assert mean.high == pytest.approx(2.5 + 2.05426, abs=1e-4)
    assert variation(samples) == pytest.approx(1.29099 / 2.5, abs=1e-5)


def test_one_sample_has_no_interval() -> None:
    mean = mean_interval([3.0])
    assert (mean.low, mean.high, variation([3.0])) == (3.0, 3.0, 0.0)


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = list(range(30, 0, -1))
    assert [percentile(values, percent) for percent in (50, 90)] == [15, 27]
    assert percentile([*values, 31], 90) == 28  # 27 of 31 are 87 %


def test_a_percentile_needs_as_many_values_as_have_one_beyond_it() -> None:
    assert [least_values(percent) for percent in (50, 90, 99)] == [2, 10, 100]
    assert percentile([1.0] * 99, 99) is None
    assert percentile([*[1.0] * 99, 2.0], 99) == 1.0


def test_samples_around_zero_have_no_coefficient_of_variation() -> None:
    assert math.isnan(variation([-1.0, 1.0]))


@given(pairs)
def test_kendall_is_scipys_tau_b(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert kendall(first, second) == pytest.approx(scipy_stats.kendalltau(first, second).statistic)


@given(pairs)
def test_spearman_is_scipys(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert spearman(first, second) == pytest.approx(scipy_stats.spearmanr(first, second).statistic)


def test_a_side_that_is_all_ties_has_no_correlation() -> None:
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.1, 1000), min_size=5, max_size=10, unique=True), st.randoms(use_true_random=False))
def test_an_interval_of_a_rank_correlation_holds_it_and_is_the_same_each_time(
    values: list[float], draw: object
) -> None:
    second = sorted(values, key=lambda _: draw.random())  # type: ignore[attr-defined]
    first = rank_correlation(values, second, measure=kendall)
    assert -1 - 1e-9 <= first.low <= first.high <= 1 + 1e-9
    assert first == rank_correlation(values, second, measure=kendall)


def test_the_interval_is_the_one_that_scipys_bootstrap_finds() -> None:
    first = [math.sin(3 * n) + n / 20 for n in range(40)]
    second = [math.sin(5 * n + 1) + n / 20 for n in range(40)]
    interval = rank_correlation(first, second, measure=spearman)
    np.random.seed(1)  # noqa: NPY002 -- the one way to seed that scipy 1.12 and the newest have in common
    bootstrap: Any = scipy_stats.bootstrap  # its types name the generator, which older versions name otherwise
    theirs = bootstrap(
        (first, second),
        lambda a, b: scipy_stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4000,
    ).confidence_interval
    assert interval.low == pytest.approx(theirs.low, abs=0.04)
    assert interval.high == pytest.approx(theirs.high, abs=0.04)


def test_quiet_samples_raise_no_warning() -> None:
    assert timing_warnings([1.0, 1.01, 0.99] * 10) == []


def test_samples_that_spread_are_warned_of_with_their_variation() -> None:
    # 1.0 and 1.2 by turns: mean 1.1, deviation 0.1017 over 30 samples, which is 9.2 %.
    assert timing_warnings([1.0, 1.2] * 15) == [
        "iterations vary by 9.2 %: is something else using the machine? measure again when it is idle"
    ]


def test_a_moderate_spread_is_a_note() -> None:
    # 1.0 and 1.06 by turns: 0.0305 over 1.03 is 3.0 %.
    assert timing_warnings([1.0, 1.06] * 15) == [
        "iterations vary by 3.0 %, more than the usual 2 %: measure again when the machine is idle"
    ]


def test_a_slow_first_run_raises_a_warning() -> None:
    warnings = timing_warnings([1.5] + [1.0] * 29)
    assert warnings[-1] == "the first iteration took 1.50 times the median: the warm-up was too short; measure again"


def test_a_drift_raises_a_warning() -> None:
    samples = [1.0] * 10 + [1.05] * 10 + [1.1] * 10
    assert relative_drift(samples) == pytest.approx(0.1)
    assert timing_warnings(samples[::-1])[-1] == (
        "iterations became 9.1 % faster from the first third to the last: the warm-up was too short; measure again"
    )
    assert timing_warnings(samples)[-1] == (
        "iterations became 10.0 % slower from the first third to the last: let the machine cool, then measure again"
    )


def test_the_share_of_eight_of_ten_has_the_interval_of_wilsons_formula() -> None:
    # (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n), with p = 0.8, n = 10 and z = 1.959964.
    share = wilson(8, 10)
    assert (share.value, share.low, share.high) == pytest.approx((80.0, 49.0162, 94.3318), abs=1e-4)


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (1, 0, 1.0)])
def test_an_even_split_is_no_difference_and_an_uneven_one_as_likely_as_that_many_coins(
    first: int, second: int, p: float
) -> None:
    assert mcnemar(first, second) == pytest.approx(p)  # 1 of 10 or fewer: 2 · (1 + 10) / 1,024


def test_the_first_of_five_iterations_is_compared_with_the_median() -> None:
    sentence = "the first iteration took 1.50 times the median: the warm-up was too short; measure again"
    assert sentence in timing_warnings([3.0, 2.0, 2.0, 2.0, 2.0])
    assert sentence not in timing_warnings([3.0, 2.0, 2.0, 2.0])


def test_ten_iterations_show_a_drift_and_nine_do_not() -> None:
    slower = [1.0, 1.0, 1.0, 1.05, 1.05, 1.05, 1.08, 1.08, 1.08]
    assert not [text for text in timing_warnings(slower) if "became" in text]
    assert [text for text in timing_warnings([*slower, 1.08]) if "became 8.0 % slower" in text]
