"""Specs -> `Plan`: which distinct jobs fill which cells, and what keeps the other cells empty."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from harness.datasets import EMBEDDED
from harness.errors import HarnessError, SpecError, did_you_mean
from harness.job import Job
from harness.kinds import KINDS, PROTOCOL_MEMORY, Scalar
from harness.recipe import Recipes
from harness.spec import Cell, Spec
from harness.stages import FIRST_SEED, NoStandIn, Stages


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for.  None leaves a setting as the spec has it.

    `data` names the data sets that are there.  `explain` asks for the other crops of each accuracy as well,
    `allow_nearest` for other public weights where the paper's were never released.  `train` allows training, at the
    published `scale` or a smaller one, with so many `seeds`, and with `changes` of every recipe; `retrain` trains also
    what has public weights.
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

    @property
    def overrides(self) -> Mapping[str, Scalar]:
        """Settings that win over the spec's."""
        told = {"protocol": self.protocol, "repeats": self.repeats, "batch": self.batch, "memory": self.memory}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell, the job that fills it, and what keeps that job from being run (empty: nothing).

    `table` is the id of its spec.  `idle` tells a cell that has nothing to measure from one that needs something.
    `others` are jobs that explain a difference; `other_weights` says whose the weights are if not the paper's.
    `repeats` are the same job with other seeds, `scale` says at which scale something was trained for the cell (empty:
    nothing was), `changes` what the command line changed of the recipes, `assumed` on which settings that no
    publication gives the training rests.
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

    @property
    def small(self) -> bool:
        """Whether what is trained for the cell stands in for something larger."""
        return self.scale not in ("", "full")

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job that has to do with the cell, each after those whose results it needs."""
        own = (self.job,) if self.job else ()
        every = (*own, *self.repeats, *self.others)
        return tuple(dict.fromkeys(job for one in every for job in (*one.lineage, *needed_by(one), one)))

    @property
    def spec(self) -> str:
        """Name the table, for people."""
        return Path(self.table.partition(":")[2]).stem


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of some tables, and the distinct jobs behind them."""

    specs: tuple[Spec, ...]
    cells: tuple[Planned, ...]
    stages: Stages = field(default_factory=Stages)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every distinct job that can be run, once, speed jobs last: what is cheap comes first."""
        return self._distinct(lambda planned: not planned.blocked)

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """Every distinct job, also those that something blocks: an earlier run may have left a result."""
        return self._distinct(lambda _: True)

    def _distinct(self, wanted: Callable[[Planned], bool]) -> tuple[Job, ...]:
        jobs = dict.fromkeys(job for planned in self.cells if wanted(planned) for job in planned.jobs)
        return tuple(sorted(jobs, key=lambda job: (job.exclusive, job.kind != "train", bool(needed_by(job)))))

    def cells_of(self, job: Job) -> tuple[Planned, ...]:
        """Give the cells that a job is for."""
        return tuple(planned for planned in self.cells if job in planned.jobs)

    def without(self, missing: Mapping[str, str]) -> "Plan":
        """Block the cells whose jobs, by key, cannot be done for want of something; each with its reason."""

        def told(planned: Planned) -> Planned:
            reason = next((missing[job.key] for job in planned.jobs if job.key in missing), "")
            return replace(planned, blocked=reason) if reason and not planned.blocked else planned

        return replace(self, cells=tuple(told(planned) for planned in self.cells))

    def of(self, spec: Spec) -> dict[tuple[str, str], Planned]:
        """Give the cells of one table, by row and column."""
        return {(p.cell.row.key, p.cell.column.key): p for p in self.cells if p.table == spec.id}


def make_plan(specs: Iterable[Spec], options: Options | None = None) -> Plan:
    """Find the distinct jobs of some tables.

    Raises `HarnessError` for rows or columns that no table has.
    """
    chosen = options or Options()
    tables = tuple(specs)
    _check_patterns(chosen.rows, "row", [(r.key, r.label) for s in tables for r in s.rows])
    _check_patterns(chosen.columns, "column", [(c.key, c.label) for s in tables for c in s.columns])
    narrowed = tuple(_narrow(spec, chosen) for spec in tables)
    recipes = Recipes()
    stages = Stages(recipes=recipes, scale=recipes.scale(chosen.scale), data=chosen.data, changes=chosen.changes)
    cells = [
        _planned(spec, spec.cell(row.key, column.key), chosen, stages)
        for spec in narrowed
        for row in spec.rows
        for column in spec.columns
    ]
    return Plan(specs=narrowed, cells=tuple(cells), stages=stages)


def _check_patterns(patterns: Iterable[str], what: str, known: list[tuple[str, str]]) -> None:
    for pattern in patterns:
        if not any(_matches(pattern, names) for names in known):
            hint = did_you_mean(pattern, dict.fromkeys(name for names in known for name in names))
            raise HarnessError(f"unknown {what} '{pattern}'{hint or '; `harness list TABLE` shows what there is'}")


def _matches(pattern: str, names: tuple[str, str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _narrow(spec: Spec, options: Options) -> Spec:
    """Keep the rows and columns that were asked for; extra columns only if they were."""
    columns = tuple(
        c
        for c in spec.columns
        if (any(_matches(p, (c.key, c.label)) for p in options.columns) if options.columns else not c.extra)
    )
    rows = tuple(r for r in spec.rows if not options.rows or any(_matches(p, (r.key, r.label)) for p in options.rows))
    return replace(spec, rows=rows, columns=columns)


def _planned(spec: Spec, cell: Cell, options: Options, stages: Stages) -> Planned:
    if cell.kind is None or (not cell.settings and not cell.references):
        return Planned(table=spec.id, cell=cell, blocked="printed for the reader; nothing to measure", idle=True)
    if options.only is not None and cell.kind not in options.only:
        planned = _measured(spec, cell, options, stages)
        why = "" if _is_trained(cell, options) else planned.blocked  # which would ask for what was given
        return replace(planned, blocked=why or f"left out: {cell.kind} jobs were not asked for")
    if _is_trained(cell, options):
        return _trained(spec, cell, options, stages)
    if options.train and options.scale != "full":
        reason = f"left out: nothing is trained for it at the {options.scale} scale"
        return Planned(table=spec.id, cell=cell, blocked=reason)
    return _measured(spec, cell, options, stages)


def _is_trained(cell: Cell, options: Options) -> bool:
    """Whether a cell's network is to be trained here: always at a small scale, else where no weights are public."""
    if not options.train or not cell.training or cell.kind not in ("train", "evaluate"):
        return False
    return options.scale != "full" or options.retrain or cell.kind == "train" or bool(cell.unreleased)


def _trained(spec: Spec, cell: Cell, options: Options, stages: Stages) -> Planned:
    """Plan the chain of trainings behind a cell and the evaluation of what comes out, once for each seed."""
    changes = ", ".join(f"{name} = {value}" for name, value in options.changes.items())
    planned = Planned(table=spec.id, cell=cell, scale=options.scale, changes=changes)
    if cell.metric == "real" and options.scale != "full":
        reason = f"left out: only ImageNet has ReaL labels, and the {options.scale} scale does without it"
        return replace(planned, blocked=reason)
    seeds = options.seeds or (stages.scale.seeds if stages.scale else 1)
    try:
        with _placed(spec, cell):
            jobs = [_fills(cell, stages, FIRST_SEED + number) for number in range(seeds)]
    except NoStandIn as error:
        return replace(planned, blocked=f"left out: {error}")
    return replace(
        planned,
        job=jobs[0],
        repeats=tuple(jobs[1:]),
        blocked=_without_data(jobs, options),
        assumed=stages.assumptions(cell, jobs[0]),
    )


@contextmanager
def _placed(spec: Spec, cell: Cell) -> Iterator[None]:
    """Say where a mistake stands; one in a recipe file says so itself, and what has no stand-in is none."""
    try:
        yield
    except (SpecError, NoStandIn):
        raise
    except HarnessError as error:
        raise HarnessError(f"{spec.path}: row '{cell.row.key}', column '{cell.column.key}': {error}") from error


def _fills(cell: Cell, stages: Stages, seed: int) -> Job:
    """Make the job whose result fills a trained cell: an evaluation, or the training itself for what it costs."""
    return stages.training(cell.training, seed) if cell.metric == "hours" else stages.evaluation(cell, seed)


def _without_data(jobs: Iterable[Job], options: Options) -> str:
    """Say which data sets the trainings behind these jobs lack."""
    needed = dict.fromkeys(str(one["data"]) for job in jobs for one in (*job.lineage, job))
    missing = [name for name in needed if name not in options.data and name not in EMBEDDED]
    return f"needs --data {' --data '.join(f'{name}=PATH' for name in missing)}" if missing else ""


def _measured(spec: Spec, cell: Cell, options: Options, stages: Stages) -> Planned:
    """Plan a cell that is measured as it is, or that nothing but training could fill."""
    other_weights = ""
    if cell.unreleased and cell.row.nearest and options.allow_nearest and cell.kind == "evaluate":
        cell, other_weights = _with_nearest(cell)
    kind = KINDS[str(cell.kind)]
    missing = [name for name in kind.required if name not in cell.settings]
    if cell.kind == "recipe" and not missing:
        with _placed(spec, cell):
            return Planned(table=spec.id, cell=cell, job=stages.resolved(str(cell.settings["recipe"])))
    job = None if missing or cell.kind == "train" else job_of(cell, options)
    blocked = _untrainable(cell, stages) or _blocked(cell, missing, options)
    if cell.training and (cell.kind == "train" or (cell.kind == "evaluate" and cell.unreleased)):
        job = _trained_before(cell, stages) or job
    others = _other_crops(job) if job and options.explain and job.kind == "evaluate" else ()
    return Planned(table=spec.id, cell=cell, job=job, blocked=blocked, others=others, other_weights=other_weights)


def _trained_before(cell: Cell, stages: Stages) -> Job | None:
    """Make the job of a cell that is not to be trained now, at the published scale: it may have been trained before."""
    if stages.scale:
        return None
    try:
        return _fills(cell, stages, FIRST_SEED)
    except HarnessError:
        return None  # no mistake until training is asked for


def _untrainable(cell: Cell, stages: Stages) -> str:
    """Say why a cell could not be trained even if that was asked for."""
    if cell.kind == "train":
        try:
            stages.training(cell.training)
        except HarnessError as error:
            return str(error)  # no mistake until training is asked for
    return ""


# The crops that have been in use for these weights: torchvision's and the paper's, timm's, and the whole image.
CROPS = (0.875, 0.9, 0.95, 1.0)


def _other_crops(job: Job) -> tuple[Job, ...]:
    """Make the same evaluation with every other crop, so that a difference can be explained by a measurement."""
    settings = dict(job.settings)
    return tuple(Job.of(job.kind, {**settings, "crop": crop}) for crop in CROPS if crop != settings["crop"])


def _with_nearest(cell: Cell) -> tuple[Cell, str]:
    """Put the first of the nearest public weights in the place of those that were never released."""
    nearest = cell.row.nearest[0]
    settings = {**cell.settings, "model": nearest.model, "weights": nearest.weights}
    told = f"other weights: {nearest.model}.{nearest.weights}, {nearest.comment}"
    return replace(cell, settings=settings, unreleased=None), told


def needed_by(job: Job) -> tuple[Job, ...]:
    """Give the jobs whose results a job is derived from: an agreement's two evaluations."""
    if job.kind != "agreement":
        return ()
    names = dict.fromkeys(str(job[side]) for side in ("first", "second"))
    found = [evaluation_of(name, job) for name in names if name != LABELS]
    return tuple(dict.fromkeys(found))


# The classifier that is always right: the data set's own labels.
LABELS = "labels"


def evaluation_of(classifier: str, job: Job) -> Job:
    """Make the evaluation behind a classifier, `MODEL.WEIGHTS` or `MODEL.WEIGHTS#head`, of an agreement job."""
    model, _, weights = classifier.partition("#")[0].partition(".")
    shared = {name: job[name] for name in ("res", "data", "crop", "interpolation", "norm", "precision")}
    return Job.of("evaluate", {"model": model, "weights": weights, **shared})


def job_of(cell: Cell, options: Options) -> Job:
    """Make the job of a cell that nothing blocks: the spec's settings, the command line's, and the kind's defaults."""
    kind = KINDS[cell.kind or ""]
    overrides = {name: value for name, value in options.overrides.items() if name in kind.settings}
    settings = {**kind.defaults, **cell.settings, **overrides}
    if "memory" in kind.settings:
        # A batch that was given needs no cap, so the cap must not make it another job.
        if isinstance(settings["batch"], int):
            settings.pop("memory", None)
        else:
            settings.setdefault("memory", PROTOCOL_MEMORY[str(settings["protocol"])])
    return Job.of(str(cell.kind), settings)


def _blocked(cell: Cell, missing: list[str], options: Options) -> str:
    """Say what keeps a cell from being measured; empty if nothing does."""
    hours = f" (≈ {cell.cost:,.0f} V100-hours)" if cell.cost else ""
    if cell.kind == "train":
        return f"needs --train{hours}" if cell.training else "the spec has no recipe for it"
    if cell.kind == "evaluate" and cell.unreleased:
        nearest = ", ".join(f"{one.model}.{one.weights}" for one in cell.row.nearest[:1])
        near, instead = (f"; nearest public ones: {nearest}", "--allow-nearest") if nearest else ("", "")
        ways = list(filter(None, [f"--train{hours}" if cell.training else "", instead]))
        needs = f"; needs {' or '.join(ways)}" if ways else ""
        return f"no public weights: {cell.unreleased}{near}{needs}"
    if missing:
        return f"the spec does not say {' and '.join(missing)} of row '{cell.row.key}'"
    if not KINDS[str(cell.kind)].built:
        return f"needs a {cell.kind} job, which this version does not have yet"
    data = cell.settings.get("data")
    if data is not None and data not in options.data and data not in EMBEDDED:
        return f"needs --data {data}=PATH"
    return ""
