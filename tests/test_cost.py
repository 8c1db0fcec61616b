"""What a forward pass costs is counted exactly, and a change of it is told with its cause."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.nn import functional

from harness.gate.cost import decide_cost, explain
from harness.gate.decision import Outcome
from harness.jobs.speed.operators import count_cost
from harness.store.cost import Cost, from_data

SIZE, LAYERS, WIDTH = 32, 3, 48

# Two patches a side of 16 pixels, and the class token.
TOKENS = 5


def transformer(**changes: object) -> nn.Module:
    """Build a small vision transformer of timm's, with unfused attention unless `fused`."""
    set_fused_attn(bool(changes.pop("fused", False)))
    shape = {"img_size": SIZE, "depth": LAYERS, "embed_dim": WIDTH, "num_heads": 3, "num_classes": 10}
    model: nn.Module = timm.create_model("deit_tiny_patch16_224", **{**shape, **changes})
    return model.eval()


def convnet() -> nn.Module:
    """Build a small convnet."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()


def cost(model: nn.Module, size: int = SIZE, *, lowered: bool = False, channels_last: bool = False) -> Cost:
    """Count a pass of two images."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.zeros(2, 3, size, size).to(memory_format=memory_format)
    return count_cost(
        model.to(memory_format=memory_format),  # type: ignore[call-overload]
        images,
        torch.autocast("cpu", dtype=torch.bfloat16) if lowered else nullcontext(),
    )


class Around(nn.Module):
    """Runs something else with a model and its images."""

    def __init__(self, model: nn.Module, run: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.run(self.model, images)


def around(run: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Cost:
    return cost(Around(transformer(), run))


def twice(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    model(images)
    return once(model, images)


def once(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = model(images)
    return scores


def in_float32(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return once(model, images)


def with_gradients(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return once(model, images)


def reading_the_scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    scores = once(model, images)
    assert scores.sum().item() < 1e6
    return scores


def in_float64(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return once(model.double(), images.double())


def hooked() -> nn.Module:
    model = transformer()
    model.get_submodule("blocks.1").register_forward_hook(lambda *_: None)
    return model


def not_in_place() -> nn.Module:
    model = convnet()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def folded() -> nn.Module:
    """Build the convnet with its norm inside the convolution before it."""
    convolution, norm, *rest = convnet()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(nn.utils.fusion.fuse_conv_bn_eval(convolution, norm), *rest).eval()


def compiled(kernels: int | None, breaks: int | None) -> Cost:
    return replace(cost(convnet()), kernels=kernels, graph_breaks=breaks)


# What was changed: before, now, and what is said of the cause.
PLANTED: dict[str, tuple[Callable[[], Cost], Callable[[], Cost], str]] = {
    "unfused attention": (
        lambda: cost(transformer(fused=True)),
        lambda: cost(transformer()),
        f"a softmax and 2 matmuls in each of {LAYERS} layers: attention is no longer fused",
    ),
    "float32 under autocast": (
        lambda: cost(Around(transformer(), once), lowered=True),
        lambda: cost(Around(transformer(), in_float32), lowered=True),
        "operators in float32, were in bfloat16",
    ),
    "float64": (lambda: around(once), lambda: around(in_float64), "operators in float64, were in float32"),
    "autocast lost": (
        lambda: cost(convnet(), lowered=True),
        lambda: cost(convnet()),
        "operators in float32, were in bfloat16",
    ),
    "a doubled pass": (lambda: around(once), lambda: around(twice), "called 2 times as often: the forward pass runs"),
    "channels_last lost": (
        lambda: cost(convnet(), channels_last=True),
        lambda: cost(convnet()),
        "operators no longer channels_last",
    ),
    "an extra copy": (
        lambda: around(once),
        lambda: around(lambda model, images: once(model, images.clone())),
        "a tensor is copied (clone)",
    ),
    "another size": (
        lambda: cost(convnet(), 32),
        lambda: cost(convnet(), 48),
        "the images are 3×48×48, were 3×32×32",
    ),
    "another resize": (
        lambda: around(once),
        lambda: around(lambda model, images: once(model, functional.interpolate(images, SIZE, mode="bilinear"))),
        "a tensor is resized (upsample_bilinear2d)",
    ),
    "a hook left on": (
        lambda: cost(transformer()),
        lambda: cost(hooked()),
        "1 forward hook, was none: a hook is left on",
    ),
    "training mode": (
        lambda: cost(convnet()),
        lambda: cost(convnet().train()),
        "9 modules in training mode, was none",
    ),
    "dropout": (
        lambda: cost(transformer(proj_drop_rate=0.1)),
        lambda: cost(transformer(proj_drop_rate=0.1).train()),
        f"dropout is on in {3 * LAYERS} places",
    ),
    "gradients": (
        lambda: around(once),
        lambda: around(with_gradients),
        "gradients are recorded, though nothing needs them",
    ),
    "a wait for the device": (
        lambda: around(once),
        lambda: around(reading_the_scores),
        "a tensor is read by Python, which waits for the device (_local_scalar_dense)",
    ),
    "not in place": (lambda: cost(convnet()), lambda: cost(not_in_place()), "2 relu no longer in place"),
    "another GELU": (
        lambda: cost(transformer()),
        lambda: cost(transformer(act_layer=partial(nn.GELU, approximate="tanh"))),
        f"{LAYERS} gelu(tanh), were gelu",
    ),
    "another activation": (
        lambda: cost(transformer()),
        lambda: cost(transformer(act_layer=nn.SiLU)),
        f"{LAYERS} silu, were gelu",
    ),
    "a layer more": (lambda: cost(transformer()), lambda: cost(transformer(depth=LAYERS + 1)), "+4 addmm"),
    "a wider MLP": (
        lambda: cost(transformer()),
        lambda: cost(transformer(mlp_ratio=8)),
        "the same operators, on tensors of other sizes; the model has",
    ),
    "a norm not folded": (lambda: cost(folded()), lambda: cost(convnet()), "+1 native_batch_norm"),
    "flipped images as well": (
        lambda: around(once),
        lambda: around(lambda model, images: once(model, images) + once(model, images.flip(3))),
        "2 times the FLOPs",
    ),
    "no longer compiled": (lambda: compiled(8, 0), lambda: compiled(None, None), "nothing is compiled any more"),
    "a graph break": (lambda: compiled(8, 0), lambda: compiled(8, 1), "1 graph break, was none"),
}


@pytest.mark.parametrize("change", PLANTED)
def test_a_planted_change_fails_with_its_cause(change: str) -> None:
    before, now, cause = PLANTED[change]
    decision = decide_cost(before(), now())
    assert decision is not None
    assert decision.outcome.fails
    assert cause in decision.reason


def test_a_pass_is_counted_operator_by_operator() -> None:
    counted = cost(convnet())
    # Two images of 32×32; the second convolution has no padding.
    assert counted.operators == {
        "convolution float32": 2,
        "native_batch_norm float32": 1,
        "relu_ float32": 2,
        "mean float32": 1,
        "addmm float32": 1,
    }
    first, second, last = 8 * 3 * 9 * 32 * 32, 8 * 8 * 9 * 30 * 30, 8 * 10
    assert counted.flops == 2 * 2 * (first + second + last)
    assert counted.parameters == 8 * 3 * 9 + 2 * 8 + (8 * 8 * 9 + 8) + (8 * 10 + 10)
    # Both maps of the norm and the second convolution; two statistics of the norm; the mean; the scores.
    maps, small = 2 * 8 * (32 * 32 + 32 * 32 + 30 * 30), 2 * 8 + 2 * 10
    assert counted.written == 4 * (maps + 2 * 8 * (32 * 32 + 30 * 30) + small)
    # At once: what the first convolution and the norm return, before the first is let go of.
    assert counted.peak == 4 * 2 * 8 * 2 * 32 * 32


def test_attention_counts_the_same_flops_fused_or_not() -> None:
    fused, unfused = cost(transformer(fused=True)), cost(transformer())
    assert fused.flops == unfused.flops
    assert fused.operators["_scaled_dot_product_flash_attention_for_cpu float32"] == LAYERS
    # Products of a token in a layer: queries, keys, values, the projection, and both layers of an MLP four times as wide.
    layer = TOKENS * 12 * WIDTH * WIDTH + 2 * TOKENS * TOKENS * WIDTH
    assert fused.flops == 2 * 2 * ((TOKENS - 1) * 3 * 16 * 16 * WIDTH + LAYERS * layer + WIDTH * 10)


def test_what_is_fused_is_an_improvement() -> None:
    decision = decide_cost(cost(transformer()), cost(transformer(fused=True)))
    assert decision is not None
    assert decision.outcome is Outcome.IMPROVED
    assert decision.reason.endswith(
        f": attention is fused in {LAYERS} layers, which was a softmax and 2 matmuls in each"
    )


def test_the_same_model_never_costs_anything_else() -> None:
    first = cost(transformer())
    assert all(cost(transformer()) == first for _ in range(20))


def test_a_cost_is_kept_as_it_is() -> None:
    counted = replace(cost(convnet()), kernels=3, graph_breaks=0)
    assert from_data(counted.to_data()) == counted


def test_another_version_of_torch_is_shown_and_not_judged() -> None:
    before = replace(cost(transformer()), torch="2.0")
    assert decide_cost(before, cost(transformer())) == decide_cost(before, before)
    decision = decide_cost(before, cost(transformer(depth=4)))
    assert decision is not None
    assert decision.outcome is Outcome.NOT_JUDGED
    assert decision.reason.endswith(f"; torch 2.0 and {torch.__version__} may name operators in different ways")


def test_what_was_counted_on_one_side_alone_is_not_judged() -> None:
    assert decide_cost(None, None) is None
    counted = cost(convnet())
    for before, now in ((None, counted), (counted, None)):
        decision = decide_cost(before, now)
        assert decision is not None
        assert decision.outcome is Outcome.NOT_JUDGED


def test_an_explanation_of_nothing_names_the_order() -> None:
    counted = cost(convnet())
    text = explain(counted, replace(counted, digest="another"))
    assert text == "the same operators, with other arguments or in other order"
