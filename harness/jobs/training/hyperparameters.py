"""A training job -> its settings, each of its own type."""

from dataclasses import dataclass, fields
from typing import Any

from harness.plan.job import Job
from harness.specs.kinds import SHAPE


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The settings of a training; `harness.specs.kinds.RECIPE` and tables/README.md say what each means.

    Sides are in pixels, lengths in epochs; `batch_size` is over all processes.
    """

    model: str
    res: int
    data: str
    seed: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    lr_batch: float
    momentum: float
    weight_decay: float
    schedule: str
    schedule_step: str
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    gradient_clip: float
    label_smoothing: float
    init_std: float
    dropout: float
    drop_path: float
    repeated_aug: bool
    repeats_of_image: int
    rand_augment: bool
    rand_augment_policy: str
    auto_augment: bool
    auto_augment_policy: str
    color_jitter: float
    crop_area: float
    flip: float
    mixup: float
    cutmix: float
    mix_probability: float
    mix_switch: float
    erasing: float
    ema: bool
    ema_decay: float
    eval_mode: bool
    distillation: str
    soft_weight: float
    temperature: float
    soft_scaling: str
    precision: str
    channels_last: bool
    compile: bool
    crop: float
    interpolation: str
    norm: str
    fixres: bool = False
    teacher: str = ""
    start: str = ""

    @classmethod
    def of(cls, job: Job) -> "Hyperparameters":
        """Take them from a job that has all of them; a recipe job needs no data and no seed."""
        settings: dict[str, Any] = {"data": "", "seed": 1, **dict(job.settings)}
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})

    @property
    def scaled_rate(self) -> float:
        """The learning rate for this batch size: in proportion to it, as section 6 of the paper has it."""
        return self.learning_rate * self.batch_size / self.lr_batch if self.lr_batch else self.learning_rate

    @property
    def drop_rates(self) -> dict[str, float]:
        """The rates of dropout and stochastic depth, as `models.build_trainable` takes them."""
        rates = {"drop_rate": self.dropout, "drop_path_rate": self.drop_path}
        return {name: rate for name, rate in rates.items() if rate}

    @property
    def distilled(self) -> bool:
        """Whether there is a teacher."""
        return self.distillation != "none"

    @property
    def class_head_alone(self) -> bool:
        """Whether of two heads the class head alone is trained, as the released code does without a teacher.

        In eval mode its model returns the mean of both heads, so both are.
        """
        return not self.distilled and not self.eval_mode


def shape_of(job: Job) -> dict[str, int]:
    """Return the settings that change the architecture from what the model's name says."""
    return {name: int(value) for name, value in job.settings if name in SHAPE}
