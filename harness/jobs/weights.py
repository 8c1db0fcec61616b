"""A network's name and a folder, or timm's hub -> the file of its weights, checked -> the network."""

import hashlib
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from harness.errors import JobError, did_you_mean
from harness.jobs import network

# The authors' and torch's checkpoints promise the beginning of their SHA-256 in their name.
_PROMISE = re.compile(r"-(?P<prefix>[0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")

# Where a checkpoint keeps its state dict if not at its top: the authors' `model`, timm's `state_dict`.
_BELOW = ("model", "state_dict")

# What torch's safe reader says of a name that is not one of its own; all else that it says is of damaged bytes.
_CODE = re.compile(r"unsupported GLOBAL|not an allowed global|Trying to call|unsupported class|Can only (?:build|create)")

NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Found:
    """The file of a network's weights: its SHA-256, and `file`, `author checkpoint` (hash verified) or `hub`."""

    path: Path
    sha256: str
    origin: str

    @property
    def facts(self) -> dict[str, Any]:
        """Give it for the result."""
        return {"file": self.path.name, "sha256": self.sha256, "origin": self.origin}


def find(model: str, tag: str, folder: Path | None) -> Found:
    """Find the weights of `MODEL.TAG` in a folder, or on timm's hub if none is given.

    Raises `JobError` if they are not there, cannot be fetched, or are not what the name of the file promises.
    """
    return _on_hub(model, tag) if folder is None else _in_folder(model, tag, folder)


def _in_folder(model: str, tag: str, folder: Path) -> Found:
    if not folder.is_dir():
        raise JobError(f"--weights {folder}: there is no such folder")
    names = _names(model, tag)
    path = next((folder / name for name in names if (folder / name).is_file()), None) or _promised(model, folder)
    if path is None:
        there = [file.stem for file in folder.iterdir() if file.suffix in (".safetensors", ".pth", ".pt")]
        hint = did_you_mean(model, there)
        raise JobError(f"--weights {folder}: no weights of {model}.{tag} there; call the file {names[1]}{hint}")
    digest = _sha256(path)
    promise = _PROMISE.search(path.name)
    if promise and not digest.startswith(promise["prefix"]):
        raise JobError(
            f"{path}: its name promises a SHA-256 that begins with {promise['prefix']}, but it is {digest[:12]}…; "
            "fetch it again"
        )
    return Found(path=path, sha256=digest, origin="author checkpoint" if promise else "file")


def _names(model: str, tag: str) -> list[str]:
    """Give the names under which a file may hold these weights, best first."""
    plain = [f"{stem}{ending}" for ending in (".safetensors", ".pth", ".pt") for stem in (f"{model}.{tag}", model)]
    try:
        url = str(getattr(timm.get_pretrained_cfg(f"{model}.{tag}"), "url", "") or "")
    except RuntimeError:  # weights of the user's own, which timm has not heard of
        url = ""
    return [*plain, *([url.rpartition("/")[2]] if url else [])]


def _promised(model: str, folder: Path) -> Path | None:
    found = [path for path in sorted(folder.iterdir()) if _PROMISE.sub("", path.name) == model]
    return found[0] if found else None


@cache
def _sha256_of(path: Path, _size: int, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    told = path.stat()
    return _sha256_of(path, told.st_size, told.st_mtime_ns)


def _on_hub(model: str, tag: str) -> Found:
    unknown = unknown_tag(model, tag)
    if unknown:
        raise JobError(unknown)
    config: Any = timm.get_pretrained_cfg(f"{model}.{tag}")
    repository = config.hf_hub_id
    if repository is None:
        raise JobError(f"timm keeps no weights of {model}.{tag} on its hub; give them with --weights DIR")
    if repository.endswith("/"):
        repository += f"{model}.{tag}"
    path = _fetched(repository, f"{model}.{tag}")
    return Found(path=path, sha256=_sha256(path), origin="hub")


def unknown_tag(model: str, tag: str) -> str:
    """Say that timm has no such weights, with the nearest ones; empty if it has."""
    known = timm.list_pretrained(f"{model}.*")
    if f"{model}.{tag}" in known:
        return ""
    return f"timm {timm.__version__} has no weights '{model}.{tag}'{did_you_mean(f'{model}.{tag}', known)}"


def _fetched(repository: str, name: str) -> Path:
    """Fetch a file of the hub, or take it from the cache."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 -- only where there is no folder of weights
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415

    for file in ("model.safetensors", "pytorch_model.bin"):
        try:
            return Path(hf_hub_download(repository, file, etag_timeout=10))
        except LocalEntryNotFoundError:
            break
        except EntryNotFoundError:
            continue
        except Exception:  # noqa: BLE001 -- those of its HTTP library too, which differs between its versions
            break
    raise JobError(
        f"the weights {name} could not be fetched from the hub; give them with --weights DIR, as a file "
        f"{name}.safetensors"
    )


# Files -> networks.


def load(model: str, *, res: int, classes: int, found: Found) -> nn.Module:
    """Build the network for these weights, on the CPU, in eval mode, float32; every key must fit.

    Raises `JobError` for a file that is no checkpoint, holds code, does not fit, or holds numbers that are not finite.
    """
    state = _read(found.path)
    _check_finite(found.path, state)
    built = network.blank(model, res, classes=classes)
    state = _fitted(built, state)
    _check_fit(model, found.path, built, state)
    built.load_state_dict({**_counters(built), **state}, strict=True)
    return built.float().eval()


def _read(path: Path) -> dict[str, torch.Tensor]:
    found = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    while True:
        below = next((found[key] for key in _BELOW if isinstance(found.get(key), Mapping)), None)
        if below is None:
            break
        found = dict(below)
    state = {_plain(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise JobError(f"{path}: holds no weights, neither at its top nor below {' or '.join(_BELOW)}")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _plain(name: str) -> str:
    """Take off what wrappers for several GPUs and for compiling put before a name."""
    return re.sub(r"^(?:module\.|_orig_mod\.)+", "", name)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise JobError(f"{path}: is not a safetensors file that can be read ({error})") from None


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, for bytes that are no pickle
            found: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 -- torch's reader fails in every way on bytes that are no checkpoint
        if isinstance(error, pickle.UnpicklingError) and _CODE.search(str(error)):
            raise JobError(
                f"{path}: holds more than tensors, code that loading it would run, and is refused; save its state dict "
                "as .safetensors where you trust it"
            ) from None
        # torch's own sentence helps for a zip that is cut short or a file that may not be opened, else it is a riddle.
        said = str(error).splitlines() if isinstance(error, OSError | RuntimeError) else []
        why = f" ({said[0][:120]})" if said else ""
        raise JobError(f"{path}: is not a checkpoint that can be read{why}") from None
    if not isinstance(found, Mapping):
        raise JobError(f"{path}: is not a state dict but a {type(found).__name__}")
    return dict(found)


def _check_finite(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise JobError(f"{path}: {name} holds numbers that are not finite; the file is damaged")


def _fitted(built: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Let timm rename and resize what its own loading would, where the file does not fit as it is."""
    if not _differences(built, state)[0]:
        return state
    convert: Callable[..., Any] | None = getattr(sys.modules[type(built).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        found = convert(dict(state), built)
    except Exception:  # noqa: BLE001 -- a file of another network may break timm's conversion anywhere; it does not fit
        return state
    return dict(found) if not _differences(built, found)[0] else state


def _counters(built: nn.Module) -> dict[str, torch.Tensor]:
    """Give the norms' counts of batches, as zeros: files older than torch 0.4.1 have none, and nothing reads them."""
    wanted = built.state_dict().items()
    return {name: torch.zeros_like(value) for name, value in wanted if name.endswith("num_batches_tracked")}


def _differences(built: nn.Module, state: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Give all differences, and of them the missing and the unexpected names."""
    wanted = built.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    other = [name for name, value in wanted.items() if name in state and state[name].shape != value.shape]
    return [*missing, *unexpected, *other], missing, unexpected


def _check_fit(model: str, path: Path, built: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    differences, missing, unexpected = _differences(built, state)
    if not differences:
        return
    wanted = built.state_dict()
    other = [name for name in differences if name not in (*missing, *unexpected)]
    if (
        other
        and not missing
        and not unexpected
        and all(name.startswith(("head", "fc", "classifier")) for name in other)
    ):
        raise JobError(
            f"{path}: is for {state[other[0]].shape[0]} classes, but the images have {wanted[other[0]].shape[0]}"
        )
    said = [
        f"{what} {_few(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", [f"{n} {_shape(state[n])}, not {_shape(wanted[n])}" for n in other]),
        )
        if names
    ]
    raise JobError(f"{path}: does not fit {model}: {'; '.join(said)}")


def _shape(value: torch.Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a number"


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
