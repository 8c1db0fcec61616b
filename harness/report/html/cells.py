"""`JudgedCell` -> what a page shows of a cell, and the reason it shows on demand."""

import json
from typing import Any

from harness.judge.verdict import Diff, JudgedCell, head_variants
from harness.report import formatting
from harness.report.html.links import PageLinks, cell_ids
from harness.specs import Row


def cell_view(diff: Diff, judged: JudgedCell, cell_id: str, links: PageLinks) -> dict[str, Any]:
    """Return everything a page shows of a cell.

    `id` is that within the page, `run_page` is empty where the cell was not measured.  `heads` is the title and the
    lines of a table, both empty without --explain.
    """
    references = judged.filled.cell.references
    marks = dict.fromkeys(mark for reference in references for mark in reference.published.marks)
    variants = head_variants(judged.filled)
    return {
        "id": cell_id,
        "judged": judged,
        "text": formatting.cell_text(judged),
        "footnotes": [diff.spec.footnotes[mark] for mark in marks if mark in diff.spec.footnotes],
        "run_page": links.run(judged.filled.result),
        "heads": formatting.head_table(judged, variants) if len(variants) > 1 else ("", ()),
    }


def row_views(diff: Diff, links: PageLinks) -> list[tuple[str, list[tuple[Row, list[dict[str, Any]]]]]]:
    """Return the cells of each row, under the headings of the paper."""
    ids = cell_ids(diff)

    def views(row: Row) -> list[dict[str, Any]]:
        keys = [(row.key, column.key) for column in diff.spec.columns]
        return [cell_view(diff, diff.judged_cells[key], ids[key], links) for key in keys]

    groups = formatting.row_groups(diff.spec.rows)
    return [(heading, [(row, views(row)) for row in rows]) for heading, rows in groups]


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
