"""`Spec` + `Result`s -> `Table` in the paper's layout: each cell with what was measured for it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.judge.weights import unclear_weights
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Plan, PlannedCell, dependencies
from harness.specs import Cell, Spec
from harness.specs.kinds import KINDS
from harness.stats import Interval, derive, mean_interval
from harness.store.result import Measurement, Result
from harness.store.select import Elsewhere

# Kinds of job that count or read: their numbers have no noise.
EXACT = ("count", "cost", "dataset", "recipe")

# An interval of fewer trainings, or iterations, tells too little to excuse a difference: with two it is twelve times as
# wide as their scatter.
LEAST_SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class FilledCell:
    """A cell, its job if it has one, and the result that counts for that job.

    `others` are results of the jobs that may explain a difference, `repeats` those of the same job with other seeds,
    `trainings` those of the trainings that made the weights, one for each seed.  `behind` has the results of all that
    the cell's number is derived from, by the key of their job: every training, and the evaluations of an agreement.
    `elsewhere` is where a cell without a result was measured otherwise.  `unclear_weights` says why the weights may not
    be those that the job names (empty if nothing speaks for that).  A derived cell has no result of its own, but the
    `operands` that it is computed from; `any_machine` tells of an operand that its machine cancels out there.
    """

    planned: PlannedCell
    result: Result | None
    others: tuple[Result, ...] = ()
    repeats: tuple[Result, ...] = ()
    trainings: tuple[Result, ...] = ()
    behind: Mapping[str, Result] = field(default_factory=dict)
    elsewhere: Elsewhere | None = None
    unclear_weights: str = ""
    operands: tuple["FilledCell", ...] = ()
    any_machine: bool = False

    @property
    def cell(self) -> Cell:
        """The cell of the spec, with its published values."""
        return self.planned.cell

    @property
    def at_small_scale(self) -> bool:
        """Whether the value was trained at a small scale, so that it is not shown next to a published one."""
        return self.planned.scaled_down and self.measurement is not None

    @property
    def matches_by_construction(self) -> bool:
        """Whether the value is a setting that the spec gives the job, as an image size."""
        kind = KINDS.get(self.cell.kind or "")
        return kind is not None and self.cell.metric in kind.required

    @property
    def results(self) -> tuple[Result, ...]:
        """Every result behind the cell once, its own first."""
        behind = (result for operand in self.operands for result in operand.results)
        every = (self.result, *self.repeats, *self.trainings, *self.others, *behind)
        return tuple({(result.job.key, result.id): result for result in every if result}.values())

    @property
    def measurement(self) -> Measurement | None:
        """The cell's metric in its result; with several seeds their mean and its interval; or what is derived."""
        if self.operands:
            return derived_measurement(self)
        if self.result is None or self.result.error is not None:
            return None
        metric = self.result.metrics.get(str(self.cell.metric))
        values = tuple(self.by_seed.values())
        if metric is None or len(values) < 2:
            return metric
        return replace(metric, **vars(mean_interval(values)), samples=values, sample_unit=metric.unit)

    @property
    def number(self) -> float | None:
        """The measured value, where it is a number."""
        measurement = self.measurement
        return None if measurement is None or isinstance(measurement.value, str) else measurement.value

    @property
    def has_few_samples(self) -> bool:
        """Whether the value is of too few trainings, or iterations, to tell how sure it is."""
        samples = tuple(self.by_seed) or (self.measurement.samples if self.measurement else ())
        return 0 < len(samples) < LEAST_SAMPLES

    @property
    def published_number(self) -> float | None:
        """The published value, where it is a number."""
        return self.cell.published.value if self.cell.published else None

    @property
    def by_seed(self) -> Mapping[int, float]:
        """The cell's metric for each seed that was trained for it."""
        values = {}
        for seed, result in self.result_by_seed.items():
            measurement = result.metrics.get(str(self.cell.metric)) if result.error is None else None
            if measurement is not None and not isinstance(measurement.value, str):
                values[seed] = measurement.value
        return values

    @property
    def result_by_seed(self) -> Mapping[int, Result]:
        """The result of each seed that was trained for the cell, those that failed included."""
        results = filter(None, (self.result, *self.repeats))
        trained = ((_training_of(result.job), result) for result in results)
        return {int(training["seed"]): result for training, result in trained if training is not None}

    @property
    def requested_seeds(self) -> tuple[int, ...]:
        """Every seed that the plan trains for the cell."""
        jobs = (self.planned.job, *self.planned.repeats) if self.planned.job else ()
        return tuple(int(training["seed"]) for training in map(_training_of, jobs) if training is not None)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table, filled.  `machine` is where its throughputs were measured, if any were."""

    spec: Spec
    machine: Machine | None
    cells: Mapping[tuple[str, str], FilledCell]

    def cell(self, row: str, column: str) -> FilledCell:
        """Return the cell of a row and a column, by their keys."""
        return self.cells[row, column]


def fill(
    spec: Spec, plan: Plan, results: Mapping[str, Result], elsewhere: Mapping[str, Elsewhere] | None = None
) -> Table:
    """Put results, given by the key of their job, into the cells of a table; `elsewhere` are those of other tables.

    The results may be of more tables: what they share is then known of every one.
    """
    unclear = unclear_weights(results.values())
    cells = {key: _fill(planned, results, elsewhere or {}, unclear) for key, planned in plan.cells_in(spec).items()}
    machines = (one.machine for filled in cells.values() for one in filled.results if one.job.exclusive)
    return Table(spec=spec, machine=next(machines, None), cells=cells)


def _fill(
    planned: PlannedCell, results: Mapping[str, Result], elsewhere: Mapping[str, Elsewhere], unclear: Mapping[str, str]
) -> FilledCell:
    job_key = planned.job.key if planned.job else ""
    return FilledCell(
        planned=planned,
        result=results.get(job_key),
        others=_explaining(planned, results),
        repeats=tuple(results[job.key] for job in planned.repeats if job.key in results),
        trainings=_trainings(planned, results),
        behind={job.key: results[job.key] for job in planned.jobs if job.key in results},
        elsewhere=elsewhere.get(job_key),
        unclear_weights=next((unclear[job.key] for job in planned.jobs if job.key in unclear), ""),
        operands=tuple(_fill(operand, results, elsewhere, unclear) for operand in planned.operands),
    )


def derived_measurement(
    filled: FilledCell, exact: Callable[[FilledCell], bool] = lambda _operand: False
) -> Measurement | None:
    """Compute a derived cell; None where an operand was not measured, is text, or has no ratio.

    It has no interval where nothing says how sure one of its operands is, or where two of them are one measurement.
    The operands that are `exact` are taken as if measuring them again gave the same.
    """
    derivation, numbers = filled.cell.derivation, [operand.number for operand in filled.operands]
    values = [number for number in numbers if number is not None]
    if derivation is None or len(values) < len(numbers):
        return None
    points = [Interval(value=value, low=value, high=value) for value in values]
    intervals = [
        point if exact(operand) else _interval(operand) for point, operand in zip(points, filled.operands, strict=True)
    ]
    known = [interval for interval in intervals if interval is not None]
    sources = {(operand.result.id, operand.cell.metric) for operand in filled.operands if operand.result}
    try:
        derived = derive(derivation.operation, known if len(known) == len(values) == len(sources) else points)
    except ValueError:
        return None
    low, high = (None, None) if derived.low == derived.high else (derived.low, derived.high)
    return Measurement(unit=filled.cell.unit, value=derived.value, low=low, high=high)


def _interval(filled: FilledCell) -> Interval | None:
    """Return a value with its interval, which has no width where it was counted; None where it is not known."""
    measurement, value = filled.measurement, filled.number
    if measurement is None or value is None or filled.has_few_samples:
        return None
    if measurement.low is not None and measurement.high is not None:
        return Interval(value=value, low=measurement.low, high=measurement.high)
    return Interval(value=value, low=value, high=value) if filled.cell.kind in EXACT else None


def fingerprint_of(result: Result, behind: Mapping[str, Result] | None = None) -> str | None:
    """Return the fingerprint of the images that a result was measured on; None where it has none.

    With the results `behind` it, of those that its models were trained on as well.  An image that could not be read is
    none that it was measured on.
    """
    prints = {_own_fingerprint(each) for each in (result, *results_behind(result, behind or {}))}
    return "+".join(sorted(filter(None, prints))) or None


def _own_fingerprint(result: Result) -> str:
    fingerprint = str((result.facts.get("images") or {}).get("fingerprint") or "")
    unreadable = result.facts.get("unreadable")
    less = hashlib.sha256(repr(sorted(unreadable)).encode()).hexdigest() if unreadable else ""
    return f"{fingerprint} less {less}" if less else fingerprint


def results_behind(result: Result, known: Mapping[str, Result]) -> Iterator[Result]:
    """Yield the known results that a result is derived from: trainings, and evaluations with their trainings."""
    for job in (*result.job.lineage, *dependencies(result.job)):
        if job.key in known:
            yield known[job.key]


def _training_of(job: Job) -> Job | None:
    """Return the training whose weights a job uses, or that it is."""
    training = job.need("weights") or job
    return training if training.kind == "train" else None


def _trainings(planned: PlannedCell, results: Mapping[str, Result]) -> tuple[Result, ...]:
    """Return the results of the trainings whose weights fill the cell, not of those that came before them."""
    jobs = (planned.job, *planned.repeats) if planned.job else ()
    trainings = filter(None, map(_training_of, jobs))
    return tuple(results[job.key] for job in trainings if job.key in results)


def _explaining(planned: PlannedCell, results: Mapping[str, Result]) -> tuple[Result, ...]:
    """Return the results that may explain a cell's own: those of the same weights on the same images, if it has one."""
    others = tuple(results[job.key] for job in planned.others if job.key in results)
    own = results.get(planned.job.key) if planned.job else None
    if own is None or own.error is not None:
        return others

    def inputs(result: Result) -> tuple[object, ...]:
        return fingerprint_of(result), (result.facts.get("weights") or {}).get("sha256")

    return tuple(result for result in others if inputs(result) == inputs(own))
