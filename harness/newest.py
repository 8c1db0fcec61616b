"""`Plan` + `Store` -> what each job came to last: the newest result, a failure too, and all speeds of one machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import StoreError
from harness.job import Job
from harness.machine import Machine, same_software
from harness.plan import Plan
from harness.result import Result
from harness.store import Store


@dataclass(frozen=True, kw_only=True)
class Newest:
    """What stands now, by the key of the job.

    `results` are the newest, failed or not: a gate must see that a job has begun to fail.  `speeds` are the good runs
    of speed jobs with the versions of the newest one, newest first; those and `results` of speed jobs are of `machine`.
    """

    results: Mapping[str, Result]
    speeds: Mapping[str, tuple[Result, ...]]
    machine: Machine | None


def newest(plan: Plan, store: Store, here: Machine | None) -> Newest:
    """Find what stands now.  Speeds are those of this machine if there are any, else of the one measured on last.

    Raises `StoreError` where two results claim the same run: one of them is a copy, and would count twice.
    """
    speeds = {job.key: list(store.results(job)) for job in plan.all_jobs if job.exclusive}
    others = [store.latest(job, lambda _: True) for job in plan.all_jobs if not job.exclusive]
    _check_claims([result for results in speeds.values() for result in results], store)
    machine = _machine(speeds, here)
    ours = {
        key: [one for one in results if machine and one.machine.does_the_same_as(machine)]
        for key, results in speeds.items()
    }
    return Newest(
        results={
            **{result.job.key: result for result in others if result},
            **{key: results[0] for key, results in ours.items() if results},
        },
        speeds={key: _alike([one for one in results if one.error is None]) for key, results in ours.items()},
        machine=machine,
    )


def is_disturbed(result: Result) -> bool:
    """Whether something else used the machine while a speed was measured, so that it tells about that as well."""
    return bool(result.facts.get("disturbed"))


def _alike(results: list[Result]) -> tuple[Result, ...]:
    return tuple(one for one in results if same_software(one.software, results[0].software))


def _machine(speeds: Mapping[str, list[Result]], here: Machine | None) -> Machine | None:
    every = [result for results in speeds.values() for result in results]
    if here is not None and any(result.machine.does_the_same_as(here) for result in every):
        return here
    return max(every, key=lambda result: result.id).machine if every else None


def _check_claims(results: list[Result], store: Store) -> None:
    seen: dict[str, Job] = {}
    for result in results:
        if result.id in seen:
            of = " and ".join(dict.fromkeys(f"{store.root / job.key}/" for job in (seen[result.id], result.job)))
            raise StoreError(f"two results claim the run {result.id}, in {of}; remove the one that is a copy")
        seen[result.id] = result.job
