"""`Grid` -> `ImportedTable`: which column is what, which row is of which model, and what nobody understands."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from harness.errors import HarnessError
from harness.specs.importing import headings, values
from harness.specs.importing.grid import Grid
from harness.specs.importing.headings import ColumnMeaning
from harness.specs.importing.models import ModelMatch, ModelNames, side_in
from harness.specs.model import PublishedValue


@dataclass(frozen=True, kw_only=True)
class ImportedColumn:
    """A column of the spec; without a `meaning` it shows what was published, and nothing measures it."""

    place: int
    key: str
    label: str
    unit: str = ""
    meaning: ColumnMeaning | None = None
    is_text: bool = False
    tolerance: float | str | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """A row of the spec: values by the key of their column as the spec has them, and what is not understood.

    `unit` is that of all its values where only this row has numbers, in a table of which each row is something else.
    """

    key: str
    label: str
    group: str
    unit: str | None = None
    res: int | None
    match: ModelMatch
    published: Mapping[str, str]
    unknown: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ImportedTable:
    """What a spec is written of; `left_out` are sentences on what it has not."""

    title: str
    columns: tuple[ImportedColumn, ...]
    rows: tuple[ImportedRow, ...]
    footnotes: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def measures(self) -> frozenset[str]:
        """The kinds of job that its columns have."""
        return frozenset(column.meaning.job for column in self.columns if column.meaning)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of the body, with the headings above it that span the table."""

    texts: Sequence[str]
    group: str = ""


@dataclass(kw_only=True)
class _Read:
    """The columns so far, with the values by line and column, and what was left out."""

    columns: list[ImportedColumn] = field(default_factory=list)
    published: dict[tuple[int, str], str] = field(default_factory=dict)
    unknown: dict[tuple[int, str], str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


# A column of links says nothing once their addresses are gone.
_LINKS = re.compile(
    r"(?:(?:url|link|download|config|code|log|weights|checkpoint|ckpt|script|model|github|baidu|google|drive|onedrive|here"
    r"|official|repo|hf|hub|huggingface|\d+k|\W)s?)+",
    re.IGNORECASE,
)


def read_table(grid: Grid, names: ModelNames, *, family: str | None = None) -> ImportedTable:
    """Return what a table says, with the models of its rows by timm's names.

    Raises `HarnessError` for a table without rows or columns.
    """
    heads = _headings(grid)
    lines = _body(grid, heads)
    if not lines:
        raise HarnessError("the table has no rows with values; it needs a line of headings and a row for each model")
    texts = [_heading(grid.lines[:heads], column) for column in range(len(grid.lines[0]))]
    label = _label_column(lines)
    context = tuple(dict.fromkeys(filter(None, (*grid.context[:1], *grid.context[-1:], grid.caption))))
    read = _Read()
    for place, heading in enumerate(texts):
        if place != label:
            _read_column(read, place, heading, lines, " ".join(context))
    if not read.columns:
        raise HarnessError("the table has no column with values; it needs one next to the names of the rows")
    rows = _rows(read, lines, label, names, context, family)
    return ImportedTable(
        title=values.readable(grid.caption or ": ".join(dict.fromkeys((*grid.context[:1], *grid.context[-1:])))),
        columns=tuple(read.columns),
        rows=rows,
        # A caption may explain marks as well.
        footnotes=_footnotes(read, (*grid.notes, *re.split(rf"(?=\^\{{)|(?<!\{{)(?=[{values.SIGNS}])", grid.caption))),
        left_out=tuple(read.left_out),
    )


# The lines of a grid.


def _headings(grid: Grid) -> int:
    """Return the number of lines of headings; a second one has no number, below a first one with gaps."""
    if grid.headings is not None:
        return grid.headings
    first, *rest = grid.lines
    named = [text for text in first[1:] if text]
    gaps = len(set(named)) < len(first) - 1
    second = bool(rest) and 0 not in grid.groups and len([text for text in rest[0] if text]) > 1
    return 2 if gaps and second and not any(re.search(r"\d\d", text) for text in rest[0]) else 1


def _body(grid: Grid, heads: int) -> list[_Line]:
    """Return the lines below the headings, without those that are a heading themselves."""
    lines, group = [], ""
    for number, texts in enumerate(grid.lines[heads:], start=heads):
        filled = [text for text in texts if text]
        if number in grid.groups or (len(filled) == 1 and texts[0]):
            group = values.readable(filled[0]) if filled else group
        elif filled:
            lines.append(_Line(texts=texts, group=group))
    return lines


def _heading(lines: Iterable[Sequence[str]], column: int) -> str:
    return " ".join(dict.fromkeys(filter(None, (line[column] for line in lines))))


def _label_column(lines: Sequence[_Line]) -> int:
    """Return the first column whose cells are mostly words."""
    for column in range(len(lines[0].texts)):
        texts = [line.texts[column] for line in lines if not values.is_blank(line.texts[column])]
        if sum(values.read_number(text) is None for text in texts) * 2 > len(texts):
            return column
    return 0


# Columns.


def _read_column(read: _Read, place: int, heading: str, lines: Sequence[_Line], title: str) -> None:
    texts = {n: line.texts[place] for n, line in enumerate(lines) if not values.is_blank(line.texts[place])}
    label, unit = headings.split_unit(heading)
    label = values.readable(label)
    name = f"column {place + 1}, '{label}'" if label else f"column {place + 1}, which has no heading"
    if not texts:
        read.left_out.append(f"{name}: it is empty")
        return
    if label and all(map(_LINKS.fullmatch, (label, *texts.values()))) and len(lines) > 1:
        read.left_out.append(f"{name}: links, as '{next(iter(texts.values()))}'")
        return
    column = ImportedColumn(place=place, key="", label=label or f"column {place + 1}", unit=unit)
    meaning = headings.meaning_of(f"{label} {unit}" if unit else label, title)
    taken = next((other for other in read.columns if meaning and other.meaning == meaning), None)
    if (
        meaning
        and taken is None
        and _read_known(read, replace(column, meaning=meaning, key=meaning.key), heading, texts)
    ):
        return
    remark = (
        f"reads like '{taken.label}', which has that job already" if taken else "what would measure it is not known"
    )
    key = _unused(_slug(label) or f"column_{place + 1}", {other.key for other in read.columns})
    _read_unknown(read, replace(column, key=key, remark=remark), texts)


def _read_known(read: _Read, column: ImportedColumn, heading: str, texts: Mapping[int, str]) -> bool:
    """Read a column that a job fills; False if it has no number at all."""
    meaning = column.meaning
    assert meaning is not None
    numbers = _numbers(texts)
    if meaning is headings.RES:
        sides = {n: side for n, text in texts.items() if (side := values.read_side(text))}
        published = {n: sides.get(n) or numbers[n].published() for n in {*sides, *numbers}}
    else:
        scale = headings.power_of(column.unit, heading) if meaning.power else None
        scaled = any(number.scale is not None or number.exponent is not None for number in numbers.values())
        if scale is None and not scaled and meaning.power and numbers:
            # Counted in full, as 86567656.
            large = min(Decimal(number.digits) for number in numbers.values()) >= 10 ** (meaning.power - 1)
            scale = 0 if large else meaning.power
        published = {
            n: (number if number.scale is not None else replace(number, scale=scale)).published(meaning.power or None)
            for n, number in numbers.items()
        }
    published = {n: text for n, text in published.items() if values.is_number(text)}
    if not published:
        return False
    read.columns.append(replace(column, unit=meaning.unit, tolerance=_tolerance(meaning, published.values())))
    read.published |= {(n, column.key): text for n, text in published.items()}
    read.unknown |= {(n, column.key): text for n, text in texts.items() if n not in published}
    return True


def _read_unknown(read: _Read, column: ImportedColumn, texts: Mapping[int, str]) -> None:
    """Read a column that nothing measures: of numbers of one unit, or of words."""
    numbers = _numbers(texts)
    units = {number.unit for number in numbers.values()}
    published = {n: number.published() for n, number in numbers.items()}
    if len(numbers) == len(texts) and len(units) == 1 and all(map(values.is_number, published.values())):
        read.columns.append(replace(column, unit=column.unit or units.pop()))
    else:
        read.columns.append(replace(column, is_text=True))
        split = {n: values.split_words(text) for n, text in texts.items()}
        published = {n: values.as_published(words, marks=marks) for n, (words, marks) in split.items()}
    read.published |= {(n, column.key): text for n, text in published.items()}


def _numbers(texts: Mapping[int, str]) -> dict[int, values.CellValue]:
    read = {n: values.read_number(text) for n, text in texts.items()}
    return {n: number for n, number in read.items() if number is not None}


def _tolerance(meaning: ColumnMeaning, published: Iterable[str]) -> float | str | None:
    """Return the column's tolerance, at least half of the last digit that was published."""
    if isinstance(meaning.tolerance, str) or meaning.tolerance == 0:
        return meaning.tolerance
    read = [PublishedValue.read(text, words=False) for text in published]
    rounding = 0.5 * 10.0 ** -min(value.decimals for value in read if value is not None)
    return max(meaning.tolerance or 0.0, rounding)


# Rows.


def _rows(  # noqa: PLR0913, PLR0917
    read: _Read,
    lines: Sequence[_Line],
    label: int,
    names: ModelNames,
    context: Sequence[str],
    family: str | None,
) -> tuple[ImportedRow, ...]:
    rows: list[ImportedRow] = []
    units, texts = _units_of_rows(read, lines), [column.key for column in read.columns if column.is_text]
    for number, line in enumerate(lines):
        text = line.texts[label] or f"row {number + 1}"
        side = read.published.get((number, headings.RES.key), "").partition("[")[0]
        res = int(side) if side.isdecimal() and 0 < len(side) < 6 and int(side) else None
        key = _slug(values.readable(text)) or f"row_{number + 1}"
        taken = {row.key for row in rows}
        rows.append(
            ImportedRow(
                key=_unused(f"{key}_{res}" if key in taken and res else key, taken),
                label=values.readable(text),
                group=line.group,
                unit=units.get(number),
                res=res or side_in(text),
                match=names.match(
                    text,
                    res=res,
                    context=context,
                    family=family,
                    words=" ".join(read.published.get((number, key), "") for key in texts),
                ),
                published={key: value for (n, key), value in read.published.items() if n == number},
                unknown={key: value for (n, key), value in read.unknown.items() if n == number},
            )
        )
    return tuple(rows)


def _units_of_rows(read: _Read, lines: Sequence[_Line]) -> dict[int, str]:
    """Return the units of lines of numbers where every column is of words: each line measures something else."""
    units: dict[int, str] = {}
    for number, line in enumerate(lines) if all(column.is_text for column in read.columns) else ():
        texts = {column.key: line.texts[column.place] for column in read.columns}
        numbers = {key: values.read_number(text) for key, text in texts.items() if not values.is_blank(text)}
        row_units = {value.unit if value else None for value in numbers.values()}
        published = {(number, key): value.published() for key, value in numbers.items() if value is not None}
        if len(row_units) == 1 and None not in row_units and all(map(values.is_number, published.values())):
            units[number] = str(row_units.pop())
            read.published |= published
    return units


def _footnotes(read: _Read, notes: Iterable[str]) -> dict[str, str]:
    """Return the text of each mark that a value has: what follows the mark at the beginning of a line."""
    marks = dict.fromkeys(
        mark
        for text in read.published.values()
        if (value := PublishedValue.read(text, words=True)) is not None
        for mark in value.marks
    )
    texts = dict.fromkeys(marks, "marked so in the table; what the mark says was not in the file")
    for note in notes:
        mark, text = values.leading_mark(note)
        if mark in texts and text:
            texts[mark] = values.readable(text)
    return texts


def _slug(text: str) -> str:
    spelled = text.replace("⚗", "_dist").replace("↑", "_").lower()
    return re.sub(r"[^a-z0-9]+", "_", spelled).strip("_")[:60]


def _unused(key: str, taken: set[str]) -> str:
    return next(name for name in (key, *(f"{key}_{n}" for n in range(2, len(taken) + 3))) if name not in taken)
