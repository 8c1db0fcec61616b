"""A model's name and a folder, or timm's hub -> the file of its weights, checked -> the model."""

import argparse
import hashlib
import inspect
import pickle
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from harness.errors import JobError, did_you_mean, name_few
from harness.jobs import hub, models, other_models
from harness.machine.own_models import own_model
from harness.specs.model_names import INCLUDED, file_stem, in_source, program_file, source_of, split_weights

StateDict = dict[str, torch.Tensor]

# How a file of weights ends, the best ending first.
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")

# The authors' and torch's checkpoints have the beginning of their SHA-256 in their name.
_FILE_NAME = re.compile(rf"(?P<stem>.+?)(?:-(?P<hash>[0-9a-f]{{8,64}}))?(?:{'|'.join(map(re.escape, ENDINGS))})")

_HUB_FILES = other_models.HUB_WEIGHTS

# What scripts and the hub call weights, whatever the model.
_NAMELESS = re.compile(r"(?:model|pytorch_model|checkpoint|model_best)\b.*")

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
    """The file of a model's weights.

    `origin` is `author checkpoint` (the published file as timm or torchvision names it, hash verified), `hub`,
    `trained`, or `file` where only the user's name says what it is.  `included` weights come with their model.
    `also_fits` are timm's other weights, `MODEL.TAG`, that this name may as well be for; `unread` are files with the
    same name and another ending.
    """

    path: Path
    sha256: str
    origin: str
    included: bool = False
    also_fits: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What the result records."""
        facts = {"file": self.path.name, "sha256": self.sha256, "origin": self.origin}
        return {**facts, "also_fits": list(self.also_fits)} if self.also_fits else facts

    @property
    def warnings(self) -> list[str]:
        """What the result warns of."""
        unread = f"{self.path.name} was read and not {' or '.join(self.unread)}: keep the right one"
        return [unread] if self.unread else []


def find_weights(model: str, tag: str, folder: Path | None) -> WeightsFile:
    """Find the weights of `MODEL.TAG` where they come with the model, in a folder, or on the hub if none is given.

    Raises `JobError` if they are missing, cannot be downloaded, or do not have the hash in the name of the file.
    """
    if program_file(model) and tag != INCLUDED:
        raise JobError(f"'{model}' has its weights in itself; set weights = '{INCLUDED}'")
    if (path := included(model, tag)) is not None:
        if not path.is_file():
            raise JobError(f"{path}: is no file, but '{model}' names it as its weights '{tag}'")
        return WeightsFile(path=path, sha256=sha256_of(path), origin="file", included=_come_whole(model, tag))
    if folder is None or _come_whole(model, tag):
        return _on_hub(model, tag)
    try:
        return _in_folder(model, tag, folder)
    except OSError as error:
        raise JobError(f"--weights {folder}: cannot be read: {error.strerror}") from error


def _come_whole(model: str, tag: str) -> bool:
    """Whether the source of a model loads it together with its weights."""
    return tag == INCLUDED and (program_file(model) is not None or source_of(model) == "hf")


def included(model: str, tag: str) -> Path | None:
    """Return the file of weights that come with a model: in its file or folder, or by its builder; None of others.

    The function that an entry point or a Python file names may have them as `weights`, a mapping from tag to path.
    """
    if tag == INCLUDED and (program := program_file(model)):
        return program
    if tag == INCLUDED and source_of(model) == "hf":
        paths = (Path(in_source(model), file) for file in _HUB_FILES)
        return next((path for path in paths if path.is_file()), None)
    path = getattr(models.own_function(model), "weights", {}).get(tag)
    return None if path is None else Path(path)


# A folder -> a file.


def _in_folder(model: str, tag: str, folder: Path) -> WeightsFile:
    if not folder.is_dir():
        raise JobError(f"--weights {folder}: there is no such folder")
    name, stem = f"{model}.{tag}", file_stem(model)
    for paths in _candidates(model, tag, folder):
        if paths:
            return _hub_file(paths[0]) if paths[0].name in _HUB_FILES else _named_file(model, tag, *paths)
    author_file = _author_file(name)
    endings = f"{', '.join(ENDINGS[1:-1])} or {ENDINGS[-1]}"
    tried = f"looked for {stem}.{tag}.safetensors, {stem}.safetensors, the same as {endings}"
    tried += f", and {author_file}" if author_file else ""
    raise JobError(f"--weights {folder}: no weights of {name} there ({tried}){_hint(stem, folder)}")


def _candidates(model: str, tag: str, folder: Path) -> Iterator[list[Path]]:
    """Yield what may be the weights of `MODEL.TAG`, by what a name says: the tag, then a hash, then the model alone.

    Names that say the same are yielded together, the best ending first.  Raises `JobError` if their hashes differ.
    """
    name, entries = f"{model}.{tag}", sorted(path.name for path in folder.iterdir())
    author_file = _author_file(name)
    others = {_author_file(other) for other in _known_tags(model) if other != name}
    stem = file_stem(model)

    def plain(stem: str) -> list[Path]:
        return [folder / f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" in entries]

    def hashed(stem: str) -> list[Path]:
        matches = (match for entry in entries if (match := _FILE_NAME.fullmatch(entry)))
        files = [m[0] for m in matches if m["hash"] and m["stem"] == stem and m[0] not in others]
        if len(files) > 1:
            names = " and ".join(files)
            raise JobError(f"--weights {folder}: {names} may both be {name}; rename the right one to {name}.pth")
        return [folder / file for file in files]

    yield plain(file_stem(name))
    yield list(_of_repository(name, folder))
    yield hashed(file_stem(name))
    yield [folder / author_file] if author_file in entries and not author_file.startswith(f"{model}.") else []
    yield hashed(stem)
    yield plain(stem)


def _of_repository(name: str, folder: Path) -> Iterator[Path]:
    """Yield the weights in a repository of the hub: a folder called `MODEL.TAG`, this one or below, or a cache."""
    roots = [folder / name, *([folder] if folder.name == name else [])]
    yield from (root / file for root in roots for file in _HUB_FILES if (root / file).is_file())
    repository = _repository(name)
    if repository and (folder / f"models--{repository.replace('/', '--')}").is_dir():
        yield from hub.cached(repository, _HUB_FILES, cache_dir=folder)


def _known_tags(model: str) -> list[str]:
    """Return the names, `MODEL.TAG`, of all weights that timm, or torchvision, has of a model."""
    if source_of(model) == "torchvision":
        return [f"{model}.{tag}" for tag in other_models.torchvision_weights(model)]
    names: list[str] = timm.list_pretrained(f"{model}.*")
    return names


def _author_file(name: str) -> str:
    """Return the name of the file that the authors published; empty if timm knows none that torch can read."""
    model, tag = split_weights(name)
    if source_of(model) == "torchvision":
        return other_models.torchvision_weights(model).get(tag, "").rpartition("/")[2]
    url = str(_timm_config(name, "url") or "")
    return "" if url.endswith(".npz") else url.rpartition("/")[2]


def _timm_config(name: str, key: str) -> Any:  # noqa: ANN401 -- of any kind
    """Return what timm knows about weights; None of the user's own, which it does not know."""
    try:
        return getattr(timm.get_pretrained_cfg(name), key, None)
    except RuntimeError:
        return None


def _hint(model: str, folder: Path) -> str:
    """Name what is in a folder in place of weights: files of another kind or without a name, or a similar name."""
    entries = sorted(path.name for path in folder.iterdir())
    stems = [(entry, ending) for entry in entries for ending in ENDINGS if entry.endswith(ending)]
    other = re.compile(rf"{re.escape(model)}(?![A-Za-z0-9]).*")
    kinds = {entry for entry in entries if other.fullmatch(entry)} - {entry for entry, _ in stems}
    near = [entry for entry in entries if entry in kinds or _NAMELESS.fullmatch(entry)]
    if near:
        return f"; also there, and not taken: {name_few(near)}"
    return did_you_mean(model, (entry.removesuffix(ending) for entry, ending in stems))


def _named_file(model: str, tag: str, path: Path, *unread: Path) -> WeightsFile:
    """Check the first of some files of weights with the same name, which has the model, a tag or a hash.

    Raises `JobError` if it has not the hash in its name.
    """
    if not path.is_file():
        raise JobError(f"{path}: is {'a link to what is not there' if path.is_symlink() else 'no file'}")
    name, digest, match = f"{model}.{tag}", sha256_of(path), _FILE_NAME.fullmatch(path.name)
    declared = match["hash"] if match else None
    if declared:
        _check_hash(path, declared, digest)
    published = bool(declared) and path.name == _author_file(name)
    others: list[str] = []
    if match and match["stem"] == model and not published and name in _known_tags(model):
        others = [other for other in _known_tags(model) if other != name]
    origin = "author checkpoint" if published else "file"
    names = tuple(path.name for path in unread)
    return WeightsFile(path=path, sha256=digest, origin=origin, also_fits=tuple(others), unread=names)


def _check_hash(path: Path, prefix: str, digest: str) -> None:
    if not digest.startswith(prefix):
        problem = _other_content(path) or (
            f"its SHA-256 begins with {digest[:12]}, but its name says {prefix[:12]}; download it again"
        )
        raise JobError(f"{path}: {problem}")


@cache
def _cached_sha256(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; in one process, an unchanged file is read once."""
    stat = path.stat()
    return _cached_sha256(path, stat.st_size, stat.st_mtime_ns)


# The hub -> a file.


def _on_hub(model: str, tag: str) -> WeightsFile:
    if message := unknown_tag_message(model, tag):
        raise JobError(message)
    name = f"{model}.{tag}"
    if source_of(model) == "torchvision":
        return replace(_named_file(model, tag, _torchvision_file(name)), origin="hub")
    repository = _repository(name)
    if not repository:
        raise JobError(f"timm has no weights {name} on its hub; {_remedy(name)}")
    path = hub.download(repository, _HUB_FILES, what=f"the weights {name}", remedy=_remedy(name))
    return replace(_hub_file(path, origin="hub"), included=_come_whole(model, tag))


def _repository(name: str) -> str:
    """Return the repository of weights on the hub; empty if they have none."""
    model, tag = split_weights(name)
    if source_of(model):
        return other_models.repository(model) if tag == INCLUDED else ""
    repository = str(_timm_config(name, "hf_hub_id") or "")
    return f"{repository}{name}" if repository.endswith("/") else repository


def _torchvision_file(name: str) -> Path:
    """Return torchvision's file of weights, which torch's own cache has or is given."""
    model, tag = split_weights(name)
    url = other_models.torchvision_weights(model)[tag]
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise JobError(
                f"the weights {name} could not be downloaded from {url} ({hub.first_line(error)}); provide them with "
                f"--weights DIR, as a file {path.name}"
            ) from None
    return path


def _hub_file(path: Path, *, origin: str = "file") -> WeightsFile:
    """Check a file of a repository, which a cache names by its SHA-256.

    Raises `JobError` if it has another.
    """
    digest, blob = sha256_of(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        _check_hash(path.resolve(), blob, digest)
    return WeightsFile(path=path, sha256=digest, origin=origin)


def unknown_tag_message(model: str, tag: str) -> str:
    """Return a sentence for weights that timm does not have, with the nearest ones; empty if it has them."""
    if message := models.unknown_model_message(model):
        return message
    if source_of(model) and _repository(f"{model}.{tag}"):
        return ""
    if own_model(model) or source_of(model) not in ("", "torchvision"):
        where = "a hub" if source_of(model) else "timm's hub"
        return f"the weights {model}.{tag} are not on {where}; {_remedy(f'{model}.{tag}')}"
    known = _known_tags(model)
    if f"{model}.{tag}" in known:
        return ""
    origin = f"torchvision {torchvision.__version__}" if source_of(model) else f"timm {timm.__version__}"
    return f"{origin} has no weights '{model}.{tag}'{did_you_mean(f'{model}.{tag}', known)}"


def _remedy(name: str) -> str:
    return f"provide them with --weights DIR, as a file {file_stem(name)}.safetensors"


# A file -> a model.


def load_model(model: str, *, res: int, classes: int, file: WeightsFile) -> nn.Module:
    """Build the model for images of `res` pixels with these weights: on the CPU, in eval mode, float32.

    Every name and shape must fit, except that position embeddings are resized to the image size as timm does.  Raises
    `JobError` for a file that is no checkpoint, contains code, does not fit, or contains numbers that are not finite.
    """
    if file.included:
        return other_models.load_included(model, file.path, res=res, classes=classes)
    state = read_state_dict(model, res=res, classes=classes, file=file)
    loaded = models.build_empty(model, res, classes=classes)
    loaded.load_state_dict(state, strict=True)
    return loaded.float().eval()


def read_state_dict(model: str, *, res: int, classes: int | None, file: WeightsFile) -> StateDict:
    """Read the weights of a model and check that they fit it; `classes` is timm's own number if it is None.

    Raises `JobError` as `load_model` does.
    """
    if file.included:
        return other_models.load_included(model, file.path, res=res, classes=classes).state_dict()
    skeleton = models.build_on_meta(model, res, classes=classes)
    state = _convert(model, skeleton, _read(file.path))
    _check_fit(model, file.path, skeleton, state)
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise JobError(f"{file.path}: {name} has numbers that are not finite; the file is damaged")
    return state


def _read(path: Path) -> StateDict:
    # By its content: a size and a JSON object, whatever the ending says.
    content = _read_safetensors(path) if _beginning(path, 9)[7:] == b"\0{" else _read_checkpoint(path)
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
    """Read a checkpoint, with the arguments that a training script puts into it; they are data, and not used.

    It is memory-mapped where it is a zip that stores its members as they are, so that an optimizer's state takes no
    memory.
    """
    # Torch maps a path only, and takes its ending at its word.
    mapped = _is_stored(path) and path.suffix != ".safetensors"
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, for bytes that are no pickle
            source: Any = path if mapped else file
            content: object = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # noqa: BLE001 -- torch's reader raises many errors for bytes that are no checkpoint
        if isinstance(error, pickle.UnpicklingError) and _CODE.search(str(error)):
            raise JobError(
                f"{path}: contains more than tensors, code that loading it would run; save its state dict as "
                ".safetensors where you trust it"
            ) from None
        # torch's own message helps for a truncated zip or a file that may not be opened, and for nothing else.
        reason = f" ({hub.first_line(error)[:120]})" if isinstance(error, OSError | RuntimeError) and str(error) else ""
        raise JobError(f"{path}: {_other_content(path) or f'is not a checkpoint that can be read{reason}'}") from None
    if not isinstance(content, Mapping):
        raise JobError(f"{path}: is not a state dict but a {type(content).__name__}")
    return dict(content)


def _is_stored(path: Path) -> bool:
    """Whether a file is a zip of uncompressed members; of others torch would map compressed bytes as numbers.

    Raises `JobError` if a member is damaged, which torch does not check, encrypted, or there twice.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            members, problem = archive.infolist(), _problem_of_members(archive)
    except Exception as error:  # noqa: BLE001 -- zipfile reports damaged bytes in as many ways as there are
        problem = f"is a damaged zip ({error}); download it again"
    if problem:
        raise JobError(f"{path}: {problem}")
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _problem_of_members(archive: zipfile.ZipFile) -> str:
    members = archive.infolist()
    counts = Counter(member.filename for member in members)
    if twice := [name for name, count in counts.items() if count > 1]:
        return f"has two members called {twice[0]}, and which is meant is unknown; save it again"
    if any(member.flag_bits & 1 for member in members):
        return "is encrypted; save it again without a password"
    for member in members:
        if member.CRC:  # 0 where torch was told to compute none
            with archive.open(member) as content:
                while content.read(2**20):
                    pass  # which raises if the checksum is wrong
    return ""


# How files begin that are no weights.
_BEGINNINGS = {
    rb"\Z": "is empty; download it again",
    rb"version https://git-lfs": "is a Git LFS pointer to the weights; run `git lfs pull` in the folder it is from",
    rb"(?i)\s*<(?:!doctype|html|head|\?xml|!--)": "is a web page, not weights; download the file itself",
    rb"[\t\r\n -~]+\Z": "is text, not weights; download the file itself",
    rb"\x1f\x8b": "is compressed by gzip; unpack it",
    rb"(?s).{257}ustar": "is a tar archive; unpack it, or save its state dict as .safetensors",
}


def _other_content(path: Path) -> str:
    """Say what a file is that is no weights, by its first bytes; empty if they do not tell."""
    start = _beginning(path, 512)
    return next((message for beginning, message in _BEGINNINGS.items() if re.match(beginning, start)), "")


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror})") from None


# State dict -> the state dict that a model expects.


def _convert(model: str, skeleton: nn.Module, state: StateDict) -> StateDict:
    """Let timm rename and resize what its own loading would, where the file does not fit as it is."""
    expected = skeleton.state_dict()
    state = _with_batch_counters(expected, state)
    if source_of(model) == "torchvision":  # whose files may have classifiers that are for the training alone
        state = {key: value for key, value in state.items() if key in expected or not key.startswith("aux")}
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
    for module in (models.home_module(model), type(skeleton).__module__):
        for name in ("checkpoint_filter_fn", "_filter_fn"):
            convert: Callable[..., StateDict] | None = getattr(sys.modules.get(module), name, None)
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


def published_size(name: str) -> int | None:
    """Return the side of the images, in pixels, that published weights are for; None where timm does not say."""
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else None


def head_names(model: nn.Module) -> set[str]:
    """Return the names of the weights that have one row per class."""
    config: Any = getattr(model, "pretrained_cfg", {})  # which a model of the user's own may lack
    layers = config.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def _describe(value: torch.Tensor) -> str:
    shape = "×".join(map(str, value.shape)) or "a number"
    return shape if value.is_floating_point() else f"{shape} of {str(value.dtype).removeprefix('torch.')}"
