"""`Diff`s + `Baseline` -> `Gate`: which cells are worse than published, or than they were, by more than chance."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from harness.baseline import SPEED, Baseline, Entry, Kept, images_of, kept_speed, name_of, speed_of
from harness.diff import Diff, Finding, Verdict
from harness.errors import HarnessError
from harness.job import Job
from harness.newest import Newest, is_disturbed
from harness.noise import LEAST_PROCESSES, Noise, Pace, noise_of, speed, speed_change
from harness.paired import Pair, pair
from harness.result import Result
from harness.spec import Cell
from harness.stats import Interval
from harness.store import Store
from harness.table import Filled

# Of all paired tests of a check together: where a change moves images about but makes nothing worse, one check in
# twenty may say otherwise.  A measurement of the same weights moves none.
SIGNIFICANT = 0.05

# Kinds that are counted or read, not measured: there is no chance in them, so that any change is one.
EXACT = ("count", "dataset", "recipe")

# Kinds that keep predictions.
PAIRED = ("evaluate", "train")


class Outcome(StrEnum):
    """What the gate says of a cell, worst first."""

    REGRESSED = "regressed"
    CHANGED = "changed"
    DEVIATES = "deviates"
    MISSING = "missing"
    IMPROVED = "improved"
    HELD = "held"
    NOT_JUDGED = "not judged"

    @property
    def fails(self) -> bool:
        """Whether it makes the gate fail."""
        return self in (Outcome.REGRESSED, Outcome.CHANGED, Outcome.DEVIATES, Outcome.MISSING)

    @property
    def judges(self) -> bool:
        """Whether something was compared."""
        return self is not Outcome.NOT_JUDGED


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers behind an outcome, in the cell's unit; what there is not is None.

    `difference` is now less before, with its 95 % interval where there is one; where `relative` it is a fraction of
    before, as is `allowed`, by which it may differ.  `images` are those of a paired test, `processes` those of a
    speed, now and before.
    """

    now: float | str
    before: float | str
    difference: Interval | None = None
    allowed: float | None = None
    relative: bool = False
    p: float | None = None
    images: int | None = None
    processes: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What holding a cell against something came to.  `why` says what the numbers do not."""

    outcome: Outcome
    why: str = ""
    evidence: Evidence | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One cell held against the `paper` or against the `baseline`."""

    table: str
    cell: Cell
    against: str
    found: Found

    @property
    def outcome(self) -> Outcome:
        """What it came to."""
        return self.found.outcome


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Every cell that there was something to hold against.  `new` counts those that the baseline does not know."""

    judged: tuple[Judged, ...]
    with_baseline: bool = False
    new: int = 0

    @property
    def failing(self) -> list[Judged]:
        """Give what makes the gate fail, worst first."""
        order = list(Outcome)
        return sorted((one for one in self.judged if one.outcome.fails), key=lambda one: order.index(one.outcome))

    @property
    def empty(self) -> bool:
        """Whether nothing was compared with what it was to be compared with: then passing would say nothing."""
        against = "baseline" if self.with_baseline else "paper"
        return not any(one.outcome.judges for one in self.judged if one.against == against)


def against_paper(diff: Diff, fail_on: frozenset[Verdict]) -> list[Judged]:
    """Hold each cell against what was published; the verdicts named fail."""
    return [
        Judged(
            table=name_of(diff.spec),
            cell=finding.filled.cell,
            against="paper",
            found=_by_verdict(finding, fail_on),
        )
        for finding in diff.findings.values()
        if not finding.filled.planned.idle
    ]


def _by_verdict(finding: Finding, fail_on: frozenset[Verdict]) -> Found:
    verdict = finding.verdict
    why = f"{verdict}: {finding.reason}"
    if verdict in fail_on:
        if verdict is Verdict.MISSING:
            return Found(outcome=Outcome.MISSING, why=finding.reason)  # the outcome says the rest
        return Found(outcome=Outcome.DEVIATES, why=why)
    if verdict is Verdict.DEVIATES:
        return Found(outcome=Outcome.HELD, why=f"{verdict}, which --fail-on lets pass: {finding.reason}")
    unjudged = (Verdict.NOT_COMPARABLE, Verdict.MISSING, Verdict.FAILED)
    return Found(outcome=Outcome.NOT_JUDGED if verdict in unjudged else Outcome.HELD, why=why)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Holds cells against a baseline.

    `store` has the runs of now, `before` those of the baseline (often the same folder).  Of each speed the `runs`
    newest undisturbed runs are taken.
    """

    baseline: Baseline
    newest: Newest
    store: Store
    before: Store
    runs: int = LEAST_PROCESSES
    allow_missing: bool = False

    def judge(self, diffs: Sequence[Diff]) -> list[Judged]:
        """Judge every cell that both the tables and the baseline have."""
        places = {
            (name_of(diff.spec), *place): finding.filled
            for diff in diffs
            for place, finding in diff.findings.items()
            if (name_of(diff.spec), *place) in self.baseline.entries
        }
        # Tables share jobs: what is the same comparison is made once, and counts once.
        alike = {place: (self.baseline.entries[place].runs, filled.cell.metric) for place, filled in places.items()}
        speeds = len({runs for runs, _ in alike.values() if self.baseline.runs[runs[0]].seconds})
        others = len({one for one in alike.values() if not self.baseline.runs[one[0][0]].seconds})
        known: dict[object, Found] = {}
        for place, filled in places.items():
            key = (alike[place], filled.cell.tolerance, filled.cell.better)
            if key not in known:
                known[key] = self._found(
                    filled, self.baseline.entries[place], speeds if filled.cell.metric == SPEED else others
                )
        return [
            Judged(
                table=place[0],
                cell=filled.cell,
                against="baseline",
                found=known[alike[place], filled.cell.tolerance, filled.cell.better],
            )
            for place, filled in places.items()
        ]

    def _found(self, filled: Filled, entry: Entry, tests: int) -> Found:
        """Give the first reason not to compare, then what the numbers say."""
        result, before = filled.result, self.baseline.kept(entry)
        gone = self._gone(filled)
        if gone or result is None:
            return Found(outcome=Outcome.NOT_JUDGED if self.allow_missing else Outcome.MISSING, why=gone)
        otherwise = _otherwise(before[0].job, result.job)
        if otherwise:
            return Found(outcome=Outcome.NOT_JUDGED, why=otherwise)
        if result.job.exclusive:
            return self._speed(filled.cell, result, before, tests)
        return self._value(filled, result, entry, tests)

    def _gone(self, filled: Filled) -> str:
        """Say why a cell that the baseline has holds nothing now; empty where it holds something."""
        result = filled.result
        if result is None:
            return filled.planned.blocked or "not measured, though the baseline has it; `harness reproduce` measures it"
        if result.error is not None:
            return f"failed: {result.error}"
        if filled.measurement is None:
            return f"the {result.job.kind} job gives no {filled.cell.metric} any more"
        return ""

    def _value(self, filled: Filled, result: Result, entry: Entry, tests: int) -> Found:
        cell, kept, measurement = filled.cell, self.baseline.kept(entry)[0], filled.measurement
        assert measurement is not None
        now, before = measurement.value, entry.value
        if result.id == kept.id:
            if now != before:
                raise HarnessError(
                    f"run {result.id} gives {now} in {self.store.root}/ and {before} in the baseline, which both claim "
                    "it; one was edited: measure again, and renew the baseline if it is that one"
                )
            return Found(outcome=Outcome.NOT_JUDGED, why="not measured since: this is the baseline's own run")
        if isinstance(now, str) or isinstance(before, str):
            outcome = Outcome.HELD if now == before else Outcome.CHANGED
            return Found(outcome=outcome, evidence=Evidence(now=now, before=before))
        if images_of(result) != kept.images:
            said = (result.facts.get("images") or {}).get("said", "none")
            return Found(outcome=Outcome.NOT_JUDGED, why=f"measured on other images than in the baseline: now {said}")
        allowed = _allowed(cell, before)
        paired = self._paired(cell, kept, result, before) if result.job.kind in PAIRED else None
        difference = paired.difference if paired else _bare(now - before)
        evidence = Evidence(
            now=now,
            before=before,
            difference=difference,
            allowed=allowed,
            p=paired.p if paired else None,
            images=paired.images if paired else None,
        )
        beyond = _more(difference.value, allowed) and (paired is None or paired.p < SIGNIFICANT / tests)
        return Found(outcome=_outcome(cell, difference.value, beyond=beyond), evidence=evidence)

    def _paired(self, cell: Cell, kept: Kept, result: Result, before: float) -> Pair | None:
        """Compare image by image; None where not both runs have predictions."""
        path = self.before.root / kept.job.key / f"{kept.id}.predictions.npz"
        found = pair(path, self.store.predictions_of(result), str(cell.metric))
        if found and not math.isclose(found.before, before, abs_tol=1e-6):
            raise HarnessError(
                f"the baseline has {before:g} % for {cell.column.label} of {cell.row.label}, the predictions of its "
                f"run {kept.id} give {found.before:g} %; one was edited, write the baseline anew"
            )
        return found

    def _speed(self, cell: Cell, result: Result, before: list[Kept], tests: int) -> Found:
        def unjudged(why: str) -> Found:
            return Found(outcome=Outcome.NOT_JUDGED, why=why)

        there, here = self.baseline.machine, result.machine
        if there is None or not there.does_the_same_as(here):
            return unjudged(f"measured on {here.label}, the baseline on {there.label if there else 'none'}")
        since = self._now[result.job.key]
        if len(since.alike) < self._needed:
            return unjudged(
                f"too few runs: {len(since.alike)} since the baseline{since.left_out(self.baseline.pace)}, "
                f"{self._needed} needed; `harness reproduce --throughput-only --rerun` makes one more each time"
            )
        if len(before) < LEAST_PROCESSES or self.baseline.noise is None:
            return unjudged(
                f"too few runs in the baseline: {len(before)}, {LEAST_PROCESSES} needed; "
                "`harness baseline --calibrate` measures them"
            )
        off = self._off_pace
        if off > 0:
            return unjudged(
                f"the machine as a whole was {off:.0%} slower than in the baseline, by its yardstick; measure again "
                "later, or calibrate again if it stays so"
            )
        now = since.alike[: self._needed]
        change = speed_change(
            [one.seconds_an_image for one in before],
            [one.seconds_an_image for one in now],
            self.baseline.noise,
            tests=tests,
            unrest=self._unrest,
        )
        evidence = Evidence(
            now=speed_of(now),
            before=speed_of(before),
            difference=_bare(change.change),
            allowed=change.allowed,
            relative=True,
            p=change.p,
            processes=(len(now), len(before)),
        )
        outcome = _outcome(cell, change.change, beyond=change.beyond_chance)
        if outcome is Outcome.IMPROVED and off < 0:
            return unjudged(f"faster, but so was the machine as a whole: by {-off:.0%}, by its yardstick")
        return Found(outcome=outcome, evidence=evidence)

    def _since(self, job: Job) -> "Since":
        """Sort what was measured of a speed since the baseline."""
        every = [one for one in self.newest.speeds.get(job.key, ()) if one.id not in self.baseline.runs]
        quiet = [kept_speed(one) for one in every if not is_disturbed(one)]
        pace = self.baseline.pace
        # Where there is no yardstick, nothing says that the machine was otherwise.
        alike = [one for one in quiet if pace is None or one.yardstick is None or pace.off([one.yardstick]) <= 0]
        return Since(quiet=quiet, alike=alike, disturbed=len(every) - len(quiet))

    @property
    def _needed(self) -> int:
        return max(self.runs, LEAST_PROCESSES)

    @cached_property
    def _now(self) -> dict[str, "Since"]:
        """What was measured since of each speed of the baseline, by the key of its job."""
        jobs = {one.job.key: one.job for one in self.baseline.runs.values() if one.seconds}
        return {key: self._since(job) for key, job in jobs.items()}

    @cached_property
    def _unrest(self) -> Noise | None:
        """How far the runs that count differ among themselves, over all speeds."""
        late = [since.alike[: self._needed] for since in self._now.values()]
        return noise_of([speed(one.seconds_an_image) for one in runs] for runs in late)

    @cached_property
    def _off_pace(self) -> float:
        """By which fraction the machine was slower of late: many runs tell more than each, those left out as well."""
        late = [one for since in self._now.values() for one in since.quiet[: self._needed]]
        return self.baseline.pace.off([one.yardstick for one in late if one.yardstick]) if self.baseline.pace else 0.0


@dataclass(frozen=True, kw_only=True)
class Since:
    """The runs of a speed since the baseline, newest first.

    Of the `quiet` ones those that are `alike` count, the others found the machine slower as a whole; so many more were
    `disturbed`.
    """

    quiet: Sequence[Kept]
    alike: Sequence[Kept]
    disturbed: int

    def left_out(self, pace: Pace | None) -> str:
        """Say why runs do not count."""
        parts = [f"{self.disturbed} more were disturbed by other load"] if self.disturbed else []
        otherwise = [one.yardstick for one in self.quiet if one not in self.alike and one.yardstick]
        if otherwise and pace:
            took = statistics.median(otherwise) / pace.seconds - 1
            parts.append(f"{len(otherwise)} more found the machine slower as a whole, its yardstick taking {took:+.0%}")
        return f" ({'; '.join(parts)})" if parts else ""


def _otherwise(then: Job, now: Job) -> str:
    """Say how the way of measuring differs; empty where it does not."""
    if then == now:
        return ""
    if then.revision != now.revision:
        return f"measured in another way since (revision {now.revision} of {now.kind} jobs, was {then.revision})"
    old, new = dict(then.settings), dict(now.settings)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    changed = ", ".join(f"{name} = {new.get(name, 'none')}, was {old.get(name, 'none')}" for name in names)
    return f"measured otherwise than in the baseline: {changed or f'{now.kind} job, was {then.kind}'}"


def _allowed(cell: Cell, before: float) -> float:
    """Give by how much a value may differ from what it was, in its unit."""
    if cell.kind in EXACT:
        return 0.0
    tolerance = cell.tolerance or 0.0
    return tolerance * abs(before) if cell.relative else tolerance


def _more(difference: float, allowed: float) -> bool:
    # The last bit of a sum of decimals is nobody's regression.
    return abs(difference) > allowed + 1e-9 * max(1.0, allowed)


def _bare(difference: float) -> Interval:
    return Interval(value=difference, low=difference, high=difference)


def _outcome(cell: Cell, difference: float, *, beyond: bool) -> Outcome:
    if not beyond:
        return Outcome.HELD
    if cell.better is None:
        return Outcome.CHANGED
    return Outcome.IMPROVED if (difference > 0) == (cell.better == "higher") else Outcome.REGRESSED
