"""`Diff`s -> the front page: how much of the paper is reproduced, what deviates, what is missing and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.diff import Diff, Finding, Verdict
from harness.report import words
from harness.report.html.addresses import Addresses, cell_id
from harness.report.html.cells import CellView, cell_of

# These say that the published value holds, each in its own way.
HOLDS = (Verdict.MATCH, Verdict.NOISE, Verdict.EXPLAINED)

# A reader of the front page looks at the worst; the pages of the tables have them all.
LISTED = 100


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many cells have a verdict."""

    verdict: str
    sign: str
    cells: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A table in one line."""

    name: str
    title: str
    page: str
    cells: int
    holds: int
    shares: tuple[Share, ...]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A cell that a reader has to see, with its table and its address."""

    table: str
    link: str
    cell: CellView


@dataclass(frozen=True, kw_only=True)
class Where:
    """How many cells of a table have a reason, and the address of the first."""

    table: str
    link: str
    cells: int


@dataclass
class Reason:
    """A reason, and the cells that have it, table by table."""

    verdict: Verdict
    text: str
    where: list[Where] = field(default_factory=list)

    @property
    def sign(self) -> str:
        """Give the sign of its verdict."""
        return words.SIGNS[self.verdict]

    @property
    def cells(self) -> int:
        """Count the cells."""
        return sum(place.cells for place in self.where)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The front page.

    `cells` have something to measure, `holds` of them hold.  `bad` are the first that deviate or failed, `more` counts
    the others.  `newest` is the day of the newest result, empty if there is none.
    """

    cells: int
    holds: int
    measured: int
    shares: tuple[Share, ...]
    tables: tuple[Summary, ...]
    bad: tuple[Listed, ...]
    more: int
    reasons: tuple[tuple[Verdict, tuple[Reason, ...]], ...]
    machines: tuple[str, ...]
    newest: str


def front_of(diffs: Sequence[Diff], addresses: Addresses) -> Front:
    """Sum up what all tables say."""
    counts = sum((diff.counts for diff in diffs), Counter[Verdict]())
    bad = [one for diff in diffs for one in _bad(diff)]
    results = [f.filled.result for diff in diffs for f in diff.findings.values() if f.filled.result]
    grouped = _reasons(diffs, addresses)
    return Front(
        cells=counts.total(),
        holds=_holds(counts),
        measured=sum(
            finding.filled.measurement is not None and not finding.filled.given
            for diff in diffs
            for finding in diff.findings.values()
        ),
        shares=shares_of(counts),
        tables=tuple(_summary(diff, addresses) for diff in diffs),
        bad=tuple(_listed(*one, addresses) for one in bad[:LISTED]),
        more=max(0, len(bad) - LISTED),
        reasons=tuple((verdict, grouped[verdict]) for verdict in Verdict if verdict in grouped),
        machines=tuple(dict.fromkeys(diff.table.machine.label for diff in diffs if diff.table.machine)),
        newest=f"{max(one.started for one in results):%Y-%m-%d}" if results else "",
    )


def shares_of(counts: Counter[Verdict]) -> tuple[Share, ...]:
    """Give the verdicts that occur, most telling first."""
    return tuple(
        Share(verdict=str(verdict), sign=words.SIGNS[verdict], cells=counts[verdict])
        for verdict in Verdict
        if counts[verdict]
    )


def name_of(diff: Diff) -> str:
    """Give what people call a table: the edition's number, or else its own name."""
    number = diff.spec.numbers.get(diff.spec.edition, "")
    # Several lists have `text` for a number: they come from the running text.
    name = diff.spec.name if number in ("", "text") else number
    return f"{name} (ICML)" if diff.spec.edition == "icml" else name


def _summary(diff: Diff, addresses: Addresses) -> Summary:
    return Summary(
        name=name_of(diff),
        title=diff.spec.title,
        page=addresses.of_table(diff),
        cells=diff.counts.total(),
        holds=_holds(diff.counts),
        shares=shares_of(diff.counts),
    )


def _holds(counts: Counter[Verdict]) -> int:
    return sum(counts[verdict] for verdict in HOLDS)


def _bad(diff: Diff) -> list[tuple[Diff, Finding, str]]:
    return [
        (diff, finding, place)
        for finding, place in _placed(diff)
        if finding.verdict in (Verdict.DEVIATES, Verdict.FAILED)
    ]


def _placed(diff: Diff) -> Iterable[tuple[Finding, str]]:
    """Give the cells that have something to measure, each with its place on the page of its table."""
    for number, row in enumerate(diff.spec.rows, start=1):
        for place, column in enumerate(diff.spec.columns, start=1):
            finding = diff.findings[row.key, column.key]
            if not finding.filled.planned.idle:
                yield finding, cell_id(number, place)


def _listed(diff: Diff, finding: Finding, place: str, addresses: Addresses) -> Listed:
    return Listed(
        table=name_of(diff),
        link=f"{addresses.of_table(diff)}#{place}",
        cell=cell_of(diff, finding, place, addresses),
    )


def _reasons(diffs: Sequence[Diff], addresses: Addresses) -> dict[Verdict, tuple[Reason, ...]]:
    """Group what keeps cells from being plain matches by the reason, the most frequent first."""
    found: dict[tuple[Verdict, str], Reason] = {}
    for diff in diffs:
        places: dict[tuple[Verdict, str], list[str]] = {}
        for finding, place in _placed(diff):
            if finding.verdict not in (Verdict.MATCH, Verdict.DEVIATES, Verdict.FAILED):
                places.setdefault((finding.verdict, words.in_short(finding.reason)), []).append(place)
        for (verdict, text), those in places.items():
            reason = found.setdefault((verdict, text), Reason(verdict=verdict, text=text))
            link = f"{addresses.of_table(diff)}#{those[0]}"
            reason.where.append(Where(table=name_of(diff), link=link, cells=len(those)))
    ordered = sorted(found.values(), key=lambda reason: -reason.cells)
    verdicts = dict.fromkeys(reason.verdict for reason in ordered)
    return {verdict: tuple(one for one in ordered if one.verdict is verdict) for verdict in verdicts}
