"""Accuracies from plan to verdict: what is reused, what is judged, and what explains a difference."""

import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from rich.console import Console

from harness.cli import progress as display
from harness.cli.console import note
from harness.errors import HarnessError
from harness.figure.draw import draw
from harness.figure.layers import layers_figure
from harness.figure.points import points_figure
from harness.judge.chain import broken_input
from harness.judge.judged import judge_plan
from harness.judge.table import fill
from harness.judge.verdict import Diff, JudgedCell, Verdict, compare, head_variants
from harness.judge.weights import unclear_weights
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, dependencies, make_plan
from harness.report import formatting, render_explanations, render_json, render_markdown
from harness.run.log import LogObserver
from harness.run.messages import Inputs, Inventory, Progress
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner, inspect_inputs
from harness.run.target import ExecutionTarget
from harness.specs import Spec, load
from harness.store.result import Measurement, Result, new_id
from harness.store.store import Store
from tests.fakes import LAPTOP, NOON, VERSIONS, FakeLauncher, inputs_of, with_trainings

SPEC = """
[table]
title = "Accuracy"
[source.paper]
kind = "paper"
cite = "the paper"
[source.timm]
kind = "timm"
cite = "timm"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "% top-1"
tolerance = 0.05
digits = 2
set = { data = "imagenet" }
[row.net]
label = "Net"
set = { model = "net", weights = "w", res = 384 }
paper = { top1 = 83.1 }
[row.gone]
label = "Gone"
unreleased = "lost in a fire"
set = { model = "gone", res = 224 }
nearest = [{ model = "near", weights = "v", match = "architecture only", comment = "another recipe" }]
paper = { top1 = 80.0 }
"""

WHOLE = {"name": "imagenet", "fingerprint": "f" * 64, "images": 50_000, "of": 50_000, "whole": True, "said": "all"}
SAMPLE = {**WHOLE, "fingerprint": "5" * 64, "images": 9, "whole": False, "said": "9 of the 50,000 images of ImageNet"}
FILE = {"file": "net.safetensors", "sha256": "a" * 64, "origin": "file"}
GIVEN = Options(data=frozenset({"imagenet"}))


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC, encoding="utf-8")
    return load(path)


def evaluated(
    job: Job,
    value: float,
    *,
    images: Mapping[str, Any] = WHOLE,
    weights: Mapping[str, Any] = FILE,
    heads: Mapping[str, float] | None = None,
    **facts: Any,  # noqa: ANN401 -- of any kind
) -> Result:
    return Result(
        id=new_id(NOON),
        job=job,
        machine=LAPTOP,
        software=VERSIONS,
        started=NOON,
        seconds=1.0,
        metrics={"top1": Measurement(unit="%", value=value, low=value - 0.33, high=value + 0.33)},
        facts={
            "images": dict(images),
            "weights": dict(weights),
            "heads": {head: {"top1": accuracy} for head, accuracy in (heads or {"class": value}).items()},
            "unreadable": [],
            **facts,
        },
    )


def judged(spec: Spec, values: Mapping[float, float], *, options: Options = GIVEN, **facts: Any) -> JudgedCell:  # noqa: ANN401
    """Judge the accuracy of `net`, given that of each crop."""
    plan = make_plan([spec], options)
    planned = plan.cells_in(spec)["net", "top1"]
    results = {
        job.key: evaluated(job, values[float(job["crop"])], **facts)
        for job in planned.jobs
        if float(job["crop"]) in values
    }
    return compare(fill(spec, plan, results)).judged_cells["net", "top1"]


# What is judged.


def test_the_same_weights_on_the_same_images_leave_nothing_to_chance(spec: Spec) -> None:
    cell = judged(spec, {0.875: 82.89})
    assert cell.verdict is Verdict.DEVIATES
    assert cell.reason == "not within 0.05 % top-1 of the paper (83.1)"


def test_a_sample_is_shown_with_what_it_is_and_never_judged(spec: Spec) -> None:
    cell = judged(spec, {0.875: 83.1}, images=SAMPLE)
    assert (cell.verdict, cell.reason) == (
        Verdict.NOT_COMPARABLE,
        "measured on 9 of the 50,000 images of ImageNet",
    )


def test_another_crop_that_gives_the_published_value_explains_a_deviation(spec: Spec) -> None:
    cell = judged(spec, {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}, options=replace(GIVEN, explain=True))
    assert (cell.verdict, cell.reason) == (Verdict.EXPLAINED, "crop 1 gives 83.11, as the paper (83.1)")


def test_another_reading_of_the_heads_explains_a_deviation_without_another_crop(spec: Spec) -> None:
    heads = {"class": 82.0, "distil": 82.5, "softmax_sum": 82.89, "logit_mean": 83.12}
    cell = judged(spec, {0.875: 82.89}, heads=heads)
    assert (cell.verdict, cell.reason) == (
        Verdict.EXPLAINED,
        "crop 0.875 and the mean of the heads' logits gives 83.12, as the paper (83.1)",
    )


def test_crops_that_were_not_measured_explain_nothing(spec: Spec) -> None:
    cell = judged(spec, {0.875: 82.89, 0.9: 82.95}, options=replace(GIVEN, explain=True))
    assert cell.verdict is Verdict.DEVIATES


def test_explain_shows_every_crop_and_marks_what_meets_a_published_value(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True, rows=("net",)))
    values = {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}
    results = {job.key: evaluated(job, values[float(job["crop"])]) for job in plan.jobs}
    diff = compare(fill(plan.specs[0], plan, results))
    assert render_explanations(diff, width=80, color=False) == (
        "\n"
        "top-1 of Net; published: the paper 83.1\n"
        "            % top-1\n"
        "───────────────────\n"
        "crop 0.875  82.89*\n"
        "crop 0.9    82.95\n"
        "crop 0.95   83.00\n"
        "crop 1      83.11 ✓\n"
        "✓ within the tolerance of a published value; * as the table has it\n"
    )


@pytest.fixture
def explained(spec: Spec) -> Diff:
    plan = make_plan([spec], replace(GIVEN, explain=True, rows=("net",)))
    values = {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}
    results = {job.key: evaluated(job, values[float(job["crop"])]) for job in plan.jobs}
    return compare(fill(plan.specs[0], plan, results))


def test_markdown_collapses_what_each_crop_gives(explained: Diff) -> None:
    text = render_markdown(explained, explain=True)
    assert (
        "<details><summary>what each crop and head gives</summary>\n"
        "\n"
        "**top-1 of Net; published: the paper 83.1**\n"
        "\n"
        "|  | % top-1 |\n"
        "|---|--:|\n"
        "| crop 0.875 | 82.89\\* |\n"
        "| crop 0.9 | 82.95 |\n"
        "| crop 0.95 | 83.00 |\n"
        "| crop 1 | 83.11 ✓ |\n"
        "\n"
        "✓ within the tolerance of a published value; * as the table has it\n"
        "\n"
        "</details>\n"
    ) in text
    assert "what each crop" not in render_markdown(explained)


def test_json_has_what_each_crop_gives_when_requested(explained: Diff) -> None:
    cell = {"row": "net", "column": "top1", "head": None}
    assert json.loads(render_json([explained], explain=True))["explanations"] == [
        {**cell, "crop": 0.875, "value": 82.89},
        {**cell, "crop": 0.9, "value": 82.95},
        {**cell, "crop": 0.95, "value": 83.0},
        {**cell, "crop": 1.0, "value": 83.108},
    ]
    assert "explanations" not in json.loads(render_json([explained]))


def test_a_report_shows_the_crops_that_were_measured_without_the_folder_of_the_images(spec: Spec) -> None:
    values = {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}
    cell = judged(spec, values, options=Options(explain=True))
    assert [(variant.crop, variant.value) for variant in head_variants(cell.filled)] == list(values.items())


UNREADABLE: dict[str, Any] = {"unreadable": [f"{number}.JPEG" for number in range(3000)]}


def test_an_accuracy_with_unreadable_images_is_not_judged(spec: Spec) -> None:
    cell = judged(spec, {0.875: 83.1}, **UNREADABLE)
    assert (cell.verdict, cell.reason) == (
        Verdict.NOT_COMPARABLE,
        "3,000 of 50,000 images could not be read and count as wrong",
    )


@pytest.mark.parametrize(
    "facts", [UNREADABLE, {"weights": {**FILE, "sha256": "b" * 64}}], ids=["unreadable", "weights"]
)
def test_another_crop_of_fewer_images_or_other_weights_explains_nothing(spec: Spec, facts: Mapping[str, Any]) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True, rows=("net",)))
    own, *others = plan.jobs
    results = {own.key: evaluated(own, 82.89)} | {job.key: evaluated(job, 83.1, **facts) for job in others}
    cell = compare(fill(plan.specs[0], plan, results)).judged_cells["net", "top1"]
    assert cell.verdict is Verdict.DEVIATES


def test_of_several_seeds_a_head_explains_by_its_mean(tmp_path: Path) -> None:
    path = tmp_path / "trained.toml"
    text = SPEC.replace(
        'weights = "w", res = 384 }', 'res = 224 }\nunreleased = "never"\ntrain = { recipe = "deit-ti" }'
    )
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], replace(GIVEN, train=True, seeds=2, rows=("net",)))
    jobs = [job for job in plan.jobs if job.kind == "evaluate"]
    heads = [{"class": 80.0, "distil": 83.1}, {"class": 80.0, "distil": 84.1}]  # the first alone meets 83.1
    taken = [dict(inputs_of(job)["weights"]) for job in jobs]
    results = with_trainings(
        *(evaluated(job, 80.0, heads=of, weights=made) for job, of, made in zip(jobs, heads, taken, strict=True))
    )
    cell = compare(fill(plan.specs[0], plan, results)).judged_cells["net", "top1"]
    assert [(variant.head, variant.value) for variant in head_variants(cell.filled)] == [
        ("class", 80.0),
        ("distil", pytest.approx(83.6)),
    ]
    assert cell.verdict is Verdict.DEVIATES


def test_another_crop_of_other_images_explains_nothing(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True, rows=("net",)))
    own, *others = plan.jobs
    results = {own.key: evaluated(own, 82.89)} | {job.key: evaluated(job, 83.1, images=SAMPLE) for job in others}
    cell = compare(fill(plan.specs[0], plan, results)).judged_cells["net", "top1"]
    assert cell.verdict is Verdict.DEVIATES
    assert [variant.crop for variant in head_variants(cell.filled)] == [0.875]


# What is planned.


def test_explaining_plans_the_other_crops_in_the_same_pass(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True))
    assert sorted(float(job["crop"]) for job in plan.jobs) == [0.875, 0.9, 0.95, 1.0]
    assert make_plan([spec], Options(explain=True)).jobs == ()


def test_without_images_a_cell_says_which_it_needs(spec: Spec) -> None:
    assert make_plan([spec]).cells_in(spec)["net", "top1"].blocked == "needs --data imagenet=PATH"


def test_a_row_without_public_weights_names_the_nearest(spec: Spec) -> None:
    assert make_plan([spec], GIVEN).cells_in(spec)["gone", "top1"].blocked == (
        "no public weights: lost in a fire; nearest public ones: near.v; needs --allow-nearest"
    )


def test_the_nearest_weights_are_shown_when_allowed_and_never_judged(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, allow_nearest=True))
    planned = plan.cells_in(spec)["gone", "top1"]
    assert planned.job is not None
    assert (planned.job["model"], planned.job["weights"]) == ("near", "v")
    results = {planned.job.key: evaluated(planned.job, 80.0)}
    cell = compare(fill(spec, plan, results)).judged_cells["gone", "top1"]
    assert (cell.verdict, cell.reason) == (Verdict.NOT_COMPARABLE, "other weights: near.v, another recipe")


# Whose the weights are.

AA_ROW = """
[row.aa]
label = "AA"
set = { model = "b5", weights = "aa", res = 456 }
paper = { top1 = 83.7 }
"""

RA_ROWS = """
[column.against]
label = "against"
job = "agreement"
metric = "disagreement"
unit = "fraction"
tolerance = 1
set = { data = "imagenet" }
[row.net]
label = "Net"
set = { first = "net.w", second = "b5.ra", res = 456 }
paper = { against = 0.1 }
[row.ra]
label = "RA"
set = { model = "b5", weights = "ra", res = 456 }
paper = { top1 = 83.7 }
[row.larger]
label = "RA, larger"
set = { model = "b5", weights = "ra", res = 600 }
paper = { top1 = 83.7 }
"""

UNTAGGED = {"file": "b5.pth", "sha256": "5" * 64, "origin": "file"}
AA = {**UNTAGGED, "file": "b5.aa.pth", "sha256": "a1" * 32}
RA = {**UNTAGGED, "file": "b5.ra.pth", "sha256": "b2" * 32}

NOTHING = "nothing was published here"

SHARED = "b5.pth (SHA-256 555555555555…) was taken for b5.aa and b5.ra, and can only be one of them"


def verdicts(tmp_path: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Judge rows in two tables, whose weights were read from these files (by tag)."""
    head = SPEC.partition("[row.net]")[0]
    texts = {"one": head + AA_ROW, "two": head + RA_ROWS}
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    plan = make_plan([load(tmp_path / f"{name}.toml") for name in texts], GIVEN)
    results: dict[str, Result] = {}
    for job in plan.jobs:
        result = evaluated(job, 83.7, weights=files.get(str(job.get("weights")), FILE))
        if job.kind == "agreement":
            metrics = {"disagreement": Measurement(unit="fraction", value=0.1)}
            taken = [results[evaluation.key].id for evaluation in dependencies(job)]
            result = replace(result, metrics=metrics, facts={"images": WHOLE, "evaluations": taken})
        results[job.key] = result
    cells = {key: cell for diff in judge_plan(plan, results) for key, cell in diff.judged_cells.items()}
    shown = {row if column == "top1" else column: cell for (row, column), cell in cells.items() if cell.filled.result}
    return {name: (str(cell.verdict), cell.reason) for name, cell in shown.items() if cell.reason != NOTHING}


WITHIN = ("match", "within 0.05 % top-1 of the paper (83.7)")


def test_rows_of_weights_of_their_own_are_judged_and_two_of_one_name_share_a_file(tmp_path: Path) -> None:
    assert verdicts(tmp_path, {"aa": AA, "ra": RA}) == {
        "aa": WITHIN,
        "ra": WITHIN,
        "larger": WITHIN,
        "against": ("match", "within 1 fraction of the paper (0.1)"),
    }


@pytest.mark.parametrize("origin", ["file", "author checkpoint"])
def test_where_two_rows_share_a_file_neither_is_judged_nor_what_is_derived_from_them(
    tmp_path: Path, origin: str
) -> None:
    file = {**UNTAGGED, "origin": origin}
    unclear = ("not comparable", SHARED)
    assert verdicts(tmp_path, {"aa": file, "ra": file}) == dict.fromkeys(("aa", "ra", "larger", "against"), unclear)


def test_what_the_hub_has_under_two_names_is_two_names(tmp_path: Path) -> None:
    hub = {**UNTAGGED, "file": "model.safetensors", "origin": "hub"}
    assert verdicts(tmp_path, {"aa": hub, "ra": hub})["aa"] == WITHIN
    found = verdicts(tmp_path, {"aa": UNTAGGED, "ra": hub})
    assert (found["aa"], found["ra"]) == (("not comparable", SHARED), WITHIN)


def test_a_file_that_may_be_others_is_not_judged_and_leaves_one_with_a_tag_alone(tmp_path: Path) -> None:
    unclear = {**UNTAGGED, "also_fits": ["b5.ap", "b5.ra"]}
    found = verdicts(tmp_path, {"aa": unclear, "ra": {**RA, "sha256": UNTAGGED["sha256"]}})
    assert found["aa"] == (
        "not comparable",
        "b5.pth (SHA-256 555555555555…) may be b5.aa or b5.ap, b5.ra; rename it to say which",
    )
    assert found["ra"] == found["larger"] == WITHIN


def test_a_training_that_took_the_file_of_another_name_is_not_judged() -> None:
    taught = Job.of("train", {"model": "net", "res": 224, "recipe": "deit-b", "teacher": "b5.ra"})
    result = replace(evaluated(taught, 80.0), facts={"took": {"teacher": AA["sha256"]}})
    other = evaluated(
        Job.of("evaluate", {"model": "b5", "weights": "aa", "res": 456, "data": "imagenet"}), 83.7, weights=AA
    )
    assert unclear_weights([result]) == {}
    assert unclear_weights([result, other]) == {
        taught.key: "the file (SHA-256 a1a1a1a1a1a1…) was taken for b5.aa and b5.ra, and can only be one of them",
        other.job.key: "b5.aa.pth (SHA-256 a1a1a1a1a1a1…) was taken for b5.aa and b5.ra, and can only be one of them",
    }


def test_an_accuracy_of_unclear_weights_is_not_drawn_among_published_points(spec: Spec) -> None:
    assert broken_input(judged(spec, {0.875: 83.1}).filled) == ""
    assert broken_input(judged(spec, {0.875: 83.1}, weights={**FILE, "also_fits": ["net.v"]}).filled)


def test_an_agreement_brings_its_two_evaluations_into_the_plan() -> None:
    job = Job.of(
        "agreement",
        {
            "first": "one.w",
            "second": "two.v#class",
            "data": "imagenet",
            "res": 224,
            "crop": 0.875,
            "interpolation": "bicubic",
            "norm": "imagenet",
            "precision": "float32",
        },
    )
    assert [(needed.kind, needed["model"], needed["weights"], needed["crop"]) for needed in dependencies(job)] == [
        ("evaluate", "one", "w", 0.875),
        ("evaluate", "two", "v", 0.875),
    ]


# What is reused.


INVENTORY = Inventory(images={"imagenet": WHOLE}, weights={"net.w": "a" * 64})


def measured_again(
    tmp_path: Path, plan: Plan, stored: Result, *, inventory: Inventory = INVENTORY, inputs: Inputs | None = None
) -> list[str]:
    """Return the kinds of jobs that a run measures whose store has this result."""
    store, launcher = Store(tmp_path / "runs"), FakeLauncher()
    store.save(stored)
    runner = Runner(
        store=store,
        launcher=launcher,
        target=ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "lock"),
        observer=ProgressObserver(),
        inputs=inputs or Inputs(),
        inventory=inventory,
    )
    runner.run(plan)
    return [result.job.kind for result in runner.measured]


@pytest.fixture
def only(spec: Spec) -> tuple[Plan, Job]:
    plan = make_plan([spec], replace(GIVEN, rows=("net",)))
    return plan, plan.jobs[0]


def test_an_accuracy_is_reused_for_the_same_images_and_weights_on_any_machine(
    tmp_path: Path, only: tuple[Plan, Job]
) -> None:
    plan, job = only
    stored = replace(evaluated(job, 83.1), machine=replace(LAPTOP, name="Another CPU"))
    assert measured_again(tmp_path, plan, stored) == []


@pytest.mark.parametrize(
    "inventory",
    [
        Inventory(images={"imagenet": SAMPLE}, weights={"net.w": "a" * 64}),
        Inventory(images={"imagenet": {**WHOLE, "whole": False}}, weights={"net.w": "a" * 64}),
        Inventory(images={"imagenet": WHOLE}, weights={"net.w": "b" * 64}),
        Inventory(images={"imagenet": WHOLE}, weights={"net.w": None}),
    ],
    ids=[
        "other images",
        "images now known not to be the published ones",
        "another file of weights",
        "the hub's weights instead of a file",
    ],
)
def test_an_accuracy_of_other_images_or_weights_is_not_reused(
    tmp_path: Path, only: tuple[Plan, Job], inventory: Inventory
) -> None:
    plan, job = only
    assert measured_again(tmp_path, plan, evaluated(job, 83.1), inventory=inventory) == ["evaluate"]


def test_an_accuracy_is_measured_again_once_the_file_says_whose_it_is(tmp_path: Path, only: tuple[Plan, Job]) -> None:
    plan, job = only
    unclear = replace(INVENTORY, also_fits={"net.w": ("net.v",)})
    stored = evaluated(job, 83.1, weights={**FILE, "also_fits": ["net.v"]})
    assert measured_again(tmp_path / "a", plan, stored, inventory=unclear) == []
    assert measured_again(tmp_path / "b", plan, stored) == ["evaluate"]
    assert measured_again(tmp_path / "c", plan, evaluated(job, 83.1), inventory=unclear) == ["evaluate"]


def test_an_accuracy_with_unreadable_images_is_reused_only_where_they_are_allowed(
    tmp_path: Path, only: tuple[Plan, Job]
) -> None:
    plan, job = only
    stored = evaluated(job, 83.1)
    stored.facts["unreadable"].append("a.JPEG")
    assert measured_again(tmp_path / "a", plan, stored) == ["evaluate"]
    assert measured_again(tmp_path / "b", plan, stored, inputs=Inputs(skip_unreadable=True)) == []


def test_what_is_wrong_with_the_images_ends_the_command_before_anything_is_measured(spec: Spec) -> None:
    launcher = FakeLauncher(inventory=Inventory(problems=("--data imagenet=x: there is no such file or folder",)))
    with pytest.raises(HarnessError, match=r"^--data imagenet=x: there is no such file or folder$"):
        inspect_inputs(make_plan([spec], GIVEN), launcher, Inputs(data={"imagenet": "x"}))


def test_weights_that_are_not_there_block_their_cells_and_no_others(spec: Spec) -> None:
    launcher = FakeLauncher(
        inventory=Inventory(images={"imagenet": WHOLE}, missing={"net.w": "no weights of net.w there"})
    )
    plan, _ = inspect_inputs(make_plan([spec], GIVEN), launcher, Inputs(data={"imagenet": "x"}))
    assert plan.cells_in(spec)["net", "top1"].blocked == "no weights of net.w there"
    assert plan.jobs == ()


def shown(plan: Plan, stored: Result, inventory: Inventory, *, requested: bool = True) -> list[str]:
    """Return the keys that a command that measured nothing shows, with this result in its store."""
    runner = Runner(
        store=Store(Path("unused")),
        launcher=FakeLauncher(),
        target=ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS),
        observer=ProgressObserver(),
        inventory=inventory,
    )
    return list(runner.with_current_inputs({stored.job.key: stored}, plan.jobs if requested else ()))


def test_a_stored_accuracy_of_the_images_and_weights_that_were_given_is_shown(only: tuple[Plan, Job]) -> None:
    plan, job = only
    assert shown(plan, evaluated(job, 83.1), INVENTORY) == [job.key]


@pytest.mark.parametrize(
    "inventory",
    [
        Inventory(images={"imagenet": SAMPLE}, weights={"net.w": "a" * 64}),
        Inventory(images={"imagenet": WHOLE}, missing={"net.w": "no weights of net.w there"}),
        Inventory(),
    ],
    ids=["other images", "weights that are not there", "interrupted before the inventory"],
)
def test_a_stored_accuracy_of_other_images_or_weights_is_not_shown(
    only: tuple[Plan, Job], inventory: Inventory
) -> None:
    plan, job = only
    assert shown(plan, evaluated(job, 83.1), inventory) == []


def test_a_stored_accuracy_that_was_not_requested_is_shown_unless_it_is_of_other_images(only: tuple[Plan, Job]) -> None:
    plan, job = only
    stored = evaluated(job, 83.1)
    assert shown(plan, stored, Inventory(), requested=False) == [job.key]
    assert shown(plan, stored, Inventory(images={"imagenet": SAMPLE}), requested=False) == []


def test_weights_that_several_rows_lack_are_reported_in_one_line(spec: Spec) -> None:
    def message(name: str, nearest: str) -> str:
        return f"--weights w: no weights of {name} there (looked for {name}.pth, the same as .pt){nearest}"

    plan = make_plan([spec], replace(GIVEN, allow_nearest=True))
    messages = {"net": message("net.w", ""), "near": message("near.v", "; did you mean 'neat'?")}
    plan = plan.block({job.key: messages[str(job["model"])] for job in plan.jobs})
    diff = compare(fill(spec, plan, {}))
    assert formatting.reasons(diff, merged=True) == [
        (Verdict.MISSING, "--weights w: no weights of these models there (-v shows more)", "top-1 of Net, Gone")
    ]


# What is shown meanwhile.

PASS = "3 models over imagenet"


def test_a_log_has_a_line_a_minute_of_a_pass(
    only: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, job = only
    clock = iter([0.0, 59.0, 60.0, 60.0, 61.0, 120.0, 120.0])
    monkeypatch.setattr("harness.cli.progress.time.monotonic", clock.__next__)
    lines = LogObserver(note)
    for done in (100, 200, 300, 400):
        lines.progress(Progress(job=job, phase="", overview=PASS, done=done, total=1000))
    assert capsys.readouterr().err == f"{PASS}: 200/1000\n{PASS}: 400/1000\n"


def test_a_terminal_shows_the_whole_pass_its_throughput_and_the_time_left(only: tuple[Plan, Job]) -> None:
    _, job = only
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=90, color_system=None)
    with display.LiveObserver(console) as line:
        line.starts(job, 1, 3)
        line.progress(Progress(job=job, phase="", overview=PASS, done=250, total=1000, rate=25.0))
    assert f"{PASS}: 250/1000, 25.0 im/s, about 30 s left" in screen.getvalue()


# What is drawn.


def heights(line: Line2D) -> list[float]:
    return [float(height) for height in np.asarray(line.get_ydata(), dtype=float)]


FIGURE = SPEC.replace('title = "Accuracy"', 'title = "Accuracy"\nx = "speed"\ny = "top1"') + (
    '[column.speed]\nlabel = "speed"\njob = "throughput"\nmetric = "throughput"\nunit = "im/s"\n'
)


@pytest.mark.parametrize(
    ("facts", "height"),
    [({"images": WHOLE}, 82.5), ({"images": SAMPLE}, 83.1), (UNREADABLE, 83.1)],
    ids=["whole", "sample", "unreadable"],
)
def test_the_accuracy_of_a_sample_is_not_drawn_among_published_ones(
    tmp_path: Path, facts: Mapping[str, Any], height: float
) -> None:
    path = tmp_path / "figure.toml"
    path.write_text(FIGURE, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], GIVEN)
    cells = plan.cells_in(spec)
    speed, top1 = cells["net", "speed"].job, cells["net", "top1"].job
    assert speed is not None
    assert top1 is not None
    fast = replace(evaluated(speed, 0.0), metrics={"throughput": Measurement(unit="im/s", value=10.0)}, facts={})
    table = fill(spec, plan, {speed.key: fast, top1.key: evaluated(top1, 82.5, **facts)})
    drawn = [heights(line) for line in points_figure(table).axes[0].lines]
    assert [line for line in drawn if line] == [[height]]


TOKENS = """
[table]
title = "Tokens"
[source.paper]
kind = "paper"
cite = "the paper"
[column.cosine]
label = "cosine"
job = "tokens"
metric = "cosine_out"
set = { data = "imagenet" }
[row.net]
label = "Net"
set = { model = "net", weights = "w", res = 224 }
paper = { cosine = 0.93 }
"""


def test_the_tokens_are_drawn_layer_by_layer(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], GIVEN)
    (job,) = plan.jobs
    table = fill(spec, plan, {job.key: evaluated(job, 0.93, by_layer=[0.06, 0.5, 0.93])})
    (line,) = layers_figure(table).axes[0].lines
    assert heights(line) == [0.06, 0.5, 0.93]
    draw(table, tmp_path / "tokens.png")
    assert (tmp_path / "tokens.png").stat().st_size > 5000


def test_every_measurement_of_tokens_has_a_line_whatever_its_model(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    more = '[row.large]\nlabel = "Large"\nset = { model = "net", weights = "w", res = 384 }\n'
    again = '[row.again]\nlabel = "Again"\nset = { model = "net", weights = "w", res = 224 }\n'
    path.write_text(TOKENS + more + again, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], GIVEN)
    figure = layers_figure(fill(spec, plan, {j.key: evaluated(j, 0.9, by_layer=[0.1, 0.9]) for j in plan.jobs}))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(figure.axes[0].lines) == len(names) == 2
    assert names == ["tokens net imagenet at 224 w", "tokens net imagenet at 384 w"]
    assert figure.get_suptitle() == "tokens. Tokens"


def test_a_table_without_axes_or_measured_tokens_is_not_drawn(tmp_path: Path, spec: Spec) -> None:
    table = fill(spec, make_plan([spec]), {})
    with pytest.raises(HarnessError) as error:
        draw(table, tmp_path / "x.png")
    assert str(error.value) == "'spec' has no axes, so it is not drawn; `harness report spec` prints it"
    (tmp_path / "tokens.toml").write_text(TOKENS, encoding="utf-8")
    tokens = load(tmp_path / "tokens.toml")
    with pytest.raises(HarnessError) as error:
        draw(fill(tokens, make_plan([tokens]), {}), tmp_path / "x.png")
    assert str(error.value) == "'tokens' has no axes and no measured tokens, so there is nothing to draw"
