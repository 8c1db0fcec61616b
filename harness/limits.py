"""Speeds, counts and ceilings -> how close each network comes to what its machine can do."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.job import Job
from harness.machine import Machine
from harness.result import Measurement, Result
from harness.spec import Column, Row, Spec
from harness.store import Store
from harness.table import Filled, Table

# The type in which each protocol multiplies matrices, on a card and on a CPU (which has no TF32).
PRECISION = {"paper": "float32", "modern": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Use:
    """How well a machine is used: operations a second, and their share of the ceiling where it is known."""

    flops: float
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """One network.

    `intensity` is floating-point operations per byte moved, weights and what the layers read and write, as if no cache
    helped.  `bound` is `arithmetic` or `bandwidth`, by which of the two would take longer at its ceiling; None where
    the ceilings of the machine were not measured.
    """

    row: Row
    measured: Use
    published: Use | None
    intensity: float
    bound: str | None


def ceilings_job(precision: str) -> Job:
    """Make the job that measures what a machine can do at most."""
    return Job.of("ceilings", {"precision": precision})


def limits_of(table: Table, store: Store) -> dict[Column, list[Limits]]:
    """Give the limits of every measured network, by speed column; networks without a count are left out."""
    found = {}
    for column in table.spec.columns:
        if column.machine is None or table.machine is None:
            continue
        rows = [_limits(table.cell(row.key, column.key), table.spec, table.machine, store) for row in table.spec.rows]
        if any(rows):
            found[column] = [limits for limits in rows if limits]
    return found


def _limits(filled: Filled, spec: Spec, machine: Machine, store: Store) -> Limits | None:
    result, speed = filled.result, filled.measurement
    if result is None or speed is None or isinstance(speed.value, str):
        return None
    told = dict(result.job.settings)
    count = store.latest(Job.of("count", {"model": told["model"], "res": told["res"]}), lambda one: one.error is None)
    if count is None:
        return None
    flops = 2e9 * _number(count.metrics, "macs")
    moved = 1e6 * _number(count.metrics, "activations") + 4e6 * _number(count.metrics, "params") / result.facts["batch"]
    ceiling = store.find(ceilings_job(PRECISION[str(told["protocol"])]), machine, result.software)
    return Limits(
        row=filled.cell.row,
        measured=_use(flops * speed.value, ceiling),
        published=_published(filled, spec, flops),
        intensity=flops / moved,
        bound=_bound(flops / moved, ceiling),
    )


def _use(rate: float, ceiling: Result | None) -> Use:
    return Use(flops=rate, share=rate / (1e12 * _number(ceiling.metrics, "matmul")) if ceiling else None)


def _bound(intensity: float, ceiling: Result | None) -> str | None:
    """Below the ridge of the roofline memory is the slower of the two, above it arithmetic."""
    if ceiling is None:
        return None
    ridge = 1e12 * _number(ceiling.metrics, "matmul") / (1e9 * _number(ceiling.metrics, "copy"))
    return "arithmetic" if intensity > ridge else "bandwidth"


def _published(filled: Filled, spec: Spec, flops: float) -> Use | None:
    """Say how well the published run used the published machine, by that machine's own figures."""
    printed, machine = filled.cell.printed, spec.machines.get(filled.cell.column.machine or "")
    if printed is None or printed.value is None:
        return None
    rate = flops * printed.value
    return Use(flops=rate, share=rate / (1e12 * machine.tflops) if machine else None)


def _number(metrics: Mapping[str, Measurement], name: str) -> float:
    value = metrics[name].value
    assert not isinstance(value, str)
    return value
