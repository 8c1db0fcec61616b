"""Which process of how many this is, and what the processes exchange."""

import os
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True, kw_only=True)
class World:
    """One process of a training: its rank among all."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> "World":
        """Join the processes that torchrun started; a world of one if it did not."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        return cls(rank=distributed.get_rank(), size=distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sum the same numbers over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def any(self, condition: bool, device: str) -> bool:  # noqa: FBT001 -- reads as Python's own
        """Whether the condition holds in any process: they continue, or stop, together."""
        if self.size == 1:
            return condition
        return bool(self.sum(torch.tensor(float(condition), device=device)).item())

    def wait(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Leave the group of processes."""
        if self.size > 1:
            distributed.destroy_process_group()
