"""`Result`s -> CSV and Parquet: one line a metric, with columns that say what they hold."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.result import Measurement, Result


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column: its type (`text`, `number`, `count`, `time`, `numbers` or `texts`) and what it holds."""

    type: str
    holds: str
    of: Callable[[Result, str, Measurement | None], object]


def _setting(name: str) -> Callable[[Result, str, Measurement | None], object]:
    return lambda result, _name, _found: dict(result.job.settings).get(name)


def _version(name: str) -> Callable[[Result, str, Measurement | None], object]:
    return lambda result, _name, _found: result.software.get(name)


def _value(_result: Result, _name: str, found: Measurement | None) -> float | None:
    return float(found.value) if found and not isinstance(found.value, str) else None


def _words(_result: Result, _name: str, found: Measurement | None) -> str | None:
    return found.value if found and isinstance(found.value, str) else None


FIELDS: Mapping[str, Field] = {
    "run": Field(type="text", holds="id of the run; a run has a line for each metric", of=lambda r, _n, _m: r.id),
    "started": Field(type="time", holds="when the run began, UTC", of=lambda r, _n, _m: r.started),
    "seconds": Field(type="number", holds="how long the whole run took, s", of=lambda r, _n, _m: r.seconds),
    "job": Field(type="text", holds="key of the job: the same work has the same key", of=lambda r, _n, _m: r.job.key),
    "kind": Field(type="text", holds="kind of job: count, throughput, evaluate, …", of=lambda r, _n, _m: r.job.kind),
    "revision": Field(
        type="count", holds="revision of the way of measuring that kind", of=lambda r, _n, _m: r.job.revision
    ),
    "model": Field(type="text", holds="timm's name of the network", of=_setting("model")),
    "weights": Field(type="text", holds="tag of the weights", of=_setting("weights")),
    "res": Field(type="count", holds="size of the images, pixels", of=_setting("res")),
    "data": Field(type="text", holds="name of the data set", of=_setting("data")),
    "protocol": Field(type="text", holds="how a speed is measured: paper or modern", of=_setting("protocol")),
    "settings": Field(
        type="text", holds="all settings of the job, JSON", of=lambda r, _n, _m: _json(dict(r.job.settings))
    ),
    "metric": Field(
        type="text", holds="name of the metric; empty for a run that failed", of=lambda _r, name, _m: name or None
    ),
    "unit": Field(type="text", holds="unit of value, low and high", of=lambda _r, _n, m: m.unit if m else None),
    "value": Field(type="number", holds="what was measured", of=_value),
    "words": Field(type="text", holds="what was found, where that is no number", of=_words),
    "low": Field(type="number", holds="lower end of the 95 % interval", of=lambda _r, _n, m: m.low if m else None),
    "high": Field(type="number", holds="upper end of the 95 % interval", of=lambda _r, _n, m: m.high if m else None),
    "samples": Field(
        type="numbers",
        holds="raw samples behind the value, in their order; JSON in CSV",
        of=lambda _r, _n, m: list(m.samples) if m and m.samples else None,
    ),
    "sample_unit": Field(
        type="text", holds="unit of the samples", of=lambda _r, _n, m: (m.sample_unit or None) if m else None
    ),
    "batch": Field(type="count", holds="images a run of a speed", of=lambda r, _n, _m: r.facts.get("batch")),
    "device": Field(type="text", holds="cpu or cuda", of=lambda r, _n, _m: r.machine.device),
    "machine": Field(type="text", holds="model of the processor or card", of=lambda r, _n, _m: r.machine.name),
    "memory": Field(type="count", holds="its memory, bytes", of=lambda r, _n, _m: r.machine.memory),
    "cores": Field(type="count", holds="its cores; 0 for a card", of=lambda r, _n, _m: r.machine.cores),
    "torch": Field(type="text", holds="version of torch", of=_version("torch")),
    "timm": Field(type="text", holds="version of timm", of=_version("timm")),
    "software": Field(type="text", holds="all versions, JSON", of=lambda r, _n, _m: _json(dict(r.software))),
    "weights_sha256": Field(
        type="text",
        holds="SHA-256 of the file of weights",
        of=lambda r, _n, _m: (r.facts.get("weights") or {}).get("sha256"),
    ),
    "images": Field(
        type="text", holds="which images these were", of=lambda r, _n, _m: (r.facts.get("images") or {}).get("said")
    ),
    "warnings": Field(
        type="texts", holds="what the run doubts about itself; JSON in CSV", of=lambda r, _n, _m: list(r.warnings)
    ),
    "error": Field(type="text", holds="why the run failed; empty for one that did not", of=lambda r, _n, _m: r.error),
}


def lines_of(results: Iterable[Result]) -> Iterator[dict[str, object]]:
    """Give a line for each metric of each result, and one for each failure."""
    for result in results:
        metrics: Mapping[str, Measurement | None] = result.metrics or {"": None}
        for name, found in metrics.items():
            yield {field: one.of(result, name, found) for field, one in FIELDS.items()}


def render_results_csv(results: Iterable[Result]) -> str:
    """Write all that is known of some runs as CSV; lists are JSON."""
    text = StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for line in lines_of(results):
        writer.writerow({name: _in_csv(FIELDS[name], value) for name, value in line.items()})
    return text.getvalue()


def _in_csv(field: Field, value: object) -> object:
    if field.type == "time":
        return value.isoformat()  # type: ignore[attr-defined]
    return _json(value) if field.type in ("numbers", "texts") and value else "" if value in (None, []) else value


def write_parquet(results: Iterable[Result], path: Path) -> None:
    """Write the same as Parquet, with what each column holds in its metadata.

    Raises `HarnessError` where pyarrow is not installed, `OSError` where the file cannot be written.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 -- an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise HarnessError(
            f"-o {path}: Parquet needs pyarrow, which is not installed; "
            "`pip install 'deit-harness[parquet]'`, or write a .csv"
        ) from error
    types: dict[str, Any] = {
        "text": pa.string(),
        "number": pa.float64(),
        "count": pa.int64(),
        "time": pa.timestamp("us", tz="UTC"),
        "numbers": pa.list_(pa.float64()),
        "texts": pa.list_(pa.string()),
    }
    schema = pa.schema(
        [pa.field(name, types[field.type], metadata={"holds": field.holds}) for name, field in FIELDS.items()]
    )
    table = pa.Table.from_pylist(list(lines_of(results)), schema=schema)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        parquet.write_table(table, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
