"""Entry points of other packages -> what they name: known by their names, imported only where they are used."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import HarnessError


@cache
def plugins(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; a process looks once."""
    return tuple(entry_points(group=group))


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names in a group."""
    return tuple(entry.name for entry in plugins(group))


def find_plugin(group: str, what: str, name: str) -> EntryPoint | None:
    """Return the entry point of this name, of a `what`; None for any other name.

    Raises `HarnessError` where two packages claim the name.
    """
    entries = {entry.value: entry for entry in plugins(group) if entry.name == name}
    if len(entries) > 1:
        raise HarnessError(
            f"{' and '.join(sorted(entries))} both name a {what} '{name}' in {group}; rename one of them"
        )
    return next(iter(entries.values()), None)


def plugin_value(entry: EntryPoint, what: str) -> Any:  # noqa: ANN401 -- whatever the package has under that name
    """Import what an entry point names.  Raises `HarnessError` where that fails, in whichever way."""
    try:
        return entry.load()
    except Exception as error:
        raise HarnessError(
            f"the {what} '{entry.name}' in {entry.group} cannot be loaded ({type(error).__name__}: {error}): "
            f"{entry.value}; repair or uninstall its package"
        ) from error
