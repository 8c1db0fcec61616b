"""Which process of how many this is, and what they tell each other."""

import os
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True, kw_only=True)
class World:
    """One process of a training: its place among all, and among those of its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def joined(cls, device: str) -> "World":
        """Join the processes that torchrun started; alone if it did not."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        return cls(rank=distributed.get_rank(), size=distributed.get_world_size(), local=int(os.environ["LOCAL_RANK"]))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def summed(self, numbers: torch.Tensor) -> torch.Tensor:
        """Add up the same numbers of all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def any(self, told: bool, device: str) -> bool:  # noqa: FBT001 -- reads as what it asks
        """Whether any process says so: they go on, or stop, together."""
        if self.size == 1:
            return told
        return bool(self.summed(torch.tensor(float(told), device=device)).item())

    def wait(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1:
            distributed.destroy_process_group()
