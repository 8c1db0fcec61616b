"""`Result`s -> CSV and Parquet: one line a metric, with columns that say what they hold."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import atomic
from harness.cleaning import csv_cell
from harness.errors import HarnessError
from harness.store.result import Measurement, Result

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Field:
    """One column: its type (`text`, `number`, `count`, `time`, `numbers` or `texts`) and what it holds."""

    type: str
    holds: str
    of: Callable[[Result, str, Measurement | None], object]


def _setting(name: str) -> Callable[[Result, str, Measurement | None], object]:
    return lambda r, _n, _m: dict(r.job.settings).get(name)


def _version(name: str) -> Callable[[Result, str, Measurement | None], object]:
    return lambda r, _n, _m: r.software.get(name)


def _value(_result: Result, _name: str, metric: Measurement | None) -> float | None:
    return float(metric.value) if metric and not isinstance(metric.value, str) else None


def _text(_result: Result, _name: str, metric: Measurement | None) -> str | None:
    return metric.value if metric and isinstance(metric.value, str) else None


FIELDS: Mapping[str, Field] = {
    "run": Field("text", "id of the run; a run has a line for each metric", lambda r, _n, _m: r.id),
    "started": Field("time", "when the run began, UTC", lambda r, _n, _m: r.started),
    "seconds": Field("number", "how long the whole run took, s", lambda r, _n, _m: r.seconds),
    "job": Field("text", "key of the job: the same work has the same key", lambda r, _n, _m: r.job.key),
    "kind": Field("text", "kind of job: count, throughput, evaluate, …", lambda r, _n, _m: r.job.kind),
    "revision": Field("count", "revision of the way of measuring that kind", lambda r, _n, _m: r.job.revision),
    "model": Field("text", "timm's name of the model", _setting("model")),
    "weights": Field("text", "tag of the weights", _setting("weights")),
    "res": Field("count", "size of the images, pixels", _setting("res")),
    "data": Field("text", "name of the dataset", _setting("data")),
    "protocol": Field("text", "how throughput is measured: paper, modern or timm", _setting("protocol")),
    "settings": Field("text", "all settings of the job, JSON", lambda r, _n, _m: _json(dict(r.job.settings))),
    "metric": Field("text", "name of the metric; empty for a run that failed", lambda _r, name, _m: name or None),
    "unit": Field("text", "unit of value, low and high", lambda _r, _n, m: m.unit if m else None),
    "value": Field("number", "what was measured", _value),
    "words": Field("text", "the value, where it is text", _text),
    "low": Field("number", "lower end of the 95 % interval", lambda _r, _n, m: m.low if m else None),
    "high": Field("number", "upper end of the 95 % interval", lambda _r, _n, m: m.high if m else None),
    "samples": Field(
        "numbers",
        "raw samples behind the value, in their order; JSON in CSV",
        lambda _r, _n, m: list(m.samples) if m and m.samples else None,
    ),
    "dropped": Field(
        "text",
        "the iterations that do not count: their index among all, their seconds, and by what they were disturbed; JSON",
        lambda r, _n, m: _json(r.facts["dropped"]) if r.facts.get("dropped") and m and m.samples else None,
    ),
    "sample_unit": Field("text", "unit of the samples", lambda _r, _n, m: (m.sample_unit or None) if m else None),
    "batch": Field("count", "batch size of a throughput", lambda r, _n, _m: r.facts.get("batch")),
    "device": Field("text", "cpu or cuda", lambda r, _n, _m: r.machine.device),
    "machine": Field("text", "model of the CPU or GPU", lambda r, _n, _m: r.machine.name),
    "memory": Field("count", "its memory, bytes", lambda r, _n, _m: r.machine.memory),
    "cores": Field("count", "its cores; 0 for a GPU", lambda r, _n, _m: r.machine.cores),
    "torch": Field("text", "version of torch", _version("torch")),
    "timm": Field("text", "version of timm", _version("timm")),
    "software": Field("text", "all versions, JSON", lambda r, _n, _m: _json(dict(r.software))),
    "weights_sha256": Field(
        "text", "SHA-256 of the file of weights", lambda r, _n, _m: (r.facts.get("weights") or {}).get("sha256")
    ),
    "images": Field("text", "which images these were", lambda r, _n, _m: (r.facts.get("images") or {}).get("said")),
    "warnings": Field("texts", "warnings about the measurements; JSON in CSV", lambda r, _n, _m: list(r.warnings)),
    "error": Field("text", "why the run failed; empty for one that did not", lambda r, _n, _m: r.error),
}


def records(results: Iterable[Result]) -> Iterator[dict[str, object]]:
    """Yield a line for each metric of each result, and one for each failure."""
    for result in results:
        metrics: Mapping[str, Measurement | None] = result.metrics or {"": None}
        for name, metric in metrics.items():
            yield {key: field.of(result, name, metric) for key, field in FIELDS.items()}


def runs_frame(results: Iterable[Result]) -> "DataFrame":
    """Return the same lines as a DataFrame, with a column for each of `FIELDS`; `started` has the time zone UTC."""
    import pandas as pd  # noqa: PLC0415 -- 0.3 s to import

    types = {"number": "float64", "count": "Int64", "time": "datetime64[us, UTC]"}
    frame = pd.DataFrame(list(records(results)), columns=list(FIELDS))
    return frame.astype({name: types[field.type] for name, field in FIELDS.items() if field.type in types})


def render_results_csv(results: Iterable[Result]) -> str:
    """Render all that is known of some runs as CSV; lists are JSON."""
    text = StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for line in records(results):
        writer.writerow({name: csv_cell(_in_csv(FIELDS[name], value)) for name, value in line.items()})
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
    table = pa.Table.from_pylist(list(records(results)), schema=schema)
    with atomic.replacing(path) as temporary:
        parquet.write_table(table, temporary)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
