"""Folders and tar files -> images that are read in place."""

import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.utils.misc import natural_key

from harness.errors import JobError, name_few
from harness.jobs.data import labelling
from harness.jobs.data.images import DataSource, Images

# Bytes that contain the header of nearly every image; where they do not, the whole file is read.
HEAD = 16_384

# ImageNet's validation images as they are downloaded, in no folders.
_ARCHIVE = "ILSVRC2012_img_val.tar"

_ENDINGS: tuple[str, ...] = tuple(get_img_extensions())  # type: ignore[no-untyped-call]
_SHARDED = re.compile(r"(.+)\.(jpe?g|png|webp|cls)", re.IGNORECASE)


# Folders.


def split_folder(source: DataSource, root: Path) -> Path | None:
    """Find the folder of a split, or None.

    The root itself is that of the test images where it has a folder for neither split.
    """
    folder = next((root / name for name in source.folders if (root / name).is_dir()), None)
    if folder is None and source.split == "test" and not any((root / name).is_dir() for name in source.known.train):
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
    try:
        samples = ReaderImageFolder(str(folder)).samples  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise source.error(f"no images in {folder} or the folders in it") from None
    start = os.path.join(folder, "")  # noqa: PTH118 -- plain strings: a million Paths are a gigabyte
    names = [path.removeprefix(start).replace(os.sep, "/") for path, _ in samples]

    def read(position: int, most: int = -1) -> bytes:
        with open(start + names[position], "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(most)

    sizes = [_size(path) for path, _ in samples]
    return _label(source, names, sizes, folder, read=read, head=partial(read, most=HEAD))


def _size(path: str) -> int:
    """Return the bytes of a file; 0 for a broken link, which is an error only when it is read."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def count_in_folder(source: DataSource, root: Path) -> tuple[int, int] | None:
    """Count the images of a split and the class folders that have some, opening no file.

    None where the images are in no class folders.
    """
    folder = _existing_folder(source, root)
    counts = {
        path: sum(file.lower().endswith(_ENDINGS) for file in files)
        for path, _, files in os.walk(folder, followlinks=True)
    }
    if counts[str(folder)] or not any(counts.values()):
        return None
    return sum(counts.values()), sum(1 for count in counts.values() if count)


def _label(
    source: DataSource,
    names: Sequence[str],
    sizes: Iterable[int],
    path: Path,
    **reading: Any,  # noqa: ANN401 -- the functions of `Images`
) -> Images:
    """Label images by the folders in their names, or by a file in or near `path` if they are in no folder."""
    parent = path if path.is_dir() else path.parent
    folders = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
    if not any(folders):
        labels, notes = labelling.label_by_file(source, names, parent)
        return Images.of(source, names, labels, sizes=sizes, notes=tuple(notes), **reading)
    outside = [name for name, folder in zip(names, folders, strict=True) if not folder]
    if outside:
        raise source.error(
            f"{len(outside)} of {len(names):,} images are outside the class folders ({name_few(outside)}); put each "
            "into the folder of its class"
        )
    class_folders = sorted(_class_folders(source, names, set(folders), path))
    indices, classes, notes = labelling.number_folders(source, sorted(class_folders, key=natural_key))  # 007 before 7
    labels = [indices[folder] for folder in folders]
    labelling.check_against_file(source, names, labels, parent)
    return Images.of(source, names, labels, sizes=sizes, classes=classes, notes=tuple(notes), **reading)


def _class_folders(source: DataSource, names: Sequence[str], used: set[str], path: Path) -> set[str]:
    """Find all class folders, including empty ones and those that only the other split has.

    Where classes are numbered by the order of their folders, a missing folder would shift the others.
    """
    known = source.known
    if known.order == "imagenet" or len(used) == known.classes or not path.is_dir():
        return used
    parents = {name.partition("/")[0] for name in names}
    folders = used | {name for name in _folders_in(path) if name not in parents}
    if not known.classes or len(folders) == known.classes:
        return folders
    others = (used.union(_folders_in(path.parent / name)) for name in (*known.test, *known.train))
    return next((folders for folders in others if len(folders) == known.classes), used)


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith((".", "_"))]


# Tar files: where their members are, so that any process reads them in place, in any order.


class TarMember(NamedTuple):
    """A file in a tar: its name there, and its first byte and number of bytes in the tar."""

    name: str
    offset: int
    size: int


def list_members(path: Path) -> list[TarMember]:
    """List every file in a tar, in its order.

    A tar in the tar, as ImageNet's training images are packed, counts as a folder of its name.  Of several members of
    one name the last counts, as it does for `tar -x`.  Raises `JobError` for what is no tar, or is compressed: then
    nothing in it has an offset.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            members = {member.name: member for member in _list(archive, "", 0)}
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise JobError(
            f"{path}: is not a tar file that can be read in place ({reason}); unpack it if it is compressed, "
            "download it again if it is truncated"
        ) from None
    return list(members.values())


def _list(archive: tarfile.TarFile, folder: str, start: int) -> Iterator[TarMember]:
    for info in archive:
        name = folder + info.name.removeprefix("./")
        if not info.isfile():
            continue
        if name.endswith(".tar"):
            inner = archive.extractfile(info)
            with tarfile.open(fileobj=inner, mode="r:") as nested:
                yield from _list(nested, f"{name.removesuffix('.tar')}/", start + info.offset_data)
        else:
            yield TarMember(name, start + info.offset_data, info.size)


def read_range(path: str, offset: int, size: int) -> bytes:
    """Read a range of a file, which is opened each time: processes must not share a position in it."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return os.pread(file.fileno(), size, offset)


def index_tar(source: DataSource, path: Path) -> Images:
    """Index the images in a tar, in class folders or, as ImageNet's validation images are packed, in none.

    Where it contains both splits, those of one are indexed as in a folder.
    """
    members = [member for member in list_members(path) if member.name.lower().endswith(_ENDINGS)]
    if not members:
        raise source.error(f"no images in {path}")
    folder = _split_in_tar(source, path, [member.name for member in members])
    members = [
        member._replace(name=member.name.removeprefix(folder)) for member in members if member.name.startswith(folder)
    ]
    members.sort(key=lambda member: natural_key(member.name))  # type: ignore[no-untyped-call]
    sizes, read = _index_ranges([path], [(0, member) for member in members])
    names = [member.name for member in members]
    return _label(source, names, sizes, path, read=read, head=partial(read, most=HEAD))


def _split_in_tar(source: DataSource, path: Path, names: Sequence[str]) -> str:
    """Find the folder of a split among the names in a tar, or in the one folder that contains all of them.

    It ends in a slash, and is empty where there is a folder for neither split.
    """
    first = names[0].partition("/")[0] + "/"
    for root in ("", first) if all(name.startswith(first) for name in names) else ("",):
        below = [name.removeprefix(root) for name in names]
        folders = {name.partition("/")[0] for name in below if "/" in name}
        folder = next((name for name in source.folders if name in folders), None)
        if folder is not None:
            return f"{root}{folder}/"
        if folders.intersection(source.known.train if source.split == "test" else source.known.test):
            raise _no_folder(source)
    _check_test_split(source, path)
    return ""


def _index_ranges(
    paths: Sequence[Path], members: Sequence[tuple[int, TarMember]]
) -> tuple[list[int], Callable[..., bytes]]:
    """Return the sizes of members of tar files, and what reads one, or at most so many bytes of it.

    A row of the table is the number of the file, the first byte, and the number of bytes.
    """
    table = np.array([(number, member.offset, member.size) for number, member in members], dtype=np.int64)

    def read(position: int, most: int = sys.maxsize) -> bytes:
        number, offset, size = table[position].tolist()
        return read_range(str(paths[number]), offset, min(size, most))

    return table[:, 2].tolist(), read


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
    shards = _find_shards(source, root)
    samples = [(number, *sample) for number, path in enumerate(shards) for sample in _read_shard(source, path)]
    if not samples:
        raise source.error(f"no images in {name_few([path.name for path in shards])}")
    names = [member.name for _, member, _ in samples]
    if len(set(names)) < len(names):  # each shard may count its keys anew
        names = [f"{shards[number].name}/{member.name}" for number, member, _ in samples]
    sizes, read = _index_ranges(shards, [(number, member) for number, member, _ in samples])
    labels = [label for *_, label in samples]
    return Images.of(source, names, labels, sizes=sizes, read=read, head=partial(read, most=HEAD))


def _find_shards(source: DataSource, root: Path) -> list[Path]:
    """Find the shards of a split: in its folder, or with its name in theirs; those without are the test images."""
    if root.is_file():
        _check_test_split(source, root)
        return [root]
    folder = next((root / name for name in source.folders if (root / name).is_dir()), None)
    paths = sorted((folder or root).glob("*.tar"), key=lambda path: natural_key(path.name))  # type: ignore[no-untyped-call]
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


def _read_shard(source: DataSource, path: Path) -> Iterator[tuple[TarMember, int]]:
    """Return the images of a shard and their classes."""
    matches = [(match, member) for member in list_members(path) if (match := _SHARDED.fullmatch(member.name))]
    classes = {match[1]: _read_class(source, path, member) for match, member in matches if match[2] == "cls"}
    for match, member in matches:
        if match[2] == "cls":
            continue
        if match[1] not in classes:
            raise source.error(f"{path.name} has no {match[1]}.cls next to {member.name}")
        yield member, classes[match[1]]


def _read_class(source: DataSource, path: Path, member: TarMember) -> int:
    text = read_range(str(path), member.offset, member.size).decode(errors="replace").strip()
    if not text.isdecimal():
        raise source.error(f"{member.name} in {path.name} contains '{text[:20]}', not a class index")
    return int(text)
