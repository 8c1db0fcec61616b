"""A model's name and a folder, or timm's hub -> the file of its weights, checked -> the model."""

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

from harness.errors import JobError, did_you_mean, name_few
from harness.jobs import models

StateDict = dict[str, torch.Tensor]

ENDINGS = (".safetensors", ".pth", ".pt")

# The authors' and torch's checkpoints have the beginning of their SHA-256 in their name.
_HASH_IN_NAME = re.compile(r"-(?P<prefix>[0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")

# The key of a checkpoint's state dict if it is not at its top: the authors' `model`, timm's `state_dict`.
_STATE_DICT_KEYS = ("model", "state_dict")

# Averages over training, as the authors' and timm's scripts save them: different weights, never used by default.
_AVERAGE_KEYS = ("model_ema", "state_dict_ema")

# Messages of torch's safe reader about a name that is not one of its own; its other messages are about damaged bytes.
_CODE = re.compile(
    r"unsupported GLOBAL|not an allowed global|Trying to call|unsupported class|Can only (?:build|create)"
)

# The tensors whose size depends on that of the image: only these may be resized to fit.
_POSITION_NAMES = re.compile(r"pos_embed|position|rel_pos|bias_table")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The file of a model's weights; `origin` is `file`, `author checkpoint` (hash verified), `hub` or `trained`."""

    path: Path
    sha256: str
    origin: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the result records."""
        return {"file": self.path.name, "sha256": self.sha256, "origin": self.origin}


def find_weights(model: str, tag: str, folder: Path | None) -> WeightsFile:
    """Find the weights of `MODEL.TAG` in a folder, or on timm's hub if none is given.

    Raises `JobError` if they are missing, cannot be downloaded, or do not have the hash in the name of the file.
    """
    if folder is None:
        return _on_hub(model, tag)
    try:
        return _in_folder(model, tag, folder)
    except OSError as error:
        raise JobError(f"--weights {folder}: cannot be read: {error.strerror}") from error


# A folder -> a file.


def _in_folder(model: str, tag: str, folder: Path) -> WeightsFile:
    if not folder.is_dir():
        raise JobError(f"--weights {folder}: there is no such folder")
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    author_file = _author_file(f"{model}.{tag}")
    names = [f"{stem}{ending}" for ending in ENDINGS for stem in (f"{model}.{tag}", model)]
    name = next((name for name in (*names, author_file) if name in files), None)
    name = name or _hashed_file(model, tag, folder, files)
    if name is None:
        tried = f"looked for {model}.{tag}.safetensors, {model}.safetensors, the same as .pth or .pt"
        tried += f", and {author_file}" if author_file else ""
        nearest = did_you_mean(model, (Path(file).stem for file in files if file.endswith(ENDINGS)))
        raise JobError(f"--weights {folder}: no weights of {model}.{tag} there ({tried}){nearest}")
    path = folder / name
    digest = _sha256(path)
    declared = _HASH_IN_NAME.search(name)
    if declared:
        _check_hash(path, declared["prefix"], digest)
    return WeightsFile(path=path, sha256=digest, origin="author checkpoint" if declared else "file")


def _author_file(name: str) -> str:
    """Return the name of the file that the authors published; empty if timm knows none that torch can read."""
    try:
        url = str(getattr(timm.get_pretrained_cfg(name), "url", "") or "")
    except RuntimeError:  # weights of the user's own, which timm does not know
        return ""
    return "" if url.endswith(".npz") else url.rpartition("/")[2]


def _hashed_file(model: str, tag: str, folder: Path, files: Iterable[str]) -> str | None:
    """Find `MODEL-HASH.pth`, unless timm knows it as the file of another tag: those are different weights."""
    others = {_author_file(name) for name in timm.list_pretrained(f"{model}.*") if name != f"{model}.{tag}"}
    matches = [
        name
        for name in files
        if _HASH_IN_NAME.search(name)
        and _HASH_IN_NAME.sub("", name) in {model, f"{model}.{tag}"}
        and name not in others
    ]
    if len(matches) > 1:
        raise JobError(
            f"--weights {folder}: {' and '.join(matches)} may both be {model}.{tag}; rename the right one to "
            f"{model}.{tag}.pth"
        )
    return matches[0] if matches else None


def _check_hash(path: Path, prefix: str, digest: str) -> None:
    if not digest.startswith(prefix):
        raise JobError(
            f"{path}: its SHA-256 begins with {digest[:12]}, but its name says {prefix[:12]}; download it again"
        )


@cache
def _cached_sha256(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; in one process, an unchanged file is read once."""
    stat = path.stat()
    return _cached_sha256(path, stat.st_size, stat.st_mtime_ns)


# The hub -> a file.


def _on_hub(model: str, tag: str) -> WeightsFile:
    if message := unknown_tag_message(model, tag):
        raise JobError(message)
    name = f"{model}.{tag}"
    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if repository is None:
        raise JobError(f"timm has no weights {name} on its hub; {_remedy(name)}")
    path = _download(f"{repository}{name}" if repository.endswith("/") else repository, name)
    digest, blob = _sha256(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):  # the cache names a large file by its SHA-256
        _check_hash(path.resolve(), blob, digest)
    return WeightsFile(path=path, sha256=digest, origin="hub")


def unknown_tag_message(model: str, tag: str) -> str:
    """Return a sentence for weights that timm does not have, with the nearest ones; empty if it has them."""
    if message := models.unknown_model_message(model):
        return message
    known = timm.list_pretrained(f"{model}.*")
    if f"{model}.{tag}" in known:
        return ""
    return f"timm {timm.__version__} has no weights '{model}.{tag}'{did_you_mean(f'{model}.{tag}', known)}"


def _remedy(name: str) -> str:
    return f"provide them with --weights DIR, as a file {name}.safetensors"


def _download(repository: str, name: str) -> Path:
    """Return a file of the hub from the cache, where it does not change, or download it.

    Its metadata is requested first, once: without an answer, the hub's client would try again for half a minute.
    """
    import huggingface_hub as hub  # noqa: PLC0415 -- only where there is no folder of weights
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415

    files = ("model.safetensors", "pytorch_model.bin")
    cached = (hub.try_to_load_from_cache(repository, file) for file in files)
    path = next((path for path in cached if isinstance(path, str)), None)
    if path is not None:
        return Path(path)
    reason = "the hub has no such file"
    for file in files:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=hub.constants.HF_HUB_ETAG_TIMEOUT)
            return Path(hub.hf_hub_download(repository, file))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # the connection broke after the metadata
                reason = "the hub does not answer"
                break
        except Exception as error:  # noqa: BLE001 -- which errors the client lets through differs between its versions
            reason = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else _first_line(error)
            break
    raise JobError(f"the weights {name} could not be downloaded from the hub ({reason}); {_remedy(name)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# A file -> a model.


def load_model(model: str, *, res: int, classes: int, file: WeightsFile) -> nn.Module:
    """Build the model for images of `res` pixels with these weights: on the CPU, in eval mode, float32.

    Every name and shape must fit, except that position embeddings are resized to the image size as timm does.  Raises
    `JobError` for a file that is no checkpoint, contains code, does not fit, or contains numbers that are not finite.
    """
    state = read_state_dict(model, res=res, classes=classes, file=file)
    loaded = models.build_empty(model, res, classes=classes)
    loaded.load_state_dict(state, strict=True)
    return loaded.float().eval()


def read_state_dict(model: str, *, res: int, classes: int | None, file: WeightsFile) -> StateDict:
    """Read the weights of a model and check that they fit it; `classes` is timm's own number if it is None.

    Raises `JobError` as `load_model` does.
    """
    skeleton = models.build_on_meta(model, res, classes=classes)
    state = _convert(model, skeleton, _read(file.path))
    _check_fit(model, file.path, skeleton, state)
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise JobError(f"{file.path}: {name} has numbers that are not finite; the file is damaged")
    return state


def _read(path: Path) -> StateDict:
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    for _ in _STATE_DICT_KEYS:
        content = next((content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), content)
    # Without the prefixes of wrappers for several GPUs and for compiling.
    state = {
        re.sub(r"^(?:module\.|_orig_mod\.)+", "", str(name)): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    if not state:
        averages = [name for name in _AVERAGE_KEYS if name in content]
        hint = (
            f"; {averages[0]} has averages, which are different weights: save it as a file of its own"
            if averages
            else ""
        )
        raise JobError(f"{path}: has no weights, neither at its top nor below {' or '.join(_STATE_DICT_KEYS)}{hint}")
    return state


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise JobError(f"{path}: is not a safetensors file that can be read ({error})") from None


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; memory-mapped where it is a zip, so that an optimizer's state takes no memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, for bytes that are no pickle
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 -- torch's reader raises many errors for bytes that are no checkpoint
        if isinstance(error, pickle.UnpicklingError) and _CODE.search(str(error)):
            raise JobError(
                f"{path}: contains more than tensors, code that loading it would run; save its state dict as "
                ".safetensors where you trust it"
            ) from None
        # torch's own message helps for a truncated zip or a file that may not be opened, and for nothing else.
        reason = f" ({_first_line(error)[:120]})" if isinstance(error, OSError | RuntimeError) and str(error) else ""
        raise JobError(f"{path}: is not a checkpoint that can be read{reason}") from None
    if not isinstance(content, Mapping):
        raise JobError(f"{path}: is not a state dict but a {type(content).__name__}")
    return dict(content)


# State dict -> the state dict that a model expects.


def _convert(model: str, skeleton: nn.Module, state: StateDict) -> StateDict:
    """Let timm rename and resize what its own loading would, where the file does not fit as it is."""
    expected = skeleton.state_dict()
    state = _with_batch_counters(expected, state)
    convert = _timm_conversion(model, skeleton)
    if convert is None or not any(_differences(expected, state)):
        return state
    try:
        floats = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        converted = _with_batch_counters(expected, convert(floats))
    except Exception:  # noqa: BLE001 -- timm's conversion may break anywhere for a file of another model: no fit
        return state
    fits = not any(_differences(expected, converted)) and not any(value.is_meta for value in converted.values())
    return converted if fits and not _resizes_more_than_positions(state, converted) else state


def _with_batch_counters(expected: StateDict, state: StateDict) -> StateDict:
    """Add the norms' counts of training steps where the file, as the oldest do, has none; they are never used here."""
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith("num_batches_tracked")}
    return {**counters, **state}


def _timm_conversion(model: str, skeleton: nn.Module) -> Callable[[StateDict], StateDict] | None:
    """Find the function that timm itself loads this model with; its name and place are timm's habit, not an API."""
    for module in (timm.models.model_entrypoint(model).__module__, type(skeleton).__module__):
        for name in ("checkpoint_filter_fn", "_filter_fn"):
            convert: Callable[..., StateDict] | None = getattr(sys.modules[module], name, None)
            if convert is None:
                continue
            parameters = inspect.signature(convert).parameters
            options = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}  # DeiT III's names
            more = (skeleton,) if len(parameters) > 1 else ()
            return lambda state: convert(state, *more, **options)
    return None


def _resizes_more_than_positions(state: StateDict, converted: StateDict) -> bool:
    """Whether the conversion resized what does not depend on the image size: the patches of another model."""
    return any(
        name in converted and converted[name].ndim == value.ndim and converted[name].shape != value.shape
        for name, value in state.items()
        if not _POSITION_NAMES.search(name)
    )


def _differences(expected: StateDict, state: StateDict) -> tuple[list[str], list[str], list[str]]:
    """Return the names that are missing, those that are unexpected, and those of a different shape or kind."""
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    other = [name for name, value in expected.items() if name in state and not _is_compatible(value, state[name])]
    return missing, unexpected, other


def _is_compatible(expected: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether one can be copied into the other; integers for a weight would be a quantised model's."""
    return expected.shape == value.shape and (value.is_floating_point() or not expected.is_floating_point())


def _check_fit(model: str, path: Path, skeleton: nn.Module, state: StateDict) -> None:
    expected = skeleton.state_dict()
    missing, unexpected, other = _differences(expected, state)
    if not missing and not unexpected and not other:
        return
    if not missing and not unexpected and set(other) <= head_names(skeleton):
        has, needs = len(state[other[0]]), len(expected[other[0]])
        raise JobError(f"{path}: is for {has} classes, but the images have {needs}")
    shapes = [f"{name} {_describe(state[name])}, not {_describe(expected[name])}" for name in other]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of a different shape", shapes))
    problems = [f"{kind} {name_few(names)}" for kind, names in kinds if names]
    raise JobError(f"{path}: does not fit {model}: {'; '.join(problems)}")


def published_classes(name: str) -> int:
    """Return the number of classes of published weights."""
    config = timm.get_pretrained_cfg(name)
    return int(config.num_classes) if config is not None else 1000


def head_names(model: nn.Module) -> set[str]:
    """Return the names of the weights that have one row per class."""
    config: Any = model.pretrained_cfg
    layers = config.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def _describe(value: torch.Tensor) -> str:
    shape = "×".join(map(str, value.shape)) or "a number"
    return shape if value.is_floating_point() else f"{shape} of {str(value.dtype).removeprefix('torch.')}"
