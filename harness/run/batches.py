"""Jobs -> batches: which jobs share a child process, on this machine or in a task of a cluster."""

from collections.abc import Iterable, Mapping

from harness.plan.job import Job


def share_processes(jobs: Iterable[Job], *, largest: Mapping[str, int] | None = None) -> list[tuple[Job, ...]]:
    """Share jobs among processes, in the order of the jobs.

    A job that needs the machine to itself has a process of its own.  Evaluations on the same images share a process,
    and with it one data pass; so do all other jobs of a kind.  `largest` bounds the jobs of a process by kind: kinds
    without a bound then have one job a process; None bounds nothing.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        group = f"{job.kind} {job['data']}" if job.kind == "evaluate" else job.kind
        groups.setdefault(job.key if job.exclusive else group, []).append(job)
    batches = []
    for members in groups.values():
        size = len(members) if largest is None else largest.get(members[0].kind, 1)
        batches += [tuple(members[first : first + size]) for first in range(0, len(members), size)]
    return batches
