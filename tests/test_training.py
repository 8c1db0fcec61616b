"""The trainer on real images: what it learns, that nothing is lost, that several processes equal one."""

import csv
import errno
import functools
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from harness.errors import JobError
from harness.jobs import models, train
from harness.jobs.data.images import Images
from harness.jobs.data.open import open_images
from harness.jobs.data.preprocess import Preprocessing, normalise
from harness.jobs.training import check, checkpoint, student, trained_weights
from harness.jobs.training.data import build_mixing, build_transform
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.monitoring import COLUMNS
from harness.jobs.training.run import ProcessContext, assemble_trainer
from harness.jobs.training.step import Step
from harness.jobs.training.student import Student
from harness.jobs.training.trainer import TrainingStopped
from harness.jobs.training.validation import measure_accuracies
from harness.plan.job import Job
from harness.plan.stages import TrainingStages
from harness.run.messages import Inputs, Progress
from harness.specs.recipe import Recipes
from harness.store.result import Result, new_id
from harness.store.store import Store
from tests.fakes import LAPTOP, result_of
from tests.test_atomic import full_disk
from tests.trainings import PLAIN, changed, ignored, smoke, start_forked, trained


def digest(runs: Path) -> str:
    """Return the SHA-256 of the weights that a training saved."""
    return hashlib.sha256((runs / "weights.safetensors").read_bytes()).hexdigest()


def trainer_of(job: Job, runs: Path, stops_after: int | None = None) -> Any:  # noqa: ANN401
    """Assemble a trainer that is told to stop after so many steps."""
    images, tests = (open_images("digits", "sklearn/digits", split=split) for split in ("train", "test"))
    context = ProcessContext(device="cpu", cores=1, inputs=Inputs(), runs=runs)
    steps = 0

    def stop_requested() -> bool:
        nonlocal steps
        steps += 1
        return stops_after is not None and steps > stops_after

    return assemble_trainer(
        job, images, tests, context=context, world=World(), report=ignored, stop_requested=stop_requested
    )


# Learning.


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path, dict[str, Any]]:
    """Train the smoke-size DeiT without augmentation, which is how it learns fastest."""
    runs = tmp_path_factory.mktemp("teacher")
    job = smoke(epochs=20, depth=2, embed_dim=64, num_heads=4, **PLAIN)
    _, facts = trained(job, runs)
    return job, runs, facts


def test_a_small_deit_learns_the_digits(teacher: tuple[Job, Path, dict[str, Any]]) -> None:
    history = teacher[2]["history"]
    assert history[-1]["top1"] > 80  # chance gives 10
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]


def test_a_distilled_student_agrees_more_with_its_teacher(tmp_path: Path) -> None:
    # A teacher that is often wrong, so that agreeing with it is not the same as being right.
    sizes: dict[str, Any] = {"depth": 2, "embed_dim": 64, "num_heads": 4, **PLAIN}
    job, runs = smoke(epochs=4, **sizes), tmp_path / "teacher"
    alone = smoke(epochs=6, seed=2, **sizes)
    taught = smoke(epochs=6, seed=2, distillation="soft", soft_weight=0.9, **sizes)
    taught = Job.of("train", dict(taught.settings), {"teacher": job})
    runs.mkdir()
    trained(job, runs)
    agreement = {}
    for name, setup in (("alone", alone), ("taught", taught)):
        folder = tmp_path / name
        folder.mkdir()
        _save_for_students(job, runs, into=folder)
        trained(setup, folder)
        agreement[name] = _agreement(setup, folder, job, runs)
    assert agreement["taught"] > agreement["alone"] + 0.1  # 0.20 to 0.28 with three seeds


def _save_for_students(job: Job, runs: Path, *, into: Path) -> None:
    """Store the result of a training where those that need its weights find it."""
    store = Store(into)
    started = datetime.now(tz=UTC)
    facts = {**result_of(job).facts, "weights": {"sha256": digest(runs), "origin": "trained"}}
    result = Result(id=new_id(started), job=job, machine=LAPTOP, software={}, started=started, seconds=1.0, facts=facts)
    store.save(result)
    store.weights_of(result).write_bytes((runs / "weights.safetensors").read_bytes())


def _agreement(job: Job, folder: Path, other: Job, runs: Path) -> float:
    """Return the share of the test images of which two models predict the same."""
    tests = open_images("digits", "sklearn/digits")
    predictions = []
    for trained_job, path in ((job, folder), (other, runs)):
        built = Student(trained_weights.load_model(trained_job, path / "weights.safetensors", res=32))
        predictions.append(_predict(built, tests, Hyperparameters.of(trained_job)))
    return float(np.mean(predictions[0] == predictions[1]))


@torch.inference_mode()
def _predict(student: Student, tests: Images, hyper: Hyperparameters) -> np.ndarray:
    cut = Preprocessing(res=hyper.res, crop=hyper.crop, interpolation=hyper.interpolation).transform()
    pixels = torch.from_numpy(np.stack([cut(tests.image(position)) for position in range(len(tests))]))
    logits: torch.Tensor = student.eval()(normalise(pixels, hyper.norm))[0]
    return logits.argmax(dim=1).numpy()


# A teacher that is adapted to the size of its student.


def convnet(recipe: str, **changes: Any) -> Job:  # noqa: ANN401 -- settings of every type
    """Make the smoke training of a small convnet with batch norms, without augmentation."""
    recipes = Recipes()
    requested = {"recipe": recipe, "model": "regnety_160"}
    start = {"start": "regnety-16gf"} if recipe == "fixres" else {}
    job = TrainingStages(recipes=recipes, scale=recipes.scale("smoke")).training({**requested, **start})
    return changed(job, **{"model": "test_resnet", **PLAIN, **changes})


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path, float]:
    """Train a convnet on images of 32 pixels; return its job, its folder and its accuracy there."""
    runs = tmp_path_factory.mktemp("convnet")
    job = convnet("regnety-16gf", epochs=5, optimizer="adamw", learning_rate=0.01, lr_batch=0.0)
    metrics, _ = trained(job, runs)
    return job, runs, float(metrics["top1"].value)


def adaptation_of(teacher: Job, runs: Path, into: Path) -> Job:
    """Make the job that adapts a teacher to 56 pixels, and store the teacher where the job finds it."""
    _save_for_students(teacher, runs, into=into)
    return Job.of("train", dict(convnet("fixres", res=56, epochs=2).settings), {"start": teacher})


@pytest.fixture(scope="module")
def adapted(
    small_teacher: tuple[Job, Path, float], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Path, float]:
    """Adapt the convnet to 56 pixels; return as `small_teacher` does."""
    folder = tmp_path_factory.mktemp("adapted")
    job = adaptation_of(*small_teacher[:2], folder)
    metrics, _ = trained(job, folder)
    return job, folder, float(metrics["top1"].value)


def accuracy(job: Job, runs: Path, res: int) -> float:
    """Return the share of the test images, in percent, that a trained model gets right at a size."""
    tests = open_images("digits", "sklearn/digits")
    built = Student(trained_weights.load_model(job, runs / "weights.safetensors", res=res))
    return float(100 * (_predict(built, tests, Hyperparameters.of(changed(job, res=res))) == tests.labels).mean())


def test_an_adapted_teacher_is_nearly_as_right_at_the_larger_size_as_it_was_at_its_own(
    small_teacher: tuple[Job, Path, float], adapted: tuple[Job, Path, float]
) -> None:
    own, larger = small_teacher[2], adapted[2]
    assert own > 85
    assert accuracy(*small_teacher[:2], 56) < own - 20
    assert larger > own - 5
    assert larger == pytest.approx(accuracy(*adapted[:2], 56))


def test_only_the_classifier_and_the_batch_norms_of_a_teacher_are_adapted_in_each_epoch(
    small_teacher: tuple[Job, Path, float], adapted: tuple[Job, Path, float]
) -> None:
    before, after = (load_file(runs / "weights.safetensors") for _, runs, _ in (small_teacher, adapted))
    assert before.keys() == after.keys()
    changes = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    assert changes == {f"{n}.{kind}" for n in norms for kind in STATISTICS} | {"fc.weight", "fc.bias"}
    counted = {int(after[f"{name}.num_batches_tracked"] - before[f"{name}.num_batches_tracked"]) for name in norms}
    assert counted == {2 * 22}  # 1,437 images make 22 batches of 64 an epoch


STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_a_teacher_is_adapted_on_images_as_the_evaluation_has_them() -> None:
    from PIL import Image

    image = open_images("digits", "sklearn/digits", split="train").image(0)
    # A crop of 0.875 of 56 pixels is the centre of 64.
    expected = image.resize((64, 64), Image.Resampling.BICUBIC).crop((4, 4, 60, 60))
    pixels = build_transform(Hyperparameters.of(convnet("fixres", res=56)))(image)
    assert np.array_equal(pixels, np.asarray(expected.convert("RGB")).transpose(2, 0, 1))


def test_an_adaptation_that_was_stopped_ends_with_the_same_weights(
    small_teacher: tuple[Job, Path, float], adapted: tuple[Job, Path, float], tmp_path: Path
) -> None:
    job = adaptation_of(*small_teacher[:2], tmp_path)
    with pytest.raises(TrainingStopped):
        trainer_of(job, tmp_path, stops_after=30).run()
    trained(job, tmp_path)
    assert digest(tmp_path) == digest(adapted[1])


def test_a_teacher_of_other_classes_is_not_adapted(tmp_path: Path) -> None:
    public = changed(convnet("fixres", res=56), start="test_resnet.r160_in1k")
    public = Job.of("train", dict(public.settings))
    images = {f"digits{split}": {"images": 1437, "classes_of": 10} for split in ("", "/train")}
    reason = "the teacher test_resnet.r160_in1k knows 1,000 classes, the dataset has 10; name a recipe that trains one"
    assert check.find_problem(public, images) == f"{public}: {reason}"


def test_a_public_teacher_of_another_size_is_reported() -> None:
    def taught(teacher: str, res: int) -> str:
        return check.teacher_warning(smoke(distillation="hard", teacher=teacher, res=res))

    assert taught("regnety_160.deit_in1k", 224) == ""
    assert taught("regnety_160.deit_in1k", 384) == (
        "the teacher regnety_160.deit_in1k is published for images of 224 pixels and sees 384 here: set "
        "teacher_res = 224, and it is adapted first"
    )


def test_the_accuracy_of_an_epoch_is_the_share_of_the_test_images_that_are_right(tmp_path: Path) -> None:
    job = smoke(epochs=1)
    trained(job, tmp_path)
    tests = open_images("digits", "sklearn/digits")
    built = Student(trained_weights.load_model(job, tmp_path / "weights.safetensors", res=32))
    accuracies = measure_accuracies(built, tests, Hyperparameters.of(job), World(), device="cpu", workers=0)
    right = (_predict(built, tests, Hyperparameters.of(job)) == tests.labels).mean()
    assert accuracies == {"top1": pytest.approx(100 * right)}


def test_a_training_that_ends_where_guessing_would_warns_of_it(tmp_path: Path) -> None:
    job, weights = smoke(epochs=1, learning_rate=1e-12, warmup_epochs=0.0), tmp_path / "weights.safetensors"
    options: dict[str, Any] = {"devices": ("cpu",), "runs": tmp_path, "weights": weights, "cores": 1}
    *_, warnings = train.train(job, Inputs(), ignored, **options)
    assert re.fullmatch(
        r"top-1 is \d+\.\d\d % on 360 images, and guessing gives 10 % with 10 classes: are the labels numbered as the "
        r"model's classes are, and are these its weights\?",
        warnings[-1],
    )


# What is left behind.


def test_a_training_leaves_weights_a_table_of_its_epochs_and_points_for_tensorboard(tmp_path: Path) -> None:
    job = smoke(epochs=2)
    reports: list[Progress] = []
    metrics, facts = trained(job, tmp_path, report=reports.append)
    folder = tmp_path / job.key
    with (folder / "training.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert set(lines[0]) == set(COLUMNS)
    assert float(lines[1]["top1"]) == metrics["top1"].value == facts["history"][1]["top1"]
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert len(list(folder.glob("checkpoint-*"))) == 2  # until the result is saved
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as file:
        assert file.metadata() == {"classes": "10"}
    assert facts["weights"]["sha256"] == digest(tmp_path)
    assert facts["learning_rate"] == {"given": 0.008, "for_batch": 512.0, "set": 0.001}
    assert reports[-1].done == reports[-1].total == 2 * 20 * 64
    assert "loss" in reports[-1].phase
    assert "top-1" in reports[-1].phase
    assert reports[-1].rate is not None
    assert reports[-1].rate > 0


def test_a_training_whose_share_of_a_batch_is_too_large_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")

    monkeypatch.setattr(Step, "loss", full)
    with pytest.raises(JobError) as refused:
        trained(smoke(epochs=1, batch_size=48), tmp_path)
    assert str(refused.value) == (
        "out of memory with 48 images at once; give more devices, or --set batch_size=N for a smaller one"
    )


def test_the_average_is_saved_where_the_recipe_asks_for_it(tmp_path: Path) -> None:
    plain, average = tmp_path / "plain", tmp_path / "average"
    with_average: dict[str, Any] = {"ema": True, "ema_decay": 0.5}
    for folder, changes in ((plain, {}), (average, with_average)):
        folder.mkdir()
        trained(smoke(epochs=1, **changes), folder)
    last, averaged = (load_file(folder / "weights.safetensors") for folder in (plain, average))
    assert last.keys() == averaged.keys()
    difference = (last["head.weight"] - averaged["head.weight"]).abs().max()
    assert 0 < difference < 0.01  # half of the way of the last steps


# Nothing is lost.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Job], str]:
    """Return the digest of what a training leaves that nothing stops; each is trained once."""

    @functools.cache
    def digest_of(job: Job) -> str:
        runs = tmp_path_factory.mktemp("whole")
        trained(job, runs)
        return digest(runs)

    return digest_of


@pytest.mark.parametrize("stops", [1, 19, 20, 33, 47])
def test_a_training_that_was_stopped_anywhere_ends_with_the_same_weights_to_the_bit(
    tmp_path: Path, whole: Callable[[Job], str], stops: int
) -> None:
    # The third epoch is the first with another learning rate.
    job = smoke(epochs=3, ema=True, dropout=0.1)
    with pytest.raises(TrainingStopped):
        trainer_of(job, tmp_path, stops_after=stops).run()
    _, facts = trained(job, tmp_path)
    assert facts["resumed"] == 1
    assert digest(tmp_path) == whole(job)


def test_loader_processes_do_not_change_what_is_learnt(tmp_path: Path) -> None:
    folders = tmp_path / "alone", tmp_path / "read"
    for workers, folder in enumerate(folders):
        folder.mkdir()
        trained(smoke(epochs=1), folder, workers=2 * workers)
    assert digest(folders[0]) == digest(folders[1])


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2], ids=lambda number: number.name)
def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    tmp_path: Path, whole: Callable[[Job], str], by: signal.Signals
) -> None:
    job = smoke(epochs=4)
    process = start_forked(trained, job, tmp_path)
    _wait_for(lambda: list((tmp_path / job.key).glob("checkpoint-*")), process)
    assert process.pid is not None
    os.kill(process.pid, by)
    process.join()
    assert process.exitcode != 0
    left = checkpoint.Checkpoints(tmp_path / job.key, job).load()
    assert left is not None
    if by != signal.SIGKILL:
        assert left[0].steps_done >= 20
    trained(job, tmp_path)
    assert digest(tmp_path) == whole(job)


def _wait_for(condition: Callable[[], object], process: BaseProcess) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.exitcode is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    job = smoke(epochs=3)
    trainer = trainer_of(job, tmp_path, stops_after=65)
    with pytest.raises(TrainingStopped):
        trainer_of(smoke(epochs=5), tmp_path, stops_after=68).run()
    names = [path.name for path in sorted((tmp_path / smoke(epochs=5).key).glob("checkpoint-*"))]
    assert len(names) == 2
    assert trainer.checkpoints.newest() is None


def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_is_used(tmp_path: Path) -> None:
    job = smoke(epochs=5)
    with pytest.raises(TrainingStopped):
        trainer_of(job, tmp_path, stops_after=50).run()
    checkpoints = checkpoint.Checkpoints(tmp_path / job.key, job)
    newest = checkpoints.newest()
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:1000])
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[0].steps_done == 40
    assert newest.with_suffix(".damaged").exists()


def interrupted(job: Job, runs: Path, stops_after: int = 50) -> list[Path]:
    """Train until two checkpoints are left, and return them, the newest last."""
    with pytest.raises(TrainingStopped):
        trainer_of(job, runs, stops_after=stops_after).run()
    return sorted((runs / job.key).glob("checkpoint-*"))


def flip_a_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    job = smoke(epochs=5)
    _, newest = interrupted(job, tmp_path)
    whole = newest.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    assert header < len(whole) - 1000
    for position in (3, *range(8, header, header // 40), *range(header, len(whole), len(whole) // 40), len(whole) - 1):
        newest.write_bytes(whole)
        flip_a_bit(newest, position)
        loaded = checkpoint.Checkpoints(newest.parent, job).load()
        assert loaded is not None
        # A bit in the padding of the header, if it was one, changes nothing that is read.
        assert (loaded[0].steps_done, loaded[0].damaged) == (40, [newest.name]), position
        newest.with_suffix(".damaged").unlink()


@pytest.mark.parametrize("kept", [0, 1])
def test_a_training_resumed_past_damaged_checkpoints_ends_with_the_same_weights_and_says_so(
    tmp_path: Path, whole: Callable[[Job], str], kept: int
) -> None:
    job = smoke(epochs=4)
    paths = interrupted(job, tmp_path)
    for path in paths[kept:]:
        flip_a_bit(path, -5)
    _, facts, warnings = train.train(
        job, Inputs(), ignored, devices=("cpu",), runs=tmp_path, weights=tmp_path / "weights.safetensors", cores=1
    )
    assert digest(tmp_path) == whole(job)
    names = [path.name for path in reversed(paths[kept:])]
    assert (facts["resumed"], facts["damaged_checkpoints"]) == (kept, names)
    assert f"damaged and set aside, {', '.join(names)}: check the disk of {tmp_path}" in warnings


def test_only_the_leading_process_sets_a_checkpoint_aside(tmp_path: Path) -> None:
    job = smoke(epochs=5)
    _, newest = interrupted(job, tmp_path)
    flip_a_bit(newest, -5)
    loaded = checkpoint.Checkpoints(newest.parent, job).load(leads=False)
    assert loaded is not None
    assert loaded[0].steps_done == 40
    assert newest.exists()


def test_a_training_is_not_resumed_with_other_images_or_weights(tmp_path: Path) -> None:
    job = smoke(epochs=5)
    _, newest = interrupted(job, tmp_path)
    given = {"images": "a" * 64, "teacher": "b" * 64}
    with pytest.raises(JobError) as error:
        checkpoint.Checkpoints(newest.parent, job, given).load()
    images = open_images("digits", "sklearn/digits", split="train").fingerprint
    again = "give those again, or move the checkpoints away to train from the beginning"
    assert (
        str(error.value)
        == f"{newest}: was trained with other images (digest {images[:12]}, here aaaaaaaaaaaa); {again}"
    )
    with pytest.raises(JobError) as error:
        checkpoint.Checkpoints(newest.parent, job, {**given, "images": images}).load()
    assert str(error.value) == (
        f"{newest}: was trained with other weights as its teacher (digest None, here bbbbbbbbbbbb); {again}"
    )
    assert newest.exists()


def test_weights_that_are_not_as_their_training_left_them_are_not_used(
    tmp_path: Path, teacher: tuple[Job, Path, dict[str, Any]]
) -> None:
    job, runs, facts = teacher
    _save_for_students(job, runs, into=tmp_path)
    file = trained_weights.find(job, tmp_path)
    assert (file.sha256, file.origin) == (facts["weights"]["sha256"], "trained")
    flip_a_bit(file.path, -5)
    os.utime(file.path, (1, 1))  # a file is hashed again when it was written
    with pytest.raises(JobError) as error:
        trained_weights.find(job, tmp_path)
    assert str(error.value) == (
        f"{file.path}: is damaged or of another training, its SHA-256 is not that in the result next to it; remove it, "
        "and the same command trains again"
    )


def test_a_training_takes_no_weights_that_may_be_others(tmp_path: Path) -> None:
    job = smoke(distillation="hard", teacher="tf_efficientnet_b5.ra_in1k")
    path = tmp_path / "tf_efficientnet_b5.pth"
    path.write_bytes(b"weights")
    with pytest.raises(JobError, match=r"may be tf_efficientnet_b5.ra_in1k or tf_efficientnet_b5.*; rename it to say"):
        trained_weights.find_input(job, "teacher", folder=tmp_path, runs=tmp_path)
    path.rename(tmp_path / "tf_efficientnet_b5.ra_in1k.pth")
    assert trained_weights.find_input(job, "teacher", folder=tmp_path, runs=tmp_path).file.sha256


def test_a_checkpoint_of_another_recipe_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    job, other = smoke(epochs=5), smoke(epochs=5, mixup=0.3)
    with pytest.raises(TrainingStopped):
        trainer_of(job, tmp_path, stops_after=3).run()
    (tmp_path / job.key).rename(tmp_path / other.key)
    path = checkpoint.Checkpoints(tmp_path / other.key, other).newest()
    with pytest.raises(JobError) as error:
        trained(other, tmp_path)
    assert str(error.value) == (
        f"{path}: is a checkpoint of another recipe (mixup = 0.8 there, 0.3 here); move it away or ask for that recipe"
    )


def test_a_loss_that_is_no_number_stops_with_the_step_the_rate_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    job = smoke(epochs=2)
    trainer = trainer_of(job, tmp_path)
    step, taken = trainer.step, []

    def poisoned(pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        taken.append(1)
        if len(taken) == 25:
            with torch.no_grad():
                trainer.student.model.head.weight.fill_(float("nan"))
        return step(pixels, targets)  # type: ignore[no-any-return]

    trainer.step = Poisoned(step, poisoned)
    with pytest.raises(JobError) as error:
        trainer.run()
    assert str(error.value) == (
        "the loss is nan at step 5 of epoch 2, learning rate 0.001; the last good checkpoint is "
        "checkpoint-000000020.safetensors; try a smaller learning_rate, or precision = 'float32'"
    )


class Poisoned:
    """A step whose model goes bad."""

    def __init__(self, step: Any, call: Any) -> None:  # noqa: ANN401
        self._step, self._call = step, call

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._step, name)

    def __call__(self, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._call(pixels, targets)  # type: ignore[no-any-return]


def test_a_loss_that_diverges_stops(tmp_path: Path) -> None:
    job = smoke(epochs=2, optimizer="sgd", learning_rate=1e6, warmup_epochs=0.0)
    with pytest.raises(JobError, match=r"the loss is \S+ at step \d+ of epoch 1, learning rate"):
        trained(job, tmp_path)


def test_a_full_disk_stops_and_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = smoke(epochs=3)
    count = [0]

    def full(tensors: Any, path: Path, metadata: Any) -> None:  # noqa: ANN401
        count[0] += 1
        if count[0] == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(JobError) as error:
        trained(job, tmp_path)
    first = tmp_path / job.key / "checkpoint-000000020.safetensors"
    assert str(error.value) == (
        f"{first.with_name('checkpoint-000000040.safetensors')}: the disk is full; free some space and run the same "
        "command, which resumes from checkpoint-000000020.safetensors"
    )
    assert [path.name for path in (tmp_path / job.key).glob("*checkpoint*")] == [first.name]
    _, facts = trained(job, tmp_path)
    assert facts["resumed"] == 1


def test_a_full_disk_at_the_log_is_one_sentence_and_leaves_the_old_log(tmp_path: Path) -> None:
    job = smoke(epochs=1)
    log = tmp_path / job.key / "training.csv"
    log.parent.mkdir()
    log.write_text("the old one")
    with full_disk(), pytest.raises(JobError) as error:
        trained(job, tmp_path)
    assert str(error.value) == (
        f"{log}: cannot be written ([Errno 27] File too large); fix that and run the same command, which resumes from "
        "the beginning"
    )
    assert log.read_text() == "the old one"


# Several processes.


def _gradients(rank: int, size: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    student, pixels, targets = _batch()
    wrapped = DistributedDataParallel(student)
    each = len(pixels) // size
    mine = slice(rank * each, (rank + 1) * each)
    nn.functional.cross_entropy(wrapped(pixels[mine])[0], targets[mine]).backward()
    if rank == 0:
        torch.save([p.grad for p in student.parameters()], f"{folder}/gradients.pt")
    distributed.destroy_process_group()


def _batch() -> tuple[Student, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    shape = {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8}
    built = models.build_trainable("deit_tiny_patch16_224", 32, classes=10, shape=shape)
    return Student(built), torch.randn(8, 3, 32, 32), torch.arange(8)


def test_two_processes_with_half_the_batch_have_the_gradient_of_one_with_the_whole(tmp_path: Path) -> None:
    port = 29517 + os.getpid() % 1000
    ranks = [start_forked(_gradients, rank, 2, port, str(tmp_path)) for rank in range(2)]
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    student, pixels, targets = _batch()
    nn.functional.cross_entropy(student(pixels)[0], targets).backward()
    shared = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for parameter, gradient in zip(student.parameters(), shared, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def test_torchrun_trains_with_two_processes(tmp_path: Path) -> None:
    reports: list[Progress] = []
    # A head that is not trained has no gradient to share.
    job = smoke(epochs=1, model="deit_tiny_distilled_patch16_224")
    first = built_student(job, tmp_path).state_dict()
    weights = tmp_path / "weights.safetensors"
    options: dict[str, Any] = {"devices": ("cpu",), "runs": tmp_path, "weights": weights, "cores": 1, "processes": 2}
    metrics, facts, warnings = train.train(job, Inputs(workers=0), reports.append, **options)
    assert (facts["processes"], facts["batch_per_process"], facts["steps"]) == (2, 32, 20)
    assert facts["weights"]["sha256"] == digest(tmp_path)
    assert 0 < float(metrics["top1"].value) < 100
    last = load_file(weights)
    assert {name for name in last if torch.equal(first[name], last[name])} == {"head_dist.weight", "head_dist.bias"}
    assert any(warning.startswith("without a teacher the class head alone is trained") for warning in warnings)


def test_an_error_in_one_of_several_processes_is_reported(tmp_path: Path) -> None:
    job = smoke(epochs=1, distillation="token", start="deit_tiny_patch16_224.nowhere")
    with pytest.raises(JobError, match="has no distillation token"):
        trained(job, tmp_path, processes=2)


# Models.


def built_student(job: Job, tmp_path: Path, classes: int = 10) -> nn.Module:
    return student.build_student(job, classes=classes, folder=None, runs=tmp_path)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224"])
def test_dropout_is_where_vit_and_the_authors_timm_have_it(tmp_path: Path, name: str) -> None:
    model: Any = built_student(smoke(model=name, depth=2, dropout=0.5, drop_path=0.0), tmp_path)
    zeros: dict[str, float] = {}

    def share(place: str, tensor: torch.Tensor) -> None:
        zeros[place] = float((tensor == 0).float().mean())

    heads = [head for head in ("head", "head_dist") if hasattr(model, head)]
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: share("position embedding", inputs[0]))
    for head in heads:
        getattr(model, head).register_forward_pre_hook(lambda _, inputs, head=head: share(head, inputs[0]))
    for number, block in enumerate(model.blocks):
        block.attn.register_forward_hook(lambda *out, n=number: share(f"projection {n}", out[2]))
        block.mlp.fc2.register_forward_pre_hook(lambda _, inputs, n=number: share(f"first layer {n}", inputs[0]))
        block.mlp.register_forward_hook(lambda *out, n=number: share(f"second layer {n}", out[2]))
    Student(model)(torch.randn(16, 3, 32, 32))
    assert len(zeros) == 1 + 3 * 2 + len(heads)
    assert [zeros.pop(head) for head in heads] == [0.0] * len(heads)
    assert list(zeros.values()) == pytest.approx([0.5] * 7, abs=0.03)


@pytest.mark.parametrize("recipe", ["deit-ti", "deit-ti-distilled"])
def test_the_first_values_are_those_of_the_authors_code(tmp_path: Path, recipe: str) -> None:
    model = built_student(TrainingStages().training({"recipe": recipe}), tmp_path, classes=1000)
    tokens = {"cls_token", "dist_token", "pos_embed"} - ({"dist_token"} if recipe == "deit-ti" else set())
    assert tokens == {name for name, _ in model.named_parameters() if "." not in name}
    for name, parameter in model.named_parameters():
        deviation = float(parameter.detach().std())
        if name in tokens or (name.endswith("weight") and parameter.ndim == 2):
            assert deviation == pytest.approx(0.02, rel=0.2 if parameter.numel() == 192 else 0.02), name
        elif name.startswith("patch_embed"):
            assert float(parameter.detach().abs().max()) <= (3 * 16 * 16) ** -0.5  # torch's own, uniform
        else:
            assert parameter.unique().tolist() == [float(".norm" in f".{name}" and name.endswith("weight"))], name


def test_a_wider_initialisation_is_of_transformers_alone(tmp_path: Path) -> None:
    stages = TrainingStages(scale=Recipes().scale("smoke"))
    deviations = {
        recipe: float(built_student(stages.training({"recipe": recipe}), tmp_path).get_parameter(head).detach().std())
        for recipe, head in (("deit-b", "head.weight"), ("regnety-16gf", "head.fc.weight"))
    }
    assert deviations == {"deit-b": pytest.approx(0.1, rel=0.1), "regnety-16gf": pytest.approx(0.01, rel=0.1)}


def test_without_a_teacher_the_class_head_alone_is_trained(tmp_path: Path) -> None:
    job = smoke(epochs=1, model="deit_tiny_distilled_patch16_224")
    first = built_student(job, tmp_path).state_dict()
    weights = tmp_path / "weights.safetensors"
    options: dict[str, Any] = {"devices": ("cpu",), "runs": tmp_path, "weights": weights, "cores": 1}
    _, _, warnings = train.train(job, Inputs(workers=0), ignored, **options)
    last = load_file(weights)
    assert {name for name in last if torch.equal(first[name], last[name])} == {"head_dist.weight", "head_dist.bias"}
    assert (
        "without a teacher the class head alone is trained, as in the released code, and top1 adds a distillation head "
        "that stays as it began: read top1_class, or name a teacher"
    ) in warnings


def test_the_rate_of_an_epoch_is_that_of_the_one_before_it_in_the_schedule(tmp_path: Path) -> None:
    _, facts = trained(smoke(epochs=4, warmup_epochs=2.0), tmp_path)
    rates = [row["learning_rate"] for row in facts["history"]]
    assert rates == pytest.approx([1e-6, 1e-6, 1e-6 + (0.001 - 1e-6) / 2, 1e-5 + (0.001 - 1e-5) / 2])


def test_a_student_returns_the_same_in_training_and_in_eval_mode() -> None:
    built = models.build_trainable(
        "deit_tiny_distilled_patch16_224", 32, classes=10, shape={"depth": 1, "patch_size": 8}
    )
    student, images = Student(built), torch.randn(2, 3, 32, 32)
    training = student.train()(images)
    evaluating = student.eval()(images)
    assert len(training) == len(evaluating) == 2
    for logits, others in zip(training, evaluating, strict=True):
        assert torch.allclose(logits, others, atol=1e-6)
    assert torch.allclose(sum(evaluating) / 2, built(images), atol=1e-6)


def test_weights_of_another_size_and_other_classes_start_a_model_with_a_new_head() -> None:
    def built(res: int, classes: int) -> nn.Module:
        shape = {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 8}
        return models.build_trainable("deit_tiny_patch16_224", res, classes=classes, shape=shape)

    old, new = built(32, 10), built(56, 7)
    head = new.get_parameter("head.weight").clone()
    student.load_starting_weights(new, old.state_dict(), "deit_tiny_patch16_224")
    assert torch.equal(new.get_parameter("head.weight"), head)
    assert torch.equal(new.get_parameter("cls_token"), old.get_parameter("cls_token"))
    assert new.get_parameter("pos_embed").shape == (1, 1 + 49, 32)


def test_weights_of_another_model_are_refused() -> None:
    def built(width: int) -> nn.Module:
        shape = {"depth": 1, "embed_dim": width, "num_heads": 2, "patch_size": 8}
        return models.build_trainable("deit_tiny_patch16_224", 32, classes=10, shape=shape)

    with pytest.raises(JobError) as error:
        student.load_starting_weights(built(32), built(64).state_dict(), "deit_tiny_patch16_224")
    assert str(error.value) == (
        "the weights to start from are not those of 'deit_tiny_patch16_224' (cls_token differs); name others as start"
    )


def test_mixing_makes_soft_labels_of_a_whole_batch() -> None:
    mixing = build_mixing(Hyperparameters.of(smoke()), 10)
    assert mixing is not None
    images, targets = mixing(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))
    assert images.shape == (4, 3, 8, 8)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert build_mixing(Hyperparameters.of(smoke(mixup=0.0, cutmix=0.0)), 10) is None


def test_posterising_to_nothing_keeps_a_bit() -> None:
    """Timm's policy asks for no bits at its strongest, which Pillow refuses: one image in hundreds would end it all."""
    from PIL import Image

    from harness.jobs.training.data import build_transform, operations

    op = next(op for op in operations(build_transform(Hyperparameters.of(smoke()))) if op.name == "PosterizeIncreasing")
    op.magnitude, op.magnitude_std, op.prob = 10, 0.0, 1.0
    assert np.unique(np.asarray(op(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))))).tolist() == [
        0,
        128,
    ]
