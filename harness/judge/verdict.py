"""`Table` -> `Diff`: a verdict for each cell with its reason, and the shape of a throughput column as a whole."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from shlex import quote
from statistics import fmean

from harness.judge.ablation import LEAST_ROWS, Ablation, ablation_of
from harness.judge.chain import broken_link
from harness.judge.orders import MachineOrder, published_orders
from harness.judge.table import FilledCell, Table, derived_measurement
from harness.machine import same_software
from harness.plan.job import Job
from harness.plan.plan import OVERRIDES, Options, make_job
from harness.specs import Cell, Column, Footnote, Reference, Row, Spec
from harness.specs.catalog import EDITIONS, name_to_type
from harness.specs.datasets import EMBEDDED
from harness.specs.kinds import KINDS, PERCENTILES
from harness.stats import RATIOS, Interval, kendall, least_values, rank_correlation, spearman
from harness.store.result import Result
from harness.store.select import is_noisy, reference_seconds

# Points between two trainings of the same recipe; the authors name about 0.2 (issue 32 of their repository).
RETRAINING_SPREAD = 0.2

# Two throughputs make no ratio where the machine itself was slower by more than this share during one of them.
MOST_DRIFT = 0.1

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

    @property
    def is_counted(self) -> bool:
        """Whether the verdict counts: there is something to measure, and it does not match by construction."""
        measured = self.verdict is Verdict.DEVIATES or not self.filled.matches_by_construction
        return measured and not self.filled.planned.idle


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

    `rows` counts distinct models, rows that share a job once; `noisy` those of them that something else disturbed.
    `orders` tells on which of the machines that timm published the measured order is the same.
    """

    column: Column
    machine: str
    rows: int
    noisy: int
    kendall: Interval
    spearman: Interval
    ratios: tuple[Ratio, ...]
    orders: tuple[MachineOrder, ...] = ()


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
        return Counter(cell.verdict for cell in self.judged_cells.values() if cell.is_counted)


def compare(table: Table) -> Diff:
    """Judge every cell of a table."""
    return Diff(table=table, judged_cells={key: judge(filled, table.spec) for key, filled in table.cells.items()})


def judge(filled: FilledCell, spec: Spec) -> JudgedCell:
    """Judge one cell, by what was measured for it or by the cells that it is derived of."""
    return _judge_derived(filled, spec) if filled.operands else _judge_measured(filled, spec)


def _judge_measured(filled: FilledCell, spec: Spec) -> JudgedCell:
    """Judge a measured cell: the first reason not to compare wins, otherwise the numbers decide."""

    def judged(verdict: Verdict, reason: str, delta: float | None = None) -> JudgedCell:
        return JudgedCell(filled=filled, verdict=verdict, reason=reason, delta=delta)

    measurement, references = filled.measurement, filled.cell.references
    if measurement is None or filled.planned.idle:
        return judged(*_why_no_value(filled))
    if not references:
        return judged(Verdict.NOT_COMPARABLE, "nothing was published here")
    value, published = measurement.value, references[0].published.value
    delta = None if isinstance(value, str) or published is None or filled.at_small_scale else value - published
    reason = broken_link(filled)
    if reason:
        return judged(Verdict.NOT_COMPARABLE, reason, delta)
    verdict, reason = _by_the_values(filled, value, spec)
    versions = _versions(filled.cell.column, filled.result) if verdict is Verdict.DEVIATES else ""
    return judged(verdict, reason + versions + _assumptions(filled), delta)


def _versions(column: Column, result: Result | None) -> str:
    """Name both versions of torch, where they differ: the difference may be theirs."""
    here = result.software.get("torch", "").partition("+")[0] if result else ""
    differ = column.torch not in (None, here)
    return f"; torch is {here or 'unknown'} here and was {column.torch} there" if differ else ""


def _why_no_value(filled: FilledCell) -> tuple[Verdict, str]:
    """Return the verdict of a measured cell that has no value to judge, and the reason."""
    planned, result = filled.planned, filled.result
    if planned.idle:
        return Verdict.NOT_COMPARABLE, planned.blocked
    if result is None:
        return Verdict.MISSING, why_missing(filled)
    if result.error is not None:
        return Verdict.FAILED, result.error
    return Verdict.MISSING, _why_no_metric(filled, result)


def _why_no_metric(filled: FilledCell, result: Result) -> str:
    """Return why a good result lacks the metric of a cell, and what gives it."""
    metric, kind = str(filled.cell.metric), result.job.kind
    if kind != "throughput" or metric == "energy":
        return f"a {kind} job gives no {metric} for this model"
    if "latency" not in result.metrics:
        command = f"{measuring_command(filled)} --rerun"
        return f"run {result.id} is from before {metric} was recorded; `{command}` measures it"
    if metric in PERCENTILES:
        least, timed = least_values(PERCENTILES[metric]), len(result.metrics["throughput"].samples)
        return f"{metric} needs {least} timed iterations, not {timed}; set repeats = {least}, or give --repeats {least}"
    return "nothing was compiled; set compile = true" if metric == "compile_time" else "the device does not tell it"


def _assumptions(filled: FilledCell) -> str:
    return "".join(f"; its recipe assumes {setting}" for setting in filled.planned.assumed)


def why_missing(filled: FilledCell) -> str:
    """Return why a cell has no result, and with which options one shows that was measured otherwise."""
    job, other = filled.planned.job, filled.elsewhere
    if filled.planned.blocked or job is None or other is None:
        return filled.planned.blocked or f"not measured yet; `{measuring_command(filled)}` measures it"
    if other.retired:
        run = f"run {other.result.id}"
        command = measuring_command(filled)
        return f"measured, but by a method that was corrected since: {run}; `{command}` measures it again"
    usual, measured = make_job(filled.cell, Options()), other.result.job
    differing = {name: measured[name] for name in OVERRIDES if name in dict(measured.settings)}
    differing = {name: value for name, value in differing.items() if job.get(name) != value}
    given = [f"--{name} {value}" for name, value in differing.items() if usual.get(name) != value]
    given += [f"--machine {quote(other.result.machine.label)}"] if other.other_machine else []
    left_out = [f"--{name}" for name, value in differing.items() if usual.get(name) == value and job.get(name) != ""]
    options = [f"with {' '.join(given)}"] if given else []
    options += [f"without {' '.join(left_out)}"] if left_out else []
    how = [f"{name} = {value}" for name, value in differing.items()]
    how += [f"on {other.result.machine.label}"] if other.other_machine else []
    where = "with other settings" if differing else "on another machine"
    shows = f"`harness report` shows it {' and '.join(options)}"
    return f"measured, but {where}: {', '.join(how)} (run {other.result.id}); {shows}"


def measuring_command(filled: FilledCell) -> str:
    """Return what to type for the result of a cell, with the options that decide which result it is.

    It is the same for all cells of a table that the same options fill, so that a report can say it once.
    """
    planned, job = filled.planned, filled.planned.job
    edition, _, text = planned.table.partition(":")
    words = ["harness reproduce", name_to_type(Path(text))]
    words += [f"--edition {edition}"] if edition != EDITIONS[0] else []
    if planned.scale:
        words += ["--train", *([f"--scale {planned.scale}"] if planned.scaled_down else [])]
    elif job is not None:
        usual = make_job(filled.cell, Options())
        words += [f"--{name} {job[name]}" for name in OVERRIDES if job.get(name) != usual.get(name) and job.get(name)]
        needs_images = job.kind != "train-speed" and job.get("data") not in ("", *EMBEDDED)
        words += [f"--data {job['data']}=PATH"] if needs_images else []
    return " ".join(words)


def _judge_derived(filled: FilledCell, spec: Spec) -> JudgedCell:
    """Judge a derived cell: what keeps one of its operands from being judged keeps the cell from it as well.

    An operand needs no published value of its own.
    """

    def judged(verdict: Verdict, reason: str, delta: float | None = None) -> JudgedCell:
        return JudgedCell(filled=filled, verdict=verdict, reason=reason, delta=delta)

    number, references = filled.number, filled.cell.references
    published = references[0].published.value if references and not filled.at_small_scale else None
    delta = None if number is None or published is None else number - published
    for operand in (operand for operand in filled.operands if operand.measurement is None):
        verdict, reason = _why_no_value(operand)
        return judged(verdict, f"{operand.planned.name}: {reason}")
    if not references:
        return judged(Verdict.NOT_COMPARABLE, "nothing was published here")
    any_machine = _cancels_machine(filled)
    for operand in filled.operands:
        if reason := broken_link(replace(operand, any_machine=any_machine)):
            return judged(Verdict.NOT_COMPARABLE, f"{operand.planned.name}: {reason}", delta)
    timed = [operand.result for operand in filled.operands if operand.result and operand.result.job.exclusive]
    if reason := _different_conditions(timed):
        return judged(Verdict.NOT_COMPARABLE, reason, delta)
    if number is None:
        return judged(Verdict.NOT_COMPARABLE, f"{derivation_text(filled)}: cannot be computed")
    verdict, reason = _by_the_values(filled, number, spec)
    shape = f"; a ratio is judged on any machine, this one is of {timed[0].machine.label}" if any_machine else ""
    return judged(verdict, f"{reason}: {derivation_text(filled)}{shape}{_assumptions(filled)}", delta)


def _cancels_machine(filled: FilledCell) -> bool:
    """Whether a derived cell is a ratio of timed values, which tells the same on any machine that timed both."""
    ratio = filled.cell.derivation is not None and filled.cell.derivation.operation in RATIOS
    return ratio and all(operand.result is not None and operand.result.job.exclusive for operand in filled.operands)


def _different_conditions(timed: Sequence[Result]) -> str:
    """Return why timed results may not be compared with each other: machines, software, or a machine's drift."""
    for other in timed[1:]:
        if not other.machine.is_equivalent(timed[0].machine):
            return f"measured on {timed[0].machine.label} and on {other.machine.label}"
        if not same_software(other.software, timed[0].software):
            return "measured with different versions of the software; measure both again with --rerun"
    references = [seconds for seconds in map(reference_seconds, timed) if seconds is not None]
    drift = max(references, default=1.0) / min(references, default=1.0) - 1
    if drift > MOST_DRIFT:
        return (
            f"the machine as a whole was {100 * drift:.0f} % slower in one measurement than in the other, by its "
            "reference workload; measure both again with --rerun"
        )
    return ""


def derivation_text(filled: FilledCell) -> str:
    """Write how a derived cell follows from its operands, each with its value."""
    operation = filled.cell.derivation.operation if filled.cell.derivation else ""
    word = {"sum": "plus", "difference": "less"}.get(operation, "over")
    parts = [f"{operand.planned.name} ({_plain(operand.number)})" for operand in filled.operands]
    return f" {word} ".join(parts) + (" less one" if operation == "change" else "")


def _plain(value: float | None) -> str:
    """Write a number with four significant digits at least, and no exponent."""
    if not value:
        return "0" if value == 0 else "no number"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _by_the_values(filled: FilledCell, value: float | str, spec: Spec) -> tuple[Verdict, str]:
    cell = filled.cell
    known_wrong = [note for r in cell.references for note in _notes(r, spec, "wrong")]
    judged = [to_judge for r in cell.references if (to_judge := _as_it_should_be(r, cell, spec))]
    if not judged:
        return Verdict.NOT_COMPARABLE, f"no value is known to be right: {known_wrong[0].text}"
    within = [reference for reference in judged if is_within(filled, reference, value)]
    outside = [reference for reference in judged if reference not in within]
    paper = [reference for reference in judged if reference.source.kind == "paper"]
    if within and (all(r in within for r in paper) if paper else not outside):
        matching = "the same text" if isinstance(value, str) else f"within {_tolerances_of(filled, within)}"
        return (Verdict.EXPLAINED, f"{matching}; {known_wrong[0].text}") if known_wrong else (Verdict.MATCH, matching)
    if within:
        return Verdict.EXPLAINED, f"matches {_named(within)}, not {_named(outside)}"
    if isinstance(value, str):
        return Verdict.DEVIATES, f"published is {' and '.join(r.published.text for r in outside)}"
    if variant := explanation(filled, judged):
        return Verdict.EXPLAINED, variant
    if inside := [reference for reference in judged if _in_interval(filled, reference)]:
        allowed = " and ".join(dict.fromkeys(_tolerance(filled, reference) for reference in inside))
        return Verdict.NOISE, f"outside {allowed}, but the 95 % interval holds {_named(inside)}"
    for reference in cell.references:
        for note in _notes(reference, spec, "explains"):
            corrected = _corrected(reference, note, cell)
            if corrected and is_within(filled, corrected, value):
                return Verdict.EXPLAINED, note.text
    return Verdict.DEVIATES, f"not within {_tolerances_of(filled, outside)}"


def _notes(reference: Reference, spec: Spec, effect: str) -> list[Footnote]:
    """Return a value's footnotes that have this effect."""
    notes = (spec.footnotes[mark] for mark in reference.published.marks if mark in spec.footnotes)
    return [note for note in notes if note.effect == effect]


def _as_it_should_be(reference: Reference, cell: Cell, spec: Spec) -> Reference | None:
    """Return a reference with the value that it should have; None where it is wrong and nobody knows the right one."""
    wrong = _notes(reference, spec, "wrong")
    return _corrected(reference, wrong[0], cell) if wrong else reference


def _corrected(reference: Reference, note: Footnote, cell: Cell) -> Reference | None:
    value = note.corrected.get(cell.column.key)
    source = replace(reference.source, cite=f"{reference.source.cite} as corrected")
    return replace(reference, source=source, published=value) if value else None


def _in_interval(filled: FilledCell, reference: Reference) -> bool:
    """Whether a published value is within the interval of the measured one, where that is subject to noise."""
    measurement, published = filled.measurement, reference.published.value
    if filled.operands:
        measurement = derived_measurement(filled, exact=lambda operand: not _has_noise(operand))
    elif not _has_noise(filled) or filled.has_few_samples:
        return False
    if measurement is None or published is None or measurement.low is None or measurement.high is None:
        return False
    return measurement.low <= published <= measurement.high


def _has_noise(filled: FilledCell) -> bool:
    """Whether measuring again may give another value."""
    kind = filled.cell.kind
    return not (kind and KINDS[kind].deterministic) or _retrained(filled)


def _retrained(filled: FilledCell) -> bool:
    return bool(filled.result and filled.result.job.needs)


@dataclass(frozen=True, kw_only=True)
class HeadVariant:
    """A cell's accuracy by another crop or another head; `head` is empty where the model has only one."""

    crop: float
    head: str
    value: float


def head_variants(filled: FilledCell) -> list[HeadVariant]:
    """Return a cell's accuracy by every crop that was measured and every head, the cell's own first.

    Of several seeds it is their mean, as the cell's own is.
    """
    metric = str(filled.cell.metric).partition("_")[0]
    by_variant: dict[tuple[float, str], list[float]] = {}
    for result in filter(None, (filled.result, *filled.repeats, *filled.others)):
        heads = result.facts.get("heads", {}) if result.error is None else {}
        for head, values in heads.items():
            if metric in values:
                key = float(result.job["crop"]), head if len(heads) > 1 else ""
                by_variant.setdefault(key, []).append(values[metric])
    return [HeadVariant(crop=crop, head=head, value=fmean(values)) for (crop, head), values in by_variant.items()]


def explanation(filled: FilledCell, judged: Iterable[Reference]) -> str:
    """Describe the crop or head that gives a published value; empty if none that was measured does."""
    for reference in judged:
        matching = [variant for variant in head_variants(filled) if is_within(filled, reference, variant.value)]
        if matching:
            best = min(matching, key=lambda variant: abs(variant.value - float(reference.published.value or 0)))
            how = f"crop {best.crop:g}" + (f" and {HEAD_NAMES[best.head]}" if best.head else "")
            return f"{how} gives {best.value:.2f}, as {_named([reference])}"
    return ""


def is_within(filled: FilledCell, reference: Reference, value: float | str) -> bool:
    """Whether a value is within the cell's tolerance of a published one, or within its published uncertainty."""
    published = reference.published.value
    if isinstance(value, str):
        return value == reference.published.text
    if published is None:
        return False
    allowed = max(_allowed(filled, reference), float(reference.published.uncertainty or 0))
    # A difference in the last bit of a sum of decimals is not a measured one.
    return abs(value - published) <= allowed + 1e-9 * max(1.0, abs(published))


def _allowed(filled: FilledCell, reference: Reference) -> float:
    """Return the difference from a published value that the spec allows, or that two trainings have."""
    allowed = reference.tolerance or 0.0
    if reference.relative:
        return allowed * abs(reference.published.value or 0.0)
    return max(allowed, _retraining_spread(filled))


def _retraining_spread(filled: FilledCell) -> float:
    """Return by how many points training again may move a value: a difference or a sum by both of its operands."""
    if filled.cell.derivation is not None:
        ratio = filled.cell.derivation.operation in RATIOS
        return 0.0 if ratio else round(math.hypot(*map(_retraining_spread, filled.operands)), 2)
    return RETRAINING_SPREAD if _retrained(filled) else 0.0


def _tolerance(filled: FilledCell, reference: Reference) -> str:
    """Describe the difference from a reference that is allowed: the tolerance, or a published uncertainty above it."""
    allowed, uncertainty = _allowed(filled, reference), reference.published.uncertainty
    if uncertainty and float(uncertainty) > allowed:
        return f"the published ± {uncertainty} {filled.cell.unit}".strip()
    if reference.relative:
        return f"{100 * (reference.tolerance or 0.0):g} %"
    return f"{allowed:g} {filled.cell.unit}".strip()


def tolerance_text(filled: FilledCell) -> str:
    """Return how far a cell may be from the first value published for it, with ± before it; empty where it has none."""
    references = filled.cell.references
    if not references or filled.cell.text or filled.at_small_scale:
        return ""
    return f"± {_tolerance(filled, references[0]).removeprefix('the published ± ')}"


def _tolerances_of(filled: FilledCell, references: Iterable[Reference]) -> str:
    """Describe the allowed difference from each of some references."""
    groups: dict[str, list[Reference]] = {}
    for reference in references:
        groups.setdefault(_tolerance(filled, reference), []).append(reference)
    return " and ".join(f"{text} of {_named(group)}" for text, group in groups.items())


def _named(references: Iterable[Reference]) -> str:
    return " and ".join(f"{r.source.cite} ({r.published})" for r in references)


def _shape(table: Table, column: Column) -> Shape | None:
    """Return the order and the family ratios of a column; None where too few rows were measured."""
    rows = {row.key: row for row in table.spec.rows}
    pairs: dict[str, tuple[float, float]] = {}
    jobs: dict[Job, str] = {}
    for row in rows:
        filled = table.cell(row, column.key)
        number, published, job = filled.number, filled.cell.published, filled.planned.job
        if number is None or job is None or published is None or published.value is None:
            continue
        if not table.spec.is_wrong(published):
            pairs[row] = (number, published.value)
            jobs.setdefault(job, row)
    distinct = [pairs[row] for row in jobs.values()]
    results = (table.cell(row, column.key).result for row in jobs.values())
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
        noisy=sum(result is not None and is_noisy(result) for result in results),
        kendall=rank_correlation(*zip(*distinct, strict=True), measure=kendall),
        spearman=rank_correlation(*zip(*distinct, strict=True), measure=spearman),
        ratios=tuple(ratios),
        orders=_orders(table.spec.orders, {job: pairs[row][0] for job, row in jobs.items()}),
    )


def _orders(others: Path | None, measured: Mapping[Job, float]) -> tuple[MachineOrder, ...]:
    """Compare the order of what was measured with that on published machines, inference and training each."""
    if others is None:
        return ()
    speeds: dict[str, dict[tuple[str, int], float]] = {}
    for job, number in measured.items():
        if job.kind == "throughput" and not job.get("width"):
            step = str(job.get("step", "inference"))
            speeds.setdefault(step, {})[str(job["model"]), int(job["res"])] = number
    return tuple(
        order for step, numbers in speeds.items() for order in published_orders(numbers, step=step, table=others)
    )
