"""A model and a batch of images -> the predictions of each of its heads, and of both of them fused."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from harness.errors import JobError
from harness.jobs.precision import PRECISIONS
from harness.jobs.too_large import too_large
from harness.store.possible import TOP
from harness.store.predictions import Head, concatenate_heads


class Predictor:
    """Predicts with every head of a model in one forward pass, for at most `batch_size` images at once.

    A model distilled through a token has a second linear layer, `head_dist`; timm returns the mean of the two heads'
    logits only, so hooks collect the output of both layers.
    """

    def __init__(self, model: nn.Module, *, precision: str = "float32", batch_size: int = 128) -> None:
        self._model, self._precision, self._batch_size = model, PRECISIONS[precision], batch_size
        self._outputs: dict[str, torch.Tensor] = {}
        self.distilled = isinstance(getattr(model, "head_dist", None), nn.Module)
        if self.distilled:
            for name, layer in (("class", model.head), ("distil", model.head_dist)):
                layer.register_forward_hook(partial(self._collect, name))  # type: ignore[union-attr]

    def _collect(self, name: str, _layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._outputs[name] = output

    def predict(self, images: torch.Tensor) -> dict[str, Head]:
        """Return the top-5 of each head, computed in as few pieces as the memory allows.

        Where a batch is too large, it halves the batch size, for good; the result does not depend on it.
        Raises as `forward` does.
        """
        self._precision.set_tf32()
        while True:
            try:
                with self._precision.context(images.device.type):
                    return concatenate_heads([self.forward(piece) for piece in torch.split(images, self._batch_size)])
            except (RuntimeError, MemoryError) as error:
                if not too_large(error) or self._batch_size == 1:
                    raise
                self._batch_size //= 2

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> dict[str, Head]:
        """Return the heads' top-5 for images of shape (n, 3, res, res), on the CPU.

        Raises `JobError` for output that is not finite or not one row of scores per image.
        """
        output: object = self._model(images)
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise JobError(f"'{type(self._model).__name__}' does not return one row of class scores per image")
        if not self.distilled:
            return {"class": _head_of_logits(output)}
        label, distil = self._outputs.pop("class").float(), self._outputs.pop("distil").float()
        softmax_sum = label.softmax(dim=1) + distil.softmax(dim=1)
        return {
            "class": _head_of_logits(label),
            "distil": _head_of_logits(distil),
            "softmax_sum": _head(softmax_sum, lambda best: best / 2),
            "logit_mean": _head_of_logits((label + distil) / 2),
        }


def _head_of_logits(logits: torch.Tensor) -> Head:
    logits = logits.float()
    total = logits.logsumexp(dim=1)
    return _head(logits, lambda best: (best - total).exp())


def _head(scores: torch.Tensor, probability_of: Callable[[torch.Tensor], torch.Tensor]) -> Head:
    """Take the five highest scores; where there are fewer classes, the rest is class -1."""
    if not bool(torch.isfinite(scores).all()):
        raise JobError("the model returns scores that are not finite")
    best = scores.topk(min(TOP, scores.shape[1]), dim=1)
    count = scores.shape[0]
    top = np.full((count, TOP), -1, dtype=np.int32)
    values = np.zeros((count, TOP), dtype=np.float32)
    top[:, : best.indices.shape[1]] = best.indices.cpu().numpy()
    values[:, : best.values.shape[1]] = best.values.cpu().numpy()
    probability = probability_of(best.values[:, 0]).cpu().numpy().astype(np.float32)
    return Head(top=top, scores=values, probability=probability)
