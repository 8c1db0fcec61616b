"""A student and the test images -> its accuracy, all processes together."""

from collections.abc import Sequence

import torch

from harness.jobs.data.images import Images
from harness.jobs.data.loading import load_batches
from harness.jobs.data.preprocess import Preprocessing, normalise
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.student import Student, head_logits

BATCH_SIZE = 128


@torch.inference_mode()
def measure_accuracies(  # noqa: PLR0913 -- what an evaluation needs
    student: Student, images: Images, hyper: Hyperparameters, world: World, *, device: str, workers: int
) -> dict[str, float]:
    """Return top-1 in percent of each head, and of the sum of their softmax outputs where there are two.

    In float32, each image once, whatever the number of processes; an image that cannot be read counts as wrong.
    """
    training = student.training
    view = Preprocessing(res=hyper.res, crop=hyper.crop, interpolation=hyper.interpolation)
    student.eval()
    positions = range(world.rank, len(images), world.size)
    batches = [list(positions[i : i + BATCH_SIZE]) for i in range(0, len(positions), BATCH_SIZE)]
    correct = torch.zeros(3, dtype=torch.float64, device=device)
    labels = torch.from_numpy(images.labels).long()
    for batch in load_batches(images, [view], batches, workers=workers, pin=device != "cpu"):
        logits = head_logits(student(normalise(batch.pixels[0].to(device, non_blocking=True), hyper.norm)))
        targets = labels[batch.positions].to(device)
        readable = torch.tensor([position not in batch.unreadable for position in batch.positions], device=device)
        both = logits.label if logits.distil is None else logits.label.softmax(1) + logits.distil.softmax(1)
        for number, scores in enumerate((both, logits.label, logits.distil)):
            if scores is not None:
                correct[number] += ((scores.argmax(dim=1) == targets) & readable).sum()
    student.train(training)
    percentages = (100 * world.sum(correct) / len(images)).tolist()
    names: Sequence[str] = ("top1", "top1_class", "top1_distil") if student.distilled else ("top1",)
    return dict(zip(names, percentages, strict=False))
