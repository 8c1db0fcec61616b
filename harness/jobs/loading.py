"""Images -> batches of pixels: each image is read once, each distinct cut of it is made once."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from harness.jobs.images import Images, Unreadable
from harness.jobs.preprocess import Pixels, View


@dataclass(kw_only=True)
class Loaded:
    """A batch of n images: their positions, and one uint8 tensor of shape (n, 3, res, res) for each view.

    An image that could not be read is black, and `broken` says why by position.  `read` and `cut` are the seconds
    that reading and decoding, and resizing and cropping, took.
    """

    positions: list[int]
    pixels: list[torch.Tensor]
    broken: dict[int, str]
    read: float
    cut: float

    def pin_memory(self) -> "Loaded":
        """Move the pixels where a GPU fetches them fastest; the loader asks for it."""
        self.pixels = [tensor.pin_memory() for tensor in self.pixels]
        return self


def loader(
    images: Images, views: Sequence[View], batches: Sequence[Sequence[int]], *, workers: int, pin: bool
) -> Iterator[Loaded]:
    """Read these batches of positions in order, in so many processes beside this one.

    A source that can only be streamed is read by one process.
    """
    cutter = _Cutter(images, views)
    dataset: Any
    if images.streamed:
        dataset, sampler, workers = _Streamed(cutter, batches), None, min(workers, 1)
    else:
        dataset, sampler = _Chosen(cutter), batches
    found = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        # Forked, they share the list of images; passing it to a fresh Python would cost seconds for a large one.
        multiprocessing_context="fork" if workers else None,
    )
    return cast("Iterator[Loaded]", iter(found))


class _Cutter:
    """Cuts images into batches and notes what it costs."""

    def __init__(self, images: Images, views: Sequence[View]) -> None:
        self.images = images
        self._views = views
        self._transforms: list[Callable[[Image.Image], Pixels]] = [view.transform() for view in views]

    def batch(self, entries: Iterator[tuple[int, Image.Image | Unreadable]]) -> Loaded:
        """Cut the images that come; the time between two of them is the time of reading."""
        positions: list[int] = []
        rows: list[list[Pixels]] = []
        broken: dict[int, str] = {}
        read = cut = 0.0
        before = time.perf_counter()
        for position, image in entries:
            decoded = time.perf_counter()
            positions.append(position)
            if isinstance(image, Unreadable):
                broken[position] = str(image)
                rows.append([np.zeros((3, view.res, view.res), dtype=np.uint8) for view in self._views])
            else:
                rows.append([transform(image) for transform in self._transforms])
            after = time.perf_counter()
            read, cut, before = read + decoded - before, cut + after - decoded, after
        return Loaded(
            positions=positions,
            pixels=[torch.from_numpy(np.stack(cuts)) for cuts in zip(*rows, strict=True)],
            broken=broken,
            read=read,
            cut=cut,
        )


class _Chosen(Dataset[Loaded]):
    """Batches of any images, in any order."""

    def __init__(self, cutter: _Cutter) -> None:
        self._cutter = cutter

    def __getitem__(self, positions: Sequence[int]) -> Loaded:
        """Read and cut the images at these positions."""
        return self._cutter.batch((position, self._image(position)) for position in positions)

    def _image(self, position: int) -> Image.Image | Unreadable:
        try:
            return self._cutter.images.image(position)
        except Unreadable as error:
            return error


class _Streamed(IterableDataset[Loaded]):
    """Batches of images that come in their own order; the ones that nobody wants are passed over."""

    def __init__(self, cutter: _Cutter, batches: Sequence[Sequence[int]]) -> None:
        self._cutter = cutter
        self._batches = batches

    def __iter__(self) -> Iterator[Loaded]:
        """Read from the beginning to the last image wanted."""
        source = iter(self._cutter.images)
        for positions in self._batches:
            yield self._cutter.batch(_only(source, set(positions)))


def _only(
    source: Iterator[tuple[int, Image.Image | Unreadable]], wanted: set[int]
) -> Iterator[tuple[int, Image.Image | Unreadable]]:
    last = max(wanted)
    for position, image in source:
        if position in wanted:
            yield position, image
        if position == last:
            return
