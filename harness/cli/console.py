"""What every command ends with: exit codes, the terminal, files and warnings."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

from harness import atomic
from harness.errors import HarnessError

PIPE_WIDTH = 200


class ExitCode(IntEnum):
    """What the exit code of a command says.  A contract for scripts."""

    OK = 0
    REGRESSION = 1  # or a verdict that `check --fail-on` names
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_TO_COMPARE = 4
    BUG = 70  # EX_SOFTWARE of sysexits.h: Python's own 1 would be read as a regression
    INTERRUPTED = 130


def open_streams() -> None:
    """Open what is closed of stdin, stdout and stderr: else the next files get their numbers, and what is printed."""
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 -- has no name
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """End as cleanly when a container is stopped, whose first process would ignore the signal, unless it is handled."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def terminal_width() -> int:
    """Return the width of the terminal; a pipe gets long lines, unless COLUMNS is set."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if known else PIPE_WIDTH


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def use_color() -> bool:
    """Whether stdout takes colours: a terminal does, unless NO_COLOR or TERM say otherwise."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def warn(*warnings: str) -> None:
    """Print warnings to stderr."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def write_file(path: Path, text: str, option: str = "-o") -> None:
    """Write a file that the user named, and the folder around it.

    Raises `HarnessError` where that is not possible.
    """
    try:
        atomic.write(path, text)
    except OSError as error:
        raise HarnessError(f"{option} {path}: {error.strerror}; name another file") from error
