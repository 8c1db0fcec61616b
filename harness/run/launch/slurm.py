"""Slurm: arrays are submitted through submitit, and queried by Slurm's own tools.

Jobs are never queried one by one: one `squeue` lists all that wait or run, one `sacct` all that have ended.
"""

import contextlib
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.machine.user import user_id

# Seconds from the signal that announces a stop to the stop, in which a training writes its checkpoint; at most this
# share of a short time limit.
NOTICE, SHARE = 120, 0.25

# Seconds that Slurm's tools may take to answer; a busy controller answers late.
PATIENCE = 120

# Slurm's states of a job that will run, or is running; after an accident, a job may be about to be requeued.
PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT", "PREEMPTED"}

# The reasons of pending jobs that will never start as they were submitted; many clusters accept such jobs.
_NEVER_STARTS = {
    "PartitionConfig": "no node there has these resources; ask for less with --cpus, --gpus or --job-memory",
    "BadConstraints": "no node has these resources; check --constraint",
    "PartitionTimeLimit": "the partition allows less time; ask for less with --hours",
    "QOSMaxWallDurationPerJobLimit": "the quality of service allows less time; ask for less with --hours",
    "AssocMaxWallDurationPerJobLimit": "the account allows less time; ask for less with --hours",
    "PartitionNodeLimit": "the partition allows fewer nodes; ask for less with --nodes",
    "InvalidAccount": "the cluster has no such account; check --account",
    "InvalidQOS": "the cluster has no such quality of service; check --qos",
}

_FULL = re.compile(r"MaxSubmit|temporarily unable to accept|Resource temporarily", re.IGNORECASE)


class QueueFull(HarnessError):  # noqa: N818 -- the state, not a mistake
    """Slurm accepts no more jobs of this user for now."""


class NoAnswer(HarnessError):  # noqa: N818 -- the state, not a mistake
    """One of Slurm's tools failed or timed out."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's settings of a cluster; None leaves one to the cluster, or to the estimate for each kind of job.

    `hours` is the time limit, at which a job is stopped and requeued; `gpus` and `job_memory`, in bytes, are those of
    each node; `jobs` bounds the tasks of an array that run at once, `sbatch` has other options of sbatch.
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
    job_memory: int | None = None
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str] = field(default_factory=dict)
    jobs: int | None = None

    @property
    def node_kind(self) -> str:
        """A name for the kind of node that these settings lead to, which decides how fast a job is."""
        deciding = (self.partition, self.constraint, self.gpus, self.cpus, sorted(self.sbatch.items()))
        return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of a task: minutes, CPU cores (0: the cluster's default), bytes of memory (0: the whole node's)."""

    minutes: int
    cpus: int
    gpus: int
    nodes: int
    memory: int
    exclusive: bool = False

    @property
    def notice(self) -> int:
        """Seconds from the signal to the stop."""
        return round(min(NOTICE, SHARE * 60 * self.minutes))


@dataclass(frozen=True, kw_only=True)
class SlurmRecord:
    """Slurm's record of a task: its state, the reason why it is pending or its exit code, and its node."""

    state: str
    reason: str = ""
    node: str = ""

    @property
    def never_starts(self) -> str:
        """Why a pending task will never start; empty if it may."""
        hint = _NEVER_STARTS.get(self.reason, "") if self.is_pending else ""
        return f"it will never start ({self.reason}): {hint}, after `harness cancel`" if hint else ""

    @property
    def is_pending(self) -> bool:
        """Whether it has yet to run."""
        return self.state in PENDING

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self.state in RUNNING


def run_tool(command: Sequence[str]) -> str:
    """Run one of Slurm's tools and return its output.

    Raises `HarnessError` with the tool's message if it fails.
    """
    try:
        process = subprocess.run(  # noqa: S603 -- one of Slurm's tools
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except FileNotFoundError:
        raise HarnessError(
            f"--launcher slurm: {command[0]} is not on this machine; run on a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"Slurm does not answer: {command[0]} took more than {PATIENCE} s; try again later") from None
    if process.returncode:
        raise NoAnswer(f"Slurm: {_joined(process.stderr) or f'{command[0]} failed'}")
    return process.stdout


def _joined(text: str) -> str:
    """Return the messages of a tool in one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))


def _records(output: str) -> dict[str, SlurmRecord]:
    """Return the tasks in the output of a tool: number, state, reason and node of each."""
    records = {}
    for line in output.splitlines():
        number, state, reason, node = [*line.split("|"), "", "", ""][:4]
        # "CANCELLED by 1000" is CANCELLED.
        state, reason = (state.split() or ["UNKNOWN"])[0], "" if reason == "None" else reason
        records[number] = SlurmRecord(state=state, reason=reason, node=node)
    return records


class Slurm:
    """A cluster, through Slurm's tools."""

    def __init__(self, run: Callable[[Sequence[str]], str] = run_tool) -> None:
        self._run = run

    def check(self, settings: Settings) -> None:
        """Raise `HarnessError` for a partition that does not exist, and on a machine without Slurm."""
        if self._run is run_tool and shutil.which("sbatch") is None:
            raise HarnessError(
                "--launcher slurm: sbatch is not on this machine; run on a login node of the cluster, or without "
                "--launcher slurm"
            )
        partitions = list(dict.fromkeys(self._run(["sinfo", "-h", "-o", "%R"]).split()))
        for name in (settings.partition or "").split(","):
            if name and name not in partitions:
                raise HarnessError(
                    f"--partition {name}: this cluster has no such partition; it has {', '.join(partitions)}"
                )

    def longest_array(self) -> int:
        """Return how many tasks an array may have."""
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", self._run(["scontrol", "show", "config"]))
        # The number bounds the index, which starts at 0.
        return max(1, int(match[1]) - 1) if match else 1000

    def submit(  # noqa: PLR0913 -- all that an array consists of
        self,
        tasks: Sequence[Callable[[], Any]],
        *,
        folder: Path,
        resources: Resources,
        settings: Settings,
        after: Iterable[str] = (),
        timeouts: int = 3,
    ) -> str:
        """Submit tasks as one array called as its folder; return its id.

        It starts when the tasks `after` have ended, failed or not.

        Raises `QueueFull` if the user has too many jobs for now, and `HarnessError` if Slurm refuses the array.
        """
        try:
            import submitit  # noqa: PLC0415 -- only where there is a Slurm
        except ImportError:
            raise HarnessError(
                "--launcher slurm: submitit is not installed; run `pip install 'deit-harness[slurm]'`"
            ) from None
        python = "python3" if settings.container else None  # a container has its own interpreter
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=timeouts, python=python)
        executor.update_parameters(**_parameters(folder.name, resources, settings, list(after)))
        try:
            # submitit would print the message of sbatch, which is in our own sentence.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except submitit.core.utils.FailedJobError as error:
            message = _joined(str(error).partition("stderr:")[2] or str(error))
            if _FULL.search(message):
                raise QueueFull(message) from error
            raise HarnessError(_refusal(message)) from error
        return str(jobs[0].job_id).partition("_")[0]

    def queued(self, ids: Iterable[str], name: str = "") -> dict[str, SlurmRecord]:
        """Return the pending and running tasks of arrays, or of the jobs called `name`, by `ID` or `ID_INDEX`."""
        requested = set(ids)
        command = ["squeue", "-h", "-r", "-u", user_id(), "-o", "%i|%T|%r|%N"]
        records = _records(self._run([*command, *(["-n", name] if name else [])]))
        return {number: record for number, record in records.items() if name or number.partition("_")[0] in requested}

    def ended(self, ids: Iterable[str]) -> dict[str, SlurmRecord]:
        """Return the tasks of arrays that the accounting has, by `ID` or `ID_INDEX`; none if there is no accounting."""
        requested = sorted(set(ids))
        if not requested:
            return {}
        command = ["sacct", "-n", "-P", "-X", "-j", ",".join(requested), "-o", "JobID,State,ExitCode,NodeList"]
        try:
            records = _records(self._run(command))
        except HarnessError:
            return {}
        return {number: record for number, record in records.items() if "." not in number and "[" not in number}

    def cancel(self, numbers: Sequence[str]) -> None:
        """Cancel tasks or whole arrays."""
        for first in range(0, len(numbers), 500):  # the length of a command line is limited
            self._run(["scancel", *numbers[first : first + 500]])


def _parameters(name: str, resources: Resources, settings: Settings, after: list[str]) -> dict[str, Any]:
    """Return the parameters of an array by their names in submitit."""
    whole_node = {} if resources.memory else {"mem": "0"}
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        **{name: getattr(settings, name) for name in ("partition", "account", "qos", "constraint")},
        "cpus_per_task": resources.cpus or None,
        "gpus_per_node": resources.gpus or None,
        "mem": f"{math.ceil(resources.memory / 2**20)}M" if resources.memory else None,
        "exclusive": resources.exclusive or None,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        "signal_delay_s": resources.notice,
        "array_parallelism": settings.jobs or 256,
        "setup": list(settings.setup) or None,
        "wckey": None,  # submitit's own is refused where these are accounted
        "srun_args": [f"--container-image={settings.container}", f"--container-mounts={Path.cwd()}"]
        if settings.container
        else None,
        "additional_parameters": {"requeue": True, **settings.sbatch, **whole_node},
    }
    return {name: value for name, value in parameters.items() if value is not None or name == "wckey"}


def _refusal(message: str) -> str:
    """Return the sentence for what sbatch complains of."""
    options = ("partition", "account", "qos", "constraint")
    lower = message.lower()
    if "node configuration" in lower or "memory specification" in lower or "cpu count" in lower:
        advice = "ask for less with --gpus, --cpus, --job-memory or --nodes"
    elif "time limit" in lower:
        advice = "ask for less with --hours"
    elif "unrecognized option" in lower:
        advice = "check --sbatch"
    else:
        named = [option for option in options if option in lower] or options[:3]
        advice = f"check --{', --'.join(named)}"
    return f"Slurm refused the jobs: {message}; {advice}"
