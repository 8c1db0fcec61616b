"""What a spec file says, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from harness.kinds import Scalar

_NUMBER = re.compile(
    r"\s*(?P<value>[+-]?\d+(?:\.\d+)?)(?:\s*±\s*(?P<uncertainty>\d+(?:\.\d+)?))?\s*(?P<marks>(?:\[[^\[\]]+\])*)\s*"
)
_WORDS = re.compile(r"(?P<value>.*?)(?P<marks>(?:\[[^\[\]]+\])*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A value as it stands in print.

    `text` keeps every digit, `value` is None for words, `uncertainty` is what stands after ±, `marks` are the keys of
    its footnotes.
    """

    text: str
    value: float | None = None
    uncertainty: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def decimals(self) -> int:
        """Digits after the point, as printed."""
        return len(self.text.partition(".")[2])

    @classmethod
    def read(cls, raw: str | int | Decimal, *, words: bool) -> "Printed | None":
        """Read what a spec has for a value; None where a number was needed and is not there."""
        # `str` would write a small number as 1E-7.
        plain = f"{raw:f}" if isinstance(raw, Decimal) else str(raw)
        found = (_WORDS if words else _NUMBER).fullmatch(plain)
        if found is None:
            return None
        return cls(
            text=found["value"],
            value=None if words else float(found["value"]),
            uncertainty=None if words else found["uncertainty"],
            marks=tuple(re.findall(r"\[([^\[\]]+)\]", found["marks"])),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where values come from.  `edition` is `arxiv`, `icml` or `both` and matters for kind `paper` only."""

    name: str
    kind: str
    edition: str
    cite: str

    def is_in(self, edition: str) -> bool:
        """Whether the values hold for that edition.  What the authors' repository or timm say holds for both."""
        return self.kind != "paper" or self.edition in ("both", edition)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published value for a cell, with its source."""

    source: Source
    printed: Printed


@dataclass(frozen=True, kw_only=True)
class Footnote:
    """A remark on a value.  `effect` is `note`, `explains` or `wrong`; see tables/README.md."""

    mark: str
    text: str
    effect: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one design; `reference` is the row that the others' speed is compared with."""

    key: str
    label: str
    reference: str | None


@dataclass(frozen=True, kw_only=True)
class PublishedMachine:
    """What the machine of the published speeds can do: 10¹² float32 operations a second, and GB/s of memory."""

    tflops: float
    bandwidth: float


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Public weights that are not the paper's own but could stand beside them, never judged."""

    model: str
    weights: str
    match: str
    comment: str
    published: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; `extra` ones are not in the paper's table and are shown only when asked for."""

    key: str
    label: str
    label_icml: str | None
    unit: str
    extra: bool
    machine: str | None
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    key: str
    label: str
    label_icml: str | None
    group: str | None
    group_icml: str | None
    family: str | None
    nearest: tuple[Nearest, ...]
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where a row and a column meet: what was printed there and what to measure.

    `kind` is None where there is nothing to measure.  `tolerance` is absolute, in `unit`, unless `relative`.
    `unreleased` says why there are no public weights, `cost` is V100-hours of training (None: not published).
    `training` is how weights are trained where none are public, or where training is what was asked for; `assumed`
    gives the reason for each setting of it that was not published.
    """

    row: Row
    column: Column
    references: tuple[Reference, ...]
    kind: str | None
    metric: str | None
    settings: Mapping[str, Scalar]
    training: Mapping[str, Scalar]
    assumed: Mapping[str, str]
    unit: str
    text: bool
    better: str | None
    tolerance: float | None
    relative: bool
    digits: int | None
    unreleased: str | None
    cost: float | None

    @property
    def printed(self) -> Printed | None:
        """What the paper itself prints, if anything."""
        return next((r.printed for r in self.references if r.source.kind == "paper"), None)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One table."""

    name: str
    path: Path
    title: str
    numbers: Mapping[str, str]
    note: str | None
    cost: str | None
    figure: str | None
    axes: tuple[str, str] | None
    default: str | None
    sources: Mapping[str, Source]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    families: Mapping[str, Family]
    machines: Mapping[str, PublishedMachine]
    footnotes: Mapping[str, Footnote]
    cells: Mapping[tuple[str, str], Cell]
    edition: str = "arxiv"

    @property
    def id(self) -> str:
        """Tell this table from every other: the edition and the file."""
        return f"{self.edition}:{self.path}"

    def cell(self, row: str, column: str) -> Cell:
        """Give the cell under these two keys."""
        return self.cells[row, column]

    def in_edition(self, edition: str) -> "Spec":
        """Give the table as that edition prints it: its values, its labels, without the rows and columns it lacks."""

        def present(cells: list[Cell]) -> bool:
            printed = [r.source for c in cells for r in c.references if r.source.kind == "paper"]
            return not printed or any(source.is_in(edition) for source in printed)

        def of(*, row: str | None = None, column: str | None = None) -> list[Cell]:
            return [c for (r, k), c in self.cells.items() if row in (None, r) and column in (None, k)]

        icml = edition == "icml"
        columns = {
            column.key: replace(column, label=(icml and column.label_icml) or column.label)
            for column in self.columns
            if present(of(column=column.key))
        }
        rows = {
            row.key: replace(
                row,
                label=(icml and row.label_icml) or row.label,
                group=(icml and row.group_icml) or row.group,
            )
            for row in self.rows
            if present(of(row=row.key))
        }
        cells = {
            (row, column): replace(
                cell,
                row=rows[row],
                column=columns[column],
                references=tuple(r for r in cell.references if r.source.is_in(edition)),
            )
            for (row, column), cell in self.cells.items()
            if row in rows and column in columns
        }
        return replace(
            self,
            edition=edition,
            columns=tuple(columns.values()),
            rows=tuple(rows.values()),
            cells=cells,
        )
