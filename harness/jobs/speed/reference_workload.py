"""A fixed piece of work: its time shows how fast the machine is right now, whatever model is measured on it.

A virtual machine does not see what its neighbours on the host do, and its own clocks do not show it.  The gate compares
the time of the reference workload with that of the baseline, and judges no throughput by a run on a machine that was
slower as a whole.  The work is numpy's: with torch's own, a slower torch would look like a slower machine and never be
noticed.
"""

import statistics
import time

import numpy as np

# A matrix product loads the arithmetic units, copies load the memory; both take about as long, and neither fits a
# core's own cache.
SIDE = 1024
COPIES, COPY_BYTES = 20, 2**23
ROUNDS = 10


class ReferenceWorkload:
    """One matrix product, with as many threads as numpy takes, and twenty copies."""

    def __init__(self) -> None:
        self._left, self._right, self._product = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))
        self._source, self._target = (np.ones(COPY_BYTES, np.uint8) for _ in range(2))
        self._run()  # the libraries' first call sets them up

    def seconds(self) -> float:
        """Return the median of ten rounds, which take about a tenth of a second in all."""
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            self._run()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def _run(self) -> None:
        np.matmul(self._left, self._right, out=self._product)
        for _ in range(COPIES):
            np.copyto(self._target, self._source)
