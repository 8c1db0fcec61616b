"""Two evaluations of ten images, compared by hand; what cannot be compared; and what a terminal and a program get."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.judge.compare import Comparison, DifferingImage, Evaluation, compare
from harness.report.comparison import conclusion, render_comparison, render_comparison_json
from harness.stats import Interval
from harness.store.predictions import read, write
from harness.store.result import Measurement
from tests.evaluations import FOUR, LABELS, NAMES, SIX, evaluation, lite, predictions, result_of_evaluation, tiny


def rounded(found: Interval) -> tuple[float, float, float]:
    return round(found.value, 2), round(found.low, 2), round(found.high, 2)


# Numbers.


def test_two_models_are_compared_image_by_image() -> None:
    # The first alone is right at 3, 4, 5, the second alone at 6: 6 against 4 of 10.
    found = compare(tiny(), lite())
    assert (found.common, found.first.only_right, found.second.only_right) == (10, 3, 1)
    assert found.difference.value == pytest.approx(20)
    assert found.p == pytest.approx(2 * (1 + 4) / 16)
    # Both guess alike at 0, 1, 2 and, wrongly, at 9.
    assert found.agreement == pytest.approx(0.4)
    # Wilson's (6 + z²/2 ± z sqrt(6·4/10 + z²/4)) / (10 + z²) with z² = 3.84146, and the same for 4.
    assert rounded(found.first.top1) == (60.0, 31.27, 83.18)
    assert rounded(found.second.top1) == (40.0, 16.82, 68.73)
    assert (found.first.head, found.second.head) == ("class", "class")
    assert found.better is None
    assert not found.borderline


def test_the_interval_is_that_of_the_paired_difference_in_points() -> None:
    # At both ends d of the interval Tango's score (b - c - n d)² / (n (2 q + d (1 - d))) is z², q being the larger
    # root of 2 n q² + ((2 n - b + c) d - b - c) q - c d (1 - d) = 0, here with b = 3, c = 1, n = 10.
    found = compare(tiny(), lite()).difference
    for end in (found.low / 100, found.high / 100):
        roots = np.roots([20, 18 * end - 4, -end * (1 - end)]).real
        assert (2 - 10 * end) ** 2 / (10 * (2 * max(roots) + end * (1 - end))) == pytest.approx(3.841459, rel=1e-6)


def test_images_where_predictions_differ_are_listed_those_that_decide_first() -> None:
    found = compare(tiny(), lite()).differing
    assert [image.label for image in found] == [3, 4, 5, 6, 7, 8]
    assert [image.label in (image.first, image.second) for image in found] == [True] * 4 + [False] * 2
    assert found[3] == DifferingImage(name=NAMES[6], label=6, first=11, second=6)


def test_images_are_matched_by_name_whatever_their_order() -> None:
    order = [9, 3, 1, 0, 2, 8, 7, 6, 5, 4]
    mixed = lite()
    mixed = replace(mixed, predictions=mixed.predictions.take(order))
    assert compare(tiny(), mixed) == compare(tiny(), lite())


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
def test_exchanging_the_two_changes_the_sign_and_nothing_else(rows: list[tuple[int, int, int]]) -> None:
    labels, guesses, others = zip(*rows, strict=True)
    names = [f"{place}.jpg" for place in range(len(rows))]
    one, other = tiny(guesses, labels=labels, names=names), lite(others, labels=labels, names=names)
    found, mirrored = compare(one, other), compare(other, one)
    assert (mirrored.first, mirrored.second) == (found.second, found.first)
    assert (mirrored.p, mirrored.agreement, mirrored.common) == (found.p, found.agreement, found.common)
    assert (mirrored.difference.low, mirrored.difference.high) == (-found.difference.high, -found.difference.low)
    assert found.difference.value == pytest.approx(found.first.top1.value - found.second.top1.value)
    assert found.first.only_right - found.second.only_right == sum(
        (guess == label) - (other == label) for label, guess, other in rows
    )


# Which images, which head.


def test_only_images_in_common_are_compared_and_the_others_are_named() -> None:
    fewer = lite(FOUR[2:], labels=LABELS[2:], names=NAMES[2:])
    more = tiny(SIX[:9], labels=LABELS[:9], names=NAMES[:9])
    found = compare(more, fewer)
    assert (found.common, found.first.unshared, found.second.unshared) == (7, NAMES[:2], NAMES[9:])
    # Of the images 2 to 8 the first has 2, 3, 4, 5 right, the second 2 and 6.
    assert found.first.top1.value == pytest.approx(400 / 7)
    assert found.second.top1.value == pytest.approx(200 / 7)


BOTH = {"distil": FOUR, "softmax_sum": SIX, "logit_mean": FOUR}


@pytest.mark.parametrize(
    ("head", "read", "points"),
    [(None, ("softmax_sum", "class"), 20.0), ("class", ("class", "class"), 0.0)],
)
def test_the_main_head_of_each_is_read_unless_one_is_named(
    head: str | None, read: tuple[str, str], points: float
) -> None:
    found = compare(tiny(FOUR, **BOTH), lite(), head)
    assert (found.first.head, found.second.head) == read
    assert found.difference.value == pytest.approx(points)


def test_real_and_its_agreement_with_the_labels_are_the_results_own() -> None:
    of_result = result_of_evaluation(
        evaluation(), metrics={"top1": 60.0, "real": 75.0}, real={"images": 8, "labels_agree": 0.875}
    )
    found = compare(replace(tiny(), result=of_result), lite())
    assert found.first.real == Measurement(unit="%", value=75.0, low=74.0, high=76.0)
    assert found.first.labels_agree == 0.875
    assert (found.second.real, found.second.labels_agree) == (None, None)


def test_real_is_left_out_where_another_head_is_read_than_it_belongs_to() -> None:
    of_result = result_of_evaluation(evaluation(), metrics={"real": 75.0})
    found = compare(replace(tiny(SIX, **BOTH), result=of_result), lite(), "class")
    assert found.first.real is None


# What cannot be compared.


@pytest.mark.parametrize(
    ("other", "head", "sentence"),
    [
        (
            {"names": [f"{name}.png" for name in NAMES]},
            None,
            (
                "deit_tiny_patch16_224 (run 20261121T120000000000Z-00000000) and tf_efficientnet_lite0 (run "
                "20261121T120100000000Z-00000001) have no image in common (they begin with "
                "n01440764/ILSVRC2012_val_00000001.JPEG and n01440764/ILSVRC2012_val_00000001.JPEG.png); compare two "
                "evaluations of one dataset"
            ),
        ),
        (
            {"labels": (0, 1, 2, 3, 5, 4, 6, 7, 8, 9)},
            None,
            (
                "the label of n01440764/ILSVRC2012_val_00000005.JPEG is 4 for deit_tiny_patch16_224 (run "
                "20261121T120000000000Z-00000000) but 5 for tf_efficientnet_lite0 (run "
                "20261121T120100000000Z-00000001), and 2 of 10 labels differ in all; evaluate both over the same folder"
            ),
        ),
        (
            {"names": [*NAMES[:8], NAMES[0], NAMES[9]]},
            None,
            (
                "tf_efficientnet_lite0 (run 20261121T120100000000Z-00000001) was shown several images called "
                "n01440764/ILSVRC2012_val_00000001.JPEG, which no name tells apart"
            ),
        ),
        (
            {},
            "distil",
            "--head distil: tf_efficientnet_lite0 (run 20261121T120100000000Z-00000001) has no such head; it has class",
        ),
    ],
    ids=["no image in common", "labels differ", "one name twice", "no such head"],
)
def test_what_cannot_be_compared_is_refused_with_a_sentence(
    other: dict[str, Any], head: str | None, sentence: str
) -> None:
    with pytest.raises(HarnessError) as reason:
        compare(tiny(SIX, **BOTH), lite(**other), head)
    assert str(reason.value) == sentence


# In words.


def found_with(alone: int, alone_too: int, trials: int) -> Comparison:
    """Compare two that are right alone so often, and wrong alike everywhere else."""
    labels = [0] * trials
    guesses = [0] * alone + [1] * (trials - alone)
    others = [1] * alone + [0] * alone_too + [1] * (trials - alone - alone_too)
    names = [f"{place}.jpg" for place in range(trials)]
    return compare(tiny(guesses, labels=labels, names=names), lite(others, labels=labels, names=names))


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        # Ends are roots of the score found by numpy and scipy, for no discordant image z²/(n + z²); p is twice the
        # tail of b + c fair coins, counted in whole numbers.
        ((130, 90, 1416), "deit_tiny_patch16_224 (A) is 2.82 [0.78, 4.90] points better; p = 0.0084"),
        ((90, 130, 1416), "tf_efficientnet_lite0 (B) is 2.82 [0.78, 4.90] points better; p = 0.0084"),
        ((500, 100, 1416), "deit_tiny_patch16_224 (A) is 28.25 [25.18, 31.29] points better; p < 0.0001"),
        (
            (95, 120, 1416),
            "no difference beyond chance: tf_efficientnet_lite0 (B) is 1.77 [-0.27, 3.81] points ahead, p = 0.1",
        ),
        ((5, 5, 100), "no difference beyond chance: both are right equally often, 0.00 [-7.02, 7.02] points, p = 1"),
        ((0, 0, 96), "no difference beyond chance: both are right equally often, 0.00 [-3.85, 3.85] points, p = 1"),
        (
            (120, 91, 1416),
            (
                "on the border of chance: deit_tiny_patch16_224 (A) is 2.05 [0.04, 4.08] points ahead, p = 0.054; more "
                "images would tell"
            ),
        ),
    ],
    ids=str,
)
def test_the_conclusion_is_one_sentence(counts: tuple[int, int, int], sentence: str) -> None:
    assert conclusion(found_with(*counts)) == sentence


AT_80 = """\
A  evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875
   run 20261121T120000000000Z-00000000, head class
   weights fb_in1k: deit_tiny_patch16_224.safetensors, SHA-256 0123456789ab…
   10 of the 50,000 images of ImageNet, 10 of its 1,000 classes
B  evaluate tf_efficientnet_lite0 imagenet at 224, crop 0.875
   run 20261121T120100000000Z-00000001, head class
   weights fb_in1k: tf_efficientnet_lite0.safetensors, SHA-256 0123456789ab…
   10 of the 50,000 images of ImageNet, 10 of its 1,000 classes

                     A                     B
top-1, %             60.00 [31.27, 83.18]  40.00 [16.82, 68.73]
right alone, images  3                     1

Both were shown the same 10 images.
Top-1 predictions agree on 40.00 % of them.
no difference beyond chance: deit_tiny_patch16_224 (A) is 20.00 [-21.71, 55.15]
points ahead, p = 0.62.
[ ]: 95 % intervals, Wilson's and, of the difference, Tango's; p: McNemar's
test, exact

3 of the 6 images where predictions differ, ✓ the right one:
                                        label  A    B
n01440764/ILSVRC2012_val_00000004.JPEG  3      3 ✓  12
n01440764/ILSVRC2012_val_00000005.JPEG  4      4 ✓  12
n01440764/ILSVRC2012_val_00000006.JPEG  5      5 ✓  12
"""


def test_a_terminal_gets_who_the_numbers_the_conclusion_and_the_images() -> None:
    assert render_comparison(compare(tiny(), lite()), width=80, images=3) == AT_80


def test_lines_fit_the_terminal_and_long_names_keep_their_end() -> None:
    names = [f"{'very/long/folder/' * 8}{number}.JPEG" for number in range(10)]
    told = compare(tiny(names=names), lite(names=names))
    lines = render_comparison(told, width=80, images=10).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("…")
    assert "/8.JPEG  " in lines[-1]


def test_no_list_is_shown_where_no_image_is_asked_for_or_none_differs() -> None:
    for found, images in ((compare(tiny(), lite()), 0), (compare(tiny(), lite(SIX)), 10)):
        last = render_comparison(found, width=200, images=images).splitlines()[-1]
        assert last == "[ ]: 95 % intervals, Wilson's and, of the difference, Tango's; p: McNemar's test, exact"


def test_settings_that_tell_two_runs_of_one_model_apart_are_shown() -> None:
    half = Evaluation(result=result_of_evaluation(evaluation(precision="bfloat16")), predictions=predictions(FOUR))
    lines = render_comparison(compare(tiny(), half), width=100, images=0).splitlines()
    assert lines[1] == "   run 20261121T120000000000Z-00000000, head class, precision float32"
    assert lines[5] == "   run 20261121T120000000000Z-00000000, head class, precision bfloat16"


def test_images_that_only_one_was_shown_are_counted_and_the_first_named() -> None:
    fewer = lite(FOUR[4:9], labels=LABELS[4:9], names=["a.JPEG", *NAMES[5:9]])
    lines = render_comparison(compare(tiny(), fewer), width=300, images=0).splitlines()
    assert lines[13] == (
        f"Compared are the 4 images in common; only A has 6 more ({NAMES[0]}, {NAMES[1]}, {NAMES[2]}, …), only B 1 "
        "more (a.JPEG)."
    )


def test_real_is_shown_in_the_table_where_both_have_it() -> None:
    one, other = [
        replace(
            side, result=result_of_evaluation(side.result.job, metrics={"real": real}, real={"labels_agree": 0.875})
        )
        for side, real in ((tiny(), 75.0), (lite(FOUR[:9], labels=LABELS[:9], names=NAMES[:9]), 70.5))
    ]
    lines = render_comparison(compare(one, other), width=100, images=0).splitlines()
    assert lines[9:14] == [
        "                           A                     B",
        "top-1, %                   66.67 [35.42, 87.94]  44.44 [18.88, 73.33]",
        "right alone, images        3                     1",
        "ReaL of all its images, %  75.00 [74.00, 76.00]  70.50 [69.50, 71.50]",
        "label is one of ReaL's, %  87.50                 87.50",
    ]


def test_an_image_that_one_could_not_read_is_left_out_and_counted() -> None:
    # Without image 0, which both have right, and image 3, which the first alone has: 4 against 3 of 8.
    unread = (-1, *FOUR[1:3], -1, *FOUR[4:])
    found = compare(tiny(), lite(unread))
    assert (found.common, found.unread) == (8, 2)
    assert (found.first.only_right, found.second.only_right) == (2, 1)
    assert found.difference.value == pytest.approx(100 * (4 - 3) / 8)
    assert NAMES[3] not in [image.name for image in found.differing]
    text = render_comparison(found, width=100, images=1)
    assert "Both were shown the same 8 images. 2 more, which one of them could not read, are left out." in text
    assert json.loads(render_comparison_json(found, images=0))["not_read"] == 2
    with pytest.raises(HarnessError, match="none of the 10 images in common was read by both"):
        compare(tiny(), lite([-1] * 10))


def test_files_of_other_sizes_under_the_same_names_are_told() -> None:
    other = lite()
    facts = {**other.result.facts, "images": {**other.result.facts["images"], "fingerprint": "g"}}
    again = replace(other, result=replace(other.result, facts=facts))
    sentence = "The files of these names have other sizes in A than in B"
    assert sentence in " ".join(render_comparison(compare(tiny(), again), width=100, images=0).split())
    assert sentence not in " ".join(render_comparison(compare(tiny(), other), width=100, images=0).split())


def test_a_program_gets_all_of_it_as_numbers() -> None:
    found = json.loads(render_comparison_json(compare(tiny(), lite()), images=1))
    assert found == {
        "schema": 1,
        "first": {
            "run": "20261121T120000000000Z-00000000",
            "job": "evaluate deit_tiny_patch16_224 imagenet at 224, crop 0.875",
            "settings": dict(evaluation().settings),
            "weights": {
                "file": "deit_tiny_patch16_224.safetensors",
                "sha256": "0123456789abcdef" * 4,
                "origin": "file",
            },
            "images": {
                "said": "10 of the 50,000 images of ImageNet, 10 of its 1,000 classes",
                "fingerprint": "f",
                "whole": False,
            },
            "only_here": 0,
            "head": "class",
            "top1": {
                "unit": "%",
                "value": 60.0,
                "low": pytest.approx(31.267, abs=1e-3),
                "high": pytest.approx(83.182, abs=1e-3),
            },
            "real": None,
            "real_labels_agree": None,
            "right_alone": 3,
        },
        "second": found["second"],
        "images": 10,
        "not_read": 0,
        "same_files": True,
        "difference": {
            "unit": "points",
            "value": 20.0,
            "low": pytest.approx(-21.7085, abs=1e-4),
            "high": pytest.approx(55.1453, abs=1e-4),
        },
        "p": 0.625,
        "agreement": 0.4,
        "better": None,
        "conclusion": conclusion(compare(tiny(), lite())),
        "differ": 6,
        "differing": [{"image": NAMES[3], "label": 3, "first": 3, "second": 12}],
    }
    better = json.loads(render_comparison_json(found_with(90, 130, 1416), images=0))
    assert (better["better"], better["differing"]) == ("second", [])


def test_stored_predictions_compare_as_those_in_memory(tmp_path: Path) -> None:
    def kept(side: Evaluation) -> Evaluation:
        write(side.predictions, tmp_path / f"{side.result.id}.npz")
        return replace(side, predictions=read(tmp_path / f"{side.result.id}.npz"))

    assert compare(kept(tiny()), kept(lite())) == compare(tiny(), lite())
