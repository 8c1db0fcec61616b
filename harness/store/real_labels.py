"""Names of images -> their labels in ImageNet-ReaL (Beyer et al. 2020), of which timm ships a copy."""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Fills a row, as images have different numbers of labels and some have none.  (-1 predicts an image that was not read.)
NO_LABEL = -2

# ImageNet's validation images carry their number in their name, wherever they are kept.
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


def real_labels(names: Sequence[str]) -> NDArray[np.int32] | None:
    """Return the labels of each image, a row each; None where the names are not ImageNet validation's."""
    numbers = np.array([number or 0 for number in validation_numbers(names)], dtype=np.int64)
    if not len(numbers) or numbers.min() < 1:
        return None
    labels = _all_labels()
    return labels[numbers - 1] if numbers.max() <= len(labels) else None


def validation_numbers(names: Sequence[str]) -> list[int | None]:
    """Return the number of each image among ImageNet's validation images; None where its name carries none."""
    matches = (_VALIDATION.search(name) for name in names)
    return [int(match[1]) if match else None for match in matches]


def is_labelled(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return for each image whether it has a label."""
    labelled: NDArray[np.bool_] = labels[:, 0] != NO_LABEL
    return labelled


def are_right(predictions: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return for each image whether one of its predictions is one of its labels; both have a row an image."""
    right: NDArray[np.bool_] = (predictions[:, :, None] == labels[:, None, :]).any(axis=(1, 2))
    return right


@cache
def _all_labels() -> NDArray[np.int32]:
    """Read the labels of the 50,000 images, in the order of their numbers, without importing timm (and torch)."""
    timm = find_spec("timm")
    assert timm is not None
    assert timm.origin is not None
    path = Path(timm.origin).parent / "data" / "_info" / "imagenet_real_labels.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    return np.array(list(zip_longest(*rows, fillvalue=NO_LABEL)), dtype=np.int32).T
