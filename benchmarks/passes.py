"""One pass over the images for all networks against a pass for each, written the usual way with timm.

`python -m benchmarks.passes` prints the ratios, interleaved in one process, and where the time of the one pass goes.
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

from harness.job import Job
from harness.jobs import evaluate
from harness.jobs.evaluate import Evaluated, Site
from harness.progress import Inputs

WORKERS = 2
BATCH = 64

# Sizes as they are common in ImageNet's validation set.
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480))

ONE_VIEW = ((224, 0.875),) * 8
FOUR_VIEWS = ((224, 0.875), (224, 0.9), (288, 0.95), (384, 1.0)) * 2


class Featherweight(nn.Module):
    """Patch embedding and a linear head: next to nothing beside reading an image, as real networks are on a GPU."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 32, 32)
        self.head = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give one row of class scores an image."""
        found: torch.Tensor = self.head(self.patches(images).mean(dim=(2, 3)))
        return found


@register_model
def featherweight(pretrained: bool = False, num_classes: int = 1000, **_told: object) -> nn.Module:  # noqa: ARG001, FBT001, FBT002 -- as timm calls it
    return Featherweight(num_classes)


def photographs(folder: Path, *, count: int, classes: int = 50, sizes: Sequence[tuple[int, int]] = SIZES) -> Path:
    """Write JPEG files of the sizes and bytes that images of ImageNet have (about 110 kB), a folder a class."""
    draw = np.random.default_rng(0)
    for place in range(count):
        width, height = sizes[place % len(sizes)]
        pixels = np.zeros((height, width, 3))
        for coarse in (64, 16, 4, 1):  # detail at every scale, as in a photograph
            rough = draw.integers(0, 256, (height // coarse + 2, width // coarse + 2, 3)).astype(np.uint8)
            pixels += np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)) / 4
        name = ImageNetInfo().label_names()[place % classes]
        path = folder / name / f"ILSVRC2012_val_{place + 1:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)
    return folder


@dataclass(frozen=True)
class Compared:
    """Seconds of the separate passes over those of the one pass, each round; and where the one pass's time went."""

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
        found = sorted(statistics.median(draw.choices(self.ratios, k=len(self.ratios))) for _ in range(2000))
        return found[50], found[1949]


def separate(folder: Path, weights: Path, networks: Sequence[tuple[str, int, float]]) -> None:
    """Evaluate one network after the other: timm's data set, transform and loader."""
    classes = {name: place for place, name in enumerate(ImageNetInfo().label_names())}
    for name, res, crop in networks:
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


def together(folder: Path, weights: Path, networks: Sequence[tuple[str, int, float]], runs: Path) -> Evaluated:
    """Evaluate them in one pass of ours, from nothing."""
    jobs = [
        Job.of(
            "evaluate",
            {
                "model": name,
                # The tag only tells the jobs apart: the same file serves all of them.
                "weights": f"copy{place}",
                "res": res,
                "crop": crop,
                "data": "imagenet",
                "interpolation": "bicubic",
                "norm": "imagenet",
                "precision": "float32",
            },
        )
        for place, (name, res, crop) in enumerate(networks)
    ]
    inputs = Inputs(data={"imagenet": str(folder)}, weights=weights, workers=WORKERS)
    site = Site(devices=("cpu",), memory=8 * 2**30, runs=runs)
    found = [outcome for _, outcome in evaluate.work(jobs, inputs, site, lambda _progress: None)]
    failed = [outcome for outcome in found if isinstance(outcome, str)]
    if failed:
        raise RuntimeError(failed[0])
    return next(outcome for outcome in found if isinstance(outcome, Evaluated))


def compare(folder: Path, weights: Path, networks: Sequence[tuple[str, int, float]], *, rounds: int) -> Compared:
    """Time both ways in turns; the first turn of each is not counted."""
    ratios: list[float] = []
    for turn in range(rounds + 1):
        with tempfile.TemporaryDirectory() as runs:
            start = time.perf_counter()
            one = together(folder, weights, networks, Path(runs))
            middle = time.perf_counter()
        between = time.perf_counter()
        separate(folder, weights, networks)
        if turn:
            ratios.append((time.perf_counter() - between) / (middle - start))
    told = one.facts["pass"]
    return Compared(ratios=ratios, spent=told["seconds"], wall=told["wall"], images=told["images_read"])


def decode_limit(folder: Path) -> float:
    """Give the images a second that decoding alone allows, with so many processes."""
    paths = sorted(folder.rglob("*.JPEG"))
    torch.set_num_threads(1)
    start = time.perf_counter()
    for path in paths:
        Image.open(path).convert("RGB")
    torch.set_num_threads(WORKERS)
    return WORKERS * len(paths) / (time.perf_counter() - start)


def featherweights(folder: Path, views: Sequence[tuple[int, float]]) -> list[tuple[str, int, float]]:
    """Write the weights of the networks that cost nothing, and list them at these sizes and crops."""
    torch.manual_seed(0)
    save_file(Featherweight().state_dict(), folder / "featherweight.safetensors")
    return [("featherweight", res, crop) for res, crop in views]


def real(folder: Path) -> list[tuple[str, int, float]]:
    """Write random weights of real networks, and list them."""
    names = ("deit_tiny_patch16_224", "resnet18", "deit_tiny_distilled_patch16_224")
    for name in names:
        save_file(timm.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return [(name, 224, 0.875) for name in names]


def main() -> None:
    """Print the table that the README shows."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        many, few = photographs(root / "many", count=384), photographs(root / "few", count=96)
        limit = decode_limit(many)
        print("| networks | separate passes / one pass | 95 % interval |\n|---|--:|--:|")
        cases = (
            ("8 featherweights, one preprocessing", many, featherweights(root, ONE_VIEW), 7),
            ("8 featherweights, four preprocessings", many, featherweights(root, FOUR_VIEWS), 7),
            ("DeiT-Ti, ResNet-18, DeiT-Ti⚗ on the CPU", few, real(root), 5),
        )
        told = []
        for label, folder, networks, rounds in cases:
            found = compare(folder, root, networks, rounds=rounds)
            low, high = found.interval
            print(f"| {label} | {found.median:.2f} | [{low:.2f}, {high:.2f}] |", flush=True)
            told.append((label, found))
        for label, found in told:
            rate = found.images / found.wall
            spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.spent.items())
            print(
                f"\n{label}: {found.images} images in {found.wall:.2f} s, {rate:.0f} im/s, {rate / limit:.0%} of what"
            )
            print(f"decoding alone allows ({limit:.0f} im/s with {WORKERS} processes); {spent}")


if __name__ == "__main__":
    main()
