"""A model on a device under a protocol: every flag that can change a number, and the step that is timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from timm.layers import set_fused_attn
from torch import nn

from harness.errors import JobError
from harness.jobs import models
from harness.jobs.precision import Precision
from harness.jobs.speed.device import is_out_of_memory_error
from harness.plan.job import Job

Step = Callable[[], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Every flag that can change the number, as it was set; the defaults are the paper's protocol.

    Section 5 of the paper and the authors' statements: float32, inference.  PyTorch 1.7 had no fused attention, and a
    V100 has no TF32.  The paper does not mention cuDNN's benchmark mode; it is off, torch's default.  The weights are
    float32; `autocast` names the lower precision that torch computes in, if any.
    """

    autocast: str | None = None
    tf32_matmul: bool = False
    tf32_cudnn: bool = False
    fused_attention: bool = False
    cudnn_benchmark: bool = False
    channels_last: bool = False
    compile: str | None = None

    @property
    def precision(self) -> Precision:
        """The arithmetic; no protocol has TF32 in one of torch's two libraries alone."""
        return Precision(autocast=self.autocast, tf32=self.tf32_matmul)


PROTOCOLS: Mapping[str, Flags] = {
    "paper": Flags(),
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


def set_flags(flags: Flags) -> None:
    """Set every flag explicitly, whatever torch's or the environment's defaults are.

    Nothing is restored: the process measures one model and ends.
    """
    flags.precision.set_tf32()
    torch.backends.cudnn.benchmark = flags.cudnn_benchmark
    set_fused_attn(flags.fused_attention)
    torch.manual_seed(0)


class Workload:
    """One model on its device, ready to run."""

    def __init__(self, job: Job, device: str) -> None:
        self.flags = PROTOCOLS[str(job["protocol"])]
        self._name, self._res, self._device = str(job["model"]), int(job["res"]), device
        self._format = torch.channels_last if self.flags.channels_last else torch.preserve_format
        model = models.build_with_random_weights(self._name, self._res)
        self._model = model.to(device).to(memory_format=self._format)

    def make_step(self, batch: int) -> Step:
        """Return what is timed: the forward pass of one batch of random images that is on the device already."""
        return self._make_step(self._model, self._make_images(batch))

    def make_compiled_step(self, batch: int) -> tuple[Step, str]:
        """Return the step as the protocol wants it; where it does not compile, the eager one and the reason.

        Compiled only here because each batch size is compiled anew: the searches before run in eager mode.
        """
        if self.flags.compile is None:
            return self.make_step(batch), ""
        compiled = torch.compile(self._model, mode=self.flags.compile, dynamic=False)
        step = self._make_step(compiled, self._make_images(batch))
        try:
            step()
        except Exception as error:
            if is_out_of_memory_error(error):
                raise  # the batch is too large, which says nothing about the compiler
            reason = " ".join(str(error).split())[:200]
            return self.make_step(batch), f"not compiled: {type(error).__name__}: {reason}"
        return step, ""

    def check_output(self) -> None:
        """Run one fixed image: a model whose output is not a row of finite numbers is not worth timing."""
        shape = (1, models.CHANNELS, self._res, self._res)
        image = torch.linspace(-1, 1, shape[1] * shape[2] * shape[3], device=self._device).view(shape)
        output: object = self._make_step(self._model, image)()
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != 1:
            kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise JobError(f"'{self._name}' returns {kind} for one image, not one row of class scores")
        if not bool(torch.isfinite(output).all()):
            raise JobError(f"'{self._name}' returns numbers that are not finite for a fixed image")

    def _make_images(self, batch: int) -> torch.Tensor:
        images = torch.randn(batch, models.CHANNELS, self._res, self._res, device=self._device)
        return images.to(memory_format=self._format)

    def _make_step(self, model: Callable[[torch.Tensor], torch.Tensor] | nn.Module, images: torch.Tensor) -> Step:
        kind = self._device.partition(":")[0]

        @torch.inference_mode()
        def forward() -> torch.Tensor:
            with self.flags.precision.context(kind):
                scores: torch.Tensor = model(images)
            return scores

        return forward
