"""What the trainer makes of the recipes, against the paper and numbers calculated by hand."""

import csv
import math
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional

from harness.errors import HarnessError
from harness.jobs import models, recipe
from harness.jobs.training import data
from harness.jobs.training.data import Epoch
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.optimization import build_optimizer, build_schedule, learning_rate
from harness.jobs.training.trained_weights import resize_position_embedding
from harness.plan.job import Job
from harness.plan.stages import TrainingStages
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
        schedule.step(epoch)
        values.append(learning_rate(optimizer))
    return values


def test_the_rate_warms_up_from_a_millionth_over_five_epochs_then_falls_as_a_cosine_to_1e_5() -> None:
    peak, least = 5e-4 * 1024 / 512, 1e-5

    def cosine(epoch: int) -> float:
        return least + (peak - least) * (1 + math.cos(math.pi * epoch / 300)) / 2

    expected = [1e-6, 1e-6 + (peak - 1e-6) / 5, 1e-6 + 4 * (peak - 1e-6) / 5, cosine(5), cosine(150), cosine(299)]
    assert rates("deit-b", [0, 1, 4, 5, 150, 299]) == pytest.approx(expected, rel=1e-9)
    assert cosine(150) == pytest.approx(0.000505)


def test_the_warm_up_is_not_lengthened_with_the_schedule() -> None:
    assert rates("deit-b", [4, 6], epochs=1000)[1] > 0.99 * 1e-3


def test_fine_tuning_keeps_its_rate_after_the_warm_up() -> None:
    assert rates("deit-b-finetune", [5, 12, 24]) == pytest.approx([5e-6] * 3, rel=1e-12)


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
