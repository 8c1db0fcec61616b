"""A tar file -> where the files in it lie, so that any process reads them in place, in any order."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import JobError


class Member(NamedTuple):
    """A file in a tar: its name there, and its first byte and number of bytes in the tar."""

    name: str
    offset: int
    size: int


def members(path: Path) -> list[Member]:
    """Find every file in a tar, in its order.

    A tar in the tar, as ImageNet's training images are packed, is a folder of its name.  Of several members of one name
    the last counts, as it does for `tar -x`.  Raises `JobError` for what is no tar, or is compressed: then nothing in
    it has a place.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            found = {member.name: member for member in _walk(archive, "", 0)}
    except (tarfile.TarError, OSError, EOFError) as error:
        said = " ".join(str(error).split())
        raise JobError(
            f"{path}: is not a tar file that can be read in place ({said}); unpack it if it is compressed, "
            "download it again if it is cut short"
        ) from None
    return list(found.values())


def _walk(archive: tarfile.TarFile, folder: str, start: int) -> Iterator[Member]:
    for info in archive:
        name = folder + info.name.removeprefix("./")
        if not info.isfile():
            continue
        if name.endswith(".tar"):
            inner = archive.extractfile(info)
            with tarfile.open(fileobj=inner, mode="r:") as nested:
                yield from _walk(nested, f"{name.removesuffix('.tar')}/", start + info.offset_data)
        else:
            yield Member(name, start + info.offset_data, info.size)


def cut(path: str, offset: int, size: int) -> bytes:
    """Read a piece of a file, which is opened each time: processes must not share a position in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.pread(handle, size, offset)
    finally:
        os.close(handle)
