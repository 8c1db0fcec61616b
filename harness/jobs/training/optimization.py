"""Hyperparameters + a network -> its optimizer, its schedule, its loss and its average, all of timm."""

from typing import Any

from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.losses import Objective


def optimizer_of(hyper: Hyperparameters, model: nn.Module) -> Optimizer:
    """Make timm's optimizer; biases, norms, tokens and the position embedding do not decay, and SGD is Nesterov's."""
    return create_optimizer_v2(
        model,
        opt=hyper.optimizer,
        lr=hyper.scaled_rate,
        weight_decay=hyper.weight_decay,
        momentum=hyper.momentum,
        filter_bias_and_bn=True,
    )


def schedule_of(hyper: Hyperparameters, optimizer: Optimizer) -> Scheduler:
    """Make the schedule, which sets the rate of each epoch: from `warmup_lr` up in so many epochs, then down.

    The cosine counts its epochs from the first one, the warm-up's too, as the released code has it, and ends at
    `min_lr`.
    """
    warm: dict[str, Any] = {"warmup_t": hyper.warmup_epochs, "warmup_lr_init": hyper.warmup_lr}
    if hyper.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=10 * hyper.epochs, decay_rate=1.0, **warm)
    return CosineLRScheduler(optimizer, t_initial=hyper.epochs, lr_min=hyper.min_lr, **warm)


def rate(optimizer: Optimizer) -> float:
    """Give the learning rate that is set."""
    return float(optimizer.param_groups[0]["lr"])


def objective_of(hyper: Hyperparameters, *, mixed: bool) -> Objective:
    """Make the loss; where images are mixed, their labels come smoothed already."""
    label_loss: Any = SoftTargetCrossEntropy() if mixed else LabelSmoothingCrossEntropy(hyper.label_smoothing)
    return Objective(
        label_loss=label_loss,
        distillation=hyper.distillation,
        weight=hyper.soft_weight,
        temperature=hyper.temperature,
        scaling=hyper.soft_scaling,
    )


def average_of(hyper: Hyperparameters, model: nn.Module) -> ModelEmaV3 | None:
    """Make the exponential moving average of the weights, if the recipe keeps one."""
    return ModelEmaV3(model, decay=hyper.ema_decay) if hyper.ema else None
