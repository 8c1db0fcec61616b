"""Options of DeiT's main.py and timm's train.py -> settings of a recipe, the batch size, and the learning rate."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.judge.training.given import GivenTraining, Value, number_of, value_of
from harness.specs.checked import Scalar
from harness.specs.kinds import RECIPE, SETTINGS

# What the options of both scripts are in a recipe, where that is the same value: ours, then theirs.
_NAMES = """
model model | res res input_size img_size | optimizer opt | schedule sched | gradient_clip clip_grad | dropout drop
label_smoothing smoothing | erasing reprob | mix_probability mixup_prob | mix_switch mixup_switch_prob | flip hflip
ema_decay model_ema_decay | crop eval_crop_ratio crop_pct | teacher teacher_model | soft_weight distillation_alpha
temperature distillation_tau
"""
_SAME = {name: name for name in RECIPE if name not in ("batch_size", "learning_rate", "lr_batch", "distillation")} | {
    name: ours for ours, *names in map(str.split, re.split(r"[|\n]", _NAMES.strip())) for name in names
}
_ACCUMULATION = ("grad_accum_steps", "accum_iter", "accum_steps", "accumulation", "update_freq", "iters_to_accum")

# Options that are read together with others, and those that change no accuracy at what every log has.
_READ = re.compile(
    r"batch_size|world_size|nproc_per_node|(n|num_|n_)?gpus|n?nodes|lr|learning_rate|lr_b\w+|unscale_lr|aa|(no_)?aug|"
    r"aug_repeats|scale|model_ema|distillation(_type)?|amp(_dtype)?|train_mode|epoch|" + "|".join(_ACCUMULATION)
)
_WITHOUT_EFFECT = re.compile(
    r"(data|output|log|job|val|dist|wandb|resume|eval|pin|checkpoint|local|rdzv|master|lr_noise|lr_cycle|lr_k|decay_|patience|"
    r"cooldown|re(count|mode|split)|model_ema_|teacher_path|torch|class|input_|in_chans|n(um|b)_classes|initial|use_|jsd|"
    r"aug_splits|split|sync|bn|save|tta|recovery|experiment|train_|cutmix_minmax|mixup_(mode|off)|start|warmup_prefix|"
    r"epoch_|drop_(block|connect)|layer_decay|opt_|clip_mode|sched_|(num_)?workers|no_prefetch|prefetch|color_jitter_|fuser|"
    r"seed|device|gpu|rank|backend|comment|partition|timeout|inat|fast_norm|hub|vflip|ratio|mean|std|pretrained|finetune)\w*"
    r"|env|gp|j|m|module|config|attn_only|src|cosub"
)


def _defaults(text: str) -> dict[str, Value]:
    return {name: value_of(value) for name, value in (pair.split("=") for pair in text.split())}


# What the scripts have where nothing is set, as far as that is not what recipes have.
_DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "deit": _defaults("batch_size=64 lr=5e-4 epochs=300"),
    "timm": _defaults(
        "batch_size=128 opt=sgd momentum=0.9 weight_decay=2e-5 sched=cosine lr_base=0.1 lr_base_size=256 "
        "warmup_lr=1e-5 min_lr=0 epochs=300 warmup_epochs=5 aa=none aug_repeats=0 reprob=0 mixup=0 cutmix=0 "
        "smoothing=0.1 drop=0 drop_path=0 model_ema=false color_jitter=0.4 hflip=0.5"
    ),
}

# The batch size that the rate of main.py is for.
_DEIT_LR_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """How many images a step of the optimizer sees."""

    per_device: int
    devices: int = 1
    accumulation: int = 1

    @property
    def total(self) -> int:
        """Images a step."""
        return self.per_device * self.devices * self.accumulation

    def __str__(self) -> str:
        """Return `480 (60 on each of 8 devices)`."""
        parts = [f"{self.per_device} on each of {self.devices} devices"] if self.devices > 1 else []
        parts += [f"{self.accumulation} accumulated"] if self.accumulation > 1 else []
        return f"{self.total} ({', '.join(parts)})" if parts else str(self.total)


@dataclass(kw_only=True)
class TheirSettings:
    """A training in the words of recipes: `values` by setting, and by setting the `names` of their options.

    `rate` is the peak learning rate, and `scale` what main.py multiplies `--lr` with; `ended` is how many epochs were
    trained, where that was typed.  `unknown` are options without a counterpart, `notes` what had to be assumed.
    """

    values: dict[str, Scalar] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    batch: BatchSize | None = None
    rate: float | None = None
    scale: float = 1.0
    ended: int | None = None
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def their_settings(given: GivenTraining) -> TheirSettings:
    """Translate the options of a training."""
    defaults = _DEFAULTS.get(given.script, {}) if given.whole else {}
    # timm writes down options that were not set as well, without a value.
    options = {**given.options, **{name: value for name, value in defaults.items() if given.options.get(name) is None}}
    theirs = TheirSettings()
    for name, value in options.items():
        if name in _SAME:
            _take(theirs, name, _SAME[name], value)
        elif value not in (None, False) and not _READ.fullmatch(name) and not _WITHOUT_EFFECT.fullmatch(name):
            theirs.unknown.append(f"{name}={_shown(value)}")
    _take_augmentation(theirs, options)
    _take_others(theirs, options, given.script)
    theirs.batch = _batch_of(options, given, theirs)
    _take_rate(theirs, options, given.script)
    if given.script == "timm" and theirs.values.get("repeated_aug") and theirs.batch and theirs.batch.devices == 1:
        theirs.values["repeated_aug"] = False
        theirs.notes.append("timm repeats augmentation in distributed training only; here it had no effect")
    return theirs


def _shown(value: object) -> str:
    number = number_of(value)
    return str(value) if number is None else f"{number:g}"


def _take(theirs: TheirSettings, name: str, setting: str, value: Value) -> None:
    """Set what a value is in the type of the recipe's setting; what cannot be one is named as unknown."""
    types = SETTINGS[setting].types
    value = value[-1] if isinstance(value, list) and value and isinstance(value[-1], (str, int, float)) else value
    taken: Scalar | None
    if bool in types:
        taken = value if isinstance(value, bool) else bool(number) if (number := number_of(value)) is not None else None
    elif str in types:
        taken = _WORD.sub("", str(value)).lower() if value is not None else None
    else:
        taken = 0.0 if value is None and setting == "gradient_clip" else number_of(value)
    if taken is not None:
        theirs.values[setting] = taken
        theirs.names[setting] = name
    elif value is not None:
        theirs.unknown.append(f"{name}={_shown(value)} (not understood)")


# The hub before a model's name and the tag behind it.
_WORD = re.compile(r"^timm/|(?<=_\d{3})\.\w+$")


def _take_augmentation(theirs: TheirSettings, options: Mapping[str, Value]) -> None:
    policy = "" if options.get("no_aug") or options.get("aug") is False else options.get("aa")
    if "aa" in options:
        name = str(policy or "").lower()
        kind = "rand_augment" if name.startswith("rand") else "auto_augment"
        on = name not in ("", "none", "false")
        theirs.values |= {
            "rand_augment": False,
            "auto_augment": False,
            kind: on,
            **({f"{kind}_policy": name} if on else {}),
        }
        theirs.names |= dict.fromkeys(("rand_augment", "auto_augment", f"{kind}_policy"), "aa")
    repeats = number_of(options.get("aug_repeats"))
    if repeats is not None:
        theirs.values["repeated_aug"] = repeats > 1
        theirs.names["repeated_aug"] = "aug_repeats"
    scale = options.get("scale")
    if isinstance(scale, list) and scale and (least := number_of(scale[0])) is not None:
        theirs.values["crop_area"], theirs.names["crop_area"] = least, "scale"


def _take_others(theirs: TheirSettings, options: Mapping[str, Value], script: str) -> None:
    # main.py keeps the average but evaluates the model; timm's summary has the average's accuracy.
    if isinstance(options.get("model_ema"), bool) and script == "timm":
        theirs.values["ema"], theirs.names["ema"] = bool(options["model_ema"]), "model_ema"
    kind = options.get("distillation_type", options.get("distillation"))
    if isinstance(kind, str) or "distillation_type" in options:
        with_token = kind == "hard" and "distilled" in str(theirs.values.get("model", ""))
        theirs.values["distillation"] = "token" if with_token else str(kind or "none").lower()
        theirs.names["distillation"] = "distillation_type"
    if options.get("amp") is not None and script == "timm":
        theirs.values["precision"] = str(options.get("amp_dtype") or "float16") if options["amp"] else "float32"
        theirs.names["precision"] = "amp_dtype"
    if isinstance(options.get("train_mode"), bool):
        theirs.values["eval_mode"], theirs.names["eval_mode"] = not options["train_mode"], "train_mode"
    if (epoch := number_of(options.get("epoch"))) is not None and 0 < epoch < 10**6:
        theirs.ended = int(epoch)


def _count(options: Mapping[str, Value], *names: str) -> int | None:
    """Return the first of these options that is a count."""
    numbers = (number_of(options.get(name)) for name in names)
    return next((int(number) for number in numbers if number is not None and 1 <= number <= 10**9), None)


def _batch_of(options: Mapping[str, Value], given: GivenTraining, theirs: TheirSettings) -> BatchSize | None:
    per_device = _count(options, "batch_size")
    accumulation = _count(options, *_ACCUMULATION) or 1
    devices = _count(options, "world_size", "num_gpus", "gpus", "n_gpus")
    on_node = _count(options, "nproc_per_node", "ngpus")
    if devices is None and (on_node or (given.launched and not {"nproc_per_node", "world_size"} & options.keys())):
        devices = (on_node or 1) * (_count(options, "nodes", "nnodes") or 1)
    if per_device is None:
        return None
    if devices is None:
        theirs.notes.append(
            f"how many devices there were is not in it, so neither the batch size, {per_device} on each, nor the "
            "learning rate was compared; add world_size=N"
        )
        return None
    return BatchSize(per_device=per_device, devices=devices, accumulation=accumulation)


def _take_rate(theirs: TheirSettings, options: Mapping[str, Value], script: str) -> None:
    """Find the peak learning rate, as their script computes it from the options and the batch size."""
    rate, base = number_of(options.get("lr", options.get("learning_rate"))), number_of(options.get("lr_base"))
    theirs.names["learning_rate"] = "lr" if "lr" in options else "lr_base" if base else "learning_rate"
    batch = theirs.batch
    if script == "timm":
        theirs.rate = rate
        if rate is None and base is not None and batch:
            ratio = batch.total / (number_of(options.get("lr_base_size")) or 256)
            scaling = options.get("lr_base_scale") or _scaling(str(options.get("opt")))
            theirs.rate = base * (ratio**0.5 if scaling == "sqrt" else ratio)
        return
    if batch and options.get("unscale_lr") is not True:
        theirs.scale = batch.per_device * batch.devices / (number_of(options.get("lr_batch")) or _DEIT_LR_BATCH)
    if rate is not None and (batch or options.get("unscale_lr") is True):
        theirs.rate = rate * theirs.scale
        if not script and theirs.scale != 1:
            theirs.notes.append(
                f"lr={rate:g} was taken as main.py takes it, times the batch size / {_DEIT_LR_BATCH}; add "
                "unscale_lr=true if it is the rate itself"
            )


def _scaling(optimizer: str) -> str:
    return "sqrt" if any(part in optimizer.lower() for part in ("ada", "lamb")) else "linear"


def _both(*settings: str) -> Callable[[Mapping[str, Scalar]], bool]:
    return lambda values: all(values.get(setting) for setting in settings)


# When a setting has an effect, of those that do not always have one.
RELEVANT: Mapping[str, Callable[[Mapping[str, Scalar]], bool]] = {
    "momentum": lambda values: values.get("optimizer") != "adamw",
    "color_jitter": lambda values: not values.get("rand_augment") and not values.get("auto_augment"),
    "rand_augment_policy": _both("rand_augment"),
    "auto_augment_policy": _both("auto_augment"),
    "repeats_of_image": _both("repeated_aug"),
    "mix_switch": _both("mixup", "cutmix"),
    "mix_probability": lambda values: bool(values.get("mixup") or values.get("cutmix")),
    "ema_decay": _both("ema"),
    "soft_weight": lambda values: values.get("distillation") == "soft",
    "temperature": lambda values: values.get("distillation") == "soft",
    "soft_scaling": lambda values: values.get("distillation") == "soft",
    "teacher": lambda values: values.get("distillation") != "none",
}
