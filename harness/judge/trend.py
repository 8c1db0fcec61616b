"""`Plan` + all stored `Result`s -> `TableTrend`s: each cell over time, and where its level changed.

A series is what may be compared: one job on one machine, with the same images and weights.  Only the code of the user's
own models may differ within it, for whether that changed anything is the question.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from harness.errors import HarnessError
from harness.judge.table import EXACT, fingerprint_of
from harness.machine import Machine
from harness.machine.versions import SPEED_SOFTWARE
from harness.plan.job import CODE, Job
from harness.plan.plan import OVERRIDES, Options, Plan, PlannedCell
from harness.specs import Cell, Spec
from harness.stats import LEAST_CHANGE, LEAST_LEVEL, LevelStep, find_steps, noise_of, student
from harness.store.result import Measurement, Result
from harness.store.select import is_called, is_noisy, reference_seconds

# The share of results that lie in the band of their level.
BAND = 0.99

# The same weights on the same images leave no sampling error, only that of arithmetic.
TOLERANCE = 0.05

# Results of a series, the newest ones: the time to find steps grows with their square.
MOST_RESULTS = 2000


@dataclass(frozen=True, kw_only=True)
class TrendPoint:
    """One result of a series; one that failed has no `measurement`, and a noisy one tells nothing of the level."""

    result: Result
    measurement: Measurement | None

    @property
    def value(self) -> float | str | None:
        """The measured value."""
        return self.measurement.value if self.measurement else None

    @property
    def noisy(self) -> bool:
        """Whether something else than the model was timed as well."""
        return is_noisy(self.result)


@dataclass(frozen=True, kw_only=True)
class Level:
    """Points in a row that differ by no more than noise.

    `value` is that of the first one, for timed ones their geometric mean.  `low` and `high` are the ends of the band
    that 99 of 100 further results lie in, or of the tolerance; None where nothing tells.
    """

    points: tuple[TrendPoint, ...]
    value: float | str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """A change of level, somewhere between two results, which may have others between them.

    `versions` has what differs between those two, by name: software, code of an own model, batch size.  `slowdown` is
    the fraction by which the reference workload took longer at the new level than at the old one: the machine's part.
    `difference` is the new value less the old one, None for text.
    """

    before: Level
    after: Level
    last_before: Result
    first_after: Result
    difference: float | None
    versions: Mapping[str, tuple[str, str]]
    slowdown: float | None


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One series, oldest result first, and the `cells` that show it.

    `variant` has what may tell it from other series of the same cells: how it was measured, with what.  `tells` is
    whether it has results enough for a change to be found.
    """

    cells: tuple[PlannedCell, ...]
    machine: Machine
    variant: Mapping[str, str]
    timed: bool
    tells: bool
    points: tuple[TrendPoint, ...]
    levels: tuple[Level, ...]
    changes: tuple[LevelChange, ...]

    @property
    def cell(self) -> Cell:
        """The first of its cells."""
        return self.cells[0].cell

    @property
    def failing(self) -> tuple[TrendPoint, ...]:
        """The points since the last one that did not fail."""
        good = [number for number, point in enumerate(self.points, 1) if point.measurement]
        return self.points[max(good, default=0) :]


@dataclass(frozen=True, kw_only=True)
class TableTrend:
    """The series of one table, and how many `retired` results an older method left, which are in none."""

    spec: Spec
    trends: tuple[Trend, ...]
    retired: int


def find_trends(plan: Plan, results: Iterable[Result], options: Options | None = None) -> tuple[TableTrend, ...]:
    """Return every series of the tables of a plan, from all results that there are, in any order.

    What the options leave open is shown in all its variants, each a series; `options.machine` selects machines.  Raises
    `HarnessError` where nothing was measured on a machine of that name.
    """
    options = options or Options()
    free = (CODE, *(name for name in OVERRIDES if name not in options.overrides))
    histories: dict[Job, dict[str, Result]] = {}
    for result in results:
        histories.setdefault(result.job.without(*free, revision=False), {})[result.id] = result
    tables = [_trends_of(spec, plan, histories, free, options) for spec in plan.specs]
    if options.machine and not any(table.trends for table in tables):
        known = dict.fromkeys(run.machine.label for runs in histories.values() for run in runs.values())
        there = "; ".join(known) or "none"
        raise HarnessError(f"--machine {options.machine}: there are no results of such a machine, but of: {there}")
    return tuple(tables)


def _trends_of(
    spec: Spec, plan: Plan, histories: Mapping[Job, Mapping[str, Result]], free: Sequence[str], options: Options
) -> TableTrend:
    cells: dict[tuple[Job, str], list[PlannedCell]] = {}
    for planned in plan.cells_in(spec).values():
        for job in (planned.job, *planned.repeats) if planned.job else ():
            if options.only is None or job.kind in options.only:
                cells.setdefault((job.without(*free), str(planned.cell.metric)), []).append(planned)
    trends, retired = [], set()
    for (job, metric), members in cells.items():
        history = histories.get(job.without(revision=False), {})
        current = [history[name] for name in sorted(history) if history[name].job.without(*free) == job]
        retired |= history.keys() - {result.id for result in current}
        shown = (result for result in current if is_called(result.machine, options.machine))
        trends += [trend for series in _series_of(shown) if (trend := _trend(members, metric, series)).points]
    return TableTrend(spec=spec, trends=tuple(trends), retired=len(retired))


def _series_of(results: Iterable[Result]) -> Iterator[list[Result]]:
    """Yield the results of a cell that may be compared with each other, oldest first."""
    alike: list[list[Result]] = []
    for result in results:
        group = next((group for group in alike if _same_conditions(group[0], result)), None)
        if group is None:
            alike.append(group := [])
        group.append(result)
    for group in alike:
        # A failure has no images or weights of its own: it belongs to what was measured before.
        inputs = next((_inputs_of(result) for result in group if result.error is None), {})
        series: dict[tuple[str, ...], list[Result]] = {}
        for result in group:
            inputs = inputs if result.error else _inputs_of(result)
            series.setdefault(tuple(inputs.values()), []).append(result)
        yield from series.values()


def _same_conditions(first: Result, second: Result) -> bool:
    same_job = first.job.without(CODE) == second.job.without(CODE)
    return same_job and first.machine.is_equivalent(second.machine)


def _inputs_of(result: Result) -> Mapping[str, str]:
    """Return what tells the images and weights that went into a result; those that a training made did not."""
    weights = (result.facts.get("weights") or {}).get("sha256") if result.job.kind != "train" else None
    taken = [weights] if weights else (result.facts.get("took") or {}).values()
    return {"images": fingerprint_of(result) or "", "weights": "+".join(map(str, taken))}


def _trend(cells: Sequence[PlannedCell], metric: str, results: Sequence[Result]) -> Trend:
    """Return the series of a metric, which older results may not have yet."""
    points = [TrendPoint(result=each, measurement=each.metrics.get(metric)) for each in results[-MOST_RESULTS:]]
    points = [point for point in points if point.measurement or point.result.error is not None]
    clean = [point for point in points if point.measurement and not point.noisy]
    values = [point.value for point in clean if point.value is not None]
    numbers = [value for value in values if not isinstance(value, str) and value > 0]
    job, allowed = results[-1].job, _allowed(cells[0].cell)
    timed = (job.exclusive or metric == "hours") and len(numbers) == len(values)
    steps = (
        find_steps([math.log(number) for number in numbers], least=math.log1p(LEAST_CHANGE))
        if timed
        else _exact_steps(values, allowed)
    )
    stretches = [(i, j) for i, j in pairwise([0, *(step.index for step in steps), len(clean)]) if j > i]
    noise = noise_of(numbers[i:j] for i, j in stretches) if timed and len(clean) >= LEAST_LEVEL else None
    levels = []
    for i, j in stretches:
        value, low, high = values[i], None, None
        if timed:
            value = math.exp(fmean(map(math.log, numbers[i:j])))
        if noise and not isinstance(value, str):
            half = student(noise.degrees, (1 + BAND) / 2) * noise.spread * math.sqrt(1 + 1 / (j - i))
            low, high = value * math.exp(-half), value * math.exp(half)
        elif not timed and not isinstance(value, str):
            low, high = value - allowed, value + allowed
        levels.append(Level(points=tuple(clean[i:j]), value=value, low=low, high=high))
    known = {name: str(job.get(name)) for name in OVERRIDES} | {"seed": str((job.need("weights") or job).get("seed"))}
    inputs = next((_inputs_of(result) for result in results if result.error is None), {})
    return Trend(
        cells=tuple(cells),
        machine=results[-1].machine,
        variant={name: text for name, text in {**known, **inputs}.items() if text},
        timed=timed,
        tells=len(clean) >= (2 * LEAST_LEVEL if timed else 2),
        points=tuple(points),
        levels=tuple(levels),
        changes=tuple(
            _change(*pair, clean[step.earliest - 1].result, clean[step.latest].result)
            for pair, step in zip(pairwise(levels), steps, strict=True)
        ),
    )


def _exact_steps(values: Sequence[float | str], allowed: float) -> list[LevelStep]:
    """Return where values without noise are others than the first one of their level, by more than is allowed."""
    steps: list[LevelStep] = []
    for index, value in enumerate(values):
        first = values[steps[-1].index if steps else 0]
        if isinstance(first, str) or isinstance(value, str):
            same = first == value
        else:
            # A difference in the last bit of a sum of decimals is not a measured one.
            same = abs(value - first) <= allowed + 1e-9 * max(1.0, allowed)
        if not same:
            steps.append(LevelStep(index=index, earliest=index, latest=index))
    return steps


def _allowed(cell: Cell) -> float:
    """Return by how much a value that is not timed may differ without being another one, in the unit of the cell."""
    if cell.kind in EXACT:
        return 0.0
    tolerance = TOLERANCE if cell.tolerance is None or cell.relative else cell.tolerance
    return tolerance if cell.kind == "train" else min(TOLERANCE, tolerance)


def _change(before: Level, after: Level, last: Result, first: Result) -> LevelChange:
    sides = [[reference_seconds(point.result) for point in level.points] for level in (before, after)]
    old, new = ([seconds for seconds in side if seconds is not None] for side in sides)
    text = isinstance(before.value, str) or isinstance(after.value, str)
    return LevelChange(
        before=before,
        after=after,
        last_before=last,
        first_after=first,
        difference=None if text else float(after.value) - float(before.value),
        versions=_versions(last, first),
        slowdown=median(new) / median(old) - 1 if old and new else None,
    )


def _versions(before: Result, after: Result) -> Mapping[str, tuple[str, str]]:
    """Return what differs between two results, what decides a throughput first."""
    old, new = (
        {**result.software, CODE: str(result.job.get(CODE)), "batch size": str(result.facts.get("batch", ""))}
        for result in (before, after)
    )
    pairs = {name: (old.get(name) or "none", new.get(name) or "none") for name in (*SPEED_SOFTWARE, *old, *new)}
    return {name: (first, second) for name, (first, second) in pairs.items() if first != second}
