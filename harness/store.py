"""`Result` <-> `runs/<job key>/<run id>.json`: one folder a job, one file a run, nothing ever overwritten."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.errors import StoreError
from harness.machine import Machine, same_software
from harness.plan import Job
from harness.result import Result, from_json, to_json


class Store:
    """A folder of results.  Safe with several processes: a file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[str] = []

    def prepare(self) -> None:
        """Make sure that results can be kept before anything is measured.

        Raises `StoreError` if the folder is a file, not writable, or on a full disk.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                # A full disk takes an empty file and refuses its content.
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"--runs {self.root}: is a file, not a folder; name another folder") from error
        except OSError as error:
            raise StoreError(f"--runs {self.root}: {_why(error)}") from error

    def save(self, result: Result) -> Path:
        """Keep a result: written beside, synced, and renamed last."""
        folder = self.root / result.job.key
        final = folder / f"{result.id}.json"
        beside = folder / f".{result.id}.{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                file.write(to_json(result))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(final)
            _sync(folder)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise StoreError(f"{final}: {_why(error)}") from error
        return final

    def results(self, job: Job) -> Iterator[Result]:
        """Give the results of a job, newest first.  Damaged ones are named in `damaged`, set aside and left out."""
        folder = self.root / job.key
        try:
            paths = sorted(folder.glob("[!.]*.json"), reverse=True)
        except OSError as error:
            raise StoreError(f"{folder}: {_why(error)}") from error
        for path in paths:
            result = self._read(path)
            if result is not None:
                yield result

    def find(self, job: Job, machine: Machine, software: Mapping[str, str] | None = None) -> Result | None:
        """Give the newest good result that may stand for running the job here.

        A speed only stands for the same device model and software; anything else does wherever it was made.
        """

        def serves(result: Result) -> bool:
            if result.error is not None:
                return False
            if not job.exclusive:
                return True
            versions = software is None or same_software(result.software, software)
            return versions and result.machine.does_the_same_as(machine)

        return self.latest(job, serves)

    def latest(self, job: Job, serves: Callable[[Result], bool]) -> Result | None:
        """Give the newest result of a job that serves."""
        return next((result for result in self.results(job) if serves(result)), None)

    def predictions_of(self, result: Result) -> Path:
        """Name the file in which an evaluation's predictions lie, beside the result."""
        return self.root / result.job.key / f"{result.id}.predictions.npz"

    def _read(self, path: Path) -> Result | None:
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None  # another process set it aside
        except UnicodeDecodeError:
            reason = "is not text"
        except OSError as error:
            raise StoreError(f"{path}: {_why(error)}") from error
        except StoreError as error:
            reason = str(error)
            if "update the harness" in reason:
                self.damaged.append(f"{path}: {reason}; left as it is and not used")
                return None
        self._set_aside(path, reason)
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_suffix(".json.damaged")
        try:
            path.replace(aside)
        except OSError:
            self.damaged.append(f"{path}: {reason}; not used")
        else:
            self.damaged.append(f"{path}: {reason}; set aside as {aside.name} and measured again when asked for")


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or name another folder with --runs"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "is not writable; name another folder with --runs"
    return f"{error.strerror or error}; name another folder with --runs"


def _sync(folder: Path) -> None:
    """Make the renaming itself last: the entry of the folder is data too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
