"""A site on the disk: which tables go into it, and writing it without harm to files that are none of its own."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError
from harness.plan import Plan
from harness.report.html.runs import HISTORY
from harness.result import Result
from harness.spec import Catalog, Spec
from harness.store import Store

# The list of what a site consists of, so that the next one takes away what this one wrote, and nothing else.
LIST = "harness-site.json"
SCHEMA = 1


def with_figures(catalog: Catalog, specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """Add the figures that go with some tables."""
    tables = tuple(specs)
    known = {(spec.name, spec.edition) for spec in tables}
    wanted = dict.fromkeys(
        f"{spec.edition}:{spec.figure}"
        for spec in tables
        if spec.figure in catalog.names and (spec.figure, spec.edition) not in known
    )
    return (*tables, *catalog.find(wanted))


def histories_of(plan: Plan, store: Store) -> dict[str, tuple[Result, ...]]:
    """Give the newest results of each job, as many as the page of a run shows."""
    return {job.key: tuple(islice(store.results(job), HISTORY + 1)) for job in plan.all_jobs}


def write_site(folder: Path, files: Mapping[str, str]) -> None:
    """Write a site into a folder of its own; the files of an earlier site there go.

    Raises `HarnessError` if the folder holds anything but an earlier site, or cannot be written.
    """
    try:
        old = _earlier(folder)
        # First all that may be there, so that what an interrupted run leaves is still known for a site.
        _list(folder, old | files.keys())
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # A result may hold half a surrogate pair, which UTF-8 has no bytes for.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        for name in old - files.keys():
            (folder / name).unlink(missing_ok=True)
        _list(folder, files)
    except OSError as error:
        raise HarnessError(f"-o {folder}: {error.strerror}; name another folder") from error


def _list(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    listed = json.dumps({"schema": SCHEMA, "files": sorted(names)}, indent=0)
    (folder / LIST).write_text(listed + "\n", encoding="utf-8")


def _earlier(folder: Path) -> set[str]:
    """Find what an earlier site consists of; empty if nothing is there yet."""
    if folder.exists() and not folder.is_dir():
        raise HarnessError(f"-o {folder}: is a file, not a folder; name a folder for the site")
    if not folder.exists() or not any(folder.iterdir()):
        return set()
    listed = _listed(folder / LIST)
    if listed is None:
        raise HarnessError(f"-o {folder}: holds files that are no site of this program; name a new or an empty folder")
    return listed


def _listed(path: Path) -> set[str] | None:
    """Read the list; None for what is none, or would lead out of the folder."""
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
