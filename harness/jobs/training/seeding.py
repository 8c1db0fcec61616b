"""The state of a training -> its random numbers: a pure function, so that no random state needs to be saved.

What is drawn for an image depends on the seed, the epoch and the image's position in it; what is drawn for a step on
the seed, the epoch, the step and the process.  So a training that is resumed anywhere, with any number of loader
processes, draws the same as one that was never interrupted.
"""

import random

import numpy as np
import torch

_IMAGE, _STEP, _INITIALIZATION, _ORDER = range(4)


def seed_image(seed: int, epoch: int, position: int) -> None:
    """Seed what is drawn for the image at a position of an epoch."""
    # Not torch.manual_seed: seeding devices that are not there costs as much as augmenting a small image.
    torch.default_generator.manual_seed(_seed_python(_IMAGE, seed, epoch, position))


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed what is drawn for a step: erasing, mixing, dropout, stochastic depth."""
    torch.manual_seed(_seed_python(_STEP, seed, epoch, step, rank))


def seed_initialization(seed: int) -> None:
    """Seed what is drawn before the first step: the weights."""
    torch.manual_seed(_seed_python(_INITIALIZATION, seed))


def order_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's order of images, the same in every process."""
    return _words(_ORDER, seed, epoch)[0]


def _words(*key: int) -> list[int]:
    words: list[int] = np.random.SeedSequence(key).generate_state(2).tolist()
    return words


def _seed_python(*key: int) -> int:
    """Seed Python's and numpy's generators, which timm draws from, and return a seed for torch's."""
    low, high = _words(*key)
    random.seed(low)
    np.random.seed(high)  # noqa: NPY002
    return low << 32 | high
