"""One pass over the images gives what timm's own way gives, once an image, and goes on where it was interrupted."""

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
from harness.job import Job
from harness.jobs import agreement, dataset, evaluate, heads, parts, score, tokens
from harness.jobs.evaluate import Evaluated, Site
from harness.jobs.images import Images, open_images
from harness.jobs.preprocess import NORMS, View
from harness.predictions import Head, Predictions, write
from harness.progress import Inputs, Progress
from harness.result import Measurement, Result
from harness.store import Store
from tests.fakes import result_of

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"
SYNSETS = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"

COUNT, SHARD = 21, 8  # three shards, the last one smaller
FOLDERS = ("n01440764", "n01443537", "n02119789", "n04552348")
SIZES = ((500, 375), (375, 500), (500, 333), (97, 120), (640, 200))

VIT, CONVNET, DISTILLED = "test_vit", "test_efficientnet", "deit_tiny_distilled_patch16_224"
RES = {VIT: 160, CONVNET: 160, DISTILLED: 64}

Outcomes = dict[str, Evaluated | str]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: a pass forks, and a process that was forked beside OpenMP's threads waits for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "shards", functools.partial(parts.shards, size=SHARD))


def photograph(path: Path, place: int) -> None:
    """Write noise at several scales; every mode that ImageNet's files have comes up."""
    draw = np.random.default_rng(place)
    width, height = SIZES[place % len(SIZES)]
    pixels = np.zeros((height, width, 3))
    for coarse in (100, 20, 2):
        rough = draw.integers(0, 256, (height // coarse + 2, width // coarse + 2, 3)).astype(np.uint8)
        pixels += np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)) / 3
    image = Image.fromarray(pixels.astype(np.uint8)).convert({5: "L", 9: "CMYK"}.get(place, "RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG" if place == 12 else "JPEG")  # as one of ImageNet's, whatever its name says


@pytest.fixture(scope="session")
def kept_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for place in range(COUNT):
        photograph(folder / FOLDERS[place % 4] / f"ILSVRC2012_val_{place + 1:08d}.JPEG", place)
    return folder


@pytest.fixture
def photos(kept_photos: Path, tmp_path: Path) -> Path:
    """Give a copy that a test may spoil."""
    for path in kept_photos.rglob("*.JPEG"):
        copy = tmp_path / "photos" / path.relative_to(kept_photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "photos"


def random_state(model: str, *, seed: int = 0, classes: int = 1000) -> dict[str, torch.Tensor]:
    """Draw weights with which guesses differ from image to image."""
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


def evaluation(model: str = VIT, **told: Any) -> Job:  # noqa: ANN401 -- settings of any kind
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
    return Job.of("evaluate", settings | told)


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
    together: int | None = None,
    report: Callable[[Progress], None] = silent,
) -> Outcomes:
    """Evaluate as the worker does, with what lies in this folder."""
    inputs = Inputs(
        data={"imagenet": str(photos or root / "photos")},
        weights=weights or root / "weights",
        workers=workers,
        skip_unreadable=skip,
    )
    site = Site(devices=("cpu",) * devices, memory=memory, runs=root / "runs")
    found = list(evaluate.work(jobs, inputs, site, report, together=together))
    assert Counter(job for job, _ in found) == Counter(jobs)
    return {job.key: outcome for job, outcome in found}


def evaluated(outcome: Evaluated | str) -> Evaluated:
    assert isinstance(outcome, Evaluated), outcome
    return outcome


def each(jobs: Sequence[Job], root: Path, **told: Any) -> list[Evaluated]:  # noqa: ANN401 -- as `outcomes` takes
    found = outcomes(jobs, root, **told)
    return [evaluated(found[job.key]) for job in jobs]


def one(job: Job, root: Path, **told: Any) -> Evaluated:  # noqa: ANN401
    return each([job], root, **told)[0]


def refusal(job: Job, root: Path, **told: Any) -> str:  # noqa: ANN401
    outcome = outcomes([job], root, **told)[job.key]
    assert isinstance(outcome, str)
    return outcome


def images_read(found: Evaluated) -> int:
    count: int = found.facts["pass"]["images_read"]
    return count


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.JPEG"))


def assert_same(one: Predictions, other: Predictions, *, within: float = 0.0) -> None:
    assert one.names == other.names
    np.testing.assert_array_equal(one.labels, other.labels)
    assert list(one.heads) == list(other.heads)
    for name, head in one.heads.items():
        np.testing.assert_array_equal(head.top, other.heads[name].top)
        np.testing.assert_allclose(head.scores, other.heads[name].scores, rtol=0, atol=within)
        np.testing.assert_allclose(head.probability, other.heads[name].probability, rtol=0, atol=within)


# timm's own way.


def network(job: Job, weights: Path) -> nn.Module:
    sized: dict[str, Any] = {"img_size": job["res"]} if job["model"] == DISTILLED else {}
    built: nn.Module = timm.create_model(str(job["model"]), **sized)
    built.load_state_dict(load_file(weights / f"{job['model']}.safetensors"), strict=True)
    return built.eval()


def batches(job: Job, folder: Path) -> tuple[list[str], Any]:
    """Give the names in timm's order, and timm's loader."""
    classes: Any = str(SYNSETS)  # a file is taken too, whatever the annotation says
    found = create_dataset("", root=str(folder), class_map=classes)
    mean, deviation = NORMS[str(job["norm"])]
    loader = create_loader(
        found,
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
    return [str(name) for name in found.filenames()], loader


def shown_by_timm(loader: Any) -> Iterator[Any]:  # noqa: ANN401
    """Give the batches; timm leaves the files of images open until they are collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield from loader


@torch.inference_mode()
def timms_way(job: Job, folder: Path, weights: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Give logits and labels by name, image by image as timm reads them."""
    model = network(job, weights)
    names, loader = batches(job, folder)
    logits, labels = zip(*((model(images), targets) for images, targets in shown_by_timm(loader)), strict=True)
    return (
        dict(zip(names, torch.cat(logits), strict=True)),
        dict(zip(names, torch.cat(labels).tolist(), strict=True)),
    )


@pytest.fixture(scope="session")
def reference(kept_photos: Path, kept_weights: Path) -> Mapping[str, tuple[dict[str, torch.Tensor], dict[str, int]]]:
    return {job.key: timms_way(job, kept_photos, kept_weights) for job in (A, B)}


@pytest.mark.parametrize(
    ("together", "workers", "devices"),
    [(1, 0, 1), (7, 2, 1), (64, 1, 1), (64, 4, 3), (7, 0, 2), (1, 2, 2), (7, 3, 3), (None, 0, 1), (None, 2, 3)],
)
def test_predictions_are_those_of_timms_own_way_however_the_work_is_cut(
    kept_photos: Path,
    kept_weights: Path,
    tmp_path: Path,
    reference: Mapping[str, tuple[dict[str, torch.Tensor], dict[str, int]]],
    together: int | None,
    workers: int,
    devices: int,
) -> None:
    told = {"together": together, "workers": workers, "devices": devices}
    both = each([A, B], tmp_path, photos=kept_photos, weights=kept_weights, **told)
    for job, found in zip((A, B), both, strict=True):
        logits, labels = reference[job.key]
        names = found.predictions.names
        assert sorted(names) == names_in(kept_photos)  # each once, none else
        assert found.predictions.labels.tolist() == [labels[name] for name in names]
        wanted = torch.stack([logits[name] for name in names])
        best = wanted.topk(5)
        head = found.predictions.heads["class"]
        assert len(np.unique(head.top, axis=0)) > COUNT / 2  # the network tells the images apart
        np.testing.assert_array_equal(head.top, best.indices.numpy())
        np.testing.assert_allclose(head.scores, best.values.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(head.probability, wanted.softmax(1).max(1).values.numpy(), rtol=0, atol=1e-5)
        assert images_read(found) == COUNT
        assert found.facts["pass"]["devices"] == ["cpu"] * devices


def test_processes_that_read_for_several_devices_end_well_after_others_read_for_one(
    kept_photos: Path, kept_weights: Path, tmp_path: Path
) -> None:
    # Since the first, torch watches over every process that reads, and takes a bad end of any for a failure.
    for turn, devices in enumerate((1, *(3,) * 5)):
        (tmp_path / str(turn)).mkdir()
        each([A], tmp_path / str(turn), photos=kept_photos, weights=kept_weights, workers=6, devices=devices)


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_lower_precision_is_asked_for_and_said(
    kept_photos: Path, kept_weights: Path, tmp_path: Path, precision: str
) -> None:
    exact = one(A, tmp_path, photos=kept_photos, weights=kept_weights)
    job = evaluation(VIT, crop=0.95, norm="inception", precision=precision)
    found = one(job, tmp_path, photos=kept_photos, weights=kept_weights)
    apart = np.abs(found.predictions.heads["class"].scores - exact.predictions.heads["class"].scores).max()
    lower = precision == "bfloat16"
    assert bool(apart > 1e-3) == lower  # a CPU has no TF32
    assert apart < 0.5
    assert found.facts["flags"] == {"autocast": "bfloat16" if lower else None, "tf32": True}
    assert exact.facts["flags"] == {"autocast": None, "tf32": False}


def test_a_source_that_can_only_be_streamed_gives_the_same_and_goes_on_too(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = one(A, tmp_path)

    def stream(data: str, where: str) -> Images:
        found = open_images(data, where)
        assert found.read is not None
        contents = [found.read(position) for position in range(len(found))]
        return replace(found, read=None, streamed=True, stream=lambda: iter(contents))

    monkeypatch.setattr(evaluate, "open_images", stream)
    (tmp_path / "runs" / A.key).rename(tmp_path / "aside")
    for workers in (0, 2):
        streamed = one(A, tmp_path, workers=workers, devices=2)
        assert_same(streamed.predictions, wanted.predictions, within=1e-5)
        middle = next(streamed.parts.folder.glob(f"{SHARD:08d}-*.npz"))
        middle.unlink()
        again = one(A, tmp_path, workers=workers)
        assert images_read(again) == SHARD
        assert_same(again.predictions, wanted.predictions, within=1e-5)
        streamed.parts.remove()


# Real networks on real images.


def manifest() -> list[dict[str, str]]:
    with (ASSETS / "imagenet_sample" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["file"].startswith("val/")]


def by_hand(hits: int, total: int) -> tuple[float, float]:
    """Wilson's interval as its inventor wrote it."""
    z, share = 1.959963984540054, hits / total
    middle = (share + z * z / 2 / total) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / 4 / total**2) / (1 + z * z / total)
    return 100 * (middle - half), 100 * (middle + half)


def assert_measured(found: Measurement, hits: list[bool]) -> None:
    assert found.unit == "%"
    assert found.value == pytest.approx(100 * sum(hits) / len(hits))
    assert (found.low, found.high) == pytest.approx(by_hand(sum(hits), len(hits)), abs=1e-6)


@pytest.mark.skipif(not ASSETS.is_dir(), reason=f"needs the real weights and images of {ASSETS}")
def test_real_networks_say_of_real_images_what_was_written_down_of_them(tmp_path: Path) -> None:
    rows = manifest()
    chosen = {row["file"].removeprefix("val/"): row for row in [*rows[:50], *rows[50::28]]}
    for name in chosen:
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name).symlink_to(ASSETS / "imagenet_sample" / "val" / name)
    jobs = [
        evaluation("deit_tiny_patch16_224", res=224, crop=0.9),
        evaluation("tf_efficientnet_lite0", res=224, norm="inception"),
    ]
    both = each(jobs, tmp_path, photos=tmp_path, weights=ASSETS / "weights", workers=1)
    with (ASSETS / "imagenet_sample" / "reference_predictions.csv").open(newline="", encoding="utf-8") as file:
        reference = {row["file"].removeprefix("val/"): row for row in csv.DictReader(file)}
    for job, found in zip(jobs, both, strict=True):
        head = found.predictions.heads["class"]
        assert sorted(found.predictions.names) == sorted(chosen)
        first, among, real = [], [], []
        for name, label, top, probability in zip(
            found.predictions.names, found.predictions.labels, head.top, head.probability, strict=True
        ):
            row, guesses = chosen[name], reference[name][f"{job['model']}_top5"]
            assert " ".join(map(str, top)) == guesses, name
            assert probability == pytest.approx(float(reference[name][f"{job['model']}_p1"]), abs=1e-3)
            assert label == int(row["class_index"])
            wanted = guesses.split()
            first.append(wanted[0] == row["class_index"])
            among.append(row["class_index"] in wanted)
            if row["real_labels"]:
                real.append(wanted[0] in row["real_labels"].split())
        assert_measured(found.metrics["top1"], first)
        assert_measured(found.metrics["top5"], among)
        assert_measured(found.metrics["real"], real)
        assert set(found.metrics) == {"top1", "top5", "real"}
        assert found.facts["real"]["images"] == len(real) < len(chosen)
        assert found.facts["images"]["said"].startswith(f"{len(chosen)} of the 50,000 images of ImageNet, ")


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
        outcomes(jobs, root, together=4, report=Interrupted(after))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of the images that are read in this process, as they are read."""
    found: list[str] = []
    read = Images.image

    def counting(images: Images, position: int) -> Image.Image:
        found.append(images.names[position])
        return read(images, position)

    monkeypatch.setattr(Images, "image", counting)
    return found


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the images that each network is shown in this process."""
    found: Counter[str] = Counter()
    read = heads.Reader.read

    def counting(reader: heads.Reader, images: torch.Tensor) -> dict[str, Head]:
        found[type(reader._model).__name__] += len(images)
        return read(reader, images)

    monkeypatch.setattr(heads.Reader, "read", counting)
    return found


@pytest.fixture(scope="session")
def wanted(kept_photos: Path, kept_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Predictions]:
    """Give what a pass from nothing says that nobody disturbs."""
    found = each([A, B], tmp_path_factory.mktemp("undisturbed"), photos=kept_photos, weights=kept_weights)
    return [one.predictions for one in found]


def test_what_was_interrupted_reads_only_the_shards_that_are_missing(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], reads: list[str]
) -> None:
    interrupt([A, B], tmp_path, after=SHARD + 4)  # in the middle of the second shard
    assert len(reads) == SHARD + 4
    reads.clear()
    found = each([A, B], tmp_path)
    assert reads == list(wanted[0].names[SHARD:])
    for is_, should in zip(found, wanted, strict=True):
        assert images_read(is_) == COUNT - SHARD
        assert_same(is_.predictions, should, within=1e-5)


def test_nothing_is_read_again_once_all_shards_are_done(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], reads: list[str]
) -> None:
    one(A, tmp_path)
    reads.clear()
    again = one(A, tmp_path)
    assert reads == []
    assert images_read(again) == 0
    assert_same(again.predictions, wanted[0], within=1e-5)
    again.parts.remove()
    assert images_read(one(A, tmp_path)) == COUNT


def test_a_network_that_joins_later_does_not_evaluate_the_first_again(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], shown: Counter[str]
) -> None:
    one(A, tmp_path)
    shown.clear()
    found = each([A, B], tmp_path)
    assert shown == {"EfficientNet": COUNT}
    for is_, should in zip(found, wanted, strict=True):
        assert_same(is_.predictions, should, within=1e-5)


def test_a_network_that_joins_one_that_was_interrupted_shares_the_shards_that_both_lack(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], shown: Counter[str]
) -> None:
    interrupt([A], tmp_path, after=SHARD)
    shown.clear()
    found = each([A, B], tmp_path)
    assert shown == {"VisionTransformer": COUNT - SHARD, "EfficientNet": COUNT}
    for is_, should in zip(found, wanted, strict=True):
        assert images_read(is_) == COUNT
        assert_same(is_.predictions, should, within=1e-5)


def test_other_weights_start_anew(photos: Path, weights: Path, tmp_path: Path) -> None:
    before = one(A, tmp_path)
    (weights / f"{VIT}.safetensors").unlink()
    save_file(random_state(VIT, seed=1), weights / f"{VIT}.safetensors")
    after = one(A, tmp_path)
    assert images_read(after) == COUNT
    assert after.facts["weights"]["sha256"] != before.facts["weights"]["sha256"]
    assert (after.predictions.heads["class"].top != before.predictions.heads["class"].top).any(axis=1).all()


def test_a_part_that_is_damaged_is_made_again(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], reads: list[str]
) -> None:
    path = next(one(A, tmp_path).parts.folder.glob(f"{SHARD:08d}-*.npz"))
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(A, tmp_path) == f"{path}: was damaged; run the same command, which makes it again"
    reads.clear()
    assert_same(one(A, tmp_path).predictions, wanted[0], within=1e-5)
    assert reads == list(wanted[0].names[SHARD : 2 * SHARD])


def test_an_image_that_is_replaced_costs_its_shard_and_no_more(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], reads: list[str]
) -> None:
    one(A, tmp_path)
    place = SHARD + 3
    photograph(photos / wanted[0].names[place], 1000)
    reads.clear()
    found = one(A, tmp_path).predictions
    assert reads == list(wanted[0].names[SHARD : 2 * SHARD])
    others = [position for position in range(COUNT) if position != place]
    assert_same(found.take(others), wanted[0].take(others), within=1e-5)
    assert not np.allclose(found.heads["class"].scores[place], wanted[0].heads["class"].scores[place], atol=0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_is_killed_costs_its_own_shards_only(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    wanted: list[Predictions],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    keep, here = parts.Parts.keep, os.getpid()

    def killed(kept: parts.Parts, shard: parts.Shard, predictions: Predictions) -> None:
        if shard.start == SHARD and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(kept, shard, predictions)

    with monkeypatch.context() as patched:
        patched.setattr(parts.Parts, "keep", killed)
        found = outcomes([A, B], tmp_path, devices=2, workers=workers)
    sentence = "the process was killed (signal 9); the system may have run out of memory"
    assert list(found.values()) == [sentence, sentence]
    again = each([A, B], tmp_path, devices=2, workers=workers)
    for is_, should in zip(again, wanted, strict=True):
        assert images_read(is_) == SHARD
        assert_same(is_.predictions, should, within=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_progress_counts_to_the_number_of_images_that_are_missing(
    photos: Path, weights: Path, tmp_path: Path, devices: int
) -> None:
    heard: list[Progress] = []
    interrupt([A], tmp_path, after=SHARD)
    # From other processes it comes through a pipe, as it does in a worker.
    ours, theirs = os.pipe()

    def report(progress: Progress) -> None:
        heard.append(progress)
        os.write(theirs, f"{progress.done}/{progress.total}\n".encode())

    each([A], tmp_path, together=4, devices=devices, report=report)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        lines = pipe.read().split()
    assert heard[0] == Progress(job=A, phase="looking through imagenet")
    steps = [line for line in lines if line != "0/0"]
    done = sorted(int(line.partition("/")[0]) for line in steps)
    assert len(set(done)) == 4
    assert done[-1] == 13
    assert {line.partition("/")[2] for line in steps} == {"13"}
    if devices == 1:
        assert done == [4, 8, 12, 13]
        assert heard[1] == Progress(job=A, phase="loading weights")
        assert {progress.together for progress in heard[2:]} == {"1 network over imagenet"}
        assert heard[-1].rate is not None
        assert heard[-1].rate > 0


# Several networks.


def size_of(model: str, weights: Path) -> int:
    return (weights / f"{model}.safetensors").stat().st_size


def test_networks_that_do_not_fit_together_go_in_groups_and_say_the_same(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], reads: list[str]
) -> None:
    other = evaluation(VIT, crop=1.0)
    room = size_of(VIT, weights) + size_of(CONVNET, weights)
    assert room < 2 * size_of(VIT, weights)
    heard: list[str] = []
    found = each([A, B, other], tmp_path, memory=2 * room, report=lambda progress: heard.append(progress.together))
    groups = found[0].facts["pass"]["groups"]
    assert groups == [[str(A), str(B)], [str(other)]]
    assert images_read(found[0]) == len(reads) == 2 * COUNT
    assert list(dict.fromkeys(filter(None, heard))) == [
        "2 networks over imagenet, group 1 of 2",
        "1 network over imagenet, group 2 of 2",
    ]
    for is_, should in zip(found[:2], wanted, strict=True):
        assert_same(is_.predictions, should, within=1e-5)


def test_a_network_larger_than_the_memory_for_weights_stands_alone(photos: Path, weights: Path, tmp_path: Path) -> None:
    found = each([A, B], tmp_path, memory=1)
    assert sorted(found[0].facts["pass"]["groups"]) == sorted([[str(A)], [str(B)]])


def test_an_image_is_decoded_once_for_all_networks_and_cut_once_for_each_way_of_cutting(
    photos: Path, weights: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: Counter[float] = Counter()
    transform = View.transform

    def counting(view: View) -> Callable[[Image.Image], Any]:
        cut = transform(view)

        def counted(image: Image.Image) -> Any:  # noqa: ANN401 -- pixels
            cuts[view.crop] += 1
            return cut(image)

        return counted

    monkeypatch.setattr(View, "transform", counting)
    jobs = [
        evaluation(VIT, crop=0.95),
        evaluation(VIT, crop=0.875),
        evaluation(CONVNET, crop=0.875),
        evaluation(CONVNET, crop=0.875, norm="inception"),
    ]
    found = each(jobs, tmp_path)
    assert sorted(reads) == names_in(photos)
    assert cuts == {0.95: COUNT, 0.875: COUNT}
    assert len({one.predictions.heads["class"].scores.tobytes() for one in found}) == len(jobs)
    for job, is_ in zip(jobs, found, strict=True):
        logits, _ = timms_way(job, photos, weights)
        best = torch.stack([logits[name] for name in is_.predictions.names]).topk(5)
        np.testing.assert_allclose(is_.predictions.heads["class"].scores, best.values.numpy(), rtol=0, atol=1e-4)


# Memory.


def allow(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no network take more images at once; what was tried comes back."""
    tried: list[int] = []
    read = heads.Reader.read

    def limited(reader: heads.Reader, images: torch.Tensor) -> dict[str, Head]:
        tried.append(len(images))
        if len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return read(reader, images)

    monkeypatch.setattr(heads.Reader, "read", limited)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_the_next_begin_with_what_fitted(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = allow(3, monkeypatch)
    found = one(A, tmp_path, together=8)
    assert tried == [8, 4, *[2] * 4, *[2] * 4, 2, 2, 1]
    assert_same(found.predictions, wanted[0], within=1e-5)


def test_a_single_image_that_does_not_fit_is_the_networks_end(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = allow(0, monkeypatch)
    said = refusal(A, tmp_path, together=4)
    assert tried == [4, 2, 1]
    first, last = names_in(photos)[0], names_in(photos)[3]
    assert said == (
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes "
        f"(images {first} to {last})"
    )


PLAYED = """
import io, json, resource, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import register_model
from torch import nn
from harness.jobs import evaluate
from harness.jobs.images import Images
from harness.job import Job
from harness.progress import Inputs

class Light(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 10)
    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))

@register_model
def light(pretrained=False, **told):
    return Light()

count, root = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
save_file(Light().state_dict(), root / "light.safetensors")
held = io.BytesIO()
Image.new("RGB", (16, 16)).save(held, "JPEG")
content = held.getvalue()
evaluate.open_images = lambda data, where: Images(
    data=data, where=where, names=tuple(f"n0144076{place % 10}/{place:08d}.JPEG" for place in range(count)),
    labels=np.arange(count, dtype=np.int32) % 10, sizes=np.full(count, len(content)), classes=10,
    read=lambda position: content,
)
settings = {"model": "light", "weights": "w", "res": 16, "crop": 1.0, "interpolation": "bilinear",
            "norm": "imagenet", "precision": "float32", "data": "played"}
site = evaluate.Site(devices=("cpu",), memory=2**33, runs=root)
inputs = Inputs(data={"played": ""}, weights=root)
((_, found),) = evaluate.work([Job.of("evaluate", settings)], inputs, site, lambda progress: None, together=256)
assert len(found.predictions.names) == found.facts["pass"]["images_read"] == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    counts = (10_000, 100_000)
    started = []
    for count in counts:
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", PLAYED, str(count), str(tmp_path / str(count))]
        started.append(
            subprocess.Popen(
                command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, env={**os.environ}
            )
        )
    few, many = (int(process.communicate(timeout=300)[0]) for process in started)
    assert many < 1.1 * few
    # What must be kept of an image: its name, its label, its five guesses, each twice while parts are joined.  Its
    # 16 × 16 pixels would be 768 bytes more.
    assert (many - few) / (counts[1] - counts[0]) < 700


# Heads.


def both_heads(kept_photos: Path, kept_weights: Path) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give names, the logits of each head from the tokens, and the network's own output."""
    job = evaluation(DISTILLED)
    model: Any = network(job, kept_weights)
    names, loader = batches(job, kept_photos)
    first, second, own = [], [], []
    with torch.inference_mode():
        for images, _ in shown_by_timm(loader):
            features = model.forward_features(images)
            first.append(model.head(features[:, 0]))
            second.append(model.head_dist(features[:, 1]))
            own.append(model(images))
    return names, torch.cat(first), torch.cat(second), torch.cat(own)


def test_two_heads_are_read_apart_and_fused_both_ways_in_one_pass(
    kept_photos: Path, kept_weights: Path, tmp_path: Path, shown: Counter[str]
) -> None:
    found = one(evaluation(DISTILLED), tmp_path, photos=kept_photos, weights=kept_weights, together=5)
    assert shown == {"VisionTransformerDistilled": COUNT}
    names, first, second, own = both_heads(kept_photos, kept_weights)
    order = [names.index(name) for name in found.predictions.names]
    first, second, own = first[order], second[order], own[order]
    fused = first.softmax(1) + second.softmax(1)
    wanted = {
        "class": (first, first.softmax(1)),
        "distil": (second, second.softmax(1)),
        "softmax_sum": (fused, fused / 2),
        "logit_mean": (own, own.softmax(1)),
    }
    assert list(found.predictions.heads) == list(wanted)
    assert found.predictions.main == "softmax_sum"
    labels = torch.from_numpy(found.predictions.labels).long()
    guesses = set()
    for name, (scores, probability) in wanted.items():
        head, best = found.predictions.heads[name], scores.topk(5)
        np.testing.assert_array_equal(head.top, best.indices.numpy())
        np.testing.assert_allclose(head.scores, best.values.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(head.probability, probability.max(1).values.numpy(), rtol=0, atol=1e-5)
        guesses.add(head.top.tobytes())
        assert_measured(found.metrics[f"top1_{name}"], (scores.argmax(1) == labels).tolist())
        assert found.facts["heads"][name]["top1"] == found.metrics[f"top1_{name}"].value
    assert len(guesses) == 4  # a mixed-up head would show
    assert found.metrics["top1"] == found.metrics["top1_softmax_sum"]
    assert set(found.metrics) == {"top1", "top5", "real", *(f"top1_{name}" for name in wanted)}


def test_fewer_classes_than_five_leave_the_rest_of_the_guesses_empty() -> None:
    class Three(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(2, 3))

    images = torch.tensor([0.0, 2.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    head = heads.Reader(Three()).read(images)["class"]
    assert head.top.tolist() == [[1, 2, 0, -1, -1]]
    assert head.scores.tolist() == [[2.0, 1.0, 0.0, 0.0, 0.0]]
    assert head.probability[0] == pytest.approx(math.exp(2) / (1 + math.e + math.exp(2)))


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4)])
def test_output_that_is_no_row_of_scores_is_refused(shape: tuple[int, ...]) -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(shape)

    with pytest.raises(JobError) as error:
        heads.Reader(Odd()).read(torch.zeros(2, 3, 4, 4))
    assert str(error.value) == "'Odd' does not give one row of class scores an image"


# What goes wrong with one network, or one image.


def test_networks_whose_weights_are_not_right_fail_alone_with_a_sentence_each(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions]
) -> None:
    state = random_state("test_resnet")
    state["conv1.0.weight"][0, 0, 0, 0] = math.nan
    save_file(state, weights / "test_resnet.safetensors")
    save_file(random_state("test_vit2", classes=10), weights / "test_vit2.safetensors")
    missing, damaged, other = (evaluation(name) for name in ("test_convnext", "test_resnet", "test_vit2"))
    found = outcomes([missing, damaged, A, other], tmp_path)
    assert found[missing.key] == (
        f"--weights {weights}: no weights of test_convnext.w there (looked for test_convnext.w.safetensors, "
        "test_convnext.safetensors, the same as .pth or .pt); did you mean 'test_vit'?"
    )
    assert found[damaged.key] == (
        f"{weights}/test_resnet.safetensors: conv1.0.weight holds numbers that are not finite; the file is damaged"
    )
    assert found[other.key] == f"{weights}/test_vit2.safetensors: is for 10 classes, but the images have 1000"
    assert_same(evaluated(found[A.key]).predictions, wanted[0], within=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_scores_that_are_not_finite_end_their_network_and_name_the_images(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], devices: int
) -> None:
    state = random_state(VIT)
    state["head.weight"].fill_(3e38)
    (weights / f"{VIT}.safetensors").unlink()
    save_file(state, weights / f"{VIT}.safetensors")
    found = outcomes([A, B], tmp_path, together=3, devices=devices)
    # Of two devices both meet it, and either may be the last to say so.
    starts = [0] if devices == 1 else [0, SHARD]
    names = wanted[0].names
    assert found[A.key] in [
        f"the network gives scores that are not finite (images {names[start]} to {names[start + 2]})"
        for start in starts
    ]
    assert_same(evaluated(found[B.key]).predictions, wanted[1], within=1e-5)


def test_without_any_network_that_can_be_evaluated_no_image_is_read(
    photos: Path, weights: Path, tmp_path: Path, reads: list[str]
) -> None:
    save_file(random_state("test_vit2", classes=10), weights / "test_vit2.safetensors")
    refusal(evaluation("test_vit2"), tmp_path)
    assert reads == []


def test_images_that_are_not_there_are_every_jobs_sentence(weights: Path, tmp_path: Path) -> None:
    found = outcomes([A, B], tmp_path)
    sentence = f"--data imagenet={tmp_path}/photos: there is no file or folder {tmp_path}/photos"
    assert list(found.values()) == [sentence, sentence]


def cut_short(photos: Path, name: str) -> bytes:
    """Cut an image in the middle; what it was comes back."""
    whole = (photos / name).read_bytes()
    (photos / name).write_bytes(whole[: len(whole) // 2])
    return whole


@pytest.mark.parametrize(("workers", "devices"), [(0, 1), (2, 1), (2, 2)])
def test_an_image_cut_short_is_named_costs_its_shard_and_can_be_mended(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions], workers: int, devices: int
) -> None:
    name = wanted[0].names[SHARD + 1]
    whole = cut_short(photos, name)
    with Image.open(photos / name) as image, pytest.raises(OSError, match="truncated") as why:
        image.convert("RGB")
    found = outcomes([A, B], tmp_path, workers=workers, devices=devices)
    sentence = (
        f"1 of 21 images of imagenet cannot be read: {name}: cannot be read ({why.value}); replace them and run the "
        "same command, which goes on from here, or count them as wrong with --skip-unreadable"
    )
    assert list(found.values()) == [sentence, sentence]
    (photos / name).write_bytes(whole)
    for is_, should in zip(each([A, B], tmp_path, workers=workers), wanted, strict=True):
        assert images_read(is_) == SHARD
        assert_same(is_.predictions, should, within=1e-5)


def test_many_unreadable_images_are_counted_and_the_first_named(photos: Path, weights: Path, tmp_path: Path) -> None:
    names = names_in(photos)
    for place in range(7):
        (photos / names[place]).write_bytes(b"")
    few = "; ".join(f"{name}: the file is empty" for name in names[:5])
    assert refusal(A, tmp_path) == (
        f"7 of 21 images of imagenet cannot be read: {few}; and 2 more; replace them and run the same command, which "
        "goes on from here, or count them as wrong with --skip-unreadable"
    )
    found = one(A, tmp_path, skip=True)
    assert found.warnings == [f"7 of 21 images could not be read and count as wrong: {', '.join(names[:5])}, …"]


def test_an_image_that_is_skipped_counts_as_wrong_and_is_said_and_a_stricter_run_refuses(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions]
) -> None:
    name = wanted[0].names[3]
    cut_short(photos, name)
    found = one(A, tmp_path, skip=True)
    assert found.warnings == [f"1 of 21 images could not be read and count as wrong: {name}"]
    assert found.facts["unreadable"] == [name]
    others = [place for place in range(COUNT) if place != 3]
    assert_same(found.predictions.take(others), wanted[0].take(others), within=1e-5)
    head = found.predictions.heads["class"]
    assert (head.top[3].tolist(), head.scores[3].tolist(), head.probability[3]) == ([-1] * 5, [0.0] * 5, 0.0)
    right = (head.top[:, 0] == found.predictions.labels).tolist()
    assert not right[3]
    assert_measured(found.metrics["top1"], right)  # of all 21
    assert images_read(one(A, tmp_path, skip=True)) == 0
    assert refusal(A, tmp_path) == (
        f"1 images of imagenet could not be read by an earlier run with --skip-unreadable ({name}); replace them, or "
        "give --skip-unreadable again"
    )


class Vanishing:
    """Removes an image once so many are done."""

    def __init__(self, path: Path, *, after: int) -> None:
        self._path, self._after = path, after

    def __call__(self, progress: Progress) -> None:
        if progress.done >= self._after:
            self._path.unlink(missing_ok=True)


def test_an_image_that_vanishes_during_the_pass_is_named(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions]
) -> None:
    name = wanted[0].names[SHARD + 2]
    report = Vanishing(photos / name, after=SHARD)
    assert refusal(A, tmp_path, report=report) == (
        f"1 of 21 images of imagenet cannot be read: {name}: the file is gone; replace them and run the same command, "
        "which goes on from here, or count them as wrong with --skip-unreadable"
    )
    (photos / name).write_bytes(b"")
    (photos / name).unlink()
    photograph(photos / name, int(name[-8:-5]) - 1)
    found = one(A, tmp_path)
    assert images_read(found) == SHARD
    assert_same(found.predictions, wanted[0], within=1e-5)


def test_an_image_that_vanishes_is_no_loss_to_a_network_that_has_seen_it(
    photos: Path, weights: Path, tmp_path: Path, wanted: list[Predictions]
) -> None:
    one(A, tmp_path)
    report = Vanishing(photos / wanted[0].names[SHARD + 2], after=SHARD)
    found = outcomes([A, B], tmp_path, report=report)
    assert_same(evaluated(found[A.key]).predictions, wanted[0], within=1e-5)
    assert isinstance(found[B.key], str)


def test_a_file_name_that_is_no_text_is_evaluated_too(photos: Path, weights: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.JPEG")
    photograph(photos / FOLDERS[0] / name, 77)
    found = one(A, tmp_path)
    assert f"{FOLDERS[0]}/{name}" in found.predictions.names
    assert set(found.metrics) == {"top1", "top5"}


# Score.


def scored(names: Sequence[str], labels: Sequence[int], guesses: Sequence[int]) -> Predictions:
    top = np.full((len(guesses), 5), -1, dtype=np.int32)
    top[:, 0] = guesses
    zeros = np.zeros((len(guesses), 5), dtype=np.float32)
    head = Head(top=top, scores=zeros, probability=zeros[:, 0].copy())
    return Predictions(names=tuple(names), labels=np.array(labels, dtype=np.int32), heads={"class": head})


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_an_interval_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    # The values are those of Newcombe (Statistics in Medicine 17, 1998), table I, method 3.
    found = score.share(np.arange(total) < hits)
    assert found.unit == "%"
    assert found.value == pytest.approx(100 * hits / total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def real_of_timm() -> list[list[int]]:
    text = SYNSETS.with_name("imagenet_real_labels.json").read_text(encoding="utf-8")
    found: list[list[int]] = json.loads(text)
    return found


def test_real_is_found_by_the_number_in_the_name_and_leaves_out_images_without_labels() -> None:
    real = real_of_timm()
    several = next(number for number, labels in enumerate(real, 1) if len(labels) > 1)
    none = next(number for number, labels in enumerate(real, 1) if not labels)
    single = next(number for number, labels in enumerate(real, 1) if len(labels) == 1)
    last = 50_000
    names = [f"any/ILSVRC2012_val_{number:08d}.JPEG" for number in (last, none, several, single)]
    guesses = [real[last - 1][0], 5, real[several - 1][1], (real[single - 1][0] + 1) % 1000]
    labels = [(guess + 1) % 1000 for guess in guesses]
    metrics, facts = score.metrics_of(scored(names, labels, guesses))
    assert metrics["top1"].value == 0
    assert_measured(metrics["real"], [True, True, False])
    agree = [labels[0] in real[last - 1], labels[2] in real[several - 1], labels[3] in real[single - 1]]
    assert facts["real"] == {"images": 3, "labels_agree": pytest.approx(sum(agree) / 3)}


@pytest.mark.parametrize(
    "name", ["a/b.JPEG", "a/ILSVRC2012_val_0000001.JPEG", "a/ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000"]
)
def test_one_image_under_another_name_means_no_real_at_all(name: str) -> None:
    metrics, facts = score.metrics_of(scored(["a/ILSVRC2012_val_00000002.JPEG", name], [1, 2], [1, 2]))
    assert set(metrics) == {"top1", "top5"}
    assert "real" not in facts


def test_images_of_which_none_has_real_labels_have_no_real() -> None:
    none = next(number for number, labels in enumerate(real_of_timm(), 1) if not labels)
    metrics, facts = score.metrics_of(scored([f"ILSVRC2012_val_{none:08d}.JPEG"], [1], [1]))
    assert set(metrics) == {"top1", "top5"}
    assert facts["real"] == {"images": 0, "labels_agree": 0.0}


def test_top5_looks_at_all_five_guesses() -> None:
    found = scored(["a", "b", "c"], [4, 9, 2], [1, 1, 2])
    found.heads["class"].top[:] = [[1, 2, 3, 5, 4], [1, 2, 3, 4, 5], [2, 1, 3, 4, 5]]
    metrics, _ = score.metrics_of(found)
    assert_measured(metrics["top1"], [False, False, True])
    assert_measured(metrics["top5"], [True, False, True])


# Agreement.


def comparison(first: str, second: str) -> Job:
    settings = {name: value for name, value in A.settings if name not in ("model", "weights")}
    return Job.of("agreement", {"first": first, "second": second, **settings})


def stored(store: Store, model: str, predictions: Predictions, *, error: str | None = None) -> Result:
    told = {name: value for name, value in A.settings if name not in ("model", "weights")}
    job = Job.of("evaluate", {"model": model, "weights": "w", **told})
    result = replace(result_of(job, error=error), facts={"images": {"said": "4 images"}})
    store.save(result)
    write(predictions, store.predictions_of(result))
    return result


FOUR = ("a/1.JPEG", "a/2.JPEG", "b/3.JPEG", "b/4.JPEG")


def two_headed(**guesses: Sequence[int]) -> Predictions:
    found = {name: scored(FOUR, [1, 2, 3, 4], told).heads["class"] for name, told in guesses.items()}
    return replace(scored(FOUR, [1, 2, 3, 4], [0] * 4), heads=found)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "runs")
    stored(found, "plain", scored(FOUR, [1, 2, 3, 4], [1, 2, 3, 0]))
    each_head = {"class": [1, 2, 9, 9], "distil": [1, 2, 3, 9], "softmax_sum": [1, 9, 9, 9], "logit_mean": [9] * 4}
    stored(found, "double", two_headed(**each_head))
    return found


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
def test_two_classifiers_differ_on_the_images_where_their_first_guesses_do(
    store: Store, first: str, second: str, differ: int
) -> None:
    metrics, facts, doubts = agreement.work(comparison(first, second), store)
    low, high = by_hand(differ, 4)
    found = metrics["disagreement"]
    assert (found.unit, found.value) == ("fraction", differ / 4)
    assert (found.low, found.high) == pytest.approx((low / 100, high / 100))
    names = {name.partition(".")[0] for name in (first, second)} - {"labels"}
    assert facts["differ"] == differ
    assert facts["images"] == {"said": "4 images"}
    assert len(set(facts["evaluations"])) == len(names)
    assert doubts == []


def test_an_image_that_neither_could_be_shown_is_no_agreement(store: Store) -> None:
    stored(store, "blind", scored(FOUR, [1, 2, 3, 4], [1, 2, -1, 0]))
    stored(store, "dark", scored(FOUR, [1, 2, 3, 4], [1, 2, -1, 0]))
    _, facts, _ = agreement.work(comparison("blind.w", "dark.w"), store)
    assert facts["differ"] == 1


def disagreement_refused(store: Store, first: str, second: str) -> str:
    with pytest.raises(JobError) as error:
        agreement.work(comparison(first, second), store)
    return str(error.value)


def test_an_evaluation_that_is_missing_or_failed_is_named(store: Store) -> None:
    needs = "needs the evaluation of {}, which failed or is missing"
    assert disagreement_refused(store, "plain.w", "gone.w#distil") == needs.format("gone.w")
    stored(store, "failed", scored(FOUR, [1] * 4, [1] * 4), error="it failed")
    assert disagreement_refused(store, "failed.w", "plain.w") == needs.format("failed.w")


def test_a_head_that_a_network_does_not_have_is_named_with_those_it_has(store: Store) -> None:
    assert disagreement_refused(store, "double.w", "plain.w#distil") == (
        "plain.w#distil: the network has no such head; there is class"
    )
    assert disagreement_refused(store, "double.w#all", "plain.w") == (
        "double.w#all: the network has no such head; there is class, distil, both, mean"
    )


def test_the_labels_agree_with_themselves_on_any_images(store: Store) -> None:
    metrics, facts, doubts = agreement.work(comparison("labels", "labels"), store)
    assert metrics == {"disagreement": Measurement(unit="fraction", value=0.0)}
    assert (facts, doubts) == ({"evaluations": [], "differ": 0}, [])


def test_evaluations_over_other_images_are_not_compared(store: Store) -> None:
    stored(store, "other", scored(("x", *FOUR[1:]), [1] * 4, [1] * 4))
    assert disagreement_refused(store, "plain.w", "other.w") == (
        "plain.w and other.w were evaluated over different images; run with --rerun"
    )


# Tokens.


def cosines(job: Job, photos: Path, weights: Path, **told: Any) -> tuple[dict[str, Measurement], dict[str, Any]]:  # noqa: ANN401
    inputs = Inputs(data={"imagenet": str(photos)}, weights=weights, **told)
    site = Site(devices=("cpu",), memory=2**33, runs=photos)
    metrics, facts, doubts = tokens.work(job, inputs, site, silent)
    assert doubts == []
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
    model: Any = network(job, kept_weights)
    rows = []
    with torch.inference_mode():
        for images, _ in shown_by_timm(batches(job, kept_photos)[1]):
            # As timm's own `forward_features`, a layer at a time.
            x = model.patch_embed(images)
            x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
            layers = []
            for block in model.blocks:
                x = block(x)
                layers.append(cosine_similarity(x[:, 0], x[:, 1], dim=1))
            rows.append(torch.stack(layers, dim=1))
    wanted = torch.cat(rows).double().numpy()
    assert len(facts["by_layer"]) == 13
    np.testing.assert_allclose(facts["by_layer"][1:], wanted.mean(axis=0), atol=1e-5)
    assert facts["by_layer"][0] == metrics["cosine_in"].value
    assert facts["measured_on"] == COUNT
    out = metrics["cosine_out"]
    half = 1.96 * wanted[:, -1].std(ddof=1) / math.sqrt(COUNT)
    assert (out.value, out.low, out.high) == pytest.approx(
        (wanted[:, -1].mean(), wanted[:, -1].mean() - half, wanted[:, -1].mean() + half), abs=1e-5
    )


def test_many_images_are_sampled_evenly(
    kept_photos: Path, kept_weights: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(tokens, "MOST_IMAGES", 5)
    job = Job.of("tokens", dict(evaluation(DISTILLED).settings))
    _, facts = cosines(job, kept_photos, kept_weights)
    assert facts["measured_on"] == 5
    assert reads == [names_in(kept_photos)[place] for place in (0, 5, 10, 15, 20)]


def test_a_network_without_a_distillation_token_has_no_two_tokens(kept_photos: Path, kept_weights: Path) -> None:
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


# Data sets.


def counted(where: Path) -> tuple[dict[str, tuple[str, float | str]], list[str]]:
    heard: list[Progress] = []
    job = Job.of("dataset", {"data": "imagenet"})
    metrics, facts, doubts = dataset.work(job, Inputs(data={"imagenet": str(where)}), heard.append)
    assert heard == [Progress(job=job, phase="counting images")]
    assert facts == {}
    return {name: (found.unit, found.value) for name, found in metrics.items()}, doubts


def test_a_data_set_is_counted_by_split(kept_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(kept_photos)
    for place in range(3):
        photograph(tmp_path / "train" / FOLDERS[place % 2] / f"{place}.JPEG", place)
    values, doubts = counted(tmp_path)
    assert values == {"test_images": ("images", 21), "train_images": ("images", 3), "classes": ("classes", 4)}
    assert doubts == []


def test_training_images_that_are_not_there_are_said_and_not_counted(kept_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(kept_photos)
    values, doubts = counted(tmp_path)
    assert values == {"test_images": ("images", 21), "classes": ("classes", 4)}
    assert doubts == ["imagenet has no train images there"]


def test_a_data_set_without_any_images_has_no_counts(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        counted(tmp_path)
    assert str(error.value) == f"--data imagenet={tmp_path}: no images in {tmp_path} or the folders in it"
