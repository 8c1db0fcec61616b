"""The kinds of job: which settings each takes and which metrics it gives.

A spec is checked against this list and a job is made from it, so neither needs to know how a kind is measured.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from harness.errors import HarnessError, abridged, did_you_mean
from harness.specs.checked import TEXT, Constraint, Scalar
from harness.specs.plugins import find_plugin, plugin_names, plugin_value

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
    """One kind of job: one of ours, or of another package by an entry point in the group `harness.jobs`.

    `function` measures, as `module:function`; it is imported where the job is run and nowhere else.  `required`
    settings must be there, `defaults` fill in, `optional` ones may be left out; `own_settings` has the constraints of
    those that are not among `SETTINGS`.  `metrics` are units by name.

    An `exclusive` job measures times and has the machine to itself.  One that is `deterministic` gives the same value
    when it measures again.  `reads_images` tells of the user's images, with which a result is compared before it
    counts.  A corrected method raises `revision`, which retires the results of the old one (CHANGELOG.md has the
    reasons).
    """

    function: str
    required: tuple[str, ...] = ()
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    own_settings: Mapping[str, Constraint] = field(default_factory=dict)
    metrics: Mapping[str, str]
    exclusive: bool = False
    deterministic: bool = False
    reads_images: bool = False
    revision: int = 1

    @property
    def settings(self) -> tuple[str, ...]:
        """Every setting of this kind."""
        return (*self.required, *self.defaults, *self.optional)

    def constraint(self, name: str) -> Constraint:
        """Return what one of its settings may be."""
        return self.own_settings.get(name) or SETTINGS[name]

    def problem(self) -> str:
        """Return what is wrong with it, as a clause; empty if nothing is."""
        for name in self.own_settings:
            if name in {*SETTINGS, "code", "method"}:  # the latter two are in the keys of jobs
                return f"declares the setting '{name}', which the harness has; rename it"
        unknown = [name for name in self.settings if name not in {*SETTINGS, *self.own_settings}]
        if unknown:
            return f"takes the setting '{unknown[0]}' without a constraint; add it to own_settings"
        for name, value in self.defaults.items():
            if text := self.constraint(name).problem(value):
                return f"has a default {name} that {text}"
        if self.reads_images and "data" not in self.settings:
            return "reads images, but has no setting 'data' that names them"
        if not re.fullmatch(r"[\w.]+:\w+", self.function):
            return f"is measured by '{self.function}', which is not of the form module:function"
        declared: object = self.metrics  # of whatever another package has put there
        units = tuple(declared.values()) if isinstance(declared, Mapping) else ()
        return "" if units and all(isinstance(unit, str) for unit in units) else "has metrics without a unit by name"


# How an image is preprocessed, and in which arithmetic: as in the paper unless a spec says otherwise.
_PREPROCESSING: Mapping[str, Scalar] = {
    "crop": 0.875,
    "interpolation": "bicubic",
    "norm": "imagenet",
    "precision": "float32",
}

# The kinds of the harness itself.
OUR_KINDS: Mapping[str, Kind] = {
    "count": Kind(
        function="harness.jobs.count:count_model",
        required=("model", "res"),
        optional=("width",),
        metrics={
            "params": "M",
            "macs": "GMAC",
            "activations": "MB",
            "res": "px",
            **dict.fromkeys(("embed_dim", "heads", "layers", "tokens"), ""),
        },
    ),
    "cost": Kind(
        function="harness.jobs.speed.cost:measure_cost",
        required=("model", "res"),
        defaults={"protocol": "paper"},
        optional=("width", "precision", "autocast", "channels_last", "fused_attention"),
        metrics={
            "operators": "",
            "flops": "GFLOP",
            "read": "MB",
            "written": "MB",
            "allocations": "",
            "peak": "MB",
        },
    ),
    "throughput": Kind(
        function="harness.jobs.speed.throughput:measure_throughput",
        required=("model", "res"),
        defaults={"protocol": "paper", "repeats": 30, "batch": "auto"},
        optional=("width", "memory", "threads", *SWITCHES),
        metrics={
            "throughput": "im/s",
            "batch": "images",
            "energy": "J/image",
            **dict.fromkeys(("latency", *PERCENTILES), "ms"),
            "peak_memory": "GiB",
            "compile_time": "s",
        },
        exclusive=True,
        revision=2,
    ),
    "train-speed": Kind(
        function="harness.jobs.speed.train_speed:measure_train_speed",
        required=("recipe",),
        defaults={"repeats": 10, "batch": "auto", "devices": 1},
        optional=("model", "res", "data", "teacher", *SHAPE, *STEP),
        metrics={
            "throughput": "im/s",
            "batch": "images",
            **dict.fromkeys(("step", "augment", "forward", "backward", "update"), "ms"),
            "memory": "GiB",
            "hours": "h",
            "days": "d",
            "energy": "J/image",
        },
        exclusive=True,
    ),
    "ceilings": Kind(
        function="harness.jobs.speed.peaks:measure_peaks",
        required=("precision",),
        metrics={"matmul": "TFLOP/s", "copy": "GB/s"},
        exclusive=True,
    ),
    "evaluate": Kind(
        function="harness.jobs.evaluate.evaluate:evaluate_batch",
        required=("model", "weights", "res", "data"),
        defaults=_PREPROCESSING,
        metrics=dict.fromkeys(
            ("top1", "top5", "real", "top1_class", "top1_distil", "top1_softmax_sum", "top1_logit_mean"), "%"
        ),
        deterministic=True,
        reads_images=True,
        revision=2,
    ),
    "agreement": Kind(
        function="harness.jobs.evaluate.agreement:measure_agreement",
        required=("first", "second", "data"),
        defaults={"res": 224, **_PREPROCESSING},
        metrics={"disagreement": "fraction"},
        deterministic=True,
    ),
    "tokens": Kind(
        function="harness.jobs.evaluate.tokens:measure_token_cosines",
        required=("model", "weights", "res", "data"),
        defaults=_PREPROCESSING,
        metrics=dict.fromkeys(("cosine_in", "cosine_out", "cosine_class"), ""),
        reads_images=True,
        revision=2,
    ),
    "dataset": Kind(
        function="harness.jobs.data.open:inspect_dataset",
        required=("data",),
        metrics={"train_images": "images", "test_images": "images", "classes": "classes"},
        deterministic=True,
        reads_images=True,
    ),
    "recipe": Kind(
        function="harness.jobs.recipe:resolve_recipe",
        required=("recipe",),
        optional=("model", "res", *RECIPE),
        metrics={
            "epochs": "epochs",
            "batch_size": "images",
            "optimizer": "",
            "learning_rate": "",
            "lr_decay": "",
            "weight_decay": "",
            "warmup_epochs": "epochs",
            "label_smoothing": "",
            "dropout": "",
            "stoch_depth": "",
            "repeated_aug": "",
            "gradient_clip": "",
            "rand_augment": "",
            "mixup": "",
            "cutmix": "",
            "erasing": "",
            "repetitions": "",
            "soft_weight": "",
            "temperature": "",
        },
        revision=2,
    ),
    "train": Kind(
        function="harness.jobs.train:train",
        required=("model", "res", "recipe"),
        optional=(
            *("data", "teacher", "teacher_res", "adapted_teacher", "start", "fixres", "seed", "finetune_optimizer"),
            *(*SHAPE, *RECIPE),
        ),
        metrics={**dict.fromkeys(("top1", "top1_class", "top1_distil", "top1_softmax_sum"), "% top-1"), "hours": "h"},
        reads_images=True,
        revision=2,
    ),
}

# The group of the entry points of other kinds: the name is the kind's, the value a `Kind`.
GROUP = "harness.jobs"


class UnknownKindError(HarnessError, KeyError):
    """There is no kind of job of this name, or not any more."""

    __str__ = Exception.__str__


def unknown_kind_message(name: str) -> str:
    """Return a sentence for a name of no kind of job, with the nearest that is one."""
    hint = did_you_mean(name, KINDS)
    return f"unknown kind of job '{name}'{hint or f'; is the package not installed that has it in {GROUP}?'}"


class _Kinds(Mapping[str, Kind]):
    """The kinds of the harness, and those of other packages, each of which is imported when it is looked up."""

    def __getitem__(self, name: str) -> Kind:
        kind = OUR_KINDS.get(name) or _other_kind(name)
        if kind is None:
            raise UnknownKindError(unknown_kind_message(name))
        return kind

    def __contains__(self, name: object) -> bool:
        return name in OUR_KINDS or name in plugin_names(GROUP)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*OUR_KINDS, *plugin_names(GROUP))))

    def __len__(self) -> int:
        return len({*OUR_KINDS, *plugin_names(GROUP)})


KINDS: Mapping[str, Kind] = _Kinds()


@cache
def _other_kind(name: str) -> Kind | None:
    """Return the kind that an entry point names; None for any other name.

    Raises `HarnessError` where it cannot be loaded or is none.
    """
    entry = find_plugin(GROUP, "kind of job", name)
    if entry is None:
        return None
    kind: object = plugin_value(entry, "kind of job")
    problem = kind.problem() if isinstance(kind, Kind) else f"is a {type(kind).__name__}, not a Kind of harness.specs"
    if problem or not isinstance(kind, Kind):
        raise HarnessError(f"the kind of job '{name}' in {GROUP} is {entry.value}, which {problem}")
    return kind


def settings_of(kinds: Iterable[str]) -> Mapping[str, Constraint]:
    """Return the constraint of every setting of the harness, and of those that these kinds of other packages have.

    Raises `HarnessError` where two of the kinds mean different things by one name.
    """
    settings, origin = dict(SETTINGS), dict[str, str]()
    for kind in kinds:
        for name, constraint in KINDS[kind].own_settings.items():
            if settings.setdefault(name, constraint) != constraint:
                raise HarnessError(
                    f"the kinds of job '{origin[name]}' and '{kind}' both declare the setting '{name}', each with "
                    "another constraint; put them into tables of their own"
                )
            origin.setdefault(name, kind)
    return settings


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
