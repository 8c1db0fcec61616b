"""An image -> the input of a model: resized and cropped by timm's own transform, normalised on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)

from harness.plan.job import Job

NORMALIZATIONS = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "inception": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images are resized and cropped: models with the same preprocessing share its result, if not normalisation."""

    res: int
    crop: float
    interpolation: str

    @classmethod
    def of(cls, job: Job) -> "Preprocessing":
        """Return that of an evaluate job."""
        return cls(res=int(job["res"]), crop=float(job["crop"]), interpolation=str(job["interpolation"]))

    def transform(self) -> Callable[[Image.Image], Pixels]:
        """Return timm's evaluation transform up to the pixels, uint8 of shape (3, res, res).

        The resized side is res / crop, rounded down as timm does.
        """
        transform: Callable[[Image.Image], Pixels] = create_transform(
            input_size=(3, self.res, self.res),
            is_training=False,
            interpolation=self.interpolation,
            crop_pct=self.crop,
            use_prefetcher=True,  # keeps the pixels as bytes: a quarter of the floats' size to transfer
        )
        return transform


def normalise(pixels: torch.Tensor, norm: str, into: torch.Tensor | None = None) -> torch.Tensor:
    """Convert uint8 pixels of shape (n, 3, res, res) to float32 with the mean and deviation that the model expects.

    `into` is memory for the result; new memory for each batch costs a CPU more than the arithmetic.
    """
    scale, shift = _scale_and_shift(norm, pixels.device)
    if into is None:
        into = torch.empty_like(pixels, dtype=torch.float32)  # in the memory format of the pixels
    return torch.mul(pixels, scale, out=into).add_(shift)


@cache
def _scale_and_shift(norm: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both on the device, where they stay: an upload waits for all that the device has been given."""
    with torch.inference_mode(mode=False):  # for trainings as well, whoever asks first
        mean, deviation = (
            torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in NORMALIZATIONS[norm]
        )
        return (1 / (255 * deviation)).float().to(device), (-mean / deviation).float().to(device)
