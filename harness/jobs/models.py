"""Name and size -> a timm model, with random weights or on the meta device."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.errors import JobError, did_you_mean

CHANNELS = 3

# Where a transformer has dropout: behind the position embedding, the projection of each attention and both layers of
# each MLP, by timm's names.  So it is in ViT, and `drop_rate` meant these in the authors' timm 0.3.2 (25 modules in
# DeiT-Ti, since one served both layers of an MLP).  In timm 1.x `drop_rate` is the dropout of the classifier alone.
_TRANSFORMER_DROPOUT = ("pos_drop", "proj_drop", "drop1", "drop2")


def unknown_model_message(name: str) -> str:
    """Return a sentence for a model that timm does not know, with the nearest name; empty if it does."""
    if timm.is_model(name):
        return ""
    return f"timm {timm.__version__} knows no model '{name}'{did_you_mean(name, timm.list_models())}"


def unknown_model_messages(names: tuple[str, ...]) -> dict[str, str]:
    """Return a sentence for each of these models that timm does not know."""
    return {name: message for name in names if (message := unknown_model_message(name))}


def build_on_meta(
    name: str, res: int, *, classes: int | None = None, shape: Mapping[str, float] | None = None
) -> nn.Module:
    """Build the model on the meta device: its structure and sizes, no weights, no memory.

    `classes` is timm's own number unless it is given; `shape` are arguments that differ from those of the name.
    """
    with _MetaDevice():
        return _create(name, res, classes=classes, shape=shape).to("meta")


def build_with_random_weights(name: str, res: int) -> nn.Module:
    """Build the model on the CPU, in eval mode, with random weights; throughput does not depend on which.

    timm's own initialisation draws each weight from a truncated normal distribution, which for a ViT-L takes longer
    than timing it once.  So the weights are filled from one block of random numbers, scaled by fan-in, unless the
    model has computed tensors, which building it on the meta device would lose.
    """
    model = build_on_meta(name, res)
    if _has_computed_tensors(model):
        return _create(name, res)
    model = model.to_empty(device="cpu")
    _fill(model)
    return model


def build_empty(name: str, res: int, *, classes: int, shape: Mapping[str, int] | None = None) -> nn.Module:
    """Build the model on the CPU, uninitialised, for weights that will fill every parameter."""
    model = build_on_meta(name, res, classes=classes, shape=shape)
    if _has_computed_tensors(model):
        return _create(name, res, classes=classes, shape=shape)
    return model.to_empty(device="cpu")


def build_trainable(name: str, res: int, *, classes: int, shape: Mapping[str, float]) -> nn.Module:
    """Build the model on the CPU with timm's own random weights.

    `shape` may have rates, too: `drop_path_rate`, and `drop_rate`, which in a model with attention is that of
    `transformer_dropouts`.
    """
    return _create(name, res, classes=classes, shape=shape)


def has_attention(model: nn.Module) -> bool:
    """Whether it is a transformer, or a convnet with attention."""
    return any(name.endswith(".proj_drop") for name, _ in model.named_modules())


def transformer_dropouts(model: nn.Module) -> dict[str, nn.Dropout]:
    """Return the places where a model with attention has dropout, by name; none of a convnet."""
    if not has_attention(model):
        return {}
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    return {name: module for name, module in modules.items() if name.rpartition(".")[2] in _TRANSFORMER_DROPOUT}


class _MetaDevice(TorchFunctionMode):
    """Creates parameters and buffers on the meta device, everything else where it belongs.

    Under `torch.device("meta")` the older timm fails: it reads the rates of stochastic depth from a `linspace`.
    """

    _factories = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 -- as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        if func in self._factories and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _create(name: str, res: int, *, classes: int | None = None, shape: Mapping[str, float] | None = None) -> nn.Module:
    if message := unknown_model_message(name):
        raise JobError(message)
    config = timm.get_pretrained_cfg(name)
    arguments: dict[str, Any] = dict(shape or {})
    dropout = arguments.pop("drop_rate", 0.0)
    # A model of fixed input size (position embedding, windows) must be built for it; a convnet takes any.
    if config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != (res, res):
        arguments["img_size"] = res
    if classes is not None and (config is None or config.num_classes != classes):
        arguments["num_classes"] = classes
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        if dropout and not has_attention(model):  # where timm puts it is where it is in a convnet
            model = timm.create_model(name, pretrained=False, drop_rate=dropout, **arguments)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise JobError(f"timm cannot build '{name}' for {res} pixels: {error}") from error
    for place in transformer_dropouts(model).values() if dropout else ():
        place.p = dropout
    _check_patches(name, res, model)
    return model.eval()


def _check_patches(name: str, res: int, model: nn.Module) -> None:
    """Refuse a size that the patches do not cover: timm would silently leave out the border."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(res % side for side in patch):
        raise JobError(f"'{name}' has patches of {patch[0]} pixels, which do not divide {res}; choose a multiple")


def _has_computed_tensors(model: nn.Module) -> bool:
    """Whether there is a tensor that is neither a parameter nor a norm's statistics."""
    for module in model.modules():
        buffers = {name for name, _ in module.named_buffers(recurse=False)}
        if buffers - {"running_mean", "running_var", "num_batches_tracked"}:
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
            piece = flat[start : start + block.numel()]
            torch.mul(block[: piece.numel()], scale, out=piece)
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if name.endswith("running_var") else 0)
