"""The machine to oneself: one speed at a time is measured on it, whichever process measures."""

import getpass
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def speed_lock() -> Path:
    """Name the file that every harness of this user holds while it measures a speed on this machine."""
    return Path(tempfile.gettempdir()) / f"harness-speed-{getpass.getuser()}.lock"


@contextmanager
def alone(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the machine while a speed is measured; where another process holds it, `tell` of which, and wait.

    A process that was stopped holds it as well, and has to be found: so its number stands beside the lock.
    """
    lock, holder = FileLock(path), path.with_suffix(".pid")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"another harness{_process_in(holder)} measures speed on this machine; waiting for it")
        lock.acquire()
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _process_in(holder: Path) -> str:
    """Put the holder's number into words; nothing if it is just about to write or remove it."""
    try:
        return f" (process {int(holder.read_text(encoding='ascii'))})"
    except (OSError, ValueError):
        return ""
