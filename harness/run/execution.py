"""`Plan` -> `ExecutionOutcome`: missing jobs are run, on this machine or on a cluster, and results selected."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.plan.plan import Plan
from harness.run.budget import Budget
from harness.run.cluster import Controller, Ledger
from harness.run.forecast import Forecast
from harness.run.launch import LocalLauncher
from harness.run.launch.slurm import Settings, Slurm
from harness.run.messages import Inputs
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner, inspect_inputs
from harness.run.target import ExecutionTarget, resolve_target
from harness.store.result import Result
from harness.store.select import Elsewhere, select_results
from harness.store.store import Store

INTERRUPTED = "interrupted before it was measured; what is finished is kept, and the same command goes on from here"


@dataclass(frozen=True, kw_only=True)
class ExecutionOutcome:
    """The outcome of running a plan.

    In `plan`, cells are blocked whose weights do not exist or which an interruption left unmeasured.  `results` has
    the result that counts for each job by its key, `elsewhere` those that do not, `submitted` a sentence about jobs
    that a cluster runs later.
    """

    plan: Plan
    results: Mapping[str, Result]
    runner: Runner
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    interrupted: bool = False
    submitted: str = ""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where jobs go that this machine does not run; `detach` returns when they are submitted."""

    settings: Settings
    workers: int | None = None
    detach: bool = False


def make_runner(  # noqa: PLR0913
    plan: Plan,
    store: Store,
    target: ExecutionTarget,
    *,
    inputs: Inputs,
    observer: ProgressObserver,
    seconds: float | None = None,
    quick: bool = False,
) -> Runner:
    """Make what runs a plan on a target, within a budget of so many seconds if there is one, or `quick`."""
    budget = Budget.of(seconds, plan, Forecast.of(plan, store, target.machine)) if seconds else None
    launcher = LocalLauncher(announce=observer.waits)
    return Runner(
        store=store, launcher=launcher, target=target, observer=observer, inputs=inputs, budget=budget, quick=quick
    )


def execute(plan: Plan, runner: Runner, cluster: Cluster | None = None, *, rerun: bool = False) -> ExecutionOutcome:
    """Run what is missing, on a cluster or on this machine.  Ctrl-C ends it, with the results that there are.

    Raises `HarnessError` for images or models that are not what they should be.
    """
    requested, submitted, interrupted = plan.jobs, "", False
    try:
        with runner.observer:
            plan, inventory = inspect_inputs(runner.target.fit(plan), runner.launcher, runner.inputs)
            runner = replace(runner, inventory=inventory)
            if cluster is None:
                runner.run(plan, rerun=rerun)
            else:
                controller = Controller(
                    runner=runner, slurm=Slurm(), settings=cluster.settings, workers=cluster.workers
                )
                submitted = controller.run(plan, rerun=rerun, detach=cluster.detach)
    except KeyboardInterrupt:
        interrupted = True
    if cluster is not None and cluster.detach and submitted:
        return ExecutionOutcome(plan=plan, results={}, runner=runner, submitted=submitted)
    if cluster is not None:
        # Now it is known which machine is behind the partition.
        runner = replace(runner, target=cluster_target(cluster.settings, runner.store.root))
    selection = select_results(plan, runner.store, runner.target.machine)
    results = {**runner.with_current_inputs(selection.results, requested), **runner.results}
    if runner.budget is not None:
        reason = "left out for want of time; the same command goes on with it"
        plan = plan.block({job.key: reason for job in runner.budget.left_out if job.key not in results})
    if interrupted:
        plan = plan.block({job.key: INTERRUPTED for job in plan.jobs if job.key not in results})
    return ExecutionOutcome(
        plan=plan, results=results, runner=runner, elsewhere=selection.elsewhere, interrupted=interrupted
    )


def cluster_target(settings: Settings, runs: Path) -> ExecutionTarget:
    """Describe the nodes that settings lead to: as they were when a job last ran there, else this machine."""
    here, node = resolve_target("cpu"), Ledger(runs=runs).machine_of(settings.node_kind)
    return replace(here, machine=node[0], software=node[1]) if node else here
