"""What cannot be is damage, never a value: in the real results of this repository, damaged in every way."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import StoreError
from harness.plan.job import Job
from harness.specs.kinds import KINDS as KINDS_OF_JOB
from harness.store.possible import METRICS
from harness.store.predictions import HEADS, Predictions, read, read_of, write
from harness.store.result import Measurement, from_json, to_json, verified
from harness.store.store import Store
from harness.store.store import read as read_result
from tests.commands import run_harness
from tests.evaluations import evaluation, predictions, result_of_evaluation
from tests.fakes import LAPTOP, NOON, result_of

REFERENCE = Path(__file__).parents[1] / "runs" / "reference"
FILES = sorted(REFERENCE.glob("*/*/*.json"))
KINDS = ("ceilings", "count", "evaluate", "throughput", "train")

COUNT = Job.of("count", {"model": "resnet18", "res": 224})
OTHER = Job.of("count", {"model": "resnet50", "res": 224})

JSON = Any  # whatever a file holds


def file_of(kind: str, part: str = "") -> Path:
    return next(path for path in FILES if path.parent.name.startswith(f"{kind}-") and part in path.parent.name)


def data_of(kind: str) -> JSON:
    return json.loads(file_of(kind).read_text(encoding="utf-8"))


def refusal(data: JSON) -> str:
    with pytest.raises(StoreError) as refused:
        from_json(data if isinstance(data, str) else json.dumps(data))
    return str(refused.value)


# What was measured is read as it was written.


@pytest.mark.parametrize("kind", KINDS)
def test_every_real_result_is_read_as_it_was_written(kind: str) -> None:
    files = [path for path in FILES if path.parent.name.startswith(f"{kind}-")]
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert to_json(from_json(text)) == text


def test_a_count_of_the_first_versions_which_counted_no_activations_is_read() -> None:
    data = data_of("count")
    del data["metrics"]["activations"]
    assert "activations" not in from_json(json.dumps(data)).metrics


# One mistake at a time, and its sentence.


def edit(kind: str, change: Callable[[JSON], object]) -> JSON:
    data = data_of(kind)
    change(data)
    return data


def put(*keys: str, value: object) -> Callable[[JSON], None]:
    def change(data: JSON) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def drop(*keys: str) -> Callable[[JSON], None]:
    def change(data: JSON) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


EDITS: list[tuple[str, Callable[[JSON], object], str]] = [
    # Ranges.
    ("evaluate", put("metrics", "top1", "value", value=250), "top1 must be at most 100, not 250"),
    ("count", put("metrics", "params", "value", value=-5), "params must be at least 0, not -5"),
    ("count", put("metrics", "res", "value", value=0), "res must be at least 1, not 0"),
    (
        "throughput",
        put("metrics", "throughput", "samples", value=[0.0]),
        "a sample of throughput must be above 0 s, not 0",
    ),
    ("throughput", put("metrics", "throughput", "value", value=0), "throughput must be above 0, not 0"),
    ("ceilings", put("metrics", "copy", "value", value=0.0), "copy must be above 0, not 0.0"),
    ("train", put("metrics", "hours", "value", value=-1.5), "hours must be at least 0, not -1.5"),
    ("count", put("metrics", "params", "value", value="many"), "params must be a number, not 'many'"),
    (
        "evaluate",
        put("metrics", "top5", "low", value=-3),
        "an end of the interval of top5 must lie between 0 and 100 %, not at -3 %",
    ),
    ("evaluate", put("seconds", value=-1), "seconds must be at least 0, not -1"),
    (
        "evaluate",
        put("facts", "heads", "class", value={"top1": 101}),
        "top1 in [facts.heads.class] must be at most 100, not 101",
    ),
    ("throughput", put("facts", "batch", value=0), "batch in [facts] must be at least 1, not 0"),
    ("throughput", put("facts", "warm_up", value=[0.1, -1]), "warm_up in [facts] must be above 0, not -1 (item 1)"),
    # Types.
    (
        "count",
        put("metrics", "params", "value", value=None),
        "value in [metrics.params] must be a number or a string, not null",
    ),
    (
        "count",
        put("metrics", "params", "value", value=True),
        "value in [metrics.params] must be a number or a string, not true",
    ),
    ("count", put("machine", "memory", value=["x"]), "memory in [machine] must be an integer, not a list"),
    ("count", put("machine", "device", value="abacus"), "device in [machine] must be 'cpu' or 'cuda', not 'abacus'"),
    ("count", put("software", "torch", value=2), "torch in [software] must be a string, not 2"),
    ("count", put("job", "kind", value=-1), "kind in [job] must be a string, not -1"),
    ("count", put("job", "settings", "res", value="x"), "res in [job.settings] must be an integer, not 'x'"),
    ("count", put("warnings", value="hot"), "warnings must be a list, not 'hot'"),
    ("count", put("error", value=5), "error must be a string or null, not 5"),
    ("count", put("started", value="noon"), "started must be a time, not 'noon'"),
    ("evaluate", put("facts", "images", value="all"), "images in [facts] must be a table, not 'all'"),
    (
        "evaluate",
        put("facts", "images", "whole", value="yes"),
        "whole in [facts.images] must be true or false, not 'yes'",
    ),
    ("evaluate", put("facts", "weights", "sha256", value=7), "sha256 in [facts.weights] must be a string, not 7"),
    ("evaluate", put("id", value="../../x"), "id must be letters, digits, '-', '_' and '.', not '../../x'"),
    ("train", lambda d: d["facts"]["history"][3].update(top1="x"), "top1 in [facts.history] must be a number, not 'x'"),
    # What is missing.
    ("count", drop("job", "settings", "res"), "res in [job.settings] is missing, which every count has"),
    ("count", drop("metrics", "macs"), "a count result without macs"),
    ("count", drop("machine"), "machine is missing; it must be a table"),
    ("throughput", drop("metrics", "throughput"), "a throughput result without throughput"),
    ("throughput", drop("facts", "batch"), "batch in [facts] is missing, which every throughput has"),
    ("throughput", put("metrics", "throughput", "samples", value=[]), "throughput has no samples"),
    (
        "evaluate",
        drop("facts", "images", "fingerprint"),
        "fingerprint in [facts.images] is missing; it must be a string",
    ),
    ("train", drop("facts", "took"), "took in [facts] is missing, which every train has"),
]


@pytest.mark.parametrize(("kind", "change", "sentence"), EDITS, ids=[sentence for _, _, sentence in EDITS])
def test_a_mistake_anywhere_is_damage(kind: str, change: Callable[[JSON], object], sentence: str) -> None:
    assert refusal(edit(kind, change)) == f"is damaged ({sentence})"


def test_a_value_outside_its_own_interval_is_damage() -> None:
    top1 = data_of("evaluate")["metrics"]["top1"]
    data = edit("evaluate", put("metrics", "top1", "low", value=top1["high"]))
    assert refusal(data) == (
        f"is damaged (top1 is {top1['value']:g}, outside its own interval from {top1['high']} to {top1['high']})"
    )


def test_a_throughput_ten_times_what_its_samples_say_is_damage() -> None:
    def faster(data: JSON) -> None:
        throughput = data["metrics"]["throughput"]
        for name in ("value", "low", "high"):
            throughput[name] *= 10

    data = data_of("throughput")
    samples, batch = data["metrics"]["throughput"]["samples"], data["facts"]["batch"]
    rate = batch / (sum(samples) / len(samples))
    faster(data)
    assert refusal(data) == (
        f"is damaged (throughput is {data['metrics']['throughput']['value']}, but its 30 samples of {batch} images "
        f"come to {rate:g} im/s)"
    )


@pytest.mark.parametrize(
    ("kind", "metric", "sentence"),
    [
        ("count", "params", "params is {new}, but its parameters are {other}"),
        ("count", "macs", "macs is {new}, but its multiply_adds are {other}"),
        ("evaluate", "top1", "top1 is {new}, but its head has {other}"),
    ],
)
def test_a_number_that_the_result_contradicts_itself_is_damage(kind: str, metric: str, sentence: str) -> None:
    data = data_of(kind)
    data["metrics"][metric] |= {"value": 10, "low": None, "high": None}
    facts = data["facts"]
    heads = facts.get("heads", {})
    other = {
        "params": facts.get("parameters"),
        "macs": facts.get("multiply_adds"),
        "top1": (heads.get("softmax_sum") or heads.get("class") or {}).get("top1"),
    }[metric]
    assert refusal(data) == f"is damaged ({sentence.format(new=10, other=other)})"


def test_a_size_of_images_that_the_job_does_not_have_is_damage() -> None:
    data = edit("count", put("metrics", "res", "value", value=99))
    assert refusal(data) == f"is damaged (res is 99, but the job is of {data['job']['settings']['res']} pixels)"


def test_an_id_of_another_time_than_the_start_is_damage() -> None:
    data = edit("count", put("started", value="2038-01-19T03:14:08+00:00"))
    sentence = f"run {data['id']} says that it started at another time, 2038-01-19 03:14:08"
    assert refusal(data) == f"is damaged ({sentence})"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("NaN", "holds NaN, which is not a number"),
        ("-Infinity", "holds -Infinity, which is not a number"),
        ("1e999", "holds 1e999, which is too large"),
        ("1" * 20, f"holds {'1' * 20}, which is too large"),
        ("-" + "9" * 5000, f"holds -{'9' * 19}…, which is too large"),
        ("[" * 60 + "]" * 60, "is nested without end"),
        ("[" * 5000 + "]" * 5000, "is nested without end"),
        ('{"a": 1, "a": 2}', "has 'a' twice in one place"),
    ],
    ids=lambda raw: raw[:20],
)
@pytest.mark.parametrize("place", ["fact", "value"])
def test_what_no_exporter_can_write_is_damage_wherever_it_is(place: str, raw: str, sentence: str) -> None:
    keys = ("facts", "anything") if place == "fact" else ("metrics", "params", "value")
    text = json.dumps(edit("count", put(*keys, value="HERE")))
    assert refusal(text.replace('"HERE"', raw)) == f"is damaged ({sentence})"


def test_a_new_result_that_cannot_be_is_the_failure_of_its_job() -> None:
    good = result_of(COUNT)
    assert verified(good) is good
    for value, reason in ((-1.0, "is damaged (params must be at least 0, not -1.0)"), (math.nan, "Out of range float")):
        failed = verified(replace(good, metrics={**good.metrics, "params": Measurement(unit="M", value=value)}))
        assert str(failed.error).startswith(f"its result {reason}")
        assert from_json(to_json(failed)) == failed


def test_a_file_name_that_is_no_text_loses_no_result() -> None:
    result = replace(result_of(COUNT), warnings=("a\udcff.JPEG cannot be read",))
    read_again = from_json(to_json(result))
    assert read_again.warnings == ("a\\udcff.JPEG cannot be read",)
    assert from_json(to_json(read_again)) == read_again


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("step", 41.0, "step is 41 ms, but its throughput comes to 40 ms"),
        ("throughput", 101.0, "throughput is 101.0, but its 30 samples of 4 images come to 100 im/s"),
        ("days", 2.0, "days are 2, but hours are 12"),
        ("batch", 8, "batch is 8, but its batch are 4"),
        ("memory", -1.0, "memory must be at least 0, not -1.0"),
    ],
)
def test_the_numbers_of_a_timed_step_are_held_against_each_other(metric: str, value: float, message: str) -> None:
    result = result_of(Job.of("train-speed", {"recipe": "deit-b"}))
    more = {"hours": ("h", 12.0), "days": ("d", 0.5), "batch": ("images", 4), "memory": ("GiB", 2.0)}
    metrics = {**result.metrics, **{name: Measurement(unit=unit, value=one) for name, (unit, one) in more.items()}}
    whole = to_json(replace(result, metrics=metrics))
    assert to_json(from_json(whole)) == whole
    wrong = replace(metrics[metric], value=value, low=None, high=None)
    assert message in refusal(to_json(replace(result, metrics={**metrics, metric: wrong})))


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("latency", 41.0, "latency is 41 ms, but its throughput comes to 40 ms"),
        ("p50", 45.0, "p50 is 45 ms, more than a p90 of 44 ms"),
        ("p99", 43.0, "p90 is 44 ms, more than a p99 of 43 ms"),
        ("peak_memory", 0.0, "peak_memory must be above 0, not 0.0"),
        ("compile_time", -1.0, "compile_time must be above 0, not -1.0"),
    ],
)
def test_the_times_of_a_batch_are_held_against_each_other(metric: str, value: float, message: str) -> None:
    result = result_of(Job.of("throughput", {"model": "net", "res": 224, "protocol": "paper"}))
    times = {"latency": 40.0, "p50": 39.0, "p90": 44.0, "p99": 44.0, "peak_memory": 1.5, "compile_time": 20.0}
    metrics = {**result.metrics, **{name: Measurement(unit="ms", value=one) for name, one in times.items()}}
    whole = to_json(replace(result, metrics=metrics))
    assert to_json(from_json(whole)) == whole
    wrong = replace(metrics[metric], value=value)
    assert message in refusal(to_json(replace(result, metrics={**metrics, metric: wrong})))


def test_every_metric_that_is_a_number_has_a_range() -> None:
    # Those of a recipe are texts, and numbers as table 9 has them.
    metrics = {metric for name, kind in KINDS_OF_JOB.items() if name != "recipe" for metric in kind.metrics}
    assert metrics <= METRICS.keys()


# Files of the store.


def keep(store: Store, job: Job, minutes: int, value: float = 11.0) -> Path:
    return store.save(result_of(job, minutes=minutes, value=value))


def values(store: Store, job: Job) -> list[object]:
    return [result.metrics["params"].value for result in store.results(job)]


def test_a_result_copied_into_another_jobs_folder_is_not_that_jobs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, theirs = keep(store, COUNT, 0), keep(store, OTHER, 1, value=25.0)
    copy = mine.with_name(theirs.name)
    shutil.copy(theirs, copy)
    assert values(store, COUNT) == [11.0]
    assert store.damaged == [
        f"{copy}: belongs in {theirs}; set aside as {copy.name}.damaged and measured again when requested"
    ]
    assert values(store, OTHER) == [25.0]


def test_two_swapped_results_fill_neither_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, theirs = keep(store, COUNT, 0), keep(store, OTHER, 1, value=25.0)
    texts = mine.read_text(), theirs.read_text()
    theirs.write_text(texts[0])
    mine.write_text(texts[1])
    assert values(store, COUNT) == values(store, OTHER) == []
    assert [sentence.partition(": ")[2].partition(";")[0] for sentence in store.damaged] == [
        f"belongs in {theirs}",
        f"belongs in {mine}",
    ]


def test_a_result_under_another_runs_name_is_not_that_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = keep(store, COUNT, 0)
    renamed = path.with_name("29991231T000000000000Z-00000000.json")
    path.rename(renamed)
    assert values(store, COUNT) == []
    assert store.damaged[0].startswith(f"{renamed}: belongs in {path}; set aside as ")


def test_a_run_of_a_time_that_has_not_come_supersedes_nothing_and_stays_where_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, COUNT, 0)
    years = (datetime(2138, 1, 19, tzinfo=UTC) - NOON) // timedelta(minutes=1)
    future = keep(store, COUNT, years, value=99.0)
    sentence = (
        f"{future}: says that it began on 2138-01-19, which is yet to come; check the clock of {LAPTOP.label}, and "
        "remove the file if that was wrong"
    )
    assert values(store, COUNT) == [11.0]
    assert store.damaged == [f"{sentence}; left as it is and not used"]
    assert future.exists()
    with pytest.raises(StoreError, match="which is yet to come"):
        store.by_id("2138")


def test_a_clock_that_is_some_hours_ahead_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ahead = (datetime.now(tz=UTC) + timedelta(hours=12) - NOON) // timedelta(minutes=1)
    keep(store, COUNT, ahead)
    assert values(store, COUNT) == [11.0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "it is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("gone"), "No such file or directory"),
    ],
    ids=["folder", "pipe", "device", "loop", "broken link"],
)
def test_what_is_no_file_is_named_and_the_rest_goes_on(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    store = Store(tmp_path)
    path = keep(store, COUNT, 0).with_name("20261121T115900000000Z-aaaaaaaa.json")
    make(path)
    assert values(store, COUNT) == [11.0]
    assert store.damaged == [f"{path}: cannot be read ({reason}); left as it is and not used"]
    store.damaged.clear()
    assert [result.job for result in store.all_results()] == [COUNT]
    assert store.damaged == [f"{path}: cannot be read ({reason}); left as it is"]


def test_a_job_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / COUNT.key).write_text("")
    assert values(store, COUNT) == []
    assert store.damaged == [f"{tmp_path / COUNT.key}: cannot be read (Not a directory); what is in it is not used"]


@contextlib.contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder, in which root has no rights for a while either."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o777)


def test_a_result_that_may_not_be_read_and_a_folder_that_may_not_be_entered_are_named(tmp_path: Path) -> None:
    if tmp_path.stat().st_uid != os.geteuid():
        pytest.skip("needs a user of its own")
    with as_nobody() as folder:
        store = Store(folder)
        locked, file = keep(store, COUNT, 0).parent, keep(store, OTHER, 0)
        newer = keep(store, OTHER, 1, value=25.0)
        newer.chmod(0)
        locked.chmod(0)
        assert values(store, COUNT) == []
        assert values(store, OTHER) == [11.0]
        assert store.damaged == [
            f"{locked}: cannot be read (Permission denied); what is in it is not used",
            f"{newer}: cannot be read (Permission denied); left as it is and not used",
        ]
        store.damaged.clear()
        assert [store.path_of(result) for result in store.all_results()] == [file]
        assert store.damaged == [
            f"{locked}: cannot be read (Permission denied); what is in it is not used",
            f"{newer}: cannot be read (Permission denied); left as it is",
        ]


# Whatever is wrong with a file, each command names it; tests/fuzz tries that at random.


def with_real_results(root: Path) -> Path:
    for kind in KINDS:
        shutil.copytree(file_of(kind).parent, root / "runs" / file_of(kind).parent.name)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real result of each kind."""
    return with_real_results(tmp_path_factory.mktemp("damaged"))


def stored(folder: Path, kind: str) -> Path:
    source = file_of(kind)
    return folder / "runs" / source.parent.name / source.name


@pytest.mark.parametrize("chart", ["runs", "ratios"])
def test_a_figure_is_drawn_without_a_damaged_result(folder: Path, chart: str) -> None:
    path = stored(folder, "throughput")
    path.write_text(json.dumps(edit("throughput", put("metrics", "throughput", "samples", value=[0.1] * 30))))
    ran = run_harness(folder, "figure", "table5", "--chart", chart, "-o", "drawn.svg")
    shutil.copy(file_of("throughput"), path)
    assert ran.returncode == 2
    warning, sentence = ran.stderr.splitlines()
    assert warning.startswith(f"warning: {path.relative_to(folder)}: is damaged (throughput is ")
    assert sentence == (
        "error: no throughput of 'table5' was measured yet; run `harness reproduce table5 --throughput-only`"
    )


def test_a_plan_names_what_it_sets_aside(folder: Path) -> None:
    path = stored(folder, "throughput")
    path.write_text("{")
    ran = run_harness(folder, "plan", "table5", "--device", "cpu")
    shutil.copy(file_of("throughput"), path)
    assert ran.returncode == 0
    assert ran.stderr.startswith(f"warning: {path.relative_to(folder)}: is not complete JSON (")


# Predictions.

TINY = result_of_evaluation(evaluation(), metrics={"top1": 60.0})


def changed(tmp_path: Path, **arrays: Any) -> Path:  # noqa: ANN401 -- whatever numpy writes
    """Write predictions for ten images of which some arrays are others."""
    path = tmp_path / "some.npz"
    write(predictions([0] * 10), path)
    with np.load(path) as data:
        kept = dict(data.items())
    np.savez(path, **{**kept, **{name.replace("__", "."): array for name, array in arrays.items()}})
    return path


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"labels": np.zeros(9, np.int32)}, "10 images, but labels of shape (9,)"),
        (
            {"labels": np.zeros(10, np.float32)},
            "the labels are of shape (10,) and type float32, not a class index for each image",
        ),
        ({"labels": np.full(10, -294967296, np.int32)}, "a label is negative"),
        (
            {"class__top": np.zeros((10, 4), np.int32)},
            "the predicted classes are of shape (10, 4) and type int32, not 5 class indices for each of 10 images",
        ),
        (
            {"class__top": np.zeros((10, 5), np.float64)},
            "the predicted classes are of shape (10, 5) and type float64, not 5 class indices for each of 10 images",
        ),
        ({"class__top": np.full((10, 5), -2, np.int32)}, "a predicted class is below -1"),
        ({"class__scores": np.full((10, 5), np.nan, np.float32)}, "a score is not finite"),
        ({"class__scores": np.array([[np.inf, 1, 1, 1, 1]] * 10, np.float32)}, "a score is not finite"),
        ({"class__scores": np.array([[1, 1, 1, 1, -np.inf]] * 10, np.float32)}, "a score is not finite"),
        (
            {"class__scores": np.zeros((10, 4), np.float32)},
            "the scores are of shape (10, 4) and type float32, not 5 numbers for each of 10 images",
        ),
        (
            {"class__scores": np.zeros((10, 5), np.int32)},
            "the scores are of shape (10, 5) and type int32, not 5 numbers for each of 10 images",
        ),
        ({"class__probability": np.full(10, 1.01, np.float32)}, "a probability is not between 0 and 1"),
        ({"class__probability": np.full(10, np.nan, np.float32)}, "a probability is not between 0 and 1"),
        (
            {"class__probability": np.zeros(11, np.float32)},
            "the probabilities are of shape (11,) and type float32, not a number for each of 10 images",
        ),
        ({"names": np.zeros(10)}, "the names are of shape (10,) and type float64"),
        ({"heads": np.array(["distil"])}, "'distil.top is not a file in the archive'"),
        ({"heads": np.array([], dtype=np.str_)}, f"the heads are none, not class or {', '.join(HEADS)}"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_predictions_that_cannot_be_are_damaged(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    path = changed(tmp_path, **arrays)
    with pytest.raises(StoreError) as refused:
        read(path)
    assert str(refused.value) == f"{path}: the predictions are damaged ({reason}); run the job again with --rerun"


def test_a_pipe_of_predictions_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is no file, so it holds no predictions"):
        read(path)


def six_right() -> Predictions:
    return predictions([0, 1, 2, 3, 4, 5, 11, 11, 11, 11])


def test_predictions_of_another_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    write(six_right(), path)
    assert read_of(TINY, path).names == six_right().names
    write(predictions([0] * 10), path)  # the labels are 0 to 9, so one of ten is right
    with pytest.raises(StoreError) as refused:
        read_of(TINY, path)
    assert str(refused.value) == (
        f"{path}: the predictions are damaged (they give a top1 of 10 %, their result has 60.0); run the job again "
        "with --rerun"
    )


def test_a_copy_of_a_result_under_any_name_may_be_shown(tmp_path: Path) -> None:
    path = Store(tmp_path).save(result_of(COUNT))
    copy = path.rename(tmp_path / "copy.json")
    assert read_result(copy).job == COUNT
