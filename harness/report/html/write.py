"""A site on the disk: which tables go into it, and writing it without harm to other files."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from harness import atomic
from harness.errors import HarnessError
from harness.plan.plan import Plan
from harness.report.html.runs import HISTORY
from harness.specs import Catalog, Spec
from harness.store.result import Result
from harness.store.store import Store

# The list of the files of a site, so that the next one deletes what this one wrote, and nothing else.
LIST = "harness-site.json"
SCHEMA = 1


def with_figures(catalog: Catalog, specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """Return some tables and the figures that go with them."""
    tables = tuple(specs)
    known = {(spec.name, spec.edition) for spec in tables}
    figures = dict.fromkeys(
        f"{spec.edition}:{spec.figure}"
        for spec in tables
        if spec.figure in catalog.names and (spec.figure, spec.edition) not in known
    )
    return (*tables, *catalog.find(figures))


def histories_of(plan: Plan, store: Store) -> dict[str, tuple[Result, ...]]:
    """Return the newest results of each job, as many as the page of a run shows."""
    return {job.key: tuple(islice(store.results(job), HISTORY + 1)) for job in plan.all_jobs}


def write_site(folder: Path, files: Mapping[str, str]) -> None:
    """Write a site into a folder of its own, in place of an earlier site there.

    Raises `HarnessError` if the folder holds anything but an earlier site, or cannot be written.
    """
    try:
        old = _earlier_files(folder)
        # First all files that may be there, so that the rest of an interrupted run is still known as a site.
        _write_list(folder, old | files.keys())
        # A result may hold half a surrogate pair, which UTF-8 has no bytes for.  A site can be rendered again: no sync.
        contents = {folder / name: text.encode(errors="backslashreplace") for name, text in files.items()}
        atomic.write_all(contents, sync=False)
        for name in old - files.keys():
            (folder / name).unlink(missing_ok=True)
        _write_list(folder, files)
        _tidy({folder / parent for name in old | files.keys() for parent in PurePosixPath(name).parents})
    except OSError as error:
        raise HarnessError(f"-o {folder}: {error.strerror}; name another folder") from error


def _tidy(folders: Iterable[Path]) -> None:
    """Remove what killed processes left half-written, and folders of an earlier site that are empty now."""
    for folder in sorted(folders, reverse=True):  # the inner ones first
        with contextlib.suppress(OSError):
            with atomic.vacant(folder) as is_vacant:
                for path in filter(atomic.is_temporary, folder.iterdir() if is_vacant else ()):
                    path.unlink()
            folder.rmdir()


def _write_list(folder: Path, names: Iterable[str]) -> None:
    text = json.dumps({"schema": SCHEMA, "files": sorted(names)}, indent=0)
    atomic.write(folder / LIST, text + "\n")


def _earlier_files(folder: Path) -> set[str]:
    """Return the files of an earlier site; empty if nothing is there yet."""
    if folder.exists() and not folder.is_dir():
        raise HarnessError(f"-o {folder}: is a file, not a folder; name a folder for the site")
    if not folder.exists() or not any(folder.iterdir()):
        return set()
    names = _read_list(folder / LIST)
    if names is None:
        raise HarnessError(
            f"-o {folder}: holds files that are not a site of this program; name a new or an empty folder"
        )
    return names


def _read_list(path: Path) -> set[str] | None:
    """Read the list; None where it is not one, or would lead out of the folder."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema, names = data["schema"], [PurePosixPath(name) for name in data["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if schema != SCHEMA:
        raise HarnessError(
            f"-o {path.parent}: holds a site of a later version (schema {schema}); "
            "update the harness or name a new folder"
        )
    if any(name.is_absolute() or ".." in name.parts for name in names):
        return None
    return {str(name) for name in names}
