"""The losses and epochs of a training -> whether it diverges, and its log in CSV and TensorBoard."""

import csv
import math
import warnings
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from harness import atomic
from harness.errors import JobError
from harness.jobs.training.distributed import World

# Steps between two checks of the loss on a GPU: a check waits for the device.
CHECK_INTERVAL = 20

# A loss this many times that of the first steps has diverged: a random prediction would do better.
DIVERGENCE_FACTOR = 10.0

COLUMNS = (
    *("epoch", "steps", "learning_rate", "loss", "top1", "top1_class", "top1_distil", "images_per_second"),
    *("waiting", "seconds"),
)

CSV_NAME = "training.csv"
EVENTS_NAME = "tensorboard"


class TrainingDiverged(JobError):  # noqa: N818 -- reads as what happened
    """The loss is not finite or has diverged; `step` is the step of the epoch, counted from 1."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value
        super().__init__(f"the loss is {value:g} at step {step}")


@dataclass(kw_only=True)
class DivergenceMonitor:
    """Checks the losses of all processes together, every `interval` steps, and sums them up in `counted`."""

    world: World
    interval: int
    counted: dict[str, float]
    _unchecked: list[torch.Tensor] = field(default_factory=list)

    def record(self, loss: torch.Tensor, step: int) -> None:
        """Take the loss of a step, counted from 1.

        Raises `TrainingDiverged` where a check finds that it has.
        """
        self._unchecked.append(loss)
        if len(self._unchecked) >= self.interval:
            self.check(step)

    def check(self, step: int) -> None:
        """Check the losses since the last check; `step` is the last of them."""
        if not self._unchecked:
            return
        losses = self.world.sum(torch.stack(self._unchecked).double()) / self.world.size
        self._unchecked.clear()
        first = step - len(losses) + 1
        for number, value in enumerate(losses.tolist()):
            self.counted.setdefault("first", value)
            if not math.isfinite(value) or value > DIVERGENCE_FACTOR * max(self.counted["first"], 1.0):
                raise TrainingDiverged(first + number, value)
            self.counted["loss"] = self.counted.get("loss", 0.0) + value
            self.counted["losses"] = self.counted.get("losses", 0.0) + 1

    @property
    def mean(self) -> float:
        """The mean loss of the epoch so far."""
        return self.counted.get("loss", 0.0) / max(1.0, self.counted.get("losses", 0.0))


class TrainingLog:
    """A row of a CSV file and points of TensorBoard for each epoch; what an interrupted run wrote appears once.

    Raises `OSError` if it cannot be written.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self._csv = folder / CSV_NAME
        self._write_csv(history)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protobuf and its own imports
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 -- a second to import
        # Points after the last finished epoch, which an interrupted run may have written, are hidden.
        purge_step = len(history) + 1 if history else None
        self._events: Any = SummaryWriter(str(folder / EVENTS_NAME), purge_step=purge_step)

    def add(self, history: list[dict[str, Any]]) -> None:
        """Write a finished epoch, the last one of `history`."""
        self._write_csv(history)
        row = history[-1]
        for name in COLUMNS[2:]:
            if name in row:
                self._events.add_scalar(name, row[name], row["epoch"])
        self._events.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._events.close()

    def _write_csv(self, history: list[dict[str, Any]]) -> None:
        text = StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        atomic.write(self._csv, text.getvalue(), sync=False)
