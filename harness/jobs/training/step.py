"""One step: a batch -> the loss, and weights that learnt from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from harness.jobs.preprocess import normalised
from harness.jobs.training.losses import Objective
from harness.jobs.training.networks import heads

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def arithmetic(precision: str, device: str) -> Callable[[], AbstractContextManager[object]]:
    """Give the context in which a network computes."""
    kind = torch.device(device).type
    if precision not in _AUTOCAST:
        return nullcontext
    return lambda: torch.autocast(kind, dtype=_AUTOCAST[precision])


@dataclass(kw_only=True)
class Step:
    """All that takes part in a step.

    `network` gives the logits of each head, wrapped for several processes or compiled where that was asked for;
    `plain` is the same network unwrapped, whose weights the average follows.
    """

    network: nn.Module
    plain: nn.Module
    teacher: nn.Module | None
    objective: Objective
    optimizer: Optimizer
    scaler: "torch.amp.GradScaler"
    norm: str
    erasing: RandomErasing | None
    mixing: Mixup | None
    average: ModelEmaV3 | None
    arithmetic: Callable[[], AbstractContextManager[object]]
    gradient_clip: float = 0.0

    def __call__(self, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Learn from uint8 pixels of shape (n, 3, res, res) and n class indices; give the loss, not waited for."""
        images = normalised(pixels, self.norm)
        if self.erasing is not None:
            images = self.erasing(images)
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        loss = self.loss(images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.plain.parameters(), self.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.plain)
        return loss.detach()

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Give the loss of a batch; the teacher sees the very images that the student sees."""
        with self.arithmetic():
            said = self.network(images)
            taught = self._taught(images)
        return self.objective(heads(said), targets, taught)

    @torch.no_grad()
    def _taught(self, images: torch.Tensor) -> torch.Tensor | None:
        if self.teacher is None:
            return None
        logits: torch.Tensor = self.teacher(images)
        return logits.float()
