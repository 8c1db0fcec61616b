"""Summaries of samples, rank correlation, and the doubts that numbers raise about themselves."""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

RESAMPLES = 1000  # the ends of an interval then move by about 0.01 from seed to seed
SEED = 20121  # the same results give the same interval


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a row of samples comes to.  `low` and `high` bound the mean with 95 % confidence."""

    mean: float
    median: float
    low: float
    high: float
    variation: float


def summarise(samples: Sequence[float]) -> Summary:
    """Mean, median, coefficient of variation, and Student's 95 % interval of the mean.

    With one sample there is no interval: both ends are the sample.
    """
    mean = statistics.fmean(samples)
    if len(samples) == 1:
        return Summary(mean=mean, median=mean, low=mean, high=mean, variation=0.0)
    from scipy.special import stdtrit  # noqa: PLC0415 -- takes 0.2 s to import; only measuring needs it

    deviation = statistics.stdev(samples)
    half = float(stdtrit(len(samples) - 1, 0.975)) * deviation / math.sqrt(len(samples))
    return Summary(
        mean=mean,
        median=statistics.median(samples),
        low=mean - half,
        high=mean + half,
        variation=deviation / mean,
    )


def doubts(seconds: Sequence[float]) -> list[str]:
    """What the times of the runs themselves give reason to doubt, each with a number and a remedy."""
    found = []
    summary = summarise(seconds)
    if summary.variation > 0.05:
        found.append(
            f"runs vary by {summary.variation:.1%}: is something else using the machine? measure again when it is idle"
        )
    elif summary.variation > 0.02:
        found.append(f"runs vary by {summary.variation:.1%}, more than the usual 2 %")
    if len(seconds) >= 5 and seconds[0] > 1.25 * summary.median:
        found.append(f"the first run took {seconds[0] / summary.median:.2f} times the median: warm-up ended too early")
    drift = relative_drift(seconds)
    if len(seconds) >= 10 and abs(drift) > 0.05:
        way = "slower" if drift > 0 else "faster"
        found.append(
            f"runs became {abs(drift):.1%} {way} from the first third to the last: let the machine cool or settle first"
        )
    return found


def relative_drift(seconds: Sequence[float]) -> float:
    """Median of the last third over the median of the first, less one."""
    third = max(1, len(seconds) // 3)
    return statistics.median(seconds[-third:]) / statistics.median(seconds[:third]) - 1


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation with a 95 % bootstrap interval over the rows."""

    value: float
    low: float
    high: float


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's τ-b: pairs in the same order less pairs in the opposite order, with ties corrected for.

    Written here because `scipy.stats` takes 0.7 s to import, half of what a whole report may take; the tests hold it
    against scipy's.  NaN where one side is all ties.
    """
    agree = untied_one = untied_other = 0
    for (a, b), (c, d) in combinations(zip(one, other, strict=True), 2):
        same = (a > c) - (a < c)
        as_well = (b > d) - (b < d)
        agree += same * as_well
        untied_one += same != 0
        untied_other += as_well != 0
    scale = math.sqrt(untied_one * untied_other)
    return agree / scale if scale else math.nan


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's ρ: the correlation of the ranks, ties sharing their mean rank.  NaN where one side is all ties."""
    try:
        return statistics.correlation(_ranks(one), _ranks(other))
    except statistics.StatisticsError:
        return math.nan


def rank_correlation(
    one: Sequence[float],
    other: Sequence[float],
    *,
    measure: Callable[[Sequence[float], Sequence[float]], float],
) -> Correlation:
    """Give a rank correlation and the interval that resampling the rows gives it."""
    draw = random.Random(SEED)  # noqa: S311 -- statistics, not secrets
    rows = range(len(one))
    found = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(rows, k=len(one))
        found.append(measure([one[i] for i in chosen], [other[i] for i in chosen]))
    kept = sorted(value for value in found if not math.isnan(value))
    value = measure(one, other)
    if not kept:
        return Correlation(value=value, low=math.nan, high=math.nan)
    return Correlation(value=value, low=_quantile(kept, 0.025), high=_quantile(kept, 0.975))


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            ranks[order[place]] = (start + end) / 2
        start = end + 1
    return ranks


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def wilson(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Give Wilson's score interval (1927) of a share, as fractions."""
    from scipy.stats import binomtest  # noqa: PLC0415 -- takes 0.7 s, which only those wait for who count hits

    found = binomtest(hits, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Give the exact two-sided p of McNemar's test (1947): how likely so uneven a split is if both are equally good.

    Counts are of images that one alone has right; those on which both agree say nothing about which is better.
    """
    if only_first + only_second == 0:
        return 1.0
    from scipy.special import bdtr  # noqa: PLC0415 -- takes 0.2 s, which only those wait for who compare two runs

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the ends of its interval, in the same unit."""

    value: float
    low: float
    high: float


def paired_difference(only_first: int, only_second: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Give the difference of two shares of the same `trials`, first less second, as fractions.

    The interval is Tango's score interval (Statistics in Medicine 17, 1998, pages 891-908): all differences that a
    score test does not reject.  It stays within -1 and 1, and does not collapse where neither is ever right alone.
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(
        value=(only_first - only_second) / trials,
        # The smallest difference is the largest one of the opposite comparison.
        low=-_largest_difference(only_second, only_first, trials, z),
        high=_largest_difference(only_first, only_second, trials, z),
    )


def _largest_difference(only_first: int, only_second: int, trials: int, z: float) -> float:
    """Halve the way to the largest difference that is not rejected: the score grows with it, from 0 at the estimate."""
    kept, rejected = (only_first - only_second) / trials, 1.0
    for _ in range(60):  # then the two ends are neighbouring floats
        middle = (kept + rejected) / 2
        distance = only_first - only_second - trials * middle
        if distance**2 <= z**2 * _variance(only_first, only_second, trials, middle):
            kept = middle
        else:
            rejected = middle
    return kept


def _variance(only_first: int, only_second: int, trials: int, difference: float) -> float:
    """Give the variance of `only_first - only_second` if this is the true difference.

    The share of images that the second alone has right is then most likely the larger root of Tango's quadratic.
    """
    room = difference * (1 - difference)
    b = (2 * trials - only_first + only_second) * difference - only_first - only_second
    root = math.sqrt(max(0.0, b * b + 8 * trials * only_second * room))
    return trials * ((root - b) / (2 * trials) + room)
