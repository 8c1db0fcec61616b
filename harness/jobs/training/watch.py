"""The losses of a training -> whether it goes wrong, and what was counted on the way."""

import math
from dataclasses import dataclass, field

import torch

from harness.errors import JobError
from harness.jobs.training.world import World

# Steps between two looks at the loss on a GPU: a look waits for the device.
STEPS_UNSEEN = 20

# A loss this many times that of the first steps has diverged: guessing would do better.
DIVERGED = 10.0


class WentWrong(JobError):  # noqa: N818 -- reads as what happened
    """The loss is not finite or has diverged; `step` is the step of the epoch, counted from 1."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value
        super().__init__(f"the loss is {value:g} at step {step}")


@dataclass(kw_only=True)
class Watch:
    """Looks at the losses of all processes together, each step on a CPU and seldom on a GPU."""

    world: World
    every: int
    counted: dict[str, float]
    _unseen: list[torch.Tensor] = field(default_factory=list)

    def add(self, loss: torch.Tensor, step: int) -> None:
        """Take the loss of a step, counted from 1.

        Raises `WentWrong` when it is seen that something is wrong.
        """
        self._unseen.append(loss)
        if len(self._unseen) >= self.every:
            self.look(step)

    def look(self, step: int) -> None:
        """Look at what was not seen yet; `step` is the last of them."""
        if not self._unseen:
            return
        losses = self.world.summed(torch.stack(self._unseen).double()) / self.world.size
        self._unseen.clear()
        first = step - len(losses) + 1
        for number, value in enumerate(losses.tolist()):
            self.counted.setdefault("first", value)
            if not math.isfinite(value) or value > DIVERGED * max(self.counted["first"], 1.0):
                raise WentWrong(first + number, value)
            self.counted["loss"] = self.counted.get("loss", 0.0) + value
            self.counted["losses"] = self.counted.get("losses", 0.0) + 1

    @property
    def mean(self) -> float:
        """Give the mean loss of the epoch so far."""
        return self.counted.get("loss", 0.0) / max(1.0, self.counted.get("losses", 0.0))
