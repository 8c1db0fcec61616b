"""One spec file -> `Spec`, or every mistake in it at once, each with file, line, key and remedy."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, SpecError, did_you_mean
from harness.kinds import KINDS, SETTINGS, Scalar, parse_memory
from harness.spec.document import Document
from harness.spec.model import (
    Cell,
    Column,
    Family,
    Footnote,
    Nearest,
    Printed,
    PublishedMachine,
    Reference,
    Row,
    Source,
    Spec,
)

_STRING = (str,)
_NUMBER = (int, Decimal)

# The keys that each part of a file may have, and the types of their values; tables/README.md says what they mean.
_TABLE = dict.fromkeys(("title", "arxiv", "icml", "note", "cost", "figure", "x", "y", "default"), _STRING)
_SOURCE = {"kind": _STRING, "edition": _STRING, "cite": _STRING, "checked": (date,)}
_MEASURED = {
    "job": _STRING,
    "metric": _STRING,
    "unit": _STRING,
    "text": (bool,),
    "better": _STRING,
    "tolerance": (*_NUMBER, str),
    "digits": (int,),
}
_COLUMN = {
    **_MEASURED,
    "label": _STRING,
    "label_icml": _STRING,
    "machine": _STRING,
    "extra": (bool,),
    "set": (dict,),
    "train": (dict,),
    "cost": _NUMBER,
    "note": _STRING,
}
_ROW = {
    **_MEASURED,
    "label": _STRING,
    "label_icml": _STRING,
    "group": _STRING,
    "group_icml": _STRING,
    "family": _STRING,
    "set": (dict,),
    "train": (dict,),
    "assumed": (dict,),
    "unreleased": _STRING,
    "cost": _NUMBER,
    "nearest": (list,),
    "cell": (dict,),
    "note": _STRING,
}
_CELL = {
    "set": (dict,),
    "train": (dict,),
    "assumed": (dict,),
    "job": _STRING,
    "metric": _STRING,
    "unreleased": _STRING,
    "cost": _NUMBER,
}
_NEAREST = {"model": _STRING, "weights": _STRING, "match": _STRING, "comment": _STRING}
_FAMILY = {"label": _STRING, "reference": _STRING}
_MACHINE = {"tflops": _NUMBER, "bandwidth": _NUMBER}
_FOOTNOTE = {"text": _STRING, "effect": _STRING}
_PARTS = ("table", "source", "column", "row", "family", "machine", "footnote")

_TYPE_NAMES = {
    str: "a string",
    int: "a number",
    Decimal: "a number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    date: "a date",
}


def _plain(value: Any) -> Any:  # noqa: ANN401 -- TOML values are of any type
    """Give a number as Python writes it; everything else as it is."""
    return float(value) if isinstance(value, Decimal) else value


def _words(found: object) -> dict[str, str]:
    return {name: why for name, why in found.items() if isinstance(why, str)} if isinstance(found, dict) else {}


def load(path: Path) -> Spec:
    """Read and check a spec file.

    Raises `SpecError` with every mistake in it, and `HarnessError` if the file cannot be read.
    """
    try:
        document = Document.read(path)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror}); name a table or a spec file") from error
    spec = None
    if document.data:
        spec = _Reader(document).spec()
    elif not document.problems:
        document.add("is empty; see tables/README.md for what a spec says")
    if document.problems or spec is None:
        problems = sorted({(p.line, p.text) for p in document.problems})
        raise SpecError(f"{path}:{line}: {text}" if line else f"{path}: {text}" for line, text in problems)
    return spec


@dataclass(frozen=True, kw_only=True)
class _Level:
    """What one of column, row and cell says of a cell, with the keys that lead to it."""

    keys: tuple[str, ...]
    table: Mapping[str, Any]


class _Reader:
    """Walks through a document, builds the spec, and notes what is wrong on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._data = document.data
        self._say = document.add

    def spec(self) -> Spec | None:
        self._known_keys(self._data, dict.fromkeys(_PARTS, (dict,)), what="part")
        table = self._part("table")
        self._known_keys(table, _TABLE, "table")
        if "title" not in table:
            self._say('[table] has no title; add title = "…"', "table")
        sources = self._sources()
        footnotes = self._footnotes()
        columns = self._columns()
        families = self._families()
        machines = self._machines()
        rows = self._rows(sources, families)
        cells = {(row.key, column.key): self._cell(row, column, sources) for row in rows for column in columns}
        self._check_footnotes(cells.values(), footnotes)
        axes = self._axes(table, columns)
        self._default(table, rows)
        if self._document.problems:
            return None
        return Spec(
            name=self._document.path.stem,
            path=self._document.path,
            title=table["title"],
            numbers={edition: table[edition] for edition in ("arxiv", "icml") if edition in table},
            note=table.get("note"),
            cost=table.get("cost"),
            figure=table.get("figure"),
            axes=axes,
            default=table.get("default"),
            sources=sources,
            columns=columns,
            rows=rows,
            families=families,
            machines=machines,
            footnotes=footnotes,
            cells=cells,
        )

    # The parts of a file, in the order in which tables/README.md explains them.

    def _part(self, name: str) -> dict[str, Any]:
        part = self._data.get(name, {})
        return part if isinstance(part, dict) else {}

    def _entries(self, part: str, allowed: Mapping[str, tuple[type, ...]]) -> dict[str, dict[str, Any]]:
        """Take the tables of a part whose entries have the same keys."""
        found = {}
        for key, entry in self._part(part).items():
            if not isinstance(entry, dict):
                self._say(f"{part}.{key} is not a table; write [{part}.{key}]", part, key)
                continue
            self._known_keys(entry, allowed, part, key)
            found[key] = entry
        return found

    def _sources(self) -> dict[str, Source]:
        found = {}
        for name, entry in self._entries("source", _SOURCE).items():
            if name in _ROW:
                self._say(f"a source cannot be called '{name}', which is a key of every row", "source", name)
            kind = self._choice(entry, "kind", ("paper", "author", "timm"), "source", name)
            edition = self._choice(entry, "edition", ("both", "arxiv", "icml"), "source", name, default="both")
            cite = entry.get("cite", name)
            found[name] = Source(name=name, kind=kind, edition=edition, cite=str(cite))
        return found

    def _footnotes(self) -> dict[str, Footnote]:
        found = {}
        for mark, entry in self._entries("footnote", _FOOTNOTE).items():
            if "text" not in entry:
                self._say(f"[footnote.'{mark}'] has no text", "footnote", mark)
            effects = ("note", "explains", "wrong")
            effect = self._choice(entry, "effect", effects, "footnote", mark, default="note")
            found[mark] = Footnote(mark=mark, text=str(entry.get("text", "")), effect=effect)
        return found

    def _machines(self) -> dict[str, PublishedMachine]:
        found = {}
        for name, entry in self._entries("machine", _MACHINE).items():
            figures = {key: entry.get(key) for key in _MACHINE}
            if not all(isinstance(value, _NUMBER) and value > 0 for value in figures.values()):
                self._say(f"[machine.'{name}'] needs tflops and bandwidth, both above 0", "machine", name)
                continue
            found[name] = PublishedMachine(**{key: float(str(value)) for key, value in figures.items()})
        return found

    def _columns(self) -> tuple[Column, ...]:
        if not self._part("column"):
            self._say("has no columns; add [column.KEY]")
        found = []
        for key, entry in self._entries("column", _COLUMN).items():
            self._settings(entry, "column", key, kind=entry.get("job"))
            self._presentation(entry, "column", key)
            if "label" not in entry:
                self._say(f"column '{key}' has no label", "column", key)
            found.append(
                Column(
                    key=key,
                    label=str(entry.get("label", key)),
                    label_icml=entry.get("label_icml"),
                    unit=str(entry.get("unit", "")),
                    extra=bool(entry.get("extra", False)),
                    machine=entry.get("machine"),
                    note=entry.get("note"),
                )
            )
        return tuple(found)

    def _families(self) -> dict[str, Family]:
        rows = self._part("row")
        found = {}
        for key, entry in self._entries("family", _FAMILY).items():
            reference = entry.get("reference")
            if isinstance(reference, str) and reference not in rows:
                text = f"the reference row '{reference}' of family '{key}' does not exist"
                self._say(text + did_you_mean(reference, rows), "family", key, "reference")
            found[key] = Family(key=key, label=str(entry.get("label", key)), reference=reference)
        return found

    def _rows(self, sources: Mapping[str, Source], families: Mapping[str, Family]) -> tuple[Row, ...]:
        if not self._part("row"):
            self._say("has no rows; add [row.KEY]")
        allowed = {**_ROW, **dict.fromkeys(sources, (dict,))}
        found = []
        for key, entry in self._entries("row", allowed).items():
            self._settings(entry, "row", key, kind=entry.get("job"))
            self._presentation(entry, "row", key)
            if "label" not in entry:
                self._say(f"row '{key}' has no label", "row", key)
            family = entry.get("family")
            if isinstance(family, str) and family not in families:
                self._say(f"unknown family '{family}'{did_you_mean(family, families)}", "row", key, "family")
            self._known_columns(entry.get("cell"), "row", key, "cell")
            self._cells_are_tables(entry.get("cell"), key)
            for source in sources:
                self._known_columns(entry.get(source), "row", key, source)
            found.append(
                Row(
                    key=key,
                    label=str(entry.get("label", key)),
                    label_icml=entry.get("label_icml"),
                    group=entry.get("group"),
                    group_icml=entry.get("group_icml"),
                    family=family,
                    nearest=tuple(self._nearest(entry.get("nearest", []), key)),
                    note=entry.get("note"),
                )
            )
        return tuple(found)

    def _nearest(self, entries: object, row: str) -> Iterable[Nearest]:
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or not entry.keys() >= {"model", "weights"}:
                self._say("an entry of nearest needs model and weights", "row", row, "nearest")
                continue
            published = {
                name: {metric: str(value) for metric, value in values.items()}
                for name, values in entry.items()
                if isinstance(values, dict)
            }
            unknown = entry.keys() - _NEAREST.keys() - published.keys()
            for name in sorted(unknown):
                self._say(f"unknown key '{name}'{did_you_mean(name, _NEAREST)}", "row", row, "nearest")
            yield Nearest(
                model=str(entry["model"]),
                weights=str(entry["weights"]),
                match=str(entry.get("match", "")),
                comment=str(entry.get("comment", "")),
                published=published,
            )

    def _axes(self, table: Mapping[str, Any], columns: Iterable[Column]) -> tuple[str, str] | None:
        if "x" not in table and "y" not in table:
            return None
        known = [column.key for column in columns]
        for axis in ("x", "y"):
            name = str(table.get(axis, ""))
            if name not in known:
                self._say(f"{axis} = '{name}' is not a column{did_you_mean(name, known)}", "table", axis)
        return str(table.get("x")), str(table.get("y"))

    def _default(self, table: Mapping[str, Any], rows: Iterable[Row]) -> None:
        """Check that the row with which the others are compared is there."""
        known = [row.key for row in rows]
        if "default" in table and table["default"] not in known:
            self._say(
                f"default = '{table['default']}' is not a row{did_you_mean(str(table['default']), known)}",
                "table",
                "default",
            )

    # Cells.

    def _cell(self, row: Row, column: Column, sources: Mapping[str, Source]) -> Cell:
        cells = self._data["row"][row.key].get("cell")
        cell = cells.get(column.key) if isinstance(cells, dict) else None
        levels = (
            _Level(keys=("column", column.key), table=self._data["column"][column.key]),
            _Level(keys=("row", row.key), table=self._data["row"][row.key]),
            _Level(keys=("row", row.key, "cell", column.key), table=cell if isinstance(cell, dict) else {}),
        )

        def said(key: str, default: Any = None) -> Any:  # noqa: ANN401 -- TOML values are of any type
            values = [level.table[key] for level in levels if key in level.table]
            return values[-1] if values else default

        kind = said("job")
        if not isinstance(kind, str):  # what is of the wrong type has been told already
            kind = None
        if levels[2].table:
            self._known_keys(levels[2].table, _CELL, *levels[2].keys)
            self._settings(levels[2].table, *levels[2].keys, kind=kind)
            self._training(levels[2].table, *levels[2].keys)
        text = bool(said("text", default=False))
        tolerance, relative = self._tolerance(said("tolerance"), levels)
        cost = said("cost")
        return Cell(
            row=row,
            column=column,
            references=tuple(self._references(row, column, sources, words=text)),
            kind=kind if kind in KINDS else None,
            metric=self._metric(kind, said("metric"), levels),
            settings=self._merged(kind, levels),
            training={
                **self._merged("train", levels, "train"),
                **(self._merged(kind, levels) if kind == "train" else {}),
            },
            assumed={name: why for level in levels for name, why in _words(level.table.get("assumed")).items()},
            unit=str(said("unit", default="")),
            text=text,
            better=said("better"),
            tolerance=tolerance,
            relative=relative,
            digits=said("digits"),
            unreleased=said("unreleased"),
            cost=None if not isinstance(cost, _NUMBER) else float(cost),
        )

    def _references(
        self, row: Row, column: Column, sources: Mapping[str, Source], *, words: bool
    ) -> Iterable[Reference]:
        for name, source in sources.items():
            values = self._data["row"][row.key].get(name)
            if not isinstance(values, dict) or column.key not in values:
                continue
            raw, place = values[column.key], ("row", row.key, name, column.key)
            printed = None
            if isinstance(raw, (str, *_NUMBER)) and not isinstance(raw, bool):
                printed = Printed.read(raw, words=words)
            if printed is None:
                wanted = "words" if words else 'a number, or a string like "81.8 ± 0.2" or "96.9[B2]"'
                self._say(f"{column.key} = {_plain(raw)!r} of row '{row.key}' is not {wanted}", *place)
                continue
            if words and not isinstance(raw, str):
                self._say(f"{column.key} = {raw} of row '{row.key}' is not a string, but the column has words", *place)
            yield Reference(source=source, printed=printed)

    def _merged(self, kind: str | None, levels: Iterable[_Level], under: str = "set") -> dict[str, Scalar]:
        """Put the settings of column, row and cell together; a contradiction is an error."""
        merged: dict[str, Scalar] = {}
        origin: dict[str, str] = {}
        for level in levels:
            settings = level.table.get(under)
            for name, raw in settings.items() if isinstance(settings, dict) else ():
                value = _plain(raw)
                if name in SETTINGS and float in SETTINGS[name].types and type(value) is int:
                    value = float(value)  # 0 and 0.0 are the same work
                if name in merged and merged[name] != value:
                    text = (
                        f"{name} = {value!r} contradicts {name} = {merged[name]!r} of {origin[name]}; "
                        "say it in one place only"
                    )
                    self._say(text, *level.keys, under)
                merged[name] = value
                origin[name] = f"{level.keys[0]} '{level.keys[1]}'"
        if kind is None or kind not in KINDS:
            return {}
        return {name: merged[name] for name in KINDS[kind].settings if name in merged}

    def _metric(self, kind: str | None, metric: object, levels: tuple[_Level, ...]) -> str | None:
        keys = next(level.keys for level in reversed(levels) if level.table.keys() & {"job", "metric"} or not kind)
        if kind is None:
            return None
        if kind not in KINDS:
            self._say(f"unknown kind of job '{kind}'{did_you_mean(kind, KINDS)}", *keys, "job")
            return None
        known = KINDS[kind].metrics
        if metric is None:
            names = f"name one of {', '.join(known)}" if known else "name the one that is meant"
            self._say(f"job '{kind}' without a metric; {names}", *keys)
            return None
        if not isinstance(metric, str):  # what is of the wrong type has been told already
            return None
        if known and metric not in known:
            hint = did_you_mean(metric, known) or f"; it gives {', '.join(known)}"
            self._say(f"job '{kind}' has no metric '{metric}'{hint}", *keys, "metric")
        return metric

    def _tolerance(self, raw: object, levels: tuple[_Level, ...]) -> tuple[float | None, bool]:
        """Read `0.05` or `"5%"`: the number, and whether it is relative."""
        if raw is None:
            return None, False
        value = _plain(raw)
        if isinstance(value, str):
            found = re.fullmatch(r"(\d+(?:\.\d+)?)%", value.strip())
            if found:
                return float(found[1]) / 100, True
        elif isinstance(value, (int, float)) and 0 <= value < math.inf:
            return float(value), False
        keys = next(level.keys for level in reversed(levels) if "tolerance" in level.table)
        self._say(f"tolerance = {value!r} is neither a number nor a percentage like '5%'", *keys, "tolerance")
        return None, False

    # Checks.

    def _known_keys(
        self, entry: Mapping[str, Any], allowed: Mapping[str, tuple[type, ...]], *keys: str, what: str = "key"
    ) -> None:
        where = f" in [{'.'.join(keys)}]" if keys else ""
        for name, value in entry.items():
            if name not in allowed:
                self._say(f"unknown {what} '{name}'{where}{did_you_mean(name, allowed)}", *keys, name)
            elif not isinstance(value, allowed[name]) or (isinstance(value, bool) and bool not in allowed[name]):
                whole = allowed[name] == (int,)
                wanted = "an integer" if whole else " or ".join(dict.fromkeys(_TYPE_NAMES[t] for t in allowed[name]))
                got = _TYPE_NAMES.get(type(value), type(value).__name__)
                self._say(f"{name}{where} must be {wanted}, not {got}", *keys, name)

    def _known_columns(self, values: object, *keys: str) -> None:
        columns = self._part("column")
        for name in values if isinstance(values, dict) else ():
            if name not in columns:
                self._say(f"unknown column '{name}'{did_you_mean(name, columns)}", *keys, name)

    def _training(self, entry: Mapping[str, Any], *keys: str) -> None:
        """Check how the weights of a cell are trained where there are none to fetch, and what that assumes."""
        self._settings({"set": entry.get("train")}, *keys, kind="train", under="train")
        for name, why in entry["assumed"].items() if isinstance(entry.get("assumed"), dict) else ():
            if name not in SETTINGS:
                self._say(f"unknown setting '{name}'{did_you_mean(name, SETTINGS)}", *keys, "assumed", name)
            elif not isinstance(why, str):
                self._say(f"assumed.{name} must be a string that gives the reason", *keys, "assumed", name)

    def _settings(self, entry: Mapping[str, Any], *keys: str, kind: object = None, under: str = "set") -> None:
        settings = entry.get("set")
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if name not in SETTINGS:
                self._say(f"unknown setting '{name}'{did_you_mean(name, SETTINGS)}", *keys, under, name)
                continue
            plain = _plain(value)
            if not SETTINGS[name].accepts(plain):
                self._say(f"{name} must be {SETTINGS[name].expectation()}, not {plain!r}", *keys, under, name)
            elif (
                isinstance(plain, int)
                and not isinstance(plain, bool)
                and plain < 1
                and float not in SETTINGS[name].types
            ):
                self._say(f"{name} must be at least 1, not {value}", *keys, under, name)
            elif name == "memory":
                self._memory(plain, *keys)
            if isinstance(kind, str) and kind in KINDS and name not in KINDS[kind].settings:
                self._say(f"job '{kind}' does not take the setting '{name}'", *keys, under, name)

    def _presentation(self, entry: Mapping[str, Any], *keys: str) -> None:
        if "better" in entry:
            self._choice(entry, "better", ("higher", "lower"), *keys)
        digits = entry.get("digits")
        if isinstance(digits, int) and digits < 0:
            self._say(f"digits in [{'.'.join(keys)}] must be at least 0, not {digits}", *keys, "digits")

    def _cells_are_tables(self, cells: object, row: str) -> None:
        for name, cell in cells.items() if isinstance(cells, dict) else ():
            if not isinstance(cell, dict):
                self._say(
                    f"cell.{name} of row '{row}' must be a table, as {{ set = {{ … }} }}", "row", row, "cell", name
                )

    def _memory(self, value: object, *keys: str) -> None:
        try:
            parse_memory(str(value))
        except HarnessError as error:
            self._say(str(error), *keys, "set", "memory")

    def _choice(
        self, entry: Mapping[str, Any], key: str, choices: tuple[str, ...], *keys: str, default: str | None = None
    ) -> str:
        value = entry.get(key, default)
        if value is not None and not isinstance(value, str):  # what is of the wrong type has been told already
            return choices[0]
        if value not in choices:
            wanted = ", ".join(choices)
            said = f"not '{value}'" if value is not None else "and is missing"
            self._say(f"{key} in [{'.'.join(keys)}] must be one of {wanted}, {said}", *keys, key)
            return choices[0]
        return str(value)

    def _check_footnotes(self, cells: Iterable[Cell], footnotes: Mapping[str, Footnote]) -> None:
        used = set()
        for cell in cells:
            for reference in cell.references:
                for mark in reference.printed.marks:
                    used.add(mark)
                    if mark not in footnotes:
                        keys = ("row", cell.row.key, reference.source.name, cell.column.key)
                        text = f"{cell.column.key} = '{reference.printed.text}[{mark}]' has no [footnote.'{mark}']"
                        self._say(text + did_you_mean(mark, footnotes), *keys)
        for mark in footnotes.keys() - used:
            self._say(f"[footnote.'{mark}'] is not used by any value", "footnote", mark)
