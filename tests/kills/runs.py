"""A command in a session of its own: its processes by their role, and what it said."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.commands import clean_environment
from tests.kills.jobs import Work

ROOT = Path(__file__).parents[2]

# Seconds that a disturbed command may take to end, and what it started to end after it: a fork server tears torch down
# for a second, and for many on a busy machine.
PATIENCE, GRACE = 240.0, 120.0

# Done, a mistake, some jobs failed, interrupted; or ended by a signal, which is not caught while Python starts.
EXIT_CODES = (0, 2, 3, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)

_FINISHED = re.compile(r"\[\d+/\d+\] (?P<kind>\S+) (?P<job>[^:]+): (?P<outcome>.*)")


class Run:
    """A command that works in the folder of the inputs and leaves results in `runs`; its processes know its mark."""

    def __init__(
        self,
        inputs: Path,
        runs: Path,
        work: Work,
        *,
        before: Callable[[], None] | None = None,
        **variables: str,
    ) -> None:
        self.runs, self._mark = runs, secrets.token_hex(8)
        path = os.pathsep.join(filter(None, (variables.pop("PATH_FIRST", ""), str(ROOT))))
        environment = clean_environment(inputs, KILLS_MARK=self._mark, PYTHONPATH=path, **variables)
        self._output = inputs / f"{self._mark}.txt"

        def before_exec() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
            if before is not None:
                before()

        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness", *work.command, "--runs", str(runs)],
                cwd=inputs,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 -- the tests have no threads
            )
        self.started = time.monotonic()

    # Its processes.

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def processes(self) -> list[int]:
        """All living processes of this command, also those that outlived it."""
        mark = f"KILLS_MARK={self._mark}".encode()
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if mark in _content(pid, "environ")]  # noqa: PTH208

    def of_role(self, role: str) -> list[int]:
        """The processes that a signal to `role` reaches: all (`group`), the command itself (`parent`), or below it."""
        parents = {pid: _parent(pid) for pid in self.processes()}
        main = self.process.pid
        servers = [
            pid for pid, parent in parents.items() if parent == main and b"forkserver" in _content(pid, "cmdline")
        ]
        workers = [pid for pid, parent in parents.items() if parent in servers]
        loaders = [pid for pid, parent in parents.items() if parent in workers]
        roles = {"group": list(parents), "parent": [main], "server": servers, "worker": workers, "loader": loaders}
        return roles[role]

    def send(self, role: str, number: signal.Signals) -> list[int]:
        """Send a signal, and return the processes that it reached."""
        reached = []
        for pid in self.of_role(role):
            try:
                os.kill(pid, number)
                reached.append(pid)
            except ProcessLookupError:
                pass
        return reached

    # Waiting for it.

    def wait_for_work(self) -> None:
        """Wait until a child process works, or the command ended."""
        while not self.ended and not (self.runs / "worker.log").exists():
            time.sleep(0.02)

    def wait(self) -> str:
        """Wait until it and all its processes have ended; return what is wrong with how it ended."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            return f"it hung for {PATIENCE:.0f} s"
        end = time.monotonic() + GRACE
        while (orphans := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        left = "; ".join(f"{_content(pid, 'cmdline')[-80:]!r} {_content(pid, 'stat')!r}" for pid in orphans)
        self.end()
        if orphans:
            return f"{len(orphans)} processes outlived it: {left}"
        code, output = self.process.returncode, self.output
        if code not in EXIT_CODES or ("Traceback" in output and "KeyboardInterrupt" not in output):
            return f"it ended with exit code {code}: {output[-2000:]}"
        return ""

    def end(self) -> None:
        """End whatever is left of it."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    # What it said.

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def reported(self) -> Counter[str]:
        """How many results it said that it saved, by their kind."""
        finished = filter(None, map(_FINISHED.match, self.output.splitlines()))
        return Counter(match["kind"] for match in finished if not match["outcome"].startswith("failed: "))


def _content(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # it has just ended


def _parent(pid: int) -> int:
    status = _content(pid, "stat").rpartition(b")")[2].split()
    return int(status[1]) if status else 0
