"""`Result` <-> `runs/<job key>/<run id>.json`: one folder per job, one file per run, nothing is overwritten."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness import atomic
from harness.errors import StoreError
from harness.machine import Machine, same_software
from harness.plan.job import Job
from harness.store.record import text_of
from harness.store.result import Result, UnusableResultError, from_json, to_json

# What follows the name of a result in the name of its copy.
COPY = ".copy"

# Ids shown in a message.
SHOWN_IDS = 3

# A run that began later than now by more than this has a wrong date, which would make it the newest for years: clocks
# differ by minutes, and by hours where one takes local time for UTC.
CLOCK_DIFFERENCE = timedelta(days=1)


class Store:
    """A folder of results, safe to use from several processes; `damaged` has a sentence for each unusable file.

    Whatever leaves it was checked: what cannot be, or is another job's or another run's, is never a result.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[str] = []

    @classmethod
    def open(cls, runs: Path, option: str = "--runs", *, existing: bool = True) -> "Store":
        """Return the store of a folder that `option` names.

        Raises `StoreError` for a file, and for a folder that does not exist if it has to be `existing`.
        """
        if existing and not runs.exists():
            raise StoreError(f"{option} {runs}: there is no such folder; name that of the results")
        if runs.exists() and not runs.is_dir():
            raise StoreError(f"{option} {runs}: is a file, not a folder; name the folder of the results")
        return cls(runs)

    def prepare(self) -> None:
        """Check that results can be saved, before anything is measured.

        Raises `StoreError` if the folder is a file, not writable, or on a full disk.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                # A full disk accepts an empty file but not its content.
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"--runs {self.root}: is a file, not a folder; name another folder") from error
        except OSError as error:
            raise StoreError(f"--runs {self.root}: {_message(error)}") from error
        try:
            if self.log.exists():
                self.log.open("ab").close()  # that of another user would end each job
        except OSError as error:
            raise StoreError(f"{self.log}: {_message(error)}") from error

    @property
    def log(self) -> Path:
        """The file of what libraries print in a job."""
        return self.root / "worker.log"

    def save(self, result: Result) -> Path:
        """Write a result and return its path; once this returns, the result is on the disk."""
        return self.save_text(result, to_json(result))

    def save_text(self, result: Result, text: str) -> Path:
        """Write a result as the text that it was read from, maybe by an earlier version."""
        path = self.path_of(result)
        # A training may have taken weeks: its result has a copy.
        copies = {_copy_of(path): text} if result.job.kind == "train" and result.error is None else {}
        try:
            atomic.write_all({**copies, path: text})
        except OSError as error:
            raise StoreError(f"{path}: {_message(error)}") from error
        return path

    def results(self, job: Job) -> Iterator[Result]:
        """Yield the results of a job, newest first.

        Damaged ones, and those of another job, are renamed; each unusable one gets a sentence in `damaged`.  The result
        of a training that is damaged or gone is written again from its copy, as long as the weights are there.
        """
        for path in self._files_in(self.root / job.key, gone=True):
            result = self._read(path) or self._restored(path)
            if result is not None:
                yield result

    def find(
        self, job: Job, machine: Machine, software: Mapping[str, str] | None = None, *, whole: bool = False
    ) -> Result | None:
        """Return the newest good result that makes it unnecessary to run the job here.

        A throughput counts for the same device model and software only, any other metric wherever it was measured.  If
        it is to be `whole`, one that was shortened for want of time does not count.
        """

        def counts(result: Result) -> bool:
            if result.error is not None or (whole and "shortened" in result.facts):
                return False
            if not job.exclusive:
                return True
            versions = software is None or same_software(result.software, software)
            return versions and result.machine.is_equivalent(machine)

        return self.latest(job, counts)

    def latest(self, job: Job, condition: Callable[[Result], bool]) -> Result | None:
        """Return the newest result of a job that fulfils a condition."""
        return next((result for result in self.results(job) if condition(result)), None)

    def related(self, prefix: str) -> Iterator[Result]:
        """Yield the good results of the jobs whose keys begin so (`Job.key_prefix`); other files stay unread."""
        for folder in self.root.glob(f"{prefix}*"):
            for path in folder.glob("[!.]*.json"):
                with contextlib.suppress(StoreError):
                    result = read(path)
                    if result.error is None:
                        yield result

    def variants(self, jobs: Collection[Job], names: Collection[str]) -> dict[Job, list[Result]]:
        """Return for each job the good results of others that differ from it in the settings of these names alone.

        Those of another revision are among them, of the job or of a training behind it.  Files that are no result, or
        in the wrong place, are passed over: whoever looks for their own job reports them.
        """
        folders = [entry.name for entry in os.scandir(self.root)] if jobs and self.root.is_dir() else []
        variants: dict[Job, list[Result]] = {job: [] for job in jobs}
        for job, results in variants.items():
            rest = job.without(*names, revision=False)
            for folder in (name for name in folders if name.startswith(job.key_prefix) and name != job.key):
                for path in (self.root / folder).glob("[!.]*.json"):
                    with contextlib.suppress(StoreError):
                        result = read(path)
                        same = result.job.without(*names, revision=False) == rest
                        if result.error is None and same and path == self.path_of(result):
                            results.append(result)
        return variants

    def all_results(self) -> Iterator[Result]:
        """Yield all results of all jobs, newest first.

        Files that are no result, are in the wrong place, or claim the id of another run get a sentence in `damaged`
        but are not renamed: the folder may contain files of other programs.  Raises `StoreError` if the root is a file.
        """
        first: dict[str, Path] = {}
        for path in self._files():
            try:
                result = read(path)
            except StoreError as error:
                self._report(f"{error}; left as it is")
                continue
            if path == self.path_of(result):
                other = first.setdefault(result.id, path)
                if other == path:
                    yield result
                else:
                    self._report(f"{path}: claims to be run {result.id}, as {other} does; left as it is and not used")
            else:
                self._report(f"{path}: belongs in {self.path_of(result)}; left as it is and not used")

    def by_id(self, text: str) -> Result:
        """Return the run whose id is `text`, or the only one whose id starts with it.

        Raises `StoreError` if there is none or more than one, or if its file is damaged.
        """
        paths = [path for path in self._files() if path.name.startswith(text) and not self._is_copy(path)]
        if not paths:
            raise StoreError(f"no run '{text}' in {self.root}/; `harness runs list` shows what there is")
        if len({path.name for path in paths}) == 1 < len(paths):
            claims = " and ".join(map(str, paths))
            raise StoreError(f"{claims} claim to be the same run {paths[0].stem}; remove all but the right one")
        if len(paths) > 1:
            ids = ", ".join(path.stem for path in paths[:SHOWN_IDS]) + (", …" if len(paths) > SHOWN_IDS else "")
            raise StoreError(f"{len(paths)} runs in {self.root}/ begin with '{text}' ({ids}); write more of the id")
        return read(paths[0])

    def path_of(self, result: Result) -> Path:
        """Return the file of a result."""
        return self.root / result.job.key / f"{result.id}.json"

    def predictions_of(self, result: Result) -> Path:
        """Return the file of an evaluation's predictions, next to its result."""
        return self.root / result.job.key / f"{result.id}.predictions.npz"

    def weights_of(self, result: Result) -> Path:
        """Return the file of a training's weights, next to its result."""
        return self.weights_for(result.job, result.id)

    def weights_for(self, job: Job, result_id: str) -> Path:
        """Return that file before the result of this id exists."""
        return self.root / job.key / f"{result_id}.weights.safetensors"

    def files_of(self, result: Result) -> list[Path]:
        """Return all files of a run, in the order to remove them: an interruption leaves no result without the others.

        The folder stays even if it is empty: another process may be about to write into it.
        """
        path = self.path_of(result)
        return [_copy_of(path), path, self.predictions_of(result), self.weights_of(result)]

    def remove(self, result: Result) -> None:
        """Remove a run.  Raises `StoreError` for a file that cannot be removed."""
        for path in self.files_of(result):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{path}: cannot be removed ({error.strerror or error})") from error

    def _files(self) -> list[Path]:
        """Return the files of results, of all jobs, newest first."""
        if self.root.is_file():
            raise StoreError(f"--runs {self.root}: is a file, not a folder; name the folder of the results")
        try:
            folders = sorted(path for path in self.root.iterdir() if os.path.isdir(path))  # noqa: PTH112 -- never raises
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"--runs {self.root}: cannot be read ({error.strerror or error})") from error
        paths = [path for folder in folders for path in self._files_in(folder)]
        return sorted(paths, key=lambda path: path.name, reverse=True)

    def _files_in(self, folder: Path, *, gone: bool = False) -> list[Path]:
        """Return the files of results in the folder of a job, newest first; also those `gone` that have a copy."""
        try:
            everything = os.listdir(folder)  # noqa: PTH208
        except FileNotFoundError:
            return []
        except OSError as error:
            self._report(f"{folder}: cannot be read ({error.strerror or error}); what is in it is not used")
            return []
        names = {name.removesuffix(COPY) if gone else name for name in everything if not name.startswith(".")}
        return [folder / name for name in sorted(names, reverse=True) if name.endswith(".json")]

    def _report(self, sentence: str) -> None:
        if sentence not in self.damaged:
            self.damaged.append(sentence)

    def _is_copy(self, path: Path) -> bool:
        """Whether a result is in the wrong place, so that `all_results` leaves it out too."""
        try:
            return path != self.path_of(read(path))
        except StoreError:
            return False  # reading it reports the damage

    def _read(self, path: Path) -> Result | None:
        """Return the result in a file of the folder of a job; None if there is none, which is then in `damaged`."""
        try:
            result = read(path)
        except UnusableResultError as error:
            if path.is_symlink() or path.exists():  # else another process renamed it
                self._report(f"{error}; left as it is and not used")
            return None
        except StoreError as error:
            self._set_aside(path, str(error))
            return None
        if path != self.path_of(result):
            self._set_aside(path, f"{path}: belongs in {self.path_of(result)}")
            return None
        return result

    def _restored(self, path: Path) -> Result | None:
        """Return the result of a training whose file is gone, written again from its copy; None if that cannot be."""
        copy = _copy_of(path)
        try:
            result = read(copy)
            if path.exists() or self.path_of(result) != path or not self.weights_of(result).is_file():
                return None
            self.save(result)
        except StoreError:
            return None
        self._report(f"{path}: was gone while its weights are there; written again from its copy {copy.name}")
        return result

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_suffix(".json.damaged")
        try:
            path.replace(aside)
        except OSError:
            self._report(f"{reason}; not used")
        else:
            self._report(f"{reason}; set aside as {aside.name} and measured again when requested")


def _copy_of(path: Path) -> Path:
    """Return the file of the copy of a training's result, with an ending by which nothing takes it for a result."""
    return path.with_name(path.name + COPY)


def read(path: Path) -> Result:
    """Read the file of a result, in whatever folder.

    Raises `StoreError` if it is damaged, and `UnusableResultError` if it cannot be read, is of a later version, or of a
    time that has not come.
    """
    try:
        result = from_json(text_of(path))
    except UnicodeDecodeError:
        raise StoreError(f"{path}: is not text") from None
    except OSError as error:
        raise UnusableResultError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnusableResultError as error:
        raise UnusableResultError(f"{path}: {error}") from error
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    if result.started > datetime.now(tz=UTC) + CLOCK_DIFFERENCE:
        raise UnusableResultError(
            f"{path}: says that it began on {result.started:%Y-%m-%d}, which is yet to come; check the clock of "
            f"{result.machine.label}, and remove the file if that was wrong"
        )
    return result


def superseded(results: Iterable[Result]) -> dict[str, Result]:
    """Return the newer result that supersedes a good one, by the id of the older.

    Both are of the same job, machine and software; where images and weights are the user's, of the same images and
    weights, too.  A shortened one supersedes no whole one.
    """
    kept: dict[str, list[Result]] = {}
    superseding = {}
    for result in sorted(results, key=lambda result: result.id, reverse=True):
        if result.error is not None:
            continue
        newest = kept.setdefault(result.job.key, [])
        newer = next((newer for newer in newest if _supersedes(newer, result)), None)
        if newer is None:
            newest.append(result)
        else:
            superseding[result.id] = newer
    return superseding


def _supersedes(newer: Result, older: Result) -> bool:
    same = newer.machine.is_equivalent(older.machine) and same_software(newer.software, older.software)
    whole = "shortened" not in newer.facts or "shortened" in older.facts
    return same and whole and _inputs_of(newer) == _inputs_of(older)


def _inputs_of(result: Result) -> tuple[object, ...]:
    """Return the facts about the user's inputs that a result depends on, apart from its job."""
    return tuple(result.facts.get(name) for name in ("images", "weights", "unreadable"))


def _message(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or name another folder with --runs"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "is not writable; name another folder with --runs"
    return f"{error.strerror or error}; name another folder with --runs"
