"""Position embeddings for one size of image -> for another: the patches' interpolated, the tokens' untouched."""

import math

import torch
from torch import nn
from torch.nn import functional

State = dict[str, torch.Tensor]


def resized(embedding: torch.Tensor, *, tokens: int, side: int) -> torch.Tensor:
    """Interpolate the embedding of a square grid of patches, bicubically: bilinear would shrink it (section 6).

    `embedding` has shape (1, tokens + old × old, width); the first `tokens` (class, distillation) stay as they are.
    The result has shape (1, tokens + side × side, width).
    """
    kept, patches = embedding[:, :tokens], embedding[:, tokens:]
    old, width = math.isqrt(patches.shape[1]), patches.shape[2]
    if old == side:
        return embedding
    grid = patches.reshape(1, old, old, width).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid.float(), size=(side, side), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, side * side, width).to(embedding.dtype)
    return torch.cat([kept, patches], dim=1)


def fitted(model: nn.Module, state: State) -> State:
    """Give weights of a network for the size of images that this one takes."""
    wanted = getattr(model, "pos_embed", None)
    if "pos_embed" not in state or not isinstance(wanted, torch.Tensor) or wanted.ndim != 3:
        return state
    tokens = int(getattr(model, "num_prefix_tokens", 1))
    side = math.isqrt(wanted.shape[1] - tokens)
    return {**state, "pos_embed": resized(state["pos_embed"], tokens=tokens, side=side)}
