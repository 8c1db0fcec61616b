"""The kinds of job: which settings each takes and which metrics it gives.

A spec is checked against this list and a job is made from it, so neither needs to know how a kind is measured.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from harness.errors import HarnessError, did_you_mean

Scalar: TypeAlias = str | int | float | bool

REVISIONS = {
    # A corrected way of measuring raises its number, which retires the results of the old way (CHANGELOG.md lists why).
    "count": 1,
    "throughput": 2,
    "ceilings": 1,
    "evaluate": 1,
    "agreement": 1,
    "tokens": 1,
    "dataset": 1,
    "recipe": 1,
    "train": 1,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a job may be told under one name."""

    types: tuple[type, ...]
    choices: tuple[str, ...] = ()

    def accepts(self, value: object) -> bool:
        """A bool is not a number here, though Python says so."""
        if isinstance(value, bool):
            return bool in self.types
        if not isinstance(value, self.types):
            return False
        return not (self.choices and isinstance(value, str) and value not in self.choices)

    def expectation(self) -> str:
        """Say what would be accepted, for an error message."""
        if self.choices:
            words = [f"'{choice}'" for choice in self.choices]
            if int in self.types:
                words.append("an integer")
            return " or ".join(words)
        names = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
        if float in self.types:
            return names[float]
        return " or ".join(names[t] for t in self.types)


_TEXT = Setting(types=(str,))
_COUNT = Setting(types=(int,))
_NUMBER = Setting(types=(int, float))
_FLAG = Setting(types=(bool,))
_OPTIMIZER = Setting(types=(str,), choices=("adamw", "sgd"))
_PRECISION = Setting(types=(str,), choices=("float32", "tf32", "bfloat16", "float16"))
_INTERPOLATION = Setting(types=(str,), choices=("bicubic", "bilinear"))
_NORM = Setting(types=(str,), choices=("imagenet", "inception"))

# What a recipe says; each recipe says all of it, so that nothing is decided out of sight.
RECIPE: Mapping[str, Setting] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "optimizer": _OPTIMIZER,
    "learning_rate": _NUMBER,
    "lr_batch": _NUMBER,
    "momentum": _NUMBER,
    "weight_decay": _NUMBER,
    "schedule": Setting(types=(str,), choices=("cosine", "constant")),
    "warmup_epochs": _NUMBER,
    "warmup_lr": _NUMBER,
    "min_lr": _NUMBER,
    "gradient_clip": _NUMBER,
    "label_smoothing": _NUMBER,
    "init_std": _NUMBER,
    "dropout": _NUMBER,
    "drop_path": _NUMBER,
    "repeated_aug": _FLAG,
    "repeats_of_image": _COUNT,
    "rand_augment": _FLAG,
    "rand_augment_policy": _TEXT,
    "auto_augment": _FLAG,
    "auto_augment_policy": _TEXT,
    "color_jitter": _NUMBER,
    "crop_area": _NUMBER,
    "flip": _NUMBER,
    "mixup": _NUMBER,
    "cutmix": _NUMBER,
    "mix_probability": _NUMBER,
    "mix_switch": _NUMBER,
    "erasing": _NUMBER,
    "ema": _FLAG,
    "ema_decay": _NUMBER,
    "eval_mode": _FLAG,
    "distillation": Setting(types=(str,), choices=("none", "soft", "hard", "token")),
    "soft_weight": _NUMBER,
    "temperature": _NUMBER,
    "soft_scaling": Setting(types=(str,), choices=("paper", "released")),
    "precision": _PRECISION,
    "channels_last": _FLAG,
    "compile": _FLAG,
    "crop": _NUMBER,
    "interpolation": _INTERPOLATION,
    "norm": _NORM,
}

# The shape of a network where it is not its name's: what stands in for a large one at a small scale.
SHAPE: Mapping[str, Setting] = {"patch_size": _COUNT, "embed_dim": _COUNT, "depth": _COUNT, "num_heads": _COUNT}

SETTINGS: Mapping[str, Setting] = {
    **RECIPE,
    **SHAPE,
    "model": _TEXT,
    "weights": _TEXT,
    "res": _COUNT,
    "protocol": Setting(types=(str,), choices=("paper", "modern")),
    "repeats": _COUNT,
    "batch": Setting(types=(int, str), choices=("auto", "largest")),
    "memory": _TEXT,
    "data": _TEXT,
    "first": _TEXT,
    "second": _TEXT,
    "recipe": _TEXT,
    "teacher": _TEXT,
    "start": _TEXT,
    "seed": _COUNT,
    "finetune_optimizer": _OPTIMIZER,
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of job.

    `required` settings must be there, `defaults` fill in, `optional` ones may be left out.  `metrics` is empty where
    the names depend on the job.  An `exclusive` job measures speed and has the machine to itself.
    """

    required: tuple[str, ...]
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    exclusive: bool = False
    built: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """Every setting that this kind understands."""
        return (*self.required, *self.defaults, *self.optional)


# How an image becomes what a network sees, and in which arithmetic: the paper's way unless a spec says otherwise.
_SEEN_AS: Mapping[str, Scalar] = {"crop": 0.875, "interpolation": "bicubic", "norm": "imagenet", "precision": "float32"}

KINDS: Mapping[str, Kind] = {
    "count": Kind(
        required=("model", "res"),
        metrics=("params", "macs", "activations", "embed_dim", "heads", "layers", "tokens", "res"),
        built=True,
    ),
    "throughput": Kind(
        required=("model", "res"),
        defaults={"protocol": "paper", "repeats": 30, "batch": "auto"},
        optional=("memory",),
        metrics=("throughput", "batch", "energy"),
        exclusive=True,
        built=True,
    ),
    "ceilings": Kind(required=("precision",), metrics=("matmul", "copy"), exclusive=True, built=True),
    "evaluate": Kind(
        required=("model", "weights", "res", "data"),
        defaults=_SEEN_AS,
        metrics=(
            *("top1", "top5", "real"),
            *("top1_class", "top1_distil", "top1_softmax_sum", "top1_logit_mean"),
        ),
        built=True,
    ),
    "agreement": Kind(
        required=("first", "second", "data"),
        defaults={"res": 224, **_SEEN_AS},
        metrics=("disagreement",),
        built=True,
    ),
    "tokens": Kind(
        required=("model", "weights", "res", "data"),
        defaults=_SEEN_AS,
        metrics=("cosine_in", "cosine_out", "cosine_class"),
        built=True,
    ),
    "dataset": Kind(required=("data",), metrics=("train_images", "test_images", "classes"), built=True),
    "recipe": Kind(
        required=("recipe",),
        optional=("model", "res", *RECIPE),
        metrics=(
            *("epochs", "batch_size", "optimizer", "learning_rate", "lr_decay", "weight_decay", "warmup_epochs"),
            *("label_smoothing", "dropout", "stoch_depth", "repeated_aug", "gradient_clip", "rand_augment"),
            *("mixup", "cutmix", "erasing", "repetitions", "soft_weight", "temperature"),
        ),
        built=True,
    ),
    "train": Kind(
        required=("model", "res", "recipe"),
        optional=("data", "teacher", "start", "seed", "finetune_optimizer", *SHAPE, *RECIPE),
        metrics=("top1", "top1_class", "top1_distil", "top1_softmax_sum", "hours"),
        built=True,
    ),
}

# "By default" in the paper protocol the card is the paper's: one 16 GB V100 (section 5, table 5).
PROTOCOL_MEMORY = {"paper": "16GiB", "modern": "all"}

_MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_BYTES = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_memory(text: str) -> int | None:
    """Bytes of `"16GiB"` or `"16GB"`; None for `"all"`, which sets no cap.

    Raises `HarnessError` for anything else.
    """
    if text == "all":
        return None
    found = _MEMORY.fullmatch(text.strip())
    if found is None or float(found["number"]) == 0:
        raise HarnessError(f"memory '{text}' is not an amount; write it as 16GiB, 16GB or all")
    base = 1024 if "i" in found["unit"].lower() else 1000
    return int(float(found["number"]) * base ** _BYTES[found["unit"][0].lower()])


def kind_named(name: str) -> Kind:
    """Find the kind of that name, or raise `HarnessError` with the nearest one."""
    if name not in KINDS:
        raise HarnessError(f"unknown kind of job '{name}'{did_you_mean(name, KINDS)}")
    return KINDS[name]
