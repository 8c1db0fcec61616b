"""What a forward pass costs is counted exactly, and a change of it is reported with its cause."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch._inductor import metrics
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from harness.gate.baseline import make_baseline
from harness.gate.baseline_file import read, to_json
from harness.gate.cost import decide_cost, explain
from harness.gate.decision import Outcome
from harness.gate.gate import BaselineJudge
from harness.gate.turns import gate_of
from harness.jobs.count import count_model
from harness.jobs.speed import throughput
from harness.jobs.speed.cost import measure_cost
from harness.jobs.speed.operators import CostCounter, count_cost
from harness.jobs.speed.workload import Workload, flags_of, set_flags
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.report.gate import sentence
from harness.run.turns import Measured, ProcessPair
from harness.specs import Catalog
from harness.store.cost import Cost, from_data
from harness.store.result import verified
from harness.store.store import Store
from tests.fakes import result_of
from tests.gating import judge_selection, mine, save_five

SIZE, LAYERS, WIDTH = 32, 3, 48

# Two patches a side of 16 pixels, and the class token.
TOKENS = 5


def transformer(**changes: Any) -> nn.Module:  # noqa: ANN401 -- arguments of timm's
    """Build a small vision transformer of timm's, with unfused attention unless `fused`."""
    set_fused_attn(bool(changes.pop("fused", False)))
    shape: dict[str, Any] = {"img_size": SIZE, "depth": LAYERS, "embed_dim": WIDTH, "num_heads": 3, "num_classes": 10}
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
        model.to(memory_format=memory_format),
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
    convolution, norm, *rest = convnet().children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(nn.utils.fusion.fuse_conv_bn_eval(convolution, norm), *rest).eval()


def compiled(kernels: int | None, breaks: int | None) -> Cost:
    return replace(cost(convnet()), kernels=kernels, graph_breaks=breaks)


# What was changed: before, now, and the cause that is named.
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
    # Products of a token in a layer: queries, keys, values, the projection, and an MLP four times as wide.
    layer = TOKENS * 12 * WIDTH * WIDTH + 2 * TOKENS * TOKENS * WIDTH
    assert fused.flops == 2 * 2 * ((TOKENS - 1) * 3 * 16 * 16 * WIDTH + LAYERS * layer + WIDTH * 10)


@pytest.mark.parametrize("lowered", [False, True])
def test_what_is_fused_is_an_improvement_whatever_it_is_computed_in(*, lowered: bool) -> None:
    decision = decide_cost(cost(transformer(), lowered=lowered), cost(transformer(fused=True), lowered=lowered))
    assert decision is not None
    assert decision.outcome is Outcome.IMPROVED
    assert f"attention is fused in {LAYERS} layers, which was a softmax and 2 matmuls in each" in decision.reason


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


# Next to a throughput.


@pytest.mark.parametrize("settings", [{}, {"precision": "bfloat16", "channels_last": True}])
def test_a_throughput_has_the_cost_that_its_job_of_that_kind_counts_without_computing(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job.of("cost", {"model": "resnet18", "res": 64, "protocol": "paper", **settings})
    measured, facts, _ = measure_cost(job, lambda _: None)
    counted = from_data(facts["cost"])
    timed = Job.of("throughput", {**dict(job.settings), "batch": 2})
    set_flags(flags_of(timed))
    workload = Workload(timed, "cpu")
    assert from_data(workload.count_cost()) == counted
    monkeypatch.setattr(FakeTensorMode, "__enter__", lambda _: 1 / 0)  # then it is computed
    assert from_data(workload.count_cost()) == counted
    assert counted is not None
    assert measured["operators"].value == counted.calls
    # Two for each product, of one image; as `count` has it.
    macs = count_model(Job.of("count", {"model": "resnet18", "res": 64}), lambda _: None)[0]["macs"].value
    assert measured["flops"].value == pytest.approx(2 * float(macs))


def test_the_facts_of_a_throughput_have_its_cost() -> None:
    job = Job.of("throughput", {"model": "resnet18", "res": 32, "protocol": "paper", "repeats": 1, "batch": 2})
    _, facts, _ = throughput.measure_throughput(job, lambda _: None, device="cpu", threads=1)
    counted = from_data(facts["cost"])
    assert counted is not None
    assert counted.shape == (2, 3, 32, 32)
    assert counted.operators["convolution float32"] == 20


def test_a_compiled_step_tells_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(
        Job.of("throughput", {"model": "resnet18", "res": 32, "protocol": "paper", "compile": True}), "cpu"
    )

    def compiled(model: nn.Module, **_: object) -> Callable[[torch.Tensor], object]:
        def run(images: torch.Tensor) -> object:
            metrics.generated_kernel_count += 3  # as the compiler does at the first call
            return model(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    workload.make_compiled_step(2)
    counted = from_data(workload.count_cost())
    assert counted is not None
    assert (counted.kernels, counted.graph_breaks) == (3, 0)


def test_a_model_that_cannot_be_watched_is_timed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(Job.of("throughput", {"model": "resnet18", "res": 32, "protocol": "paper"}), "cpu")
    monkeypatch.setattr(CostCounter, "__torch_dispatch__", lambda *_: 1 / 0)
    assert workload.count_cost() is None


# In the gates.


def test_the_gate_tells_an_unfused_attention_from_the_baseline(tmp_path: Path) -> None:
    spec, fused, unfused = mine(tmp_path), cost(transformer(fused=True)), cost(transformer())
    old, new = Store(tmp_path / "old"), Store(tmp_path / "new")
    for store, start, counted in ((old, 0, fused), (new, 9, unfused)):
        save_five(store, spec, start, facts={"cost": counted.to_data()})
    selection, diff = judge_selection(old, spec)
    path = tmp_path / "baseline.json"
    path.write_text(to_json(make_baseline([diff.table], selection)), encoding="utf-8")
    kept = read(path)
    assert list(kept.costs.values()) == [fused]
    now, diff = judge_selection(new, spec)
    gated = BaselineJudge(baseline=kept, selection=now, store=new, baseline_store=old).judge([diff])
    (cell_of_cost,) = (cell for cell in gated if cell.against == "cost")
    assert cell_of_cost.outcome is Outcome.REGRESSED
    assert sentence(cell_of_cost).startswith("mine, forward pass of Tiny: 21 operators more, ")
    assert sentence(cell_of_cost).endswith("a softmax and 2 matmuls in each of 3 layers: attention is no longer fused")


def test_two_environments_are_compared_in_what_a_pass_does() -> None:
    plan = make_plan(Catalog().find(["table5"]), Options(rows=("deit_ti",)))
    (job,) = (planned.job for planned in plan.cells if planned.cell.metric == "throughput" and planned.job)
    pairs = [
        ProcessPair(before=100.0, now=100.0 + number, slower=1 - number / 100) for number in (-0.1, 0, 0.1, 0, 0.1)
    ]
    costs = {job.key: {1: cost(transformer()).to_data(), 0: cost(transformer(fused=True)).to_data()}}
    gate = gate_of(plan, Measured(pairs={job: pairs}, failed={}, costs=costs), 0.02)
    assert [(cell.against, cell.outcome) for cell in gate.cells] == [
        ("baseline", Outcome.HELD),
        ("cost", Outcome.REGRESSED),
    ]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"flops": -1}, "flops in [facts.cost] must be at least 0, not -1"),
        ({"operators": {"addmm": "x"}}, "addmm in [facts.cost.operators] must be an integer, not 'x'"),
        ({"operators": {"addmm": 0}}, "addmm in [facts.cost.operators] must be at least 1, not 0"),
        ({"shape": []}, "shape in [facts.cost] must not be empty"),
        ({"gradients": 1}, "gradients in [facts.cost] must be true or false, not 1"),
    ],
)
def test_a_damaged_cost_is_named(changed: dict[str, object], problem: str) -> None:
    result = result_of(Job.of("throughput", {"model": "tiny", "res": 224}))
    damaged = replace(result, facts={**result.facts, "cost": {**cost(convnet()).to_data(), **changed}})
    assert verified(damaged).error == f"its result is damaged ({problem})"
