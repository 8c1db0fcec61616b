"""Results of several machines, versions or protocols -> one judged table for each, and how each pair of them compares.

A table shows one machine, since speeds of two never belong together.  Here each has a table of its own, side by side.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from harness.errors import HarnessError
from harness.judge.ablation import LEAST_ROWS
from harness.judge.judged import judge_plan
from harness.judge.verdict import Diff
from harness.plan.plan import Options, Plan, make_plan
from harness.specs import Column, Spec
from harness.specs.kinds import PROTOCOLS
from harness.stats import Interval, kendall, rank_correlation, spearman
from harness.store.result import Result
from harness.store.select import is_called, newest
from harness.store.store import Store

PUBLISHED = "published"

# What tells versions apart, in the name of a side.
VERSIONS = ("torch", "timm")


@dataclass(frozen=True, kw_only=True)
class TableSide:
    """A table as one machine, one set of versions or one protocol filled it."""

    name: str
    diff: Diff


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How the values of `second` compare with those of `first` in a throughput column, over the `rows` that both have.

    `ratio` is the median of second over first, with the least and the largest; the correlations are of the orders, None
    for too few rows.
    """

    column: Column
    first: str
    second: str
    rows: int
    ratio: Interval
    kendall: Interval | None
    spearman: Interval | None


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """The sides of one table, in the order of their names, and every pair of them and of what was published."""

    spec: Spec
    by: str
    sides: tuple[TableSide, ...]
    pairs: tuple[Pair, ...]


def side_by_side(
    specs: Sequence[Spec], options: Options, stores: Sequence[Store], *, by: str
) -> tuple[SideBySide, ...]:
    """Judge tables once for each `machine`, `software` (versions) or `protocol` that there are results of.

    The newest result of a job counts on each side, whichever store it is in.  `options.machine` is a pattern for the
    machines that take part; versions and protocols are those of one machine, named where there are several.

    Raises `HarnessError` where nothing that was measured takes part.
    """
    if by == "protocol":
        plans = {name: make_plan(specs, replace(options, protocol=name)) for name in PROTOCOLS}
    else:
        plans = {"": make_plan(specs, options)}
    results_of = {name: list(_results(plan, stores, options.machine)) for name, plan in plans.items()}
    several = (
        len({result.machine.label for results in results_of.values() for result in results if result.job.exclusive}) > 1
    )
    sides: dict[str, tuple[Plan, dict[str, Result]]] = {}
    for name, results in results_of.items():
        for key, group in _grouped(results, _names(by, name, several=several), timed=by == "protocol"):
            sides.setdefault(key, (plans[name], {}))[1].update(_newest(group))
    if not sides:
        machines = f" on a machine like {options.machine}" if options.machine else ""
        folders = ", ".join(f"{store.root}/" for store in stores)
        raise HarnessError(f"--by {by}: nothing of these tables was measured{machines} in {folders}; measure it first")
    judged = {name: judge_plan(plan, results) for name, (plan, results) in sorted(sides.items())}
    return tuple(
        _compared(spec, by, [TableSide(name=name, diff=diffs[number]) for name, diffs in judged.items()])
        for number, spec in enumerate(next(iter(plans.values())).specs)
    )


def _results(plan: Plan, stores: Sequence[Store], machine: str) -> Iterator[Result]:
    """Yield every result of a plan's jobs on machines of this name, newest first for each job."""
    for job in plan.all_jobs:
        results = [result for store in stores for result in store.results(job)]
        for result in sorted(results, key=lambda result: result.id, reverse=True):
            if is_called(result.machine, machine):
                yield result


def _names(by: str, protocol: str, *, several: bool) -> Callable[[Result], str]:
    """Return what names the side that a result is on."""

    def machine(result: Result) -> str:
        return f" on {result.machine.label}" if several else ""

    def versions(result: Result) -> str:
        texts = (f"{name} {result.software[name].partition('+')[0]}" for name in VERSIONS if name in result.software)
        return ", ".join(texts)

    if by == "machine":
        return lambda result: result.machine.label
    if by == "software":
        return lambda result: f"{versions(result)}{machine(result)}"
    return lambda result: f"{protocol}{machine(result)}"


def _grouped(
    results: Iterable[Result], name: Callable[[Result], str], *, timed: bool
) -> Iterator[tuple[str, list[Result]]]:
    """Yield the results of each side; one on which nothing went well, or nothing was `timed`, is none."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(name(result), []).append(result)
    for key, group in groups.items():
        if any(result.error is None and (result.job.exclusive or not timed) for result in group):
            yield key, group


def _newest(results: Iterable[Result]) -> dict[str, Result]:
    """Return the result of each job that counts; results are newest first."""
    by_job: dict[str, list[Result]] = {}
    for result in results:
        by_job.setdefault(result.job.key, []).append(result)
    return {key: counting for key, group in by_job.items() if (counting := newest(group))}


def _compared(spec: Spec, by: str, sides: Sequence[TableSide]) -> SideBySide:
    filled = [side for side in sides if any(cell.filled.measurement for cell in side.diff.judged_cells.values())]
    return SideBySide(spec=spec, by=by, sides=tuple(filled), pairs=tuple(_pairs(spec, filled)))


def _pairs(spec: Spec, sides: Sequence[TableSide]) -> Iterator[Pair]:
    """Compare each pair of sides, and each with what was published, in the columns of throughputs."""
    for column in spec.columns:
        if column.machine is None:
            continue
        series = {PUBLISHED: _published(spec, column)} | {side.name: _measured(side, column) for side in sides}
        for (first, ours), (second, theirs) in combinations(series.items(), 2):
            if ours.keys() & theirs.keys():
                yield _pair(column, first, second, [(ours[job], theirs[job]) for job in ours if job in theirs])


def _pair(column: Column, first: str, second: str, values: Sequence[tuple[float, float]]) -> Pair:
    ratios = [theirs / ours for ours, theirs in values]
    enough = len(values) >= LEAST_ROWS
    ours, theirs = zip(*values, strict=True)
    return Pair(
        column=column,
        first=first,
        second=second,
        rows=len(values),
        ratio=Interval(value=statistics.median(ratios), low=min(ratios), high=max(ratios)),
        kendall=rank_correlation(ours, theirs, measure=kendall) if enough else None,
        spearman=rank_correlation(ours, theirs, measure=spearman) if enough else None,
    )


# A model and its settings are one, however many rows of a table share them, whatever the protocol.
_Model = tuple[object, object, object]


def _measured(side: TableSide, column: Column) -> Mapping[_Model, float]:
    cells = (side.diff.judged_cells[row.key, column.key].filled for row in side.diff.spec.rows)
    return {_model(cell.cell.settings): cell.number for cell in cells if cell.number}


def _published(spec: Spec, column: Column) -> Mapping[_Model, float]:
    values: dict[_Model, float] = {}
    for row in spec.rows:
        cell = spec.cell(row.key, column.key)
        if cell.published and cell.published.value and not spec.is_wrong(cell.published):
            values.setdefault(_model(cell.settings), cell.published.value)
    return values


def _model(settings: Mapping[str, object]) -> _Model:
    return settings.get("model"), (settings.get("res"), settings.get("width")), settings.get("step")
