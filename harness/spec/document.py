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

_HEADER = re.compile(r"\s*(?:\[[^\[\]]+\]|\[\[.*\]\])\s*(?:#.*)?")
_BLANK = re.compile(r"\s*(?:#.*)?")
_AT_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


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
            # TOML ends a line with \n or \r\n and nothing else, and so do editors.
            document._text = raw.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            byte = raw[error.start]
            document.problems.append(Problem(line=line, text=f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"))
            return document
        try:
            document.data = tomllib.loads(document._text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            document.data, document._lines = document._read_by_statement(broken=True)
            if not document.problems:  # wrong as a whole, though each statement is right
                at = _AT_LINE.search(str(error))
                line = int(at["line"]) if at and at["line"] else 0
                document.problems.append(Problem(line=line, text=f"not TOML: {_reason(error)}"))
        return document

    def line(self, *keys: str) -> int:
        """Give the line where this key, or the nearest thing around it, stands."""
        if self._lines is None:
            self._lines = self._read_by_statement(broken=False)[1]
        path: Keys = keys
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    def add(self, text: str, *keys: str) -> None:
        """Note a problem with what stands under these keys."""
        self.problems.append(Problem(line=self.line(*keys), text=text))

    def _read_by_statement(self, *, broken: bool) -> tuple[dict[str, Any], dict[Keys, int]]:
        """Read what can be read, and note each statement that cannot."""
        data: dict[str, Any] = {}
        lines: dict[Keys, int] = {}
        headers: dict[Keys, int] = {}
        where: Keys | None = ()  # None below a header that is wrong itself: what stands there is nobody's
        for number, statement in _statements(self._text, broken=broken):
            parsed = _parse(statement)
            is_header = statement.lstrip().startswith("[")
            if isinstance(parsed, str):
                self._note(number, f"not TOML: {parsed}")
                where = None if is_header else where
            elif is_header:
                where = _only_path(parsed)
                for depth in range(1, len(where) + 1):
                    lines.setdefault(where[:depth], number)
                if where in headers and broken:
                    name = ".".join(where)
                    self._note(number, f"[{name}] stands twice, first in line {headers[where]}; remove or rename one")
                    where = None
                    continue
                headers.setdefault(where, number)
                _merge(data, where, {})
            elif where is not None:
                for path in _paths(parsed):
                    lines.setdefault((*where, *path), number)
                clashes = _merge(data, where, parsed)
                if broken:
                    place = f" in [{'.'.join(where)}]" if where else ""
                    for clash in clashes:
                        self._note(number, f"'{clash}' stands twice{place}; remove one")
        return data, lines

    def _note(self, line: int, text: str) -> None:
        self.problems.append(Problem(line=line, text=text))


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
    return openings > 0 or statement.count('"""') % 2 == 1 or statement.count("'''") % 2 == 1


def _parse(statement: str) -> dict[str, Any] | str:
    """Read one statement, or say why it is not TOML."""
    try:
        return tomllib.loads(statement, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        return _reason(error)


def _reason(error: tomllib.TOMLDecodeError) -> str:
    return _AT_LINE.sub("", str(error)).rstrip(".")


def _only_path(table: dict[str, Any]) -> Keys:
    """Take the keys of a header apart: `[row.deit_s]` is `("row", "deit_s")`."""
    path: list[str] = []
    while table:
        key, inner = next(iter(table.items()))
        path.append(key)
        table = inner if isinstance(inner, dict) else {}  # [[row]] has a list
    return tuple(path)


def _paths(table: dict[str, Any], before: Keys = ()) -> Iterator[Keys]:
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from _paths(value, (*before, key))


def _merge(data: dict[str, Any], where: Keys, addition: dict[str, Any]) -> list[str]:
    """Put a statement's data in its place; return the keys that were there already."""
    for key in where:
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
