"""A training job -> the network that learns, from the beginning or from weights, and the one that teaches it."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from harness.errors import JobError
from harness.job import Job
from harness.jobs import network, trained, weights
from harness.jobs.training import chance
from harness.jobs.training.hyperparameters import Hyperparameters, shape_of
from harness.jobs.training.losses import Heads
from harness.jobs.training.positions import State, fitted

# How wide timm draws the weights of a vision transformer.
TIMM_STD = 0.02


class Student(nn.Module):
    """A network that gives the logits of each head apart, in training and in eval mode alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.distilled = isinstance(getattr(network, "head_dist", None), nn.Module)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give one tensor of shape (n, classes) for each head: class, then distillation."""
        whole: Any = self.network
        if not self.distilled:
            return (whole(images),)
        tokens = whole.forward_features(images)
        label, distil = whole.head_drop(tokens[:, 0]), whole.head_drop(tokens[:, 1])
        return whole.head(label), whole.head_dist(distil)


def heads(said: tuple[torch.Tensor, ...]) -> Heads:
    """Name what a student said, in float32, whatever it computes in."""
    return Heads(label=said[0].float(), distil=said[1].float() if len(said) > 1 else None)


def student_of(job: Job, *, classes: int, folder: Path | None, runs: Path) -> nn.Module:
    """Build the network that learns, on the CPU, in training mode.

    `folder` holds the user's weights, `runs` those that we trained.  Raises `JobError` for a network or weights that
    do not fit.
    """
    hyper = Hyperparameters.of(job)
    chance.of_beginning(hyper.seed)
    model = network.trainable(
        hyper.model,
        hyper.res,
        classes=classes,
        shape=shape_of(job),
        rates={"drop_rate": hyper.dropout, "drop_path_rate": hyper.drop_path},
    )
    if hyper.init_std != TIMM_STD:
        _draw_wider(model, hyper.init_std)
    if hyper.distillation == "token" and not hasattr(model, "head_dist"):
        raise JobError(f"'{hyper.model}' has no distillation token; choose distillation hard or soft, or a ⚗ network")
    state = _start(job, folder=folder, runs=runs)
    if state is not None:
        _begin_from(model, state, hyper.model)
    return model.train()


def _draw_wider(model: nn.Module, std: float) -> None:
    """Draw weights and position embedding anew from a truncated normal distribution of this width.

    Timm's fits transformers a thousand wide; one of 64 learns nothing for its first hundreds of steps.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
    for name in ("pos_embed", "cls_token", "dist_token"):
        if isinstance(getattr(model, name, None), nn.Parameter):
            nn.init.trunc_normal_(getattr(model, name), std=std)


def _start(job: Job, *, folder: Path | None, runs: Path) -> State | None:
    before, name = job.need("start"), str(job.get("start"))
    if before is not None:
        return trained.state(before, runs)
    if not name:
        return None
    model, _, tag = name.partition(".")
    # At its own size: the position embedding is interpolated here, as the paper does it.
    config = timm.get_pretrained_cfg(name)
    side = int(config.input_size[-1]) if config is not None else int(job["res"])
    found = weights.find(model, tag, folder)
    return weights.load(model, res=side, classes=published_classes(name), found=found).state_dict()


def published_classes(name: str) -> int:
    """Give how many classes weights of timm's know."""
    config = timm.get_pretrained_cfg(name)
    return int(config.num_classes) if config is not None else 1000


def _begin_from(model: nn.Module, state: State, name: str) -> None:
    """Put weights into a network; a head for another number of classes begins anew."""
    wanted = model.state_dict()
    state = fitted(model, state)
    anew = {key for key in weights.head_names(model) if key in state and state[key].shape != wanted[key].shape}
    differs = [key for key in wanted if key not in anew and (key not in state or state[key].shape != wanted[key].shape)]
    if differs or state.keys() - wanted.keys():
        first = next(iter(differs or sorted(state.keys() - wanted.keys())))
        raise JobError(f"the weights to start from are not those of '{name}' ({first} differs); name others as start")
    model.load_state_dict({**state, **{key: wanted[key] for key in anew}}, strict=True)


def teacher_of(job: Job, *, classes: int, folder: Path | None, runs: Path) -> nn.Module | None:
    """Build the network that teaches, in eval mode, for images of the student's size; nothing where there is none.

    Raises `JobError` for a teacher of another number of classes.
    """
    hyper = Hyperparameters.of(job)
    if not hyper.distilled:
        return None
    before = job.need("teacher")
    if before is not None:
        path = trained.found(before, runs).path
        if trained.classes_in(path) != classes:
            raise JobError(other_classes(str(before["recipe"]), trained.classes_in(path), classes))
        return trained.network(before, path, res=hyper.res)
    model, _, tag = hyper.teacher.partition(".")
    if published_classes(hyper.teacher) != classes:
        raise JobError(other_classes(hyper.teacher, published_classes(hyper.teacher), classes))
    return weights.load(model, res=hyper.res, classes=classes, found=weights.find(model, tag, folder))


def other_classes(teacher: str, knows: int, classes: int) -> str:
    """Say that a teacher cannot teach these classes."""
    return f"the teacher {teacher} knows {knows:,} classes, the data set has {classes:,}; name a recipe that trains one"
