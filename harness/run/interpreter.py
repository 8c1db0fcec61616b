"""A Python of another environment, and the processes of this harness in it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NoReturn

import harness
from harness.errors import HarnessError

# Seconds in which a process ends that nobody sends commands any more.
PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python of an environment with torch and timm, and the option that named it.

    `packages` has the version of each package there, where it is known.
    """

    path: Path
    option: str
    packages: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Interpreter":
        """Return the one that `--python` names."""
        return cls(path=path, option=f"--python {path}")

    def __str__(self) -> str:
        """Return its name without that of the option."""
        return self.option.partition(" ")[2]

    def start(self, module: str, folder: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a module of the harness that a folder has, with pipes for its stdin and stdout.

        Raises `HarnessError` for a Python that cannot be started.
        """
        environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.Popen(  # noqa: S603 -- what the user named
                # -P: the working folder may be that of a package which is installed there in another revision.
                [self.path, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        except OSError as error:
            raise HarnessError(f"{self.option}: {error.strerror}; name the Python of an environment") from error

    def fail(self, log: IO[bytes], exit_code: int | None) -> NoReturn:
        """Raise `HarnessError` with the last line that a process wrote before it ended."""
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"it ended with exit code {exit_code}"
        raise HarnessError(f"{self.option}: {last}; it needs Python 3.11 or later, torch and timm")


@contextlib.contextmanager
def harness_alone() -> Iterator[Path]:
    """Yield a folder that has this package alone, and nothing that is installed next to it."""
    with TemporaryDirectory(prefix="harness-ab-") as folder:
        (Path(folder) / "harness").symlink_to(Path(harness.__file__).parent)
        yield Path(folder)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Close the pipes of a process, without which it ends, and wait for it."""
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):
            pipe.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
