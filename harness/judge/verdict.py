"""`Table` -> `Diff`: a verdict for each cell with its reason, and the shape of a throughput column as a whole."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from harness.judge.ablation import LEAST_ROWS, Ablation, ablation_of
from harness.judge.table import FilledCell, Table
from harness.plan.plan import Options, make_job
from harness.specs import Column, PublishedValue, Reference, Row, Spec
from harness.stats import Interval, kendall, rank_correlation, spearman
from harness.store.result import Result

# Points between two trainings of the same recipe; the authors name about 0.2 (issue 32 of their repository).
RETRAINING_SPREAD = 0.2

# Kinds of job that a published value was computed by on these very images with these weights: there is no noise.
DETERMINISTIC = ("evaluate", "agreement", "dataset")

HEAD_NAMES = {
    "class": "the class head alone",
    "distil": "the distillation head alone",
    "softmax_sum": "the sum of the heads' softmax",
    "logit_mean": "the mean of the heads' logits",
}


class Verdict(StrEnum):
    """The outcome of comparing a cell with its published values."""

    MATCH = "match"
    NOISE = "noise"
    DEVIATES = "deviates"
    EXPLAINED = "explained"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class JudgedCell:
    """A cell and its verdict.  `delta` is measured less the first published value, in the cell's unit."""

    filled: FilledCell
    verdict: Verdict
    reason: str
    delta: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A row's throughput over that of its family's reference row, measured and published."""

    row: Row
    reference: Row
    measured: float
    published: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a throughput column tells on any machine: the order of its rows and their ratios.

    `rows` counts distinct models; rows that share a job count once.
    """

    column: Column
    machine: str
    rows: int
    kendall: Interval
    spearman: Interval
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """A table and the verdict of each cell."""

    table: Table
    judged_cells: Mapping[tuple[str, str], JudgedCell]

    # The next two are computed when first asked for: a gate needs neither, and their intervals take as long as
    # everything else together.

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The order and the ratios of each throughput column that has enough rows."""
        columns = [column for column in self.spec.columns if column.machine]
        return tuple(shape for column in columns if (shape := _shape(self.table, column)))

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """What each row changes, by column, where the table was trained at a small scale."""
        return ablation_of(self.table)

    @property
    def spec(self) -> Spec:
        """The table's spec."""
        return self.table.spec

    @property
    def counts(self) -> Counter[Verdict]:
        """How often each verdict occurs, over cells that are measured and do not match by construction."""
        return Counter(
            cell.verdict
            for cell in self.judged_cells.values()
            if not cell.filled.planned.idle and not cell.filled.matches_by_construction
        )


def compare(table: Table) -> Diff:
    """Judge every cell of a table."""
    return Diff(table=table, judged_cells={key: judge(filled, table.spec) for key, filled in table.cells.items()})


def judge(filled: FilledCell, spec: Spec) -> JudgedCell:
    """Judge one cell: the first reason not to compare wins, otherwise the numbers decide."""

    def judged(verdict: Verdict, reason: str, delta: float | None = None) -> JudgedCell:
        return JudgedCell(filled=filled, verdict=verdict, reason=reason, delta=delta)

    planned, result, measurement = filled.planned, filled.result, filled.measurement
    if planned.idle:
        return judged(Verdict.NOT_COMPARABLE, planned.blocked)
    if result is None:
        return judged(
            Verdict.MISSING, planned.blocked or "not measured yet; run `harness reproduce` with these options"
        )
    if result.error is not None:
        return judged(Verdict.FAILED, result.error)
    if measurement is None:
        return judged(Verdict.MISSING, f"a {result.job.kind} job gives no {filled.cell.metric} for this model")
    references = filled.cell.references
    if not references:
        return judged(Verdict.NOT_COMPARABLE, "nothing was published here")
    if isinstance(measurement.value, str):
        if measurement.value == references[0].published.text:
            return judged(Verdict.MATCH, "the same text")
        return judged(Verdict.DEVIATES, f"published is {references[0].published.text}")
    published = references[0].published.value
    delta = measurement.value - published if published is not None and not filled.at_small_scale else None
    reason = planned.other_weights or _other_conditions(filled, result)
    if reason:
        return judged(Verdict.NOT_COMPARABLE, reason, delta)
    verdict, reason = _by_the_numbers(filled, measurement.value, spec)
    assumed = "".join(f"; its recipe assumes {setting}" for setting in planned.assumed)
    return judged(verdict, reason + assumed, delta)


def _other_conditions(filled: FilledCell, result: Result) -> str:
    """Return why a number may not be judged: another machine, or settings that are not the published ones."""
    if filled.planned.scaled_down:
        return f"trained at the {filled.planned.scale} scale, which stands in for the published one"
    if filled.planned.changes:
        return f"trained with {filled.planned.changes}, which is not how the published value was"
    images = result.facts.get("images")
    if images and not images["whole"] and result.job.kind != "train":
        return f"measured on {images['said']}"
    if result.job.needs or result.job.kind in ("train", "recipe"):
        return ""  # the recipe says what was done
    job, published = result.job, make_job(filled.cell, Options())
    changed = sorted({name for name, _ in set(job.settings) ^ set(published.settings)})
    if "protocol" in changed:
        return f"measured under the {job['protocol']} protocol, published under the {published['protocol']} one"
    machine = filled.cell.column.machine
    if machine and not result.machine.matches(machine):
        return f"measured on {result.machine.label}, published for {machine}"
    if changed:
        described = ", ".join(f"{name} = {job.get(name, 'None')}" for name in changed)
        return f"measured with {described}, which is not how the published value was"
    return ""


def _by_the_numbers(filled: FilledCell, value: float, spec: Spec) -> tuple[Verdict, str]:
    cell = filled.cell
    known_wrong = [text for r in cell.references for text in _notes(r.published, spec, "wrong")]
    explaining = [text for r in cell.references for text in _notes(r.published, spec, "explains")]
    judged = [r for r in cell.references if not _notes(r.published, spec, "wrong")]
    if not judged:
        return Verdict.EXPLAINED, known_wrong[0]
    within = [reference for reference in judged if is_within(filled, reference, value)]
    outside = [reference for reference in judged if reference not in within]
    paper = [reference for reference in judged if reference.source.kind == "paper"]
    if within and (all(r in within for r in paper) if paper else not outside):
        if known_wrong:
            return Verdict.EXPLAINED, f"within {_tolerance(filled)} of {_named(within)}; {known_wrong[0]}"
        return Verdict.MATCH, f"within {_tolerance(filled)} of {_named(within)}"
    if within:
        return Verdict.EXPLAINED, f"matches {_named(within)}, not {_named(outside)}"
    if variant := explanation(filled, judged):
        return Verdict.EXPLAINED, variant
    if inside := [reference for reference in judged if _in_interval(filled, reference)]:
        return Verdict.NOISE, f"outside {_tolerance(filled)}, but the 95 % interval holds {_named(inside)}"
    if explaining:
        return Verdict.EXPLAINED, explaining[0]
    return Verdict.DEVIATES, f"not within {_tolerance(filled)} of {_named(outside)}"


def _notes(published: PublishedValue, spec: Spec, effect: str) -> list[str]:
    """Return the texts of a value's footnotes that have this effect."""
    notes = (spec.footnotes[mark] for mark in published.marks if mark in spec.footnotes)
    return [note.text for note in notes if note.effect == effect]


def _in_interval(filled: FilledCell, reference: Reference) -> bool:
    """Whether a published value is within the interval of the measured one, where that is subject to noise."""
    measurement, published = filled.measurement, reference.published.value
    if measurement is None or published is None or measurement.low is None or measurement.high is None:
        return False
    deterministic = filled.cell.kind in DETERMINISTIC and not _retrained(filled)
    return not deterministic and measurement.low <= published <= measurement.high


def _retrained(filled: FilledCell) -> bool:
    return bool(filled.result and filled.result.job.needs)


@dataclass(frozen=True, kw_only=True)
class HeadVariant:
    """A cell's accuracy by another crop or another head; `head` is empty where the model has only one."""

    crop: float
    head: str
    value: float


def head_variants(filled: FilledCell) -> list[HeadVariant]:
    """Return a cell's accuracy by every crop that was measured and every head, the cell's own first."""
    metric = str(filled.cell.metric).partition("_")[0]
    variants = []
    for result in filter(None, (filled.result, *filled.others)):
        heads = result.facts.get("heads", {}) if result.error is None else {}
        variants += [
            HeadVariant(crop=float(result.job["crop"]), head=head if len(heads) > 1 else "", value=values[metric])
            for head, values in heads.items()
            if metric in values
        ]
    return variants


def explanation(filled: FilledCell, judged: Iterable[Reference]) -> str:
    """Describe the crop or head that gives a published value; empty if none that was measured does."""
    for reference in judged:
        matching = [variant for variant in head_variants(filled) if is_within(filled, reference, variant.value)]
        if matching:
            best = min(matching, key=lambda variant: abs(variant.value - float(reference.published.value or 0)))
            how = f"crop {best.crop:g}" + (f" and {HEAD_NAMES[best.head]}" if best.head else "")
            return f"{how} gives {best.value:.2f}, as {_named([reference])}"
    return ""


def is_within(filled: FilledCell, reference: Reference, value: float) -> bool:
    """Whether a value is within the cell's tolerance of a published one, or within its published uncertainty."""
    published = reference.published.value
    if published is None:
        return False
    allowed = _allowed(filled)
    if filled.cell.relative:
        allowed *= abs(published)
    allowed = max(allowed, float(reference.published.uncertainty or 0))
    # A difference in the last bit of a sum of decimals is not a measured one.
    return abs(value - published) <= allowed + 1e-9 * max(1.0, abs(published))


def _allowed(filled: FilledCell) -> float:
    allowed = filled.cell.tolerance or 0.0
    return max(allowed, RETRAINING_SPREAD) if _retrained(filled) and not filled.cell.relative else allowed


def _tolerance(filled: FilledCell) -> str:
    tolerance = _allowed(filled)
    return f"{100 * tolerance:.0f} %" if filled.cell.relative else f"{tolerance:g} {filled.cell.unit}".strip()


def _named(references: Iterable[Reference]) -> str:
    return " and ".join(f"{r.source.cite} ({r.published.text})" for r in references)


def _shape(table: Table, column: Column) -> Shape | None:
    """Return the order and the family ratios of a column; None where too few rows were measured."""
    rows = {row.key: row for row in table.spec.rows}
    pairs: dict[str, tuple[float, float]] = {}
    jobs: dict[str, str] = {}
    for row in rows:
        filled = table.cell(row, column.key)
        number, published, job = filled.number, filled.cell.published, filled.planned.job
        if number is None or job is None or published is None or published.value is None:
            continue
        if not _notes(published, table.spec, "wrong"):
            pairs[row] = (number, published.value)
            jobs.setdefault(job.key, row)
    distinct = [pairs[row] for row in jobs.values()]
    if len(distinct) < LEAST_ROWS:
        return None
    ratios = []
    for row, (measured, theirs) in pairs.items():
        family = table.spec.families.get(rows[row].family or "")
        reference = family.reference if family else row
        if reference != row and reference in pairs:
            ours, paper = measured / pairs[reference][0], theirs / pairs[reference][1]
            ratios.append(Ratio(row=rows[row], reference=rows[reference], measured=ours, published=paper))
    return Shape(
        column=column,
        machine=str(column.machine),
        rows=len(distinct),
        kendall=rank_correlation(*zip(*distinct, strict=True), measure=kendall),
        spearman=rank_correlation(*zip(*distinct, strict=True), measure=spearman),
        ratios=tuple(ratios),
    )
