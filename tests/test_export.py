"""Exports: nothing is lost on the way to CSV, Parquet and MLflow, and filters choose what they say."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.cli.usage.filters import RunFilter, parse_time
from harness.errors import HarnessError
from harness.plan.job import Job
from harness.report.export import FIELDS, render_results_csv
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, NOON, result_of
from tests.test_atomic import full_disk

SPEED = Job.of("throughput", {"model": "resnet18", "res": 224, "protocol": "paper", "repeats": 30, "batch": "auto"})
COUNT = Job.of("count", {"model": "deit_tiny_patch16_224", "res": 224})
PAGE = (Path(__file__).parent.parent / "docs" / "reports-and-exports.md").read_text(encoding="utf-8")
NASTY = 'a "quoted" <b>name</b>,\nwith; 中 ' + "long " * 500


def speed(number: int = 1, **told: Any) -> Result:  # noqa: ANN401 -- passed on
    return replace(result_of(SPEED, minutes=number, **told), id=f"20261121T12{number:02d}00000000Z-{number:08x}")


def count(number: int = 2, **told: Any) -> Result:  # noqa: ANN401 -- passed on
    return replace(result_of(COUNT, minutes=number, **told), id=f"20261121T12{number:02d}00000000Z-{number:08x}")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


Harness = Callable[..., Ran]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Harness:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ran(code=int(left.value.code or 0), out=said.out, err=said.err)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def keep(store: Store, *results: Result) -> None:
    for result in results:
        store.save(result)


# CSV


def test_a_run_has_a_line_for_each_metric_and_a_failure_has_one() -> None:
    lines = read(render_results_csv([speed(), count(value=5.72), speed(3, error="out of memory at batch 1")]))
    assert [(line["run"][-1], line["metric"], line["value"], line["unit"]) for line in lines] == [
        ("1", "throughput", "100.0", "im/s"),
        ("2", "params", "5.72", "M"),
        ("2", "res", "224.0", "px"),
        ("2", "macs", "1.43", "GMAC"),
        ("3", "", "", ""),
    ]
    assert [line["error"] for line in lines] == ["", "", "", "", "out of memory at batch 1"]


def test_every_column_of_a_line_says_what_it_should() -> None:
    (line,) = read(render_results_csv([speed(warnings=("iterations vary by 7 %",))]))
    told = {name: line[name] for name in ("kind", "model", "res", "protocol", "low", "high", "sample_unit", "batch")}
    assert told == {
        "kind": "throughput",
        "model": "resnet18",
        "res": "224",
        "protocol": "paper",
        "low": "99.0",
        "high": "101.0",
        "sample_unit": "s",
        "batch": "4",
    }
    assert json.loads(line["samples"]) == [0.04] * 30
    assert json.loads(line["settings"])["repeats"] == 30
    assert json.loads(line["warnings"]) == ["iterations vary by 7 %"]
    assert datetime.fromisoformat(line["started"]) == NOON + timedelta(minutes=1)
    assert (line["device"], line["machine"], line["cores"], line["torch"]) == ("cpu", "Some Processor", "4", "2.15.0")


def test_words_stand_in_a_column_of_their_own() -> None:
    said = replace(speed(), metrics={"optimizer": Measurement(unit="", value="adamw")})
    (line,) = read(render_results_csv([said]))
    assert (line["value"], line["words"]) == ("", "adamw")


def test_quotes_line_breaks_and_long_names_come_back_as_they_were() -> None:
    nasty = replace(speed(error=NASTY), machine=replace(LAPTOP, name=NASTY))
    (line,) = read(render_results_csv([nasty]))
    assert (line["error"], line["machine"]) == (NASTY, NASTY)


def test_no_runs_are_a_heading_and_nothing_else(harness: Harness) -> None:
    ran = harness("runs", "export", "-o", "none.csv")
    assert (ran.code, ran.out, ran.err) == (0, "none.csv: 0 runs\n", "")
    assert Path("none.csv").read_text(encoding="utf-8") == ",".join(FIELDS) + "\n"


def test_the_manual_documents_every_column() -> None:
    for name, field in FIELDS.items():
        assert f"| `{name}` | {field.type} | {field.holds} |" in PAGE


# Beyond are tags and selectors of variants, which no font shows.
VISIBLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], include_characters="\n", max_codepoint=0xDFFFF))


@given(VISIBLE, st.floats(allow_nan=False, allow_infinity=False))
def test_any_words_and_any_number_survive_csv(words: str, value: float) -> None:
    made = replace(speed(), metrics={"m": Measurement(unit=f"a{words}", value=value)}, error=f"a{words}")
    (line,) = csv.DictReader(StringIO(render_results_csv([made]), newline=""))
    assert (line["unit"], float(line["value"]), line["error"]) == (f"a{words}", value, f"a{words}")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", " =", "\n-", "＝"])
def test_a_spreadsheet_computes_no_words_of_a_run(sign: str) -> None:
    made = replace(speed(), metrics={"m": Measurement(unit="%", value=-1.5)}, error=f'{sign}cmd|"/C calc"!A0')
    (line,) = csv.DictReader(StringIO(render_results_csv([made]), newline=""))
    assert (line["error"], line["value"]) == (f'\'{sign}cmd|"/C calc"!A0', "-1.5")


# Parquet


def test_parquet_holds_what_csv_holds_with_types_and_meanings(harness: Harness, store: Store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, the extra `parquet`")
    keep(store, speed(), count(value=5.72), speed(3, error=NASTY))
    assert harness("runs", "export", "-o", "new/all.parquet").out == "new/all.parquet: 3 runs\n"
    table = parquet.read_table("new/all.parquet")
    harness("runs", "export", "-o", "all.csv")
    lines = read(Path("all.csv").read_text(encoding="utf-8"))
    assert table.column_names == list(lines[0]) == list(FIELDS)
    assert table.column("value").to_pylist() == [None, 5.72, 224.0, 1.43, 100.0]
    assert table.column("samples").to_pylist()[4] == [0.04] * 30
    assert table.column("error").to_pylist()[0] == NASTY
    assert table.column("started").to_pylist()[4] == NOON + timedelta(minutes=1)
    assert {name: table.schema.field(name).metadata[b"holds"].decode() for name in FIELDS} == {
        name: field.holds for name, field in FIELDS.items()
    }
    assert sorted(path.name for path in Path("new").iterdir()) == ["all.parquet"]


def test_without_pyarrow_one_sentence_says_what_to_install(
    harness: Harness, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, speed())
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # so Python answers where a package is not installed
    ran = harness("runs", "export", "-o", "all.parquet")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        (
            "error: -o all.parquet: Parquet needs pyarrow, which is not installed; "
            "`pip install 'deit-harness[parquet]'`, or write a .csv\n"
        ),
    )
    assert not Path("all.parquet").exists()


# MLflow


def test_a_run_becomes_a_run_of_mlflow_and_is_not_exported_twice(harness: Harness, store: Store) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="needs MLflow, the extra `mlflow`")
    # A name that MLflow does not take, as a version of the user's own may have.
    kept = replace(count(value=5.72), software={"a=é\n": "1"})
    keep(store, speed(), kept, speed(3, error="out of memory"))
    assert harness("runs", "export", "--mlflow", "-o", "there").out == "there: 3 runs\n"
    keep(store, speed(4))
    assert harness("runs", "export", "--mlflow", "-o", "there").out == "there: 1 runs, 3 there already\n"
    before = os.environ.get("MLFLOW_ALLOW_FILE_STORE")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    try:
        client = tracking.MlflowClient(tracking_uri=Path("there").absolute().as_uri())
        experiment = client.get_experiment_by_name("harness")
        actual = {run.data.tags["harness.run"]: run for run in client.search_runs([experiment.experiment_id])}
        first = actual[speed().id]
        history = client.get_metric_history(first.info.run_id, "throughput.samples")
    finally:
        if before is None:
            del os.environ["MLFLOW_ALLOW_FILE_STORE"]
    assert len(actual) == 4
    assert first.data.metrics == {
        "throughput": 100.0,
        "throughput.low": 99.0,
        "throughput.high": 101.0,
        "throughput.samples": 0.04,
        "seconds": 2.0,
    }
    assert [(item.step, item.value) for item in history] == [(step, 0.04) for step in range(30)]
    assert first.data.params["model"] == "resnet18"
    assert (first.info.status, actual[speed(3).id].info.status) == ("FINISHED", "FAILED")
    assert first.info.start_time == (NOON + timedelta(minutes=1)).timestamp() * 1000
    assert first.info.end_time - first.info.start_time == 2000
    assert actual[count().id].data.metrics["params"] == 5.72
    assert actual[count().id].data.tags["harness.a___"] == "1"


def runs_of_mlflow(path: Path) -> list[tuple[str, str]]:
    """The id and the status of every run."""
    tracking = pytest.importorskip("mlflow.tracking", reason="needs MLflow, the extra `mlflow`")
    uri = f"sqlite:///{path.absolute()}" if path.suffix else path.absolute().as_uri()
    with mock.patch.dict(os.environ, MLFLOW_ALLOW_FILE_STORE="true"):
        client = tracking.MlflowClient(tracking_uri=uri)
        runs = client.search_runs([client.get_experiment_by_name("harness").experiment_id])
    return sorted((run.data.tags["harness.run"], run.info.status) for run in runs)


@pytest.mark.filterwarnings("ignore")  # of what MLflow's database is made of
@pytest.mark.parametrize(("name", "size"), [("there", 64), ("there", 500), ("there.db", 300_000)])
def test_an_export_to_mlflow_that_finds_the_disk_full_leaves_whole_runs_only(
    harness: Harness, store: Store, name: str, size: int
) -> None:
    pytest.importorskip("mlflow", reason="needs MLflow, the extra `mlflow`")
    keep(store, speed())
    with full_disk(size):
        ran = harness("runs", "export", "--mlflow", "-o", f"new-{name}")
    assert (ran.code, "Traceback" in ran.err) == (2, False)
    assert [path.name for path in Path().iterdir()] == ["runs"]
    assert harness("runs", "export", "--mlflow", "-o", name).code == 0
    keep(store, speed(4))
    with full_disk(size):
        ran = harness("runs", "export", "--mlflow", "-o", name)
    assert (ran.code, ran.err[:11], "Traceback" in ran.err) == (2, "error: -o t", False)
    if name == "there":
        assert runs_of_mlflow(Path(name)) == [(speed().id, "FINISHED")]
    assert harness("runs", "export", "--mlflow", "-o", name).out == f"{name}: 1 runs, 1 there already\n"
    assert runs_of_mlflow(Path(name)) == [(speed().id, "FINISHED"), (speed(4).id, "FINISHED")]


@pytest.mark.filterwarnings("ignore")
def test_an_export_to_mlflow_that_was_killed_leaves_no_half_run_next_to_the_whole_one(
    harness: Harness, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="needs MLflow, the extra `mlflow`")
    keep(store, speed())
    with monkeypatch.context() as patch:
        patch.setattr(tracking.MlflowClient, "set_terminated", lambda *_: None)  # as if it never came so far
        harness("runs", "export", "--mlflow", "-o", "there.db")
    assert runs_of_mlflow(Path("there.db")) == [(speed().id, "RUNNING")]
    assert harness("runs", "export", "--mlflow", "-o", "there.db").out == "there.db: 1 runs\n"
    assert runs_of_mlflow(Path("there.db")) == [(speed().id, "FINISHED")]


def test_without_mlflow_one_sentence_says_what_to_install(
    harness: Harness, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, speed())
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, name, None)
    ran = harness("runs", "export", "--mlflow", "-o", "there")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "error: -o there: MLflow is not installed; `pip install 'deit-harness[mlflow]'`, or write a .csv\n",
    )
    assert not Path("there").exists()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "-o all.xlsx",
            "-o all.xlsx: runs are written as .csv or .parquet; choose one by the suffix, or add --mlflow",
        ),
        ("-o folder.csv", "-o folder.csv: Is a directory; name another file"),
        ("-o taken/all.csv", "-o taken/all.csv: File exists; name another file"),
        ("--mlflow -o all.csv", "-o all.csv: MLflow keeps its runs in a folder, or in a .db file; name one"),
        ("--mlflow -o taken", "-o taken: MLflow keeps its runs in a folder, or in a .db file; name one"),
        (
            "-o all.csv --runs taken",
            "--runs taken: is a file, not a folder; name the folder of the results",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(harness: Harness, arguments: str, sentence: str) -> None:
    Path("folder.csv").mkdir()
    Path("taken").write_text("", encoding="utf-8")
    ran = harness("runs", "export", *arguments.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {sentence}\n")


def test_results_of_a_future_version_are_named_and_the_others_exported(harness: Harness, store: Store) -> None:
    keep(store, speed(), count())
    path = store.path_of(count())
    path.write_text(path.read_text(encoding="utf-8").replace('"schema": 1', '"schema": 2'), encoding="utf-8")
    ran = harness("runs", "export", "-o", "all.csv")
    assert ran.out == "all.csv: 1 runs\n"
    assert ran.err == (
        f"warning: runs/{count().job.key}/{path.name}: has schema 2, this version reads 1; update the harness; "
        "left as it is\n"
    )


def test_two_results_that_claim_the_same_run_are_named_and_one_is_used(harness: Harness, store: Store) -> None:
    keep(store, speed(), replace(count(), id=speed().id, started=speed().started))
    item, other = f"runs/{COUNT.key}/{speed().id}.json", f"runs/{SPEED.key}/{speed().id}.json"
    ran = harness("runs", "list")
    assert len(ran.out.splitlines()) == 2  # with the heading
    assert ran.err == f"warning: {other}: claims to be run {speed().id}, as {item} does; left as it is and not used\n"
    ran = harness("runs", "show", speed().id)
    assert ran.err == (
        f"error: {item} and {other} claim to be the same run {speed().id}; remove all but the right one\n"
    )


# Filters


def chosen(harness: Harness, *filters: str) -> str:
    """Which of four runs are listed, by the last digit of their ids."""
    return "".join(line.split()[0][-1] for line in harness("runs", "list", *filters).out.splitlines()[1:])


@pytest.mark.parametrize(
    ("filters", "actual"),
    [
        ("", "4321"),
        ("--kind count", "2"),
        ("--kind count,throughput", "4321"),
        ("--model RESNET*", "431"),
        ("--model deit_*,vit_*", "2"),
        ("--machine *H200*", "4"),
        ("--failed", "3"),
        ("--since 2026-11-21T12:03", "43"),
        ("--before 2026-11-21T12:03", "21"),
        ("--since 2026-11-21T12:02 --before 2026-11-21T12:04 --kind throughput", "3"),
        ("--model resnet* --limit 2", "43"),
    ],
)
def test_a_filter_lists_what_it_says(harness: Harness, store: Store, filters: str, actual: str) -> None:
    keep(store, speed(1), count(2), speed(3, error="no"), speed(4, machine=H200))
    assert chosen(harness, *filters.split()) == actual


def test_where_no_run_fits_that_is_said(harness: Harness, store: Store) -> None:
    assert harness("runs", "list", "--failed").out == "no such runs in runs/\n"
    assert harness("runs", "list").out == "no runs in runs/\n"
    keep(store, speed())
    assert harness("runs", "list", "--kind", "count").out == "no such runs in runs/\n"


def test_prune_spares_what_the_filter_does_not_mean(harness: Harness, store: Store) -> None:
    keep(store, speed(1), speed(2), speed(3, error="no"), count(4), count(5), count(6, error="no"))
    ran = harness("runs", "prune", "--kind", "throughput", "--failed", "--yes")
    assert ran.out.splitlines()[-1].startswith("removed 1 of 6 runs")
    assert [item.id[-1] for item in store.all_results()] == ["6", "5", "4", "2", "1"]
    harness("runs", "prune", "--kind", "throughput", "--yes")
    assert [item.id[-1] for item in store.all_results()] == ["6", "5", "4", "2"]
    harness("runs", "prune", "--before", "2026-11-21T12:05", "--yes")
    assert [item.id[-1] for item in store.all_results()] == ["6", "5", "2"]


def test_an_export_takes_a_filter_too(harness: Harness, store: Store) -> None:
    keep(store, speed(1), count(2))
    assert harness("runs", "export", "--kind", "count", "-o", "all.csv").out == "all.csv: 1 runs\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--since yesterday", "'yesterday' is not a time; write an age as 36h or 7d, or a date as 2026-11-21"),
        ("--before 7", "'7' is not a time; write an age as 36h or 7d, or a date as 2026-11-21"),
        ("--since 99999999999d", "'99999999999d' is not a time; write an age as 36h or 7d, or a date as 2026-11-21"),
        ("--kind thruput", "unknown kind of job 'thruput'; did you mean 'throughput'?"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(harness: Harness, arguments: str, sentence: str) -> None:
    option = arguments.split(maxsplit=1)[0]
    ran = harness("runs", "list", *arguments.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: Invalid value for '{option}': {sentence}\n")


@given(st.integers(0, 10_000), st.sampled_from([("min", 60), ("h", 3600), ("d", 86400), ("w", 604800)]))
def test_an_age_is_so_long_ago(number: int, unit: tuple[str, int]) -> None:
    name, seconds = unit
    assert (NOON - parse_time(f"{number}{name}", NOON)).total_seconds() == number * seconds


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_read_as_it_is_written(when: datetime) -> None:
    assert parse_time(when.isoformat(), NOON) == when


@given(st.text())
def test_any_other_text_is_no_moment_and_no_crash(text: str) -> None:
    with suppress(HarnessError):
        assert parse_time(text, NOON).tzinfo is not None


def test_an_empty_filter_takes_everything() -> None:
    assert all(map(RunFilter().matches, [speed(), count(error="no")]))


def test_exports_import_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    code = """
import sys
from harness.cli import main
sys.argv = ["harness", "runs", "export", "-o", "all.csv"]
try:
    main()
finally:
    print("heavy:", sorted({"torch", "matplotlib", "pandas", "pyarrow", "mlflow"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "heavy: []"
