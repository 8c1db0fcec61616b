"""A file or stdin -> the grids in it, by its format."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.specs.importing.grid import FORMATS, Grid
from harness.specs.importing.html import read_html
from harness.specs.importing.latex import read_latex
from harness.specs.importing.plain import read_csv, read_markdown

_READERS: Mapping[str, Callable[[str], list[Grid]]] = {
    "latex": read_latex,
    "html": read_html,
    "markdown": read_markdown,
    "csv": read_csv,
}
STDIN = Path("-")

# No table is as large, and pylatexenc reads about 100 kB in a second.
MOST_BYTES = 2_000_000


def read_grid(path: Path, form: str | None, number: int | None) -> Grid:
    """Return the table of a file, or that of this number, counted from 1; `-` is stdin.

    Raises `HarnessError` for a file that cannot be read, of an unknown format, or with several tables and no number.
    """
    form = form or next((name for name in FORMATS if path.suffix.lower() in FORMATS[name]), None)
    if form is None:
        known = ", ".join(FORMATS)
        reason = "stdin has no suffix" if path == STDIN else f"{path}: its format does not follow from its name"
        raise HarnessError(f"{reason}; name the format with --format ({known})")
    name = "stdin" if path == STDIN else str(path)
    text = _text(path, name)
    try:
        grids = [grid for grid in _READERS[form](text) if len(grid.lines) > 1 and len(grid.lines[0]) > 1]
    except RecursionError:
        raise HarnessError(f"{name}: is nested too deeply; cut the table out of it") from None
    if not grids:
        raise HarnessError(f"{name}: has no table in {form}; name another file, or another --format")
    if number is None and len(grids) > 1:
        listed = "\n".join(f"--table {n}: {grid.summary}" for n, grid in enumerate(grids, start=1))
        raise HarnessError(f"{name}: has {len(grids)} tables; choose one of them\n{listed}")
    if number is not None and number > len(grids):
        raise HarnessError(f"{name}: has {len(grids)} tables, not {number}; choose one with --table")
    return grids[(number or 1) - 1]


def _text(path: Path, name: str) -> str:
    try:
        raw = _stdin() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise HarnessError(f"{name}: cannot be read ({error.strerror}); name the file of a table") from error
    if len(raw) > MOST_BYTES:
        raise HarnessError(f"{name}: has {len(raw):,} bytes, and no table has more than {MOST_BYTES:,}; cut it out")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise HarnessError(
            f"{name}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def _stdin() -> bytes:
    buffer = getattr(sys.stdin, "buffer", None)
    return bytes(buffer.read()) if buffer else sys.stdin.read().encode(errors="replace")
