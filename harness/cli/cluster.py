"""A Slurm cluster: the settings of `--launcher slurm`, `harness status` and `harness cancel`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from harness.cli.console import ExitCode, echo
from harness.cli.usage import options
from harness.cli.usage.command import OUTPUT, Command
from harness.errors import HarnessError
from harness.plan.job import Job

if TYPE_CHECKING:
    from harness.run.cluster import Ledger, TaskStatus
    from harness.run.launch.slurm import Settings


def cluster_settings(params: Mapping[str, Any]) -> "Settings | None":
    """Return the settings of the cluster to run on; None for this machine.

    Raises `HarnessError` for options that contradict each other or mean nothing without a cluster.
    """
    from harness.run.launch.slurm import Settings

    names = [field.name for field in fields(Settings)]
    if params["launcher"] != "slurm":
        source = click.get_current_context().get_parameter_source
        # Those in harness.toml wait for the cluster; one on the command line was meant.
        given = [name for name in ("detach", *names) if name != "jobs" and source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise HarnessError(f"--{given[0].replace('_', '-')} is about a cluster; add --launcher slurm")
        return None
    device, gpus = str(params["device"]), params["gpus"]
    if gpus is None:
        gpus = 1 if device.startswith("cuda") else 0
    if device == "cpu" and gpus:
        raise HarnessError(f"--device cpu --gpus {gpus}: contradict each other; leave one out")
    return Settings(**{**{name: params[name] for name in names}, "gpus": gpus})


@click.command(
    cls=Command, examples={"harness status -v": "Show every job that was submitted for runs/, finished or not."}
)
@options.runs
@options.option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show finished jobs as well.")
def status(runs: Path, *, verbose: bool) -> int:
    """Show the state of the jobs on the cluster.

    It is pending, running, done, or failed with the reason and the log.
    """
    from harness.run.cluster import Ledger, State, task_statuses
    from harness.run.launch.slurm import Slurm

    ledger = Ledger(runs=runs)
    # Of a job that was submitted several times the last submission counts.
    tasks = {job.key: (job, task) for task in task_statuses(ledger, Slurm()) for job in task.jobs}
    if not tasks:
        echo(f"{runs}/: nothing was submitted from here")
        return ExitCode.OK
    jobs: dict[State, list[str]] = {state: [] for state in State}
    for job, task in tasks.values():
        state, _ = task.state_of(job)
        jobs[state].append(_job_line(job, task, ledger))
    for state, lines in jobs.items():
        if lines and (verbose or state is not State.DONE):
            echo("\n".join(lines))
    echo(", ".join(f"{len(lines)} {state.value}" for state, lines in jobs.items() if lines))
    return ExitCode.SOME_FAILED if jobs[State.FAILED] or jobs[State.LOST] else ExitCode.OK


def _job_line(job: Job, task: "TaskStatus", ledger: "Ledger") -> str:
    from harness.run.cluster import State

    state, reason = task.state_of(job)
    node = f" on {task.node}" if task.node and state is State.RUNNING else ""
    line = f"{state.value:<9} {task.number:<10} {job}{node}"
    if state is State.RUNNING:
        progress = ledger.progress(task.array, task.index)
        if progress.get("key") == job.key:
            total = f", {progress['done']:,} of {progress['total']:,} images" if progress.get("total") else ""
            line += f": {progress['phase']}{total}"
    elif reason:
        line += f": {reason}"
    return line + (f"\n{'':<21}log {task.log}" if state in (State.FAILED, State.LOST) else "")


@click.command(cls=Command, examples={"harness cancel": "Cancel what was submitted for runs/; what is done is kept."})
@options.runs
def cancel(runs: Path) -> int:
    """Cancel the unfinished cluster jobs of a runs folder."""
    from harness.run.cluster import Ledger, task_statuses
    from harness.run.launch.slurm import Slurm

    ledger, slurm = Ledger(runs=runs), Slurm()
    with ledger.locked():
        tasks = [task for task in task_statuses(ledger, slurm, locked=True) if task.state.open]
        for array in {task.array.name: task.array for task in tasks}.values():
            ledger.save(replace(array, cancelled=True))
        slurm.cancel([task.number for task in tasks])
    echo(f"{sum(len(task.unfinished) for task in tasks)} jobs cancelled; what is done is kept")
    return ExitCode.OK
