"""Files that appear whole or not at all: written to a temporary file in the same folder, synced, then renamed.

Whatever goes wrong before the renaming (a full disk, a crash, Ctrl-C) leaves the file that was there before as it was.
A kill leaves the temporary file as well.  Whoever writes locks the folder, so that others can tell which temporary
files have no writer any more: the system releases the lock of a process that was killed.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r"\..{1,40}\.[0-9a-f]{8}\.tmp", re.DOTALL)

# Seconds that a writer waits while a folder is cleaned up, which takes milliseconds.
PATIENCE = 1.0

# Seconds after which a folder that cannot be locked, as on some network file systems, is taken to have no writer.
LONG_AGO = 24 * 3600


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


def write_stream(path: Path, content: IO[bytes]) -> None:
    """Write a file, and the folders around it, with what is left to read of another."""
    with _replacing([path], sync=True) as temporaries, temporaries[path].open("wb") as file:
        shutil.copyfileobj(content, file)


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
        with occupying(target.parent for _, target in renames):
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


# Folders that are written to.


@contextmanager
def occupying(folders: Iterable[Path]) -> Iterator[None]:
    """Have `vacant` say of these folders, which are made where they are missing, that a process writes there."""
    with contextlib.ExitStack() as stack:
        for folder in set(folders):
            # Without the lock there is nothing to fall back to, nor a need: `vacant` then goes by the time.
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                _wait_for_shared_lock(handle)
        yield


@contextmanager
def vacant(folder: Path) -> Iterator[bool]:
    """Whether no process, on whatever host, writes into a folder; one that begins waits for the end of the block."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _has_no_other_lock(handle)
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that is, or was, to replace another."""
    return bool(_TEMPORARY.fullmatch(path.name))


def _has_no_other_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(handle).st_mtime > LONG_AGO
    return True


def _wait_for_shared_lock(handle: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


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
