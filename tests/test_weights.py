"""Weights are found, checked and loaded as timm itself would load them; all else ends in a sentence."""

import argparse
import hashlib
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
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
from harness.jobs import network, weights

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"
REAL = ("deit_tiny_patch16_224", "tf_efficientnet_lite0")

VIT, CONVNET = "test_vit", "test_efficientnet"
TAG = "r160_in1k"
RES, CLASSES = 160, 10  # timm's own size for its test networks; few classes keep the heads small

State = dict[str, torch.Tensor]


def timms(model: str, *, classes: int = CLASSES, **told: Any) -> nn.Module:  # noqa: ANN401
    """Build a network as timm does, with random weights and norms that have seen images."""
    torch.manual_seed(0)
    built: nn.Module = timm.create_model(model, num_classes=classes, **told)
    for name, buffer in built.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(7)
    return built.eval()


def state_of(model: str, **told: Any) -> State:  # noqa: ANN401
    return {name: value.detach().clone() for name, value in timms(model, **told).state_dict().items()}


@torch.no_grad()
def logits(model: nn.Module, res: int = RES) -> torch.Tensor:
    images = torch.randn(2, 3, res, res, generator=torch.Generator().manual_seed(1))
    found: torch.Tensor = model(images)
    return found


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, model: str = VIT, *, res: int = RES, classes: int = CLASSES) -> nn.Module:
    found = weights.Found(path=path, sha256="", origin="file")
    return weights.load(model, res=res, classes=classes, found=found)


def refusal(job: Callable[..., object], *args: Any, **told: Any) -> str:  # noqa: ANN401
    with pytest.raises(JobError) as refused:
        job(*args, **told)
    return str(refused.value)


def assert_same_state(found: nn.Module, wanted: State) -> None:
    state = found.state_dict()
    assert list(state) == list(wanted)
    assert [value.dtype for value in state.values()] == [value.dtype for value in wanted.values()]
    assert [name for name, value in wanted.items() if not torch.equal(state[name], value)] == []


# Real weights.


def asset(model: str) -> Path:
    path = ASSETS / "weights" / f"{model}.safetensors"
    if not path.is_file():
        pytest.skip(f"needs the real weights {path}")
    return path


@pytest.mark.parametrize("model", REAL)
def test_real_weights_give_the_logits_of_timm(model: str) -> None:
    path = asset(model)
    found = weights.find(model, "fb_in1k", path.parent)
    ours = weights.load(model, res=224, classes=1000, found=found)
    theirs = timm.create_model(model).eval()
    theirs.load_state_dict(load_file(path), strict=True)
    torch.testing.assert_close(logits(ours, 224), logits(theirs, 224), rtol=0, atol=1e-6)
    assert not ours.training


@pytest.mark.parametrize("model", REAL)
def test_the_hash_of_real_weights_is_the_one_that_was_written_down(model: str) -> None:
    path = asset(model)
    told = (ASSETS / "ASSETS.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `weights/{model}\.safetensors` \| `([0-9a-f]{{64}})` \|", told, re.MULTILINE)
    assert row is not None
    found = weights.find(model, "in1k", path.parent)
    assert found.facts == {"file": path.name, "sha256": row[1], "origin": "file"}
    assert found.path == path


# Networks that weights will fill.


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
def test_a_blank_network_that_is_filled_is_the_one_that_timm_builds(model: str) -> None:
    res = RES if model == CONVNET else 224
    theirs = timms(model)
    ours = network.blank(model, res, classes=CLASSES)
    assert not ours.training
    for kind in ("named_parameters", "named_buffers"):
        told = [[(n, v.shape, v.dtype, v.device.type) for n, v in getattr(m, kind)()] for m in (ours, theirs)]
        assert told[0] == told[1]
    kept = theirs.state_dict()
    computed = {name: value for name, value in theirs.named_buffers() if name not in kept}
    assert bool(computed) == model.startswith(("swin", "levit"))
    found = dict(ours.named_buffers())
    assert [name for name, value in computed.items() if not torch.equal(found[name], value)] == []
    ours.load_state_dict(kept, strict=True)
    found = dict(ours.named_buffers())
    assert [name for name, value in theirs.named_buffers() if not torch.equal(found[name], value)] == []
    torch.testing.assert_close(logits(ours, res), logits(theirs, res), rtol=0, atol=1e-6)


def test_a_blank_network_draws_nothing_at_random() -> None:
    before = torch.get_rng_state()
    network.blank(VIT, RES, classes=CLASSES)
    assert torch.equal(torch.get_rng_state(), before)


# The file that is found.


def test_the_best_name_in_a_folder_is_taken(tmp_path: Path) -> None:
    model, tag = "tf_efficientnet_b0", "ns_jft_in1k"
    ranked = [
        f"{model}.{tag}.safetensors",
        f"{model}.safetensors",
        f"{model}.{tag}.pth",
        f"{model}.pth",
        f"{model}.{tag}.pt",
        f"{model}.pt",
    ]
    for name in [*ranked, f"{model}.another.safetensors", "tf_efficientnet_b1.safetensors"]:
        (tmp_path / name).write_text(name, encoding="utf-8")
    for name in ranked:
        found = weights.find(model, tag, tmp_path)
        digest = hashlib.sha256(name.encode()).hexdigest()
        assert found == weights.Found(path=tmp_path / name, sha256=digest, origin="file")
        found.path.unlink()
    assert refusal(weights.find, model, tag, tmp_path) == (
        f"--weights {tmp_path}: no weights of {model}.{tag} there (looked for {model}.{tag}.safetensors, "
        f"{model}.safetensors, the same as .pth or .pt, and tf_efficientnet_b0_ns-c0e6a31c.pth); "
        "did you mean 'tf_efficientnet_b1'?"
    )


def test_the_name_in_timms_own_address_is_known(tmp_path: Path) -> None:
    path = tmp_path / "tf_efficientnet_b0_ns-c0e6a31c.pth"  # not the network's own name
    path.write_bytes(b"")
    assert refusal(weights.find, "tf_efficientnet_b0", "ns_jft_in1k", tmp_path) == (
        f"{path}: its name promises a SHA-256 that begins with c0e6a31c, but it is e3b0c44298fc…; fetch it again"
    )


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize("length", [8, 64])
def test_an_authors_checkpoint_is_what_its_name_promises(tmp_path: Path, ending: str, length: int) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / f"{VIT}-{digest[:length]}.{ending}"
    path.write_bytes(content)
    found = weights.find(VIT, TAG, tmp_path)
    assert found == weights.Found(path=path, sha256=digest, origin="author checkpoint")
    assert found.facts == {"file": path.name, "sha256": digest, "origin": "author checkpoint"}


def test_an_authors_checkpoint_that_breaks_its_promise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}-01234567.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert refusal(weights.find, VIT, TAG, tmp_path) == (
        f"{path}: its name promises a SHA-256 that begins with 01234567, but it is {digest[:12]}…; fetch it again"
    )


@pytest.mark.parametrize("name", [f"{VIT}2-01234567.pth", f"{VIT}-0123456.pth", f"{VIT}-finetune.pth"])
def test_a_name_that_only_looks_like_an_authors_is_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    assert refusal(weights.find, VIT, TAG, tmp_path) == (
        f"--weights {tmp_path}: no weights of {VIT}.{TAG} there (looked for {VIT}.{TAG}.safetensors, "
        f"{VIT}.safetensors, the same as .pth or .pt); did you mean '{Path(name).stem}'?"
    )


def test_the_authors_file_of_another_tag_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "resnet50-11ad3fa6.pth").write_bytes(b"weights")  # timm knows it as tv2_in1k
    assert refusal(weights.find, "resnet50", "tv_in1k", tmp_path) == (
        f"--weights {tmp_path}: no weights of resnet50.tv_in1k there (looked for resnet50.tv_in1k.safetensors, "
        "resnet50.safetensors, the same as .pth or .pt, and resnet50-0676ba61.pth); "
        "did you mean 'resnet50-11ad3fa6'?"
    )


def test_between_two_authors_checkpoints_the_user_chooses(tmp_path: Path) -> None:
    names = sorted(f"{VIT}-{hashlib.sha256(content).hexdigest()[:8]}.pth" for content in (b"one", b"two"))
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    assert refusal(weights.find, VIT, TAG, tmp_path) == (
        f"--weights {tmp_path}: {names[0]} and {names[1]} may both be {VIT}.{TAG}; call the right one {VIT}.{TAG}.pth"
    )


def test_weights_that_timm_has_not_heard_of_may_lie_in_a_folder(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}.my_own.pth"
    path.write_bytes(b"weights")
    assert weights.find(VIT, "my_own", tmp_path).path == path


def test_a_file_that_changed_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / f"{VIT}.pth"
    for age, content in enumerate((b"one", b"two")):
        path.write_bytes(content)
        os.utime(path, (age, age))
        assert weights.find(VIT, TAG, tmp_path).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / name
    assert refusal(weights.find, VIT, TAG, folder) == f"--weights {folder}: there is no such folder"


def test_a_folder_without_the_weights_is_told_the_name_to_use(tmp_path: Path) -> None:
    said = (
        f"--weights {tmp_path}: no weights of {VIT}.{TAG} there (looked for {VIT}.{TAG}.safetensors, "
        f"{VIT}.safetensors, the same as .pth or .pt)"
    )
    (tmp_path / "notes_on_test_vit.txt").write_text("not weights", encoding="utf-8")
    (tmp_path / "regnety_002.pth").write_bytes(b"")
    assert refusal(weights.find, VIT, TAG, tmp_path) == said
    (tmp_path / "test_vitt.pth").write_bytes(b"")
    assert refusal(weights.find, VIT, TAG, tmp_path) == f"{said}; did you mean 'test_vitt'?"


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
    found = loaded(saved(WRAPPINGS[wrapping](state), tmp_path / "x.pth"), model)
    assert_same_state(found, state)
    assert not found.training
    torch.testing.assert_close(logits(found), logits(timms(model)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt", "bin"])
def test_weights_are_found_and_loaded_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    state, path = state_of(CONVNET), tmp_path / f"{CONVNET}.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert_same_state(loaded(path, CONVNET), state)


def test_a_checkpoint_of_before_zip_files_is_read(tmp_path: Path) -> None:
    state = state_of(VIT)
    torch.save({"model": state}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_same_state(loaded(tmp_path / "x.pth"), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_numbers_of_another_precision_become_float32(tmp_path: Path, ending: str, dtype: torch.dtype) -> None:
    path = tmp_path / f"x.{ending}"
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state_of(CONVNET).items()}
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    found = loaded(path, CONVNET)
    assert_same_state(found, {name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    assert {v.dtype for v in found.state_dict().values()} == {torch.float32, torch.int64}


def test_a_file_of_before_torch_counted_batches_is_loaded(tmp_path: Path) -> None:
    # Such is torchvision's resnet18-5c106cde.pth; torch's own strict loading takes it too.
    state = state_of(CONVNET)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    found = loaded(saved(old, tmp_path / "x.pth"), CONVNET)
    assert_same_state(found, {name: old.get(name, torch.tensor(0)) for name in state})
    torch.testing.assert_close(logits(found), logits(timms(CONVNET)), rtol=0, atol=1e-6)


def test_a_distilled_network_keeps_both_its_heads(tmp_path: Path) -> None:
    model = "deit_tiny_distilled_patch16_224"
    theirs = timms(model)
    state = theirs.state_dict()
    found = loaded(saved({"model": state}, tmp_path / "x.pth"), model, res=224)
    assert_same_state(found, state)
    assert {"dist_token", "head_dist.weight", "head_dist.bias"} < set(state)
    torch.testing.assert_close(logits(found, 224), logits(theirs, 224), rtol=0, atol=1e-6)


def test_what_the_authors_stored_and_timm_computes_is_left_out(tmp_path: Path) -> None:
    model = "levit_128s"
    theirs = timms(model)
    state = theirs.state_dict()
    stored = {name: value + 1 for name, value in theirs.named_buffers() if name not in state}
    assert stored
    found = loaded(saved({"model": {**state, **stored}}, tmp_path / "x.pth"), model, res=224)
    assert_same_state(found, state)
    torch.testing.assert_close(logits(found, 224), logits(theirs, 224), rtol=0, atol=1e-6)


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
    path = saved(state, tmp_path / "x.pth")
    overlay = {"file": str(path), "num_classes": CLASSES}
    theirs = timm.create_model(
        model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=CLASSES, img_size=res
    ).eval()
    ours = loaded(path, model, res=res)
    assert state["pos_embed"].shape != ours.state_dict()["pos_embed"].shape
    assert_same_state(ours, theirs.state_dict())
    torch.testing.assert_close(logits(ours, res), logits(theirs, res), rtol=0, atol=1e-6)


def test_torchvisions_names_for_a_regnet_are_timms(tmp_path: Path) -> None:
    model = "regnety_002"
    swaps = {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"}
    state = state_of(model)
    theirs = {re.sub("|".join(swaps), lambda found: swaps[found[0]], name): value for name, value in state.items()}
    assert len(set(state) - set(theirs)) == 8
    assert_same_state(loaded(saved(theirs, tmp_path / "x.pth"), model, res=224), state)


def test_the_authors_names_for_deit_iii_are_timms(tmp_path: Path) -> None:
    model = "deit3_small_patch16_224"
    state = state_of(model)
    theirs = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): value for name, value in state.items()}
    assert len(set(state) - set(theirs)) == 24
    assert_same_state(loaded(saved({"model": theirs}, tmp_path / "x.pth"), model, res=224), state)


def test_averages_are_not_taken_for_the_weights(tmp_path: Path) -> None:
    state = state_of(VIT)
    averages = {name: value + 1 for name, value in state.items()}
    both = saved({"model_ema": averages, "model": state, "state_dict_ema": averages}, tmp_path / "both.pth")
    assert_same_state(loaded(both), state)
    alone = saved({"epoch": 3, "model_ema": averages}, tmp_path / "alone.pth")
    assert refusal(loaded, alone) == (
        f"{alone}: holds no weights, neither at its top nor below model or state_dict; "
        "model_ema holds averages, other weights: save it as a file of its own"
    )


# Files that do not fit.


def test_patches_of_another_size_are_not_resized(tmp_path: Path) -> None:
    # timm would: a ViT-B/32 would be measured as a ViT-B/16, and be wrong by much.
    name, state = "patch_embed.proj.weight", state_of(VIT)
    width, channels, side, _ = state[name].shape
    state[name] = torch.randn(width, channels, 2 * side, 2 * side)
    path = saved(state, tmp_path / "x.pth")
    assert refusal(loaded, path) == (
        f"{path}: does not fit test_vit: of another shape "
        f"{name} {width}×3×{2 * side}×{2 * side}, not {width}×3×{side}×{side}"
    )


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = state_of(VIT)
    state["norm.weight"] = state["norm.weight"].to(torch.int8)
    path = saved(state, tmp_path / "x.pth")
    width = len(state["norm.weight"])
    assert refusal(loaded, path) == (
        f"{path}: does not fit test_vit: of another shape norm.weight {width} of int8, not {width}"
    )


def test_names_that_are_numbers_fit_nothing(tmp_path: Path) -> None:
    path = saved({0: torch.ones(2)}, tmp_path / "x.pth")
    assert refusal(loaded, path) == (
        f"{path}: does not fit test_vit: missing cls_token, pos_embed, patch_embed.proj.weight and 77 more; "
        "unexpected 0"
    )


def test_weights_of_another_architecture_are_refused_with_the_first_names(tmp_path: Path) -> None:
    path = saved(state_of(CONVNET), tmp_path / "x.pth")
    assert refusal(loaded, path) == (
        f"{path}: does not fit test_vit: missing cls_token, pos_embed, patch_embed.proj.weight and 77 more; "
        "unexpected conv_stem.weight, bn1.weight, bn1.bias and 85 more"
    )


def test_weights_without_distillation_do_not_fit_a_distilled_network(tmp_path: Path) -> None:
    path = saved(state_of("deit_tiny_patch16_224"), tmp_path / "x.pth")
    assert refusal(loaded, path, "deit_tiny_distilled_patch16_224", res=224) == (
        f"{path}: does not fit deit_tiny_distilled_patch16_224: missing dist_token, head_dist.weight, head_dist.bias; "
        "of another shape pos_embed 1×197×192, not 1×198×192"
    )


def test_a_missing_and_an_unexpected_tensor_are_named(tmp_path: Path) -> None:
    state = state_of(VIT)
    state["head.scale"] = state.pop("head.bias")
    path = saved(state, tmp_path / "x.pth")
    assert refusal(loaded, path) == f"{path}: does not fit test_vit: missing head.bias; unexpected head.scale"


def test_tensors_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    state = state_of(CONVNET)
    state["conv_stem.weight"] = state["conv_stem.weight"][:5]
    state["bn1.weight"] = torch.tensor(1.0)
    path = saved(state, tmp_path / "x.pth")
    channels = len(state["bn1.bias"])
    assert refusal(loaded, path, CONVNET) == (
        f"{path}: does not fit test_efficientnet: of another shape conv_stem.weight 5×3×3×3, not {channels}×3×3×3, "
        f"bn1.weight a number, not {channels}"
    )


@pytest.mark.parametrize(
    ("model", "res"), [(VIT, 160), (CONVNET, 160), ("test_resnet", 160), ("deit_tiny_distilled_patch16_224", 224)]
)
def test_weights_for_another_number_of_classes_are_refused(tmp_path: Path, model: str, res: int) -> None:
    path = saved(state_of(model, classes=12), tmp_path / "x.pth")
    assert refusal(loaded, path, model, res=res) == f"{path}: is for 12 classes, but the images have 10"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, ending: str, number: float) -> None:
    state, path = state_of(CONVNET), tmp_path / f"x.{ending}"
    state["bn1.running_var"][3] = number
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert refusal(loaded, path, CONVNET) == (
        f"{path}: bn1.running_var holds numbers that are not finite; the file is damaged"
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
    assert refusal(loaded, path) == (
        f"{path}: holds more than tensors, code that loading it would run, and is refused; save its state dict as "
        ".safetensors where you trust it"
    )
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # so the trap was armed


@pytest.mark.parametrize(
    "content",
    [{"model": {}, "args": argparse.Namespace(lr=0.1)}, nn.Linear(2, 2)],
    ids=["arguments of a training", "a whole network"],
)
def test_objects_beside_the_tensors_are_refused(tmp_path: Path, content: object) -> None:
    path = saved(content, tmp_path / "x.pth")
    assert refusal(loaded, path) == (
        f"{path}: holds more than tensors, code that loading it would run, and is refused; save its state dict as "
        ".safetensors where you trust it"
    )


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1bb008c7\nsize 22883664\n"
PAGE = "<!DOCTYPE html>\n<html><title>404</title></html>\n"
TEXTS = {"empty": "", "a pointer of Git LFS": POINTER, "a web page": PAGE, "hello": "hello", "not found": "Not Found"}


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.pth"
    path.write_text(TEXTS[text], encoding="utf-8")
    assert refusal(loaded, path) == f"{path}: is not a checkpoint that can be read"


def test_a_pickle_of_another_protocol_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": [1.0]}, protocol=4))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")  # as an error it would end in the same sentence
        assert refusal(loaded, path) == f"{path}: is not a checkpoint that can be read"
    assert warned == []


def test_a_checkpoint_that_is_cut_short_is_refused_with_the_first_line_of_torch(tmp_path: Path) -> None:
    path = saved(state_of(VIT), tmp_path / "x.pth")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RuntimeError) as torchs:
        torch.load(path, weights_only=True)
    said = str(torchs.value).splitlines()[0][:120]
    assert said.startswith("PytorchStreamReader failed reading zip archive: failed finding central directory")
    assert refusal(loaded, path) == f"{path}: is not a checkpoint that can be read ({said})"


@pytest.mark.parametrize("kept", [1, 20, 3000, -1])
def test_a_checkpoint_of_before_zip_files_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.pth"
    torch.save(state_of(VIT), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:kept])
    said = refusal(loaded, path)
    # Which of its errors torch gives here depends on its version; the newer's of a storage helps, and is shown.
    assert re.fullmatch(r"(.*): is not a checkpoint that can be read( \(unexpected EOF, expected \d+ .*\))?", said)
    assert said.startswith(f"{path}: ")


@pytest.mark.parametrize("damage", ["empty", "text", "cut in the header", "cut in the numbers"])
def test_a_damaged_safetensors_file_is_refused_with_the_readers_reason(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(state_of(VIT), path)
    whole = path.read_bytes()
    kept = {"empty": b"", "text": PAGE.encode(), "cut in the header": whole[:99], "cut in the numbers": whole[:-1]}
    path.write_bytes(kept[damage])
    try:
        load_file(path)
    except Exception as error:  # noqa: BLE001 -- its kind is the reader's own
        reason = str(error)
    assert refusal(loaded, path) == f"{path}: is not a safetensors file that can be read ({reason})"


def test_a_state_dict_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = saved(list(state_of(VIT).items()), tmp_path / "x.pth")
    assert refusal(loaded, path) == f"{path}: is not a state dict but a list"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"model": {"state_dict": {"epoch": 3}}}], ids=str)
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    path = saved(content, tmp_path / "x.pth")
    assert refusal(loaded, path) == f"{path}: holds no weights, neither at its top nor below model or state_dict"


# The hub.


class Hub:
    """Has the files that it is told, its cache has none; notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **files: Path | Exception) -> None:
        self.files = files
        self.asked: list[tuple[str, str]] = []
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_asked: None)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def metadata(self, url: str, *, timeout: float) -> None:
        assert timeout == 10
        repository, _, file = url.removeprefix("https://huggingface.co/").partition("/resolve/main/")
        self.asked.append((repository, file))
        found = self.files[file.partition(".")[0]]
        if isinstance(found, Exception):
            raise found

    def download(self, _repository: str, file: str) -> str:
        return str(self.files[file.partition(".")[0]])


REPOSITORY = f"timm/{VIT}.{TAG}"


def test_without_a_folder_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, path = state_of(VIT), tmp_path / "model.safetensors"
    save_file(state, path)
    hub = Hub(monkeypatch, model=path)
    found = weights.find(VIT, TAG, None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == weights.Found(path=path, sha256=digest, origin="hub")
    assert found.facts == {"file": "model.safetensors", "sha256": digest, "origin": "hub"}
    assert hub.asked == [(REPOSITORY, "model.safetensors")]
    assert_same_state(weights.load(VIT, res=RES, classes=CLASSES, found=found), state)


def test_a_hub_without_safetensors_is_asked_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(VIT)
    path = saved(state, tmp_path / "pytorch_model.bin")
    hub = Hub(monkeypatch, model=EntryNotFoundError("404"), pytorch_model=path)
    found = weights.find(VIT, TAG, None)
    assert (found.path, found.origin) == (path, "hub")
    assert hub.asked == [(REPOSITORY, "model.safetensors"), (REPOSITORY, "pytorch_model.bin")]
    assert_same_state(weights.load(VIT, res=RES, classes=CLASSES, found=found), state)


class AnHttpLibrarysOwnError(Exception):
    """Is no `OSError`: so are those of httpx, which newer versions of the hub let through."""


def unfetched(why: str) -> str:
    return (
        f"the weights {VIT}.{TAG} could not be fetched from the hub ({why}); give them with --weights DIR, as a file "
        f"{VIT}.{TAG}.safetensors"
    )


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (LocalEntryNotFoundError("We cannot find the requested files in the cache."), "the hub does not answer"),
        (OSError("the disk is full"), "the disk is full"),
        (ConnectionError("no route\nto the host"), "no route"),
        (AnHttpLibrarysOwnError(), "AnHttpLibrarysOwnError"),
    ],
    ids=lambda told: type(told).__name__,
)
def test_a_hub_that_cannot_be_reached_is_told_in_a_sentence(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, model=error)
    assert refusal(weights.find, VIT, TAG, None) == unfetched(why)
    assert hub.asked == [(REPOSITORY, "model.safetensors")]


def test_a_hub_that_has_neither_file_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, model=EntryNotFoundError("404"), pytorch_model=EntryNotFoundError("404"))
    assert refusal(weights.find, VIT, TAG, None) == unfetched("the hub has no such file")


def test_without_a_network_the_hub_is_asked_once(tmp_path: Path) -> None:
    code = (
        "from harness.jobs import weights\n"
        f"try: weights.find('{VIT}', '{TAG}', None)\n"
        "except weights.JobError as error: print(error)"
    )
    # Nobody listens on port 9.  The client's own repetitions are loud, and take half a minute.
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    start, end = unfetched("|").split("|")
    assert ended.stdout.startswith(start)
    assert ended.stdout.endswith(f"{end}\n")
    assert ended.stderr == ""


# The hub's cache, as its client lays it out.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache that knows the repository's newest commit, and take the network away."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / f"models--timm--{VIT}.{TAG}"
    for name in ("refs", "blobs", "snapshots/abc"):
        (root / name).mkdir(parents=True)
    (root / "refs" / "main").write_text("abc", encoding="utf-8")
    return root


def kept(cache: Path, name: str, content: bytes, blob: str) -> Path:
    (cache / "blobs" / blob).write_bytes(content)
    (cache / "snapshots" / "abc" / name).symlink_to(cache / "blobs" / blob)
    return cache / "snapshots" / "abc" / name


@pytest.mark.usefixtures("cache")
def test_without_a_network_and_with_an_empty_cache_it_says_so() -> None:
    assert refusal(weights.find, VIT, TAG, None) == unfetched("HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_download_of_another_day_is_used_without_a_network(cache: Path, name: str) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    path = kept(cache, name, b"weights", digest)
    assert weights.find(VIT, TAG, None) == weights.Found(path=path, sha256=digest, origin="hub")


def test_a_download_that_was_cut_short_is_refused(cache: Path) -> None:
    promised, digest = (hashlib.sha256(content).hexdigest() for content in (b"weights", b"weig"))
    path = kept(cache, "model.safetensors", b"weig", promised).resolve()
    assert refusal(weights.find, VIT, TAG, None) == (
        f"{path}: its name promises a SHA-256 that begins with {promised[:12]}, but it is {digest[:12]}…; "
        "fetch it again"
    )


@pytest.mark.parametrize(
    ("tag", "hint"),
    [("r160_in1kk", f"; did you mean '{VIT}.{TAG}'?"), ("my_own_training_of_another_day", "")],
)
def test_an_unknown_tag_is_not_asked_of_the_hub(tag: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    said = f"timm {timm.__version__} has no weights '{VIT}.{tag}'{hint}"
    assert weights.unknown_tag(VIT, tag) == said
    assert refusal(weights.find, VIT, tag, None) == said
    assert hub.asked == []


def test_a_known_tag_is_not_unknown() -> None:
    assert weights.unknown_tag(VIT, TAG) == ""
    assert weights.unknown_tag("deit_tiny_patch16_224", "fb_in1k") == ""


def test_weights_that_timm_does_not_keep_on_its_hub_are_asked_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert refusal(weights.find, "gcvit_tiny", "in1k", None) == (
        "timm keeps no weights gcvit_tiny.in1k on its hub; give them with --weights DIR, as a file "
        "gcvit_tiny.in1k.safetensors"
    )
    assert hub.asked == []


def test_weights_of_an_unknown_network_are_not_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    said = f"timm {timm.__version__} knows no model 'test_vitt'; did you mean 'test_vit'?"
    assert refusal(weights.find, "test_vitt", TAG, None) == said
    assert hub.asked == []
