"""The student's logits, the labels and the teacher's logits -> the loss: equations 2 and 3 of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from harness.jobs.training.hyperparameters import Hyperparameters

# (logits of shape (n, classes), targets) -> a number: cross-entropy against class indices or soft targets.
LabelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class HeadLogits:
    """The logits of a batch, each of shape (n, classes); `distil` only where there is a distillation token."""

    label: torch.Tensor
    distil: torch.Tensor | None = None

    @property
    def mean(self) -> torch.Tensor:
        """The mean of both heads, which the released model returns in eval mode; of one head its logits."""
        return self.label if self.distil is None else (self.label + self.distil) / 2


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of one recipe.

    `distillation` is `none`, `soft` (equation 2 with `weight` λ and `temperature` τ), `hard` (equation 3) or `token`
    (equation 3, with the teacher's label for the head of the distillation token).  `scaling` divides the divergence of
    equation 2 by the n of the batch (`paper`) or by n × classes (`released`, as the authors' code does).  Without a
    teacher, two heads are trained by the class head alone or by the mean of both.
    """

    label_loss: LabelLoss
    distillation: str = "none"
    weight: float = 0.1
    temperature: float = 3.0
    scaling: str = "paper"
    class_head_alone: bool = True

    def __call__(self, logits: HeadLogits, targets: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """Return the loss of a batch; `teacher` are logits of shape (n, classes), without gradient."""
        if teacher is None:
            return self.label_loss(logits.label if self.class_head_alone else logits.mean, targets)
        label = self.label_loss(logits.label, targets)
        # The head that learns from the teacher: the distillation token's where there is one.
        distilled = logits.label if logits.distil is None else logits.distil
        if self.distillation == "soft":
            soft = divergence(distilled, teacher, temperature=self.temperature, scaling=self.scaling)
            return (1 - self.weight) * label + self.weight * self.temperature**2 * soft
        return label / 2 + functional.cross_entropy(distilled, teacher.argmax(dim=1)) / 2


def build_objective(hyper: Hyperparameters, *, mixed: bool) -> Objective:
    """Build the loss of a recipe; where images are mixed, their labels are smoothed already."""
    label_loss: Any = SoftTargetCrossEntropy() if mixed else LabelSmoothingCrossEntropy(hyper.label_smoothing)
    return Objective(
        label_loss=label_loss,
        distillation=hyper.distillation,
        weight=hyper.soft_weight,
        temperature=hyper.temperature,
        scaling=hyper.soft_scaling,
        class_head_alone=hyper.class_head_alone,
    )


def divergence(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float, scaling: str) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of the student's softmax from the teacher's, both at a temperature.

    Both are logits of shape (n, classes).  The sum over all is divided by n, or by n × classes where `scaling` is
    `released`.
    """
    total = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="sum",
        log_target=True,
    )
    return total / (student.numel() if scaling == "released" else student.shape[0])
