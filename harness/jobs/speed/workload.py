"""A model on a device under a protocol: every flag that can change a number, and the step that is timed."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from timm.layers import set_fused_attn
from timm.optim import create_optimizer_v2
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import JobError
from harness.jobs import models, other_models
from harness.jobs.precision import Precision
from harness.jobs.speed.operators import IMAGES, count_cost
from harness.jobs.too_large import too_large
from harness.plan.job import Job
from harness.specs.kinds import SCRIPT

Step = Callable[[], torch.Tensor]

Arranged = TypeVar("Arranged", nn.Module, torch.Tensor)

# What kernels count to: the elements of a tensor in a signed number of 32 bits, blocks of a grid in one of 16.
INDICES = 2**31 - 1
MOST_BLOCKS = 2**16 - 1

# What no protocol but timm's sets.
_RARE_FLAGS = ("dtype", "training", "synchronize", "inference_mode", "as_script")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Every flag that can change the number, as it was set; the defaults are the paper's protocol.

    Section 5 of the paper and the authors' statements: float32, inference.  PyTorch 1.7 had no fused attention, and a
    V100 has no TF32.  The paper does not mention cuDNN's benchmark mode; it is off, torch's default.  `autocast` names
    the lower precision that torch computes in, if any; `dtype` is that of the weights and the images.  A step is the
    forward pass, or with `training` a step of SGD; `synchronize` waits for the device after each.

    `as_script` measures as a script does that sets nothing: malloc as the system has it, timm's own initial weights, a
    warm-up of a fixed number of iterations.
    """

    autocast: str | None = None
    dtype: str = "float32"
    tf32_matmul: bool = False
    tf32_cudnn: bool = False
    fused_attention: bool = False
    cudnn_benchmark: bool = False
    channels_last: bool = False
    compile: str | None = None
    training: bool = False
    synchronize: bool = False
    inference_mode: bool = True
    as_script: bool = False

    @property
    def facts(self) -> dict[str, object]:
        """What the result records: of what the protocols of ours leave alone, only what was changed."""
        usual = {} if self.as_script else {name: getattr(Flags(), name) for name in _RARE_FLAGS}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

    @property
    def precision(self) -> Precision:
        """The arithmetic; no protocol has TF32 in one of torch's two libraries alone."""
        return Precision(autocast=self.autocast, tf32=self.tf32_matmul)

    def arranged(self, what: Arranged) -> Arranged:
        """Return a model, or images, in the type and the layout of these flags."""
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        return what.to(getattr(torch, self.dtype)).to(memory_format=memory_format)


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
    # timm's benchmark.py (commit aa4b585) allows TF32 and cuDNN's benchmark mode, whatever its arguments are.
    SCRIPT: Flags(
        tf32_matmul=True,
        tf32_cudnn=True,
        fused_attention=True,
        cudnn_benchmark=True,
        synchronize=True,
        as_script=True,
    ),
}

_PLAIN_SWITCHES = ("fused_attention", "channels_last", "cudnn_benchmark", "synchronize", "inference_mode")


def flags_of(job: Job) -> Flags:
    """Return the flags of a throughput's protocol, with those changed that the job sets otherwise."""
    settings = dict(job.settings)
    changed: dict[str, Any] = {name: bool(settings[name]) for name in _PLAIN_SWITCHES if name in settings}
    if "compile" in settings:
        changed["compile"] = "default" if settings["compile"] else None
    if "step" in settings:
        changed["training"] = settings["step"] == "training"
    if "precision" in settings:
        changed |= _arithmetic(str(settings["precision"]), autocast=bool(settings.get("autocast", True)))
    return replace(PROTOCOLS[str(job["protocol"])], **changed)


def _arithmetic(precision: str, *, autocast: bool) -> dict[str, Any]:
    """Return the flags of a precision: torch lowers to it where it may, or weights and images are of it.

    Whether float32 is computed as TF32 is the protocol's, unless that is what is set.
    """
    if precision == "tf32":
        return {"autocast": None, "dtype": "float32", "tf32_matmul": True, "tf32_cudnn": True}
    lowered = None if precision == "float32" else precision
    return {"autocast": lowered if autocast else None, "dtype": "float32" if autocast else precision}


def set_flags(flags: Flags) -> None:
    """Set every flag explicitly, whatever torch's or the environment's defaults are.

    Nothing is restored: the process measures one model and ends.
    """
    flags.precision.set_tf32()
    torch.backends.cudnn.benchmark = flags.cudnn_benchmark
    set_fused_attn(flags.fused_attention)
    torch.manual_seed(0)


@contextmanager
def _without_search() -> Iterator[None]:
    """Keep cuDNN from searching for the fastest kernels of a pass that is not timed."""
    searches, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches


def _compiled_so_far() -> dict[str, int]:
    """Return what torch's compiler has made in this process: kernels, and breaks between its graphs."""
    from torch._dynamo.utils import counters  # noqa: PLC0415 -- a second of imports that only a compiled step needs
    from torch._inductor import metrics  # noqa: PLC0415

    return {"kernels": metrics.generated_kernel_count, "graph_breaks": sum(counters["graph_break"].values())}


class _ElementCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lack
    """Notes the elements of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements: list[int] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- as torch calls it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        self.elements += [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        return output


class Workload:
    """One model on its device, ready to run; `compile_seconds` are those of the first iteration that compiled it."""

    smallest_batch = 1
    largest_batch = None

    def __init__(self, job: Job, device: str) -> None:
        self.flags = flags_of(job)
        self.compile_seconds = 0.0
        self._name, self._size, self._device = str(job["model"]), models.size_of(job), device
        self._dtype: torch.dtype = getattr(torch, self.flags.dtype)
        changed = {**vars(self.flags), "dtype": self.flags.dtype != Flags.dtype}
        other_models.check_flags(self._name, changed, remedy="protocol = 'paper'")
        build = models.build_initialised if self.flags.as_script else models.build_with_random_weights
        self._model = self.flags.arranged(build(self._name, self._size).to(device))
        self._kind = device.partition(":")[0]
        self._compiled: dict[str, Any] = {}

    def make_step(self, batch: int) -> Step:
        """Return what is timed: one step on a batch of random images that is on the device already."""
        return self._make_timed_step(self._model, self._make_images(batch))

    def make_compiled_step(self, batch: int) -> tuple[Step, str]:
        """Return the step as the protocol wants it; where it does not compile, the eager one and the reason.

        Compiled only here because each batch size is compiled anew: the searches before run in eager mode.
        """
        if self.flags.compile is None:
            return self.make_step(batch), ""
        compiled = torch.compile(self._model, mode=self.flags.compile, dynamic=False)
        step = self._make_timed_step(compiled, self._make_images(batch))
        before, began = _compiled_so_far(), time.perf_counter()
        try:
            step()  # torch compiles at the first call
        except Exception as error:
            if too_large(error):
                raise  # the batch is too large, which says nothing about the compiler
            reason = " ".join(str(error).split())[:200]
            return self.make_step(batch), f"not compiled: {type(error).__name__}: {reason}"
        self.compile_seconds = time.perf_counter() - began
        self._compiled = {name: count - before[name] for name, count in _compiled_so_far().items()}
        return step, ""

    def count_cost(self) -> dict[str, Any] | None:
        """Return what a forward pass does, as a result holds it; None for a model that cannot be watched.

        It is that of a small batch in eager mode, whatever is timed; of a compiled step it tells the kernels as well.
        On a CPU, where a pass takes long, it is computed only where the model reads what it computes.
        """
        modes: list[AbstractContextManager[object]] = [nullcontext()]
        if self._kind == "cpu":
            modes.insert(0, FakeTensorMode(allow_non_fake_inputs=True))
        for mode in modes:
            try:
                with mode, _without_search():
                    cost = count_cost(self._model, self._make_images(IMAGES), self.flags.precision.context(self._kind))
            except Exception:  # noqa: BLE001, S112 -- what cannot be watched can be timed all the same
                continue
            # ONNX Runtime computes where torch sees nothing.
            return replace(cost, **self._compiled).to_data() if cost.calls else None
        return None

    def check_output(self) -> None:
        """Run one fixed image: a model whose output is not a row of finite numbers is not worth timing."""
        shape = (1, models.CHANNELS, *self._size)
        image = torch.linspace(-1, 1, shape[1] * shape[2] * shape[3], device=self._device).view(shape).to(self._dtype)
        output: object = self._make_step(self._model, image)()
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != 1:
            kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise JobError(f"'{self._name}' returns {kind} for one image, not one row of class scores")
        if not bool(torch.isfinite(output).all()):
            raise JobError(f"'{self._name}' returns numbers that are not finite for a fixed image")

    def most_images(self) -> int:
        """Return the images of the largest batch that a GPU's kernels take, whatever its memory.

        They count a tensor's elements in 32 bits, and blocks over the batch in 16.
        """
        try:
            with torch.no_grad():
                # Not of one image, for which torch takes shortcuts: the operations would not be the same.
                counts = [self._count_elements(batch) for batch in (2, 3)]
        except Exception as error:
            if not too_large(error):
                raise
            return MOST_BLOCKS  # the memory bounds it long before
        # What does not grow with the batch is of the weights.
        grown: int = max(more - fewer for fewer, more in zip(*counts, strict=False))
        return min(MOST_BLOCKS, (INDICES - 1) // max(1, grown))

    def _count_elements(self, batch: int) -> list[int]:
        """Return the elements of each tensor that a forward pass makes, in order."""
        images = self._make_images(batch)
        with _ElementCounter() as counter, self.flags.precision.context(self._kind):
            self._model(images)
        return [images.numel(), *counter.elements]

    def _make_images(self, batch: int) -> torch.Tensor:
        shape = (batch, models.CHANNELS, *self._size)
        return self.flags.arranged(torch.randn(*shape, device=self._device, dtype=self._dtype))

    def _make_timed_step(self, model: Callable[[torch.Tensor], torch.Tensor] | nn.Module, images: torch.Tensor) -> Step:
        return self._make_training_step(model, images) if self.flags.training else self._make_step(model, images)

    def _make_training_step(
        self, model: Callable[[torch.Tensor], torch.Tensor] | nn.Module, images: torch.Tensor
    ) -> Step:
        """Return a step of SGD as timm's benchmark.py has it: random labels, no scaling of the loss."""
        self._model.train()
        optimizer = create_optimizer_v2(self._model, opt="sgd", lr=1e-4)

        def train() -> torch.Tensor:
            optimizer.zero_grad()
            with self.flags.precision.context(self._kind):
                scores: torch.Tensor = model(images)
                labels = torch.empty(len(scores), device=self._device, dtype=torch.long).random_(scores.shape[1])
                loss = nn.functional.cross_entropy(scores, labels)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return loss

        return train

    def _make_step(self, model: Callable[[torch.Tensor], torch.Tensor] | nn.Module, images: torch.Tensor) -> Step:
        without_gradients = torch.inference_mode if self.flags.inference_mode else torch.no_grad

        def forward() -> torch.Tensor:
            with without_gradients(), self.flags.precision.context(self._kind):
                scores: torch.Tensor = model(images)
            return scores

        return forward
