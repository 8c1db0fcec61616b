"""Verdicts: what is not comparable is never judged, and every verdict has its reason."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.judge.table import fill
from harness.judge.verdict import JudgedCell, Verdict, compare
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, dependencies, make_plan
from harness.specs import Catalog, Spec, load
from harness.specs.catalog import shipped_specs
from harness.specs.checked import Scalar
from harness.store.result import Measurement, Result
from tests.fakes import LAPTOP, V100, images_of, result_of, with_facts, with_trainings

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


@pytest.mark.parametrize(
    ("value", "verdict", "reason"),
    [
        (12.42, "match", "within 1 M of the paper (12) and 1 % of timm (12.3)"),
        (12.43, "match", "within 1 M of the paper (12)"),
        (13.01, "deviates", "not within 1 M of the paper (12) and 1 % of timm (12.3)"),
    ],
)
def test_a_value_is_judged_by_the_tolerance_of_each_source(
    tmp_path: Path, value: float, verdict: str, reason: str
) -> None:
    values = 'tolerance = { paper = 1, timm = "1%" }\npaper = { params = 12 }\ntimm = { params = 12.3 }'
    found = finding(tmp_path, "params", values=values, value=value)
    assert (found.verdict, found.reason) == (verdict, reason)


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


SLIP = '[footnote.B2]\ntext = "A slip."\neffect = "wrong"\n'


@pytest.mark.parametrize(
    ("value", "verdict", "reason"),
    [
        (170.0, "explained", "within 5 % of the paper as corrected (169.1); A slip."),
        (96.9, "deviates", "not within 5 % of the paper as corrected (169.1)"),  # what was misprinted
        (507.3, "deviates", "not within 5 % of the paper as corrected (169.1)"),  # three times what it should be
    ],
)
def test_a_known_error_explains_a_value_only_where_it_should_be(
    tmp_path: Path, value: float, verdict: str, reason: str
) -> None:
    notes = SLIP + "corrected = { speed = 169.1 }"
    found = finding(tmp_path, "speed", values='paper = { speed = "96.9[B2]" }', notes=notes, value=value)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_a_known_error_that_nobody_can_correct_is_never_judged(tmp_path: Path) -> None:
    found = finding(tmp_path, "speed", values='paper = { speed = "100[B2]" }', notes=SLIP, value=100.0)
    assert (found.verdict, found.reason) == ("not comparable", "no value is known to be right: A slip.")


@pytest.mark.parametrize(
    ("value", "verdict"), [(304.7, "explained"), (303.6, "deviates"), (306.5, "match"), (150.0, "deviates")]
)
def test_a_footnote_explains_a_deviation_only_where_it_says_that_the_value_is(
    tmp_path: Path, value: float, verdict: str
) -> None:
    notes = '[footnote.B14]\ntext = "Another count."\neffect = "explains"\ncorrected = { params = 304.7 }'
    found = finding(tmp_path, "params", values='paper = { params = "307[B14]" }', notes=notes, value=value)
    assert found.verdict == verdict


def test_the_shipped_misprints_are_judged_by_what_they_should_be(tmp_path: Path) -> None:
    (table5,) = Catalog().find(["table5"])
    plan = make_plan([table5], Options(rows=("efficientnet_b5_ra",), columns=("throughput",)))
    (job,) = plan.jobs
    verdicts = {
        value: judged_cell(table5, plan, {job.key: result_of(job, machine=V100, value=value)}).verdict
        for value in (169.1, 96.9, 3 * 169.1)
    }
    assert list(verdicts.values()) == ["explained", "deviates", "deviates"]


def test_a_remark_excuses_nothing(tmp_path: Path) -> None:
    notes = '[footnote.a]\ntext = "By the way."'
    found = finding(tmp_path, "params", values='paper = { params = "12[a]" }', notes=notes, value=14.0)
    assert (found.verdict, found.reason) == ("deviates", "not within 1 M of the paper (12)")


def test_a_published_uncertainty_widens_the_tolerance(tmp_path: Path) -> None:
    values = 'paper = { params = "12 ± 2" }\ntimm = { params = 12.5 }'
    inside, outside = (finding(tmp_path, "params", values=values, value=value) for value in (13.9, 14.1))
    assert (inside.verdict, inside.reason) == ("match", "within the published ± 2 M of the paper (12 ± 2)")
    assert (outside.verdict, outside.reason) == (
        "deviates",
        "not within the published ± 2 M of the paper (12 ± 2) and 1 M of timm (12.5)",
    )


def test_a_tolerance_is_given_with_all_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "fine.toml"
    text = SPEC.format(values="paper = { speed = 100 }", notes="").replace('"5%"', '"0.5%"')
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    job = plan.cells_in(spec)["net", "speed"].job
    assert job
    found = compare(fill(spec, plan, {job.key: result_of(job, machine=V100, value=100.4)}))
    assert found.judged_cells["net", "speed"].reason == "within 0.5 % of the paper (100)"


def test_a_failure_is_shown_with_its_error(tmp_path: Path) -> None:
    found = finding(tmp_path, "params", values="paper = { params = 12 }", error="out of memory at batch 1")
    assert (found.verdict, found.reason) == ("failed", "out of memory at batch 1")


def test_what_was_not_measured_says_how_to_measure_it(tmp_path: Path) -> None:
    found = finding(tmp_path, "params", values="paper = { params = 12 }")
    assert (found.verdict, found.reason) == (
        "missing",
        "not measured yet; `harness reproduce FILE` measures it",
    )


@pytest.mark.parametrize(
    ("name", "column", "options", "command"),
    [
        ("table5", "throughput", Options(), "harness reproduce table5"),
        ("table5", "throughput", Options(batch=8), "harness reproduce table5 --batch 8"),
        ("table5", "throughput", Options(protocol="modern"), "harness reproduce table5 --protocol modern --memory all"),
        (
            "table5",
            "top1",
            Options(data=frozenset({"imagenet"})),
            "harness reproduce table5 --data imagenet=PATH",
        ),
        ("table8", "pretrained", Options(train=True, scale="proxy"), "harness reproduce table8 --train --scale proxy"),
        ("mine.toml", "throughput", Options(), "harness reproduce mine.toml"),
    ],
)
def test_what_to_type_names_the_table_and_the_options_that_decide_which_result_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, column: str, options: Options, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped_specs() / "table5.toml", tmp_path / "mine.toml")
    (spec,) = Catalog().find([name])
    row = spec.rows[0].key if name == "table8" else "deit_s"
    plan = make_plan([spec], replace(options, rows=(row,), columns=(column,)))
    (cell,) = compare(fill(plan.specs[0], plan, {})).judged_cells.values()
    assert (cell.verdict, cell.reason) == (Verdict.MISSING, f"not measured yet; `{command}` measures it")


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
    found = compare(fill(spec, plan, with_trainings(result))).judged_cells["net", "top1"]
    assert found.verdict == verdict
    assert "within 0.2 % of the paper (80)" in found.reason


# The chain behind a number.


SCRIPT_SPEC = """
[table]
title = "timm's"
[source.timm]
kind = "timm"
cite = "timm"
[machine."Core i9-10940X"]
cores = 14
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "Core i9-10940X"
torch = "2.4.0"
set = { protocol = "timm", batch = 1 }
[row.net]
label = "Net"
set = { model = "net", res = 224 }
timm = { speed = 100 }
"""
PUBLISHED_CPU = Machine(device="cpu", name="Intel Core i9-10940X @ 3.30GHz", memory=2**36, cores=28, threads=14)


@pytest.mark.parametrize(
    ("machine", "value", "verdict", "reason"),
    [
        (PUBLISHED_CPU, 104.0, Verdict.MATCH, "within 5 % of timm (100)"),
        (
            *(PUBLISHED_CPU, 110.0, Verdict.DEVIATES),
            "not within 5 % of timm (100); torch is 2.13.0 here and was 2.4.0 there",
        ),
        (
            *(replace(PUBLISHED_CPU, threads=28), 100.0, Verdict.NOT_COMPARABLE),
            "measured with 28 threads, published for the 14 cores of Core i9-10940X: set OMP_NUM_THREADS=14",
        ),
        (
            *(replace(PUBLISHED_CPU, cores=8), 100.0, Verdict.NOT_COMPARABLE),
            "measured on 8 of the 14 cores of Core i9-10940X: allow this process all of them",
        ),
        (LAPTOP, 100.0, Verdict.NOT_COMPARABLE, f"measured on {LAPTOP.label}, published for Core i9-10940X"),
    ],
)
def test_a_throughput_of_a_cpu_is_judged_on_that_cpu_with_as_many_threads_as_it_has_cores(
    tmp_path: Path, machine: Machine, value: float, verdict: Verdict, reason: str
) -> None:
    path = tmp_path / "timms.toml"
    path.write_text(SCRIPT_SPEC, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    software = {"torch": "2.13.0+cpu", "timm": "1.0.31"}
    results = {job.key: result_of(job, value=value, machine=machine, software=software) for job in plan.jobs}
    judged = judged_cell(spec, plan, results)
    assert (judged.verdict, judged.reason) == (verdict, reason)


def test_a_spec_that_sets_the_threads_is_judged_with_them(tmp_path: Path) -> None:
    path = tmp_path / "timms.toml"
    path.write_text(SCRIPT_SPEC.replace("batch = 1", "batch = 1, threads = 14"), encoding="utf-8")
    spec, machine = load(path), replace(PUBLISHED_CPU, threads=28)
    plan = make_plan([spec])
    results = {job.key: result_of(job, value=104.0, machine=machine) for job in plan.jobs}
    assert judged_cell(spec, plan, results).verdict is Verdict.MATCH


@pytest.mark.parametrize(
    ("metric", "metrics", "reason"),
    [
        (
            "p99",
            ("latency", "p50", "p90"),
            "p99 needs 100 timed iterations, not 30; set repeats = 100, or give --repeats 100",
        ),
        ("compile_time", ("latency",), "nothing was compiled; set compile = true"),
        ("peak_memory", ("latency",), "the device does not tell it"),
        ("energy", (), "a throughput job gives no energy for this model"),
        (
            *("latency", ()),
            "run {id} is from before latency was recorded; `harness reproduce {path} --rerun` measures it",
        ),
    ],
)
def test_a_time_that_a_run_does_not_have_says_what_gives_it(
    tmp_path: Path, metric: str, metrics: tuple[str, ...], reason: str
) -> None:
    path = tmp_path / "latency.toml"
    path.write_text(SCRIPT_SPEC.replace('metric = "throughput"', f'metric = "{metric}"'), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    (job,) = plan.jobs
    result = result_of(job, machine=PUBLISHED_CPU)
    there = {**result.metrics, **{name: Measurement(unit="ms", value=40.0) for name in metrics}}
    judged = judged_cell(spec, plan, {job.key: replace(result, metrics=there)})
    assert judged.verdict is Verdict.MISSING
    assert judged.reason == reason.format(id=result.id, path="FILE")


def judged_cell(spec: Spec, plan: Plan, results: Mapping[str, Result]) -> JudgedCell:
    """Judge the only cell of a plan."""
    (planned,) = plan.cells
    return compare(fill(plan.specs[0], plan, results)).judged_cells[planned.cell.row.key, planned.cell.column.key]


def trained_cell(
    tmp_path: Path, recipe: str = "deit-ti", *, seeds: int = 1, changes: Mapping[str, Scalar] | None = None
) -> tuple[Spec, Plan]:
    """A table of one trained model, whose published accuracy is 80."""
    path = tmp_path / "spec.toml"
    path.write_text(TRAINED.replace('recipe = "deit-ti"', f'recipe = "{recipe}"'), encoding="utf-8")
    options = Options(train=True, data=frozenset({"imagenet"}), seeds=seeds, changes=changes or {})
    spec = load(path)
    return spec, make_plan([spec], options)


def accuracies(plan: Plan, *values: float) -> dict[str, Result]:
    """The results of each seed and of everything behind it, whole."""
    (planned,) = plan.cells
    jobs = filter(None, (planned.job, *planned.repeats))
    return with_trainings(
        *(
            replace(result_of(job), metrics={"top1": Measurement(unit="%", value=value, low=value - 9, high=value + 9)})
            for job, value in zip(jobs, values, strict=False)
        )
    )


TEACHER = (
    '[recipe]\ntitle = "Mine"\nlike = "deit-ti-distilled"\n[set]\n'
    'model = "deit_tiny_patch16_224"\ndistillation = "hard"\nteacher = "regnety-16gf"\n'
)


@pytest.mark.parametrize(
    ("recipe", "part", "reason"),
    [
        ("deit-ti", "weights", "trained on 1 of the 100 images of imagenet/train"),
        ("deit-b-finetune", "start", "pre-trained on 1 of the 100 images of imagenet/train"),
        (TEACHER, "teacher", "its teacher trained on 1 of the 100 images of imagenet/train"),
    ],
)
def test_a_model_trained_on_a_part_of_the_images_is_not_judged_whatever_it_is_evaluated_on(
    tmp_path: Path, recipe: str, part: str, reason: str
) -> None:
    if recipe == TEACHER:
        recipe = str(tmp_path / "taught.toml")
        Path(recipe).write_text(TEACHER, encoding="utf-8")
    spec, plan = trained_cell(tmp_path, recipe)
    results = accuracies(plan, 80.0)
    assert judged_cell(spec, plan, results).verdict == "match"
    (job,) = filter(None, (planned.job for planned in plan.cells))
    training = job.need("weights")
    assert training
    training = training if part == "weights" else training.need(part)
    assert training
    part_of_them = with_facts(results[training.key], images=images_of("imagenet/train", 1))
    found = judged_cell(spec, plan, {**results, training.key: part_of_them})
    assert (found.verdict, found.reason, found.delta) == ("not comparable", reason, 0.0)


def test_an_accuracy_whose_training_is_unknown_is_not_judged(tmp_path: Path) -> None:
    spec, plan = trained_cell(tmp_path)
    results = accuracies(plan, 80.0)
    (key,) = (key for key, result in results.items() if result.job.kind == "train")
    training = results.pop(key)
    lost = judged_cell(spec, plan, results)
    reason = f"nothing is known of what it was made from: there is no result of '{training.job}'"
    assert (lost.verdict, lost.reason) == ("not comparable", reason)
    other = with_facts(training, weights={"sha256": "of a later training"})
    later = judged_cell(spec, plan, {**results, key: other})
    reason = f"made from another run of '{training.job}' than the newest, {training.id}"
    assert later.reason == f"{reason}; `harness reproduce` with the same inputs measures it again"
    without = with_facts(training, images=None)
    assert judged_cell(spec, plan, {**results, key: without}).reason == (
        "nothing is known of the images that it was trained on"
    )


def test_a_seed_that_failed_or_is_missing_is_never_passed_over(tmp_path: Path) -> None:
    spec, plan = trained_cell(tmp_path, seeds=2)
    (planned,) = plan.cells
    (second,) = planned.repeats
    results = accuracies(plan, 80.0)
    missing = judged_cell(spec, plan, results)
    reason = "1 of 2 seeds are there: seed 2 is not measured"
    assert (missing.verdict, missing.reason, missing.filled.number) == ("not comparable", reason, 80.0)
    failed = judged_cell(spec, plan, {**results, second.key: result_of(second, error="the loss is NaN")})
    reason = "1 of 2 seeds are there: seed 2 failed: the loss is NaN"
    assert (failed.verdict, failed.reason) == ("not comparable", reason)
    assert judged_cell(spec, plan, accuracies(plan, 80.1, 79.9)).verdict == "match"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((82.0,), "deviates"),  # whose interval over images, 73 to 91, tells nothing about another training
        ((82.0, 84.0), "deviates"),  # with one degree of freedom the interval is 83 ± 12.7
        ((82.0, 84.0, 82.5), "deviates"),  # with two it is 82.83 ± 2.59, which ends above 80
        ((80.0, 84.0, 82.5), "noise"),  # 82.17 ± 5.03
    ],
)
def test_an_interval_of_fewer_than_three_trainings_excuses_nothing(
    tmp_path: Path, values: tuple[float, ...], verdict: str
) -> None:
    spec, plan = trained_cell(tmp_path, seeds=len(values))
    assert judged_cell(spec, plan, accuracies(plan, *values)).verdict == verdict


def test_changed_settings_are_named_only_where_they_change_something(tmp_path: Path) -> None:
    spec, plan = trained_cell(tmp_path, changes={"epochs": 300})  # as in the recipe
    assert judged_cell(spec, plan, accuracies(plan, 80.0)).verdict == "match"
    spec, plan = trained_cell(tmp_path, changes={"epochs": 10})
    found = judged_cell(spec, plan, accuracies(plan, 80.0))
    assert (found.verdict, found.reason) == (
        "not comparable",
        "trained with epochs = 10, which is not how the published value was",
    )


# Noise of the machine.


@pytest.mark.parametrize(
    "warning",
    [
        "hardware thermal slowdown in 40 % of the timed window: check cooling and power of the GPU",
        "2 other processes used the GPU while it was timed: measure when it is idle",
        "other processes used 0.31 cores while this was timed: measure again on an idle machine",
        "the host took 0.05 cores away while this was timed: measure again when the host is idle",
    ],
)
def test_a_throughput_with_interference_is_not_judged(tmp_path: Path, warning: str) -> None:
    spec, plan, job = speed_of_v100(tmp_path)
    result = result_of(job, machine=V100, value=100.0, warnings=("iterations vary by 3.0 %: measure again", warning))
    found = judged_cell(spec, plan, {job.key: result})
    noise, remedy = warning.split(": ")
    assert (found.verdict, found.reason) == ("not comparable", f"noisy measurement: {noise}; {remedy}")


@pytest.mark.parametrize(
    ("warning", "verdict"),
    [
        ("NVML does not answer, so clocks, throttling and other processes were not monitored", "not comparable"),
        ("the GPU does not report energy, other processes", "not comparable"),
        ("the GPU does not report energy", "match"),
        ("the SM clock moved between 1380 and 1530 MHz: lock it", "match"),
    ],
)
def test_a_gpu_that_does_not_tell_of_interference_is_not_judged(tmp_path: Path, warning: str, verdict: str) -> None:
    spec, plan, job = speed_of_v100(tmp_path)
    found = judged_cell(spec, plan, {job.key: result_of(job, machine=V100, value=100.0, warnings=(warning,))})
    assert found.verdict == verdict
    assert found.reason == (warning if verdict == "not comparable" else "within 5 % of the paper (100)")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"disturbed": True}, "noisy measurement: something else used the machine while this was timed"),
        ({"quick": True}, "measured with --quick, which tells the order of models and no more; measure again without"),
        ({"warm_up_steady": False}, "noisy measurement: the warm-up was not steady"),
        ({"not_compiled": "torch.compile failed, so this is eager"}, "torch.compile failed, so this is eager"),
    ],
)
def test_a_throughput_that_says_it_is_not_clean_is_not_judged(
    tmp_path: Path, facts: Mapping[str, Any], reason: str
) -> None:
    spec, plan, job = speed_of_v100(tmp_path)
    found = judged_cell(spec, plan, {job.key: with_facts(result_of(job, machine=V100, value=100.0), **facts)})
    assert found.verdict == "not comparable"
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("samples", "noise"),
    [
        ([0.04] * 30, ""),
        ([0.04, 0.045] * 15, "iterations vary by 6.0 %"),  # 0.0025 · sqrt(30/29) / 0.0425
        ([0.04] * 10 + [0.041] * 10 + [0.0422] * 10, "iterations became 5.5 % slower"),
    ],
)
def test_iterations_that_scatter_or_drift_are_not_judged(tmp_path: Path, samples: list[float], noise: str) -> None:
    spec, plan, job = speed_of_v100(tmp_path)
    speed = Measurement(unit="im/s", value=100.0, samples=tuple(samples), sample_unit="s")
    found = judged_cell(spec, plan, {job.key: replace(result_of(job, machine=V100), metrics={"throughput": speed})})
    assert found.reason.startswith(f"noisy measurement: {noise}" if noise else "within 5 %")


def test_two_iterations_excuse_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    twice = 'set = {{ protocol = "paper", repeats = 2 }}'
    text = SPEC.replace('set = {{ protocol = "paper" }}', twice).format(values="paper = { speed = 100 }", notes="")
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(columns=("speed",)))
    (job,) = plan.jobs
    wide = Measurement(unit="im/s", value=110.0, low=98.0, high=122.0, samples=(0.036, 0.037), sample_unit="s")
    result = replace(result_of(job, machine=V100), metrics={"throughput": wide})
    assert judged_cell(spec, plan, {job.key: result}).verdict == "deviates"


def test_a_throughput_is_judged_only_where_the_spec_names_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "anywhere.toml"
    text = SPEC.replace('machine = "V100 16GB"\n', "").format(values="paper = { speed = 100 }", notes="")
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(columns=("speed",)))
    (job,) = plan.jobs
    found = judged_cell(spec, plan, {job.key: result_of(job, machine=V100, value=100.0)})
    assert (found.verdict, found.reason) == (
        "not comparable",
        "measured on Tesla V100-SXM2-16GB 16 GiB, and the spec does not name the published machine",
    )


def speed_of_v100(tmp_path: Path) -> tuple[Spec, Plan, Job]:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(values="paper = { speed = 100 }", notes=""), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(columns=("speed",)))
    (job,) = plan.jobs
    return spec, plan, job


# What an agreement is derived from.

AGREEMENT = """
[table]
title = "Agreement"
[source.paper]
kind = "paper"
cite = "the paper"
[column.rate]
label = "disagreement"
job = "agreement"
metric = "disagreement"
tolerance = 0.0005
set = { data = "imagenet" }
[row.pair]
label = "Pair"
set = { first = "one.w", second = "two.v" }
paper = { rate = 0.2 }
"""


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"unreadable": ["a.jpg", "b.jpg"]}, "2 of 100 images could not be read and count as wrong"),
        ({"images": images_of("imagenet", 9)}, "measured on 9 of the 100 images of imagenet"),
    ],
)
def test_an_agreement_is_as_good_as_the_evaluations_behind_it(
    tmp_path: Path, facts: Mapping[str, Any], reason: str
) -> None:
    path = tmp_path / "agreement.toml"
    path.write_text(AGREEMENT, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(data=frozenset({"imagenet"})))
    (job,) = (job for job in plan.jobs if job.kind == "agreement")
    first, second = map(result_of, dependencies(job))
    rate = replace(result_of(job), metrics={"disagreement": Measurement(unit="fraction", value=0.2)})
    rate = with_facts(rate, images=images_of("imagenet"), evaluations=[first.id, second.id])
    results = {result.job.key: result for result in (first, with_facts(second, **facts), rate)}
    found = judged_cell(spec, plan, results)
    assert (found.verdict, found.reason if reason else "") == ("not comparable" if reason else "match", reason)
    newer = replace(first, id="a newer run")
    found = judged_cell(spec, plan, {**results, first.job.key: newer})
    assert found.verdict == "not comparable"
    assert found.reason.startswith("made from another run of 'evaluate one imagenet at 224, crop 0.875'")


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
