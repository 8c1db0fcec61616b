"""The speed of a training: what it is timed with, what follows from it, and how long a training would take here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import HarnessError, JobError
from harness.jobs.speed import train_speed
from harness.jobs.speed.batch_size import find_saturation
from harness.jobs.speed.device import Cpu
from harness.jobs.speed.throughput import TimedBatch
from harness.jobs.speed.train_speed import TrainingWorkload, count_steps, measure_train_speed
from harness.jobs.training.step import PARTS
from harness.judge.table import fill
from harness.judge.verdict import compare
from harness.machine import describe, software
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.plan.stages import TrainingStages, UnfitBatch
from harness.run.messages import Progress
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog
from harness.specs.checked import Scalar
from harness.specs.kinds import KINDS
from harness.store.result import Measurement
from harness.store.store import Store
from tests.commands import run_harness
from tests.fakes import LAPTOP, V100, VERSIONS, FakeLauncher, result_of
from tests.trainings import SMALL, changed

STAGES = TrainingStages()


def silent(_progress: Progress) -> None:
    pass


def speed_of(recipe: str, **settings: Scalar) -> Job:
    return STAGES.speed_job({**KINDS["train-speed"].defaults, "recipe": recipe, **settings})


def small(recipe: str = "deit-ti", **settings: Scalar) -> Job:
    """Make the job of a step that takes milliseconds: images of 32 pixels, sixteen patches, one layer."""
    tiny: dict[str, Scalar] = {
        "data": "digits",
        "res": 32,
        "patch_size": 8,
        "batch_size": 64,
        "epochs": 3,
        "repeats": 4,
    }
    return speed_of(recipe, **{**SMALL, **tiny, "precision": "float32", **settings})


# Which work it is.


def test_what_only_the_loader_or_the_numbers_know_does_not_make_another_measurement() -> None:
    training = STAGES.training({"recipe": "deit-b"})
    usual = STAGES.speed_job_of(training)
    assert usual == speed_of("deit-b")
    same: list[tuple[str, Scalar]] = [("rand_augment", False), ("learning_rate", 0.1), ("schedule", "constant")]
    for name, value in same:
        assert STAGES.speed_job_of(changed(training, **{name: value})) == usual
    other: list[tuple[str, Scalar]] = [("optimizer", "sgd"), ("ema", True), ("mixup", 0.0), ("epochs", 1000)]
    for name, value in other:
        assert STAGES.speed_job_of(changed(training, **{name: value})) != usual


def test_a_teacher_is_timed_by_its_model_whatever_its_weights() -> None:
    job = speed_of("deit-b-distilled")
    assert job["teacher"] == "regnety_160"
    assert job.weights_names == ()
    assert not job.reads_images
    assert speed_of("deit-b-distilled", teacher="regnety_160.other") == job
    assert speed_of("deit-b-distilled", teacher="regnety-8gf")["teacher"] == "regnety_080"
    assert speed_of("deit-b").get("teacher") == ""


def test_the_speed_of_a_student_names_the_model_of_the_teacher_that_is_trained_for_it() -> None:
    training = STAGES.training({"recipe": "deit-b-distilled", "teacher": "regnety-4gf"})
    assert training.need("teacher")
    assert STAGES.speed_job_of(training)["teacher"] == "regnety_040"


def test_an_adapted_teacher_is_timed_as_what_it_trains_and_its_student_with_its_model() -> None:
    training = STAGES.training({"recipe": "deit-b-distilled-finetune"})
    teacher = training.need("teacher")
    assert teacher
    assert STAGES.speed_job_of(training)["teacher"] == "regnety_160"
    timed = STAGES.speed_job_of(teacher)
    assert (timed["model"], timed["res"], timed["fixres"]) == ("regnety_160", 384, True)
    # Of a whole RegNetY more gradients are computed.
    assert STAGES.speed_job_of(changed(teacher, fixres=False)) != timed


def test_a_recipe_that_adapts_any_model_names_none_as_a_teacher() -> None:
    with pytest.raises(HarnessError) as caught:
        speed_of("deit-b-distilled", teacher="fixres")
    assert str(caught.value) == ("the teacher's recipe 'fixres' is for any model; name the teacher's model instead")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": "largest"}, "a train-speed job takes batch auto or a number, not largest"),
        ({"batch": 3}, "mixup and cutmix pair the images of a batch, so that of a device must be even, not 3"),
        ({"devices": 1024}, "mixup and cutmix pair the images of a batch, so that of a device must be even, not 1"),
        ({"devices": 3}, "3 devices cannot share a batch of 1024"),
    ],
)
def test_a_batch_that_no_step_has_is_refused_and_leaves_other_cells_alone(
    settings: dict[str, Scalar], message: str
) -> None:
    with pytest.raises(UnfitBatch) as caught:
        speed_of("deit-b", **settings)
    assert str(caught.value) == message
    assert speed_of("deit-b", mixup=0.0, cutmix=0.0, batch=3)["batch"] == 3


def test_a_batch_of_the_command_line_that_does_not_fit_blocks_only_training_speeds() -> None:
    (text,) = Catalog().find(["text"])
    plan = make_plan([text], Options(batch="largest"))
    blocked = {p.cell.row.key for p in plan.cells if "not largest" in p.blocked}
    assert blocked == {
        *("train_time_single_node", "train_time_two_nodes", "finetune_384_time"),
        *("regnety16_slower", "train_time_s", "train_time_ti"),
    }


def test_a_recipe_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    settings = Path(__file__).parent.parent / "tables" / "recipes" / "deit-b.toml"
    text = settings.read_text(encoding="utf-8")
    recipe.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("model ")))
    with pytest.raises(HarnessError) as caught:
        speed_of(str(recipe))
    assert str(caught.value) == f"recipe '{recipe}' does not set model; set them here"


# How many steps, and what is in one.


def test_the_steps_of_the_published_schedules_are_those_of_its_epochs() -> None:
    # By hand: repeated augmentation sees floor(1,281,167 / 256) × 256 = 1,281,024 images an epoch, 1,251 batches of
    # 1,024 or 2,502 of 512.
    assert count_steps(speed_of("deit-b")) == 300 * 1251
    assert count_steps(speed_of("deit-b-finetune")) == 25 * 2502
    assert count_steps(speed_of("deit-b", repeated_aug=False)) == 300 * 1251
    assert count_steps(speed_of("deit-b", data="mine")) == 0


def test_a_timed_step_is_the_trainers_own_with_all_that_its_recipe_asks_for() -> None:
    job = small(distillation="soft", teacher="regnety_002", ema=True, gradient_clip=1.0, optimizer="sgd")
    step = TrainingWorkload(job, Cpu(1))._step
    assert isinstance(step.teacher, nn.Module)
    assert type(step.teacher).__name__ == "RegNet"
    assert type(step.optimizer).__name__ == "SGD"
    assert (step.average is not None, step.mixing is not None, step.erasing is not None) == (True, True, True)
    assert (step.gradient_clip, step.objective.distillation) == (1.0, "soft")
    plain = TrainingWorkload(small(mixup=0.0, cutmix=0.0, erasing=0.0), Cpu(1))
    assert (plain._step.teacher, plain._step.average, plain._step.mixing, plain._step.erasing) == (None,) * 4
    assert (plain.smallest_batch, plain.largest_batch) == (1, 64)


def test_a_timed_step_updates_the_weights_and_passes_its_parts_in_their_order() -> None:
    workload = TrainingWorkload(small(), Cpu(1))
    step = workload.make_step(4)
    before = [parameter.clone() for parameter in workload._step.plain.parameters()]
    step()
    step()
    parts = workload.parts([0], 2)  # of two timed steps the first
    assert tuple(parts) == PARTS
    assert {part: len(seconds) for part, seconds in parts.items()} == dict.fromkeys(PARTS, 1)
    assert parts != workload.parts([1], 2)
    assert all(seconds[0] > 0 for seconds in parts.values())
    after = workload._step.plain.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_loss_that_is_no_number_is_an_error() -> None:
    workload = TrainingWorkload(small(), Cpu(1))
    step = workload.make_step(4)
    for parameter in workload._step.plain.parameters():
        nn.init.constant_(parameter, float("nan"))
    step()
    with pytest.raises(JobError) as caught:
        workload.check_loss()
    assert str(caught.value) == "the loss of 'deit_tiny_patch16_224' is nan after the timed steps"


# What is measured.


def test_a_small_training_is_timed_with_its_parts_its_memory_and_its_hours() -> None:
    metrics, facts, _ = measure_train_speed(small(), silent, device="cpu", threads=1)
    value = {name: float(measurement.value) for name, measurement in metrics.items()}
    assert set(KINDS["train-speed"].metrics) - {"energy"} == set(metrics)
    assert facts["share"] == 64
    assert facts["steps"] == 3 * 20  # by hand: 1,437 images, of which 5 × 256 = 1,280 make 20 batches of 64
    assert value["batch"] in (2, 4, 8, 16, 32, 64)
    samples = metrics["throughput"].samples
    assert len(samples) == 4
    assert value["throughput"] == pytest.approx(4 * value["batch"] / sum(samples))
    assert value["step"] == pytest.approx(1000 * fmean(metrics["throughput"].samples))
    # What is between the parts is the clock's.
    assert sum(value[part] for part in PARTS) == pytest.approx(value["step"], rel=0.05)
    batches = 64 / value["batch"]
    seconds = 60 * (batches * (value["step"] - value["update"]) + value["update"]) / 1000
    assert value["hours"] == pytest.approx(seconds / 3600)
    assert value["days"] == pytest.approx(value["hours"] / 24)
    low, high = metrics["hours"].low, metrics["hours"].high
    assert low is not None
    assert high is not None
    assert low < value["hours"] < high
    assert value["memory"] > 0


def test_the_hours_of_devices_that_share_a_batch_are_those_of_a_device_with_its_share() -> None:
    metrics, facts, warnings = measure_train_speed(small(devices=4, batch=16), silent, device="cpu", threads=1)
    assert (facts["share"], metrics["batch"].value) == (16, 16)
    assert float(metrics["hours"].value) == pytest.approx(60 * float(metrics["step"].value) / 3.6e6)
    assert not any("does not fit" in warning for warning in warnings)


def test_a_cpu_is_timed_in_float32_where_the_recipe_has_float16_and_says_so() -> None:
    _, facts, warnings = measure_train_speed(small(precision="float16", batch=4), silent, device="cpu", threads=1)
    assert facts["precision"] == "float32"
    (warning,) = (warning for warning in warnings if "float16" in warning)
    assert warning == (
        "a CPU does not compute in float16 but converts each number, which takes many times as long: timed in float32, "
        "which a training here should have as well (--set precision=float32)"
    )
    workload = TrainingWorkload(small(precision="bfloat16"), Cpu(1))
    assert (workload.precision, workload.warnings) == ("bfloat16", ())


def test_images_of_an_unknown_number_make_no_hours() -> None:
    metrics, _, warnings = measure_train_speed(small(data="mine", batch=8), silent, device="cpu", threads=1)
    assert "hours" not in metrics
    assert "no hours: nothing says how many images for training 'mine' has" in warnings


def test_a_gpu_takes_its_share_of_the_batch_or_half_of_that_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def measure(function: Callable[..., Any], *arguments: Any) -> TimedBatch | str:  # noqa: ANN401
        batch: int = arguments[-1]
        tried.append(batch)
        parts = {part: [0.25] * 2 for part in PARTS}
        timed = TimedBatch(
            batch=batch, seconds=(1.0, 1.0), facts={"parts": parts, "peak_allocated": 2**30}, warnings=()
        )
        return timed if batch <= 32 else "out of memory"

    monkeypatch.setattr(train_speed, "run_in_fresh_process", measure)
    metrics, _, warnings = measure_train_speed(speed_of("deit-b", devices=8), silent, device="cuda:0", threads=0)
    assert tried == [128, 64, 32]
    # By hand: 4 batches of a second, three of the updates left out, make a step of 4 - 0.75 s; 300 × 1,251 steps.
    assert float(metrics["hours"].value) == pytest.approx(300 * 1251 * 3.25 / 3600)
    assert float(metrics["memory"].value) == 1
    assert warnings[-1] == (
        "a share of 128 images does not fit and 32 were timed: a training here needs more devices, or a smaller "
        "batch_size"
    )


def test_where_not_even_two_images_fit_it_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_speed, "run_in_fresh_process", lambda *_: "out of memory")
    with pytest.raises(JobError) as caught:
        measure_train_speed(speed_of("deit-b"), silent, device="cuda:0", threads=0)
    assert str(caught.value) == "out of memory at batch 2"


def test_the_search_for_saturation_stays_between_its_bounds() -> None:
    # Throughput grows for ever: an iteration takes no longer for more images.
    found = find_saturation(lambda _batch: [0.01], smallest=2, largest=24)
    assert [probe.batch for probe in found.probes] == [2, 4, 8, 16]
    assert found.batch == 16


# What it tells before a training.


def keep(runs: Path, job: Job, hours: float) -> None:
    machine = describe("cpu")
    result = result_of(job, machine=machine, software=dict(software(machine)), value=100.0)
    metrics = {**result.metrics, "hours": Measurement(unit="h", value=hours)}
    Store(runs).save(replace(result, metrics=metrics))


TRAIN = ("--train", "--data", "imagenet=x", "--device", "cpu")


def test_only_train_speed_times_the_step_of_each_training_without_training_and_without_images(tmp_path: Path) -> None:
    options = Options(train=True, only=frozenset({"train-speed"}), rows=("none", "no_randaugment", "pretrain_sgd"))
    (table8,) = Catalog().find(["table8"])
    jobs = make_plan([table8], options).jobs
    finetune = STAGES.training({"recipe": "deit-b-finetune", "res": 384})
    assert set(jobs) == {speed_of("deit-b"), speed_of("deit-b", optimizer="sgd"), STAGES.speed_job_of(finetune)}
    ran = run_harness(
        tmp_path, "plan", "table8", "--train", "--only", "train-speed", "--rows", "none", "--device", "cpu"
    )
    assert "train-speed: 2 distinct jobs, 0 measured already" in ran.stdout
    small_scale = make_plan([table8], replace(options, scale="proxy"))
    assert small_scale.jobs == ()


def test_the_steps_behind_a_table_are_timed_once_each_and_its_cells_stay_untrained(tmp_path: Path) -> None:
    (table8,) = Catalog().find(["table8"])
    options = Options(train=True, only=frozenset({"train-speed"}), rows=("none", "no_randaugment"))
    launcher, plan = FakeLauncher(), make_plan([table8], options)
    target = ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "speed.lock")
    runner = Runner(store=Store(tmp_path / "runs"), launcher=launcher, target=target, observer=ProgressObserver())
    runner.run(plan)
    assert launcher.batches == [
        ("train-speed deit_base_patch16_224 deit-b imagenet at 224",),
        ("train-speed deit_base_patch16_224 deit-b-finetune imagenet at 384",),
    ]
    diff = compare(fill(plan.specs[0], plan, runner.results))
    trained = [diff.judged_cells["none", column] for column in ("pretrained", "finetuned")]
    assert {(cell.verdict, cell.reason) for cell in trained} == {("missing", "left out: train jobs were not requested")}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine as the commands of these tests see it, which have one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return describe("cpu").label


def test_without_a_measured_step_plan_says_how_to_get_the_hours_here(tmp_path: Path, machine: str) -> None:
    ran = run_harness(tmp_path, "plan", "table8", *TRAIN, "--rows", "none")
    cost, here = ran.stdout.splitlines()[-2:]
    assert cost == "training: 2 of known cost, ≈ 584 V100-hours"
    assert here == (
        f"  how long 2 of 2 trainings would take on {machine} is not known: "
        "`harness reproduce table8 --train --only train-speed` times their steps, about a minute each"
    )


def test_with_measured_steps_plan_and_the_question_tell_hours_here_next_to_v100_hours(
    tmp_path: Path, machine: str
) -> None:
    (table8,) = Catalog().find(["table8"])
    timed = make_plan([table8], Options(train=True, only=frozenset({"train-speed"}), rows=("none",))).jobs
    assert len(timed) == 2
    keep(tmp_path / "runs", timed[0], 1000.0)
    half = run_harness(tmp_path, "plan", "table8", *TRAIN, "--rows", "none").stdout.splitlines()
    assert half[-1].startswith(
        f"  ≈ 1,000 h of steps on {machine}; how long 1 of 2 trainings would take on {machine} is not"
    )
    keep(tmp_path / "runs", timed[1], 234.0)
    whole = run_harness(tmp_path, "plan", "table8", *TRAIN, "--rows", "none").stdout.splitlines()
    assert whole[-1] == f"  ≈ 1,234 h of steps on {machine}"
    assert sum("  ≈ 424 V100-hours  ≈ 1,000 h of steps here" in line for line in whole) == 1
    asked = run_harness(tmp_path, "reproduce", "table8", *TRAIN, "--rows", "none")
    assert asked.returncode == 2
    assert asked.stderr == (
        f"error: 2 trainings at the published scale, ≈ 584 V100-hours; ≈ 1,234 h of steps on {machine}; add --yes to "
        "begin, or --scale proxy for a stand-in\n"
    )


def test_a_step_timed_on_another_machine_says_nothing_of_the_hours_here(tmp_path: Path) -> None:
    (table8,) = Catalog().find(["table8"])
    for job in make_plan([table8], Options(train=True, only=frozenset({"train-speed"}), rows=("none",))).jobs:
        for machine in (LAPTOP, V100):
            Store(tmp_path / "runs").save(result_of(job, machine=machine))
    ran = run_harness(tmp_path, "plan", "table8", *TRAIN, "--rows", "none")
    assert "how long 2 of 2 trainings would take" in ran.stdout


def test_published_hours_of_several_gpus_are_shown_and_not_judged_by_one(tmp_path: Path) -> None:
    (text,) = Catalog().find(["text"])
    plan = make_plan([text], Options(rows=("train_time_single_node",)))
    (job,) = plan.jobs
    result = result_of(job, machine=V100)
    result = replace(result, metrics={**result.metrics, "hours": Measurement(unit="h", value=26.5)})
    Store(tmp_path / "runs").save(result)
    ran = run_harness(tmp_path, "report", "text", "--rows", "train_time_single_node")
    assert "measured on Tesla V100-SXM2-16GB 16 GiB, published for 8 V100 32GB" in " ".join(ran.stdout.split())
    assert "2.0× faster" in ran.stdout
