"""Folders and files that the command line names."""

from pathlib import Path

import click
from click.core import ParameterSource

from harness.errors import HarnessError
from harness.store import Store


def store_in(runs: Path, option: str = "--runs") -> Store:
    """Give the store of a folder, which need not be there yet.

    Raises `HarnessError` for a file.
    """
    if runs.exists() and not runs.is_dir():
        raise HarnessError(f"{option} {runs}: is a file, not a folder; name the folder of the results")
    return Store(runs)


def filled_store(runs: Path, option: str = "--runs") -> Store:
    """Give the store whose results are to be shown: a folder that was named is there, the default one need not be.

    Raises `HarnessError` for a file, and for a folder that was named and is not there.
    """
    parameter = option.removeprefix("--").replace("-", "_")
    named = click.get_current_context().get_parameter_source(parameter) is not ParameterSource.DEFAULT
    if named and not runs.exists():
        raise HarnessError(f"{option} {runs}: there is no such folder; name that of the results")
    return store_in(runs, option)


def write(path: Path, text: str, option: str = "-o") -> None:
    """Write a file that the user named, and the folder around it.

    Raises `HarnessError` where that cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"{option} {path}: {error.strerror}; name another file") from error
