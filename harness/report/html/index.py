"""`Diff`s -> the index page: how much of the paper is reproduced, what deviates, what is missing and why."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.judge.verdict import Diff, JudgedCell, Verdict
from harness.report import formatting
from harness.report.html.cells import cell_view
from harness.report.html.links import PageLinks, cell_ids, table_name

# These say that the published value holds, each in its own way.
HOLDS = (Verdict.MATCH, Verdict.NOISE, Verdict.EXPLAINED)
FAILS = (Verdict.DEVIATES, Verdict.FAILED)

# A reader of the index page looks at the worst; the pages of the tables have them all.
LISTED = 100


@dataclass(kw_only=True)
class ReasonGroup:
    """A reason, how many cells have it, and for each table its name, a link to the first cell and their number."""

    verdict: Verdict
    text: str
    cells: int = 0
    tables: list[tuple[str, str, int]] = field(default_factory=list)


def index_page(diffs: Sequence[Diff], links: PageLinks) -> dict[str, Any]:
    """Summarize all tables.

    `bad` are the first cells that deviate or failed, each with its table, and `more` counts the others.  `newest` is
    the day of the newest result, empty if there is none.
    """
    cells = [judged for diff in diffs for judged in diff.judged_cells.values()]
    bad = [(diff, *cell) for diff in diffs for cell in _measurable(diff) if cell[0].verdict in FAILS]
    started = [judged.filled.result.started for judged in cells if judged.filled.result]
    return {
        "diffs": diffs,
        "counts": sum((diff.counts for diff in diffs), Counter[Verdict]()),
        "measured": sum(bool(c.filled.measurement) and not c.filled.matches_by_construction for c in cells),
        "bad": [(diff, cell_view(diff, judged, cell_id, links)) for diff, judged, cell_id in bad[:LISTED]],
        "more": max(0, len(bad) - LISTED),
        "reasons": _reasons(diffs, links),
        "machines": dict.fromkeys(diff.table.machine.label for diff in diffs if diff.table.machine),
        "newest": f"{max(started):%Y-%m-%d}" if started else "",
    }


def holding(counts: Counter[Verdict]) -> int:
    """Return for how many cells the published value holds."""
    return sum(counts[verdict] for verdict in HOLDS)


def _measurable(diff: Diff) -> Iterator[tuple[JudgedCell, str]]:
    """Yield the cells that have something to measure, each with its id on the page of its table."""
    for key, cell_id in cell_ids(diff).items():
        if not diff.judged_cells[key].filled.planned.idle:
            yield diff.judged_cells[key], cell_id


def _reasons(diffs: Sequence[Diff], links: PageLinks) -> dict[Verdict, list[ReasonGroup]]:
    """Group the cells that are neither plain matches nor bad by the reason, the most frequent first."""
    groups: dict[tuple[Verdict, str], ReasonGroup] = {}
    for diff in diffs:
        ids: dict[tuple[Verdict, str], list[str]] = {}
        for judged, cell_id in _measurable(diff):
            if judged.verdict not in (Verdict.MATCH, *FAILS):
                ids.setdefault((judged.verdict, formatting.without_details(judged.reason)), []).append(cell_id)
        for (verdict, text), (first, *others) in ids.items():
            group = groups.setdefault((verdict, text), ReasonGroup(verdict=verdict, text=text))
            group.cells += 1 + len(others)
            group.tables.append((table_name(diff), links.table(diff, first), 1 + len(others)))
    ordered = sorted(groups.values(), key=lambda group: -group.cells)
    by_verdict = {verdict: [group for group in ordered if group.verdict is verdict] for verdict in Verdict}
    return {verdict: reasons for verdict, reasons in by_verdict.items() if reasons}
