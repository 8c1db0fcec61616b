"""The command line under test, in this process or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from harness.cli import main
from harness.run.launch.local import LOADING


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def told(self) -> str:
        """What is on stderr after the line that torch is being imported, without which no job runs."""
        first, _, rest = self.stderr.partition("\n")
        assert first == LOADING
        return rest


Command = Callable[..., Completed]


def clean_environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment without settings of the harness, with one thread and an exclusive lock of its own."""
    unset = ("HARNESS_", "_HARNESS_", "NO_COLOR", "COLUMNS", "GITHUB_", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    return {**kept, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **variables}


class _Capture(io.TextIOWrapper):
    """A stream that takes bytes as well, as click writes its completion scripts."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        self.seek(0)
        return self.read()


def run_harness(folder: Path, *arguments: str, **variables: str) -> Completed:
    """Run a command that starts no process of its own, in this process: nobody is at the keyboard."""
    stdout, stderr = _Capture(), _Capture()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, clean_environment(folder, **variables), clear=True),
        mock.patch.object(sys, "argv", ["harness", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Completed(returncode=int(ended.value.code or 0), stdout=stdout.text, stderr=stderr.text)


def start_harness(folder: Path, *arguments: str, **variables: str) -> Completed:
    """Run a command in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=clean_environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    return Completed(returncode=process.returncode, stdout=process.stdout, stderr=process.stderr)
