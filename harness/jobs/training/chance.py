"""Where a training stands -> its random numbers: a pure function, so that nothing of chance needs to be saved.

What is drawn for an image depends on the seed, the epoch and the image's place in it; what is drawn for a step on the
seed, the epoch, the step and the process.  So a training that is resumed anywhere, with any number of processes that
read images, draws the same as one that was never interrupted.
"""

import random

import numpy as np
import torch

_IMAGE, _STEP, _BEGINNING, _ORDER = range(4)


def of_image(seed: int, epoch: int, place: int) -> None:
    """Begin what is drawn for the image at a place of an epoch."""
    # Not torch.manual_seed: telling devices that are not there costs as much as augmenting a small image.
    torch.default_generator.manual_seed(_begin(_IMAGE, seed, epoch, place))


def of_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Begin what is drawn for a step: erasing, mixing, dropout, stochastic depth."""
    torch.manual_seed(_begin(_STEP, seed, epoch, step, rank))


def of_beginning(seed: int) -> None:
    """Begin what is drawn before the first step: the weights."""
    torch.manual_seed(_begin(_BEGINNING, seed))


def order(seed: int, epoch: int) -> int:
    """Give the seed of an epoch's order of images, the same in every process."""
    return _state(_ORDER, seed, epoch)[0]


def _state(*of: int) -> list[int]:
    found: list[int] = np.random.SeedSequence(of).generate_state(2).tolist()
    return found


def _begin(*of: int) -> int:
    """Begin Python's and numpy's numbers, which timm draws from, and give a seed for torch's."""
    low, high = _state(*of)
    random.seed(low)
    np.random.seed(high)  # noqa: NPY002
    return low << 32 | high
