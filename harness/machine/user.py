"""What a user lacks in a container: a name, and a folder for temporary files."""

import getpass
import os
import tempfile
from pathlib import Path

from harness.errors import HarnessError


def ensure_user_name() -> None:
    """Give a user without a name its number as one: libraries ask for it, as torch does before it compiles a model."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = user_id()


def user_id() -> str:
    """Return the number of the user, which each has; the name on a system without numbers."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def in_home(path: str) -> Path:
    """Return a path whose `~` is the user's home; it stays as it is where there is none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- that of Path raises without a home


def temporary_folder() -> Path:
    """Return the folder for temporary files.  Raises `HarnessError` if there is none."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise HarnessError(f"{error.strerror}; name a folder that can be written with TMPDIR") from None
