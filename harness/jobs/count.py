"""Count parameters, MACs and activations of a model on the meta device: no weights, no images, no memory."""

from collections.abc import Callable, Iterable
from typing import Any

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import JobError
from harness.jobs import Outcome, models
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.specs.model_names import program_file, unsupported
from harness.store.result import Measurement

# Not marked as views, but they do not touch the data either.
MOVE_NOTHING = ("aten::_unsafe_view", "aten::empty")


def count_model(job: Job, report: Report) -> Outcome:
    """Count parameters and MACs and read the architecture from the model.

    MACs are counted as usual: one for each product in convolutions, linear layers and the two matrix products of
    attention; norms, activations, softmax and additions are left out.  torch's counter returns twice that (FLOPs), of
    the unfused attention, whose products it sees.
    """
    report(Progress(job=job, phase="counting"))
    name, size = str(job["model"]), models.size_of(job)
    if reason := unsupported(job.kind, name):
        raise JobError(reason)
    set_fused_attn(enable=False)
    # Without gradients of the weights: torch's counter hooks into them, for which `no_grad` leaves nothing.
    model = models.build_on_meta(name, size).requires_grad_(requires_grad=False)
    images = torch.zeros(1, models.CHANNELS, *size, device="cpu" if program_file(name) else "meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            model(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            pixels = models.size_text(size)
            raise JobError(f"'{name}' fails on an image of {pixels} pixels{_own_size(name, size)}: {error}") from error
    parameters, macs = sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2
    metrics = {
        "params": Measurement(unit="M", value=parameters / 1e6),
        "macs": Measurement(unit="GMAC", value=macs / 1e9),
        "activations": Measurement(unit="MB", value=activation_bytes_per_image(model, images) / 1e6),
        "res": Measurement(unit="px", value=size[0]),
        **{key: Measurement(unit="", value=value) for key, value in _architecture(model).items()},
    }
    return metrics, {"parameters": parameters, "multiply_adds": macs}, []


def _own_size(name: str, size: tuple[int, int]) -> str:
    """Name the size that timm has for a model, where it is another one: the usual reason of a failure."""
    config = timm.get_pretrained_cfg(name)
    own = size if config is None else (int(config.input_size[1]), int(config.input_size[2]))
    return "" if own == size else f" (timm's size for it is {models.size_text(own)})"


def _architecture(model: Any) -> dict[str, int]:  # noqa: ANN401 -- timm's models share no typed base
    """Return embedding dimension, heads, layers and tokens of a plain transformer; empty for any other model."""
    blocks = getattr(model, "blocks", None)
    position = getattr(model, "pos_embed", None)
    if not isinstance(blocks, nn.Sequential) or not isinstance(position, torch.Tensor):
        return {}
    attention: Any = getattr(blocks[0], "attn", None)
    try:
        return {
            "embed_dim": int(model.embed_dim),
            "heads": int(attention.num_heads),
            "layers": len(blocks),
            "tokens": int(model.patch_embed.num_patches + model.num_prefix_tokens),
        }
    except AttributeError:  # a transformer of several stages, or one without a sequence of tokens
        return {}


class TrafficCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lack
    """Adds up the bytes of every tensor that an operation reads or writes, except the weights.

    That is what a model in eager mode moves if no cache helps: each layer reads its input from memory and writes its
    output back.  Views move nothing.  The weights are left out because they are read once a batch, whatever its size.
    """

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0
        self._weights = {id(weight): weight for weight in weights}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- as torch calls it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        if func.is_view:
            if any(id(tensor) in self._weights for tensor in tensors):
                # A transposed weight is a weight.  Referenced, so that no other tensor gets its id.
                self._weights.update({id(tensor): tensor for tensor in tensors})
        elif not func.name().startswith(MOVE_NOTHING):
            self.bytes += sum(tensor.nbytes for tensor in tensors if id(tensor) not in self._weights)
        return output


def activation_bytes_per_image(model: nn.Module, images: torch.Tensor) -> int:
    """Count the bytes per image that a forward pass of `images` (shape [batch, channels, height, width]) moves."""
    forward: Callable[[torch.Tensor], object] = model
    # Not inference mode: there torch hides which operations a layer consists of.
    counter = TrafficCounter([*model.parameters(), *model.buffers()])
    with torch.no_grad(), counter:
        forward(images)
    return counter.bytes // images.shape[0]
