"""The data of a spec file."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from harness.specs.checked import Scalar

_NUMBER = re.compile(
    r"\s*(?P<value>[+-]?\d+(?:\.\d+)?)(?:\s*±\s*(?P<uncertainty>\d+(?:\.\d+)?))?\s*(?P<marks>(?:\[[^\[\]]+\])*)\s*"
)
_WORDS = re.compile(r"(?P<value>.*?)(?P<marks>(?:\[[^\[\]]+\])*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """A value as published.

    `text` keeps every digit, `value` is None for words, `uncertainty` is the number after ±, `marks` are the keys of
    its footnotes.
    """

    text: str
    value: float | None = None
    uncertainty: str | None = None
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the value with its uncertainty, if it has one."""
        return f"{self.text} ± {self.uncertainty}" if self.uncertainty else self.text

    @property
    def decimals(self) -> int:
        """Digits after the point, as published."""
        return len(self.text.partition(".")[2])

    @classmethod
    def read(cls, raw: str | int | Decimal, *, words: bool) -> "PublishedValue | None":
        """Parse the value of a spec; None if it is not a number, unless it may be `words`."""
        # `str` would write a small number as 1E-7.
        plain = f"{raw:f}" if isinstance(raw, Decimal) else str(raw)
        match = (_WORDS if words else _NUMBER).fullmatch(plain)
        if match is None:
            return None
        value = None if words else float(match["value"])
        if value is not None and not math.isfinite(value):
            return None
        return cls(
            text=match["value"],
            value=value,
            uncertainty=None if words else match["uncertainty"],
            marks=tuple(re.findall(r"\[([^\[\]]+)\]", match["marks"])),
        )


@dataclass(frozen=True, kw_only=True)
class PublishedSource:
    """The origin of values, and the page where they are.

    `kind` is `paper`, `author`, `timm` or any other word; `edition` is `both`, `arxiv`, `icml` or any other word, and
    matters for kind `paper` only.
    `main` tells that the table is this source's own: the paper's, or, where none of its sources is a paper, any
    of them.
    """

    name: str
    kind: str = "paper"
    edition: str = "both"
    cite: str
    url: str = ""
    main: bool = True

    def is_in(self, edition: str) -> bool:
        """Whether the values belong to that edition.  Those of the authors' repository and of timm belong to both."""
        return self.kind != "paper" or self.edition in ("both", edition)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The publication that a table is of; `arxiv` is its number there, `url` the page of one that is not on arXiv."""

    title: str
    authors: tuple[str, ...]
    venue: str = ""
    arxiv: str = ""
    url: str = ""

    @property
    def link(self) -> tuple[str, str]:
        """Text and address of where it can be read; both empty if nothing says so."""
        return (f"arXiv:{self.arxiv}", f"https://arxiv.org/abs/{self.arxiv}") if self.arxiv else (self.url, self.url)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published value for a cell, with its source, and the tolerance by which it is judged, as that of a `Cell`."""

    source: PublishedSource
    published: PublishedValue
    tolerance: float | None = None
    relative: bool = False


@dataclass(frozen=True, kw_only=True)
class Footnote:
    """A remark on a value.  `effect` is `note`, `explains` or `wrong`; see tables/README.md.

    `corrected` has what the value should be, by column.
    """

    mark: str
    text: str = ""
    effect: str = "note"
    corrected: Mapping[str, PublishedValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one design; `reference` is the row that the others' throughput is compared with."""

    key: str
    label: str
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedMachine:
    """The machine of published throughputs: what it can do, 10¹² float32 operations a second, where that is known.

    A CPU is known by its number of cores, which is None for a GPU.
    """

    name: str
    tflops: float | None = None
    cores: int | None = None


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Public weights that are not the paper's own but close to them; never judged."""

    model: str = ""
    weights: str = ""
    match: str = ""
    comment: str = ""
    published: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; `extra` ones are not in the paper's table and are shown on request only.

    `cores` are those of the machine, where that is a CPU; `torch` is the version that was used on it.
    """

    key: str
    label: str
    label_icml: str | None = None
    unit: str = ""
    extra: bool = False
    machine: str | None = None
    cores: int | None = None
    torch: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    key: str
    label: str
    label_icml: str | None = None
    group: str | None = None
    group_icml: str | None = None
    family: str | None = None
    nearest: tuple[Nearest, ...] = ()
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Operand:
    """The cell of a spec file that a derived cell is computed from, by its keys."""

    path: Path
    row: str
    column: str


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """How a derived cell is computed from others: see `harness.stats.derive` and tables/README.md."""

    operation: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: the values published for it and what to measure.

    `kind` is None where there is nothing to measure, and where a `derivation` says how the cell follows from others.
    `machine` is the only one that it is judged on.  `tolerance` is absolute, in `unit`, unless `relative`; each
    reference has its own, which is that of the first where they differ.
    `unreleased` is the reason why there are no public weights, `cost` is V100-hours of training (None: not published).
    `training` has the settings by which weights are trained where none are public, or on request; `assumed` has the
    reason for each of them that is not published.  `not_applicable` is the reason why there can be no value.
    """

    row: Row
    column: Column
    references: tuple[Reference, ...]
    kind: str | None
    metric: str | None
    settings: Mapping[str, Scalar]
    training: Mapping[str, Scalar]
    assumed: Mapping[str, str]
    unit: str = ""
    text: bool = False
    better: str | None = None
    tolerance: float | None
    relative: bool
    digits: int | None = None
    unreleased: str | None = None
    cost: float | None = None
    machine: str | None = None
    not_applicable: str | None = None
    derivation: Derivation | None = None

    @property
    def published(self) -> PublishedValue | None:
        """The value of the paper, or of what the table is of where that is no paper; None if it has none."""
        return next((r.published for r in self.references if r.source.main), None)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One table.

    `paper` is the publication that it is of, if the spec says so; `orders` is the table whose results of other machines
    the order of its throughputs is compared with.
    """

    name: str
    path: Path
    title: str = ""
    numbers: Mapping[str, str]
    note: str | None = None
    cost: str | None = None
    figure: str | None = None
    paper: Paper | None = None
    axes: tuple[str, str] | None
    default: str | None = None
    orders: Path | None = None
    sources: Mapping[str, PublishedSource]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    families: Mapping[str, Family]
    machines: Mapping[str, PublishedMachine]
    footnotes: Mapping[str, Footnote]
    cells: Mapping[tuple[str, str], Cell]
    edition: str = "arxiv"

    @property
    def id(self) -> str:
        """Unique among all tables: the edition and the file."""
        return f"{self.edition}:{self.path}"

    def cell(self, row: str, column: str) -> Cell:
        """Return the cell of these two keys."""
        return self.cells[row, column]

    def is_wrong(self, published: PublishedValue) -> bool:
        """Whether a footnote says that a published value is wrong."""
        return any(self.footnotes[mark].effect == "wrong" for mark in published.marks if mark in self.footnotes)

    @property
    def editions(self) -> tuple[str, ...]:
        """The editions that the table or some of its values are of; none if nothing says so."""
        named = [source.edition for source in self.sources.values() if source.kind == "paper"]
        return tuple(dict.fromkeys(name for name in (*self.numbers, *named) if name != "both"))

    def in_edition(self, edition: str) -> "Spec":
        """Return the table as in that edition: its values, its labels, without the rows and columns it lacks.

        A table whose editions are all of its own has the values of each of them, unless one of these is meant.
        """
        whole = edition not in self.editions and not {"arxiv", "icml"}.intersection(self.editions)

        def belongs(source: PublishedSource) -> bool:
            return whole or source.is_in(edition)

        def is_present(axis: int, key: str) -> bool:
            """Whether the edition has values of a row (axis 0) or a column (1), or the paper has none at all."""
            cells = [cell for keys, cell in self.cells.items() if keys[axis] == key]
            published = [r.source for cell in cells for r in cell.references if r.source.kind == "paper"]
            return not published or any(map(belongs, published))

        icml = edition == "icml"
        columns = {
            column.key: replace(column, label=(icml and column.label_icml) or column.label)
            for column in self.columns
            if is_present(1, column.key)
        }
        rows = {
            row.key: replace(
                row, label=(icml and row.label_icml) or row.label, group=(icml and row.group_icml) or row.group
            )
            for row in self.rows
            if is_present(0, row.key)
        }
        cells = {
            (row, column): replace(
                cell,
                row=rows[row],
                column=columns[column],
                references=tuple(r for r in cell.references if belongs(r.source)),
            )
            for (row, column), cell in self.cells.items()
            if row in rows and column in columns
        }
        return replace(self, edition=edition, columns=tuple(columns.values()), rows=tuple(rows.values()), cells=cells)
