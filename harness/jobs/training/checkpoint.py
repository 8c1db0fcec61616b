"""The state of a training <-> one safetensors file, so that it resumes exactly there.

A file holds the tensors of the student, of its average and of the optimizer; its header holds the rest as JSON: the
job, the epoch, the step, the scaler, and what was counted.  Random states are not in it: see `seeding`.
"""

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness import atomic
from harness.errors import JobError
from harness.plan.job import Job

CHECKPOINTS_KEPT = 2

_NAME = re.compile(r"checkpoint-(?P<step>\d{9})\.safetensors")

Tensors = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class TrainingState:
    """The progress of a training: `step` of `epoch`, both counted from 0, is the next one.

    `history` has a row for each finished epoch, `counted` the sums over the steps of the unfinished one.  `seconds` is
    the time so far, `resumed` how often the training was resumed.
    """

    epoch: int = 0
    step: int = 0
    steps_done: int = 0
    seconds: float = 0.0
    resumed: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The last checkpoints of one training, in its folder."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder = folder
        self._identity = _identity(job)

    def save(self, state: TrainingState, tensors: Tensors) -> Path:
        """Write a checkpoint, then remove all but the last two.

        Raises `JobError` if the disk is full; the checkpoints before stay as they are.
        """
        path = self.folder / f"checkpoint-{state.steps_done:09d}.safetensors"
        header = {"job": json.dumps(self._identity), "standing": json.dumps(asdict(state))}
        try:
            with atomic.replacing(path) as temporary:
                contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
                save_file(contiguous, temporary, metadata=header)
        except (OSError, SafetensorError) as error:
            raise JobError(_write_error(path, error, self.newest())) from error
        for old in self._paths()[:-CHECKPOINTS_KEPT]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> Path | None:
        """Return the last one."""
        return next(reversed(self._paths()), None)

    def load(self, device: str = "cpu") -> tuple[TrainingState, Tensors] | None:
        """Read the last one that can be read; None where there is none.

        Raises `JobError` for one of another job, naming the first difference.
        """
        for path in reversed(self._paths()):
            try:
                with safe_open(path, framework="pt", device=device) as file:
                    header = file.metadata()
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dictionary
                state = TrainingState(**json.loads(header["standing"]))
                identity = json.loads(header["job"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                path.replace(path.with_suffix(".damaged"))
                continue
            ours = self._identity
            for name in sorted(identity.keys() | ours.keys()):
                if identity.get(name) != ours.get(name):
                    raise JobError(
                        f"{path}: is a checkpoint of another recipe ({name} = {identity.get(name)} there, "
                        f"{ours.get(name)} here); move it away or ask for that recipe"
                    )
            return state, tensors
        return None

    def remove(self) -> None:
        """Remove all: the training is done."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("checkpoint-*") if _NAME.fullmatch(path.name))


def _identity(job: Job) -> dict[str, Any]:
    """Return what a checkpoint must agree with."""
    return {**dict(job.settings), "revision": job.revision, **{part: need.key for part, need in job.needs}}


def _write_error(path: Path, error: Exception, last: Path | None) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors writes through its own library and reports the system's error in its text alone.
    full = full or f"os error {errno.ENOSPC}" in str(error) or "No space left" in str(error)
    reason = "the disk is full; free some space" if full else f"cannot be written ({error}); fix that"
    return f"{path}: {reason} and run the same command, which resumes from {last.name if last else 'the beginning'}"


def pack(
    student: Mapping[str, torch.Tensor], average: Mapping[str, torch.Tensor] | None, optimizer: torch.optim.Optimizer
) -> Tensors:
    """Put the tensors of a training into one mapping."""
    tensors = {f"network.{name}": value for name, value in student.items()}
    tensors |= {f"average.{name}": value for name, value in (average or {}).items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:  # SGD without its first step has no momentum yet
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    return tensors


def unpack(tensors: Tensors, name: str) -> Tensors:
    """Return one part of them: `network` (the student), `average` or `optimizer`."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Restore the state of an optimizer; rates and decays come from the recipe."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in unpack(tensors, "optimizer").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
