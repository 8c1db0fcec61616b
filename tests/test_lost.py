"""A training that is killed, or finds the disk full, after its last step loses nothing: at each seam until its end.

Each training is a real child process that ends by SIGKILL, where nothing of Python runs any more.
"""

import csv
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness import atomic
from harness.jobs import train
from harness.jobs.training import run
from harness.jobs.training.checkpoint import Checkpoints, unpack
from harness.jobs.training.step import Step
from harness.jobs.training.trained_weights import find
from harness.jobs.worker import run_batch
from harness.machine import describe
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs
from harness.store.leftovers import find_leftovers
from harness.store.result import Result
from harness.store.store import Store
from tests.fakes import VERSIONS
from tests.trainings import PLAIN, smoke

JOB = smoke(epochs=2, batch_size=320, **PLAIN)
DISK = 64  # bytes of a file that a full disk takes
WRITE_ALL = atomic.write_all


def die(*_arguments: object, **_named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(function: Callable[..., Any]) -> Callable[..., None]:
    def call(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- whatever the function takes
        function(*arguments, **named)
        die()

    return call


def on_a_full_disk(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- whatever the function takes
        resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, resource.RLIM_INFINITY))
        return function(*arguments, **named)

    return call


def do_no_step(*_arguments: object) -> None:
    raise AssertionError("a step of a training that was at its end")


# The seams between the last step and the end, in their order.
SEAMS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "last checkpoint written": lambda patch: patch.setattr(run, "_save_weights", die),
    "weights written": lambda patch: patch.setattr(run, "_save_weights", die_after(run._save_weights)),
    "disk full at the weights": lambda patch: patch.setattr(run, "_save_weights", on_a_full_disk(run._save_weights)),
    "job done": lambda patch: patch.setattr(Store, "save", die),
    "disk full at the result": lambda patch: patch.setattr(Store, "save", on_a_full_disk(Store.save)),
    "copy of the result named": lambda patch: patch.setattr(atomic, "write_all", write_the_first_and_die),
    "result saved": lambda patch: patch.setattr(Store, "save", die_after(Store.save)),
    "one checkpoint removed": lambda patch: patch.setattr(train, "clean_up", remove_one_and_die),
}
SAVED = ("copy of the result named", "result saved", "one checkpoint removed")


def write_the_first_and_die(contents: dict[Path, str], *, sync: bool = True) -> None:
    if len(contents) == 1:  # the log
        WRITE_ALL(contents, sync=sync)
        return
    WRITE_ALL(dict([next(iter(contents.items()))]))
    die()


def remove_one_and_die(result: Result, store: Store) -> None:
    min((store.root / result.job.key).glob("checkpoint-*")).unlink()
    die()


def work(seam: str, batch: Batch, pipe: Connection) -> None:
    """What the child does: the batch up to a seam, up to its first step, or to the end without a step."""
    patch = pytest.MonkeyPatch()
    if seam in ("no step", "first step"):
        patch.setattr(Step, "__call__", die if seam == "first step" else do_no_step)
    else:
        SEAMS[seam](patch)
    run_batch(batch, pipe)


def run_job(runs: Path, job: Job = JOB, *, seam: str, devices: tuple[str, ...] = ("cpu",)) -> int | None:
    """Run a job in a child process and return its exit code."""
    runs.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.jobs.worker", "sklearn.datasets", "torch.utils.tensorboard"])
    ours, theirs = context.Pipe(duplex=False)
    machine = describe("cpu")
    batch = Batch(
        jobs=(job,), device="cpu", machine=machine, software=VERSIONS, runs=runs, inputs=Inputs(), devices=devices
    )
    process = context.Process(target=work, args=(seam, batch, theirs))
    process.start()
    theirs.close()
    process.join()
    ours.close()
    return process.exitcode


def good_results(runs: Path, job: Job = JOB) -> list[Result]:
    return [result for result in Store(runs).results(job) if result.error is None]


def checkpoints(runs: Path, job: Job = JOB) -> list[str]:
    return sorted(path.name for path in (runs / job.key).glob("checkpoint-*"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a training that was killed when it had written its last checkpoint."""
    runs = tmp_path_factory.mktemp("runs")
    assert run_job(runs, seam="last checkpoint written") == -signal.SIGKILL
    assert len(checkpoints(runs)) == 2
    return runs


@pytest.fixture
def runs(tmp_path: Path, ended: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "runs"))


def trained_weights(ended: Path) -> dict[str, torch.Tensor]:
    """Return the weights as they were after the last step."""
    loaded = Checkpoints(ended / JOB.key, JOB).load()
    assert loaded is not None
    assert loaded[0].epoch == 2
    return unpack(loaded[1], "network")


@pytest.mark.parametrize("seam", SEAMS)
def test_a_training_that_dies_after_its_last_step_is_taken_up_with_the_weights_that_it_had(
    runs: Path, ended: Path, seam: str
) -> None:
    code = run_job(runs, seam=seam)
    assert (code == -signal.SIGKILL) == ("disk full" not in seam)
    if seam not in SAVED:
        assert good_results(runs) == []
        assert len(checkpoints(runs)) == 2
        assert run_job(runs, seam="no step") == 0
        assert checkpoints(runs) == []
    (result,) = good_results(runs)
    file = find(JOB, runs)
    weights = load_file(file.path)
    expected = trained_weights(ended)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert [row["epoch"] for row in result.facts["history"]] == [1, 2]
    with (runs / JOB.key / "training.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["epoch"] for row in csv.DictReader(lines)] == ["1", "2"]


def test_a_rerun_does_not_take_up_the_training_whose_result_there_is(runs: Path) -> None:
    assert run_job(runs, seam="result saved") == -signal.SIGKILL
    first = good_results(runs)
    assert len(checkpoints(runs)) == 2
    assert run_job(runs, seam="first step") == -signal.SIGKILL
    assert checkpoints(runs) == []
    assert good_results(runs) == first


def test_a_training_of_several_processes_is_taken_up_as_well(tmp_path: Path) -> None:
    runs, job = tmp_path / "runs", smoke(epochs=1, batch_size=640, **PLAIN)
    assert run_job(runs, job, seam="job done", devices=("cpu", "cpu")) == -signal.SIGKILL
    assert good_results(runs, job) == []
    (left,) = (runs / job.key).glob("*.weights.safetensors")
    assert run_job(runs, job, seam="no step") == 0
    assert checkpoints(runs, job) == []
    (result,) = good_results(runs, job)
    assert hashlib.sha256(left.read_bytes()).hexdigest() == result.facts["weights"]["sha256"]
    assert [leftover.path for leftover in find_leftovers(runs)[0]] == [left]
