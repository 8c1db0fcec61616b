"""Every entry below a dataset's folder, or in its tar, is an image that is taken, or is counted with its reason."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.jobs.data.check import check_images
from harness.jobs.data.images import image_facts
from harness.jobs.data.open import inspect_dataset, open_images
from harness.jobs.data.walk import natural_key
from harness.jobs.inventory import inspect_inputs
from harness.plan.job import Job
from harness.run.messages import Inputs
from tests.test_images import CLASSES, FLAT, WORDNET, kaggle, labelled, pack, picture, refusal, shard, write_pictures

HIDDEN, PICTURES, OTHER = (
    "hidden or system files",
    "pictures that do not end in .jpeg, .jpg, .png",
    "other files",
)


def left_out(where: object, data: str = "pets") -> dict[str, int]:
    counts: dict[str, int] = image_facts(open_images(data, str(where))).get("left_out", {})
    return counts


# Folders.


def test_what_is_no_image_is_left_out_by_reason_and_named_once(tmp_path: Path) -> None:
    junk = [
        "._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "@eaDir/a.jpg/thumb.jpg",
        "__MACOSX/cat/._a.jpg",
        "Thumbs.db",
    ]
    write_pictures(tmp_path, ["cat/a.jpg", "dog/b.png", *(f"cat/{name}" for name in junk), ".ipynb_checkpoints/x.jpg"])
    write_pictures(tmp_path, [f"dog/{number}.{ending}" for number, ending in enumerate(("webp", "BMP", "tif", "gif"))])
    write_pictures(tmp_path, ["dog/jfif.jfif", "dog/ppm.ppm", "dog/notes.txt", "classes.csv"])
    images = open_images("pets", str(tmp_path))
    assert labelled(images) == {"cat/a.jpg": 0, "dog/b.png": 1}
    assert image_facts(images)["left_out"] == {HIDDEN: 6, OTHER: 2, PICTURES: 6}
    report = check_images(images, thorough=False)
    assert report.notes == (
        ("left out: 6 hidden or system files (.ipynb_checkpoints, cat/._a.jpg, cat/.ipynb_checkpoints and 3 more)"),
        "left out: 2 other files (classes.csv, dog/notes.txt)",
        f"left out: 6 {PICTURES} (dog/0.webp, dog/1.BMP, dog/2.tif and 3 more)",
    )
    job = Job.of("dataset", {"data": "pets"})
    inputs = Inputs(data={"pets": str(tmp_path)})
    assert inspect_inputs(inputs, (job,)).notes == tuple(f"--data pets={tmp_path}: {note}" for note in report.notes)
    metrics, facts, warnings = inspect_dataset(job, inputs, lambda _: None)
    assert metrics["test_images"].value == 2
    assert facts == {"left_out": {"test": {HIDDEN: 6, OTHER: 2, PICTURES: 6}}}
    assert warnings[1:] == [note.replace("left out", "left out of the test images") for note in report.notes]


def test_nothing_left_out_is_nothing_said(tmp_path: Path) -> None:
    images = open_images("pets", str(write_pictures(tmp_path, ["cat/a.jpg", "dog/b.jpg"])))
    assert "left_out" not in image_facts(images)
    assert images.left_out_messages == []


def test_a_folder_of_other_pictures_is_refused_with_what_is_there(tmp_path: Path) -> None:
    assert refusal("pets", write_pictures(tmp_path, ["cat/a.webp", "dog/b.webp"])) == (
        f"--data pets={tmp_path}: no images in {tmp_path} or the folders in it; 2 {PICTURES} (cat/a.webp, dog/b.webp)"
    )


def test_a_class_folder_of_other_pictures_is_not_called_empty(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["ant/a.jpg", "bee/b.webp"])
    (tmp_path / "cow").mkdir()
    notes = check_images(open_images("pets", str(tmp_path)), thorough=False).notes
    assert "1 class folders are empty: cow" in notes


def test_a_link_to_a_folder_around_it_is_not_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "dog/b.jpg"])
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "dog" / "self").symlink_to("self")
    images = open_images("pets", str(tmp_path))
    assert labelled(images) == {"cat/a.jpg": 0, "dog/b.jpg": 1}
    assert image_facts(images)["left_out"] == {"links to a folder that they are in": 1, OTHER: 1}


def test_a_class_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "elsewhere", ["a.jpg"])
    write_pictures(tmp_path / "pets", ["cat/b.jpg"])
    (tmp_path / "pets" / "ant").symlink_to(tmp_path / "elsewhere")
    assert labelled(open_images("pets", str(tmp_path / "pets"))) == {"ant/a.jpg": 0, "cat/b.jpg": 1}


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg"])
    os.mkfifo(tmp_path / "cat" / "b.jpg")
    (tmp_path / "cat" / "c.jpg").symlink_to(tmp_path / "cat" / "b.jpg")
    assert left_out(tmp_path) == {"neither files nor folders": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any folder")
def test_a_folder_that_may_not_be_opened_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "dog/b.jpg"])
    (tmp_path / "dog").chmod(0)
    try:
        assert left_out(tmp_path) == {"folders that cannot be opened": 1}
    finally:
        (tmp_path / "dog").chmod(0o700)


def test_names_are_sorted_as_timm_sorts_them_whatever_the_length_of_their_numbers() -> None:
    names = ["a10", "a9", "A9", "a009", "b" + "9" * 5000, "b1" + "0" * 4999, "1²2"]
    assert sorted(names, key=natural_key) == ["1²2", "a9", "A9", "a009", "a10", "b1" + "0" * 4999, "b" + "9" * 5000]


# Class folders.


@pytest.mark.parametrize("data", ["imagenet", "pets"])
def test_images_in_a_folder_of_one_name_in_each_class_folder_have_its_class(data: str, tmp_path: Path) -> None:
    names = [f"{WORDNET[0]}/images/a.JPEG", f"{WORDNET[1]}/images/b.JPEG"]
    assert labelled(open_images(data, str(write_pictures(tmp_path, names)))) == {names[0]: 0, names[1]: 1}


def test_one_class_folder_with_a_folder_of_images_has_its_class(tmp_path: Path) -> None:
    images = open_images("imagenet", str(write_pictures(tmp_path, [f"{WORDNET[5]}/images/a.JPEG"])))
    assert images.labels.tolist() == [5]


def test_the_folders_around_class_folders_are_no_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"part{number}/{WORDNET[7]}/{number}.JPEG" for number in (1, 2)])
    assert open_images("imagenet", str(tmp_path)).labels.tolist() == [7, 7]


def test_a_folder_of_images_inside_a_class_folder_with_images_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "cat/more/b.jpg", "dog/c.jpg"])
    assert refusal("pets", tmp_path) == (
        f"--data pets={tmp_path}: 1 folders of images are inside a class folder that has images of its own (cat/more); "
        "put each image into the folder of its class"
    )


def test_both_splits_number_the_classes_alike(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["train/ant/a.jpg", "train/cow/b.jpg", "test/bee/c.jpg", "test/cow/d.jpg"])
    assert labelled(open_images("pets", str(tmp_path))) == {"bee/c.jpg": 1, "cow/d.jpg": 2}
    assert labelled(open_images("pets", str(tmp_path), split="train")) == {"ant/a.jpg": 0, "cow/b.jpg": 2}


def test_a_thousand_class_folders_numbered_from_one_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{number}/a.jpeg" for number in range(1, 1001)])
    assert refusal("imagenet-v2", tmp_path) == (
        f"--data imagenet-v2={tmp_path}: 1 of 1000 folders are not classes of ImageNet (1000); a class folder is "
        "called a number from 0 to 999; these begin at 1, so each is one too high"
    )


# Layouts of downloads.


@pytest.mark.parametrize("pointed_at", [".", "ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC/val"])
def test_kaggle_s_archive_is_read_as_it_is_unpacked(pointed_at: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "ILSVRC/Data/CLS-LOC/val", FLAT)
    write_pictures(tmp_path / "ILSVRC/Data/CLS-LOC/train", [f"{WORDNET[3]}/{WORDNET[3]}_1.JPEG"])
    kaggle(tmp_path)
    assert labelled(open_images("imagenet", str(tmp_path / pointed_at))) == dict(zip(FLAT, CLASSES, strict=True))


def test_kaggle_s_training_images_are_found(tmp_path: Path) -> None:
    write_pictures(tmp_path / "ILSVRC/Data/CLS-LOC/train", [f"{WORDNET[3]}/{WORDNET[3]}_1.JPEG"])
    assert open_images("imagenet", str(tmp_path), split="train").labels.tolist() == [3]
    assert "has no folder of test images" in refusal("imagenet", tmp_path)


def test_labels_in_a_folder_called_meta_are_found(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", FLAT)
    (tmp_path / "meta").mkdir()
    lines = [f"{name} {label}\n" for name, label in zip(FLAT, CLASSES, strict=True)]
    (tmp_path / "meta" / "val.txt").write_text("".join(lines), encoding="utf-8")
    assert labelled(open_images("imagenet", str(tmp_path))) == dict(zip(FLAT, CLASSES, strict=True))


def test_labels_are_those_that_names_carry_where_nothing_else_tells_them(tmp_path: Path) -> None:
    names = [f"{name[:-5]}_{WORDNET[label]}.JPEG" for name, label in zip(FLAT, CLASSES, strict=True)]
    images = open_images("imagenet", str(write_pictures(tmp_path / "val", names)))
    assert labelled(images) == dict(zip(names, CLASSES, strict=True))
    assert images.notes == ("labels are the WordNet ids in the names of the files",)
    names = [f"{WORDNET[3]}_10026.JPEG", f"{WORDNET[8]}_1.JPEG"]
    images = open_images("imagenet", str(write_pictures(tmp_path / "train", names).parent), split="train")
    assert images.labels.tolist() == [3, 8]


# Tar files.


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info, content = tarfile.TarInfo(name), picture(len(name)) if kind == tarfile.REGTYPE else b""
    info.type, info.linkname, info.size = kind, target, len(content)
    archive.addfile(info, io.BytesIO(content))


def test_hard_links_in_a_tar_are_images_and_all_else_is_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:") as archive:
        add(archive, "./cat/a.jpg")
        add(archive, "./dog/b.jpg", tarfile.LNKTYPE, "./cat/a.jpg")
        add(archive, "dog/c.jpg", tarfile.LNKTYPE, "cat/gone.jpg")
        add(archive, "dog/d.jpg", tarfile.SYMTYPE, "../cat/a.jpg")
        add(archive, "dog/e.jpg", tarfile.FIFOTYPE)
        add(archive, "dog/._b.jpg")
        add(archive, "__MACOSX/dog/b.jpg")
        add(archive, "dog/f.webp")
        add(archive, "val.txt")
        add(archive, "cat/twice.jpg")
        add(archive, "cat/twice.jpg")
    images = open_images("pets", str(tmp_path / "a.tar"))
    assert labelled(images) == {"cat/a.jpg": 0, "cat/twice.jpg": 0, "dog/b.jpg": 1}
    assert images.fetch(2) == images.fetch(0) == picture(len("./cat/a.jpg"))
    assert image_facts(images)["left_out"] == {
        "hard links to what is not in the tar before them": 1,
        HIDDEN: 2,
        "neither files nor folders": 1,
        PICTURES: 1,
        "replaced by a later member of their name": 1,
        "symbolic links in a tar": 1,
    }


def test_a_dot_in_the_path_of_a_member_hides_nothing(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("././cat/a.jpg", picture(1)), ("../dog/b.jpg", picture(2))])
    assert open_images("pets", str(path)).labels.tolist() == [1, 0]
    assert left_out(path) == {}


def test_what_was_left_out_of_the_other_split_of_a_tar_is_not_counted(tmp_path: Path) -> None:
    files = [(f"{split}/cat/{name}", picture()) for split in ("val", "train") for name in ("a.jpg", "._a.jpg", "b.gif")]
    assert left_out(pack(tmp_path / "a.tar", files)) == {HIDDEN: 1, PICTURES: 1}


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar, which writes files with holes")
def test_a_file_with_holes_is_not_in_one_piece_in_its_tar_and_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/a.jpg", "cat/b.jpg"])
    with (tmp_path / "cat" / "b.jpg").open("r+b") as file:
        file.truncate(2**20)
    subprocess.run(["tar", "--sparse", "-cf", "a.tar", "cat"], cwd=tmp_path, check=True)
    assert left_out(tmp_path / "a.tar") == {"sparse files, which are not in one piece in the tar": 1}


def test_tars_in_too_many_others_are_left_out(tmp_path: Path) -> None:
    content = pack(tmp_path / "0.tar", [("cat/deep.jpg", picture())]).read_bytes()
    for depth in range(1, 7):
        content = pack(tmp_path / f"{depth}.tar", [(f"{depth}.tar", content)]).read_bytes()
    path = pack(tmp_path / "all.tar", [("cat/a.jpg", picture()), ("deep.tar", content)])
    assert left_out(path) == {"tars in too many others": 1}


def test_a_member_that_is_larger_than_its_tar_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("cat/a.jpg", picture())])
    for size in (2**40, 2**63, 2**70):
        info = tarfile.TarInfo("cat/b.jpg")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "b.tar").write_bytes(path.read_bytes()[:1536] + header)
        assert refusal("pets", tmp_path / "b.tar").startswith(f"{tmp_path / 'b.tar'}: is not a tar file that can be")


# Shards.


def test_only_files_that_belong_to_no_image_are_left_out_of_shards(tmp_path: Path) -> None:
    files = [
        ("a.jpg", picture()),
        ("a.CLS", b"1"),
        ("a.json", b"{}"),
        ("b.cls", b"2"),
        ("c.gif", b""),
        ("._a.jpg", b""),
    ]
    pack(tmp_path / "0.tar", files)
    pack(tmp_path / "._0.tar", [])
    images = open_images("pets", f"wds/{tmp_path}")
    assert labelled(images) == {"a.jpg": 1}
    assert image_facts(images)["left_out"] == {HIDDEN: 1, OTHER: 1, PICTURES: 1}


@pytest.mark.parametrize("text", ["4000000000", "9" * 5000, "-1", "1.0", "²", "٣", "1 2", "", "1" + " " * 100])
def test_a_class_that_is_no_index_is_named(text: str, tmp_path: Path) -> None:
    pack(tmp_path / "0.tar", [("k.jpg", picture()), ("k.cls", text.encode())])
    assert refusal("pets", f"wds/{tmp_path}") == (
        f"--data pets=wds/{tmp_path}: k.cls in 0.tar contains '{text.strip()[:20]}', not a class index"
    )


def test_a_class_beyond_any_dataset_s_is_refused_and_not_made_a_negative_one(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"a": 1, "b": 999_999_999})
    assert refusal("pets", f"wds/{tmp_path}") == (
        f"--data pets=wds/{tmp_path}: 1 of 2 images have a class that pets does not have (b.jpg has 999999999); its "
        "classes are 0 to 999999"
    )


@pytest.mark.parametrize("file", ["val.txt", "ILSVRC2012_validation_ground_truth.txt"])
def test_a_number_of_5000_digits_in_a_list_of_labels_is_a_sentence(file: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, FLAT[:1])
    digits: Mapping[str, str] = {"val.txt": f"{FLAT[0]} {'9' * 5000}\n"}
    (tmp_path / file).write_text(digits.get(file, "9" * 5000 + "\n"), encoding="utf-8")
    assert len(refusal("imagenet", tmp_path)) < 500


def test_a_folder_whose_name_is_a_number_only_to_some_is_no_class(tmp_path: Path) -> None:
    assert "1 of 1 folders are not classes of ImageNet (²)" in refusal(
        "imagenet", write_pictures(tmp_path, ["²/a.JPEG"])
    )
