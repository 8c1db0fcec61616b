"""Verdicts: what is not comparable is never judged, and every verdict has its reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.table import fill
from harness.judge.verdict import JudgedCell, Verdict, compare
from harness.machine import Machine
from harness.plan.plan import Options, make_plan
from harness.specs import load
from harness.store.result import Measurement
from tests.fakes import LAPTOP, V100, result_of

SPEC = """
[table]
title = "A table"
[source.paper]
kind = "paper"
cite = "the paper"
[source.arxiv]
kind = "paper"
edition = "arxiv"
cite = "the first edition"
[source.timm]
kind = "timm"
cite = "timm"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 1
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "V100 16GB"
set = {{ protocol = "paper" }}
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "%"
set = {{ data = "imagenet" }}
[row.net]
label = "Net"
set = {{ model = "net", res = 224, weights = "w" }}
{values}
{notes}
"""


def finding(
    tmp_path: Path,
    column: str,
    *,
    values: str,
    notes: str = "",
    value: float | None = None,
    machine: Machine = V100,
    options: Options | None = None,
    error: str | None = None,
) -> JudgedCell:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(values=values, notes=notes), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], options)
    job = plan.cells_in(spec)["net", column].job
    results = {}
    if value is not None or error:
        assert job
        results[job.key] = result_of(job, machine=machine, value=value or 0.0, error=error)
    return compare(fill(spec, plan, results)).judged_cells["net", column]


@pytest.mark.parametrize(
    ("value", "verdict"), [(11.0, "match"), (13.0, "match"), (13.01, "deviates"), (10.99, "deviates")]
)
def test_an_absolute_tolerance_ends_where_it_says(tmp_path: Path, value: float, verdict: str) -> None:
    found = finding(tmp_path, "params", values="paper = { params = 12 }", value=value)
    assert found.verdict == verdict
    assert found.delta == pytest.approx(value - 12)


@pytest.mark.parametrize(("value", "verdict"), [(105.0, "match"), (95.0, "match"), (107.0, "deviates")])
def test_a_relative_tolerance_is_a_share_of_the_published_value(tmp_path: Path, value: float, verdict: str) -> None:
    assert finding(tmp_path, "speed", values="paper = { speed = 100 }", value=value).verdict == verdict


def test_what_matches_by_construction_is_shown_with_its_sign_and_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    sized = SPEC + '[column.res]\nlabel = "image size"\njob = "count"\nmetric = "res"\nunit = "px"\n'
    path.write_text(sized.format(values="paper = {{ params = 12, res = 224 }}".format(), notes=""), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    results = {job.key: result_of(job, machine=V100, value=12.5) for job in plan.jobs if job.kind == "count"}
    diff = compare(fill(spec, plan, results))
    assert [diff.judged_cells["net", column].verdict for column in ("params", "res")] == ["match", "match"]
    assert diff.counts == {Verdict.MATCH: 1, Verdict.MISSING: 2}


def test_a_value_outside_the_tolerance_whose_interval_holds_the_reference_is_noise(tmp_path: Path) -> None:
    # The fake's interval is 1 % to either side: 105.9 less 1 % is 104.8, which is still above 100; so widen it by hand.
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(values="paper = { speed = 100 }", notes=""), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    job = plan.cells_in(spec)["net", "speed"].job
    assert job
    result = result_of(job, machine=V100, value=110.0)
    wide = Measurement(unit="im/s", value=110.0, low=98.0, high=122.0)
    results = {job.key: type(result)(**{**vars(result), "metrics": {"throughput": wide}})}
    found = compare(fill(spec, plan, results)).judged_cells["net", "speed"]
    assert found.verdict == "noise"
    assert found.reason == "outside 5 %, but the 95 % interval holds the paper (100)"


def test_a_throughput_on_another_machine_is_shown_and_not_judged(tmp_path: Path) -> None:
    found = finding(tmp_path, "speed", values="paper = { speed = 100 }", value=100.0, machine=LAPTOP)
    assert found.verdict == "not comparable"
    assert found.reason == "measured on Some Processor, 4 cores, published for V100 16GB"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(protocol="modern"), "measured under the modern protocol, published under the paper one"),
        (Options(batch=8), "measured with batch = 8, memory = None, which is not how the published value was"),
        (Options(repeats=5), "measured with repeats = 5, which is not how the published value was"),
        (Options(memory="32GiB"), "measured with memory = 32GiB, which is not how the published value was"),
    ],
)
def test_a_throughput_under_other_settings_is_not_judged_even_on_the_right_machine(
    tmp_path: Path, options: Options, reason: str
) -> None:
    found = finding(tmp_path, "speed", values="paper = { speed = 100 }", value=100.0, options=options)
    assert (found.verdict, found.reason) == ("not comparable", reason)


def test_what_matches_one_edition_and_not_the_other_is_explained(tmp_path: Path) -> None:
    values = "paper = { params = 600 }\narxiv = { params = 632 }"
    found = finding(tmp_path, "params", values=values, value=632.0)
    assert found.verdict == "explained"
    assert found.reason == "matches the first edition (632), not the paper (600)"


def test_what_matches_the_paper_is_a_match_whatever_timm_says(tmp_path: Path) -> None:
    values = "paper = { params = 12 }\ntimm = { params = 20 }"
    assert finding(tmp_path, "params", values=values, value=12.5).verdict == "match"


def test_what_matches_timm_and_not_the_paper_is_explained(tmp_path: Path) -> None:
    values = "paper = { params = 12 }\ntimm = { params = 20 }"
    found = finding(tmp_path, "params", values=values, value=20.0)
    assert (found.verdict, found.reason) == ("explained", "matches timm (20), not the paper (12)")


def test_a_known_error_in_the_paper_is_never_judged(tmp_path: Path) -> None:
    notes = '[footnote.B2]\ntext = "A slip."\neffect = "wrong"'
    found = finding(tmp_path, "speed", values='paper = { speed = "100[B2]" }', notes=notes, value=100.0)
    assert (found.verdict, found.reason) == ("explained", "A slip.")


def test_a_deviation_that_a_footnote_explains_is_explained(tmp_path: Path) -> None:
    notes = '[footnote.B14]\ntext = "Another count."\neffect = "explains"'
    values = 'paper = { params = "307[B14]" }'
    assert finding(tmp_path, "params", values=values, notes=notes, value=304.7).verdict == "explained"
    assert finding(tmp_path, "params", values=values, notes=notes, value=306.5).verdict == "match"


def test_a_remark_excuses_nothing(tmp_path: Path) -> None:
    notes = '[footnote.a]\ntext = "By the way."'
    found = finding(tmp_path, "params", values='paper = { params = "12[a]" }', notes=notes, value=14.0)
    assert (found.verdict, found.reason) == ("deviates", "not within 1 M of the paper (12)")


def test_a_published_uncertainty_widens_the_tolerance(tmp_path: Path) -> None:
    assert finding(tmp_path, "params", values='paper = { params = "12 ± 2" }', value=13.9).verdict == "match"
    assert finding(tmp_path, "params", values='paper = { params = "12 ± 2" }', value=14.1).verdict == "deviates"


def test_a_failure_is_shown_with_its_error(tmp_path: Path) -> None:
    found = finding(tmp_path, "params", values="paper = { params = 12 }", error="out of memory at batch 1")
    assert (found.verdict, found.reason) == ("failed", "out of memory at batch 1")


def test_what_was_not_measured_says_how_to_measure_it(tmp_path: Path) -> None:
    found = finding(tmp_path, "params", values="paper = { params = 12 }")
    assert (found.verdict, found.reason) == (
        "missing",
        "not measured yet; run `harness reproduce` with these options",
    )


def test_a_metric_that_the_job_does_not_give_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    text = SPEC.format(values="paper = { params = 12 }", notes="").replace('metric = "params"', 'metric = "heads"')
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    job = plan.cells_in(spec)["net", "params"].job
    assert job
    found = compare(fill(spec, plan, {job.key: result_of(job)})).judged_cells["net", "params"]
    assert (found.verdict, found.reason) == (Verdict.MISSING, "a count job gives no heads for this model")


TRAINED = """
[table]
title = "Trained"
[source.paper]
kind = "paper"
cite = "the paper"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
unit = "%"
tolerance = 0.05
set = { model = "deit_tiny_patch16_224", res = 224, recipe = "deit-ti" }
[row.net]
label = "Net"
paper = { top1 = 80 }
"""


@pytest.mark.parametrize(
    ("value", "verdict"), [(80.2, "match"), (79.8, "match"), (80.21, "deviates"), (79.79, "deviates")]
)
def test_a_training_may_miss_the_published_accuracy_by_what_trainings_differ(
    tmp_path: Path, value: float, verdict: str
) -> None:
    # The authors name about 0.2 points between two trainings; the tolerance of 0.05 is for published weights.
    path = tmp_path / "spec.toml"
    path.write_text(TRAINED, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(train=True, data=frozenset({"imagenet"})))
    job = plan.cells_in(spec)["net", "top1"].job
    assert job
    result = replace(result_of(job), metrics={"top1": Measurement(unit="%", value=value)})
    found = compare(fill(spec, plan, {job.key: result})).judged_cells["net", "top1"]
    assert found.verdict == verdict
    assert "within 0.2 % of the paper (80)" in found.reason


SHAPE = """
[table]
title = "Speeds"
[source.paper]
kind = "paper"
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "V100 16GB"
[family.a]
label = "A"
reference = "a2"
[row.a1]
label = "A1"
family = "a"
set = { model = "a1", res = 224 }
paper = { speed = 400 }
[row.a2]
label = "A2"
family = "a"
set = { model = "a2", res = 224 }
paper = { speed = 100 }
[row.a2_again]
label = "A2 again"
family = "a"
set = { model = "a2", res = 224 }
paper = { speed = "999[w]" }
[row.b1]
label = "B1"
set = { model = "b1", res = 224 }
paper = { speed = 200 }
[row.b2]
label = "B2"
set = { model = "b2", res = 224 }
paper = { speed = 50 }
[footnote.w]
text = "Wrong."
effect = "wrong"
"""


def test_the_shape_of_a_throughput_column_counts_each_model_once_and_leaves_known_errors_out(tmp_path: Path) -> None:
    path = tmp_path / "speeds.toml"
    path.write_text(SHAPE, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    # Published order a1 > b1 > a2 > b2; measured a1 > a2 > b1 > b2: one of six pairs is swapped.
    speeds = {"a1": 40.0, "a2": 20.0, "b1": 10.0, "b2": 5.0}
    results = {job.key: result_of(job, value=speeds[str(job["model"])]) for job in plan.jobs}
    (shape,) = compare(fill(spec, plan, results)).shapes
    assert shape.rows == 4
    assert shape.kendall.value == pytest.approx(4 / 6)
    assert shape.spearman.value == pytest.approx(0.8)
    (ratio,) = shape.ratios
    assert (ratio.row.key, ratio.reference.key) == ("a1", "a2")
    assert (ratio.measured, ratio.published) == (2.0, 4.0)
