"""Folders and tar files -> images that are read in place."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import JobError, name_few
from harness.jobs.data import labelling
from harness.jobs.data.images import DataSource, Images
from harness.jobs.data.tars import TarMember, index_ranges, list_members, read_range
from harness.jobs.data.walk import (
    LeftOut,
    Listing,
    describe_left_out,
    is_hidden,
    list_images,
    natural_key,
    unsuitable,
)

# Bytes that contain the header of nearly every image; where they do not, the whole file is read.
HEAD = 16_384

# ImageNet's validation images as they are downloaded, in no folders.
_ARCHIVE = "ILSVRC2012_img_val.tar"

_SHARDED = re.compile(r"(.+)\.(jpe?g|png|webp|cls)", re.IGNORECASE)

# Bytes of a .cls file: more is no class index.
_CLASS_BYTES = 64


# Folders.


def split_folder(source: DataSource, root: Path) -> Path | None:
    """Find the folder of a split, or None.

    The root itself is that of the test images where it has a folder for neither split.
    """
    roots = [root / inside for inside in source.known.inside]
    folder = next((path / name for path in roots for name in source.folders if (path / name).is_dir()), None)
    others = (path / name for path in roots for name in source.known.train)
    if folder is None and source.split == "test" and not any(other.is_dir() for other in others):
        return root
    return folder


def _existing_folder(source: DataSource, root: Path) -> Path:
    folder = split_folder(source, root)
    if folder is None:
        raise _no_folder(source)
    return folder


def _no_folder(source: DataSource) -> JobError:
    return source.error(f"has no folder of {source.split} images; it would be called {' or '.join(source.folders)}")


def index_folder(source: DataSource, root: Path) -> Images:
    """Index the images below a folder, in timm's order."""
    folder = _existing_folder(source, root)
    if (folder / _ARCHIVE).is_file():
        return index_tar(source, folder / _ARCHIVE)
    listing = list_images(folder, labels=labelling.FILES)
    names = listing.names
    if not names:
        raise _no_images(source, f"{folder} or the folders in it", listing)
    start = os.path.join(folder, "")  # noqa: PTH118 -- plain strings: a million Paths are a gigabyte

    def read(position: int, most: int = -1) -> bytes:
        with open(start + names[position], "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(most)

    sizes = [_size(start + name) for name in names]
    return _label(source, listing, sizes, folder, read=read, head=partial(read, most=HEAD))


def _no_images(source: DataSource, where: str, listing: Listing) -> JobError:
    left_out = "".join(f"; {clause}" for clause in describe_left_out(listing.left_out))
    return source.error(f"no images in {where}{left_out}")


def _size(path: str) -> int:
    """Return the bytes of a file; 0 for a broken link, which is an error only when it is read."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def count_in_folder(source: DataSource, root: Path) -> tuple[int, int, LeftOut] | None:
    """Count the images of a split and the class folders that have some, opening no file, and name what was left out.

    Several links to one file are one image.  None where the images are in no class folders.
    """
    listing = list_images(_existing_folder(source, root), labels=labelling.FILES)
    folders = _folders_of(source, listing.names)
    if not all(folders) or not folders:
        return None
    return len(set(listing.files)), len(set(folders)), listing.left_out


def _label(
    source: DataSource,
    listing: Listing,
    sizes: Iterable[int],
    path: Path,
    **reading: Any,  # noqa: ANN401 -- the functions of `Images`
) -> Images:
    """Label images by the folders in their names, or by a file in or near `path` if they are in no folder."""
    parent, names = path if path.is_dir() else path.parent, listing.names
    fields: dict[str, Any] = {"sizes": sizes, "files": np.array(listing.files), "path": str(path)}
    fields["left_out"] = listing.left_out
    folders = _folders_of(source, names)
    if not any(folders):
        labels, notes = labelling.label_by_file(source, names, parent)
        return Images.of(source, names, labels, notes=tuple(notes), **fields, **reading)
    _check_folders(source, names, folders)
    class_folders = sorted(_class_folders(source, names, set(folders), path))
    indices, classes, notes = labelling.number_folders(source, sorted(class_folders, key=natural_key))  # 007 before 7
    labels = [indices[folder] for folder in folders]
    labelling.check_against_file(source, names, labels, parent)
    return Images.of(source, names, labels, classes=classes, notes=tuple(notes), **fields, **reading)


def _folders_of(source: DataSource, names: Sequence[str]) -> list[str]:
    """Return the class folder of each image: that around it, or an empty name where it is in none.

    Where every class keeps its images in a folder of one name, as `n01440764/images`, it is the folder above.
    """
    paths = [name.split("/")[:-1] for name in names]
    is_class = labelling.is_imagenet_class if source.known.order == "imagenet" else lambda _: False
    while paths and all(len(path) > 1 for path in paths) and len({path[-1] for path in paths}) == 1:
        above = {path[-2] for path in paths}
        if is_class(paths[0][-1]) or (len(above) == 1 and not is_class(*above)):
            break
        paths = [path[:-1] for path in paths]
    return [path[-1] if path else "" for path in paths]


def _check_folders(source: DataSource, names: Sequence[str], folders: Sequence[str]) -> None:
    """Raise `JobError` for images outside the class folders, or in folders inside a class folder."""
    outside = [name for name, folder in zip(names, folders, strict=True) if not folder]
    if outside:
        raise source.error(
            f"{len(outside)} of {len(names):,} images are outside the class folders ({name_few(outside)}); put each "
            "into the folder of its class"
        )
    used = {name.rpartition("/")[0] for name in names}
    nested = sorted(folder for folder in used if used.intersection(_folders_above(folder)))
    if nested:
        raise source.error(
            f"{len(nested)} folders of images are inside a class folder that has images of its own "
            f"({name_few(nested)}); put each image into the folder of its class"
        )


def _folders_above(folder: str) -> Iterator[str]:
    while folder := folder.rpartition("/")[0]:
        yield folder


def _class_folders(source: DataSource, names: Sequence[str], used: set[str], path: Path) -> set[str]:
    """Find all class folders, including empty ones and those that only the other split has.

    Where classes are numbered by the order of their folders, a missing folder would shift the others.
    """
    known = source.known
    if known.order == "imagenet" or len(used) == known.classes or not path.is_dir():
        return used
    parents = {name.partition("/")[0] for name in names}
    folders = used | {name for name in _folders_in(path) if name not in parents}
    if len(folders) == known.classes:
        return folders
    others = [_folders_in(path.parent / name) for name in (*known.test, *known.train)]
    if not known.classes:  # both splits are numbered alike, if they are splits and their folders are the classes
        return folders.union(*others) if parents == used and path.name in (*known.test, *known.train) else folders
    return next((used.union(other) for other in others if len(used.union(other)) == known.classes), used)


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    entries = (entry for entry in os.scandir(folder) if entry.is_dir())
    return [entry.name for entry in entries if not is_hidden(entry.name) and not entry.name.startswith("_")]


# Tar files.


def index_tar(source: DataSource, path: Path) -> Images:
    """Index the images in a tar, in class folders or, as ImageNet's validation images are packed, in none.

    Where it contains both splits, those of one are indexed as in a folder.
    """
    listing, members = Listing(), []
    for member in list_members(path, listing):
        reason = unsuitable(member.name)
        if not reason:
            members.append(member)
        elif member.name.rpartition("/")[2] not in labelling.FILES:
            listing.leave_out(reason, member.name)
    if not members:
        raise _no_images(source, str(path), listing)
    folder = _split_in_tar(source, path, [member.name for member in members])
    members = [
        member._replace(name=member.name.removeprefix(folder)) for member in members if member.name.startswith(folder)
    ]
    members.sort(key=lambda member: (natural_key(member.name), member.name))
    sizes, read = index_ranges([path], [(0, member) for member in members])
    listing = Listing(
        names=[member.name for member in members],
        files=[member.offset for member in members],
        left_out=listing.below(folder),
    )
    return _label(source, listing, sizes, path, read=read, head=partial(read, most=HEAD))


def _split_in_tar(source: DataSource, path: Path, names: Sequence[str]) -> str:
    """Find the folder of a split among the names in a tar, or in the one folder that contains all of them.

    It ends in a slash, and is empty where there is a folder for neither split.
    """
    first = names[0].partition("/")[0] + "/"
    roots = [f"{inside}/" if inside else "" for inside in source.known.inside]
    for root in (*roots, first) if all(name.startswith(first) for name in names) else roots:
        below = [name.removeprefix(root) for name in names if name.startswith(root)]
        folders = {name.partition("/")[0] for name in below if "/" in name}
        folder = next((name for name in source.folders if name in folders), None)
        if folder is not None:
            return f"{root}{folder}/"
        if folders.intersection(source.known.train if source.split == "test" else source.known.test):
            raise _no_folder(source)
    _check_test_split(source, path)
    return ""


def _check_test_split(source: DataSource, path: Path) -> None:
    """Use a single file for the test images only, as a folder without splits."""
    if source.split != "test":
        raise source.error(f"{path.name} is used for the test images, so there are no {source.split} images")


# WebDataset shards.


def index_shards(source: DataSource, root: Path) -> Images:
    """Index WebDataset shards: `KEY.jpg` next to `KEY.cls`.

    timm's reader only streams them and returns no names; with an index they are read in any order, by any number of
    processes, and ReaL finds its labels.
    """
    shards, listing = _find_shards(source, root), Listing()
    samples = [(number, *sample) for number, path in enumerate(shards) for sample in _read_shard(source, path, listing)]
    if not samples:
        raise _no_images(source, name_few([path.name for path in shards]), listing)
    names = [member.name for _, member, _ in samples]
    if len(set(names)) < len(names):  # each shard may count its keys anew
        names = [f"{shards[number].name}/{member.name}" for number, member, _ in samples]
    sizes, read = index_ranges(shards, [(number, member) for number, member, _ in samples])
    return Images.of(
        source,
        names,
        [label for *_, label in samples],
        sizes=sizes,
        files=np.array([hash((number, member.offset)) for number, member, _ in samples]),
        path=str(shards[0]),
        left_out=listing.left_out,
        read=read,
        head=partial(read, most=HEAD),
    )


def _find_shards(source: DataSource, root: Path) -> list[Path]:
    """Find the shards of a split: in its folder, or with its name in theirs; those without are the test images."""
    if root.is_file():
        _check_test_split(source, root)
        return [root]
    folder = next((root / name for name in source.folders if (root / name).is_dir()), None)
    paths = sorted(
        (path for path in (folder or root).glob("*.tar") if not is_hidden(path.name)),
        key=lambda path: natural_key(path.name),
    )
    test, train = _with_split_name(paths, source.known.test), _with_split_name(paths, source.known.train)
    shards = test if source.split == "test" else train
    if folder or (source.split == "test" and not test and not train):
        shards = paths
    if not shards:
        raise source.error(f"no .tar files of the {source.split} split in {root}")
    return shards


def _with_split_name(paths: Sequence[Path], splits: Sequence[str]) -> list[Path]:
    """Return the files with a split's name as a word in theirs; the first name that any of them has counts."""
    for split in splits:
        word = re.compile(rf"(?<![a-z]){re.escape(split)}(?![a-z])", re.IGNORECASE)
        matches = [path for path in paths if word.search(path.name)]
        if matches:
            return matches
    return []


def _read_shard(source: DataSource, path: Path, listing: Listing) -> Iterator[tuple[TarMember, int]]:
    """Return the images of a shard and their classes; other files with the name of an image belong to it."""
    members = list_members(path, listing)
    matches = [(match, member) for member in members if (match := _SHARDED.fullmatch(member.name))]
    classes = {match[1]: _read_class(source, path, member) for match, member in matches if match[2].lower() == "cls"}
    keys = {match[1] for match, _ in matches if match[2].lower() != "cls"}
    for member in members:
        if member.name.rpartition(".")[0] not in keys:
            listing.leave_out(unsuitable(member.name), member.name)
    for match, member in matches:
        if match[2].lower() == "cls":
            continue
        if match[1] not in classes:
            raise source.error(f"{path.name} has no {match[1]}.cls next to {member.name}")
        yield member, classes[match[1]]


def _read_class(source: DataSource, path: Path, member: TarMember) -> int:
    text = read_range(str(path), member.offset, min(member.size, _CLASS_BYTES)).decode(errors="replace").strip()
    if member.size > _CLASS_BYTES or not labelling.is_index(text):
        raise source.error(f"{member.name} in {path.name} contains '{text[:20]}', not a class index")
    return int(text)
