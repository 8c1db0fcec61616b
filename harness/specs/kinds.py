"""The kinds of job: which settings each takes and which metrics it gives.

A spec is checked against this list and a job is made from it, so neither needs to know how a kind is measured.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import HarnessError, abridged
from harness.specs.checked import TEXT, Constraint, Scalar

# An amount of memory above 0, or `all`.
_MEMORY = re.compile(
    r"(?-i:all)|\s*(?=.*[1-9])(?P<number>\d{1,12}(?:\.\d{1,12})?)\s*(?P<unit>[KMGT]i?B)\s*", re.IGNORECASE
)
_BYTES = {"k": 1, "m": 2, "g": 3, "t": 4}

_COUNT = Constraint(types=(int,), least=1)
_NUMBER = Constraint(types=(float,), least=0)
_SHARE = Constraint(types=(float,), least=0, most=1)
_FLAG = Constraint(types=(bool,))
_OPTIMIZER = Constraint(types=(str,), choices=("adamw", "sgd"))
_PRECISION = Constraint(types=(str,), choices=("float32", "tf32", "bfloat16", "float16"))
_INTERPOLATION = Constraint(types=(str,), choices=("bicubic", "bilinear"))
_NORM = Constraint(types=(str,), choices=("imagenet", "inception"))

# The settings of a recipe; each recipe has all of them, so that nothing is decided out of sight.
RECIPE: Mapping[str, Constraint] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "optimizer": _OPTIMIZER,
    "learning_rate": Constraint(types=(float,), above=0),
    "lr_batch": _NUMBER,
    "momentum": _NUMBER,
    "weight_decay": _NUMBER,
    "schedule": Constraint(types=(str,), choices=("cosine", "constant")),
    "schedule_step": Constraint(types=(str,), choices=("after", "before")),
    "warmup_epochs": _NUMBER,
    "warmup_lr": _NUMBER,
    "min_lr": _NUMBER,
    "gradient_clip": _NUMBER,
    "label_smoothing": _SHARE,
    "init_std": _NUMBER,
    "dropout": _SHARE,
    "drop_path": _SHARE,
    "repeated_aug": _FLAG,
    "repeats_of_image": _COUNT,
    "rand_augment": _FLAG,
    "rand_augment_policy": TEXT,
    "auto_augment": _FLAG,
    "auto_augment_policy": TEXT,
    "color_jitter": _NUMBER,
    "crop_area": Constraint(types=(float,), above=0, most=1),
    "flip": _SHARE,
    "mixup": _NUMBER,
    "cutmix": _NUMBER,
    "mix_probability": _SHARE,
    "mix_switch": _SHARE,
    "erasing": _SHARE,
    "ema": _FLAG,
    "ema_decay": _SHARE,
    "eval_mode": _FLAG,
    "distillation": Constraint(types=(str,), choices=("none", "soft", "hard", "token")),
    "soft_weight": _SHARE,
    "temperature": Constraint(types=(float,), above=0),
    "soft_scaling": Constraint(types=(str,), choices=("paper", "released")),
    "precision": _PRECISION,
    "channels_last": _FLAG,
    "compile": _FLAG,
    "crop": Constraint(types=(float,), above=0, most=1),
    "interpolation": _INTERPOLATION,
    "norm": _NORM,
}

# How throughput is measured: the names of the protocols.
PROTOCOLS = ("paper", "modern", "timm")

# The protocol that leaves its arithmetic to the table, and what it sets where the table and the command line do not: as
# timm's benchmark.py without options, except for `batch`, which that script lowers where memory does not suffice.
SCRIPT = "timm"
SCRIPT_DEFAULTS: Mapping[str, Scalar] = {
    "repeats": 40,
    "batch": 256,
    "step": "inference",
    "precision": "float32",
    "autocast": True,
    "channels_last": False,
    "compile": False,
    "fused_attention": True,
}
# Percentiles of the time of a batch, in percent, by the name of the metric.
PERCENTILES: Mapping[str, int] = {"p50": 50, "p90": 90, "p99": 99}

# Single choices that a protocol makes all at once: a throughput may set each otherwise.
SWITCHES: Mapping[str, Constraint] = {
    "step": Constraint(types=(str,), choices=("inference", "training")),
    "precision": _PRECISION,
    **dict.fromkeys(("autocast", "channels_last", "compile", "fused_attention"), _FLAG),
    **dict.fromkeys(("cudnn_benchmark", "inference_mode", "synchronize"), _FLAG),
}

# The shape of a model that differs from its name's: what stands in for a large one at a small scale.
SHAPE: Mapping[str, Constraint] = {"patch_size": _COUNT, "embed_dim": _COUNT, "depth": _COUNT, "num_heads": _COUNT}

SETTINGS: Mapping[str, Constraint] = {
    **RECIPE,
    **SWITCHES,
    **SHAPE,
    "model": TEXT,
    "weights": TEXT,
    "res": _COUNT,
    "width": _COUNT,
    "protocol": Constraint(types=(str,), choices=PROTOCOLS),
    "repeats": _COUNT,
    "threads": _COUNT,
    "batch": Constraint(types=(int, str), choices=("auto", "largest"), least=1),
    "memory": Constraint(types=(str,), pattern=_MEMORY, form="an amount, as 16GiB or 16GB, or all"),
    **dict.fromkeys(("data", "first", "second", "recipe", "teacher", "adapted_teacher", "start"), TEXT),
    "teacher_res": _COUNT,
    "fixres": _FLAG,
    "seed": _COUNT,
    "devices": _COUNT,
    "finetune_optimizer": _OPTIMIZER,
}

# The settings of a recipe that decide how long a step takes and how many there are.  All others are the loader's, or
# change numbers and not times: trainings that differ in those alone share one measurement.
STEP = (
    *("epochs", "batch_size", "repeated_aug", "optimizer", "momentum", "weight_decay", "gradient_clip"),
    *("dropout", "drop_path", "mixup", "cutmix", "mix_probability", "mix_switch", "erasing", "ema", "eval_mode"),
    *("fixres", "distillation", "precision", "channels_last", "compile"),
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of job.

    `required` settings must be there, `defaults` fill in, `optional` ones may be left out.  An `exclusive` job measures
    throughput and has the machine to itself.  A corrected method raises `revision`, which retires the results of the
    old one (CHANGELOG.md has the reasons).
    """

    required: tuple[str, ...]
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    exclusive: bool = False
    revision: int = 1

    @property
    def settings(self) -> tuple[str, ...]:
        """Every setting of this kind."""
        return (*self.required, *self.defaults, *self.optional)


# How an image is preprocessed, and in which arithmetic: as in the paper unless a spec says otherwise.
_PREPROCESSING: Mapping[str, Scalar] = {
    "crop": 0.875,
    "interpolation": "bicubic",
    "norm": "imagenet",
    "precision": "float32",
}

KINDS: Mapping[str, Kind] = {
    "count": Kind(
        required=("model", "res"),
        optional=("width",),
        metrics=("params", "macs", "activations", "embed_dim", "heads", "layers", "tokens", "res"),
    ),
    "throughput": Kind(
        required=("model", "res"),
        defaults={"protocol": "paper", "repeats": 30, "batch": "auto"},
        optional=("width", "memory", "threads", *SWITCHES),
        metrics=("throughput", "batch", "energy", "latency", *PERCENTILES, "peak_memory", "compile_time"),
        exclusive=True,
        revision=2,
    ),
    "train-speed": Kind(
        required=("recipe",),
        defaults={"repeats": 10, "batch": "auto", "devices": 1},
        optional=("model", "res", "data", "teacher", *SHAPE, *STEP),
        metrics=(
            *("throughput", "batch", "step", "augment", "forward", "backward", "update"),
            *("memory", "hours", "days", "energy"),
        ),
        exclusive=True,
    ),
    "ceilings": Kind(required=("precision",), metrics=("matmul", "copy"), exclusive=True),
    "evaluate": Kind(
        required=("model", "weights", "res", "data"),
        defaults=_PREPROCESSING,
        metrics=(
            *("top1", "top5", "real"),
            *("top1_class", "top1_distil", "top1_softmax_sum", "top1_logit_mean"),
        ),
        revision=2,
    ),
    "agreement": Kind(
        required=("first", "second", "data"),
        defaults={"res": 224, **_PREPROCESSING},
        metrics=("disagreement",),
    ),
    "tokens": Kind(
        required=("model", "weights", "res", "data"),
        defaults=_PREPROCESSING,
        metrics=("cosine_in", "cosine_out", "cosine_class"),
        revision=2,
    ),
    "dataset": Kind(required=("data",), metrics=("train_images", "test_images", "classes")),
    "recipe": Kind(
        required=("recipe",),
        optional=("model", "res", *RECIPE),
        metrics=(
            *("epochs", "batch_size", "optimizer", "learning_rate", "lr_decay", "weight_decay", "warmup_epochs"),
            *("label_smoothing", "dropout", "stoch_depth", "repeated_aug", "gradient_clip", "rand_augment"),
            *("mixup", "cutmix", "erasing", "repetitions", "soft_weight", "temperature"),
        ),
        revision=2,
    ),
    "train": Kind(
        required=("model", "res", "recipe"),
        optional=(
            *("data", "teacher", "teacher_res", "adapted_teacher", "start", "fixres", "seed", "finetune_optimizer"),
            *(*SHAPE, *RECIPE),
        ),
        metrics=("top1", "top1_class", "top1_distil", "top1_softmax_sum", "hours"),
        revision=2,
    ),
}

# "By default" in the paper protocol the GPU is the paper's: one 16 GB V100 (section 5, table 5).
PROTOCOL_MEMORY = {"paper": "16GiB", "modern": "all", SCRIPT: "all"}


def is_for_gpus(settings: Mapping[str, Scalar]) -> bool:
    """Whether a throughput sets a switch that does nothing on a CPU, or what no CPU computes in, as float16."""
    precise = settings.get("precision") in ("tf32", "float16")
    return precise or settings.get("cudnn_benchmark") is True or settings.get("synchronize") is True


def throughput_settings(spec: Mapping[str, Scalar], overrides: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return every setting of a throughput: the command line's, the spec's, and the protocol's defaults.

    What a spec sets for timm's protocol has no place in another, nor the other way round: of a table whose protocol the
    command line replaces in this way, only the model and its size stay.
    """
    defaults = KINDS["throughput"].defaults
    published = str(spec.get("protocol", defaults["protocol"]))
    protocol = str(overrides.get("protocol", published))
    if protocol != published and SCRIPT in (protocol, published):
        spec = {name: value for name, value in spec.items() if name in (*KINDS["throughput"].required, "width")}
    script = SCRIPT_DEFAULTS if protocol == SCRIPT else {}
    settings = {**defaults, **script, **spec, **overrides}
    # A given batch size needs no cap, so the cap must not make it another job.
    if isinstance(settings["batch"], int):
        settings.pop("memory", None)
    else:
        settings.setdefault("memory", PROTOCOL_MEMORY[protocol])
    return settings


def parse_memory(text: str) -> int | None:
    """Return the bytes of `"16GiB"` or `"16GB"`; None for `"all"`, which sets no cap.

    Raises `HarnessError` for anything else.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise HarnessError(f"memory '{abridged(text)}' is not an amount; write it as 16GiB, 16GB or all")
    if match["number"] is None:
        return None
    base = 1024 if "i" in match["unit"].lower() else 1000
    return int(float(match["number"]) * base ** _BYTES[match["unit"][0].lower()])
