"""`Table` -> `Diff`: one verdict a cell with its reason, and the shape of a speed column as a whole."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.effects import Effects, effects_of
from harness.plan import Options, job_of
from harness.spec import Column, Reference, Row, Spec
from harness.stats import Correlation, kendall, rank_correlation, spearman
from harness.table import Filled, Table

# Fewer rows than these have no order worth a number.
LEAST_ROWS_FOR_SHAPE = 4


class Verdict(StrEnum):
    """What comparing a cell with its references says."""

    MATCH = "match"
    NOISE = "noise"
    DEVIATES = "deviates"
    EXPLAINED = "explained"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cell and its verdict.  `delta` is measured less the first reference, in the cell's unit."""

    filled: Filled
    verdict: Verdict
    reason: str
    delta: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A row's speed over that of its family's reference row, measured and published."""

    row: Row
    reference: Row
    measured: float
    published: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a speed column still tells on another machine: its order and its ratios.

    `rows` counts distinct networks; rows that share a job count once.
    """

    column: Column
    machine: str
    rows: int
    kendall: Correlation
    spearman: Correlation
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """A table with a finding for each cell."""

    table: Table
    findings: Mapping[tuple[str, str], Finding]
    shapes: tuple[Shape, ...]
    effects: tuple[Effects, ...] = ()

    @property
    def spec(self) -> Spec:
        """The table's spec."""
        return self.table.spec

    @property
    def counts(self) -> Counter[Verdict]:
        """How often each verdict was given, to cells that have something to measure and could come out otherwise."""
        return Counter(
            finding.verdict
            for finding in self.findings.values()
            if not finding.filled.planned.idle and not finding.filled.given
        )


def compare(table: Table) -> Diff:
    """Judge every cell of a table."""
    findings = {place: judge(filled, table.spec) for place, filled in table.cells.items()}
    columns = [column for column in table.spec.columns if column.machine]
    shapes = [shape for column in columns if (shape := _shape(table, column))]
    return Diff(table=table, findings=findings, shapes=tuple(shapes), effects=effects_of(table))


def judge(filled: Filled, spec: Spec) -> Finding:
    """Give the verdict of one cell: the first reason not to compare wins, then the numbers decide."""

    def finding(verdict: Verdict, reason: str, delta: float | None = None) -> Finding:
        return Finding(filled=filled, verdict=verdict, reason=reason, delta=delta)

    planned, result, measurement = filled.planned, filled.result, filled.measurement
    if planned.idle:
        return finding(Verdict.NOT_COMPARABLE, planned.blocked)
    if result is None:
        return finding(
            Verdict.MISSING,
            planned.blocked or "not measured yet; reproduce with these options",
        )
    if result.error is not None:
        return finding(Verdict.FAILED, result.error)
    if measurement is None:
        return finding(Verdict.MISSING, f"a {result.job.kind} job gives no {filled.cell.metric} for this network")
    references = filled.cell.references
    if not references:
        return finding(Verdict.NOT_COMPARABLE, "nothing was published here")
    if isinstance(measurement.value, str):
        said = measurement.value == references[0].printed.text
        reason = "the same words" if said else f"published is {references[0].printed.text}"
        return finding(Verdict.MATCH if said else Verdict.DEVIATES, reason)
    published = references[0].printed.value
    delta = measurement.value - published if published is not None and not filled.stands_in else None
    reason = planned.other_weights or _other_conditions(filled)
    if reason:
        return finding(Verdict.NOT_COMPARABLE, reason, delta)
    verdict, reason = _by_the_numbers(filled, measurement.value, spec)
    assumed = "".join(f"; its recipe assumes {one}" for one in planned.assumed)
    return finding(verdict, reason + assumed, delta)


def _other_conditions(filled: Filled) -> str:
    """Say why a number may not be judged: another machine, or settings that are not the published ones."""
    result, cell = filled.result, filled.cell
    if result is None:
        return ""
    if filled.planned.small:
        return f"trained at the {filled.planned.scale} scale, which stands in for the published one"
    if filled.planned.changes:
        return f"trained with {filled.planned.changes}, which is not how the published value was"
    images = result.facts.get("images")
    if images and not images["whole"] and result.job.kind != "train":
        return f"measured on {images['said']}"
    if result.job.needs or result.job.kind in ("train", "recipe"):
        return ""  # the recipe says what was done
    wanted = dict(job_of(cell, Options()).settings)
    told = dict(result.job.settings)
    changed = [name for name in wanted.keys() | told.keys() if wanted.get(name) != told.get(name)]
    if "protocol" in changed:
        return f"measured under the {told['protocol']} protocol, published under the {wanted['protocol']} one"
    machine = cell.column.machine
    if machine and not result.machine.is_called(machine):
        return f"measured on {result.machine.label}, published for {machine}"
    if changed:
        said = ", ".join(f"{name} = {told.get(name)}" for name in sorted(changed))
        return f"measured with {said}, which is not how the published value was"
    return ""


def _by_the_numbers(filled: Filled, value: float, spec: Spec) -> tuple[Verdict, str]:
    cell = filled.cell
    notes = {
        reference: [spec.footnotes[mark] for mark in reference.printed.marks if mark in spec.footnotes]
        for reference in cell.references
    }
    known_wrong = [note for found in notes.values() for note in found if note.effect == "wrong"]
    judged = [r for r in cell.references if not any(note.effect == "wrong" for note in notes[r])]
    if not judged:
        return Verdict.EXPLAINED, known_wrong[0].text
    within = [reference for reference in judged if is_within(filled, reference, value)]
    outside = [reference for reference in judged if reference not in within]
    paper = [reference for reference in judged if reference.source.kind == "paper"]
    if within and (all(r in within for r in paper) if paper else not outside):
        if known_wrong:
            return Verdict.EXPLAINED, f"within {_tolerance(filled)} of {_named(within)}; {known_wrong[0].text}"
        return Verdict.MATCH, f"within {_tolerance(filled)} of {_named(within)}"
    if within:
        return Verdict.EXPLAINED, f"matches {_named(within)}, not {_named(outside)}"
    explained = [note.text for found in notes.values() for note in found if note.effect == "explains"]
    found = explanation(filled, judged)
    if found:
        return Verdict.EXPLAINED, found
    measurement = filled.measurement
    low, high = (measurement.low, measurement.high) if measurement and not _same_images(filled) else (None, None)
    if low is not None and high is not None:
        inside = [r for r in judged if r.printed.value is not None and low <= r.printed.value <= high]
        if inside:
            return Verdict.NOISE, f"outside {_tolerance(filled)}, but the 95 % interval holds {_named(inside)}"
    if explained:
        return Verdict.EXPLAINED, explained[0]
    return Verdict.DEVIATES, f"not within {_tolerance(filled)} of {_named(outside)}"


def _same_images(filled: Filled) -> bool:
    """Whether the published number was measured on these very images with these weights: no chance is left then."""
    return filled.cell.kind in ("evaluate", "agreement", "dataset") and not _retrained(filled)


def _retrained(filled: Filled) -> bool:
    return bool(filled.result and filled.result.job.needs)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What another crop, or another way to read the heads, gives for a cell; `head` is empty where there is one."""

    crop: float
    head: str
    value: float


def readings(filled: Filled) -> list[Reading]:
    """Give what every crop that was measured and every head gives for an accuracy, the cell's own first."""
    kind = str(filled.cell.metric).partition("_")[0]
    found = []
    for result in (filled.result, *filled.others):
        if result is None or result.error is not None or "heads" not in result.facts:
            continue
        heads = result.facts["heads"]
        for head, values in heads.items():
            if kind in values:
                named = head if len(heads) > 1 else ""
                found.append(Reading(crop=float(result.job["crop"]), head=named, value=values[kind]))
    return found


def explanation(filled: Filled, judged: Iterable[Reference]) -> str:
    """Say which other crop or head gives the published value; empty if none that was measured does."""
    for reference in judged:
        fitting = [one for one in readings(filled) if is_within(filled, reference, one.value)]
        if fitting:
            best = min(fitting, key=lambda one: abs(one.value - float(reference.printed.value or 0)))
            how = f"crop {best.crop:g}" + (f" and {HEAD_NAMES[best.head]}" if best.head else "")
            return f"{how} gives {best.value:.2f}, as {_named([reference])}"
    return ""


HEAD_NAMES = {
    "class": "the class head alone",
    "distil": "the distillation head alone",
    "softmax_sum": "the sum of the heads' softmax",
    "logit_mean": "the mean of the heads' logits",
}


def is_within(filled: Filled, reference: Reference, value: float) -> bool:
    """Whether a value is within the cell's tolerance of a published one, or within what was printed after ±."""
    published = reference.printed.value
    if published is None:
        return False
    allowed = _allowed(filled)
    if filled.cell.relative:
        allowed *= abs(published)
    allowed = max(allowed, float(reference.printed.uncertainty or 0))
    # The last bit of a sum of decimals is nobody's measurement.
    return abs(value - published) <= allowed + 1e-9 * max(1.0, abs(published))


# Points between two trainings of the same recipe; the authors name about 0.2 (issue 32 of their repository).
RETRAINED = 0.2


def _allowed(filled: Filled) -> float:
    allowed = filled.cell.tolerance or 0.0
    return max(allowed, RETRAINED) if _retrained(filled) and not filled.cell.relative else allowed


def _tolerance(filled: Filled) -> str:
    tolerance = _allowed(filled)
    return f"{tolerance:.0%}" if filled.cell.relative else f"{tolerance:g} {filled.cell.unit}".strip()


def _named(references: Iterable[Reference]) -> str:
    return " and ".join(f"{r.source.cite} ({r.printed.text})" for r in references)


def _shape(table: Table, column: Column) -> Shape | None:
    """Give order and family ratios of a column, or None where too few rows were measured."""
    rows = {row.key: row for row in table.spec.rows}
    pairs: dict[str, tuple[float, float]] = {}
    jobs: dict[str, str] = {}
    for row in rows:
        filled = table.cell(row, column.key)
        measurement, published = filled.measurement, _sound(filled, table.spec)
        if measurement is None or isinstance(measurement.value, str) or published is None or filled.planned.job is None:
            continue
        pairs[row] = (measurement.value, published)
        jobs.setdefault(filled.planned.job.key, row)
    distinct = [pairs[row] for row in jobs.values()]
    if len(distinct) < LEAST_ROWS_FOR_SHAPE:
        return None
    measured, published_all = zip(*distinct, strict=True)
    ratios = []
    for row, (value, published) in pairs.items():
        family = table.spec.families.get(rows[row].family or "")
        if family is None or family.reference not in pairs or family.reference == row:
            continue
        value_of, published_of = pairs[str(family.reference)]
        ratios.append(
            Ratio(
                row=rows[row],
                reference=rows[str(family.reference)],
                measured=value / value_of,
                published=published / published_of,
            )
        )
    return Shape(
        column=column,
        machine=str(column.machine),
        rows=len(distinct),
        kendall=rank_correlation(measured, published_all, measure=kendall),
        spearman=rank_correlation(measured, published_all, measure=spearman),
        ratios=tuple(ratios),
    )


def _sound(filled: Filled, spec: Spec) -> float | None:
    """Give the paper's value unless it is known to be wrong."""
    printed = filled.cell.printed
    if printed is None or any(spec.footnotes[m].effect == "wrong" for m in printed.marks if m in spec.footnotes):
        return None
    return printed.value
