"""Names, labels and files of images -> whether they are the images that were published."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timm.data import ImageNetInfo

from harness.errors import JobError
from harness.machine import usable_cores
from harness.specs.datasets import DataSet, Variant
from harness.store.real_labels import are_right, is_labelled, real_labels, validation_numbers

# The share of a published set that may be copies of others.  Many sets are known to have some; of ImageNet's test sets
# V2 was reviewed for them, and a verdict allows no more.
_COPIES_ALLOWED, _COPIES_ALLOWED_IN_IMAGENET_TESTS = 0.01, 0.001

# The share that the size of all files may differ by: some mend a few files.
_BYTES_SLACK = 0.02

# Files of one size whose bytes are compared; of more it is a sample.
_COMPARED = 50_000

# Of ImageNet's 46,837 validation images with ReaL labels, 42,164 have their own label among them (90 %).  A few less
# than 0.05 % of them, which is what a verdict allows, may be wrong.
_REAL_AGREEMENT, _REAL_SLACK = 42_164, 23

# The WordNet id of an image's class, where its name carries it: n01440764_10026.JPEG (training images),
# ILSVRC2012_val_00000001_n01751748.JPEG (the Hugging Face hub's names).
_WORDNET_ID = re.compile(r"(?:^|_)(n\d{8})(?=[_.]|$)")


# Which set it is.


def find_variant(known: DataSet, path: str, names: Sequence[str]) -> tuple[str, Variant | None]:
    """Return the label of the set that these images are, and its variant if their names are exactly those of one.

    Otherwise it is what their folders are called; the last mention in `path` counts.
    """
    digest = _digest(map(_stem, names)) if any(variant.names for variant in known.variants) else ""
    exact = next((variant for variant in known.variants if variant.names and variant.names == digest), None)
    if exact is not None:
        return exact.label, exact
    matches = ((variant, re.finditer(variant.called, path.lower())) for variant in known.variants)
    mentions = [(match.end(), variant.label) for variant, of_variant in matches for match in of_variant]
    return (max(mentions)[1] if mentions else known.label), None


def full_path(where: str, path: str, first: str) -> str:
    """Return what may tell a set by its name: what the user gave, where the first image is, and what that links to.

    What is nearest to the images comes last.
    """
    image = os.path.join(path, first) if path else first  # noqa: PTH118 -- in a tar file, too
    return "\n".join((where, image, str(Path(image).resolve()) if path else ""))


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogatepass")).hexdigest()


# Whose labels they have.


@cache
def imagenet_class_indices() -> Mapping[str, int]:
    """Return the index of each of ImageNet's 1,000 WordNet ids, in timm's order."""
    return {name: index for index, name in enumerate(ImageNetInfo().label_names())}  # type: ignore[no-untyped-call]


def classes_in_names(names: Sequence[str]) -> list[int | None]:
    """Return the class whose WordNet id each name carries; None where it carries none of ImageNet's."""
    ids = imagenet_class_indices()
    matches = (_WORDNET_ID.findall(name.rpartition("/")[2]) for name in names)
    return [ids.get(match[-1]) if match else None for match in matches]


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """How many labels could be compared with what the images' names tell, and how many agree.

    `least` is how many would agree at least if the labels were the images' own, `source` what they were compared with.
    """

    compared: int
    agree: int
    least: float
    source: str

    @property
    def doubtful(self) -> bool:
        """Whether fewer agree than would."""
        return self.agree < self.least

    @property
    def wrong(self) -> bool:
        """Whether hardly any agrees, of so many that this is no accident."""
        return self.compared >= 20 and self.agree < 0.1 * self.compared

    @property
    def clause(self) -> str:
        """What does not agree."""
        return f"{self.compared - self.agree:,} of {self.compared:,} labels are not {self.source}"

    @property
    def warning(self) -> str:
        """The sentence about doubtful labels."""
        return (
            f"{self.clause}: classes are numbered from 0 in the order of their WordNet ids; are these ILSVRC's own "
            "numbers, or numbers from 1?"
        )


def check_labels(known: DataSet, names: Sequence[str], labels: NDArray[np.int32]) -> LabelCheck | None:
    """Compare labels of ImageNet's classes with the WordNet ids in names, or with ReaL by the numbers in them.

    How many of a sample's labels ReaL has depends on its classes; less than 80 % by three standard errors is beyond
    that.  None where the names tell nothing.
    """
    if known.order != "imagenet":
        return None
    carried = np.array([-1 if label is None else label for label in classes_in_names(names)], dtype=np.int64)
    compared, agree = int((carried >= 0).sum()), int((carried == labels).sum())
    real = real_labels(names) if compared < len(names) else None
    if real is None:
        source = "those of the WordNet ids in the names of the images"
        return LabelCheck(compared=compared, agree=agree, least=compared, source=source) if compared else None
    relabelled = is_labelled(real)
    compared, agree = int(relabelled.sum()), int(are_right(labels[:, None], real)[relabelled].sum())
    least, usual = 0.8 * compared - 3 * 0.4 * compared**0.5, "1 in 10 is usual"
    if len(set(names)) == len(names) == known.test_images:
        least, usual = _REAL_AGREEMENT - _REAL_SLACK, f"{compared - _REAL_AGREEMENT:,} are usual"
    source = f"among the ReaL labels of their images ({usual})"
    return LabelCheck(compared=compared, agree=agree, least=least, source=source)


def find_flaws(
    known: DataSet,
    names: Sequence[str],
    labels: NDArray[np.int32],
    *,
    labelled: LabelCheck | None,
    exact: Variant | None,
) -> list[str]:
    """Return what shows that these, though as many as were published, are not all of those; a clause each."""
    flaws = []
    numbers = validation_numbers(names) if known.order == "imagenet" else []
    carried = {number for number in numbers if number is not None and 1 <= number <= len(names)}
    if carried and len(carried) < len(names):
        flaws.append(f"only {len(carried):,} have the name of one of the published {len(names):,}")
    if labelled is not None and labelled.doubtful:
        flaws.append(labelled.clause)
    if exact is not None:
        lines = (f"{_stem(name)} {label}" for name, label in zip(names, labels.tolist(), strict=True))
        flaws += [] if _digest(lines) == exact.labels else ["their labels are not the published ones"]
    counts = np.bincount(labels, minlength=known.classes)
    each, rest = divmod(len(names), known.classes)
    known_labels = exact is not None or (labelled is not None and labelled.compared > len(names) / 2)
    if not known_labels and known.even and not rest and counts.min() and (counts != each).any():
        flaws.append(f"its classes have {counts.min():,} to {counts.max():,} images instead of {each:,}")
    return flaws


def encoding_warning(known: DataSet, sizes: NDArray[np.int64]) -> str:
    """Return a warning about the size of all test images' files; empty where it is as published, or not known."""
    total = int(sizes.sum())
    if not known.test_bytes or not total or abs(total - known.test_bytes) <= _BYTES_SLACK * known.test_bytes:
        return ""
    return (
        f"the files have {total / 1e9:.2f} GB, those of {known.label} {known.test_bytes / 1e9:.2f} GB: were the images "
        "resized or encoded anew? accuracies on the files as published may differ"
    )


# Copies.


def allowed_copies(known: DataSet, count: int) -> float:
    """Return how many of a published set may be copies of others."""
    strict = known.order == "imagenet" and count == known.test_images
    return (_COPIES_ALLOWED_IN_IMAGENET_TESTS if strict else _COPIES_ALLOWED) * count


def count_copies(
    files: NDArray[np.int64] | None, sizes: NDArray[np.int64], read: Callable[[int, bool], bytes] | None
) -> int:
    """Count the images that have the bytes of another one: links to its file, or copies of it.

    `files` are equal for links to one file.  `read` returns the beginning of an image, or with True all of it; None
    compares no bytes.  Only files of equal size are read, and only those that begin alike to their end.  Of more than
    50,000 such files a sample is read, and its share counts.
    """
    distinct = np.arange(len(sizes)) if files is None else np.unique(files, return_index=True)[1]
    links = len(sizes) - len(distinct)
    values, group, members = np.unique(sizes[distinct], return_inverse=True, return_counts=True)
    chosen = ((members > 1) & (values > 0))[group]
    order = np.random.default_rng(0).permutation(len(values))[group[chosen]]
    alike = distinct[chosen][np.argsort(order, kind="stable")]  # size by size, in any order of sizes
    if read is None or not len(alike):
        return links
    compared = alike[:_COMPARED].tolist()
    beginning = _group_alike(
        compared, lambda position: (int(sizes[position]), _read_digest(read, position, whole=False))
    )
    suspects = [position for same in beginning for position in same]
    copies = sum(
        len(same) - 1 for same in _group_alike(suspects, lambda position: _read_digest(read, position, whole=True))
    )
    return links + round(copies * len(alike) / len(compared))


def _group_alike(positions: Sequence[int], key: Callable[[int], object]) -> list[list[int]]:
    """Return the groups of several positions with an equal key; reading waits for the disk, so threads help."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    with ThreadPoolExecutor(2 * usable_cores()) as pool:
        for position, value in zip(positions, pool.map(key, positions), strict=True):
            groups[value].append(position)
    return [same for same in groups.values() if len(same) > 1]


def _read_digest(read: Callable[[int, bool], bytes], position: int, *, whole: bool) -> bytes:
    """Return a digest of an image; one that cannot be read is like no other."""
    try:
        return hashlib.sha256(read(position, whole)).digest()
    except (OSError, JobError):
        return str(position).encode()
