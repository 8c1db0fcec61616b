"""The work that is disturbed: a few seconds each of counts, throughputs, an evaluation with shards and a training."""

import random
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

MODELS = ("test_vit", "test_efficientnet")

SPEC = """
[table]
title = "Two tiny models"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
[column.speed]
label = "throughput"
job = "throughput"
metric = "throughput"
unit = "im/s"
set = { batch = 2, repeats = 2 }
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "% top-1"
set = { data = "imagenet" }
[row.vit]
label = "ViT"
set = { model = "test_vit", weights = "r160_in1k", res = 32 }
[row.efficientnet]
label = "EfficientNet"
set = { model = "test_efficientnet", weights = "r160_in1k", res = 32 }
"""

TRAINED = """
[table]
title = "A small training"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
unit = "% top-1"
set = { data = "digits", recipe = "small.toml", res = 32 }
[row.tiny]
label = "Tiny"
set = { model = "deit_tiny_patch16_224", depth = 1, embed_dim = 32, num_heads = 2, patch_size = 8 }
"""

RECIPE = """
[recipe]
title = "three epochs of five steps"
like = "deit-b"
[set]
epochs = 3
batch_size = 256
rand_augment = false
warmup_epochs = 0
precision = "float32"
ema = true
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Jobs that one command does; `loads` says whether they have a process that reads images."""

    name: str
    spec: str
    options: tuple[str, ...]
    loads: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        return ("reproduce", self.spec, "--device", "cpu", *self.options)


# Those first that have most to lose.
WORKS = (
    Work(
        name="training",
        spec="training.toml",
        options=("--only", "train", "--train", "--yes", "--workers", "1"),
        loads=True,
    ),
    Work(
        name="evaluation",
        spec="models.toml",
        options=("--only", "evaluate", "--data", "imagenet=images", "--weights", "weights", "--workers", "1"),
        loads=True,
    ),
    Work(name="throughputs", spec="models.toml", options=("--only", "throughput")),
    Work(name="counts", spec="models.toml", options=("--only", "count")),
)


def make_inputs(folder: Path) -> None:
    """Write specs, a recipe, weights and images: 300 of them, so that an evaluation has three shards."""
    for name, text in {"models.toml": SPEC, "training.toml": TRAINED, "small.toml": RECIPE}.items():
        (folder / name).write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    (folder / "weights").mkdir()
    for model in MODELS:
        save_file(timm.create_model(model).state_dict(), folder / "weights" / f"{model}.r160_in1k.safetensors")
    draw = random.Random(0)
    for synset in ("n01440764", "n01443537", "n01484850"):
        images = folder / "images" / "val" / synset
        images.mkdir(parents=True)
        for number in range(100):
            Image.frombytes("RGB", (8, 8), draw.randbytes(192)).resize((40, 40)).save(images / f"{number:03d}.JPEG")
