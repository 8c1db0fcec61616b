"""Hyperparameters + a model -> its optimizer and its schedule, both of timm."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from harness.jobs.training.hyperparameters import Hyperparameters


def build_optimizer(hyper: Hyperparameters, model: nn.Module) -> Optimizer:
    """Build timm's optimizer; biases, norms, tokens and the position embedding do not decay, and SGD is Nesterov's."""
    return create_optimizer_v2(
        model,
        opt=hyper.optimizer,
        lr=hyper.scaled_rate,
        weight_decay=hyper.weight_decay,
        momentum=hyper.momentum,
        filter_bias_and_bn=True,
    )


def build_schedule(hyper: Hyperparameters, optimizer: Optimizer) -> Scheduler:
    """Build the schedule: up from `warmup_lr` during the warm-up, then down to `min_lr`.

    The cosine counts its epochs from the first one, the warm-up's too, as the released code has it.
    """
    warmup: dict[str, Any] = {"warmup_t": hyper.warmup_epochs, "warmup_lr_init": hyper.warmup_lr}
    if hyper.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=10 * hyper.epochs, decay_rate=1.0, **warmup)
    return CosineLRScheduler(optimizer, t_initial=hyper.epochs, lr_min=hyper.min_lr, **warmup)


def set_learning_rate(schedule: Scheduler, hyper: Hyperparameters, epoch: int) -> None:
    """Set the learning rate of an epoch, counted from 0.

    The released loop steps the schedule `after` an epoch, with the number of that epoch, so the first two epochs have
    the first rate and each later one that of the epoch before it.  Other loops step it `before`.
    """
    schedule.step(max(epoch - 1, 0) if hyper.schedule_step == "after" else epoch)


def learning_rate(optimizer: Optimizer) -> float:
    """Return the learning rate that is set."""
    return float(optimizer.param_groups[0]["lr"])
