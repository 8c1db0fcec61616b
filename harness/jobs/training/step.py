"""One step: a batch -> the loss, and updated weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from harness.jobs.data.preprocess import normalise
from harness.jobs.precision import Precision
from harness.jobs.training.losses import Objective
from harness.jobs.training.student import head_logits

# The parts of a step: normalising, erasing and mixing on the device; the logits of student and teacher, and the loss;
# its gradients; clipping, the optimizer's update and that of the average.
PARTS = ("augment", "forward", "backward", "update")


@dataclass(kw_only=True)
class Step:
    """All that takes part in a step.

    `model` returns the logits of each head, wrapped for several processes or compiled where the recipe says so;
    `plain` is the same model unwrapped, whose weights the average follows.  `passed` is called after each of the
    `PARTS` of a step, for those who time them.
    """

    model: nn.Module
    plain: nn.Module
    teacher: nn.Module | None
    objective: Objective
    optimizer: Optimizer
    scaler: "torch.amp.GradScaler"
    norm: str
    erasing: RandomErasing | None
    mixing: Mixup | None
    average: ModelEmaV3 | None
    precision: Precision
    gradient_clip: float = 0.0
    passed: Callable[[str], object] = lambda _part: None

    def __call__(self, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Train on uint8 pixels of shape (n, 3, res, res) and n class indices; return the loss, not waited for."""
        images = normalise(pixels, self.norm)
        if self.erasing is not None:
            images = self.erasing(images)
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        self.passed("augment")
        loss = self.loss(images, targets)
        self.passed("forward")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.passed("backward")
        if self.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.plain.parameters(), self.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.plain)
        self.passed("update")
        return loss.detach()

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch; the teacher sees the very images that the student sees."""
        with self.precision.context(images.device.type):
            outputs = self.model(images)
            teacher = self._teacher_logits(images)
        return self.objective(head_logits(outputs), targets, teacher)

    @torch.no_grad()
    def _teacher_logits(self, images: torch.Tensor) -> torch.Tensor | None:
        if self.teacher is None:
            return None
        logits: torch.Tensor = self.teacher(images)
        return logits.float()
