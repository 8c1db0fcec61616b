"""Runs of a folder <-> one file that travels: a plain tar with the files of the runs and the SHA-256 of each.

Whoever has `tar`, `sha256sum` and a text editor can read it without this program.  Equal runs give equal bytes.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from harness import atomic
from harness.errors import StoreError
from harness.store.result import Result, UnusableResultError, from_json
from harness.store.store import Store

# The folder of the runs in a bundle, the file with the sums of all others, which comes last, and the one for people.
RUNS, SUMS, README = "runs", "SHA256SUMS", "README.txt"

# A result is text that people read; the longest of a year's epochs has a hundredth of this, in bytes.
_LARGEST_RESULT = 100_000_000

_SUM = re.compile(r"(?P<sum>[0-9a-f]{64})  (?P<name>.+)")

_FOR_PEOPLE = """\
Results of `harness`, written by `harness bundle`.

  runs/<job>/<run>.json             a result: what was run, where, with which versions, and what was measured
  runs/<job>/<run>.predictions.npz  the predictions of an evaluation, image by image (numpy)
  runs/<job>/<run>.weights.safetensors  the weights of a training
  SHA256SUMS                        `sha256sum -c SHA256SUMS` checks every file after `tar xf`

`harness merge THIS_FILE` adds the results to a folder of runs; unpacked, runs/ is such a folder itself.
"""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How many runs of a bundle were added, how many were there already, and a sentence for each that was refused."""

    added: int = 0
    known: int = 0
    refused: tuple[str, ...] = ()


def write_bundle(store: Store, results: Iterable[Result], path: Path, *, weights: bool) -> int:
    """Write runs into one file, with the weights of trainings only if asked, and return its size in bytes.

    Raises `StoreError` for a file of a run that cannot be read, and `OSError` where the bundle cannot be written.
    """
    sums: dict[str, str] = {}
    with atomic.replacing(path) as temporary, tarfile.TarFile(temporary, "w") as tar:
        _add(tar, README, io.BytesIO(_FOR_PEOPLE.encode()), len(_FOR_PEOPLE.encode()), sums)
        for result in sorted(results, key=lambda result: (result.job.key, result.id)):
            for file in _files_that_travel(store, result, weights=weights):
                _add_file(tar, f"{RUNS}/{result.job.key}/{file.name}", file, sums)
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
        _add(tar, SUMS, io.BytesIO(text), len(text), {})
    return path.stat().st_size


def _files_that_travel(store: Store, result: Result, *, weights: bool) -> list[Path]:
    own = [store.predictions_of(result), *([store.weights_of(result)] if weights else [])]
    return [store.path_of(result), *(file for file in own if file.is_file())]


def _add_file(tar: tarfile.TarFile, name: str, file: Path, sums: dict[str, str]) -> None:
    try:
        with file.open("rb") as content:
            _add(tar, name, content, file.stat().st_size, sums)
    except FileNotFoundError as error:
        raise StoreError(f"{file}: was removed while the bundle was written; write it again") from error


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int, sums: dict[str, str]) -> None:
    """Add a file without owner and time, which would differ from machine to machine; note its sum."""
    member = tarfile.TarInfo(name)
    member.size = size
    hashed = _Hashing(content)
    tar.addfile(member, hashed)
    sums[name] = hashed.digest.hexdigest()


class _Hashing:
    """A file that is read once, and hashed on the way."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self.digest = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._content.read(size)
        self.digest.update(piece)
        return piece


def merge(path: Path, store: Store) -> Merged:
    """Add the runs of a bundle to a folder; nothing that is there is changed.

    Raises `StoreError` if anything about the bundle is wrong, before a file of it is written.
    """
    with _opened(path) as tar:
        try:
            runs = _checked(tar, path)
        except (tarfile.TarError, EOFError, ValueError) as error:  # what tarfile raises for headers that are none
            raise _damaged(path, f"{error}") from error
        merged = [_add_run(tar, run, store) for run in runs]
    refused = tuple(f"{path}: {sentence}" for sentence in merged if isinstance(sentence, str))
    return Merged(added=merged.count(True), known=merged.count(False), refused=refused)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    if path.is_dir():
        raise StoreError(
            f"{path}: is a folder, not a bundle; `harness report --runs A --runs B` reads several folders of runs, and "
            "`harness bundle` makes one file of one"
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; name a file that `harness bundle` wrote") from error
    with file:
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 -- closed below
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise StoreError(
                f"{path}: is no bundle, or it is damaged or compressed ({error}); give the tar file itself"
            ) from error
        with tar:
            yield tar


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path}: is damaged, so nothing of it was added ({reason}); copy it again")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run of a bundle: its result, the text of that, and its other files by the end of their names."""

    result: Result
    text: bytes
    others: Mapping[str, tarfile.TarInfo]


def _checked(tar: tarfile.TarFile, path: Path) -> list[_Run]:
    """Return the runs of a bundle of which every byte was checked."""
    damaged = partial(_damaged, path)
    members: dict[str, tarfile.TarInfo] = {}
    sums: dict[str, str] = {}
    results: dict[str, bytes] = {}
    for member in tar:
        if member.name in members:
            raise damaged(f"{member.name} is there twice")
        if not member.isreg() or member.issparse():
            raise damaged(f"{member.name} is no plain file")
        members[member.name] = member
        kept = member.name == SUMS or member.name.endswith(".json")
        if kept and member.size > _LARGEST_RESULT:
            raise damaged(f"{member.name} has {member.size:,} bytes")
        sums[member.name], content = _read(tar, member, keep=kept)
        if kept:
            results[member.name] = content
    if SUMS not in members:
        raise damaged(f"{SUMS}, the last file in it, is missing")
    _check_sums(results.pop(SUMS), {name: digest for name, digest in sums.items() if name != SUMS}, damaged)
    runs = [_run_of(path, name, text, members) for name, text in results.items()]
    known = {README, SUMS, *results, *(other.name for run in runs for other in run.others.values())}
    unknown = next((name for name in members if name not in known), None)
    if unknown is not None:
        raise damaged(f"{unknown} belongs to no result in it")
    return runs


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, *, keep: bool) -> tuple[str, bytes]:
    """Return the SHA-256 of a member, and its content if it is to be kept."""
    content = tar.extractfile(member)
    assert content is not None  # it is a plain file
    hashed, kept = _Hashing(content), bytearray()
    while piece := hashed.read(2**20):
        if keep:
            kept += piece
    return hashed.digest.hexdigest(), bytes(kept)


def _check_sums(listed: bytes, actual: Mapping[str, str], damaged: Callable[[str], StoreError]) -> None:
    lines = [_SUM.fullmatch(line) for line in listed.decode(errors="replace").splitlines()]
    sums = {line["name"]: line["sum"] for line in lines if line}
    if len(sums) < len(lines):
        raise damaged(f"{SUMS} is not a list of sums")
    for name in sorted(sums.keys() | actual.keys()):
        if sums.get(name) != actual.get(name):
            what = (
                "is missing" if name not in actual else "is not listed" if name not in sums else "has another SHA-256"
            )
            raise damaged(f"{name} {what}")


def _run_of(path: Path, name: str, text: bytes, members: Mapping[str, tarfile.TarInfo]) -> _Run:
    try:
        result = from_json(text.decode())
    except UnicodeDecodeError:
        raise _damaged(path, f"{name} is not text") from None
    except UnusableResultError as error:  # it is whole, but not for this version
        raise StoreError(f"{path}: {name} {error}") from error
    except StoreError as error:
        raise _damaged(path, f"{name} {error}") from error
    folder = f"{RUNS}/{result.job.key}/{result.id}"
    if name != f"{folder}.json":
        raise _damaged(path, f"{name} belongs in {folder}.json")
    ends = (".predictions.npz", ".weights.safetensors")
    return _Run(
        result=result, text=text, others={end: members[folder + end] for end in ends if folder + end in members}
    )


def _add_run(tar: tarfile.TarFile, run: _Run, store: Store) -> bool | str:
    """Add a run, and say whether it was new; a sentence if another run is in its place.

    The result is last: an interruption leaves none without its predictions.
    """
    path = store.path_of(run.result)
    own = {".predictions.npz": store.predictions_of(run.result), ".weights.safetensors": store.weights_of(run.result)}
    with atomic.occupying([path.parent]):
        known = path.exists()
        if known and path.read_bytes() != run.text:
            return f"run {run.result.id} is another one than {path}, which was left as it is"
        for end, member in run.others.items():
            if not own[end].exists():
                _write(tar, member, own[end])
        if not known:
            store.save_text(run.result, run.text.decode())
    return not known


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # it was read before
    atomic.write_stream(target, content)
