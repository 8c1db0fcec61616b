"""One evaluation pass for all models against a pass for each, written the usual way with timm.

`python -m benchmarks.evaluation_pass` prints the ratios, interleaved in one process, and what the
one pass spends its time on.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_dataset, create_loader
from timm.models import register_model
from torch import nn

from harness.jobs.evaluate import evaluate
from harness.jobs.evaluate.evaluate import EvaluationOutcome
from harness.machine import describe
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs

WORKERS = 2
BATCH = 64

# Sizes as they are common in ImageNet's validation set.
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480))

ONE_VIEW = ((224, 0.875),) * 8
FOUR_VIEWS = ((224, 0.875), (224, 0.9), (288, 0.95), (384, 1.0)) * 2


class Featherweight(nn.Module):
    """Patch embedding and a linear head: negligible next to reading an image, as real models are on a GPU."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 32, 32)
        self.head = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return one row of class scores per image."""
        scores: torch.Tensor = self.head(self.patches(images).mean(dim=(2, 3)))
        return scores


@register_model
def featherweight(pretrained: bool = False, num_classes: int = 1000, **_options: object) -> nn.Module:  # noqa: ARG001, FBT001, FBT002 -- as timm calls it
    return Featherweight(num_classes)


def photographs(folder: Path, *, count: int, classes: int = 50, sizes: Sequence[tuple[int, int]] = SIZES) -> Path:
    """Write JPEG files of the sizes and bytes that images of ImageNet have (about 110 kB), a folder per class."""
    draw = np.random.default_rng(0)
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        pixels = np.zeros((height, width, 3))
        for coarse in (64, 16, 4, 1):  # detail at every scale, as in a photograph
            rough = draw.integers(0, 256, (height // coarse + 2, width // coarse + 2, 3)).astype(np.uint8)
            pixels += np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)) / 4
        name = ImageNetInfo().label_names()[number % classes]
        path = folder / name / f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)
    return folder


@dataclass(frozen=True)
class Comparison:
    """Seconds of the separate passes over those of the one pass, each round; `spent` are those of its parts."""

    ratios: list[float]
    spent: dict[str, float]
    wall: float
    images: int

    @property
    def median(self) -> float:
        """The middle ratio."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the median."""
        draw = random.Random(0)
        medians = sorted(statistics.median(draw.choices(self.ratios, k=len(self.ratios))) for _ in range(2000))
        return medians[50], medians[1949]


def separate(folder: Path, weights: Path, models: Sequence[tuple[str, int, float]]) -> None:
    """Evaluate one model after the other: timm's dataset, transform and loader."""
    classes = {name: index for index, name in enumerate(ImageNetInfo().label_names())}
    for name, res, crop in models:
        dataset = create_dataset("", root=str(folder), class_map=classes)
        loader = create_loader(
            dataset,
            input_size=(3, res, res),
            batch_size=BATCH,
            is_training=False,
            use_prefetcher=False,
            interpolation="bicubic",
            crop_pct=crop,
            num_workers=WORKERS,
            persistent_workers=False,
        )
        model = timm.create_model(name).eval()
        path = weights / f"{name}.safetensors"
        timm.models.load_checkpoint(model, str(path))
        hits = 0
        with torch.inference_mode():
            for images, labels in loader:
                hits += int((model(images).argmax(dim=1) == labels).sum())


def together(folder: Path, weights: Path, models: Sequence[tuple[str, int, float]], runs: Path) -> EvaluationOutcome:
    """Evaluate them in one pass of ours, from scratch."""
    jobs = [
        Job.of(
            "evaluate",
            {
                "model": name,
                # The tag only tells the jobs apart: the same file serves all of them.
                "weights": f"copy{number}",
                "res": res,
                "crop": crop,
                "data": "imagenet",
                "interpolation": "bicubic",
                "norm": "imagenet",
                "precision": "float32",
            },
        )
        for number, (name, res, crop) in enumerate(models)
    ]
    inputs = Inputs(data={"imagenet": str(folder)}, weights=weights, workers=WORKERS)
    batch = Batch(jobs=tuple(jobs), device="cpu", machine=describe("cpu"), software={}, runs=runs, inputs=inputs)
    outcomes = [outcome for _, outcome in evaluate.evaluate_batch(batch, lambda _progress: None)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if failed:
        raise RuntimeError(failed[0])
    return next(outcome for outcome in outcomes if isinstance(outcome, EvaluationOutcome))


def compare(folder: Path, weights: Path, models: Sequence[tuple[str, int, float]], *, rounds: int) -> Comparison:
    """Time both by turns; the first turn of each is not counted."""
    ratios: list[float] = []
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory() as runs:
            start = time.perf_counter()
            outcome = together(folder, weights, models, Path(runs))
            middle = time.perf_counter()
        between = time.perf_counter()
        separate(folder, weights, models)
        if turn:
            ratios.append((time.perf_counter() - between) / (middle - start))
    facts = outcome.facts["pass"]
    return Comparison(ratios=ratios, spent=facts["seconds"], wall=facts["wall"], images=facts["images_read"])


def decode_limit(folder: Path) -> float:
    """Return the images a second that decoding alone allows, with so many processes."""
    paths = sorted(folder.rglob("*.JPEG"))
    torch.set_num_threads(1)
    start = time.perf_counter()
    for path in paths:
        Image.open(path).convert("RGB")
    torch.set_num_threads(WORKERS)
    return WORKERS * len(paths) / (time.perf_counter() - start)


def featherweights(folder: Path, views: Sequence[tuple[int, float]]) -> list[tuple[str, int, float]]:
    """Write the weights of the models that cost nothing, and list them at these sizes and crops."""
    torch.manual_seed(0)
    save_file(Featherweight().state_dict(), folder / "featherweight.safetensors")
    return [("featherweight", res, crop) for res, crop in views]


def real(folder: Path) -> list[tuple[str, int, float]]:
    """Write random weights of real models, and list them."""
    names = ("deit_tiny_patch16_224", "resnet18", "deit_tiny_distilled_patch16_224")
    for name in names:
        save_file(timm.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return [(name, 224, 0.875) for name in names]


def main() -> None:
    """Print the table that docs/results.md shows."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        many, few = photographs(root / "many", count=384), photographs(root / "few", count=96)
        limit = decode_limit(many)
        print("| models | separate passes / one pass | 95 % interval |\n|---|--:|--:|")
        cases = (
            ("8 featherweights, one preprocessing", many, featherweights(root, ONE_VIEW), 7),
            ("8 featherweights, four preprocessings", many, featherweights(root, FOUR_VIEWS), 7),
            ("DeiT-Ti, ResNet-18, DeiT-Ti⚗ on the CPU", few, real(root), 5),
        )
        comparisons = []
        for label, folder, models, rounds in cases:
            comparison = compare(folder, root, models, rounds=rounds)
            low, high = comparison.interval
            print(f"| {label} | {comparison.median:.2f} | [{low:.2f}, {high:.2f}] |", flush=True)
            comparisons.append((label, comparison))
        for label, comparison in comparisons:
            rate = comparison.images / comparison.wall
            spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in comparison.spent.items())
            print(f"\n{label}: {comparison.images} images in {comparison.wall:.2f} s, {rate:.0f} im/s,")
            print(
                f"{100 * rate / limit:.0f} % of what decoding alone allows "
                f"({limit:.0f} im/s with {WORKERS} processes); {spent}"
            )


if __name__ == "__main__":
    main()
