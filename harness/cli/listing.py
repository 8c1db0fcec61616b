"""What `list` and `plan` print: plain text, at once."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from harness.job import Job
from harness.kinds import KINDS, Scalar
from harness.machine import Machine
from harness.plan import Plan, Planned
from harness.result import Result
from harness.spec import Spec
from harness.store import Store


def listing(specs: Iterable[Spec]) -> str:
    """Write a line for each table: name, size, what it needs, title."""
    lines = []
    for spec in specs:
        kinds = dict.fromkeys(cell.kind for cell in spec.cells.values() if cell.kind and cell.references)
        needs = ", ".join(str(kind) for kind in kinds) or "nothing to measure"
        number = spec.numbers.get(spec.edition, "")
        lines.append((spec.name, number, f"{len(spec.rows)} x {len(spec.columns)}", needs, spec.title))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join([*(part.ljust(width) for part, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def listing_of(spec: Spec) -> str:
    """Write the columns and rows of one table, with the keys that options take."""
    lines = [f"{spec.name}: {spec.numbers.get(spec.edition, '')}  {spec.title}".replace(":   ", ": "), "", "columns"]
    width = max(len(column.key) for column in spec.columns)
    for column in spec.columns:
        kinds = dict.fromkeys(c.kind for (_, key), c in spec.cells.items() if key == column.key and c.kind)
        job = ", ".join(str(kind) for kind in kinds) or "printed only"
        extra = ", not in the paper's table" if column.extra else ""
        unit = f" ({column.unit})" if column.unit else ""
        lines.append(f"  {column.key.ljust(width)}  {column.label}{unit}: {job}{extra}")
    lines += ["", "rows"]
    width = max(len(row.key) for row in spec.rows)
    for row in spec.rows:
        models = dict.fromkeys(
            str(c.settings["model"]) for (k, _), c in spec.cells.items() if k == row.key and "model" in c.settings
        )
        lines.append(f"  {row.key.ljust(width)}  {row.label}" + (f"  [{', '.join(models)}]" if models else ""))
    if spec.note:
        lines += ["", spec.note]
    return "\n".join(lines)


def listing_of_plan(plan: Plan, store: Store, machine: Machine, software: dict[str, str]) -> str:
    """Write the distinct jobs with the cells that share them, what blocks others, and the cost."""
    lines = [f"on {machine.label}"]
    known = {job: store.find(job, machine, software) for job in plan.jobs}
    for kind in dict.fromkeys(job.kind for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.kind == kind]
        measured = sum(known[job] is not None for job in jobs)
        lines += ["", f"{kind}: {len(jobs)} distinct jobs, {measured} measured already{_passes(kind, jobs)}"]
        lines += _folded(((job, known[job]) for job in jobs), plan)
    lines += _blocked(plan)
    lines += _assumptions(plan)
    lines += _cost(plan)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A job in words: what it is, the verb for having been measured, what it costs, the cells that it is for."""

    what: str
    done: str = "measured"
    cost: str = ""
    cells: str


def _line(job: Job, plan: Plan) -> _Line:
    """Write a job; a training with what it changes of its recipe, and what it takes weights from."""
    cells = _cells(plan.cells_of(job))
    if job.kind != "train":
        weights = job.need("weights")
        return _Line(what=f"{_job(job)}{_changes(weights, plan) if weights else ''}", cells=f"fills {cells}")
    took = "; ".join(f"{_PARTS[part]} {behind}{_changes(behind, plan)}" for part, behind in job.needs)
    public = "; ".join(f"{_PARTS[part]} {job.get(part)}" for part in ("start", "teacher") if job.get(part))
    chain = "; ".join(filter(None, (took, public)))
    hours = plan.stages.hours(job) if plan.stages.scale is None else None
    return _Line(
        what=f"{job}{_changes(job, plan)}{f'  ({chain})' if chain else ''}",
        done="trained",
        cost=f"  ≈ {hours:,.0f} V100-hours" if hours is not None else "",
        cells=f"for {cells}",
    )


def names_in(plan: Plan) -> Callable[[Job], str]:
    """Name jobs with what the training behind each changes of its recipe: rows of a table may share all else."""

    def name(job: Job) -> str:
        behind = job.need("weights") or job
        return f"{job}{_changes(behind, plan)}" if behind.kind == "train" else str(job)

    return name


def _changes(job: Job, plan: Plan) -> str:
    """Write what a training changes of its recipe."""
    changed = plan.stages.differences(job)
    return f" with {', '.join(f'{name}={_shown(value)}' for name, value in changed.items())}" if changed else ""


def _shown(value: Scalar) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


# What a job is told apart by from the same with another seed.
_SEED = re.compile(r", seed \d+")


def _folded(jobs: Iterable[tuple[Job, Result | None]], plan: Plan) -> Iterator[str]:
    """Write a line a job, those that only differ in the seed together."""
    alike: dict[_Line, list[tuple[str, Result | None]]] = {}
    for job, result in jobs:
        line = _line(job, plan)
        trained = job.need("weights") or job
        alike.setdefault(replace(line, what=_SEED.sub("", line.what)), []).append(
            (str(trained.get("seed", "")), result)
        )
    for line, those in alike.items():
        seeds = [seed for seed, _ in those if seed]
        said = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
        seconds = [result.seconds for _, result in those if result]
        # Evaluations share a pass, and each tells how long all of it took.
        took = sum(seconds) if line.done == "trained" else max(seconds, default=0)
        state = f"{line.done} in {took:,.0f} s" if seconds else "to do"
        if 0 < len(seconds) < len(those):
            state = f"{len(seconds)} of {len(those)} {state}"
        yield f"  {line.what}{said}  {state}{line.cost}  {line.cells}"


_PARTS = {"start": "from", "teacher": "taught by"}


def _passes(kind: str, jobs: Iterable[Job]) -> str:
    """Say that evaluations over the same images share one pass: that is what they cost."""
    if kind != "evaluate":
        return ""
    names = list(dict.fromkeys(str(job["data"]) for job in jobs))
    return f"; one pass over {names[0]}" if len(names) == 1 else f"; one pass over each of {', '.join(names)}"


def _job(job: Job) -> str:
    if job.kind in ("train", "recipe"):
        return str(job)  # the recipe says the rest
    told = dict(job.settings)
    said = {"model", "res", "data", "first", "second"}
    skip = said if job.kind == "throughput" else {*said, *KINDS[job.kind].defaults}
    if job.need("weights"):
        skip = {*skip, "weights"}
    more = " ".join(f"{name}={value}" for name, value in told.items() if name not in skip)
    return f"{job}{' ' + more if more else ''}"


def _cells(cells: Iterable[Planned]) -> str:
    by_row: dict[tuple[str, str], list[str]] = {}
    for planned in cells:
        by_row.setdefault((planned.spec, planned.cell.row.label), []).append(planned.cell.column.label)
    return "; ".join(f"{spec} {row}: {', '.join(columns)}" for (spec, row), columns in by_row.items())


def _blocked(plan: Plan) -> list[str]:
    blocked = [planned for planned in plan.cells if planned.blocked and not planned.idle]
    if not blocked:
        return []
    lines = ["", f"blocked: {len(blocked)} cells"]
    reasons: dict[str, list[Planned]] = {}
    for planned in blocked:
        reasons.setdefault(planned.blocked, []).append(planned)
    for reason, cells in reasons.items():
        jobs = len({planned.job for planned in cells if planned.job})
        distinct = f"; distinct jobs: {jobs}" if jobs else ""
        tables = Counter(planned.spec for planned in cells)
        where = ", ".join(f"{count} in {name}" for name, count in tables.items())
        lines.append(f"  {reason}: {where}{distinct}")
    return lines


def _assumptions(plan: Plan) -> list[str]:
    """List on which settings that no publication gives the trainings rest."""
    found = dict.fromkeys(one for planned in plan.cells for one in planned.assumed)
    return ["", "the recipes assume", *(f"  {one}" for one in found)] if found else []


def _cost(plan: Plan) -> list[str]:
    """Sum what the trainings of a plan cost, each stage once; of those that are blocked if nothing is to be trained."""
    trainings = [job for job in plan.jobs if job.kind == "train"]
    told = trainings or [job for job in plan.all_jobs if job.kind == "train"]
    if trainings and plan.stages.scale is not None:
        return ["", f"training: {len(trainings)} at the {plan.stages.scale.name} scale ({plan.stages.scale.title})"]
    known = [hours for job in told if (hours := plan.stages.hours(job)) is not None]
    unknown = len(told) - len(known)
    if not told:
        return []
    more = f"; {unknown} more whose cost was not published" if unknown else ""
    notes = [] if trainings else [f"  {spec.name}: {spec.cost}" for spec in plan.specs if spec.cost]
    return ["", f"training: {len(known)} of known cost, ≈ {sum(known):,.0f} V100-hours{more}", *notes]
