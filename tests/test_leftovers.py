"""What killed processes leave in a folder of runs: named with its size, and removed unless it is in use or of use."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import atomic
from harness.jobs.evaluate.partial import PartialPredictions, Shard
from harness.jobs.training.checkpoint import Checkpoints, TrainingState
from harness.plan.job import Job
from harness.store import predictions
from harness.store.leftovers import find_leftovers, remove_leftovers
from harness.store.result import Result
from harness.store.store import Store
from tests.commands import Command, run_harness
from tests.evaluations import evaluation, tiny
from tests.fakes import result_of, with_facts
from tests.trainings import smoke

TRAIN = smoke()
HISTORY = [{"epoch": 1, "top1": 50.0, "seconds": 1.25}]
RUN = "20261121T120000000000Z-0123abcd"
OTHER = "20261121T130000000000Z-0123abcd"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return partial(run_harness, tmp_path)


def written(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def trained(store: Store, history: list[dict[str, Any]] = HISTORY) -> Result:
    """Save the result of a training, with weights."""
    result = with_facts(result_of(TRAIN), history=history)
    store.save(result)
    written(store.weights_of(result))
    return result


def checkpoint(store: Store, job: Job = TRAIN, history: list[dict[str, Any]] = HISTORY, steps: int = 20) -> Path:
    state = TrainingState(epoch=len(history), steps_done=steps, history=history)
    return Checkpoints(store.root / job.key, job).save(state, {"network.weight": torch.zeros(100)})


def left_in(store: Store) -> dict[Path, str]:
    return {leftover.path: leftover.reason for leftover in find_leftovers(store.root)[0]}


# What is left over.


def test_what_nothing_reads_again_is_named_with_its_size_and_removed(harness: Command, store: Store) -> None:
    result = tiny().result
    predictions.write(tiny().predictions, store.predictions_of(result))
    store.save(result)
    folder, training = store.path_of(result).parent, store.root / TRAIN.key
    sizes = {
        written(folder / f".{RUN}.json.0123abcd.tmp", 3_000_000): "half-written",
        written(folder / f"{RUN}.predictions.npz", 1_250_000): "predictions without a result",
        written(folder / f"{RUN}.json.damaged"): "damaged, and was set aside",
        written(training / f"{OTHER}.weights.safetensors", 20_000_000): "weights without a result",
        written(training / "checkpoint-000000020.damaged"): "damaged, and was set aside",
        written(training / "training.csv"): "log of a training of which nothing is left",
        written(training / ".processes-abc" / "work.json").parent: "files of processes that have ended",
        written(store.root / ".slurm" / "arrays" / ".one.json.0123abcd.tmp"): "half-written",
        written(store.root / ".slurm" / "arrays" / "never" / "0_submitted.pkl").parent: (
            "files of tasks that were never submitted"
        ),
        written(store.root / ".x.0123abcd.tmp"): "half-written",
    }
    written(store.root / ".slurm" / "arrays" / "never" / ".x.0123abcd.tmp")  # goes with its folder
    listed = harness("runs", "prune", "--dry-run")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    files = {path: [path] if path.is_file() else list(path.iterdir()) for path in sizes}
    megabytes = {path: sum(file.stat().st_size for file in files[path]) / 1e6 for path in sizes}
    expected = {f"{path.relative_to(Path.cwd())}: {why}, {megabytes[path]:.1f} MB" for path, why in sizes.items()}
    assert set(lines[:-1]) == expected
    assert lines[-1] == "would remove 0 of 1 runs and 10 leftovers, 24.3 MB"
    removed = harness("runs", "prune", "--yes")
    assert removed.stdout.splitlines()[-1] == "removed 0 of 1 runs and 10 leftovers, 24.3 MB"
    assert [path for path in sizes if path.exists()] == []
    assert store.predictions_of(result).exists()
    assert harness("runs", "prune", "--yes").stdout == "nothing to remove; runs in runs/: 1\n"


def test_the_size_of_a_superseded_training_is_that_of_its_weights_too(harness: Command, store: Store) -> None:
    older, newer = (replace(result_of(TRAIN, minutes=minute), facts=trained_facts()) for minute in (1, 2))
    for result in (older, newer):
        store.save(result)
        written(store.weights_of(result), 5_000_000)
    assert harness("runs", "prune", "--dry-run").stdout.endswith("would remove 1 of 2 runs, 5.0 MB\n")
    harness("runs", "prune", "--yes")
    assert [path.name for path in (store.root / TRAIN.key).iterdir() if older.id in path.name] == []
    assert store.weights_of(newer).exists()


def trained_facts() -> dict[str, Any]:
    return {**result_of(TRAIN).facts, "history": HISTORY}


def test_with_a_filter_only_runs_are_removed(harness: Command, store: Store) -> None:
    half = written(store.root / TRAIN.key / ".one.0123abcd.tmp")
    assert harness("runs", "prune", "--failed", "--yes").stdout == "nothing to remove; runs in runs/: 0\n"
    assert half.exists()


def test_files_of_others_and_results_that_cannot_be_used_are_left_alone(store: Store) -> None:
    result = trained(store)
    predicted = store.root / evaluation().key / f"{RUN}.predictions.npz"
    kept = [
        store.path_of(result),
        store.weights_of(result),
        written(store.root / "other" / f"{RUN}.weights.safetensors"),
        written(store.root / "other" / ".x.0123abcd.tmp"),
        written(store.root / TRAIN.key / "notes.tmp"),
        written(store.root / TRAIN.key / "training.csv"),
        written(predicted),
        written(predicted.with_name(f"{RUN}.json")),  # of a later version, or unreadable
    ]
    assert left_in(store) == {}
    assert all(path.exists() for path in kept)


def test_a_link_is_removed_and_not_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    target = written(tmp_path / "elsewhere" / "file")
    folder = store.root / TRAIN.key
    folder.mkdir(parents=True)
    (folder / ".processes-abc").symlink_to(target.parent)
    assert [leftover.path.name for leftover in remove_leftovers(find_leftovers(store.root)[0])] == [".processes-abc"]
    assert target.exists()


# What a job resumes from.


def test_a_checkpoint_is_left_over_once_its_training_has_a_result(store: Store) -> None:
    path = checkpoint(store)
    leftover, kept = find_leftovers(store.root)
    assert leftover == []
    assert kept == [
        (
            f"{path.parent}: {path.name}, {path.stat().st_size / 1e6:.1f} MB: checkpoints of a training that the same "
            "command resumes; remove them if it never will"
        )
    ]
    trained(store, [*HISTORY, {"epoch": 2, "top1": 60.0, "seconds": 1.5}])
    assert left_in(store) == {path: "checkpoint of a training that has its result"}


def test_a_checkpoint_of_another_training_of_the_same_job_is_kept(store: Store) -> None:
    trained(store)
    checkpoint(store, history=[{**HISTORY[0], "seconds": 1.5}])
    checkpoint(store, history=[], steps=7)
    assert left_in(store) == {}


def test_a_checkpoint_of_another_revision_is_left_over(store: Store) -> None:
    path = checkpoint(store, replace(TRAIN, revision=TRAIN.revision - 1))
    assert left_in(store) == {path: "checkpoint of another revision of training, which cannot be resumed"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, (8).to_bytes(8, "little") + b"[[[[[[[[", b"\2" + bytes(7) + b"{}"]
)
def test_a_checkpoint_that_cannot_be_read_is_kept(store: Store, content: bytes) -> None:
    trained(store)
    written(store.root / TRAIN.key / "checkpoint-000000020.safetensors").write_bytes(content)
    assert left_in(store) == {}


def test_shards_are_left_over_once_their_evaluation_has_a_result_with_the_same_weights(store: Store) -> None:
    result = tiny().result
    folder = store.path_of(result).parent
    shard = Shard(start=0, stop=10, digest="0" * 16)
    paths = []
    for weights in (str(result.facts["weights"]["sha256"]), "f" * 64):
        partial_predictions = PartialPredictions(folder, weights=weights)
        partial_predictions.save(shard, tiny().predictions)
        paths.append(partial_predictions.folder)
    assert left_in(store) == {}
    store.save(result)
    assert left_in(store) == {paths[0]: "partial predictions of an evaluation that has its result"}


# What is in use.

WRITER = """
import os, sys, time
from pathlib import Path
from harness import atomic
if sys.argv[2] == "job":
    with atomic.occupying([Path(sys.argv[1])]):
        print("writes", flush=True)
        time.sleep(600)
else:
    with atomic.replacing(Path(sys.argv[1]) / "one") as temporary:
        temporary.write_bytes(bytes(1000))
        print("writes", flush=True)
        time.sleep(600)
"""


@contextmanager
def writer(folder: Path, what: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes into a folder, or runs the job whose folder it is."""
    command = [sys.executable, "-c", WRITER, str(folder), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writes\n"
        yield process
        process.kill()


@pytest.mark.parametrize("what", ["file", "job"])
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_nothing_is_removed_where_a_process_writes_and_all_of_it_once_that_is_killed(
    harness: Command, store: Store, what: str, state: str
) -> None:
    folder = store.root / TRAIN.key
    orphan = written(folder / f"{RUN}.weights.safetensors")
    with writer(folder, what) as process:
        if state == "stopped":
            process.send_signal(signal.SIGSTOP)
        before = sorted(folder.iterdir())
        ran = harness("runs", "prune", "--yes")
        assert ran.stdout == (
            f"kept: runs/{TRAIN.key}: a process writes there; what it has not finished is left as it is\n"
            "nothing to remove; runs in runs/: 0\n"
        )
        assert sorted(folder.iterdir()) == before
    assert process.poll() != 0
    assert len(left_in(store)) == (2 if what == "file" else 1)
    harness("runs", "prune", "--yes")
    assert list(folder.iterdir()) == []
    assert not orphan.exists()


def test_what_has_got_its_result_since_it_was_listed_is_kept(store: Store) -> None:
    result = with_facts(result_of(TRAIN), history=HISTORY)
    weights = written(store.weights_of(result))
    listed, _ = find_leftovers(store.root)
    assert [leftover.path for leftover in listed] == [weights]
    store.save(result)
    assert remove_leftovers(listed) == []
    assert weights.exists()


def test_a_folder_without_locks_is_vacant_when_nobody_wrote_there_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(9, "Bad file descriptor")  # as NFS

    monkeypatch.setattr(fcntl, "flock", refuse)
    atomic.write(tmp_path / "one", "text")
    for age, expected in ((0, False), (23 * 3600, False), (25 * 3600, True)):
        os.utime(tmp_path, (time.time() - age,) * 2)
        with atomic.vacant(tmp_path) as is_vacant:
            assert is_vacant == expected


def test_a_writer_waits_for_a_folder_that_is_cleaned_up_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    with atomic.vacant(tmp_path) as is_vacant:
        assert is_vacant
        atomic.write(tmp_path / "one", "text")
    assert (tmp_path / "one").read_text() == "text"


# The copy of a training's result.


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_the_result_of_a_training_that_is_gone_or_damaged_is_written_again(store: Store, how: str) -> None:
    result = trained(store)
    path = store.path_of(result)
    text = path.read_text()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(text.encode()[:100])
    assert left_in(store) == {}
    assert list(store.results(TRAIN)) == [result]
    assert path.read_text() == text
    again = f"{path}: was gone while its weights are there; written again from its copy {path.name}.copy"
    assert store.damaged[-1] == again
    assert len(store.damaged) == (1 if how == "gone" else 2)


def test_no_result_comes_back_without_its_weights_or_after_it_was_removed(store: Store) -> None:
    result = trained(store)
    store.path_of(result).unlink()
    store.weights_of(result).unlink()
    assert list(store.results(TRAIN)) == []
    copy = store.root / TRAIN.key / f"{result.id}.json.copy"
    assert left_in(store) == {copy: "copy of a result that is gone"}
    again = trained(store)
    store.remove(again)
    assert [path for path in (store.root / TRAIN.key).iterdir() if path != copy] == []


def test_a_copy_is_no_result(harness: Command, store: Store) -> None:
    trained(store)
    assert len(harness("runs", "list").stdout.splitlines()) == 2
    assert len(list(store.all_results())) == len(list(store.root.rglob("*.json"))) == 1
