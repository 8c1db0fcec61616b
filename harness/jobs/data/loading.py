"""Images -> batches of pixels: each image is read once, and preprocessed once in each way."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from harness.jobs.data.images import Images, UnreadableImage, image_or_error
from harness.jobs.data.preprocess import Pixels, Preprocessing


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
    data_loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=None if images.streamed else cast("Any", batches),
        num_workers=workers,
        pin_memory=pin,
        # Forked, they share the list of images; passing it to a fresh Python would cost seconds for a large one.
        multiprocessing_context="fork" if workers else None,
    )
    return cast("Iterator[ImageBatch]", iter(data_loader))


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
