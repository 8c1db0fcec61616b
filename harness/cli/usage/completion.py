"""Candidates for what the shell completes: tables, and the rows and columns of those that were typed already."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from harness.errors import HarnessError
from harness.specs import Catalog, Spec
from harness.specs.kinds import KINDS

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_tables(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the shipped tables; otherwise the shell completes the path of a spec."""
    names = [name for name in (*Catalog().names, "all") if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def _list_completer(candidates: Callable[[click.Context], Iterable[tuple[str, str]]]) -> Completer:
    """Return a function that completes the last part of `a,b,…` by what it does not name already.

    Candidates are keys, with labels as help.
    """

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [
            CompletionItem(f"{before}{comma}{key}", help=label)
            for key, label in dict(candidates(context)).items()
            if key.startswith(last) and key not in taken
        ]

    return complete


complete_rows = _list_completer(lambda context: ((row.key, row.label) for spec in _specs(context) for row in spec.rows))
complete_columns = _list_completer(
    lambda context: ((column.key, column.label) for spec in _specs(context) for column in spec.columns)
)
complete_kinds = _list_completer(lambda _context: ((kind, "") for kind in KINDS))


def _specs(context: click.Context) -> tuple[Spec, ...]:
    # While the option in hand has no value yet, click leaves the arguments before it unparsed.
    names = context.params.get("tables") or context.args
    try:
        return Catalog(edition=context.params.get("edition") or "arxiv").find(names)
    except HarnessError:
        return ()  # the command itself will say what is wrong
