"""`Result` <-> `runs/<job key>/<run id>.json`: one folder a job, one file a run, nothing ever overwritten."""

import errno
import glob
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from harness.errors import StoreError
from harness.job import Job
from harness.machine import Machine, same_software
from harness.result import Result, from_json, to_json

# Ids that fit into a sentence.
NAMED = 3


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

    def every(self) -> Iterator[Result]:
        """Give all results of all jobs, newest first.

        What is no result, lies where none of its name belongs, or claims a run that another claims too, is named in
        `damaged` and left as it is: whoever looks at everything also meets files that are none of ours.  Raises
        `StoreError` if the root is a file.
        """
        first: dict[str, Path] = {}
        for path in self._files("*"):
            try:
                result = read(path)
            except StoreError as error:
                self.damaged.append(f"{error}; left as it is")
                continue
            if path == self.path_of(result):
                other = first.setdefault(result.id, path)
                if other == path:
                    yield result
                else:
                    self.damaged.append(
                        f"{path}: claims to be run {result.id}, as {other} does; left as it is and not used"
                    )
            else:
                self.damaged.append(f"{path}: belongs in {self.path_of(result)}; left as it is and not used")

    def by_id(self, text: str) -> Result:
        """Give the run whose id is `text` or alone begins with it.

        Raises `StoreError` if there is none or more than one, or if its file is damaged.
        """
        found = [path for path in self._files(f"{glob.escape(text)}*") if not self._is_copy(path)]
        if not found:
            raise StoreError(f"no run '{text}' in {self.root}/; `harness runs list` shows what there is")
        if len({path.name for path in found}) == 1 < len(found):
            claims = " and ".join(map(str, found))
            raise StoreError(f"{claims} claim to be the same run {found[0].stem}; remove all but the right one")
        if len(found) > 1:
            few = ", ".join(path.stem for path in found[:NAMED]) + (", …" if len(found) > NAMED else "")
            raise StoreError(f"{len(found)} runs in {self.root}/ begin with '{text}' ({few}); write more of the id")
        return read(found[0])

    def path_of(self, result: Result) -> Path:
        """Name the file of a result."""
        return self.root / result.job.key / f"{result.id}.json"

    def predictions_of(self, result: Result) -> Path:
        """Name the file in which an evaluation's predictions lie, beside the result."""
        return self.root / result.job.key / f"{result.id}.predictions.npz"

    def weights_of(self, result: Result) -> Path:
        """Name the file with the weights that a training left, beside the result."""
        return self.weights_for(result.job, result.id)

    def weights_for(self, job: Job, name: str) -> Path:
        """Name that file before there is a result of this id."""
        return self.root / job.key / f"{name}.weights.safetensors"

    def remove(self, result: Result) -> None:
        """Remove a result, then its predictions: if that is interrupted, no result is left without them.

        The folder stays even if it is empty: another process may be about to write into it.
        """
        for path in (self.path_of(result), self.predictions_of(result), self.weights_of(result)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{path}: cannot be removed ({error.strerror or error})") from error

    def _files(self, name: str) -> list[Path]:
        """Find the files of results, of all jobs, newest first."""
        if self.root.is_file():
            raise StoreError(f"--runs {self.root}: is a file, not a folder; name the folder of the results")
        found = (path for path in self.root.glob(f"*/{name}.json") if not path.name.startswith("."))
        return sorted(sorted(found), key=lambda path: path.name, reverse=True)

    def _is_copy(self, path: Path) -> bool:
        """Whether a result lies where none of its name belongs, so that `every` leaves it out too."""
        try:
            return path != self.path_of(read(path))
        except StoreError:
            return False  # of a damaged file it is to be said that it is damaged

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


def read(path: Path) -> Result:
    """Read one file of a result, wherever it lies.

    Raises `StoreError` with a sentence if it is missing or no result.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise StoreError(f"{path}: is not text") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error


def superseded(results: Iterable[Result]) -> dict[str, Result]:
    """Find the good results that a newer one stands for: the newer one, by the id of the older.

    It does so for the same job on the same machine with the same software; where images and weights are the user's,
    for the same images and weights too.
    """
    newest: dict[str, list[Result]] = {}
    found = {}
    for result in sorted(results, key=lambda one: one.id, reverse=True):
        if result.error is not None:
            continue
        kept = newest.setdefault(result.job.key, [])
        newer = next((one for one in kept if _stands_for(one, result)), None)
        if newer is None:
            kept.append(result)
        else:
            found[result.id] = newer
    return found


def _stands_for(newer: Result, older: Result) -> bool:
    same = newer.machine.does_the_same_as(older.machine) and same_software(newer.software, older.software)
    return same and _read_from(newer) == _read_from(older)


def _read_from(result: Result) -> tuple[object, ...]:
    """Tell what of the user's a result depends on, beside its job."""
    return tuple(result.facts.get(name) for name in ("images", "weights", "unreadable"))


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
