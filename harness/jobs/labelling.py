"""Folders, or a file beside the images -> class indices in the data set's own numbering."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from harness.datasets import DATASETS
from harness.errors import JobError

NAMED = 3

_NUMBER = re.compile(r"(\d{8})(?:\D*)$")
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


@cache
def imagenet_classes() -> Mapping[str, int]:
    """Give the place of each of ImageNet's 1,000 WordNet ids, in timm's order."""
    return {name: place for place, name in enumerate(ImageNetInfo().label_names())}  # type: ignore[no-untyped-call]


# By folder.


def by_folder(data: str, where: str, folders: Sequence[str]) -> tuple[dict[str, int], int, list[str]]:
    """Number the class folders: the number of each, how many classes there are, and remarks.

    ImageNet's folders are numbered by what they are called, never by their place, because a sample may lack some.
    Raises `JobError` for a folder that is no class, or more folders than classes.
    """
    known = DATASETS.get(data)
    if known is None:
        return {folder: place for place, folder in enumerate(folders)}, len(folders), []
    if known.order == "imagenet":
        return _imagenet_folders(data, where, folders)
    if len(folders) != known.classes:
        few = "so none may be missing" if len(folders) < known.classes else "so none may be too many"
        raise JobError(
            f"--data {data}={where}: {len(folders)} class folders, but {known.label} has {known.classes} classes, "
            f"numbered by the place of their folder, {few}; folders found: {_few(folders)}"
        )
    return {folder: place for place, folder in enumerate(folders)}, known.classes, []


def _imagenet_folders(data: str, where: str, folders: Sequence[str]) -> tuple[dict[str, int], int, list[str]]:
    ids = imagenet_classes()
    numeric = all(folder.isdigit() for folder in folders)
    numbers = {folder: int(folder) if numeric else ids.get(folder, -1) for folder in folders}
    strange = [folder for folder, number in numbers.items() if not 0 <= number < len(ids)]
    if strange:
        wanted = "a number from 0 to 999" if numeric else "one of the 1,000 WordNet ids, as n01440764"
        raise JobError(
            f"--data {data}={where}: {len(strange)} of {len(folders)} folders are no class of ImageNet "
            f"({_few(strange)}); a class folder is called {wanted}"
        )
    if len(set(numbers.values())) < len(numbers):
        twice = [folder for folder in folders if list(numbers.values()).count(numbers[folder]) > 1]
        raise JobError(f"--data {data}={where}: several folders are the same class ({_few(twice)})")
    return numbers, len(ids), ["the class folders are numbers and were sorted as numbers"] if numeric else []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


# By file.


def by_file(data: str, where: str, names: Sequence[str], beside: Path) -> tuple[list[int], list[str]]:
    """Find the labels of images that lie in no class folder in a file in or near their folder.

    Raises `JobError` if there is no such file, or it does not fit the images.
    """
    known = DATASETS.get(data)
    if known is None or known.order != "imagenet":
        raise JobError(f"--data {data}={where}: the images lie in no class folders, so their classes are not known")
    found = _label_file(beside)
    if found is None:
        raise JobError(
            f"--data {data}={where}: the images lie in no class folders and there is no file of labels; put one of "
            f"{', '.join(_FILES)} beside them (the first with its meta.mat, as in the devkit)"
        )
    path, labels_of = found
    labels = labels_of(path, names)
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if missing:
        raise JobError(
            f"--data {data}={where}: {path.name} has no label for {len(missing)} of {len(names):,} images "
            f"({_few(missing)}); is it the list of these images?"
        )
    return [label for label in labels if label is not None], [f"labels are those of {path.name}"]


def check_against_file(data: str, where: str, names: Sequence[str], labels: Sequence[int], beside: Path) -> None:
    """Hold class folders against a file of labels, if there is one in the same folder."""
    known = DATASETS.get(data)
    found = _label_file(beside, near=False) if known and known.order == "imagenet" else None
    if found is None:
        return
    path, labels_of = found
    told = labels_of(path, [name.rpartition("/")[2] for name in names])
    wrong = [name for name, is_, should in zip(names, labels, told, strict=True) if should not in (None, is_)]
    if wrong:
        raise JobError(
            f"--data {data}={where}: {len(wrong)} of {len(names):,} images lie in another class folder than "
            f"{path.name} says ({_few(wrong)})"
        )


Labels = list[int | None]


def _label_file(beside: Path, *, near: bool = True) -> tuple[Path, Callable[[Path, Sequence[str]], Labels]] | None:
    folders = [beside]
    if near:
        roots = (beside, beside.parent)
        folders = [root / below for root in roots for below in ("", "ILSVRC2012_devkit_t12/data", "devkit/data")]
    for folder in folders:
        for name, labels_of in _FILES.items():
            if (folder / name).is_file():
                return folder / name, labels_of
    return None


def _by_number(names: Sequence[str], classes: Sequence[int]) -> Labels:
    """Take line i for image number i: the number is in the name."""
    numbers = [int(found[1]) if (found := _NUMBER.search(name.rpartition(".")[0])) else 0 for name in names]
    return [classes[number - 1] if 1 <= number <= len(classes) else None for number in numbers]


def _of_devkit(path: Path, names: Sequence[str]) -> Labels:
    """Read the devkit: an ILSVRC id a line, and meta.mat, which says whose id it is."""
    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise JobError(f"{path}: needs the devkit's meta.mat beside it, which says which class each number is")
    wordnet = _devkit_ids(meta)
    lines, ids = _lines(path), imagenet_classes()
    classes = [ids.get(wordnet.get(int(line), "")) if line.isdecimal() else None for line in lines]
    strange = next((line for line, number in zip(lines, classes, strict=True) if number is None), None)
    if strange is not None:
        raise JobError(f"{path}: {strange} is no class of {meta.name}")
    return _by_number(names, [number for number in classes if number is not None])


def _devkit_ids(path: Path) -> dict[int, str]:
    from scipy.io import loadmat  # noqa: PLC0415 -- only for those who have the devkit

    try:
        rows: Any = loadmat(str(path), squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except Exception as error:  # noqa: BLE001 -- scipy has many errors for a file that is cut short or another's
        raise JobError(f"{path}: is not the devkit's meta.mat ({error})") from None


def _of_kaggle(path: Path, names: Sequence[str]) -> Labels:
    """Read `ImageId,PredictionString`, whose first word is the WordNet id."""
    rows = csv.DictReader(_text(path).splitlines())
    told = {row.get("ImageId"): (row.get("PredictionString") or "").partition(" ")[0] for row in rows}
    ids = imagenet_classes()
    return [ids.get(told.get(Path(name).stem, "")) for name in names]


def _of_list(path: Path, names: Sequence[str]) -> Labels:
    """Read `NAME index` lines."""
    told: dict[str, int] = {}
    for line in _lines(path):
        name, _, index = line.rpartition(" ")
        if not index.isdecimal() or int(index) >= len(imagenet_classes()):
            raise JobError(f"{path}: '{line}' is not a name and a class from 0 to 999")
        told[Path(name).name] = int(index)
    return [told.get(Path(name).name) for name in names]


def _of_synsets(path: Path, names: Sequence[str]) -> Labels:
    """Read a WordNet id a line."""
    ids = imagenet_classes()
    lines = _lines(path)
    strange = next((line for line in lines if line not in ids), None)
    if strange is not None:
        raise JobError(f"{path}: '{strange}' is none of ImageNet's 1,000 WordNet ids")
    return _by_number(names, [ids[line] for line in lines])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # a list written on Windows begins with a mark
    except UnicodeDecodeError:
        raise JobError(f"{path}: is no text in UTF-8") from None


_FILES: Mapping[str, Callable[[Path, Sequence[str]], Labels]] = {
    _DEVKIT: _of_devkit,
    "LOC_val_solution.csv": _of_kaggle,
    "val.txt": _of_list,
    "imagenet_2012_validation_synset_labels.txt": _of_synsets,
}
