"""`Result` -> the page of a run: what it came to, its raw samples, its settings, its machine, its doubts."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness.diff import Diff
from harness.machine import GIB, Machine
from harness.report import words
from harness.report.html.addresses import Addresses, cell_id
from harness.report.html.cells import Exact, exact
from harness.report.html.front import name_of
from harness.result import Measurement, Result

# A list of facts longer than this stands whole in the file of the run; a page would only get slow.
LISTED = 60

# Other runs of the same job that a page shows.
HISTORY = 20

BYTES, SHARE = "bytes", "share"
MIB = 2**20

# What the numbers among the facts are in; a fact without a unit is a count, or carries it in its name.
UNITS: Mapping[str, str] = {
    **dict.fromkeys(("seconds", "seconds_mean", "seconds_median", "wall", "warm_up", "yardstick"), "s"),
    **dict.fromkeys(("peak_allocated", "peak_reserved", "allocated", "reserved", "memory_cap", "context"), BYTES),
    **dict.fromkeys(("variation", "system_share", "waiting"), SHARE),
    **dict.fromkeys(("top1", "top5", "top1_class", "top1_distil"), "%"),
    **dict.fromkeys(("cores_used", "cores_used_by_others", "cores_stolen"), "cores"),
    **dict.fromkeys(("sm_clock", "memory_clock"), "MHz"),
    "images_per_second": "im/s",
    "matmul_by_side": "FLOP/s",
    "energy": "J",
    "power": "W",
    "temperature": "°C",
    "hours": "h",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of a run; `low` and `high` are None where it has no interval."""

    name: str
    unit: str
    value: Exact
    low: Exact | None
    high: Exact | None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The raw samples of a metric, as data that the page's own script draws, and in a sentence."""

    metric: str
    said: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A cell that shows this run."""

    table: str
    cell: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Another run of the same job; `page` is empty where it has none."""

    id: str
    page: str
    started: str
    machine: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and what stands under it: text, further facts, or the lines of a table with their heading."""

    name: str
    text: str = ""
    facts: tuple["Fact", ...] = ()
    heading: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run.  `file` is its path within the folder of the results."""

    page: str
    result: Result
    title: str
    started: str
    file: str
    metrics: tuple[Metric, ...]
    samples: tuple[Samples, ...]
    settings: tuple[Fact, ...]
    machine: tuple[Fact, ...]
    software: tuple[Fact, ...]
    facts: tuple[Fact, ...]
    shown: tuple[Shown, ...]
    earlier: tuple[Earlier, ...]


def cells_by_run(diffs: Iterable[Diff], addresses: Addresses) -> dict[str, list[Shown]]:
    """Find the cells that show each run, by the page of the run."""
    found: dict[str, list[Shown]] = {}
    for diff in diffs:
        for number, row in enumerate(diff.spec.rows, start=1):
            for place, column in enumerate(diff.spec.columns, start=1):
                filled = diff.findings[row.key, column.key].filled
                explaining = {(one.job.key, one.id) for one in filled.others}
                behind = [one for one in filled.results if (one.job.key, one.id) not in explaining]
                for page in filter(None, map(addresses.of_run, behind)):
                    link = f"{addresses.of_table(diff)}#{cell_id(number, place)}"
                    shown = Shown(table=name_of(diff), cell=f"{column.label} of {row.label}", link=link)
                    found.setdefault(page, []).append(shown)
    return found


def run_of(result: Result, addresses: Addresses, shown: Sequence[Shown], history: Sequence[Result]) -> RunView:
    """Give all that the page of a run shows.  `history` has runs of the same job, newest first."""
    return RunView(
        page=addresses.of_run(result),
        result=result,
        title=str(result.job),
        started=_moment(result),
        file=f"{result.job.key}/{result.id}.json",
        metrics=tuple(_metric(name, found) for name, found in result.metrics.items()),
        samples=tuple(_samples(name, found, result) for name, found in result.metrics.items() if found.samples),
        settings=_facts(dict(result.job.settings)),
        machine=_facts(_machine(result.machine)),
        software=_facts(result.software),
        facts=_facts(result.facts),
        shown=tuple(shown),
        earlier=tuple(_earlier(one, addresses) for one in history if one.id != result.id)[:HISTORY],
    )


def _moment(result: Result) -> str:
    return f"{result.started:%Y-%m-%d %H:%M:%S %Z}"


def _metric(name: str, found: Measurement) -> Metric:
    return Metric(
        name=name,
        unit=found.unit,
        value=exact(found.value),
        low=None if found.low is None else exact(found.low),
        high=None if found.high is None else exact(found.high),
    )


def _samples(name: str, found: Measurement, result: Result) -> Samples:
    """Give the samples, and before them those of the warm-up where the run kept them."""
    warm_up = result.facts.get("warm_up") if name == "throughput" else None
    mean, median = statistics.fmean(found.samples), statistics.median(found.samples)
    said = f"{len(found.samples)} samples, mean {words.number(mean, None)}, median {words.number(median, None)}"
    return Samples(
        metric=name,
        said=f"{said} {found.sample_unit}".rstrip(),
        data={
            "unit": found.sample_unit or found.unit,
            "samples": list(found.samples),
            "mean": mean,
            "warmUp": [float(one) for one in warm_up] if isinstance(warm_up, list) else [],
        },
    )


def _machine(machine: Machine) -> dict[str, Any]:
    told = {one.name: getattr(machine, one.name) for one in fields(machine)}
    told["memory"] = f"{machine.memory / GIB:.1f} GiB"
    return {name: value for name, value in told.items() if value not in (0, "", None)}


def _earlier(result: Result, addresses: Addresses) -> Earlier:
    few = [f"{name} {exact(found.value).said} {found.unit}".rstrip() for name, found in result.metrics.items()][:2]
    return Earlier(
        id=result.id,
        page=addresses.of_run(result),
        started=_moment(result),
        machine=result.machine.label,
        said=f"failed: {result.error}" if result.error is not None else ", ".join(few),
    )


def _facts(told: Mapping[str, Any], unit: str = "") -> tuple[Fact, ...]:
    return tuple(_fact(str(name), value, UNITS.get(str(name), unit)) for name, value in told.items())


def _fact(name: str, value: object, unit: str) -> Fact:
    """Write a fact: a mapping as facts of its own, a list of mappings as a table, anything else as text."""
    if isinstance(value, Mapping) and value:
        return Fact(name=name, facts=_facts(value, unit))
    if not isinstance(value, list) or not value:
        return Fact(name=name, text=_text(value, unit))
    left = len(value) - LISTED
    more = f", … and {left:,} more in the file" if left > 0 else ""
    if all(isinstance(one, Mapping) for one in value):
        heading = tuple(dict.fromkeys(str(key) for one in value for key in one))
        lines = tuple(tuple(_text(one.get(key), UNITS.get(key, "")) for key in heading) for one in value[:LISTED])
        return Fact(name=name, heading=heading, lines=lines, text=more.lstrip(", "))
    return Fact(name=name, text=", ".join(_text(one, unit) for one in value[:LISTED]) + more)


def _text(value: object, unit: str = "") -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, (int, float)) and unit:
        return _measured(value, unit)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_text(one, unit) for one in value[:LISTED]) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_text(one)}" for name, one in value.items()) or "none"
    return str(value)


def _measured(value: float, unit: str) -> str:
    if unit == BYTES:
        return f"{value / MIB:,.1f} MiB"
    if unit == SHARE:
        return f"{100 * value:.3g} %"
    return f"{value:.6g} {unit}"
