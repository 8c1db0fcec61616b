"""What `list` and `plan` print: plain text, at once."""

from collections import Counter
from collections.abc import Iterable

from harness.job import Job
from harness.kinds import KINDS
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
        for job in jobs:
            result = known[job]
            if kind == "train":
                lines.append(_training(job, plan, result))
                continue
            state = f"measured in {result.seconds:.0f} s" if result else "to do"
            lines.append(f"  {_job(job)}  {state}  fills {_cells(plan.cells_of(job))}")
    lines += _blocked(plan)
    lines += _assumptions(plan)
    lines += _cost(plan)
    return "\n".join(lines) + "\n"


def _training(job: Job, plan: Plan, result: Result | None) -> str:
    """Write a training with what it takes weights from, what it costs, and the cells behind which it stands."""
    took = "; ".join(f"{_PARTS[part]} {behind}" for part, behind in job.needs)
    public = "; ".join(f"{_PARTS[part]} {job.get(part)}" for part in ("start", "teacher") if job.get(part))
    chain = "; ".join(filter(None, (took, public)))
    hours = plan.stages.hours(job) if plan.stages.scale is None else None
    cost = f"  ≈ {hours:,.0f} V100-hours" if hours is not None else ""
    state = f"trained in {result.seconds:,.0f} s" if result else "to do"
    return f"  {job}{f'  ({chain})' if chain else ''}  {state}{cost}  for {_cells(plan.cells_of(job))}"


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


def _cost_of_plan(plan: Plan) -> list[str]:
    """Sum what the trainings of a plan cost, each stage once."""
    trainings = [job for job in plan.jobs if job.kind == "train"]
    if not trainings:
        return []
    if plan.stages.scale is not None:
        return ["", f"training: {len(trainings)} at the {plan.stages.scale.name} scale ({plan.stages.scale.title})"]
    known = [hours for job in trainings if (hours := plan.stages.hours(job)) is not None]
    unknown = len(trainings) - len(known)
    more = f"; {unknown} more whose cost was not published" if unknown else ""
    return ["", f"training: {len(known)} of known cost, ≈ {sum(known):,.0f} V100-hours{more}"]


def _cost(plan: Plan) -> list[str]:
    """Sum what the training cells would cost, each distinct training once."""
    planned_for = _cost_of_plan(plan)
    if planned_for:
        return planned_for
    costs: dict[object, float] = {}
    unknown = set()
    for planned in plan.cells:
        cell = planned.cell
        if planned.idle or not (cell.kind == "train" or cell.unreleased):
            continue
        what = planned.job or (planned.spec, cell.row.key)
        if cell.cost:
            costs[what] = max(costs.get(what, 0.0), cell.cost)
        else:
            unknown.add(what)
    if not costs and not unknown:
        return []
    notes = [f"{spec.name}: {spec.cost}" for spec in plan.specs if spec.cost]
    hours = f"{sum(costs.values()):,.0f} V100-hours, each from scratch"
    total = f"training: {len(costs)} distinct trainings of known cost, ≈ {hours}"
    more = f"; {len(unknown - costs.keys())} more whose cost was not published" if unknown - costs.keys() else ""
    return ["", total + more, *(f"  {note}" for note in notes)]
