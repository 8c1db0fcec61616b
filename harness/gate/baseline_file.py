"""`Baseline` <-> JSON: a line for each run and cell, in an order that never changes, and nothing taken on trust."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import HarnessError, did_you_mean
from harness.gate.baseline import Baseline, BaselineCell, BaselineRun, CellKey, median_throughput, name_of, paper_of
from harness.specs import Spec
from harness.specs.checked import TABLE, TEXT, Constraint, shown
from harness.specs.kinds import KINDS
from harness.stats import Noise
from harness.store.cost import cost_from
from harness.store.possible import value_problem
from harness.store.record import COUNT, ID, STRING, TABLES, TEXT_OR_NULL, RecordReader
from harness.store.result import job_to_data

SCHEMA = 1

ANEW = "write the file anew with `harness baseline`"


def to_json(baseline: Baseline) -> str:
    """Write a baseline: the same baseline gives the same bytes."""
    runs = sorted(baseline.runs.values(), key=lambda run: (run.job.key, run.id))
    tables: dict[str, Any] = {name: {"cells": {}, "paper": paper} for name, paper in sorted(baseline.papers.items())}
    for (table, row, column), entry in sorted(baseline.cells.items()):
        tables[table]["cells"].setdefault(row, {})[column] = asdict(entry)
    parts = {
        "schema": _written(SCHEMA),
        "machine": _written(asdict(baseline.machine) if baseline.machine else None),
        "noise": _written(asdict(baseline.noise) if baseline.noise else None),
        "runs": _written({run.id: _run(run) for run in runs}, depth=1),
        "tables": _written(tables, depth=4),
    }
    if baseline.costs:
        parts["costs"] = _written({key: cost.to_data() for key, cost in sorted(baseline.costs.items())}, depth=1)
    return "{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n"


def _run(kept: BaselineRun) -> dict[str, Any]:
    job = job_to_data(kept.job)
    if kept.seconds:
        reference = {} if kept.reference_seconds is None else {"yardstick": kept.reference_seconds}
        return {"job": job, "batch": kept.batch, "seconds": list(kept.seconds), **reference}
    return {"job": job, "images": kept.images}


def _written(value: object, *, depth: int = 0) -> str:
    """Write JSON with a line for each name down to some depth, and what is further down in one line."""
    if depth == 0 or not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    lines = (
        f"{json.dumps(name, ensure_ascii=False)}: {_written(item, depth=depth - 1)}" for name, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}"


_TABLE_OR_NULL = Constraint(types=(dict, type(None)), required=True)
_SECONDS = Constraint(types=(float,), above=0)

_FILE = {
    "schema": COUNT,
    **dict.fromkeys(("machine", "noise"), _TABLE_OR_NULL),
    **dict.fromkeys(("runs", "tables"), TABLES),
    "costs": TABLE,  # the first versions counted none
}
_NOISE = {"spread": Constraint(types=(float,), least=0, most=1, required=True), "degrees": COUNT}
_THROUGHPUT_RUN = {
    "job": TABLES,
    "batch": COUNT,
    "seconds": Constraint(types=(list,), items=_SECONDS, required=True),
    "yardstick": _SECONDS,
}
_OTHER_RUN = {"job": TABLES, "images": TEXT_OR_NULL}
_PAPER = {"paper": STRING, "cells": TABLES}
_CELL = {
    "unit": STRING,
    "value": Constraint(types=(float, str), required=True),
    "runs": Constraint(types=(list,), items=TEXT, required=True),
}


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises `HarnessError` with place, value and remedy for what is none, of another schema, or edited into nonsense.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise HarnessError(f"--baseline {path}: is not text; {ANEW}") from None
    except OSError as error:
        raise HarnessError(f"--baseline {path}: {error.strerror}; `harness baseline` writes one") from error
    return _BaselineReader(path).baseline(text)


class _BaselineReader(RecordReader):
    """Reads one file, and raises the first mistake in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(self._refuse)
        self._path = path

    def _refuse(self, text: str, *_keys: str, joined: str = "; ") -> NoReturn:
        raise HarnessError(f"{self._path}: {text}{joined}{ANEW}")

    def baseline(self, text: str) -> Baseline:
        try:
            data = self.parse(text)
        except json.JSONDecodeError as error:
            conflict = "<<<<<<<" in text and ">>>>>>>" in text
            hint = "settle the merge conflict, or " if conflict else ""
            raise HarnessError(f"{self._path}:{error.lineno}: is not JSON ({error.msg}); {hint}{ANEW}") from None
        if not isinstance(data, dict) or "schema" not in data:
            self._refuse("is not a baseline")
        if data["schema"] != SCHEMA:
            schema = f"has schema {shown(data['schema'])}, this version reads {SCHEMA}"
            self._refuse(f"{schema}; update the harness, or", joined=" ")
        data = self.table(data, _FILE)
        runs = {run: self._run(raw, "runs", run) for run, raw in data["runs"].items()}
        papers: dict[str, str] = {}
        cells: dict[CellKey, BaselineCell] = {}
        for name, raw in data["tables"].items():
            table = self.table(raw, _PAPER, "tables", name)
            papers[name] = table["paper"]
            for row, columns in table["cells"].items():
                for column, cell in self.mapping(columns, TABLE, "tables", name, "cells", row).items():
                    cells[name, row, column] = self._cell(cell, runs, "tables", name, "cells", row, column)
        machine, noise = data["machine"], data["noise"]
        if machine is None and any(run.seconds for run in runs.values()):
            self._refuse("has throughputs but no machine that they were measured on")
        keys = {run.job.without_code.key for run in runs.values()}
        for key in data.get("costs", {}):
            self.known(key, keys, "job", where=" in [costs]")
        return Baseline(
            papers=papers,
            cells=cells,
            runs=runs,
            costs={key: cost_from(self, raw, "costs", key) for key, raw in data.get("costs", {}).items()},
            machine=None if machine is None else self.machine(machine, "machine"),
            noise=None if noise is None else Noise(**self.table(noise, _NOISE, "noise")),
        )

    def _run(self, raw: object, *keys: str) -> BaselineRun:
        timed = isinstance(raw, dict) and "seconds" in raw
        if problem := ID.problem(keys[-1]):
            self._refuse(f"the name of [{'.'.join(keys)}] {problem}")
        data = self.table(raw, _THROUGHPUT_RUN if timed else _OTHER_RUN, *keys)
        job = self.job(data["job"], *keys, "job")
        self.known(job.kind, KINDS, "kind of job", where=f" in [{'.'.join((*keys, 'job'))}]")
        if job.exclusive != timed:
            self._refuse(f"[{'.'.join(keys)}] is of a {job.kind} job but has {'' if timed else 'no '}seconds")
        if not timed:
            return BaselineRun(id=keys[-1], job=job, images=data["images"])
        seconds, reference = tuple(data["seconds"]), data.get("yardstick")
        return BaselineRun(id=keys[-1], job=job, batch=data["batch"], seconds=seconds, reference_seconds=reference)

    def _cell(self, raw: object, runs: Mapping[str, BaselineRun], *keys: str) -> BaselineCell:
        data = self.table(raw, _CELL, *keys)
        unit, value, ids, where = data["unit"], data["value"], data["runs"], f"[{'.'.join(keys)}]"
        if len(set(ids)) < len(ids):
            self._refuse(f"runs in {where} names a run twice")
        for run in ids:
            self.known(run, runs, "run", where=f" in {where}")
        of_cell = [runs[run] for run in ids]
        timed = bool(of_cell[0].seconds)
        if len({run.job for run in of_cell}) > 1 or (len(of_cell) > 1 and not timed):
            self._refuse(f"runs in {where} are not of one throughput")
        if isinstance(value, str) and unit:
            self._refuse(f"value in {where} must be a number of {unit}, not {shown(value)}")
        if problem := value_problem(value, unit):
            self._refuse(f"value in {where} {problem}")
        if timed and (isinstance(value, str) or not math.isclose(value, median_throughput(of_cell), rel_tol=1e-3)):
            self._refuse(f"value in {where} is {value}, but its runs come to {median_throughput(of_cell):g} {unit}")
        return BaselineCell(unit=unit, value=value, runs=tuple(ids))


def check_fits(baseline: Baseline, path: Path, specs: Iterable[Spec]) -> None:
    """Refuse a baseline of another paper, or with cells that a table does not have or cannot have."""
    for spec in specs:
        name = name_of(spec)
        if name not in baseline.papers:
            continue
        if baseline.papers[name] != paper_of(spec):
            raise HarnessError(
                f"{path}: its {name} is of '{baseline.papers[name]}', {spec.path} is of '{paper_of(spec)}'; that is a "
                f"baseline of another paper, write one of this with `harness baseline {spec.name}`"
            )
        known: dict[str, list[str]] = {"row": [r.key for r in spec.rows], "column": [c.key for c in spec.columns]}
        for (table, row, column), cell in baseline.cells.items():
            for what, key in (("row", row), ("column", column)) if table == name else ():
                if key not in known[what]:
                    hint = did_you_mean(key, known[what])
                    raise HarnessError(f"{path}: {name} has no {what} '{key}'{hint}; {ANEW}")
            if table == name and (problem := value_problem(cell.value, cell.unit, str(spec.cells[row, column].metric))):
                raise HarnessError(f"{path}: value in [tables.{name}.cells.{row}.{column}] {problem}; {ANEW}")
