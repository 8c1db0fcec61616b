"""Count what a network is made of, on the meta device: no weights, no images, no memory."""

from typing import Any

import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import JobError
from harness.job import Job
from harness.jobs import network, traffic
from harness.progress import Progress
from harness.result import Measurement


def work(job: Job, report: Any) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:  # noqa: ANN401
    """Count parameters and multiply-adds and read the architecture off the network.

    Multiply-adds are counted as the field does: one for each product in convolutions, linear layers and the two matrix
    products of attention; norms, activations, softmax and additions are left out.  torch's counter gives twice that
    (FLOPs).  The attention is the unfused one, whose products the counter sees.
    """
    report(Progress(job=job, phase="counting"))
    name, res = str(job["model"]), int(job["res"])
    set_fused_attn(enable=False)
    model = network.skeleton(name, res)
    images = torch.empty(1, network.CHANNELS, res, res, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            model(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise JobError(f"'{name}' does not take images of {res} pixels: {error}") from error
    parameters = sum(parameter.numel() for parameter in model.parameters())
    moved = traffic.bytes_per_image(model, images)
    found = {
        "params": Measurement(unit="M", value=parameters / 1e6),
        "macs": Measurement(unit="GMAC", value=counter.get_total_flops() / 2 / 1e9),
        "activations": Measurement(unit="MB", value=moved / 1e6),
        "res": Measurement(unit="px", value=res),
        **{key: Measurement(unit="", value=value) for key, value in _shape(model).items()},
    }
    facts = {"parameters": parameters, "multiply_adds": counter.get_total_flops() // 2}
    return found, facts, []


def _shape(model: Any) -> dict[str, int]:  # noqa: ANN401 -- timm's networks share no typed base
    """Read embedding dimension, heads, layers and tokens off a transformer; a convnet has none of them."""
    blocks = getattr(model, "blocks", None)
    position = getattr(model, "pos_embed", None)
    if not isinstance(blocks, nn.Sequential) or not isinstance(position, torch.Tensor):
        return {}
    attention: Any = getattr(blocks[0], "attn", None)
    if attention is None:
        return {}
    patches = model.patch_embed.num_patches
    return {
        "embed_dim": int(model.embed_dim),
        "heads": int(attention.num_heads),
        "layers": len(blocks),
        "tokens": int(patches + model.num_prefix_tokens),
    }
