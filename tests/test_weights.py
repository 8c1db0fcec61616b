"""Weights are found, checked and loaded as timm itself would load them; all else is refused in a sentence."""

import argparse
import gzip
import hashlib
import os
import pickle
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from harness.errors import JobError
from harness.jobs import models, weights

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"
REAL = ("deit_tiny_patch16_224", "tf_efficientnet_lite0")

VIT, CONVNET = "test_vit", "test_efficientnet"
TAG = "r160_in1k"
RES, CLASSES = 160, 10  # timm's own size for its test networks; few classes keep the heads small

State = dict[str, torch.Tensor]


def build_by_timm(model: str, *, classes: int = CLASSES, **arguments: Any) -> nn.Module:  # noqa: ANN401
    """Build a model as timm does, with random weights and norms with statistics of their own."""
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(model, num_classes=classes, **arguments)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(7)
    return module.eval()


def state_of(model: str, **arguments: Any) -> State:  # noqa: ANN401
    return {name: value.detach().clone() for name, value in build_by_timm(model, **arguments).state_dict().items()}


@torch.no_grad()
def logits(model: nn.Module, res: int = RES) -> torch.Tensor:
    images = torch.randn(2, 3, res, res, generator=torch.Generator().manual_seed(1))
    scores: torch.Tensor = model(images)
    return scores


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def load(path: Path, model: str = VIT, *, res: int = RES, classes: int = CLASSES) -> nn.Module:
    file = weights.WeightsFile(path=path, sha256="", origin="file")
    return weights.load_model(model, res=res, classes=classes, file=file)


def refusal(function: Callable[..., object], *args: Any, **arguments: Any) -> str:  # noqa: ANN401
    with pytest.raises(JobError) as refused:
        function(*args, **arguments)
    return str(refused.value)


def assert_same_state(model: nn.Module, expected: State) -> None:
    state = model.state_dict()
    assert list(state) == list(expected)
    assert [value.dtype for value in state.values()] == [value.dtype for value in expected.values()]
    assert [name for name, value in expected.items() if not torch.equal(state[name], value)] == []


# Real weights.


def asset(model: str) -> Path:
    path = ASSETS / "weights" / f"{model}.safetensors"
    if not path.is_file():
        pytest.skip(f"needs the real weights {path}")
    return path


@pytest.mark.parametrize("model", REAL)
def test_real_weights_give_the_logits_of_timm(model: str) -> None:
    path = asset(model)
    file = weights.find_weights(model, "fb_in1k", path.parent)
    ours = weights.load_model(model, res=224, classes=1000, file=file)
    theirs = timm.create_model(model).eval()
    theirs.load_state_dict(load_file(path), strict=True)
    torch.testing.assert_close(logits(ours, 224), logits(theirs, 224), rtol=0, atol=1e-6)
    assert not ours.training


@pytest.mark.parametrize("model", REAL)
def test_the_hash_of_real_weights_is_the_documented_one(model: str) -> None:
    path = asset(model)
    documentation = (ASSETS / "ASSETS.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `weights/{model}\.safetensors` \| `([0-9a-f]{{64}})` \|", documentation, re.MULTILINE)
    assert row is not None
    file = weights.find_weights(model, "in1k", path.parent)
    assert file.facts == {"file": path.name, "sha256": row[1], "origin": "file"}
    assert file.path == path


# Models that weights will fill.


@pytest.mark.parametrize(
    "model",
    [
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "swin_tiny_patch4_window7_224",  # windows' index and mask: computed, in no checkpoint
        "levit_128s",  # index of attention biases: likewise
        "regnety_002",
        CONVNET,
    ],
)
def test_an_empty_model_that_is_filled_is_the_one_that_timm_builds(model: str) -> None:
    res = RES if model == CONVNET else 224
    theirs = build_by_timm(model)
    ours = models.build_empty(model, res, classes=CLASSES)
    assert not ours.training
    for kind in ("named_parameters", "named_buffers"):
        tensors = [[(n, v.shape, v.dtype, v.device.type) for n, v in getattr(m, kind)()] for m in (ours, theirs)]
        assert tensors[0] == tensors[1]
    kept = theirs.state_dict()
    computed = {name: value for name, value in theirs.named_buffers() if name not in kept}
    assert bool(computed) == model.startswith(("swin", "levit"))
    buffers = dict(ours.named_buffers())
    assert [name for name, value in computed.items() if not torch.equal(buffers[name], value)] == []
    ours.load_state_dict(kept, strict=True)
    buffers = dict(ours.named_buffers())
    assert [name for name, value in theirs.named_buffers() if not torch.equal(buffers[name], value)] == []
    torch.testing.assert_close(logits(ours, res), logits(theirs, res), rtol=0, atol=1e-6)


def test_an_empty_model_draws_nothing_at_random() -> None:
    before = torch.get_rng_state()
    models.build_empty(VIT, RES, classes=CLASSES)
    assert torch.equal(torch.get_rng_state(), before)


# The file that is found.


def hashed_name(stem: str, content: str, ending: str = "pth") -> str:
    return f"{stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.{ending}"


ENDINGS = ("safetensors", "pth", "pt", "bin", "pth.tar")

TRIED = "the same as .pth, .pt, .bin or .pth.tar"


def test_the_file_whose_name_says_most_is_taken(tmp_path: Path) -> None:
    model, tag = "tf_efficientnet_b0", "ns_jft_in1k"
    name = f"{model}.{tag}"
    ranked = [
        *(f"{name}.{ending}" for ending in ENDINGS),
        f"{name}/model.safetensors",
        f"{name}/pytorch_model.bin",
        hashed_name(name, "tag and hash"),
        hashed_name(model, "hash", "safetensors"),
        *(f"{model}.{ending}" for ending in ENDINGS),
    ]
    contents = dict(zip(ranked, ranked, strict=True))
    contents |= {ranked[7]: "tag and hash", ranked[8]: "hash"}
    (tmp_path / name).mkdir()
    for path in [*ranked, f"{model}.another.safetensors", "tf_efficientnet_b1.safetensors"]:
        (tmp_path / path).write_text(contents.get(path, path), encoding="utf-8")
    for path in ranked:
        file = weights.find_weights(model, tag, tmp_path)
        digest = hashlib.sha256(contents[path].encode()).hexdigest()
        assert (file.path, file.sha256, file.origin) == (tmp_path / path, digest, "file")
        file.path.unlink()
    (tmp_path / name).rmdir()
    assert refusal(weights.find_weights, model, tag, tmp_path) == (
        f"--weights {tmp_path}: no weights of {name} there (looked for {name}.safetensors, "
        f"{model}.safetensors, {TRIED}, and tf_efficientnet_b0_ns-c0e6a31c.pth); "
        "did you mean 'tf_efficientnet_b1'?"
    )


def test_a_file_that_says_the_same_and_is_not_read_is_warned_of(tmp_path: Path) -> None:
    for ending in ("pth", "safetensors", "bin"):
        (tmp_path / f"{VIT}.{TAG}.{ending}").write_bytes(b"weights")
    (tmp_path / f"{VIT}.pth").write_bytes(b"says less")
    assert weights.find_weights(VIT, TAG, tmp_path).warnings == [
        f"{VIT}.{TAG}.safetensors was read and not {VIT}.{TAG}.pth or {VIT}.{TAG}.bin: keep the right one"
    ]
    (tmp_path / f"{VIT}.{TAG}.safetensors").unlink()
    (tmp_path / f"{VIT}.{TAG}.bin").unlink()
    assert weights.find_weights(VIT, TAG, tmp_path).warnings == []


def test_the_authors_file_comes_before_one_without_a_tag_and_after_one_with_it(tmp_path: Path) -> None:
    authors, content = tmp_path / "deit_tiny_patch16_224-a1311bcf.pth", b"not theirs"
    for name in ("deit_tiny_patch16_224.safetensors", "deit_tiny_patch16_224.pth", authors.name):
        (tmp_path / name).write_bytes(content)
    # So it is the one that was taken: its hash cannot be forged.
    assert refusal(weights.find_weights, "deit_tiny_patch16_224", "fb_in1k", tmp_path) == (
        f"{authors}: is text, not weights; download the file itself"
    )
    tagged = tmp_path / "deit_tiny_patch16_224.fb_in1k.pth.tar"
    tagged.write_bytes(content)
    assert weights.find_weights("deit_tiny_patch16_224", "fb_in1k", tmp_path).path == tagged


@pytest.mark.parametrize("name", ["tf_efficientnet_b5.safetensors", hashed_name("tf_efficientnet_b5", "weights")])
@pytest.mark.parametrize("tag", ["aa_in1k", "ra_in1k"])
def test_a_file_without_a_tag_may_be_all_that_timm_has_of_the_model(tmp_path: Path, tag: str, name: str) -> None:
    (tmp_path / name).write_text("weights", encoding="utf-8")
    file = weights.find_weights("tf_efficientnet_b5", tag, tmp_path)
    tags = {other.partition(".")[2] for other in file.also_fits}
    assert {"aa_in1k", "ra_in1k", "ap_in1k", "ns_jft_in1k"} - {tag} <= tags
    assert tag not in tags
    assert file.facts["also_fits"] == list(file.also_fits)
    (tmp_path / name).rename(tmp_path / f"tf_efficientnet_b5.{tag}.safetensors")
    file = weights.find_weights("tf_efficientnet_b5", tag, tmp_path)
    assert file.facts == {"file": file.path.name, "sha256": file.sha256, "origin": "file"}


@pytest.mark.parametrize("tag", ["fb_in1k", "my_own"])
def test_a_file_without_a_tag_is_clear_where_timm_has_one_or_the_user_says_which(tmp_path: Path, tag: str) -> None:
    (tmp_path / "deit_tiny_patch16_224.pth").write_bytes(b"weights")
    assert weights.find_weights("deit_tiny_patch16_224", tag, tmp_path).also_fits == ()


def test_a_link_to_a_file_that_is_gone_is_not_replaced_by_a_lesser_name(tmp_path: Path) -> None:
    link = tmp_path / f"{VIT}.{TAG}.pth"
    link.symlink_to(tmp_path / "gone")
    (tmp_path / f"{VIT}.pth").write_bytes(b"weights")
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == f"{link}: is a link to what is not there"
    (tmp_path / "gone").write_bytes(b"linked")
    file = weights.find_weights(VIT, TAG, tmp_path)
    assert (file.path, file.sha256) == (link, hashlib.sha256(b"linked").hexdigest())


def test_a_repository_of_the_hub_is_taken_from_its_own_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / f"{VIT}.{TAG}"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    assert weights.find_weights(VIT, TAG, folder).path == folder / "pytorch_model.bin"


def test_what_has_no_name_or_is_of_another_kind_is_mentioned(tmp_path: Path) -> None:
    for name in (f"{VIT}.onnx", "model_best.pth.tar", "checkpoint-7.pth", "test_vit2.onnx", "notes.txt"):
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / VIT).mkdir()
    assert refusal(weights.find_weights, VIT, TAG, tmp_path).endswith(
        f"({looked_for()}); also there, and not taken: checkpoint-7.pth, model_best.pth.tar, {VIT} and 1 more"
    )


def looked_for(model: str = VIT, tag: str = TAG) -> str:
    return f"looked for {model}.{tag}.safetensors, {model}.safetensors, {TRIED}"


def test_the_name_in_timms_own_url_is_known(tmp_path: Path) -> None:
    path = tmp_path / "tf_efficientnet_b0_ns-c0e6a31c.pth"  # not the model's own name
    path.write_bytes(b"\0")
    digest = hashlib.sha256(b"\0").hexdigest()
    assert refusal(weights.find_weights, "tf_efficientnet_b0", "ns_jft_in1k", tmp_path) == (
        f"{path}: its SHA-256 begins with {digest[:12]}, but its name says c0e6a31c; download it again"
    )


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize("length", [8, 64])
def test_a_checkpoint_may_have_the_hash_in_its_name(tmp_path: Path, ending: str, length: int) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / f"{VIT}-{digest[:length]}.{ending}"
    path.write_bytes(content)
    file = weights.find_weights(VIT, TAG, tmp_path)
    # The name is anybody's: timm knows no such file of the authors.
    assert file == weights.WeightsFile(path=path, sha256=digest, origin="file")


def test_the_authors_checkpoint_is_the_one_that_timm_knows_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hashed_name("a_name_of_theirs", "weights")
    monkeypatch.setattr(weights, "_author_file", lambda other: name if other == f"{CONVNET}.{TAG}" else "")
    (tmp_path / name).write_text("weights", encoding="utf-8")
    (tmp_path / f"{CONVNET}.pth").write_bytes(b"somebody's")
    digest = hashlib.sha256(b"weights").hexdigest()
    file = weights.find_weights(CONVNET, TAG, tmp_path)
    assert file.facts == {"file": name, "sha256": digest, "origin": "author checkpoint"}


def test_an_authors_checkpoint_with_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}-01234567.pth"
    path.write_bytes(b"weights\0")
    digest = hashlib.sha256(b"weights\0").hexdigest()
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == (
        f"{path}: its SHA-256 begins with {digest[:12]}, but its name says 01234567; download it again"
    )


@pytest.mark.parametrize("name", [f"{VIT}2-01234567.pth", f"{VIT}-0123456.pth", f"{VIT}-finetune.pth"])
def test_a_name_that_only_looks_like_an_authors_is_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == (
        f"--weights {tmp_path}: no weights of {VIT}.{TAG} there ({looked_for()}); did you mean '{Path(name).stem}'?"
    )


def test_the_authors_file_of_another_tag_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "resnet50-11ad3fa6.pth").write_bytes(b"weights")  # timm knows it as tv2_in1k
    assert refusal(weights.find_weights, "resnet50", "tv_in1k", tmp_path) == (
        f"--weights {tmp_path}: no weights of resnet50.tv_in1k there ({looked_for('resnet50', 'tv_in1k')}, and "
        "resnet50-0676ba61.pth); did you mean 'resnet50-11ad3fa6'?"
    )


def test_between_two_authors_checkpoints_the_user_chooses(tmp_path: Path) -> None:
    names = sorted(f"{VIT}-{hashlib.sha256(content).hexdigest()[:8]}.pth" for content in (b"one", b"two"))
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == (
        f"--weights {tmp_path}: {names[0]} and {names[1]} may both be {VIT}.{TAG}; rename the right one to "
        f"{VIT}.{TAG}.pth"
    )


def test_weights_that_timm_does_not_know_are_found_in_a_folder(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}.my_own.pth"
    path.write_bytes(b"weights")
    assert weights.find_weights(VIT, "my_own", tmp_path).path == path


def test_a_file_that_changed_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}.pth"
    for age, content in enumerate((b"one", b"two")):
        path.write_bytes(content)
        os.utime(path, (age, age))
        assert weights.find_weights(VIT, TAG, tmp_path).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_not_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / name
    assert refusal(weights.find_weights, VIT, TAG, folder) == f"--weights {folder}: there is no such folder"


def test_a_folder_without_the_weights_is_refused_with_the_names_that_were_tried(tmp_path: Path) -> None:
    message = f"--weights {tmp_path}: no weights of {VIT}.{TAG} there ({looked_for()})"
    (tmp_path / "notes_on_test_vit.txt").write_text("not weights", encoding="utf-8")
    (tmp_path / "regnety_002.pth").write_bytes(b"")
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == message
    (tmp_path / "test_vitt.pth").write_bytes(b"")
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == f"{message}; did you mean 'test_vitt'?"


# Files that fit.

WRAPPINGS: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": dict,
    "the authors' model": lambda state: {"model": state, "epoch": 299},
    "timm's state_dict": lambda state: {"arch": VIT, "state_dict": state, "metric": 0.8},
    "one in the other": lambda state: {"state_dict": {"model": state}},
    "several GPUs": lambda state: {"module." + name: value for name, value in state.items()},
    "compiled on several GPUs": lambda state: {"module._orig_mod." + name: value for name, value in state.items()},
    "the authors' on several GPUs": lambda state: {"model": {"module." + name: v for name, v in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("model", [VIT, CONVNET])
def test_a_checkpoint_is_unwrapped(tmp_path: Path, model: str, wrapping: str) -> None:
    state = state_of(model)
    ours = load(save(WRAPPINGS[wrapping](state), tmp_path / "x.pth"), model)
    assert_same_state(ours, state)
    assert not ours.training
    torch.testing.assert_close(logits(ours), logits(build_by_timm(model)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt", "bin"])
def test_weights_are_found_and_loaded_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    state, path = state_of(CONVNET), tmp_path / f"{CONVNET}.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert_same_state(load(path, CONVNET), state)


def test_a_checkpoint_of_before_zip_files_is_read(tmp_path: Path) -> None:
    state = state_of(VIT)
    torch.save({"model": state}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_same_state(load(tmp_path / "x.pth"), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_numbers_of_another_precision_become_float32(tmp_path: Path, ending: str, dtype: torch.dtype) -> None:
    path = tmp_path / f"x.{ending}"
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state_of(CONVNET).items()}
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    ours = load(path, CONVNET)
    assert_same_state(ours, {name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    assert {v.dtype for v in ours.state_dict().values()} == {torch.float32, torch.int64}


def test_a_file_of_before_torch_counted_batches_is_loaded(tmp_path: Path) -> None:
    # Such is torchvision's resnet18-5c106cde.pth; torch's own strict loading takes it too.
    state = state_of(CONVNET)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    ours = load(save(old, tmp_path / "x.pth"), CONVNET)
    assert_same_state(ours, {name: old.get(name, torch.tensor(0)) for name in state})
    torch.testing.assert_close(logits(ours), logits(build_by_timm(CONVNET)), rtol=0, atol=1e-6)


def test_a_distilled_model_keeps_both_its_heads(tmp_path: Path) -> None:
    model = "deit_tiny_distilled_patch16_224"
    theirs = build_by_timm(model)
    state = theirs.state_dict()
    ours = load(save({"model": state}, tmp_path / "x.pth"), model, res=224)
    assert_same_state(ours, state)
    assert {"dist_token", "head_dist.weight", "head_dist.bias"} < set(state)
    torch.testing.assert_close(logits(ours, 224), logits(theirs, 224), rtol=0, atol=1e-6)


def test_what_the_authors_stored_and_timm_computes_is_left_out(tmp_path: Path) -> None:
    model = "levit_128s"
    theirs = build_by_timm(model)
    state = theirs.state_dict()
    stored = {name: value + 1 for name, value in theirs.named_buffers() if name not in state}
    assert stored
    ours = load(save({"model": {**state, **stored}}, tmp_path / "x.pth"), model, res=224)
    assert_same_state(ours, state)
    torch.testing.assert_close(logits(ours, 224), logits(theirs, 224), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "stored", "res"),
    [(VIT, 160, 96), (VIT, 96, 160), ("deit_tiny_distilled_patch16_224", 224, 288)],
    ids=["smaller", "larger", "with two tokens before"],
)
def test_a_position_embedding_of_another_size_is_resized_as_timm_does(
    tmp_path: Path, model: str, stored: int, res: int
) -> None:
    state = state_of(model, img_size=stored)
    state["pos_embed"] = torch.randn(state["pos_embed"].shape, generator=torch.Generator().manual_seed(2))
    path = save(state, tmp_path / "x.pth")
    overlay = {"file": str(path), "num_classes": CLASSES}
    theirs = timm.create_model(
        model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=CLASSES, img_size=res
    ).eval()
    ours = load(path, model, res=res)
    assert state["pos_embed"].shape != ours.state_dict()["pos_embed"].shape
    assert_same_state(ours, theirs.state_dict())
    torch.testing.assert_close(logits(ours, res), logits(theirs, res), rtol=0, atol=1e-6)


def test_torchvisions_names_for_a_regnet_are_timms(tmp_path: Path) -> None:
    model = "regnety_002"
    swaps = {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"}
    state = state_of(model)
    theirs = {re.sub("|".join(swaps), lambda match: swaps[match[0]], name): value for name, value in state.items()}
    assert len(set(state) - set(theirs)) == 8
    assert_same_state(load(save(theirs, tmp_path / "x.pth"), model, res=224), state)


def test_the_authors_names_for_deit_iii_are_timms(tmp_path: Path) -> None:
    model = "deit3_small_patch16_224"
    state = state_of(model)
    theirs = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): value for name, value in state.items()}
    assert len(set(state) - set(theirs)) == 24
    assert_same_state(load(save({"model": theirs}, tmp_path / "x.pth"), model, res=224), state)


def test_averages_are_not_used_as_the_weights(tmp_path: Path) -> None:
    state = state_of(VIT)
    averages = {name: value + 1 for name, value in state.items()}
    both = save({"model_ema": averages, "model": state, "state_dict_ema": averages}, tmp_path / "both.pth")
    assert_same_state(load(both), state)
    alone = save({"epoch": 3, "model_ema": averages}, tmp_path / "alone.pth")
    assert refusal(load, alone) == (
        f"{alone}: has no weights, neither at its top nor below model or state_dict; "
        "model_ema has averages, which are different weights: save it as a file of its own"
    )


# Files that do not fit.


def test_patches_of_another_size_are_not_resized(tmp_path: Path) -> None:
    # timm would: a ViT-B/32 would be measured as a ViT-B/16, and be wrong by much.
    name, state = "patch_embed.proj.weight", state_of(VIT)
    width, channels, side, _ = state[name].shape
    state[name] = torch.randn(width, channels, 2 * side, 2 * side)
    path = save(state, tmp_path / "x.pth")
    assert refusal(load, path) == (
        f"{path}: does not fit test_vit: of a different shape "
        f"{name} {width}×3×{2 * side}×{2 * side}, not {width}×3×{side}×{side}"
    )


def test_integers_are_no_weights(tmp_path: Path) -> None:
    state = state_of(VIT)
    state["norm.weight"] = state["norm.weight"].to(torch.int8)
    path = save(state, tmp_path / "x.pth")
    width = len(state["norm.weight"])
    assert refusal(load, path) == (
        f"{path}: does not fit test_vit: of a different shape norm.weight {width} of int8, not {width}"
    )


def test_names_that_are_numbers_fit_nothing(tmp_path: Path) -> None:
    path = save({0: torch.ones(2)}, tmp_path / "x.pth")
    assert refusal(load, path) == (
        f"{path}: does not fit test_vit: missing cls_token, pos_embed, patch_embed.proj.weight and 77 more; "
        "unexpected 0"
    )


def test_weights_of_another_architecture_are_refused_with_the_first_names(tmp_path: Path) -> None:
    path = save(state_of(CONVNET), tmp_path / "x.pth")
    assert refusal(load, path) == (
        f"{path}: does not fit test_vit: missing cls_token, pos_embed, patch_embed.proj.weight and 77 more; "
        "unexpected conv_stem.weight, bn1.weight, bn1.bias and 85 more"
    )


def test_weights_without_distillation_do_not_fit_a_distilled_model(tmp_path: Path) -> None:
    path = save(state_of("deit_tiny_patch16_224"), tmp_path / "x.pth")
    assert refusal(load, path, "deit_tiny_distilled_patch16_224", res=224) == (
        f"{path}: does not fit deit_tiny_distilled_patch16_224: missing dist_token, head_dist.weight, head_dist.bias; "
        "of a different shape pos_embed 1×197×192, not 1×198×192"
    )


def test_a_missing_and_an_unexpected_tensor_are_named(tmp_path: Path) -> None:
    state = state_of(VIT)
    state["head.scale"] = state.pop("head.bias")
    path = save(state, tmp_path / "x.pth")
    assert refusal(load, path) == f"{path}: does not fit test_vit: missing head.bias; unexpected head.scale"


def test_tensors_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    state = state_of(CONVNET)
    state["conv_stem.weight"] = state["conv_stem.weight"][:5]
    state["bn1.weight"] = torch.tensor(1.0)
    path = save(state, tmp_path / "x.pth")
    channels = len(state["bn1.bias"])
    assert refusal(load, path, CONVNET) == (
        f"{path}: does not fit test_efficientnet: of a different shape conv_stem.weight 5×3×3×3, not {channels}×3×3×3, "
        f"bn1.weight a number, not {channels}"
    )


@pytest.mark.parametrize(
    ("model", "res"), [(VIT, 160), (CONVNET, 160), ("test_resnet", 160), ("deit_tiny_distilled_patch16_224", 224)]
)
def test_weights_for_another_number_of_classes_are_refused(tmp_path: Path, model: str, res: int) -> None:
    path = save(state_of(model, classes=12), tmp_path / "x.pth")
    assert refusal(load, path, model, res=res) == f"{path}: is for 12 classes, but the images have 10"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, ending: str, number: float) -> None:
    state, path = state_of(CONVNET), tmp_path / f"x.{ending}"
    state["bn1.running_var"][3] = number
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert refusal(load, path, CONVNET) == (
        f"{path}: bn1.running_var has numbers that are not finite; the file is damaged"
    )


# Files that are no weights.


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.sprung), "w")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:  # noqa: FBT001
    path, sprung = tmp_path / "x.pth", tmp_path / "sprung"
    content = {"model": state_of(VIT), "args": Trap(sprung)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert refusal(load, path) == (
        f"{path}: contains more than tensors, code that loading it would run; save its state dict as "
        ".safetensors where you trust it"
    )
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # so the trap was armed


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_the_arguments_of_a_training_are_data(tmp_path: Path, zipped: bool) -> None:  # noqa: FBT001
    # As DeiT's main.py and timm's train.py save them.
    state, args = state_of(VIT), argparse.Namespace(lr=0.1, data_set="IMNET", opt_betas=None, cooldown_epochs=[10])
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))]).state_dict()
    for content in (
        {"model": state, "optimizer": optimizer, "epoch": 299, "model_ema": state, "scaler": {}, "args": args},
        {"epoch": 9, "arch": VIT, "state_dict": state, "optimizer": optimizer, "version": 2, "args": args},
    ):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        assert_same_state(load(tmp_path / "x.pth"), state)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_code_among_the_arguments_of_a_training_is_code(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=Trap(tmp_path / "sprung"))
    path = save({"model": state_of(VIT), "args": args}, tmp_path / "x.pth")
    assert "code that loading it would run" in refusal(load, path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [{"model": {}, "args": Path("x")}, nn.Linear(2, 2)],
    ids=["a path", "a whole model"],
)
def test_objects_besides_tensors_are_refused(tmp_path: Path, content: object) -> None:
    path = save(content, tmp_path / "x.pth")
    assert refusal(load, path) == (
        f"{path}: contains more than tensors, code that loading it would run; save its state dict as "
        ".safetensors where you trust it"
    )


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1bb008c7\nsize 22883664\n"
PAGE = "<!DOCTYPE html>\n<html><title>404</title></html>\n"
ANSWER = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>'
TEXT = "is text, not weights; download the file itself"
WEB_PAGE = "is a web page, not weights; download the file itself"
CONTENTS = {
    b"": "is empty; download it again",
    POINTER.encode(): "is a Git LFS pointer to the weights; run `git lfs pull` in the folder it is from",
    PAGE.encode(): WEB_PAGE,
    b"\n <html lang='en'>" + 600 * b"\xe4": WEB_PAGE,
    ANSWER.encode(): WEB_PAGE,
    b"Not Found": TEXT,
    b'{"error": "Repository not found"}\n': TEXT,
    gzip.compress(b"weights", mtime=0): "is compressed by gzip; unpack it",
    b"\0\1\2": "is not a checkpoint that can be read",
}


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:15]))
def test_what_is_no_weights_is_called_what_it_is(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"{VIT}-01234567.{ending}"
    path.write_bytes(content)
    assert refusal(load, path) == f"{path}: {CONTENTS[content]}"
    digest = hashlib.sha256(content).hexdigest()[:12]
    if content[:1] == b"\0":
        message = f"its SHA-256 begins with {digest}, but its name says 01234567; download it again"
    else:
        message = CONTENTS[content]
    assert refusal(weights.find_weights, VIT, TAG, tmp_path) == f"{path}: {message}"


def test_a_tar_archive_is_called_one(tmp_path: Path) -> None:
    inner, path = save(state_of(VIT), tmp_path / "x.pth"), tmp_path / "y.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "x.pth")
    assert refusal(load, path) == f"{path}: is a tar archive; unpack it, or save its state dict as .safetensors"


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(load, tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_weights_are_read_by_their_content_whatever_their_ending(tmp_path: Path) -> None:
    state = state_of(VIT)
    save_file(state, tmp_path / "x.pth")
    torch.save(state, tmp_path / "x.safetensors")
    assert_same_state(load(tmp_path / "x.pth"), state)
    assert_same_state(load(tmp_path / "x.safetensors"), state)


# Zips, whose members torch maps into memory unchecked.


def zipped_again(path: Path, method: int, *, only: str = "", twice: str = "") -> Path:
    """Write the members of a checkpoint by a method of compression, `only` those whose name contains this."""
    again = path.with_name("again.pth")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(again, "w") as copy:
        for member in archive.infolist():
            copy.writestr(member.filename, archive.read(member), method if only in member.filename else 0)
            if twice and member.filename.endswith(twice):
                with pytest.warns(UserWarning, match="Duplicate name"):
                    copy.writestr(member.filename, bytes(member.file_size))
    return again


def directory(path: Path) -> dict[str, int]:
    """Return where the entry of each member is in the central directory: its flags at 8, its checksum at 16."""
    with zipfile.ZipFile(path) as archive:
        positions, position = {}, archive.start_dir
        for member in archive.infolist():
            positions[member.filename] = position
            position += 46 + len(member.filename) + len(member.extra) + len(member.comment)
    return positions


def test_compressed_members_are_read_as_what_they_were(tmp_path: Path) -> None:
    state = state_of(CONVNET)
    path = save({"model": state}, tmp_path / "x.pth")
    for only in ("", "/data/", "/data/7"):
        assert_same_state(load(zipped_again(path, zipfile.ZIP_DEFLATED, only=only), CONVNET), state)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_torch_cannot_decompress_are_refused(tmp_path: Path, method: int) -> None:
    path = zipped_again(save(state_of(VIT), tmp_path / "x.pth"), method)
    assert refusal(load, path).startswith(f"{path}: is not a checkpoint that can be read (PytorchStreamReader failed")


def test_a_checkpoint_with_two_members_of_one_name_is_refused(tmp_path: Path) -> None:
    path = zipped_again(save(state_of(VIT), tmp_path / "x.pth"), 0, twice="/data/3")
    assert refusal(load, path) == (
        f"{path}: has two members called x/data/3, and which is meant is unknown; save it again"
    )


def test_an_encrypted_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save(state_of(VIT), tmp_path / "x.pth")
    content = bytearray(path.read_bytes())
    content[directory(path)["x/data/3"] + 8] |= 1  # torch looks at the pickle's alone
    path.write_bytes(content)
    assert refusal(load, path) == f"{path}: is encrypted; save it again without a password"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path, method: int) -> None:
    path = zipped_again(save(state_of(VIT), tmp_path / "x.pth"), method)
    whole = path.read_bytes()
    for position in range(1000, len(whole), len(whole) // 15):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        assert re.match(rf"{re.escape(str(path))}: is a damaged zip \(.*\); download it again$", refusal(load, path))


def test_a_checkpoint_whose_directory_is_damaged_is_refused_or_read_as_it_was(tmp_path: Path) -> None:
    state = state_of(VIT)
    path = save(state, tmp_path / "x.pth")
    whole, first = path.read_bytes(), directory(path)["x/data/7"]
    for position in (*range(first, first + 62, 3), *range(len(whole) - 22, len(whole))):
        damaged = bytearray(whole)
        damaged[position] ^= 0x80
        path.write_bytes(damaged)
        with suppress(JobError):
            assert_same_state(load(path), state)


def test_a_checkpoint_without_checksums_is_read(tmp_path: Path) -> None:
    # As torch writes it where set_crc32_options(False) was called.
    path, state = tmp_path / "x.pth", state_of(VIT)
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    for entry in directory(path).values():
        content[entry + 16 : entry + 20] = bytes(4)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert {member.CRC for member in archive.infolist()} == {0}
    assert_same_state(load(path), state)


def test_a_pickle_of_another_protocol_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": [1.0]}, protocol=4))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")  # as an error it would end in the same sentence
        assert refusal(load, path) == f"{path}: is not a checkpoint that can be read"
    assert warned == []


def test_a_checkpoint_that_is_cut_short_is_refused_with_the_first_line_of_torch(tmp_path: Path) -> None:
    path = save(state_of(VIT), tmp_path / "x.pth")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RuntimeError) as torchs:
        torch.load(path, weights_only=True)
    message = str(torchs.value).splitlines()[0][:120]
    assert message.startswith("PytorchStreamReader failed reading zip archive: failed finding central directory")
    assert refusal(load, path) == f"{path}: is not a checkpoint that can be read ({message})"


@pytest.mark.parametrize("kept", [1, 20, 3000, -1])
def test_a_checkpoint_of_before_zip_files_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.pth"
    torch.save(state_of(VIT), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(load, path)
    # Which of its errors torch gives here depends on its version; the newer's of a storage helps, and is shown.
    assert re.fullmatch(r"(.*): is not a checkpoint that can be read( \(unexpected EOF, expected \d+ .*\))?", message)
    assert message.startswith(f"{path}: ")


@pytest.mark.parametrize("damage", ["cut in the header", "cut in the numbers"])
def test_a_damaged_safetensors_file_is_refused_with_the_readers_reason(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(state_of(VIT), path)
    whole = path.read_bytes()
    kept = {"cut in the header": whole[:99], "cut in the numbers": whole[:-1]}
    path.write_bytes(kept[damage])
    try:
        load_file(path)
    except Exception as error:  # noqa: BLE001 -- its kind is the reader's own
        reason = str(error)
    assert refusal(load, path) == f"{path}: is not a safetensors file that can be read ({reason})"


def test_a_state_dict_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = save(list(state_of(VIT).items()), tmp_path / "x.pth")
    assert refusal(load, path) == f"{path}: is not a state dict but a list"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"model": {"state_dict": {"epoch": 3}}}], ids=str)
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    path = save(content, tmp_path / "x.pth")
    assert refusal(load, path) == f"{path}: has no weights, neither at its top nor below model or state_dict"


# The hub.


class Hub:
    """Has the given files and an empty cache; records the requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **files: Path | Exception) -> None:
        self.files = files
        self.requests: list[tuple[str, str]] = []
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def metadata(self, url: str, *, timeout: float) -> None:
        assert timeout == 10
        repository, _, file = url.removeprefix("https://huggingface.co/").partition("/resolve/main/")
        self.requests.append((repository, file))
        content = self.files[file.partition(".")[0]]
        if isinstance(content, Exception):
            raise content

    def download(self, _repository: str, file: str) -> str:
        return str(self.files[file.partition(".")[0]])


REPOSITORY = f"timm/{VIT}.{TAG}"


def test_without_a_folder_the_hub_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, path = state_of(VIT), tmp_path / "model.safetensors"
    save_file(state, path)
    hub = Hub(monkeypatch, model=path)
    file = weights.find_weights(VIT, TAG, None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file == weights.WeightsFile(path=path, sha256=digest, origin="hub")
    assert file.facts == {"file": "model.safetensors", "sha256": digest, "origin": "hub"}
    assert hub.requests == [(REPOSITORY, "model.safetensors")]
    assert_same_state(weights.load_model(VIT, res=RES, classes=CLASSES, file=file), state)


def test_a_hub_without_safetensors_is_tried_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(VIT)
    path = save(state, tmp_path / "pytorch_model.bin")
    hub = Hub(monkeypatch, model=EntryNotFoundError("404"), pytorch_model=path)
    file = weights.find_weights(VIT, TAG, None)
    assert (file.path, file.origin) == (path, "hub")
    assert hub.requests == [(REPOSITORY, "model.safetensors"), (REPOSITORY, "pytorch_model.bin")]
    assert_same_state(weights.load_model(VIT, res=RES, classes=CLASSES, file=file), state)


class AnHttpLibrarysOwnError(Exception):
    """Not an `OSError`, like those of httpx, which newer versions of the hub let through."""


def not_downloaded(reason: str) -> str:
    return (
        f"the weights {VIT}.{TAG} could not be downloaded from the hub ({reason}); provide them with "
        f"--weights DIR, as a file {VIT}.{TAG}.safetensors"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LocalEntryNotFoundError("We cannot find the requested files in the cache."), "the hub does not answer"),
        (OSError("the disk is full"), "the disk is full"),
        (ConnectionError("no route\nto the host"), "no route"),
        (AnHttpLibrarysOwnError(), "AnHttpLibrarysOwnError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_hub_that_cannot_be_reached_is_reported_in_a_sentence(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, model=error)
    assert refusal(weights.find_weights, VIT, TAG, None) == not_downloaded(reason)
    assert hub.requests == [(REPOSITORY, "model.safetensors")]


def test_a_hub_that_has_neither_file_is_reported_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, model=EntryNotFoundError("404"), pytorch_model=EntryNotFoundError("404"))
    assert refusal(weights.find_weights, VIT, TAG, None) == not_downloaded("the hub has no such file")


def test_without_internet_the_hub_is_tried_once(tmp_path: Path) -> None:
    code = (
        "from harness.jobs import weights\n"
        f"try: weights.find_weights('{VIT}', '{TAG}', None)\n"
        "except weights.JobError as error: print(error)"
    )
    # Nobody listens on port 9.  The client's own repetitions are loud, and take half a minute.
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    start, end = not_downloaded("|").split("|")
    assert ended.stdout.startswith(start)
    assert ended.stdout.endswith(f"{end}\n")
    assert ended.stderr == ""


# The hub's cache, as its client lays it out.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache with the repository's newest commit, and turn the network off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / f"models--timm--{VIT}.{TAG}"
    for name in ("refs", "blobs", "snapshots/abc"):
        (root / name).mkdir(parents=True)
    (root / "refs" / "main").write_text("abc", encoding="utf-8")
    return root


def add_to_cache(cache: Path, name: str, content: bytes, blob: str) -> Path:
    (cache / "blobs" / blob).write_bytes(content)
    (cache / "snapshots" / "abc" / name).symlink_to(cache / "blobs" / blob)
    return cache / "snapshots" / "abc" / name


@pytest.mark.usefixtures("cache")
def test_without_internet_and_with_an_empty_cache_the_reason_is_given() -> None:
    assert refusal(weights.find_weights, VIT, TAG, None) == not_downloaded("HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_an_earlier_download_is_used_without_internet(cache: Path, name: str) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    path = add_to_cache(cache, name, b"weights", digest)
    assert weights.find_weights(VIT, TAG, None) == weights.WeightsFile(path=path, sha256=digest, origin="hub")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_hubs_cache_is_a_folder_of_weights_too(cache: Path, name: str) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    path = add_to_cache(cache, name, b"weights", digest)
    (cache.parent / f"{VIT}.pth").write_bytes(b"somebody's")
    assert weights.find_weights(VIT, TAG, cache.parent) == weights.WeightsFile(path=path, sha256=digest, origin="file")


def test_a_download_that_was_cut_short_is_refused(cache: Path) -> None:
    declared, digest = (hashlib.sha256(content).hexdigest() for content in (b"weights", b"we\0"))
    path = add_to_cache(cache, "model.safetensors", b"we\0", declared).resolve()
    assert refusal(weights.find_weights, VIT, TAG, None) == (
        f"{path}: its SHA-256 begins with {digest[:12]}, but its name says {declared[:12]}; download it again"
    )


@pytest.mark.parametrize(
    ("tag", "hint"),
    [("r160_in1kk", f"; did you mean '{VIT}.{TAG}'?"), ("my_own_training_of_another_day", "")],
)
def test_an_unknown_tag_is_not_requested_from_the_hub(tag: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    message = f"timm {timm.__version__} has no weights '{VIT}.{tag}'{hint}"
    assert weights.unknown_tag_message(VIT, tag) == message
    assert refusal(weights.find_weights, VIT, tag, None) == message
    assert hub.requests == []


def test_a_known_tag_is_not_unknown() -> None:
    assert weights.unknown_tag_message(VIT, TAG) == ""
    assert weights.unknown_tag_message("deit_tiny_patch16_224", "fb_in1k") == ""


def test_weights_that_are_not_on_timms_hub_are_requested_from_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert refusal(weights.find_weights, "gcvit_tiny", "in1k", None) == (
        "timm has no weights gcvit_tiny.in1k on its hub; provide them with --weights DIR, as a file "
        "gcvit_tiny.in1k.safetensors"
    )
    assert hub.requests == []


def test_weights_of_an_unknown_model_are_not_requested_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    message = f"timm {timm.__version__} knows no model 'test_vitt'; did you mean 'test_vit'?"
    assert refusal(weights.find_weights, "test_vitt", TAG, None) == message
    assert hub.requests == []
