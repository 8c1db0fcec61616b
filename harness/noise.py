"""Speeds of several processes -> how far they differ by chance, and whether other processes are slower or faster.

The unit is the process.  The thirty runs of one process share its memory layout, its clock and its neighbours, so they
are not thirty independent samples; a test that takes them for that cries wolf (tests/test_noise.py counts how often).
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# With three processes on either side the smallest p that ranks can give is 1 in 20; with two it is 1 in 6.
LEAST_PROCESSES = 3

# More would add little and make 184,756 ways to exchange two times ten processes a million.
MOST_PROCESSES = 10

# One-sided, and just in reach of three processes against three.
SIGNIFICANT_RANKS = 0.05

# Of all speeds of a check together, where nothing changed: a check a day then cries wolf less than four times a year
# even without the ranks, and much less with them.
FALSE_ALARMS = 0.01

# A slower speed than this is nobody's regression, however still the machine.
LEAST_CHANGE = 0.01

# A machine has another pace if its yardstick says so at this level, and by this share at least.
OTHER_PACE = 0.01
LEAST_OTHER_PACE = 0.05


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How far speeds of processes that do the same differ on one machine.

    `spread` is the standard deviation of the logarithm of a process's speed, so nearly a fraction of it; `degrees`
    are those of freedom behind it.
    """

    spread: float
    degrees: int


@dataclass(frozen=True, kw_only=True)
class SpeedChange:
    """Processes now against processes before.

    `change` is the median speed now over that before, less one; `allowed` is the fraction by which it may move by
    chance; `p` is the share of all ways to call processes `now` and `before` that are at least as extreme in the
    direction of the change.
    """

    change: float
    allowed: float
    p: float

    @property
    def beyond_chance(self) -> bool:
        """Whether both the ranks and the size of the change say so."""
        return self.p <= SIGNIFICANT_RANKS and abs(self.change) > self.allowed


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a machine was: the median `seconds` of the yardsticks of so many `processes`, and how they differ."""

    seconds: float
    processes: int
    noise: Noise

    def factor(self, processes: int = 1) -> float:
        """Give by which factor the yardstick of one process, or the median of several, may differ by chance."""
        now = 1.0 if processes == 1 else math.pi / 2 / processes
        error = self.noise.spread * math.sqrt(now + math.pi / 2 / self.processes)
        return max(1 + LEAST_OTHER_PACE, math.exp(_student(self.noise.degrees, 1 - OTHER_PACE / 2) * error))

    def off(self, yardsticks: Sequence[float]) -> float:
        """Give by which fraction a machine with such yardsticks is slower, or faster (below zero); 0 if by chance."""
        if not yardsticks:
            return 0.0
        ratio, factor = statistics.median(yardsticks) / self.seconds, self.factor(len(yardsticks))
        return 0.0 if 1 / factor <= ratio <= factor else ratio - 1


def speed(seconds: Sequence[float]) -> float:
    """Images a second of one process, from its seconds an image: the median run, which a hiccup does not move."""
    return 1 / statistics.median(seconds)


def noise_of(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pool how far speeds differ within groups of processes that do the same; None where no group has two."""
    squares, degrees = 0.0, 0
    for group in groups:
        if len(group) > 1:
            squares += statistics.variance([math.log(one) for one in group]) * (len(group) - 1)
            degrees += len(group) - 1
    return Noise(spread=math.sqrt(squares / degrees), degrees=degrees) if degrees else None


def speed_change(
    before: Sequence[Sequence[float]],
    now: Sequence[Sequence[float]],
    noise: Noise,
    *,
    tests: int,
    unrest: Noise | None = None,
) -> SpeedChange:
    """Compare processes, each given by the seconds an image of its runs, in a check of so many speeds.

    What these processes show among themselves counts where it is more than the calibrated noise, and so does what all
    speeds of the check show (`unrest`): the machine may have become less quiet, and three processes may hide that.
    """
    speeds_before, speeds_now = [speed(one) for one in before], [speed(one) for one in now]
    change = statistics.median(speeds_now) / statistics.median(speeds_before) - 1
    shown = noise_of([speeds_before, speeds_now])
    most = Noise(spread=max(one.spread for one in (noise, shown, unrest) if one), degrees=noise.degrees)
    slower, faster = rank_test(before, now)
    return SpeedChange(
        change=change,
        allowed=allowance(most, len(before), len(now), tests=tests, slower=change < 0),
        p=slower if change < 0 else faster,
    )


def allowance(noise: Noise, before: int, now: int, *, tests: int, slower: bool) -> float:
    """Give the fraction that the median of so many processes may lose (or gain) by chance, in a check of so many."""
    # A median of n has at most π/2 times the variance of a mean of n.
    error = noise.spread * math.sqrt(math.pi / 2 * (1 / before + 1 / now))
    factor = math.exp(_student(noise.degrees, 1 - FALSE_ALARMS / (2 * tests)) * error)
    # What is 1.25 times as fast gains 25 %, what is so many times as slow loses 20 %.
    return max(LEAST_CHANGE, 1 - 1 / factor if slower else factor - 1)


def pace_of(yardsticks: Sequence[float]) -> Pace | None:
    """Find the pace of a machine from the yardsticks of many processes; None of fewer than three."""
    if len(yardsticks) < LEAST_PROCESSES:
        return None
    noise = noise_of([yardsticks])
    assert noise is not None
    return Pace(seconds=statistics.median(yardsticks), processes=len(yardsticks), noise=noise)


def rank_test(before: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Give the p of "now takes longer" and of "now takes less", one-sided and exact.

    The statistic is Mann and Whitney's over the raw samples: in which share of the pairs of a run now and a run before
    the one now is longer, each two processes counting alike.  What chance gives is found by exchanging whole processes,
    in every way there is.
    """
    everything = [np.asarray(one, dtype=np.float64) for one in (*now, *before)]
    longer = _longer(everything)
    chosen = _choices(len(everything), len(now))
    found = np.einsum("ci,ij,cj->c", chosen, longer, 1 - chosen)
    observed = found[0]  # the first choice is the true one
    # Sums of the same shares in another order differ in their last bit.
    return float((found >= observed - 1e-9).mean()), float((found <= observed + 1e-9).mean())


def _longer(processes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Give for each two processes the share of pairs of runs of which the first's is the longer; a tie counts half."""
    ordered = [np.sort(one) for one in processes]
    return np.array(
        [
            [
                (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")).mean() / (2 * len(other))
                for other in ordered
            ]
            for one in ordered
        ]
    )


@cache
def _choices(total: int, size: int) -> NDArray[np.float64]:
    """Give every way to choose `size` of `total`, a row each with ones for those chosen; the first are the first."""
    rows = list(combinations(range(total), size))
    found = np.zeros((len(rows), total))
    found[np.arange(len(rows))[:, None], rows] = 1
    return found


@cache
def _student(degrees: int, share: float) -> float:
    """Give the quantile of Student's distribution."""
    from scipy.special import stdtrit  # noqa: PLC0415 -- takes 0.2 s to import, which only judging speeds needs

    return float(stdtrit(degrees, share))
