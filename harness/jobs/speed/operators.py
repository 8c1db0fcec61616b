"""A model -> what one forward pass of it does: every operator, counted as torch calls it, on any device or on none."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.jobs.count import MOVE_NOTHING
from harness.store.cost import Cost

# What asks a tensor something and does nothing with it.
_QUESTIONS = ("prim::", *MOVE_NOTHING)

# For one image torch takes shortcuts that it takes for no other number.
IMAGES = 2

# Fused attention on a CPU, for which torch's table of FLOPs has no line: query, key and value come first.
_FUSED_ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class CostCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lack
    """Counts every operator below it that computes or copies; views, which do neither, are left out.

    A tensor counts as allocated if an operator returns it in a storage that it was not given, and until nothing refers
    to that storage.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()
        self.flops = self.read = self.written = self.allocations = self.peak = 0
        self.digest = hashlib.sha256()
        self._live: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- as torch calls it
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        given = _tensors(leaves)
        described = _description(func.name(), leaves)  # before the call, which may write over what it was given
        storages = set(map(_storage, given))
        output = func(*args, **kwargs)
        returned = _tensors(tree_leaves(output))
        if func.is_view:
            return output
        self._allocate(tensor for tensor in returned if _storage(tensor) not in storages)
        if not func.name().startswith(_QUESTIONS):
            self.operators[_key(func.name(), leaves)] += 1
            self.digest.update(described.encode())
            self.flops += _flops(func, args, kwargs, output)
            self.read += sum(tensor.nbytes for tensor in given)
            self.written += sum(tensor.nbytes for tensor in returned)
        return output

    def _allocate(self, made: Iterable[torch.Tensor]) -> None:
        self._live = {storage: size for storage, size in self._live.items() if not storage.expired()}  # type: ignore[no-untyped-call]
        for tensor in made:
            self._live[_storage(tensor)] = tensor.untyped_storage().nbytes()
            self.allocations += 1
        self.peak = max(self.peak, sum(self._live.values()))


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    """Return what tells the storage of a tensor from others, and keeps it no longer."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _tensors(leaves: Iterable[object]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _key(name: str, leaves: Iterable[object]) -> str:
    """Return what calls of an operator are counted under: its name, how it computes, in which type and layout.

    The text among its arguments is part of the name: `gelu(tanh)` is another function than `gelu(none)`.
    """
    leaves = list(leaves)
    tensors = _tensors(leaves)
    texts = [leaf for leaf in leaves if isinstance(leaf, str)]
    dtype = next((str(tensor.dtype) for tensor in tensors), "").removeprefix("torch.")
    layout = "channels_last" if any(_is_channels_last(tensor) for tensor in tensors) else ""
    name = name.removeprefix("aten::").partition(".")[0] + (f"({', '.join(texts)})" if texts else "")
    return " ".join(filter(None, (name, dtype, layout)))


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _description(name: str, leaves: Iterable[object]) -> str:
    """Return an operator with the shapes, types and layouts of its tensors, and its other arguments, as one text."""
    parts = [
        f"{tuple(leaf.shape)}{leaf.dtype}{leaf.device.type}{_is_channels_last(leaf)}"
        if isinstance(leaf, torch.Tensor)
        else leaf.type
        if isinstance(leaf, torch.device)  # whichever of several GPUs it is
        else repr(leaf)
        for leaf in leaves
        if not isinstance(leaf, torch.Generator)
    ]
    return f"{name}({', '.join(parts)})\n"


def _flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object) -> int:  # noqa: ANN401
    """Return two for each product of convolutions, linear layers and attention, as torch counts them; else 0."""
    if func.name().startswith(_FUSED_ON_CPU):
        return int(flop_counter.sdpa_flop_count(*(tensor.shape for tensor in args[:3])))  # type: ignore[no-untyped-call]
    count = flop_counter.flop_registry.get(func._overloadpacket)  # noqa: SLF001 -- as torch's own counter has it
    return int(count(*args, **kwargs, out_val=output)) if count else 0


def count_cost(model: nn.Module, images: torch.Tensor, context: AbstractContextManager[object] | None = None) -> Cost:
    """Count a forward pass of `images` (shape [batch, channels, height, width]) in a context, as one of autocast.

    Gradients are off, and inference mode is as well, in which torch hides what a layer consists of.
    """
    forward: Callable[[torch.Tensor], Any] = model
    with torch.no_grad(), context or nullcontext(), CostCounter() as counter:
        output = forward(images)
    modules = list(model.modules())
    return Cost(
        torch=torch.__version__,
        shape=tuple(images.shape),
        operators=counter.operators,
        digest=counter.digest.hexdigest()[:16],
        flops=counter.flops,
        read=counter.read,
        written=counter.written,
        allocations=counter.allocations,
        peak=counter.peak,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hooks=sum(len(getattr(module, kind)) for module in modules for kind in _HOOKS),
        training=sum(module.training for module in modules),
        gradients=any(tensor.requires_grad for tensor in _tensors(tree_leaves(output))),
    )
