"""`Diff` -> a file of pytest-benchmark: `pytest-benchmark compare` and its histogram read it.

A round is one timed run in seconds an image, so its "operations per second" are our images a second.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from harness import __version__
from harness.diff import Diff, Finding
from harness.errors import HarnessError
from harness.result import Result

# The version of the format, not of what wrote it: pytest-benchmark 3.1 gave it the fields that it has since.
FORMAT = "3.1.0"


def render_pytest_benchmark(diffs: Sequence[Diff]) -> str:
    """Write every measured speed of some tables.

    Raises `HarnessError` where none was measured.
    """
    found = [(diff, finding) for diff in diffs for finding in diff.findings.values() if _is_speed(finding)]
    results = [finding.filled.result for _, finding in found if finding.filled.result]
    if not results:
        names = " ".join(diff.spec.name for diff in diffs)
        if not any(finding.filled.cell.kind == "throughput" for diff in diffs for finding in diff.findings.values()):
            raise HarnessError(f"pytest-benchmark compares speeds, and {names} has none; table5 has")
        raise HarnessError(
            f"no speed of {names} was measured yet, and pytest-benchmark compares speeds; "
            f"run `harness reproduce {names} --throughput-only`"
        )
    newest = max(results, key=lambda result: result.started)
    data = {
        "machine_info": _machine(newest),
        "commit_info": {
            "id": "unknown",
            "time": newest.started.isoformat(),
            "author_time": newest.started.isoformat(),
            "dirty": False,
            "project": "deit-harness",
            "branch": "(unknown)",
        },
        "benchmarks": [_benchmark(diff, finding) for diff, finding in found],
        # The time of the newest run, not of writing: the same results give the same bytes.
        "datetime": newest.started.isoformat(),
        "version": FORMAT,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _is_speed(finding: Finding) -> bool:
    cell, measured = finding.filled.cell, finding.filled.measurement
    return (cell.kind, cell.metric) == ("throughput", "throughput") and bool(measured and measured.samples)


def _machine(result: Result) -> dict[str, Any]:
    machine = result.machine
    return {
        "node": machine.label,
        "machine": machine.device,
        "system": "",
        "processor": machine.name,
        "cpu": {"brand_raw": machine.name, "count": machine.cores},
        "python_version": result.software.get("python", ""),
        "software": dict(result.software),
        "harness": __version__,
    }


def _benchmark(diff: Diff, finding: Finding) -> dict[str, Any]:
    filled = finding.filled
    cell, measured, result = filled.cell, filled.measurement, filled.result
    assert measured
    assert result
    batch = int(result.facts["batch"])
    name = f"{cell.column.key}[{cell.row.key}]"
    return {
        "group": None,
        "name": name,
        "fullname": f"{diff.spec.name}::{name}",
        "params": {"row": cell.row.key},
        "param": cell.row.key,
        "extra_info": {
            "run": result.id,
            "label": cell.row.label,
            "batch": batch,
            "machine": result.machine.label,
            "settings": dict(result.job.settings),
            "images_a_second": measured.value,
            "published": cell.printed.value if cell.printed else None,
            "verdict": str(finding.verdict),
        },
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": len(measured.samples), "warmup": True},
        "stats": stats_of([seconds / batch for seconds in measured.samples]),
    }


def stats_of(data: Sequence[float]) -> dict[str, Any]:
    """Sum up seconds as pytest-benchmark does: whiskers at 1.5 times the range of the middle half."""
    ordered = sorted(data)
    low, high = _quarter(ordered), _quarter(ordered[::-1])
    mean, spread = statistics.fmean(ordered), statistics.stdev(ordered) if len(ordered) > 1 else 0.0
    whisker = 1.5 * (high - low)
    within = [value for value in ordered if low - whisker <= value <= high + whisker]
    beyond = {"stddev": _outside(ordered, mean - spread, mean + spread), "iqr": len(ordered) - len(within)}
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": spread,
        "rounds": len(ordered),
        "median": statistics.median(ordered),
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": beyond["iqr"],
        "stddev_outliers": beyond["stddev"],
        "outliers": f"{beyond['stddev']};{beyond['iqr']}",
        "ld15iqr": within[0],
        "hd15iqr": within[-1],
        "ops": len(ordered) / sum(ordered),
        "total": sum(ordered),
        "data": list(data),
        "iterations": 1,
    }


def _outside(values: Iterable[float], low: float, high: float) -> int:
    return sum(not low <= value <= high for value in values)


def _quarter(ordered: Sequence[float]) -> float:
    """Give the quartile nearer to the front: the median of the half, or between two values where there is a middle."""
    count, rest = divmod(len(ordered), 4)
    if len(ordered) == 1 or rest % 2 == 0:
        return statistics.median(ordered[: max(1, len(ordered) // 2)])
    if rest == 1:
        return 0.25 * ordered[count - 1] + 0.75 * ordered[count]
    return 0.75 * ordered[count] + 0.25 * ordered[count + 1]
