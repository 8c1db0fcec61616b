"""`Result` -> the page of a run: its metrics, its raw samples, its settings, its machine, its warnings."""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.judge.verdict import Diff
from harness.machine import GIB, Machine
from harness.report import formatting
from harness.report.html.cells import readable
from harness.report.html.links import PageLinks, cell_ids, table_name
from harness.store.result import Result

# A list of facts longer than this is whole in the file of the run; a page would only get slow.
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

# What is never nothing, by its unit or its name: a zero was written where there is no such counter or none was read.
NEVER_ZERO = frozenset((BYTES, "GiB", "im/s", "FLOP/s", "MHz", "J", "J/image", "W", "°C", "h", "steps"))


@dataclass(frozen=True, kw_only=True)
class FactView:
    """A name and what belongs to it: text, further facts, or the lines of a table with their heading."""

    name: str
    text: str = ""
    facts: tuple["FactView", ...] = ()
    heading: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


def cells_by_run(diffs: Iterable[Diff], links: PageLinks) -> dict[str, list[tuple[str, str]]]:
    """Return label and link of the cells that show each run, by the page of the run."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for diff in diffs:
        for key, cell_id in cell_ids(diff).items():
            filled = diff.judged_cells[key].filled
            explaining = {(result.job.key, result.id) for result in filled.others}
            shown = [result for result in filled.results if (result.job.key, result.id) not in explaining]
            label = f"{table_name(diff)}: {filled.cell.column.label} of {filled.cell.row.label}"
            for page in filter(None, map(links.run, shown)):
                cells.setdefault(page, []).append((label, links.table(diff, cell_id)))
    return cells


def outcome(result: Result) -> str:
    """Return the first metrics of a run, or why it failed."""
    if result.error is not None:
        return f"failed: {result.error}"
    metrics = list(result.metrics.items())[:2]
    return ", ".join(f"{name} {readable(metric.value)} {metric.unit}".rstrip() for name, metric in metrics)


def samples(result: Result) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """Yield a sentence on each metric's samples and, for the page's own script, them and those of the warm-up."""
    for name, metric in result.metrics.items():
        if not metric.samples:
            continue
        warm_up = result.facts.get("warm_up") if name == "throughput" else None
        mean = statistics.fmean(metric.samples)
        texts = [formatting.number(value, None) for value in (mean, statistics.median(metric.samples))]
        sentence = f"{len(metric.samples)} samples, mean {texts[0]}, median {texts[1]} {metric.sample_unit}".rstrip()
        dropped = result.facts.get("dropped", ())
        if dropped:
            by = "; ".join(dict.fromkeys(str(iteration["by"]) for iteration in dropped))
            sentence += f"; {len(dropped)} more were dropped: {by}"
        data = {
            "unit": metric.sample_unit or metric.unit,
            "samples": list(metric.samples),
            "mean": mean,
            "warmUp": list(map(float, warm_up)) if isinstance(warm_up, list) else [],
        }
        yield name, (sentence, data)


def machine_facts(machine: Machine) -> dict[str, Any]:
    """Return what is known of a machine, without what is zero or empty."""
    values = {name: value for name, value in asdict(machine).items() if value not in (0, "", None)}
    return values | ({"memory": f"{machine.memory / GIB:.1f} GiB"} if "memory" in values else {})


def facts(values: Mapping[str, Any], unit: str = "") -> tuple[FactView, ...]:
    """Return named values as a page shows them, without those that were not measured.

    `unit` is that of the values whose name has none.
    """
    units = {name: UNITS.get(name, unit) for name in values}
    views = (_fact(name, value, units[name]) for name, value in values.items() if is_measured(value, units[name], name))
    return tuple(view for view in views if view.text or view.facts or view.heading)


def is_measured(value: object, unit: str, name: str = "") -> bool:
    """Whether a fact or a metric has a value: a zero in some units only says that there was nothing to read."""
    if isinstance(value, bool) or value is None:
        return value is not None or not unit
    return bool(value) or not (unit in NEVER_ZERO or name in NEVER_ZERO)


def _fact(name: str, value: object, unit: str) -> FactView:
    """Return a mapping as facts of its own, a list of mappings as a table, anything else as text."""
    if isinstance(value, Mapping) and value:
        return FactView(name=name, facts=facts(value, unit))
    if not isinstance(value, list) or not value:
        return FactView(name=name, text=_text(value, unit))
    left = len(value) - LISTED
    more = f", … and {left:,} more in the file" if left > 0 else ""
    if all(isinstance(item, Mapping) for item in value):
        keys = dict.fromkeys(key for item in value for key in item)
        units = {key: UNITS.get(key, "") for key in keys}
        heading = tuple(key for key in keys if any(is_measured(item.get(key), units[key], key) for item in value))
        lines = tuple(tuple(_text(item.get(key), units[key], key) for key in heading) for item in value[:LISTED])
        return FactView(name=name, heading=heading, lines=lines, text=more.lstrip(", "))
    return FactView(name=name, text=", ".join(_text(item, unit) for item in value[:LISTED]) + more)


def _text(value: object, unit: str = "", name: str = "") -> str:
    if not is_measured(value, unit, name):
        return "not measured"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (int, float)) and unit == BYTES:
        return f"{value / MIB:,.1f} MiB"
    if isinstance(value, (int, float)) and unit == SHARE:
        return f"{100 * value:.3g} %"
    if isinstance(value, (int, float)) and (unit or isinstance(value, float)):
        return f"{value:.6g} {unit}".rstrip()
    if isinstance(value, list):
        return ", ".join(_text(item, unit) for item in value[:LISTED]) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
