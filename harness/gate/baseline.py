"""`Table`s -> `Baseline`: the runs and values that later results are compared with."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.errors import HarnessError
from harness.gate.noise import (
    LEAST_PROCESSES,
    MOST_PROCESSES,
    DriftReference,
    detectable_change,
    drift_reference,
    process_throughput,
)
from harness.judge.table import FilledCell, Table, fingerprint_of
from harness.machine import Machine
from harness.plan.job import Job
from harness.specs import Spec
from harness.stats import Noise, noise_of
from harness.store.cost import Cost, cost_of
from harness.store.result import Result
from harness.store.select import Selection, is_noisy, reference_seconds

# Digits of a run's time: a thousandth of a percent, far below what clocks and machines are good for.
DIGITS = 5

# The metric of a throughput job that is judged.
THROUGHPUT = "throughput"

# Table, row and column.
CellKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class BaselineRun:
    """One run.

    `seconds` are the raw samples of a throughput, each for `batch` images; `reference_seconds` is the time of the
    reference workload, the mean of before and after them (None where it was not measured).  `images` is the
    fingerprint of the images that an accuracy was measured on, and its model trained (None where there are none).
    """

    id: str
    job: Job
    batch: int = 0
    seconds: tuple[float, ...] = ()
    reference_seconds: float | None = None
    images: str | None = None

    @property
    def seconds_an_image(self) -> tuple[float, ...]:
        """The samples for one image, comparable across batch sizes."""
        return tuple(sample / self.batch for sample in self.seconds)


@dataclass(frozen=True, kw_only=True)
class BaselineCell:
    """One cell: its value in `unit`, and the ids of its runs: several of a throughput, otherwise one."""

    unit: str
    value: float | str
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Cells by table, row and column, and the runs behind them by id.

    `papers` cites the paper of each table; `costs` are what the forward pass of a job does, by its
    key without code.  Throughputs are all of one `machine`, `noise` was calibrated there.
    """

    papers: Mapping[str, str]
    cells: Mapping[CellKey, BaselineCell]
    runs: Mapping[str, BaselineRun]
    costs: Mapping[str, Cost] = field(default_factory=dict)
    machine: Machine | None = None
    noise: Noise | None = None

    @cached_property
    def throughput_runs(self) -> Mapping[str, list[BaselineRun]]:
        """The runs of each throughput, by the key of its job without code: a changed model is what is compared."""
        runs: dict[str, list[BaselineRun]] = {}
        for run in self.runs.values():
            if run.seconds:
                runs.setdefault(run.job.without_code.key, []).append(run)
        return runs

    @cached_property
    def drift_reference(self) -> DriftReference | None:
        """How fast the machine was: the reference workload is the same for all throughputs."""
        return drift_reference(run.reference_seconds for run in self.runs.values())


def name_of(spec: Spec) -> str:
    """Return the name of a table in a baseline; ICML's values and rows are not arXiv's."""
    return spec.name if spec.edition == "arxiv" else f"{spec.edition}:{spec.name}"


def paper_of(spec: Spec) -> str:
    """Return the citation of the paper whose table it is, or the title of a table that cites none."""
    return "; ".join(source.cite for source in spec.sources.values() if source.kind == "paper") or spec.title


def check_names(specs: Iterable[Spec]) -> None:
    """Raise `HarnessError` for two tables of the same name, which a baseline could not tell apart."""
    by_name: dict[str, Spec] = {}
    for spec in specs:
        other = by_name.setdefault(name_of(spec), spec)
        if other is not spec:
            raise HarnessError(
                f"{other.path} and {spec.path} are both called '{spec.name}'; rename one, or take one at a time"
            )


def make_baseline(tables: Sequence[Table], selection: Selection) -> Baseline:
    """Take the results behind some tables as a baseline: up to ten quiet runs of a throughput, otherwise the newest."""
    check_names(table.spec for table in tables)
    cells: dict[CellKey, BaselineCell] = {}
    runs: dict[str, BaselineRun] = {}
    costs: dict[str, Cost] = {}
    for table in tables:
        for key, filled in table.cells.items():
            measurement, cell_runs = filled.measurement, _runs_of(filled, selection)
            if measurement is None or not cell_runs or filled.matches_by_construction:
                continue
            runs.update({run.id: run for run in cell_runs})
            if filled.result and (cost := cost_of(filled.result)):
                costs[filled.result.job.without_code.key] = cost
            value = median_throughput(cell_runs) if cell_runs[0].seconds else measurement.value
            ids = tuple(sorted(run.id for run in cell_runs))
            cells[name_of(table.spec), *key] = BaselineCell(unit=measurement.unit, value=value, runs=ids)
    named = {table for table, _, _ in cells}
    baseline = Baseline(
        papers={name_of(table.spec): paper_of(table.spec) for table in tables if name_of(table.spec) in named},
        cells=cells,
        runs=runs,
        costs=costs,
    )
    throughputs = baseline.throughput_runs.values()
    return replace(
        baseline,
        machine=selection.machine if throughputs else None,
        noise=noise_of([process_throughput(run.seconds_an_image) for run in group] for group in throughputs),
    )


def short_of_runs(baseline: Baseline) -> dict[Job, int]:
    """Return the throughputs that have too few runs to be judged, and how many each has."""
    groups = baseline.throughput_runs.values()
    return {runs[0].job: len(runs) for runs in groups if len(runs) < LEAST_PROCESSES}


def sensitivity(baseline: Baseline, processes: int) -> float | None:
    """Return the smallest loss of throughput that so many processes detect; None where no throughput is judged."""
    counts = [len(runs) for runs in baseline.throughput_runs.values() if len(runs) >= LEAST_PROCESSES]
    if baseline.noise is None or not counts:
        return None
    return detectable_change(baseline.noise, min(counts), processes, tests=len(counts), slower=True)


def _runs_of(filled: FilledCell, selection: Selection) -> list[BaselineRun]:
    result = filled.result
    if result is None:
        return []
    if not result.job.exclusive:
        return [BaselineRun(id=result.id, job=result.job, images=fingerprint_of(result, filled.behind))]
    if filled.cell.metric != THROUGHPUT or "batch" not in result.facts:  # as of a kind of another package
        return []
    quiet = [run for run in selection.throughputs.get(result.job.key, ()) if not is_noisy(run)]
    return [throughput_run(run) for run in quiet[:MOST_PROCESSES]]


def throughput_run(result: Result) -> BaselineRun:
    """Return the run of a baseline that a throughput result makes."""
    reference = reference_seconds(result)
    return BaselineRun(
        id=result.id,
        job=result.job,
        batch=int(result.facts["batch"]),
        seconds=tuple(_rounded(sample) for sample in result.metrics[THROUGHPUT].samples),
        reference_seconds=_rounded(reference) if reference else None,
    )


def median_throughput(runs: Iterable[BaselineRun]) -> float:
    """Images a second of several processes: that of the median one."""
    return _rounded(statistics.median(process_throughput(run.seconds_an_image) for run in runs))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
