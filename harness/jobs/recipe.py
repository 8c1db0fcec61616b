"""A recipe job -> its hyper-parameters as table 9 prints them, read off what the trainer builds of the recipe."""

from dataclasses import replace
from typing import Any

import torch
from timm.data import Mixup
from timm.data.auto_augment import RandAugment
from timm.data.distributed_sampler import RepeatAugSampler
from timm.layers import DropPath
from timm.scheduler import CosineLRScheduler
from torch import nn

from harness.job import Job
from harness.jobs import network
from harness.jobs.training.data import Epoch, erasing_of, mixing_of, sampler_of, transform_of
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.optimization import objective_of, optimizer_of, rate, schedule_of
from harness.jobs.training.world import World
from harness.result import Measurement

Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]

NO = "no"
YES = "yes"

# The data set that the paper trains on: enough images for several steps of the largest batch.
_IMAGES, _CLASSES = 1_281_167, 1000


def work(job: Job) -> Outcome:
    """Build everything but the images, and say what came out."""
    hyper = Hyperparameters.of(job)
    model = _network(hyper)
    optimizer = optimizer_of(hyper, model)
    schedule: Any = schedule_of(hyper, optimizer)
    mixing = mixing_of(hyper, _CLASSES)
    objective = objective_of(hyper, mixed=mixing is not None)
    metrics = {
        "epochs": Measurement(unit="epochs", value=float(_epochs(hyper, schedule))),
        "batch_size": Measurement(unit="images", value=float(len(Epoch.of(hyper, _IMAGES, World(), 0).batches[0]))),
        "optimizer": _word(type(optimizer).__name__),
        "learning_rate": _word(_rate(hyper, model)),
        "lr_decay": _word("cosine" if isinstance(schedule, CosineLRScheduler) else "constant"),
        "weight_decay": Measurement(unit="", value=max(float(g["weight_decay"]) for g in optimizer.param_groups)),
        "warmup_epochs": Measurement(unit="epochs", value=float(schedule.warmup_t)),
        "label_smoothing": _word(_amount(_smoothing(hyper, mixing))),
        "dropout": _word(_amount(max((m.p for m in model.modules() if isinstance(m, nn.Dropout)), default=0.0))),
        "stoch_depth": _word(_amount(max(_drop_paths(model), default=0.0))),
        "repeated_aug": _word(YES if isinstance(sampler_of(hyper, _IMAGES, World(), 0), RepeatAugSampler) else NO),
        "gradient_clip": _word(YES if hyper.gradient_clip else NO),
        "rand_augment": _word(_rand_augment(hyper)),
        "mixup": _word(_amount(mixing.mixup_alpha if mixing else 0.0)),
        "cutmix": _word(_amount(mixing.cutmix_alpha if mixing else 0.0)),
        "erasing": _word(_amount(_erasing(hyper))),
        "repetitions": Measurement(unit="", value=float(_repetitions(hyper))),
        "soft_weight": Measurement(unit="", value=objective.weight),
        "temperature": _word(_amount(objective.temperature)),
    }
    decayed, kept = (sum(p.numel() for p in group["params"]) for group in _by_decay(optimizer))
    facts = {
        "rates": [_rate_at(schedule, optimizer, epoch) for epoch in range(hyper.epochs)],
        "parameters_that_decay": decayed,
        "parameters_that_do_not": kept,
        "drop_path_by_layer": _drop_paths(model),
    }
    return metrics, facts, []


def _network(hyper: Hyperparameters) -> nn.Module:
    """Build the network without memory: only its layers and the names of its parameters are asked for."""
    rates = {"drop_rate": hyper.dropout, "drop_path_rate": hyper.drop_path}
    return network.skeleton(
        hyper.model, hyper.res, classes=_CLASSES, shape={name: value for name, value in rates.items() if value}
    ).train()


def _word(text: str) -> Measurement:
    return Measurement(unit="", value=text)


def _amount(value: float) -> str:
    """Write an amount as the table does: `no` for nothing, else at least one decimal."""
    return f"{value:g}" + (".0" if value == int(value) else "") if value else NO


def _epochs(hyper: Hyperparameters, schedule: Any) -> int:  # noqa: ANN401 -- timm's schedules share no length
    return int(schedule.t_initial) if isinstance(schedule, CosineLRScheduler) else hyper.epochs


def _rate(hyper: Hyperparameters, model: nn.Module) -> str:
    """Write the rate that the optimizer gets, as a rule where another batch gets another."""

    def at(batch: int) -> float:
        return float(optimizer_of(replace(hyper, batch_size=batch), model).param_groups[0]["lr"])

    if at(2 * hyper.batch_size) == at(hyper.batch_size):
        return f"{at(hyper.batch_size):g}"
    base = next(batch for batch in (512, 256) if abs(at(batch) - hyper.learning_rate) < 1e-12)
    return f"{at(base):g}*batchsize/{base}"


def _rate_at(schedule: Any, optimizer: torch.optim.Optimizer, epoch: int) -> float:  # noqa: ANN401
    schedule.step(epoch)
    return rate(optimizer)


def _by_decay(optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    nothing: dict[str, list[nn.Parameter]] = {"params": []}
    groups = optimizer.param_groups
    return (
        next((group for group in groups if group["weight_decay"]), nothing),
        next((group for group in groups if not group["weight_decay"]), nothing),
    )


def _smoothing(hyper: Hyperparameters, mixing: Mixup | None) -> float:
    if mixing is not None:
        return float(mixing.label_smoothing)
    loss: Any = objective_of(hyper, mixed=False).label_loss
    return float(loss.smoothing)


def _drop_paths(model: nn.Module) -> list[float]:
    """Give the rate of stochastic depth of each layer, first to last: 0 where timm puts nothing in its place."""
    blocks: Any = getattr(model, "blocks", ())
    return [next((float(m.drop_prob or 0) for m in b.modules() if isinstance(m, DropPath)), 0.0) for b in blocks]


def _repetitions(hyper: Hyperparameters) -> int:
    """Count how often an image comes in a row."""
    order = list(sampler_of(hyper, _IMAGES, World(), 0))
    return next(place for place, image in enumerate(order) if image != order[0])


def _rand_augment(hyper: Hyperparameters) -> str:
    """Write magnitude and its deviation, as 9/0.5."""
    transform: Any = transform_of(hyper)
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            return f"{step.ops[0].magnitude:g}/{step.ops[0].magnitude_std:g}"
    return NO


def _erasing(hyper: Hyperparameters) -> float:
    found = erasing_of(hyper, "cpu")
    return float(found.probability) if found is not None else 0.0
