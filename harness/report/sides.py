"""`SideBySide` -> sheets: a table with a column for each machine, versions or protocol, and how each pair compares."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from harness.judge.sides import PUBLISHED as PUBLISHED_SIDE
from harness.judge.sides import Pair, SideBySide, TableSide
from harness.judge.verdict import JudgedCell
from harness.report import formatting
from harness.report.sheet import (
    PUBLISHED,
    Entry,
    Part,
    Sheet,
    SheetColumn,
    SheetRow,
    column_of,
    verdicts_sentence,
)
from harness.specs import Column, Row
from harness.stats import Interval

RATIO, RANGE = Part(heading="median"), Part(heading="least to largest")
ROWS, TAU, RHO = Part(heading="rows"), Part(heading="Kendall's τ"), Part(heading="Spearman's ρ")


def sides_sheets(comparison: SideBySide) -> tuple[Sheet, ...]:
    """Return the table, and how each pair of its sides compares where speeds were measured."""
    pairs = (_pairs_sheet(comparison),) if comparison.pairs else ()
    return (_table(comparison), *pairs)


def _table(comparison: SideBySide) -> Sheet:
    rows = [
        row
        for row in comparison.spec.rows
        if any(_has(side, row, comparison.spec.columns) for side in comparison.sides)
    ]
    columns: list[SheetColumn] = []
    made: list[tuple[TableSide, Column, Callable[[JudgedCell], tuple[Entry, ...]]]] = []
    for column in comparison.spec.columns:
        sides = [side for side in comparison.sides if any(_has(side, row, [column]) for row in rows)]
        if sides and _agree(sides, rows, column):
            head, entries = column_of(sides[0].diff, rows, column)
            columns.append(head)
            made.append((sides[0], column, entries))
            continue
        for number, side in enumerate(sides):
            if number == 0:
                columns.append(_published(column))
                made.append((side, column, _published_entry))
            head, entries = column_of(side.diff, rows, column, published=False)
            unit = head.unit.removeprefix(formatting.remaining_unit(column.label, column.unit)).removeprefix(", ")
            columns.append(replace(head, label=f"{side.name}: {column.label}", unit=unit))
            made.append((side, column, entries))
    groups = {row.key: heading for heading, members in formatting.row_groups(rows) for row in members}
    return Sheet(
        title=formatting.title(comparison.sides[0].diff) if comparison.sides else comparison.spec.title,
        summary=tuple(f"{side.name}: {verdicts_sentence(side.diff.counts)}" for side in comparison.sides),
        columns=tuple(columns),
        rows=tuple(
            SheetRow(
                label=row.label,
                group=groups[row.key],
                key=row.key,
                cells=tuple(entries(side.diff.judged_cells[row.key, column.key]) for side, column, entries in made),
            )
            for row in rows
        ),
    )


def _agree(sides: Sequence[TableSide], rows: Sequence[Row], column: Column) -> bool:
    """Whether every side shows the same in a column, as counts do: then it is shown once."""
    shown = [[formatting.cell_text(side.diff.judged_cells[row.key, column.key]) for row in rows] for side in sides]
    return all(one == shown[0] for one in shown)


def _has(side: TableSide, row: Row, columns: Sequence[Column]) -> bool:
    cells = (side.diff.judged_cells[row.key, column.key].filled for column in columns)
    return any(filled.measurement and not filled.matches_by_construction for filled in cells)


def _published(column: Column) -> SheetColumn:
    heading = f"{PUBLISHED.heading} ({column.machine})" if column.machine else PUBLISHED.heading
    unit = formatting.remaining_unit(column.label, column.unit)
    return SheetColumn(label=column.label, unit=unit, parts=(replace(PUBLISHED, heading=heading),), key=column.key)


def _published_entry(judged: JudgedCell) -> tuple[Entry, ...]:
    text = formatting.cell_text(judged)
    return (Entry(text=text.published, marks=text.marks),)


def _pairs_sheet(comparison: SideBySide) -> Sheet:
    """How much faster the second of each pair is than the first, and whether it has the models in the same order."""
    rows = [
        SheetRow(
            label=f"{_side(pair.first, pair)} → {_side(pair.second, pair)}",
            group=pair.column.label,
            cells=(
                (
                    Entry(text=str(pair.rows)),
                    Entry(text=formatting.pace(pair.ratio.value, "higher")),
                    Entry(text=_range(pair.ratio)),
                    Entry(text=_correlation(pair.kendall)),
                    Entry(text=_correlation(pair.spearman)),
                ),
            ),
        )
        for pair in comparison.pairs
    ]
    parts = (ROWS, RATIO, RANGE, TAU, RHO)
    return Sheet(
        title=f"Each pair, by {comparison.by}: how much faster the second is",
        columns=(SheetColumn(label="", parts=parts),),
        rows=tuple(rows),
    )


def _side(name: str, pair: Pair) -> str:
    return f"{pair.column.machine}, published" if name == PUBLISHED_SIDE else name


def _range(ratio: Interval) -> str:
    """Return the least and the largest of some ratios, a word that both have only once."""
    least, largest = (formatting.pace(value, "higher") for value in (ratio.low, ratio.high))
    word = largest.rpartition(" ")[2]
    return f"{least.removesuffix(f' {word}')} to {largest}" if least.endswith(word) else f"{least} to {largest}"


def _correlation(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]".replace("-", "−")


def sides_data(comparison: SideBySide) -> dict[str, Any]:
    """Return how each pair compares, for other programs; the cells of each side are those of its table."""
    return {
        "by": comparison.by,
        "pairs": [
            {
                "column": pair.column.key,
                "first": pair.first,
                "second": pair.second,
                "rows": pair.rows,
                "ratio": list(vars(pair.ratio).values()),
                "kendall": list(vars(pair.kendall).values()) if pair.kendall else None,
                "spearman": list(vars(pair.spearman).values()) if pair.spearman else None,
            }
            for pair in comparison.pairs
        ],
    }
