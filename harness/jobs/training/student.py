"""A training job -> the student, initialised at random or from weights, and its teacher."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import JobError
from harness.jobs import models, weights
from harness.jobs.training import seeding, trained_weights
from harness.jobs.training.hyperparameters import Hyperparameters, shape_of
from harness.jobs.training.losses import HeadLogits
from harness.jobs.training.trained_weights import InputWeights
from harness.jobs.weights import StateDict
from harness.plan.job import Job

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)

# The standard deviation with which timm initialises the linear layers of a vision transformer.
TIMM_STD = 0.02


class Student(nn.Module):
    """A model that returns the logits of each head separately, in training and in eval mode alike.

    With `fixres` its classifier and its batch norms are trained, all else keeps its weights and stays in eval mode:
    the adaptation to another resolution of Touvron et al., arXiv 1906.06423.
    """

    def __init__(self, model: nn.Module, *, fixres: bool = False) -> None:
        super().__init__()
        self.model = model
        self.distilled = isinstance(getattr(model, "head_dist", None), nn.Module)
        self.fixres = fixres
        if fixres:
            model.requires_grad_(requires_grad=False)
            heads = weights.head_names(model)
            for parameter in (p for name, p in model.named_parameters() if name in heads):
                parameter.requires_grad_()
            for norm in self._batch_norms():
                norm.requires_grad_()

    def train(self, mode: bool = True) -> "Student":  # noqa: FBT001, FBT002 -- torch's own
        """Switch to training mode or to eval mode, as `nn.Module.train`."""
        super().train(mode and not self.fixres)
        self.training = mode
        if mode and self.fixres:
            for norm in self._batch_norms():
                norm.train()
        return self

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.model.modules() if isinstance(module, BATCH_NORMS))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one tensor of shape (n, classes) for each head: class, then distillation."""
        model: Any = self.model
        if not self.distilled:
            return (model(images),)
        tokens = model.forward_features(images)
        return model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])


def head_logits(outputs: tuple[torch.Tensor, ...]) -> HeadLogits:
    """Name the outputs of a student, in float32, whatever its precision."""
    return HeadLogits(label=outputs[0].float(), distil=outputs[1].float() if len(outputs) > 1 else None)


def build_student(job: Job, *, classes: int, folder: Path | None, runs: Path) -> nn.Module:
    """Build the student, on the CPU, in training mode.

    `folder` holds the user's weights, `runs` those that we trained.  Raises `JobError` for a model or weights that do
    not fit.
    """
    hyper = Hyperparameters.of(job)
    seeding.seed_initialization(hyper.seed)
    shape = {**shape_of(job), **hyper.drop_rates}
    model = models.build_trainable(hyper.model, hyper.res, classes=classes, shape=shape)
    _initialize(model, hyper.init_std)
    if hyper.distillation == "token" and not hasattr(model, "head_dist"):
        raise JobError(f"'{hyper.model}' has no distillation token; choose distillation hard or soft, or a ⚗ model")
    if job.need("start") or job.get("start"):
        start = trained_weights.find_input(job, "start", folder=folder, runs=runs)
        if hyper.fixres:
            _check_classes(start, classes)
        # At its own size: the position embedding is interpolated here, as the paper does it.
        load_starting_weights(model, start.load_as_trained().state_dict(), hyper.model)
    if hyper.class_head_alone and hasattr(model, "head_dist"):
        # It stays as it is, and several processes do not wait for its gradient.
        model.get_submodule("head_dist").requires_grad_(requires_grad=False)
    return model.train()


def _initialize(model: nn.Module, std: float) -> None:
    """Draw weights, tokens and position embedding from a truncated normal distribution of this standard deviation.

    Timm's suits transformers a thousand wide; one of 64 learns nothing in its first hundreds of steps.  The class token
    is nearly 0 in timm 1.x; the authors drew it as they drew all others.  A convnet keeps timm's initialisation.
    """
    for layer in model.modules() if std != TIMM_STD and models.has_attention(model) else ():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
    for name in ("pos_embed", "cls_token", "dist_token"):
        if isinstance(getattr(model, name, None), nn.Parameter):
            nn.init.trunc_normal_(getattr(model, name), std=std)


def load_starting_weights(model: nn.Module, state: StateDict, name: str) -> None:
    """Load weights into a model; a head for another number of classes keeps its initialisation.

    Raises `JobError` for weights of another model.
    """
    initial = model.state_dict()
    state = trained_weights.fit_position_embedding(model, state)
    new = {key for key in weights.head_names(model) if key in state and state[key].shape != initial[key].shape}
    differ = [key for key in initial if key not in new and (key not in state or state[key].shape != initial[key].shape)]
    unexpected = sorted(state.keys() - initial.keys())
    if differ or unexpected:
        first = (differ or unexpected)[0]
        raise JobError(f"the weights to start from are not those of '{name}' ({first} differs); name others as start")
    model.load_state_dict({**state, **{key: initial[key] for key in new}}, strict=True)


def build_teacher(job: Job, *, classes: int, folder: Path | None, runs: Path) -> nn.Module | None:
    """Build the teacher, in eval mode, for images of the student's size; None where there is none.

    Raises `JobError` for a teacher of another number of classes.
    """
    hyper = Hyperparameters.of(job)
    if not hyper.distilled:
        return None
    teacher = trained_weights.find_input(job, "teacher", folder=folder, runs=runs)
    _check_classes(teacher, classes)
    return teacher.load(res=hyper.res, classes=classes)


def _check_classes(teacher: InputWeights, classes: int) -> None:
    if teacher.classes != classes:
        training = teacher.job.need(teacher.part)
        name = str(training["recipe"]) if training else teacher.name
        raise JobError(teacher_message(name, teacher.classes, classes))


def teacher_message(teacher: str, known: int, classes: int) -> str:
    """Return the sentence that a teacher cannot teach these classes."""
    return f"the teacher {teacher} knows {known:,} classes, the dataset has {classes:,}; name a recipe that trains one"
