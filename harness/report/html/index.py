"""`Diff`s -> the index page: how much of the paper is reproduced, what deviates, what is missing and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.judge.table import EXACT
from harness.judge.verdict import Diff, JudgedCell, Verdict
from harness.report import formatting
from harness.report.html.cells import cell_view
from harness.report.html.links import PageLinks, cell_ids, table_name
from harness.report.sheet import JUDGED
from harness.specs.kinds import KINDS

# These say that the published value holds, each in its own way.
HOLDS = (Verdict.MATCH, Verdict.NOISE, Verdict.EXPLAINED)
FAILS = (Verdict.DEVIATES, Verdict.FAILED)

# How a value comes about: that the parameters of an architecture hold says nothing about a throughput or an accuracy.
COUNTED, TIMED, EVALUATED = "counted or read", "timed", "evaluated or trained"

# A reader of the index page looks at the worst; the pages of the tables have them all.
LISTED = 100


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many cells there are to measure, how many were, are judged, hold, and deviate or failed."""

    cells: int
    measured: int
    judged: int
    hold: int
    bad: int


@dataclass(kw_only=True)
class ReasonGroup:
    """A reason, how many cells have it, and for each table its name, a link to the first cell and their number."""

    verdict: Verdict
    text: str
    cells: int = 0
    tables: list[tuple[str, str, int]] = field(default_factory=list)


def index_page(diffs: Sequence[Diff], links: PageLinks) -> dict[str, Any]:
    """Summarize all tables.

    `tallies` are those of the ways in which values come about.  `bad` are the first cells that deviate or failed, each
    with its table, and `more` counts the others.  `newest` is the day of the newest result, empty if there is none.
    """
    cells = [judged for diff in diffs for judged in diff.judged_cells.values()]
    by_way = {way: [cell for cell in cells if _way(cell) == way] for way in (COUNTED, TIMED, EVALUATED)}
    bad = [(diff, *cell) for diff in diffs for cell in _measurable(diff) if cell[0].verdict in FAILS]
    started = [judged.filled.result.started for judged in cells if judged.filled.result]
    return {
        "diffs": diffs,
        "papers": tuple(dict.fromkeys(diff.spec.paper for diff in diffs if diff.spec.paper)),
        "counts": sum((diff.counts for diff in diffs), Counter[Verdict]()),
        "total": tally(cells),
        "tallies": {way: counted for way, group in by_way.items() if (counted := tally(group)).cells},
        "bad": [(diff, cell_view(diff, judged, cell_id, links)) for diff, judged, cell_id in bad[:LISTED]],
        "more": max(0, len(bad) - LISTED),
        "reasons": _reasons(diffs, links),
        "machines": dict.fromkeys(diff.table.machine.label for diff in diffs if diff.table.machine),
        "newest": f"{max(started):%Y-%m-%d}" if started else "",
    }


def tally(cells: Iterable[JudgedCell]) -> Tally:
    """Count some cells, without those that have nothing to measure or match by construction."""
    counted = [cell for cell in cells if cell.is_counted]
    return Tally(
        cells=len(counted),
        measured=sum(cell.filled.measurement is not None for cell in counted),
        judged=sum(cell.verdict in JUDGED for cell in counted),
        hold=sum(cell.verdict in HOLDS for cell in counted),
        bad=sum(cell.verdict in FAILS for cell in counted),
    )


def _way(judged: JudgedCell) -> str:
    """Return how the value of a cell comes about; a derived one as the most expensive of those that it is of."""
    kinds = {filled.cell.kind for filled in (judged.filled, *judged.filled.operands) if filled.cell.kind}
    if any(KINDS[kind].exclusive for kind in kinds):
        return TIMED
    return COUNTED if kinds <= set(EXACT) else EVALUATED


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
