"""`Plan` + `Store` -> `Selection`: which stored result counts for each job.

The rule: of each job the newest result counts.  Throughputs of different machines never meet in one table: those of
this machine count if it has any, otherwise those of the machine that has the newest one.

`machine` names another one instead.  Of what does not count, `elsewhere` tells where it was measured otherwise.

The rule has one variation, `newest_failures`.  A table shows a failure only where no good result is known; a gate must
see that a job has begun to fail, so there a failure counts like any other result, and so it does where the machine is
chosen.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import fmean

from harness.errors import HarnessError, StoreError
from harness.machine import Machine, same_software
from harness.plan.job import Job
from harness.plan.plan import OVERRIDES, Plan
from harness.store.result import Result
from harness.store.store import Store

# What warnings say where the machine did something else than the measurement, or slowed down.
_INTERFERENCE = re.compile(r"(slowdown|power brake) in \d+ % of|other process(es)? used|the host took")


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What was measured, but on another machine, under other settings than those asked for, or by an older method.

    `other_machine` tells that only the name of its machine brings it into the table, `retired` that nothing does.
    """

    result: Result
    other_machine: bool
    retired: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The results that count, by the key of their job.

    `throughputs` are all good runs of each throughput job with the software of the newest one, newest first, but for
    quick ones, which are no processes to compare.  Those,
    and the `results` of throughput jobs, are of `machine`; None where no throughput is known.  `elsewhere` has, for
    jobs that could be run and have no result, the newest measurement that does not count.
    """

    results: Mapping[str, Result]
    throughputs: Mapping[str, tuple[Result, ...]]
    machine: Machine | None
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)


def select_results(
    plan: Plan, store: Store, here: Machine | None, *, newest_failures: bool = False, machine_name: str = ""
) -> Selection:
    """Select the result that counts for each job of a plan; `here` is this machine, `machine_name` another to show.

    Raises `StoreError` where two results claim the same run: one of them is a copy, and would count twice; and
    `HarnessError` where nothing was measured on a machine of that name.
    """
    runs = {job: list(store.results(job)) for job in plan.all_jobs if job.exclusive}
    others = {job: newest(store.results(job), failures=newest_failures) for job in plan.all_jobs if not job.exclusive}
    _check_claims([*(result for results in runs.values() for result in results), *filter(None, others.values())], store)
    counting = [result for results in runs.values() for result in results if newest_failures or result.error is None]
    machine = _machine_called(machine_name, counting) if machine_name else _machine_of(counting, here)
    on_machine = {
        job: [one for one in results if machine is None or one.machine.is_equivalent(machine)]
        for job, results in runs.items()
    }
    selected = (*others.values(), *(newest(results, failures=newest_failures) for results in on_machine.values()))
    missing = [job for job in plan.jobs if not (on_machine[job] if job.exclusive else others[job])]
    variants = store.variants(missing, OVERRIDES)
    elsewhere = {job.key: _elsewhere(job, [*runs.get(job, ()), *variants[job]], machine or here) for job in missing}
    return Selection(
        results={result.job.key: result for result in selected if result},
        throughputs={job.key: _same_software_as_newest(results) for job, results in on_machine.items()},
        machine=machine,
        elsewhere={key: other for key, other in elsewhere.items() if other},
    )


def interference(result: Result) -> str:
    """Return what else used the machine, or slowed it, while a throughput was measured; empty if nothing did.

    What disturbed only iterations that were dropped and timed again did not disturb the result.
    """
    if result.facts.get("dropped") and not result.facts.get("disturbed"):
        return ""
    sentence = next((warning for warning in result.warnings if _INTERFERENCE.search(warning)), "")
    noisy = "something else used the machine while this was timed: measure again when it is idle"
    return sentence or (noisy if result.facts.get("disturbed") else "")


def is_noisy(result: Result) -> bool:
    """Whether a throughput tells about something else as well than the model."""
    return bool(interference(result))


def reference_seconds(result: Result) -> float | None:
    """Return the seconds of the reference workload, the mean of before and after a throughput; None if not measured."""
    return fmean(result.facts["yardstick"]) if result.facts.get("yardstick") else None


def _elsewhere(job: Job, results: Iterable[Result], machine: Machine | None) -> Elsewhere | None:
    def is_current(result: Result) -> bool:
        return result.job.revision == job.revision and result.job.needs == job.needs

    good = (result for result in results if result.error is None)
    last = max(good, key=lambda result: (is_current(result), result.id), default=None)
    if last is None:
        return None
    elsewhere = job.exclusive and machine is not None and not last.machine.is_equivalent(machine)
    return Elsewhere(result=last, other_machine=elsewhere, retired=not is_current(last))


def is_called(machine: Machine, name: str) -> bool:
    """Whether a machine's label has this text in it, or is like this pattern with `*` and `?`; case does not matter."""
    label, pattern = machine.label.lower(), name.lower()
    return pattern in label or fnmatchcase(label, pattern)


def _machine_called(name: str, results: list[Result]) -> Machine:
    """Return the machine of the newest result whose machine has this label, or is called so."""
    machines = {result.machine.label: result.machine for result in sorted(results, key=lambda result: result.id)}
    matches = [label for label, machine in machines.items() if is_called(machine, name)]
    if not matches:
        known = ", ".join(machines) or "none"
        raise HarnessError(
            f"--machine {name}: none of these throughputs was measured on such a machine, but on: {known}"
        )
    return machines[name if name in machines else matches[-1]]


def newest(results: Iterable[Result], *, failures: bool = False) -> Result | None:
    """Return the first of the results, newest first, that counts; a failure as the last resort."""
    failure = None
    for result in results:
        if failures or result.error is None:
            return result
        failure = failure or result
    return failure


def _machine_of(results: list[Result], here: Machine | None) -> Machine | None:
    if here is not None and any(result.machine.is_equivalent(here) for result in results):
        return here
    return max(results, key=lambda result: result.id).machine if results else None


def _same_software_as_newest(results: list[Result]) -> tuple[Result, ...]:
    good = [result for result in results if result.error is None and "quick" not in result.facts]
    return tuple(result for result in good if same_software(result.software, good[0].software))


def _check_claims(results: Iterable[Result], store: Store) -> None:
    claims: dict[str, Job] = {}
    for result in results:
        other = claims.setdefault(result.id, result.job)
        if other is not result.job:
            folders = " and ".join(dict.fromkeys(f"{store.root / job.key}/" for job in (other, result.job)))
            raise StoreError(f"two results claim the run {result.id}, in {folders}; remove the one that is a copy")
