"""A folder -> every entry below it: an image that is taken, or left out for a reason that is counted."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from timm.data.readers.img_extensions import get_img_extensions

from harness.errors import name_few

# Names that an image may end with: those that timm's readers take.
ENDINGS: tuple[str, ...] = tuple(get_img_extensions())  # type: ignore[no-untyped-call]

# What operating systems, file servers and tools leave among other people's files, next to names that begin with a dot
# (macOS writes ._x.JPEG next to x.JPEG, Jupyter .ipynb_checkpoints).
_SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
_PICTURES = frozenset(
    {"webp", "bmp", "tif", "tiff", "gif", "jfif", "jpe", "jif", "jp2", "jxl", "ppm", "pgm", "pbm", "pnm", "heic"}
    | {"heif", "avif", "tga", "svg", "ico", "dng", "cr2", "nef", "npy"}
)

HIDDEN = "hidden or system files"
PICTURE = f"pictures that do not end in {', '.join(sorted(ENDINGS))}"
OTHER = "other files"
LOOP = "links to a folder that they are in"
NO_FILE = "neither files nor folders"
CLOSED = "folders that cannot be opened"

# The names of what was left out, by reason.
LeftOut = Mapping[str, Collection[str]]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What was found in a folder or a tar file: the names of images, and what was left out by reason.

    `files` tells which images are one file on the disk: equal numbers are.
    """

    names: list[str] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count an entry that is not taken."""
        self.left_out.setdefault(reason, []).append(name)

    def below(self, folder: str) -> dict[str, list[str]]:
        """Return what was left out below a folder, whose name ends in a slash."""
        below = {reason: [name for name in names if name.startswith(folder)] for reason, names in self.left_out.items()}
        return {reason: names for reason, names in below.items() if names}


def list_images(root: Path, *, labels: Collection[str] = ()) -> Listing:
    """List the images below a folder in timm's order, by their paths in it; no file is opened.

    Links are followed, but not to a folder that they are in.  Files called as one of `labels` are no images, nor left
    out.
    """
    listing = Listing()
    waiting: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(root), "", ())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            here = os.stat(folder)  # noqa: PTH116 -- plain strings: a million Paths are a gigabyte
            entries = list(os.scandir(folder))
        except OSError:
            listing.leave_out(CLOSED, prefix or folder)
            continue
        identity = here.st_dev, here.st_ino
        if identity in above:
            listing.leave_out(LOOP, prefix.rstrip("/"))
            continue
        for entry in entries:
            name = prefix + entry.name
            if _is_folder(entry) and not is_hidden(entry.name):
                waiting.append((entry.path, f"{name}/", (*above, identity)))
            elif entry.name not in labels:
                _take(listing, name, entry, here.st_dev)
    order = sorted(range(len(listing.names)), key=lambda i: (natural_key(listing.names[i]), listing.names[i]))
    return Listing(
        names=[listing.names[i] for i in order], files=[listing.files[i] for i in order], left_out=listing.left_out
    )


def _take(listing: Listing, name: str, entry: os.DirEntry[str], device: int) -> None:
    """Take a file for an image, or leave it out."""
    file = _file_number(entry, device)
    if is_hidden(entry.name):
        listing.leave_out(HIDDEN, name)
    elif reason := unsuitable(entry.name):
        listing.leave_out(reason, name)
    elif file is None:
        listing.leave_out(NO_FILE, name)
    else:
        listing.names.append(name)
        listing.files.append(file)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file_number(entry: os.DirEntry[str], device: int) -> int | None:
    """Return a number that is equal for links to one file; None for a pipe or a device, which may never end.

    A broken link is an image all the same: it cannot be read, and is named when it is.
    """
    if not entry.is_symlink():
        return hash((device, entry.inode() or entry.path)) if entry.is_file() else None
    try:
        status = entry.stat()
    except OSError:
        return hash(entry.path)
    return hash((status.st_dev, status.st_ino or entry.path)) if S_ISREG(status.st_mode) else None


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is nobody's data: hidden, or left there by a system or a tool."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _SYSTEM


def unsuitable(name: str) -> str:
    """Return why a file is not taken for an image, by the ending of its name; empty if it is."""
    if name.lower().endswith(ENDINGS):
        return ""
    return PICTURE if name.lower().rpartition(".")[2] in _PICTURES else OTHER


def natural_key(name: str) -> list[tuple[int, str] | str]:
    """Return what names are sorted by so that 9 comes before 10, as timm's key does for numbers of any length."""
    parts: list[tuple[int, str] | str] = list(re.split(r"(\d+)", name.lower()))
    for index in range(1, len(parts), 2):
        digits = str(parts[index]).lstrip("0")
        parts[index] = len(digits), digits
    return parts


def describe_left_out(left_out: LeftOut) -> list[str]:
    """Return a clause for each reason: how many entries were left out, and the first of them."""
    return [f"{len(names):,} {reason} ({name_few(sorted(names))})" for reason, names in sorted(left_out.items())]
