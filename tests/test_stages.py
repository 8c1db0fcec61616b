"""Which trainings a cell asks for, in which order, with which settings; and what is refused before anything begins."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.plan.job import TRAINED, Job
from harness.plan.naming import job_namer
from harness.plan.plan import Options, Plan, PlannedCell, make_plan
from harness.plan.stages import TrainingStages
from harness.specs import Catalog, Spec, load
from harness.specs.catalog import shipped_specs
from harness.specs.recipe import Recipes

HERE = frozenset({"imagenet", "imagenet-v2"})


def planned(table: str, row: str, column: str, **changes: object) -> PlannedCell:
    options = Options(**{"data": HERE, "train": True, **changes})  # type: ignore[arg-type]
    spec = Catalog().find([table])[0]
    return make_plan([spec], options).cells_in(spec)[row, column]


def chain(cell: PlannedCell) -> list[str]:
    assert cell.job is not None
    return [f"{job['recipe']} {job['res']}" for job in cell.job.lineage]


def only(cell: PlannedCell) -> Job:
    assert cell.job is not None
    return cell.job


def trainings_of(plan: Plan) -> list[Job]:
    return [job for job in plan.jobs if job.kind == "train"]


def test_nothing_trains_unless_it_is_requested() -> None:
    for table in Catalog().names:
        specs = Catalog().find([table])
        assert not [job for job in make_plan(specs, Options(data=HERE)).jobs if job.kind == "train"]


def test_a_fine_tuned_student_comes_after_its_teacher_and_its_own_beginning() -> None:
    cell = planned("table2", "regnety_4gf", "finetuned")
    assert chain(cell) == ["regnety-4gf 224", "deit-b-distilled 224", "fixres 384", "deit-b-distilled-finetune 384"]
    fine_tuned = only(cell).need("weights")
    assert fine_tuned is not None
    assert [part for part, _ in fine_tuned.needs] == ["start", "teacher"]


def test_a_public_teacher_is_not_trained_at_full_scale() -> None:
    cell = planned("table2", "regnety_16gf", "pretrained")
    assert chain(cell) == ["deit-b-distilled 224"]
    assert only(cell).lineage[0]["teacher"] == "regnety_160.deit_in1k"


def test_at_a_small_scale_the_public_teacher_is_trained_as_well() -> None:
    assert chain(planned("table2", "regnety_16gf", "pretrained", scale="proxy")) == [
        "regnety-16gf 32",
        "deit-b-distilled 32",
    ]


# A teacher at the size of its student.


@pytest.mark.parametrize("scale", ["full", "proxy", "smoke"])
def test_every_student_is_taught_at_its_own_size(scale: str) -> None:
    public = {
        "regnety_160.deit_in1k": 224,
        "deit_base_patch16_224.fb_in1k": 224,
        "deit_base_patch16_384.fb_in1k": 384,
    }
    plan = make_plan(Catalog().find(["all"]), Options(data=HERE, train=True, retrain=True, scale=scale))
    students = [job for job in plan.all_jobs if job.kind == "train" and job["distillation"] != "none"]
    sizes = {
        (job["res"], teacher["res"] if (teacher := job.need("teacher")) else public[str(job["teacher"])])
        for job in students
    }
    assert sizes == ({(224, 224), (384, 384)} if scale == "full" else {(32, 32), (56, 56)})


def test_a_public_teacher_is_adapted_from_its_public_weights() -> None:
    cell = planned("table3", "hard_distillation", "b_384")
    assert chain(cell) == ["deit-b 224", "fixres 384", "deit-b-finetune 384"]
    adapted = only(cell).lineage[1]
    assert (adapted["model"], adapted["start"], adapted["fixres"]) == ("regnety_160", "regnety_160.deit_in1k", True)
    assert only(cell).lineage[0]["teacher"] == "regnety_160.deit_in1k"


def test_at_a_small_scale_all_ways_of_distillation_share_one_adapted_teacher() -> None:
    plan = make_plan(Catalog().find(["table3"]), Options(train=True, scale="proxy"))
    (adapted,) = [job for job in plan.jobs if job.get("recipe") == "fixres"]
    assert (adapted["model"], adapted["res"], adapted["data"]) == ("regnety_002", 56, "digits")
    start = adapted.need("start")
    assert start is not None
    assert (start["recipe"], start["res"]) == ("regnety-16gf", 32)
    taught = {job.get("distillation") for job in plan.jobs if job.need("teacher") == adapted}
    assert taught == {"soft", "hard", "token"}


def test_a_transformer_that_teaches_has_its_own_fine_tuning_at_the_larger_size() -> None:
    public = only(planned("table2", "deit_b", "finetuned")).need("weights")
    assert public is not None
    assert (public["teacher"], public.need("teacher")) == ("deit_base_patch16_384.fb_in1k", None)
    trained = only(planned("table2", "deit_b", "finetuned", scale="proxy")).need("weights")
    assert trained is not None
    teacher = trained.need("teacher")
    assert teacher is not None
    assert (teacher["recipe"], teacher["res"]) == ("deit-b-finetune", 56)


def test_a_teacher_is_adapted_to_a_smaller_size_as_well(tmp_path: Path) -> None:
    spec = mine(tmp_path, ', distillation = "soft", teacher = "regnety-8gf"', res=160)
    trainings = trainings_of(make_plan([spec], Options(data=HERE, train=True)))
    assert [f"{job['recipe']} {job['res']}" for job in trainings] == ["regnety-8gf 224", "fixres 160", "deit-ti 160"]


def test_a_public_teacher_of_the_size_of_the_student_teaches_as_it_is(tmp_path: Path) -> None:
    spec = mine(tmp_path, ', distillation = "soft", teacher = "resnet50.a1_in1k", teacher_res = 160', res=160)
    (job,) = trainings_of(make_plan([spec], Options(data=HERE, train=True)))
    assert job["teacher"] == "resnet50.a1_in1k"


def test_how_a_teacher_is_adapted_changes_the_key_of_its_students_alone() -> None:
    for scale in ("full", "proxy"):
        plan = make_plan(Catalog().find(["all"]), Options(data=HERE, train=True, retrain=True, scale=scale))
        for job in plan.all_jobs:
            named = {"teacher_res", "adapted_teacher", "fixres"} & dict(job.settings).keys()
            assert named == ({"fixres"} if job.get("recipe") == "fixres" else set()), job


def test_a_recipe_that_does_not_say_how_its_teacher_is_adapted_is_refused(tmp_path: Path) -> None:
    text = (shipped_specs() / "recipes" / "deit-b.toml").read_text(encoding="utf-8")
    recipe = tmp_path / "own.toml"
    recipe.write_text(re.sub(r"(?m)^adapted_teacher.*\n", "", text), encoding="utf-8")
    spec = mine(tmp_path, ', distillation = "hard", teacher = "regnety-4gf"', res=288, recipe=str(recipe))
    with pytest.raises(HarnessError) as error:
        make_plan([spec], Options(data=HERE, train=True))
    assert str(error.value) == (
        f"{tmp_path / 'mine.toml'}: row 'one', column 'top1': the teacher 'regnety-4gf' is for images of 224 pixels, "
        "the student learns at 288; name the recipe that adapts it, as adapted_teacher = 'fixres'"
    )


def test_only_what_is_trained_already_is_adapted(tmp_path: Path) -> None:
    (cell,) = make_plan([mine(tmp_path, ", fixres = true")], Options(data=HERE, train=True)).cells
    assert cell.blocked.startswith("left out: nothing says which weights it starts from")


def test_what_is_trained_is_evaluated_and_that_fills_the_cell() -> None:
    job = only(planned("table8", "none", "pretrained"))
    assert (job.kind, job["weights"], job["data"], job["crop"]) == ("evaluate", TRAINED, "imagenet", 0.875)


def test_what_was_trained_before_still_fills_the_cell_when_no_training_is_requested() -> None:
    requested, idle = (
        make_plan(Catalog().find(["table8"]), Options(data=HERE, train=train)) for train in (True, False)
    )
    before, now = ({p.cell.column.key: p for p in plan.cells if p.cell.row.key == "none"} for plan in (requested, idle))
    assert now["finetuned"].job == before["finetuned"].job
    assert "needs --train" in now["finetuned"].blocked
    assert [job for job in idle.jobs if job.kind == "train"] == []


def test_cells_share_the_stage_that_they_have_in_common() -> None:
    plan = make_plan(Catalog().find(["table8"]), Options(data=HERE, train=True))
    trainings = [job for job in plan.jobs if job.kind == "train"]
    # Twelve models, for fine-tuning by SGD begins with the first row's, and thirteen fine-tunings.
    assert len(trainings) == 12 + 13
    assert len({job.key for job in plan.jobs}) == 25 + 25


def test_each_job_comes_after_those_that_it_needs() -> None:
    for table in ("table2", "table3", "table8", "table10", "figure3"):
        plan = make_plan(Catalog().find([table]), Options(data=HERE, train=True, scale="proxy"))
        positions = {job.key: position for position, job in enumerate(plan.jobs)}
        for job in plan.jobs:
            assert all(positions[behind.key] < positions[job.key] for behind in job.lineage)


def test_a_row_of_table_8_is_the_recipe_with_the_change_that_it_names() -> None:
    default = dict(only(planned("table8", "none", "pretrained")).lineage[0].settings)
    changed = dict(only(planned("table8", "no_mixup", "pretrained")).lineage[0].settings)
    assert {name for name in default if default[name] != changed[name]} == {"mixup"}


def test_the_optimizer_of_a_row_is_that_of_the_stage_that_it_names() -> None:
    def optimizers(row: str) -> list[object]:
        return [job["optimizer"] for job in only(planned("table8", row, "finetuned")).lineage]

    assert optimizers("none") == ["adamw", "adamw"]
    assert optimizers("pretrain_sgd") == ["sgd", "adamw"]
    assert optimizers("finetune_sgd") == ["adamw", "sgd"]


def test_the_epochs_of_a_cell_are_those_of_its_first_stage() -> None:
    lineage = only(planned("figure3", "deit_b_dist_384", "e1000")).lineage
    assert [(job["recipe"], job["epochs"]) for job in lineage] == [
        ("deit-b-distilled", 1000),
        ("fixres", 11),
        ("deit-b-distilled-finetune", 25),
    ]


def test_public_weights_to_start_from_save_a_stage() -> None:
    cell = planned("table10", "deit_b_160", "top1")
    assert chain(cell) == ["deit-b-finetune 160"]
    assert only(cell).lineage[0]["start"] == "deit_base_patch16_224.fb_in1k"


def test_weights_that_are_public_are_evaluated_unless_retraining_was_requested() -> None:
    assert only(planned("table3", "no_distillation", "b_224"))["weights"] == "fb_in1k"
    assert only(planned("table3", "no_distillation", "b_224", retrain=True))["weights"] == TRAINED


def test_a_training_tells_what_its_row_changes_of_the_recipe() -> None:
    plan = make_plan(Catalog().find(["table8"]), Options(train=True, scale="proxy"))
    changes = {
        planned.cell.row.key: dict(plan.stages.differences(behind))
        for planned in plan.cells
        if planned.cell.column.key == "pretrained" and planned.job and (behind := planned.job.need("weights"))
    }
    assert (changes["none"], changes["dropout"], changes["pretrain_sgd"]) == (
        {},
        {"dropout": 0.1},
        {"optimizer": "sgd"},
    )


def test_a_job_in_hand_is_named_with_what_its_row_changes() -> None:
    plan = make_plan(Catalog().find(["table3"]), Options(train=True, scale="proxy", seeds=1))
    tiny = [job for job in plan.jobs if job.get("model") == "deit_tiny_patch16_224"]
    soft = [job for job in tiny if (job.need("weights") or job).get("distillation") == "soft"]
    assert [job_namer(plan)(job) for job in soft] == [
        "train deit_tiny_patch16_224 deit-ti digits at 32, seed 1 with distillation=soft",
        "evaluate deit_tiny_patch16_224 digits at 32, crop 0.875 trained by deit-ti, seed 1 with distillation=soft",
    ]


def test_an_accuracy_on_other_images_trains_the_same_model() -> None:
    first = only(planned("table10", "deit_b_320", "top1"))
    other = only(planned("table10", "deit_b_320", "v2"))
    assert (first["data"], other["data"]) == ("imagenet", "imagenet-v2")
    assert first.lineage == other.lineage


def test_transfer_goes_on_from_the_rows_weights_and_learns_other_images() -> None:
    cell = planned("table7", "deit_b", "cifar10", data=frozenset({"cifar10"}))
    (job,) = only(cell).lineage
    assert (job["recipe"], job["data"], job["start"]) == ("transfer", "cifar10", "deit_base_patch16_224.fb_in1k")
    assert (job["optimizer"], job["batch_size"], job["epochs"], job["erasing"]) == ("sgd", 768, 1000, 0.0)


def test_what_others_trained_is_not_trained_here() -> None:
    cell = planned("table7", "efficientnet_b7", "cifar10")
    assert cell.blocked.startswith("left out: nothing says which weights it starts from")


def test_a_teacher_of_a_recipe_is_trained_once_for_all_seeds() -> None:
    cell = planned("table3", "hard_distillation", "ti_224", scale="proxy")
    trainings = [behind for job in (only(cell), *cell.repeats) for behind in job.lineage]
    teachers = {job.key for job in trainings if job["recipe"] == "regnety-16gf"}
    students = {job["seed"] for job in trainings if job["recipe"] == "deit-ti"}
    assert len(teachers) == 1
    assert students == {1, 2, 3}


# Scales.


def test_a_scale_has_lengths_of_its_own_for_single_recipes() -> None:
    proxy = Recipes().scale("proxy")
    assert proxy is not None
    stages = TrainingStages(scale=replace(proxy, epochs=0.5, most_epochs=1000, recipes={"regnety-16gf": {"epochs": 7}}))
    epochs = {name: stages.training({"recipe": name})["epochs"] for name in ("deit-b", "regnety-16gf", "regnety-4gf")}
    assert epochs == {"deit-b": 150, "regnety-16gf": 7, "regnety-4gf": 7}  # one recipe is like the other


def test_the_proxy_changes_sizes_and_lengths_and_keeps_the_rest_of_the_recipe() -> None:
    full = dict(only(planned("table8", "none", "pretrained")).lineage[0].settings)
    proxy = dict(only(planned("table8", "none", "pretrained", scale="proxy")).lineage[0].settings)
    kept = ("optimizer", "weight_decay", "mixup", "cutmix", "erasing", "drop_path", "repeated_aug", "rand_augment")
    assert [proxy[name] for name in kept] == [full[name] for name in kept]
    assert (proxy["res"], proxy["epochs"], proxy["data"], proxy["patch_size"]) == (32, 45, "digits", 8)


def test_a_change_of_a_row_wins_over_the_scale() -> None:
    job = only(planned("table8", "dropout", "pretrained", scale="proxy")).lineage[0]
    assert job["dropout"] == 0.1


def test_the_first_data_set_that_is_there_stands_in() -> None:
    job = only(planned("table8", "none", "pretrained", scale="proxy", data=frozenset({"cifar10"})))
    assert (job["data"], job.lineage[0]["data"]) == ("cifar10", "cifar10")


def test_a_small_scale_has_several_seeds_unless_the_options_say_otherwise() -> None:
    assert len(planned("table8", "none", "pretrained", scale="proxy").repeats) == 2
    assert len(planned("table8", "none", "pretrained", scale="proxy", seeds=5).repeats) == 4
    assert len(planned("table8", "none", "pretrained", scale="smoke").repeats) == 0


@pytest.mark.parametrize(
    ("table", "row", "column", "why"),
    [
        ("table10", "deit_b", "real", "left out: only ImageNet has ReaL labels, and the proxy scale does without it"),
        ("table10", "deit_b", "v2", "left out: the proxy scale has no stand-in for imagenet-v2"),
        ("table10", "deit_b", "throughput", "left out: nothing is trained for it at the proxy scale"),
    ],
)
def test_what_a_small_scale_has_nothing_for_is_reported(table: str, row: str, column: str, why: str) -> None:
    assert planned(table, row, column, scale="proxy").blocked == why


def test_every_row_of_tables_8_3_and_10_has_a_proxy() -> None:
    for table in ("table8", "table3", "table10"):
        spec = Catalog().find([table])[0]
        cells = make_plan([spec], Options(train=True, scale="proxy")).cells_in(spec)
        for row in spec.rows:
            assert any(cells[row.key, column.key].job is not None for column in spec.columns), (table, row.key)


# Costs and assumptions.


def test_a_stage_costs_what_was_published_in_proportion_to_its_epochs() -> None:
    stages = TrainingStages()
    lineage = only(planned("figure3", "deit_b_dist_384", "e500")).lineage
    # What it costs to adapt the teacher is not published.
    assert [stages.hours(job) for job in lineage] == [pytest.approx(424 * 500 / 300), None, 160]


def test_what_no_publication_gives_is_reported_of_the_cell() -> None:
    assumed = planned("table8", "dropout", "pretrained").assumed
    assert "dropout = 0.1: the paper does not say how much; ViT-B's in table 9" in assumed
    assert any(text.startswith("precision = float16: the paper does not give") for text in assumed)
    assert not any(text.startswith("auto_augment_policy") for text in assumed)
    taught = planned("table3", "class_distil", "b_384").assumed
    assert any(text.startswith("epochs = 11: FixRes has 1 to 56 by the network") for text in taught)
    by_itself = planned("table2", "deit_b", "finetuned").assumed
    assert any(text.startswith("adapted_teacher = deit_base_patch16_384.fb_in1k: the paper") for text in by_itself)
    other = planned("table8", "autoaugment", "pretrained").assumed
    assert any(text.startswith("auto_augment_policy = original: ") for text in other)


def test_a_cell_with_a_trained_teacher_names_what_of_its_sgd_is_assumed() -> None:
    for column in ("teacher", "pretrained"):
        cell = planned("table2", "regnety_4gf", column)
        assert only(cell).lineage[0]["optimizer"] == "sgd"
        named = {text.partition(" = ")[0] for text in cell.assumed}
        assert {"learning_rate", "lr_batch", "momentum", "weight_decay"} <= named
        assert "optimizer" not in named


def test_at_every_scale_the_teacher_has_a_rate_for_sgd() -> None:
    for scale, batch in (("full", 1024), ("proxy", 64), ("smoke", 64)):
        teacher = only(planned("table2", "regnety_8gf", "pretrained", scale=scale)).lineage[0]
        assert (teacher["optimizer"], teacher["learning_rate"], teacher["lr_batch"]) == ("sgd", 0.1, 128)
        assert teacher["batch_size"] == batch


# Bad input.


SPEC = """
[table]
title = "mine"
[source.paper]
kind = "paper"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
[row.one]
label = "one"
set = {{ model = "deit_tiny_patch16_224", res = {res}, recipe = "{recipe}"{more} }}
paper = {{ top1 = 70.0 }}
"""


def mine(tmp_path: Path, more: str, *, res: int = 224, recipe: str = "deit-ti") -> Spec:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC.format(more=more, res=res, recipe=recipe), encoding="utf-8")
    return load(path)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            ', distillation = "hard"',
            "distillation = 'hard' without a teacher; name one, as teacher = 'regnety_160.deit_in1k'",
        ),
        (", batch_size = 1", "mixup and cutmix pair the images of a batch, so batch_size must be even, not 1"),
        (", batch_size = 65", "mixup and cutmix pair the images of a batch, so batch_size must be even, not 65"),
        (", auto_augment = true", "rand_augment and auto_augment are both on; choose one"),
        (", patch_size = 10", "patches of 10 pixels do not divide images of 224; choose a multiple"),
        (', teacher = "regnety-17gf", distillation = "hard"', None),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(tmp_path: Path, more: str, why: str | None) -> None:
    spec = mine(tmp_path, more)
    options = Options(data=HERE, train=True)
    if why is None:  # a teacher that is no recipe is taken for public weights, which are looked for later
        assert [job.weights_names for job in make_plan([spec], options).jobs if job.kind == "train"] == [
            ("regnety-17gf",)
        ]
        return
    with pytest.raises(HarnessError) as error:
        make_plan([spec], options)
    assert str(error.value) == f"{tmp_path / 'mine.toml'}: row 'one', column 'top1': {why}"


def test_even_batches_are_needed_only_where_images_are_mixed(tmp_path: Path) -> None:
    spec = mine(tmp_path, ", batch_size = 65, mixup = 0, cutmix = 0")
    plan: Plan = make_plan([spec], Options(data=HERE, train=True))
    assert [job["batch_size"] for job in plan.jobs if job.kind == "train"] == [65]


def test_of_a_table_only_the_columns_with_a_recipe_are_trained() -> None:
    (table7,) = Catalog().find(["table7"])
    cells = make_plan([table7], Options(train=True, scale="smoke")).cells_in(table7)
    assert cells["deit_b", "imagenet"].blocked == "left out: nothing is trained for it at the smoke scale"
    assert cells["deit_b", "cars"].job
