"""Warm up until steady: the method, independent of any device or model.  The clock is an argument: tests fake it."""

import statistics
from collections.abc import Callable, Sequence

# A warm-up ends when three iterations agree with the three before to this share, and at the latest after so many
# iterations or seconds.
STEADY = 0.03
WARM_UP_MIN_SECONDS = 1.0
WARM_UP_MAX_SECONDS = 10.0
WARM_UP_MAX_ITERATIONS = 200


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


def _agree(early: Sequence[float], late: Sequence[float]) -> bool:
    return abs(statistics.median(late) / statistics.median(early) - 1) <= STEADY
