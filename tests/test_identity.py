"""Images are those that were published if their number, names, labels and bytes say so; what does not is named."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm

from harness.jobs.data import identity
from harness.jobs.data.check import check_images
from harness.jobs.data.images import DataSource, Images, image_facts
from harness.jobs.data.open import count_images, open_images
from harness.jobs.inventory import inspect_inputs
from harness.plan.job import Job
from harness.run.messages import Inputs, Inventory
from harness.specs.datasets import DATASETS, DataSet, Variant
from tests.test_images import SAMPLE, WORDNET, needs_sample, pack, picture, shard, write_pictures

REAL: list[list[int]] = json.loads(
    (Path(timm.__file__).parent / "data" / "_info" / "imagenet_real_labels.json").read_text()
)
VALIDATION = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
BY_REAL = [labels[0] if labels else 0 for labels in REAL]


def images_of(
    data: str,
    names: Sequence[str],
    labels: Sequence[int],
    *,
    where: str = "/data",
    sizes: Sequence[int] | None = None,
    head: Callable[[int], bytes] | None = None,
    files: Sequence[int] | None = None,
    split: str = "test",
) -> Images:
    """Return images that are nowhere, as an indexer would."""
    return Images.of(
        DataSource(data=data, where=where, split=split),
        names,
        labels,
        sizes=range(1, len(names) + 1) if sizes is None else sizes,
        read=head,
        head=head,
        files=None if files is None else np.array(files),
        path=where,
    )


def validation(labels: Sequence[int] = BY_REAL, **fields: object) -> Images:
    return images_of("imagenet", VALIDATION, labels, **fields)  # type: ignore[arg-type]


def cifar(count: int = 10_000, **fields: object) -> Images:
    names = [f"{'abcdefghij'[n % 10]}/{n}.png" for n in range(count)]
    return images_of("cifar10", names, [n % 10 for n in range(count)], **fields)  # type: ignore[arg-type]


def said(images: Images) -> str:
    facts = image_facts(images)
    assert not facts["whole"]
    return str(facts["said"])


# What is whole.


def test_all_images_with_the_published_names_and_labels_are_whole() -> None:
    facts = image_facts(validation(sizes=[109_120 + n for n in range(50_000)]))
    assert facts["whole"]
    assert facts["said"] == "all 50,000 images of ImageNet"
    assert not {"copies", "labels", "left_out", "encoding"} & facts.keys()


def test_images_that_were_resized_are_a_warning() -> None:
    images = validation(sizes=[35_000 + n for n in range(50_000)])
    facts = image_facts(images)
    assert facts["whole"]
    assert facts["encoding"] == (
        "the files have 3.00 GB, those of ImageNet 6.71 GB: were the images resized or encoded anew? accuracies on the "
        "files as published may differ"
    )
    assert facts["encoding"] in check_images(images, thorough=False).notes


def test_images_whose_names_tell_nothing_are_whole_if_each_class_has_its_share() -> None:
    labels = [n // 50 for n in range(50_000)]
    names = [f"{n:08d}" for n in range(50_000)]
    assert image_facts(images_of("imagenet", names, labels))["whole"]
    labels[0] = 1
    assert said(images_of("imagenet", names, labels)) == (
        "50,000 images of ImageNet; its classes have 49 to 51 images instead of 50"
    )


def test_classes_that_were_not_published_even_need_not_be() -> None:
    labels = [0] * 35 + [1] * 37 + [n for n in range(2, 10) for _ in range(36)]
    assert image_facts(images_of("digits", [str(n) for n in range(360)], labels))["whole"]


# Copies.


def test_links_to_one_picture_are_one_image(tmp_path: Path) -> None:
    one = write_pictures(tmp_path, ["one.jpg"]) / "one.jpg"
    names = [f"{letter}/{n}.jpg" for letter in "abcdefghij" for n in range(1000)]
    for position, name in enumerate(names):
        path = tmp_path / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(one, path) if position % 2 else path.symlink_to(one)
    images = open_images("cifar10", str(tmp_path))
    assert said(images) == "1 of the 10,000 images of CIFAR-10, in 10,000 files"
    assert image_facts(images)["copies"] == 9_999
    assert count_images("cifar10", str(tmp_path)) == {"test_images": 1, "classes": 10}
    report = check_images(images, thorough=False)
    (problem,) = report.problems
    assert problem == (
        "1 of the 10,000 images of CIFAR-10, in 10,000 files: these are not the images of CIFAR-10 as published, and "
        "results are shown and never judged against published ones"
    )


@pytest.mark.parametrize("length", [100, 30_000])
def test_copies_are_found_by_their_bytes_and_only_files_of_equal_size_are_read(length: int) -> None:
    sizes = [length if n < 500 else length + n for n in range(10_000)]
    reads: set[int] = set()

    def content(position: int) -> bytes:
        reads.add(position)
        return bytes([position % 2]) * length  # two pictures, 250 times each

    images = cifar(sizes=sizes, head=content)
    assert said(images) == "9,502 of the 10,000 images of CIFAR-10, in 10,000 files"
    assert reads == set(range(500))


def test_files_that_only_begin_alike_are_no_copies() -> None:
    images = cifar(sizes=[7] * 10_000, head=lambda position: b"a long header")
    assert image_facts(replace(images, read=lambda position: str(position).encode()))["whole"]


def test_files_that_cannot_be_read_are_no_copies() -> None:
    def fail(position: int) -> bytes:
        raise OSError(position)

    assert image_facts(cifar(sizes=[7] * 10_000, head=fail))["whole"]


def test_the_few_duplicates_that_published_sets_have_are_no_flaw() -> None:
    pairs = [n // 2 if n < 100 else n for n in range(10_000)]  # 50 copies
    facts = image_facts(cifar(files=pairs))
    assert (facts["whole"], facts["copies"]) == (True, 50)
    assert said(cifar(files=[n // 2 if n < 300 else n for n in range(10_000)])).startswith("9,850 of the 10,000 images")
    assert image_facts(validation(files=[n // 2 if n < 100 else n for n in range(50_000)]))["whole"]
    assert said(validation(files=[n // 2 if n < 102 else n for n in range(50_000)])).startswith("49,949 of the 50,000")
    train = images_of("cifar100", [str(n) for n in range(50_000)], [n // 500 for n in range(50_000)], split="train")
    copies = np.arange(50_000)
    copies[:1000] //= 2
    assert image_facts(replace(train, files=copies))["whole"]


def test_of_many_files_of_equal_sizes_a_sample_tells_the_share_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_COMPARED", 1_000)
    reads: list[int] = []

    def content(position: int) -> bytes:
        reads.append(position)
        return bytes([position % 10]) * sizes[position]  # the images of a class are copies

    sizes = [1 + n // 100 for n in range(10_000)]  # 100 files of each size, 10 of each class
    images = cifar(sizes=sizes, head=content)
    assert image_facts(images)["copies"] == 9_000
    assert len(reads) == 2_000


def test_a_copy_in_a_tar_is_one_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "pair", DataSet(label="a pair", classes=2, test_images=2))
    same = pack(tmp_path / "same.tar", [("a/1.jpg", picture()), ("b/2.jpg", picture())])
    assert said(open_images("pair", str(same))) == "1 of the 2 images of a pair, in 2 files"
    other = pack(tmp_path / "other.tar", [("a/1.jpg", picture(1)), ("b/2.jpg", picture(2))])
    assert image_facts(open_images("pair", str(other)))["whole"]
    shards = shard(tmp_path / "shards" / "0.tar", {"a": 0, "b": 1}).parent
    assert image_facts(open_images("pair", f"wds/{shards}"))["whole"]


# Names.


def test_names_that_are_not_all_of_the_published_ones_are_counted() -> None:
    twice = [f"{n % 2}/{name}" for n, name in enumerate(VALIDATION[:25_000] * 2)]
    assert said(images_of("imagenet", twice, BY_REAL[:25_000] * 2)).startswith(
        "50,000 images of ImageNet; only 25,000 have the name of one of the published 50,000"
    )
    mixed = [*VALIDATION[:49_000], *(f"{n}.JPEG" for n in range(1000))]
    assert "only 49,000 have the name" in said(images_of("imagenet", mixed, BY_REAL))


@pytest.mark.parametrize(
    ("where", "label"),
    [
        ("/data/imagenetv2-threshold0.7-format-val", "ImageNet-V2 (threshold 0.7)"),
        ("/data/imagenetv2-top-images-format-val", "ImageNet-V2 (top images)"),
        ("/data/matched-frequency-and-more/imagenetv2-top-images", "ImageNet-V2 (top images)"),
        ("tfds/imagenet_v2/topimages", "ImageNet-V2 (top images)"),
        ("/data/imagenetv2-a-44", "ImageNet-V2 (threshold 0.7)"),
        ("/data/ImageNetV2-Threshold0.7.tar", "ImageNet-V2 (threshold 0.7)"),
        ("wds//data/imagenet-v2-threshold-0.7", "ImageNet-V2 (threshold 0.7)"),
    ],
)
def test_another_set_of_imagenet_v2_is_called_by_its_name(where: str, label: str) -> None:
    names = [f"{n // 10}/{n}.jpeg" for n in range(10_000)]
    labels = [n // 10 for n in range(10_000)]
    images = images_of("imagenet-v2", names, labels, where=where)
    assert said(images) == f"10,000 images of {label}"
    few = images_of("imagenet-v2", names[:20], labels[:20], where=where)
    assert said(few) == f"20 images of {label}, 2 of its 1,000 classes"
    assert check_images(few, thorough=False).problems[0].startswith(f"20 images of {label}, 2 of its 1,000 classes: ")


@pytest.mark.parametrize(
    "where",
    [
        "/data/v2",
        "/data/imagenetv2-matched-frequency-format-val",
        "/data/threshold0.7-and-others/imagenetv2-matched-frequency-format-val",
        "tfds/imagenet_v2",
    ],
)
def test_the_published_set_of_imagenet_v2_is_whole(where: str) -> None:
    names, labels = [f"{n // 10}/{n}.jpeg" for n in range(10_000)], [n // 10 for n in range(10_000)]
    facts = image_facts(images_of("imagenet-v2", names, labels, where=where))
    assert (facts["whole"], facts["said"]) == (True, "all 10,000 images of ImageNet-V2 (matched frequency)")


def test_a_set_is_what_its_folder_links_to_and_what_the_folder_in_it_is_called(tmp_path: Path) -> None:
    real = write_pictures(tmp_path / "imagenetv2-top-images-format-val", ["0/a.jpeg", "1/b.jpeg"])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "imagenetv2-matched-frequency-format-val").symlink_to(real)
    inside = tmp_path / "v2"
    inside.mkdir()
    (inside / real.name).symlink_to(real)
    for where in (tmp_path / "linked", inside, real):
        assert said(open_images("imagenet-v2", str(where))).startswith("2 images of ImageNet-V2 (top images)")


def test_names_tell_a_set_whatever_its_folder_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    names, labels = [f"{n // 10}/{n:05x}.jpeg" for n in range(10_000)], [n // 10 for n in range(10_000)]
    lines = sorted(f"{n:05x}" for n in range(10_000))
    labelled = sorted(f"{n:05x} {n // 10}" for n in range(10_000))
    digests = [hashlib.sha256("\n".join(text).encode()).hexdigest() for text in (lines, labelled)]
    known = DATASETS["imagenet-v2"]
    ours, top = known.variants[0], known.variants[2]

    def published(*variants: Variant) -> None:
        monkeypatch.setitem(DATASETS, "imagenet-v2", replace(known, variants=variants))

    published(ours, replace(top, names=digests[0], labels=digests[1]))
    images = images_of("imagenet-v2", names, labels, where="/data/imagenetv2-matched-frequency-format-val")
    assert said(images) == "10,000 images of ImageNet-V2 (top images)"
    published(replace(ours, names=digests[0], labels=digests[1]), top)
    images = images_of("imagenet-v2", names, labels, where="/data/imagenetv2-top-images-format-val")
    assert image_facts(images)["whole"]
    as_text = sorted(range(1000), key=str)  # the order that folders have if their numbers are taken for text
    shifted = images_of("imagenet-v2", names, [as_text.index(label) for label in labels])
    assert said(shifted) == (
        "10,000 images of ImageNet-V2 (matched frequency); their labels are not the published ones"
    )


@pytest.mark.parametrize(
    ("where", "label"),
    [
        ("/data/imagenet-c/gaussian_noise/3", "ImageNet-C"),
        ("/data/corrupted/motion_blur/5", "ImageNet-C"),
        ("/data/imagenet-sketch", "ImageNet-Sketch"),
        ("/data/ImageNet_R/val", "ImageNet-R"),
        ("/data/imagenet-a-and-r/imagenet", "ImageNet"),
        ("/data/imagenet", "ImageNet"),
        ("/data/ILSVRC2012/val", "ImageNet"),
        ("/data/test_imagenet_c_is_read0/imagenet_copy", "ImageNet"),
    ],
)
def test_sets_with_the_names_of_imagenet_s_images_are_called_by_theirs(where: str, label: str) -> None:
    facts = image_facts(validation(where=where))
    assert facts["whole"] == (label == "ImageNet")
    assert facts["said"] == ("all 50,000 images of ImageNet" if facts["whole"] else f"50,000 images of {label}")


# Labels.


def numbered_from_one(labels: Sequence[int]) -> list[int]:
    return [min(label + 1, 999) for label in labels]


def in_another_order(labels: Sequence[int]) -> list[int]:
    order = np.random.default_rng(0).permutation(1000)
    return [int(order[label]) for label in labels]


@pytest.mark.parametrize("renumber", [numbered_from_one, in_another_order])
def test_labels_in_another_numbering_are_not_the_published_ones(
    renumber: Callable[[Sequence[int]], list[int]],
) -> None:
    facts = image_facts(validation(renumber(BY_REAL)))
    assert not facts["whole"]
    assert "of 46,837 labels are not among the ReaL labels of their images (4,673 are usual)" in facts["said"]
    assert facts["labels"].endswith("are these ILSVRC's own numbers, or numbers from 1?")


def test_two_classes_that_changed_places_are_found_among_a_thousand() -> None:
    usual = [label if n % 10 else (label + 500) % 1000 for n, label in enumerate(BY_REAL)]  # 9 in 10 agree
    agree = sum(label in real for label, real in zip(usual, REAL, strict=True))
    assert agree < 42_164
    for position in range(0, 50_000, 10):  # as many as of ILSVRC's own labels
        if agree < 42_164 and REAL[position]:
            usual[position], agree = BY_REAL[position], agree + 1
    assert image_facts(validation(usual))["whole"]
    assert "labels are not among" in said(validation([{7: 8, 8: 7}.get(label, label) for label in usual]))


@needs_sample
@pytest.mark.parametrize("renumber", [numbered_from_one, in_another_order])
def test_labels_of_a_sample_in_another_numbering_are_refused(
    tmp_path: Path, renumber: Callable[[Sequence[int]], list[int]]
) -> None:
    true = open_images("imagenet", str(SAMPLE))
    assert true.labelled is not None
    assert (true.labelled.compared, true.labelled.agree, true.labelled.doubtful) == (1350, 1251, False)
    flat = tmp_path / "val"
    flat.mkdir()
    names = [name.rpartition("/")[2] for name in true.names[::20]]
    for name, path in zip(names, true.names[::20], strict=True):
        (flat / name).symlink_to(SAMPLE / "val" / path)

    def inventory_of(labels: Sequence[int]) -> Inventory:
        (flat / "val.txt").write_text(
            "".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True)), encoding="utf-8"
        )
        return inspect_inputs(Inputs(data={"imagenet": str(flat)}), (Job.of("dataset", {"data": "imagenet"}),))

    labels = true.labels[::20].tolist()
    assert inventory_of(labels).problems == ()
    (problem,) = inventory_of(renumber(labels)).problems
    assert problem.startswith(f"--data imagenet={flat}: ")
    assert problem.endswith(
        " labels are not among the ReaL labels of their images (1 in 10 is usual): classes are numbered from 0 in the "
        "order of their WordNet ids; are these ILSVRC's own numbers, or numbers from 1?"
    )


def test_labels_of_a_few_images_are_doubted_and_not_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, VALIDATION[:4])
    lines = [f"{name} {label}\n" for name, label in zip(VALIDATION[:4], (489, 360, 170, 821), strict=True)]
    (tmp_path / "val.txt").write_text("".join(lines), encoding="utf-8")
    images = open_images("imagenet", str(tmp_path))
    assert image_facts(images)["labels"].startswith("3 of 3 labels are not among the ReaL labels of their images")
    assert check_images(images, thorough=False).problems == (image_facts(images)["labels"],)
    assert images.labelled is not None
    assert not images.labelled.wrong


def test_labels_are_compared_with_the_ids_in_names(tmp_path: Path) -> None:
    names = [f"{number}/{WORDNET[number - 1]}_{n}.JPEG" for number in range(1, 6) for n in range(5)]
    write_pictures(tmp_path / "train", names)  # folders numbered from 1
    write_pictures(tmp_path / "val", [f"{WORDNET[0]}/ILSVRC2012_val_00000293_{WORDNET[0]}.JPEG"])
    images = open_images("imagenet", str(tmp_path), split="train")
    assert images.labelled is not None
    assert images.labelled.wrong
    assert image_facts(images)["labels"].startswith(
        "25 of 25 labels are not those of the WordNet ids in the names of the images: "
    )
    test = open_images("imagenet", str(tmp_path))
    assert test.labelled is not None
    assert (test.labelled.compared, test.labelled.agree) == (1, 1)


def test_one_id_among_the_names_does_not_stand_for_all_labels() -> None:
    names = [VALIDATION[0].replace(".", f"_{WORDNET[BY_REAL[0]]}."), *VALIDATION[1:]]
    assert image_facts(images_of("imagenet", names, BY_REAL))["whole"]
    assert "labels are not among" in said(images_of("imagenet", names, in_another_order(BY_REAL)))
    numbered = [f"{WORDNET[0]}_1.JPEG", *(f"{n}.JPEG" for n in range(1, 50_000))]
    assert "49 to 51 images" in said(images_of("imagenet", numbered, [0, 1, *(n // 50 for n in range(2, 50_000))]))


def test_names_of_other_datasets_tell_nothing_of_their_labels() -> None:
    assert images_of("pets", ["n01440764_1.JPEG"], [7]).labelled is None
    assert images_of("imagenet", ["n99999999_1.JPEG", "cat.JPEG"], [7, 8]).labelled is None
    assert images_of("imagenet", ["cat.JPEG"], [7]).labelled is None
