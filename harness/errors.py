"""Errors that the user can fix: one sentence with place, value and remedy, without a traceback."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class HarnessError(Exception):
    """Something the user can fix.  Its text is one sentence that says how."""


class SpecError(HarnessError):
    """All mistakes in one spec file, one sentence per line, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(HarnessError):
    """The runs folder cannot be read or written."""


class JobError(HarnessError):
    """A job failed; the others go on.  The text becomes the cell's reason."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name nearest to `name` in any case, or an empty string."""
    names = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean '{names[near[0]]}'?" if near else ""


def name_few(names: Sequence[str], *, most: int = 3, separator: str = ", ") -> str:
    """Return the first of these names, and how many more there are: `a, b, c and 5 more`."""
    return separator.join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def abridged(text: str, most: int = 60) -> str:
    """Return a text as a sentence can hold it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
