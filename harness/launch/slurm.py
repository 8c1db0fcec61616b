"""Slurm: arrays are submitted through submitit, and all jobs are asked about at once.  The only home of submitit.

No job is ever asked about alone: one `squeue` tells of all that wait or run, one `sacct` of all that ended.
"""

import contextlib
import getpass
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

# Seconds between the signal that asks to stop and the end, in which a training writes its checkpoint, and the share of
# a short limit that this may be.
NOTICE, SHARE = 120, 0.25

# Seconds that Slurm's own tools may take to answer; a busy controller answers late.
PATIENCE = 120

# What Slurm calls a job that will run, or runs on; what comes after an accident may still be on its way back.
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT", "PREEMPTED"}

# Why a job waits that will never begin as it was submitted: many clusters take it all the same.
_NEVER = {
    "PartitionConfig": "no node there has what it asks for; ask for less with --cpus, --gpus or --job-memory",
    "BadConstraints": "no node has what it asks for; check --constraint",
    "PartitionTimeLimit": "the partition allows less time; ask for less with --hours",
    "QOSMaxWallDurationPerJobLimit": "the quality of service allows less time; ask for less with --hours",
    "AssocMaxWallDurationPerJobLimit": "the account allows less time; ask for less with --hours",
    "PartitionNodeLimit": "the partition allows fewer nodes; ask for less with --nodes",
    "InvalidAccount": "the cluster knows no such account; check --account",
    "InvalidQOS": "the cluster knows no such quality of service; check --qos",
}

_FULL = re.compile(r"MaxSubmit|temporarily unable to accept|Resource temporarily", re.IGNORECASE)


class QueueFull(HarnessError):  # noqa: N818 -- reads as what is the matter
    """Slurm takes no more jobs of this user for now."""


class NoAnswer(HarnessError):  # noqa: N818 -- reads as what is the matter
    """One of Slurm's tools failed, or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user says of a cluster; None leaves it to the cluster, or to the estimate of each kind of job.

    `hours` bounds what a job may take before it is stopped, kept and requeued; `gpus` are those of each node; `memory`
    is bytes of each node; `side_by_side` bounds the tasks of an array that run at once.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    container: str | None = None
    hours: float | None = None
    gpus: int = 0
    nodes: int = 1
    cpus: int | None = None
    memory: int | None = None
    setup: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    side_by_side: int | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """Tell what decides on which kind of node a job runs, and so how fast it is."""
        return (self.partition, self.constraint, self.gpus, self.cpus, sorted(self.extra.items()))


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task asks for: minutes, processors (0: as the cluster has it), bytes of memory (0: all of the node)."""

    minutes: int
    cpus: int
    gpus: int
    nodes: int
    memory: int
    alone: bool = False

    @property
    def notice(self) -> int:
        """Give the seconds from the signal to the end."""
        return round(min(NOTICE, SHARE * 60 * self.minutes))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What Slurm says of a task: its state in Slurm's own word, why it waits or how it ended, and where it runs."""

    state: str
    why: str = ""
    node: str = ""

    @property
    def never(self) -> str:
        """Say why it will never begin; empty if it may."""
        hint = _NEVER.get(self.why, "") if self.waits else ""
        return f"it will never begin ({self.why}): {hint}, after `harness cancel`" if hint else ""

    @property
    def waits(self) -> bool:
        """Whether it is to run."""
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self.state in RUNNING


Tool = Callable[[Sequence[str]], str]


def tool(command: Sequence[str]) -> str:
    """Run one of Slurm's tools and give what it prints.

    Raises `HarnessError` with its own sentence if it fails.
    """
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    except FileNotFoundError:
        raise HarnessError(
            f"--launcher slurm: {command[0]} is not on this machine; run on a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"Slurm does not answer: {command[0]} took more than {PATIENCE} s; try again later") from None
    if ran.returncode:
        raise NoAnswer(f"Slurm: {_said(ran.stderr) or f'{command[0]} failed'}")
    return ran.stdout


def _said(text: str) -> str:
    """Put what a tool complains of into one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))


class Slurm:
    """A cluster, as its tools show it."""

    def __init__(self, ask: Tool = tool) -> None:
        self._ask = ask

    def check(self, settings: Settings) -> None:
        """Refuse a partition that is not there before anything is submitted.

        Raises `HarnessError`, also where there is no Slurm.
        """
        if self._ask is tool and shutil.which("sbatch") is None:
            raise HarnessError(
                "--launcher slurm: sbatch is not on this machine; run on a login node of the cluster, or without "
                "--launcher slurm"
            )
        there = list(dict.fromkeys(self._ask(["sinfo", "-h", "-o", "%R"]).split()))
        for name in (settings.partition or "").split(","):
            if name and name not in there:
                raise HarnessError(f"--partition {name}: this cluster has no such partition; it has {', '.join(there)}")

    def longest_array(self) -> int:
        """Give how many tasks an array may have."""
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", self._ask(["scontrol", "show", "config"]))
        # The number bounds the index, which begins at 0.
        return max(1, int(found[1]) - 1) if found else 1000

    def submit(  # noqa: PLR0913 -- what an array is made of
        self,
        tasks: Sequence[Callable[[], Any]],
        *,
        name: str,
        folder: Path,
        resources: Resources,
        settings: Settings,
        after: Iterable[str] = (),
        timeouts: int = 3,
    ) -> str:
        """Submit tasks as one array that begins when the tasks `after` have ended, well or not; give its id.

        Raises `QueueFull` if it is to be tried again later, and `HarnessError` if it never will be taken.
        """
        submitit = _submitit()
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=timeouts, python=_python(settings))
        executor.update_parameters(**_parameters(name, resources, settings, list(after)))
        try:
            # submitit would print what sbatch complains of, which is told in our own sentence.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except submitit.core.utils.FailedJobError as error:
            said = _said(str(error).partition("stderr:")[2] or str(error))
            if _FULL.search(said):
                raise QueueFull(said) from error
            raise HarnessError(_refused(said)) from error
        return str(jobs[0].job_id).partition("_")[0]

    def look(self, ids: Iterable[str], name: str = "") -> dict[str, Seen]:
        """Say how tasks stand that wait or run, by `ID` or `ID_INDEX`; `name` alone limits it to jobs of this name."""
        wanted = set(ids)
        command = ["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%r|%N"]
        lines = self._ask([*command, *(["-n", name] if name else [])]).splitlines()
        found = {}
        for line in lines:
            number, state, why, node = [*line.split("|"), "", "", ""][:4]
            if name or number.partition("_")[0] in wanted:
                found[number] = Seen(state=state, why="" if why == "None" else why, node=node)
        return found

    def ended(self, ids: Iterable[str]) -> dict[str, Seen]:
        """Say how tasks ended, by `ID` or `ID_INDEX`; nothing of those that the accounting does not know (yet).

        A cluster without accounting knows none.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        command = ["sacct", "-n", "-P", "-X", "-j", ",".join(wanted), "-o", "JobID,State,ExitCode,NodeList"]
        try:
            lines = self._ask(command).splitlines()
        except HarnessError:
            return {}
        found = {}
        for line in lines:
            number, state, code, node = [*line.split("|"), "", "", ""][:4]
            if number and "." not in number and "[" not in number:
                found[number] = Seen(state=state.split()[0] if state else "UNKNOWN", why=code, node=node)
        return found

    def cancel(self, numbers: Sequence[str]) -> None:
        """End tasks or whole arrays."""
        for first in range(0, len(numbers), 500):  # a command line is only so long
            self._ask(["scancel", *numbers[first : first + 500]])


def _submitit() -> Any:  # noqa: ANN401 -- a module
    try:
        import submitit  # noqa: PLC0415 -- only where there is a Slurm
    except ImportError:
        raise HarnessError(
            "--launcher slurm: submitit is not installed; run `pip install 'deit-harness[slurm]'`"
        ) from None
    return submitit


def _python(settings: Settings) -> str | None:
    """Name the interpreter: in a container its own, else this one."""
    return "python3" if settings.container else None


def _parameters(name: str, resources: Resources, settings: Settings, after: list[str]) -> dict[str, Any]:
    """Write what an array asks for in the words of submitit."""
    extra: dict[str, Any] = {"requeue": True, **settings.extra}
    if not resources.memory:
        extra["mem"] = "0"
    found: dict[str, Any] = {
        "job_name": name,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "cpus_per_task": resources.cpus or None,
        "gpus_per_node": resources.gpus or None,
        "mem": f"{math.ceil(resources.memory / 2**20)}M" if resources.memory else None,
        "exclusive": resources.alone or None,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        "signal_delay_s": resources.notice,
        "array_parallelism": settings.side_by_side or 256,
        "setup": list(settings.setup) or None,
        "wckey": None,  # submitit's own is refused where these are accounted
        "srun_args": [f"--container-image={settings.container}", f"--container-mounts={Path.cwd()}"]
        if settings.container
        else None,
        "additional_parameters": extra,
    }
    return {key: value for key, value in found.items() if value is not None or key == "wckey"}


def _refused(said: str) -> str:
    hints = {"partition": "--partition", "account": "--account", "qos": "--qos", "constraint": "--constraint"}
    lower = said.lower()
    if "node configuration" in lower or "memory specification" in lower or "cpu count" in lower:
        return f"Slurm refused the jobs: {said}; ask for less with --gpus, --cpus, --job-memory or --nodes"
    if "time limit" in lower:
        return f"Slurm refused the jobs: {said}; ask for less with --hours"
    if "unrecognized option" in lower:
        return f"Slurm refused the jobs: {said}; check --sbatch"
    named = [option for word, option in hints.items() if word in lower] or ["--partition", "--account", "--qos"]
    return f"Slurm refused the jobs: {said}; check {', '.join(named)}"
