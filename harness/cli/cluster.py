"""`--launcher slurm` and its settings, `harness status` and `harness cancel`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.errors import HarnessError
from harness.kinds import parse_memory
from harness.launch.slurm import Settings, Slurm

if TYPE_CHECKING:
    from harness.cluster import Standing
    from harness.run import Site

OK, SOME_FAILED = 0, 3


def settings_of(told: dict[str, Any]) -> Settings:
    """Make what a cluster is told of what the command line told."""
    memory = told["job_memory"]
    gpus = told["gpus"]
    if gpus is None:
        gpus = 1 if str(told["device"]).startswith("cuda") else 0
    if told["device"] == "cpu" and gpus:
        raise HarnessError(f"--device cpu --gpus {gpus}: contradict each other; leave one out")
    return Settings(
        partition=told["partition"],
        account=told["account"],
        qos=told["qos"],
        constraint=told["constraint"],
        container=told["container"],
        hours=told["hours"],
        gpus=gpus,
        nodes=told["nodes"],
        cpus=told["cpus"],
        memory=None if memory is None else parse_memory(memory),
        setup=told["setup"],
        extra=told["sbatch"],
        side_by_side=told["jobs"],
    )


def site_of_nodes(settings: Settings, runs: Path) -> "Site":
    """Describe the nodes that settings lead to: as they were when a job last ran there, else this machine."""
    from harness.cluster import Ledger
    from harness.cluster.controller import place_of
    from harness.run import site_of

    here = site_of("cpu")
    seen = Ledger(runs=runs).machine_of(place_of(settings))
    return here if seen is None else replace(here, machine=seen[0], software=seen[1])


@click.command()
@options.runs
@click.option("-v", "--verbose", is_flag=True, help="Show each job that is done, too.")
def status(runs: Path, *, verbose: bool) -> int:
    """Show how the jobs on the cluster stand: pending, running, done, or failed with the reason and the log."""
    from harness.cluster import Ledger, State, standings

    newest: dict[str, Standing] = {}
    for one in standings(Ledger(runs=runs), Slurm()):
        for job in one.jobs:
            newest[job.key] = one  # what was submitted later counts
    lines, counts = [], dict.fromkeys(State, 0)
    for key, one in newest.items():
        state, why = _state_of(one, key)
        counts[state] += 1
        if state is State.DONE and not verbose:
            continue
        lines.append(_line(one, key, state, why, Ledger(runs=runs)))
    if not newest:
        click.echo(f"{runs}/: nothing was submitted from here")
        return OK
    click.echo("\n".join(line for state in State for number, line in lines if number is state) or "", nl=bool(lines))
    click.echo(", ".join(f"{count} {state.value}" for state, count in counts.items() if count))
    return SOME_FAILED if counts[State.FAILED] or counts[State.LOST] else OK


def _state_of(one: "Standing", key: str) -> "tuple[Any, str]":
    """Say how one job of a task stands: it may be done while others of the task are not."""
    from harness.cluster import State

    mark = next((mark for mark in one.marks if mark.key == key and not mark.unmet), None)
    if mark is not None:
        return (State.FAILED, mark.error) if mark.error else (State.DONE, "")
    return one.state, one.why


def _line(one: "Standing", key: str, state: Any, why: str, ledger: Any) -> tuple[Any, str]:  # noqa: ANN401
    from harness.cluster import State

    job = next(job for job in one.jobs if job.key == key)
    place = f" on {one.node}" if one.node and state is State.RUNNING else ""
    parts = [f"{state.value:<9} {one.number:<10} {job}{place}"]
    if state is State.RUNNING:
        told = ledger.progress(one.array, one.index)
        if told.get("key") == key:
            total = f", {told['done']:,} of {told['total']:,} images" if told.get("total") else ""
            parts.append(f"{told['phase']}{total}")
    elif why:
        parts.append(why)
    text = ": ".join(parts)
    if state in (State.FAILED, State.LOST):
        text += f"\n{'':<21}log {one.log}"
    return state, text


@click.command()
@options.runs
def cancel(runs: Path) -> int:
    """End what was submitted from a runs folder and is not done, and nothing else."""
    from harness.cluster import Ledger, standings

    ledger, slurm = Ledger(runs=runs), Slurm()
    with ledger.locked():
        ours = [one for one in standings(ledger, slurm, locked=True) if one.state.open]
        for array in {one.array.name: one.array for one in ours}.values():
            ledger.keep(replace(array, cancelled=True))
        slurm.cancel([one.number for one in ours])
    click.echo(f"{sum(len(one.left) for one in ours)} jobs cancelled; what is done is kept")
    return OK
