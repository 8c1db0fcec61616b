"""Pairs of processes that took turns -> whether the second of two environments is slower than the first."""

import math
import statistics
from collections.abc import Sequence

from harness.errors import JobError
from harness.gate.baseline import name_of
from harness.gate.cost import decide_cost
from harness.gate.decision import Decision, Evidence, Outcome
from harness.gate.gate import Gate, GatedCell
from harness.plan.job import Job
from harness.plan.plan import Plan
from harness.run.turns import FailsBeforeError, Measured, ProcessPair
from harness.stats import Interval, student
from harness.store.cost import from_data

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


def _decide_cost(measured: Measured, job: Job) -> Decision | None:
    """Decide about what the forward pass of a job does; None where it was not counted on both sides."""
    counted = measured.costs.get(job.key, ())
    return decide_cost(*map(from_data, counted)) if len(counted) == 2 else None


def gate_of(plan: Plan, measured: Measured, allowed: float) -> Gate:
    """Return the gate over the cells that the measured jobs fill."""
    decisions = {
        **{job: decide(pairs, allowed) for job, pairs in measured.pairs.items()},
        **{job: _failure(error) for job, error in measured.failed.items()},
    }
    costs = {job: _decide_cost(measured, job) for job in decisions}
    names = {spec.id: name_of(spec) for spec in plan.specs}
    cells = [
        GatedCell(table=names[planned.table], cell=planned.cell, against=against, **vars(decision))
        for planned in plan.cells
        if planned.job in decisions and planned.cell.metric == "throughput"
        for against, decision in (("baseline", decisions[planned.job]), ("cost", costs[planned.job]))
        if decision is not None
    ]
    return Gate(cells=tuple(cells), with_baseline=True, command="harness ab")
