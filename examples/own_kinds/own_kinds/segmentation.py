"""How well a model segments noisy squares: mean intersection over union of the classes, on images drawn from a seed."""

import torch

from harness.jobs import Job, JobError, Measurement, Outcome, Progress, Report, models
from own_kinds.models import COLOURS


def measure(job: Job, report: Report) -> Outcome:
    """Segment every image and compare with what was drawn."""
    model, classes = models.build_initialised(str(job["model"]), int(job["res"])), len(COLOURS)
    generator = torch.Generator().manual_seed(int(job["seed"]))
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    for number in range(int(job["images"])):
        report(Progress(job=job, phase="segmenting", done=number, total=int(job["images"])))
        image, labels = draw(int(job["res"]), float(job["noise"]), generator)
        with torch.inference_mode():
            scores = model(image[None])
        if scores.shape[1:] != (classes, *labels.shape):
            raise JobError(f"'{job['model']}' returns {tuple(scores.shape)} for one image, not a score for each pixel")
        pairs = labels.flatten() * classes + scores[0].argmax(dim=0).flatten()
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    metrics = {
        "miou": Measurement(unit="%", value=100 * mean_iou(confusion)),
        "pixel_accuracy": Measurement(unit="%", value=100 * float(confusion.diagonal().sum() / confusion.sum())),
    }
    return metrics, {"confusion": confusion.tolist()}, []


def draw(res: int, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image of shape (3, res, res), a square of each class on the background, and the class of each pixel."""
    labels = torch.zeros(res, res, dtype=torch.long)
    for label in range(1, len(COLOURS)):
        top, left = torch.randint(0, res - res // 4, (2,), generator=generator).tolist()
        labels[top : top + res // 4, left : left + res // 4] = label
    image = COLOURS[labels].permute(2, 0, 1)
    return image + noise * torch.randn(image.shape, generator=generator), labels


def mean_iou(confusion: torch.Tensor) -> float:
    """Return the mean over classes of what is of the class in both, divided by what is in either; rows are truth."""
    both = confusion.diagonal()
    either = confusion.sum(dim=0) + confusion.sum(dim=1) - both
    return float((both[either > 0] / either[either > 0]).mean())
