"""`harness list` and `harness plan`: plain text, at once."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from harness.cli.console import UNBROKEN, align, break_lines, echo, terminal_width
from harness.cli.usage import options
from harness.cli.usage.command import Command, argument
from harness.cli.usage.completion import complete_tables
from harness.plan.job import Job
from harness.plan.naming import recipe_changes
from harness.plan.options import make_options
from harness.plan.plan import Plan, PlannedCell, make_plan
from harness.run.target import resolve_target
from harness.run.training_clock import TrainingClock, training_cost
from harness.specs import Catalog, Cell, Spec
from harness.specs.kinds import KINDS, OUR_KINDS
from harness.store.result import Result


@click.command(
    "list",
    cls=Command,
    examples={
        "harness list": "List every table, with what its jobs are.",
        "harness list table5": "List its rows and columns, by the keys that --rows and --columns take.",
    },
)
@argument(
    "table",
    required=False,
    metavar="[TABLE]",
    shell_complete=complete_tables,
    describes="table5 or 5, icml:table6, or the path of a spec file  [default: list the tables]",
    needs="the name of a table",
)
@options.edition
def list_tables(table: str | None, edition: str) -> None:
    """List the tables, or the rows and columns of one."""
    catalog = Catalog(edition=edition)
    if table is None:
        echo(_list_specs(catalog.find(["all"]), terminal_width(UNBROKEN)))
    for spec in catalog.find([table] if table else []):
        echo(_list_spec(spec, terminal_width(UNBROKEN)))


@click.command(
    cls=Command,
    examples={
        "harness plan table5": "Show which jobs fill table 5, which of them are measured, and what blocks the others.",
        "harness plan table2 --train --data imagenet=/data/imagenet": "Show its trainings, and their cost.",
    },
)
@options.tables
@options.selection
@options.throughput
@options.explaining
@options.training
@options.data
@options.device
@options.edition
@options.runs
def plan(tables: tuple[str, ...], edition: str, runs: Path, device: str, **params: Any) -> None:  # noqa: ANN401
    """Show jobs, their cost, and what blocks them.

    Each distinct job is shown once, with the cells that share it and whether it was measured already.
    """
    made = make_plan(Catalog(edition=edition).find(tables), make_options(params))
    target = resolve_target(device)
    store = options.open_store(runs, existing=False)
    clock = TrainingClock(target.fit(made), store, target, len(target.all_devices))
    echo("\n".join(_list_plan(clock, terminal_width(UNBROKEN))))


# Columns of a window in which a list of tables has no room for numbers that are their names.
NARROW = 90


def _list_specs(specs: Iterable[Spec], width: int) -> str:
    """Return a heading and a row for each table."""
    rows: list[tuple[str, ...]] = [("table", "paper", "rows × columns", "jobs", "title")]
    for spec in specs:
        cells = (cell for cell in spec.cells.values() if cell.settings or cell.references)
        needs = ", ".join(_origins(cells)) or "nothing to measure"
        size = f"{len(spec.rows)} × {len(spec.columns)}"
        rows.append((spec.name, spec.numbers.get(spec.edition, ""), size, needs, spec.title))
    if width < NARROW and all(number.lower().replace(" ", "") in (name, "text", "") for name, number, *_ in rows[1:]):
        rows = [(name, *rest) for name, _, *rest in rows]
    return "\n".join(align(rows, width, broken=range(len(rows[0]))[-3:]))


def _list_spec(spec: Spec, width: int) -> str:
    """Return the columns and rows of one table, with the keys that options take."""
    title = f"{spec.name}: {spec.numbers.get(spec.edition, '')}  {spec.title}".replace(":   ", ": ")
    columns, rows = [], []
    for column in spec.columns:
        job = ", ".join(_origins(c for (_, key), c in spec.cells.items() if key == column.key)) or "published only"
        extra = ", not in the paper's table" if column.extra else ""
        unit = f" ({column.unit})" if column.unit else ""
        columns.append((column.key, f"{column.label}{unit}: {job}{extra}"))
    for row in spec.rows:
        models = dict.fromkeys(
            str(c.settings["model"]) for (key, _), c in spec.cells.items() if key == row.key and "model" in c.settings
        )
        rows.append((row.key, row.label + (f"  [{', '.join(models)}]" if models else "")))
    parts = [break_lines([title], width)]
    for heading, named in (("columns", columns), ("rows", rows)):
        keys = max((len(key) for key, _ in named), default=0)
        if any(keys + 4 + len(word) > width for _, text in named for word in text.split()):
            lines = break_lines((line for key, text in named for line in (f"  {key}", f"      {text}")), width)
        else:
            lines = align(named, width, broken=[1], indent=2) if named else []
        parts.append([heading, *lines])
    parts += [wrap(spec.note, width)] if spec.note else []
    return "\n\n".join(map("\n".join, parts))


def _origins(cells: Iterable[Cell]) -> list[str]:
    """Return the kinds of job that fill some cells, and `derived` where others do."""
    kinds = dict.fromkeys(cell.kind or ("derived" if cell.derivation else "") for cell in cells)
    return [str(kind) for kind in kinds if kind]


def _list_plan(clock: TrainingClock, width: int) -> list[str]:
    """Return the distinct jobs with the cells that share them, what is blocked, and the cost, in lines."""
    plan, lines = clock.plan, [f"on {clock.target.machine.label}"]
    known = {job: clock.find(job) for job in plan.jobs}
    for kind in dict.fromkeys(job.kind for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.kind == kind]
        measured = sum(known[job] is not None for job in jobs)
        # Evaluations on the same images share a data pass.
        names = list(dict.fromkeys(str(job["data"]) for job in jobs)) if kind == "evaluate" else []
        passes = f"; one pass over {'each of ' if len(names) > 1 else ''}{', '.join(names)}" if names else ""
        lines += break_lines(["", f"{kind}: {len(jobs)} distinct jobs, {measured} measured already{passes}"], width)
        listed = _list_trainings if kind == "train" else _list_jobs
        lines += listed([(job, known[job]) for job in jobs], clock, width)
    lines += break_lines(_list_blocked(plan), width)
    # Settings of the trainings that no publication gives.
    assumed = dict.fromkeys(text for planned in plan.cells for text in planned.assumed)
    lines += break_lines(["", "the recipes assume", *(f"  {text}" for text in assumed)] if assumed else [], width)
    return [*lines, *break_lines(_list_cost(clock), width)]


_Run = tuple[Job, Result | None]


def _list_jobs(jobs: Iterable[_Run], clock: TrainingClock, width: int) -> Iterator[str]:
    """Yield the jobs of a kind, with the rows that they fill, under the settings and columns that they share."""
    plan = clock.plan
    groups: dict[tuple[str, str], dict[tuple[str, str], list[_Run]]] = {}
    for job, result in jobs:
        cells = _cells_by_row(plan.cells_needing(job))
        filled = {f"{', '.join(columns)} of {spec}" for (spec, _), columns in cells.items()}
        if len(filled) == 1:
            rows = "; ".join(row for _, row in cells)
        else:
            filled, rows = set(), _cells_text(cells)
        changed = job if job.kind == "train-speed" else job.need("weights")
        taught = f" taught by {job['teacher']}" if job.get("teacher") else ""
        text = f"{job}{recipe_changes(changed, plan) if changed else ''}{taught}".removeprefix(f"{job.kind} ")
        shared = groups.setdefault((_settings(job), "".join(filled)), {})
        shared.setdefault((_SEED.sub("", text), rows), []).append((job, result))
    for (settings, filled_by_all), members in groups.items():
        yield from break_lines([f"  with {settings}"] if settings else [], width)
        yield from break_lines([f"  fill {filled_by_all}"] if filled_by_all else [], width)
        table = [(f"{text}{_seeds(runs)}", _state(runs, "measured"), rows) for (text, rows), runs in members.items()]
        yield from align([("job", "state", "rows"), *table], width, broken=[0, 2], indent=2)


def _list_trainings(jobs: Iterable[_Run], clock: TrainingClock, width: int) -> Iterator[str]:
    """Yield a line for each training, with its changes of the recipe, and where it takes weights from."""
    plan = clock.plan
    by_line: dict[tuple[str, str], list[_Run]] = {}
    for job, result in jobs:
        trained = [f"{_ROLES[role]} {needed}{recipe_changes(needed, plan)}" for role, needed in job.needs]
        public = [f"{_ROLES[role]} {job.get(role)}" for role in ("start", "teacher") if job.get(role)]
        origin = f"  ({'; '.join([*trained, *public])})" if trained or public else ""
        hours = plan.stages.hours(job) if plan.stages.scale is None else None
        here = clock.hours(job)
        costs = [f"{hours:,.0f} V100-hours"] if hours is not None else []
        costs += [f"{here:,.0f} h of steps here"] if here is not None else []
        end = "".join(f"  ≈ {each}" for each in costs) + f"  for {_cells_text(_cells_by_row(plan.cells_needing(job)))}"
        by_line.setdefault((_SEED.sub("", f"{job}{recipe_changes(job, plan)}{origin}"), end), []).append((job, result))
    lines = (f"  {text}{_seeds(runs)}  {_state(runs, 'trained')}{end}" for (text, end), runs in by_line.items())
    yield from break_lines(lines, width)


_ROLES = {"start": "from", "teacher": "taught by"}


_SEED = re.compile(r", seed \d+")


def _seeds(runs: Iterable[_Run]) -> str:
    """Return the seeds of jobs that differ in nothing else."""
    seeds = [str(seed) for job, _ in runs if (seed := (job.need("weights") or job).get("seed"))]
    return f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""


def _state(runs: Sequence[_Run], verb: str) -> str:
    """Return whether there are results of some jobs, and how long they took."""
    seconds = [result.seconds for _, result in runs if result]
    # Evaluations share a data pass, and the result of each has the time of all of it.
    took = sum(seconds) if verb == "trained" else max(seconds, default=0)
    state = f"{verb} in {took:,.0f} s" if seconds else "to do"
    return f"{len(seconds)} of {len(runs)} {state}" if 0 < len(seconds) < len(runs) else state


def _settings(job: Job) -> str:
    """Return the settings of a job that its name does not have."""
    if job.kind in ("train-speed", "recipe"):
        return ""  # the recipe has the rest
    hidden = {"model", "res", "width", "data", "first", "second"}  # `str(job)` has them
    if job.kind != "throughput":
        defaults = KINDS[job.kind].defaults
        hidden.update(name for name in defaults if job.kind in OUR_KINDS or job[name] == defaults[name])
    if job.need("weights"):
        hidden.add("weights")
    return " ".join(f"{name}={value}" for name, value in job.settings if name not in hidden)


def _cells_by_row(cells: Iterable[PlannedCell]) -> dict[tuple[str, str], list[str]]:
    """Return the labels of columns by table and label of the row."""
    by_row: dict[tuple[str, str], list[str]] = {}
    for planned in cells:
        by_row.setdefault((planned.spec, planned.cell.row.label), []).append(planned.cell.column.label)
    return by_row


def _cells_text(by_row: Mapping[tuple[str, str], list[str]]) -> str:
    return "; ".join(f"{spec} {row}: {', '.join(columns)}" for (spec, row), columns in by_row.items())


def _list_blocked(plan: Plan) -> list[str]:
    by_reason: dict[str, list[PlannedCell]] = {}
    for planned in plan.cells:
        if planned.blocked and not planned.idle:
            by_reason.setdefault(planned.blocked, []).append(planned)
    if not by_reason:
        return []
    lines = ["", f"blocked: {sum(map(len, by_reason.values()))} cells"]
    for reason, cells in by_reason.items():
        jobs = len({planned.job for planned in cells if planned.job})
        distinct = f"; distinct jobs: {jobs}" if jobs else ""
        counts = Counter(planned.spec for planned in cells)
        lines.append(f"  {reason}: {', '.join(f'{count} in {table}' for table, count in counts.items())}{distinct}")
    return lines


def _list_cost(clock: TrainingClock) -> list[str]:
    """Return the cost of the trainings, each stage once; of the blocked ones if nothing is to be trained."""
    plan = clock.plan
    runnable = [job for job in plan.jobs if job.kind == "train"]
    trainings = runnable or [job for job in plan.all_jobs if job.kind == "train"]
    scale = plan.stages.scale
    if runnable and scale is not None:
        return ["", f"training: {len(runnable)} at the {scale.name} scale ({scale.title})"]
    if not trainings:
        return []
    hours, unknown = training_cost(trainings, plan)
    more = f"; {unknown} more whose cost was not published" if unknown else ""
    notes = [] if runnable else [f"  {spec.name}: {spec.cost}" for spec in plan.specs if spec.cost]
    here = f"  {clock.sentence(trainings)}" if runnable or any(map(clock.hours, trainings)) else ""
    cost = f"training: {len(trainings) - unknown} of known cost, ≈ {hours:,.0f} V100-hours{more}"
    return ["", cost, *([here] if here else []), *notes]
