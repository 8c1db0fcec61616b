"""Throughputs, MACs and peaks -> the roofline: how close each model comes to what its machine can do.

Williams, Waterman and Patterson, "Roofline", CACM 52 (2009).
"""

from dataclasses import dataclass

from harness.judge.table import FilledCell, Table
from harness.machine import Machine
from harness.plan.job import Job
from harness.specs import Column, Row, Spec
from harness.specs.kinds import SCRIPT
from harness.store.result import Result
from harness.store.store import Store

# The type in which each protocol multiplies matrices, on a GPU and on a CPU (which has no TF32).
PRECISION = {"paper": "float32", "modern": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Utilisation:
    """How well a machine is used: operations a second, and their share of its peak where that is known."""

    flops: float
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """One model.

    `intensity` is floating-point operations per byte moved, weights and what the layers read and write, as if no cache
    helped.  `bound` is `arithmetic` or `bandwidth`, by which of the two would take longer at its peak; None where the
    peaks of the machine were not measured.
    """

    row: Row
    measured: Utilisation
    published: Utilisation | None
    intensity: float
    bound: str | None


def peak_precision(job: Job, device: str) -> str:
    """Return the type in which a throughput job multiplies matrices: timm's protocol names it, float32 being TF32."""
    if job["protocol"] != SCRIPT:
        return PRECISION[str(job["protocol"])]
    return "tf32" if job["precision"] == "float32" and device == "cuda" else str(job["precision"])


def peak_job(precision: str) -> Job:
    """Return the job that measures the peak throughput and the peak bandwidth of a machine."""
    return Job.of("ceilings", {"precision": precision})


def roofline_of(table: Table, store: Store) -> dict[Column, list[Roofline]]:
    """Compute the roofline of every measured model, by throughput column; models without a count are left out."""
    if table.machine is None:
        return {}
    rooflines = {}
    for column in (column for column in table.spec.columns if column.machine is not None):
        cells = (table.cell(row.key, column.key) for row in table.spec.rows)
        if rows := [roofline for filled in cells if (roofline := _roofline(filled, table.spec, table.machine, store))]:
            rooflines[column] = rows
    return rooflines


def _roofline(filled: FilledCell, spec: Spec, machine: Machine, store: Store) -> Roofline | None:
    result, throughput, published = filled.result, filled.number, filled.published_number
    if result is None or throughput is None or result.job.kind != "throughput":
        return None
    job = result.job
    if job.get("step") == "training":  # whose operations are not counted
        return None
    counted = {name: job[name] for name in ("model", "res", "width") if job.get(name)}
    count = store.latest(Job.of("count", counted), lambda one: one.error is None)
    if count is None or "activations" not in count.metrics:  # the first versions did not count them
        return None
    # A multiply-accumulate is two operations.  Parameters have four bytes each and are read once a batch.
    flops = 2e9 * _number(count, "macs")
    moved = 1e6 * _number(count, "activations") + 4e6 * _number(count, "params") / result.facts["batch"]
    intensity, bound, peak_flops = flops / moved, None, None
    peak = store.find(peak_job(peak_precision(job, machine.device)), machine, result.software)
    if peak:
        # Below the ridge of the roofline memory is the slower of the two, above it arithmetic.
        peak_flops = 1e12 * _number(peak, "matmul")
        bound = "arithmetic" if intensity > peak_flops / (1e9 * _number(peak, "copy")) else "bandwidth"
    # The published run is held against the published machine, by that machine's own figures.
    published_machine = spec.machines.get(filled.cell.column.machine or "")
    tflops = published_machine.tflops if published_machine else None
    published_peak = 1e12 * tflops if tflops else None
    return Roofline(
        row=filled.cell.row,
        measured=_utilisation(flops * throughput, peak_flops),
        published=None if published is None else _utilisation(flops * published, published_peak),
        intensity=intensity,
        bound=bound,
    )


def _utilisation(flops: float, peak: float | None) -> Utilisation:
    return Utilisation(flops=flops, share=flops / peak if peak else None)


def _number(result: Result, metric: str) -> float:
    value = result.metrics[metric].value
    assert not isinstance(value, str)
    return value
