"""Training images -> batches of an epoch, augmented by timm, in an order that does not depend on the readers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import Mixup, create_transform
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.random_erasing import RandomErasing
from torch.utils.data import Dataset, DistributedSampler, Sampler

from harness.jobs.data.images import Images
from harness.jobs.data.loading import load
from harness.jobs.data.preprocess import Preprocessing
from harness.jobs.training import seeding
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters

Pixels = NDArray[np.uint8]
Transform = Callable[[Any], Pixels]


def build_transform(hyper: Hyperparameters) -> Transform:
    """Build timm's training transform up to the pixels: image -> uint8 of shape (3, res, res).

    What is done to a whole batch, normalising and erasing, is done on the device: bytes cost a quarter of what floats
    would to pass on.  What FixRes adapts sees the images as the evaluation does.
    """
    if hyper.fixres:
        return Preprocessing(res=hyper.res, crop=hyper.crop, interpolation=hyper.interpolation).transform()
    policy = hyper.rand_augment_policy if hyper.rand_augment else None
    policy = hyper.auto_augment_policy if hyper.auto_augment else policy
    transform: Any = create_transform(
        input_size=(3, hyper.res, hyper.res),
        is_training=True,
        scale=(hyper.crop_area, 1.0),
        hflip=hyper.flip,
        color_jitter=hyper.color_jitter,
        auto_augment=policy,
        interpolation=hyper.interpolation,
        use_prefetcher=True,
    )
    for op in operations(transform):
        _keep_a_bit(op)
    return cast("Transform", transform)


def operations(transform: Any) -> Iterator[AugmentOp]:  # noqa: ANN401 -- torchvision's composition has no types
    """Yield the operations that RandAugment chooses from; none where the transform is without."""
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            yield from step.ops


def _keep_a_bit(op: AugmentOp) -> None:
    """Keep one bit where timm's posterising asks for none: Pillow now refuses what gave a black image before."""
    level: Any = op.level_fn
    if "Posterize" in str(op.name) and level is not None:
        op.level_fn = lambda magnitude, hparams: (max(1, level(magnitude, hparams)[0]),)


def build_erasing(hyper: Hyperparameters, device: str) -> RandomErasing | None:
    """Build timm's random erasing for normalised batches: noise in a rectangle of each image that is drawn."""
    return RandomErasing(hyper.erasing, mode="pixel", max_count=1, device=device) if hyper.erasing else None


def build_mixing(hyper: Hyperparameters, classes: int) -> Mixup | None:
    """Build timm's mixup and cutmix, which also smooth the labels; None where both are off."""
    if not hyper.mixup and not hyper.cutmix:
        return None
    return Mixup(
        mixup_alpha=hyper.mixup,
        cutmix_alpha=hyper.cutmix,
        prob=hyper.mix_probability,
        switch_prob=hyper.mix_switch,
        mode="batch",
        label_smoothing=hyper.label_smoothing,
        num_classes=classes,
    )


def build_sampler(hyper: Hyperparameters, images: int, world: World, epoch: int) -> Sampler[int]:
    """Build the order of an epoch for one process: `rank`, `rank + size`, … of the order of all.

    With repeated augmentation an epoch sees floor(N / 256) × 256 images, their repeats counted.
    """
    options: dict[str, Any] = {"num_replicas": world.size, "rank": world.rank, "shuffle": True}
    indices = range(images)
    if hyper.repeated_aug:
        sampler: Any = RepeatAugSampler(indices, num_repeats=hyper.repeats_of_image, **options)
    else:
        sampler = DistributedSampler(indices, **options)  # type: ignore[arg-type]
    sampler.set_epoch(seeding.order_seed(hyper.seed, epoch))
    return cast("Sampler[int]", sampler)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The batches of one epoch for one process: `batches[k]` are pairs of position in the epoch and image."""

    number: int
    batches: Sequence[Sequence[tuple[int, int]]]

    @classmethod
    def of(cls, hyper: Hyperparameters, images: int, world: World, number: int) -> "Epoch":
        """Split the order of an epoch into whole batches; what is left over is dropped."""
        order = list(build_sampler(hyper, images, world, number))
        size = hyper.batch_size // world.size
        pairs = [(world.rank + world.size * index, image) for index, image in enumerate(order)]
        whole = len(pairs) // size * size
        return cls(number=number, batches=[pairs[i : i + size] for i in range(0, whole, size)])


LabelledImages = tuple[torch.Tensor, torch.Tensor]


class AugmentedImages(Dataset[tuple[Pixels, int]]):
    """The images of an epoch, augmented: what is drawn for each depends on its position alone."""

    def __init__(self, images: Images, transform: Transform, *, seed: int, epoch: int) -> None:
        self._images, self._transform, self._seed, self._epoch = images, transform, seed, epoch

    def __getitem__(self, pair: tuple[int, int]) -> tuple[Pixels, int]:
        """Read and augment the image for a position."""
        position, image = pair
        seeding.seed_image(self._seed, self._epoch, position)
        return self._transform(self._images.image(image)), int(self._images.labels[image])


def read_batches(  # noqa: PLR0913 -- what a loader needs to know
    images: Images, transform: Transform, epoch: Epoch, *, seed: int, first: int, workers: int, pin: bool
) -> Iterator[LabelledImages]:
    """Read the batches of an epoch from the `first` on: uint8 of shape (n, 3, res, res), and n class indices."""
    return load(
        AugmentedImages(images, transform, seed=seed, epoch=epoch.number),
        workers=workers,
        pin=pin,
        collate=_collate,
        batch_sampler=cast("Any", epoch.batches[first:]),
    )


def _collate(samples: Sequence[tuple[Pixels, int]]) -> LabelledImages:
    """Make a batch of samples; torch's own function does it in shared memory, of which there may be too little."""
    pixels, labels = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)
