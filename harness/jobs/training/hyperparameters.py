"""A training job -> its settings, each of its own type."""

from dataclasses import dataclass, fields
from typing import Any

from harness.job import Job
from harness.kinds import SHAPE


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What decides a training; `harness.kinds.RECIPE` and tables/README.md say what each means.

    Sides are pixels, lengths epochs, `batch_size` images a step over all processes.
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
    teacher: str = ""
    start: str = ""

    @classmethod
    def of(cls, job: Job) -> "Hyperparameters":
        """Take them from a job that says all of them; a recipe job needs no data and no seed."""
        told: dict[str, Any] = {"data": "", "seed": 1, **dict(job.settings)}
        return cls(**{one.name: told[one.name] for one in fields(cls) if one.name in told})

    @property
    def scaled_rate(self) -> float:
        """Give the learning rate for this batch: in proportion to it, as section 6 of the paper has it."""
        return self.learning_rate * self.batch_size / self.lr_batch if self.lr_batch else self.learning_rate

    @property
    def distilled(self) -> bool:
        """Whether there is a teacher."""
        return self.distillation != "none"


def shape_of(job: Job) -> dict[str, int]:
    """Give what makes a network other than its name says."""
    return {name: int(value) for name, value in job.settings if name in SHAPE}
