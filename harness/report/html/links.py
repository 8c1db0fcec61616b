"""Tables and runs -> the paths of their pages.  A name may hold anything; a path holds only what is safe."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.judge.verdict import Diff
from harness.store.result import Result

# With a folder and a suffix still far below the 255 bytes that file systems allow, and short enough to read.
LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class PageLinks:
    """The path of each page from the root of the site, by the id of a table and by the job and id of a run."""

    tables: dict[str, str]
    runs: dict[tuple[str, str], str]

    def table(self, diff: Diff, cell: str = "") -> str:
        """Return the page of a table, or a cell on it, given by its id."""
        return self.tables[diff.spec.id] + (f"#{cell}" if cell else "")

    def run(self, result: Result | None) -> str:
        """Return the page of a run; empty if it has none."""
        return "" if result is None else self.runs.get((result.job.key, result.id), "")


def page_links(diffs: Iterable[Diff], results: Iterable[Result]) -> PageLinks:
    """Give every table and every run a path of its own, whatever they are called."""
    used: set[str] = set()
    names = {
        diff.spec.id: diff.spec.name if diff.spec.edition == "arxiv" else f"{diff.spec.edition}-{diff.spec.name}"
        for diff in diffs
    }
    return PageLinks(
        tables={key: _unused_path("tables", name, used) for key, name in names.items()},
        runs={(result.job.key, result.id): _unused_path("runs", result.id, used) for result in results},
    )


def table_name(diff: Diff) -> str:
    """Return what people call a table: the edition's number, or else its own name."""
    number = diff.spec.numbers.get(diff.spec.edition, "")
    # Several lists have `text` for a number: they come from the running text.
    name = diff.spec.name if number in ("", "text") else number
    return f"{name} (ICML)" if diff.spec.edition == "icml" else name


def contents(diffs: Iterable[Diff], links: PageLinks) -> list[tuple[str, str, str]]:
    """Return name, title and page of each table."""
    return [(table_name(diff), diff.spec.title, links.table(diff)) for diff in diffs]


def cell_ids(diff: Diff) -> dict[tuple[str, str], str]:
    """Return the id of each cell within its page, rows and columns counted from 1."""
    return {
        (row.key, column.key): f"r{row_number}c{column_number}"
        for row_number, row in enumerate(diff.spec.rows, start=1)
        for column_number, column in enumerate(diff.spec.columns, start=1)
    }


def _unused_path(folder: str, name: str, used: set[str]) -> str:
    """Return a path that no other page has, also where a file system does not tell A from a."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:LONGEST].strip("_") or "unnamed"
    number, path = 1, f"{folder}/{plain}.html"
    while path.lower() in used:
        number += 1
        path = f"{folder}/{plain}-{number}.html"
    used.add(path.lower())
    return path
