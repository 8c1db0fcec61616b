"""What the trainer makes of the recipes, against the paper and numbers calculated by hand."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from torch.nn import functional

from harness.errors import HarnessError
from harness.jobs import models, recipe
from harness.jobs.training import data
from harness.jobs.training.data import Epoch
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.optimization import build_optimizer, build_schedule, learning_rate, set_learning_rate
from harness.jobs.training.trained_weights import resize_position_embedding
from harness.plan.job import Job
from harness.plan.stages import TrainingStages
from harness.specs.kinds import RECIPE
from harness.specs.recipe import Recipes
from harness.specs.recipe.catalog import SCALES

PUBLISHED = Path(__file__).parent / "published" / "table09.csv"
RECIPES = Recipes()


def resolved(name: str) -> Job:
    return TrainingStages().recipe_job(name)


def hyper(name: str, **changes: object) -> Hyperparameters:
    settings = {**RECIPES.find(name).settings, "seed": 1, **changes}
    return Hyperparameters.of(Job(kind="train", settings=tuple(settings.items()), revision=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["DeiT-B", "ViT-B"])
def test_table_9_is_what_the_trainer_resolves(column: str) -> None:
    metrics, _, _ = recipe.resolve_recipe(resolved(column.lower()))
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        published = {line["row"]: line["value"] for line in csv.DictReader(file) if line["column"] == column}
    assert len(published) == 16
    for row, value in published.items():
        metric = metrics[row].value
        assert metric == (float(value) if isinstance(metric, float) else value), row


def rates(name: str, at: list[int], **changes: object) -> list[float]:
    settings = hyper(name, **changes)
    optimizer = build_optimizer(settings, torch.nn.Linear(2, 2))
    schedule = build_schedule(settings, optimizer)
    values = []
    for epoch in at:
        set_learning_rate(schedule, settings, epoch)
        values.append(learning_rate(optimizer))
    return values


@pytest.mark.parametrize(
    ("name", "epochs", "peak", "least"),
    [
        ("deit-b", 300, 1e-3, 1e-5),
        ("deit-b", 1000, 1e-3, 1e-5),
        *[("deit-b-finetune", n, 5e-6, 5e-6) for n in (25, 30)],
    ],
)
def test_each_epoch_has_the_rate_of_the_released_loop_which_steps_the_schedule_after_it(
    name: str, epochs: int, peak: float, least: float
) -> None:
    def scheduled(step: int) -> float:
        if step < 5:
            return 1e-6 + step * (peak - 1e-6) / 5
        return least + (peak - least) * (1 + math.cos(math.pi * step / epochs)) / 2

    # The optimizer begins with the first rate, and the loop sets the rate of step n after epoch n, counted from 0.
    released = [scheduled(0), *(scheduled(epoch) for epoch in range(epochs - 1))]
    assert rates(name, [*range(epochs)], epochs=epochs) == pytest.approx(released, rel=1e-9)
    assert released[:3] == pytest.approx([1e-6, 1e-6, 1e-6 + (peak - 1e-6) / 5])


def test_a_schedule_that_steps_before_an_epoch_is_one_epoch_ahead() -> None:
    ahead = rates("deit-b", [0, 1, 5, 150], schedule_step="before")
    assert ahead == pytest.approx([1e-6, 1e-6 + (1e-3 - 1e-6) / 5, *rates("deit-b", [6, 151])], rel=1e-9)
    assert ahead[-1] == pytest.approx(0.000505)


def test_the_warm_up_is_not_lengthened_with_the_schedule() -> None:
    assert rates("deit-b", [4, 6], epochs=1000)[1] > 0.99 * 1e-3


def test_fine_tuning_keeps_its_rate_after_the_warm_up() -> None:
    assert rates("deit-b-finetune", [6, 12, 24]) == pytest.approx([5e-6] * 3, rel=1e-12)


@pytest.mark.parametrize(("batch", "expected"), [(512, 5e-4), (1024, 1e-3), (64, 6.25e-5)])
def test_the_rate_is_in_proportion_to_the_batch(batch: int, expected: float) -> None:
    assert hyper("deit-b", batch_size=batch).scaled_rate == pytest.approx(expected)


def test_biases_norms_tokens_and_positions_do_not_decay() -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(hyper("deit-b"), model).param_groups
    decays = {names[id(p)] for group in groups for p in group["params"] if group["weight_decay"]}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    for name, parameter in model.named_parameters():
        token = name in {"cls_token", "dist_token", "pos_embed"}
        assert (name in decays) == (parameter.ndim > 1 and not token), name


@pytest.mark.parametrize("name", ["vit-b", "deit-ti", "deit-b-distilled"])
def test_dropout_is_read_from_37_places_of_a_transformer_none_of_them_before_the_classifier(name: str) -> None:
    job = Job.of("recipe", {**dict(resolved(name).settings), "dropout": 0.1})
    metrics, facts, _ = recipe.resolve_recipe(job)
    layer = ("attn.proj_drop", "mlp.drop1", "mlp.drop2")
    places = {"pos_drop", *(f"blocks.{number}.{place}" for number in range(12) for place in layer)}
    assert facts["dropout_by_place"] == dict.fromkeys(places, 0.1)
    assert len(places) == 37
    assert metrics["dropout"].value == "0.1"


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ({"drop_rate": 0.1}, "0.1 in 0 places instead of 37 and before the classifier"),
        ({"pos_drop_rate": 0.1}, "0.1 in 1 place instead of 37"),
        ({"pos_drop_rate": 0.2, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1}, "0.1, 0.2 in 49 places instead of 37"),
        ({"pos_drop_rate": 0.1, "proj_drop_rate": 0.1, "drop_rate": 0.1}, "0.1 and before the classifier"),
    ],
)
def test_dropout_elsewhere_is_not_taken_for_that_of_table_9(
    monkeypatch: pytest.MonkeyPatch, rates: dict[str, Any], text: str
) -> None:
    built = timm.create_model("deit_tiny_patch16_224", **rates)
    monkeypatch.setattr(models, "build_on_meta", lambda *_, **__: built)
    metrics, _, _ = recipe.resolve_recipe(resolved("deit-ti"))
    assert metrics["dropout"].value == text


def test_stochastic_depth_of_one_layer_is_not_taken_for_that_of_table_9(monkeypatch: pytest.MonkeyPatch) -> None:
    built: Any = timm.create_model("deit_tiny_patch16_224")
    monkeypatch.setattr(models, "build_on_meta", lambda *_, **__: built)
    layer = built.blocks[11]
    layer.drop_path1 = DropPath(0.1)
    metrics, _, _ = recipe.resolve_recipe(resolved("deit-ti"))
    assert metrics["stoch_depth"].value == "no"  # of one branch
    layer.drop_path2 = DropPath(0.1)
    metrics, _, _ = recipe.resolve_recipe(resolved("deit-ti"))
    assert metrics["stoch_depth"].value == ", ".join(["0"] * 11 + ["0.1"])


def test_the_decay_of_a_few_parameters_is_not_taken_for_that_of_table_9(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_biases(settings: Hyperparameters, model: torch.nn.Module) -> torch.optim.Optimizer:
        biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
        others = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        groups = [{"params": biases, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=settings.scaled_rate)

    monkeypatch.setattr(recipe, "build_optimizer", only_biases)
    metrics, _, _ = recipe.resolve_recipe(resolved("deit-ti"))
    assert metrics["weight_decay"].value == 0.0


def test_dropout_of_a_convnet_is_before_its_classifier_as_in_every_timm() -> None:
    built = models.build_trainable("regnety_002", 32, classes=10, shape={"drop_rate": 0.1})
    assert {name: m.p for name, m in built.named_modules() if isinstance(m, torch.nn.Dropout)} == {"head.drop": 0.1}


@pytest.mark.parametrize(
    "name", ["regnety-4gf", "regnety-8gf", "regnety-12gf", "regnety-16gf", "cifar10-scratch-teacher"]
)
def test_teachers_are_trained_by_sgd_at_the_rate_of_regnet_and_all_else_as_deit(name: str) -> None:
    settings, deit = hyper(name), hyper("deit-b")
    changed = {key for key in RECIPE if getattr(settings, key) != getattr(deit, key)}
    assert changed - {"epochs"} == {"optimizer", "learning_rate", "lr_batch", "weight_decay"}
    optimizer = build_optimizer(settings, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    groups = [(group["lr"], group["momentum"], group["nesterov"]) for group in optimizer.param_groups]
    assert groups == [(pytest.approx(0.8), 0.9, True)] * 2
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 5e-5]
    assert {"learning_rate", "momentum", "weight_decay"} <= RECIPES.find(name).assumed.keys()


def test_the_recipe_of_a_convnet_is_read_as_well() -> None:
    metrics, _, _ = recipe.resolve_recipe(resolved("regnety-4gf"))
    texts = {key: metrics[key].value for key in ("optimizer", "learning_rate", "weight_decay", "stoch_depth")}
    rule = "0.1*batchsize/128"
    assert texts == {"optimizer": "SGD", "learning_rate": rule, "weight_decay": 5e-5, "stoch_depth": "0.1"}


def test_no_recipe_calls_assumed_what_is_published() -> None:
    published = {
        "regnety-16gf": {"optimizer"},  # ICML, the caption of table 2 and the note of table 5
        "cifar10-scratch": {"res"},  # section 5.4 scales the images to 224
        "cifar10-scratch-teacher": {"res"},
        "transfer-inat": {"learning_rate", "lr_batch"},  # after scaling, as an author said
    }
    for name, settings in published.items():
        assert not settings & RECIPES.find(name).assumed.keys(), name


def test_stochastic_depth_rises_from_nothing_to_its_rate() -> None:
    _, facts, _ = recipe.resolve_recipe(resolved("deit-b"))
    assert facts["drop_path_by_layer"] == pytest.approx([0.1 * layer / 11 for layer in range(12)], abs=1e-7)


@pytest.mark.parametrize(("images", "world"), [(1437, 1), (1437, 2), (1_281_167, 1), (1_281_167, 16)])
def test_repeated_augmentation_sees_floor_n_by_256_times_256_images_an_epoch(images: int, world: int) -> None:
    each = [
        len(list(data.build_sampler(hyper("deit-b"), images, World(rank=r, size=world), 0))) for r in (0, world - 1)
    ]
    assert each == [math.floor(images / 256) * 256 // world] * 2


def test_each_image_comes_three_times_in_a_row() -> None:
    order = list(data.build_sampler(hyper("deit-b"), 300, World(), 0))
    assert [order[i] == order[i + 1] == order[i + 2] for i in range(0, 255, 3)] == [True] * 85
    assert len({order[i] for i in range(0, 255, 3)}) == 85


def test_one_process_sees_in_a_step_what_several_see_together() -> None:
    settings = hyper("deit-b", batch_size=24)
    alone = Epoch.of(settings, 700, World(), 3)
    shared = [Epoch.of(settings, 700, World(rank=rank, size=4), 3) for rank in range(4)]
    assert len(alone.batches) == len(shared[0].batches) == 512 // 24
    for step, batch in enumerate(alone.batches):
        assert sorted(pair for epoch in shared for pair in epoch.batches[step]) == sorted(batch)


def test_another_seed_and_another_epoch_have_another_order() -> None:
    orders = [
        tuple(data.build_sampler(hyper("deit-b", seed=seed), 700, World(), epoch))
        for seed, epoch in ((1, 0), (1, 1), (2, 0))
    ]
    assert len(set(orders)) == 3
    assert orders[0] == tuple(data.build_sampler(hyper("deit-b"), 700, World(), 0))


def test_positions_at_384_are_torchs_bicubic_and_the_tokens_stay() -> None:
    embedding = torch.randn(1, 2 + 14 * 14, 8, generator=torch.Generator().manual_seed(0))
    resized = resize_position_embedding(embedding, tokens=2, side=24)
    assert resized.shape == (1, 2 + 24 * 24, 8)
    assert torch.equal(resized[:, :2], embedding[:, :2])
    grid = embedding[0, 2:].T.reshape(1, 8, 14, 14)
    expected = functional.interpolate(grid, size=(24, 24), mode="bicubic", align_corners=False)
    for row, column in ((0, 0), (5, 17), (23, 23)):
        assert torch.allclose(resized[0, 2 + 24 * row + column], expected[0, :, row, column], atol=1e-6)


def test_bicubic_keeps_the_norm_that_bilinear_would_shrink() -> None:
    embedding = torch.randn(1, 1 + 14 * 14, 64, generator=torch.Generator().manual_seed(0))
    grid = embedding[:, 1:].reshape(1, 14, 14, 64).permute(0, 3, 1, 2)
    bilinear = functional.interpolate(grid, size=(24, 24), mode="bilinear", align_corners=False).norm(dim=1).mean()
    assert resize_position_embedding(embedding, tokens=1, side=24)[:, 1:].norm(dim=2).mean() > 1.1 * bilinear


def test_positions_of_the_same_size_are_not_touched() -> None:
    embedding = torch.randn(1, 17, 4)
    assert resize_position_embedding(embedding, tokens=1, side=4) is embedding


# Recipe files.


@pytest.mark.parametrize("name", RECIPES.names)
def test_every_shipped_recipe_builds_what_it_says(name: str) -> None:
    recipe = RECIPES.find(name)
    assert recipe.title
    assert recipe.cite
    settings = Hyperparameters.of(TrainingStages().recipe_job(name))
    assert models.build_on_meta(settings.model, settings.res, classes=10) is not None


@pytest.mark.parametrize("scale", SCALES)
def test_every_shipped_scale_can_be_read(scale: str) -> None:
    assert (RECIPES.scale(scale) is None) == (scale == "full")


WHOLE = """\
[recipe]
title = "mine"
like = "deit-b"
"""


def mine(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_recipe_of_ones_own_changes_a_shipped_one(tmp_path: Path) -> None:
    recipe = RECIPES.find(mine(tmp_path, WHOLE + "[set]\nmixup = 0\n"))
    assert recipe.settings["mixup"] == 0.0
    assert recipe.settings["cutmix"] == 1.0
    assert recipe.hours is None


def test_every_mistake_of_a_recipe_is_reported_with_its_line(tmp_path: Path) -> None:
    path = mine(
        tmp_path, WHOLE + '[set]\nmixupp = 0.8\nepochs = 0\ncutmix = -1\noptimizer = "lamb"\n[assumed]\nema = 3\n'
    )
    with pytest.raises(HarnessError) as error:
        RECIPES.find(path)
    assert str(error.value).splitlines() == [
        f"{path}:5: unknown setting 'mixupp' in [set]; did you mean 'mixup'?",
        f"{path}:6: epochs in [set] must be at least 1, not 0",
        f"{path}:7: cutmix in [set] must be at least 0, not -1",
        f"{path}:8: optimizer in [set] must be 'adamw' or 'sgd', not 'lamb'",
        f"{path}:10: ema in [assumed] must be a string, not 3",
    ]


def test_a_recipe_that_leaves_settings_open_is_refused(tmp_path: Path) -> None:
    path = mine(tmp_path, '[recipe]\ntitle = "mine"\n[set]\nepochs = 3\n')
    with pytest.raises(HarnessError, match=r'does not set batch_size, .*; set them, or like = "RECIPE" for all that'):
        RECIPES.find(path)


def test_a_recipe_that_is_like_itself_is_refused(tmp_path: Path) -> None:
    path = mine(tmp_path, "")
    mine(tmp_path, f'[recipe]\ntitle = "mine"\nlike = "{path}"\n')
    with pytest.raises(HarnessError, match="is like itself"):
        RECIPES.find(path)


def test_an_unknown_recipe_is_reported_with_the_nearest() -> None:
    with pytest.raises(HarnessError, match="unknown recipe 'deit_b'; did you mean 'deit-b'"):
        RECIPES.find("deit_b")
