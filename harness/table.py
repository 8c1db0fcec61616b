"""`Spec` + `Result`s -> `Table` in the paper's layout: each cell with what was measured for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.job import Job
from harness.kinds import KINDS
from harness.machine import Machine
from harness.plan import Plan, Planned
from harness.result import Measurement, Result
from harness.spec import Cell, Spec
from harness.stats import summarise
from harness.store import Store


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A cell, its job if it has one, and the newest result of that job.

    `others` are results of the jobs that may explain a difference, `repeats` those of the same job with other seeds,
    `trainings` those of the trainings that made the weights, one a seed.
    """

    planned: Planned
    result: Result | None
    others: tuple[Result, ...] = ()
    repeats: tuple[Result, ...] = ()
    trainings: tuple[Result, ...] = ()

    @property
    def cell(self) -> Cell:
        """What was printed there."""
        return self.planned.cell

    @property
    def stands_in(self) -> bool:
        """Whether what was measured is that of a small scale, which has no place beside a published value."""
        return self.planned.small and self.measurement is not None

    @property
    def given(self) -> bool:
        """Whether the value is one that the spec has to give the job, as an image size: it cannot but hold."""
        kind = KINDS.get(self.cell.kind or "")
        return kind is not None and self.cell.metric in kind.required

    @property
    def of_all_images(self) -> bool:
        """Whether an accuracy is one of all published images: that of a sample has no place among published points."""
        images = self.result.facts.get("images") if self.result else None
        whole = not images or (bool(images["whole"]) and not self.planned.other_weights)
        return whole and not self.stands_in

    @property
    def results(self) -> tuple[Result, ...]:
        """Every result behind the cell once, its own first."""
        own = () if self.result is None else (self.result,)
        every = (*own, *self.repeats, *self.trainings, *self.others)
        return tuple({(one.job.key, one.id): one for one in every}.values())

    @property
    def measurement(self) -> Measurement | None:
        """The cell's own metric of the result; the mean over seeds where there are several, with its interval."""
        if self.result is None or self.result.error is not None:
            return None
        own = self.result.metrics.get(str(self.cell.metric))
        values = tuple(self.by_seed.values())
        if own is None or len(values) < 2:
            return own
        summary = summarise(values)
        return replace(
            own, value=summary.mean, low=summary.low, high=summary.high, samples=values, sample_unit=own.unit
        )

    @property
    def by_seed(self) -> Mapping[int, float]:
        """The cell's metric of each seed that was trained for it."""
        found = {}
        for result in (self.result, *self.repeats):
            if result is None or result.error is not None:
                continue
            measurement = result.metrics.get(str(self.cell.metric))
            behind = result.job.need("weights") or result.job
            if measurement is not None and not isinstance(measurement.value, str) and behind.kind == "train":
                found[int(behind["seed"])] = measurement.value
        return found


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table, filled.  `machine` is where its speeds were measured, if any were."""

    spec: Spec
    machine: Machine | None
    cells: Mapping[tuple[str, str], Filled]

    def cell(self, row: str, column: str) -> Filled:
        """Give the cell under these two keys."""
        return self.cells[row, column]


def fill(spec: Spec, plan: Plan, results: Mapping[str, Result]) -> Table:
    """Put results, given by the key of their job, into the cells of a table."""
    cells = {
        place: Filled(
            planned=planned,
            result=results.get(planned.job.key) if planned.job else None,
            others=_explaining(planned, results),
            repeats=tuple(results[job.key] for job in planned.repeats if job.key in results),
            trainings=_trainings(planned, results),
        )
        for place, planned in plan.of(spec).items()
    }
    speeds = [f.result.machine for f in cells.values() if f.result and f.result.job.exclusive]
    return Table(spec=spec, machine=speeds[0] if speeds else None, cells=cells)


def _trainings(planned: Planned, results: Mapping[str, Result]) -> tuple[Result, ...]:
    """Take the results of the trainings whose weights fill the cell, not of those that came before them."""
    own = (planned.job, *planned.repeats) if planned.job else ()
    last = [job.need("weights") or job for job in own]
    return tuple(results[job.key] for job in last if job.kind == "train" and job.key in results)


def _explaining(planned: Planned, results: Mapping[str, Result]) -> tuple[Result, ...]:
    """Take the results that may explain a cell's own: those of the same images, if it has one."""
    found = [results[job.key] for job in planned.others if job.key in results]
    own = results.get(planned.job.key) if planned.job else None
    if own is None or own.error is not None:
        return tuple(found)
    return tuple(result for result in found if _images_of(result) == _images_of(own))


def _images_of(result: Result) -> str | None:
    images = result.facts.get("images")
    return str(images["fingerprint"]) if images else None


def stored(plan: Plan, store: Store, here: Machine | None) -> dict[str, Result]:
    """Take the results of a plan from a store, without measuring anything.

    Speeds of different machines never stand in one table: those of this machine are taken if there are any, else those
    of the machine with the newest result.  A failure shows where nothing better is known.
    """
    newest = {job: list(_newest_by_machine(job, store)) for job in plan.all_jobs}
    machine = _chosen(newest, here)
    found = {}
    for job, results in newest.items():
        fitting = [r for r in results if not job.exclusive or machine is None or r.machine.does_the_same_as(machine)]
        good = [result for result in fitting if result.error is None]
        if fitting:
            found[job.key] = (good or fitting)[0]
    return found


def _newest_by_machine(job: Job, store: Store) -> list[Result]:
    """Take the newest good result and the newest failure of each machine; for other than speeds, just the newest."""
    found: dict[tuple[Machine | None, bool], Result] = {}
    for result in store.results(job):
        found.setdefault((result.machine if job.exclusive else None, result.error is None), result)
        if not job.exclusive and result.error is None:
            break
    return list(found.values())


def _chosen(newest: Mapping[Job, list[Result]], here: Machine | None) -> Machine | None:
    speeds = [result for job, results in newest.items() if job.exclusive for result in results if result.error is None]
    if here is not None and any(result.machine.does_the_same_as(here) for result in speeds):
        return here
    return max(speeds, key=lambda result: result.id).machine if speeds else None
