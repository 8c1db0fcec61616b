"""How many bytes the layers of a network read and write for one image, run one after the other."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Not called views, but they do not touch the data either.
MOVE_NOTHING = ("aten::_unsafe_view", "aten::empty")


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lack
    """Adds up the bytes of every tensor that an operation reads or writes, but for the weights.

    That is what an eager network moves if no cache helps: each layer reads its input from memory and writes its output
    back.  Views move nothing.  The weights are left out because they are read once a batch, whatever its size.
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
        leaves = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        if func.is_view and any(id(leaf) in self._weights for leaf in leaves):
            # A transposed weight is a weight.  Held, so that no other tensor gets its id.
            self._weights.update({id(leaf): leaf for leaf in leaves})
        if not func.is_view and not func.name().startswith(MOVE_NOTHING):
            self.bytes += sum(leaf.numel() * leaf.element_size() for leaf in leaves if id(leaf) not in self._weights)
        return output


def bytes_per_image(model: nn.Module, images: torch.Tensor) -> int:
    """Count the bytes that one pass of `images` (of shape [batch, channels, height, width]) moves, per image."""
    weights = [*model.parameters(), *model.buffers()]
    run: Callable[[torch.Tensor], object] = model
    # Not inference mode: there torch hides which operations a layer consists of.
    traffic = Traffic(weights)
    with torch.no_grad(), traffic:
        run(images)
    return traffic.bytes // images.shape[0]
