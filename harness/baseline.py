"""`Table`s -> `Baseline` <-> a small file that people review: what was measured when all was well."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import HarnessError
from harness.job import Job
from harness.machine import Machine
from harness.newest import Newest, is_disturbed
from harness.noise import LEAST_PROCESSES, MOST_PROCESSES, Noise, Pace, allowance, noise_of, pace_of, speed
from harness.result import Result
from harness.spec import Spec
from harness.table import Filled, Table

# Digits of a run's time: a thousandth of a percent, far below what clocks and machines are good for.
DIGITS = 5

# The metric of a speed job that is judged.
SPEED = "throughput"

Place = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One run.

    `seconds` are the raw samples of a speed, each for `batch` images; `yardstick` are the seconds that the fixed piece
    of work took, the mean of before and after them; None where there is none.  `images` is the fingerprint of the
    images that an accuracy is of; None where there are none.
    """

    id: str
    job: Job
    batch: int = 0
    seconds: tuple[float, ...] = ()
    yardstick: float | None = None
    images: str | None = None

    @property
    def seconds_an_image(self) -> tuple[float, ...]:
        """Make runs with different batches comparable."""
        return tuple(one / self.batch for one in self.seconds)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell: its value in `unit`, and the ids of the runs it comes from; of a speed several, else one."""

    unit: str
    value: float | str
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Cells by table, row and column, and the runs behind them by id.

    `papers` says of each table whose it is.  Speeds are all of one `machine`, `noise` is what was calibrated there.
    """

    papers: Mapping[str, str]
    entries: Mapping[Place, Entry]
    runs: Mapping[str, Kept]
    machine: Machine | None = None
    noise: Noise | None = None

    def kept(self, entry: Entry) -> list[Kept]:
        """Give the runs of a cell."""
        return [self.runs[run] for run in entry.runs]

    @cached_property
    def pace(self) -> Pace | None:
        """How fast the machine was: all speeds have the same yardstick."""
        return pace_of([one.yardstick for one in self.runs.values() if one.yardstick is not None])


def name_of(spec: Spec) -> str:
    """Name a table in a baseline; ICML's values and rows are not arXiv's."""
    return spec.name if spec.edition == "arxiv" else f"{spec.edition}:{spec.name}"


def paper_of(spec: Spec) -> str:
    """Say whose table it is: what its paper is cited as, or the title where a table of one's own cites none."""
    return "; ".join(source.cite for source in spec.sources.values() if source.kind == "paper") or spec.title


def check_names(specs: Iterable[Spec]) -> None:
    """Refuse two tables that a baseline could not tell apart."""
    seen: dict[str, Spec] = {}
    for spec in specs:
        other = seen.setdefault(name_of(spec), spec)
        if other is not spec:
            raise HarnessError(
                f"{other.path} and {spec.path} are both called '{spec.name}'; rename one, or take one at a time"
            )


def make_baseline(tables: Sequence[Table], newest: Newest) -> Baseline:
    """Keep what was measured: of a speed up to ten undisturbed runs, of all else the newest."""
    check_names(table.spec for table in tables)
    entries: dict[Place, Entry] = {}
    runs: dict[str, Kept] = {}
    for table in tables:
        for (row, column), filled in table.cells.items():
            kept = _kept(filled, newest)
            if not kept:
                continue
            for one in kept:
                if runs.setdefault(one.id, one) != one:
                    raise HarnessError(f"two results claim the run {one.id}, of {runs[one.id].job} and of {one.job}")
            entries[name_of(table.spec), row, column] = _entry(filled, kept)
    used = {table for table, _, _ in entries}
    speeds = _by_job(one for one in runs.values() if one.seconds)
    return Baseline(
        papers={name_of(table.spec): paper_of(table.spec) for table in tables if name_of(table.spec) in used},
        entries=entries,
        runs=runs,
        machine=newest.machine if speeds else None,
        noise=noise_of([speed(one.seconds_an_image) for one in kept] for kept in speeds.values()),
    )


def short_of_runs(baseline: Baseline) -> dict[Job, int]:
    """Tell which speeds have too few runs to be judged by, and how many each has."""
    speeds = _by_job(one for one in baseline.runs.values() if one.seconds)
    return {kept[0].job: len(kept) for kept in speeds.values() if len(kept) < LEAST_PROCESSES}


def sensitivity(baseline: Baseline, processes: int) -> float | None:
    """Tell above which fraction a loss of speed is seen, by so many processes now; None where none is judged."""
    speeds = _by_job(one for one in baseline.runs.values() if one.seconds).values()
    counts = [len(kept) for kept in speeds if len(kept) >= LEAST_PROCESSES]
    if baseline.noise is None or not counts:
        return None
    return allowance(baseline.noise, min(counts), processes, tests=len(counts), slower=True)


def _by_job(runs: Iterable[Kept]) -> dict[str, list[Kept]]:
    found: dict[str, list[Kept]] = {}
    for one in runs:
        found.setdefault(one.job.key, []).append(one)
    return found


def _kept(filled: Filled, newest: Newest) -> list[Kept]:
    result, measurement = filled.result, filled.measurement
    if result is None or measurement is None:
        return []
    if not result.job.exclusive:
        return [Kept(id=result.id, job=result.job, images=images_of(result))]
    if filled.cell.metric != SPEED:
        return []
    quiet = [one for one in newest.speeds.get(result.job.key, ()) if not is_disturbed(one)]
    return [kept_speed(one) for one in quiet[:MOST_PROCESSES]]


def kept_speed(result: Result) -> Kept:
    """Keep the raw samples of a speed."""
    return Kept(
        id=result.id,
        job=result.job,
        batch=int(result.facts["batch"]),
        seconds=tuple(_rounded(one) for one in result.metrics[SPEED].samples),
        yardstick=_rounded(statistics.mean(yardsticks)) if (yardsticks := result.facts.get("yardstick")) else None,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def images_of(result: Result) -> str | None:
    """Give the fingerprint of the images that a result is of."""
    images: Mapping[str, Any] = result.facts.get("images") or {}
    found = images.get("fingerprint")
    return None if found is None else str(found)


def _entry(filled: Filled, kept: list[Kept]) -> Entry:
    measurement = filled.measurement
    assert measurement is not None
    value = speed_of(kept) if kept[0].seconds else measurement.value
    return Entry(unit=measurement.unit, value=value, runs=tuple(sorted(one.id for one in kept)))


def speed_of(kept: Iterable[Kept]) -> float:
    """Images a second of several processes: the median one."""
    return _rounded(statistics.median(speed(one.seconds_an_image) for one in kept))
