"""What a baseline keeps, how its file reads, and what is refused: each in one sentence."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError, StoreError
from harness.gate.baseline import (
    Baseline,
    BaselineCell,
    BaselineRun,
    make_baseline,
    median_throughput,
    sensitivity,
    short_of_runs,
)
from harness.gate.baseline_file import check_fits, read, to_json
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.specs import Catalog, Spec
from harness.stats import Noise
from harness.store.select import select_results
from harness.store.store import Store
from tests.fakes import H200, LAPTOP
from tests.gating import (
    FIVE,
    SPEC,
    job_of_kind,
    judge_selection,
    mine,
    plan_of,
    run_id,
    save_accuracy,
    save_count,
    save_five,
    save_throughput,
)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return mine(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def baseline_of(store: Store, spec: Spec) -> Baseline:
    now, diff = judge_selection(store, spec)
    return make_baseline([diff.table], now)


def full(store: Store, spec: Spec) -> Baseline:
    save_five(store, spec)
    save_count(store, spec, 10)
    save_accuracy(store, spec, 20, [True] * 7 + [False] * 3)
    return baseline_of(store, spec)


# What is kept.


def test_a_throughput_is_stored_as_raw_samples_of_its_processes_and_anything_else_as_a_value(
    store: Store, spec: Spec
) -> None:
    found = full(store, spec)
    assert found.cells == {
        ("mine", "tiny", "params"): BaselineCell(unit="M", value=5.5, runs=(run_id(10),)),
        ("mine", "tiny", "speed"): BaselineCell(unit="im/s", value=102.0, runs=tuple(map(run_id, range(5)))),
        ("mine", "tiny", "top1"): BaselineCell(unit="%", value=70.0, runs=(run_id(20),)),
    }
    assert found.runs[run_id(20)].images == "f"
    assert found.runs[run_id(2)].batch == 4
    assert found.runs[run_id(2)].seconds == pytest.approx(FIVE[2], rel=1e-5)
    assert found.machine == LAPTOP
    assert found.papers == {"mine": "the paper"}


def test_a_baseline_tells_which_changes_it_can_detect(store: Store, spec: Spec) -> None:
    # As in test_gate: a standard deviation of 0.0155, Student's t of 4 degrees at 0.995, 4.604, and the root of
    # π/2 · (1/5 + 1/3) or of π/2 · (1/5 + 1/10).
    found = full(store, spec)
    assert sensitivity(found, 3) == pytest.approx(1 - math.exp(-4.604 * 0.0155 * 0.9153), abs=3e-4)
    assert sensitivity(found, 10) == pytest.approx(1 - math.exp(-4.604 * 0.0155 * 0.6865), abs=3e-4)


def test_a_baseline_with_too_few_runs_of_a_throughput_detects_no_change(store: Store, spec: Spec) -> None:
    save_throughput(store, spec, 0, [4 / 100])
    save_throughput(store, spec, 1, [4 / 101])
    assert sensitivity(baseline_of(store, spec), 3) is None


def test_noise_is_that_between_processes(store: Store, spec: Spec) -> None:
    save_throughput(store, spec, 0, [4 / 100])
    save_throughput(store, spec, 1, [4 / 110])
    noise = baseline_of(store, spec).noise
    assert noise is not None
    # Two logarithms apart by ln 1.1 have a standard deviation of ln 1.1 / sqrt 2; five digits are kept.
    assert noise.spread == pytest.approx(math.log(1.1) / math.sqrt(2), rel=1e-3)
    assert noise.degrees == 1


def test_noisy_runs_other_machines_and_other_versions_are_left_out(store: Store, spec: Spec) -> None:
    save_throughput(store, spec, 0, [0.04], torch="2.4.0")
    save_throughput(store, spec, 1, [0.04], machine=H200)
    save_throughput(store, spec, 2, [0.04], noisy=True)
    save_throughput(store, spec, 3, [0.04])
    found = baseline_of(store, spec)
    assert tuple(found.runs) == (run_id(3),)
    assert short_of_runs(found) == {job_of_kind(spec, "throughput"): 1}


def test_of_many_runs_the_ten_newest_are_taken(store: Store, spec: Spec) -> None:
    for number in range(12):
        save_throughput(store, spec, number, [0.04])
    assert set(baseline_of(store, spec).runs) == {run_id(number) for number in range(2, 12)}


def test_a_job_that_fails_now_is_left_out_though_it_once_did_not(store: Store, spec: Spec) -> None:
    save_count(store, spec, 0)
    save_count(store, spec, 1, error="no such network")
    assert baseline_of(store, spec).cells == {}


def test_a_copy_of_a_result_does_not_count_twice(store: Store, spec: Spec) -> None:
    result = save_throughput(store, spec, 0, [0.04])
    path = store.path_of(result)
    copy = path.with_name(f"{path.stem}-copy.json")
    copy.write_text(path.read_text())
    selection = select_results(plan_of(spec), store, LAPTOP)
    assert selection.throughputs[result.job.key] == (result,)
    assert store.damaged == [
        f"{copy}: belongs in {path}; set aside as {copy.name}.damaged and measured again when requested"
    ]


def test_results_of_two_jobs_that_claim_the_same_run_are_refused(store: Store, spec: Spec) -> None:
    save_count(store, spec, 0)
    save_accuracy(store, spec, 0, [True])
    with pytest.raises(StoreError) as reason:
        baseline_of(store, spec)
    count, evaluation = (store.root / job_of_kind(spec, kind).key for kind in ("count", "evaluate"))
    assert str(reason.value) == (
        f"two results claim the run {run_id(0)}, in {count}/ and {evaluation}/; remove the one that is a copy"
    )


def test_two_tables_of_one_name_are_refused(tmp_path: Path, store: Store, spec: Spec) -> None:
    other = mine(tmp_path, name="other/mine.toml")
    (now, diff), (_, too) = judge_selection(store, spec), judge_selection(store, other)
    with pytest.raises(HarnessError) as reason:
        make_baseline([diff.table, too.table], now)
    assert str(reason.value) == (
        f"{spec.path} and {other.path} are both called 'mine'; rename one, or take one at a time"
    )


# The file.


def test_the_file_has_a_line_for_each_run_and_each_cell(store: Store, spec: Spec) -> None:
    save_count(store, spec, 10)
    save_accuracy(store, spec, 20, [True] * 7 + [False] * 3)
    assert to_json(baseline_of(store, spec)) == (
        f"""{{
"schema": 1,
"machine": null,
"noise": null,
"runs": {{
"{run_id(10)}": {{"job": {{"kind": "count", "revision": 1, "settings": {{"model": "tiny", "res": 224}}}}, \
"images": null}},
"{run_id(20)}": {{"job": {{"kind": "evaluate", "revision": 2, "settings": {{"crop": 0.875, "data": "imagenet", \
"interpolation": "bicubic", "model": "tiny", "norm": "imagenet", "precision": "float32", "res": 224, \
"weights": "w"}}}}, "images": "f"}}
}},
"tables": {{
"mine": {{
"cells": {{
"tiny": {{
"params": {{"unit": "M", "value": 5.5, "runs": ["{run_id(10)}"]}},
"top1": {{"unit": "%", "value": 70.0, "runs": ["{run_id(20)}"]}}
}}
}},
"paper": "the paper"
}}
}}
}}
"""
    )


def test_what_is_written_is_read_and_written_alike(tmp_path: Path, store: Store, spec: Spec) -> None:
    found = full(store, spec)
    path = tmp_path / "baseline.json"
    path.write_text(to_json(found), encoding="utf-8")
    assert read(path) == found
    assert to_json(read(path)) == to_json(found)


run_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
speeds = st.lists(st.floats(1e-4, 1e3).map(lambda one: float(f"{one:.5g}")), min_size=1, max_size=3).map(tuple)


@settings(deadline=None)
@given(
    words,
    words,
    words,
    st.lists(
        st.tuples(run_ids, speeds, st.none() | st.floats(1e-4, 1.0)),
        min_size=1,
        max_size=4,
        unique_by=lambda one: one[0],
    ),
    st.floats(0, 1),
)
def test_any_names_and_any_throughputs_come_back(
    tmp_path_factory: pytest.TempPathFactory, table: str, row: str, column: str, runs: list[Any], spread: float
) -> None:
    job = Job.of("throughput", {"model": row, "res": 224})
    kept = {
        run: BaselineRun(id=run, job=job, batch=3, seconds=seconds, reference_seconds=reference_seconds)
        for run, seconds, reference_seconds in runs
    }
    found = Baseline(
        papers={table: column},
        cells={
            (table, row, column): BaselineCell(
                unit=column.strip("%"), value=median_throughput(kept.values()), runs=tuple(kept)
            )
        },
        runs=kept,
        machine=Machine(device="cpu", name=row, memory=1),
        noise=Noise(spread=spread, degrees=4),
    )
    path = tmp_path_factory.mktemp("any") / "baseline.json"
    path.write_text(to_json(found), encoding="utf-8")
    assert read(path) == found


# What is refused.


def test_a_model_that_was_trained_comes_back_with_the_trainings_behind_it(tmp_path: Path) -> None:
    (table8,) = Catalog().find(["table8"])
    job = make_plan([table8]).cells_in(table8)["none", "finetuned"].job
    assert job
    assert [part for part, _ in job.needs] == ["weights"]
    found = Baseline(
        papers={"table8": "the paper"},
        cells={("table8", "none", "finetuned"): BaselineCell(unit="% top-1", value=83.1, runs=("run",))},
        runs={"run": BaselineRun(id="run", job=job, images="imagenet")},
    )
    path = tmp_path / "baseline.json"
    path.write_text(to_json(found), encoding="utf-8")
    assert read(path) == found


def edited(tmp_path: Path, found: Baseline, edit: Callable[[Any], object]) -> str:
    """Edit a file by hand and read it: the sentence that comes of it, without its beginning and end."""
    data = json.loads(to_json(found))
    edit(data)
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(HarnessError) as reason:
        read(path)
    said = str(reason.value)
    assert said.startswith(f"{path}: ")
    assert said.endswith("; write the file anew with `harness baseline`")
    return said.removeprefix(f"{path}: ").removesuffix("; write the file anew with `harness baseline`")


def cell(data: Any, column: str) -> Any:  # noqa: ANN401 -- what JSON holds
    return data["tables"]["mine"]["cells"]["tiny"][column]


SPEED_RUN, COUNT_RUN = run_id(0), run_id(10)

EDITS: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: d.pop("schema"), "is not a baseline"),
    (lambda d: d.pop("runs"), "runs is missing; it must be a table"),
    (lambda d: d.update(nosie=1), "unknown key 'nosie'; did you mean 'noise'?"),
    (lambda d: d.update(runs=[]), "runs must be a table, not a list"),
    (lambda d: d.update(machine=None), "has throughputs but no machine that they were measured on"),
    (lambda d: d["machine"].update(cores="four"), "cores in [machine] must be an integer, not 'four'"),
    (lambda d: d["noise"].update(spread=12), "spread in [noise] must be at most 1, not 12"),
    (lambda d: d["noise"].update(degrees=0), "degrees in [noise] must be at least 1, not 0"),
    (
        lambda d: cell(d, "top1").update(value=720),
        "value in [tables.mine.cells.tiny.top1] must be at most 100, not 720.0",
    ),
    (
        lambda d: cell(d, "params").update(value=-5),
        "value in [tables.mine.cells.tiny.params] must be at least 0, not -5.0",
    ),
    (lambda d: d["machine"].update(memory=10**28), f"holds {10**28}, which is too large"),
    (
        lambda d: d["runs"].update({"../x": d["runs"][COUNT_RUN]}),
        "the name of [runs.../x] must be letters, digits, '-', '_' and '.', not '../x'",
    ),
    (
        lambda d: cell(d, "top1").update(value=True),
        "value in [tables.mine.cells.tiny.top1] must be a number or a string, not true",
    ),
    (
        lambda d: cell(d, "top1").update(value=None),
        "value in [tables.mine.cells.tiny.top1] must be a number or a string, not null",
    ),
    (
        lambda d: cell(d, "speed").update(value=1020),
        "value in [tables.mine.cells.tiny.speed] is 1020.0, but its runs come to 102 im/s",
    ),
    (
        lambda d: cell(d, "speed").update(value="fast"),
        "value in [tables.mine.cells.tiny.speed] must be a number of im/s, not 'fast'",
    ),
    (
        lambda d: cell(d, "params").update(runs=["2026"]),
        "unknown run '2026' in [tables.mine.cells.tiny.params]",
    ),
    (lambda d: cell(d, "params").update(runs=[]), "runs in [tables.mine.cells.tiny.params] must not be empty"),
    (
        lambda d: cell(d, "speed").update(runs=[SPEED_RUN] * 3),
        "runs in [tables.mine.cells.tiny.speed] names a run twice",
    ),
    (
        lambda d: cell(d, "params").update(runs=[COUNT_RUN, SPEED_RUN]),
        "runs in [tables.mine.cells.tiny.params] are not of one throughput",
    ),
    (
        lambda d: cell(d, "params").pop("unit"),
        "unit in [tables.mine.cells.tiny.params] is missing; it must be a string",
    ),
    (lambda d: d["tables"]["mine"].update(paper=5), "paper in [tables.mine] must be a string, not 5"),
    (
        lambda d: d["runs"][SPEED_RUN].update(seconds=[-1]),
        f"seconds in [runs.{SPEED_RUN}] must be above 0, not -1 (item 0)",
    ),
    (lambda d: d["runs"][SPEED_RUN].update(yardstick=0), f"yardstick in [runs.{SPEED_RUN}] must be above 0, not 0"),
    (lambda d: d["runs"][SPEED_RUN].update(seconds=[]), f"seconds in [runs.{SPEED_RUN}] must not be empty"),
    (lambda d: d["runs"][SPEED_RUN].update(batch=0), f"batch in [runs.{SPEED_RUN}] must be at least 1, not 0"),
    (
        lambda d: d["runs"][SPEED_RUN]["job"].update(kind="thruput"),
        f"unknown kind of job 'thruput' in [runs.{SPEED_RUN}.job]; did you mean 'throughput'?",
    ),
    (
        lambda d: d["runs"][COUNT_RUN]["job"].update(kind="throughput"),
        f"[runs.{COUNT_RUN}] is of a throughput job but has no seconds",
    ),
    (
        lambda d: d["runs"][SPEED_RUN]["job"].update(kind="count"),
        f"[runs.{SPEED_RUN}] is of a count job but has seconds",
    ),
    (
        lambda d: d["runs"][COUNT_RUN]["job"]["settings"].update(res=[]),
        f"res in [runs.{COUNT_RUN}.job.settings] must be a string, a number, true or false, not a list",
    ),
]


@pytest.mark.parametrize(("edit", "sentence"), EDITS, ids=[sentence for _, sentence in EDITS])
def test_what_was_edited_into_nonsense_is_refused(
    tmp_path: Path, store: Store, spec: Spec, edit: Callable[[Any], object], sentence: str
) -> None:
    assert edited(tmp_path, full(store, spec), edit) == sentence


ANEW = "write the file anew with `harness baseline`"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema": 2}', f": has schema 2, this version reads 1; update the harness, or {ANEW}"),
        ("[]", f": is not a baseline; {ANEW}"),
        ('{"schema": 1, "noise": NaN}', f": holds NaN, which is not a number; {ANEW}"),
        ('{"schema": 1, "noise": 1e999}', f": holds 1e999, which is too large; {ANEW}"),
        ('{"schema": ' + "1" * 5000 + "}", f": holds {'1' * 20}…, which is too large; {ANEW}"),
        ('{"schema": 1, "schema": 1}', f": has 'schema' twice in one place; {ANEW}"),
        ('{\n"schema": 1', f":2: is not JSON (Expecting ',' delimiter); {ANEW}"),
        (
            '{\n<<<<<<< ours\n"schema": 1}\n>>>>>>> theirs\n',
            (
                ":2: is not JSON (Expecting property name enclosed in double quotes); settle the merge conflict, or "
                f"{ANEW}"
            ),
        ),
        ("[" * 100_000, f": is nested without end; {ANEW}"),
    ],
    ids=["schema", "list", "nan", "infinite", "digits", "twice", "cut", "conflict", "deep"],
)
def test_what_is_no_baseline_is_refused_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError) as reason:
        read(path)
    assert str(reason.value) == f"{path}{sentence}"


def test_bytes_a_folder_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(b"\xff\xfe\x00")
    for place, sentence in (
        (path, f"is not text; {ANEW}"),
        (tmp_path, "Is a directory; `harness baseline` writes one"),
        (tmp_path / "gone", "No such file or directory; `harness baseline` writes one"),
    ):
        with pytest.raises(HarnessError) as reason:
            read(place)
        assert str(reason.value) == f"--baseline {place}: {sentence}"


def test_a_value_that_its_metric_cannot_have_is_refused_whatever_its_unit(
    tmp_path: Path, store: Store, spec: Spec
) -> None:
    data = json.loads(to_json(full(store, spec)))
    cell(data, "top1").update(value=250, unit="apples")
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(HarnessError) as reason:
        check_fits(read(path), path, [spec])
    assert str(reason.value) == f"{path}: value in [tables.mine.cells.tiny.top1] must be at most 100, not 250.0; {ANEW}"


def test_a_baseline_of_another_paper_is_refused(tmp_path: Path, store: Store, spec: Spec) -> None:
    found = full(store, spec)
    other = mine(tmp_path, SPEC.replace("the paper", "another paper"))
    check_fits(found, Path("b.json"), [spec])
    with pytest.raises(HarnessError) as reason:
        check_fits(found, Path("b.json"), [other])
    assert str(reason.value) == (
        f"b.json: its mine is of 'the paper', {other.path} is of 'another paper'; that is a baseline of another paper, "
        "write one of this with `harness baseline mine`"
    )


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("mine", "tinny", "top1"), "mine has no row 'tinny'; did you mean 'tiny'?"),
        (("mine", "tiny", "top-1"), "mine has no column 'top-1'; did you mean 'top1'?"),
        (("mine", "x", "top1"), "mine has no row 'x'"),
    ],
)
def test_cells_that_a_table_does_not_have_are_refused(
    store: Store, spec: Spec, place: tuple[str, str, str], sentence: str
) -> None:
    found = full(store, spec)
    found = replace(found, cells={**found.cells, place: found.cells["mine", "tiny", "top1"]})
    with pytest.raises(HarnessError) as reason:
        check_fits(found, Path("b.json"), [spec])
    assert str(reason.value) == f"b.json: {sentence}; {ANEW}"
