"""A distilled network and images -> how alike its class and distillation tokens are, layer by layer."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from harness.errors import JobError
from harness.job import Job
from harness.jobs import weights
from harness.jobs.evaluate import Site
from harness.jobs.images import facts_of, open_images
from harness.jobs.loading import loader
from harness.jobs.preprocess import View, normalised
from harness.jobs.walk import TOGETHER, Report
from harness.progress import Inputs, Progress
from harness.result import Measurement

# Evenly spread.  All 50,000 would cost a pass for no printed digit more; the interval tells how sure the mean is.
MOST_IMAGES = 1000


def work(
    job: Job, inputs: Inputs, site: Site, report: Report
) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:
    """Measure the cosine of the two tokens (section 5.2 of the paper: 0.06 at the input, 0.93 at the last layer).

    `cosine_in` is that of the two learned embeddings, before positions are added: it does not depend on an image.
    After each layer it is the mean over images.  Raises `JobError` for a network without the two tokens.
    """
    images = open_images(str(job["data"]), inputs.where(str(job["data"])))
    found = weights.find(str(job["model"]), str(job["weights"]), inputs.weights)
    model: Any = weights.load(str(job["model"]), res=int(job["res"]), classes=images.classes, found=found)
    if not isinstance(getattr(model, "dist_token", None), torch.Tensor) or not hasattr(model, "blocks"):
        raise JobError(f"'{job['model']}' has no distillation token")
    device = site.devices[0]
    model = model.to(device)
    layers = Layers(model)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int)).tolist()
    size, view = TOGETHER[device.partition(":")[0]], View.of(job)
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    rows, done = [], 0
    for loaded in loader(images, [view], batches, workers=inputs.workers, pin=device != "cpu"):
        if loaded.broken:
            raise JobError(next(iter(loaded.broken.values())))
        rows.append(layers.cosines(normalised(loaded.pixels[0].to(device), str(job["norm"]))))
        done += len(loaded.positions)
        report(Progress(job=job, phase="comparing tokens", done=done, total=len(chosen)))
    by_layer = np.concatenate(rows).astype(np.float64)
    first, second = (token.detach().flatten().float() for token in (model.cls_token, model.dist_token))
    learned = float(cosine_similarity(first, second, dim=0))
    metrics = {
        "cosine_in": Measurement(unit="", value=learned),
        "cosine_out": _mean(by_layer[:, -1]),
    }
    facts = {
        "images": facts_of(images),
        "weights": found.facts,
        "measured_on": len(chosen),
        "by_layer": [learned, *by_layer.mean(axis=0).tolist()],
    }
    return metrics, facts, []


class Layers:
    """Listens to the layers of a network whose first two tokens are class and distillation."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 -- timm's transformers share no typed base
        self._model = model
        self._heard: list[torch.Tensor] = []
        for block in self._model.blocks:
            block.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._heard.append(cosine_similarity(output[:, 0].float(), output[:, 1].float(), dim=1))

    @torch.inference_mode()
    def cosines(self, images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Give the cosine after each layer for each of n images, shape (n, layers)."""
        self._heard.clear()
        self._model.forward_features(images)
        found: np.ndarray[Any, np.dtype[np.float32]] = torch.stack(self._heard, dim=1).cpu().numpy()
        return found


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> Measurement:
    """Give the mean with its 95 % interval over images."""
    middle = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Measurement(unit="", value=middle, low=middle - half, high=middle + half)
