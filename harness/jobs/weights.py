"""A network's name and a folder, or timm's hub -> the file of its weights, checked -> the network."""

import hashlib
import inspect
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
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

State = dict[str, torch.Tensor]

ENDINGS = (".safetensors", ".pth", ".pt")

# The authors' and torch's checkpoints promise the beginning of their SHA-256 in their name.
_PROMISE = re.compile(r"-(?P<prefix>[0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")

# Where a checkpoint keeps its state dict if not at its top: the authors' `model`, timm's `state_dict`.
_BELOW = ("model", "state_dict")

# Averages over training, as the authors' and timm's scripts keep them: other weights, never taken unasked.
_AVERAGES = ("model_ema", "state_dict_ema")

# What torch's safe reader says of a name that is not one of its own; all else that it says is of damaged bytes.
_CODE = re.compile(
    r"unsupported GLOBAL|not an allowed global|Trying to call|unsupported class|Can only (?:build|create)"
)

# The tensors whose size follows that of the image: only these may be resized to fit.
_POSITIONS = re.compile(r"pos_embed|position|rel_pos|bias_table")

NAMED = 3  # of the names that do not fit: enough to recognise another network


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
    if folder is None:
        return _on_hub(model, tag)
    try:
        return _in_folder(model, tag, folder)
    except OSError as error:
        raise JobError(f"--weights {folder}: cannot be read: {error.strerror}") from error


# A folder -> a file.


def _in_folder(model: str, tag: str, folder: Path) -> Found:
    if not folder.is_dir():
        raise JobError(f"--weights {folder}: there is no such folder")
    there = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = _names(model, tag)
    name = next((name for name in names if name in there), None) or _promised(model, tag, folder, there)
    if name is None:
        raise JobError(_missing(model, tag, folder, there))
    path = folder / name
    digest = _sha256(path)
    promise = _PROMISE.search(name)
    if promise:
        _check_promise(path, promise["prefix"], digest)
    return Found(path=path, sha256=digest, origin="author checkpoint" if promise else "file")


def _missing(model: str, tag: str, folder: Path, there: Iterable[str]) -> str:
    authors = _authors_name(f"{model}.{tag}")
    looked = f"looked for {model}.{tag}.safetensors, {model}.safetensors, the same as .pth or .pt"
    looked += f", and {authors}" if authors else ""
    nearest = did_you_mean(model, (Path(name).stem for name in there if name.endswith(ENDINGS)))
    return f"--weights {folder}: no weights of {model}.{tag} there ({looked}){nearest}"


def _names(model: str, tag: str) -> list[str]:
    """Give the names under which a file may hold these weights, best first."""
    plain = [f"{stem}{ending}" for ending in ENDINGS for stem in (f"{model}.{tag}", model)]
    authors = _authors_name(f"{model}.{tag}")
    return [*plain, authors] if authors else plain


def _authors_name(name: str) -> str:
    """Give the name of the file that the authors published; empty if timm knows none that torch can read."""
    try:
        url = str(getattr(timm.get_pretrained_cfg(name), "url", "") or "")
    except RuntimeError:  # weights of the user's own, which timm has not heard of
        return ""
    return "" if url.endswith(".npz") else url.rpartition("/")[2]


def _promised(model: str, tag: str, folder: Path, there: Iterable[str]) -> str | None:
    """Find `MODEL-HASH.pth`, unless timm knows it as the file of another tag: those are other weights."""
    others = {_authors_name(name) for name in timm.list_pretrained(f"{model}.*") if name != f"{model}.{tag}"}
    found = [
        name
        for name in there
        if _PROMISE.search(name) and _PROMISE.sub("", name) in {model, f"{model}.{tag}"} and name not in others
    ]
    if len(found) > 1:
        raise JobError(
            f"--weights {folder}: {' and '.join(found)} may both be {model}.{tag}; call the right one {model}.{tag}.pth"
        )
    return found[0] if found else None


def _check_promise(path: Path, prefix: str, digest: str) -> None:
    if not digest.startswith(prefix):
        raise JobError(
            f"{path}: its name promises a SHA-256 that begins with {prefix[:12]}, but it is {digest[:12]}…; "
            "fetch it again"
        )


@cache
def _sha256_of(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: Path) -> str:
    """Give the SHA-256 of a file; in one process, an unchanged file is read once."""
    told = path.stat()
    return _sha256_of(path, told.st_size, told.st_mtime_ns)


# The hub -> a file.


def _on_hub(model: str, tag: str) -> Found:
    unknown = unknown_tag(model, tag)
    if unknown:
        raise JobError(unknown)
    name = f"{model}.{tag}"
    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if repository is None:
        raise JobError(f"timm keeps no weights {name} on its hub; {_remedy(name)}")
    path = _fetched(f"{repository}{name}" if repository.endswith("/") else repository, name)
    digest, blob = _sha256(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):  # the cache names a large file by its SHA-256
        _check_promise(path.resolve(), blob, digest)
    return Found(path=path, sha256=digest, origin="hub")


def unknown_tag(model: str, tag: str) -> str:
    """Say that timm has no such weights, with the nearest ones; empty if it has."""
    reason = network.unknown(model)
    if reason:
        return reason
    known = timm.list_pretrained(f"{model}.*")
    if f"{model}.{tag}" in known:
        return ""
    return f"timm {timm.__version__} has no weights '{model}.{tag}'{did_you_mean(f'{model}.{tag}', known)}"


def _remedy(name: str) -> str:
    return f"give them with --weights DIR, as a file {name}.safetensors"


def _fetched(repository: str, name: str) -> Path:
    """Take a file of the hub from the cache, where it does not change, or fetch it.

    The hub is asked about the file first, once: without an answer, its client would ask again for half a minute.
    """
    import huggingface_hub as hub  # noqa: PLC0415 -- only where there is no folder of weights
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415

    files = ("model.safetensors", "pytorch_model.bin")
    cached = (hub.try_to_load_from_cache(repository, file) for file in files)
    there = next((path for path in cached if isinstance(path, str)), None)
    if there is not None:
        return Path(there)
    why = "the hub has no such file"
    for file in files:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
            return Path(hub.hf_hub_download(repository, file))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # the connection broke since the hub was asked
                why = "the hub does not answer"
                break
        except Exception as error:  # noqa: BLE001 -- with its versions the client changes whose errors it lets through
            why = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else _first_line(error)
            break
    raise JobError(f"the weights {name} could not be fetched from the hub ({why}); {_remedy(name)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# A file -> a network.


def load(model: str, *, res: int, classes: int, found: Found) -> nn.Module:
    """Build the network for images of `res` pixels with these weights: on the CPU, in eval mode, float32.

    Every name and shape must fit, but that position embeddings are resized as timm does for another size of image.
    Raises `JobError` for a file that is no checkpoint, holds code, does not fit, or holds numbers that are not finite.
    """
    state = read(model, res=res, classes=classes, found=found)
    built = network.blank(model, res, classes=classes)
    built.load_state_dict(state, strict=True)
    return built.float().eval()


def read(model: str, *, res: int, classes: int | None, found: Found) -> State:
    """Read the weights that `load` puts into the network, and hold them against it; None: of timm's own classes.

    Raises `JobError` as `load` does.
    """
    bare = network.skeleton(model, res, classes=classes)
    state = _fitted(model, bare, _read(found.path))
    _check_fit(model, found.path, bare, state)
    _check_finite(found.path, state)
    return state


def _read(path: Path) -> State:
    found = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    for _ in _BELOW:
        found = next((found[key] for key in _BELOW if isinstance(found.get(key), Mapping)), found)
    state = {_plain(str(name)): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        averages = [name for name in _AVERAGES if name in found]
        hint = f"; {averages[0]} holds averages, other weights: save it as a file of its own" if averages else ""
        raise JobError(f"{path}: holds no weights, neither at its top nor below {' or '.join(_BELOW)}{hint}")
    return state


def _plain(name: str) -> str:
    """Take off what wrappers for several GPUs and for compiling put before a name."""
    return re.sub(r"^(?:module\.|_orig_mod\.)+", "", name)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise JobError(f"{path}: is not a safetensors file that can be read ({error})") from None


def _checkpoint(path: Path) -> dict[str, Any]:
    """Read the tensors of a checkpoint; mapped where it is a zip, so that an optimizer's state takes no memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, for bytes that are no pickle
            found: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 -- torch's reader fails in every way on bytes that are no checkpoint
        if isinstance(error, pickle.UnpicklingError) and _CODE.search(str(error)):
            raise JobError(
                f"{path}: holds more than tensors, code that loading it would run, and is refused; save its state dict "
                "as .safetensors where you trust it"
            ) from None
        # torch's own sentence helps for a zip that is cut short or a file that may not be opened, else it is a riddle.
        why = f" ({_first_line(error)[:120]})" if isinstance(error, OSError | RuntimeError) and str(error) else ""
        raise JobError(f"{path}: is not a checkpoint that can be read{why}") from None
    if not isinstance(found, Mapping):
        raise JobError(f"{path}: is not a state dict but a {type(found).__name__}")
    return dict(found)


def _check_finite(path: Path, state: State) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise JobError(f"{path}: {name} holds numbers that are not finite; the file is damaged")


# Weights -> the weights that a network wants.


def _fitted(model: str, bare: nn.Module, state: State) -> State:
    """Let timm rename and resize what its own loading would, where the file does not fit as it is."""
    wanted = bare.state_dict()
    state = _with_counters(wanted, state)
    convert = _conversion(model, bare)
    if convert is None or not any(_differences(wanted, state)):
        return state
    try:
        found = _with_counters(
            wanted, convert({n: v.float() if v.is_floating_point() else v for n, v in state.items()})
        )
    except Exception:  # noqa: BLE001 -- a file of another network may break timm's conversion anywhere; it does not fit
        return state
    fits = not any(_differences(wanted, found)) and not any(value.is_meta for value in found.values())
    return found if fits and not _distorted(state, found) else state


def _with_counters(wanted: State, state: State) -> State:
    """Add the norms' counts of training steps where the file, as the oldest do, has none; nothing reads them here."""
    counters = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith("num_batches_tracked")}
    return {**counters, **state}


def _conversion(model: str, bare: nn.Module) -> Callable[[State], State] | None:
    """Find the function that timm gives its own loading of this network; where it is kept is timm's habit, no API."""
    for module in (timm.models.model_entrypoint(model).__module__, type(bare).__module__):
        for name in ("checkpoint_filter_fn", "_filter_fn"):
            convert: Callable[..., State] | None = getattr(sys.modules[module], name, None)
            if convert is None:
                continue
            takes = inspect.signature(convert).parameters
            told = {"adapt_layer_scale": True} if "adapt_layer_scale" in takes else {}  # the names of DeiT III
            more = (bare,) if len(takes) > 1 else ()
            return lambda state: convert(state, *more, **told)
    return None


def _distorted(state: State, found: State) -> bool:
    """Whether the conversion resized what does not depend on the size of the images: patches of another network."""
    return any(
        name in found and found[name].ndim == value.ndim and found[name].shape != value.shape
        for name, value in state.items()
        if not _POSITIONS.search(name)
    )


def _differences(wanted: State, state: State) -> tuple[list[str], list[str], list[str]]:
    """Give the names that are missing, those that are unexpected, and those of another shape or kind."""
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    other = [name for name, value in wanted.items() if name in state and not _alike(value, state[name])]
    return missing, unexpected, other


def _alike(wanted: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether one can be copied into the other; whole numbers for a weight would be a quantised network's."""
    return wanted.shape == value.shape and (value.is_floating_point() or not wanted.is_floating_point())


def _check_fit(model: str, path: Path, bare: nn.Module, state: State) -> None:
    wanted = bare.state_dict()
    missing, unexpected, other = _differences(wanted, state)
    if not missing and not unexpected and not other:
        return
    if not missing and not unexpected and set(other) <= head_names(bare):
        has, wants = len(state[other[0]]), len(wanted[other[0]])
        raise JobError(f"{path}: is for {has} classes, but the images have {wants}")
    shapes = [f"{name} {_kind(state[name])}, not {_kind(wanted[name])}" for name in other]
    said = [
        f"{what} {_few(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    raise JobError(f"{path}: does not fit {model}: {'; '.join(said)}")


def head_names(bare: nn.Module) -> set[str]:
    """Give the names of the weights that have one row a class."""
    config: Any = bare.pretrained_cfg
    layers = config.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def _kind(value: torch.Tensor) -> str:
    shape = "×".join(map(str, value.shape)) or "a number"
    return shape if value.is_floating_point() else f"{shape} of {str(value.dtype).removeprefix('torch.')}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
