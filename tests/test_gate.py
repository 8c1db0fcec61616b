"""The outcome of the gate for a cell: worse, better or held, by numbers worked out by hand; and what is not judged."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError, StoreError
from harness.gate.baseline import Baseline, make_baseline
from harness.gate.decision import Evidence, Outcome
from harness.gate.gate import BaselineJudge, Gate, GatedCell, against_paper
from harness.gate.paired import paired_test
from harness.judge.verdict import Verdict
from harness.report.gate import (
    headline,
    render_annotations,
    render_gate,
    render_gate_json,
    render_junit,
    render_summary,
    sentence,
)
from harness.specs import Spec
from harness.store.predictions import write
from harness.store.result import Measurement
from harness.store.store import Store
from tests.evaluations import predictions
from tests.fakes import H200, V100, images_of, result_of, with_facts
from tests.gating import (
    FIVE,
    SPEC,
    judge_selection,
    mine,
    plan_of,
    save_accuracy,
    save_count,
    save_five,
    save_throughput,
)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return mine(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Store:
    return Store(tmp_path / "main")


@pytest.fixture
def new(tmp_path: Path) -> Store:
    return Store(tmp_path / "change")


def baseline_of(store: Store, spec: Spec) -> Baseline:
    now, diff = judge_selection(store, spec)
    return make_baseline([diff.table], now)


def judged(old: Store, new: Store, spec: Spec, *, allow_missing: bool = False) -> list[GatedCell]:
    now, diff = judge_selection(new, spec)
    judge = BaselineJudge(
        baseline=baseline_of(old, spec), selection=now, store=new, baseline_store=old, allow_missing=allow_missing
    )
    return judge.judge([diff])


def said(old: Store, new: Store, spec: Spec) -> tuple[Outcome, str]:
    """The outcome of the only cell and its sentence."""
    (found,) = judged(old, new, spec)
    return found.outcome, sentence(found)


def images(*, right: int, lost: int = 0, won: int = 0, total: int = 1000) -> list[bool]:
    """Right at the first so many, less those lost, and at some others."""
    return [False] * lost + [True] * (right - lost) + [True] * won + [False] * (total - right - won)


# Accuracies, image by image.


def test_half_a_point_less_on_twenty_thousand_images_is_a_regression(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=14_440, total=20_000))
    save_accuracy(new, spec, 9, images(right=14_440, lost=140, won=40, total=20_000))
    # Wald's interval would be 0.5 ± 1.96 · sqrt(180 - 100² / 20,000) / 200 = [0.37, 0.63]; Tango's reaches further up.
    # McNemar: the chance of at most 40 heads in 180 throws, 7.4 standard deviations below the 90 expected.
    assert said(old, new, spec) == (
        Outcome.REGRESSED,
        (
            "mine, top-1 of Tiny: 71.70 %, was 72.20 %: 0.50 [0.37, 0.64] points worse; p < 0.0001 on the same 20,000 "
            "images, 0.05 allowed"
        ),
    )


def test_as_large_a_loss_that_may_be_chance_is_held(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    save_accuracy(new, spec, 9, images(right=722, lost=10, won=5))
    # Twice the chance of at most 5 heads in 15 throws: 2 · (1 + 15 + 105 + 455 + 1365 + 3003) / 32768 = 0.30.
    outcome, words = said(old, new, spec)
    assert outcome is Outcome.HELD
    assert words.startswith("mine, top-1 of Tiny: 71.70 %, was 72.20 %: 0.50 [")
    assert words.endswith("] points worse, which may be chance; p = 0.3 on the same 1,000 images, 0.05 allowed")


def test_a_significant_loss_within_the_tolerance_is_held(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=36_000, total=50_000))
    save_accuracy(new, spec, 9, images(right=36_000, lost=20, total=50_000))
    outcome, words = said(old, new, spec)
    assert outcome is Outcome.HELD
    assert "0.04 [0.03, 0.06] points worse; p < 0.0001" in words


def test_better_is_an_improvement(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    save_accuracy(new, spec, 9, images(right=722, won=20))
    assert said(old, new, spec)[0] is Outcome.IMPROVED


def test_the_same_predictions_are_held_without_mention_of_chance(old: Store, new: Store, spec: Spec) -> None:
    for store, minutes in ((old, 0), (new, 9)):
        save_accuracy(store, spec, minutes, images(right=722))
    assert said(old, new, spec) == (Outcome.HELD, "mine, top-1 of Tiny: 72.20 %, was 72.20 %")


@pytest.mark.parametrize("without", ["old", "new", "both"])
def test_without_predictions_of_both_the_tolerance_decides(old: Store, new: Store, spec: Spec, without: str) -> None:
    save_accuracy(old, spec, 0, images(right=722), files=without == "new")
    save_accuracy(new, spec, 9, images(right=722, lost=10, won=5), files=without == "old")
    assert said(old, new, spec) == (
        Outcome.REGRESSED,
        "mine, top-1 of Tiny: 71.70 %, was 72.20 %: 0.500 points worse, 0.050 allowed",
    )
    (cell,) = judged(old, new, spec)
    assert cell.evidence is not None
    assert cell.evidence.difference is not None
    assert [*vars(cell.evidence.difference).values()] == pytest.approx([-0.5] * 3)  # without pairs there is no interval


@pytest.mark.parametrize(("rows", "outcome"), [(1, Outcome.REGRESSED), (2, Outcome.HELD)])
def test_the_more_tests_a_check_makes_the_less_each_may_leave_to_chance(
    tmp_path: Path, old: Store, new: Store, rows: int, outcome: Outcome
) -> None:
    # 1 of 9 that decide: 2 · (1 + 9) / 512 = 0.039 is below 0.05, but not below half of it.
    row = SPEC[SPEC.index("[row.tiny]") :]
    spec = mine(tmp_path, SPEC + (row.replace("tiny", "other") if rows == 2 else ""))
    for number, job in enumerate(job for job in plan_of(spec).jobs if job.kind == "evaluate"):
        save_accuracy(old, spec, number, images(right=722), job=job)
        save_accuracy(new, spec, 9 + number, images(right=722, lost=8, won=1), job=job)
    assert [one.outcome for one in judged(old, new, spec)] == [outcome] * rows


def test_other_images_are_not_judged(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    save_accuracy(new, spec, 9, images(right=100), fingerprint="g")
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        "mine, top-1 of Tiny: measured on other images than in the baseline: now all 10 images",
    )


def test_images_that_could_not_be_read_are_other_images(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    readable = save_accuracy(new, spec, 9, images(right=722, lost=300))
    new.save(with_facts(readable, unreadable=[f"{number}.jpg" for number in range(300)]))
    outcome, reason = said(old, new, spec)
    assert outcome is Outcome.NOT_JUDGED
    assert reason.endswith("other images than in the baseline: now all 10 images, of which 300 could not be read")
    save_again = save_accuracy(old, spec, 10, images(right=722, lost=300))
    old.save(with_facts(save_again, unreadable=[f"{number}.jpg" for number in range(300)]))
    assert said(old, new, spec)[0] is Outcome.HELD  # without the same images in both


READ = """
[table]
title = "Read"
[source.paper]
kind = "paper"
cite = "the paper"
[column.optimizer]
label = "optimizer"
job = "recipe"
metric = "optimizer"
text = true
set = { recipe = "deit-b" }
[row.b]
label = "B"
paper = { optimizer = "AdamW" }
"""

TRAINED = SPEC.replace(
    'set = { model = "tiny", res = 224, weights = "w" }',
    'unreleased = "lost"\nset = { model = "tiny", res = 224 }\ntrain = { recipe = "deit-ti" }',
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"images": images_of("imagenet/train", 9)}, "measured on other images than in the baseline"),
        (
            {"weights": {"sha256": "later", "origin": "trained"}},
            "made from another run of 'train deit_tiny_patch16_224",
        ),
    ],
    ids=["same", "other images", "other run"],
)
def test_a_trained_model_is_judged_only_where_its_training_is_the_same(
    tmp_path: Path, old: Store, new: Store, changes: Mapping[str, Any], reason: str
) -> None:
    spec = mine(tmp_path, TRAINED)
    job = plan_of(spec).cells_in(spec)["tiny", "top1"].job
    assert job is not None
    (training,) = job.lineage
    trained: tuple[tuple[Store, int, Mapping[str, Any]], ...] = ((old, 0, {}), (new, 9, changes))
    for store, minutes, facts in trained:
        store.save(with_facts(result_of(training, minutes=minutes), **facts))
        save_accuracy(store, spec, minutes, images(right=722), job=job, files=False)
    (one,) = (one for one in judged(old, new, spec) if one.cell.column.key == "top1")
    assert one.outcome is (Outcome.NOT_JUDGED if reason else Outcome.HELD)
    assert one.reason.startswith(reason)


def test_another_crop_is_not_judged(tmp_path: Path, old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    other = mine(tmp_path, SPEC.replace('set = { data = "imagenet" }', 'set = { data = "imagenet", crop = 0.9 }'))
    save_accuracy(new, other, 9, images(right=700))
    now, diff = judge_selection(new, other)
    (found,) = BaselineJudge(baseline=baseline_of(old, spec), selection=now, store=new, baseline_store=old).judge(
        [diff]
    )
    assert (found.outcome, sentence(found)) == (
        Outcome.NOT_JUDGED,
        "mine, top-1 of Tiny: measured otherwise than in the baseline: crop = 0.9, was 0.875",
    )


@pytest.mark.parametrize(("now", "outcome"), [("AdamW", Outcome.HELD), ("SGD", Outcome.CHANGED)])
def test_a_text_is_held_where_it_is_the_same(
    tmp_path: Path, old: Store, new: Store, now: str, outcome: Outcome
) -> None:
    spec = mine(tmp_path, READ)
    (job,) = plan_of(spec).jobs
    for store, minutes, name in ((old, 0, "AdamW"), (new, 9, now)):
        result = result_of(job, minutes=minutes)
        store.save(replace(result, metrics={"optimizer": Measurement(unit="", value=name)}))
    (cell,) = judged(old, new, spec)
    assert cell.outcome is outcome
    assert cell.evidence == Evidence(now=now, before="AdamW")


def test_without_a_tolerance_no_difference_is_allowed(tmp_path: Path, old: Store, new: Store) -> None:
    spec = mine(tmp_path, SPEC.replace("tolerance = 0.05\n", ""))
    save_accuracy(old, spec, 0, images(right=722), files=False)
    save_accuracy(new, spec, 9, images(right=721), files=False)
    (cell,) = judged(old, new, spec)
    assert cell.outcome is Outcome.REGRESSED
    assert cell.evidence is not None
    assert cell.evidence.allowed == 0


def test_a_baseline_that_its_own_predictions_contradict_is_refused(old: Store, new: Store, spec: Spec) -> None:
    result = save_accuracy(old, spec, 0, images(right=722))
    kept = baseline_of(old, spec)
    entry = kept.cells["mine", "tiny", "top1"]
    kept = replace(kept, cells={("mine", "tiny", "top1"): replace(entry, value=72.1)})
    save_accuracy(new, spec, 9, images(right=722))
    now, diff = judge_selection(new, spec)
    with pytest.raises(HarnessError) as reason:
        BaselineJudge(baseline=kept, selection=now, store=new, baseline_store=old).judge([diff])
    assert str(reason.value) == (
        f"the baseline has 72.1 % for top-1 of Tiny, the predictions of its run {result.id} give 72.2 %; one was "
        "edited, write the baseline anew"
    )


def test_predictions_of_another_run_than_the_one_that_is_judged_are_refused(old: Store, new: Store, spec: Spec) -> None:
    save_accuracy(old, spec, 0, images(right=722))
    kept = baseline_of(old, spec)
    result, other = (save_accuracy(new, spec, minutes, images(right=r)) for minutes, r in ((9, 722), (8, 500)))
    path = new.predictions_of(result)
    path.write_bytes(new.predictions_of(other).read_bytes())
    now, diff = judge_selection(new, spec)
    with pytest.raises(HarnessError) as reason:
        BaselineJudge(baseline=kept, selection=now, store=new, baseline_store=old).judge([diff])
    assert str(reason.value) == (
        f"{path}: the predictions are damaged (they give a top1 of 50 %, their result has 72.2); run the job again "
        "with --rerun"
    )


def test_a_run_that_two_numbers_claim_is_refused(old: Store, spec: Spec) -> None:
    result = save_count(old, spec, 0, 5.5)
    kept = baseline_of(old, spec)
    path = old.path_of(result)
    path.write_text(path.read_text().replace("5.5", "6.5"))
    now, diff = judge_selection(old, spec)
    with pytest.raises(HarnessError) as reason:
        BaselineJudge(baseline=kept, selection=now, store=old, baseline_store=old).judge([diff])
    assert str(reason.value) == (
        f"run {result.id} gives 6.5 in {old.root}/ and 5.5 in the baseline, which both claim it; one was edited: "
        "measure again, and renew the baseline if it is that one"
    )


# Pairs.


def kept(folder: Path, name: str, guesses: Sequence[int], **heads: Sequence[int]) -> Path:
    path = folder / f"{name}.npz"
    labels = [0] * len(guesses)
    write(
        predictions(guesses, labels, [f"ILSVRC2012_val_{at + 1:08d}.JPEG" for at in range(len(guesses))], **heads), path
    )
    return path


def test_a_paired_test_counts_images_that_only_one_has_right(tmp_path: Path) -> None:
    found = paired_test(kept(tmp_path, "a", [0, 0, 0, 1, 1]), kept(tmp_path, "b", [0, 1, 1, 0, 1]), "top1")
    assert found is not None
    assert (found.images, found.before, found.now) == (5, 60.0, 40.0)
    assert found.difference.value == pytest.approx(-20)
    assert found.p == 1.0  # two lost and one won: 2 · (1 + 3) / 8


def test_a_head_is_read_by_its_name_and_the_main_one_without(tmp_path: Path) -> None:
    heads = {"distil": [1, 1], "softmax_sum": [0, 1], "logit_mean": [1, 0]}
    one, other = kept(tmp_path, "a", [0, 0], **heads), kept(tmp_path, "b", [0, 0], **heads)
    values = {name: paired_test(one, other, name) for name in ("top1", "top1_class", "top1_distil", "top1_logit_mean")}
    assert {name: found.before for name, found in values.items() if found} == {
        "top1": 50.0,
        "top1_class": 100.0,
        "top1_distil": 0.0,
        "top1_logit_mean": 50.0,
    }
    single = kept(tmp_path, "c", [0, 0])
    assert paired_test(single, single, "top1_distil") is None


def test_top5_is_among_five_predictions(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    made = predictions([3, 3], [0, 0], ["a", "b"])
    made.heads["class"].top[0] = [3, 4, 5, 6, 0]
    write(made, path)
    found = paired_test(path, path, "top5")
    assert found is not None
    assert (found.before, found.p) == (50.0, 1.0)


def test_real_is_what_an_evaluation_says_it_is(tmp_path: Path) -> None:
    from harness.jobs.evaluate.score import accuracies

    names = [f"ILSVRC2012_val_{at:08d}.JPEG" for at in range(1, 201)]
    file = files("timm") / "data" / "_info" / "imagenet_real_labels.json"
    truth = json.loads(file.read_text(encoding="utf-8"))[:200]
    guesses = [next(iter(labels), 0) if at % 3 else 999 for at, labels in enumerate(truth)]
    made = predictions(guesses, [0] * 200, names)
    write(made, tmp_path / "a.npz")
    found = paired_test(tmp_path / "a.npz", tmp_path / "a.npz", "real")
    assert found is not None
    assert found.before == pytest.approx(accuracies(made)[0]["real"].value)
    assert found.images == sum(bool(labels) for labels in truth) < 200


def test_other_names_other_labels_and_unknown_metrics_make_no_paired_test(tmp_path: Path) -> None:
    one = kept(tmp_path, "a", [0, 1])
    other = tmp_path / "b.npz"
    write(predictions([0, 1], [0, 0], ["x", "y"]), other)
    assert paired_test(one, other, "top1") is None
    assert paired_test(one, one, "disagreement") is None
    assert paired_test(one, tmp_path / "gone.npz", "top1") is None
    assert paired_test(other, other, "real") is None


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    one, other = kept(tmp_path, "a", [0, 1]), tmp_path / "b.npz"
    other.write_bytes(one.read_bytes()[:100])
    with pytest.raises(StoreError) as reason:
        paired_test(one, other, "top1")
    assert str(reason.value) == (
        f"{other}: the predictions are damaged (File is not a zip file); run the job again with --rerun"
    )


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_a_paired_test_agrees_with_a_comparison_of_the_two_runs(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bool, bool]]
) -> None:
    from harness.judge.compare import compare
    from tests.evaluations import lite, tiny

    folder = tmp_path_factory.mktemp("pairs")
    names = [str(at) for at in range(len(rows))]
    guesses = [[0 if hit[side] else 1 for hit in rows] for side in (0, 1)]
    made = [predictions(one, [0] * len(rows), names) for one in guesses]
    for name, one in zip("ab", made, strict=True):
        write(one, folder / f"{name}.npz")
    found = paired_test(folder / "a.npz", folder / "b.npz", "top1")
    whole = compare(replace(lite(), predictions=made[1]), replace(tiny(), predictions=made[0]))
    assert found is not None
    assert (found.difference, found.p) == (whole.difference, whole.p)


# Counts and words.


def test_a_count_that_changes_at_all_has_changed(old: Store, new: Store, spec: Spec) -> None:
    save_count(old, spec, 0, 5.5)
    save_count(new, spec, 9, 5.6)  # the paper allows 1
    assert said(old, new, spec) == (Outcome.CHANGED, "mine, #param. of Tiny: 5.600 M, was 5.500 M: 0.1000 M more")


def test_changed_code_of_a_model_is_what_a_baseline_judges(
    old: Store, new: Store, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr("harness.plan.job.code_digest", lambda model: "before" if model == "tiny" else "")
        save_five(old, spec)
        save_count(old, spec, 9)
        baseline = baseline_of(old, spec)
    monkeypatch.setattr("harness.plan.job.code_digest", lambda model: "after" if model == "tiny" else "")
    for number, seconds in enumerate(FIVE):
        save_throughput(new, spec, 20 + number, [3 * sample for sample in seconds])
    save_count(new, spec, 29, 6.5)
    now, diff = judge_selection(new, spec)
    gated = BaselineJudge(baseline=baseline, selection=now, store=new, baseline_store=old).judge([diff])
    assert {cell.cell.column.key: cell.outcome for cell in gated} == {
        "params": Outcome.CHANGED,
        "speed": Outcome.REGRESSED,
    }


def test_what_was_not_measured_since_is_not_judged(old: Store, spec: Spec) -> None:
    save_count(old, spec, 0)
    assert said(old, old, spec) == (
        Outcome.NOT_JUDGED,
        "mine, #param. of Tiny: not measured since: this is the baseline's own run",
    )


@pytest.mark.parametrize("allowed", [False, True])
def test_a_cell_that_is_gone_fails_unless_that_is_allowed(old: Store, new: Store, spec: Spec, *, allowed: bool) -> None:
    save_count(old, spec, 0)
    (found,) = judged(old, new, spec, allow_missing=allowed)
    assert found.outcome is (Outcome.NOT_JUDGED if allowed else Outcome.MISSING)
    assert sentence(found) == (
        "mine, #param. of Tiny: not measured, though the baseline has it; `harness reproduce FILE` measures it"
    )


def test_a_job_that_began_to_fail_is_missing_though_an_older_run_is_there(old: Store, spec: Spec) -> None:
    save_count(old, spec, 0)
    kept = baseline_of(old, spec)
    save_count(old, spec, 9, error="out of memory at batch 1")
    now, diff = judge_selection(old, spec)
    (found,) = BaselineJudge(baseline=kept, selection=now, store=old, baseline_store=old).judge([diff])
    assert (found.outcome, sentence(found)) == (
        Outcome.MISSING,
        "mine, #param. of Tiny: failed: out of memory at batch 1",
    )


@pytest.mark.parametrize(
    ("tolerance", "right", "outcome"),
    [
        ('"1%"', 992, Outcome.HELD),  # of 50 % that is half a point: 49.6 % is 0.4 points less
        ('"1%"', 988, Outcome.REGRESSED),  # 49.4 % is 0.6 points less
        ('"1%"', 1012, Outcome.IMPROVED),  # 50.6 % is 0.6 points more
        ("0.05", 999, Outcome.HELD),  # 49.95 % is 0.05 points less, just as allowed
        ("0.05", 1001, Outcome.HELD),  # 50.05 % is 0.05 points more
        ("0.05", 998, Outcome.REGRESSED),  # 49.9 % is 0.1 points less
    ],
)
def test_a_value_may_differ_by_its_tolerance_and_by_no_more(
    tmp_path: Path, old: Store, new: Store, tolerance: str, right: int, outcome: Outcome
) -> None:
    spec = mine(tmp_path, SPEC.replace("tolerance = 0.05", f"tolerance = {tolerance}"))
    save_accuracy(old, spec, 0, images(right=1000, total=2000), files=False)
    save_accuracy(new, spec, 9, images(right=right, total=2000), files=False)
    assert said(old, new, spec)[0] is outcome


# Throughputs.


def slowed(by: float, count: int = 3) -> list[tuple[float, ...]]:
    return [tuple(by * second for second in process) for process in FIVE[:count]]


def save_three(store: Store, spec: Spec, by: float, reference: Sequence[float | None], *, start: int = 20) -> None:
    for number, (seconds, reference_seconds) in enumerate(zip(slowed(by), reference, strict=True)):
        save_throughput(store, spec, start + number, seconds, reference_seconds=reference_seconds)


def test_a_third_slower_in_three_runs_is_a_regression(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec)
    for number, seconds in enumerate(slowed(1.5)):
        save_throughput(new, spec, 20 + number, seconds)
    # 101 / 1.5 = 67.3 against 102: 34 % slower.  The logarithms of 100 to 104 have a standard deviation of 0.0155; with
    # Student's t of 4 degrees at 0.995, 4.604, and the root of π/2 · (1/5 + 1/3), that allows 1.067 times: 6.3 % less.
    # One of 56 ways.
    assert said(old, new, spec) == (
        Outcome.REGRESSED,
        (
            "mine, speed of Tiny: 67.33 im/s, was 102.0 im/s: 34.0 % slower, of which 6.3 % may be noise on this "
            "machine; p = 0.018 by ranks, 3 runs against 5"
        ),
    )


@pytest.mark.parametrize(("by", "outcome"), [(1.03, Outcome.HELD), (1.0, Outcome.HELD), (0.7, Outcome.IMPROVED)])
def test_within_the_noise_a_throughput_is_held_and_beyond_it_better_is_better(
    old: Store, new: Store, spec: Spec, by: float, outcome: Outcome
) -> None:
    save_five(old, spec)
    for number, seconds in enumerate(slowed(by)):
        save_throughput(new, spec, 20 + number, seconds)
    assert said(old, new, spec)[0] is outcome


def test_a_bare_ratio_never_decides(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec)
    save_throughput(new, spec, 20, slowed(9.0)[0])
    save_throughput(new, spec, 21, slowed(9.0)[1])
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        (
            "mine, speed of Tiny: too few runs: 2 since the baseline, 3 needed; `harness reproduce --throughput-only "
            "--rerun` makes one more each time"
        ),
    )


def test_noisy_runs_do_not_count(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec)
    for number, seconds in enumerate(slowed(9.0)):
        save_throughput(new, spec, 20 + number, seconds, noisy=number > 0)
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        (
            "mine, speed of Tiny: too few runs: 1 since the baseline (2 more were noisy), 3 "
            "needed; `harness reproduce --throughput-only --rerun` makes one more each time"
        ),
    )


def test_runs_for_which_the_machine_was_slower_as_a_whole_do_not_count(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec, reference_seconds=0.01)
    save_three(new, spec, 9.0, (0.0102, 0.016, 0.016))
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        (
            "mine, speed of Tiny: too few runs: 1 since the baseline (2 more were on a slower machine as a whole, its "
            "reference workload taking +60 %), 3 needed; `harness reproduce --throughput-only --rerun` makes one more "
            "each time"
        ),
    )


def test_reference_workloads_that_each_may_be_noise_together_show_that_the_machine_is_slower(
    old: Store, new: Store, spec: Spec
) -> None:
    # Logarithms with a standard deviation of 0.0395; with Student's t of 4 degrees at 0.995, 4.604, one process may
    # take exp(4.604 · 0.0395 · √(1 + π/2/5)) = 1.23 times as long, the median of three 1.18 times.
    for number, reference_seconds in enumerate((0.0095, 0.00975, 0.01, 0.01025, 0.0105)):
        save_throughput(old, spec, number, FIVE[number], reference_seconds=reference_seconds)
    save_three(new, spec, 9.0, (0.0121,) * 3)
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        (
            "mine, speed of Tiny: the machine as a whole was 21 % slower than in the baseline, by its reference "
            "workload; measure again later, or calibrate again if it stays so"
        ),
    )


def test_earlier_runs_are_not_judged_while_the_newest_find_the_machine_slower(
    old: Store, new: Store, spec: Spec
) -> None:
    save_five(old, spec, reference_seconds=0.01)
    save_three(new, spec, 9.0, (0.01,) * 3)
    save_three(new, spec, 9.0, (0.016,) * 3, start=30)
    assert said(old, new, spec)[1].startswith("mine, speed of Tiny: the machine as a whole was 60 % slower than in the")


def test_a_machine_that_was_faster_as_a_whole_excuses_nothing_and_earns_nothing(
    old: Store, new: Store, spec: Spec
) -> None:
    save_five(old, spec, reference_seconds=0.01)
    save_three(new, spec, 1.5, (0.008,) * 3)
    assert said(old, new, spec)[0] is Outcome.REGRESSED
    save_three(new, spec, 0.7, (0.008,) * 3, start=30)
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        "mine, speed of Tiny: faster, but so was the machine as a whole: by 20 %, by its reference workload",
    )


def test_runs_without_machine_drift_are_judged_and_those_without_a_reference_workload_too(
    old: Store, new: Store, spec: Spec
) -> None:
    save_five(old, spec, reference_seconds=0.01)
    save_three(new, spec, 1.5, (0.0104, 0.0096, None))
    assert said(old, new, spec)[0] is Outcome.REGRESSED


def test_a_machine_on_which_other_throughputs_are_noisy_allows_more(old: Store, new: Store, tmp_path: Path) -> None:
    both = mine(tmp_path, SPEC + '[row.other]\nlabel = "Other"\nset = { model = "other", res = 224, weights = "w" }\n')
    tiny, other = [job for job in plan_of(both).jobs if job.kind == "throughput"]
    save_five(old, both, job=tiny)
    save_five(old, both, start=10, job=other)
    steady = slowed(1.25)
    noisy_samples = [tuple(factor * second for second in FIVE[0]) for factor in (0.7, 1.0, 1.4)]
    for number in range(3):
        save_throughput(new, both, 20 + number, steady[number], job=tiny)
        save_throughput(new, both, 30 + number, steady[number], job=other)
    outcomes = {one.cell.row.key: one.outcome for one in judged(old, new, both)}
    assert outcomes == {"tiny": Outcome.REGRESSED, "other": Outcome.REGRESSED}
    for number in range(3):
        save_throughput(new, both, 40 + number, noisy_samples[number], job=other)
    outcomes = {one.cell.row.key: one.outcome for one in judged(old, new, both)}
    assert outcomes == {"tiny": Outcome.HELD, "other": Outcome.HELD}


def test_runs_of_the_baseline_are_not_taken_for_runs_of_now(old: Store, spec: Spec) -> None:
    save_five(old, spec)
    kept = baseline_of(old, spec)
    save_throughput(old, spec, 30, slowed(9.0)[0])
    now, diff = judge_selection(old, spec)
    (found,) = BaselineJudge(baseline=kept, selection=now, store=old, baseline_store=old).judge([diff])
    assert "too few runs: 1 since the baseline, 3 needed" in sentence(found)


def test_only_the_newest_runs_are_judged_so_that_old_ones_do_not_hide_a_change(old: Store, spec: Spec) -> None:
    save_five(old, spec)
    kept = baseline_of(old, spec)
    save_five(old, spec, start=10)
    for number, seconds in enumerate(slowed(1.5)):
        save_throughput(old, spec, 20 + number, seconds)
    now, diff = judge_selection(old, spec)
    (found,) = BaselineJudge(baseline=kept, selection=now, store=old, baseline_store=old).judge([diff])
    assert found.outcome is Outcome.REGRESSED


def test_a_baseline_with_too_few_runs_says_what_measures_them(old: Store, new: Store, spec: Spec) -> None:
    for number, two in enumerate(FIVE[:2]):
        save_throughput(old, spec, number, two)
    for number, seconds in enumerate(slowed(9.0)):
        save_throughput(new, spec, 20 + number, seconds)
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        "mine, speed of Tiny: too few runs in the baseline: 2, 3 needed; `harness baseline --calibrate` measures them",
    )


def test_another_machine_is_not_judged(old: Store, new: Store, spec: Spec) -> None:
    for number in range(3):
        save_throughput(old, spec, number, FIVE[number], machine=V100)
        save_throughput(new, spec, 20 + number, slowed(9.0)[number], machine=H200)
    assert said(old, new, spec) == (
        Outcome.NOT_JUDGED,
        "mine, speed of Tiny: measured on NVIDIA H200 140 GiB, the baseline on Tesla V100-SXM2-16GB 16 GiB",
    )


def test_other_versions_are_judged_for_that_is_what_is_tested(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec)
    for number, seconds in enumerate(slowed(1.5)):
        save_throughput(new, spec, 20 + number, seconds, torch="2.16.0")
    assert said(old, new, spec)[0] is Outcome.REGRESSED


def test_another_protocol_is_not_judged(old: Store, new: Store, spec: Spec) -> None:
    save_five(old, spec)
    kept = baseline_of(old, spec)
    now, diff = judge_selection(old, spec, protocol="modern")
    (found,) = BaselineJudge(baseline=kept, selection=now, store=old, baseline_store=old).judge([diff])
    assert found.outcome is Outcome.MISSING  # never measured like that
    for number, seconds in enumerate(slowed(9.0)):
        result = save_throughput(new, spec, 20 + number, seconds)
        new.remove(result)
        modern = dict(result.job.settings) | {"protocol": "modern"}
        new.save(replace(result, job=replace(result.job, settings=tuple(sorted(modern.items())))))
    now, diff = judge_selection(new, spec, protocol="modern")
    (found,) = BaselineJudge(baseline=kept, selection=now, store=new, baseline_store=old).judge([diff])
    assert (found.outcome, found.reason) == (
        Outcome.NOT_JUDGED,
        "measured otherwise than in the baseline: protocol = modern, was paper",
    )


# The paper.


@pytest.mark.parametrize(
    ("fail_on", "outcome"),
    [
        ({Verdict.DEVIATES}, Outcome.DEVIATES),
        (set(), Outcome.HELD),
        ({Verdict.MISSING}, Outcome.HELD),
    ],
)
def test_which_verdicts_fail_is_a_setting(new: Store, spec: Spec, fail_on: set[Verdict], outcome: Outcome) -> None:
    save_accuracy(new, spec, 9, images(right=717))
    _, diff = judge_selection(new, spec)
    found = {one.cell.column.key: one for one in against_paper(diff, frozenset(fail_on))}
    assert found["top1"].outcome is outcome
    passing = "" if outcome is Outcome.DEVIATES else ", which --fail-on lets pass"
    assert sentence(found["top1"]) == f"mine, top-1 of Tiny: deviates{passing}: not within 0.05 % of the paper (72.2)"
    missing = Outcome.MISSING if Verdict.MISSING in fail_on else Outcome.NOT_JUDGED
    assert found["params"].outcome is missing


def test_a_check_counts_the_cells_that_a_report_counts(old: Store, new: Store, tmp_path: Path) -> None:
    sized = '[column.res]\nlabel = "image size"\njob = "count"\nmetric = "res"\nunit = "px"\n'
    spec = mine(tmp_path, SPEC.replace("params = 5,", "params = 5, res = 224,") + sized)
    for store in (old, new):
        counted = save_count(store, spec, 0 if store is old else 9)
        store.save(replace(counted, metrics={**counted.metrics, "res": Measurement(unit="px", value=224)}))
    _, diff = judge_selection(new, spec)
    assert diff.judged_cells["tiny", "res"].verdict is Verdict.MATCH
    against = against_paper(diff, frozenset())
    assert [one.cell.column.key for one in against] == ["params", "speed", "top1", "real"]
    assert diff.counts.total() == len(against)
    assert [one.cell.column.key for one in judged(old, new, spec)] == ["params"]


# What is printed.


def gate_of(old: Store, new: Store, spec: Spec) -> Gate:
    return Gate(cells=tuple(judged(old, new, spec)), with_baseline=True)


@pytest.fixture
def gate(tmp_path: Path, old: Store, new: Store) -> Gate:
    """One cell worse, one better, one gone; labels that would break HTML, XML, Markdown and a log."""
    spec = mine(tmp_path, SPEC.replace('label = "Tiny"', 'label = "<b>Ti|ny</b>\\n\\"&%\\u0007"'))
    save_five(old, spec)
    save_count(old, spec, 10)
    save_accuracy(old, spec, 11, images(right=722))
    for number, seconds in enumerate(slowed(0.5)):
        save_throughput(new, spec, 20 + number, seconds)
    save_accuracy(new, spec, 30, images(right=722, lost=100))
    return gate_of(old, new, spec)


def test_the_text_says_first_what_fails_a_line_each(gate: Gate) -> None:
    lines = render_gate(gate, renew="harness baseline mine -o b.json").splitlines()
    assert lines[0] == "fails: 1 regressed, 1 missing, 1 improved"
    assert lines[1].startswith('✗ regressed: mine, top-1 of <b>Ti|ny</b> "&%\\u0007: 62.20 %, was 72.20 %: 10.00 [')
    assert [line.partition(":")[0] for line in lines[2:]] == [
        "– missing",
        "↑ improved",
        "to hold what improved; `harness baseline mine -o b.json` renews it",
    ]


def test_the_gate_is_open_only_where_something_was_compared() -> None:
    assert headline(Gate(cells=())) == "nothing to compare with the paper: no cell"
    assert Gate(cells=()).empty


def test_passing_against_the_paper_alone_is_not_passing_against_a_baseline(new: Store, spec: Spec) -> None:
    save_count(new, spec, 0)
    _, diff = judge_selection(new, spec)
    found = tuple(against_paper(diff, frozenset()))
    assert not Gate(cells=found).empty
    assert Gate(cells=found, with_baseline=True).empty


def test_junit_has_a_case_for_each_cell_and_survives_any_name(gate: Gate) -> None:
    root = ET.fromstring(render_junit(gate))
    assert dict(root.attrib) == {"name": "harness check", "tests": "3", "failures": "2", "skipped": "0"}
    cases = {case.attrib["name"].rpartition(": ")[2]: case for case in root.iter("testcase")}
    assert set(cases) == {"#param.", "speed", "top-1"}
    failure = cases["top-1"].find("failure")
    assert failure is not None
    assert failure.attrib["type"] == "regressed"
    assert '<b>Ti|ny</b>\n"&%\\u0007' in failure.attrib["message"]
    assert cases["speed"].find("failure") is None


def test_annotations_are_a_line_each_with_what_github_reads_escaped(gate: Gate) -> None:
    lines = render_annotations(gate).splitlines()
    assert [line.split("::")[1] for line in lines] == [
        "error title=mine regressed",
        "error title=mine missing",
        "notice title=mine improved",
    ]
    assert any('<b>Ti|ny</b>%0A"&%25\\u0007' in line for line in lines)


def test_github_shows_ten_annotations_so_the_tenth_says_how_many_more(gate: Gate) -> None:
    many = Gate(cells=tuple(gate.failing[:1] * 12), with_baseline=True)
    lines = render_annotations(many).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "::error title=harness check::3 more, which the job summary lists"


def test_the_summary_keeps_names_from_being_markdown_or_html(gate: Gate) -> None:
    text = render_summary(gate, renew="harness baseline mine -o b.json")
    assert text.startswith("### harness check fails: 1 regressed, 1 missing, 1 improved\n")
    assert '&lt;b>Ti\\|ny&lt;/b> "&%' in text
    assert "<b>" not in text
    assert "`harness baseline mine -o b.json` renews the baseline." in text


def test_a_summary_that_github_would_refuse_leaves_out_what_holds(gate: Gate) -> None:
    well = next(one for one in gate.cells if one.outcome is Outcome.IMPROVED)
    held = replace(well, outcome=Outcome.HELD)
    text = render_summary(Gate(cells=(*gate.failing, *[held] * 10_000), with_baseline=True))
    assert len(text.encode()) < 1_000_000
    assert "10000 other cells are left out here" in text
    assert "regressed" in text


def test_json_has_numbers_as_numbers(gate: Gate) -> None:
    data = json.loads(render_gate_json(gate))
    assert (data["schema"], data["passes"]) == (1, False)
    cells = {cell["column"]: cell for cell in data["cells"]}
    assert (cells["top1"]["now"], cells["top1"]["before"], cells["top1"]["unit"]) == (62.2, 72.2, "%")
    assert cells["top1"]["difference"] == pytest.approx(-10)
    assert (cells["top1"]["images"], cells["top1"]["fails"]) == (1000, True)
    assert (cells["speed"]["runs_now"], cells["speed"]["runs_before"], cells["speed"]["relative"]) == (3, 5, True)
    assert (cells["params"]["now"], cells["params"]["outcome"]) == (None, "missing")
