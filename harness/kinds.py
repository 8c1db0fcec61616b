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
    "throughput": 1,
    "ceilings": 1,
    "evaluate": 1,
    "agreement": 1,
    "tokens": 1,
    "dataset": 1,
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

SETTINGS: Mapping[str, Setting] = {
    "model": _TEXT,
    "weights": _TEXT,
    "res": _COUNT,
    "protocol": Setting(types=(str,), choices=("paper", "modern")),
    "repeats": _COUNT,
    "precision": Setting(types=(str,), choices=("float32", "tf32", "bfloat16", "float16")),
    "batch": Setting(types=(int, str), choices=("auto", "largest")),
    "memory": _TEXT,
    "crop": _NUMBER,
    "interpolation": Setting(types=(str,), choices=("bicubic", "bilinear")),
    "norm": Setting(types=(str,), choices=("imagenet", "inception")),
    "data": _TEXT,
    "first": _TEXT,
    "second": _TEXT,
    "recipe": _TEXT,
    "epochs": _COUNT,
    "teacher": _TEXT,
    "distillation": Setting(types=(str,), choices=("none", "soft", "hard", "token")),
    "seed": _COUNT,
    "optimizer": _OPTIMIZER,
    "finetune_optimizer": _OPTIMIZER,
    "rand_augment": _FLAG,
    "auto_augment": _FLAG,
    "repeated_aug": _FLAG,
    "ema": _FLAG,
    "mixup": _NUMBER,
    "cutmix": _NUMBER,
    "erasing": _NUMBER,
    "drop_path": _NUMBER,
    "dropout": _NUMBER,
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


_ABLATIONS = (
    *("optimizer", "finetune_optimizer", "rand_augment", "auto_augment", "repeated_aug", "ema"),
    *("mixup", "cutmix", "erasing", "drop_path", "dropout"),
)

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
    "recipe": Kind(required=("recipe",)),
    "train": Kind(
        required=("model", "res", "recipe"),
        optional=("epochs", "teacher", "distillation", "data", "seed", *_ABLATIONS),
        metrics=("top1", "hours"),
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
