"""Images -> batches of pixels: each image is read once, and preprocessed once in each way."""

import contextlib
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data._utils.pin_memory import pin_memory

from harness.jobs.data.images import Images, UnreadableImage, image_or_error
from harness.jobs.data.preprocess import Pixels, Preprocessing

# What the loader processes of this process lacked, a sentence each: warnings of what was measured with them.  From the
# first on, batches go through pipes.
LIMITS: dict[str, None] = {}

_NO_PROCESS = (
    "no process could be started that loads images ({}), so they were loaded between computations, which is slower: "
    "give a container more of --pids-limit or --shm-size, or use --workers 0"
)
_NO_SHARED_MEMORY = (
    "processes that load images could not use shared memory ({}; /dev/shm has {}), so images went through pipes, which "
    "is slower: give a container more of --shm-size, or use fewer --workers"
)
MIB = 2**20
PLENTY = 1024 * MIB  # of shared memory, more than the batches of all loader processes at once
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- where the C library has it


@dataclass(kw_only=True)
class ImageBatch:
    """A batch of n images: their positions, and one uint8 tensor of shape (n, 3, res, res) for each preprocessing.

    An image that could not be read is black, and `unreadable` has the reason by position.  `read` and `cut` are the
    seconds of reading and decoding, and of resizing and cropping.
    """

    positions: list[int]
    pixels: list[torch.Tensor]
    unreadable: dict[int, str]
    read: float
    cut: float

    def pin_memory(self) -> "ImageBatch":
        """Pin the pixels' memory, as the data loader asks for."""
        self.pixels = [tensor.pin_memory() for tensor in self.pixels]
        return self


def load_batches(
    images: Images, views: Sequence[Preprocessing], batches: Sequence[Sequence[int]], *, workers: int, pin: bool
) -> Iterator[ImageBatch]:
    """Read these batches of positions in order, in so many worker processes.

    A source that can only be streamed is read by one process.
    """
    dataset: Any = _Batches(images, views)
    if images.streamed:
        dataset, workers = _StreamedBatches(dataset, batches), min(workers, 1)
    sampler = None if images.streamed else cast("Any", batches)
    return load(dataset, workers=workers, pin=pin, collate=lambda batch: batch, batch_size=None, sampler=sampler)


def load(
    dataset: Dataset[Any],
    *,
    workers: int,
    pin: bool,
    collate: Callable[[Any], Any],
    **options: Any,  # noqa: ANN401 -- of torch's loader
) -> Iterator[Any]:
    """Load batches in so many worker processes, or in this one where they cannot be started, which `LIMITS` then says.

    `collate` makes a batch of what the dataset gives.
    """
    packed = (lambda samples: _Parcel(collate(samples))) if workers else collate
    # Forked, they share the list of images; passing it to a fresh Python would cost seconds for a large one.
    start = "fork" if workers else None
    loader = DataLoader(
        dataset, num_workers=workers, pin_memory=pin, multiprocessing_context=start, collate_fn=packed, **options
    )
    try:
        batches = iter(loader)
    except (OSError, RuntimeError, ImportError) as error:  # no more processes, threads or semaphores
        if not workers:
            raise
        LIMITS[_NO_PROCESS.format(error)] = None
        return load(dataset, workers=0, pin=pin, collate=collate, **options)
    return map(_Parcel.unpack, batches) if workers else batches


class _Parcel:
    """A batch that leaves a worker process.

    It is pickled by the worker itself, where an error can be dealt with.  Torch leaves that to a thread that drops what
    it cannot pickle, so that the batch would be waited for in vain: where /dev/shm is full, or a process has too many
    files open.
    """

    def __init__(self, batch: object) -> None:
        self.limit = ""
        if not LIMITS:
            try:
                self._content = _pickled_with_shared_memory(batch)
            except (OSError, RuntimeError) as error:
                self.limit = _shared_memory_limit(error)
                LIMITS[self.limit] = None
        if LIMITS:
            self._content = pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def unpack(batch: Any) -> Any:  # noqa: ANN401 -- of any kind
        """Return the batch; one that was pinned has been unpacked."""
        if not isinstance(batch, _Parcel):
            return batch
        LIMITS.update(dict.fromkeys(filter(None, (batch.limit,))))
        return pickle.loads(batch._content)  # noqa: S301, SLF001 -- from our own process

    def pin_memory(self) -> Any:  # noqa: ANN401 -- of any kind
        """Unpack the batch and pin its memory, as the data loader asks for."""
        return pin_memory(self.unpack(self))  # type: ignore[no-untyped-call]


def _pickled_with_shared_memory(batch: object) -> bytes:
    """Pickle a batch whose pixels are in shared memory.

    Raises `OSError` or `RuntimeError` where there is not enough of it; with torch 2.4 the process would be killed.
    """
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        # Half, because other processes share batches at the same time.
        if free < PLENTY and (size := len(pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL))) > free / 2:
            raise RuntimeError(f"a batch has {size / MIB:,.1f} MiB, and {free / MIB:,.1f} MiB are free")
    return bytes(ForkingPickler.dumps(batch))


def _shared_memory_limit(error: Exception) -> str:
    """Return the sentence for a batch that could not be shared, and remove the file that torch then leaves behind."""
    name = re.search(r" for file </(\w+)>", str(error))
    if name:
        (_SHARED_MEMORY / name[1]).unlink(missing_ok=True)
    try:
        size = f"{shutil.disk_usage(_SHARED_MEMORY).total / MIB:,.0f} MiB in all"
    except OSError:
        size = "no folder"
    return _NO_SHARED_MEMORY.format(str(error).replace(name[0] if name else "", ""), size)


class _Batches(Dataset[ImageBatch]):
    """Batches of images, in any order; measures the time that reading and preprocessing take."""

    def __init__(self, images: Images, views: Sequence[Preprocessing]) -> None:
        self.images = images
        self._views = views
        self._transforms: list[Callable[[Image.Image], Pixels]] = [view.transform() for view in views]

    def __getitem__(self, positions: Sequence[int]) -> ImageBatch:
        """Read and preprocess the images at these positions."""
        return self.batch((position, image_or_error(self.images.image, position)) for position in positions)

    def batch(self, samples: Iterator[tuple[int, Image.Image | UnreadableImage]]) -> ImageBatch:
        """Preprocess images as they come; the time between two of them is that of reading."""
        positions: list[int] = []
        rows: list[list[Pixels]] = []
        unreadable: dict[int, str] = {}
        read = cut = 0.0
        before = time.perf_counter()
        for position, image in samples:
            decoded = time.perf_counter()
            positions.append(position)
            if isinstance(image, UnreadableImage):
                unreadable[position] = str(image)
                rows.append([np.zeros((3, view.res, view.res), dtype=np.uint8) for view in self._views])
            else:
                rows.append([transform(image) for transform in self._transforms])
            after = time.perf_counter()
            read, cut, before = read + decoded - before, cut + after - decoded, after
        return ImageBatch(
            positions=positions,
            pixels=[torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)],
            unreadable=unreadable,
            read=read,
            cut=cut,
        )


class _StreamedBatches(IterableDataset[ImageBatch]):
    """Batches of images that come in their own order; those in no batch are skipped."""

    def __init__(self, dataset: _Batches, batches: Sequence[Sequence[int]]) -> None:
        self._dataset, self._batches = dataset, batches

    def __iter__(self) -> Iterator[ImageBatch]:
        """Read from the beginning to the last image of the batches."""
        samples, start = iter(self._dataset.images), 0
        for positions in self._batches:
            upcoming, start = islice(samples, max(positions) + 1 - start), max(positions) + 1
            yield self._dataset.batch(sample for sample in upcoming if sample[0] in positions)
