"""What happens to a command at a random moment: signals, a second one, a full disk, little memory, a clock set back."""

import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import run_harness
from tests.kills.jobs import Work
from tests.kills.runs import Run

# Python reads this at its start: an hour is taken from the clock some seconds later.
CLOCK = """
import datetime, os, time
_start, _after, _real = time.monotonic(), float(os.environ["CLOCK_AFTER"]), time.time
def _back():
    return 3600.0 if time.monotonic() - _start > _after else 0.0
time.time = lambda: _real() - _back()
class datetime_(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) - datetime.timedelta(seconds=_back())
datetime_.__name__ = datetime_.__qualname__ = "datetime"
datetime_.__module__ = "datetime"
datetime.datetime = datetime_
"""

# Sizes that a store may grow to, the files in it, and the memory of a process, in bytes.
DISK, FILE, MEMORY = (1 << 12, 1 << 20), (1 << 13, 1 << 18), (1 << 29, 6 << 30)


@dataclass(kw_only=True)
class Moment:
    """Where a disturbance happens: a folder of inputs, a store, the work, and how long it takes when undisturbed."""

    inputs: Path
    runs: Path
    work: Work
    span: float
    draw: random.Random
    problems: list[str] = field(default_factory=list)
    commands: list[Run] = field(default_factory=list)

    def start(self, before: Callable[[], None] | None = None, **variables: str) -> Run:
        """Start the command."""
        run = Run(self.inputs, self.runs, self.work, before=before, **variables)
        self.commands.append(run)
        return run

    def wait_at_random(self, run: Run) -> None:
        """Wait for a random moment: one in six is while it starts, the others are while a child process works."""
        if self.draw.random() < 1 / 6:
            time.sleep(self.draw.uniform(0, 2))
        else:
            run.wait_for_work()
            time.sleep(self.draw.uniform(0, self.span))

    def finish(self) -> None:
        """Wait until all commands have ended, and collect what is wrong with how they did."""
        self.problems += [problem for run in self.commands if (problem := run.wait())]

    @property
    def reported(self) -> Counter[str]:
        """How many results any of the commands said that it saved, by their kind."""
        return sum((run.reported for run in self.commands), Counter())


Disturbance = Callable[[Moment], bool]


def kill(role: str, *numbers: signal.Signals) -> Disturbance:
    """Send signals to processes; whether they reached any."""

    def disturb(moment: Moment) -> bool:
        run = moment.start()
        moment.wait_at_random(run)
        reached = [] if run.ended else run.send(role, numbers[0])
        for number in numbers[1:]:
            time.sleep(moment.draw.uniform(0.02, 1.0))
            run.send(role, number)
        moment.finish()
        return bool(reached)

    return disturb


def two_at_once(moment: Moment) -> bool:
    """Start the same command twice, the second one a little later."""
    first = moment.start()
    if moment.draw.random() < 0.5:
        moment.wait_at_random(first)
    moment.start()
    moment.finish()
    moment.problems += [f"one ended with {run.process.returncode}" for run in moment.commands if run.process.returncode]
    return True


def report_and_prune(moment: Moment) -> bool:
    """Look at the store and tidy it up all the while."""
    run = moment.start()
    done = 0
    while not run.ended:
        for command in (("report", moment.work.spec), ("runs", "prune", "--yes"), ("runs", "list")):
            ran = run_harness(moment.inputs, *command, "--runs", str(moment.runs))
            done += 1
            if ran.returncode not in (0, 2) or "Traceback" in ran.stderr:
                moment.problems.append(f"{' '.join(command)} ended with {ran.returncode}: {ran.stderr[-2000:]}")
        time.sleep(moment.draw.uniform(0, 0.2))
    moment.finish()
    return done > 1


def limited(name: int, sizes: tuple[int, int]) -> Disturbance:
    """Run it with a limit that the system sets to each process."""

    def disturb(moment: Moment) -> bool:
        size = round(sizes[0] * (sizes[1] / sizes[0]) ** moment.draw.random())
        moment.start(before=lambda: resource.setrlimit(name, (size, size)))
        moment.finish()
        return True

    return disturb


def full_disk(moment: Moment) -> bool:
    """Run it on a disk that is soon full, on which there is room afterwards."""
    size = round(DISK[0] * (DISK[1] / DISK[0]) ** moment.draw.random()) + _size(moment.runs)
    kept = moment.runs.with_name("kept")
    if moment.runs.exists():
        moment.runs.rename(kept)
    with small_disk(moment.runs, size) as mounted:
        if not mounted:
            return limited(resource.RLIMIT_FSIZE, FILE)(moment)
        if kept.exists():
            shutil.copytree(kept, moment.runs, dirs_exist_ok=True)
        moment.start()
        moment.finish()
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(moment.runs, kept)
    shutil.rmtree(moment.runs, ignore_errors=True)
    kept.rename(moment.runs)
    return True


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a disk in memory, if this user may; yield whether it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def clock_back(moment: Moment) -> bool:
    """Set the clock back by an hour while it works."""
    folder = moment.inputs / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    moment.start(PATH_FIRST=str(folder), CLOCK_AFTER=f"{moment.draw.uniform(0, 4 + moment.span):.2f}")
    moment.finish()
    return True


def _size(folder: Path) -> int:
    return sum(4096 + path.stat().st_size for path in folder.rglob("*"))


KILL, TERM, INT, STOP, CONT = (getattr(signal, f"SIG{name}") for name in ("KILL", "TERM", "INT", "STOP", "CONT"))

DISTURBANCES: dict[str, Disturbance] = {
    **{f"SIGKILL {role}": kill(role, KILL) for role in ("group", "parent", "worker", "server", "loader")},
    **{f"SIGTERM {role}": kill(role, TERM) for role in ("group", "parent", "worker", "server")},
    "SIGINT group": kill("group", INT),
    "SIGINT twice": kill("group", INT, INT),
    **{f"SIGSTOP, SIGCONT {role}": kill(role, STOP, CONT) for role in ("group", "parent", "worker", "server")},
    "two at once": two_at_once,
    "report and prune": report_and_prune,
    "full disk": full_disk,
    "files of limited size": limited(resource.RLIMIT_FSIZE, FILE),
    "limited memory": limited(resource.RLIMIT_AS, MEMORY),
    "clock set back": clock_back,
}
