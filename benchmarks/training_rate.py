"""The trainer's im/s against the loop a person would write: same model, batch, loader and flags, by turns.

    python -m benchmarks.training_rate [--pairs 20]

The person's loop has a model of its own and timm's parts, and does nothing but learn: no checkpoint, no log, no
accuracy, no check of the loss.  Both read with the same loader in the same process.  Prints a table for
docs/results.md.
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
from harness.jobs.data.open import open_images
from harness.jobs.training.data import Epoch, build_erasing, build_mixing, build_transform, read_batches
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.monitoring import DivergenceMonitor
from harness.jobs.training.optimization import build_optimizer
from harness.jobs.training.run import ProcessContext, assemble_trainer
from harness.jobs.training.student import build_student
from harness.machine import describe
from harness.plan.job import Job
from harness.plan.stages import TrainingStages
from harness.run.messages import Inputs, Progress
from harness.specs.checked import Scalar
from harness.specs.recipe import Recipes

# The proxy's own DeiT, and one of DeiT-Ti's size, on the digits at 32 x 32.
SIZES: dict[str, dict[str, Scalar]] = {
    "the proxy's DeiT": {},
    "DeiT-Ti's size": {"depth": 12, "embed_dim": 192, "num_heads": 3},
}
EPOCHS_PER_TURN = 1


def make_job(changes: dict[str, Scalar]) -> Job:
    """Return the proxy's training of DeiT-B's recipe, with changes of the model."""
    recipes = Recipes()
    job = TrainingStages(recipes=recipes, scale=recipes.scale("proxy")).training({"recipe": "deit-b"}, 1)
    return Job.of(job.kind, {**dict(job.settings), **changes}, dict(job.needs))


def harness_loop(job: Job, runs: Path) -> Callable[[int], float]:
    """Return the trainer's loop: images a second over so many epochs' steps."""
    images, tests = (open_images("digits", "sklearn/digits", split=split) for split in ("train", "test"))
    reports: list[Progress] = []
    context = ProcessContext(device="cpu", cores=describe("cpu").threads, inputs=Inputs(), runs=runs)
    trainer = assemble_trainer(
        job, images, tests, context=context, world=World(), report=reports.append, stop_requested=lambda: False
    )

    def loop(epochs: int) -> float:
        count, start = 0, time.perf_counter()
        for number in range(epochs):
            epoch = Epoch.of(trainer.hyper, len(images), trainer.world, number)
            trainer.state.step, trainer.state.counted = 0, {}
            trainer.run_steps(epoch, DivergenceMonitor(world=trainer.world, interval=1, counted=trainer.state.counted))
            count += len(epoch.batches) * trainer.hyper.batch_size
        return count / (time.perf_counter() - start)

    return loop


def bare_loop(job: Job, runs: Path) -> Callable[[int], float]:
    """Return the person's loop."""
    hyper, images = Hyperparameters.of(job), open_images("digits", "sklearn/digits", split="train")
    model = build_student(job, classes=images.classes, folder=None, runs=runs).train()
    optimizer, criterion = build_optimizer(hyper, model), SoftTargetCrossEntropy()
    mixing, erasing = build_mixing(hyper, images.classes), build_erasing(hyper, "cpu")
    assert mixing
    assert erasing
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

    def loop(epochs: int) -> float:
        count, start = 0, time.perf_counter()
        for number in range(epochs):
            epoch = Epoch.of(hyper, len(images), World(), number)
            loader = read_batches(images, build_transform(hyper), epoch, seed=hyper.seed, first=0, workers=0, pin=False)
            for pixels, labels in loader:
                inputs, targets = mixing(erasing((pixels.float() - mean) / std), labels)
                optimizer.zero_grad()
                criterion(model(inputs), targets).backward()
                optimizer.step()
                count += len(labels)
        return count / (time.perf_counter() - start)

    return loop


def compare(changes: dict[str, Scalar], pairs: int, runs: Path) -> Ratio:
    """Measure by turns, and return the ratio trainer / bare loop."""
    job = make_job(changes)
    ours, theirs = harness_loop(job, runs), bare_loop(job, runs)
    ours(1)
    theirs(1)
    return by_turns(ours, theirs, pairs, EPOCHS_PER_TURN)


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
