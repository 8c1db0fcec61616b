"""What a job says while it works, and the work that is handed to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.machine import Machine
from harness.plan import Job


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs for one child process, and where their results belong.

    `device` is `cpu` or `cuda:N`, `machine` and `software` describe what is behind it.
    """

    jobs: tuple[Job, ...]
    device: str
    machine: Machine
    software: Mapping[str, str]
    runs: Path


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job stands: `done` of `total` steps of a phase, and images a second where they are known."""

    job: Job
    phase: str
    done: int = 0
    total: int = 0
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The result of a job is in the store."""

    job: Job
    id: str
