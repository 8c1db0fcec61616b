"""`Diff` -> a file of pytest-benchmark: `pytest-benchmark compare` and its histogram read it.

A round is one timed run in seconds per image, so its "operations per second" are our images per second.
"""

from collections.abc import Sequence
from typing import Any

from harness import __version__
from harness.cleaning import json_text
from harness.errors import HarnessError
from harness.judge.verdict import Diff, JudgedCell
from harness.store.result import Result

# The version of the format, not of what wrote it: pytest-benchmark 3.1 gave it the fields that it has since.
FORMAT = "3.1.0"


def render_pytest_benchmark(diffs: Sequence[Diff]) -> str:
    """Render every measured throughput of some tables.

    Raises `HarnessError` where none was measured.
    """
    cells = [(diff, judged) for diff in diffs for judged in diff.judged_cells.values()]
    measured = [(diff, judged) for diff, judged in cells if _is_throughput(judged)]
    results = [judged.filled.result for _, judged in measured if judged.filled.result]
    if not results:
        names = " ".join(diff.spec.name for diff in diffs)
        if not any(judged.filled.cell.kind == "throughput" for _, judged in cells):
            raise HarnessError(f"pytest-benchmark compares throughput, and {names} has none; table5 has")
        raise HarnessError(
            f"no throughput of {names} was measured yet, and pytest-benchmark compares throughput; "
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
        "benchmarks": [_benchmark(diff, judged) for diff, judged in measured],
        # The time of the newest run, not of writing: the same results give the same bytes.
        "datetime": newest.started.isoformat(),
        "version": FORMAT,
    }
    return json_text(data)


def _is_throughput(judged: JudgedCell) -> bool:
    cell, measured = judged.filled.cell, judged.filled.measurement
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


def _benchmark(diff: Diff, judged: JudgedCell) -> dict[str, Any]:
    filled = judged.filled
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
            "published": cell.published.value if cell.published else None,
            "verdict": str(judged.verdict),
        },
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": len(measured.samples), "warmup": True},
        "stats": _stats([seconds / batch for seconds in measured.samples]),
    }


def _stats(seconds: Sequence[float]) -> dict[str, Any]:
    """Summarize seconds by pytest-benchmark's own class."""
    from pytest_benchmark.stats import Stats  # noqa: PLC0415 -- imports pytest, which only this format needs

    stats: Any = Stats()  # type: ignore[no-untyped-call]
    stats.data.extend(seconds)
    return {**stats.as_dict(), "data": stats.data, "iterations": 1}
