"""What was measured in two environments -> whether the second is slower than the first, or its models are worse."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from harness.errors import JobError
from harness.gate.baseline import name_of
from harness.gate.cost import decide_cost
from harness.gate.decision import Decision, Evidence, Outcome
from harness.gate.gate import Gate, GatedCell, decide_numbers, decide_texts
from harness.gate.paired import paired_test
from harness.plan.job import Job
from harness.plan.plan import Plan, PlannedCell
from harness.run.turns import FailsBeforeError, Measured, ProcessPair
from harness.specs import Cell
from harness.stats import Interval, student
from harness.store.cost import from_data
from harness.store.result import Result
from harness.store.store import Store

# Of the interval that decides.  It is looked at after each pair, and an alarm needs it to be beyond what is allowed: a
# change of nothing at all is then several standard errors away.
CONFIDENCE = 0.99

# With fewer, chance alone can make a few ratios agree.
LEAST_PAIRS = 5


def change_of(pairs: Sequence[ProcessPair]) -> Interval:
    """Return the change of the throughput, as a fraction, with its 99 % interval over the pairs of processes."""
    logs = [-math.log(pair.slower) for pair in pairs]
    mean = statistics.fmean(logs)
    half = student(len(logs) - 1, (1 + CONFIDENCE) / 2) * statistics.stdev(logs) / math.sqrt(len(logs))
    value, low, high = (math.expm1(end) for end in (mean, mean - half, mean + half))
    return Interval(value=value, low=low, high=high)


def decide(pairs: Sequence[ProcessPair], allowed: float) -> Decision:
    """Decide about the pairs of a job; what is not decided may be after more pairs."""
    if len(pairs) < LEAST_PAIRS:
        count = f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'} of processes"
        return Decision(outcome=Outcome.NOT_JUDGED, reason=f"not decided by {count}; give more --budget")
    change = change_of(pairs)
    if change.high < -allowed:
        outcome = Outcome.REGRESSED
    elif change.low > allowed:
        outcome = Outcome.IMPROVED
    elif change.low > -allowed and change.high < allowed:
        outcome = Outcome.HELD
    else:
        half = 100 * (change.high - change.low) / 2
        reason = f"not decided by {len(pairs)} pairs of processes: {100 * change.value:+.1f} ± {half:.1f} %"
        return Decision(outcome=Outcome.NOT_JUDGED, reason=f"{reason}, {100 * allowed:g} % allowed; give more --budget")
    evidence = Evidence(
        before=statistics.median(pair.before for pair in pairs),
        now=statistics.median(pair.now for pair in pairs),
        difference=change,
        allowed=allowed,
        relative=True,
        processes=(len(pairs), len(pairs)),
    )
    return Decision(outcome=outcome, evidence=evidence)


def is_decided(pairs: Sequence[ProcessPair], allowed: float) -> bool:
    """Whether more pairs would not change what is decided."""
    return decide(pairs, allowed).outcome is not Outcome.NOT_JUDGED


def _failure(error: JobError) -> Decision:
    fails_before = isinstance(error, FailsBeforeError)
    return Decision(outcome=Outcome.NOT_JUDGED if fails_before else Outcome.MISSING, reason=str(error))


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What one environment gave for each job, by the job without code: a result in `store`, or why there is none."""

    store: Store
    outcomes: Mapping[Job, Result | str]


def _decide_cost(measured: Measured, job: Job) -> Decision | None:
    """Decide about what the forward pass of a job does; None where it was not counted on both sides."""
    counted = measured.costs.get(job.key, {})
    return decide_cost(from_data(counted[0]), from_data(counted[1])) if len(counted) == 2 else None


def gate_of(
    plan: Plan,
    measured: Measured,
    allowed: float,
    sides: Sequence[Outcomes] = (),
    names: tuple[str, ...] = ("old", "new"),
) -> Gate:
    """Return the gate over the cells that jobs fill which took turns, or have outcomes in both sides, old and new.

    `names` are those of the environments.
    """
    decisions = {
        **{job: decide(pairs, allowed) for job, pairs in measured.pairs.items()},
        **{job: _failure(error) for job, error in measured.failed.items()},
    }
    valued = [each for each in plan.cells if each.cell.kind == "evaluate" and _has_outcomes(each.job, sides)]
    tests = len({(each.job, each.cell.metric) for each in valued})

    def decisions_of(planned: PlannedCell) -> Iterator[tuple[str, Decision | None]]:
        job = planned.job
        if job is not None and planned.cell.metric == "throughput":
            yield "baseline", decisions.get(job)
            yield "cost", _decide_cost(measured, job)
        elif _has_outcomes(job, sides):
            yield "baseline", _decide_value(planned.cell, job, sides, tests)

    tables = {spec.id: name_of(spec) for spec in plan.specs}
    cells = [
        GatedCell(table=tables[planned.table], cell=planned.cell, against=against, **vars(decision))
        for planned in plan.cells
        for against, decision in decisions_of(planned)
        if decision is not None
    ]
    return Gate(cells=tuple(cells), with_baseline=True, command="harness ab", sides=names)


def _has_outcomes(job: Job | None, sides: Sequence[Outcomes]) -> TypeGuard[Job]:
    return job is not None and bool(sides) and all(job.without_code in side.outcomes for side in sides)


def _decide_value(cell: Cell, job: Job, sides: Sequence[Outcomes], tests: int) -> Decision:
    """Decide about a value of a job in both sides: by the same images one by one, where it is an accuracy."""
    old, new = (side.outcomes[job.without_code] for side in sides)
    if isinstance(old, str):
        return _failure(FailsBeforeError(f"it fails in the old environment: {old}"))
    if isinstance(new, str):
        return _failure(JobError(f"it fails in the new environment: {new}"))
    metric = str(cell.metric)
    before, now = old.metrics.get(metric), new.metrics.get(metric)
    if before is None or now is None:
        side = "old" if before is None else "new"
        error = FailsBeforeError if before is None else JobError
        return _failure(error(f"it gives no {metric} in the {side} environment"))
    if isinstance(before.value, str) or isinstance(now.value, str):
        return decide_texts(now.value, before.value)
    paths = [side.store.predictions_of(result) for side, result in zip(sides, (old, new), strict=True)]
    paired = paired_test(paths[0], paths[1], metric) if job.kind == "evaluate" else None
    return decide_numbers(cell, now.value, before.value, paired, tests)
