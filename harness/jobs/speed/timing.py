"""Warm up until steady, then time until enough iterations are clean: the method, independent of any device or model.

The clock and what is known of interference are arguments: tests fake them.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.stats import Interval

# A warm-up ends when three iterations agree with the three before to this share, and at the latest after so many
# iterations or seconds.
STEADY = 0.03
WARM_UP_MIN_SECONDS = 1.0
WARM_UP_MAX_SECONDS = 10.0
WARM_UP_MAX_ITERATIONS = 200

# Retiming at most doubles what is timed, in number and in time.
MOST_RETIMED = 2

# Of a quick measurement: what warms it up, and the iterations before its place is looked at for the first time.
BRIEF_ITERATIONS, BRIEF_SECONDS = 3, 0.3
LEAST_QUICK = 3


def warm_up(time_step: Callable[[], float], *, before: Sequence[float] = ()) -> tuple[list[float], bool]:
    """Repeat the step until the last three iterations agree with the three before them, bounded in time and number.

    Returns the seconds of each iteration, and whether they agreed in the end.  `time_step` runs the step once and
    returns its seconds; `before` are those of iterations just before.  Two are enough for a slow model: a third would
    cost more than it shows.
    """
    times = list(before)
    while True:
        spent = sum(times)
        if len(times) >= 6 and spent >= WARM_UP_MIN_SECONDS and _agree(times[-6:-3], times[-3:]):
            return times, True
        if len(times) >= 2 and spent + times[-1] > WARM_UP_MAX_SECONDS:
            return times, _agree(times[-2:-1], times[-1:])
        if len(times) >= WARM_UP_MAX_ITERATIONS:
            return times, False
        times.append(time_step())


def warm_up_briefly(time_step: Callable[[], float], *, before: Sequence[float] = ()) -> list[float]:
    """Repeat the step a few times, whether or not it is steady then, and return the seconds of each iteration."""
    times = list(before)
    while len(times) < BRIEF_ITERATIONS or sum(times) < BRIEF_SECONDS:
        times.append(time_step())
    return times


def _agree(early: Sequence[float], late: Sequence[float]) -> bool:
    return abs(statistics.median(late) / statistics.median(early) - 1) <= STEADY


@dataclass(frozen=True, kw_only=True)
class Iterations:
    """Timed iterations in their order: the seconds of each, and what disturbed it by its index."""

    seconds: tuple[float, ...] = ()
    disturbed: Mapping[int, str] = field(default_factory=dict)

    @property
    def clean(self) -> tuple[int, ...]:
        """The indices of those that nothing disturbed, as far as the machine tells."""
        return tuple(index for index in range(len(self.seconds)) if index not in self.disturbed)

    def __add__(self, later: "Iterations") -> "Iterations":
        """These, and then others."""
        shifted = {len(self.seconds) + index: reason for index, reason in later.disturbed.items()}
        return Iterations(seconds=self.seconds + later.seconds, disturbed={**self.disturbed, **shifted})


def time_until_clean(
    time_more: Callable[[int], Iterations], repeats: int, *, window: float = 0.0, seconds: float = math.inf
) -> Iterations:
    """Time iterations until so many are clean: at most twice as many, in about twice the time of undisturbed ones.

    What is not clean was disturbed by a cause that the machine reports.  How long an iteration took never decides: to
    drop the slow ones would make every model faster than it is.  `time_more` times so many; it needs about `window`
    seconds to tell what disturbs them, and all of it may take so many `seconds`.
    """
    timed = time_more(repeats)
    while missing := max(0, repeats - len(timed.clean)):
        quiet, mean = min(timed.seconds), statistics.fmean(timed.seconds)
        time_left = min(MOST_RETIMED * repeats * quiet, seconds) - sum(timed.seconds)
        wanted = max(missing, min(repeats, math.ceil(window / quiet)))
        count = min(wanted, MOST_RETIMED * repeats - len(timed.seconds), int(time_left / mean))
        if count < 1:
            break
        timed += time_more(count)
    return timed


def time_until_placed(
    time_more: Callable[[int], Iterations], repeats: int, is_placed: Callable[[Sequence[float]], bool]
) -> Iterations:
    """Time a few iterations, then a third more each time, until their seconds fix a place or there are so many."""
    timed = time_more(min(LEAST_QUICK, repeats))
    while len(timed.seconds) < repeats and not is_placed(timed.seconds):
        timed += time_more(min(len(timed.seconds) // 3, repeats - len(timed.seconds)))
    return timed


def is_placed(own: "Interval", others: "Sequence[Interval]") -> bool:
    """Whether the place of a model among others is as certain as more iterations of its own would make it.

    The intervals of the others are apart from its own, or at least as wide: then it is they that are uncertain.
    """
    overlapping = [other for other in others if own.low <= other.high and other.low <= own.high]
    return all(_width(other) >= _width(own) for other in overlapping)


def _width(interval: "Interval") -> float:
    return (interval.high - interval.low) / interval.value
