"""Throughputs of several processes -> their noise, and whether other processes are slower or faster by more than it.

The unit is the process.  The thirty iterations of one process share its memory layout, its clock and its neighbours, so
they are not thirty independent samples; a test that treats them as such gives false positives (tests/test_noise.py
counts how many).
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.stats import LEAST_CHANGE, Noise, noise_of, student

# With three processes on either side the smallest p that ranks can give is 1 in 20; with two it is 1 in 6.
LEAST_PROCESSES = 3

# More would add little: ten processes on either side can be exchanged in 184,756 ways, eleven in 705,432.
MOST_PROCESSES = 10

# One-sided, and just in reach of three processes against three.
SIGNIFICANT_RANKS = 0.05

# Of all throughputs of a check together, where nothing changed: a check a day then gives less than four false positives
# a year even without the ranks, and far fewer with them.
FALSE_POSITIVES = 0.01

# A machine has drifted if its reference workload says so at this level, and by this fraction at least.
DRIFT_LEVEL = 0.01
LEAST_DRIFT = 0.05


@dataclass(frozen=True, kw_only=True)
class ThroughputChange:
    """Processes now against processes before.

    `change` is the median throughput now over that before, less one; `allowed` is the fraction that noise explains;
    `p` is the share of all ways to call processes `now` and `before` that are at least as extreme in the direction of
    the change.
    """

    change: float
    allowed: float
    p: float

    @property
    def beyond_noise(self) -> bool:
        """Whether both the ranks and the size of the change say so."""
        return self.p <= SIGNIFICANT_RANKS and abs(self.change) > self.allowed


@dataclass(frozen=True, kw_only=True)
class DriftReference:
    """How fast a machine was: the median `seconds` of the reference workload over `processes`, and its noise."""

    seconds: float
    processes: int
    noise: Noise

    def factor(self, processes: int = 1) -> float:
        """The factor by which noise may change the reference workload of one process, or the median of several."""
        now = 1.0 if processes == 1 else math.pi / 2 / processes
        error = self.noise.spread * math.sqrt(now + math.pi / 2 / self.processes)
        return max(1 + LEAST_DRIFT, math.exp(student(self.noise.degrees, 1 - DRIFT_LEVEL / 2) * error))

    def drift(self, seconds: Iterable[float | None]) -> float:
        """The fraction by which a machine with these reference seconds is slower (faster: below zero); 0 if noise."""
        measured = [time for time in seconds if time is not None]
        if not measured:
            return 0.0
        ratio, factor = statistics.median(measured) / self.seconds, self.factor(len(measured))
        return 0.0 if 1 / factor <= ratio <= factor else ratio - 1


def process_throughput(seconds: Sequence[float]) -> float:
    """Images a second of one process, from its seconds an image: its median iteration, robust to outliers."""
    return 1 / statistics.median(seconds)


def throughput_change(
    before: Sequence[Sequence[float]],
    now: Sequence[Sequence[float]],
    noise: Noise,
    *,
    tests: int,
    current: Noise | None = None,
) -> ThroughputChange:
    """Compare processes, each given by the seconds an image of its iterations, in a check of `tests` throughputs.

    The noise among these processes counts where it is more than the calibrated one, and so does the `current` noise of
    all throughputs of the check: the machine may have become noisier, which three processes alone may not show.
    """
    throughputs_before, throughputs_now = ([process_throughput(one) for one in group] for group in (before, now))
    change = statistics.median(throughputs_now) / statistics.median(throughputs_before) - 1
    among_these = noise_of([throughputs_before, throughputs_now])
    spread = max(source.spread for source in (noise, among_these, current) if source)
    most = Noise(spread=spread, degrees=noise.degrees)
    slower, faster = rank_test(before, now)
    return ThroughputChange(
        change=change,
        allowed=detectable_change(most, len(before), len(now), tests=tests, slower=change < 0),
        p=slower if change < 0 else faster,
    )


def detectable_change(noise: Noise, before: int, now: int, *, tests: int, slower: bool) -> float:
    """The fraction that the median throughput has to lose (or gain) to be more than noise, in a check of `tests`.

    `before` and `now` are numbers of processes.
    """
    # A median of n has at most π/2 times the variance of a mean of n.
    error = noise.spread * math.sqrt(math.pi / 2 * (1 / before + 1 / now))
    factor = math.exp(student(noise.degrees, 1 - FALSE_POSITIVES / (2 * tests)) * error)
    # What is 1.25 times as fast gains 25 %, what is 1.25 times as slow loses 20 %.
    return max(LEAST_CHANGE, 1 - 1 / factor if slower else factor - 1)


def drift_reference(seconds: Iterable[float | None]) -> DriftReference | None:
    """Return the reference for machine drift from the reference seconds of processes; None for fewer than three."""
    measured = [time for time in seconds if time is not None]
    noise = noise_of([measured])
    if noise is None or len(measured) < LEAST_PROCESSES:
        return None
    return DriftReference(seconds=statistics.median(measured), processes=len(measured), noise=noise)


def rank_test(before: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the p of "now takes longer" and of "now takes less", one-sided and exact.

    The statistic is Mann and Whitney's over the raw samples: of the pairs of an iteration now and one before, the share
    where that of now is longer less the share where it is shorter, each two processes counting alike.  Its distribution
    comes from exchanging whole processes in every possible way.
    """
    processes = (*now, *before)
    longer = np.array([[np.sign(np.subtract.outer(one, other)).mean() for other in processes] for one in processes])
    choices = _choices(len(processes), len(now))
    statistic = np.einsum("ci,ij,cj->c", choices, longer, 1 - choices)
    observed = statistic[0]  # the first choice is the true one
    # Sums of the same shares in another order differ in their last bit.
    return float((statistic >= observed - 1e-9).mean()), float((statistic <= observed + 1e-9).mean())


@cache
def _choices(total: int, size: int) -> NDArray[np.float64]:
    """Return every way to choose `size` of `total`, a row each with ones for the chosen; row 0 has the first `size`."""
    rows = list(combinations(range(total), size))
    choices = np.zeros((len(rows), total))
    choices[np.arange(len(rows))[:, None], rows] = 1
    return choices
