"""A piece of work that never changes: what it takes tells how fast the machine is just now, whatever is measured on it.

A virtual machine does not see what its neighbours on the host do, and its own clocks do not tell.  A gate holds the
yardstick against that of the baseline, and judges no speed by a run on a machine that was slower as a whole.  It is
numpy's work: by a yardstick of torch's own a slower torch would look like a slower machine, and never be found.
"""

import statistics
import time

import numpy as np

# A product busies the arithmetic units, copies the memory; both take about as long, and none fits a core's own cache.
SIDE = 1024
COPIES, COPY_BYTES = 20, 2**23
ROUNDS = 10


class Yardstick:
    """One matrix product, with as many threads as numpy takes, and twenty copies."""

    def __init__(self) -> None:
        self._one, self._other, self._product = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))
        self._source, self._target = (np.ones(COPY_BYTES, np.uint8) for _ in range(2))
        self._lay()  # the libraries' first call sets them up

    def seconds(self) -> float:
        """Lay it on ten times, which takes about a tenth of a second, and give the median."""
        found = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            self._lay()
            found.append(time.perf_counter() - start)
        return statistics.median(found)

    def _lay(self) -> None:
        np.matmul(self._one, self._other, out=self._product)
        for _ in range(COPIES):
            np.copyto(self._target, self._source)
