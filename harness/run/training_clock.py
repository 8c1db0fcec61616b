"""Trainings -> what they cost: V100-hours as published, and hours of steps on a target whose steps were timed."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.plan.job import Job
from harness.plan.plan import Options, Plan
from harness.run.target import ExecutionTarget
from harness.specs import Spec
from harness.specs.catalog import name_to_type
from harness.store.result import Result
from harness.store.store import Store

# What to do about a training at the published scale that nobody can be asked about.
UNCONFIRMED = "add --yes to begin, or --scale proxy for a stand-in"


@dataclass(frozen=True)
class TrainingClock:
    """How long the trainings of a plan take on a target whose steps were timed, as the results in a store tell.

    `devices` like the target's share them without loss.
    """

    plan: Plan
    store: Store
    target: ExecutionTarget
    devices: int

    def hours(self, training: Job) -> float | None:
        """Return the hours of all steps of a training at the published scale; None where its step was not timed."""
        if self.plan.stages.scale is not None:
            return None
        timed = self.find(self.plan.stages.speed_job_of(training))
        hours = timed.metrics.get("hours") if timed else None
        return None if hours is None else float(hours.value) / self.devices

    def _trains(self, spec: Spec) -> bool:
        return any(job.kind == "train" for cell in self.plan.cells_in(spec).values() for job in cell.jobs)

    def find(self, job: Job) -> Result | None:
        """Return the result that makes it unnecessary to run a job on the target."""
        return self.store.find(job, self.target.machine, self.target.software)

    def sentence(self, trainings: Iterable[Job]) -> str:
        """Return how long some trainings take here, and what to do where that is not known."""
        hours = [self.hours(training) for training in trainings]
        known = [each for each in hours if each is not None]
        shared = f", shared by {self.devices} devices without loss" if self.devices > 1 else ""
        parts = [f"≈ {sum(known):,.0f} h of steps on {self.target.machine.label}{shared}"] if known else []
        if len(known) < len(hours):
            count = f"{len(hours) - len(known)} of {len(hours)} trainings"
            tables = [name_to_type(spec.path) for spec in self.plan.specs if self._trains(spec)]
            parts.append(
                f"how long {count} would take on {self.target.machine.label} is not known: "
                f"`harness reproduce {' '.join(tables)} --train --only train-speed` times their steps, "
                "about a minute each"
            )
        return "; ".join(parts)


def training_cost(trainings: Iterable[Job], plan: Plan) -> tuple[float, int]:
    """Return the V100-hours of trainings, and how many of them have no published cost."""
    hours = [plan.stages.hours(job) for job in trainings]
    return sum(known for known in hours if known is not None), hours.count(None)


def full_trainings(clock: TrainingClock, requested: Options) -> str:
    """Return how many trainings a plan has at the published scale, and what they cost; empty if it has none."""
    plan = clock.plan
    trainings = [job for job in plan.jobs if job.kind == "train"]
    if requested.scale != "full" or not trainings:
        return ""
    hours, unknown = training_cost(trainings, plan)
    more = f" and {unknown} whose cost was not published" if unknown else ""
    count = f"{len(trainings)} training{'' if len(trainings) == 1 else 's'} at the published scale"
    return f"{count}, ≈ {hours:,.0f} V100-hours{more}; {clock.sentence(trainings)}"
