"""Name and size -> a timm network, with random weights or with no memory at all."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.errors import JobError, did_you_mean

CHANNELS = 3


def unknown(name: str) -> str:
    """Say that timm does not know a network, with the nearest name; empty if it does."""
    if timm.is_model(name):
        return ""
    return f"timm {timm.__version__} knows no model '{name}'{did_you_mean(name, timm.list_models())}"


def skeleton(name: str, res: int, *, classes: int | None = None, shape: Mapping[str, float] | None = None) -> nn.Module:
    """Build the network on the meta device: its structure and sizes, no weights, no memory.

    `classes` is timm's own number unless it is given, `shape` what makes the network other than its name says.
    """
    with _WithoutMemory():
        return _create(name, res, classes=classes, shape=shape).to("meta")


def with_random_weights(name: str, res: int) -> nn.Module:
    """Build the network on the CPU, in eval mode, with random weights; speed does not depend on which.

    timm's own initialisation draws each weight from a truncated normal distribution, which for a ViT-L takes longer
    than timing it once.  So the weights are filled from one block of random numbers, scaled by fan-in, unless the
    network holds computed tensors that would be lost by building it without memory first.
    """
    model = skeleton(name, res)
    if _holds_computed_tensors(model):
        return _create(name, res)
    model = model.to_empty(device="cpu")
    _fill(model)
    return model


def blank(name: str, res: int, *, classes: int, shape: Mapping[str, int] | None = None) -> nn.Module:
    """Build the network on the CPU for weights that will fill every parameter: nothing is drawn at random."""
    model = skeleton(name, res, classes=classes, shape=shape)
    if _holds_computed_tensors(model):
        return _create(name, res, classes=classes, shape=shape)
    return model.to_empty(device="cpu")


def trainable(name: str, res: int, *, classes: int, shape: Mapping[str, int], rates: Mapping[str, float]) -> nn.Module:
    """Build the network on the CPU with timm's own random weights; `rates` are of dropout and stochastic depth."""
    return _create(name, res, classes=classes, shape={**shape, **{key: rate for key, rate in rates.items() if rate}})


class _WithoutMemory(TorchFunctionMode):
    """Makes parameters and buffers on the meta device, and all else where it says.

    Under `torch.device("meta")` the older timm fails: it reads the rates of stochastic depth out of a `linspace`.
    """

    _factories = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 -- as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        told = dict(kwargs or {})
        if func in self._factories and told.get("device") is None:
            told["device"] = "meta"
        return func(*args, **told)


def _create(name: str, res: int, *, classes: int | None = None, shape: Mapping[str, float] | None = None) -> nn.Module:
    reason = unknown(name)
    if reason:
        raise JobError(reason)
    config = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = dict(shape or {})
    # A network of fixed input size (position embedding, windows) must be built for it; a convnet takes what comes.
    if config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != (res, res):
        sized["img_size"] = res
    if classes is not None and (config is None or config.num_classes != classes):
        sized["num_classes"] = classes
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **sized)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise JobError(f"timm cannot build '{name}' for {res} pixels: {error}") from error
    _check_patches(name, res, model)
    return model.eval()


def _check_patches(name: str, res: int, model: nn.Module) -> None:
    """Refuse a size that the patches do not cover: timm would leave the border out without a word."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(res % side for side in patch):
        raise JobError(f"'{name}' has patches of {patch[0]} pixels, which do not divide {res}; choose a multiple")


def _holds_computed_tensors(model: nn.Module) -> bool:
    """Whether there is a tensor that neither training nor a norm's statistics account for."""
    for module in model.modules():
        own = {name for name, _ in module.named_buffers(recurse=False)}
        if own - {"running_mean", "running_var", "num_batches_tracked"}:
            return True
        if any(isinstance(value, torch.Tensor) for value in vars(module).values()):
            return True
    return False


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    block = torch.empty(2**20).uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)  # variance 1
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        flat, scale = parameter.view(-1), parameter[0].numel() ** -0.5
        for start in range(0, flat.numel(), block.numel()):
            part = flat[start : start + block.numel()]
            torch.mul(block[: part.numel()], scale, out=part)
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if name.endswith("running_var") else 0)
