"""A network and a batch of images -> what each of its heads says, and both of them fused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import JobError
from harness.predictions import TOP, Head


class Reader:
    """Reads every head of a network in one forward pass.

    A network distilled through a token has a second linear layer, `head_dist`; timm gives the mean of the two heads'
    logits only, so both layers are listened to.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._heard: dict[str, torch.Tensor] = {}
        self.distilled = isinstance(getattr(model, "head_dist", None), nn.Module)
        if self.distilled:
            for name, layer in (("class", model.head), ("distil", model.head_dist)):
                layer.register_forward_hook(self._listener(name))  # type: ignore[union-attr]

    def _listener(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_layer: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401 -- as torch calls it
            self._heard[name] = output

        return keep

    @torch.inference_mode()
    def read(self, images: torch.Tensor) -> dict[str, Head]:
        """Give the heads' top-5 for images of shape (n, 3, res, res), on the CPU.

        Raises `JobError` for output that is not finite or not a row of scores an image.
        """
        output: object = self._model(images)
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise JobError(f"'{type(self._model).__name__}' does not give one row of class scores an image")
        if not self.distilled:
            return {"class": _by_logits(output)}
        first, second = self._heard.pop("class").float(), self._heard.pop("distil").float()
        both = first.softmax(dim=1) + second.softmax(dim=1)
        return {
            "class": _by_logits(first),
            "distil": _by_logits(second),
            "softmax_sum": _top(both, lambda best: best / 2),
            "logit_mean": _by_logits((first + second) / 2),
        }


def _by_logits(logits: torch.Tensor) -> Head:
    logits = logits.float()
    whole = logits.logsumexp(dim=1)
    return _top(logits, lambda best: (best - whole).exp())


def _top(scores: torch.Tensor, probability_of: Callable[[torch.Tensor], torch.Tensor]) -> Head:
    """Take the five best; where there are fewer classes, the rest is class -1."""
    if not bool(torch.isfinite(scores).all()):
        raise JobError("the network gives scores that are not finite")
    best = scores.topk(min(TOP, scores.shape[1]), dim=1)
    count = scores.shape[0]
    top = np.full((count, TOP), -1, dtype=np.int32)
    values = np.zeros((count, TOP), dtype=np.float32)
    top[:, : best.indices.shape[1]] = best.indices.cpu().numpy()
    values[:, : best.values.shape[1]] = best.values.cpu().numpy()
    probability = probability_of(best.values[:, 0]).cpu().numpy().astype(np.float32)
    return Head(top=top, scores=values, probability=probability)
