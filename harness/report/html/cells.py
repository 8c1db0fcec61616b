"""`JudgedCell` -> what a page shows of a cell, and the reason it shows on demand."""

import json
from dataclasses import dataclass
from typing import Any

from harness.judge.verdict import Diff, JudgedCell, head_variants
from harness.report import formatting
from harness.report.html.links import PageLinks, cell_ids
from harness.report.sheet import JUDGED, Entries, Entry, Part, SheetColumn, column_of, table_sheet
from harness.specs import Row


def cell_view(diff: Diff, judged: JudgedCell, cell_id: str, links: PageLinks) -> dict[str, Any]:
    """Return everything a page shows of a cell.

    `id` is that within the page, `rank` what its difference is sorted by, empty without one.  `run_page` is empty where
    the cell was not measured.  `heads` is the title and the lines of a table, both empty without --explain.
    """
    references = judged.filled.cell.references
    marks = dict.fromkeys(mark for reference in references for mark in reference.published.marks)
    variants = head_variants(judged.filled)
    return {
        "id": cell_id,
        "judged": judged,
        "text": formatting.cell_text(judged),
        "rank": _rank(judged),
        "footnotes": [diff.spec.footnotes[mark] for mark in marks if mark in diff.spec.footnotes],
        "run_page": links.run(judged.filled.result),
        "heads": formatting.head_table(judged, variants) if len(variants) > 1 else ("", ()),
    }


@dataclass(frozen=True, kw_only=True)
class SheetView:
    """A table as its page shows it; what its sheet leaves out is on the page as well, but shown only on request.

    `columns` and the rows of the `groups`, which are under the headings of the paper, each come with whether that is
    so.  A row has for each column a view of the cell and the part and entry of each of its texts.  `left_out` names
    what is shown on request.
    """

    summary: tuple[str, ...]
    columns: tuple[tuple[SheetColumn, bool], ...]
    groups: tuple[tuple[str, list[tuple[Row, bool, list[Any]]]], ...]
    left_out: str


def sheet_view(diff: Diff, links: PageLinks) -> SheetView:
    """Return the rows and columns of a table with everything that its page shows of each cell."""
    sheet, ids, every = table_sheet(diff), cell_ids(diff), diff.spec.rows
    anything = any(part.heading for column in sheet.columns for part in column.parts)
    columns = [column_of(diff, every, column, anything=anything) for column in diff.spec.columns]
    shown, rows = {head.key for head in sheet.columns}, {row.key for row in sheet.rows}
    if not (shown and rows):  # of a table with nothing to see one sees what it is about
        shown, rows = {head.key for head, _ in columns}, {row.key for row in every}

    def view(row: Row, head: SheetColumn, entries: Entries) -> tuple[dict[str, Any], list[tuple[Part, Entry]]]:
        judged = diff.judged_cells[row.key, head.key]
        texts = list(zip(head.parts, entries(judged), strict=True))
        return cell_view(diff, judged, ids[row.key, head.key], links), texts

    left_out = [head.label for head, _ in columns if head.key not in shown]
    left_out += [f"{len(every) - len(rows)} of {len(every)} rows"] if len(rows) < len(every) else []
    return SheetView(
        summary=sheet.summary,
        columns=tuple((head, head.key not in shown) for head, _ in columns),
        groups=tuple(
            (heading, [(row, row.key not in rows, [view(row, *column) for column in columns]) for row in members])
            for heading, members in formatting.row_groups(every)
        ),
        left_out=", ".join(left_out),
    )


def _rank(judged: JudgedCell) -> float | str:
    """Return a judged difference, or how many times the published value of another machine the measured one is."""
    measured, published = judged.filled.number, judged.filled.published_number
    if judged.verdict in JUDGED or not (measured and published):
        return "" if judged.delta is None else judged.delta
    return measured / published


def exact(value: float | str | None) -> str:
    """Return a value with every digit, for a program."""
    return value if isinstance(value, str) else json.dumps(value)


def readable(value: float | str, significant: int = 6) -> str:
    """Return a value with as many digits as a reader wants to see."""
    if isinstance(value, str):
        return value
    text = formatting.number(value, None, significant=significant)
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(delta: float) -> str:
    """Return a difference with its sign."""
    text = readable(delta, significant=4)
    return text.replace("-", "−") if delta < 0 else f"+{text}" if delta else "0"
