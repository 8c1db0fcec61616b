"""A tar file -> where its members are, so that any process reads them in place, in any order."""

import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.errors import JobError
from harness.jobs.data.walk import HIDDEN, NO_FILE, Listing, is_hidden

# Tars in one another: ImageNet's training images are packed as tars in a tar.
DEPTH = 4


class TarMember(NamedTuple):
    """A file in a tar: its name there, and its first byte and number of bytes in the tar."""

    name: str
    offset: int
    size: int


def list_members(path: Path, listing: Listing) -> list[TarMember]:
    """List every file in a tar, in its order; what is no file, or nobody's data, is left out of the listing.

    A tar in the tar, as ImageNet's training images are packed, counts as a folder of its name.  A hard link is the file
    that it links to.  Of several members of one name the last counts, as it does for `tar -x`.  Raises `JobError` for
    what is no tar, or is compressed: then nothing in it has an offset.
    """
    members: dict[str, TarMember] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _list(archive, "", 0, listing, depth=0):
                if member.name in members:
                    listing.leave_out("replaced by a later member of their name", member.name)
                members[member.name] = member
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise _unreadable_tar(path, " ".join(str(error).split())) from None
    size = path.stat().st_size
    beyond = next((member.name for member in members.values() if member.offset + member.size > size), None)
    if beyond is not None:
        raise _unreadable_tar(path, f"{beyond} ends beyond the end of the file")
    return list(members.values())


def _unreadable_tar(path: Path, reason: str) -> JobError:
    return JobError(
        f"{path}: is not a tar file that can be read in place ({reason}); unpack it if it is compressed, "
        "download it again if it is truncated"
    )


def _list(archive: tarfile.TarFile, folder: str, start: int, listing: Listing, *, depth: int) -> Iterator[TarMember]:
    members: dict[str, TarMember] = {}
    for info in archive:
        name = folder + info.name.removeprefix("./")
        linked = members.get(folder + info.linkname.removeprefix("./"))
        if info.isdir():
            continue
        if reason := _reason_against(info, name, linked, depth):
            listing.leave_out(reason, name)
        elif name.endswith(".tar") and not info.islnk():
            inside = f"{name.removesuffix('.tar')}/"
            with tarfile.open(fileobj=archive.extractfile(info), mode="r:") as nested:
                yield from _list(nested, inside, start + info.offset_data, listing, depth=depth + 1)
        else:
            member = TarMember(name, start + info.offset_data, info.size) if linked is None else linked
            members[name] = member._replace(name=name)
            yield members[name]


def _reason_against(info: tarfile.TarInfo, name: str, linked: TarMember | None, depth: int) -> str:
    """Return why a member is left out; empty if it is not."""
    if any(map(is_hidden, name.split("/"))):
        return HIDDEN
    if info.issym():
        return "symbolic links in a tar"
    if info.islnk():
        return "" if linked else "hard links to what is not in the tar before them"
    if not info.isreg():
        return NO_FILE
    if info.issparse():
        return "sparse files, which are not in one piece in the tar"
    return "tars in too many others" if name.endswith(".tar") and depth == DEPTH else ""


def read_range(path: str, offset: int, size: int) -> bytes:
    """Read a range of a file, which is opened each time: processes must not share a position in it."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return os.pread(file.fileno(), size, offset)


def index_ranges(
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
