"""Images are found, named and labelled as they were published, whatever they are stored in; errors are sentences."""

import csv
import hashlib
import io
import multiprocessing
import pickle
import random
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from timm.data import ImageDataset, ImageNetInfo

from harness.errors import JobError
from harness.jobs.data.check import check_headers, check_images
from harness.jobs.data.images import Images, UnreadableImage, image_facts
from harness.jobs.data.open import count_images, open_images
from harness.jobs.data.sources import READERS
from harness.run.messages import CheckReport

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"
SAMPLE = ASSETS / "imagenet_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"the sample of ImageNet is not at {SAMPLE}")

WORDNET: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
SYNSETS = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"


def picture(seed: int = 0, *, kind: str = "JPEG", mode: str = "RGB", side: int = 8) -> bytes:
    """Make an image file of noise."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = random.Random(seed).randbytes(side * side * channels)
    target = io.BytesIO()
    Image.frombytes(mode, (side, side), pixels).save(target, kind)
    return target.getvalue()


def write_pictures(root: Path, names: Sequence[str]) -> Path:
    """Write a different image at each of these names below a folder."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed))
    return root


def pack(path: Path, files: Sequence[tuple[str, bytes]], mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def labelled(images: Images) -> dict[str, int]:
    return dict(zip(images.names, images.labels.tolist(), strict=True))


def pixels_of(image: Image.Image) -> bytes:
    assert image.mode == "RGB"
    return image.tobytes()


def refusal(data: str, where: object, split: str = "test") -> str:
    with pytest.raises(JobError) as refused:
        open_images(data, str(where), split=split)
    return str(refused.value)


def by_timm(folder: Path, *, class_map: Path | str = "") -> ImageDataset:
    return ImageDataset(str(folder), class_map=class_map)  # type: ignore[no-untyped-call]


# timm leaves it to Python to close the files that it reads.
timm_closes_late = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


# The real images.


@needs_sample
def test_real_images_have_the_labels_of_the_manifest() -> None:
    with (SAMPLE / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {
        row["file"].removeprefix("val/"): int(row["class_index"]) for row in rows if row["file"].startswith("val/")
    }
    assert len(labels) == 1416
    assert labelled(open_images("imagenet", str(SAMPLE))) == labels
    labels = {r["file"].removeprefix("train/"): int(r["class_index"]) for r in rows if r["file"].startswith("train/")}
    assert labelled(open_images("imagenet", str(SAMPLE), split="train")) == labels


@needs_sample
@timm_closes_late
def test_real_images_are_those_that_timm_reads() -> None:
    ours, theirs = open_images("imagenet", str(SAMPLE / "val")), by_timm(SAMPLE / "val", class_map=SYNSETS)
    assert list(ours.names) == theirs.filenames()  # type: ignore[no-untyped-call]
    for position in range(0, len(ours), 29):
        image, label = theirs[position]
        assert label == ours.labels[position]
        assert pixels_of(image) == pixels_of(ours.image(position))


@needs_sample
def test_the_facts_of_a_sample_show_that_it_is_one() -> None:
    images = open_images("imagenet", str(SAMPLE))
    assert image_facts(images) == {
        "name": "imagenet",
        "fingerprint": images.fingerprint,
        "images": 1416,
        "of": 50_000,
        "classes": 758,
        "classes_of": 1000,
        "whole": False,
        "said": "1,416 of the 50,000 images of ImageNet, 758 of its 1,000 classes",
    }


@needs_sample
def test_real_images_are_counted_without_opening_them() -> None:
    assert count_images("imagenet", str(SAMPLE)) == {"test_images": 1416, "train_images": 143, "classes": 758}
    assert count_images("cifar10", str(ASSETS / "cifar10_sample")) == {
        "test_images": 1000,
        "train_images": 2000,
        "classes": 10,
    }


# Class folders.


def test_wordnet_folders_are_numbered_as_timm_numbers_them_though_most_are_missing(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{WORDNET[999]}/a.JPEG", f"{WORDNET[3]}/b.JPEG"])
    images = open_images("imagenet", str(tmp_path))
    assert labelled(images) == {f"{WORDNET[3]}/b.JPEG": 3, f"{WORDNET[999]}/a.JPEG": 999}
    assert images.classes == 1000


def test_folders_that_are_numbers_are_numbered_by_them_with_a_note(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{number}/a.jpeg" for number in (11, 2, 10, 0, 1)])
    images = open_images("imagenet-v2", str(tmp_path))
    assert labelled(images) == {"0/a.jpeg": 0, "1/a.jpeg": 1, "2/a.jpeg": 2, "10/a.jpeg": 10, "11/a.jpeg": 11}
    assert list(images.labels) == [0, 1, 2, 10, 11]
    assert images.notes == ("the class folders are numbers and were sorted as numbers",)


def test_the_folder_of_a_split_is_preferred(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", [f"{WORDNET[1]}/a.JPEG"])
    write_pictures(tmp_path / "train", [f"{WORDNET[2]}/b.JPEG", f"{WORDNET[2]}/c.JPEG"])
    assert labelled(open_images("imagenet", str(tmp_path))) == {f"{WORDNET[1]}/a.JPEG": 1}
    training = open_images("imagenet", str(tmp_path), split="train")
    assert labelled(training) == {f"{WORDNET[2]}/b.JPEG": 2, f"{WORDNET[2]}/c.JPEG": 2}
    assert image_facts(training)["of"] == 1_281_167


def test_training_images_are_never_used_as_test_images(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", [f"{WORDNET[2]}/b.JPEG"])
    assert refusal("imagenet", tmp_path) == (
        f"--data imagenet={tmp_path}: has no folder of test images; it would be called val or validation or "
        "ILSVRC2012_img_val or test"
    )


def test_a_folder_without_training_images_is_refused_with_its_expected_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg"])
    assert refusal("pets", tmp_path, "train") == (
        f"--data pets={tmp_path}: has no folder of train images; it would be called train"
    )


def test_an_unknown_data_set_is_any_folder_of_images(tmp_path: Path) -> None:
    images = open_images("pets", str(write_pictures(tmp_path, ["class10/a.jpg", "class9/b.png", "class9/c.JPG"])))
    assert labelled(images) == {"class9/b.png": 0, "class9/c.JPG": 0, "class10/a.jpg": 1}
    assert images.classes == 2
    assert image_facts(images)["said"] == "3 images of pets"


def test_an_empty_class_folder_keeps_its_number(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["ant/a.jpg", "cow/b.jpg"])
    (tmp_path / "bee").mkdir()
    (tmp_path / ".cache").mkdir()
    images = open_images("pets", str(tmp_path))
    assert labelled(images) == {"ant/a.jpg": 0, "cow/b.jpg": 2}
    assert images.classes == 3


def test_a_class_that_only_has_training_images_keeps_its_number(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", [f"{letter}/a.jpg" for letter in "abcdefghij"])
    write_pictures(tmp_path / "test", [f"{letter}/a.jpg" for letter in "bj"])
    images = open_images("cifar10", str(tmp_path))
    assert labelled(images) == {"b/a.jpg": 1, "j/a.jpg": 9}
    assert image_facts(images)["said"] == "2 of the 10,000 images of CIFAR-10, 2 of its 10 classes"


def test_the_facts_of_a_whole_dataset_show_that_it_is_one(tmp_path: Path) -> None:
    images = open_images("cifar10", str(write_pictures(tmp_path, [f"{letter}/a.jpg" for letter in "abcdefghij"])))
    every = replace(
        images,
        names=tuple(f"{letter}/{n}.jpg" for n in range(1000) for letter in "abcdefghij"),
        labels=np.tile(images.labels, 1000),
        sizes=np.arange(10_000),
        files=None,
    )
    facts = image_facts(every)
    assert facts["whole"]
    assert facts["said"] == "all 10,000 images of CIFAR-10"
    fewer = image_facts(replace(every, labels=np.minimum(every.labels, 8)))
    assert not fewer["whole"]
    assert fewer["said"] == "all 10,000 images of CIFAR-10, 9 of its 10 classes"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["n99999999/a.JPEG", "n01440764/b.JPEG"],
            (
                "1 of 2 folders are not classes of ImageNet (n99999999); a class folder is called one of the 1,000 "
                "WordNet ids, as n01440764"
            ),
        ),
        (
            ["1000/a.JPEG", "7/b.JPEG"],
            "1 of 2 folders are not classes of ImageNet (1000); a class folder is called a number from 0 to 999",
        ),
        (["7/a.JPEG", "007/b.JPEG"], "several folders are the same class (007, 7)"),
        (
            ["n01440764/a.JPEG", "b.JPEG", "c.JPEG"],
            "2 of 3 images are outside the class folders (b.JPEG, c.JPEG); put each into the folder of its class",
        ),
    ],
)
def test_folders_that_are_no_classes_are_named(names: list[str], sentence: str, tmp_path: Path) -> None:
    assert refusal("imagenet", write_pictures(tmp_path, names)) == f"--data imagenet={tmp_path}: {sentence}"


def test_too_many_class_folders_are_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{letter}/a.jpg" for letter in "abcdefghijk"])
    assert refusal("cifar10", tmp_path) == (
        f"--data cifar10={tmp_path}: 11 class folders, but CIFAR-10 has 10 classes, numbered by the order of "
        "their folders, so there must be one for each; there are a, b, c and 8 more"
    )


def test_a_path_that_does_not_exist_is_an_error() -> None:
    assert refusal("imagenet", "/nowhere/at/all") == (
        "--data imagenet=/nowhere/at/all: there is no file or folder /nowhere/at/all"
    )


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    assert refusal("imagenet", tmp_path) == (
        f"--data imagenet={tmp_path}: no images in {tmp_path}/val or the folders in it"
    )


# A flat folder, or a flat tar, and a file of labels.

FLAT = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3)]
CLASSES = [65, 970, 230]


def devkit(folder: Path) -> None:
    """Write the devkit's files: ids that are not our numbers, and synsets that are no classes."""
    folder.mkdir(parents=True, exist_ok=True)
    order = random.Random(0).sample(WORDNET, 1000)
    inner = [f"n{number:08d}" for number in range(676)]
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    fields += [("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]
    rows: list[tuple[object, ...]] = [
        (position, name, "word", "gloss", 0, [], 0, 1300) for position, name in enumerate(order, 1)
    ]
    rows += [(position, name, "word", "gloss", 2, [1, 2], 1, 0) for position, name in enumerate(inner, 1001)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    ids = [order.index(WORDNET[number]) + 1 for number in CLASSES]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in ids))


def kaggle(folder: Path) -> None:
    rows = [f"{name[:-5]},{WORDNET[number]} 1 2 3 4 " for name, number in zip(FLAT, CLASSES, strict=True)]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")


def caffe(folder: Path) -> None:
    lines = [f"{name} {number}\n" for name, number in zip(FLAT, CLASSES, strict=True)]
    (folder / "val.txt").write_text("".join(reversed(lines)))


def tensorflow(folder: Path) -> None:
    text = "".join(f"{WORDNET[number]}\n" for number in CLASSES)
    (folder / "imagenet_2012_validation_synset_labels.txt").write_text(text)


FILES: dict[str, Callable[[Path], None]] = {
    "ILSVRC2012_validation_ground_truth.txt": devkit,
    "LOC_val_solution.csv": kaggle,
    "val.txt": caffe,
    "imagenet_2012_validation_synset_labels.txt": tensorflow,
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("location", ["in the folder", "next to it"])
def test_images_in_no_folders_are_labelled_by_a_file(file: str, location: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", FLAT)
    FILES[file](tmp_path / "val" if location == "in the folder" else tmp_path)
    images = open_images("imagenet", str(tmp_path / "val"))
    assert labelled(images) == dict(zip(FLAT, CLASSES, strict=True))
    assert images.notes == (f"labels are those of {file}",)
    assert images.classes == 1000
    assert count_images("imagenet", str(tmp_path / "val")) == {"test_images": 3, "classes": 3}


@pytest.mark.parametrize("where", ["", "val"])
def test_the_devkit_is_found_where_it_is_unpacked(where: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", FLAT)
    devkit(tmp_path / where / "ILSVRC2012_devkit_t12" / "data")
    assert list(open_images("imagenet", str(tmp_path)).labels) == CLASSES


@pytest.mark.parametrize("file", FILES)
def test_a_flat_tar_is_read_as_it_was_downloaded(file: str, tmp_path: Path) -> None:
    FILES[file](tmp_path)
    content = [(name, picture(seed)) for seed, name in enumerate(FLAT)]
    path = pack(tmp_path / "ILSVRC2012_img_val.tar", content[::-1])
    for where in (path, tmp_path):
        images = open_images("imagenet", str(where))
        assert labelled(images) == dict(zip(FLAT, CLASSES, strict=True))
        assert [images.fetch(position) for position in range(3)] == [data for _, data in content]


def test_images_in_no_folders_without_a_file_are_refused_with_the_names_that_were_tried(tmp_path: Path) -> None:
    assert refusal("imagenet", write_pictures(tmp_path, FLAT)) == (
        f"--data imagenet={tmp_path}: the images are in no class folders and there is no file of labels; put one of "
        "ILSVRC2012_validation_ground_truth.txt, LOC_val_solution.csv, val.txt, "
        "imagenet_2012_validation_synset_labels.txt next to them (the first with its meta.mat, as in the devkit)"
    )


def test_a_file_with_fewer_lines_than_images_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, FLAT)
    (tmp_path / "val.txt").write_text(f"{FLAT[0]} 65\n")
    assert refusal("imagenet", tmp_path) == (
        f"--data imagenet={tmp_path}: val.txt has no label for 2 of 3 images ({FLAT[1]}, {FLAT[2]}); is it the list "
        "of these images?"
    )


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("val.txt", b"a.JPEG 1000\n", "'a.JPEG 1000' is not a name and a class from 0 to 999"),
        ("val.txt", "a.JPEG ²\n".encode(), "'a.JPEG ²' is not a name and a class from 0 to 999"),
        ("val.txt", b"\xff\xfea\x00", "is not text in UTF-8"),
        ("LOC_val_solution.csv", b"\xff\xfea\x00", "is not text in UTF-8"),
        ("imagenet_2012_validation_synset_labels.txt", b"cat\n", "'cat' is none of ImageNet's 1,000 WordNet ids"),
        ("ILSVRC2012_validation_ground_truth.txt", b"1\n1001\n", "1001 is not a class of meta.mat"),  # an inner synset
        ("ILSVRC2012_validation_ground_truth.txt", b"n01440764\n", "n01440764 is not a class of meta.mat"),
    ],
)
def test_a_file_of_labels_with_a_line_that_is_none_is_an_error(
    file: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    FILES[file](write_pictures(tmp_path, FLAT))
    (tmp_path / file).write_bytes(content)
    assert refusal("imagenet", tmp_path) == f"{tmp_path / file}: {sentence}"


@pytest.mark.parametrize("text", ["", f"{FLAT[0]},n01440764\n", f"ImageId,PredictionString\n{FLAT[0][:-5]},\nb\n"])
def test_a_kaggle_file_that_says_nothing_of_these_images_is_an_error(text: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, FLAT)
    (tmp_path / "LOC_val_solution.csv").write_text(text)
    assert refusal("imagenet", tmp_path) == (
        f"--data imagenet={tmp_path}: LOC_val_solution.csv has no label for 3 of 3 images ({', '.join(FLAT)}); is it "
        "the list of these images?"
    )


@pytest.mark.parametrize("file", [name for name in FILES if "ground_truth" not in name])
def test_a_file_of_labels_written_on_windows_is_read(file: str, tmp_path: Path) -> None:
    FILES[file](write_pictures(tmp_path, FLAT))
    written = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + written.replace(b"\n", b"\r\n"))
    assert list(open_images("imagenet", str(tmp_path)).labels) == CLASSES


def test_the_devkit_needs_its_list_of_classes(tmp_path: Path) -> None:
    devkit(write_pictures(tmp_path, FLAT))
    meta = tmp_path / "meta.mat"
    for length in (0, 10, 127, 5000):  # each a different error of scipy's
        meta.write_bytes(meta.read_bytes()[:length])
        message = refusal("imagenet", tmp_path)
        assert message.startswith(f"{meta}: is not the devkit's meta.mat (")
        devkit(tmp_path)
    meta.unlink()
    assert refusal("imagenet", tmp_path) == (
        f"{tmp_path / 'ILSVRC2012_validation_ground_truth.txt'}: needs the devkit's meta.mat next to it, which says "
        "which class each number is"
    )


def test_class_folders_that_contradict_the_list_next_to_them_are_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{WORDNET[65]}/{FLAT[0]}", f"{WORDNET[66]}/{FLAT[1]}"])
    caffe(tmp_path)
    assert refusal("imagenet", tmp_path) == (
        f"--data imagenet={tmp_path}: 1 of 2 images are in a different class folder than val.txt says "
        f"({WORDNET[66]}/{FLAT[1]})"
    )


def test_images_of_other_datasets_must_be_in_class_folders(tmp_path: Path) -> None:
    assert refusal("pets", write_pictures(tmp_path, ["a.jpg"])) == (
        f"--data pets={tmp_path}: the images are in no class folders, so their classes are unknown"
    )


# Tar files.


def test_a_tar_with_class_folders_gives_what_the_folder_gives(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "val", [f"{WORDNET[number]}/{number}.JPEG" for number in (999, 5, 40)])
    with tarfile.open(tmp_path / "val.tar", "w:") as archive:
        archive.add(folder, arcname=".")
    loose, packed = (open_images("imagenet", str(tmp_path / name)) for name in ("val", "val.tar"))
    assert labelled(packed) == labelled(loose)
    assert packed.fingerprint == loose.fingerprint
    assert [pixels_of(packed.image(i)) for i in range(3)] == [pixels_of(loose.image(i)) for i in range(3)]


@pytest.mark.parametrize("inside", [".", "imagenet"])
def test_a_tar_with_both_splits_gives_what_the_folder_gives(tmp_path: Path, inside: str) -> None:
    ours, others = ([f"{split}/{WORDNET[n]}/{n}.JPEG" for n in (999, 5)] for split in ("val", "train"))
    folder = write_pictures(tmp_path / "imagenet", [*ours, *others, f"train/{WORDNET[7]}/7.JPEG"])
    with tarfile.open(tmp_path / "imagenet.tar", "w:") as archive:
        archive.add(folder, arcname=inside)
    for split in ("test", "train"):
        loose, packed = (
            open_images("imagenet", str(tmp_path / name), split=split) for name in ("imagenet", "imagenet.tar")
        )
        assert labelled(packed) == labelled(loose)
        assert packed.fingerprint == loose.fingerprint
        assert pixels_of(packed.image(0)) == pixels_of(loose.image(0))
    assert count_images("imagenet", str(tmp_path / "imagenet.tar")) == count_images("imagenet", str(folder))


def test_a_tar_with_the_other_split_alone_is_refused_as_the_folder_is(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("train/cat/a.jpg", picture())])
    assert refusal("pets", path) == (
        f"--data pets={path}: has no folder of test images; it would be called test or val or validation"
    )


def test_a_tar_of_tars_has_a_class_for_each(tmp_path: Path) -> None:
    inner = [pack(tmp_path / f"{WORDNET[n]}.tar", [(f"{n}.JPEG", picture(n))]) for n in (7, 3)]
    path = pack(tmp_path / "all.tar", [(tar.name, tar.read_bytes()) for tar in inner])
    images = open_images("imagenet", str(path))
    assert labelled(images) == {f"{WORDNET[3]}/3.JPEG": 3, f"{WORDNET[7]}/7.JPEG": 7}
    assert images.fetch(1) == picture(7)


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", picture(1)), ("cat/a.jpg", picture(2))])
    images = open_images("pets", str(path))
    assert images.names == ("cat/a.jpg",)
    assert images.fetch(0) == picture(2)


def test_forked_processes_can_read_one_tar_at_the_same_time(tmp_path: Path) -> None:
    content = [(f"cat/{number}.jpg", picture(number)) for number in range(40)]
    images = open_images("pets", str(pack(tmp_path / "a.tar", content)))
    with multiprocessing.get_context("fork").Pool(2, _share, (images,)) as pool:
        pixels = pool.map(_pixels_at, range(40), chunksize=1)
    assert pixels == [Image.open(io.BytesIO(data)).convert("RGB").tobytes() for _, data in content]


_shared: list[Images] = []


def _share(images: Images) -> None:
    _shared.append(images)


def _pixels_at(position: int) -> bytes:
    return pixels_of(_shared[-1].image(position))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_compressed_tar_is_to_be_unpacked(mode: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", picture())], mode)
    message = refusal("pets", path)
    assert message.startswith(f"{path}: is not a tar file that can be read in place (")
    assert message.endswith("); unpack it if it is compressed, download it again if it is truncated")


def test_a_truncated_tar_is_to_be_downloaded_again(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", picture(side=64)), ("cat/b.jpg", picture(side=64))])
    path.write_bytes(path.read_bytes()[:3000])
    assert refusal("pets", path) == (
        f"{path}: is not a tar file that can be read in place (unexpected end of data); unpack it if it is compressed, "
        "download it again if it is truncated"
    )


def test_a_tar_without_images_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.txt", b"cat")])
    assert refusal("pets", path) == f"--data pets={path}: no images in {path}; 1 other files (cat/a.txt)"


def test_one_tar_is_the_test_images_and_nothing_else(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", picture())])
    assert refusal("pets", path, "train") == (
        f"--data pets={path}: a.tar is used for the test images, so there are no train images"
    )
    assert count_images("pets", str(path)) == {"test_images": 1, "classes": 1}


# WebDataset shards.


def shard(path: Path, labels: dict[str, int], kind: str = "jpg") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [(f"{key}.{kind}", picture(label)) for key, label in labels.items()]
    return pack(path, [*files, *((f"{key}.cls", f"{label}\n".encode()) for key, label in labels.items())])


def test_shards_are_indexed_in_natural_order(tmp_path: Path) -> None:
    shard(tmp_path / "s-10.tar", {"c": 2})
    shard(tmp_path / "s-2.tar", {"a": 0, "b": 999}, "JPEG")
    images = open_images("imagenet", f"wds/{tmp_path}")
    assert labelled(images) == {"a.JPEG": 0, "b.JPEG": 999, "c.jpg": 2}
    assert images.names == ("a.JPEG", "b.JPEG", "c.jpg")
    assert images.fetch(2) == picture(2)
    assert images.sizes.tolist() == [len(picture(0)), len(picture(999)), len(picture(2))]
    assert not images.streamed


def test_shards_named_for_a_split_are_those_of_the_split(tmp_path: Path) -> None:
    shard(tmp_path / "festival-validation-00.tar", {"a": 1})
    shard(tmp_path / "festival-train-00.tar", {"b": 2, "c": 3})  # which has "val" in it, but not as a word
    assert labelled(open_images("imagenet", f"wds/{tmp_path}")) == {"a.jpg": 1}
    assert labelled(open_images("imagenet", f"wds/{tmp_path}", split="train")) == {"b.jpg": 2, "c.jpg": 3}
    assert count_images("imagenet", f"wds/{tmp_path}") == {"test_images": 1, "train_images": 2, "classes": 1}


def test_shards_in_the_folder_of_a_split_are_those_of_the_split(tmp_path: Path) -> None:
    shard(tmp_path / "val" / "0.tar", {"a": 1})
    shard(tmp_path / "train" / "0.tar", {"b": 2})
    assert labelled(open_images("imagenet", f"wds/{tmp_path}")) == {"a.jpg": 1}
    assert labelled(open_images("imagenet", f"wds/{tmp_path}", split="train")) == {"b.jpg": 2}


def test_one_shard_is_enough(tmp_path: Path) -> None:
    path = shard(tmp_path / "train.tar", {"a": 1})  # whatever it is called, the user named it
    assert labelled(open_images("imagenet", f"wds/{path}")) == {"a.jpg": 1}


def test_keys_that_begin_anew_in_each_shard_are_distinguished(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"000": 1})
    shard(tmp_path / "1.tar", {"000": 2})
    assert labelled(open_images("imagenet", f"wds/{tmp_path}")) == {"0.tar/000.jpg": 1, "1.tar/000.jpg": 2}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([("a.jpg", picture())], "0.tar has no a.cls next to a.jpg"),
        ([("a.jpg", picture()), ("a.cls", b"cat")], "a.cls in 0.tar contains 'cat', not a class index"),
        ([("a.txt", b"")], "no images in 0.tar; 1 other files (a.txt)"),
        (
            [("a.jpg", picture()), ("a.cls", b"1000")],
            "1 of 1 images have a class that imagenet does not have (a.jpg has 1000); its classes are 0 to 999",
        ),
    ],
)
def test_a_wrong_shard_is_refused_in_a_sentence(files: list[tuple[str, bytes]], sentence: str, tmp_path: Path) -> None:
    pack(tmp_path / "0.tar", files)
    assert refusal("imagenet", f"wds/{tmp_path}") == f"--data imagenet=wds/{tmp_path}: {sentence}"


def test_a_folder_without_shards_is_an_error(tmp_path: Path) -> None:
    assert refusal("imagenet", f"wds/{tmp_path}") == (
        f"--data imagenet=wds/{tmp_path}: no .tar files of the test split in {tmp_path}"
    )
    shard(tmp_path / "0.tar", {"a": 1})
    assert refusal("imagenet", f"wds/{tmp_path}", "train") == (
        f"--data imagenet=wds/{tmp_path}: no .tar files of the train split in {tmp_path}"
    )


# Sources that timm reads, with fake readers.


class FakeHfDataset:
    """Fakes a dataset of the Hugging Face hub."""

    def __init__(self, paths: Sequence[str | None], labels: Sequence[Any]) -> None:
        self.columns = {"image.path": list(paths), "label": list(labels)}
        self.column_names = list(self.columns)

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]

    def flatten(self) -> "FakeHfDataset":
        return self


class FakeHfReader:
    """Fakes timm's reader of the hub: it has a test split only, and expects the name as it was written."""

    image_key, label_key = "image", "label"
    paths: ClassVar[list[str | None]] = ["/there/a.jpg", "/there/b.jpg"]
    labels: ClassVar[list[Any]] = [3, 0]

    def __init__(self, *, name: str, root: None, split: str) -> None:
        if split != "test":
            raise ValueError(f"Unknown split '{split}'. Should be one of ['test'].")
        assert name == "Some/Set"
        self.dataset = FakeHfDataset(self.paths, self.labels)

    def __getitem__(self, position: int) -> tuple[io.BytesIO, int]:
        return io.BytesIO(picture(position)), self.labels[position]


class FakeStream:
    """Fakes timm's streaming readers; the second image is truncated."""

    def __init__(self, *, name: str, root: None, split: str) -> None:
        self.split = split

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        yield Image.new("L", (4, 4), 9), 1
        yield picture()[:50], 0
        yield Image.new("RGB", (4, 4), (1, 2, 3)), 2


class BrokenStream(FakeStream):
    def __iter__(self) -> Iterator[tuple[Any, int]]:
        yield Image.new("RGB", (4, 4)), 0
        raise ConnectionError("the hub hung up")


def use_reader(monkeypatch: pytest.MonkeyPatch, prefix: str, reader: type) -> None:
    """Replace a reader of timm, and the packages that it needs."""
    module, kind, needed, _ = READERS[prefix]
    for name in (*needed, f"timm.data.readers.{module}"):
        fake = ModuleType(name)
        fake.__spec__ = ModuleSpec(name, None)
        setattr(fake, kind, reader)
        monkeypatch.setitem(sys.modules, name, fake)


def test_a_dataset_of_the_hub_is_read_in_any_order_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reader(monkeypatch, "hfds", FakeHfReader)
    images = open_images("pets", "hfds/Some/Set")
    assert labelled(images) == {"a.jpg": 3, "b.jpg": 0}
    assert images.fetch(1) == picture(1)
    assert images.classes == 4
    assert not images.streamed


@pytest.mark.parametrize("paths", [["a.jpg", "a.jpg"], ["a.jpg", None]])
def test_a_dataset_whose_names_are_not_unique_is_numbered(
    paths: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_reader(monkeypatch, "hfds", type("Same", (FakeHfReader,), {"paths": paths}))
    assert open_images("pets", "hfds/Some/Set").names == ("00000000", "00000001")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([3, -1], "1 of 2 images have a class that pets does not have (b.jpg has -1); its classes are 0 to 3"),
        (["cat", 1], "its labels are not class indices (invalid literal for int() with base 10: 'cat')"),
        ([], "no images in it"),
    ],
)
def test_a_dataset_without_labels_is_an_error(
    labels: list[Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_reader(monkeypatch, "hfds", type("Unlabelled", (FakeHfReader,), {"labels": labels}))
    assert refusal("pets", "hfds/Some/Set") == f"--data pets=hfds/Some/Set: {sentence}"


def test_a_split_that_the_hub_does_not_have_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reader(monkeypatch, "hfds", FakeHfReader)
    assert refusal("pets", "hfds/Some/Set", "train") == (
        "--data pets=hfds/Some/Set: cannot be opened (Unknown split 'train'. Should be one of ['test'].)"
    )


@pytest.mark.parametrize("prefix", ["hfids", "tfds"])
def test_a_stream_is_read_once_for_its_labels_and_again_for_its_images(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_reader(monkeypatch, prefix, FakeStream)
    images = open_images("pets", f"{prefix}/some/set")
    assert images.streamed
    assert labelled(images) == {"00000000": 1, "00000001": 0, "00000002": 2}
    (_, first), (_, second), (position, third) = images
    assert isinstance(first, Image.Image)
    assert pixels_of(first) == bytes([9]) * 48
    assert isinstance(second, UnreadableImage)
    assert second.name == "00000001"
    assert position == 2
    assert isinstance(third, Image.Image)
    assert pixels_of(third) == bytes([1, 2, 3]) * 16
    with pytest.raises(JobError) as refused:
        images.image(0)
    assert str(refused.value) == f"--data pets={prefix}/some/set: can only be read from beginning to end"


def test_the_labels_of_a_stream_are_read_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    class RecordingStream(FakeStream):
        def __iter__(self) -> Iterator[tuple[Any, int]]:
            reads.append(self.split)
            return super().__iter__()

    use_reader(monkeypatch, "tfds", RecordingStream)
    images = open_images("flowers102", "tfds/some")
    assert reads == []
    assert len(list(images)) == 3
    assert reads == ["test"]


def test_a_stream_that_breaks_off_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reader(monkeypatch, "tfds", BrokenStream)
    assert refusal("pets", "tfds/some") == "--data pets=tfds/some: cannot be read to its end (the hub hung up)"


@pytest.mark.parametrize("prefix", READERS)
def test_a_missing_package_is_named(prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, _, needed, packages = READERS[prefix]
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in needed:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert refusal("pets", f"{prefix}/some") == (
        f"--data pets={prefix}/some: needs the package {needed[0]}, which is not installed; pip install {packages}"
    )


def test_a_real_dataset_is_read_through_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = write_pictures(
        tmp_path / "Pets", [f"{split}/{name}.jpg" for split in ("test", "train") for name in ("ant/a", "bee/b")]
    )
    (root / "test/bee/b.jpg").write_bytes(picture()[:60])
    for prefix, names in (("hfds", ("a.jpg", "b.jpg")), ("hfids", ("00000000", "00000001"))):
        images = open_images("pets", f"{prefix}/{root}", split="train")
        assert labelled(images) == dict(zip(names, (0, 1), strict=True))
        assert [pixels_of(image) for _, image in images if isinstance(image, Image.Image)] == [
            Image.open(root / f"train/{name}.jpg").convert("RGB").tobytes() for name in ("ant/a", "bee/b")
        ]
    broken = open_images("pets", f"hfds/{root}")
    assert [position for position, image in broken if isinstance(image, UnreadableImage)] == [1]


# torchvision's datasets.


def test_a_dataset_of_torchvision_is_read_from_its_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "validation", ["cat/a.jpg", "dog/b.jpg"])
    images = open_images("pets", f"torch/image_folder:{tmp_path}")
    assert labelled(images) == {"00000000": 0, "00000001": 1}
    assert pixels_of(images.image(1)) == Image.open(tmp_path / "validation/dog/b.jpg").convert("RGB").tobytes()


def test_cifar_is_read_as_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    files = {"test_batch": {"data": pixels, "labels": [7, 2]}, "batches.meta": {"label_names": list("abcdefghij")}}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
    digests = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files}
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests["batches.meta"]})
    images = open_images("cifar10", f"torch/cifar10:{tmp_path}")
    assert labelled(images) == {"00000000": 7, "00000001": 2}
    assert pixels_of(images.image(1)) == pixels[1].reshape(3, 32, 32).transpose(1, 2, 0).tobytes()
    assert images.classes == 10


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("torch/cifar10", "has no folder; write it as torch/NAME:FOLDER, as torch/cifar10:FOLDER"),
        ("torch/cifar11:/x", "cannot be opened (Unknown torchvision dataset cifar11)"),
        (
            "torch/cifar10:/nowhere",
            "cannot be opened (Dataset not found or corrupted. You can use download=True to download it)",
        ),
    ],
)
def test_what_torchvision_does_not_have_is_an_error(where: str, sentence: str) -> None:
    assert refusal("cifar10", where) == f"--data cifar10={where}: {sentence}"


# Reading.


@timm_closes_late
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1")],
)
def test_images_of_every_kind_are_read_as_timm_reads_them(kind: str, mode: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    raw = picture(3, kind=kind, mode="L" if mode == "1" else mode)
    if mode == "1":
        target = io.BytesIO()
        Image.open(io.BytesIO(raw)).convert("1").save(target, "PNG")
        raw = target.getvalue()
    (tmp_path / "cat" / "a.JPEG").write_bytes(raw)  # ImageNet has PNG files of that name
    image, _ = by_timm(tmp_path)[0]
    images = open_images("pets", str(tmp_path))
    assert pixels_of(images.image(0)) == pixels_of(image)
    assert check_headers(images) == []


def read_error(images: Images, position: int = 0) -> str:
    with pytest.raises(UnreadableImage) as refused:
        images.image(position)
    assert refused.value.name == images.names[position]
    return str(refused.value)


@pytest.mark.parametrize("cut", [40, 3000])
def test_a_truncated_image_is_named(cut: int, tmp_path: Path) -> None:
    path = write_pictures(tmp_path, ["cat/a.jpg"]) / "cat" / "a.jpg"
    path.write_bytes(picture(side=64)[:cut])
    with pytest.raises(OSError, match=r".") as pillow, Image.open(path) as image:
        image.convert("RGB")
    message = str(pillow.value).replace(f" '{path}'", "")
    assert read_error(open_images("pets", str(tmp_path))) == (
        f"cat/a.jpg: cannot be read ({message}); replace the file or give --skip-unreadable"
    )


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_an_image_that_is_too_long_to_be_resized_is_named_from_its_header(
    size: tuple[int, int], tmp_path: Path
) -> None:
    write_pictures(tmp_path, ["cat/a.png", "cat/b.png"])
    Image.new("1", size).save(tmp_path / "cat/a.png")
    Image.new("1", (10, 2000)).save(tmp_path / "cat/b.png")
    images = open_images("pets", str(tmp_path))
    reason = f"cannot be read ({size[0]:,} × {size[1]:,} pixels are too long and narrow to be resized)"
    assert read_error(images) == f"cat/a.png: {reason}; replace the file or give --skip-unreadable"
    assert images.image(1).size == (10, 2000)
    assert check_images(images, thorough=False).problems == (f"1 of 2 images cannot be read (cat/a.png: {reason})",)


def test_a_file_that_is_empty_or_missing_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "cat/b.jpg"])
    (tmp_path / "cat/a.jpg").write_bytes(b"")
    images = open_images("pets", str(tmp_path))
    (tmp_path / "cat/b.jpg").unlink()
    assert read_error(images, 0) == "cat/a.jpg: the file is empty; replace the file or give --skip-unreadable"
    assert read_error(images, 1) == "cat/b.jpg: the file is missing; replace the file or give --skip-unreadable"
    assert [position for position, image in images if isinstance(image, UnreadableImage)] == [0, 1]


def test_an_unreadable_image_passes_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("cat/a.jpg", "the file is missing")))
    assert (error.name, str(error)) == (
        "cat/a.jpg",
        "cat/a.jpg: the file is missing; replace the file or give --skip-unreadable",
    )


# The fingerprint.

Rows = list[tuple[str, int, int]]
NAMES = st.text(alphabet=st.sampled_from('ab\t\n"0,'), max_size=4)
ROWS = st.lists(st.tuples(NAMES, st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=4)


def fingerprint(rows: Rows) -> str:
    return Images(
        data="pets",
        where="here",
        names=tuple(name for name, _, _ in rows),
        labels=np.array([label for _, label, _ in rows], dtype=np.int32),
        sizes=np.array([size for *_, size in rows], dtype=np.int64),
        classes=4,
    ).fingerprint


@given(ROWS, ROWS)
def test_the_fingerprint_changes_exactly_with_names_labels_and_sizes(one: Rows, other: Rows) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@given(ROWS, st.data())
def test_one_change_to_one_image_changes_the_fingerprint(rows: Rows, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(rows) - 1))
    name, label, size = rows[position]
    change = data.draw(st.sampled_from([(name + "a", label, size), (name, label + 1, size), (name, label, size + 1)]))
    assert fingerprint([*rows[:position], change, *rows[position + 1 :]]) != fingerprint(rows)


def test_a_name_that_is_no_utf8_has_a_fingerprint() -> None:
    assert len(fingerprint([("caf\udce9.jpg", 0, 1)])) == 64


# The check.


def damaged(root: Path) -> Path:
    """Make ten class folders with every kind of damage."""
    write_pictures(root, [f"{letter}/{number}.jpg" for letter in "abcdefghi" for number in (0, 1)])
    (root / "j").mkdir()
    (root / "a/0.jpg").write_bytes(b"")
    (root / "b/0.jpg").write_bytes(b"this is no image")
    (root / "c/0.jpg").write_bytes(picture(side=64)[:3000])
    (root / "d/1.jpg").write_bytes((root / "d/0.jpg").read_bytes())
    return root


def check(images: Images, *, thorough: bool, workers: int = 0) -> tuple[CheckReport, list[tuple[int, int]]]:
    counts: list[tuple[int, int]] = []
    return check_images(images, thorough=thorough, report=lambda *count: counts.append(count), workers=workers), counts


def test_a_quick_check_names_what_headers_show(tmp_path: Path) -> None:
    images = open_images("cifar10", str(damaged(tmp_path)))
    report, counts = check(images, thorough=False)
    assert report.lines == (
        "images    18 of the 10,000 images of CIFAR-10, 9 of its 10 classes",
        "classes   9 of 10 have images",
        "opened    16 of 18 images",
        f"digest    {images.fingerprint[:16]}, the beginning of the fingerprint in results",
    )
    assert report.notes == (
        "18 images instead of 10,000: results are a sample's, shown and never judged against published ones",
        "1 of 10 classes have no images: 9",
        "1 class folders are empty: j",
    )
    assert report.problems == (
        (
            "2 of 18 images cannot be read (a/0.jpg: the file is empty; b/0.jpg: cannot be read (cannot identify image "
            "file))"
        ),
    )
    assert counts == [(done, 18) for done in range(1, 19)]
    assert check_headers(images) == [
        (
            f"--data cifar10={tmp_path}: 2 of 18 images cannot be read (a/0.jpg: the file is empty; b/0.jpg: cannot be "
            "read (cannot identify image file)); replace them, or count them as wrong with --skip-unreadable"
        )
    ]


def test_a_thorough_check_also_names_truncated_images_and_duplicates(tmp_path: Path) -> None:
    images = open_images("cifar10", str(damaged(tmp_path)))
    report, counts = check(images, thorough=True)
    assert "decoded   15 of 18 images" in report.lines
    unreadable, duplicates = report.problems
    assert re.fullmatch(r"3 of 18 images cannot be read \(a/0.jpg: .*; b/0.jpg: .*; c/0.jpg: .*\)", unreadable)
    assert duplicates == "1 images are there more than once: d/0.jpg = d/1.jpg"
    assert counts == [(done, 18) for done in range(1, 19)]


def test_a_check_has_the_same_result_with_any_number_of_workers(tmp_path: Path) -> None:
    images = open_images("cifar10", str(damaged(tmp_path)))
    assert check(images, thorough=True, workers=1) == check(images, thorough=True, workers=7)


def test_a_quick_check_of_a_tar_reads_headers_too(tmp_path: Path) -> None:
    long = io.BytesIO()
    Image.new("RGB", (8, 8)).save(long, "JPEG", icc_profile=bytes(40_000))  # a header longer than is read at first
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", b""), ("cat/b.jpg", b"no"), ("cat/c.jpg", long.getvalue())])
    report, _ = check(open_images("pets", str(path)), thorough=False)
    assert report.problems == (
        (
            "2 of 3 images cannot be read (cat/a.jpg: the file is empty; cat/b.jpg: cannot be read (cannot identify "
            "image file))"
        ),
    )


def test_a_check_names_missing_classes_as_their_folders_are_called(tmp_path: Path) -> None:
    write_pictures(tmp_path / "w", [f"{name}/a.JPEG" for name in WORDNET[2:]])
    report, _ = check(open_images("imagenet", str(tmp_path / "w")), thorough=False)
    assert report.notes[1] == f"2 of 1,000 classes have no images: {WORDNET[0]}, {WORDNET[1]}"
    write_pictures(tmp_path / "v2", [f"{number}/a.jpeg" for number in range(10, 1000)])
    report, _ = check(open_images("imagenet-v2", str(tmp_path / "v2")), thorough=False)
    assert report.problems == ()
    assert report.notes[1] == "10 of 1,000 classes have no images: 0, 1, 2, 3, 4 and 5 more"
    assert report.lines[2] == "labels    the class folders are numbers and were sorted as numbers"


def test_more_images_than_were_published_are_no_sample(tmp_path: Path) -> None:
    images = open_images("cifar10", str(write_pictures(tmp_path, [f"{letter}/a.jpg" for letter in "abcdefghij"])))
    every = replace(
        images,
        names=tuple(f"{letter}/{n}.jpg" for letter in "abcdefghij" for n in range(1001)),
        labels=np.repeat(images.labels, 1001),
        sizes=np.repeat(images.sizes, 1001),
        read=lambda position: picture(),
        head=None,
    )
    report, _ = check(every, thorough=False)
    assert report.notes == ()
    assert report.problems == (
        (
            "10,010 images instead of 10,000: results are of more images than were published, shown and never judged "
            "against published ones"
        ),
    )


def test_a_stream_is_checked_by_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reader(monkeypatch, "tfds", FakeStream)
    images = open_images("pets", "tfds/some")
    assert check(images, thorough=False)[0].problems == ()
    report, counts = check(images, thorough=True)
    assert re.fullmatch(r"1 of 3 images cannot be read \(00000001: .*\)", report.problems[0])
    assert counts == [(1, 3), (2, 3), (3, 3)]


def test_a_stream_that_breaks_off_while_it_is_checked_leaves_the_rest_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_reader(monkeypatch, "tfds", FakeStream)
    images = open_images("pets", "tfds/some")
    use_reader(monkeypatch, "tfds", BrokenStream)
    report, _ = check(images, thorough=True)
    reason = "--data pets=tfds/some: cannot be read to its end (the hub hung up)"
    assert report.problems == (f"2 of 3 images cannot be read (00000001: {reason}; 00000002: {reason})",)


@needs_sample
def test_the_real_images_are_all_readable() -> None:
    report, _ = check(open_images("imagenet", str(SAMPLE)), thorough=False)
    assert report.lines[2] == "opened    1,416 of 1,416 images"
    assert report.problems == ()


# Counting.


def test_a_million_files_would_be_counted_without_being_opened(tmp_path: Path) -> None:
    for split, count in (("val", 3), ("train", 5)):
        for number in range(count):
            path = tmp_path / split / WORDNET[number] / "a.JPEG"
            path.parent.mkdir(parents=True)
            path.symlink_to("/nowhere/at/all")  # what cannot be opened can be counted
    assert count_images("imagenet", str(tmp_path)) == {"test_images": 3, "train_images": 5, "classes": 3}


def test_images_are_counted_though_their_classes_cannot_be_numbered(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "dog/b.jpg", "dog/c.jpg"])
    assert count_images("cifar10", str(tmp_path)) == {"test_images": 3, "classes": 2}
    assert refusal("cifar10", tmp_path) == (
        f"--data cifar10={tmp_path}: 2 class folders, but CIFAR-10 has 10 classes, numbered by the order of "
        "their folders, so there must be one for each; there are cat, dog"
    )


def test_a_folder_with_the_class_folders_is_the_test_split(tmp_path: Path) -> None:
    assert count_images("pets", str(write_pictures(tmp_path, ["cat/a.jpg", "dog/b.jpg", "dog/c.jpg"]))) == {
        "test_images": 3,
        "classes": 2,
    }


def test_training_images_alone_are_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", ["cat/a.jpg", "dog/b.jpg"])
    assert count_images("pets", str(tmp_path)) == {"train_images": 2, "classes": 2}


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError) as refused:
        count_images("pets", str(tmp_path))
    assert str(refused.value) == f"--data pets={tmp_path}: no images in {tmp_path} or the folders in it"
