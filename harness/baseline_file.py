"""`Baseline` <-> JSON: a line for each run and cell, in an order that never changes, and nothing taken on trust."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from harness.baseline import Baseline, Entry, Kept, Place, name_of, paper_of, speed_of
from harness.errors import HarnessError, did_you_mean
from harness.job import Job
from harness.kinds import KINDS
from harness.machine import Machine
from harness.noise import Noise
from harness.result import job_to
from harness.spec import Spec

SCHEMA = 1

ANEW = "write the file anew with `harness baseline`"


def to_json(baseline: Baseline) -> str:
    """Write a baseline: the same baseline gives the same bytes."""
    runs = sorted(baseline.runs.values(), key=lambda one: (one.job.key, one.id))
    tables: dict[str, Any] = {name: {"cells": {}, "paper": paper} for name, paper in sorted(baseline.papers.items())}
    for (table, row, column), entry in sorted(baseline.entries.items()):
        tables[table]["cells"].setdefault(row, {})[column] = asdict(entry)
    parts = {
        "schema": _written(SCHEMA),
        "machine": _written(asdict(baseline.machine) if baseline.machine else None),
        "noise": _written(asdict(baseline.noise) if baseline.noise else None),
        "runs": _written({one.id: _run(one) for one in runs}, depth=1),
        "tables": _written(tables, depth=4),
    }
    return "{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n"


def _run(kept: Kept) -> dict[str, Any]:
    job = job_to(kept.job)
    if kept.seconds:
        beside = {} if kept.yardstick is None else {"yardstick": kept.yardstick}
        return {"job": job, "batch": kept.batch, "seconds": list(kept.seconds), **beside}
    return {"job": job, "images": kept.images}


def _written(value: object, *, depth: int = 0) -> str:
    """Write JSON with a line for each name down to some depth, and what is further down in one line."""
    if depth == 0 or not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    lines = (f"{json.dumps(name, ensure_ascii=False)}: {_written(one, depth=depth - 1)}" for name, one in value.items())
    return "{\n" + ",\n".join(lines) + "\n}"


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
    return _Reader(path).baseline(text)


class _Reader:
    """Reads one file; every complaint names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def baseline(self, text: str) -> Baseline:
        data = self._json(text)
        if not isinstance(data, dict) or "schema" not in data:
            self._refuse("is no baseline")
        if data["schema"] != SCHEMA:
            schema = _short(data["schema"])
            self._refuse(f"has schema {schema}, this version reads {SCHEMA}; update the harness, or", joined=" ")
        self._names("", data, ("schema", "machine", "noise", "runs", "tables"))
        runs = {run: self._run(run, one) for run, one in self._map("runs", data["runs"]).items()}
        papers: dict[str, str] = {}
        entries: dict[Place, Entry] = {}
        for table, told in self._map("tables", data["tables"]).items():
            place = f"tables.{table}"
            self._names(place, self._map(place, told), ("paper", "cells"))
            papers[table] = self._text(f"{place}.paper", told["paper"])
            for row, cells in self._map(f"{place}.cells", told["cells"]).items():
                for column, cell in self._map(f"{place}.cells.{row}", cells).items():
                    entries[table, row, column] = self._entry(f"{place}.cells.{row}.{column}", cell, runs)
        found = Baseline(
            papers=papers,
            entries=entries,
            runs=runs,
            machine=None if data["machine"] is None else self._machine(data["machine"]),
            noise=None if data["noise"] is None else self._noise(data["noise"]),
        )
        if found.machine is None and any(one.seconds for one in runs.values()):
            self._refuse("has speeds but does not say of which machine")
        return found

    def _json(self, text: str) -> Any:  # noqa: ANN401 -- whatever stands there
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) < len(pairs):
                names = [name for name, _ in pairs]
                self._refuse(f"has '{next(name for name in names if names.count(name) > 1)}' twice in one place")
            return found

        def not_a_number(word: str) -> NoReturn:
            self._refuse(f"holds {word}, which is no number")

        try:
            return json.loads(text, object_pairs_hook=once, parse_constant=not_a_number)
        except json.JSONDecodeError as error:
            conflict = "<<<<<<<" in text and ">>>>>>>" in text
            hint = "settle the merge conflict, or " if conflict else ""
            raise HarnessError(f"{self._path}:{error.lineno}: is not JSON ({error.msg}); {hint}{ANEW}") from None
        except RecursionError:
            self._refuse("is nested without end")

    def _run(self, run: str, told: object) -> Kept:
        place = f"runs.{run}"
        data = self._map(place, told)
        beside = ("yardstick",) if "yardstick" in data else ()
        self._names(place, data, ("job", *(("batch", "seconds", *beside) if "seconds" in data else ("images",))))
        job = self._job(f"{place}.job", data["job"])
        if job.exclusive != ("seconds" in data):
            self._refuse(f"{place} is of a {job.kind} job but has {'' if 'seconds' in data else 'no '}seconds")
        if not job.exclusive:
            images = data["images"]
            return Kept(id=run, job=job, images=None if images is None else self._text(f"{place}.images", images))
        seconds = data["seconds"]
        if not isinstance(seconds, list) or not seconds:
            self._refuse(f"{place}.seconds is {_short(seconds)}, not a list of numbers")
        times = tuple(self._number(f"{place}.seconds[{at}]", one, above=0) for at, one in enumerate(seconds))
        return Kept(
            id=run,
            job=job,
            batch=self._count(f"{place}.batch", data["batch"]),
            seconds=times,
            yardstick=self._number(f"{place}.yardstick", data["yardstick"], above=0) if beside else None,
        )

    def _job(self, place: str, told: object) -> Job:
        data = self._map(place, told)
        self._names(place, data, ("kind", "revision", "settings", *(("needs",) if "needs" in data else ())))
        kind = self._text(f"{place}.kind", data["kind"])
        if kind not in KINDS:
            self._refuse(f"{place}.kind is '{kind}', which is no kind of job{did_you_mean(kind, KINDS)}")
        settings = self._map(f"{place}.settings", data["settings"])
        for name, value in settings.items():
            if not isinstance(value, (str, int, float)):
                self._refuse(f"{place}.settings.{name} is {_short(value)}, not a word or a number")
        revision = self._count(f"{place}.revision", data["revision"])
        needs = self._map(f"{place}.needs", data.get("needs", {}))
        return Job(
            kind=kind,
            revision=revision,
            settings=tuple(sorted(settings.items())),
            needs=tuple(sorted((part, self._job(f"{place}.needs.{part}", one)) for part, one in needs.items())),
        )

    def _entry(self, place: str, told: object, runs: Mapping[str, Kept]) -> Entry:
        data = self._map(place, told)
        self._names(place, data, ("unit", "value", "runs"))
        unit, value, ids = self._text(f"{place}.unit", data["unit"]), data["value"], data["runs"]
        if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
            self._refuse(f"{place}.runs is {_short(ids)}, not a list of runs")
        if len(set(ids)) < len(ids):
            self._refuse(f"{place}.runs names a run twice")
        for one in ids:
            if one not in runs:
                self._refuse(f"{place}.runs names {one}, which is not among the runs{did_you_mean(one, runs)}")
        kept = [runs[one] for one in ids]
        if len({one.job for one in kept}) > 1 or (len(kept) > 1 and not kept[0].seconds):
            self._refuse(f"{place}.runs are not of one speed")
        if isinstance(value, str) and unit:
            self._refuse(f"{place}.value is {_short(value)}, not a number of {unit}")
        if not isinstance(value, str):
            value = self._number(f"{place}.value", value)
            if unit.startswith("%") and not 0 <= value <= 100:
                self._refuse(f"{place}.value is {value:g} %, which is no share")
        if kept[0].seconds and (isinstance(value, str) or not math.isclose(value, speed_of(kept), rel_tol=1e-3)):
            self._refuse(f"{place}.value is {value}, but its runs come to {speed_of(kept):g} {unit}")
        return Entry(unit=unit, value=value, runs=tuple(ids))

    def _machine(self, told: object) -> Machine:
        data = self._map("machine", told)
        self._names("machine", data, ("device", "name", "memory", "cores", "threads"))
        return Machine(
            device=self._text("machine.device", data["device"]),
            name=self._text("machine.name", data["name"]),
            memory=self._count("machine.memory", data["memory"], least=0),
            cores=self._count("machine.cores", data["cores"], least=0),
            threads=self._count("machine.threads", data["threads"], least=0),
        )

    def _noise(self, told: object) -> Noise:
        data = self._map("noise", told)
        self._names("noise", data, ("spread", "degrees"))
        spread = self._number("noise.spread", data["spread"])
        if not 0 <= spread <= 1:
            self._refuse(f"noise.spread is {spread:g}, not a fraction between 0 and 1")
        return Noise(spread=spread, degrees=self._count("noise.degrees", data["degrees"]))

    def _map(self, place: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._refuse(f"{place} is {_short(value)}, not an object")
        return value

    def _names(self, place: str, data: Mapping[str, Any], known: Iterable[str]) -> None:
        where = f"{place}." if place else ""
        for name in known:
            if name not in data:
                self._refuse(f"{where}{name} is missing")
        for name in data:
            if name not in set(known):
                self._refuse(f"{where}{name} is unknown{did_you_mean(name, known)}")

    def _text(self, place: str, value: object) -> str:
        if not isinstance(value, str):
            self._refuse(f"{place} is {_short(value)}, not a word")
        return value

    def _number(self, place: str, value: object, *, above: float = -math.inf) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
            self._refuse(f"{place} is {_short(value)}, not a number" + (f" above {above:g}" if above == 0 else ""))
        return value

    def _count(self, place: str, value: object, *, least: int = 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._refuse(f"{place} is {_short(value)}, not a whole number from {least}")
        return value

    def _refuse(self, what: str, *, joined: str = "; ") -> NoReturn:
        raise HarnessError(f"{self._path}: {what}{joined}{ANEW}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def check_fits(baseline: Baseline, path: Path, specs: Iterable[Spec]) -> None:
    """Refuse a baseline of another paper, or with cells that a table does not have."""
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
        for table, row, column in baseline.entries:
            for what, key in (("row", row), ("column", column)) if table == name else ():
                if key not in known[what]:
                    hint = did_you_mean(key, known[what])
                    raise HarnessError(f"{path}: {name} has no {what} '{key}'{hint or ''}; {ANEW}")
