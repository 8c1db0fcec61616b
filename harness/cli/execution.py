"""The parameters of a command -> what runs a plan, on this machine or on a cluster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cli.cluster import cluster_settings
from harness.cli.console import warn
from harness.cli.progress import make_observer
from harness.errors import HarnessError
from harness.machine import usable_cores
from harness.plan.naming import job_namer
from harness.plan.plan import Plan
from harness.run.execution import Cluster, cluster_target, make_runner
from harness.run.forecast import Forecast
from harness.run.launch import LocalLauncher
from harness.run.messages import Inputs
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget, device_warnings, resolve_target
from harness.store.store import Store


def prepare(plan: Plan, runs: Path, params: Mapping[str, Any]) -> tuple[Runner, Cluster | None]:
    """Make the runner of a plan from the parameters of a command, with the cluster if it is to run there.

    Raises `HarnessError` for a device that does not exist and for options of a cluster without a cluster.
    """
    cores, settings, workers = usable_cores(), cluster_settings(params), params["workers"]
    if params["budget"] and (settings is not None or params["train"] or params["retrain"]):
        other = "--launcher slurm, which has --hours" if settings is not None else "--train"
        raise HarnessError(f"--budget is for measurements on this machine and does not go with {other}; leave one out")
    if params["quick"] and (settings is not None or params["budget"]):
        other = "--launcher slurm" if settings is not None else "--budget"
        raise HarnessError(f"--quick compares throughputs in their order and does not go with {other}; leave one out")
    if settings is None:
        target = local_target(params["device"])
        target = target.with_workers(scale=params["scale"], jobs=params["jobs"], cores=cores, loaders=workers)
    else:
        target = cluster_target(settings, runs)
    inputs = Inputs(
        data=params["data"],
        weights=params["weights"],
        workers=cores if workers is None else workers,
        skip_unreadable=params["skip_unreadable"],
    )
    store, parallel = Store(runs), len(target.workers)
    # Nothing here tells how long the queue of a cluster is.
    forecast = Forecast.of(plan, store, target.machine, parallel=parallel) if settings is None else None
    observer = make_observer(quiet=params["quiet"], named=job_namer(plan), forecast=forecast)
    runner = make_runner(
        plan, store, target, inputs=inputs, observer=observer, seconds=params["budget"], quick=params["quick"]
    )
    cluster = Cluster(settings=settings, workers=workers, detach=params["detach"]) if settings else None
    return runner, cluster


def local_target(device: str) -> ExecutionTarget:
    """Return the device of this machine that `--device` names, with a warning for what is odd about it."""
    target = resolve_target(device)
    warn(*device_warnings(device))
    return target


@contextmanager
def local_runner(store: Store, device: str, *, quiet: bool) -> Iterator[Runner]:
    """Prepare a store, and yield a runner on this machine for jobs that need no inputs."""
    store.prepare()
    target = local_target(device)
    with make_observer(quiet=quiet, forecast=Forecast(store=store, machine=target.machine)) as observer:
        launcher = LocalLauncher(announce=observer.waits)
        yield Runner(store=store, launcher=launcher, target=target, observer=observer)
