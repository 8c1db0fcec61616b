"""Submitted arrays <-> `runs/.slurm/arrays/<name>.json`: one file an array, so that no job is submitted twice.

An array is saved before it is submitted, without a number, and again when Slurm has given it one.  Where its submitter
died in between, the next command looks for the name in the queue.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock

from harness import atomic
from harness.errors import StoreError
from harness.machine import Machine
from harness.plan.job import Job
from harness.specs.checked import TEXT, Constraint
from harness.store.record import STRING, TABLES, RecordReader, text_of
from harness.store.result import job_to_data


@dataclass(frozen=True, kw_only=True)
class Array:
    """Tasks that were submitted together, each with its jobs.

    `number` is Slurm's (empty: not known yet), `attempts` how often each task was tried before; of a `closed` array
    Slurm need not be asked again.
    """

    name: str
    kind: str
    submitted: datetime
    tasks: tuple[tuple[Job, ...], ...]
    attempts: tuple[int, ...]
    number: str = ""
    cancelled: bool = False
    closed: bool = False

    def number_of(self, index: int) -> str:
        """Return Slurm's number of a task: submitit makes no array of a single one."""
        return self.number if len(self.tasks) == 1 else f"{self.number}_{index}"


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """How a job of a task ended: the id of its result, and the error if it failed.

    `unmet` marks a job that could not start, because a training that it takes weights from has left no result.
    """

    key: str
    id: str = ""
    error: str | None = None
    unmet: bool = False


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The files of a runs folder about what was submitted for it."""

    runs: Path

    @property
    def folder(self) -> Path:
        """The folder of all arrays."""
        return self.runs / ".slurm" / "arrays"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other harnesses, on whatever host, from submitting."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be made ({error.strerror or error})") from error
        with FileLock(self.folder.parent / "lock"):
            yield

    # Arrays.

    def new(self, kind: str, tasks: tuple[tuple[Job, ...], ...], attempts: tuple[int, ...]) -> Array:
        """Save and return an array that is about to be submitted."""
        name, now = f"harness-{kind}-{secrets.token_hex(4)}", datetime.now(tz=UTC)
        array = Array(name=name, kind=kind, submitted=now, tasks=tasks, attempts=attempts)
        self.save(array)
        return array

    def save(self, array: Array) -> None:
        """Write the file of an array."""
        tasks = [[job_to_data(job) for job in jobs] for jobs in array.tasks]
        data = {**vars(array), "submitted": array.submitted.isoformat(), "tasks": tasks}
        data["over"] = data.pop("closed")
        write_json(self.folder / f"{array.name}.json", data)

    def delete(self, array: Array) -> None:
        """Delete an array that Slurm did not accept."""
        (self.folder / f"{array.name}.json").unlink(missing_ok=True)

    def arrays(self) -> list[Array]:
        """Return all arrays, oldest first.  Raises `StoreError` for a file that cannot be read."""
        arrays = []
        for path in self.folder.glob("harness-*.json"):
            with contextlib.suppress(FileNotFoundError):  # another harness deleted it
                arrays.append(_read_array(path, path.stat().st_mtime_ns))
        return sorted(arrays, key=lambda array: array.submitted)

    def folder_of(self, array: Array) -> Path:
        """Return the folder of the files that submitit and the tasks of an array write."""
        return self.folder / array.name

    def log_of(self, array: Array, index: int) -> Path:
        """Return the file with the errors of a task."""
        return self.folder_of(array) / f"{array.number_of(index)}_0_log.err"

    # What tasks write.

    def outcomes(self, array: Array) -> dict[int, tuple[JobOutcome, ...]]:
        """Return the outcomes of the jobs of an array, by task; files that have not grown are not read again."""
        outcomes = {}
        try:
            entries = list(os.scandir(self.folder_of(array)))
        except FileNotFoundError:
            return {}
        for entry in entries:
            index, _, rest = entry.name.partition(".")
            if rest == "done" and index.isdigit():
                outcomes[int(index)] = _read_grown(Path(entry.path), entry.stat().st_size)
        return outcomes

    def add_outcome(self, array: Array, index: int, outcome: JobOutcome) -> None:
        """Add the outcome of a job whose task could not."""
        append_json(self.folder_of(array) / f"{index}.done", asdict(outcome))

    def progress(self, array: Array, index: int) -> dict[str, Any]:
        """Return the progress that a task last reported; empty if there is none."""
        reader = RecordReader(_refuse)
        try:
            data = reader.parse(text_of(self.folder_of(array) / f"{index}.progress"))
            return reader.table(data, _PROGRESS, more=True)
        except (OSError, ValueError):
            return {}

    # Which machine is behind a partition.

    def save_machine(self, node_kind: str, machine: Machine, software: dict[str, str]) -> None:
        """Write the machine and the versions of a kind of node."""
        write_json(self.folder.parent / "nodes" / node_kind, {"machine": asdict(machine), "software": software})

    def machine_of(self, node_kind: str) -> tuple[Machine, dict[str, str]] | None:
        """Return the machine and the versions of a kind of node, as they were when a task last ran there."""
        reader = RecordReader(_refuse)
        try:
            data = reader.table(reader.parse(text_of(self.folder.parent / "nodes" / node_kind)), _NODE)
            return reader.machine(data["machine"], "machine"), reader.mapping(data["software"], TEXT, "software")
        except (OSError, ValueError):
            return None


def write_json(path: Path, data: Any) -> None:  # noqa: ANN401 -- whatever JSON can say
    """Write a JSON file that other processes read meanwhile."""
    try:
        atomic.write(path, json.dumps(data), sync=False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error


def append_json(path: Path, data: Any) -> None:  # noqa: ANN401 -- whatever JSON can say
    """Add a line to a file of a task, which has one writer at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            # A line that was not finished stays one of its own.
            file.seek(-1 if file.tell() else 0, os.SEEK_END)
            start = b"\n" if file.read() not in (b"", b"\n") else b""
            file.write(start + json.dumps(data).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error


_PROGRESS = {
    **dict.fromkeys(("key", "phase"), STRING),
    **dict.fromkeys(("done", "total"), Constraint(types=(int,), least=0, required=True)),
}
_NODE = {"machine": TABLES, "software": TABLES}
_FLAG = Constraint(types=(bool,))
_OUTCOME = {"key": STRING, "id": TEXT, "error": Constraint(types=(str, type(None))), "unmet": _FLAG}
_LIST = Constraint(types=(list,), required=True)
_ARRAY = {
    **dict.fromkeys(("name", "kind", "submitted"), STRING),
    "tasks": Constraint(types=(list,), items=_LIST, required=True),
    "attempts": Constraint(types=(list,), items=Constraint(types=(int,), least=0), required=True),
    "number": TEXT,
    **dict.fromkeys(("cancelled", "over"), _FLAG),
}


def _refuse(text: str, *_keys: str) -> NoReturn:
    raise ValueError(text)


@lru_cache(maxsize=100_000)
def _read_grown(path: Path, _size: int) -> tuple[JobOutcome, ...]:
    return read_outcomes(path)


def read_outcomes(path: Path) -> tuple[JobOutcome, ...]:
    """Read a task's file; the last line about a job counts."""
    outcomes = [JobOutcome(**line) for line in read_lines(path, _OUTCOME)]
    return tuple({outcome.key: outcome for outcome in outcomes}.values())


def read_lines(path: Path, constraints: Mapping[str, Constraint]) -> list[dict[str, Any]]:
    """Read the lines that `append_json` wrote.

    A line that a node which failed did not finish is left out, and what it told is not known: a job without an outcome
    is run again.  Raises `StoreError` for a file that cannot be read.
    """
    try:
        lines = text_of(path).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    reader, read = RecordReader(_refuse), []
    for line in lines:
        with contextlib.suppress(ValueError):
            if line.endswith("\n"):
                read.append(reader.table(reader.parse(line), constraints))
    return read


@lru_cache(maxsize=100_000)
def _read_array(path: Path, _changed: int) -> Array:
    return read_array(path)


def read_array(path: Path) -> Array:
    """Read the file of an array.  Raises `StoreError` if it is damaged."""
    reader = RecordReader(_refuse)
    try:
        data = reader.table(reader.parse(text_of(path)), _ARRAY)
        data["submitted"] = reader.time(data["submitted"], "submitted")
        data["tasks"] = tuple(tuple(reader.job(job, "tasks") for job in jobs) for jobs in data["tasks"])
        data["attempts"], data["closed"] = tuple(data["attempts"]), data.pop("over", False)
        if len(data["attempts"]) != len(data["tasks"]):
            _refuse(f"it has {len(data['tasks'])} tasks, but {len(data['attempts'])} numbers of attempts")
        return Array(**data)
    except (OSError, ValueError, StoreError) as error:
        raise StoreError(f"{path}: is damaged ({error}); remove it if none of its jobs is running") from error
