"""A TOML file -> its data, and the line on which each thing in it stands.

`tomllib` reads the file in one go and knows no line numbers.  When something is wrong the file is read again statement
by statement, so that every error of the file is reported at once, each with its line.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

Keys: TypeAlias = tuple[str, ...]

_HEADER = re.compile(r"\s*\[(?P<keys>[^\[\]]+)\]\s*(?:#.*)?")
_ARRAY_HEADER = re.compile(r"\s*\[\[.*\]\]\s*(?:#.*)?")
_BLANK = re.compile(r"\s*(?:#.*)?")
_AT_LINE = re.compile(r" \(at (?:line \d+, column \d+|end of document)\)$")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a file: `line` counts from 1; 0 is the file as a whole."""

    line: int
    text: str


@dataclass(kw_only=True)
class Document:
    """The data of a TOML file and what is wrong with its text.  Numbers with a point are `Decimal`."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _text: str = ""
    _lines: dict[Keys, int] | None = None

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a file.  What cannot be read becomes a problem, not an exception; `OSError` passes."""
        document = cls(path=path)
        raw = path.read_bytes()
        try:
            document._text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            byte = raw[error.start]
            document.problems.append(Problem(line=line, text=f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"))
            return document
        try:
            document.data = tomllib.loads(document._text, parse_float=Decimal)
        except tomllib.TOMLDecodeError:
            document.data, document._lines = document._read_by_statement()
        return document

    def line(self, *keys: str) -> int:
        """Give the line where this key, or the nearest thing around it, stands."""
        if self._lines is None:
            self._lines = self._read_by_statement()[1]
        path: Keys = keys
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    def add(self, text: str, *keys: str) -> None:
        """Note a problem with what stands under these keys."""
        self.problems.append(Problem(line=self.line(*keys), text=text))

    def _read_by_statement(self) -> tuple[dict[str, Any], dict[Keys, int]]:
        """Read what can be read, and note each statement that cannot."""
        data: dict[str, Any] = {}
        lines: dict[Keys, int] = {}
        headers: dict[Keys, int] = {}
        where: Keys = ()
        for number, statement in _statements(self._text):
            header = _HEADER.fullmatch(statement)
            parsed = _parse(f"[{header['keys']}]" if header else statement)
            if isinstance(parsed, str):
                self.problems.append(Problem(line=number, text=f"not TOML: {parsed}"))
            elif header:
                where = _only_path(parsed)
                if where in headers:
                    name = ".".join(where)
                    text = f"[{name}] stands twice, first in line {headers[where]}; remove or rename one"
                    self.problems.append(Problem(line=number, text=text))
                headers.setdefault(where, number)
                lines.setdefault(where, number)
                _merge(data, where, {})
            else:
                for path in _paths(parsed):
                    lines.setdefault((*where, *path), number)
                for clash in _merge(data, where, parsed):
                    text = f"'{clash}' stands twice in [{'.'.join(where)}]; remove one"
                    self.problems.append(Problem(line=number, text=text))
        return data, lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and key-value pairs, each with the number of its first line."""
    pending: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if pending and (_HEADER.fullmatch(line) or _ARRAY_HEADER.fullmatch(line)):
            yield start, "\n".join(pending)
            pending = []
        if not pending:
            if _BLANK.fullmatch(line):
                continue
            start = number
        pending.append(line)
        statement = "\n".join(pending)
        complete = _HEADER.fullmatch(statement) or not isinstance(_parse(statement), str)
        if complete or not _goes_on(statement):
            yield start, statement
            pending = []
    if pending:
        yield start, "\n".join(pending)


def _goes_on(statement: str) -> bool:
    """Whether the statement may be finished by the lines that follow: an open array or an open long string."""
    openings = statement.count("[") - statement.count("]")
    return openings > 0 or statement.count('"""') % 2 == 1 or statement.count("'''") % 2 == 1


def _parse(statement: str) -> dict[str, Any] | str:
    """Read one statement, or say why it is not TOML."""
    try:
        return tomllib.loads(statement, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        return _AT_LINE.sub("", str(error)).rstrip(".")


def _only_path(table: dict[str, Any]) -> Keys:
    """Take the keys of a header apart: `[row.deit_s]` is `("row", "deit_s")`."""
    path: list[str] = []
    while table:
        key, table = next(iter(table.items()))
        path.append(key)
    return tuple(path)


def _paths(table: dict[str, Any], before: Keys = ()) -> Iterator[Keys]:
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from _paths(value, (*before, key))


def _merge(data: dict[str, Any], where: Keys, addition: dict[str, Any]) -> list[str]:
    """Put a statement's data in its place; return the keys that were there already."""
    for key in where:
        data = data.setdefault(key, {})
    clashes = []
    for key, value in addition.items():
        if key not in data:
            data[key] = value
        elif isinstance(value, dict) and isinstance(data[key], dict):
            clashes += _merge(data, (key,), value)
        else:
            clashes.append(key)
    return clashes
