"""Shares, their intervals and the difference of paired ones, against hand calculation, other methods and simulation."""

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from harness.stats import Interval, mcnemar, paired_difference, wilson

Z = 1.959963984540054  # the 97.5th percentile of the normal distribution

unhurried = settings(deadline=None)  # the first call of all imports scipy.stats


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    """Images that only the first has right, that only the second has, and all."""
    trials = draw(st.integers(1, 60_000))
    only_first = draw(st.integers(0, trials))
    return only_first, draw(st.integers(0, trials - only_first)), trials


# One share.


def test_an_interval_of_a_share_is_what_wilsons_formula_gives() -> None:
    # 8 of 10: (0.8 + z²/20 ± z sqrt(0.8·0.2/10 + z²/400)) / (1 + z²/10) with z² = 3.84146
    # = (0.992073 ± 1.959964·0.160014) / 1.384146 = 0.716740 ± 0.226579.
    share = wilson(8, 10)
    assert share.value == 80
    assert share.low == pytest.approx(49.0162, abs=1e-3)
    assert share.high == pytest.approx(94.3318, abs=1e-3)


@unhurried
@given(st.integers(1, 60_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_an_interval_of_a_share_holds_it_stays_within_0_and_100_and_mirrors(told: tuple[int, int]) -> None:
    hits, trials = told
    share, misses = wilson(hits, trials), wilson(trials - hits, trials)
    assert 0 <= share.low <= share.value <= share.high <= 100
    assert share.low < share.high
    assert (misses.low, misses.high) == pytest.approx((100 - share.high, 100 - share.low), abs=1e-7)


# McNemar's test.


def by_hand(only_first: int, only_second: int) -> float:
    """Twice the tail of a fair coin, counted in whole numbers."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, float(Fraction(2 * sum(math.comb(n, k) for k in range(fewer + 1)), 2**n)))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 32),  # all five on one side, or all on the other
        (1, 7, 2 * (1 + 8) / 256),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_is_the_chance_of_so_uneven_a_split_of_fair_coins(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


@unhurried
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_counting_and_does_not_depend_on_the_order(only_first: int, only_second: int) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(by_hand(only_first, only_second), rel=1e-9)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


def test_mcnemar_is_quick_and_finite_where_counts_are_large() -> None:
    assert mcnemar(0, 50_000) == pytest.approx(0, abs=1e-300)
    assert mcnemar(25_000, 25_000) == 1.0


# The difference of two paired shares.


@unhurried
@given(counts())
def test_the_interval_of_a_difference_holds_it_has_a_width_and_stays_within_100_points(
    told: tuple[int, int, int],
) -> None:
    only_first, only_second, trials = told
    found = paired_difference(*told)
    assert found.value == 100 * ((only_first - only_second) / trials)
    assert -100 <= found.low <= found.value <= found.high <= 100
    assert found.low < found.high


@unhurried
@given(counts())
def test_exchanging_the_two_changes_the_sign_of_a_difference_and_nothing_else(told: tuple[int, int, int]) -> None:
    only_first, only_second, trials = told
    found = paired_difference(only_first, only_second, trials)
    mirrored = Interval(value=-found.value, low=-found.high, high=-found.low)
    assert paired_difference(only_second, only_first, trials) == mirrored


@unhurried
@given(counts(), st.floats(0.5, 0.94))
def test_less_confidence_gives_a_narrower_interval_within(told: tuple[int, int, int], confidence: float) -> None:
    wide, narrow = paired_difference(*told), paired_difference(*told, confidence=confidence)
    assert wide.low <= narrow.low + 1e-10
    assert narrow.high <= wide.high + 1e-10


@pytest.mark.parametrize("trials", [1, 50, 1416, 50_000])
def test_where_neither_is_ever_right_alone_the_interval_is_what_that_many_images_can_exclude(trials: int) -> None:
    # Without discordant images the most likely share under a difference d > 0 is d itself, so the score is
    # (n d)² / (n d (1 - d)) = n d / (1 - d); it reaches z² at d = z² / (n + z²).
    found = paired_difference(0, 0, trials)
    assert (found.value, found.low) == (0.0, -found.high)
    assert found.high == pytest.approx(100 * Z**2 / (trials + Z**2), rel=1e-9)


def test_one_that_is_always_right_alone_reaches_100_points() -> None:
    # No image is left on which both agree, so under a difference d the shares are (1 + d)/2 and (1 - d)/2, and the
    # variance is n (1 - d²): (n - n d)² = z² n (1 - d)(1 + d), so d = (n - z²) / (n + z²).
    found = paired_difference(50, 0, 50)
    assert (found.value, found.high) == (100.0, 100.0)
    assert found.low == pytest.approx(100 * (50 - Z**2) / (50 + Z**2), rel=1e-9)


@pytest.mark.parametrize(
    ("told", "low", "high"),
    [
        # Airway hyper-responsiveness, 21 children, as Fagerland, Lydersen and Laake (2014) give Tango's interval.
        ((1, 7, 21), -51.7, -2.6),
        # Two disinfections of contact lenses, 44 patients, the example of Tango's own paper.
        ((0, 1, 44), -11.8, 5.9),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(told: tuple[int, int, int], low: float, high: float) -> None:
    found = paired_difference(*told)
    assert (round(found.low, 1), round(found.high, 1)) == (low, high)


def score(only_first: int, only_second: int, trials: int, difference: float) -> float:
    """The score of a difference, with the likelihood made largest by search instead of by formula."""
    least, most = max(0.0, -difference), (1 - difference) / 2

    def unlikely(share: float) -> float:
        cells = (share + difference, share, 1 - 2 * share - difference)
        counted = (only_first, only_second, trials - only_first - only_second)
        return -sum(n * math.log(max(cell, 1e-300)) for n, cell in zip(counted, cells, strict=True) if n)

    share = float(optimize.minimize_scalar(unlikely, bounds=(least, most), options={"xatol": 1e-12}).x)
    variance = trials * (2 * share + difference - difference**2)
    return float((only_first - only_second - trials * difference) / math.sqrt(variance))


@pytest.mark.parametrize(
    "told", [(9, 4, 30), (1, 7, 21), (3, 0, 25), (2, 2, 10), (120, 91, 1416), (2000, 1700, 50_000)]
)
def test_at_both_ends_the_score_is_that_of_95_percent(told: tuple[int, int, int]) -> None:
    found = paired_difference(*told)
    assert score(*told, found.low / 100) == pytest.approx(Z, abs=1e-3)
    assert score(*told, found.high / 100) == pytest.approx(-Z, abs=1e-3)


def test_with_many_images_the_interval_is_walds() -> None:
    # (b - c) / n ± z sqrt(b + c - (b - c)²/n) / n for 5,000 and 4,000 of 50,000: 0.02 ± 0.0037.
    found = paired_difference(5000, 4000, 50_000)
    half = Z * math.sqrt(9000 - 1000**2 / 50_000) / 50_000
    assert found.low == pytest.approx(2 - 100 * half, abs=5e-4)
    assert found.high == pytest.approx(2 + 100 * half, abs=5e-4)


interval = cache(paired_difference)


@pytest.mark.parametrize("trials", [40, 300])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.2, 0.05), (0.03, 0.01), (0.3, 0.3)])
def test_95_of_100_intervals_hold_the_true_difference(trials: int, shares: tuple[float, float]) -> None:
    draw = np.random.default_rng(20121)
    drawn = draw.multinomial(trials, (*shares, 1 - sum(shares)), size=4000).tolist()
    found = [interval(only_first, only_second, trials) for only_first, only_second, _ in drawn]
    held = sum(one.low <= 100 * (shares[0] - shares[1]) <= one.high for one in found) / len(found)
    # Four standard errors of 4,000 draws are 1.4 %.  Counts are whole numbers, so where few images differ (1.6 of 40 on
    # average) no interval covers exactly 95 %: then it must rather be too wide.
    assert 0.935 <= held <= (0.965 if trials * sum(shares) > 10 else 0.995)
