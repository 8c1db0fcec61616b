"""The noise of a machine -> from which loss of throughput on `check` and `ab` would fail there.

Both are played, with the functions by which they decide: a loss is noticed if it fails nine times in ten.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.gate.decision import Outcome
from harness.gate.noise import LEAST_PROCESSES, throughput_change
from harness.gate.turns import decide
from harness.run.turns import ProcessPair
from harness.stats import Noise, noise_of, relative_drift

# Of so many plays of a loss that is noticed, so many may be missed.
PLAYS, MISSED = 200, 20

# Losses that are tried, as fractions: from half a percent on.
LOSSES = tuple(step / 200 for step in range(1, 101))

# The runs behind a baseline that was calibrated, and those of a check, as the manual advises.
CALIBRATED, CHECKED = 5, LEAST_PROCESSES

SEED = 20121  # the same measurements predict the same


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """How much equal work differs, as standard deviations of logarithms: from process to process, from pair to pair.

    `drift` is the change of the time of a step from the first third of the pairs to the last, as a fraction.
    """

    processes: float
    pairs: float
    drift: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The smallest loss that is noticed, None where the largest that is tried is not; and after how many processes."""

    loss: float | None
    processes: float


def spreads_of(pairs: Sequence[ProcessPair]) -> Spreads | None:
    """Return how much pairs of equal sides differ; None for fewer than three."""
    # Of the processes on one side only: those of a pair ran at the same time.
    processes = noise_of([[pair.before for pair in pairs]])
    ratios = noise_of([[pair.slower for pair in pairs]])
    if len(pairs) < LEAST_PROCESSES or processes is None or ratios is None:
        return None
    drift = relative_drift([1 / math.sqrt(pair.before * pair.now) for pair in pairs])
    return Spreads(processes=processes.spread, pairs=ratios.spread, drift=drift)


def predict_check(spreads: Spreads, throughputs: int) -> Prediction:
    """Return what a check of so many throughputs notices in one of them, by runs one after the other."""
    noise = Noise(spread=spreads.processes, degrees=throughputs * (CALIBRATED - 1))

    def play(loss: float, draw: random.Random) -> tuple[bool, int]:
        before, now = (
            [[1 / (level * math.exp(draw.gauss(0, spreads.processes)))] for _ in range(count)]
            for level, count in ((1.0, CALIBRATED), (1 - loss, CHECKED))
        )
        change = throughput_change(before, now, noise, tests=throughputs)
        return change.beyond_noise and change.change < 0, CHECKED

    return _smallest_noticed(play)


def predict_turns(spreads: Spreads, pairs: int, allowed: float) -> Prediction:
    """Return what `ab` notices of one model within so many pairs of processes, and after how many of them."""

    def play(loss: float, draw: random.Random) -> tuple[bool, int]:
        taken: list[ProcessPair] = []
        while len(taken) < pairs:
            slower = math.exp(draw.gauss(0, spreads.pairs)) / (1 - loss)
            taken.append(ProcessPair(before=1.0, now=1 / slower, slower=slower))
            if len(taken) > 1 and (outcome := decide(taken, allowed).outcome) is not Outcome.NOT_JUDGED:
                return outcome is Outcome.REGRESSED, len(taken)
        return False, pairs

    return _smallest_noticed(play)


def _smallest_noticed(play: Callable[[float, random.Random], tuple[bool, int]]) -> Prediction:
    """Bisect for the smallest loss that is noticed often enough; all losses are played with the same randomness."""

    def outcomes(loss: float) -> Iterator[tuple[bool, int]]:
        return (play(loss, random.Random(SEED + number)) for number in range(PLAYS))  # noqa: S311 -- statistics

    def is_noticed(loss: float) -> bool:
        missed = 0
        for noticed, _ in outcomes(loss):
            missed += not noticed
            if missed > MISSED:  # most of those that take long
                return False
        return True

    low, high = 0, len(LOSSES)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_noticed(LOSSES[middle]) else (middle + 1, high)
    noticed = high < len(LOSSES)
    loss = LOSSES[high] if noticed else LOSSES[-1]
    return Prediction(loss=loss if noticed else None, processes=statistics.fmean(count for _, count in outcomes(loss)))
