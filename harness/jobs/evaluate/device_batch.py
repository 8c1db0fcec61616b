"""What an evaluation pass holds of its device: the memory for the current batch, and the CPU's threads."""

from collections.abc import Sequence

import torch

from harness.jobs.data.loading import ImageBatch
from harness.jobs.data.preprocess import Preprocessing, normalise


class DeviceBatch:
    """The current batch on the device: each view of it is moved once and normalised once for each norm.

    Its memory is allocated once and used again for every batch.
    """

    def __init__(self, device: str, views: Sequence[Preprocessing]) -> None:
        self._device, self._views = device, views
        self._memory: dict[tuple[Preprocessing, str], torch.Tensor] = {}
        self._normalised: dict[tuple[Preprocessing, str], torch.Tensor] = {}
        self._pixels: dict[Preprocessing, torch.Tensor] = {}

    def put(self, batch: ImageBatch) -> None:
        """Take the next batch."""
        self._normalised.clear()
        self._pixels = dict(zip(self._views, batch.pixels, strict=True))

    def images(self, view: Preprocessing, norm: str) -> torch.Tensor:
        """Return the input of a model, float32 of shape (n, 3, res, res)."""
        key = view, norm
        if key not in self._normalised:
            pixels = self._pixels[view].to(self._device, non_blocking=True)
            memory = self._memory.get(key)
            if memory is None or memory.shape[0] < pixels.shape[0]:
                memory = self._memory[key] = torch.empty(pixels.shape, device=pixels.device)
            self._normalised[key] = normalise(pixels, norm, into=memory[: pixels.shape[0]])
        return self._normalised[key]


class ThreadTuner:
    """How many threads compute on a CPU whose cores the loader processes need as well.

    Threads that wait for one another on cores that are taken are ten times slower (measured on two cores).  So
    computing begins with the cores that the loaders leave, and takes all of them if even then it, and not loading, is
    the bottleneck.
    """

    TRIES = 3

    def __init__(self, *, workers: int) -> None:
        self._cores, self._workers = torch.get_num_threads(), workers
        self._compute_bound: list[bool] = []
        if workers:
            torch.set_num_threads(max(1, self._cores - workers))

    def observe(self, *, computing: float, reading: float) -> None:
        """Take the seconds that a batch took to compute, and to read in one process; the first one warms up."""
        if not self._workers or len(self._compute_bound) > self.TRIES:
            return
        self._compute_bound.append(computing > reading / self._workers)
        if len(self._compute_bound) > self.TRIES and all(self._compute_bound[1:]):
            self.restore()

    def restore(self) -> None:
        """Compute with all cores."""
        torch.set_num_threads(self._cores)
