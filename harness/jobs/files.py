"""Folders and tar files -> a listing: every image is read where it lies."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.utils.misc import natural_key

from harness.errors import JobError
from harness.jobs import labelling, tars
from harness.jobs.sources import Listing, Source, few

# Bytes that hold the header of nearly every image; where they do not, the whole file is read.
HEAD = 16_384

# ImageNet's validation images as they are downloaded, in no folders.
_ARCHIVE = "ILSVRC2012_img_val.tar"

_SHARDED = re.compile(r"(.+)\.(jpe?g|png|webp|cls)", re.IGNORECASE)


# Folders.


def split_folder(source: Source, root: Path) -> Path | None:
    """Find the folder of a split, or None.

    The root itself holds the test images where it has a folder for neither split.
    """
    found = next((root / name for name in source.folders if (root / name).is_dir()), None)
    if found is None and source.split == "test" and not any((root / name).is_dir() for name in source.known.train):
        return root
    return found


def _folder(source: Source, root: Path) -> Path:
    folder = split_folder(source, root)
    if folder is None:
        raise _no_folder(source)
    return folder


def _no_folder(source: Source) -> JobError:
    return source.wrong(f"has no folder of {source.split} images; it would be called {' or '.join(source.folders)}")


def in_folder(source: Source, root: Path) -> Listing:
    """List the images below a folder, in timm's order."""
    folder = _folder(source, root)
    if (folder / _ARCHIVE).is_file():
        return in_tar(source, folder / _ARCHIVE)
    try:
        listed = ReaderImageFolder(str(folder)).samples  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise source.wrong(f"no images in {folder} or the folders in it") from None
    start = os.path.join(folder, "")  # noqa: PTH118 -- plain strings: a million Paths are a gigabyte
    names = [path.removeprefix(start).replace(os.sep, "/") for path, _ in listed]

    def read(position: int) -> bytes:
        with open(start + names[position], "rb") as file:  # noqa: PTH123
            return file.read()

    def head(position: int) -> bytes:
        with open(start + names[position], "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(HEAD)

    return _labelled(source, names, [_size(path) for path, _ in listed], folder, read=read, head=head)


def _size(path: str) -> int:
    """Give the bytes of a file; one that is gone, as a link that leads nowhere, is found when it is read."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def count_in_folder(source: Source, root: Path) -> tuple[int, int] | None:
    """Count the images of a split and the class folders that have some, opening no file.

    None where the images lie in no class folders.
    """
    folder = _folder(source, root)
    endings = _endings()
    found = {
        place: sum(file.lower().endswith(endings) for file in files)
        for place, _, files in os.walk(folder, followlinks=True)
    }
    if found[str(folder)] or not any(found.values()):
        return None
    return sum(found.values()), sum(1 for images in found.values() if images)


def _endings() -> tuple[str, ...]:
    return tuple(get_img_extensions())  # type: ignore[no-untyped-call]


def _labelled(
    source: Source,
    names: Sequence[str],
    sizes: Iterable[int],
    place: Path,
    **reading: Any,  # noqa: ANN401 -- the functions of a `Listing`
) -> Listing:
    """Label images by the folders in their names, or by a file in or near their place if they lie in no folder."""
    beside = place if place.is_dir() else place.parent
    folders = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
    if not any(folders):
        labels, notes = labelling.by_file(source.data, source.where, names, beside)
        return Listing(names=names, labels=labels, sizes=sizes, notes=tuple(notes), **reading)
    outside = [name for name, folder in zip(names, folders, strict=True) if not folder]
    if outside:
        raise source.wrong(
            f"{len(outside)} of {len(names):,} images lie beside the class folders ({few(outside)}); put each into "
            "the folder of its class"
        )
    every = sorted(sorted(_class_folders(source, names, set(folders), place)), key=natural_key)  # 007 before 7, always
    numbers, classes, notes = labelling.by_folder(source.data, source.where, every)
    labels = [numbers[folder] for folder in folders]
    labelling.check_against_file(source.data, source.where, names, labels, beside)
    return Listing(names=names, labels=labels, sizes=sizes, classes=classes, notes=tuple(notes), **reading)


def _class_folders(source: Source, names: Sequence[str], used: set[str], place: Path) -> set[str]:
    """Find all class folders, of which some may be empty, or lie in the other split only.

    Where classes are numbered by the place of their folder, a folder left out would number the others wrongly.
    """
    known = source.known
    if known.order == "imagenet" or len(used) == known.classes or not place.is_dir():
        return used
    first = {name.partition("/")[0] for name in names}
    every = used | {name for name in _folders_in(place) if name not in first}
    if not known.classes or len(every) == known.classes:
        return every
    others = (used.union(_folders_in(place.parent / name)) for name in (*known.test, *known.train))
    return next((folders for folders in others if len(folders) == known.classes), used)


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith((".", "_"))]


# Tar files.


def in_tar(source: Source, path: Path) -> Listing:
    """List the images in a tar, in class folders or, as ImageNet's validation images are packed, in none.

    Where it holds both splits, those of the one are listed as in a folder.
    """
    endings = _endings()
    found = [member for member in tars.members(path) if member.name.lower().endswith(endings)]
    if not found:
        raise source.wrong(f"no images in {path}")
    folder = _split_in_tar(source, path, [member.name for member in found])
    found = [one._replace(name=one.name.removeprefix(folder)) for one in found if one.name.startswith(folder)]
    found.sort(key=lambda member: natural_key(member.name))  # type: ignore[no-untyped-call]
    names = [member.name for member in found]
    pieces = _Pieces([path], [(0, member.offset, member.size) for member in found])
    return _labelled(source, names, pieces.sizes, path, read=pieces.read, head=pieces.head)


def _split_in_tar(source: Source, path: Path, names: Sequence[str]) -> str:
    """Find the folder of a split among the names in a tar, or in the one folder that holds all of them.

    It ends in a slash, and is empty where there is a folder for neither split.
    """
    first = names[0].partition("/")[0] + "/"
    for root in ("", first) if all(name.startswith(first) for name in names) else ("",):
        below = [name.removeprefix(root) for name in names]
        there = {name.partition("/")[0] for name in below if "/" in name}
        found = next((name for name in source.folders if name in there), None)
        if found is not None:
            return f"{root}{found}/"
        if there.intersection(source.known.train if source.split == "test" else source.known.test):
            raise _no_folder(source)
    _only_test(source, path)
    return ""


class _Pieces:
    """Pieces of tar files: a row of the table is the number of the file, the first byte, and the number of bytes."""

    def __init__(self, paths: Sequence[Path], rows: Sequence[tuple[int, int, int]]) -> None:
        self._paths = [str(path) for path in paths]
        self._table = np.array(rows, dtype=np.int64)

    @property
    def sizes(self) -> list[int]:
        """Give the bytes of each."""
        found: list[int] = self._table[:, 2].tolist()
        return found

    def read(self, position: int) -> bytes:
        """Read a piece."""
        number, offset, size = self._table[position].tolist()
        return tars.cut(self._paths[number], offset, size)

    def head(self, position: int) -> bytes:
        """Read its beginning."""
        number, offset, size = self._table[position].tolist()
        return tars.cut(self._paths[number], offset, min(size, HEAD))


def _only_test(source: Source, path: Path) -> None:
    """Take one file for the images to evaluate, as a folder without splits is."""
    if source.split != "test":
        raise source.wrong(f"{path.name} is taken for the test images, so there are no {source.split} images")


# WebDataset shards.


def in_shards(source: Source, root: Path) -> Listing:
    """Index WebDataset shards: `KEY.jpg` beside `KEY.cls`.

    timm's reader only streams them and gives no names; with an index they are read in any order, by any number of
    processes, and ReaL finds its labels.
    """
    shards = _shards(source, root)
    found = [(number, *entry) for number, path in enumerate(shards) for entry in _shard(source, path)]
    if not found:
        raise source.wrong(f"no images in {few([path.name for path in shards])}")
    names = [member.name for _, member, _ in found]
    if len(set(names)) < len(names):  # each shard may count its keys anew
        names = [f"{shards[number].name}/{member.name}" for number, member, _ in found]
    pieces = _Pieces(shards, [(number, member.offset, member.size) for number, member, _ in found])
    labels = [label for *_, label in found]
    return Listing(names=names, labels=labels, sizes=pieces.sizes, read=pieces.read, head=pieces.head)


def _shards(source: Source, root: Path) -> list[Path]:
    """Find the shards of a split: in its folder, or by its name in theirs; those without are the test images."""
    if root.is_file():
        _only_test(source, root)
        return [root]
    own = next((root / name for name in source.folders if (root / name).is_dir()), None)
    every = sorted((own or root).glob("*.tar"), key=_in_name_order)
    tested, trained = _named_for(every, source.known.test), _named_for(every, source.known.train)
    found = tested if source.split == "test" else trained
    if own or (source.split == "test" and not tested and not trained):
        found = every
    if not found:
        raise source.wrong(f"no .tar files of the {source.split} split in {root}")
    return found


def _in_name_order(path: Path) -> Any:  # noqa: ANN401 -- timm's key is of no declared type
    return natural_key(path.name)  # type: ignore[no-untyped-call]


def _named_for(paths: Sequence[Path], splits: Sequence[str]) -> list[Path]:
    """Choose the files with a split's name as a word in theirs; the first name that any of them has counts."""
    for split in splits:
        word = re.compile(rf"(?<![a-z]){re.escape(split)}(?![a-z])", re.IGNORECASE)
        found = [path for path in paths if word.search(path.name)]
        if found:
            return found
    return []


def _shard(source: Source, path: Path) -> Iterator[tuple[tars.Member, int]]:
    """Give the images of a shard and their classes."""
    named = [(match, member) for member in tars.members(path) if (match := _SHARDED.fullmatch(member.name))]
    classes = {match[1]: _class_in(source, path, member) for match, member in named if match[2] == "cls"}
    for match, member in named:
        if match[2] == "cls":
            continue
        if match[1] not in classes:
            raise source.wrong(f"{path.name} has no {match[1]}.cls beside {member.name}")
        yield member, classes[match[1]]


def _class_in(source: Source, path: Path, member: tars.Member) -> int:
    text = tars.cut(str(path), member.offset, member.size).decode(errors="replace").strip()
    if not text.isdecimal():
        raise source.wrong(f"{member.name} in {path.name} holds '{text[:20]}', not the number of a class")
    return int(text)
