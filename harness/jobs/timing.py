"""Warm up until steady, find the batch, time the runs: the method, apart from any device or network.

Everything here takes the clock as an argument, so that tests can play it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.errors import JobError

# A warm-up ends when two rows of runs agree to this share, and at the latest after so many runs or seconds.
STEADY = 0.03
WARM_UP_LEAST_SECONDS = 1.0
WARM_UP_MOST_SECONDS = 10.0
WARM_UP_MOST_RUNS = 200

# The knee: doubling the batch must gain this share of speed to be worth it, and one run may last this long.
WORTH_DOUBLING = 0.05
LONGEST_RUN_SECONDS = 1.0
LONG_RUN_SECONDS = 0.25

MOST_PROBES = 40  # far above what any network needs; a search that comes here does not converge
TRUST_THE_LINE = 8  # after so many probes the line creeps, and bisection is surer


class Clock(Protocol):
    """Times single steps: seconds until the device has finished."""

    def seconds_of(self, step: Callable[[], object]) -> float:
        """Run the step once and wait for it."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One try of a batch: `outcome` is `fits`, `out of memory` or, when only speed was asked, `timed`.

    Memory is the peak in bytes, of tensors and of what the allocator took from the device for them.
    """

    batch: int
    outcome: str
    seconds: float
    allocated: int = 0
    reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How the warm-up went: the time of each run, and whether the runs agreed in the end."""

    seconds: tuple[float, ...]
    steady: bool


def warm_up(step: Callable[[], object], clock: Clock, *, before: Sequence[float] = ()) -> WarmUp:
    """Run until the last three runs agree with the three before them, bounded in time and number.

    `before` are runs of the same step that happened just now.  Slow networks get by with two runs: their third would
    cost more than it tells.
    """
    times = list(before)
    while True:
        spent = sum(times)
        if len(times) >= 6 and spent >= WARM_UP_LEAST_SECONDS and _agree(times[-3:], times[-6:-3]):
            return WarmUp(seconds=tuple(times), steady=True)
        if len(times) >= 2 and spent + times[-1] > WARM_UP_MOST_SECONDS:
            return WarmUp(seconds=tuple(times), steady=_agree(times[-1:], times[-2:-1]))
        if len(times) >= WARM_UP_MOST_RUNS:
            return WarmUp(seconds=tuple(times), steady=False)
        times.append(clock.seconds_of(step))


def _agree(late: list[float], early: list[float]) -> bool:
    return abs(sorted(late)[len(late) // 2] / sorted(early)[len(early) // 2] - 1) <= STEADY


@dataclass(frozen=True, kw_only=True)
class Knee:
    """The batch at which speed stops growing, every batch tried, and the runs of the last one if it was chosen."""

    batch: int
    probes: tuple[Probe, ...]
    runs: tuple[float, ...]


def knee(runs_at: Callable[[int], Sequence[float]]) -> Knee:
    """Find the batch at which images a second stop growing, one run lasting at most about a second.

    `runs_at` gives the times of a few runs of a batch; the shortest counts, because what else the machine does can only
    make a run longer.  Doubles from 1 until two doublings in a row were not worth it, since one may have had bad luck;
    a run of a quarter of a second has seen enough of both, so there one is enough.
    """
    speeds: dict[int, float] = {}
    probes = []
    batch, in_vain = 1, 0
    while True:
        runs = runs_at(batch)
        seconds = min(runs)
        probes.append(Probe(batch=batch, outcome="timed", seconds=seconds))
        worth = batch / seconds > (1 + WORTH_DOUBLING) * max(speeds.values(), default=0.0)
        speeds[batch] = batch / seconds
        in_vain = 0 if worth else in_vain + 1
        if in_vain == 2 or (in_vain and seconds > LONG_RUN_SECONDS) or 2 * seconds > LONGEST_RUN_SECONDS:
            break
        batch *= 2
    best = max(speeds.values())
    chosen = next(size for size, speed in speeds.items() if speed * (1 + WORTH_DOUBLING) >= best)
    return Knee(batch=chosen, probes=tuple(probes), runs=tuple(runs) if chosen == batch else ())


def largest_batch(attempt: Callable[[int], Probe], *, cap: int | None) -> Iterator[Probe]:
    """Find the largest batch that fits, exact to one image; yields every probe, the answer is the largest that fits.

    `attempt` runs one batch.  `cap` is the memory in bytes, for a first guess.  Memory grows linearly with the batch
    but for the allocator's rounding and the algorithms' workspaces, so two small batches give a line, the line gives a
    guess, and each probe that fits mends the line.  Where the line does not help, growth and bisection end it.
    """
    fits: list[Probe] = []
    fails: int | None = None
    batch = 1
    beyond = 0  # how often the line had nothing more to say while everything fitted
    for tries in range(MOST_PROBES):
        probe = attempt(batch)
        yield probe
        if probe.outcome == "fits":
            fits = sorted([*fits, probe], key=lambda p: p.batch)
        else:
            fails = batch
        if fails == 1:
            return
        most = fits[-1].batch
        guess = _on_the_line(fits, cap)
        if fails is None:
            if len(fits) == 1:
                batch = 4  # the second point of the line
            elif guess is None:
                batch = 2 * most
            elif guess > most:
                batch = guess
            else:
                batch = most + 2**beyond
                beyond += 1
        elif fails == most + 1:
            return
        elif guess is not None and most < guess < fails and tries <= TRUST_THE_LINE:
            batch = guess
        else:
            batch = (most + fails) // 2
    raise JobError(f"the search for the largest batch did not end within {MOST_PROBES} probes")


def _on_the_line(fits: list[Probe], cap: int | None) -> int | None:
    """Predict the largest batch from the two largest that fit."""
    if cap is None or len(fits) < 2:
        return None
    one, two = fits[-2:]
    slope = (two.allocated - one.allocated) / (two.batch - one.batch)
    if slope <= 0:
        return None
    return int(two.batch + (cap - two.allocated) / slope)


def below_the_knee(probes: Sequence[Probe]) -> str:
    """Doubt a largest batch at which im/s still grew: more memory would make the device faster; empty if it did not."""
    fits = sorted((p for p in probes if p.outcome == "fits" and p.seconds > 0), key=lambda p: p.batch)
    if not fits:
        return ""
    largest = fits[-1]
    half = max((p for p in fits if 2 * p.batch <= largest.batch), key=lambda p: p.batch, default=None)
    if half is None:
        return ""
    growth = (largest.batch / largest.seconds) / (half.batch / half.seconds) - 1
    if growth <= WORTH_DOUBLING:
        return ""
    return (
        f"im/s still grew by {growth:.0%} from batch {half.batch} to {largest.batch}, the largest that fits: with more "
        "--memory the device would be faster"
    )
