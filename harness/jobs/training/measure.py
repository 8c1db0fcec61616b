"""A network and the test images -> its accuracy, all processes together."""

from collections.abc import Sequence
from typing import Any

import torch

from harness.jobs.images import Images
from harness.jobs.loading import loader
from harness.jobs.preprocess import View, normalised
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.networks import Student, heads
from harness.jobs.training.world import World

TOGETHER = 128


@torch.inference_mode()
def accuracies(  # noqa: PLR0913 -- what an evaluation needs
    student: Student, images: Images, hyper: Hyperparameters, world: World, *, device: str, workers: int
) -> dict[str, float]:
    """Give top-1 in percent of each head, and of the sum of their softmax outputs where there are two.

    In float32, each image once, whatever the number of processes; an image that cannot be read counts as wrong.
    """
    training, view = student.training, View(res=hyper.res, crop=hyper.crop, interpolation=hyper.interpolation)
    student.eval()
    mine = range(world.rank, len(images), world.size)
    batches = [list(mine[i : i + TOGETHER]) for i in range(0, len(mine), TOGETHER)]
    right = torch.zeros(3, dtype=torch.float64, device=device)
    labels = torch.from_numpy(images.labels).long()
    for loaded in loader(images, [view], batches, workers=workers, pin=device != "cpu"):
        shown = normalised(loaded.pixels[0].to(device, non_blocking=True), hyper.norm)
        said = heads(student(shown))
        target = labels[loaded.positions].to(device)
        readable = torch.tensor([place not in loaded.broken for place in loaded.positions], device=device)
        fused = said.label if said.distil is None else said.label.softmax(1) + said.distil.softmax(1)
        for number, scores in enumerate((fused, said.label, said.distil)):
            if scores is not None:
                right[number] += ((scores.argmax(dim=1) == target) & readable).sum()
    student.train(training)
    shares = (100 * world.summed(right) / len(images)).tolist()
    names: Sequence[str] = ("top1", "top1_class", "top1_distil") if student.distilled else ("top1",)
    found: dict[str, Any] = dict(zip(names, shares, strict=False))
    return found
