"""Models that are not timm's, by the source that their name begins with -> a module, or a sentence why there is none.

A name is `torchvision:NAME`, `hf:FOLDER` or `hf:REPOSITORY` (transformers), `file:PATH.pt2` (torch.export),
`file:PATH.py:FUNCTION`, or `onnx:PATH` (ONNX Runtime).
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from timm.layers import use_fused_attn
from torch import nn

from harness.errors import JobError, did_you_mean
from harness.jobs import hub
from harness.jobs.data.preprocess import NORMALIZATIONS
from harness.specs.checked import Scalar
from harness.specs.model_names import SOURCES, in_source, program_file, python_file, source_of

# Packages that a source needs and that the harness does not install by itself; each is the extra of its name.
_PACKAGES = {"hf": "transformers", "onnx": "onnxruntime"}

# The files of a repository, or a folder, of transformers: its weights, the best first, and what says how it is built.
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CONFIG = "config.json"


def problem(name: str) -> str:
    """Return a sentence for a name that is of no model of its source; empty if it is."""
    source = source_of(name)
    package = _PACKAGES.get(source, "torch")
    if importlib.util.find_spec(package) is None:
        return f"'{name}' needs {package}, which is not installed; run `pip install 'deit-harness[{source}]'`"
    try:
        if source == "torchvision":
            _check_torchvision(name)
        elif source == "hf":
            _config_folder(name)
        elif python_file(name):
            _function(name)
        else:
            _check_file(name)
    except JobError as error:
        return str(error)
    return ""


def unknown_source_message(name: str) -> str:
    """Return a sentence for a name with a colon after what is no source; empty for any other name."""
    source, colon, _ = name.partition(":")
    known = f"they are {', '.join(SOURCES[:-1])} and {SOURCES[-1]}"
    return f"'{source}' of '{name}' is no source of models; {known}" if colon else ""


def builder(name: str, size: tuple[int, int]) -> Callable[..., object]:
    """Return the function that builds a model for images of a size, height and width; one that can takes `num_classes`.

    Raises `JobError` as `problem` says.
    """
    set_attention()
    source = source_of(name)
    if source == "torchvision":
        return _torchvision(name, size)
    if source == "hf":
        return _transformers(name)
    return _function(name) if python_file(name) else lambda: _program(name)


def load_included(name: str, path: Path, *, res: int, classes: int | None) -> nn.Module:
    """Build a model with the weights that come with it, in eval mode on the CPU; `path` is their file.

    Raises `JobError` if they do not fit, or are for another number of classes (None: for any).
    """
    set_attention()
    model = _pretrained(name, path) if source_of(name) == "hf" else _program(name)
    model.eval()
    try:
        with torch.inference_mode():
            scores = model(torch.zeros(1, 3, res, res))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise JobError(f"'{name}' fails on an image of {res} pixels: {hub.first_line(error)}") from error
    if isinstance(scores, torch.Tensor) and scores.ndim == 2 and classes not in {None, scores.shape[1]}:
        raise JobError(f"{path}: is for {scores.shape[1]:,} classes, but the images have {classes:,}")
    return model


def set_attention() -> None:
    """Have torch's attention as timm's is: fused or not.  timm asks its own switch, these models ask torch's."""
    fused = use_fused_attn()
    torch.backends.mha.set_fastpath_enabled(fused)
    torch.backends.cuda.enable_flash_sdp(fused)
    torch.backends.cuda.enable_mem_efficient_sdp(fused)
    torch.backends.cuda.enable_cudnn_sdp(fused)


def logits_of(model: nn.Module) -> nn.Module:
    """Have a model return its class scores where it returns an object that has them as `logits`."""

    def scores(_model: nn.Module, _images: object, output: object) -> object:
        return getattr(output, "logits", output)

    model.register_forward_hook(scores)
    return model


# torchvision.


def torchvision_weights(name: str) -> Mapping[str, str]:
    """Return the address of each of torchvision's weights of a model, by its tag.  Raises `JobError` as `problem`."""
    _check_torchvision(name)
    return {tag.name: str(tag.url) for tag in torchvision.models.get_model_weights(in_source(name))}


def torchvision_preprocessing(name: str, tag: str) -> Mapping[str, Scalar]:
    """Return the settings of an evaluation that torchvision has for some of its weights; none for others."""
    known = torchvision.models.get_model_weights(in_source(name)).__members__
    if tag not in known:
        return {}
    transform: Any = known[tag].transforms()
    res, norm = transform.crop_size[0], (tuple(transform.mean), tuple(transform.std))
    return {
        "res": res,
        "crop": res / transform.resize_size[0],
        "interpolation": transform.interpolation.value,
        "norm": next((name for name, values in NORMALIZATIONS.items() if values == norm), str(norm)),
    }


def _check_torchvision(name: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    if in_source(name) not in known:
        hint = did_you_mean(in_source(name), known)
        raise JobError(f"torchvision {torchvision.__version__} knows no classification model '{in_source(name)}'{hint}")


def _torchvision(name: str, size: tuple[int, int]) -> Callable[..., object]:
    arguments: dict[str, Any] = {"weights": None}
    if in_source(name).startswith("vit_"):
        if size[0] != size[1]:
            raise JobError(f"'{name}' takes square images, not {size[0]}x{size[1]}; set one number")
        arguments["image_size"] = size[0]
    if in_source(name).startswith("maxvit"):
        arguments["input_size"] = size
    if in_source(name) in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False  # which takes a minute
    if in_source(name) == "googlenet":
        arguments["aux_logits"] = False  # which its weights are used without
    return lambda **more: torchvision.models.get_model(in_source(name), **arguments, **more)


# transformers.


def repository(name: str) -> str:
    """Return the repository of a model on the hub; empty where it is in a folder, or of another source."""
    return in_source(name) if source_of(name) == "hf" and not Path(in_source(name)).is_dir() else ""


def _config_folder(name: str) -> Path:
    """Return the folder that has the config of a model: the one that its name says, or in the hub's cache."""
    folder = Path(in_source(name))
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise JobError(f"'{name}': the folder has no {_CONFIG}; save the model with save_pretrained")
        return folder
    remedy = "name a folder that has it, as hf:FOLDER"
    return hub.download(repository(name), (_CONFIG,), what=f"{_CONFIG} of '{name}'", remedy=remedy).parent


def _config(name: str) -> Any:  # noqa: ANN401 -- transformers' own class
    from transformers import AutoConfig  # noqa: PLC0415 -- an extra

    folder = _config_folder(name)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise JobError(f"'{name}': transformers cannot read its {_CONFIG} ({hub.first_line(error)})") from error


def _attention() -> str:
    return "sdpa" if use_fused_attn() else "eager"


def _transformers(name: str) -> Callable[..., object]:
    from transformers import AutoModelForImageClassification  # noqa: PLC0415

    def make(num_classes: int | None = None) -> object:
        config = _config(name)
        if num_classes is not None:
            config.num_labels = num_classes
        build: Callable[..., object] = AutoModelForImageClassification.from_config
        return build(config, attn_implementation=_attention())

    return make


def _pretrained(name: str, path: Path) -> nn.Module:
    """Load with transformers, which renames what is called otherwise since the file was written."""
    from transformers import AutoModelForImageClassification  # noqa: PLC0415

    config = _config(name)
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            path.parent,
            config=config,
            attn_implementation=_attention(),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=path.suffix == ".safetensors",
            weights_only=True,
        )
    except Exception as error:
        raise JobError(f"{path}: transformers cannot load it ({hub.first_line(error)})") from error
    if missing := sorted(loading["missing_keys"]):
        raise JobError(f"{path}: does not fit '{name}': missing {missing[0]}")
    return logits_of(model.float())


# A Python file.


def _function(name: str) -> Callable[..., object]:
    """Import a Python file, once in a process, and return its function that builds a model."""
    path, function = python_file(name) or (Path(), "")
    module_name = f"harness_file_{path.stem}_{abs(hash(path.resolve()))}"
    module = sys.modules.get(module_name)
    try:
        if module is None:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return getattr(module, function)  # type: ignore[no-any-return]
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise JobError(f"'{name}' cannot be loaded ({type(error).__name__}: {error})") from error


# Programs, which were exported whole.


def _check_file(name: str) -> None:
    path = program_file(name)
    assert path is not None
    if not path.is_file():
        raise JobError(f"'{name}': there is no file {path.resolve()}; a path is relative to the working folder")
    if source_of(name) == "file" and path.suffix != ".pt2":
        raise JobError(f"'{name}' is neither a program of torch.export, PATH.pt2, nor a function, PATH.py:FUNCTION")


def check_flags(name: str, changed: Mapping[str, object], *, remedy: str) -> None:
    """Raise `JobError` if a program is to be run as it cannot be; `changed` are flags other than the usual ones."""
    if program_file(name) is None:
        return
    more = ("autocast", "dtype", "channels_last", "compile") if source_of(name) == "onnx" else ()
    given = [flag for flag in (*more, "training") if changed.get(flag)]
    if given:
        raise JobError(f"'{name}' computes as it was exported, without {', '.join(given)}; set {remedy}")


class _Program(nn.Module):
    """A model that was exported whole: with its weights, in eval mode, for images of one size and maybe one batch.

    `run` computes class scores of images; `shape` has None where the program takes any number.
    """

    def __init__(self, name: str, run: Callable[[torch.Tensor], Any], shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self._name, self.run, self.shape = name, run, shape

    def train(self, _mode: bool = True) -> "_Program":  # noqa: FBT001, FBT002 -- as torch calls it
        """Leave it as it was exported."""
        return self

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ANN401
        """Return the class scores of images of the shape that it was exported for."""
        shape = tuple(images.shape)
        if len(self.shape) != 4 or any(own not in {None, size} for own, size in zip(self.shape, shape, strict=True)):
            own = " × ".join("any" if size is None else str(size) for size in self.shape)
            raise JobError(
                f"'{self._name}' was exported for images of {own}, not {' × '.join(map(str, shape))}; export it for "
                "any number of images, and of this size"
            )
        return self.run(images)


def _program(name: str) -> _Program:
    path = program_file(name)
    assert path is not None
    return _Program(name, *(_onnx(name, path) if source_of(name) == "onnx" else _exported(path)))


def _exported(path: Path) -> tuple[Callable[[torch.Tensor], Any], tuple[int | None, ...]]:
    # The sample inputs and constants of an archive are pickled: torch is to read tensors and nothing else.
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        program = torch.export.load(path)
        inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        shape = tuple(size if isinstance(size, int) else None for size in inputs[0].meta["val"].shape)
        return program.module(), shape
    except Exception as error:
        reason = hub.first_line(error)
        if "weights only" in reason.lower():
            raise JobError(
                f"{path}: contains more than tensors, code that loading it would run; export it again"
            ) from None
        raise JobError(f"{path}: torch {torch.__version__} cannot read it as a program ({reason})") from error
    finally:
        os.environ.pop(_SAFE)
        os.environ |= {} if before is None else {_SAFE: before}


_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _onnx(name: str, path: Path) -> tuple[Callable[[torch.Tensor], Any], tuple[int | None, ...]]:
    import onnxruntime  # noqa: PLC0415 -- an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise JobError(
            f"{path}: ONNX Runtime {version('onnxruntime')} cannot read it ({hub.first_line(error)})"
        ) from error
    first = session.get_inputs()[0]

    def run(images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "cpu":
            raise JobError(f"'{name}' runs on the CPU, with ONNX Runtime; measure it with --device cpu")
        try:
            return torch.from_numpy(session.run(None, {first.name: images.numpy()})[0])
        except Exception as error:
            raise JobError(f"'{name}': {hub.first_line(error)}") from error

    return run, tuple(size if isinstance(size, int) else None for size in first.shape)
