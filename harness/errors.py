"""Sentences for the user: place, value, remedy.  A command ends with one of these and no traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class HarnessError(Exception):
    """Something the user can mend.  Its text is one sentence that says how."""


class SpecError(HarnessError):
    """Everything that is wrong with one spec file, one sentence a line, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(HarnessError):
    """The runs folder cannot be read or written."""


class JobError(HarnessError):
    """A job cannot be done; the others can.  The text becomes the cell's reason."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
