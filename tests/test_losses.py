"""The losses of equations 2 and 3, against numbers worked out by hand with nothing but exponentials."""

import math

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.losses import HeadLogits, Objective, build_objective, divergence
from tests.trainings import smoke

STUDENT = [[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]]
DISTIL = [[1.0, -1.0, 0.0], [0.0, 2.0, 1.0]]
TEACHER = [[0.0, 3.0, 1.0], [5.0, 1.0, -2.0]]
LABELS = [0, 2]


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    parts = [math.exp(value / temperature) for value in row]
    return [part / sum(parts) for part in parts]


def cross_entropy(rows: list[list[float]], labels: list[int]) -> float:
    return -sum(math.log(softmax(row)[label]) for row, label in zip(rows, labels, strict=True)) / len(rows)


def kl(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """Sum over images and classes of p_t (log p_t - log p_s)."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for p, q in zip(softmax(t, temperature), softmax(s, temperature), strict=True):
            total += p * (math.log(p) - math.log(q))
    return total


def logits(rows: list[list[float]], distil: list[list[float]] | None = None) -> HeadLogits:
    return HeadLogits(label=torch.tensor(rows), distil=None if distil is None else torch.tensor(distil))


def objective(distillation: str, scaling: str = "paper", *, class_head_alone: bool = True) -> Objective:
    return Objective(
        label_loss=torch.nn.functional.cross_entropy,
        distillation=distillation,
        weight=0.1,
        temperature=3.0,
        scaling=scaling,
        class_head_alone=class_head_alone,
    )


TARGETS = torch.tensor(LABELS)


def test_without_a_teacher_the_loss_is_that_of_the_labels() -> None:
    assert float(objective("none")(logits(STUDENT), TARGETS, None)) == pytest.approx(
        cross_entropy(STUDENT, LABELS), abs=1e-6
    )


def test_without_a_teacher_the_class_head_of_two_is_trained_or_the_mean_of_their_logits() -> None:
    mean = [[(a + b) / 2 for a, b in zip(x, y, strict=True)] for x, y in zip(STUDENT, DISTIL, strict=True)]
    for alone, rows in ((True, STUDENT), (False, mean)):
        loss = objective("none", class_head_alone=alone)(logits(STUDENT, DISTIL), TARGETS, None)
        assert float(loss) == pytest.approx(cross_entropy(rows, LABELS), abs=1e-6)


@pytest.mark.parametrize(("eval_mode", "alone"), [(False, True), (True, False)])
def test_without_a_teacher_two_heads_are_trained_together_in_eval_mode_alone(*, eval_mode: bool, alone: bool) -> None:
    settings = Hyperparameters.of(smoke(eval_mode=eval_mode))
    assert build_objective(settings, mixed=True).class_head_alone == alone


def test_soft_distillation_is_equation_2_divided_by_the_batch() -> None:
    expected = 0.9 * cross_entropy(STUDENT, LABELS) + 0.1 * 9 * kl(STUDENT, TEACHER, 3.0) / 2
    loss = objective("soft")(logits(STUDENT), TARGETS, torch.tensor(TEACHER))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_the_released_code_divides_the_divergence_by_batch_times_classes() -> None:
    expected = 0.9 * cross_entropy(STUDENT, LABELS) + 0.1 * 9 * kl(STUDENT, TEACHER, 3.0) / 6
    loss = objective("soft", "released")(logits(STUDENT), TARGETS, torch.tensor(TEACHER))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_hard_distillation_is_half_the_label_and_half_the_prediction_of_the_teacher() -> None:
    expected = cross_entropy(STUDENT, LABELS) / 2 + cross_entropy(STUDENT, [1, 0]) / 2
    loss = objective("hard")(logits(STUDENT), TARGETS, torch.tensor(TEACHER))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_with_the_token_the_second_head_alone_learns_from_the_teacher() -> None:
    expected = cross_entropy(STUDENT, LABELS) / 2 + cross_entropy(DISTIL, [1, 0]) / 2
    loss = objective("token")(logits(STUDENT, DISTIL), TARGETS, torch.tensor(TEACHER))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_a_student_with_the_logits_of_its_teacher_does_not_diverge() -> None:
    same = torch.tensor(TEACHER)
    assert float(divergence(same, same, temperature=3.0, scaling="paper")) == pytest.approx(0.0, abs=1e-7)


def test_mixed_labels_count_in_the_label_loss_and_not_in_the_teachers_prediction() -> None:
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]])
    soft = -sum(
        share * math.log(p)
        for row, shares in zip(STUDENT, mixed.tolist(), strict=True)
        for share, p in zip(shares, softmax(row), strict=True)
    )
    expected = soft / 2 / 2 + cross_entropy(STUDENT, [1, 0]) / 2
    loss = Objective(label_loss=SoftTargetCrossEntropy(), distillation="hard")(
        logits(STUDENT), mixed, torch.tensor(TEACHER)
    )
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_smoothed_labels_share_epsilon_between_all_classes() -> None:
    expected = 0.9 * cross_entropy(STUDENT, LABELS) - 0.1 / 3 / 2 * sum(
        math.log(p) for row in STUDENT for p in softmax(row)
    )
    loss = Objective(label_loss=LabelSmoothingCrossEntropy(0.1))(logits(STUDENT), TARGETS, None)
    assert float(loss) == pytest.approx(expected, abs=1e-6)
