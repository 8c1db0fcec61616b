"""Derived cells: read with their mistakes, planned with the jobs of their operands, judged as these may be judged."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.judge.chain import broken_input
from harness.judge.table import fill
from harness.judge.verdict import Diff, JudgedCell, compare
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.plan.stages import TrainingStages
from harness.report import render_comment, render_csv, render_json, render_latex, render_terminal
from harness.specs import Catalog, Spec, load
from harness.specs.checked import Scalar
from harness.stats import Interval, derive
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.commands import run_harness
from tests.fakes import H200, LAPTOP, V100, VERSIONS, result_of, with_facts, with_trainings

SPEC = """
[table]
title = "Derived"
[source.paper]
kind = "paper"
cite = "the paper"
[column.value]
label = "value"
[row.fast]
label = "Fast"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "V100 16GB"
tolerance = "5%"
set = { model = "fast", res = 224, batch = 4 }
[row.slow]
label = "Slow"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "V100 16GB"
set = { model = "slow", res = 224, batch = 4 }
[row.faster]
label = "Fast over Slow"
derived = "change"
of = [{ row = "fast" }, { row = "slow" }]
unit = "%"
tolerance = 5
paper = { value = 20 }
[row.gap]
label = "Fast less Slow"
derived = "difference"
of = [{ row = "fast" }, { row = "slow" }]
unit = "im/s"
tolerance = 1
paper = { value = 20 }
"""


def written(folder: Path, text: str = SPEC, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def jobs_of(plan: Plan) -> Mapping[str, Job]:
    return {str(job["model"]): job for job in plan.jobs}


def timed(
    job: Job,
    value: float,
    *,
    half: float = 1.0,
    machine: Machine = V100,
    torch: str = "2.15.0",
    reference: float = 0.1,
    error: str | None = None,
) -> Result:
    result = result_of(job, machine=machine, software={**VERSIONS, "torch": torch}, error=error)
    if error:
        return result
    measurement = Measurement(unit="im/s", value=value, low=value - half, high=value + half)
    facts = {**result.facts, "yardstick": [reference, reference]}
    return replace(result, metrics={"throughput": measurement}, facts=facts)


def judged(
    folder: Path, row: str, *, fast: Mapping[str, object], slow: Mapping[str, object] | None = None, text: str = SPEC
) -> JudgedCell:
    """Judge a row of the spec by two results: `value` and what else `timed` takes."""
    spec = load(written(folder, text))
    plan = make_plan([spec])
    jobs, results = jobs_of(plan), {}
    for model, arguments in (("fast", fast), ("slow", slow)):
        if arguments is not None:
            results[jobs[model].key] = timed(jobs[model], **arguments)  # type: ignore[arg-type]
    return compare(fill(spec, plan, results)).judged_cells[row, "value"]


COLUMNS = """
[table]
title = "A column of two others"
[column.wide]
label = "224x448"
job = "count"
metric = "macs"
unit = "GMAC"
set = { res = "224x448" }
[column.square]
label = "224"
job = "count"
metric = "macs"
unit = "GMAC"
set = { res = 224 }
[column.share]
label = "times as many"
derived = "ratio"
of = [{ column = "wide" }, { column = "square" }]
[row.a]
label = "A"
set = { model = "a" }
[row.b]
label = "B"
set = { model = "b" }
"""


def test_a_column_is_computed_from_two_others_in_every_row(tmp_path: Path) -> None:
    plan = make_plan([load(written(tmp_path, COLUMNS))])
    macs = {("a", 224): 8.0, ("a", 448): 20.0, ("b", 224): 4.0, ("b", 448): 8.0}
    results = {}
    for job in plan.jobs:
        value = macs[str(job["model"]), int(job.get("width", 224))]
        results[job.key] = replace(result_of(job), metrics={"macs": Measurement(unit="GMAC", value=value)})
    table = fill(plan.specs[0], plan, results)
    assert [table.cell(row, "share").number for row in ("a", "b")] == [2.5, 2.0]


# The formulas.


def test_the_ends_of_a_difference_are_as_far_as_both_intervals_in_quadrature_on_the_side_that_each_moves_it() -> None:
    # By hand: down by 3 where the first is 3 lower, by 4 where the second is 4 higher, by 5 together; up by 6 and 8,
    # by 10 together.
    first, second = Interval(value=50, low=47, high=56), Interval(value=20, low=12, high=24)
    assert derive("difference", [first, second]) == Interval(value=30, low=25, high=40)


def test_the_ends_of_a_sum_add_what_is_below_and_what_is_above() -> None:
    first, second = Interval(value=50, low=47, high=56), Interval(value=20, low=16, high=28)
    assert derive("sum", [first, second]) == Interval(value=70, low=65, high=80)
    third = Interval(value=1, low=1, high=1)
    assert derive("sum", [first, second, third]).value == 71


def test_a_ratio_of_two_values_that_are_sure_to_a_percent_is_sure_to_a_percent_times_the_root_of_two() -> None:
    ratio = derive("ratio", [Interval(value=120, low=118.8, high=121.2), Interval(value=100, low=99, high=101)])
    assert ratio.value == pytest.approx(1.2)
    assert (ratio.high - ratio.low) / 2 == pytest.approx(1.2 * 0.01 * math.sqrt(2), rel=0.01)


def test_a_change_is_the_ratio_less_one_in_percent() -> None:
    operands = [Interval(value=120, low=118.8, high=121.2), Interval(value=100, low=99, high=101)]
    ratio, change = derive("ratio", operands), derive("change", operands)
    assert (change.value, change.low, change.high) == pytest.approx(
        tuple(100 * (end - 1) for end in (ratio.value, ratio.low, ratio.high))
    )
    assert change.value == pytest.approx(20)


# What a spec may say.

PART = '[table]\ntitle = "T"\n[column.a]\nlabel = "A"\njob = "count"\nmetric = "params"\nunit = "M"\n'
ROWS = '[row.x]\nlabel = "X"\n[row.y]\nlabel = "Y"\n'


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(written(folder, text))
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('derived = "difference"', "14: derived in [row.z] needs of: how a cell is derived, and of which cells"),
        (
            'of = [{ row = "x" }, { row = "y" }]',
            "14: of in [row.z] needs derived: how a cell is derived, and of which cells",
        ),
        (
            'derived = "product"\nof = [{ row = "x" }, { row = "y" }]',
            "14: derived in [row.z] must be 'difference' or 'sum' or 'ratio' or 'change', not 'product'",
        ),
        ('derived = "sum"\nof = []', "15: of in [row.z] must not be empty"),
        ('derived = "sum"\nof = ["x", "y"]', "15: of in [row.z] must be a table, not 'x' (item 0)"),
        ('derived = "sum"\nof = [{ row = "x" }]', "15: of in [row.z]: a sum is of at least 2 cells, not of 1"),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { row = "y" }, { row = "x" }]',
            "15: of in [row.z]: a ratio is of 2 cells, not of 3",
        ),
        ('derived = "ratio"\nof = [{ row = "x" }, { row = "x" }]', "15: of in [row.z] names one cell twice"),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { row = "yy" }]',
            "15: unknown row 'yy' in [row.z.of]; did you mean 'y'?",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { row = "y", column = "b" }]',
            "15: unknown column 'b' in [row.z.of]",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { rows = "y" }]',
            "15: unknown key 'rows' in [row.z.of]; did you mean 'row'?",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, {}]',
            "15: row 'z', column 'a' in [row.z.of] is derived itself; name the cells that it is derived of",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { table = "table55", row = "deit_s", column = "top1" }]',
            "15: unknown table 'table55' in [row.z.of]; did you mean 'table5'?",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { table = "table5", row = "deit_x", column = "top1" }]',
            "15: unknown row 'deit_x' in [row.z.of], table 'table5'; did you mean 'deit_s'?",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { table = "text", row = "ema_gain", column = "value" }]',
            "15: row 'ema_gain', column 'value' in [row.z.of], table 'text' is derived itself; "  # noqa: ISC004
            "name the cells that it is derived of",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { table = "text", row = "lr_grid", column = "value" }]',
            "15: row 'lr_grid', column 'value' in [row.z.of], table 'text' has no job: nothing measures it",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { table = "text", row = "soft_tau", column = "value" }]',
            "15: row 'soft_tau', column 'value' in [row.z.of], table 'text' is text; a cell is derived of numbers",
        ),
        (
            'derived = "difference"\nof = [{ row = "x" }, { table = "table5", row = "deit_s", column = "top1" }]',
            "15: of in [row.z]: a difference is of cells of one unit, not of 'M' and '% top-1'",
        ),
        (
            'derived = "ratio"\nof = [{ row = "x" }, { row = "y" }]\nmetric = "macs"',
            "16: metric in [row.z] is of no use: its cells are derived, not measured",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_a_derived_cell_is_reported_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    assert mistakes(tmp_path, f'{PART}{ROWS}[row.z]\nlabel = "Z"\n{lines}\n') == [f"mine.toml:{message}"]


def test_of_column_row_and_cell_the_innermost_says_whether_a_cell_is_derived(tmp_path: Path) -> None:
    text = f"""{PART}[column.gain]
label = "gain"
derived = "difference"
of = [{{ column = "a" }}, {{ row = "x", column = "a" }}]
[row.x]
label = "X"
cell.gain = {{ job = "count", metric = "macs" }}
[row.y]
label = "Y"
[row.z]
label = "Z"
cell.a = {{ derived = "sum", of = [{{ row = "x" }}, {{ row = "y" }}] }}
cell.gain = {{ derived = "ratio", of = [{{ row = "y", column = "a" }}, {{ row = "x", column = "a" }}] }}
"""
    spec = load(written(tmp_path, text))
    operations = {
        key: cell.derivation.operation if cell.derivation else cell.metric for key, cell in spec.cells.items()
    }
    assert operations == {
        ("x", "a"): "params",
        ("x", "gain"): "macs",
        ("y", "a"): "params",
        ("y", "gain"): "difference",
        ("z", "a"): "sum",
        ("z", "gain"): "ratio",
    }
    derivation = spec.cell("y", "gain").derivation
    assert derivation
    assert [(one.row, one.column) for one in derivation.operands] == [("y", "a"), ("x", "a")]
    assert spec.cell("y", "gain").kind is None


def test_two_tables_may_refer_to_each_other_and_each_finds_the_other_next_to_it(tmp_path: Path) -> None:
    other = PART + ROWS + '[row.z]\nlabel = "Z"\nderived = "sum"\nof = [{ row = "x" }, { table = "mine", row = "x" }]\n'
    written(tmp_path, other, "other.toml")
    mine = PART + ROWS + '[row.z]\nlabel = "Z"\nderived = "sum"\nof = [{ row = "x" }, { table = "other", row = "y" }]\n'
    derivation = load(written(tmp_path, mine)).cell("z", "a").derivation
    assert derivation
    assert [(one.path.name, one.row) for one in derivation.operands] == [("mine.toml", "x"), ("other.toml", "y")]


# Its jobs are those of its operands.


def test_a_derived_cell_brings_the_jobs_of_its_operands_though_their_rows_were_not_requested(tmp_path: Path) -> None:
    plan = make_plan([load(written(tmp_path))], Options(rows=("faster",)))
    assert sorted(jobs_of(plan)) == ["fast", "slow"]
    assert [planned.blocked for planned in plan.cells] == [""]


def test_operands_in_another_table_are_planned_as_there(tmp_path: Path) -> None:
    text = PART + ROWS + '[row.z]\nlabel = "Z"\nderived = "sum"\nof = [{ row = "x" }, '
    text += '{ table = "table5", row = "deit_s", column = "params" }]\n'
    spec = load(written(tmp_path, text.replace("[row.x]\n", '[row.x]\nset = { model = "m", res = 224 }\n')))
    plan, (table5,) = make_plan([spec], Options(rows=("z",))), Catalog().find(["table5"])
    theirs = make_plan([table5]).cells_in(table5)["deit_s", "params"].job
    assert theirs
    assert [job.key for job in plan.jobs if job["model"] != "m"] == [theirs.key]


@pytest.mark.parametrize("edition", ["arxiv", "icml"])
def test_the_ratio_of_two_training_speeds_in_the_text_needs_the_speeds_of_two_recipes_alone(edition: str) -> None:
    (text,) = Catalog(edition=edition).find(["text"])
    plan = make_plan([text], Options(only=frozenset({"train-speed"}), rows=("regnety16_slower",)))
    stages = TrainingStages()
    settings: dict[str, Scalar] = {"repeats": 10, "batch": "auto", "devices": 1}
    expected = {stages.speed_job(settings | {"recipe": name}).key for name in ("regnety-16gf", "deit-b")}
    assert {job.key for job in plan.jobs} == expected
    assert plan.cells[0].blocked == ""


def test_what_blocks_an_operand_blocks_the_cell_and_names_the_operand(tmp_path: Path) -> None:
    (text,) = Catalog().find(["text"])
    plan = make_plan([text], Options(rows=("gain_over_vit",)))
    assert plan.cells[0].blocked == "ImNet top-1 of DeiT-B↑384: needs --data imagenet=PATH"
    plan = make_plan([load(written(tmp_path))], Options(only=frozenset({"count"}), rows=("gap",)))
    assert plan.cells[0].blocked == "value of Fast: left out: throughput jobs were not requested"
    plan = make_plan([load(written(tmp_path))], Options(rows=("gap",)))
    blocked = plan.block({jobs_of(plan)["slow"].key: "there is no such model"})
    assert blocked.cells[0].blocked == "value of Slow: there is no such model"


# Its verdict follows from theirs.


def test_a_change_within_its_tolerance_matches_and_tells_what_it_was_computed_from(tmp_path: Path) -> None:
    cell = judged(tmp_path, "faster", fast={"value": 123.0}, slow={"value": 100.0})
    assert cell.verdict == "match"
    assert cell.delta == pytest.approx(3.0)
    assert cell.reason == (
        "within 5 % of the paper (20): value of Fast (123.0) over value of Slow (100.0) less one; a ratio is judged "
        "on any machine, this one is of Tesla V100-SXM2-16GB 16 GiB"
    )
    measurement = cell.filled.measurement
    assert measurement
    # By hand: ln(124/123) and ln(100/99) up, ln(123/122) and ln(101/100) down, each in quadrature.
    up = math.hypot(math.log(124 / 123), math.log(100 / 99))
    down = math.hypot(math.log(123 / 122), math.log(101 / 100))
    assert measurement.high == pytest.approx(100 * (1.23 * math.exp(up) - 1))
    assert measurement.low == pytest.approx(100 * (1.23 * math.exp(-down) - 1))


def test_outside_the_tolerance_the_interval_decides_between_noise_and_a_deviation(tmp_path: Path) -> None:
    assert judged(tmp_path, "faster", fast={"value": 130.0}, slow={"value": 100.0}).verdict == "deviates"
    wide = judged(tmp_path, "faster", fast={"value": 130.0, "half": 12.0}, slow={"value": 100.0})
    assert wide.verdict == "noise"


def test_a_ratio_of_speeds_is_judged_on_any_machine_and_their_difference_on_the_published_one(tmp_path: Path) -> None:
    fast, slow = {"value": 121.0, "machine": LAPTOP}, {"value": 100.0, "machine": LAPTOP}
    assert judged(tmp_path, "faster", fast=fast, slow=slow).verdict == "match"
    difference = judged(tmp_path, "gap", fast=fast, slow=slow)
    assert difference.verdict == "not comparable"
    assert difference.reason == "value of Fast: measured on Some Processor, 4 cores, published for V100 16GB"
    assert difference.delta == pytest.approx(21 - 20)  # shown, not judged
    assert judged(tmp_path, "gap", fast={"value": 121.0}, slow={"value": 100.5}).verdict == "match"


@pytest.mark.parametrize(
    ("fast", "slow", "verdict", "reason"),
    [
        (
            {"value": 120.0},
            None,
            "missing",
            "value of Slow: not measured yet; `harness reproduce FILE` measures it",
        ),
        ({"value": 120.0}, {"value": 1.0, "error": "out of memory"}, "failed", "value of Slow: out of memory"),
        (
            {"value": 120.0, "machine": LAPTOP},
            {"value": 100.0, "machine": H200},
            "not comparable",
            "measured on Some Processor, 4 cores and on NVIDIA H200 140 GiB",
        ),
        (
            {"value": 120.0, "torch": "2.14.0"},
            {"value": 100.0},
            "not comparable",
            "measured with different versions of the software; measure both again with --rerun",
        ),
        (
            {"value": 120.0, "reference": 0.1},
            {"value": 100.0, "reference": 0.12},
            "not comparable",
            "the machine as a whole was 20 % slower in one measurement than in the other, by its "  # noqa: ISC004
            "reference workload; measure both again with --rerun",
        ),
    ],
)  # fmt: skip
def test_an_operand_that_may_not_be_judged_keeps_the_cell_from_it_and_is_named(
    tmp_path: Path, fast: Mapping[str, object], slow: Mapping[str, object] | None, verdict: str, reason: str
) -> None:
    cell = judged(tmp_path, "faster", fast=fast, slow=slow)
    assert (cell.verdict, cell.reason) == (verdict, reason)
    assert cell.delta == (pytest.approx(20 - 20) if verdict == "not comparable" else None)


def test_operands_of_a_ratio_need_to_name_no_machine_and_those_of_a_difference_do(tmp_path: Path) -> None:
    text = SPEC.replace('machine = "V100 16GB"\n', "")
    fast, slow = {"value": 121.0, "machine": LAPTOP}, {"value": 100.0, "machine": LAPTOP}
    assert judged(tmp_path, "faster", fast=fast, slow=slow, text=text).verdict == "match"
    difference = judged(tmp_path, "gap", fast=fast, slow=slow, text=text)
    assert difference.verdict == "not comparable"
    assert difference.reason == (
        "value of Fast: measured on Some Processor, 4 cores, and the spec does not name the published machine"
    )


def test_a_noisy_operand_keeps_a_ratio_from_being_judged(tmp_path: Path) -> None:
    spec = load(written(tmp_path))
    plan = make_plan([spec])
    jobs = jobs_of(plan)
    fast, slow = timed(jobs["fast"], 120.0), timed(jobs["slow"], 100.0)
    results = {jobs["fast"].key: fast, jobs["slow"].key: with_facts(slow, disturbed=True)}
    cell = compare(fill(spec, plan, results)).judged_cells["faster", "value"]
    assert cell.verdict == "not comparable"
    assert cell.reason.startswith("value of Slow: noisy measurement: something else used the machine")


def test_an_interval_of_two_iterations_excuses_no_change(tmp_path: Path) -> None:
    spec = load(written(tmp_path))
    plan = make_plan([spec])
    jobs = jobs_of(plan)
    verdicts = []
    for count in (2, 3):
        wide, results = timed(jobs["fast"], 130.0, half=12.0), {jobs["slow"].key: timed(jobs["slow"], 100.0)}
        samples = replace(wide.metrics["throughput"], samples=(4 / 130,) * count, sample_unit="s")
        results[jobs["fast"].key] = replace(wide, metrics={"throughput": samples})
        verdicts.append(compare(fill(spec, plan, results)).judged_cells["faster", "value"].verdict)
    assert verdicts == ["deviates", "noise"]


def test_the_right_value_of_a_wrong_one_is_that_of_the_derived_cell(tmp_path: Path) -> None:
    wrong = SPEC.replace("tolerance = 5\npaper = { value = 20 }", 'tolerance = 5\npaper = { value = "90[W]" }')
    wrong += '[footnote.W]\ntext = "It is 20."\neffect = "wrong"\ncorrected = { value = 20 }\n'
    cell = judged(tmp_path, "faster", fast={"value": 121.0}, slow={"value": 100.0}, text=wrong)
    assert cell.verdict == "explained"
    assert cell.reason.startswith("within 5 % of the paper as corrected (20); It is 20.")


def test_an_operand_measured_under_other_settings_than_published_is_named(tmp_path: Path) -> None:
    spec = load(written(tmp_path))
    plan = make_plan([spec], Options(batch=8))
    results = {job.key: timed(job, 120.0) for job in plan.jobs}
    cell = compare(fill(spec, plan, results)).judged_cells["faster", "value"]
    assert cell.verdict == "not comparable"
    assert cell.reason == "value of Fast: measured with batch = 8, which is not how the published value was"


def test_a_ratio_with_nothing_below_it_is_no_number(tmp_path: Path) -> None:
    cell = judged(tmp_path, "faster", fast={"value": 120.0}, slow={"value": 0.0})
    assert (cell.verdict, cell.filled.measurement) == ("not comparable", None)
    assert cell.reason == "value of Fast (120.0) over value of Slow (0) less one: cannot be computed"


def test_two_cells_that_are_one_measurement_have_no_interval_of_two_independent_ones(tmp_path: Path) -> None:
    same = SPEC.replace('model = "slow"', 'model = "fast"')
    cell = judged(tmp_path, "faster", fast={"value": 120.0}, text=same)
    measurement = cell.filled.measurement
    assert measurement
    assert (measurement.value, measurement.low, measurement.high) == (0.0, None, None)


def test_nothing_published_is_shown_and_not_judged(tmp_path: Path) -> None:
    text = SPEC.replace("tolerance = 5\npaper = { value = 20 }", "tolerance = 5")
    cell = judged(tmp_path, "faster", fast={"value": 120.0}, slow={"value": 100.0}, text=text)
    assert (cell.verdict, cell.reason) == ("not comparable", "nothing was published here")
    assert cell.filled.number == pytest.approx(20)


ACCURACIES = """
[table]
title = "Accuracies"
[source.paper]
kind = "paper"
cite = "the paper"
[column.value]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "%"
set = { data = "imagenet", res = 224, weights = "w" }
[row.a]
label = "A"
set = { model = "a" }
[row.b]
label = "B"
set = { model = "b" }
[row.gain]
label = "gain"
derived = "difference"
of = [{ row = "a" }, { row = "b" }]
unit = "points"
tolerance = 0.05
paper = { value = 5.0 }
"""


def evaluated(job: Job, value: float, *, half: float = 0.3, whole: bool = True) -> Result:
    images = {"fingerprint": "f", "whole": whole, "said": "10 of 50,000 images" if not whole else "all images"}
    measurement = Measurement(unit="%", value=value, low=value - half, high=value + half)
    return with_facts(replace(result_of(job), metrics={"top1": measurement}), images=images)


def gain(folder: Path, first: Mapping[str, object], second: Mapping[str, object]) -> JudgedCell:
    spec = load(written(folder, ACCURACIES))
    plan = make_plan([spec], Options(data=frozenset({"imagenet"})))
    jobs = jobs_of(plan)
    results = {
        jobs["a"].key: evaluated(jobs["a"], **first),  # type: ignore[arg-type]
        jobs["b"].key: evaluated(jobs["b"], **second),  # type: ignore[arg-type]
    }
    return compare(fill(spec, plan, results)).judged_cells["gain", "value"]


def test_a_difference_of_accuracies_of_the_same_weights_on_the_same_images_has_no_noise_to_excuse_it(
    tmp_path: Path,
) -> None:
    cell = gain(tmp_path, {"value": 83.1}, {"value": 77.9})
    assert cell.verdict == "deviates"
    measurement = cell.filled.measurement
    assert measurement
    assert measurement.low is not None
    # Though its interval, 5.2 ± 0.3·√2, holds the published 5.0.
    assert measurement.low == pytest.approx(5.2 - 0.3 * math.sqrt(2))
    assert gain(tmp_path, {"value": 82.9}, {"value": 77.9}).verdict == "match"


def test_a_difference_with_an_accuracy_of_a_sample_is_not_judged(tmp_path: Path) -> None:
    cell = gain(tmp_path, {"value": 82.9}, {"value": 77.9, "whole": False})
    assert (cell.verdict, cell.reason) == ("not comparable", "top-1 of B: measured on 10 of 50,000 images")
    assert broken_input(cell.filled) == cell.reason
    assert broken_input(gain(tmp_path, {"value": 82.9}, {"value": 77.9}).filled) == ""


def test_accuracies_of_two_machines_are_as_good_as_of_one(tmp_path: Path) -> None:
    spec = load(written(tmp_path, ACCURACIES))
    plan = make_plan([spec], Options(data=frozenset({"imagenet"})))
    jobs = jobs_of(plan)
    results = {jobs["a"].key: evaluated(jobs["a"], 82.9), jobs["b"].key: evaluated(jobs["b"], 77.9)}
    results[jobs["b"].key] = replace(results[jobs["b"].key], machine=H200)
    cell = compare(fill(spec, plan, results)).judged_cells["gain", "value"]
    assert cell.verdict == "match"
    assert cell.reason.endswith(": top-1 of A (82.90) less top-1 of B (77.90)")


@pytest.mark.parametrize(
    ("operation", "unit", "words"),
    [
        ("sum", "%", "top-1 of A (50.00) plus top-1 of B (40.00)"),
        ("difference", "points", "top-1 of A (50.00) less top-1 of B (40.00)"),
        ("ratio", "×", "top-1 of A (50.00) over top-1 of B (40.00)"),
        ("change", "%", "top-1 of A (50.00) over top-1 of B (40.00) less one"),
    ],
)
def test_a_derived_cell_says_how_it_follows_from_its_operands(
    tmp_path: Path, operation: str, unit: str, words: str
) -> None:
    text = ACCURACIES.replace('derived = "difference"', f'derived = "{operation}"').replace('"points"', f'"{unit}"')
    spec = load(written(tmp_path, text))
    plan = make_plan([spec], Options(data=frozenset({"imagenet"})))
    jobs = jobs_of(plan)
    results = {jobs["a"].key: evaluated(jobs["a"], 50.0), jobs["b"].key: evaluated(jobs["b"], 40.0)}
    cell = compare(fill(spec, plan, results)).judged_cells["gain", "value"]
    assert cell.reason.partition(": ")[2] == words


TRAINED = (
    ACCURACIES.replace(', res = 224, weights = "w" }', " }")
    .replace('set = { model = "a" }', 'unreleased = "never"\ntrain = { recipe = "deit-b", ema = true }')
    .replace('set = { model = "b" }', 'unreleased = "never"\ntrain = { recipe = "deit-b" }')
)


def trained_gain(folder: Path, first: list[float], second: list[float]) -> JudgedCell:
    """Judge the gain where both are trained here, with so many seeds."""
    spec = load(written(folder, TRAINED))
    options = Options(data=frozenset({"imagenet"}), train=True, seeds=len(first))
    plan = make_plan([spec], options)
    results = []
    for row, values in (("a", first), ("b", second)):
        planned = plan.cells_in(spec)[row, "value"]
        assert planned.job
        for job, value in zip((planned.job, *planned.repeats), values, strict=True):
            results.append(evaluated(job, value))
    return compare(fill(spec, plan, with_trainings(*results))).judged_cells["gain", "value"]


def test_two_trainings_may_differ_by_what_retraining_moves_both_of_them(tmp_path: Path) -> None:
    # 0.2 points each, 0.28 together.
    assert trained_gain(tmp_path, [82.15], [76.88]).verdict == "match"
    cell = trained_gain(tmp_path, [82.2], [76.9])
    assert cell.verdict == "deviates"
    assert cell.filled.measurement
    assert cell.filled.measurement.low is None  # a test set's interval says nothing of another training


def test_with_three_seeds_their_scatter_may_excuse_a_difference_and_with_two_it_does_not(tmp_path: Path) -> None:
    scattered = trained_gain(tmp_path, [81.8, 82.3, 82.8], [76.5, 76.9, 77.3])
    assert scattered.filled.number == pytest.approx(5.4)
    assert scattered.verdict == "noise"
    assert trained_gain(tmp_path, [81.8, 82.8], [76.5, 77.3]).verdict == "deviates"


def test_a_gain_trained_at_a_small_scale_is_not_judged() -> None:
    (text,) = Catalog().find(["text"])
    plan = make_plan([text], Options(rows=("ema_gain",), train=True, scale="smoke"))
    (planned,) = plan.cells
    assert planned.scaled_down
    results = {job.key: evaluated(job, 50.0) for job in plan.jobs if job.kind == "evaluate"}
    cell = compare(fill(plan.specs[0], plan, results)).judged_cells["ema_gain", "value"]
    assert cell.verdict == "not comparable"
    assert cell.reason.startswith("pre-trained 224² of Exp. Moving Avg.: trained at the smoke scale")


# How it is shown.


def shown(folder: Path) -> Diff:
    spec = load(written(folder))
    plan = make_plan([spec], Options(rows=("faster",)))
    jobs = jobs_of(plan)
    results = {
        jobs["fast"].key: replace(timed(jobs["fast"], 120.0), warnings=("iterations vary by 9 %",)),
        jobs["slow"].key: timed(jobs["slow"], 100.0),
    }
    return compare(fill(plan.specs[0], plan, results))


def test_every_form_of_a_report_shows_a_derived_value(tmp_path: Path) -> None:
    diff = shown(tmp_path)
    assert "20.0 ± 1.6" in render_terminal(diff, width=100, color=False)
    assert "20.0 ± 1.6" in render_comment([diff]).replace("\N{NO-BREAK SPACE}", " ")
    assert r"20.0{\scriptsize\,$\pm$\,1.6 \%}" in render_latex([diff])
    (cell,) = json.loads(render_json([diff]))["cells"]
    assert cell["measured"] == pytest.approx(20)
    assert cell["low"] < 20 < cell["high"]
    assert (cell["verdict"], cell["run"]) == ("match", None)
    heading, line = (text.split(",") for text in render_csv([diff]).splitlines())
    values = dict(zip(heading, line, strict=False))
    assert [values[name] for name in ("table", "edition", "row", "column", "unit")] == [
        *("mine", "arxiv", "faster", "value", "%")
    ]
    assert float(values["measured"]) == pytest.approx(20)


def test_a_derived_value_names_the_machine_and_the_warnings_of_its_operands(tmp_path: Path) -> None:
    text = render_terminal(shown(tmp_path), width=100, color=False)
    assert "Measured on Tesla V100-SXM2-16GB 16 GiB; torch " in text
    assert "warning: Fast over Slow: iterations vary by 9 %" in text


def saved(folder: Path) -> Spec:
    spec, store = load(written(folder)), Store(folder / "runs")
    for model, job in jobs_of(make_plan([spec])).items():
        value = {"fast": 120.0, "slow": 100.0}[model]
        for minutes in range(3):
            store.save(result_of(job, value=value, minutes=minutes))
    return spec


def test_list_plan_check_baseline_and_a_site_take_a_table_with_derived_cells(tmp_path: Path) -> None:
    saved(tmp_path)
    assert "value: throughput, derived" in " ".join(run_harness(tmp_path, "list", "mine.toml").stdout.split())
    plan = run_harness(tmp_path, "plan", "mine.toml", "--rows", "faster", "--device", "cpu")
    assert "throughput: 2 distinct jobs" in plan.stdout
    check = run_harness(tmp_path, "check", "mine.toml")
    assert (check.returncode, check.stderr) == (0, "")
    assert run_harness(tmp_path, "baseline", "mine.toml", "-o", "base.json").returncode == 0
    against = run_harness(tmp_path, "check", "mine.toml", "--baseline", "base.json", "--json")
    assert json.loads(against.stdout)["not_in_baseline"] == 0, against
    site = run_harness(tmp_path, "report", "mine.toml", "--format", "html", "-o", "site")
    assert (site.returncode, site.stderr) == (0, "")
