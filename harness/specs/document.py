"""A TOML file -> its data, and the line of each key.

`tomllib` reads the file in one go and keeps no line numbers.  When something is wrong, the file is read again statement
by statement, so that all mistakes in it are reported at once, each with its line.
"""

import errno
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeAlias

from harness.errors import HarnessError, SpecError, abridged
from harness.specs.checked import excess

Keys: TypeAlias = tuple[str, ...]

_HEADER = re.compile(r"\s*(?:\[[^\[\]]+\]|\[\[.*\]\])\s*(?:#.*)?")
_BRACES = re.compile(r"(?P<key>[^=\n#\[]+)=\s*\{")
_BLANK = re.compile(r"\s*(?:#.*)?")
_AT_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


@dataclass(kw_only=True)
class Document:
    """The data of a TOML file and the mistakes in it, each with its line (0: the file as a whole).

    Numbers with a point are `Decimal`.
    """

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    problems: set[tuple[int, str]] = field(default_factory=set)
    _text: str = ""
    _lines: dict[Keys, int] | None = None

    @classmethod
    def read(cls, path: Path, *, expected: str) -> "Document":
        """Read a file.  Mistakes in it become problems, not exceptions.

        Raises `HarnessError` if there is no such file; `expected` says what to name instead.
        """
        try:
            raw = _bytes_of(path)
        except OSError as error:
            raise HarnessError(f"{path}: cannot be read ({error.strerror}); name {expected}") from error
        return cls.parse(path, raw)

    @classmethod
    def parse(cls, path: Path, raw: bytes) -> "Document":
        """Read what a file of this path holds, or is to hold.  Mistakes in it become problems, not exceptions."""
        document = cls(path=path)
        try:
            # TOML ends a line with \n or \r\n and nothing else, and so do editors.
            document._text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
            document.problems.add((line, f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"))
            return document
        try:
            document.data = parse_toml(document._text)
        except tomllib.TOMLDecodeError as error:
            document.data, document._lines = document._read_by_statement(broken=True)
            if not document.problems:  # wrong as a whole, though each statement is right
                at = _AT_LINE.search(str(error))
                line = int(at["line"]) if at and at["line"] else 0
                document.problems.add((line, f"not TOML: {_reason(error)}"))
        return document

    def line(self, *keys: str) -> int:
        """Return the line of this key, or of the nearest table around it."""
        if self._lines is None:
            self._lines = self._read_by_statement(broken=False)[1]
        paths = (keys[:depth] for depth in range(len(keys), 0, -1))
        return next((self._lines[path] for path in paths if path in self._lines), 0)

    def add(self, text: str, *keys: str) -> None:
        """Add a problem with the value of these keys."""
        self.problems.add((self.line(*keys), text))

    def check(self) -> None:
        """Raise `SpecError` with every problem so far, in the order of the lines."""
        if self.problems:
            raise SpecError(
                f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}"
                for line, text in sorted(self.problems)
            )

    def _read_by_statement(self, *, broken: bool) -> tuple[dict[str, Any], dict[Keys, int]]:
        """Read each statement that can be read, and add a problem for each that cannot."""
        data: dict[str, Any] = {}
        lines: dict[Keys, int] = {}
        headers: dict[Keys, int] = {}
        table: Keys | None = ()  # None below a broken header: those keys belong to no table
        for number, statement in _statements(self._text, broken=broken):
            parsed = _parse(statement)
            is_header = statement.lstrip().startswith("[")
            if isinstance(parsed, str):
                self.problems.add((number, f"not TOML: {parsed}"))
                table = None if is_header else table
            elif is_header:
                *outer, table = _paths(parsed)  # of `[row.deit_s]`: row, then row.deit_s
                for path in (*outer, table):
                    lines.setdefault(path, number)
                if headers.setdefault(table, number) != number and broken:
                    text = f"is defined twice, first in line {headers[table]}; remove or rename one"
                    self.problems.add((number, f"[{'.'.join(table)}] {text}"))
                    table = None
                else:
                    _merge(data, table, {})
            elif table is not None:
                for path in _paths(parsed):
                    lines.setdefault((*table, *path), number)
                clashes = _merge(data, table, parsed)
                if broken:
                    where = f" in [{'.'.join(table)}]" if table else ""
                    self.problems |= {(number, f"'{clash}' is defined twice{where}; remove one") for clash in clashes}
        return data, lines


def _bytes_of(path: Path) -> bytes:
    if path.is_fifo() or path.is_char_device():  # which would be waited for
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_bytes()


def parse_toml(text: str) -> dict[str, Any]:
    """Return the data of a TOML text; numbers with a point are `Decimal`.

    Raises `TOMLDecodeError`, for numbers and nesting beyond what the program can handle too.
    """
    try:
        data = tomllib.loads(text, parse_float=_fraction)
        problem = excess(data)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        problem = "is nested without end"
    except ValueError:  # so Python refuses thousands of digits
        problem = "holds an integer beyond 64 bits"
    if problem:
        raise tomllib.TOMLDecodeError(f"it {problem}")
    return data


def _fraction(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("Infinity")
    # Written in full, it may have a billion digits.
    if number.is_finite() and number and not -400 < number.adjusted() < 308:
        number = Decimal("Infinity")
    if not number.is_finite() and text.strip("+-") not in ("inf", "nan"):
        raise tomllib.TOMLDecodeError(f"{abridged(text, 30)} is beyond what a number can be")
    return number


def _statements(text: str, *, broken: bool) -> Iterator[tuple[int, str]]:
    """Headers and key-value pairs, each with the number of its first line.

    In a `broken` text a statement without an end must not swallow the rest of the file.
    """
    pending: list[str] = []
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if broken and pending and _HEADER.fullmatch(line):
            yield start, "\n".join(pending)
            pending = []
        if not pending:
            if _BLANK.fullmatch(line):
                continue
            start = number
        pending.append(line)
        statement = "\n".join(pending)
        complete = not isinstance(_parse(statement), str)
        if complete or (broken and not _goes_on(statement)):
            yield start, statement
            pending = []
    if pending:
        yield start, "\n".join(pending)


def _goes_on(statement: str) -> bool:
    """Whether the statement may be finished by the lines that follow: an open array or an open long string."""
    openings = statement.count("[") - statement.count("]")
    braces = statement.count("{") - statement.count("}") if _BRACES.match(statement) else 0
    return max(openings, braces) > 0 or statement.count('"""') % 2 == 1 or statement.count("'''") % 2 == 1


def _parse(statement: str) -> dict[str, Any] | str:
    """Read one statement, or return the reason why it is not TOML."""
    try:
        return parse_toml(statement)
    except tomllib.TOMLDecodeError as error:
        braces = _BRACES.match(statement)
        if braces and "\n" in statement.strip():
            key, closed = braces["key"].strip(), statement.count("{") == statement.count("}")
            ends = (
                "goes on in the next line; write it in one line"
                if closed
                else "has no end; close it with } in its line"
            )
            return f"the table in braces of '{key}' {ends}"
        return _reason(error)


def _reason(error: tomllib.TOMLDecodeError) -> str:
    return _AT_LINE.sub("", str(error)).rstrip(".")


def _paths(table: dict[str, Any], before: Keys = ()) -> Iterator[Keys]:
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from _paths(value, (*before, key))


def _merge(data: dict[str, Any], path: Keys, addition: dict[str, Any]) -> list[str]:
    """Add a statement's data at its path; return the keys that were there already."""
    for key in path:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            return [key]
        data = inner
    clashes = []
    for key, value in addition.items():
        if key not in data:
            data[key] = value
        elif isinstance(value, dict) and isinstance(data[key], dict):
            clashes += _merge(data, (key,), value)
        else:
            clashes.append(key)
    return clashes
