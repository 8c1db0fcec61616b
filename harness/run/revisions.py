"""Two commits of a git checkout -> two Pythons, each with one of them installed; what was built once is kept.

An environment is whole once its `environment.json` is there, which is written last: what an interruption leaves is
built again.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from harness import atomic
from harness.errors import HarnessError
from harness.machine.exclusive import exclusive_lock
from harness.machine.user import in_home
from harness.run.interpreter import Interpreter

# The name of a revision that is no commit yet: the files of the checkout as they are.
WORKING_TREE = "."

INSTALL = "pip install ."

# Lines of a failed installation that a message quotes: those that name an error, which pip prints advice behind.
QUOTED_LINES = 3
_ERROR_LINE = re.compile(r"error: ", re.IGNORECASE)

# A snapshot of equal files is the same commit, so its environment is built once.
_SNAPSHOT = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "harness"), ("EMAIL", "harness@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
}

# Of two versions of a package the first is imported.
_LIST_PACKAGES = """
import json
from importlib.metadata import distributions
from importlib.machinery import PathFinder
print(json.dumps({each.name: each.version for each in reversed(list(distributions()))}))
"""


_PIP = """#!/bin/sh
exec "$VIRTUAL_ENV/bin/python" -m pip "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A commit of a checkout, and how the user named it."""

    name: str
    commit: str

    def __str__(self) -> str:
        """Return both, the commit as short as git shows it."""
        name = "the working tree" if self.name == WORKING_TREE else self.name
        return self.commit[:7] if self.commit.startswith(name) else f"{name} ({self.commit[:7]})"


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A folder in a git repository: its root, or the folder of one project in it."""

    folder: Path

    def revision(self, name: str) -> Revision:
        """Return the commit of this name; of `.` a snapshot of the files that git tracks, as they are now.

        Raises `HarnessError` if the folder is no checkout, or has no such commit.
        """
        if name == WORKING_TREE:
            return Revision(name=name, commit=self._snapshot())
        try:
            commit = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        except HarnessError:
            self.git("rev-parse", "--git-dir")  # the first reason, if it is no checkout at all
            raise HarnessError(
                f"--rev {name}: {self.folder} has no such commit; `git fetch` gets it, in a shallow clone as that of a "
                "CI `git fetch --depth 1 origin COMMIT`"
            ) from None
        return Revision(name=name, commit=commit)

    def untracked(self) -> list[str]:
        """Return the files that are in no revision: git neither tracks nor ignores them."""
        return self.git("ls-files", "--others", "--exclude-standard").splitlines()

    def _snapshot(self) -> str:
        """Commit the tracked files to no branch; the index of the user stays as it is."""
        index = Path(self.git("rev-parse", "--path-format=absolute", "--git-path", "index"))
        with TemporaryDirectory(prefix="harness-ab-") as folder:
            copy = str(shutil.copyfile(index, Path(folder) / "index"))
            self.git("add", "--update", ":/", GIT_INDEX_FILE=copy)
            tree = self.git("write-tree", GIT_INDEX_FILE=copy)
        head = self.git("rev-parse", "HEAD")
        if tree == self.git("rev-parse", "HEAD^{tree}"):
            return head
        return self.git("commit-tree", tree, "-p", head, "-m", "Uncommitted changes", **_SNAPSHOT)

    def git(self, *arguments: str, **variables: str) -> str:
        """Return what git prints.  Raises `HarnessError` with its last line where it fails."""
        # Those of a hook of git, in which a harness may run, name another index and repository.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.folder), *arguments]
        try:
            ran = subprocess.run(  # noqa: S603 -- git
                command, capture_output=True, text=True, check=False, env={**environment, **variables}
            )
        except FileNotFoundError:
            raise HarnessError("there is no git on the PATH, which --rev needs; install it, or use --python") from None
        if ran.returncode:
            last = (ran.stderr.strip() or f"it ended with exit code {ran.returncode}").splitlines()[-1]
            raise HarnessError(f"--checkout {self.folder}: git {arguments[0]}: {last}")
        return ran.stdout.strip()


def environments_folder() -> Path:
    """Return the folder in which environments are kept unless another is named: that of caches."""
    return in_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "deit-harness" / "environments"


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds environments in a `folder`, by a shell command that is run in the files of a revision.

    With `share`, what is installed here is importable there as well, after what `install` adds.
    """

    checkout: Checkout
    folder: Path
    report: Callable[[str], None]
    install: str = INSTALL
    share: bool = False

    def interpreter(self, revision: Revision) -> Interpreter:
        """Return the Python of the environment of a revision, built where it is not there yet.

        Raises `HarnessError` with the last lines of what failed.
        """
        prefix = self.checkout.git("rev-parse", "--show-prefix")
        folder = (self.folder / self._name(revision, prefix)).absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock")
        with exclusive_lock(lock, self.report, f"builds the environment of {revision}"):
            if not (_marker(folder).is_file() and _python(folder).exists()):
                self._build(revision, folder, prefix)
        packages = json.loads(_marker(folder).read_text(encoding="utf-8"))["packages"]
        return Interpreter(path=_python(folder), option=f"--rev {revision}", packages=packages)

    def _name(self, revision: Revision, prefix: str) -> str:
        """Return a name that differs where the environment would: by commit, command, Python, and what is shared."""
        installer = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
        shared = [_shared_folders(), sorted(f"{d.name} {d.version}" for d in distributions())] if self.share else []
        parts = [revision.commit, prefix, self.install, sys.version, sys.base_prefix, sorted(installer.items()), shared]
        return f"{revision.commit[:12]}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]}"

    @property
    def _shares_pip(self) -> bool:
        """Whether pip is among what is shared: to install another takes seconds."""
        return self.share and PathFinder.find_spec("pip") is not None  # and no finder that warns

    def _build(self, revision: Revision, folder: Path, prefix: str) -> None:
        began, log = time.monotonic(), folder.with_suffix(".log")
        self.report(f"{revision}: building its environment with `{self.install}`, which is kept for the next time")
        shutil.rmtree(folder, ignore_errors=True)
        with _whole_or_gone(folder), log.open("wb") as output:
            source = folder / "source"
            self.checkout.git("worktree", "prune")
            self.checkout.git("worktree", "add", "--force", "--detach", str(source), revision.commit)
            run = _Commands(revision=revision, log=log, output=output)
            if (source / ".gitmodules").exists():
                run.run("git submodule update", ["git", "submodule", "update", "--init", "--recursive"], source)
            environment = [str(folder / "environment"), *(["--without-pip"] if self._shares_pip else [])]
            run.run("python -m venv", [sys.executable, "-m", "venv", *environment], folder)
            if self.share:
                _share_with(folder / "environment")
            if self._shares_pip:
                pip = folder / "environment" / "bin" / "pip"
                atomic.write(pip, _PIP, sync=False)
                pip.chmod(0o755)
            variables = _activated(folder / "environment")
            run.run(self.install, ["/bin/sh", "-c", self.install], source / prefix, variables)
            listing = subprocess.run(  # noqa: S603 -- the Python just made
                [_python(folder), "-P", "-c", _LIST_PACKAGES], capture_output=True, check=True, env=variables
            )
            facts = {"commit": revision.commit, "install": self.install, "packages": json.loads(listing.stdout)}
            atomic.write(_marker(folder), json.dumps(facts, indent=1) + "\n")
        self.report(f"{revision}: built in {time.monotonic() - began:.0f} s")


@dataclass(frozen=True, kw_only=True)
class _Commands:
    """Runs what builds an environment, with its output in a log."""

    revision: Revision
    log: Path
    output: IO[bytes]

    def run(self, name: str, command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
        ran = subprocess.run(  # noqa: S603 -- what the user named
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            check=False,
            env=variables,
        )
        if ran.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            quoted = ([line for line in lines if _ERROR_LINE.search(line)] or lines)[-QUOTED_LINES:]
            reason = " | ".join(line.strip() for line in quoted) or "it printed nothing"
            raise HarnessError(
                f"--rev {self.revision}: `{name}` failed with exit code {ran.returncode}: {reason}; {self.log} has all "
                "of it, and --install names another command"
            )


@contextmanager
def _whole_or_gone(folder: Path) -> Iterator[None]:
    """Remove the folder unless the block ends as it should, also after Ctrl-C."""
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _marker(folder: Path) -> Path:
    return folder / "environment.json"


def _python(folder: Path) -> Path:
    return folder / "environment" / "bin" / "python"


def _shared_folders() -> list[str]:
    return [path for path in sys.path if path.endswith("-packages")]


def _share_with(environment: Path) -> None:
    """Let an environment find what is installed here, after what is installed there."""
    (packages,) = environment.glob("lib/python*/site-packages")
    atomic.write(packages / "shared.pth", "".join(f"{folder}\n" for folder in _shared_folders()), sync=False)


def _activated(environment: Path) -> dict[str, str]:
    """Return the variables of a shell in which an environment is active."""
    unset = ("PYTHONPATH", "PYTHONHOME", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ours = {"PATH": path, "VIRTUAL_ENV": str(environment), "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **ours}


def differing_packages(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return each package that is not the same in two environments, with both versions."""
    names = sorted({*old, *new}, key=str.lower)
    return [
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}" for name in names if old.get(name) != new.get(name)
    ]
