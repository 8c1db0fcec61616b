"""Results travel as one file: nothing is lost on the way, nothing damaged gets in, and twice is as good as once."""

import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.store import predictions
from harness.store.bundle import Merged, merge, write_bundle
from harness.store.result import Result
from harness.store.store import Store
from tests.commands import Command, run_harness
from tests.evaluations import tiny
from tests.fakes import result_of, with_facts
from tests.trainings import smoke

HISTORY = [{"epoch": 1, "top1": 50.0, "seconds": 1.25}]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return partial(run_harness, tmp_path)


def filled(root: Path) -> tuple[Store, Result, Result]:
    """Return a folder with an evaluation and its predictions, and a training and its weights."""
    store, evaluation = Store(root), tiny()
    store.save(evaluation.result)
    predictions.write(evaluation.predictions, store.predictions_of(evaluation.result))
    training = with_facts(result_of(smoke()), history=HISTORY)
    store.save(training)
    store.weights_of(training).write_bytes(b"weights" * 100)
    return store, evaluation.result, training


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def bundled(store: Store, path: Path, *, weights: bool = True) -> Path:
    write_bundle(store, store.all_results(), path, weights=weights)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return bundled(filled(folder / "runs")[0], folder / "results.tar")


def test_every_file_arrives_as_it_was(tmp_path: Path) -> None:
    store, _, _ = filled(tmp_path / "here")
    other = Store(tmp_path / "there")
    assert merge(bundled(store, tmp_path / "b.tar"), other) == Merged(added=2)
    assert contents(other.root) == contents(store.root)
    assert len(contents(other.root)) == 5  # two results, the copy of the training's, predictions, weights
    assert list(other.all_results()) == list(store.all_results())


def test_weights_travel_only_when_asked(tmp_path: Path) -> None:
    store, _, training = filled(tmp_path / "here")
    other = Store(tmp_path / "there")
    merge(bundled(store, tmp_path / "b.tar", weights=False), other)
    assert not other.weights_of(training).exists()
    # The same runs once more, now with weights: what was missing is added, though no run is new.
    assert merge(bundled(store, tmp_path / "b.tar"), other) == Merged(known=2)
    assert contents(other.root) == contents(store.root)


def test_equal_runs_are_equal_bytes_wherever_and_whenever_they_are_bundled(tmp_path: Path) -> None:
    store, _, _ = filled(tmp_path / "here")
    first = bundled(store, tmp_path / "first.tar")
    other = Store(tmp_path / "there")
    merge(first, other)
    assert bundled(other, tmp_path / "second.tar").read_bytes() == first.read_bytes()


def test_a_bundle_needs_no_harness_to_be_read(bundle: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", str(bundle)], cwd=tmp_path, check=True)
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)
    assert checked.stdout.count(b": OK\n") == 5  # four files of runs, and README.txt
    assert len(list(Store(tmp_path / "runs").all_results())) == 2


def test_merging_changes_nothing_that_is_there(bundle: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    merge(bundle, store)
    run = next(run for run in store.all_results() if run.job.kind == "evaluate")
    path = store.path_of(run)
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    before = contents(store.root)
    merged = merge(bundle, store)
    assert (merged.added, merged.known) == (0, 1)
    assert merged.refused == (f"{bundle}: run {run.id} is another one than {path}, which was left as it is",)
    assert contents(store.root) == before


@given(data=st.data())
def test_one_wrong_byte_anywhere_is_noticed_or_changes_nothing(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    good = bundle.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[place] ^= data.draw(st.integers(1, 255))
    _noticed_or_harmless(folder, bytes(damaged), bundle)


@given(data=st.data())
def test_a_bundle_that_was_cut_off_anywhere_is_noticed_or_lacks_only_the_zeros_at_its_end(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    good = bundle.read_bytes()
    end = data.draw(st.integers(0, len(good)))
    added = _noticed_or_harmless(folder, good[:end], bundle)
    assert not added or not good[end:].strip(b"\0")


def _noticed_or_harmless(folder: Path, content: bytes, bundle: Path) -> bool:
    path = folder / "damaged.tar"
    path.write_bytes(content)
    store, whole = Store(folder / "runs"), Store(folder / "whole")
    problem = ""
    try:
        merge(path, store)
    except StoreError as error:
        problem = str(error)
    if problem:
        assert problem.startswith(f"{path}: ")
        assert "\n" not in problem
        assert not store.root.exists()
        return False
    merge(bundle, whole)
    assert contents(store.root) == contents(whole.root)
    return True


def repacked(bundle: Path, path: Path, change: Callable[[dict[str, bytes]], None], *, sums: bool = True) -> Path:
    """Write a bundle again with other members and the sums that belong to them, as somebody could who wants to."""
    with tarfile.open(bundle) as tar:
        members = {member.name: _content(tar, member) for member in tar}
    change(members)
    listed = members.pop("SHA256SUMS")
    if sums:
        listed = "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items()
        ).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in {**members, "SHA256SUMS": listed}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _result_in(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith(".json"))


def _outside(members: dict[str, bytes]) -> None:
    members["../escaped.json"] = members.pop(_result_in(members))


def _with_a_stranger(members: dict[str, bytes]) -> None:
    members["runs/notes.txt"] = b"hello"


def _impossible(members: dict[str, bytes]) -> None:
    name = next(name for name in members if "evaluate" in name and name.endswith(".json"))
    members[name] = members[name].replace(b'"seconds": 2.0', b'"seconds": -2.0')


def _without_predictions(members: dict[str, bytes]) -> None:
    del members[next(name for name in members if name.endswith(".npz"))]


@pytest.mark.parametrize(
    ("change", "sums", "reason"),
    [
        (_outside, True, "belongs in runs/"),
        (_with_a_stranger, True, "runs/notes.txt belongs to no result in it"),
        (_impossible, True, "seconds"),
        (_without_predictions, False, "predictions.npz is missing"),
    ],
)
def test_what_no_bundle_of_ours_holds_is_refused_whatever_its_sums_say(
    bundle: Path,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], None],
    sums: bool,  # noqa: FBT001
    reason: str,
) -> None:
    path = repacked(bundle, tmp_path / "b.tar", change, sums=sums)
    with pytest.raises(StoreError) as raised:
        merge(path, Store(tmp_path / "runs"))
    assert reason in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


def test_a_link_in_a_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("runs/x.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(StoreError, match=r"runs/x\.json is no plain file"):
        merge(path, Store(tmp_path / "runs"))


def test_good_bundles_are_merged_and_the_others_named(harness: Command, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "half.tar").write_bytes(bundle.read_bytes()[:3000])
    (tmp_path / "text.tar").write_text("no tar\n")
    ran = harness("merge", "half.tar", str(bundle), "text.tar", "gone.tar", ".", str(bundle))
    assert ran.returncode == 2
    assert ran.stdout == (f"{bundle}: 2 runs added to runs/\n{bundle}: 0 runs added to runs/, 2 there already\n")
    assert [line.split(":")[1].strip() for line in ran.stderr.splitlines()] == ["half.tar", "text.tar", "gone.tar", "."]


def test_a_bundle_takes_the_runs_of_the_filter(harness: Command, tmp_path: Path) -> None:
    filled(tmp_path / "runs")
    ran = harness("bundle", "-o", "b.tar", "--kind", "train")
    assert ran.returncode == 0
    assert ran.stdout.startswith("b.tar: 1 run, ")
    assert ran.stderr == "warning: the weights of 1 training were left out, 0.0 MB; --weights takes them along\n"
    none = harness("bundle", "-o", "c.tar", "--kind", "tokens")
    assert (none.returncode, none.stdout) == (2, "")
    assert (
        none.stderr == "error: no such runs in runs/, so there is nothing to bundle; name another folder with --runs\n"
    )
    assert not (tmp_path / "c.tar").exists()
