"""A precision's name -> the arithmetic of a model's forward pass."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

# The compute capabilities from which GPUs have tensor cores for float16, and for bfloat16 and TF32.
VOLTA, AMPERE = 70, 80


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The type that torch lowers to, if any, and whether float32 is computed as TF32 where the device can."""

    autocast: str | None
    tf32: bool

    def set_tf32(self) -> None:
        """Allow or forbid TF32 in this process."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32

    def context(self, device: str) -> AbstractContextManager[object]:
        """Return the context of a forward pass on a type of device."""
        return torch.autocast(device, dtype=getattr(torch, self.autocast)) if self.autocast else nullcontext()

    @property
    def facts(self) -> dict[str, Any]:
        """What the result records of it."""
        return asdict(self)


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(autocast=None, tf32=False),
    "tf32": Precision(autocast=None, tf32=True),
    "bfloat16": Precision(autocast="bfloat16", tf32=True),
    "float16": Precision(autocast="float16", tf32=True),
}


def hardware_warnings(lowered: str, architecture: str, *, fused: bool, compiled: bool) -> list[str]:
    """Return a sentence where a GPU, as `sm_70`, lacks what a precision is for; `tf32` is one here as well."""
    version = int(architecture.removeprefix("sm_"))
    if version >= AMPERE:
        return []
    after = f", which begins with sm_{AMPERE}"
    if lowered == "tf32":
        return [f"{architecture} has no TF32{after}: computed in float32"]
    if lowered == "bfloat16":
        left = " and torch.compile leaves the model as it is" if compiled else ""
        lacks = f"{architecture} has no bfloat16 arithmetic{after}: each number is converted{left}"
        return [f"{lacks}, so the speed says nothing of bfloat16; measure in float16 here"]
    if lowered == "float16" and version < VOLTA:
        return [f"{architecture} has no tensor cores: float16 is no faster than float32, or slower"]
    if lowered == "float16" and fused:
        return [f"{architecture} has no flash attention{after}: float16 takes the memory-efficient kernel instead"]
    return []
