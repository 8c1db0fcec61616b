"""Specs -> `Plan`: which distinct jobs fill which cells, and what keeps the other cells empty."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.kinds import KINDS, PROTOCOL_MEMORY, REVISIONS, Scalar
from harness.spec import Cell, Spec


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: all that decides its outcome except the machine, and the revision of the way of measuring."""

    kind: str
    settings: tuple[tuple[str, Scalar], ...]
    revision: int

    @classmethod
    def of(cls, kind: str, settings: Mapping[str, Scalar]) -> "Job":
        """Make a job; the order of the settings does not matter."""
        return cls(kind=kind, settings=tuple(sorted(settings.items())), revision=REVISIONS.get(kind, 0))

    def __getitem__(self, name: str) -> Scalar:
        """Give a setting."""
        return dict(self.settings)[name]

    @property
    def key(self) -> str:
        """The same work has the same key, whichever table asks for it; a person can tell what it is."""
        told = dict(self.settings)
        names = [
            self.kind,
            *(str(told[name]) for name in ("model", "res", "protocol", "data", "recipe") if name in told),
        ]
        text = json.dumps([self.kind, self.settings, self.revision], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return "-".join([*(re.sub(r"[^A-Za-z0-9_.]+", "_", name) for name in names), digest])

    @property
    def exclusive(self) -> bool:
        """Whether the job measures speed and needs the machine to itself."""
        return KINDS[self.kind].exclusive

    @property
    def of_images(self) -> bool:
        """Whether the job reads the user's images."""
        return self.kind in ("evaluate", "tokens", "dataset")

    @property
    def weights_name(self) -> str:
        """Name the weights that the job needs as timm does, `MODEL.TAG`; empty if it needs none."""
        told = dict(self.settings)
        return f"{told['model']}.{told['weights']}" if "weights" in told else ""

    def __str__(self) -> str:
        """Say in a word what is measured on what."""
        told = dict(self.settings)
        names = ["model", "first", "second", "recipe", "data"]
        if "model" not in told and "data" not in told:
            names.append("precision")
        what = " ".join(str(told[name]) for name in names if name in told)
        crop = f", crop {told['crop']:g}" if isinstance(told.get("crop"), (int, float)) else ""
        return f"{self.kind} {what}" + (f" at {told['res']}{crop}" if "res" in told else "")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for.  None leaves a setting as the spec has it.

    `data` names the data sets that are there.  `explain` asks for the other crops of each accuracy as well,
    `allow_nearest` for other public weights where the paper's were never released.
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
    """

    table: str
    cell: Cell
    job: Job | None = None
    blocked: str = ""
    idle: bool = False
    others: tuple[Job, ...] = ()
    other_weights: str = ""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job that has to do with the cell, each after those whose results it needs."""
        own = (self.job,) if self.job else ()
        return tuple(dict.fromkeys(job for one in (*own, *self.others) for job in (*needed_by(one), one)))

    @property
    def spec(self) -> str:
        """Name the table, for people."""
        return Path(self.table.partition(":")[2]).stem


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of some tables, and the distinct jobs behind them."""

    specs: tuple[Spec, ...]
    cells: tuple[Planned, ...]

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
        return tuple(sorted(jobs, key=lambda job: (job.exclusive, bool(needed_by(job)))))

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
    cells = [
        _planned(spec.id, spec.cell(row.key, column.key), chosen)
        for spec in narrowed
        for row in spec.rows
        for column in spec.columns
    ]
    return Plan(specs=narrowed, cells=tuple(cells))


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


def _planned(spec: str, cell: Cell, options: Options) -> Planned:
    if cell.kind is None or (not cell.settings and not cell.references):
        return Planned(table=spec, cell=cell, blocked="printed for the reader; nothing to measure", idle=True)
    other_weights = ""
    if cell.unreleased and cell.row.nearest and options.allow_nearest and cell.kind == "evaluate":
        cell, other_weights = _with_nearest(cell)
    kind = KINDS[str(cell.kind)]
    missing = [name for name in kind.required if name not in cell.settings]
    job = None if missing else job_of(cell, options)
    blocked = _blocked(cell, missing, options)
    if not blocked and options.only is not None and cell.kind not in options.only:
        blocked = f"left out: {cell.kind} jobs were not asked for"
    others = _other_crops(job) if job and options.explain and job.kind == "evaluate" and not blocked else ()
    return Planned(table=spec, cell=cell, job=job, blocked=blocked, others=others, other_weights=other_weights)


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
        return f"needs --train{hours}, which this version does not have yet"
    if cell.kind == "evaluate" and cell.unreleased:
        nearest = ", ".join(f"{one.model}.{one.weights}" for one in cell.row.nearest[:1])
        near, instead = (f"; nearest public ones: {nearest}", ", or --allow-nearest") if nearest else ("", "")
        reason = (
            f"no public weights: {cell.unreleased}{near}; needs --train{hours}, which this version does not have yet"
        )
        return reason + instead
    if missing:
        return f"the spec does not say {' and '.join(missing)} of row '{cell.row.key}'"
    if not KINDS[str(cell.kind)].built:
        return f"needs a {cell.kind} job, which this version does not have yet"
    data = cell.settings.get("data")
    if data is not None and data not in options.data:
        return f"needs --data {data}=PATH"
    return ""
