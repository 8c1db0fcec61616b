"""Where a training stands <-> one safetensors file, so that it goes on exactly there.

A file holds the tensors of the network, of its average and of the optimizer; its header holds the rest as JSON: the
job, the epoch, the step, the scaler, and what was counted.  Random states are not in it: see `chance`.
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness.errors import JobError
from harness.job import Job

KEPT = 2

_NAME = re.compile(r"checkpoint-(?P<step>\d{9})\.safetensors")

Tensors = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class Standing:
    """How far a training is: `step` of `epoch`, both counted from 0, is the next one.

    `history` has a row for each finished epoch, `counted` what was summed over the steps of the unfinished one.
    `seconds` is what it took so far, `resumed` how often it went on.
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
        self._job = described(job)

    def save(self, standing: Standing, tensors: Tensors) -> Path:
        """Write where it stands beside, and rename it last; then let go of all but the last two.

        Raises `JobError` if the disk is full; the checkpoints before stay as they are.
        """
        path = self.folder / f"checkpoint-{standing.steps_done:09d}.safetensors"
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        header = {"job": json.dumps(self._job), "standing": json.dumps(asdict(standing))}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, beside, metadata=header)
            _sync(beside)
            beside.replace(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise JobError(_not_written(path, error, self.newest())) from error
        for old in self._there()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> Path | None:
        """Give the last one."""
        return next(reversed(self._there()), None)

    def load(self, device: str = "cpu") -> tuple[Standing, Tensors] | None:
        """Read the last one that can be read; nothing where there is none.

        Raises `JobError` for one of another job, naming the first difference.
        """
        for path in reversed(self._there()):
            try:
                with safe_open(path, framework="pt", device=device) as file:
                    header = file.metadata()
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dictionary
                standing = Standing(**json.loads(header["standing"]))
                theirs = json.loads(header["job"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                path.replace(path.with_suffix(".damaged"))
                continue
            if theirs != self._job:
                raise JobError(_of_another(path, theirs, self._job))
            return standing, tensors
        return None

    def remove(self) -> None:
        """Let go of all: the training is done."""
        for path in self._there():
            path.unlink(missing_ok=True)

    def _there(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("checkpoint-*") if _NAME.fullmatch(path.name))


def described(job: Job) -> dict[str, Any]:
    """Give what a checkpoint must agree with."""
    return {**dict(job.settings), "revision": job.revision, **{part: one.key for part, one in job.needs}}


def _of_another(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    name = next(name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name))
    return (
        f"{path}: is a checkpoint of another recipe ({name} = {theirs.get(name)} there, {ours.get(name)} here); "
        "move it away or ask for that recipe"
    )


def _not_written(path: Path, error: Exception, last: Path | None) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors writes through its own library and tells of the system's error in its text alone.
    full = full or f"os error {errno.ENOSPC}" in str(error) or "No space left" in str(error)
    why = "the disk is full; free some space" if full else f"cannot be written ({error}); mend that"
    return f"{path}: {why} and run the same command, which goes on from {last.name if last else 'the beginning'}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pack(
    network: Mapping[str, torch.Tensor], average: Mapping[str, torch.Tensor] | None, optimizer: torch.optim.Optimizer
) -> Tensors:
    """Put the tensors of a training under one roof."""
    found = {f"network.{name}": value for name, value in network.items()}
    found |= {f"average.{name}": value for name, value in (average or {}).items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:  # SGD without its first step has no momentum yet
                found[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    return found


def part(tensors: Tensors, name: str) -> Tensors:
    """Take one part out again: `network` or `average`."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give an optimizer its state back; rates and decays come from the recipe."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in part(tensors, "optimizer").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
