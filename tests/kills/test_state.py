"""What a campaign of kills would notice: a result that is gone, there twice, or not readable, and other weights."""

import hashlib
from dataclasses import replace
from pathlib import Path

from harness.plan.job import Job
from harness.store.result import Result
from harness.store.store import Store
from tests.fakes import result_of, with_facts
from tests.kills import state

COUNT = Job.of("count", {"model": "resnet18", "res": 224})
TRAINING = Job.of("train", {"model": "tiny", "res": 32, "data": "digits", "recipe": "deit-b", "seed": 1})


def trained(store: Store, weights: bytes) -> Result:
    digest = hashlib.sha256(weights).hexdigest()
    result = result_of(TRAINING)
    result = with_facts(result, weights={"sha256": digest, "origin": "trained"})
    result = replace(result, job=replace(TRAINING, revision=0))  # its settings are few
    store.save(result)
    store.weights_of(result).write_bytes(weights)
    return result


def test_a_store_without_losses_has_nothing_to_say(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = state.look(tmp_path)
    store.save(result_of(COUNT))
    after = state.look(tmp_path)
    assert (after.ids - before.ids, after.unreadable) == ({next(store.results(COUNT)).id}, [])
    assert state.lost(before, after, {"count": 1}) == []
    assert state.doubled(after) == state.differences(after, after) == []


def test_what_was_there_or_was_said_to_be_saved_is_lost_when_it_is_gone(tmp_path: Path) -> None:
    path = Store(tmp_path).save(result_of(COUNT))
    before = state.look(tmp_path)
    path.unlink()
    after = state.look(tmp_path)
    assert state.lost(before, after, {"count": 1}) == [f"result {path.stem} is gone", "1 count were reported as saved"]
    assert state.differences(after, before) == [f"'{COUNT}' has no result"]


def test_two_good_results_of_a_job_are_one_too_many(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(result_of(COUNT, minutes=2, error="the process was ended by SIGKILL"))
    store.save(result_of(COUNT))
    assert state.doubled(state.look(tmp_path)) == []
    store.save(result_of(COUNT, minutes=1))
    assert state.doubled(state.look(tmp_path)) == [f"'{COUNT}' has 2 results"]


def test_a_file_that_is_cut_short_is_unreadable(tmp_path: Path) -> None:
    path = Store(tmp_path).save(result_of(COUNT))
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    (reason,) = state.look(tmp_path).unreadable
    assert reason.startswith(f"{path}: is not complete JSON")


def test_other_weights_are_noticed_by_their_sha_256(tmp_path: Path) -> None:
    whole, other = Store(tmp_path / "whole"), Store(tmp_path / "other")
    job = trained(whole, b"the same").job
    result = trained(other, b"not the same")
    name = f"'{job}' has other weights"
    assert state.differences(state.look(other.root), state.look(whole.root)) == [name]
    other.weights_of(result).write_bytes(b"cut")
    assert len(state.look(other.root).unreadable) == 1
