"""`Plan` + `Store` -> `Selection`: which stored result counts for each job.

The rule: of each job the newest result counts.  Throughputs of different machines never meet in one table: those of
this machine count if it has any, otherwise those of the machine that has the newest one.

The rule has one variation, `newest_failures`.  A table shows a failure only where no good result is known; a gate must
see that a job has begun to fail, so there a failure counts like any other result, and so it does where the machine is
chosen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.errors import StoreError
from harness.machine import Machine, same_software
from harness.plan.job import Job
from harness.plan.plan import Plan
from harness.store.result import Result
from harness.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The results that count, by the key of their job.

    `throughputs` are all good runs of each throughput job with the software of the newest one, newest first.  Those,
    and the `results` of throughput jobs, are of `machine`; None where no throughput is known.
    """

    results: Mapping[str, Result]
    throughputs: Mapping[str, tuple[Result, ...]]
    machine: Machine | None


def select_results(plan: Plan, store: Store, here: Machine | None, *, newest_failures: bool = False) -> Selection:
    """Select the result that counts for each job of a plan; `here` is this machine.

    Raises `StoreError` where two results claim the same run: one of them is a copy, and would count twice.
    """
    runs = {job: list(store.results(job)) for job in plan.all_jobs if job.exclusive}
    others = [_newest(store.results(job), failures=newest_failures) for job in plan.all_jobs if not job.exclusive]
    _check_claims([*(result for results in runs.values() for result in results), *filter(None, others)], store)
    counting = [result for results in runs.values() for result in results if newest_failures or result.error is None]
    machine = _machine_of(counting, here)
    on_machine = {
        job: [one for one in results if machine is None or one.machine.is_equivalent(machine)]
        for job, results in runs.items()
    }
    selected = (*others, *(_newest(results, failures=newest_failures) for results in on_machine.values()))
    return Selection(
        results={result.job.key: result for result in selected if result},
        throughputs={job.key: _same_software_as_newest(results) for job, results in on_machine.items()},
        machine=machine,
    )


def is_noisy(result: Result) -> bool:
    """Whether something else used the machine while a throughput was measured, so that it tells about that as well."""
    return bool(result.facts.get("disturbed"))


def _newest(results: Iterable[Result], *, failures: bool) -> Result | None:
    """Return the first of the results, newest first, that counts; a failure as the last resort."""
    newest = None
    for result in results:
        if failures or result.error is None:
            return result
        newest = newest or result
    return newest


def _machine_of(results: list[Result], here: Machine | None) -> Machine | None:
    if here is not None and any(result.machine.is_equivalent(here) for result in results):
        return here
    return max(results, key=lambda result: result.id).machine if results else None


def _same_software_as_newest(results: list[Result]) -> tuple[Result, ...]:
    good = [result for result in results if result.error is None]
    return tuple(result for result in good if same_software(result.software, good[0].software))


def _check_claims(results: Iterable[Result], store: Store) -> None:
    claims: dict[str, Job] = {}
    for result in results:
        other = claims.setdefault(result.id, result.job)
        if other is not result.job:
            folders = " and ".join(dict.fromkeys(f"{store.root / job.key}/" for job in (other, result.job)))
            raise StoreError(f"two results claim the run {result.id}, in {folders}; remove the one that is a copy")
