"""Specs -> `Plan`: which distinct jobs fill which cells, and what keeps the other cells empty."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from harness.errors import HarnessError, SpecError, did_you_mean
from harness.plan.job import Job
from harness.plan.stages import NoStandIn, TrainingStages, UnfitBatch
from harness.specs import Cell, Spec, load
from harness.specs.checked import Scalar
from harness.specs.datasets import EMBEDDED
from harness.specs.kinds import KINDS, throughput_settings
from harness.specs.model_names import split_weights, unsupported
from harness.specs.recipe import Recipes

# Settings of a throughput that the command line sets, each by the option of its name.
OVERRIDES = ("protocol", "repeats", "batch", "memory")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for.  None leaves a setting as the spec has it.

    `data` names the available datasets.  `explain` adds the other crops of each accuracy, `allow_nearest` takes other
    public weights where the paper's were never released.  `train` allows training, at the published `scale` or a
    smaller one, with so many `seeds`, and with `changes` to every recipe; `retrain` trains even where weights are
    public.  `machine` names the machine whose throughputs are shown.
    """

    only: frozenset[str] | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    protocol: str | None = None
    repeats: int | None = None
    batch: int | str | None = None
    memory: str | None = None
    data: frozenset[str] = frozenset()
    explain: bool = False
    allow_nearest: bool = False
    train: bool = False
    retrain: bool = False
    scale: str = "full"
    seeds: int | None = None
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    machine: str = ""

    @property
    def overrides(self) -> Mapping[str, Scalar]:
        """Settings that win over the spec's."""
        options: dict[str, Scalar | None] = {name: getattr(self, name) for name in OVERRIDES}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell, the job that fills it, and the reason why that job is not run (`blocked`; empty if it is).

    `table` is the id of its spec.  `idle` is set where there is nothing to measure, as opposed to something missing.
    `others` are jobs that explain a difference; `other_weights` describes the weights if they are not the paper's.
    `repeats` are the same job with other seeds, `scale` is the scale of the training behind the cell (empty without
    one), `changes` what the command line changed in the recipes, `assumed` the unpublished settings of the training.
    `operands` are the cells that a derived one is computed from, `timed` the jobs that time the steps of its trainings:
    they are run even where the cell is blocked.
    """

    table: str
    cell: Cell
    job: Job | None = None
    blocked: str = ""
    idle: bool = False
    others: tuple[Job, ...] = ()
    other_weights: str = ""
    repeats: tuple[Job, ...] = ()
    scale: str = ""
    changes: str = ""
    assumed: tuple[str, ...] = ()
    operands: tuple["PlannedCell", ...] = ()
    timed: tuple[Job, ...] = ()

    @property
    def scaled_down(self) -> bool:
        """Whether what is trained for the cell stands in for something larger."""
        return self.scale not in ("", "full")

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job of the cell, each after those whose results it needs."""
        jobs = (*((self.job,) if self.job else ()), *self.repeats, *self.others)
        own = (each for job in jobs for each in (*job.lineage, *dependencies(job), job))
        return tuple(dict.fromkeys((*own, *(job for operand in self.operands for job in operand.jobs))))

    @property
    def name(self) -> str:
        """The cell's name for people, as one of several in a sentence."""
        return f"{self.cell.column.label} of {self.cell.row.label}"

    @property
    def spec(self) -> str:
        """The name of the table."""
        return Path(self.table.partition(":")[2]).stem


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of some tables, and the distinct jobs behind them."""

    specs: tuple[Spec, ...]
    cells: tuple[PlannedCell, ...]
    stages: TrainingStages = field(default_factory=TrainingStages)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every distinct job that can be run, throughput jobs last: the cheap ones come first."""
        return self._distinct(lambda planned: not planned.blocked)

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """Every distinct job, blocked ones too: an earlier run may have left a result."""
        return self._distinct(lambda _: True)

    def _distinct(self, includes: Callable[[PlannedCell], bool]) -> tuple[Job, ...]:
        jobs = dict.fromkeys(
            job for planned in self.cells for job in (*(planned.jobs if includes(planned) else ()), *planned.timed)
        )
        return tuple(sorted(jobs, key=lambda job: (job.exclusive, job.kind != "train", bool(dependencies(job)))))

    def cells_needing(self, job: Job) -> tuple[PlannedCell, ...]:
        """Return the cells that need a job."""
        return tuple(planned for planned in self.cells if job in planned.jobs or job in planned.timed)

    def block(self, missing: Mapping[str, str]) -> "Plan":
        """Block the cells that need a job which lacks something; `missing` gives the reasons by the job's key."""

        def blocked(planned: PlannedCell) -> PlannedCell:
            if planned.operands:
                return _with_operands(planned, map(blocked, planned.operands))
            reason = next((missing[job.key] for job in planned.jobs if job.key in missing), "")
            return replace(planned, blocked=planned.blocked or reason)

        return replace(self, cells=tuple(map(blocked, self.cells)))

    def cells_in(self, spec: Spec) -> dict[tuple[str, str], PlannedCell]:
        """Return the cells of one table, by row and column."""
        return {(p.cell.row.key, p.cell.column.key): p for p in self.cells if p.table == spec.id}


def make_plan(specs: Iterable[Spec], options: Options | None = None) -> Plan:
    """Plan the distinct jobs of some tables.

    Raises `HarnessError` for rows or columns that no table has.
    """
    options = options or Options()
    specs = tuple(specs)
    _check_patterns(options.rows, "row", [(r.key, r.label) for s in specs for r in s.rows])
    _check_patterns(options.columns, "column", [(c.key, c.label) for s in specs for c in s.columns])
    specs = tuple(_narrow(spec, options) for spec in specs)
    recipes = Recipes()
    stages = TrainingStages(
        recipes=recipes, scale=recipes.scale(options.scale), data=options.data, changes=options.changes
    )
    cells = [
        _plan_cell(spec, spec.cell(row.key, column.key), options, stages)
        for spec in specs
        for row in spec.rows
        for column in spec.columns
    ]
    return Plan(specs=specs, cells=tuple(cells), stages=stages)


def _check_patterns(patterns: Iterable[str], what: str, known: list[tuple[str, str]]) -> None:
    for pattern in patterns:
        if not any(_matches(pattern, names) for names in known):
            hint = did_you_mean(pattern, dict.fromkeys(name for names in known for name in names))
            raise HarnessError(f"unknown {what} '{pattern}'{hint or '; `harness list TABLE` shows what there is'}")


def _matches(pattern: str, names: tuple[str, str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _narrow(spec: Spec, options: Options) -> Spec:
    """Keep the requested rows and columns; extra columns only if they are requested."""
    columns = tuple(
        c
        for c in spec.columns
        if (any(_matches(p, (c.key, c.label)) for p in options.columns) if options.columns else not c.extra)
    )
    rows = tuple(r for r in spec.rows if not options.rows or any(_matches(p, (r.key, r.label)) for p in options.rows))
    return replace(spec, rows=rows, columns=columns)


def _plan_cell(spec: Spec, cell: Cell, options: Options, stages: TrainingStages) -> PlannedCell:
    planned = PlannedCell(table=spec.id, cell=cell)
    if cell.derivation is not None:
        return _plan_derived(planned, spec, options, stages)
    if cell.kind is None or (not cell.settings and not cell.references):
        return replace(planned, blocked=cell.not_applicable or "published only; nothing to measure", idle=True)
    names = (str(cell.settings.get(name, "")) for name in ("model", "weights"))
    if reason := unsupported(cell.kind, *names):
        return replace(planned, blocked=reason)
    trained = _is_trained(cell, options)
    try:
        if options.only is not None and cell.kind not in options.only:
            planned = _plan_measurement(planned, options, stages)
            reason = "" if trained else planned.blocked  # which would ask for what was given
            planned = replace(planned, blocked=reason or f"left out: {cell.kind} jobs were not requested")
            return _plan_timing(planned, options, stages) if trained and "train-speed" in options.only else planned
        if trained:
            return _plan_training(planned, options, stages)
        if options.train and options.scale != "full":
            return replace(planned, blocked=f"left out: nothing is trained for it at the {options.scale} scale")
        return _plan_measurement(planned, options, stages)
    except SpecError:  # a mistake in a recipe file, which it names itself
        raise
    except HarnessError as error:
        raise HarnessError(f"{spec.path}: row '{cell.row.key}', column '{cell.column.key}': {error}") from error


def _plan_derived(planned: PlannedCell, spec: Spec, options: Options, stages: TrainingStages) -> PlannedCell:
    """Plan the cells that a derived one is computed from, in whichever table they are."""
    operands = []
    for operand in planned.cell.derivation.operands if planned.cell.derivation else ():
        # What is measured is the same in every edition, of which one may lack the row.
        known = operand.path == spec.path and (operand.row, operand.column) in spec.cells
        table = spec if known else _load(operand.path, operand.path.stat().st_mtime_ns)
        operands.append(_plan_cell(table, table.cell(operand.row, operand.column), options, stages))
    return _with_operands(planned, operands)


@cache
def _load(path: Path, _changed: int) -> Spec:
    """Load a table once, for all derived cells that name it, unless it has changed since."""
    return load(path)


def _with_operands(planned: PlannedCell, operands: Iterable[PlannedCell]) -> PlannedCell:
    """Return a derived cell with its operands: what blocks one of them blocks it."""
    operands = tuple(operands)
    return replace(
        planned,
        operands=operands,
        blocked=next((f"{operand.name}: {operand.blocked}" for operand in operands if operand.blocked), ""),
        scale=next((operand.scale for operand in operands if operand.scale), ""),
        changes=next((operand.changes for operand in operands if operand.changes), ""),
        assumed=tuple(dict.fromkeys(text for operand in operands for text in operand.assumed)),
        timed=tuple(dict.fromkeys(job for operand in operands for job in operand.timed)),
    )


def _plan_timing(planned: PlannedCell, options: Options, stages: TrainingStages) -> PlannedCell:
    """Plan the jobs that time one step of each training behind a cell, where it is trained as published."""
    if stages.scale is not None:
        return planned
    overrides = {name: value for name, value in options.overrides.items() if name in KINDS["train-speed"].settings}
    try:
        trained = stages.training(planned.cell.training)
        jobs = [stages.speed_job_of(each, overrides) for each in (*trained.lineage, trained)]
    except (NoStandIn, UnfitBatch) as error:
        return replace(planned, blocked=f"left out: {error}")
    return replace(planned, timed=tuple(dict.fromkeys(jobs)))


def _is_trained(cell: Cell, options: Options) -> bool:
    """Whether a cell's model is to be trained here: always at a small scale, else where no weights are public."""
    if not options.train or "recipe" not in cell.training or cell.kind not in ("train", "evaluate"):
        return False
    return options.scale != "full" or options.retrain or cell.kind == "train" or bool(cell.unreleased)


def _plan_training(planned: PlannedCell, options: Options, stages: TrainingStages) -> PlannedCell:
    """Plan the trainings behind a cell and the evaluation of the trained model, once for each seed."""
    planned = replace(planned, scale=options.scale)
    if planned.cell.metric == "real" and options.scale != "full":
        reason = f"left out: only ImageNet has ReaL labels, and the {options.scale} scale does without it"
        return replace(planned, blocked=reason)
    try:
        jobs = stages.jobs(planned.cell, options.seeds)
        as_published = replace(stages, changes={}).jobs(planned.cell, options.seeds) if stages.changes else jobs
    except NoStandIn as error:
        return replace(planned, blocked=f"left out: {error}")
    names = dict.fromkeys(str(each["data"]) for job in jobs for each in (*job.lineage, job))
    missing = [f"--data {name}=PATH" for name in names if _is_missing(name, options)]
    changes = ", ".join(f"{name} = {value}" for name, value in options.changes.items())
    return replace(
        planned,
        job=jobs[0],
        repeats=jobs[1:],
        changes="" if jobs == as_published else changes,
        blocked=f"needs {' '.join(missing)}" if missing else "",
        assumed=stages.assumptions(planned.cell, jobs[0]),
    )


def _is_missing(data: str, options: Options) -> bool:
    return data not in options.data and data not in EMBEDDED


def _plan_measurement(planned: PlannedCell, options: Options, stages: TrainingStages) -> PlannedCell:
    """Plan a cell that is measured as it is, or that only training could fill."""
    cell, other_weights = planned.cell, ""
    if cell.unreleased and cell.row.nearest and options.allow_nearest and cell.kind == "evaluate":
        nearest = cell.row.nearest[0]
        settings = {**cell.settings, "model": nearest.model, "weights": nearest.weights}
        cell = replace(cell, settings=settings, unreleased=None)
        other_weights = f"other weights: {nearest.model}.{nearest.weights}, {nearest.comment}"
    missing = [name for name in KINDS[str(cell.kind)].required if name not in cell.settings]
    if cell.kind == "recipe" and not missing:
        return replace(planned, job=stages.recipe_job(str(cell.settings["recipe"])))
    try:
        job = None if missing or cell.kind == "train" else make_job(cell, options)
    except UnfitBatch as error:
        return replace(planned, blocked=f"left out: {error}")
    blocked = _blocked(cell, missing, options)
    # It may have been trained before, at the published scale.
    if cell.kind == "train" or (cell.training and cell.kind == "evaluate" and cell.unreleased):
        try:
            trained = stages.jobs(cell, 1)[0]
            job = job if stages.scale else trained
        except HarnessError as error:  # no mistake until training is requested
            blocked = str(error) if cell.kind == "train" else blocked
    others = _other_crops(job) if job and options.explain and job.kind == "evaluate" else ()
    return replace(planned, cell=cell, job=job, blocked=blocked, others=others, other_weights=other_weights)


# The crops that have been in use for these weights: torchvision's and the paper's, timm's, and the whole image.
CROPS = (0.875, 0.9, 0.95, 1.0)


def _other_crops(job: Job) -> tuple[Job, ...]:
    """Make the same evaluation with every other crop, so that a difference can be explained by a measurement."""
    settings = dict(job.settings)
    return tuple(Job.of(job.kind, {**settings, "crop": crop}) for crop in CROPS if crop != settings["crop"])


def dependencies(job: Job) -> tuple[Job, ...]:
    """Return the jobs whose results a job is derived from: an agreement's two evaluations."""
    if job.kind != "agreement":
        return ()
    names = dict.fromkeys(str(job[side]) for side in ("first", "second"))
    return tuple(dict.fromkeys(classifier_evaluation(name, job) for name in names if name != LABELS))


# The classifier that is always right: the dataset's own labels.
LABELS = "labels"


def classifier_evaluation(classifier: str, job: Job) -> Job:
    """Make the evaluation behind a classifier, `MODEL.WEIGHTS` or `MODEL.WEIGHTS#head`, of an agreement job."""
    model, weights = split_weights(classifier.partition("#")[0])
    shared = {name: job[name] for name in ("res", "data", "crop", "interpolation", "norm", "precision")}
    return Job.of("evaluate", {"model": model, "weights": weights, **shared})


def make_job(cell: Cell, options: Options) -> Job:
    """Make the job of a cell that nothing blocks: the spec's settings, the command line's, and the kind's defaults."""
    kind = KINDS[cell.kind or ""]
    overrides = {name: value for name, value in options.overrides.items() if name in kind.settings}
    if cell.kind == "throughput":
        return Job.of(cell.kind, throughput_settings(cell.settings, overrides))
    settings = {**kind.defaults, **cell.settings, **overrides}
    if cell.kind == "train-speed":
        return TrainingStages(changes=options.changes).speed_job(settings)
    return Job.of(str(cell.kind), settings)


def _blocked(cell: Cell, missing: list[str], options: Options) -> str:
    """Return what keeps a cell from being measured; empty if nothing does."""
    hours = f" (≈ {cell.cost:,.0f} V100-hours)" if cell.cost else ""
    if cell.kind == "train":
        return f"needs --train{hours}"
    if cell.kind == "evaluate" and cell.unreleased:
        nearest = ", ".join(f"{weights.model}.{weights.weights}" for weights in cell.row.nearest[:1])
        near = f"; nearest public ones: {nearest}" if nearest else ""
        ways = [*([f"--train{hours}"] if cell.training else ()), *(["--allow-nearest"] if nearest else ())]
        return f"no public weights: {cell.unreleased}{near}" + (f"; needs {' or '.join(ways)}" if ways else "")
    if missing:
        return f"the spec does not set {' and '.join(missing)} of row '{cell.row.key}'"
    data = "" if cell.kind == "train-speed" else str(cell.settings.get("data", ""))  # which only counts its images
    return f"needs --data {data}=PATH" if data and _is_missing(data, options) else ""
