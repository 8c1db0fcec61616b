"""Accuracy as users meet it on the command line: real weights, real images, and what can be wrong with them."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import run_harness as harness
from tests.commands import start_harness

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"

needs_assets = pytest.mark.skipif(not ASSETS.is_dir(), reason="needs the weights and images of shared/assets")

EVALUATE = ("reproduce", "table5", "--rows", "deit_ti", "--columns", "top1,real", "--workers", "1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Copy 40 real validation images, a folder a class."""
    root = tmp_path / "imagenet"
    for path in sorted((ASSETS / "imagenet_sample" / "val").rglob("*.JPEG"))[:1400:35]:
        (root / "val" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "val" / path.parent.name)
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "deit_tiny_patch16_224.safetensors").symlink_to(ASSETS / "weights" / "deit_tiny_patch16_224.safetensors")
    return folder


def labels_of(images: Path) -> dict[str, tuple[int, set[int]]]:
    """Return label and ReaL labels of each image, as the manifest has them."""
    names = {path.name for path in images.rglob("*.JPEG")}
    with (ASSETS / "imagenet_sample" / "manifest.csv").open(encoding="utf-8") as file:
        return {
            Path(row["file"]).name: (int(row["class_index"]), {int(label) for label in row["real_labels"].split()})
            for row in csv.DictReader(file)
            if Path(row["file"]).name in names
        }


@needs_assets
def test_the_first_accuracy_of_a_new_user_is_labelled_as_a_sample(tmp_path: Path, images: Path, weights: Path) -> None:
    arguments = (*EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights))
    run = start_harness(tmp_path, *arguments)  # all others in this process, where they share one that has torch
    # A line of the job, and one for each minute that a busy machine takes for it.
    minute = r"1 model over imagenet: \d+/40(, about \d+ (s|min) left)?"
    lines = [line for line in run.told.splitlines() if not re.fullmatch(minute, line)]
    assert (run.returncode, len(lines)) == (0, 1)
    assert "measured on 40 of the 50,000 images of ImageNet, 40 of its 1,000 classes" in run.stdout
    assert "0 of 2 values judged; 2 not comparable." in run.stdout
    (result,) = (tmp_path / "runs").glob("evaluate-*/*.json")
    metrics = json.loads(result.read_text())["metrics"]
    assert f"{metrics['top1']['value']:.1f} ±" in run.stdout
    assert metrics["top1"]["low"] < metrics["top1"]["value"] < metrics["top1"]["high"]

    again = harness(tmp_path, *arguments)
    assert "jobs: 0 measured, 1 known already." in again.stdout


@needs_assets
def test_top1_and_real_are_those_of_the_manifest_s_labels(tmp_path: Path, images: Path, weights: Path) -> None:
    import numpy as np

    harness(tmp_path, *EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights))
    (result,) = (tmp_path / "runs").glob("evaluate-*/*.json")
    (predictions,) = (tmp_path / "runs").glob("evaluate-*/*.npz")
    metrics = json.loads(result.read_text())["metrics"]
    truth = labels_of(images)
    with np.load(predictions, allow_pickle=False) as data:
        predicted = {Path(name).name: int(top[0]) for name, top in zip(data["names"], data["class.top"], strict=True)}
    assert predicted.keys() == truth.keys()
    correct = [predicted[name] == label for name, (label, _) in truth.items()]
    real = [predicted[name] in labels for name, (_, labels) in truth.items() if labels]
    assert metrics["top1"]["value"] == pytest.approx(100 * sum(correct) / len(correct))
    assert metrics["real"]["value"] == pytest.approx(100 * sum(real) / len(real))


@needs_assets
def test_explain_measures_every_crop_in_one_pass(tmp_path: Path, images: Path, weights: Path) -> None:
    arguments = (*EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights), "--explain")
    run = harness(tmp_path, *arguments)
    assert run.returncode == 0
    for crop in ("0.875", "0.9", "0.95", "1"):
        assert f"\ncrop {crop} " in run.stdout
    facts = [json.loads(path.read_text())["facts"]["pass"] for path in (tmp_path / "runs").glob("evaluate-*/*.json")]
    assert len(facts) == 4
    assert {pass_facts["images_read"] for pass_facts in facts} == {40}


@needs_assets
def test_an_image_cut_short_is_named_and_the_next_command_resumes(tmp_path: Path, images: Path, weights: Path) -> None:
    damaged = sorted(images.rglob("*.JPEG"))[7]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    arguments = (*EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights))
    run = harness(tmp_path, *arguments)
    assert run.returncode != 0
    assert damaged.name in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr

    skipping = harness(tmp_path, *arguments, "--skip-unreadable")
    assert skipping.returncode == 0
    assert (
        f"1 of 40 images could not be read and count as wrong: {damaged.parent.name}/{damaged.name}" in skipping.stdout
    )

    damaged.write_bytes(whole)
    repaired = harness(tmp_path, *arguments)
    assert repaired.returncode == 0
    assert "jobs: 1 measured, 0 known already." in repaired.stdout


@needs_assets
def test_weights_that_are_not_there_are_missing_with_the_name_of_the_file(tmp_path: Path, images: Path) -> None:
    empty = tmp_path / "nothing"
    empty.mkdir()
    run = harness(tmp_path, *EVALUATE, "--data", f"imagenet={images}", "--weights", str(empty))
    assert run.returncode == 0
    assert "None of 2 values is measured" in run.stdout
    assert f"--weights {empty}" in run.stdout
    assert "deit_tiny_patch16_224.safetensors" in run.stdout


@needs_assets
def test_without_its_weights_an_accuracy_of_an_older_run_is_not_shown(
    tmp_path: Path, images: Path, weights: Path
) -> None:
    before = harness(tmp_path, *EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights))
    assert "2 not comparable." in before.stdout
    for path in sorted(images.rglob("*.JPEG"))[:20]:
        path.unlink()
    empty = tmp_path / "nothing"
    empty.mkdir()
    run = harness(tmp_path, *EVALUATE, "--data", f"imagenet={images}", "--weights", str(empty))
    assert "None of 2 values is measured" in run.stdout
    assert f"--weights {empty}: no weights of deit_tiny_patch16_224.fb_in1k there" in run.stdout
    assert "40 of the 50,000 images" not in run.stdout


MINE = """
[table]
title = "Mine"
[source.paper]
kind = "paper"
cite = "the paper"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "% top-1"
set = { data = "imagenet", model = "deit_tiny_patch16_224", res = 224 }
[row.theirs]
label = "Theirs"
set = { weights = "fb_in1k" }
paper = { top1 = 72.2 }
[row.ours]
label = "Ours"
set = { weights = "my_own" }
paper = { top1 = 72.2 }
"""


@needs_assets
def test_two_rows_that_take_one_file_are_not_judged_until_each_has_its_own(
    tmp_path: Path, images: Path, weights: Path
) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    arguments = ("reproduce", "mine.toml", "--data", f"imagenet={images}", "--weights", str(weights), "--workers", "1")
    shared = harness(tmp_path, *arguments)
    assert "2 not comparable." in shared.stdout
    assert "was taken for deit_tiny_patch16_224.fb_in1k and deit_tiny_patch16_224.my_own, and can" in " ".join(
        shared.stdout.split()
    )
    state = load_file(weights / "deit_tiny_patch16_224.safetensors")
    state["head.bias"] += 0.01
    torch.save(state, weights / "deit_tiny_patch16_224.my_own.pth")
    own = harness(tmp_path, *arguments)
    assert "jobs: 1 measured, 1 known already." in own.stdout
    assert "was taken for" not in own.stdout
    assert "measured on 40 of the 50,000 images of ImageNet" in own.stdout


@pytest.mark.parametrize("command", ["reproduce", "doctor"])
def test_a_folder_of_weights_that_is_not_there_is_refused_at_once(tmp_path: Path, command: str) -> None:
    arguments = EVALUATE if command == "reproduce" else ("doctor",)
    run = harness(tmp_path, *arguments, "--weights", "gone")
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "error: --weights gone: there is no such folder\n")
    (tmp_path / "net.pth").touch()
    run = harness(tmp_path, *arguments, "--weights", "net.pth")
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        "error: --weights net.pth: is a file, not a folder; name the folder that it is in\n",
    )


@needs_assets
def test_weights_with_a_number_that_is_not_finite_fail_with_its_name(
    tmp_path: Path, images: Path, weights: Path
) -> None:
    path = weights / "deit_tiny_patch16_224.safetensors"
    state = load_file(path)
    state["blocks.3.mlp.fc1.bias"][5] = torch.nan
    path.unlink()
    save_file(state, path)
    run = harness(tmp_path, *EVALUATE, "--data", f"imagenet={images}", "--weights", str(weights))
    assert run.returncode == 3
    assert "blocks.3.mlp.fc1.bias" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr


@needs_assets
def test_doctor_checks_every_image_and_finds_a_sample_sound(tmp_path: Path, images: Path) -> None:
    run = harness(tmp_path, "doctor", "--data", f"imagenet={images}")
    assert run.returncode == 0
    assert "40 of the 50,000 images of ImageNet, 40 of its 1,000 classes" in run.stdout
    assert "\nnote      40 images instead of 50,000: results are a sample's" in run.stdout
    assert "problem" not in run.stdout
    next(images.rglob("*.JPEG")).write_bytes(b"")
    damaged = harness(tmp_path, "doctor", "--data", f"imagenet={images}")
    assert damaged.returncode == 3
    assert "\nproblem   1 of 40 images cannot be read (" in damaged.stdout


@needs_assets
def test_what_is_left_out_is_a_line_of_the_run_and_labels_in_another_numbering_end_it(
    tmp_path: Path, images: Path, weights: Path
) -> None:
    truth, flat = labels_of(images), tmp_path / "val"
    flat.mkdir()
    for path in images.rglob("*.JPEG"):
        shutil.copy(path, flat)
        (flat / f"._{path.name}").write_bytes(b"Mac OS X")
    arguments = (*EVALUATE, "--data", f"imagenet={flat}", "--weights", str(weights))
    (flat / "val.txt").write_text("".join(f"{name} {(label + 1) % 1000}\n" for name, (label, _) in truth.items()))
    refused = harness(tmp_path, *arguments)
    assert refused.returncode == 2
    assert refused.told.startswith(f"error: --data imagenet={flat}: ")
    assert " labels are not among the ReaL labels of their images (1 in 10 is usual): classes are " in refused.stderr
    (flat / "val.txt").write_text("".join(f"{name} {label}\n" for name, (label, _) in truth.items()))
    run = harness(tmp_path, *arguments)
    assert run.returncode == 0
    assert f"warning: --data imagenet={flat}: left out: 40 hidden or system files (._ILSVRC2012_val_" in run.stderr
    (result,) = (tmp_path / "runs").glob("evaluate-*/*.json")
    assert json.loads(result.read_text())["facts"]["images"]["left_out"] == {"hidden or system files": 40}


@needs_assets
def test_doctor_notes_a_data_set_that_no_table_has(tmp_path: Path, images: Path) -> None:
    run = harness(tmp_path, "doctor", "--data", f"imagnet={images}")
    assert "\nnote      no shipped table has a dataset 'imagnet'; did you mean 'imagenet'?\n" in run.stdout


@needs_assets
def test_doctor_reads_the_weights_and_compares_them_with_their_models(tmp_path: Path, weights: Path) -> None:
    sound = harness(tmp_path, "doctor", "--weights", str(weights))
    assert sound.returncode == 0
    assert "\nfound     deit_tiny_patch16_224.fb_in1k, SHA-256 " in sound.stdout
    (weights / "deit_small_patch16_224.pth").write_text("no weights at all", encoding="utf-8")
    (weights / "resnet18.safetensors").symlink_to(weights / "deit_tiny_patch16_224.safetensors")
    run = harness(tmp_path, "doctor", "--weights", str(weights))
    assert run.returncode == 3
    lines = [line for line in run.stdout.splitlines() if line.startswith("found")]
    assert [line.split()[1] for line in lines] == ["deit_tiny_patch16_224.fb_in1k,"]
    assert (
        f"\nproblem   {weights}/deit_small_patch16_224.pth: is text, not weights; download the file itself"
        in run.stdout
    )
    assert f"\nproblem   {weights}/resnet18.safetensors: does not fit resnet18: missing " in run.stdout


@needs_assets
def test_doctor_notes_a_file_whose_name_fits_several_weights(tmp_path: Path, weights: Path) -> None:
    import timm

    resnet = timm.create_model("resnet18")
    save_file(resnet.state_dict(), weights / "resnet18.safetensors")
    run = harness(tmp_path, "doctor", "--weights", str(weights))
    notes = [line for line in run.stdout.splitlines() if line.startswith("note")]
    assert len(notes) == 1
    assert notes[0].startswith("note      resnet18.tv_in1k: the name of its file fits resnet18.a1_in1k, ")
    assert notes[0].endswith(" as well; rename it to say which")


def test_a_data_set_that_no_table_has_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    run = harness(tmp_path, *EVALUATE, "--data", "imagnet=x")
    assert (run.returncode, run.stderr) == (
        2,
        "error: --data imagnet=…: no table has a dataset 'imagnet'; did you mean 'imagenet'?\n",
    )


def test_data_is_written_as_name_and_path(tmp_path: Path) -> None:
    run = harness(tmp_path, *EVALUATE, "--data", "/data/imagenet")
    assert run.returncode == 2
    assert run.stderr == (
        "error: Invalid value for '--data': '/data/imagenet' is not NAME=PATH, as imagenet=/data/imagenet\n"
    )


def test_a_path_that_is_not_there_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    run = harness(tmp_path, *EVALUATE, "--data", f"imagenet={tmp_path}/gone")
    assert run.returncode == 2
    assert run.told.startswith(f"error: --data imagenet={tmp_path}/gone: ")
    assert run.told.count("\n") == 1
    assert not list((tmp_path).glob("runs/*/*.json"))


@pytest.mark.parametrize("origin", ["file", "list", "variable"])
def test_data_can_be_given_in_the_settings_file_or_a_variable(tmp_path: Path, origin: str) -> None:
    if origin == "variable":
        run = harness(tmp_path, *EVALUATE, HARNESS_DATA=f"imagenet={tmp_path}/gone")
    else:
        text = (
            f'[data]\nimagenet = "{tmp_path}/gone"\n' if origin == "file" else f'data = ["imagenet={tmp_path}/gone"]\n'
        )
        (tmp_path / "harness.toml").write_text(text, encoding="utf-8")
        run = harness(tmp_path, *EVALUATE)
    assert run.told.startswith(f"error: --data imagenet={tmp_path}/gone: ")
