"""What passes between the runner and its child processes: batches of jobs in, messages about them out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine import Machine
from harness.plan.job import Job
from harness.specs.datasets import EMBEDDED

if TYPE_CHECKING:
    from harness.stats import Interval


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The user's inputs: where each dataset is, by its name, a folder of weights, and how images are read.

    `workers` is the number of processes that load images, next to the one that computes.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    workers: int = 0
    skip_unreadable: bool = False

    def where(self, data: str) -> str:
        """Return where a dataset is: where the user has it, or in the package that contains it."""
        return self.data[data] if data in self.data else EMBEDDED[data]

    def has(self, data: str) -> bool:
        """Whether a dataset exists."""
        return data in self.data or data in EMBEDDED


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs for one child process, and the folder of their results.

    `device` is `cpu` or `cuda:N`, `machine` and `software` describe what is behind it; `devices` are all that an
    evaluation pass or a training may use, `cores` is the number of CPU cores for a training (0: all).  A measurement
    that can be shortened ends after so many `seconds`, if there are any; a quick one when its place among its `rivals`
    is as certain as it can make it, the throughputs of other models in images/s (None: not quick).
    """

    jobs: tuple[Job, ...]
    device: str
    machine: Machine
    software: Mapping[str, str]
    runs: Path
    inputs: Inputs = field(default_factory=Inputs)
    devices: tuple[str, ...] = ()
    cores: int = 0
    seconds: float | None = None
    rivals: "tuple[Interval, ...] | None" = None


def train_split(data: str) -> str:
    """Return the name of the training images of a dataset, as opposed to those to evaluate on."""
    return f"{data}/train"


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Which inputs exist: facts of each dataset, and the SHA-256 of each file of weights.

    `images` is by the name of the dataset, or by `train_split` of it for the training images, `weights` by
    `MODEL.TAG` (None: on timm's hub).  `also_fits` has the other weights that a file's name may as well be for.
    `problems` has a sentence for what is wrong with a dataset, `notes` one for what was left out of it, `missing` one
    for weights that do not exist.
    """

    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: Mapping[str, str | None] = field(default_factory=dict)
    also_fits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` steps of a phase, and the images/s where they are known.

    `overview` describes all current work where that is more than this job.
    """

    job: Job
    phase: str
    overview: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The check of a dataset: lines for people, and a sentence for each problem.

    `notes` say which optional parts are missing.  While the check goes on, `done` of `total` images have been read and
    there are no lines yet.
    """

    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The result of a job is in the store."""

    job: Job
    id: str
