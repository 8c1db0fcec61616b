"""The harness in Python, for notebooks and scripts: names in, judged tables, DataFrames and figures out.

    from harness import api

    tables = api.reproduce("table5", rows="resnet18,deit_ti", throughput_only=True)
    tables                          # in a notebook: the table, with the reason of a verdict on its cell
    tables.to_frame()               # a row for each cell
    api.figure("table5", x="macs", y="throughput").save("figure.svg")

What a call asks for has the names of the command line's options, as `throughput_only` for `--throughput-only`; every
mistake is a `HarnessError` with the command line's sentence.  `HARNESS_*` and `harness.toml` are not read.  Nothing
heavy is imported before it is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from harness.errors import HarnessError, did_you_mean
from harness.machine import describe, usable_cores
from harness.machine.user import ensure_user_name
from harness.plan.options import check_change, check_data_sets, check_kinds, check_weights, make_options
from harness.plan.plan import OVERRIDES, Options, Plan, make_plan
from harness.specs import Catalog, Spec
from harness.specs.catalog import EDITIONS
from harness.specs.checked import Constraint, check
from harness.specs.kinds import SETTINGS
from harness.specs.recipe.catalog import SCALES
from harness.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.figure.drawing import Drawing
    from harness.judge.verdict import Diff, JudgedCell
    from harness.plan.job import Job
    from harness.run.observer import ProgressObserver
    from harness.run.target import ExecutionTarget
    from harness.store.result import Result

__all__ = [
    "JudgedTable",
    "PlannedTables",
    "TableList",
    "TableSelection",
    "figure",
    "load",
    "plan",
    "report",
    "reproduce",
    "results",
    "stored_runs",
]

RUNS = Path("runs")

# Columns of a table as text.
WIDTH = 100

Names = str | Iterable[str]


class TableSelection(TypedDict, total=False):
    """What is asked of tables, as by the command line's options of these names.

    `rows`, `columns` and `only` (kinds of jobs) are names in a list, or in a string separated by commas; rows and
    columns take `*`.  `data` names where each dataset is.  `changes` are settings of every recipe (`--set`).
    """

    rows: Names
    columns: Names
    only: Names
    throughput_only: bool
    protocol: str | None
    repeats: int | None
    batch: int | str | None
    memory: str | None
    data: Mapping[str, str]
    explain: bool
    allow_nearest: bool
    train: bool
    retrain: bool
    scale: str
    seeds: int | None
    changes: Mapping[str, Any]
    machine: str


@dataclass(frozen=True, kw_only=True)
class JudgedTable:
    """A table with what was measured, what was published, and a verdict for each cell."""

    diff: Diff

    @property
    def name(self) -> str:
        """The name of the table, as `table5`."""
        return self.diff.spec.name

    def cell(self, row: str, column: str) -> JudgedCell:
        """Return a cell by the keys of its row and column.  Raises `HarnessError` for a cell that was not asked for."""
        for what, key, parts in (("row", row, self.diff.spec.rows), ("column", column, self.diff.spec.columns)):
            keys = [part.key for part in parts]
            if key not in keys:
                raise HarnessError(f"unknown {what} '{key}' in {self.name}{did_you_mean(key, keys)}")
        return self.diff.judged_cells[row, column]

    def to_frame(self) -> DataFrame:
        """Return a row for each cell, with the columns of `harness report --format csv`."""
        from harness.report.data import cells_frame

        return cells_frame([self.diff])

    def _repr_html_(self) -> str:
        from harness.report.html import render_fragment

        return render_fragment([self.diff])

    def __str__(self) -> str:
        """Return the table as a terminal shows it."""
        from harness.report import render_terminal

        return render_terminal(self.diff, width=WIDTH, color=False)


@dataclass(frozen=True, kw_only=True)
class TableList:
    """Judged tables, in the order in which they were asked for; `failed` are the jobs that failed in this call."""

    tables: tuple[JudgedTable, ...]
    failed: tuple[Result, ...] = ()

    def __iter__(self) -> Iterator[JudgedTable]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, key: int | str) -> JudgedTable:
        """Return a table by its number or its name.  Raises `HarnessError` for another name."""
        if isinstance(key, int):
            return self.tables[key]
        tables = {table.name: table for table in self.tables}
        if key not in tables:
            raise HarnessError(f"unknown table '{key}' among {', '.join(tables)}{did_you_mean(key, tables)}")
        return tables[key]

    def to_frame(self) -> DataFrame:
        """Return a row for each cell of each table, with the columns of `harness report --format csv`."""
        from harness.report.data import cells_frame

        return cells_frame([table.diff for table in self.tables])

    def _repr_html_(self) -> str:
        from harness.report.html import render_fragment

        return render_fragment([table.diff for table in self.tables])

    def __str__(self) -> str:
        """Return the tables as a terminal shows them."""
        return "\n".join(map(str, self.tables))


@dataclass(frozen=True, kw_only=True)
class PlannedTables:
    """What `reproduce` would run: `known` are jobs that have a result for this machine, `missing` those to run."""

    plan: Plan
    known: tuple[Job, ...]
    missing: tuple[Job, ...]

    @property
    def blocked(self) -> Mapping[str, tuple[str, ...]]:
        """The reasons for which cells are not measured, and the names of those cells."""
        reasons: dict[str, tuple[str, ...]] = {}
        for planned in self.plan.cells:
            if planned.blocked and not planned.idle:
                reasons[planned.blocked] = (*reasons.get(planned.blocked, ()), planned.name)
        return reasons

    def to_frame(self) -> DataFrame:
        """Return a row for each distinct job: its kind, its settings, whether it is known, and the cells it fills."""
        from harness.report.data import frame_of

        return frame_of(
            {
                "job": str(job),
                "kind": job.kind,
                "measured": job in self.known,
                "cells": [planned.name for planned in self.plan.cells_needing(job)],
                "key": job.key,
            }
            for job in self.plan.jobs
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())


def load(table: str | Path, *, edition: str = EDITIONS[0]) -> Spec:
    """Return the spec of a table, by its name or the path of its file.

    Raises `HarnessError` for an unknown table and for mistakes in its file.
    """
    (spec,) = _catalog(edition).find([str(table)])
    return spec


def plan(
    *tables: str | Path,
    edition: str = EDITIONS[0],
    runs: str | Path = RUNS,
    device: str = "auto",
    **selection: Unpack[TableSelection],
) -> PlannedTables:
    """Return what `reproduce` would run, measuring nothing.

    Raises `HarnessError` for what the command line refuses.
    """
    from harness.run.target import resolve_target

    target, store = resolve_target(device), Store.open(Path(runs), existing=False)
    planned = target.fit(_plan(tables, edition, _options(selection)))
    known = tuple(job for job in planned.jobs if store.find(job, target.machine, target.software))
    _warn(store.damaged)
    return PlannedTables(plan=planned, known=known, missing=tuple(job for job in planned.jobs if job not in known))


def reproduce(  # noqa: PLR0913 -- one parameter an option
    *tables: str | Path,
    edition: str = EDITIONS[0],
    runs: str | Path = RUNS,
    device: str = "auto",
    weights: str | Path | None = None,
    workers: int | None = None,
    jobs: int | None = None,
    skip_unreadable: bool = False,
    budget: float | None = None,
    quick: bool = False,
    rerun: bool = False,
    yes: bool = False,
    progress: bool = True,
    **selection: Unpack[TableSelection],
) -> TableList:
    """Run what is missing on this machine, and return the judged tables.

    `budget` is in seconds.  `yes` allows training at the published scale.  With `progress` a line is printed for each
    job that has finished.  A job that fails is a verdict of its cells and in `failed`; Ctrl-C, or the notebook's
    button, raises `KeyboardInterrupt`, and the same call goes on from there.

    Raises `HarnessError` for what the command line refuses.
    """
    from harness.judge.judged import judge_plan
    from harness.run.execution import execute, make_runner
    from harness.run.messages import Inputs
    from harness.run.target import device_warnings, resolve_target
    from harness.run.training_clock import UNCONFIRMED, TrainingClock, full_trainings

    options = _options(selection)
    planned = _plan(tables, edition, options)
    if quick and budget:
        raise HarnessError("--quick compares throughputs in their order and does not go with --budget; leave one out")
    if budget is not None and (budget <= 0 or options.train):
        raise HarnessError(
            "--budget is for measurements on this machine and does not go with --train; leave one out"
            if options.train
            else f"budget = {budget} is not a time; it is a number of seconds above 0"
        )
    ensure_user_name()
    target, cores, store = resolve_target(device), usable_cores(), Store.open(Path(runs), existing=False)
    _warn(device_warnings(device))
    target = target.with_workers(scale=options.scale, jobs=jobs, cores=cores, loaders=workers)
    inputs = Inputs(
        data={name: str(where) for name, where in selection.get("data", {}).items()},
        weights=check_weights(Path(weights) if weights is not None else None),
        workers=cores if workers is None else workers,
        skip_unreadable=skip_unreadable,
    )
    cost = full_trainings(TrainingClock(planned, store, target, len(target.all_devices)), options)
    if cost and not yes:
        raise HarnessError(f"{cost}; {UNCONFIRMED}")
    observer = _observer(planned, store, target, silent=not progress)
    runner = make_runner(planned, store, target, inputs=inputs, observer=observer, seconds=budget, quick=quick)
    outcome = execute(planned, runner, rerun=rerun)
    _warn([*store.damaged, *outcome.runner.inventory.notes])
    if outcome.interrupted:
        raise KeyboardInterrupt("interrupted: what is finished is kept; the same call goes on from here")
    diffs = judge_plan(outcome.plan, outcome.results, outcome.elsewhere)
    return TableList(tables=tuple(JudgedTable(diff=diff) for diff in diffs), failed=tuple(outcome.runner.failed))


def report(
    *tables: str | Path, edition: str = EDITIONS[0], runs: str | Path = RUNS, **selection: Unpack[TableSelection]
) -> TableList:
    """Return tables judged by the results there are, measuring nothing.

    Raises `HarnessError` for what the command line refuses, and for a folder of runs that was named and is missing.
    """
    from harness.judge.judged import judged_tables

    store = _open(runs)
    diffs = judged_tables(_specs(tables, edition), _options(selection), store, describe("auto")).diffs
    _warn(store.damaged)
    return TableList(tables=tuple(JudgedTable(diff=diff) for diff in diffs))


def results(
    runs: str | Path = RUNS,
    *,
    tables: Names = "all",
    edition: str = EDITIONS[0],
    **selection: Unpack[TableSelection],
) -> DataFrame:
    """Return a row for each cell of some tables, with its measured and published value, its verdict and its reason.

    Raises `HarnessError` as `report` does.
    """
    return report(*_names(tables), edition=edition, runs=runs, **selection).to_frame()


def stored_runs(runs: str | Path = RUNS) -> DataFrame:
    """Return a row for each metric of each stored run, newest first, as `harness runs export` writes them.

    Raises `HarnessError` for a folder that was named and is missing.
    """
    from harness.report.export import runs_frame

    store = _open(runs)
    frame = runs_frame(store.all_results())
    _warn(store.damaged)
    return frame


def figure(  # noqa: PLR0913 -- one parameter an option
    name: str | Path,
    *,
    chart: str | None = None,
    x: str | None = None,
    y: str | None = None,
    points: str = "both",
    style: str = "paper",
    pareto: bool = False,
    edition: str = EDITIONS[0],
    runs: str | Path = RUNS,
    **selection: Unpack[TableSelection],
) -> Drawing:
    """Return a figure from the results there are: it shows itself in a notebook, and `save` writes it to a file.

    Raises `HarnessError` for what `harness figure` refuses.
    """
    from harness.figure.catalog import CHARTS, POINTS, STYLES
    from harness.figure.drawing import Chart, make_drawing

    for option, value, known in (("points", points, POINTS), ("style", style, STYLES)):
        check(option, value, Constraint(types=(str,), choices=known))
    if chart is not None:
        check("chart", chart, Constraint(types=(str,), choices=tuple(CHARTS)))
    options, store = _options(selection), _open(runs)
    asked, spec = Chart(kind=chart, x=x, y=y, points=points, style=style, pareto=pareto).of(load(name, edition=edition))
    drawing = make_drawing(spec, asked, options, store, describe("auto"))
    _warn(store.damaged)
    return drawing


# What calls become.


def _catalog(edition: str) -> Catalog:
    return Catalog(edition=edition)


def _specs(tables: Iterable[str | Path], edition: str) -> tuple[Spec, ...]:
    names = [str(table) for table in tables]
    if not names:
        raise HarnessError("the name of a table is missing; `harness list` shows the tables")
    return _catalog(edition).find(names)


def _plan(tables: Iterable[str | Path], edition: str, options: Options) -> Plan:
    planned = make_plan(_specs(tables, edition), options)
    check_data_sets(planned, options.data)
    return planned


def _options(selection: TableSelection) -> Options:
    """Return the options of a plan.  Raises `HarnessError` for an unknown one, or for a value that it cannot have."""
    given: dict[str, Any] = {**selection}
    for name in given:
        if name not in TableSelection.__annotations__:
            raise HarnessError(f"unknown option '{name}'{did_you_mean(name, TableSelection.__annotations__)}")
    for name in OVERRIDES:
        if given.get(name) is not None:
            check(name, given[name], SETTINGS[name])
    check("scale", given.get("scale", "full"), Constraint(types=(str,), choices=SCALES))
    if given.get("seeds") is not None:
        check("seeds", given["seeds"], Constraint(types=(int,), least=1))
    lists = {name: _names(given.get(name, ())) for name in ("rows", "columns")}
    changes = {name: check_change(name, value) for name, value in given.get("changes", {}).items()}
    return make_options({**given, **lists, "only": check_kinds(_names(given.get("only", ()))), "changes": changes})


def _names(names: Names) -> tuple[str, ...]:
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(filter(None, (part.strip() for part in parts)))


def _open(runs: str | Path) -> Store:
    """Open a folder of results, which must exist unless it is the usual one."""
    return Store.open(Path(runs), existing=Path(runs) != RUNS)


def _observer(planned: Plan, store: Store, target: ExecutionTarget, *, silent: bool) -> ProgressObserver:
    """Return what prints lines to stdout, which a notebook shows below its cell as they come."""
    from harness.cleaning import one_line
    from harness.plan.naming import job_namer
    from harness.run.forecast import Forecast
    from harness.run.log import LogObserver
    from harness.run.observer import ProgressObserver

    if silent:
        return ProgressObserver()
    forecast = Forecast.of(planned, store, target.machine, parallel=len(target.workers))
    return LogObserver(lambda text: print(one_line(text), flush=True), job_namer(planned), forecast)


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=3)
