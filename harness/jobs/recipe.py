"""A recipe job -> its hyper-parameters as table 9 lists them, read from what the trainer builds of the recipe."""

from dataclasses import replace
from typing import Any

import torch
from timm.data.distributed_sampler import RepeatAugSampler
from timm.layers import DropPath
from timm.scheduler import CosineLRScheduler
from torch import nn

from harness.jobs import Outcome, models
from harness.jobs.training.data import Epoch, build_erasing, build_mixing, build_sampler, build_transform, operations
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.losses import build_objective
from harness.jobs.training.optimization import build_optimizer, build_schedule, learning_rate
from harness.plan.job import Job
from harness.store.result import Measurement

NO = "no"
YES = "yes"

# The dataset that the paper trains on: enough images for several steps of the largest batch.
_IMAGES, _CLASSES = 1_281_167, 1000


def resolve_recipe(job: Job) -> Outcome:
    """Build everything but the images, and read the hyper-parameters from it."""
    hyper = Hyperparameters.of(job)
    # Without memory: only its layers and the names of its parameters matter.
    model = models.build_on_meta(hyper.model, hyper.res, classes=_CLASSES, shape=hyper.drop_rates).train()
    optimizer = build_optimizer(hyper, model)
    schedule: Any = build_schedule(hyper, optimizer)
    cosine = isinstance(schedule, CosineLRScheduler)
    mixing, erasing = build_mixing(hyper, _CLASSES), build_erasing(hyper, "cpu")
    objective = build_objective(hyper, mixed=mixing is not None)
    label_loss: Any = objective.label_loss
    sampler, drop_paths = build_sampler(hyper, _IMAGES, World(), 0), _drop_paths(model)
    order = list(sampler)
    repetitions = next(index for index, image in enumerate(order) if image != order[0])  # of the first image, in a row
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    metrics = {
        "epochs": Measurement(unit="epochs", value=float(schedule.t_initial if cosine else hyper.epochs)),
        "batch_size": Measurement(unit="images", value=float(len(Epoch.of(hyper, _IMAGES, World(), 0).batches[0]))),
        "optimizer": _text(type(optimizer).__name__),
        "learning_rate": _text(_learning_rate_rule(hyper, model)),
        "lr_decay": _text("cosine" if cosine else "constant"),
        "weight_decay": Measurement(unit="", value=max(float(g["weight_decay"]) for g in optimizer.param_groups)),
        "warmup_epochs": Measurement(unit="epochs", value=float(schedule.warmup_t)),
        "label_smoothing": _amount(mixing.label_smoothing if mixing else label_loss.smoothing),
        "dropout": _amount(max(dropouts, default=0.0)),
        "stoch_depth": _amount(max(drop_paths, default=0.0)),
        "repeated_aug": _text(YES if isinstance(sampler, RepeatAugSampler) else NO),
        "gradient_clip": _text(YES if hyper.gradient_clip else NO),
        "rand_augment": _text(_rand_augment(hyper)),
        "mixup": _amount(mixing.mixup_alpha if mixing else 0.0),
        "cutmix": _amount(mixing.cutmix_alpha if mixing else 0.0),
        "erasing": _amount(erasing.probability if erasing else 0.0),
        "repetitions": Measurement(unit="", value=float(repetitions)),
        "soft_weight": Measurement(unit="", value=objective.weight),
        "temperature": _amount(objective.temperature),
    }
    facts = {
        "rates": [_rate_in_epoch(schedule, optimizer, epoch) for epoch in range(hyper.epochs)],
        "parameters_that_decay": _count_parameters(optimizer, decay=True),
        "parameters_that_do_not": _count_parameters(optimizer, decay=False),
        "drop_path_by_layer": drop_paths,
    }
    return metrics, facts, []


def _text(text: str) -> Measurement:
    return Measurement(unit="", value=text)


def _amount(value: float) -> Measurement:
    """Write an amount as the table does: `no` for nothing, else at least one decimal."""
    return _text(f"{value:g}" + (".0" if value == int(value) else "") if value else NO)


def _learning_rate_rule(hyper: Hyperparameters, model: nn.Module) -> str:
    """Write the learning rate that the optimizer gets, as a rule where it depends on the batch size."""

    def rate(batch: int) -> float:
        return learning_rate(build_optimizer(replace(hyper, batch_size=batch), model))

    if rate(2 * hyper.batch_size) == rate(hyper.batch_size):
        return f"{rate(hyper.batch_size):g}"
    base = next(batch for batch in (512, 256) if abs(rate(batch) - hyper.learning_rate) < 1e-12)
    return f"{rate(base):g}*batchsize/{base}"


def _rate_in_epoch(schedule: Any, optimizer: torch.optim.Optimizer, epoch: int) -> float:  # noqa: ANN401
    schedule.step(epoch)
    return learning_rate(optimizer)


def _count_parameters(optimizer: torch.optim.Optimizer, *, decay: bool) -> int:
    groups = [group["params"] for group in optimizer.param_groups if bool(group["weight_decay"]) == decay]
    return sum(parameter.numel() for parameters in groups for parameter in parameters)


def _drop_paths(model: nn.Module) -> list[float]:
    """Return the rate of stochastic depth of each layer, first to last: 0 where timm has no layer for it."""
    blocks: Any = getattr(model, "blocks", ())
    return [next((float(m.drop_prob or 0) for m in b.modules() if isinstance(m, DropPath)), 0.0) for b in blocks]


def _rand_augment(hyper: Hyperparameters) -> str:
    """Write magnitude and its deviation, as 9/0.5."""
    operation = next(operations(build_transform(hyper)), None)
    return f"{operation.magnitude:g}/{operation.magnitude_std:g}" if operation else NO
