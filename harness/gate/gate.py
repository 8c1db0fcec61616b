"""`Diff`s + `Baseline` -> `Gate`: which cells are worse than published, or than in the baseline, beyond noise."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.errors import HarnessError
from harness.gate.baseline import (
    THROUGHPUT,
    Baseline,
    BaselineCell,
    BaselineRun,
    median_throughput,
    name_of,
    throughput_run,
)
from harness.gate.cost import decide_cost
from harness.gate.decision import Decision, Evidence, Outcome
from harness.gate.noise import LEAST_PROCESSES, DriftReference, process_throughput, throughput_change
from harness.gate.paired import PairedTest, paired_test
from harness.judge.chain import unknown_origin
from harness.judge.table import EXACT, FilledCell, fingerprint_of
from harness.judge.verdict import Diff, Verdict, measuring_command, why_missing
from harness.plan.job import Job
from harness.specs import Cell
from harness.stats import Interval, Noise, noise_of
from harness.store.cost import cost_of
from harness.store.predictions import check_accuracy
from harness.store.result import Result
from harness.store.select import Selection, is_noisy
from harness.store.store import Store

# Of all paired tests of a check together: where a change flips images but makes nothing worse, one check in twenty may
# say otherwise.  A measurement of the same weights flips none.
SIGNIFICANT = 0.05

# Kinds that store predictions.
PAIRED = ("evaluate", "train")


@dataclass(frozen=True, kw_only=True)
class GatedCell(Decision):
    """One cell compared with the `paper`, with the `baseline`, or with what its forward pass did there, its `cost`."""

    table: str
    cell: Cell
    against: str


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Every cell that was compared with something, by a `command`.

    `new` counts measured cells that the baseline does not have.  `sides` names the old and the new of two environments
    that are shown side by side.
    """

    cells: tuple[GatedCell, ...]
    with_baseline: bool = False
    new: int = 0
    command: str = "harness check"
    sides: tuple[str, ...] = ()

    @property
    def failing(self) -> list[GatedCell]:
        """The cells that make the gate fail, worst first."""
        failing = (cell for cell in self.cells if cell.outcome.fails)
        return sorted(failing, key=lambda cell: list(Outcome).index(cell.outcome))

    @property
    def empty(self) -> bool:
        """Whether no cell was compared with the baseline, or with the paper where there is none."""
        against = "baseline" if self.with_baseline else "paper"
        return not any(cell.outcome is not Outcome.NOT_JUDGED for cell in self.cells if cell.against == against)


def against_paper(diff: Diff, fail_on: frozenset[Verdict]) -> list[GatedCell]:
    """Compare each cell with what was published; the verdicts in `fail_on` fail."""
    return [
        GatedCell(
            table=name_of(diff.spec),
            cell=judged.filled.cell,
            against="paper",
            **vars(_decide_by_verdict(judged.verdict, judged.reason, fail_on)),
        )
        for judged in diff.judged_cells.values()
        if judged.is_counted
    ]


def _decide_by_verdict(verdict: Verdict, reason: str, fail_on: frozenset[Verdict]) -> Decision:
    if verdict in fail_on:
        if verdict is Verdict.MISSING:
            return Decision(outcome=Outcome.MISSING, reason=reason)
        return Decision(outcome=Outcome.DEVIATES, reason=f"{verdict}: {reason}")
    if verdict is Verdict.DEVIATES:
        return Decision(outcome=Outcome.HELD, reason=f"{verdict}, which --fail-on lets pass: {reason}")
    unjudged = (Verdict.NOT_COMPARABLE, Verdict.MISSING, Verdict.FAILED)
    outcome = Outcome.NOT_JUDGED if verdict in unjudged else Outcome.HELD
    return Decision(outcome=outcome, reason=f"{verdict}: {reason}")


@dataclass(frozen=True, kw_only=True)
class LaterRuns:
    """The `quiet` (clean) runs of a throughput since the baseline, newest first; `noisy` more were not.

    Of the quiet ones the `comparable` count; the others were on a machine that was slower than the `reference`.
    """

    quiet: Sequence[BaselineRun]
    noisy: int
    reference: DriftReference | None

    @cached_property
    def comparable(self) -> list[BaselineRun]:
        """The runs that count.  Where the reference workload was not measured, nothing tells that a machine drifted."""
        return [run for run in self.quiet if not self.reference or self.reference.drift([run.reference_seconds]) <= 0]

    @property
    def exclusions(self) -> str:
        """Which runs do not count, in brackets; empty if all do."""
        parts = [f"{self.noisy} more were noisy"] if self.noisy else []
        drifted = [run.reference_seconds for run in self.quiet if run not in self.comparable and run.reference_seconds]
        if drifted and self.reference:
            slower = 100 * (statistics.median(drifted) / self.reference.seconds - 1)
            parts.append(
                f"{len(drifted)} more were on a slower machine as a whole, "
                f"its reference workload taking {slower:+.0f} %"
            )
        return f" ({'; '.join(parts)})" if parts else ""


@dataclass(frozen=True, kw_only=True)
class BaselineJudge:
    """Compares cells with a baseline.

    `store` has the results of `selection`, `baseline_store` the runs of the baseline (often the same folder).  A
    throughput is judged by its `runs` newest clean runs.
    """

    baseline: Baseline
    selection: Selection
    store: Store
    baseline_store: Store
    runs: int = LEAST_PROCESSES
    allow_missing: bool = False

    def judge(self, diffs: Sequence[Diff]) -> list[GatedCell]:
        """Judge every cell that both the tables and the baseline have."""
        cells = {
            (name_of(diff.spec), *key): judged.filled
            for diff in diffs
            for key, judged in diff.judged_cells.items()
            if judged.is_counted and (name_of(diff.spec), *key) in self.baseline.cells
        }
        # Tables share jobs: the same comparison is made once, and counts once.
        compared = {key: (self.baseline.cells[key].runs, filled.cell.metric) for key, filled in cells.items()}
        tests = Counter(metric == THROUGHPUT for _, metric in set(compared.values()))
        decisions: dict[object, Decision] = {}
        gated = []
        for key, filled in cells.items():
            cell = filled.cell
            comparison = (compared[key], cell.tolerance, cell.better)
            if comparison not in decisions:
                old, count = self.baseline.cells[key], tests[cell.metric == THROUGHPUT]
                decisions[comparison] = self._decide(filled, old, count)
            gated.append(GatedCell(table=key[0], cell=cell, against="baseline", **vars(decisions[comparison])))
            if decision := self._decide_cost(filled):
                gated.append(GatedCell(table=key[0], cell=cell, against="cost", **vars(decision)))
        return gated

    def _decide_cost(self, filled: FilledCell) -> Decision | None:
        """Decide about what the forward pass of a throughput does; None where nothing was counted."""
        result = filled.result
        if result is None or result.error is not None or filled.cell.metric not in (THROUGHPUT, "operators"):
            return None
        return decide_cost(self.baseline.costs.get(result.job.without_code.key), cost_of(result))

    def _decide(self, filled: FilledCell, old: BaselineCell, tests: int) -> Decision:
        """Return the first reason not to compare, otherwise what the numbers decide."""
        result, before = filled.result, [self.baseline.runs[run] for run in old.runs]
        missing = _why_missing(filled)
        if missing or result is None:
            return Decision(outcome=Outcome.NOT_JUDGED if self.allow_missing else Outcome.MISSING, reason=missing)
        reason = _changed_method(before[0].job, result.job) or unknown_origin(filled)
        if reason:
            return _not_judged(reason)
        if result.job.exclusive:
            return self._decide_throughput(filled.cell, result, before, tests)
        return self._decide_value(filled, result, old, tests)

    def _decide_value(self, filled: FilledCell, result: Result, old: BaselineCell, tests: int) -> Decision:
        cell, run, measurement = filled.cell, self.baseline.runs[old.runs[0]], filled.measurement
        assert measurement is not None
        now, before = measurement.value, old.value
        if result.id == run.id:
            if now != before:
                raise HarnessError(
                    f"run {result.id} gives {now} in {self.store.root}/ and {before} in the baseline, which both claim "
                    "it; one was edited: measure again, and renew the baseline if it is that one"
                )
            return _not_judged("not measured since: this is the baseline's own run")
        if isinstance(now, str) or isinstance(before, str):
            return decide_texts(now, before)
        if fingerprint_of(result, filled.behind) != run.images:
            return _not_judged(f"measured on other images than in the baseline: now {_images(result)}")
        paired = self._paired_test(cell, run, result, before) if result.job.kind in PAIRED else None
        return decide_numbers(cell, now, before, paired, tests)

    def _paired_test(self, cell: Cell, run: BaselineRun, result: Result, before: float) -> PairedTest | None:
        """Compare image by image; None where one of the runs has no predictions."""
        path, metric = self.baseline_store.root / run.job.key / f"{run.id}.predictions.npz", str(cell.metric)
        test = paired_test(path, self.store.predictions_of(result), metric)
        if test and not math.isclose(test.before, before, abs_tol=1e-6):
            raise HarnessError(
                f"the baseline has {before:g} % for {cell.column.label} of {cell.row.label}, the predictions of its "
                f"run {run.id} give {test.before:g} %; one was edited, write the baseline anew"
            )
        if test:
            check_accuracy(self.store.predictions_of(result), test.now, result.metrics[metric].value, metric)
        return test

    def _decide_throughput(self, cell: Cell, result: Result, before: list[BaselineRun], tests: int) -> Decision:
        old, new = self.baseline.machine, result.machine
        if old is None or not old.is_equivalent(new):
            return _not_judged(f"measured on {new.label}, the baseline on {old.label if old else 'none'}")
        later = self._later_runs[result.job.without_code.key]
        if len(later.comparable) < self.runs:
            return _not_judged(
                f"too few runs: {len(later.comparable)} since the baseline{later.exclusions}, {self.runs} needed; "
                "`harness reproduce --throughput-only --rerun` makes one more each time"
            )
        if len(before) < LEAST_PROCESSES or self.baseline.noise is None:
            return _not_judged(
                f"too few runs in the baseline: {len(before)}, {LEAST_PROCESSES} needed; "
                "`harness baseline --calibrate` measures them"
            )
        drift = self._machine_drift
        if drift > 0:
            return _not_judged(
                f"the machine as a whole was {100 * drift:.0f} % slower than in the baseline, by its reference "
                "workload; measure again later, or calibrate again if it stays so"
            )
        now = later.comparable[: self.runs]
        change = throughput_change(
            [run.seconds_an_image for run in before],
            [run.seconds_an_image for run in now],
            self.baseline.noise,
            tests=tests,
            current=self._current_noise,
        )
        evidence = Evidence(
            now=median_throughput(now),
            before=median_throughput(before),
            difference=Interval(value=change.change, low=change.change, high=change.change),
            allowed=change.allowed,
            relative=True,
            p=change.p,
            processes=(len(now), len(before)),
        )
        outcome = outcome_of(cell, change.change, beyond=change.beyond_noise)
        if outcome is Outcome.IMPROVED and drift < 0:
            return _not_judged(
                f"faster, but so was the machine as a whole: by {-100 * drift:.0f} %, by its reference workload"
            )
        return Decision(outcome=outcome, evidence=evidence)

    @cached_property
    def _later_runs(self) -> dict[str, LaterRuns]:
        """The runs of each throughput since the baseline, by the key of its job without code."""
        later = {}
        measured = {runs[0].job.without_code.key: runs for runs in self.selection.throughputs.values() if runs}
        for key in self.baseline.throughput_runs:
            runs = [run for run in measured.get(key, ()) if run.id not in self.baseline.runs]
            quiet = [throughput_run(run) for run in runs if not is_noisy(run)]
            noisy, reference = len(runs) - len(quiet), self.baseline.drift_reference
            later[key] = LaterRuns(quiet=quiet, noisy=noisy, reference=reference)
        return later

    @cached_property
    def _current_noise(self) -> Noise | None:
        """The noise among the runs that count, over all throughputs."""
        groups = [later.comparable[: self.runs] for later in self._later_runs.values()]
        return noise_of([process_throughput(run.seconds_an_image) for run in runs] for runs in groups)

    @cached_property
    def _machine_drift(self) -> float:
        """The fraction by which the machine is slower now: by all runs together, as many tell more than each."""
        reference = self.baseline.drift_reference
        runs = [run for later in self._later_runs.values() for run in later.quiet[: self.runs]]
        return reference.drift(run.reference_seconds for run in runs) if reference else 0.0


def decide_texts(now: float | str, before: float | str) -> Decision:
    """Decide about values that are equal or not."""
    outcome = Outcome.HELD if now == before else Outcome.CHANGED
    return Decision(outcome=outcome, evidence=Evidence(now=now, before=before))


def decide_numbers(cell: Cell, now: float, before: float, paired: PairedTest | None, tests: int) -> Decision:
    """Decide about two values of a cell, by their images where there is a paired test, of which there are so many."""
    # What is counted or read has no noise, so any difference is a change.
    tolerance = 0.0 if cell.kind in EXACT else cell.tolerance or 0.0
    allowed = tolerance * abs(before) if cell.relative else tolerance
    difference = paired.difference if paired else Interval(value=now - before, low=now - before, high=now - before)
    evidence = Evidence(now=now, before=before, difference=difference, allowed=allowed)
    # A difference in the last bit of a sum of decimals is not a measured one.
    beyond = abs(difference.value) > allowed + 1e-9 * max(1.0, allowed)
    if paired:
        evidence = replace(evidence, p=paired.p, images=paired.images, lost=paired.lost, won=paired.won)
        beyond = beyond and paired.p < SIGNIFICANT / tests
    return Decision(outcome=outcome_of(cell, difference.value, beyond=beyond), evidence=evidence)


def _not_judged(reason: str) -> Decision:
    return Decision(outcome=Outcome.NOT_JUDGED, reason=reason)


def _images(result: Result) -> str:
    """Describe the images behind a result, and those of them that nothing was measured on."""
    images = str((result.facts.get("images") or {}).get("said", "none"))
    unreadable = result.facts.get("unreadable")
    return f"{images}, of which {len(unreadable):,} could not be read" if unreadable else images


def _why_missing(filled: FilledCell) -> str:
    """Return why a cell of the baseline has no value now; empty if it has one."""
    result = filled.result
    if result is None and not filled.planned.blocked and filled.elsewhere is None:
        return f"not measured, though the baseline has it; `{measuring_command(filled)}` measures it"
    if result is None:
        return why_missing(filled)
    if result.error is not None:
        return f"failed: {result.error}"
    if filled.measurement is None:
        return f"the {result.job.kind} job gives no {filled.cell.metric} any more"
    return ""


def _changed_method(before: Job, now: Job) -> str:
    """Describe how the way of measuring has changed; empty if it has not, whatever became of the model's code."""
    before, now = before.without_code, now.without_code
    if before == now:
        return ""
    if before.revision != now.revision:
        return f"measured in another way since (revision {now.revision} of {now.kind} jobs, was {before.revision})"
    names = sorted({name for name, _ in set(before.settings) ^ set(now.settings)})
    changed = ", ".join(f"{name} = {now.get(name, 'none')}, was {before.get(name, 'none')}" for name in names)
    return f"measured otherwise than in the baseline: {changed or f'{now.kind} job, was {before.kind}'}"


def outcome_of(cell: Cell, difference: float, *, beyond: bool) -> Outcome:
    """Return what a difference, now less before, means for a cell, if it is beyond what is allowed."""
    if not beyond:
        return Outcome.HELD
    if cell.better is None:
        return Outcome.CHANGED
    return Outcome.IMPROVED if (difference > 0) == (cell.better == "higher") else Outcome.REGRESSED
