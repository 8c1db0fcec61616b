"""What a job says while it works, and the work that is handed to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.datasets import EMBEDDED
from harness.job import Job
from harness.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the user brings: images by the name of their data set, a folder of weights, and how to read.

    `workers` are the processes that read images beside the one that computes.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    workers: int = 0
    skip_unreadable: bool = False

    def where(self, data: str) -> str:
        """Say where a data set is: where the user has it, or in the package that brings it along."""
        return self.data[data] if data in self.data else EMBEDDED[data]

    def has(self, data: str) -> bool:
        """Whether a data set is there."""
        return data in self.data or data in EMBEDDED


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs for one child process, and where their results belong.

    `device` is `cpu` or `cuda:N`, `machine` and `software` describe what is behind it; `devices` are all that a pass
    over images may use, `cores` the processor's that a training may use (0: all).
    """

    jobs: tuple[Job, ...]
    device: str
    machine: Machine
    software: Mapping[str, str]
    runs: Path
    inputs: Inputs = field(default_factory=Inputs)
    devices: tuple[str, ...] = ()
    cores: int = 0


def train_split(data: str) -> str:
    """Name the images to train with, beside those to evaluate with."""
    return f"{data}/train"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is there of the inputs: facts of each set of images, and the SHA-256 of each file of weights.

    `images` is by the name of the data set, or by `train_split` of it for the images to train with, `weights` by
    `MODEL.TAG` (None: on timm's hub).  `problems` says what is wrong with a set of images, `missing` which weights are
    not there.
    """

    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: Mapping[str, str | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job stands: `done` of `total` steps of a phase, and images a second where they are known.

    `together` says what is in hand where it is more than this job.
    """

    job: Job
    phase: str
    together: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a thorough look at a set of images found: lines for people, and sentences for what is wrong.

    `notes` say what is not there of a set that is sound as it is.  While it goes on, `done` of `total` images were
    looked at and there are no lines yet.
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
