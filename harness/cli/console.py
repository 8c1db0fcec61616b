"""What every command ends with: exit codes, the terminal, files and warnings."""

import codecs
import errno
import io
import os
import select
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from itertools import zip_longest
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any, TextIO

from harness import atomic, cleaning
from harness.errors import HarnessError

PIPE_WIDTH = 200

# For what scripts read line by line.
UNBROKEN = 1_000_000

# The least width of a cell that is broken within words.
NARROWEST_CELL = 8

# What a table can be laid out in: COLUMNS may say anything.
NARROWEST, WIDEST = 20, 1000


class ExitCode(IntEnum):
    """What the exit code of a command says.  A contract for scripts."""

    OK = 0
    REGRESSION = 1  # or a verdict that `check --fail-on` names
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_TO_COMPARE = 4
    BUG = 70  # EX_SOFTWARE of sysexits.h: Python's own 1 would be read as a regression
    INTERRUPTED = 130


class _Output(io.BufferedIOBase):
    """A stream that takes everything: its first failure is remembered, and what follows it is dropped.

    So a full disk or a reader that left ends no command in the middle of its work, and changes no verdict.  It keeps
    nothing back, so that Ctrl-C right after a line was written cannot have it written again.
    """

    def __init__(self, descriptor: int, *, closed: bool) -> None:
        self._descriptor = descriptor
        self.name = str(descriptor)
        self.failure = OSError(errno.EBADF, "it is closed") if closed else None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:  # noqa: ANN401 -- any buffer
        rest = memoryview(data).cast("B")
        while rest and self.failure is None:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # a pipe that was set not to wait, as those of some CIs are
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return len(data)


_outputs: dict[str, _Output] = {}


def open_streams() -> None:
    """Make stdout and stderr take any text, whatever their encoding is and whether anybody can read them."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    if closed:
        _occupy_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 -- until the process ends
    codecs.register_error("spelled", cleaning.spelled)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # nobody captures it
            _outputs[name] = _Output(descriptor, closed=name in closed)
            setattr(sys, name, _wrapped(_outputs[name], stream))


def _occupy_descriptors() -> None:
    """Let no file be opened as stdin, stdout or stderr, where a library would print into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 -- takes the lowest number


def _wrapped(output: _Output, stream: TextIO | None) -> io.TextIOWrapper:
    encoding = stream.encoding if stream else "utf-8"
    lines = output.fileno() == 2 or output.isatty()
    return io.TextIOWrapper(output, encoding=encoding, errors="spelled", line_buffering=lines)


def check_output(*, reader_may_leave: bool) -> None:
    """Raise `HarnessError` if stdout did not take what was printed; a reader that left, as `head`, may have enough."""
    sys.stdout.flush()
    failure = _outputs["stdout"].failure if "stdout" in _outputs else None
    if failure is not None and not (reader_may_leave and failure.errno == errno.EPIPE):
        reason = os.strerror(failure.errno) if failure.errno not in (None, errno.EBADF) else failure.strerror
        raise HarnessError(f"stdout: {reason}, so the output could not be written; redirect it elsewhere")


def echo(text: str = "", *, styled: bool = False, end: str = "\n") -> None:
    """Print to stdout; `styled` text has colours of ours."""
    print(cleaning.printable(text, styled=styled), end=end, flush=True)


def note(text: str) -> None:
    """Print a line to stderr."""
    print(cleaning.one_line(text), file=sys.stderr, flush=True)


@contextmanager
def meanwhile(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on stderr what is waited for until the block ends, where stderr is a terminal, which then forgets it."""
    shown = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    # A line that is broken in two could not be taken back.
    line = f"{cleaning.one_line(text)[: shutil.get_terminal_size().columns - 2]}…"
    if shown:
        print(line, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f"\r{'':{len(line)}}\r", end="", file=sys.stderr, flush=True)


def warn(*warnings: str) -> None:
    """Print warnings to stderr."""
    for warning in warnings:
        note(f"warning: {warning}")


def print_error(text: str) -> None:
    """Print an error to stderr; each of its lines is one."""
    for line in text.splitlines():
        note(f"error: {line}")


def terminal_width(pipe: int = PIPE_WIDTH) -> int:
    """Return the width of the terminal; a pipe gets long lines, of so many columns, unless COLUMNS is set."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST) if known else pipe


def align(
    rows: Sequence[Sequence[str]], width: int = UNBROKEN, *, broken: Sequence[int] = (), indent: int = 0
) -> list[str]:
    """Return rows as lines, with columns of equal width.

    Where they do not fit in `width` columns, the cells of the `broken` columns are broken between words and, from the
    last of these to the first, within words if need be.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = [
        max((len(word) for cell in column for word in cell.split()), default=0) for column in zip(*rows, strict=True)
    ]
    excess = max(0, indent + sum(widths) + 2 * (len(widths) - 1) - width)
    spare = {column: widths[column] - words[column] for column in broken}
    share = min(1.0, excess / (sum(spare.values()) or 1))
    for column, columns in spare.items():
        widths[column] -= ceil(share * columns)
        excess -= ceil(share * columns)
    for column in reversed(broken):
        cut = max(0, min(excess, widths[column] - NARROWEST_CELL))
        widths[column] -= cut
        excess -= cut
    lines = []
    for row in rows:
        cells = [
            wrap(cell, widths[column], break_on_hyphens=False) if column in broken else [cell]
            for column, cell in enumerate(row)
        ]
        lines += [
            f"{'':{indent}}{'  '.join(map(str.ljust, parts, widths))}".rstrip()
            for parts in zip_longest(*cells, fillvalue="")
        ]
    return lines


def break_lines(lines: Iterable[str], width: int) -> list[str]:
    """Break lines that do not fit in `width` columns: where two blanks are, else between words.

    What is continued is indented further.
    """
    broken = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        current = ""
        for part in line.lstrip().split("  "):
            if current and len(current) + 2 + len(part) <= width:
                current += f"  {part}"
                continue
            if current:
                broken.append(current)
            first, rest = f"{indent}    " if current else indent, f"{indent}    "
            *whole, current = wrap(
                part, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
            ) or [""]
            broken += whole
        broken.append(current)
    return broken


def use_color() -> bool:
    """Whether stdout takes colours: a terminal does, unless NO_COLOR or TERM say otherwise."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# A file is read by whoever opens it, not in this window.
FILE_WIDTH = 100


def page_of(output: Path | None) -> tuple[int, bool]:
    """Return the width of what is printed or written to a file, and whether it has colours."""
    return (terminal_width(), use_color()) if output is None else (FILE_WIDTH, False)


def deliver(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file and print its name."""
    if output is None:
        echo(text, styled=True, end="")
    else:
        write_file(output, text)
        echo(f"{output}")


def write_file(path: Path, text: str, option: str = "-o") -> None:
    """Write a file that the user named, and the folder around it.

    Raises `HarnessError` where that is not possible.
    """
    try:
        atomic.write(path, text)
    except OSError as error:
        raise HarnessError(f"{option} {path}: {error.strerror}; name another file") from error
