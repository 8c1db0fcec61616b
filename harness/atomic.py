"""Files that appear whole or not at all: written to a temporary file in the same folder, synced, then renamed.

Whatever goes wrong before the renaming (a full disk, a crash, Ctrl-C) leaves the file that was there before as it was.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a file, and the folders around it.

    `sync` waits until the disk has it; what can be made again does without.
    """
    write_all({path: content}, sync=sync)


def write_all(contents: Mapping[Path, str | bytes], *, sync: bool = True) -> None:
    """Write several files: none of them is replaced before all are on the disk."""
    with _replacing(contents, sync=sync) as temporaries:
        for path, content in contents.items():
            temporaries[path].write_bytes(_encoded(content) if isinstance(content, str) else content)


def _encoded(text: str) -> bytes:
    # A byte of a file's name that is no text becomes its number, as JSON writes it.
    return text.encode(errors="backslashreplace")


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path for a library to write to; it replaces `path` if the block ends without an error."""
    with _replacing([path], sync=sync) as temporaries:
        yield temporaries[path]


@contextmanager
def _replacing(paths: Iterable[Path], *, sync: bool) -> Iterator[dict[Path, Path]]:
    targets = {path: _target(path) for path in paths}
    temporaries = {path: path if target is None else _temporary(target) for path, target in targets.items()}
    renames = [(temporaries[path], target) for path, target in targets.items() if target is not None]
    try:
        for folder in {target.parent for _, target in renames}:
            folder.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary, target in renames:
            if sync:
                _sync(temporary)
            if target.exists():
                shutil.copymode(target, temporary)
        for temporary, target in renames:
            temporary.replace(target)
        if sync:
            # The entry of the folder is data too.
            for folder in {target.parent for _, target in renames}:
                _sync(folder)
    finally:
        for temporary, _ in renames:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _target(path: Path) -> Path | None:
    """Return the file to replace, behind all links; None for what is no file, as a pipe, and is written in place."""
    return None if path.exists() and not path.is_file() else Path(os.path.realpath(path))


def _temporary(target: Path) -> Path:
    # Unique across processes, threads and hosts, and never longer than a file name may be.
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
