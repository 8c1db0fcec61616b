"""A finished training -> its weights, and the model that carries them, for images of another size too."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from harness.errors import JobError, name_few
from harness.jobs import models, weights
from harness.jobs.training.hyperparameters import shape_of
from harness.jobs.weights import StateDict, WeightsFile
from harness.plan.job import Job
from harness.specs.model_names import split_weights
from harness.store.store import Store


def find(job: Job, runs: Path) -> WeightsFile:
    """Return the weights of the newest successful result of a training.

    Raises `JobError` if there are none, or if the file is no longer as the training left it.
    """
    store = Store(runs)
    result = store.latest(job, lambda result: result.error is None and store.weights_of(result).is_file())
    if result is not None:
        path, digest = store.weights_of(result), str(result.facts["weights"]["sha256"])
        if weights.sha256_of(path) != digest:
            raise JobError(
                f"{path}: is damaged or of another training, its SHA-256 is not that in the result next to it; remove "
                "it, and the same command trains again"
            )
        return WeightsFile(path=path, sha256=digest, origin="trained")
    failed = store.latest(job, lambda result: result.error is not None)
    reason = f": {failed.error}" if failed is not None else ""
    raise JobError(f"needs the weights of '{job}', which is not trained{reason}")


@dataclass(frozen=True, kw_only=True)
class InputWeights:
    """The weights that a job takes as `part` (`weights`, `start` or `teacher`): of a training of ours, or published."""

    job: Job
    part: str
    file: WeightsFile

    @property
    def name(self) -> str:
        """`MODEL.TAG` of published weights; empty for our own."""
        return self.job.weights_name if self.part == "weights" else str(self.job.get(self.part))

    @property
    def classes(self) -> int:
        """The number of classes that they are for."""
        return class_count(self.file.path) if self.job.need(self.part) else weights.published_classes(self.name)

    def load(self, *, res: int, classes: int) -> nn.Module:
        """Build the model with these weights: on the CPU, in eval mode.

        Raises `JobError` for another number of classes, and as `weights.load_model` does.
        """
        training = self.job.need(self.part)
        if training is None:
            return weights.load_model(split_weights(self.name)[0], res=res, classes=classes, file=self.file)
        if self.classes != classes:
            raise JobError(f"it was trained for {self.classes:,} classes, the images have {classes:,}")
        return load_model(training, self.file.path, res=res)

    def load_as_trained(self) -> nn.Module:
        """Build it for images of the size, and the classes, that the weights are of."""
        training = self.job.need(self.part)
        res = training["res"] if training else weights.published_size(self.name) or self.job["res"]
        return self.load(res=int(res), classes=self.classes)


def find_input(job: Job, part: str, *, folder: Path | None, runs: Path) -> InputWeights:
    """Find the weights that a job takes as `part`: in the user's folder, on the hub, or in our results.

    Raises `JobError` if they are missing, or if a training would take what may be other weights.
    """
    training = job.need(part)
    if training is not None:
        return InputWeights(job=job, part=part, file=find(training, runs))
    name = job.weights_name if part == "weights" else str(job.get(part))
    model, tag = split_weights(name)
    file = weights.find_weights(model, tag, folder)
    if part != "weights" and file.also_fits:
        raise JobError(f"{file.path}: may be {name} or {name_few(file.also_fits)}; rename it to say which")
    return InputWeights(job=job, part=part, file=file)


def load_model(job: Job, path: Path, *, res: int) -> nn.Module:
    """Build the model of a training with the weights in a file, for images of `res`: on the CPU, in eval mode."""
    model = models.build_empty(str(job["model"]), res, classes=class_count(path), shape=shape_of(job))
    model.load_state_dict(fit_position_embedding(model, dict(load_file(path))), strict=True)
    return model.float().eval()


def class_count(path: Path) -> int:
    """Return the number of classes of the model that a training saved."""
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["classes"])


def fit_position_embedding(model: nn.Module, state: StateDict) -> StateDict:
    """Return the weights with the position embedding of the size of images that the model takes."""
    target = getattr(model, "pos_embed", None)
    if "pos_embed" not in state or not isinstance(target, torch.Tensor) or target.ndim != 3:
        return state
    tokens = int(getattr(model, "num_prefix_tokens", 1))
    side = math.isqrt(target.shape[1] - tokens)
    return {**state, "pos_embed": resize_position_embedding(state["pos_embed"], tokens=tokens, side=side)}


def resize_position_embedding(embedding: torch.Tensor, *, tokens: int, side: int) -> torch.Tensor:
    """Interpolate the embedding of a square grid of patches, bicubically: bilinear would shrink it (section 6).

    `embedding` has shape (1, tokens + old × old, width); the first `tokens` (class, distillation) stay as they are.
    The result has shape (1, tokens + side × side, width).
    """
    resized: torch.Tensor = resample_abs_pos_embed(embedding, [side, side], num_prefix_tokens=tokens, antialias=False)
    return resized
