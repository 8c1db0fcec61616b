"""One pass over the images predicts what timm's own loop does, reads each image once, and resumes where it stopped."""

import csv
import functools
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_dataset, create_loader
from torch import nn
from torch.nn.functional import cosine_similarity

from harness.errors import JobError
from harness.jobs.data.images import Images
from harness.jobs.data.open import inspect_dataset, open_images
from harness.jobs.data.preprocess import NORMALIZATIONS, Preprocessing
from harness.jobs.evaluate import agreement, evaluate, partial, score, tokens
from harness.jobs.evaluate.evaluate import EvaluationOutcome
from harness.jobs.evaluate.predictor import Predictor
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs, Progress
from harness.store.predictions import Head, Predictions, write
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.fakes import IMAGES, LAPTOP, result_of
from tests.own_models import install

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"
SYNSETS = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"

COUNT, SHARD = 21, 8  # three shards, the last one smaller
FOLDERS = ("n01440764", "n01443537", "n02119789", "n04552348")
SIZES = ((500, 375), (375, 500), (500, 333), (97, 120), (640, 200))

VIT, CONVNET, DISTILLED = "test_vit", "test_efficientnet", "deit_tiny_distilled_patch16_224"
RES = {VIT: 160, CONVNET: 160, DISTILLED: 64}

Outcomes = dict[str, EvaluationOutcome | str]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: a pass forks, and a process that is forked next to OpenMP's threads waits for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "split_into_shards", functools.partial(partial.split_into_shards, size=SHARD))


def photograph(path: Path, seed: int) -> None:
    """Write noise at several scales; every mode that ImageNet's files have comes up."""
    draw = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    pixels = np.zeros((height, width, 3))
    for coarse in (100, 20, 2):
        rough = draw.integers(0, 256, (height // coarse + 2, width // coarse + 2, 3)).astype(np.uint8)
        pixels += np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)) / 3
    image = Image.fromarray(pixels.astype(np.uint8)).convert({5: "L", 9: "CMYK"}.get(seed, "RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG" if seed == 12 else "JPEG")  # as one of ImageNet's, whatever its name says


@pytest.fixture(scope="session")
def kept_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for position in range(COUNT):
        photograph(folder / FOLDERS[position % 4] / f"ILSVRC2012_val_{position + 1:08d}.JPEG", position)
    return folder


@pytest.fixture
def photos(kept_photos: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for path in kept_photos.rglob("*.JPEG"):
        copy = tmp_path / "photos" / path.relative_to(kept_photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "photos"


def random_state(model: str, *, seed: int = 0, classes: int = 1000) -> dict[str, torch.Tensor]:
    """Draw weights with which predictions differ from image to image."""
    torch.manual_seed(seed)
    sized: dict[str, Any] = {"img_size": RES[model]} if model == DISTILLED else {}
    built = timm.create_model(model, num_classes=classes, **sized)
    state = {name: value.clone() for name, value in built.state_dict().items()}
    for name, value in state.items():
        if name.endswith("weight") and value.ndim > 1:
            value.normal_(std=1.5 / math.sqrt(value[0].numel()))
        elif name.endswith(("_token", "pos_embed")):
            value.normal_(std=0.5)
    return state


@pytest.fixture(scope="session")
def kept_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for model in (VIT, CONVNET, DISTILLED):
        save_file(random_state(model), folder / f"{model}.safetensors")
    return folder


@pytest.fixture
def weights(kept_weights: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in kept_weights.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def evaluation(model: str = VIT, **changes: Any) -> Job:  # noqa: ANN401 -- settings of any kind
    settings: dict[str, Any] = {
        "model": model,
        "weights": "w",
        "res": RES.get(model, 160),
        "crop": 0.875,
        "interpolation": "bicubic",
        "norm": "imagenet",
        "precision": "float32",
        "data": "imagenet",
    }
    return Job.of("evaluate", settings | changes)


A = evaluation(VIT, crop=0.95, norm="inception")
B = evaluation(CONVNET, interpolation="bilinear")


def silent(_progress: Progress) -> None:
    """Take a report and do nothing."""


def outcomes(
    jobs: Sequence[Job],
    root: Path,
    *,
    photos: Path | None = None,
    weights: Path | None = None,
    workers: int = 0,
    skip: bool = False,
    devices: int = 1,
    memory: int = 2**33,
    batch_size: int | None = None,
    report: Callable[[Progress], None] = silent,
) -> Outcomes:
    """Evaluate as the worker does, with what lies in this folder."""
    inputs = Inputs(
        data={"imagenet": str(photos or root / "photos")},
        weights=weights or root / "weights",
        workers=workers,
        skip_unreadable=skip,
    )
    batch = Batch(
        jobs=tuple(jobs),
        device="cpu",
        machine=replace(LAPTOP, memory=memory),
        software={},
        runs=root / "runs",
        inputs=inputs,
        devices=("cpu",) * devices,
    )
    results = list(evaluate.evaluate_batch(batch, report, batch_size=batch_size))
    assert Counter(job for job, _ in results) == Counter(jobs)
    return {job.key: outcome for job, outcome in results}


def successful(outcome: EvaluationOutcome | str) -> EvaluationOutcome:
    assert isinstance(outcome, EvaluationOutcome), outcome
    return outcome


def evaluate_all(jobs: Sequence[Job], root: Path, **options: Any) -> list[EvaluationOutcome]:  # noqa: ANN401 -- as `outcomes` takes
    by_key = outcomes(jobs, root, **options)
    return [successful(by_key[job.key]) for job in jobs]


def evaluate_one(job: Job, root: Path, **options: Any) -> EvaluationOutcome:  # noqa: ANN401
    return evaluate_all([job], root, **options)[0]


def refusal(job: Job, root: Path, **options: Any) -> str:  # noqa: ANN401
    outcome = outcomes([job], root, **options)[job.key]
    assert isinstance(outcome, str)
    return outcome


def images_read(outcome: EvaluationOutcome) -> int:
    count: int = outcome.facts["pass"]["images_read"]
    return count


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.JPEG"))


def assert_same(actual: Predictions, other: Predictions, *, within: float = 0.0) -> None:
    assert actual.names == other.names
    np.testing.assert_array_equal(actual.labels, other.labels)
    assert list(actual.heads) == list(other.heads)
    for name, head in actual.heads.items():
        np.testing.assert_array_equal(head.top, other.heads[name].top)
        np.testing.assert_allclose(head.scores, other.heads[name].scores, rtol=0, atol=within)
        np.testing.assert_allclose(head.probability, other.heads[name].probability, rtol=0, atol=within)


# timm's own way.


def timm_model(job: Job, weights: Path) -> nn.Module:
    sized: dict[str, Any] = {"img_size": job["res"]} if job["model"] == DISTILLED else {}
    built: nn.Module = timm.create_model(str(job["model"]), **sized)
    built.load_state_dict(load_file(weights / f"{job['model']}.safetensors"), strict=True)
    return built.eval()


def batches(job: Job, folder: Path) -> tuple[list[str], Any]:
    """Return the names in timm's order, and timm's loader."""
    classes: Any = str(SYNSETS)  # a file is taken too, whatever the annotation says
    dataset_ = create_dataset("", root=str(folder), class_map=classes)
    mean, deviation = NORMALIZATIONS[str(job["norm"])]
    loader = create_loader(
        dataset_,
        input_size=(3, int(job["res"]), int(job["res"])),
        batch_size=16,
        is_training=False,
        use_prefetcher=False,
        interpolation=str(job["interpolation"]),
        crop_pct=float(job["crop"]),
        mean=mean,
        std=deviation,
        num_workers=0,
        persistent_workers=False,
    )
    return [str(name) for name in dataset_.filenames()], loader


def timm_batches(loader: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the batches; timm leaves the files of images open until they are collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield from loader


@torch.inference_mode()
def timm_predictions(job: Job, folder: Path, weights: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Return logits and labels by name, image by image as timm reads them."""
    model = timm_model(job, weights)
    names, loader = batches(job, folder)
    logits, labels = zip(*((model(images), targets) for images, targets in timm_batches(loader)), strict=True)
    return (
        dict(zip(names, torch.cat(logits), strict=True)),
        dict(zip(names, torch.cat(labels).tolist(), strict=True)),
    )


@pytest.fixture(scope="session")
def reference(kept_photos: Path, kept_weights: Path) -> Mapping[str, tuple[dict[str, torch.Tensor], dict[str, int]]]:
    return {job.key: timm_predictions(job, kept_photos, kept_weights) for job in (A, B)}


@pytest.mark.parametrize(
    ("batch_size", "workers", "devices"),
    [(1, 0, 1), (7, 2, 1), (64, 1, 1), (64, 4, 3), (7, 0, 2), (1, 2, 2), (7, 3, 3), (None, 0, 1), (None, 2, 3)],
)
def test_predictions_are_those_of_timms_own_loop_however_the_work_is_split(
    kept_photos: Path,
    kept_weights: Path,
    tmp_path: Path,
    reference: Mapping[str, tuple[dict[str, torch.Tensor], dict[str, int]]],
    batch_size: int | None,
    workers: int,
    devices: int,
) -> None:
    options = {"batch_size": batch_size, "workers": workers, "devices": devices}
    both = evaluate_all([A, B], tmp_path, photos=kept_photos, weights=kept_weights, **options)
    for job, outcome in zip((A, B), both, strict=True):
        logits, labels = reference[job.key]
        names = outcome.predictions.names
        assert sorted(names) == names_in(kept_photos)  # each once, none else
        assert outcome.predictions.labels.tolist() == [labels[name] for name in names]
        expected = torch.stack([logits[name] for name in names])
        best = expected.topk(5)
        head = outcome.predictions.heads["class"]
        assert len(np.unique(head.top, axis=0)) > COUNT / 2  # the model tells the images apart
        np.testing.assert_array_equal(head.top, best.indices.numpy())
        np.testing.assert_allclose(head.scores, best.values.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(head.probability, expected.softmax(1).max(1).values.numpy(), rtol=0, atol=1e-5)
        assert images_read(outcome) == COUNT
        assert outcome.facts["pass"]["devices"] == ["cpu"] * devices


def test_loader_processes_of_several_devices_end_without_error_after_those_of_one(
    kept_photos: Path, kept_weights: Path, tmp_path: Path
) -> None:
    # Since the first, torch watches over every process that reads, and takes a bad end of any for a failure.
    for turn, devices in enumerate((1, *(3,) * 5)):
        (tmp_path / str(turn)).mkdir()
        evaluate_all([A], tmp_path / str(turn), photos=kept_photos, weights=kept_weights, workers=6, devices=devices)


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_lower_precision_is_used_and_recorded(
    kept_photos: Path, kept_weights: Path, tmp_path: Path, precision: str
) -> None:
    exact = evaluate_one(A, tmp_path, photos=kept_photos, weights=kept_weights)
    job = evaluation(VIT, crop=0.95, norm="inception", precision=precision)
    outcome = evaluate_one(job, tmp_path, photos=kept_photos, weights=kept_weights)
    apart = np.abs(outcome.predictions.heads["class"].scores - exact.predictions.heads["class"].scores).max()
    lower = precision == "bfloat16"
    assert bool(apart > 1e-3) == lower  # a CPU has no TF32
    assert apart < 0.5
    assert outcome.facts["flags"] == {"autocast": "bfloat16" if lower else None, "tf32": True}
    assert exact.facts["flags"] == {"autocast": None, "tf32": False}


def test_a_source_that_can_only_be_streamed_gives_the_same_and_resumes_too(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate_one(A, tmp_path)

    def stream(data: str, where: str) -> Images:
        images = open_images(data, where)
        assert images.read is not None
        contents = [images.read(position) for position in range(len(images))]
        return replace(images, read=None, stream=lambda: iter(contents))

    monkeypatch.setattr(evaluate, "open_images", stream)
    (tmp_path / "runs" / A.key).rename(tmp_path / "aside")
    for workers in (0, 2):
        streamed = evaluate_one(A, tmp_path, workers=workers, devices=2)
        assert_same(streamed.predictions, expected.predictions, within=1e-5)
        middle = next(streamed.partial.folder.glob(f"{SHARD:08d}-*.npz"))
        middle.unlink()
        again = evaluate_one(A, tmp_path, workers=workers)
        assert images_read(again) == SHARD
        assert_same(again.predictions, expected.predictions, within=1e-5)
        streamed.partial.remove()


# Real models on real images.


def manifest() -> list[dict[str, str]]:
    with (ASSETS / "imagenet_sample" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["file"].startswith("val/")]


def by_hand(correct: int, total: int) -> tuple[float, float]:
    """Wilson's interval as its inventor wrote it."""
    z, share = 1.959963984540054, correct / total
    middle = (share + z * z / 2 / total) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / 4 / total**2) / (1 + z * z / total)
    return 100 * (middle - half), 100 * (middle + half)


def assert_measured(measurement: Measurement, correct: list[bool]) -> None:
    assert measurement.unit == "%"
    assert measurement.value == pytest.approx(100 * sum(correct) / len(correct))
    assert (measurement.low, measurement.high) == pytest.approx(by_hand(sum(correct), len(correct)), abs=1e-6)


@pytest.mark.skipif(not ASSETS.is_dir(), reason=f"needs the real weights and images of {ASSETS}")
def test_real_models_predict_for_real_images_what_was_recorded(tmp_path: Path) -> None:
    rows = manifest()
    chosen = {row["file"].removeprefix("val/"): row for row in [*rows[:50], *rows[50::28]]}
    for name in chosen:
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name).symlink_to(ASSETS / "imagenet_sample" / "val" / name)
    jobs = [
        evaluation("deit_tiny_patch16_224", res=224, crop=0.9),
        evaluation("tf_efficientnet_lite0", res=224, norm="inception"),
    ]
    both = evaluate_all(jobs, tmp_path, photos=tmp_path, weights=ASSETS / "weights", workers=1)
    with (ASSETS / "imagenet_sample" / "reference_predictions.csv").open(newline="", encoding="utf-8") as file:
        reference = {row["file"].removeprefix("val/"): row for row in csv.DictReader(file)}
    for job, outcome in zip(jobs, both, strict=True):
        head = outcome.predictions.heads["class"]
        assert sorted(outcome.predictions.names) == sorted(chosen)
        first, among, real = [], [], []
        for name, label, top, probability in zip(
            outcome.predictions.names, outcome.predictions.labels, head.top, head.probability, strict=True
        ):
            row, predicted = chosen[name], reference[name][f"{job['model']}_top5"]
            assert " ".join(map(str, top)) == predicted, name
            assert probability == pytest.approx(float(reference[name][f"{job['model']}_p1"]), abs=1e-3)
            assert label == int(row["class_index"])
            expected = predicted.split()
            first.append(expected[0] == row["class_index"])
            among.append(row["class_index"] in expected)
            if row["real_labels"]:
                real.append(expected[0] in row["real_labels"].split())
        assert_measured(outcome.metrics["top1"], first)
        assert_measured(outcome.metrics["top5"], among)
        assert_measured(outcome.metrics["real"], real)
        assert set(outcome.metrics) == {"top1", "top5", "real"}
        assert outcome.facts["real"]["images"] == len(real) < len(chosen)
        assert outcome.facts["images"]["said"].startswith(f"{len(chosen)} of the 50,000 images of ImageNet, ")


# Interrupted.


class Interrupted:
    """Presses Ctrl-C once so many images are done."""

    def __init__(self, after: int) -> None:
        self._after = after

    def __call__(self, progress: Progress) -> None:
        if progress.total and progress.done >= self._after:
            raise KeyboardInterrupt


def interrupt(jobs: Sequence[Job], root: Path, *, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        outcomes(jobs, root, batch_size=4, report=Interrupted(after))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are read in this process, in order."""
    names: list[str] = []
    read = Images.image

    def counting(images: Images, position: int) -> Image.Image:
        names.append(images.names[position])
        return read(images, position)

    monkeypatch.setattr(Images, "image", counting)
    return names


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of images that each model has computed in this process."""
    counts: Counter[str] = Counter()
    forward = Predictor.forward

    def counting(predictor: Predictor, images: torch.Tensor) -> dict[str, Head]:
        counts[type(predictor._model).__name__] += len(images)
        return forward(predictor, images)

    monkeypatch.setattr(Predictor, "forward", counting)
    return counts


@pytest.fixture(scope="session")
def expected(kept_photos: Path, kept_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Predictions]:
    """The predictions of a pass from the beginning that is not interrupted."""
    results = evaluate_all([A, B], tmp_path_factory.mktemp("uninterrupted"), photos=kept_photos, weights=kept_weights)
    return [outcome.predictions for outcome in results]


def test_what_was_interrupted_reads_only_the_shards_that_are_missing(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], reads: list[str]
) -> None:
    interrupt([A, B], tmp_path, after=SHARD + 4)  # in the middle of the second shard
    assert len(reads) == SHARD + 4
    reads.clear()
    results = evaluate_all([A, B], tmp_path)
    assert reads == list(expected[0].names[SHARD:])
    for actual, reference in zip(results, expected, strict=True):
        assert images_read(actual) == COUNT - SHARD
        assert_same(actual.predictions, reference, within=1e-5)


def test_nothing_is_read_again_once_all_shards_are_done(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], reads: list[str]
) -> None:
    evaluate_one(A, tmp_path)
    reads.clear()
    again = evaluate_one(A, tmp_path)
    assert reads == []
    assert images_read(again) == 0
    assert_same(again.predictions, expected[0], within=1e-5)
    again.partial.remove()
    assert images_read(evaluate_one(A, tmp_path)) == COUNT


def test_a_model_that_joins_later_does_not_evaluate_the_first_again(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], computed: Counter[str]
) -> None:
    evaluate_one(A, tmp_path)
    computed.clear()
    results = evaluate_all([A, B], tmp_path)
    assert computed == {"EfficientNet": COUNT}
    for actual, reference in zip(results, expected, strict=True):
        assert_same(actual.predictions, reference, within=1e-5)


def test_a_model_that_joins_one_that_was_interrupted_shares_the_shards_that_both_lack(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], computed: Counter[str]
) -> None:
    interrupt([A], tmp_path, after=SHARD)
    computed.clear()
    results = evaluate_all([A, B], tmp_path)
    assert computed == {"VisionTransformer": COUNT - SHARD, "EfficientNet": COUNT}
    for actual, reference in zip(results, expected, strict=True):
        assert images_read(actual) == COUNT
        assert_same(actual.predictions, reference, within=1e-5)


def test_other_weights_start_anew(photos: Path, weights: Path, tmp_path: Path) -> None:
    before = evaluate_one(A, tmp_path)
    (weights / f"{VIT}.safetensors").unlink()
    save_file(random_state(VIT, seed=1), weights / f"{VIT}.safetensors")
    after = evaluate_one(A, tmp_path)
    assert images_read(after) == COUNT
    assert after.facts["weights"]["sha256"] != before.facts["weights"]["sha256"]
    assert (after.predictions.heads["class"].top != before.predictions.heads["class"].top).any(axis=1).all()


def test_a_shard_that_is_damaged_is_computed_again(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], reads: list[str]
) -> None:
    path = next(evaluate_one(A, tmp_path).partial.folder.glob(f"{SHARD:08d}-*.npz"))
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(A, tmp_path) == f"{path}: was damaged; run the same command, which computes it again"
    reads.clear()
    assert_same(evaluate_one(A, tmp_path).predictions, expected[0], within=1e-5)
    assert reads == list(expected[0].names[SHARD : 2 * SHARD])


def test_an_image_that_is_replaced_costs_its_shard_and_no_more(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], reads: list[str]
) -> None:
    evaluate_one(A, tmp_path)
    position = SHARD + 3
    photograph(photos / expected[0].names[position], 1000)
    reads.clear()
    outcome = evaluate_one(A, tmp_path).predictions
    assert reads == list(expected[0].names[SHARD : 2 * SHARD])
    others = [other for other in range(COUNT) if other != position]
    assert_same(outcome.take(others), expected[0].take(others), within=1e-5)
    assert not np.allclose(
        outcome.heads["class"].scores[position], expected[0].heads["class"].scores[position], atol=0.01
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_is_killed_costs_its_own_shards_only(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    expected: list[Predictions],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    keep, here = partial.PartialPredictions.save, os.getpid()

    def killed(kept: partial.PartialPredictions, shard: partial.Shard, predictions: Predictions) -> None:
        if shard.start == SHARD and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(kept, shard, predictions)

    with monkeypatch.context() as patched:
        patched.setattr(partial.PartialPredictions, "save", killed)
        by_key = outcomes([A, B], tmp_path, devices=2, workers=workers)
    message = "the process was ended by SIGKILL; the system may have run out of memory"
    assert list(by_key.values()) == [message, message]
    again = evaluate_all([A, B], tmp_path, devices=2, workers=workers)
    for actual, reference in zip(again, expected, strict=True):
        assert images_read(actual) == SHARD
        assert_same(actual.predictions, reference, within=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_progress_counts_to_the_number_of_images_that_are_missing(
    photos: Path, weights: Path, tmp_path: Path, devices: int
) -> None:
    reports: list[Progress] = []
    interrupt([A], tmp_path, after=SHARD)
    # From other processes it comes through a pipe, as it does in a worker.
    ours, theirs = os.pipe()

    def report(progress: Progress) -> None:
        reports.append(progress)
        os.write(theirs, f"{progress.done}/{progress.total}\n".encode())

    evaluate_all([A], tmp_path, batch_size=4, devices=devices, report=report)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        lines = pipe.read().split()
    assert reports[0] == Progress(job=A, phase="listing the images of imagenet")
    steps = [line for line in lines if line != "0/0"]
    done = sorted(int(line.partition("/")[0]) for line in steps)
    assert len(set(done)) == 4
    assert done[-1] == 13
    assert {line.partition("/")[2] for line in steps} == {"13"}
    if devices == 1:
        assert done == [4, 8, 12, 13]
        assert reports[1] == Progress(job=A, phase="loading weights")
        assert {progress.overview for progress in reports[2:]} == {"1 model over imagenet"}
        assert reports[-1].rate is not None
        assert reports[-1].rate > 0


# Several models.


def size_of(model: str, weights: Path) -> int:
    return (weights / f"{model}.safetensors").stat().st_size


def test_models_that_do_not_fit_together_go_in_groups_and_predict_the_same(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], reads: list[str]
) -> None:
    other = evaluation(VIT, crop=1.0)
    room = size_of(VIT, weights) + size_of(CONVNET, weights)
    assert room < 2 * size_of(VIT, weights)
    reports: list[str] = []
    results = evaluate_all(
        [A, B, other], tmp_path, memory=2 * room, report=lambda progress: reports.append(progress.overview)
    )
    groups = results[0].facts["pass"]["groups"]
    assert groups == [[str(A), str(B)], [str(other)]]
    assert images_read(results[0]) == len(reads) == 2 * COUNT
    assert list(dict.fromkeys(filter(None, reports))) == [
        "2 models over imagenet, group 1 of 2",
        "1 model over imagenet, group 2 of 2",
    ]
    for actual, reference in zip(results[:2], expected, strict=True):
        assert_same(actual.predictions, reference, within=1e-5)


def test_a_model_larger_than_the_memory_for_weights_is_its_own_group(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    results = evaluate_all([A, B], tmp_path, memory=1)
    assert sorted(results[0].facts["pass"]["groups"]) == sorted([[str(A)], [str(B)]])


def test_an_image_is_decoded_once_for_all_models_and_cropped_once_for_each_view(
    photos: Path, weights: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    crops: Counter[float] = Counter()
    transform = Preprocessing.transform

    def counting(view: Preprocessing) -> Callable[[Image.Image], Any]:
        crop = transform(view)

        def counted(image: Image.Image) -> Any:  # noqa: ANN401 -- pixels
            crops[view.crop] += 1
            return crop(image)

        return counted

    monkeypatch.setattr(Preprocessing, "transform", counting)
    jobs = [
        evaluation(VIT, crop=0.95),
        evaluation(VIT, crop=0.875),
        evaluation(CONVNET, crop=0.875),
        evaluation(CONVNET, crop=0.875, norm="inception"),
    ]
    results = evaluate_all(jobs, tmp_path)
    assert sorted(reads) == names_in(photos)
    assert crops == {0.95: COUNT, 0.875: COUNT}
    assert len({outcome.predictions.heads["class"].scores.tobytes() for outcome in results}) == len(jobs)
    for job, actual in zip(jobs, results, strict=True):
        logits, _ = timm_predictions(job, photos, weights)
        best = torch.stack([logits[name] for name in actual.predictions.names]).topk(5)
        np.testing.assert_allclose(actual.predictions.heads["class"].scores, best.values.numpy(), rtol=0, atol=1e-4)


# Memory.


def limit_batch_size(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no model take more images at once; return the batch sizes that are tried."""
    tried: list[int] = []
    forward = Predictor.forward

    def limited(predictor: Predictor, images: torch.Tensor) -> dict[str, Head]:
        tried.append(len(images))
        if len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(predictor, images)

    monkeypatch.setattr(Predictor, "forward", limited)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_the_next_ones_stay_at_that_size(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limit_batch_size(3, monkeypatch)
    outcome = evaluate_one(A, tmp_path, batch_size=8)
    assert tried == [8, 4, *[2] * 4, *[2] * 4, 2, 2, 1]
    assert_same(outcome.predictions, expected[0], within=1e-5)


def test_a_single_image_that_does_not_fit_fails_the_model(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limit_batch_size(0, monkeypatch)
    error = refusal(A, tmp_path, batch_size=4)
    assert tried == [4, 2, 1]
    first, last = names_in(photos)[0], names_in(photos)[3]
    assert error == (
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes "
        f"(images {first} to {last})"
    )


SCRIPT = """
import io, json, resource, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from light import Light
from harness.jobs.data.images import Images
from harness.jobs.evaluate import evaluate
from harness.machine import describe
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs

count, root = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
save_file(Light().state_dict(), root / "light.safetensors")
held = io.BytesIO()
Image.new("RGB", (16, 16)).save(held, "JPEG")
content = held.getvalue()
evaluate.open_images = lambda data, where: Images(
    data=data, where=where, names=tuple(f"n0144076{position % 10}/{position:08d}.JPEG" for position in range(count)),
    labels=np.arange(count, dtype=np.int32) % 10, sizes=np.full(count, len(content)), classes=10,
    read=lambda position: content,
)
settings = {"model": "light", "weights": "w", "res": 16, "crop": 1.0, "interpolation": "bilinear",
            "norm": "imagenet", "precision": "float32", "data": "fake"}
inputs = Inputs(data={"fake": ""}, weights=root)
jobs = (Job.of("evaluate", settings),)
batch = Batch(jobs=jobs, device="cpu", machine=describe("cpu"), software={}, runs=root, inputs=inputs)
((_, outcome),) = evaluate.evaluate_batch(batch, lambda progress: None, batch_size=256)
assert len(outcome.predictions.names) == outcome.facts["pass"]["images_read"] == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

LIGHT = """
from torch import nn

class Light(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    counts = (10_000, 100_000)
    install(tmp_path / "installed", {"light.py": LIGHT}, {"light": "light:Light"})
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'installed'}:{Path(__file__).parents[1]}"}
    started = []
    for count in counts:
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", SCRIPT, str(count), str(tmp_path / str(count))]
        started.append(
            subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, env=env)
        )
    few, many = (int(process.communicate(timeout=300)[0]) for process in started)
    assert many < 1.1 * few
    # What must be kept of an image: its name, its label, its five predictions, each twice while shards are joined.  Its
    # 16 × 16 pixels would be 768 bytes more.
    assert (many - few) / (counts[1] - counts[0]) < 700


# Heads.


def both_heads(kept_photos: Path, kept_weights: Path) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return names, the logits of each head from the tokens, and the model's own output."""
    job = evaluation(DISTILLED)
    model: Any = timm_model(job, kept_weights)
    names, loader = batches(job, kept_photos)
    first, second, own = [], [], []
    with torch.inference_mode():
        for images, _ in timm_batches(loader):
            features = model.forward_features(images)
            first.append(model.head(features[:, 0]))
            second.append(model.head_dist(features[:, 1]))
            own.append(model(images))
    return names, torch.cat(first), torch.cat(second), torch.cat(own)


def test_two_heads_are_read_apart_and_fused_both_ways_in_one_pass(
    kept_photos: Path, kept_weights: Path, tmp_path: Path, computed: Counter[str]
) -> None:
    outcome = evaluate_one(evaluation(DISTILLED), tmp_path, photos=kept_photos, weights=kept_weights, batch_size=5)
    assert computed == {"VisionTransformerDistilled": COUNT}
    names, first, second, own = both_heads(kept_photos, kept_weights)
    order = [names.index(name) for name in outcome.predictions.names]
    first, second, own = first[order], second[order], own[order]
    fused = first.softmax(1) + second.softmax(1)
    expected = {
        "class": (first, first.softmax(1)),
        "distil": (second, second.softmax(1)),
        "softmax_sum": (fused, fused / 2),
        "logit_mean": (own, own.softmax(1)),
    }
    assert list(outcome.predictions.heads) == list(expected)
    assert outcome.predictions.main_head == "softmax_sum"
    labels = torch.from_numpy(outcome.predictions.labels).long()
    distinct = set()
    for name, (scores, probability) in expected.items():
        head, best = outcome.predictions.heads[name], scores.topk(5)
        np.testing.assert_array_equal(head.top, best.indices.numpy())
        np.testing.assert_allclose(head.scores, best.values.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(head.probability, probability.max(1).values.numpy(), rtol=0, atol=1e-5)
        distinct.add(head.top.tobytes())
        assert_measured(outcome.metrics[f"top1_{name}"], (scores.argmax(1) == labels).tolist())
        assert outcome.facts["heads"][name]["top1"] == outcome.metrics[f"top1_{name}"].value
    assert len(distinct) == 4  # a mixed-up head would show
    assert outcome.metrics["top1"] == outcome.metrics["top1_softmax_sum"]
    assert set(outcome.metrics) == {"top1", "top5", "real", *(f"top1_{name}" for name in expected)}


def test_fewer_classes_than_five_leave_the_rest_of_the_top_5_empty() -> None:
    class Three(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3))

    images = torch.tensor([0.0, 2.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    head = Predictor(Three()).forward(images)["class"]
    assert head.top.tolist() == [[1, 2, 0, -1, -1]]
    assert head.scores.tolist() == [[2.0, 1.0, 0.0, 0.0, 0.0]]
    assert head.probability[0] == pytest.approx(math.exp(2) / (1 + math.e + math.exp(2)))


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4)])
def test_output_that_is_no_row_of_scores_is_refused(shape: tuple[int, ...]) -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(shape)

    with pytest.raises(JobError) as error:
        Predictor(Odd()).forward(torch.zeros(2, 3, 4, 4))
    assert str(error.value) == "'Odd' does not return one row of class scores per image"


# What goes wrong with one model, or one image.


def test_models_whose_weights_do_not_fit_fail_alone_with_a_message_each(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions]
) -> None:
    state = random_state("test_resnet")
    state["conv1.0.weight"][0, 0, 0, 0] = math.nan
    save_file(state, weights / "test_resnet.safetensors")
    save_file(random_state("test_vit2", classes=10), weights / "test_vit2.safetensors")
    missing, damaged, other = (evaluation(name) for name in ("test_convnext", "test_resnet", "test_vit2"))
    by_key = outcomes([missing, damaged, A, other], tmp_path)
    assert by_key[missing.key] == (
        f"--weights {weights}: no weights of test_convnext.w there (looked for test_convnext.w.safetensors, "
        "test_convnext.safetensors, the same as .pth, .pt, .bin or .pth.tar); did you mean 'test_vit'?"
    )
    assert by_key[damaged.key] == (
        f"{weights}/test_resnet.safetensors: conv1.0.weight has numbers that are not finite; the file is damaged"
    )
    assert by_key[other.key] == f"{weights}/test_vit2.safetensors: is for 10 classes, but the images have 1000"
    assert_same(successful(by_key[A.key]).predictions, expected[0], within=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_scores_that_are_not_finite_fail_their_model_and_name_the_images(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], devices: int
) -> None:
    state = random_state(VIT)
    state["head.weight"].fill_(3e38)
    (weights / f"{VIT}.safetensors").unlink()
    save_file(state, weights / f"{VIT}.safetensors")
    by_key = outcomes([A, B], tmp_path, batch_size=3, devices=devices)
    # Of two devices both meet it, and either may be the last to report it.
    starts = [0] if devices == 1 else [0, SHARD]
    names = expected[0].names
    assert by_key[A.key] in [
        f"the model returns scores that are not finite (images {names[start]} to {names[start + 2]})"
        for start in starts
    ]
    assert_same(successful(by_key[B.key]).predictions, expected[1], within=1e-5)


def test_without_any_model_that_can_be_evaluated_no_image_is_read(
    photos: Path, weights: Path, tmp_path: Path, reads: list[str]
) -> None:
    save_file(random_state("test_vit2", classes=10), weights / "test_vit2.safetensors")
    refusal(evaluation("test_vit2"), tmp_path)
    assert reads == []


def test_images_that_are_not_there_are_every_jobs_message(weights: Path, tmp_path: Path) -> None:
    by_key = outcomes([A, B], tmp_path)
    message = f"--data imagenet={tmp_path}/photos: there is no file or folder {tmp_path}/photos"
    assert list(by_key.values()) == [message, message]


def cut_short(photos: Path, name: str) -> bytes:
    """Cut an image in the middle; what it was comes back."""
    whole = (photos / name).read_bytes()
    (photos / name).write_bytes(whole[: len(whole) // 2])
    return whole


@pytest.mark.parametrize(("workers", "devices"), [(0, 1), (2, 1), (2, 2)])
def test_an_image_cut_short_is_named_costs_its_shard_and_can_be_mended(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions], workers: int, devices: int
) -> None:
    name = expected[0].names[SHARD + 1]
    whole = cut_short(photos, name)
    with Image.open(photos / name) as image, pytest.raises(OSError, match="truncated") as why:
        image.convert("RGB")
    by_key = outcomes([A, B], tmp_path, workers=workers, devices=devices)
    message = (
        f"1 of 21 images of imagenet cannot be read: {name}: cannot be read ({why.value}); replace them and run the "
        "same command, which resumes from here, or count them as wrong with --skip-unreadable"
    )
    assert list(by_key.values()) == [message, message]
    (photos / name).write_bytes(whole)
    for actual, reference in zip(evaluate_all([A, B], tmp_path, workers=workers), expected, strict=True):
        assert images_read(actual) == SHARD
        assert_same(actual.predictions, reference, within=1e-5)


def test_many_unreadable_images_are_counted_and_the_first_named(photos: Path, weights: Path, tmp_path: Path) -> None:
    names = names_in(photos)
    for position in range(7):
        (photos / names[position]).write_bytes(b"")
    few = "; ".join(f"{name}: the file is empty" for name in names[:5])
    assert refusal(A, tmp_path) == (
        f"7 of 21 images of imagenet cannot be read: {few} and 2 more; replace them and run the same command, which "
        "resumes from here, or count them as wrong with --skip-unreadable"
    )
    outcome = evaluate_one(A, tmp_path, skip=True)
    assert outcome.warnings[:1] == [
        f"7 of 21 images could not be read and count as wrong: {', '.join(names[:5])} and 2 more"
    ]


def test_an_image_that_is_skipped_counts_as_wrong_with_a_warning_and_a_stricter_run_refuses(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions]
) -> None:
    name = expected[0].names[3]
    cut_short(photos, name)
    outcome = evaluate_one(A, tmp_path, skip=True)
    assert outcome.warnings[:1] == [f"1 of 21 images could not be read and count as wrong: {name}"]
    assert outcome.facts["unreadable"] == [name]
    others = [position for position in range(COUNT) if position != 3]
    assert_same(outcome.predictions.take(others), expected[0].take(others), within=1e-5)
    head = outcome.predictions.heads["class"]
    assert (head.top[3].tolist(), head.scores[3].tolist(), head.probability[3]) == ([-1] * 5, [0.0] * 5, 0.0)
    right = (head.top[:, 0] == outcome.predictions.labels).tolist()
    assert not right[3]
    assert_measured(outcome.metrics["top1"], right)  # of all 21
    assert images_read(evaluate_one(A, tmp_path, skip=True)) == 0
    assert refusal(A, tmp_path) == (
        f"1 images of imagenet could not be read by an earlier run with --skip-unreadable ({name}); replace them, or "
        "give --skip-unreadable again"
    )


class Vanishing:
    """Removes an image once so many are computed."""

    def __init__(self, path: Path, *, after: int) -> None:
        self._path, self._after = path, after

    def __call__(self, progress: Progress) -> None:
        if progress.done >= self._after:
            self._path.unlink(missing_ok=True)


def test_an_image_that_vanishes_during_the_pass_is_named(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions]
) -> None:
    name = expected[0].names[SHARD + 2]
    report = Vanishing(photos / name, after=SHARD)
    assert refusal(A, tmp_path, report=report) == (
        f"1 of 21 images of imagenet cannot be read: {name}: the file is missing; replace them and run the same "
        "command, which resumes from here, or count them as wrong with --skip-unreadable"
    )
    (photos / name).write_bytes(b"")
    (photos / name).unlink()
    photograph(photos / name, int(name[-8:-5]) - 1)
    outcome = evaluate_one(A, tmp_path)
    assert images_read(outcome) == SHARD
    assert_same(outcome.predictions, expected[0], within=1e-5)


def test_an_image_that_vanishes_is_no_loss_to_a_model_that_has_seen_it(
    photos: Path, weights: Path, tmp_path: Path, expected: list[Predictions]
) -> None:
    evaluate_one(A, tmp_path)
    report = Vanishing(photos / expected[0].names[SHARD + 2], after=SHARD)
    by_key = outcomes([A, B], tmp_path, report=report)
    assert_same(successful(by_key[A.key]).predictions, expected[0], within=1e-5)
    assert isinstance(by_key[B.key], str)


def test_a_file_name_that_is_no_text_is_evaluated_too(photos: Path, weights: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.JPEG")
    photograph(photos / FOLDERS[0] / name, 77)
    outcome = evaluate_one(A, tmp_path)
    assert f"{FOLDERS[0]}/{name}" in outcome.predictions.names
    assert set(outcome.metrics) == {"top1", "top5"}


# Score.


def scored(names: Sequence[str], labels: Sequence[int], predicted: Sequence[int]) -> Predictions:
    top = np.full((len(predicted), 5), -1, dtype=np.int32)
    top[:, 0] = predicted
    zeros = np.zeros((len(predicted), 5), dtype=np.float32)
    head = Head(top=top, scores=zeros, probability=zeros[:, 0].copy())
    return Predictions(names=tuple(names), labels=np.array(labels, dtype=np.int32), heads={"class": head})


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_an_interval_is_wilsons(correct: int, total: int, low: float, high: float) -> None:
    # The values are those of Newcombe (Statistics in Medicine 17, 1998), table I, method 3.
    percentage = score.percentage(np.arange(total) < correct)
    assert percentage.unit == "%"
    assert percentage.value == pytest.approx(100 * correct / total)
    assert (percentage.low, percentage.high) == pytest.approx((low, high), abs=0.005)


def real_of_timm() -> list[list[int]]:
    text = SYNSETS.with_name("imagenet_real_labels.json").read_text(encoding="utf-8")
    labels: list[list[int]] = json.loads(text)
    return labels


def test_real_is_found_by_the_number_in_the_name_and_leaves_out_images_without_labels() -> None:
    real = real_of_timm()
    several = next(number for number, labels in enumerate(real, 1) if len(labels) > 1)
    none = next(number for number, labels in enumerate(real, 1) if not labels)
    single = next(number for number, labels in enumerate(real, 1) if len(labels) == 1)
    last = 50_000
    names = [f"any/ILSVRC2012_val_{number:08d}.JPEG" for number in (last, none, several, single)]
    predicted = [real[last - 1][0], 5, real[several - 1][1], (real[single - 1][0] + 1) % 1000]
    labels = [(prediction + 1) % 1000 for prediction in predicted]
    metrics, facts = score.accuracies(scored(names, labels, predicted))
    assert metrics["top1"].value == 0
    assert_measured(metrics["real"], [True, True, False])
    agree = [labels[0] in real[last - 1], labels[2] in real[several - 1], labels[3] in real[single - 1]]
    assert facts["real"] == {"images": 3, "labels_agree": pytest.approx(sum(agree) / 3)}


@pytest.mark.parametrize(
    "name", ["a/b.JPEG", "a/ILSVRC2012_val_0000001.JPEG", "a/ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000"]
)
def test_one_image_under_another_name_means_no_real_at_all(name: str) -> None:
    metrics, facts = score.accuracies(scored(["a/ILSVRC2012_val_00000002.JPEG", name], [1, 2], [1, 2]))
    assert set(metrics) == {"top1", "top5"}
    assert "real" not in facts


def test_images_of_which_none_has_real_labels_have_no_real() -> None:
    none = next(number for number, labels in enumerate(real_of_timm(), 1) if not labels)
    metrics, facts = score.accuracies(scored([f"ILSVRC2012_val_{none:08d}.JPEG"], [1], [1]))
    assert set(metrics) == {"top1", "top5"}
    assert facts["real"] == {"images": 0, "labels_agree": 0.0}


def test_top5_considers_all_five_predictions() -> None:
    predictions = scored(["a", "b", "c"], [4, 9, 2], [1, 1, 2])
    predictions.heads["class"].top[:] = [[1, 2, 3, 5, 4], [1, 2, 3, 4, 5], [2, 1, 3, 4, 5]]
    metrics, _ = score.accuracies(predictions)
    assert_measured(metrics["top1"], [False, False, True])
    assert_measured(metrics["top5"], [True, False, True])


@pytest.mark.parametrize(
    ("classes", "right", "of", "chance"),
    [(1000, 0, 40, "0.1 %"), (1000, 20, 1000, "0.1 %"), (10, 14, 100, "10 %"), (102, 0, 3, "0.98 %")],
)
def test_an_accuracy_near_that_of_guessing_is_a_warning(classes: int, right: int, of: int, chance: str) -> None:
    predictions = scored([str(n) for n in range(of)], [1] * of, [1] * right + [2] * (of - right))
    metrics, _ = score.accuracies(predictions)
    (warning,) = score.chance_warnings(metrics, classes, of)
    assert warning == (
        f"top-1 is {100 * right / of:.2f} % on {of:,} images, and guessing gives {chance} with {classes:,} classes: "
        "are the labels numbered as the model's classes are, and are these its weights?"
    )


@pytest.mark.parametrize(("classes", "right", "of"), [(1000, 60, 1000), (10, 16, 100), (2, 56, 100), (1000, 1, 4)])
def test_an_accuracy_above_that_of_guessing_is_none(classes: int, right: int, of: int) -> None:
    predictions = scored([str(n) for n in range(of)], [1] * of, [1] * right + [2] * (of - right))
    assert score.chance_warnings(score.accuracies(predictions)[0], classes, of) == []


def test_an_evaluation_warns_of_labels_that_are_not_the_images_and_of_guesses(
    kept_photos: Path, kept_weights: Path, tmp_path: Path
) -> None:
    outcome = evaluate_one(A, tmp_path, photos=kept_photos, weights=kept_weights)
    labels, chance = outcome.warnings
    assert labels.startswith("20 of 20 labels are not among the ReaL labels of their images (1 in 10 is usual): ")
    assert chance.startswith("top-1 is 0.00 % on 21 images, and guessing gives 0.1 % with 1,000 classes: ")
    assert outcome.facts["images"]["labels"] == labels


# Agreement.


def comparison(first: str, second: str) -> Job:
    settings = {name: value for name, value in A.settings if name not in ("model", "weights")}
    return Job.of("agreement", {"first": first, "second": second, **settings})


def stored(store: Store, model: str, predictions: Predictions, *, error: str | None = None) -> Result:
    options = {name: value for name, value in A.settings if name not in ("model", "weights")}
    job = Job.of("evaluate", {"model": model, "weights": "w", **options})
    result = replace(result_of(job, error=error), facts={**result_of(job).facts, "images": IMAGES})
    store.save(result)
    write(predictions, store.predictions_of(result))
    return result


FOUR = ("a/1.JPEG", "a/2.JPEG", "b/3.JPEG", "b/4.JPEG")


def two_headed(**predicted: Sequence[int]) -> Predictions:
    heads_ = {name: scored(FOUR, [1, 2, 3, 4], options).heads["class"] for name, options in predicted.items()}
    return replace(scored(FOUR, [1, 2, 3, 4], [0] * 4), heads=heads_)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    stored(store, "plain", scored(FOUR, [1, 2, 3, 4], [1, 2, 3, 0]))
    each_head = {"class": [1, 2, 9, 9], "distil": [1, 2, 3, 9], "softmax_sum": [1, 9, 9, 9], "logit_mean": [9] * 4}
    stored(store, "double", two_headed(**each_head))
    return store


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ("plain.w", "double.w#class", 2),
        ("plain.w", "double.w#distil", 1),
        ("plain.w", "double.w#both", 3),
        ("plain.w", "double.w#mean", 4),
        ("plain.w", "double.w", 3),  # read as its accuracy is: both, by the sum of their softmax outputs
        ("double.w#class", "double.w#distil", 1),
        ("plain.w#class", "plain.w", 0),
        ("labels", "plain.w", 1),
        ("double.w#mean", "labels", 4),
    ],
)
def test_two_classifiers_differ_on_the_images_where_their_top_1_predictions_do(
    store: Store, first: str, second: str, differ: int
) -> None:
    metrics, facts, warnings_ = agreement.measure_agreement(comparison(first, second), store)
    low, high = by_hand(differ, 4)
    disagreement = metrics["disagreement"]
    assert (disagreement.unit, disagreement.value) == ("fraction", differ / 4)
    assert (disagreement.low, disagreement.high) == pytest.approx((low / 100, high / 100))
    names = {name.partition(".")[0] for name in (first, second)} - {"labels"}
    assert facts["differ"] == differ
    assert facts["images"] == IMAGES
    assert len(set(facts["evaluations"])) == len(names)
    assert warnings_ == []


def test_an_image_that_neither_could_be_shown_is_no_agreement(store: Store) -> None:
    stored(store, "blind", scored(FOUR, [1, 2, 3, 4], [1, 2, -1, 0]))
    stored(store, "dark", scored(FOUR, [1, 2, 3, 4], [1, 2, -1, 0]))
    _, facts, _ = agreement.measure_agreement(comparison("blind.w", "dark.w"), store)
    assert facts["differ"] == 1


def disagreement_refused(store: Store, first: str, second: str) -> str:
    with pytest.raises(JobError) as error:
        agreement.measure_agreement(comparison(first, second), store)
    return str(error.value)


def test_an_evaluation_that_is_missing_or_failed_is_named(store: Store) -> None:
    needs = "needs the evaluation of {}, which failed or is missing"
    assert disagreement_refused(store, "plain.w", "gone.w#distil") == needs.format("gone.w")
    stored(store, "failed", scored(FOUR, [1] * 4, [1] * 4), error="it failed")
    assert disagreement_refused(store, "failed.w", "plain.w") == needs.format("failed.w")


def test_a_head_that_a_model_does_not_have_is_named_with_those_it_has(store: Store) -> None:
    assert disagreement_refused(store, "double.w", "plain.w#distil") == (
        "plain.w#distil: the model has no such head; it has class"
    )
    assert disagreement_refused(store, "double.w#all", "plain.w") == (
        "double.w#all: the model has no such head; it has class, distil, both, mean"
    )


def test_the_labels_agree_with_themselves_on_any_images(store: Store) -> None:
    metrics, facts, warnings_ = agreement.measure_agreement(comparison("labels", "labels"), store)
    assert metrics == {"disagreement": Measurement(unit="fraction", value=0.0)}
    assert (facts, warnings_) == ({"evaluations": [], "differ": 0}, [])


def test_evaluations_over_other_images_are_not_compared(store: Store) -> None:
    stored(store, "other", scored(("x", *FOUR[1:]), [1] * 4, [1] * 4))
    assert disagreement_refused(store, "plain.w", "other.w") == (
        "plain.w and other.w were evaluated over different images; run with --rerun"
    )


# Tokens.


def cosines(job: Job, photos: Path, weights: Path, **options: Any) -> tuple[dict[str, Measurement], dict[str, Any]]:  # noqa: ANN401
    inputs = Inputs(data={"imagenet": str(photos)}, weights=weights, **options)
    metrics, facts, warnings_ = tokens.measure_token_cosines(job, inputs, silent, device="cpu")
    assert warnings_ == []
    return metrics, facts


@pytest.mark.parametrize("workers", [0, 2])
def test_the_two_tokens_are_compared_before_and_after_every_layer(
    kept_photos: Path, kept_weights: Path, workers: int
) -> None:
    job = Job.of("tokens", dict(evaluation(DISTILLED).settings))
    metrics, facts = cosines(job, kept_photos, kept_weights, workers=workers)
    state = load_file(kept_weights / f"{DISTILLED}.safetensors")
    first, second = (state[name].double().flatten() for name in ("cls_token", "dist_token"))
    assert metrics["cosine_in"].value == pytest.approx(float(first @ second / first.norm() / second.norm()), abs=1e-6)
    model: Any = timm_model(job, kept_weights)
    rows = []
    with torch.inference_mode():
        for images, _ in timm_batches(batches(job, kept_photos)[1]):
            # As timm's own `forward_features`, a layer at a time.
            x = model.patch_embed(images)
            x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
            layers = []
            for block in model.blocks:
                x = block(x)
                layers.append(cosine_similarity(x[:, 0], x[:, 1], dim=1))
            rows.append(torch.stack(layers, dim=1))
    expected = torch.cat(rows).double().numpy()
    assert len(facts["by_layer"]) == 13
    np.testing.assert_allclose(facts["by_layer"][1:], expected.mean(axis=0), atol=1e-5)
    assert facts["by_layer"][0] == metrics["cosine_in"].value
    assert facts["measured_on"] == COUNT
    out = metrics["cosine_out"]
    half = 1.96 * expected[:, -1].std(ddof=1) / math.sqrt(COUNT)
    assert (out.value, out.low, out.high) == pytest.approx(
        (expected[:, -1].mean(), expected[:, -1].mean() - half, expected[:, -1].mean() + half), abs=1e-5
    )


def test_many_images_are_sampled_evenly(
    kept_photos: Path, kept_weights: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(tokens, "MAX_IMAGES", 5)
    job = Job.of("tokens", dict(evaluation(DISTILLED).settings))
    _, facts = cosines(job, kept_photos, kept_weights)
    assert facts["measured_on"] == 5
    assert reads == [names_in(kept_photos)[position] for position in (0, 5, 10, 15, 20)]


def test_a_model_without_a_distillation_token_has_no_two_tokens(kept_photos: Path, kept_weights: Path) -> None:
    job = Job.of("tokens", dict(A.settings))
    with pytest.raises(JobError) as error:
        cosines(job, kept_photos, kept_weights)
    assert str(error.value) == "'test_vit' has no distillation token"


def test_an_image_that_cannot_be_read_ends_the_comparison_of_tokens(photos: Path, weights: Path) -> None:
    name = names_in(photos)[4]
    (photos / name).write_bytes(b"")
    with pytest.raises(JobError) as error:
        cosines(Job.of("tokens", dict(evaluation(DISTILLED).settings)), photos, weights)
    assert str(error.value) == f"{name}: the file is empty; replace the file or give --skip-unreadable"


# Datasets.


def counted(where: Path) -> tuple[dict[str, tuple[str, float | str]], list[str]]:
    reports: list[Progress] = []
    job = Job.of("dataset", {"data": "imagenet"})
    metrics, facts, warnings_ = inspect_dataset(job, Inputs(data={"imagenet": str(where)}), reports.append)
    assert reports == [Progress(job=job, phase="counting images")]
    assert facts == {}
    return {name: (metric.unit, metric.value) for name, metric in metrics.items()}, warnings_


def test_a_data_set_is_counted_by_split(kept_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(kept_photos)
    for position in range(3):
        photograph(tmp_path / "train" / FOLDERS[position % 2] / f"{position}.JPEG", position)
    values, warnings_ = counted(tmp_path)
    assert values == {"test_images": ("images", 21), "train_images": ("images", 3), "classes": ("classes", 4)}
    assert warnings_ == []


def test_training_images_that_are_not_there_are_a_warning_and_not_counted(kept_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(kept_photos)
    values, warnings_ = counted(tmp_path)
    assert values == {"test_images": ("images", 21), "classes": ("classes", 4)}
    assert warnings_ == ["imagenet has no train images there"]


def test_a_data_set_without_any_images_has_no_counts(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        counted(tmp_path)
    assert str(error.value) == f"--data imagenet={tmp_path}: no images in {tmp_path} or the folders in it"
