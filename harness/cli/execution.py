"""`Plan` -> `ExecutionOutcome`: missing jobs are run, on this machine or on a cluster, and results selected."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cli.cluster import cluster_settings, cluster_target
from harness.cli.console import warn
from harness.cli.listing import job_namer
from harness.cli.progress import make_observer
from harness.errors import HarnessError
from harness.machine import usable_cores
from harness.plan.plan import Plan
from harness.run.budget import Budget
from harness.run.cluster import Controller
from harness.run.forecast import Forecast
from harness.run.launch import LocalLauncher
from harness.run.launch.slurm import Settings, Slurm
from harness.run.messages import Inputs
from harness.run.runner import Runner, inspect_inputs
from harness.run.target import ExecutionTarget, device_warnings, resolve_target
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


def execute(plan: Plan, runner: Runner, cluster: Settings | None, params: Mapping[str, Any]) -> ExecutionOutcome:
    """Run what is missing, on a cluster or on this machine.  Ctrl-C ends it, with the results that there are.

    Raises `HarnessError` for images or models that are not what they should be.
    """
    requested, submitted, interrupted = plan.jobs, "", False
    try:
        with runner.observer:
            plan, inventory = inspect_inputs(runner.target.fit(plan), runner.launcher, runner.inputs)
            runner = replace(runner, inventory=inventory)
            if cluster is None:
                runner.run(plan, rerun=params["rerun"])
            else:
                controller = Controller(runner=runner, slurm=Slurm(), settings=cluster, workers=params["workers"])
                submitted = controller.run(plan, rerun=params["rerun"], detach=params["detach"])
    except KeyboardInterrupt:
        interrupted = True
    if params["detach"] and submitted:
        return ExecutionOutcome(plan=plan, results={}, runner=runner, submitted=submitted)
    if cluster is not None:
        # Now it is known which machine is behind the partition.
        runner = replace(runner, target=cluster_target(cluster, runner.store.root))
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


def make_runner(plan: Plan, runs: Path, params: Mapping[str, Any]) -> tuple[Runner, Settings | None]:
    """Make the runner of a plan from the parameters of a command, with the settings of a cluster if it is to run there.

    Raises `HarnessError` for a device that does not exist and for options of a cluster without a cluster.
    """
    cores, cluster, workers = usable_cores(), cluster_settings(params), params["workers"]
    if params["budget"] and (cluster is not None or params["train"] or params["retrain"]):
        other = "--launcher slurm, which has --hours" if cluster is not None else "--train"
        raise HarnessError(f"--budget is for measurements on this machine and does not go with {other}; leave one out")
    if params["quick"] and (cluster is not None or params["budget"]):
        other = "--launcher slurm" if cluster is not None else "--budget"
        raise HarnessError(f"--quick compares throughputs in their order and does not go with {other}; leave one out")
    if cluster is None:
        target = resolve_target(params["device"])
        warn(*device_warnings(params["device"]))
        target = target.with_workers(scale=params["scale"], jobs=params["jobs"], cores=cores, loaders=workers)
    else:
        target = cluster_target(cluster, runs)
    inputs = Inputs(
        data=params["data"],
        weights=params["weights"],
        workers=cores if workers is None else workers,
        skip_unreadable=params["skip_unreadable"],
    )
    store, parallel = Store(runs), len(target.workers)
    # Nothing here tells how long the queue of a cluster is.
    forecast = Forecast.of(plan, store, target.machine, parallel=parallel) if cluster is None else None
    observer = make_observer(quiet=params["quiet"], named=job_namer(plan), forecast=forecast)
    launcher = LocalLauncher(announce=observer.waits)
    seconds = params["budget"]
    budget = Budget.of(seconds, plan, Forecast.of(plan, store, target.machine)) if seconds else None
    runner = Runner(
        store=store,
        launcher=launcher,
        target=target,
        observer=observer,
        inputs=inputs,
        budget=budget,
        quick=params["quick"],
    )
    return runner, cluster


def local_target(device: str) -> ExecutionTarget:
    """Return the device of this machine that `--device` names, with a warning for what is odd about it."""
    warn(*device_warnings(device))
    return resolve_target(device)


@contextmanager
def local_runner(store: Store, device: str, *, quiet: bool) -> Iterator[Runner]:
    """Prepare a store, and yield a runner on this machine for jobs that need no inputs."""
    store.prepare()
    target = local_target(device)
    with make_observer(quiet=quiet, forecast=Forecast(store=store, machine=target.machine)) as observer:
        launcher = LocalLauncher(announce=observer.waits)
        yield Runner(store=store, launcher=launcher, target=target, observer=observer)
