"""Accuracies from plan to verdict: what stands for what, what is judged, and what explains a difference."""

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

from harness.cli import display
from harness.diff import Diff, Finding, Verdict, compare, readings
from harness.errors import HarnessError
from harness.figure import draw, figure_of, layers_of
from harness.job import Job
from harness.plan import Options, Plan, make_plan, needed_by
from harness.progress import Inputs, Progress, Seen
from harness.report import render_explanations, render_json, render_markdown, words
from harness.result import Measurement, Result, new_id
from harness.run import Done, Runner, Site, look
from harness.spec import Spec, load
from harness.store import Store
from harness.table import fill
from tests.fakes import LAPTOP, NOON, VERSIONS, FakeLauncher

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
    **facts: Any,  # noqa: ANN401 -- whatever else stands in a result
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
            "heads": {head: {"top1": one} for head, one in (heads or {"class": value}).items()},
            "unreadable": [],
            **facts,
        },
    )


def judged(spec: Spec, values: Mapping[float, float], *, options: Options = GIVEN, **told: Any) -> Finding:  # noqa: ANN401
    """Judge the accuracy of `net`, given what each crop came to."""
    plan = make_plan([spec], options)
    planned = plan.of(spec)["net", "top1"]
    results = {
        job.key: evaluated(job, values[float(job["crop"])], **told)
        for job in planned.jobs
        if float(job["crop"]) in values
    }
    return compare(fill(spec, plan, results)).findings["net", "top1"]


# What is judged.


def test_the_same_weights_on_the_same_images_leave_no_chance(spec: Spec) -> None:
    found = judged(spec, {0.875: 82.89})
    assert found.verdict is Verdict.DEVIATES
    assert found.reason == "not within 0.05 % top-1 of the paper (83.1)"


def test_a_sample_is_shown_with_what_it_is_and_never_judged(spec: Spec) -> None:
    found = judged(spec, {0.875: 83.1}, images=SAMPLE)
    assert (found.verdict, found.reason) == (
        Verdict.NOT_COMPARABLE,
        "measured on 9 of the 50,000 images of ImageNet",
    )


def test_another_crop_that_gives_the_published_value_explains_a_deviation(spec: Spec) -> None:
    found = judged(spec, {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}, options=replace(GIVEN, explain=True))
    assert (found.verdict, found.reason) == (Verdict.EXPLAINED, "crop 1 gives 83.11, as the paper (83.1)")


def test_another_reading_of_the_heads_explains_a_deviation_without_another_crop(spec: Spec) -> None:
    heads = {"class": 82.0, "distil": 82.5, "softmax_sum": 82.89, "logit_mean": 83.12}
    found = judged(spec, {0.875: 82.89}, heads=heads)
    assert (found.verdict, found.reason) == (
        Verdict.EXPLAINED,
        "crop 0.875 and the mean of the heads' logits gives 83.12, as the paper (83.1)",
    )


def test_crops_that_were_not_measured_explain_nothing(spec: Spec) -> None:
    found = judged(spec, {0.875: 82.89, 0.9: 82.95}, options=replace(GIVEN, explain=True))
    assert found.verdict is Verdict.DEVIATES


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


def test_markdown_folds_away_what_each_crop_gives(explained: Diff) -> None:
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


def test_json_has_what_each_crop_gives_when_it_is_asked_for(explained: Diff) -> None:
    place = {"row": "net", "column": "top1", "head": None}
    assert json.loads(render_json([explained], explain=True))["explanations"] == [
        {**place, "crop": 0.875, "value": 82.89},
        {**place, "crop": 0.9, "value": 82.95},
        {**place, "crop": 0.95, "value": 83.0},
        {**place, "crop": 1.0, "value": 83.108},
    ]
    assert "explanations" not in json.loads(render_json([explained]))


def test_a_report_shows_the_crops_that_were_measured_without_being_told_where_the_images_are(spec: Spec) -> None:
    values = {0.875: 82.89, 0.9: 82.95, 0.95: 83.0, 1.0: 83.108}
    found = judged(spec, values, options=Options(explain=True))
    assert [(one.crop, one.value) for one in readings(found.filled)] == list(values.items())


def test_another_crop_of_other_images_explains_nothing(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True, rows=("net",)))
    own, *others = plan.jobs
    results = {own.key: evaluated(own, 82.89)} | {job.key: evaluated(job, 83.1, images=SAMPLE) for job in others}
    found = compare(fill(plan.specs[0], plan, results)).findings["net", "top1"]
    assert found.verdict is Verdict.DEVIATES
    assert [one.crop for one in readings(found.filled)] == [0.875]


# What is planned.


def test_explaining_plans_the_other_crops_in_the_same_pass(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, explain=True))
    assert sorted(float(job["crop"]) for job in plan.jobs) == [0.875, 0.9, 0.95, 1.0]
    assert make_plan([spec], Options(explain=True)).jobs == ()


def test_without_images_a_cell_says_which_it_needs(spec: Spec) -> None:
    assert make_plan([spec]).of(spec)["net", "top1"].blocked == "needs --data imagenet=PATH"


def test_a_row_without_public_weights_names_the_nearest(spec: Spec) -> None:
    assert make_plan([spec], GIVEN).of(spec)["gone", "top1"].blocked == (
        "no public weights: lost in a fire; nearest public ones: near.v; needs --allow-nearest"
    )


def test_the_nearest_weights_are_shown_when_allowed_and_never_judged(spec: Spec) -> None:
    plan = make_plan([spec], replace(GIVEN, allow_nearest=True))
    planned = plan.of(spec)["gone", "top1"]
    assert planned.job is not None
    assert (planned.job["model"], planned.job["weights"]) == ("near", "v")
    results = {planned.job.key: evaluated(planned.job, 80.0)}
    found = compare(fill(spec, plan, results)).findings["gone", "top1"]
    assert (found.verdict, found.reason) == (Verdict.NOT_COMPARABLE, "other weights: near.v, another recipe")


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
    assert [(one.kind, one["model"], one["weights"], one["crop"]) for one in needed_by(job)] == [
        ("evaluate", "one", "w", 0.875),
        ("evaluate", "two", "v", 0.875),
    ]


# What stands for measuring.


class Still:
    """Says nothing."""

    def starts(self, job: Job, number: int, total: int) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass

    def finished(self, result: Result) -> None:
        pass

    def waits(self, why: str) -> None:
        pass


SEEN = Seen(images={"imagenet": WHOLE}, weights={"net.w": "a" * 64})


def measured_again(
    tmp_path: Path, plan: Plan, kept: Result, *, seen: Seen = SEEN, inputs: Inputs | None = None
) -> list[str]:
    """Say what a run does that finds this result in its store."""
    store, launcher = Store(tmp_path / "runs"), FakeLauncher()
    store.save(kept)
    runner = Runner(
        store=store,
        launcher=launcher,
        site=Site(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "lock"),
        watcher=Still(),
        inputs=inputs or Inputs(),
        seen=seen,
        done=Done(),
    )
    return [result.job.kind for result in runner.run(plan).measured]


@pytest.fixture
def only(spec: Spec) -> tuple[Plan, Job]:
    plan = make_plan([spec], replace(GIVEN, rows=("net",)))
    return plan, plan.jobs[0]


def test_an_accuracy_stands_for_the_same_images_and_weights_on_any_machine(
    tmp_path: Path, only: tuple[Plan, Job]
) -> None:
    plan, job = only
    kept = replace(evaluated(job, 83.1), machine=replace(LAPTOP, name="Another Processor"))
    assert measured_again(tmp_path, plan, kept) == []


@pytest.mark.parametrize(
    "seen",
    [
        Seen(images={"imagenet": SAMPLE}, weights={"net.w": "a" * 64}),
        Seen(images={"imagenet": WHOLE}, weights={"net.w": "b" * 64}),
        Seen(images={"imagenet": WHOLE}, weights={"net.w": None}),
    ],
    ids=["other images", "another file of weights", "the hub's weights instead of a file"],
)
def test_an_accuracy_of_other_images_or_weights_does_not_stand(
    tmp_path: Path, only: tuple[Plan, Job], seen: Seen
) -> None:
    plan, job = only
    assert measured_again(tmp_path, plan, evaluated(job, 83.1), seen=seen) == ["evaluate"]


def test_an_accuracy_with_unreadable_images_stands_only_where_they_are_allowed(
    tmp_path: Path, only: tuple[Plan, Job]
) -> None:
    plan, job = only
    kept = evaluated(job, 83.1)
    kept.facts["unreadable"].append("a.JPEG")
    assert measured_again(tmp_path / "a", plan, kept) == ["evaluate"]
    assert measured_again(tmp_path / "b", plan, kept, inputs=Inputs(skip_unreadable=True)) == []


def test_what_is_wrong_with_the_images_ends_the_command_before_anything_is_measured(spec: Spec) -> None:
    launcher = FakeLauncher(seen=Seen(problems=("--data imagenet=x: there is no such file or folder",)))
    with pytest.raises(HarnessError, match=r"^--data imagenet=x: there is no such file or folder$"):
        look(make_plan([spec], GIVEN), launcher, Inputs(data={"imagenet": "x"}))


def test_weights_that_are_not_there_block_their_cells_and_no_others(spec: Spec) -> None:
    launcher = FakeLauncher(seen=Seen(images={"imagenet": WHOLE}, missing={"net.w": "no weights of net.w there"}))
    plan, _ = look(make_plan([spec], GIVEN), launcher, Inputs(data={"imagenet": "x"}))
    assert plan.of(spec)["net", "top1"].blocked == "no weights of net.w there"
    assert plan.jobs == ()


def shown(plan: Plan, kept: Result, seen: Seen, *, asked: bool = True) -> list[str]:
    """Say what a command that measured nothing shows of this result in its store."""
    runner = Runner(
        store=Store(Path("unused")),
        launcher=FakeLauncher(),
        site=Site(device="cpu", machine=LAPTOP, software=VERSIONS),
        watcher=Still(),
        seen=seen,
    )
    return list(runner.of_these({kept.job.key: kept}, plan.jobs if asked else ()))


def test_a_stored_accuracy_of_the_images_and_weights_that_were_given_is_shown(only: tuple[Plan, Job]) -> None:
    plan, job = only
    assert shown(plan, evaluated(job, 83.1), SEEN) == [job.key]


@pytest.mark.parametrize(
    "seen",
    [
        Seen(images={"imagenet": SAMPLE}, weights={"net.w": "a" * 64}),
        Seen(images={"imagenet": WHOLE}, missing={"net.w": "no weights of net.w there"}),
        Seen(),
    ],
    ids=["other images", "weights that are not there", "interrupted before they were looked at"],
)
def test_a_stored_accuracy_of_other_images_or_weights_is_not_shown(only: tuple[Plan, Job], seen: Seen) -> None:
    plan, job = only
    assert shown(plan, evaluated(job, 83.1), seen) == []


def test_a_stored_accuracy_that_was_not_asked_for_is_shown_unless_it_is_of_other_images(only: tuple[Plan, Job]) -> None:
    plan, job = only
    kept = evaluated(job, 83.1)
    assert shown(plan, kept, Seen(), asked=False) == [job.key]
    assert shown(plan, kept, Seen(images={"imagenet": SAMPLE}), asked=False) == []


def test_weights_that_several_rows_lack_are_told_in_one_line_that_says_so(spec: Spec) -> None:
    def why(name: str, nearest: str) -> str:
        return f"--weights w: no weights of {name} there (looked for {name}.pth, the same as .pt){nearest}"

    plan = make_plan([spec], replace(GIVEN, allow_nearest=True))
    told = {"net": why("net.w", ""), "near": why("near.v", "; did you mean 'neat'?")}
    plan = plan.without({job.key: told[str(job["model"])] for job in plan.jobs})
    diff = compare(fill(spec, plan, {}))
    assert words.reasons_in_short(diff) == [
        (Verdict.MISSING, "--weights w: no weights of these networks there (-v shows more)", "top-1 of Net, Gone")
    ]


# What is shown while it goes on.

PASS = "3 networks over imagenet"


def test_a_log_is_told_once_a_minute_that_a_pass_goes_on(
    only: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, job = only
    clock = iter([0.0, 59.0, 60.0, 60.0, 61.0, 120.0, 120.0])
    monkeypatch.setattr("harness.cli.display.time.monotonic", clock.__next__)
    lines = display.Lines()
    for done in (100, 200, 300, 400):
        lines.progress(Progress(job=job, phase="", together=PASS, done=done, total=1000))
    assert capsys.readouterr().err == f"{PASS}: 200/1000\n{PASS}: 400/1000\n"


def test_a_terminal_shows_the_whole_pass_its_speed_and_the_time_left(only: tuple[Plan, Job]) -> None:
    _, job = only
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=90, color_system=None)
    with display.LiveLine(console) as line:
        line.starts(job, 1, 3)
        line.progress(Progress(job=job, phase="", together=PASS, done=250, total=1000, rate=25.0))
    assert f"{PASS}: 250/1000, 25.0 im/s, about 30 s left" in screen.getvalue()


# What is drawn.


def heights(line: Line2D) -> list[float]:
    return [float(height) for height in np.asarray(line.get_ydata(), dtype=float)]


FIGURE = SPEC.replace('title = "Accuracy"', 'title = "Accuracy"\nx = "speed"\ny = "top1"') + (
    '[column.speed]\nlabel = "speed"\njob = "throughput"\nmetric = "throughput"\nunit = "im/s"\n'
)


@pytest.mark.parametrize(("images", "height"), [(WHOLE, 82.5), (SAMPLE, 83.1)], ids=["whole", "sample"])
def test_the_accuracy_of_a_sample_is_not_drawn_among_published_ones(
    tmp_path: Path, images: Mapping[str, Any], height: float
) -> None:
    path = tmp_path / "figure.toml"
    path.write_text(FIGURE, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], GIVEN)
    cells = plan.of(spec)
    speed, top1 = cells["net", "speed"].job, cells["net", "top1"].job
    assert speed is not None
    assert top1 is not None
    fast = replace(evaluated(speed, 0.0), metrics={"throughput": Measurement(unit="im/s", value=10.0)}, facts={})
    table = fill(spec, plan, {speed.key: fast, top1.key: evaluated(top1, 82.5, images=images)})
    drawn = [heights(line) for line in figure_of(table).axes[0].lines]
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
    (line,) = layers_of(table).axes[0].lines
    assert heights(line) == [0.06, 0.5, 0.93]
    draw(table, tmp_path / "tokens.png")
    assert (tmp_path / "tokens.png").stat().st_size > 5000


def test_a_table_without_axes_or_measured_tokens_is_not_drawn(tmp_path: Path, spec: Spec) -> None:
    table = fill(spec, make_plan([spec]), {})
    with pytest.raises(HarnessError) as refused:
        draw(table, tmp_path / "x.png")
    assert str(refused.value) == "'spec' has no axes, so it is not drawn; `harness report spec` prints it"
    (tmp_path / "tokens.toml").write_text(TOKENS, encoding="utf-8")
    tokens = load(tmp_path / "tokens.toml")
    with pytest.raises(HarnessError) as refused:
        draw(fill(tokens, make_plan([tokens]), {}), tmp_path / "x.png")
    assert str(refused.value) == "'tokens' has no axes and no measured tokens, so there is nothing to draw"
