"""Results are read as they were written, damaged ones are reported and renamed, and nothing is lost."""

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.plan.job import Job
from harness.store.result import Measurement, Result, from_json, new_id, to_json
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, NOON, V100, VERSIONS, result_of

THROUGHPUT = Job.of(
    "throughput", {"model": "resnet18", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"}
)
COUNT = Job.of("count", {"model": "resnet18", "res": 224})

numbers = st.floats(-1e99, 1e99)
scalars = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), numbers)
samples = st.lists(numbers).map(tuple)
texts = st.builds(Measurement, unit=st.just("apples"), value=st.text(), samples=samples, sample_unit=st.text())


def between(ends: list[float], *, low: bool, high: bool, samples: tuple[float, ...]) -> Measurement:
    first, value, last = sorted(ends)
    return Measurement(
        unit="apples", value=value, low=first if low else None, high=last if high else None, samples=samples
    )


measurements = texts | st.builds(
    between, st.lists(numbers, min_size=3, max_size=3), low=st.booleans(), high=st.booleans(), samples=samples
)


@given(
    st.dictionaries(st.text(), scalars),
    st.dictionaries(st.text().map(lambda name: f"my {name}"), measurements),  # a known one cannot be any text
    st.dictionaries(st.text().map(lambda name: f"my {name}"), st.recursive(scalars, st.lists, max_leaves=5)),
    st.lists(st.text()),
    st.none() | st.text(),
)
def test_any_result_that_is_possible_is_read_as_it_was_written(
    settings: dict[str, str],
    metrics: dict[str, Measurement],
    facts: dict[str, object],
    warnings: list[str],
    error: str | None,
) -> None:
    result = Result(
        id=new_id(NOON),
        job=Job.of("a kind of a later version", settings),
        machine=LAPTOP,
        software=VERSIONS,
        started=NOON,
        seconds=1.5,
        metrics=metrics,
        facts=facts,
        warnings=tuple(warnings),
        error=error,
    )
    assert from_json(to_json(result)) == result


def test_a_result_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    path = Store(tmp_path).save(result_of(THROUGHPUT))
    assert path.parent.name.startswith("throughput-resnet18-224-paper-")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["schema"] == 1
    assert data["job"]["settings"]["model"] == "resnet18"
    assert data["metrics"]["throughput"]["samples"] == [0.04] * 30
    assert data["software"]["torch"] == "2.15.0"


def test_history_is_kept_and_the_newest_comes_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for minute in (5, 1, 3):
        store.save(result_of(THROUGHPUT, value=minute, minutes=minute))
    assert [r.metrics["throughput"].value for r in store.results(THROUGHPUT)] == [5, 3, 1]


def test_a_throughput_is_reused_only_on_the_same_machine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(result_of(THROUGHPUT, machine=V100))
    assert store.find(THROUGHPUT, V100, VERSIONS) is not None
    assert store.find(THROUGHPUT, H200, VERSIONS) is None
    assert store.find(THROUGHPUT, LAPTOP, VERSIONS) is None
    assert store.find(THROUGHPUT, replace(V100, memory=32 * 2**30), VERSIONS) is None


@pytest.mark.parametrize(
    ("name", "value", "serves"),
    [
        ("torch", "2.14.0", False),
        ("timm", "1.0.30", False),
        ("python", "3.12.1", False),
        ("python", "3.11.9", True),
        ("harness", "9.9", True),
    ],
)
def test_a_throughput_is_reused_only_with_the_software_that_decides_it(
    tmp_path: Path, name: str, value: str, *, serves: bool
) -> None:
    store = Store(tmp_path)
    store.save(result_of(THROUGHPUT))
    assert (store.find(THROUGHPUT, LAPTOP, {**VERSIONS, name: value}) is not None) is serves


def test_a_count_is_reused_on_every_machine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(result_of(COUNT, machine=H200))
    assert store.find(COUNT, LAPTOP, {}) is not None


def test_a_failure_is_stored_but_never_reused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(result_of(THROUGHPUT, error="no luck", minutes=1))
    assert store.find(THROUGHPUT, LAPTOP, VERSIONS) is None
    store.save(result_of(THROUGHPUT, value=7, minutes=0))
    result = store.find(THROUGHPUT, LAPTOP, VERSIONS)
    assert result is not None
    assert result.metrics["throughput"].value == 7


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not complete JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[1]", "is not a result"),
        (b'{"schema": 1}', "is damaged (id is missing; it must be letters, digits, '-', '_' and '.')"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_damaged_result_is_reported_and_renamed(tmp_path: Path, content: bytes, reason: str) -> None:
    store = Store(tmp_path)
    good = store.save(result_of(COUNT, value=11))
    bad = good.with_name("29990101T000000000000Z-00000000.json")
    bad.write_bytes(content)
    result = store.find(COUNT, LAPTOP, VERSIONS)
    assert result is not None
    assert result.metrics["params"].value == 11
    assert store.damaged == [f"{bad}: {reason}; set aside as {bad.name}.damaged and measured again when requested"]
    assert not bad.exists()
    assert bad.with_name(f"{bad.name}.damaged").read_bytes() == content


def test_a_result_cut_off_anywhere_is_never_taken_for_whole() -> None:
    text = to_json(result_of(THROUGHPUT)).rstrip()
    for end in range(len(text)):
        with pytest.raises(StoreError):
            from_json(text[:end])


def test_a_result_of_a_later_version_is_left_unchanged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.save(result_of(COUNT))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert store.find(COUNT, LAPTOP, VERSIONS) is None
    assert path.exists()
    assert store.damaged == [
        f"{path}: has schema 2, this version reads 1; update the harness; left as it is and not used"
    ]


def test_a_runs_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    path.write_text("")
    with pytest.raises(StoreError) as refused:
        Store(path).prepare()
    assert str(refused.value) == f"--runs {path}: is a file, not a folder; name another folder"
    with pytest.raises(StoreError):
        Store(path / "below").prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_runs_folder_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError) as refused:
        Store(tmp_path).prepare()
    tmp_path.chmod(stat.S_IRWXU)
    assert str(refused.value) == f"--runs {tmp_path}: is not writable; name another folder with --runs"


def test_a_full_disk_is_refused_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as refused:
        Store(tmp_path).prepare()
    why = "the disk is full; free some space or name another folder with --runs"
    assert str(refused.value) == f"--runs {tmp_path}: {why}"
    result = result_of(COUNT)
    with pytest.raises(StoreError) as lost:
        Store(tmp_path).save(result)
    assert str(lost.value) == f"{tmp_path / COUNT.key / result.id}.json: {why}"
    assert list((tmp_path / COUNT.key).iterdir()) == []


def test_a_really_full_disk_is_refused() -> None:
    if not Path("/dev/full").exists() or os.geteuid() != 0:
        pytest.skip("needs root, to mount a tiny file system")
    code = """
import sys
from pathlib import Path
from harness.errors import StoreError
from harness.store.store import Store
root = Path(sys.argv[1])
(root / "runs").mkdir()
try:
    with (root / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
except OSError:
    pass
try:
    Store(root / "runs").prepare()
except StoreError as error:
    print(error)
"""
    script = 'd=$(mktemp -d) && mount -t tmpfs -o size=64k none "$d" && "$0" -c "$1" "$d"'
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, code], capture_output=True, text=True, check=False
    )
    if "mount" in ran.stderr:
        pytest.skip(f"cannot mount here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("the disk is full; free some space or name another folder with --runs")


def _write_many(root: Path, count: int, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    store = Store(root)
    for number in range(count):
        store.save(result_of(COUNT, value=number))


def test_eight_processes_that_write_at_once_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.2
    writers = [context.Process(target=_write_many, args=(tmp_path, 125, start)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = Store(tmp_path)
    ids = [result.id for result in store.results(COUNT)]
    assert len(ids) == len(set(ids)) == 1000
    assert store.damaged == []


def test_a_run_is_taken_by_the_beginning_of_its_id_only_if_no_other_begins_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = result_of(COUNT, minutes=0), result_of(COUNT, minutes=1)
    for result in (first, second):
        store.save(result)
    assert store.by_id(second.id) == second
    with pytest.raises(StoreError) as refused:
        store.by_id("2026")
    assert str(refused.value) == (
        f"2 runs in {tmp_path}/ begin with '2026' ({second.id}, {first.id}); write more of the id"
    )
