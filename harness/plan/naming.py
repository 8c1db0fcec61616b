"""Jobs of a plan -> names for people: with what each changes of its recipe."""

from collections.abc import Callable

from harness.plan.job import Job
from harness.plan.plan import Plan


def job_namer(plan: Plan) -> Callable[[Job], str]:
    """Return a function that names jobs with their changes of the recipe: rows of a table may share all else."""

    def name(job: Job) -> str:
        trained = job.need("weights") or job
        return f"{job}{recipe_changes(trained, plan)}" if trained.kind == "train" else str(job)

    return name


def recipe_changes(job: Job, plan: Plan) -> str:
    """Return what a training changes of its recipe."""
    words = {True: "yes", False: "no"}
    changed = [
        f"{name}={words[value] if isinstance(value, bool) else value}"
        for name, value in plan.stages.differences(job).items()
    ]
    return f" with {', '.join(changed)}" if changed else ""
