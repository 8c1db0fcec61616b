"""Tables and runs -> the addresses of their pages.  A name may hold anything; an address holds only what is safe."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.diff import Diff
from harness.result import Result

# With a folder and a suffix still far below the 255 bytes that file systems allow, and short enough to read.
LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """The path of each page from the root of the site, by the id of a table and by the job and id of a run."""

    tables: dict[str, str]
    runs: dict[tuple[str, str], str]

    def of_table(self, diff: Diff) -> str:
        """Give the page of a table."""
        return self.tables[diff.spec.id]

    def of_run(self, result: Result | None) -> str:
        """Give the page of a run; empty if it has none."""
        return "" if result is None else self.runs.get((result.job.key, result.id), "")


def addresses_of(diffs: Iterable[Diff], results: Iterable[Result]) -> Addresses:
    """Give every table and every run an address of its own, whatever they are called."""
    taken: set[str] = set()
    tables = {diff.spec.id: _free("tables", _named(diff), taken) for diff in diffs}
    runs = {(one.job.key, one.id): _free("runs", one.id, taken) for one in results}
    return Addresses(tables=tables, runs=runs)


def cell_id(row: int, column: int) -> str:
    """Name the place of a cell within its page, rows and columns counted from 1."""
    return f"r{row}c{column}"


def _named(diff: Diff) -> str:
    return diff.spec.name if diff.spec.edition == "arxiv" else f"{diff.spec.edition}-{diff.spec.name}"


def _free(folder: str, name: str, taken: set[str]) -> str:
    """Make a path that no other page has, also where a file system does not tell A from a."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:LONGEST].strip("_") or "unnamed"
    number, found = 1, f"{folder}/{plain}.html"
    while found.lower() in taken:
        number += 1
        found = f"{folder}/{plain}-{number}.html"
    taken.add(found.lower())
    return found
