"""One spec file -> `Spec`, or every mistake in it at once, each with file, line, key and remedy."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import did_you_mean
from harness.specs.checked import TABLE, TEXT, Constraint, Reader, Scalar, shown
from harness.specs.derivation import DERIVED, OPERAND, DerivationReader
from harness.specs.document import Document
from harness.specs.kinds import KINDS, SCRIPT, settings_of, unknown_kind_message
from harness.specs.model import (
    Cell,
    Column,
    Derivation,
    Family,
    Footnote,
    Nearest,
    Paper,
    PublishedMachine,
    PublishedSource,
    PublishedValue,
    Reference,
    Row,
    Spec,
)

_Part = TypeVar("_Part")

_LABEL = Constraint(types=(str,), required=True)
_COST = Constraint(types=(float,), least=0)
_FLAG = Constraint(types=(bool,))

# The name of another setting within the value of one.
_TEMPLATE = re.compile(r"\{(\w+)\}")

# A size of images: `res`, and `width` where they are not square.
_SIZE = Constraint(
    types=(int, str),
    pattern=re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})"),
    form="a side in pixels, or height by width as '224x320'",
    least=1,
)

_TOLERANCE = Constraint(
    types=(float, str), pattern=re.compile(r"\s*\d+(\.\d+)?%\s*"), form="a number or a percentage like '5%'", least=0
)

# The keys that each part of a file may have; tables/README.md explains them.
_TABLE = {
    "title": _LABEL,
    **dict.fromkeys(("arxiv", "icml", "note", "cost", "figure", "x", "y", "default", "orders", "paper"), TEXT),
}
_URL = Constraint(types=(str,), pattern=re.compile(r"https?://\S+"), form="an address that begins with https://")
_PAPER = {
    "title": _LABEL,
    "authors": Constraint(types=(list,), items=TEXT, required=True),
    "venue": TEXT,
    "arxiv": Constraint(types=(str,), pattern=re.compile(r"\d{4}\.\d{4,5}(v\d+)?"), form="a number as 2012.12877"),
    "url": _URL,
}
KINDS_OF_SOURCE = ("paper", "author", "timm")
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,30}")
_SOURCE = {
    "kind": Constraint(types=(str,), pattern=_WORD, form="paper, author, timm or another small word", required=True),
    "edition": Constraint(types=(str,), pattern=_WORD, form="both, arxiv, icml or another small word"),
    "cite": TEXT,
    "url": _URL,
    "checked": Constraint(types=(date,)),
}
_MEASURED = {
    "job": TEXT,
    "metric": TEXT,
    "unit": TEXT,
    "text": _FLAG,
    "better": Constraint(types=(str,), choices=("higher", "lower")),
    "tolerance": replace(_TOLERANCE, types=(float, str, dict), form=f"{_TOLERANCE.form}, or a table of them by source"),
    "digits": Constraint(types=(int,), least=0),
    "set": TABLE,
    "train": TABLE,
    "cost": _COST,
    "machine": TEXT,
    **DERIVED,
}
_LABELLED = {"label": _LABEL, "label_icml": TEXT, "note": TEXT}
_COLUMN = {**_MEASURED, **_LABELLED, "torch": TEXT, "extra": _FLAG}
_ROW = {
    **_MEASURED,
    **_LABELLED,
    **dict.fromkeys(("group", "group_icml", "family", "unreleased"), TEXT),
    "assumed": TABLE,
    "nearest": Constraint(types=(list,)),
    "cell": TABLE,
}
_CELL = {
    **dict.fromkeys(("set", "train", "assumed"), TABLE),
    **dict.fromkeys(("job", "metric", "unreleased"), TEXT),
    "cost": _COST,
    "not_applicable": TEXT,
    **DERIVED,
}
_NEAREST = {"model": _LABEL, "weights": _LABEL, "match": TEXT, "comment": TEXT}
_FAMILY = {"label": TEXT, "reference": TEXT}
_MACHINE = {"tflops": Constraint(types=(float,), above=0), "cores": Constraint(types=(int,), least=1)}
_FOOTNOTE = {
    "text": _LABEL,
    "effect": Constraint(types=(str,), choices=("note", "explains", "wrong")),
    "corrected": TABLE,
}
# The same by the names of the parts, for a schema.
KEYS: Mapping[str, Mapping[str, Constraint]] = {
    "table": _TABLE,
    "source": _SOURCE,
    "column": _COLUMN,
    "row": _ROW,
    "cell": _CELL,
    "nearest": _NEAREST,
    "family": _FAMILY,
    "machine": _MACHINE,
    "footnote": _FOOTNOTE,
    "paper": _PAPER,
    "of": OPERAND,
}
_PARTS = dict.fromkeys(("table", "source", "column", "row", "family", "machine", "footnote"), TABLE)


def load(path: Path) -> Spec:
    """Read and check a spec file.

    Raises `SpecError` with every mistake in it, and `HarnessError` if the file cannot be read.
    """
    return _checked(Document.read(path, expected="a table or a spec file"))


def parse(path: Path, text: str) -> Spec:
    """Check the text of a spec before it is written to this path.  Raises `SpecError` with every mistake in it."""
    return _checked(Document.parse(path, text.encode()))


def _checked(document: Document) -> Spec:
    if not document.data:
        if not document.problems:
            document.add("is empty; see tables/README.md for the format of a spec")
        document.check()
    spec = _SpecReader(document).spec()
    document.check()
    return spec


@dataclass(frozen=True, kw_only=True)
class _Level:
    """What column, row or cell set for a cell: the entry in the file, and the valid part of it."""

    keys: tuple[str, ...]
    raw: Mapping[str, Any]
    entry: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Scalar]]
    assumed: Mapping[str, str]


class _SpecReader(Reader):
    """Builds a spec from a document and reports the mistakes in it; the spec is of no use if there are any."""

    def __init__(self, document: Document) -> None:
        super().__init__(document.add)
        self._path = document.path
        self._parts = self.table(document.data, _PARTS, what="part")
        self._derivations = DerivationReader(self, document.path, document.data)
        kinds = tuple(_kinds_named(self._parts))
        self._constraints = settings_of(kind for kind in kinds if kind in KINDS)
        # A kind that is not installed may have more settings; one that is misspelt has not.
        self._may_have_more = any(kind not in KINDS and not did_you_mean(kind, KINDS) for kind in kinds)
        for part in ("column", "row"):
            if not self._parts.get(part):
                self.report(f"has no {part}s; add [{part}.KEY]")

    def spec(self) -> Spec:
        table = self.table(self._parts.get("table", {}), _TABLE, "table")
        entries = self._entries("source", _SOURCE)
        papers = any(entry.get("kind") == "paper" for entry in entries.values())
        sources = {
            name: _build(
                *(PublishedSource, {"cite": name, **entry}), name=name, main=not papers or entry.get("kind") == "paper"
            )
            for name, entry in entries.items()
        }
        for name, kind in ((source.name, source.kind) for source in sources.values()):
            if kind not in KINDS_OF_SOURCE and (hint := did_you_mean(kind, KINDS_OF_SOURCE)):
                self.report(f"kind in [source.{name}] is '{kind}'{hint}", "source", name, "kind")
        for name in sources.keys() & _ROW.keys():
            self.report(f"a source cannot be called '{name}', which is a key of every row", "source", name)
        families = {
            key: Family(key=key, **{"label": key, **entry}) for key, entry in self._entries("family", _FAMILY).items()
        }
        machines = {
            name: PublishedMachine(name=name, **entry) for name, entry in self._entries("machine", _MACHINE).items()
        }
        column_levels = self._levels("column", _COLUMN)
        absent = self._report_absent_sources(sources)
        row_levels = self._levels("row", {**_ROW, **dict.fromkeys((*sources, *absent), TABLE)})
        columns = {
            key: _build(
                *(Column, {"label": key, **level.entry}),
                key=key,
                cores=getattr(machines.get(level.entry.get("machine", "")), "cores", None),
            )
            for key, level in column_levels.items()
        }
        rows = {
            key: _build(
                *(Row, {"label": key, **level.entry}),
                key=key,
                nearest=tuple(self._nearest(raw, key) for raw in level.entry.get("nearest", [])),
            )
            for key, level in row_levels.items()
        }
        footnotes = {
            mark: Footnote(mark=mark, **{**entry, "corrected": self._corrected(mark, entry, columns)})
            for mark, entry in self._entries("footnote", _FOOTNOTE).items()
        }
        for key, family in families.items():
            self._refer("reference", family.reference, rows, "row", "family", key)
        for key, row in rows.items():
            self._refer("family", row.family, families, "family", "row", key)
            for source in ("cell", *sources):
                for name in row_levels[key].entry.get(source, {}):
                    self.known(name, columns, "column", "row", key, source, name)
        for axis in ("x", "y"):
            self._refer(axis, table.get(axis), columns, "column", "table")
            if axis not in table and table.keys() & {"x", "y"}:
                self.report(f"{axis} in [table] is missing; a figure has x and y", "table")
        self._refer("default", table.get("default"), rows, "row", "table")
        orders = self._derivations.find_file(table["orders"], ["table"], key="orders") if "orders" in table else None
        cells = {
            (row.key, column.key): self._cell(row, column, (column_levels[column.key], row_levels[row.key]), sources)
            for row in rows.values()
            for column in columns.values()
        }
        self._check_footnotes(cells.values(), footnotes)
        return _build(
            *(Spec, table),
            name=self._path.stem,
            path=self._path,
            numbers={edition: table[edition] for edition in ("arxiv", "icml") if edition in table},
            orders=orders,
            paper=self._paper(table["paper"]) if "paper" in table else None,
            axes=(table["x"], table["y"]) if table.keys() >= {"x", "y"} else None,
            sources=sources,
            columns=tuple(columns.values()),
            rows=tuple(rows.values()),
            families=families,
            machines=machines,
            footnotes=footnotes,
            cells=cells,
        )

    # The parts of a file.

    def _paper(self, name: str) -> Paper | None:
        """Read the file of a paper; mistakes in it are reported as its own."""
        path = self._derivations.find_file(name, ["table"], what="paper", folder="papers")
        if path is None:
            return None
        document = Document.read(path, expected="a paper")
        entry = Reader(document.add).table(document.data, _PAPER)
        document.check()
        return _build(Paper, entry, authors=tuple(entry["authors"]))

    def _entries(self, part: str, constraints: Mapping[str, Constraint]) -> dict[str, dict[str, Any]]:
        entries = self._parts.get(part, {})
        return {key: self.table(raw, constraints, part, key) for key, raw in entries.items()}

    def _report_absent_sources(self, sources: Mapping[str, PublishedSource]) -> list[str]:
        """Report each source that rows have values of and that the file does not define, once, and return them."""
        known: set[str] = {*_ROW, *sources}
        absent: dict[str, str] = {}
        for key, row in self._parts.get("row", {}).items():
            tables = (name for name, value in row.items() if isinstance(value, dict)) if isinstance(row, dict) else ()
            absent |= {name: key for name in tables if name not in {*known, *absent} and not did_you_mean(name, known)}
        for name, key in absent.items():
            text = f"{name} in [row.{key}] has no [source.{name}]; add it, with kind = 'paper', 'author' or 'timm'"
            self.report(text, "row", key, name)
        return list(absent)

    def _levels(self, part: str, constraints: Mapping[str, Constraint]) -> dict[str, _Level]:
        return {key: self._level(raw, constraints, None, part, key) for key, raw in self._parts.get(part, {}).items()}

    def _level(self, raw: object, constraints: Mapping[str, Constraint], kind: str | None, *keys: str) -> _Level:
        """Read an entry with settings; `kind` is that of its job if it names none itself."""
        entry = self.table(raw, constraints, *keys)
        if "job" in entry and entry["job"] not in KINDS:
            self.report(unknown_kind_message(entry["job"]), *keys, "job")
        if isinstance(by_source := entry.get("tolerance"), dict):
            sources = dict.fromkeys(self._parts.get("source", {}), _TOLERANCE)
            entry["tolerance"] = self.table(by_source, sources, *keys, "tolerance", what="source")
        reasons = dict.fromkeys(self._constraints, TEXT)
        return _Level(
            keys=keys,
            raw=raw if isinstance(raw, dict) else {},
            entry=entry,
            settings={
                "set": self._settings(entry.get("set", {}), entry.get("job", kind), *keys, "set"),
                "train": self._settings(entry.get("train", {}), "train", *keys, "train"),
            },
            assumed=self.table(entry.get("assumed", {}), reasons, *keys, "assumed", what="setting"),
        )

    def _settings(self, raw: object, kind: str | None, *keys: str) -> dict[str, Scalar]:
        constraints = {**self._constraints, "res": _SIZE}
        settings = self.table(raw, constraints, *keys, what="setting", more=self._may_have_more)
        if isinstance(size := settings.get("res"), str):
            settings["res"], settings["width"] = map(int, size.split("x"))
        for name in settings:
            if kind and kind in KINDS and name not in KINDS[kind].settings:
                self.report(f"job '{kind}' does not take the setting '{name}'", *keys, name)
        return settings

    def _refer(self, key: str, name: str | None, names: Iterable[str], what: str, *keys: str) -> None:
        """Check that what an entry refers to exists."""
        if name is not None:
            self.known(name, names, what, *keys, key, where=f" in [{'.'.join(keys)}]")

    def _nearest(self, raw: object, row: str) -> Nearest:
        published = (
            {name: value for name, value in raw.items() if isinstance(value, dict)} if isinstance(raw, dict) else {}
        )
        entry = self.table(raw, {**_NEAREST, **dict.fromkeys(published, TABLE)}, "row", row, "nearest")
        texts = {source: {metric: str(value) for metric, value in of.items()} for source, of in published.items()}
        return _build(Nearest, entry, published=texts)

    def _corrected(
        self, mark: str, entry: Mapping[str, Any], columns: Mapping[str, Column]
    ) -> Mapping[str, PublishedValue]:
        """Read what values with a footnote should be, by column."""
        raw, keys = entry.get("corrected", {}), ("footnote", mark, "corrected")
        valid = self.table(raw, dict.fromkeys(columns, Constraint(types=(float, str))), *keys, what="column")
        # As written, for a float would lose digits.
        values = {name: PublishedValue.read(raw[name], words=isinstance(raw[name], str)) for name in valid}
        return {name: value for name, value in values.items() if value is not None}

    # Cells.

    def _cell(
        self, row: Row, column: Column, outer: tuple[_Level, _Level], sources: Mapping[str, PublishedSource]
    ) -> Cell:
        entry = {**outer[0].entry, **outer[1].entry}
        own = entry.get("cell", {}).get(column.key, {})
        levels = (*outer, self._level(own, _CELL, entry.get("job"), "row", row.key, "cell", column.key))
        entry |= levels[2].entry
        nothing = "not_applicable" in entry
        derivation = None if nothing else self._derivation(row, column, levels)
        kind = entry.get("job") if entry.get("job") in KINDS and not derivation and not nothing else None
        references = tuple(self._references(row, column, entry, outer[1].entry, sources))
        tolerance = entry.get("tolerance")
        if isinstance(tolerance, dict):  # that of the value which is judged first
            tolerance = tolerance.get(references[0].source.name) if references else None
        settings, training = self._merge_settings(kind, levels, "set"), self._merge_settings("train", levels, "train")
        if kind == "throughput":
            self._check_protocol(settings, levels)
        return _build(
            *(Cell, entry),
            row=row,
            column=column,
            references=references,
            kind=kind,
            metric=self._metric(kind, entry.get("metric"), levels),
            settings=settings,
            training={**training, **(settings if kind == "train" else {})},
            assumed={name: why for level in levels for name, why in level.assumed.items()},
            tolerance=_fraction(tolerance),
            relative=isinstance(tolerance, str),
            derivation=derivation,
        )

    def _derivation(self, row: Row, column: Column, levels: tuple[_Level, ...]) -> Derivation | None:
        """Return how a cell is derived, if the innermost level that says anything of that says so."""
        level = next((level for level in reversed(levels) if level.entry.keys() & {"job", *DERIVED}), None)
        if level is None or not level.entry.keys() & DERIVED.keys():
            return None
        return self._derivations.read(level.entry, (row.key, column.key), *level.keys)

    def _references(
        self,
        row: Row,
        column: Column,
        entry: Mapping[str, Any],
        values: Mapping[str, Any],
        sources: Mapping[str, PublishedSource],
    ) -> Iterable[Reference]:
        """Yield the `values` of a row for a column; `entry` is what both say of the cell."""
        words, tolerance = entry.get("text", False), entry.get("tolerance")
        for name, source in sources.items():
            if column.key not in values.get(name, {}):
                continue
            raw = values[name][column.key]
            types = (str,) if words else (str, int, Decimal)
            published = None
            if isinstance(raw, types) and not isinstance(raw, bool):
                published = PublishedValue.read(raw, words=words)
            if published is None:
                where = f"{column.key} in [row.{row.key}.{name}]"
                expected = "a string" if words else 'a number, or a string like "81.8 ± 0.2" or "96.9[B2]"'
                self.report(f"{where} must be {expected}, not {shown(raw)}", "row", row.key, name, column.key)
                continue
            allowed = tolerance
            if isinstance(tolerance, dict):
                allowed = tolerance.get(name)
                if allowed is None:
                    text = f"tolerance of row '{row.key}', column '{column.key}' has none for source '{name}'; name it"
                    self.report(text, "row", row.key, name, column.key)
            relative = isinstance(allowed, str)
            yield Reference(source=source, published=published, tolerance=_fraction(allowed), relative=relative)

    def _merge_settings(self, kind: str | None, levels: Iterable[_Level], part: str) -> dict[str, Scalar]:
        """Merge the settings of column, row and cell; a contradiction is a mistake."""
        merged: dict[str, Scalar] = {}
        origin: dict[str, tuple[str, ...]] = {}
        for level in levels:
            for name, value in level.settings[part].items():
                if merged.setdefault(name, value) != value:
                    other = f"{name} = {merged[name]!r} of {origin[name][0]} '{origin[name][1]}'"
                    text = f"{name} = {value!r} contradicts {other}; set it in one place only"
                    self.report(text, *level.keys, part, name)
                origin.setdefault(name, level.keys)
        if merged.get("width", 0) == merged.get("res"):
            del merged["width"]
        names = [name for name in KINDS[kind].settings if name in merged] if kind else []
        if "res" in names and "width" in merged.keys() - set(names):
            size = f"{merged['res']}x{merged['width']}"
            text = f"job '{kind}' takes square images, not those of {size} pixels; set res to their side"
            self.report(text, *origin["width"], part, "res")
        return {name: self._filled(name, merged, *origin[name], part) for name in names}

    def _filled(self, name: str, settings: Mapping[str, Scalar], *keys: str) -> Scalar:
        """Return the value of a setting, with the cell's values for the settings that it names in braces."""
        value = settings[name]
        if not isinstance(value, str):
            return value
        for part in _TEMPLATE.findall(value):
            if part not in settings:
                text = f"{name} = '{value}' needs a setting '{part}', which a cell of this {keys[0]} does not have"
                self.report(text + did_you_mean(part, settings), *keys, name)
            elif _TEMPLATE.search(str(settings[part])):
                self.report(f"{name} = '{value}' is made of '{part}', which has braces itself", *keys, name)
        return _TEMPLATE.sub(lambda match: str(settings.get(match[1], match[0])), value)

    def _check_protocol(self, settings: Mapping[str, Scalar], levels: Iterable[_Level]) -> None:
        """Report what timm's protocol does not know by this name."""
        if settings.get("protocol") == SCRIPT and settings.get("precision") == "tf32":
            origin = next(level for level in levels if "precision" in level.settings["set"])
            text = f"precision = 'tf32' is what float32 means in the {SCRIPT} protocol on a GPU; set 'float32'"
            self.report(text, *origin.keys, "set", "precision")

    def _metric(self, kind: str | None, metric: str | None, levels: tuple[_Level, ...]) -> str | None:
        level = next((level for level in reversed(levels) if level.entry.keys() & {"job", "metric"}), None)
        if level and metric and not any(each.raw.keys() & {"job", *DERIVED, "not_applicable"} for each in levels):
            self._report_idle(metric, level)
        if kind is None or level is None:
            return None
        metrics = KINDS[kind].metrics
        if metric is not None and metric not in metrics:
            hint = did_you_mean(metric, metrics) or f"; it gives {', '.join(metrics)}"
            self.report(f"job '{kind}' has no metric '{metric}'{hint}", *level.keys, "metric")
        elif metric is None and not any("metric" in level.raw for level in levels):
            self.report(f"job '{kind}' without a metric; name one of {', '.join(metrics)}", *level.keys)
        return metric

    def _report_idle(self, metric: str, level: _Level) -> None:
        """Report a metric that no job gives; that of a row is for those columns that have a job."""
        columns = self._parts.get("column", {}).values()
        if level.keys[0] == "row" and any(isinstance(column, dict) and "job" in column for column in columns):
            return
        jobs = " or ".join(f"'{name}'" for name, kind in KINDS.items() if metric in kind.metrics)
        remedy = f"add job = {jobs}" if jobs else "name the job that gives it"
        self.report(f"metric = '{metric}' in [{'.'.join(level.keys)}] has no job; {remedy}", *level.keys, "metric")

    def _check_footnotes(self, cells: Iterable[Cell], footnotes: Mapping[str, Footnote]) -> None:
        used = set()
        for cell in cells:
            for reference in cell.references:
                for mark in reference.published.marks:
                    used.add(mark)
                    if mark not in footnotes:
                        keys = ("row", cell.row.key, reference.source.name, cell.column.key)
                        text = f"{cell.column.key} = '{reference.published.text}[{mark}]' has no [footnote.'{mark}']"
                        self.report(text + did_you_mean(mark, footnotes), *keys)
        for mark in footnotes.keys() - used:
            self.report(f"[footnote.'{mark}'] is not used by any value", "footnote", mark)


def _kinds_named(parts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the kinds of job that columns, rows and cells name, whatever else is wrong with them."""
    levels = [level for part in ("column", "row") for level in parts.get(part, {}).values() if isinstance(level, dict)]
    cells = [level["cell"] for level in levels if isinstance(level.get("cell"), dict)]
    levels += [cell for of_row in cells for cell in of_row.values() if isinstance(cell, dict)]
    yield from dict.fromkeys(level["job"] for level in levels if isinstance(level.get("job"), str))


def _fraction(tolerance: float | str | None) -> float | None:
    """Return a tolerance as a number: of `"5%"` the fraction."""
    return float(tolerance.strip().rstrip("%")) / 100 if isinstance(tolerance, str) else tolerance


def _build(part: type[_Part], entry: Mapping[str, Any], **values: object) -> _Part:
    """Make a part of a spec from the keys of its entry that it has, and from values that need more than a key."""
    return part(**{name: entry[name] for name in part.__annotations__ if name in entry} | values)
