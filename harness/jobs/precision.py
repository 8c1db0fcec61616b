"""A precision's name -> the arithmetic of a model's forward pass."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch


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
