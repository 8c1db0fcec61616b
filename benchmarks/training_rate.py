"""The trainer's im/s against the loop a person would write: same network, batch, loader and flags, by turns.

    python -m benchmarks.training_rate [--pairs 20]

The person's loop has a network of its own and timm's parts, and does nothing but learn: no checkpoint, no log, no
accuracy, no look at the loss.  Both read with the same loader in the same process.  Prints a table for the README.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.loss import SoftTargetCrossEntropy

from benchmarks.bare_loop import Ratio, by_turns
from harness.job import Job
from harness.jobs.images import open_images
from harness.jobs.training.assembly import Place, assembled
from harness.jobs.training.data import Epoch, batches_of, erasing_of, mixing_of, transform_of
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.networks import student_of
from harness.jobs.training.optimization import optimizer_of
from harness.jobs.training.watch import Watch
from harness.jobs.training.world import World
from harness.kinds import Scalar
from harness.machine import describe
from harness.progress import Progress
from harness.recipe import Recipes
from harness.stages import Stages

# The proxy's own DeiT, and one of DeiT-Ti's size, on the digits at 32 x 32.
SIZES: dict[str, dict[str, Scalar]] = {
    "the proxy's DeiT": {},
    "DeiT-Ti's size": {"depth": 12, "embed_dim": 192, "num_heads": 3},
}
EPOCHS_A_TURN = 1


def job_of(changes: dict[str, Scalar]) -> Job:
    """Make the proxy's training of DeiT-B's recipe, with another network where that is wanted."""
    recipes = Recipes()
    job = Stages(recipes=recipes, scale=recipes.scale("proxy")).training({"recipe": "deit-b"}, 1)
    return Job.of(job.kind, {**dict(job.settings), **changes}, dict(job.needs))


def harness_loop(job: Job, runs: Path) -> Callable[[int], float]:
    """Make the trainer's loop: images a second over so many epochs' steps."""
    images, tests = (open_images("digits", "sklearn/digits", split=split) for split in ("train", "test"))
    said: list[Progress] = []
    place = Place(device="cpu", workers=0, cores=describe("cpu").threads, weights=None, runs=runs)
    training = assembled(job, images, tests, place=place, world=World(), report=said.append, asked=lambda: False)

    def loop(epochs: int) -> float:
        seen, start = 0, time.perf_counter()
        for number in range(epochs):
            epoch = Epoch.of(training.hyper, len(images), training.world, number)
            training.standing.step, training.standing.counted = 0, {}
            training.steps(epoch, Watch(world=training.world, every=1, counted=training.standing.counted))
            seen += len(epoch.batches) * training.hyper.batch_size
        return seen / (time.perf_counter() - start)

    return loop


def bare_loop(job: Job, runs: Path) -> Callable[[int], float]:
    """Make the person's loop."""
    hyper, images = Hyperparameters.of(job), open_images("digits", "sklearn/digits", split="train")
    network = student_of(job, classes=images.classes, folder=None, runs=runs).train()
    optimizer, criterion = optimizer_of(hyper, network), SoftTargetCrossEntropy()
    mixing, erasing = mixing_of(hyper, images.classes), erasing_of(hyper, "cpu")
    assert mixing
    assert erasing
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

    def loop(epochs: int) -> float:
        seen, start = 0, time.perf_counter()
        for number in range(epochs):
            epoch = Epoch.of(hyper, len(images), World(), number)
            loader = batches_of(images, transform_of(hyper), epoch, seed=hyper.seed, first=0, workers=0, pin=False)
            for pixels, labels in loader:
                inputs, targets = mixing(erasing((pixels.float() - mean) / std), labels)
                optimizer.zero_grad()
                criterion(network(inputs), targets).backward()
                optimizer.step()
                seen += len(labels)
        return seen / (time.perf_counter() - start)

    return loop


def compare(changes: dict[str, Scalar], pairs: int, runs: Path) -> Ratio:
    """Measure by turns, and give the ratio trainer / bare loop."""
    job = job_of(changes)
    ours, theirs = harness_loop(job, runs), bare_loop(job, runs)
    ours(1)
    theirs(1)
    return by_turns(ours, theirs, pairs, EPOCHS_A_TURN)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    print(f"| training, batch 64 | harness / bare loop, median of {pairs} pairs | 95 % interval |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as runs:
        for name, changes in SIZES.items():
            ratio = compare(changes, pairs, Path(runs))
            print(f"| {name} | {ratio.median:.4f} | [{ratio.low:.4f}, {ratio.high:.4f}] |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
