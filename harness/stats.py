"""Means, their variation and their steps, warnings about samples, rank correlation, and intervals of shares."""

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000  # the ends of an interval then vary by about 0.01 between seeds
SEED = 20121  # the same results have the same interval

# A smaller loss of throughput is no regression, however little noise the machine has.
LEAST_CHANGE = 0.01

# A level is that of three values at least: one or two that are off are no step.
LEAST_LEVEL = 3

# Of a series of normal values without a step: all throughputs of table 5 then give a false step in 1 % of reports.
FALSE_STEPS = 0.0005

# A step may be wherever the logarithm of the likelihood is less than this below that of its place.  Of steps of 2.5
# standard deviations 97 % are where this allows.
PLACE = 3.0

# More are no steps but a drift, and cost time.
MOST_STEPS = 20

# The operations of `derive` in which a factor that both operands share cancels out.
RATIOS = ("ratio", "change")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the ends of its interval, in the same unit."""

    value: float
    low: float
    high: float


def mean_interval(samples: Sequence[float]) -> Interval:
    """Return the mean and its 95 % interval by Student's t; with one sample both ends are the sample."""
    mean = statistics.fmean(samples)
    if len(samples) == 1:
        return Interval(value=mean, low=mean, high=mean)
    half = student(len(samples) - 1, 0.975) * statistics.stdev(samples) / math.sqrt(len(samples))
    return Interval(value=mean, low=mean - half, high=mean + half)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that this percentage of all do not exceed; None if there are too few to tell."""
    if len(values) < least_values(percent):
        return None
    return sorted(values)[-(-percent * len(values) // 100) - 1]


def least_values(percent: int) -> int:
    """Return how many values have at least one beyond this percentile."""
    return -(-100 // (100 - percent))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much the throughput of the same work differs from process to process on one machine.

    `spread` is the standard deviation of the logarithm of a process's throughput, so nearly a fraction of it;
    `degrees` are its degrees of freedom.
    """

    spread: float
    degrees: int


def noise_of(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pool the noise within groups of throughputs of the same work; None where no group has two."""
    squares, degrees = 0.0, 0
    for group in groups:
        if len(group) > 1:
            squares += statistics.variance([math.log(throughput) for throughput in group]) * (len(group) - 1)
            degrees += len(group) - 1
    return Noise(spread=math.sqrt(squares / degrees), degrees=degrees) if degrees else None


@dataclass(frozen=True, kw_only=True)
class LevelStep:
    """Where the level of a series changes: `index` is most likely the first value after it.

    The first value after it may also be another one from `earliest` to `latest`.
    """

    index: int
    earliest: int
    latest: int


def find_steps(values: Sequence[float], *, least: float = 0.0) -> list[LevelStep]:
    """Return where the level of a series changes, first step first; the values are independent and of one spread.

    Of all ways to have so many steps, the one that leaves the least scatter around the levels is determined by dynamic
    programming (Auger and Lawrence, Bulletin of Mathematical Biology 51, 1989, pages 39-54).  One step more is one too
    many unless it lowers the scatter as much as a single one that Student's t accepts, at `FALSE_STEPS` divided by the
    number of its possible places (Bonferroni).  So a loss that was mended, where no single step helps, is detected too.
    Steps smaller than `least` are left out.
    """
    count = len(values)
    if count < 2 * LEAST_LEVEL:
        return []
    scatter = _scatter(values)
    total = scatter[0, count]
    if not total > 0:
        return []
    places = count - 2 * LEAST_LEVEL + 1
    t = student(count - 2, 1 - FALSE_STEPS / (2 * places))
    price = count * math.log1p(t * t / (count - 2))
    tiny = 1e-12 * total  # the noise of the sums, where values without any noise have a step
    left, beginnings, best = scatter[0], [], (count * math.log(total), [0, count])
    for steps in range(1, min(count // LEAST_LEVEL, MOST_STEPS + 1)):
        ways = left[:, None] + scatter
        beginnings.append(ways.argmin(axis=0))
        left = ways.min(axis=0)
        ends = [count]
        for beginning in reversed(beginnings):
            ends.insert(0, int(beginning[ends[0]]))
        best = min(best, (count * math.log(left[count] + tiny) + steps * price, [0, *ends]))
    ends = best[1]
    means = [statistics.fmean(values[i:j]) for i, j in pairwise(ends)]
    large = [number for number, (a, b) in enumerate(pairwise(means), 1) if abs(b - a) >= least]
    return [_placed(scatter, ends, number, tiny) for number in large]


def _scatter(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the sum of squares around the mean of each stretch `[i:j]`; infinite for one that is too short."""
    centred = np.asarray(values, dtype=float) - np.mean(values)
    sums, squares = (np.concatenate([[0.0], np.cumsum(terms)]) for terms in (centred, centred**2))
    length = np.subtract.outer(range(len(values) + 1), range(len(values) + 1)).T
    within = np.subtract.outer(squares, squares).T - np.subtract.outer(sums, sums).T ** 2 / np.maximum(length, 1)
    return np.where(length >= LEAST_LEVEL, np.maximum(within, 0.0), np.inf)


def _placed(scatter: NDArray[np.float64], ends: Sequence[int], number: int, tiny: float) -> LevelStep:
    """Return a step with all places where it may be as well, if the others are where they are."""
    low, index, high = ends[number - 1 : number + 2]
    rest = sum(scatter[i, j] for i, j in pairwise(ends) if index not in (i, j)) + tiny
    left = scatter[low, low:high] + scatter[low:high, high] + rest
    near = np.flatnonzero(ends[-1] / 2 * np.log(left / left.min()) <= PLACE)
    return LevelStep(index=index, earliest=low + int(near[0]), latest=low + int(near[-1]))


def derive(operation: str, operands: Sequence[Interval]) -> Interval:
    """Return what follows from measured values, with its 95 % interval, as if they were independent of each other.

    `operation` is `sum`; or `difference`, `ratio` or `change` of the first and the second, a change being 100 × (ratio
    less one), in percent.  The distances of the ends from the values are added in quadrature, each on the side to which
    it moves the result; of a ratio they are those of the logarithms.  This is the method of variance estimates recovery
    (Zou and Donner, Statistics in Medicine 27, 2008, pages 1693-1702).  Raises `ValueError` for a ratio of values or
    ends that are not positive.
    """
    if operation in RATIOS:
        logarithms = [Interval(value=math.log(o.value), low=math.log(o.low), high=math.log(o.high)) for o in operands]
        spread, ratio = derive("difference", logarithms), operands[0].value / operands[1].value
        low, high = (ratio * math.exp(end - spread.value) for end in (spread.low, spread.high))
        if operation == "ratio":
            return Interval(value=ratio, low=low, high=high)
        return Interval(value=100 * (ratio - 1), low=100 * (low - 1), high=100 * (high - 1))
    first, *others = operands
    if operation == "difference":
        others = [Interval(value=-other.value, low=-other.high, high=-other.low) for other in others]
    terms = [first, *others]
    value = math.fsum(term.value for term in terms)
    return Interval(
        value=value,
        low=value - math.hypot(*(term.value - term.low for term in terms)),
        high=value + math.hypot(*(term.high - term.value for term in terms)),
    )


def variation(samples: Sequence[float]) -> float:
    """Return the coefficient of variation; 0 with one sample, NaN where the mean is zero."""
    mean = statistics.fmean(samples)
    return 0.0 if len(samples) == 1 else statistics.stdev(samples) / mean if mean else math.nan


@cache
def student(degrees: int, share: float) -> float:
    """Return a quantile of Student's distribution."""
    from scipy.special import stdtrit  # noqa: PLC0415 -- takes 0.2 s to import; a report of one seed does without

    return float(stdtrit(degrees, share))


def timing_warnings(seconds: Sequence[float], *, serious: bool = False) -> list[str]:
    """Return warnings about the times of the iterations, each with a number and a remedy.

    `serious` ones alone are those that say something else than the model was timed as well.
    """
    warnings = []
    cv, median = variation(seconds), statistics.median(seconds)
    vary, too_short = f"iterations vary by {100 * cv:.1f} %", "the warm-up was too short; measure again"
    if cv > 0.05:
        warnings.append(f"{vary}: is something else using the machine? measure again when it is idle")
    elif cv > 0.02 and not serious:
        warnings.append(f"{vary}, more than the usual 2 %: measure again when the machine is idle")
    if len(seconds) >= 5 and seconds[0] > 1.25 * median and not serious:
        warnings.append(f"the first iteration took {seconds[0] / median:.2f} times the median: {too_short}")
    drift = 100 * relative_drift(seconds)
    if len(seconds) >= 10 and abs(drift) > 5:
        change, remedy = ("slower", "let the machine cool, then measure again") if drift > 0 else ("faster", too_short)
        warnings.append(f"iterations became {abs(drift):.1f} % {change} from the first third to the last: {remedy}")
    return warnings


def relative_drift(seconds: Sequence[float]) -> float:
    """Median of the last third over the median of the first, less one."""
    third = max(1, len(seconds) // 3)
    return statistics.median(seconds[-third:]) / statistics.median(seconds[:third]) - 1


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's τ-b: the correlation of the order of all pairs; NaN where one side is all ties.

    Implemented here, as is Spearman's: a report needs thousands of either, and each takes scipy ten times as long.
    """
    return _correlation(_order(first), _order(second))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's ρ: the correlation of the ranks; ties share their mean.  NaN where a side is all ties."""
    # The number of smaller values less that of larger ones is twice the rank, centred.
    return _correlation(_order(first).sum(axis=1), _order(second).sum(axis=1))


def _order(values: Sequence[float]) -> NDArray[np.float64]:
    """Return for each pair of values 1 where the first is larger, -1 where it is smaller, 0 where they tie."""
    return np.sign(np.subtract.outer(values, values), dtype=np.float64)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    scale = math.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum()) / scale if scale else math.nan


def rank_correlation(
    first: Sequence[float],
    second: Sequence[float],
    *,
    measure: Callable[[Sequence[float], Sequence[float]], float],
) -> Interval:
    """Return a rank correlation with its 95 % bootstrap interval over the rows."""
    generator = random.Random(SEED)  # noqa: S311 -- statistics, not secrets
    resampled = []
    for _ in range(RESAMPLES):
        rows = generator.choices(range(len(first)), k=len(first))
        resampled.append(measure([first[i] for i in rows], [second[i] for i in rows]))
    defined = [value for value in resampled if not math.isnan(value)]
    value = measure(first, second)
    if len(defined) < 2:
        return Interval(value=value, low=math.nan, high=math.nan)
    low, *_, high = statistics.quantiles(defined, n=40, method="inclusive")  # 2.5 % and 97.5 %
    return Interval(value=value, low=low, high=high)


def wilson(hits: int, trials: int) -> Interval:
    """Return a share in percent, with Wilson's 95 % score interval (1927)."""
    from scipy.stats import binomtest  # noqa: PLC0415 -- takes 0.7 s to import; only accuracies need it

    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    return Interval(value=100 * hits / trials, low=100 * float(interval.low), high=100 * float(interval.high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947): how likely so uneven a split is if both are equally good.

    The counts are of images that only one classifies correctly; those on which both agree do not tell which is better.
    """
    if only_first + only_second == 0:
        return 1.0
    from scipy.special import bdtr  # noqa: PLC0415 -- takes 0.2 s to import; only comparisons need it

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def paired_difference(only_first: int, only_second: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the difference of two shares of the same `trials`, first less second, in percentage points.

    The interval is Tango's score interval (Statistics in Medicine 17, 1998, pages 891-908): all differences that a
    score test does not reject.  It stays within ±100, and keeps a width where both are right on the same images.
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(
        value=100 * ((only_first - only_second) / trials),
        # The smallest difference is the largest one of the opposite comparison.
        low=-100 * _largest_difference(only_second, only_first, trials, z),
        high=100 * _largest_difference(only_first, only_second, trials, z),
    )


def _largest_difference(only_first: int, only_second: int, trials: int, z: float) -> float:
    """Bisect for the largest difference that is not rejected: the score grows with it, from 0 at the estimate."""

    def variance(difference: float) -> float:
        """Return that of `only_first - only_second` under this true difference.

        The likeliest share of images that only the second has right is then the larger root of Tango's quadratic.
        """
        room = difference * (1 - difference)
        b = (2 * trials - only_first + only_second) * difference - only_first - only_second
        root = math.sqrt(max(0.0, b * b + 8 * trials * only_second * room))
        return trials * ((root - b) / (2 * trials) + room)

    accepted, rejected = (only_first - only_second) / trials, 1.0
    for _ in range(60):  # then the two ends are neighbouring floats
        middle = (accepted + rejected) / 2
        distance = only_first - only_second - trials * middle
        if distance**2 <= z**2 * variance(middle):
            accepted = middle
        else:
            rejected = middle
    return accepted
