"""`Diff` -> `Sheet`: what a table shows, decided once for every format.

A cell of the paper's table becomes texts that stand side by side under a heading each: measured, published, difference,
verdict.  What was not measured is left out and named once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.judge.ablation import Ablation
from harness.judge.verdict import Diff, JudgedCell, Verdict, tolerance_text
from harness.report import ablation, formatting
from harness.report.formatting import SIGNS
from harness.specs import Column, Row

# A verdict that says that a value was compared with a published one.
JUDGED = (Verdict.MATCH, Verdict.NOISE, Verdict.EXPLAINED, Verdict.DEVIATES)

# Versions that a reader of a table asks for; the others are in the results.
VERSIONS = ("torch", "timm")

# So many machines or versions, or columns, are named in a line.
NAMED = 3
MOST_NAMES = 6


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the texts that stand side by side under a column's heading; a `number` is set to the right.

    `short` is the heading where there is little room.
    """

    heading: str
    short: str = ""
    number: bool = True


MEASURED = Part(heading="measured", short="here")
BATCH = Part(heading="batch")
PUBLISHED = Part(heading="published", short="publ.")
DIFFERENCE = Part(heading="Δ")
TOLERANCE = Part(heading="allowed")
VERDICT = Part(heading="verdict", number=False)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A text of a cell; `marks` are those of its footnotes, `sign` says the same where there is no room for the text.

    `verdict` is that of the cell, where the text is to look like it.
    """

    text: str = ""
    marks: tuple[str, ...] = ()
    sign: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class SheetColumn:
    """A heading over one or more parts; `key` is that of the table's column, `unit` what its label leaves out of it.

    `machine` is the one of the published values, where that matters.  A `setting` says what a row is, next to columns
    that say what was measured of it.
    """

    label: str
    unit: str = ""
    machine: str = ""
    parts: tuple[Part, ...]
    key: str = ""
    setting: bool = False

    @property
    def heading(self) -> str:
        """The label with the unit and the machine."""
        machine = f"published: {self.machine}" if self.machine else ""
        return ", ".join(filter(None, (self.label, self.unit, machine)))


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A label and, for each column, an entry for each of its parts."""

    label: str
    cells: tuple[tuple[Entry, ...], ...]
    group: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table as it is shown, whatever the format.

    `summary` are sentences for above it, `left_out` sentences on what it does not show.
    """

    title: str
    summary: tuple[str, ...] = ()
    columns: tuple[SheetColumn, ...]
    rows: tuple[SheetRow, ...]
    left_out: tuple[str, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict that is shown."""
        shown = {entry.verdict for row in self.rows for cell in row.cells for entry in cell if entry.sign}
        return tuple(verdict for verdict in Verdict if verdict in shown)

    def without(self, columns: Collection[int]) -> "Sheet":
        """Return the sheet without some columns, given by their number."""
        kept = [number for number in range(len(self.columns)) if number not in columns]
        return replace(
            self,
            columns=tuple(self.columns[number] for number in kept),
            rows=tuple(replace(row, cells=tuple(row.cells[number] for number in kept)) for row in self.rows),
        )


def table_sheets(diff: Diff, *, everything: bool = False, tolerances: bool = False) -> tuple[Sheet, ...]:
    """Return what a table shows: one sheet, or one for each column of an ablation at a small scale.

    `everything` keeps rows and columns of which nothing was measured, `tolerances` adds the allowed difference.
    """
    if diff.ablations:
        return tuple(ablation_sheet(column) for column in diff.ablations)
    return (table_sheet(diff, everything=everything, tolerances=tolerances),)


def table_sheet(diff: Diff, *, everything: bool = False, tolerances: bool = False) -> Sheet:
    """Return the table in the paper's layout, as far as something was measured.

    Where nothing was, it shows what was published, so that one sees what there is to measure.
    """
    rows, columns = list(diff.spec.rows), list(diff.spec.columns)
    tried = {key for key, judged in diff.judged_cells.items() if _was_tried(judged)}
    left_out: list[str] = []
    if tried and not everything:
        kept = [column for column in columns if _is_setting(diff, column) or _any(tried, rows, [column])]
        rows_kept = [row for row in rows if _any(tried, [row], columns) or not _can_be_measured(diff, row)]
        left_out = _left_out(columns, kept, rows, rows_kept)
        rows, columns = rows_kept, kept
    anything = bool(tried) or everything
    if not anything:
        columns = [column for column in columns if any(_is_published(diff, row, column) for row in rows)]
        rows = [row for row in rows if any(_is_published(diff, row, column) for column in columns)]
    shown = [column_of(diff, rows, column, anything=anything, tolerances=tolerances) for column in columns]
    groups = {row.key: heading for heading, members in formatting.row_groups(rows) for row in members}
    return Sheet(
        title=formatting.title(diff),
        summary=(*summary(diff), *(["This is what was published."] if shown and not anything else [])),
        columns=tuple(head for head, _ in shown),
        rows=tuple(
            SheetRow(
                label=row.label,
                group=groups[row.key],
                key=row.key,
                cells=tuple(entries(diff.judged_cells[row.key, head.key]) for head, entries in shown),
            )
            for row in rows
        ),
        left_out=tuple(left_out),
    )


def ablation_sheet(column: Ablation) -> Sheet:
    """Return what each change does at a small scale: ours, its interval, the paper's, and whether the signs agree."""
    parts = (
        Part(heading="here"),
        Part(heading="95 % interval"),
        Part(heading="paper"),
        Part(heading="sign", number=False),
    )
    looks = {ablation.SAME: Verdict.MATCH, ablation.OTHER: Verdict.DEVIATES}
    rows = []
    for effect in column.rows:
        label, ours, interval, paper, sign = ablation.line(effect)
        words = ablation.WORDS[sign]
        cells = (
            Entry(text=ours),
            Entry(text=interval),
            Entry(text=paper, marks=effect.marks if paper else ()),
            Entry(text=words, sign=sign, verdict=looks.get(sign, Verdict.NOT_COMPARABLE)),
        )
        rows.append(SheetRow(label=label, cells=(cells,), key=effect.row.key))
    return Sheet(
        title=ablation.heading(column),
        columns=(SheetColumn(label="", parts=parts, key=column.column.key),),
        rows=tuple(rows),
        left_out=(f"{ablation.signs_sentence(column)}.",),
    )


# What is above a table.


def summary(diff: Diff) -> tuple[str, ...]:
    """Return how many values were judged and how, on what they were measured, and what a match is."""
    return tuple(filter(None, (verdicts_sentence(diff.counts), _measured_on(diff), _how_to_read(diff))))


def verdicts_sentence(counts: Counter[Verdict]) -> str:
    """Return how many values were judged and how, and how many are not and why."""
    total, judged = counts.total(), sum(counts[verdict] for verdict in JUDGED)
    if not total:
        return "Nothing here is to be measured."
    noun = "value" if total == 1 else "values"
    if counts[Verdict.MISSING] == total:
        return f"None of {total} values is measured." if total > 1 else "Its one value is not measured."
    outcomes = [f"{counts[verdict]} {_word(verdict, counts[verdict])}" for verdict in JUDGED if counts[verdict]]
    others = [v for v in Verdict if v not in JUDGED and counts[v]]
    rest = ", ".join(f"{counts[verdict]} {verdict}" for verdict in others)
    first = f"{judged} of {total} {noun} judged" + (f": {', '.join(outcomes)}" if outcomes else "")
    return f"{first}; {rest}." if rest else f"{first}."


def _word(verdict: Verdict, count: int) -> str:
    plain = {Verdict.NOISE: "within noise"}
    plural = {Verdict.DEVIATES: "deviate"}
    return (plural if count != 1 else {}).get(verdict, plain.get(verdict, str(verdict)))


def _measured_on(diff: Diff) -> str:
    """Return the machines and versions behind the values of a table; empty where nothing was measured."""
    measured = [judged.filled for judged in diff.judged_cells.values() if judged.filled.measurement]
    results = {result.id: result for filled in measured for result in filled.results}.values()
    machines = _some(result.machine.label for result in results)
    versions = [
        f"{name} {_some(result.software[name].partition('+')[0] for result in results if name in result.software)}"
        for name in VERSIONS
        if any(name in result.software for result in results)
    ]
    return f"Measured on {machines}; {', '.join(versions)}." if machines and versions else ""


def _how_to_read(diff: Diff) -> str:
    """Return how far a match may be off in the columns that have one such limit, and what the uncertainties are."""
    limits = []
    for column in diff.spec.columns:
        cells = [diff.judged_cells[row.key, column.key] for row in diff.spec.rows]
        judged = [one.filled for one in cells if one.verdict in JUDGED and one.is_counted]
        allowed = {tolerance_text(filled) for filled in judged} - {""}
        limits += [f"{next(iter(allowed))} ({column.label})"] if len(allowed) == 1 else []
    shown = any(" ± " in formatting.cell_text(one).measured for one in diff.judged_cells.values())
    parts = [f"A match is within {', '.join(limits)}"] if limits and len(limits) <= MOST_NAMES else []
    parts += [f"{'b' if parts else 'B'}ehind ± is the 95 % interval"] if shown else []
    return f"{'; '.join(parts)}." if parts else ""


def _some(texts: Iterable[str]) -> str:
    """Join different texts; of many only their number and the first ones."""
    different = sorted(set(texts))
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    return ", ".join(different[:NAMED]) + more


# Which rows and columns there are.


def _was_tried(judged: JudgedCell) -> bool:
    """Whether a cell has something that was measured, or that failed; a setting of the spec is neither."""
    filled = judged.filled
    if filled.planned.idle or (filled.matches_by_construction and judged.verdict is not Verdict.DEVIATES):
        return False
    return filled.measurement is not None or judged.verdict is Verdict.FAILED


def _is_setting(diff: Diff, column: Column) -> bool:
    """Whether a column only tells rows apart: nothing of it is measured, except what the spec itself gives the job."""
    cells = (diff.judged_cells[row.key, column.key] for row in diff.spec.rows)
    return all(
        judged.filled.planned.idle or (judged.filled.matches_by_construction and judged.verdict is not Verdict.DEVIATES)
        for judged in cells
    )


def _is_published(diff: Diff, row: Row, column: Column) -> bool:
    return bool(formatting.cell_text(diff.judged_cells[row.key, column.key]).published)


def _can_be_measured(diff: Diff, row: Row) -> bool:
    cells = (diff.judged_cells[row.key, column.key].filled for column in diff.spec.columns)
    return any(not filled.planned.idle and not filled.matches_by_construction for filled in cells)


def _any(tried: set[tuple[str, str]], rows: Iterable[Row], columns: Sequence[Column]) -> bool:
    return any((row.key, column.key) in tried for row in rows for column in columns)


def _left_out(columns: list[Column], kept: list[Column], rows: list[Row], rows_kept: list[Row]) -> list[str]:
    """Name the columns and count the rows of which nothing was measured."""
    hint = "`--all-columns` shows them"
    gone = [column.label for column in columns if column not in kept]
    names = ", ".join(gone) if len(gone) <= MOST_NAMES else f"{len(gone)} columns"
    fewer = len(rows) - len(rows_kept)
    parts = [names] if gone else []
    parts += [f"{fewer} of {len(rows)} rows"] if fewer else []
    return [f"Not measured and left out: {'; '.join(parts)} ({hint})."] if parts else []


# What a column shows of a cell.

Entries = Callable[[JudgedCell], tuple[Entry, ...]]


def column_of(  # noqa: PLR0913
    diff: Diff,
    rows: Sequence[Row],
    column: Column,
    *,
    anything: bool = True,
    tolerances: bool = False,
    published: bool = True,
) -> tuple[SheetColumn, Entries]:
    """Return a column's heading and parts, and what makes the entries of its cells.

    Of a table in which not `anything` was measured they are the published values; `published` has those next to ours.
    """
    cells = [diff.judged_cells[row.key, column.key] for row in rows]
    unit, words = formatting.remaining_unit(column.label, column.unit), any(cell.filled.cell.text for cell in cells)
    if _is_setting(diff, column) or not anything:
        parts: tuple[Part, ...] = (Part(heading="", number=not words),)
        setting = _is_setting(diff, column) and not all(_is_setting(diff, one) for one in diff.spec.columns)
        return SheetColumn(label=column.label, unit=unit, parts=parts, key=column.key, setting=setting), _as_published
    texts = [formatting.cell_text(judged) for judged in cells]
    # Of what nobody published there is one verdict, which is shown below the table.
    nobody_published = all(judged.verdict is Verdict.NOT_COMPARABLE for judged in cells) and not any(
        text.published for text in texts
    )
    batches = {text.batch for text in texts} - {""}
    if len(batches) == 1:
        unit = ", ".join(filter(None, (unit, f"batch {next(iter(batches))}")))
    wanted = [
        (MEASURED, True),
        (BATCH, len(batches) > 1),
        (PUBLISHED, published and any(text.published for text in texts)),
        (DIFFERENCE, any(text.difference for text in texts)),
        (TOLERANCE, tolerances),
        (VERDICT, not nobody_published),
    ]
    shown = [part for part, there in wanted if there]
    machine = column.machine if PUBLISHED in shown and column.machine else ""

    def entries(judged: JudgedCell) -> tuple[Entry, ...]:
        by_part = _entries(judged)
        return tuple(by_part.get(part, Entry()) for part in shown)

    parts = tuple(replace(part, number=part.number and not words) for part in shown)
    return SheetColumn(label=column.label, unit=unit, machine=machine, parts=parts, key=column.key), entries


def _as_published(judged: JudgedCell) -> tuple[Entry, ...]:
    text = formatting.cell_text(judged)
    value = text.published or (text.measured if judged.filled.matches_by_construction else "")
    return (Entry(text=value, marks=text.marks),)


def _entries(judged: JudgedCell) -> dict[Part, Entry]:
    """Return the entry of each part of a measured cell; what cannot be measured is shown as published."""
    text, verdict = formatting.cell_text(judged), judged.verdict
    published = Entry(text=text.published, marks=text.marks)
    if judged.filled.planned.idle:
        return {PUBLISHED: published}
    return {
        MEASURED: Entry(text=text.measured, verdict=verdict),
        BATCH: Entry(text=text.batch),
        PUBLISHED: published,
        DIFFERENCE: Entry(text=text.difference, verdict=verdict),
        TOLERANCE: Entry(text=tolerance_text(judged.filled)),
        VERDICT: Entry(text=str(verdict), sign=SIGNS[verdict], verdict=verdict),
    }


def sections(rows: Sequence[SheetRow]) -> Iterator[tuple[str, list[SheetRow]]]:
    """Yield rows under the headings of the paper; empty where they have none."""
    group: list[SheetRow] = []
    for row in rows:
        if group and row.group != group[0].group:
            yield group[0].group, group
            group = []
        group.append(row)
    if group:
        yield group[0].group, group
