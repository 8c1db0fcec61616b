"""A folder of runs -> what killed processes left in it that nothing reads again, each with its reason and its size."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import atomic
from harness.errors import StoreError, name_few
from harness.specs.kinds import KINDS
from harness.store.result import Result
from harness.store.store import read

# What jobs name their files in the folder of a job: the last state of a training, the finished shards of an evaluation
# (followed by a part of the SHA-256 of its weights), and what the processes of a training exchange.
CHECKPOINT = re.compile(r"checkpoint-(?P<step>\d{9})\.safetensors")
SHARDS = ".parts-"
PROCESS_FILES = ".processes-"

_JOB_FOLDER = re.compile(r".+-[0-9a-f]{10}")
_OF_A_RUN = re.compile(
    r"(?P<run>\d{8}T\d{12}Z-[0-9a-f]{8})\.(?P<what>json\.copy|predictions\.npz|weights\.safetensors)"
)
_DAMAGED = re.compile(r".+\.json\.damaged|checkpoint-\d{9}\.damaged")
_LOGS = {"training.csv", "tensorboard"}
_HALF_WRITTEN = "half-written"

# The header of a safetensors file is never longer than this, in bytes.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file, or a folder with all that is in it, that nothing reads again; `size` is in bytes."""

    path: Path
    reason: str
    size: int


def find_leftovers(root: Path) -> tuple[list[Leftover], list[str]]:
    """Find what is left over in a folder of runs, and return a sentence for what looks so but is of use.

    That is the state of a training that can be resumed, and whatever is where a process writes now.
    """
    leftovers: dict[Path, Leftover] = {}
    kept: list[str] = []
    for folder in _folders(root):
        if leftovers.keys() & {folder, *folder.parents}:
            continue  # it goes as a whole
        with contextlib.suppress(OSError), atomic.vacant(folder) as is_vacant:
            left = {leftover.path: leftover for leftover in _leftovers_in(folder)}
            if is_vacant:
                leftovers |= left
                kept += _unfinished(folder, left.keys())
            elif left:
                kept.append(f"{folder}: a process writes there; what it has not finished is left as it is")
    return list(leftovers.values()), kept


def remove_leftovers(leftovers: Iterable[Leftover]) -> list[Leftover]:
    """Remove what is still left over, and return it.  Raises `StoreError` for what cannot be removed."""
    removed = []
    for folder, group in groupby(leftovers, key=lambda leftover: leftover.path.parent):
        try:
            with atomic.vacant(folder) as is_vacant:
                # A process may have finished meanwhile what lacked its result.
                still = {leftover.path for leftover in _leftovers_in(folder)} if is_vacant else set()
                for leftover in (leftover for leftover in group if leftover.path in still):
                    _remove(leftover.path)
                    removed.append(leftover)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be cleaned up ({error.strerror or error})") from error
    return removed


def format_size(size: int) -> str:
    """Return a number of bytes in MB."""
    return f"{size / 1e6:,.1f} MB"


def is_finished(checkpoint: Path, results: Iterable[Result]) -> bool:
    """Whether the training that a checkpoint is of has one of these results: they have its epochs."""
    history: list[Any] = _part_of(checkpoint, "standing").get("history") or []
    return history != [] and any(_begins_with(result, history) for result in results)


def _begins_with(result: Result, history: list[Any]) -> bool:
    """Whether a good result has these epochs: no other training took the same time for each."""
    return result.error is None and list(result.facts.get("history", ()))[: len(history)] == history


def _folders(root: Path) -> list[Path]:
    """Return the folders that processes of ours write into: the root, those of jobs, and those of a cluster."""
    jobs = [path for path in _entries(root) if _JOB_FOLDER.fullmatch(path.name) and path.is_dir()]
    shards = [path for job in jobs for path in _entries(job) if path.name.startswith(SHARDS) and path.is_dir()]
    cluster = [Path(folder) for folder, _, _ in os.walk(root / ".slurm")]
    return [root, *sorted([*jobs, *shards, *cluster])]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _leftovers_in(folder: Path) -> Iterator[Leftover]:
    paths = _entries(folder)
    if _JOB_FOLDER.fullmatch(folder.name):
        reasons = _reasons_in_job_folder(folder, paths)
    else:
        reasons = {path: _HALF_WRITTEN for path in paths if atomic.is_temporary(path)}
    if folder.parts[-2:] == (".slurm", "arrays"):
        never = "files of tasks that were never submitted"
        reasons |= {path: never for path in paths if path.is_dir() and path.with_name(f"{path.name}.json") not in paths}
    for path, reason in sorted(reasons.items()):
        yield Leftover(path=path, reason=reason, size=_size(path))


def _reasons_in_job_folder(folder: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Return why nothing reads these files again, for those of which that is so."""
    names, needs_results = {path.name for path in paths}, any(map(_is_unfinished_work, paths))
    results = _results_in(folder) if needs_results else []
    reasons = {}
    for path in paths:
        reason = _reason_of_work(path, results) if _is_unfinished_work(path) else _reason_of_file(path, names)
        if reason:
            reasons[path] = reason
    left = names - {path.name for path in reasons}
    if folder.name.startswith("train-") and left <= _LOGS:
        reasons |= {folder / name: "log of a training of which nothing is left" for name in left}
    return reasons


def _is_unfinished_work(path: Path) -> bool:
    """Whether a file or folder holds what a job resumes from."""
    return bool(CHECKPOINT.fullmatch(path.name)) or path.name.startswith(SHARDS)


def _reason_of_work(path: Path, results: Sequence[Result]) -> str:
    """Return why no job resumes from a checkpoint or from shards; empty if one may."""
    if path.name.startswith(SHARDS):
        weights = path.name.removeprefix(SHARDS)
        digests = (str(dict(result.facts.get("weights", {})).get("sha256")) for result in results)
        has_result = any(digest.startswith(weights) for digest in digests)
        return "partial predictions of an evaluation that has its result" if has_result else ""
    if is_finished(path, results):
        return "checkpoint of a training that has its result"
    current = KINDS["train"].revision
    earlier = _part_of(path, "job").get("revision", current) != current
    return "checkpoint of another revision of training, which cannot be resumed" if earlier else ""


def _reason_of_file(path: Path, names: AbstractSet[str]) -> str:
    """Return why nothing reads a file again that is one of these in the folder of a job; empty if something may."""
    if atomic.is_temporary(path):
        return _HALF_WRITTEN
    if _DAMAGED.fullmatch(path.name):
        return "damaged, and was set aside"
    if path.name.startswith(PROCESS_FILES):
        return "files of processes that have ended"
    of_run = _OF_A_RUN.fullmatch(path.name)
    if of_run is None or f"{of_run['run']}.json" in names:
        return ""
    has_copy, has_weights = (of % of_run["run"] in names for of in ("%s.json.copy", "%s.weights.safetensors"))
    orphans = {
        "predictions.npz": "predictions without a result",
        "weights.safetensors": "" if has_copy else "weights without a result",
        "json.copy": "" if has_weights else "copy of a result that is gone",
    }
    return orphans[of_run["what"]]


def _unfinished(folder: Path, leftover: AbstractSet[Path]) -> Iterator[str]:
    """Yield a sentence about what a job can resume from."""
    paths = [path for path in _entries(folder) if _is_unfinished_work(path) and path not in leftover]
    if paths:
        training = any(CHECKPOINT.fullmatch(path.name) for path in paths)
        what = "checkpoints of a training" if training else "partial predictions of an evaluation"
        names, size = name_few([path.name for path in paths]), format_size(sum(map(_size, paths)))
        yield f"{folder}: {names}, {size}: {what} that the same command resumes; remove them if it never will"


def _results_in(folder: Path) -> list[Result]:
    """Return the good results in the folder of a job."""
    results = []
    for path in folder.glob("[!.]*.json"):
        with contextlib.suppress(StoreError):
            results.append(read(path))
    return [result for result in results if result.error is None]


def _part_of(checkpoint: Path, name: str) -> dict[str, Any]:
    """Return a part of the header of a checkpoint without importing torch; empty where it cannot be read."""
    try:
        if not checkpoint.is_file():  # a pipe would be waited for
            return {}
        with checkpoint.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, _LONGEST_HEADER)))
        part = json.loads(header["__metadata__"][name])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return part if isinstance(part, dict) else {}


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    try:
        own = path.lstat().st_size
    except OSError:
        return 0
    return sum(map(_size, _entries(path))) if path.is_dir() and not path.is_symlink() else own


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
