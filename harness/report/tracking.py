"""`Result`s -> MLflow: a run of ours is a run of theirs, in a folder or a database on this machine."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness.cleaning import mlflow_name, one_line
from harness.errors import HarnessError
from harness.store.result import Result, to_json

EXPERIMENT = "harness"
ID = "harness.run"  # the tag by which a run is known that was exported before

# What MLflow takes at once, and how long a value of a parameter may be in every version.
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 250


def export_to_mlflow(results: Iterable[Result], path: Path) -> int:
    """Write runs that are not there yet, and return their number.

    `path` is a folder, MLflow's file store, or a `.db` file, its SQLite database, whose files are next to it.  Raises
    `HarnessError` where MLflow is not installed or refuses the path.
    """
    try:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 -- an extra
        from mlflow.tracking import MlflowClient  # noqa: PLC0415
    except ImportError as error:
        raise HarnessError(
            f"-o {path}: MLflow is not installed; `pip install 'deit-harness[mlflow]'`, or write a .csv"
        ) from error
    # MLflow 3 wants this variable set for a folder; earlier versions do not read it.
    with patch.dict(os.environ, MLFLOW_ALLOW_FILE_STORE="true"), _quiet(), _undoing(path, MlflowClient) as unfinished:
        client = MlflowClient(tracking_uri=_uri(path))
        experiment = _experiment(client, path)
        known = _known(client, experiment)
        added = 0
        for result in results:
            for run in known.get(result.id, ()):
                if run.info.status == "RUNNING":  # an export that was killed left it half-written
                    client.delete_run(run.info.run_id)
            if any(run.info.status != "RUNNING" for run in known.get(result.id, ())):
                continue
            began = int(result.started.timestamp() * 1000)
            name, tags = one_line(str(result.job)), {ID: result.id}
            run = client.create_run(experiment, start_time=began, run_name=name, tags=tags).info.run_id
            unfinished.append(run)
            metrics = [Metric(mlflow_name(name), value, began, step) for name, value, step in _metrics(result)]
            parameters = [Param(mlflow_name(name), value) for name, value in _parameters(result).items()]
            for start in range(0, len(metrics), MOST_METRICS):
                client.log_batch(run, metrics=metrics[start : start + MOST_METRICS])
            for start in range(0, len(parameters), MOST_PARAMETERS):
                client.log_batch(run, params=parameters[start : start + MOST_PARAMETERS])
            client.log_text(run, to_json(result), "result.json")
            client.log_batch(run, tags=[RunTag(mlflow_name(name), value) for name, value in _tags(result).items()])
            ended = result.started + timedelta(seconds=result.seconds)
            # Last: it tells a whole run from a half-written one.
            client.set_terminated(run, "FAILED" if result.error else "FINISHED", int(ended.timestamp() * 1000))
            unfinished.clear()
            added += 1
    return added


@contextmanager
def _undoing(path: Path, client_of: Any) -> Iterator[list[str]]:  # noqa: ANN401 -- no types where it is not installed
    """Leave MLflow's store as it was but for whole runs, if the block fails, as on a full disk.

    What is yielded lists the runs that are being written.  Raises `HarnessError` for whatever MLflow raises.
    """
    files = path.with_suffix(".files")  # next to a database
    new, before, unfinished = [p for p in (path, files) if not p.exists()], set(path.glob("*/*")), list[str]()
    try:
        yield unfinished
    except BaseException as error:
        if path in new:
            for created in new:
                shutil.rmtree(created, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()
        elif path.is_dir():
            for folder in set(path.glob("*/*")) - before:
                # A run whose description is half-written makes MLflow complain for ever.
                if folder.name in unfinished or not _is_readable(client_of(tracking_uri=_uri(path)), folder.name):
                    shutil.rmtree(folder, ignore_errors=True)
        else:
            for run in unfinished:
                with contextlib.suppress(Exception):  # the disk is full: the next export removes it
                    client_of(tracking_uri=_uri(path)).delete_run(run)
        # MLflow passes on what its database raises.
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "alembic"):
            raise
        reason = " ".join(str(error).split()).partition(" [SQL: ")[0]
        raise HarnessError(f"-o {path}: MLflow refuses it: {reason}") from error


def _is_readable(client: Any, run: str) -> bool:  # noqa: ANN401
    with contextlib.suppress(Exception):  # a parser's or a missing key's
        client.get_run(run)
        return True
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from logging the traceback of what it raises."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _uri(path: Path) -> str:
    whole = path.absolute()
    if path.suffix == ".db":
        whole.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{whole}"
    return whole.as_uri()


def _experiment(client: Any, path: Path) -> str:  # noqa: ANN401 -- MLflow has no types where it is not installed
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    files = path.absolute().with_suffix(".files").as_uri() if path.suffix == ".db" else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=files))


def _known(client: Any, experiment: str) -> Mapping[str, Sequence[Any]]:  # noqa: ANN401
    """Return MLflow's runs of each run of ours, by its id."""
    known: dict[str, list[Any]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            if ID in run.data.tags:
                known.setdefault(run.data.tags[ID], []).append(run)
        token = page.token
        if not token:
            return known


def _metrics(result: Result) -> Iterator[tuple[str, float, int]]:
    """Yield each number, the ends of its interval, and its samples as steps."""
    for name, metric in result.metrics.items():
        if isinstance(metric.value, str):
            continue
        yield name, float(metric.value), 0
        ends = {"low": metric.low, "high": metric.high}
        yield from ((f"{name}.{end}", value, 0) for end, value in ends.items() if value is not None)
        yield from ((f"{name}.samples", sample, step) for step, sample in enumerate(metric.samples))
    yield "seconds", result.seconds, 0


def _parameters(result: Result) -> Mapping[str, str]:
    settings = {"kind": result.job.kind, "revision": result.job.revision, **dict(result.job.settings)}
    return {name: str(value)[:LONGEST] for name, value in settings.items()}


def _tags(result: Result) -> Mapping[str, str]:
    return {
        ID: result.id,
        "harness.job": result.job.key,
        "harness.machine": result.machine.label,
        **{f"harness.{name}": version for name, version in result.software.items()},
        **{f"harness.unit.{name}": metric.unit for name, metric in result.metrics.items() if metric.unit},
        **{f"harness.words.{n}": m.value for n, m in result.metrics.items() if isinstance(m.value, str)},
        **({} if result.error is None else {"harness.error": result.error[:LONGEST]}),
    }
