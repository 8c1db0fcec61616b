"""Predictions are read as they were written; what is wrong with a file is reported in a sentence."""

import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.store.predictions import HEADS, Head, Predictions, concatenate, read, write

# What a file system allows in a name: anything but a slash and NUL; bytes that are no UTF-8 come as lone surrogates.
letters = st.characters(exclude_characters="\0/") | st.sampled_from([chr(0xDC80), chr(0xDCFF)])
names = st.lists(st.text(letters, min_size=1, max_size=12), max_size=8, unique=True)
heads = st.sampled_from([HEADS[:1], HEADS])


def head_of(count: int, draw: np.random.Generator) -> Head:
    return Head(
        top=draw.integers(-1, 1000, (count, 5), dtype=np.int32),
        scores=draw.normal(size=(count, 5)).astype(np.float32),
        probability=draw.random(count, dtype=np.float32),
    )


def predictions_of(called: tuple[str, ...], which: tuple[str, ...] = HEADS, seed: int = 0) -> Predictions:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 1000, len(called), dtype=np.int32)
    return Predictions(names=called, labels=labels, heads={name: head_of(len(called), draw) for name in which})


def assert_same(one: Predictions, other: Predictions) -> None:
    assert one.names == other.names
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.dtype == other.labels.dtype == np.int32
    assert list(one.heads) == list(other.heads)
    for name, head in one.heads.items():
        for field in ("top", "scores", "probability"):
            mine, theirs = getattr(head, field), getattr(other.heads[name], field)
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as error:
        read(path)
    return str(error.value)


THREE = ("n1/a.JPEG", "n1/b.JPEG", "n2/ç.JPEG")


@given(names, heads, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(called: list[str], which: tuple[str, ...], seed: int) -> None:
    predictions = predictions_of(tuple(called), which, seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "deeper" / "one.npz"
        write(predictions, path, sync=False)
        assert_same(read(path), predictions)
        assert [file.name for file in path.parent.iterdir()] == ["one.npz"]


def test_no_file_holds_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    write(predictions_of(THREE), path)
    with np.load(path, allow_pickle=False) as data:
        kinds = {name: data[name].dtype.kind for name in data.files}
    assert kinds["names"] == "U"
    assert kinds["labels"] == "i"
    assert set(kinds) == {
        "names",
        "labels",
        "heads",
        *(f"{h}.{f}" for h in HEADS for f in ("top", "scores", "probability")),
    }
    assert "O" not in kinds.values()


def test_a_file_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, heads=np.array(["class", None], dtype=object))
    assert refused(path) == (
        f"{path}: the predictions are damaged (Object arrays cannot be loaded when allow_pickle=False); run the job "
        "again with --rerun"
    )


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    assert refused(path) == f"{path}: the predictions are gone; run the job again with --rerun"


def test_an_archive_of_something_else_holds_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, weights=np.zeros(3))
    assert refused(path) == f"{path}: holds no predictions"


def test_a_single_array_is_no_file_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert refused(path).startswith(f"{path}: the predictions are damaged (")


@pytest.mark.parametrize("kept", [0, 1, 100, -100, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "one.npz"
    write(predictions_of(THREE), path)
    path.write_bytes(path.read_bytes()[:kept])
    said = refused(path)
    assert said.startswith(f"{path}: the predictions are damaged (")
    assert said.endswith("); run the job again with --rerun")


def test_a_file_without_one_of_its_arrays_is_refused(tmp_path: Path) -> None:
    path, less = tmp_path / "one.npz", tmp_path / "less.npz"
    write(predictions_of(THREE), path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(less, "w") as part:
        for name in whole.namelist():
            if name != "distil.scores.npy":
                part.writestr(name, whole.read(name))
    assert refused(less) == (
        f"{less}: the predictions are damaged ('distil.scores is not a file in the archive'); run the job again with "
        "--rerun"
    )


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_noticed_or_changes_nothing(place: float, byte: int) -> None:
    predictions = predictions_of(THREE)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.npz"
        write(predictions, path, sync=False)
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= byte
        path.write_bytes(content)
        try:
            found = read(path)
        except StoreError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 -- either outcome is right
        else:
            assert_same(found, predictions)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "one.npz"
    with pytest.raises(StoreError) as error:
        write(predictions_of(THREE), path)
    assert str(error.value) == f"{path}: File exists; free some space or name another --runs"


def test_a_full_disk_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arrays: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "one.npz"
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(StoreError) as error:
        write(predictions_of(THREE), path)
    assert str(error.value) == f"{path}: No space left on device; free some space or name another --runs"
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_parts_joined_in_order_are_the_whole(counts: list[int], data: st.DataObject) -> None:
    total = sum(counts)
    whole = predictions_of(tuple(f"{place}.JPEG" for place in range(total)))
    ends = np.cumsum(counts)
    parts = [whole.take(range(end - count, end)) for count, end in zip(counts, ends, strict=True)]
    assert_same(concatenate(parts), whole)
    order = data.draw(st.permutations(range(total)))
    shuffled = whole.take(order)
    assert shuffled.names == tuple(whole.names[place] for place in order)
    assert_same(shuffled.take(np.argsort(np.array(order, dtype=np.intp))), whole)


def test_the_main_head_is_the_sum_of_both_where_there_are_two() -> None:
    both = predictions_of(THREE)
    assert both.main_head == "softmax_sum"
    assert predictions_of(THREE, ("class",)).main_head == "class"
    right = replace(both, labels=both.heads["softmax_sum"].top[:, 0].copy())
    assert right.correct().tolist() == [True, True, True]
    right.labels[1] = -7
    assert right.correct().tolist() == [True, False, True]
    assert right.correct("distil").tolist() == (right.heads["distil"].top[:, 0] == right.labels).tolist()


def test_an_image_that_was_not_read_is_never_right() -> None:
    one = predictions_of(("a.JPEG",), ("class",))
    one.heads["class"].top[:] = -1
    assert one.correct().tolist() == [False]
