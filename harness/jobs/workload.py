"""A network on a device under a protocol: every switch that can move a number, and the step that is timed."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from timm.layers import set_fused_attn
from torch import nn

from harness.errors import JobError
from harness.job import Job
from harness.jobs import network
from harness.jobs.device import ran_out_of_memory

Step = Callable[[], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Every switch that can move the number, as it was set.

    The weights are float32; `autocast` names the type that torch computes in where that is a lower one.
    """

    autocast: str | None
    tf32_matmul: bool
    tf32_cudnn: bool
    fused_attention: bool
    cudnn_benchmark: bool
    channels_last: bool
    compile: str | None


PROTOCOLS: Mapping[str, Flags] = {
    # Section 5 of the paper and the authors' statements: float32, inference.  PyTorch 1.7 had no fused attention, and a
    # V100 has no TF32.  Nothing is said of cuDNN's search for the fastest algorithm; it is left off, torch's default.
    "paper": Flags(
        autocast=None,
        tf32_matmul=False,
        tf32_cudnn=False,
        fused_attention=False,
        cudnn_benchmark=False,
        channels_last=False,
        compile=None,
    ),
    "modern": Flags(
        autocast="bfloat16",
        tf32_matmul=True,
        tf32_cudnn=True,
        fused_attention=True,
        cudnn_benchmark=True,
        channels_last=True,
        compile="default",
    ),
}


@contextlib.contextmanager
def applied(flags: Flags) -> Iterator[None]:
    """Set every switch explicitly, whatever torch's or the environment's defaults are.

    Nothing is put back: the process measures one network and ends.
    """
    torch.backends.cuda.matmul.allow_tf32 = flags.tf32_matmul
    torch.backends.cudnn.allow_tf32 = flags.tf32_cudnn
    torch.backends.cudnn.benchmark = flags.cudnn_benchmark
    set_fused_attn(flags.fused_attention)
    torch.manual_seed(0)
    yield


class Workload:
    """One network, on its device, ready to be run."""

    def __init__(self, job: Job, device: str) -> None:
        self.flags = PROTOCOLS[str(job["protocol"])]
        self._name, self._res, self._device = str(job["model"]), int(job["res"]), device
        self._model = network.with_random_weights(self._name, self._res).to(device)
        if self.flags.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)

    def step(self, batch: int) -> Step:
        """Make what is timed: one batch of random images, already on the device, through the network; nothing else."""
        return self._step(self._model, self._images(batch))

    def compiled_step(self, batch: int) -> tuple[Step, str]:
        """Make the step as the protocol wants it; where it does not compile, the plain one and a sentence that says so.

        Compiling waits until here because each batch is compiled anew: the searches before run uncompiled.
        """
        if self.flags.compile is None:
            return self.step(batch), ""
        compiled = torch.compile(self._model, mode=self.flags.compile, dynamic=False)
        step = self._step(compiled, self._images(batch))
        try:
            step()
        except Exception as error:
            if ran_out_of_memory(error):
                raise  # the batch is too large, which says nothing about the compiler
            reason = " ".join(str(error).split())[:200]
            return self.step(batch), f"not compiled: {type(error).__name__}: {reason}"
        return step, ""

    def check(self) -> None:
        """Put one fixed image through: a network whose output is not a row of finite numbers is not worth timing."""
        shape = (1, network.CHANNELS, self._res, self._res)
        image = torch.linspace(-1, 1, shape[1] * shape[2] * shape[3], device=self._device).view(shape)
        output: object = self._step(self._model, image)()
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != 1:
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise JobError(f"'{self._name}' gives {found} for one image, not one row of class scores")
        if not bool(torch.isfinite(output).all()):
            raise JobError(f"'{self._name}' gives numbers that are not finite for a fixed image")

    def _images(self, batch: int) -> torch.Tensor:
        images = torch.randn(batch, network.CHANNELS, self._res, self._res, device=self._device)
        return images.to(memory_format=torch.channels_last) if self.flags.channels_last else images

    def _step(self, model: Callable[[torch.Tensor], torch.Tensor] | nn.Module, images: torch.Tensor) -> Step:
        kind, lower = self._device.partition(":")[0], self.flags.autocast

        @torch.inference_mode()
        def plain() -> torch.Tensor:
            found: torch.Tensor = model(images)
            return found

        @torch.inference_mode()
        def cast() -> torch.Tensor:
            with torch.autocast(kind, dtype=getattr(torch, str(lower))):
                found: torch.Tensor = model(images)
            return found

        return plain if lower is None else cast
