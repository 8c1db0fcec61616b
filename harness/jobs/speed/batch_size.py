"""Find the batch size: the largest that fits, or the one at which throughput saturates, whatever the device or model.

Everything here takes the function that runs a batch as an argument, so that tests can fake memory and clock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.errors import JobError

# Saturation: doubling the batch must gain this share of throughput, and one iteration may last this long.
MIN_GAIN = 0.05
MAX_ITERATION_SECONDS = 1.0
LONG_ITERATION_SECONDS = 0.25

MAX_PROBES = 40  # far above what any model needs; a search that comes here does not converge
MAX_EXTRAPOLATIONS = 8  # after so many probes extrapolation creeps, and bisection is surer


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One batch size that was tried.

    `outcome` is `fits`, `out of memory` or what else it was too large for, or, where memory did not matter, `timed`.
    Memory is the peak in bytes: allocated to tensors, and reserved from the device for them.
    """

    batch: int
    outcome: str
    seconds: float
    allocated: int = 0
    reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """The batch size at which throughput saturates, and every one tried.

    `seconds` are the iterations of the last one tried if it is the answer.
    """

    batch: int
    probes: tuple[Probe, ...]
    seconds: tuple[float, ...]


def find_saturation(
    time_batch: Callable[[int], Sequence[float]], *, smallest: int = 1, largest: int | None = None
) -> Saturation:
    """Find the batch size at which throughput stops growing, an iteration lasting at most about a second.

    `time_batch` returns the times of a few iterations, none if the batch is too large; the shortest counts, because
    interference can only lengthen one.  Doubles from the `smallest`, up to the `largest` if there is one, until two
    doublings in a row gained too little, since one may have had bad luck; where an iteration takes a quarter of a
    second, one doubling is enough.
    """
    throughputs: dict[int, float] = {}
    probes = []
    batch, without_gain = smallest, 0
    while True:
        times = time_batch(batch)
        if not times:
            probes.append(Probe(batch=batch, outcome="too large", seconds=0.0))
            break
        seconds = min(times)
        probes.append(Probe(batch=batch, outcome="timed", seconds=seconds))
        gained = batch / seconds > (1 + MIN_GAIN) * max(throughputs.values(), default=0.0)
        throughputs[batch] = batch / seconds
        without_gain = 0 if gained else without_gain + 1
        slow = seconds > LONG_ITERATION_SECONDS
        full = largest is not None and 2 * batch > largest
        if without_gain == 2 or (without_gain and slow) or full or 2 * seconds > MAX_ITERATION_SECONDS:
            break
        batch *= 2
    if not throughputs:
        raise JobError(f"batch {smallest}, the smallest, is too large for the memory; give more with --memory")
    best = max(throughputs.values())
    saturated = next(size for size, throughput in throughputs.items() if throughput * (1 + MIN_GAIN) >= best)
    return Saturation(batch=saturated, probes=tuple(probes), seconds=tuple(times) if saturated == batch else ())


def largest_batch(
    probe_batch: Callable[[int], Probe], *, limit: int | None, most: int | None = None
) -> Iterator[Probe]:
    """Find the largest batch that fits, exact to one image; yields every probe, the answer is the largest that fits.

    `probe_batch` runs one batch; `limit` is the memory in bytes, to extrapolate to; `most` images are tried at once,
    whatever the memory.  Memory grows linearly with the batch, except for the allocator's rounding and the algorithms'
    workspaces: two small batches give a line, the line gives a guess, and each probe that fits improves the line.
    Where it does not help, growth and bisection end the search.
    """
    fits: list[Probe] = []
    too_large = None if most is None else most + 1
    batch = 1
    increase = 1  # doubled while the guess is below what fitted already
    for tries in range(MAX_PROBES):
        probe = probe_batch(batch)
        yield probe
        if probe.outcome == "fits":
            fits = sorted([*fits, probe], key=lambda p: p.batch)
        else:
            too_large = batch
        if too_large == 1:
            return
        largest = fits[-1].batch
        guess = _extrapolate(fits, limit)
        if too_large == largest + 1:
            return
        if too_large is None or (most is not None and too_large > most):
            if len(fits) == 1:
                batch = 4  # the second point of the line
            elif guess is None:
                batch = 2 * largest
            elif guess > largest:
                batch = guess
            else:
                batch = largest + increase
                increase *= 2
            batch = batch if most is None else min(batch, most)
        elif guess is not None and largest < guess < too_large and tries <= MAX_EXTRAPOLATIONS:
            batch = guess
        else:
            batch = (largest + too_large) // 2
    raise JobError(f"the search for the largest batch did not end within {MAX_PROBES} probes")


def _extrapolate(fits: Sequence[Probe], limit: int | None) -> int | None:
    """Predict the largest batch within the limit from the two largest that fit."""
    if limit is None or len(fits) < 2:
        return None
    smaller, larger = fits[-2:]
    slope = (larger.allocated - smaller.allocated) / (larger.batch - smaller.batch)
    return int(larger.batch + (limit - larger.allocated) / slope) if slope > 0 else None


def saturation_warning(probes: Sequence[Probe]) -> str:
    """Return a warning where throughput still grew at the largest batch that fits: memory limits it; empty if not."""
    fits = sorted((p for p in probes if p.outcome == "fits" and p.seconds > 0), key=lambda p: p.batch)
    if not fits:
        return ""
    largest = fits[-1]
    half = max((p for p in fits if 2 * p.batch <= largest.batch), key=lambda p: p.batch, default=None)
    if half is None:
        return ""
    growth = (largest.batch / largest.seconds) / (half.batch / half.seconds) - 1
    if growth <= MIN_GAIN:
        return ""
    return (
        f"throughput still grew by {100 * growth:.0f} % from batch {half.batch} to {largest.batch}, the largest that "
        "fits: it would be higher with more --memory"
    )
