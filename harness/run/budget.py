"""A time budget -> which jobs are run, in which order, and how long each may take."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from harness.plan.job import Job
from harness.plan.plan import Plan, dependencies
from harness.run.forecast import Forecast

# A throughput whose time is short has fewer iterations, down to this share of the time it would take.
SHORTEST = 1 / 3

Jobs = tuple[Job, ...]


@dataclass(kw_only=True)
class Budget:
    """Seconds for all that a run measures, from the first job on.

    `cells` are the cells that each job fills: the more, and the sooner it is done, the more it tells.  `left_out` has
    the seconds that each job would have taken that was left out, None where nothing tells.
    """

    seconds: float
    forecast: Forecast
    cells: Mapping[str, int] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    left_out: dict[Job, float | None] = field(default_factory=dict)
    _ends: float = 0.0

    @classmethod
    def of(cls, seconds: float, plan: Plan, forecast: Forecast) -> "Budget":
        """Make the budget of a plan."""
        return cls(
            seconds=seconds, forecast=forecast, cells={job.key: len(plan.cells_needing(job)) for job in plan.jobs}
        )

    def starts(self, jobs: Iterable[Job]) -> None:
        """The time begins to run, for these jobs."""
        self.forecast.plans(list(jobs))
        self._ends = self.now() + self.seconds

    def ordered(self, batches: Iterable[Jobs]) -> list[Jobs]:
        """Return batches with those first that fill the most cells in their time, but none before what it needs."""

        def seconds_a_cell(jobs: Jobs) -> float:
            expected = self._expected(jobs)
            return float("inf") if expected is None else expected / max(1, sum(self.cells.get(j.key, 1) for j in jobs))

        return sorted(batches, key=lambda jobs: (any(map(dependencies, jobs)), seconds_a_cell(jobs)))

    def allowance(self, jobs: Jobs, later: Iterable[Jobs]) -> float | None:
        """Return the seconds that a batch may take, with `later` ones after it; None if it has to be left out.

        Where time is short for all, each gets its share, but no less than a third of what it takes.
        """
        left, expected = self._ends - self.now(), self._expected(jobs)
        others = sum(self._expected(each) or 0.0 for each in later)
        needs_left_out = any(need in self.left_out for job in jobs for need in dependencies(job))
        if expected is not None and left > 0 and not needs_left_out:
            share = min(1.0, max(left / (expected + others), SHORTEST if _can_be_shortened(jobs) else 1.0))
            if share * expected <= left:
                return left if share == 1.0 else share * expected
        self.left_out |= {job: self.forecast.expected(job) for job in jobs}
        return None

    def _expected(self, jobs: Jobs) -> float | None:
        """Return how long a batch takes: its jobs one after the other, or in one pass over the same images."""
        each = [self.forecast.expected(job) for job in jobs]
        known = [seconds for seconds in each if seconds is not None]
        if len(known) < len(each):
            return None
        return max(known) if jobs[0].kind == "evaluate" else sum(known)


def _can_be_shortened(jobs: Jobs) -> bool:
    return jobs[0].kind == "throughput"
