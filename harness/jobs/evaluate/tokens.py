"""A distilled model and images -> the cosine of its class and distillation tokens, layer by layer."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from harness.errors import JobError
from harness.jobs import Outcome, own_device, weights
from harness.jobs.data.images import image_facts
from harness.jobs.data.loading import LIMITS, load_batches
from harness.jobs.data.open import open_images
from harness.jobs.data.preprocess import Preprocessing, normalise
from harness.jobs.evaluate.evaluation_pass import BATCH_SIZE
from harness.plan.job import Job
from harness.run.messages import Inputs, Progress, Report
from harness.store.result import Measurement

# Evenly spread.  All 50,000 would cost a pass and change no published digit; the interval states the uncertainty.
MAX_IMAGES = 1000


def measure_token_cosines(job: Job, inputs: Inputs, report: Report, *, device: str) -> Outcome:
    """Measure the cosine of the two tokens (section 5.2 of the paper: 0.06 at the input, 0.93 at the last layer).

    `cosine_in` is that of the two learned embeddings, before positions are added: it does not depend on an image.
    After each layer it is the mean over images.  Raises `JobError` for a model without the two tokens.
    """
    own_device.use(device)
    name, data, res = str(job["model"]), str(job["data"]), int(job["res"])
    images = open_images(data, inputs.where(data))
    file = weights.find_weights(name, str(job["weights"]), inputs.weights)
    model: Any = weights.load_model(name, res=res, classes=images.classes, file=file)
    if not isinstance(getattr(model, "dist_token", None), torch.Tensor) or not hasattr(model, "blocks"):
        raise JobError(f"'{name}' has no distillation token")
    model.to(device)
    cosines: list[torch.Tensor] = []

    def collect(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        cosines.append(cosine_similarity(output[:, 0].float(), output[:, 1].float(), dim=1))

    for block in model.blocks:
        block.register_forward_hook(collect)
    sample = np.unique(np.linspace(0, len(images) - 1, min(MAX_IMAGES, len(images))).astype(int)).tolist()
    size = BATCH_SIZE[device.partition(":")[0]]
    batches = [sample[start : start + size] for start in range(0, len(sample), size)]
    rows, done = [], 0
    for batch in load_batches(images, [Preprocessing.of(job)], batches, workers=inputs.workers, pin=device != "cpu"):
        if batch.unreadable:
            raise JobError(next(iter(batch.unreadable.values())))
        with torch.inference_mode():
            model.forward_features(normalise(batch.pixels[0].to(device), str(job["norm"])))
        rows.append(torch.stack(cosines, dim=1).cpu().numpy())
        cosines.clear()
        done += len(batch.positions)
        report(Progress(job=job, phase="comparing tokens", done=done, total=len(sample)))
    by_layer = np.concatenate(rows).astype(np.float64)
    class_token, dist_token = (token.detach().flatten().float() for token in (model.cls_token, model.dist_token))
    learned = float(cosine_similarity(class_token, dist_token, dim=0))
    metrics = {"cosine_in": Measurement(unit="", value=learned), "cosine_out": _mean(by_layer[:, -1])}
    facts = {
        "images": image_facts(images),
        "weights": file.facts,
        "measured_on": len(sample),
        "by_layer": [learned, *by_layer.mean(axis=0).tolist()],
    }
    return metrics, facts, [*file.warnings, *LIMITS]


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> Measurement:
    """Return the mean with its 95 % interval over images."""
    mean = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Measurement(unit="", value=mean, low=mean - half, high=mean + half)
