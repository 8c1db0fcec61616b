"""Class folders, or a file near the images -> class indices in the dataset's own numbering."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import JobError, name_few
from harness.jobs.data.identity import classes_in_names, imagenet_class_indices
from harness.jobs.data.images import DataSource

# The number of an image in its name, which may end with a WordNet id.
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})|(?<!n)(\d{8})\D*$")
_INDEX = re.compile(r"0*[0-9]{1,9}")  # of ASCII's digits, and no more than a class index has
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"

Labels = list[int | None]


def is_index(text: str) -> bool:
    """Whether a text is a class index."""
    return _INDEX.fullmatch(text) is not None


def is_imagenet_class(name: str) -> bool:
    """Whether a folder is called as a class of ImageNet: by its WordNet id, or its number."""
    return name in imagenet_class_indices() or (is_index(name) and int(name) < len(imagenet_class_indices()))


# By folder.


def number_folders(source: DataSource, folders: Sequence[str]) -> tuple[dict[str, int], int, list[str]]:
    """Number the class folders: the index of each, how many classes there are, and notes.

    ImageNet's folders are numbered by their names, never by their order, because a sample may lack some.  Raises
    `JobError` for a folder that is no class, or another number of folders than of classes.
    """
    known = source.known
    if known.order == "imagenet":
        return _number_imagenet_folders(source, folders)
    if known.classes and len(folders) != known.classes:
        raise source.error(
            f"{len(folders)} class folders, but {known.label} has {known.classes} classes, numbered by the order of "
            f"their folders, so there must be one for each; there are {name_few(folders)}"
        )
    alone = [f"all images are in one class folder, {folders[0]}"] if len(folders) == 1 else []
    return {folder: index for index, folder in enumerate(folders)}, len(folders), alone


def _number_imagenet_folders(source: DataSource, folders: Sequence[str]) -> tuple[dict[str, int], int, list[str]]:
    ids = imagenet_class_indices()
    numeric = all(map(is_index, folders))
    indices = {folder: int(folder) if numeric else ids.get(folder, -1) for folder in folders}
    invalid = [folder for folder, index in indices.items() if not 0 <= index < len(ids)]
    if invalid:
        expected = "a number from 0 to 999" if numeric else "one of the 1,000 WordNet ids, as n01440764"
        shifted = numeric and sorted(map(int, folders)) == list(range(1, len(ids) + 1))
        raise source.error(
            f"{len(invalid)} of {len(folders)} folders are not classes of ImageNet ({name_few(invalid)}); a class "
            f"folder is called {expected}{'; these begin at 1, so each is one too high' if shifted else ''}"
        )
    if len(set(indices.values())) < len(indices):
        duplicates = [folder for folder in folders if list(indices.values()).count(indices[folder]) > 1]
        raise source.error(f"several folders are the same class ({name_few(duplicates)})")
    return indices, len(ids), ["the class folders are numbers and were sorted as numbers"] if numeric else []


# By file.


def label_by_file(source: DataSource, names: Sequence[str], folder: Path) -> tuple[list[int], list[str]]:
    """Label images that are in no class folder by a file in or near their folder.

    Raises `JobError` if there is no such file, or it does not fit the images.
    """
    if source.known.order != "imagenet":
        raise source.error("the images are in no class folders, so their classes are unknown")
    in_names = [label for label in classes_in_names(names) if label is not None]
    if len(in_names) == len(names):
        return in_names, ["labels are the WordNet ids in the names of the files"]
    match = _find_label_file(folder)
    if match is None:
        raise source.error(
            f"the images are in no class folders and there is no file of labels; put one of {', '.join(_READERS)} next "
            "to them (the first with its meta.mat, as in the devkit)"
        )
    path, read = match
    labels = read(path, names)
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if missing:
        raise source.error(
            f"{path.name} has no label for {len(missing)} of {len(names):,} images ({name_few(missing)}); is it the "
            "list of these images?"
        )
    return [label for label in labels if label is not None], [f"labels are those of {path.name}"]


def check_against_file(source: DataSource, names: Sequence[str], labels: Sequence[int], folder: Path) -> None:
    """Compare the labels of class folders with a file of labels, if there is one in the same folder."""
    match = _find_label_file(folder, near=False) if source.known.order == "imagenet" else None
    if match is None:
        return
    path, read = match
    expected = read(path, [name.rpartition("/")[2] for name in names])
    wrong = [name for name, is_, should in zip(names, labels, expected, strict=True) if should not in (None, is_)]
    if wrong:
        raise source.error(
            f"{len(wrong)} of {len(names):,} images are in a different class folder than {path.name} says "
            f"({name_few(wrong)})"
        )


def _find_label_file(folder: Path, *, near: bool = True) -> tuple[Path, Callable[[Path, Sequence[str]], Labels]] | None:
    folders = [folder]
    if near:
        # Kaggle's archive has them next to ILSVRC, of which the images are in ILSVRC/Data/CLS-LOC/val.
        roots = (folder, *folder.absolute().parents[: 4 if "CLS-LOC" in folder.absolute().parts else 1])
        folders = [root / below for root in roots for below in _LABEL_FOLDERS]
    paths = ((candidate / name, read) for candidate in folders for name, read in _READERS.items())
    return next(((path, read) for path, read in paths if path.is_file()), None)


def _by_number(names: Sequence[str], classes: Sequence[int]) -> Labels:
    """Use line i for image number i: the number is in the name."""
    matches = (_NUMBER.search(name.rpartition(".")[0]) for name in names)
    numbers = [int(match[1] or match[2]) if match else 0 for match in matches]
    return [classes[number - 1] if 1 <= number <= len(classes) else None for number in numbers]


def _read_devkit(path: Path, names: Sequence[str]) -> Labels:
    """Read the devkit: an ILSVRC id per line, and meta.mat, which maps it to a WordNet id."""
    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise JobError(f"{path}: needs the devkit's meta.mat next to it, which says which class each number is")
    wordnet = _devkit_ids(meta)
    lines, ids = _lines(path), imagenet_class_indices()
    classes = [ids.get(wordnet.get(int(line), "")) if is_index(line) else None for line in lines]
    invalid = next((line for line, number in zip(lines, classes, strict=True) if number is None), None)
    if invalid is not None:
        raise JobError(f"{path}: {invalid} is not a class of {meta.name}")
    return _by_number(names, [number for number in classes if number is not None])


def _devkit_ids(path: Path) -> dict[int, str]:
    from scipy.io import loadmat  # noqa: PLC0415 -- only for those who have the devkit

    try:
        rows: Any = loadmat(str(path), squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except Exception as error:  # noqa: BLE001 -- scipy has many errors for a file that is truncated or not its own
        raise JobError(f"{path}: is not the devkit's meta.mat ({error})") from None


def _read_kaggle(path: Path, names: Sequence[str]) -> Labels:
    """Read `ImageId,PredictionString`, whose first word is the WordNet id."""
    rows = csv.DictReader(_text(path).splitlines())
    ids_of = {row.get("ImageId"): (row.get("PredictionString") or "").partition(" ")[0] for row in rows}
    ids = imagenet_class_indices()
    return [ids.get(ids_of.get(Path(name).stem, "")) for name in names]


def _read_list(path: Path, names: Sequence[str]) -> Labels:
    """Read `NAME index` lines."""
    labels: dict[str, int] = {}
    for line in _lines(path):
        name, _, index = line.rpartition(" ")
        if not is_index(index) or int(index) >= len(imagenet_class_indices()):
            raise JobError(f"{path}: '{line[:80]}' is not a name and a class from 0 to 999")
        labels[Path(name).name] = int(index)
    return [labels.get(Path(name).name) for name in names]


def _read_synsets(path: Path, names: Sequence[str]) -> Labels:
    """Read a WordNet id per line."""
    ids = imagenet_class_indices()
    lines = _lines(path)
    invalid = next((line for line in lines if line not in ids), None)
    if invalid is not None:
        raise JobError(f"{path}: '{invalid}' is none of ImageNet's 1,000 WordNet ids")
    return _by_number(names, [ids[line] for line in lines])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # a list written on Windows begins with a mark
    except UnicodeDecodeError:
        raise JobError(f"{path}: is not text in UTF-8") from None


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Labels]] = {
    _DEVKIT: _read_devkit,
    "LOC_val_solution.csv": _read_kaggle,
    "val.txt": _read_list,
    "imagenet_2012_validation_synset_labels.txt": _read_synsets,
}

# Where they are kept, seen from the images or from the folder around them: the devkit's, and mmpretrain's, own folder.
_LABEL_FOLDERS = ("", "meta", "ILSVRC2012_devkit_t12/data", "devkit/data")

# Files next to images that are neither images nor left out.
FILES = frozenset({*_READERS, "meta.mat"})
