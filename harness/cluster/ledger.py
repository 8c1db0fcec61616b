"""What was submitted <-> `runs/.slurm/arrays/<name>.json`: one file an array, so that no job is submitted twice.

An array is written down before it is submitted, without an id, and again when Slurm has given it one: whoever finds one
without an id, left by somebody who died in between, looks for its name in the queue.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import StoreError
from harness.job import Job
from harness.machine import Machine
from harness.result import job_from, job_to


@dataclass(frozen=True, kw_only=True)
class Array:
    """Tasks that were submitted together, each with its jobs.

    `number` is Slurm's (empty: not known yet), `attempts` how often each task was tried before, `over` that none of
    them is to be asked about again.
    """

    name: str
    kind: str
    submitted: datetime
    tasks: tuple[tuple[Job, ...], ...]
    attempts: tuple[int, ...]
    number: str = ""
    cancelled: bool = False
    over: bool = False

    def number_of(self, index: int) -> str:
        """Give Slurm's number of a task: submitit makes no array of one."""
        return self.number if len(self.tasks) == 1 else f"{self.number}_{index}"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What became of a job in a task: the id of its result, and the sentence if it failed.

    `unmet` tells a job that could not begin, because a training that it takes weights from has left no result.
    """

    key: str
    id: str = ""
    error: str | None = None
    unmet: bool = False


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The files of a runs folder that tell what was submitted for it."""

    runs: Path
    marks_read: dict[Path, tuple[int, tuple[Mark, ...]]] = field(default_factory=dict)
    arrays_read: dict[Path, tuple[int, Array]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Name the folder of all arrays."""
        return self.runs / ".slurm" / "arrays"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold all other harnesses off while something is submitted, on whatever host they are."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be made ({error.strerror or error})") from error
        with FileLock(self.folder.parent / "lock"):
            yield

    # Arrays.

    def new(self, kind: str, tasks: tuple[tuple[Job, ...], ...], attempts: tuple[int, ...]) -> Array:
        """Make an array that is to be submitted, and write it down."""
        array = Array(
            name=f"harness-{kind}-{secrets.token_hex(4)}",
            kind=kind,
            submitted=datetime.now(tz=UTC),
            tasks=tasks,
            attempts=attempts,
        )
        self.keep(array)
        return array

    def keep(self, array: Array) -> None:
        """Write an array down: beside, and renamed last."""
        told = {
            "name": array.name,
            "kind": array.kind,
            "number": array.number,
            "submitted": array.submitted.isoformat(),
            "cancelled": array.cancelled,
            "over": array.over,
            "attempts": list(array.attempts),
            "tasks": [[job_to(job) for job in jobs] for jobs in array.tasks],
        }
        written(self.folder / f"{array.name}.json", told)

    def forget(self, array: Array) -> None:
        """Take back an array that Slurm did not take."""
        (self.folder / f"{array.name}.json").unlink(missing_ok=True)

    def arrays(self) -> list[Array]:
        """Give what was submitted, oldest first.  Raises `StoreError` for a file that cannot be read."""
        found = []
        for path in self.folder.glob("harness-*.json"):
            try:
                changed = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # another harness took it back
            if self.arrays_read.get(path, (0, None))[0] != changed:
                self.arrays_read[path] = (changed, _array(path))
            found.append(self.arrays_read[path][1])
        return sorted(found, key=lambda array: array.submitted)

    def folder_of(self, array: Array) -> Path:
        """Name the folder with what submitit and the tasks of an array write."""
        return self.folder / array.name

    def log_of(self, array: Array, index: int) -> Path:
        """Name the file that a task writes what goes wrong into."""
        return self.folder_of(array) / f"{array.number_of(index)}_0_log.err"

    # What tasks write.

    def marks(self, array: Array) -> dict[int, tuple[Mark, ...]]:
        """Read what became of the jobs of an array, by task; files that have not grown are not read again."""
        found = {}
        try:
            entries = list(os.scandir(self.folder_of(array)))
        except FileNotFoundError:
            return {}
        for entry in entries:
            index, _, rest = entry.name.partition(".")
            if rest != "done" or not index.isdigit():
                continue
            path, size = Path(entry.path), entry.stat().st_size
            if self.marks_read.get(path, (0, ()))[0] != size:
                self.marks_read[path] = (size, read_marks(path))
            found[int(index)] = self.marks_read[path][1]
        return found

    def mark(self, array: Array, index: int, mark: Mark) -> None:
        """Note what became of a job of a task that cannot say so itself."""
        write_mark(self.folder_of(array) / f"{index}.done", mark)

    def progress(self, array: Array, index: int) -> dict[str, Any]:
        """Read how far a task says it is; nothing if it has not said anything."""
        try:
            told = json.loads((self.folder_of(array) / f"{index}.progress").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    # Which machine is behind a partition.

    def machine_of(self, place: str) -> tuple[Machine, dict[str, str]] | None:
        """Give the machine and the versions that were last seen on nodes of a kind."""
        try:
            told = json.loads((self.folder.parent / "nodes" / place).read_text(encoding="utf-8"))
            return Machine(**told["machine"]), dict(told["software"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def written(path: Path, told: Any) -> None:  # noqa: ANN401 -- whatever JSON can say
    """Write JSON beside, and rename it last."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_mark(path: Path, mark: Mark) -> None:
    """Add a line to the file of a task, which has one writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": mark.key, "id": mark.id, "error": mark.error, "unmet": mark.unmet}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_marks(path: Path) -> tuple[Mark, ...]:
    """Read the whole lines of such a file; the last one about a job holds."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return ()
    found = {}
    for line in lines:
        if line.endswith("\n"):
            mark = Mark(**json.loads(line))
            found[mark.key] = mark
    return tuple(found.values())


def numbered(array: Array, number: str) -> Array:
    """Give an array the number that Slurm gave it."""
    return replace(array, number=number)


def _array(path: Path) -> Array:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Array(
            name=told["name"],
            kind=told["kind"],
            number=told["number"],
            submitted=datetime.fromisoformat(told["submitted"]),
            cancelled=told["cancelled"],
            over=told["over"],
            attempts=tuple(told["attempts"]),
            tasks=tuple(tuple(job_from(job) for job in jobs) for jobs in told["tasks"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: is damaged ({error}); remove it if nothing of it runs any more") from error
