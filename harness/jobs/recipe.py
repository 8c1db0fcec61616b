"""A recipe job -> its hyper-parameters as table 9 lists them, read from what the trainer builds of the recipe."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from timm.data.distributed_sampler import RepeatAugSampler
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from harness.jobs import Outcome, models
from harness.jobs.training.data import Epoch, build_erasing, build_mixing, build_sampler, build_transform, operations
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.losses import build_objective
from harness.jobs.training.optimization import build_optimizer, build_schedule, learning_rate, set_learning_rate
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
    sampler, drop_paths, dropouts = build_sampler(hyper, _IMAGES, World(), 0), _drop_paths(model), _dropouts(model)
    order = list(sampler)
    repetitions = next(index for index, image in enumerate(order) if image != order[0])  # of the first image, in a row
    metrics = {
        "epochs": Measurement(unit="epochs", value=float(schedule.t_initial if cosine else hyper.epochs)),
        "batch_size": Measurement(unit="images", value=float(len(Epoch.of(hyper, _IMAGES, World(), 0).batches[0]))),
        "optimizer": _text(type(optimizer).__name__),
        "learning_rate": _text(_learning_rate_rule(hyper, model)),
        "lr_decay": _text("cosine" if cosine else "constant"),
        "weight_decay": Measurement(unit="", value=_weight_decay(optimizer)),
        "warmup_epochs": Measurement(unit="epochs", value=float(schedule.warmup_t)),
        "label_smoothing": _amount(mixing.label_smoothing if mixing else label_loss.smoothing),
        "dropout": _dropout_rate(dropouts, layers=sum(name.endswith(".attn") for name, _ in model.named_modules())),
        "stoch_depth": _drop_path_rate(drop_paths),
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
        "rates": _rates_by_epoch(schedule, optimizer, hyper),
        "parameters_that_decay": _count_parameters(optimizer, decay=True),
        "parameters_that_do_not": _count_parameters(optimizer, decay=False),
        "drop_path_by_layer": drop_paths,
        "dropout_by_place": dropouts,
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
    base = int(hyper.lr_batch)
    return f"{rate(base):g}*batchsize/{base}"


def _rates_by_epoch(schedule: Scheduler, optimizer: torch.optim.Optimizer, hyper: Hyperparameters) -> list[float]:
    rates = []
    for epoch in range(hyper.epochs):
        set_learning_rate(schedule, hyper, epoch)
        rates.append(learning_rate(optimizer))
    return rates


def _weight_decay(optimizer: torch.optim.Optimizer) -> float:
    """Return the weight decay of most parameters."""
    groups = optimizer.param_groups
    return float(max(groups, key=lambda group: sum(p.numel() for p in group["params"]))["weight_decay"])


def _count_parameters(optimizer: torch.optim.Optimizer, *, decay: bool) -> int:
    groups = [group["params"] for group in optimizer.param_groups if bool(group["weight_decay"]) == decay]
    return sum(parameter.numel() for parameters in groups for parameter in parameters)


def _dropouts(model: nn.Module) -> dict[str, float]:
    """Return the rate of each place that has dropout, by the name of its module."""
    return {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p}


def _dropout_rate(rates: Mapping[str, float], *, layers: int) -> Measurement:
    """Write the rate if a transformer has it in as many places as ViT and not in front of the classifier, else where.

    ViT has it behind the position embedding and, in each layer, behind the projection of the attention and behind both
    layers of the MLP.  A convnet has it where timm puts it.
    """
    places, values = 1 + 3 * layers, sorted(set(rates.values()))
    inside = sum(not name.startswith("head") for name in rates)
    if not layers or not rates or (len(rates) == inside == places and len(values) == 1):
        return _amount(max(values, default=0.0))
    count = f" in {inside} place{'s' * (inside != 1)} instead of {places}" if inside != places else ""
    head = " and before the classifier" if inside < len(rates) else ""
    return _text(", ".join(f"{value:g}" for value in values) + count + head)


def _drop_paths(model: nn.Module) -> list[float]:
    """Return the rate of stochastic depth of each layer, first to last: the least of its branches."""
    branches = [[m for name, m in layer.named_children() if name.startswith("drop_path")] for layer in model.modules()]
    return [min(float(getattr(m, "drop_prob", 0) or 0) for m in layer) for layer in branches if layer]


def _drop_path_rate(rates: list[float]) -> Measurement:
    """Write the last layer's rate if it rises to that evenly from 0, else the rates of all layers."""
    last = rates[-1] if rates else 0.0
    even = [last * layer / max(1, len(rates) - 1) for layer in range(len(rates))]
    rises = all(math.isclose(rate, expected, abs_tol=1e-6) for rate, expected in zip(rates, even, strict=True))
    return _amount(round(last, 6)) if rises else _text(", ".join(f"{rate:g}" for rate in rates))


def _rand_augment(hyper: Hyperparameters) -> str:
    """Write magnitude and its deviation, as 9/0.5."""
    operation = next(operations(build_transform(hyper)), None)
    return f"{operation.magnitude:g}/{operation.magnitude_std:g}" if operation else NO
