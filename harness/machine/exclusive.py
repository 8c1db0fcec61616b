"""The lock that keeps two processes from measuring throughput on one machine at the same time."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HarnessError
from harness.machine.user import temporary_folder, user_id


def speed_lock() -> Path:
    """Return the lock file that every harness of this user holds while it measures throughput on this machine.

    Raises `HarnessError` if there is no folder for it.
    """
    return temporary_folder() / f"harness-speed-{user_id()}.lock"


@contextmanager
def exclusive_lock(
    path: Path, report: Callable[[str], None], work: str = "measures throughput on this machine"
) -> Iterator[None]:
    """Hold the lock while some work is done; where another process holds it, `report` which one, and wait.

    A suspended process holds the lock too and has to be found, so a file next to the lock has the holder's number.
    The lock of a process that ends is free, however it ends.  Raises `HarnessError` if the file cannot be locked.
    """
    lock, holder = FileLock(path), path.with_suffix(".pid")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"another harness{_process_in(holder)} {work}; waiting for it")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        lock.release()
        raise HarnessError(f"{path}: cannot be locked ({error}); name another folder with TMPDIR") from error
    try:
        with contextlib.suppress(OSError):  # on a full disk the others wait all the same
            holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _process_in(holder: Path) -> str:
    """Describe the holder; empty if it is just about to write or remove its number."""
    try:
        return f" (process {int(holder.read_text(encoding='ascii'))})"
    except (OSError, ValueError):
        return ""
