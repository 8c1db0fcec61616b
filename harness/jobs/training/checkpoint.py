"""The state of a training <-> one safetensors file, so that it resumes exactly there.

A file holds the tensors of the student, of its average and of the optimizer; its header holds the rest as JSON: the
job, its inputs, the epoch, the step, the scaler, and what was counted, and a SHA-256 of all this.  Random states are
not in it: see `seeding`.
"""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness import atomic
from harness.errors import JobError
from harness.plan.job import Job
from harness.store.leftovers import CHECKPOINT, is_finished
from harness.store.result import Result

CHECKPOINTS_KEPT = 2

Tensors = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class TrainingState:
    """The progress of a training: `step` of `epoch`, both counted from 0, is the next one.

    `history` has a row for each finished epoch, `counted` the sums over the steps of the unfinished one.  `seconds` is
    the time so far, `resumed` how often the training was resumed, `damaged` the checkpoints that could not be.
    """

    epoch: int = 0
    step: int = 0
    steps_done: int = 0
    seconds: float = 0.0
    resumed: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


class Checkpoints:
    """The last checkpoints of one training, in its folder.

    `inputs` are digests of what it reads besides: the `images`, and the weights that are its `start` or `teacher`.
    """

    def __init__(self, folder: Path, job: Job, inputs: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.inputs = dict(inputs or {})
        self._identity = _identity(job)

    def save(self, state: TrainingState, tensors: Tensors) -> Path:
        """Write a checkpoint, then remove all but the last two.

        Raises `JobError` if the disk is full; the checkpoints before stay as they are.
        """
        path = self.folder / f"checkpoint-{state.steps_done:09d}.safetensors"
        parts = {"job": self._identity, "inputs": self.inputs, "standing": asdict(state)}
        header = {name: json.dumps(part) for name, part in parts.items()}
        contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            with atomic.replacing(path) as temporary:
                save_file(contiguous, temporary, metadata={**header, "sha256": _digest(header, contiguous)})
        except (OSError, SafetensorError) as error:
            raise JobError(self.write_error(path, error)) from error
        for old in self._paths()[:-CHECKPOINTS_KEPT]:
            old.unlink(missing_ok=True)
        return path

    def write_error(self, path: Path, error: Exception) -> str:
        """Return the sentence for a file of the training that cannot be written."""
        last = self.newest()
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # safetensors writes through its own library and reports the system's error in its text alone.
        full = full or f"os error {errno.ENOSPC}" in str(error) or "No space left" in str(error)
        reason = "the disk is full; free some space" if full else f"cannot be written ({error}); fix that"
        return f"{path}: {reason} and run the same command, which resumes from {last.name if last else 'the beginning'}"

    def newest(self) -> Path | None:
        """Return the last one."""
        return next(reversed(self._paths()), None)

    def load(self, *, leads: bool = True) -> tuple[TrainingState, Tensors] | None:
        """Read the last one that is whole; None where there are none, and a new state where all are damaged.

        The tensors stay on the CPU: model and optimizer copy theirs to the device, but for the number of steps, which
        AdamW would have to fetch from there for each parameter in each step.
        The process that `leads` sets the damaged ones aside.  Raises `JobError` for one of another job, naming the
        first difference, or of other inputs.
        """
        damaged: list[str] = []
        for path in reversed(self._paths()):
            try:
                header, tensors = _read(path)
                state = TrainingState(**json.loads(header["standing"]))
                identity, inputs = (json.loads(header[part]) for part in ("job", "inputs"))
            except Exception:  # noqa: BLE001 -- damaged bytes are reported in many ways, by two libraries
                damaged.append(path.name)
                if leads:
                    path.replace(path.with_suffix(".damaged"))
                continue
            self._check(path, identity, inputs)
            state.damaged += damaged
            return state, tensors
        return (TrainingState(damaged=damaged), {}) if damaged else None

    def _check(self, path: Path, identity: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        ours = self._identity
        for name in sorted(identity.keys() | ours.keys()):
            if identity.get(name) != ours.get(name):
                raise JobError(
                    f"{path}: is a checkpoint of another recipe ({name} = {identity.get(name)} there, "
                    f"{ours.get(name)} here); move it away or ask for that recipe"
                )
        for name, digest in self.inputs.items():
            if inputs.get(name) != digest:
                what = "images" if name == "images" else f"weights as its {name}"
                raise JobError(
                    f"{path}: was trained with other {what} (digest {str(inputs.get(name))[:12]}, here {digest[:12]}); "
                    "give those again, or move the checkpoints away to train from the beginning"
                )

    def remove(self) -> None:
        """Remove all, the last one last: the result of the training is saved."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def remove_finished(self, results: Iterable[Result]) -> None:
        """Remove them if their training has one of these results: another one of the same job begins anew."""
        last = self.newest()
        if last is not None and is_finished(last, results):
            self.remove()

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name))


def _read(path: Path) -> tuple[dict[str, str], Tensors]:
    """Read a file; raises `ValueError` if it is not what was written, and what the libraries raise."""
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dictionary
    if header.pop("sha256") != _digest(header, tensors):
        raise ValueError("another SHA-256")
    return header, tensors


def _digest(header: Mapping[str, str], tensors: Tensors) -> str:
    """Return the SHA-256 of all that a checkpoint holds, its tensors on the CPU and contiguous."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _identity(job: Job) -> dict[str, Any]:
    """Return what a checkpoint must agree with."""
    return {**dict(job.settings), "revision": job.revision, **{part: need.key for part, need in job.needs}}


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
