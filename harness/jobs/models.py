"""Name and size -> a model of timm's, of another source or of the user's own: random weights, or the meta device."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import timm
import torch
from timm.data.constants import DEFAULT_CROP_PCT
from timm.models import get_arch_pretrained_cfgs
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.errors import HarnessError, JobError, did_you_mean
from harness.jobs import other_models
from harness.jobs.data.preprocess import NORMALIZATIONS
from harness.machine.own_models import GROUP, own_model, own_model_names
from harness.plan.job import CODE, METHOD, Job
from harness.specs.checked import Scalar
from harness.specs.importing.models import PublicWeights
from harness.specs.kinds import SETTINGS
from harness.specs.model_names import program_file, python_file, source_of
from harness.specs.plugins import plugin_value

CHANNELS = 3
IMAGENET_CLASSES = 1000

# The names of normalisations in a spec.
_NORMS: Mapping[tuple[object, object], str] = {statistics: name for name, statistics in NORMALIZATIONS.items()}

# The size of images in pixels: the side of square ones, or height and width.
Size = int | tuple[int, int]

# Where a transformer has dropout: behind the position embedding, the projection of each attention and both layers of
# each MLP, by timm's names.  So it is in ViT, and `drop_rate` meant these in the authors' timm 0.3.2 (25 modules in
# DeiT-Ti, since one served both layers of an MLP).  In timm 1.x `drop_rate` is the dropout of the classifier alone.
_TRANSFORMER_DROPOUT = ("pos_drop", "proj_drop", "drop1", "drop2")


def unknown_model_message(name: str) -> str:
    """Return a sentence for a name that is not of exactly one model, with the nearest that is; empty if it is.

    A model is one of timm's, of another source, or the user's own by an entry point: what is registered with timm in
    another way is refused, since its code would be in no job's key.
    """
    if source_of(name):
        return other_models.problem(name)
    own, registered = own_model(name), _registering_module(name)
    is_timms = registered.startswith("timm.")
    if own:
        clash = f"timm has a model '{name}', too; rename the entry point {own.value} in {GROUP}"
        return clash if is_timms else _loading_problem(own)
    if is_timms:
        return ""
    if registered:
        return (
            f"'{name}' is registered with timm by {registered}, where a change of its code would not be noticed; make "
            f"it an entry point in {GROUP}"
        )
    if message := other_models.unknown_source_message(name):
        return message
    known = (*own_model_names(), *timm.list_models())
    return f"timm {timm.__version__} knows no model '{name}'{did_you_mean(name, known)}"


def unknown_model_messages(names: tuple[str, ...]) -> dict[str, str]:
    """Return a sentence for each of these names that is not of exactly one model."""
    return {name: message for name in names if (message := unknown_model_message(name))}


def model_names() -> dict[str, tuple[PublicWeights, ...]]:
    """Return every model of timm's and of the user's own, each with its public weights, the default ones first."""
    return {**{name: _public_weights(name) for name in timm.list_models()}, **dict.fromkeys(own_model_names(), ())}


def _public_weights(name: str) -> tuple[PublicWeights, ...]:
    """Return the weights for the classes of ImageNet-1k, prepared in a way that a spec can name."""
    configs = {named.partition(".")[2]: config for named, config in get_arch_pretrained_cfgs(name).items()}
    return tuple(
        PublicWeights(
            tag=tag,
            res=int(config.input_size[-1]),
            crop=float(config.crop_pct or DEFAULT_CROP_PCT),
            interpolation=str(config.interpolation),
            norm=_NORMS[tuple(config.mean), tuple(config.std)],
        )
        for tag, config in configs.items()
        if config.has_weights
        and config.num_classes == IMAGENET_CLASSES
        and (tuple(config.mean), tuple(config.std)) in _NORMS
        and config.interpolation in SETTINGS["interpolation"].choices
    )


def size_of(job: Job) -> tuple[int, int]:
    """Return height and width of the images of a job, in pixels."""
    return int(job["res"]), int(job.get("width") or job["res"])


def size_text(res: Size) -> str:
    """Return a size of images for a message: one number where they are square."""
    height, width = _sides(res)
    return f"{height}" if height == width else f"{height}x{width}"


def _sides(res: Size) -> tuple[int, int]:
    return (res, res) if isinstance(res, int) else res


def home_module(name: str) -> str:
    """Return the module of the function that builds a model; empty for a name of no model."""
    own = own_model(name)
    return own.module if own else _registering_module(name)


def _registering_module(name: str) -> str:
    return str(timm.models.model_entrypoint(name).__module__) if timm.is_model(name) else ""


def own_function(name: str) -> Callable[..., object] | None:
    """Return the function of the user's own that builds a model, by an entry point or in a Python file; None of others.

    Raises `JobError` where it cannot be loaded.
    """
    if python_file(name):
        return other_models.builder(name, (0, 0))
    own = own_model(name)
    if own is None:
        return None
    try:
        return plugin_value(own, "model")  # type: ignore[no-any-return]
    except HarnessError as error:
        raise JobError(str(error)) from error


def preprocessing_warnings(job: Job) -> list[str]:
    """Return a warning where an evaluation preprocesses images otherwise than its weights are for.

    That is what torchvision says of its own, and a function of the user's as `preprocessing`, a mapping of settings.
    """
    model, tag = str(job["model"]), str(job["weights"])
    if source_of(model) == "torchvision":
        declared = other_models.torchvision_preprocessing(model, tag)
    else:
        declared = getattr(own_function(model), "preprocessing", {})
    others = {name: value for name, value in declared.items() if not _same_setting(job.get(name), value)}
    meant = ", ".join(f"{name} = {value}" for name, value in others.items())
    here = ", ".join(f"{name} = {job.get(name)}" for name in others)
    return [f"{job.weights_name} is for {meant}, and was evaluated with {here}: set what it is for"] if others else []


def _same_setting(ours: Scalar, declared: Scalar) -> bool:
    if isinstance(declared, float) and isinstance(ours, (int, float)):
        return math.isclose(ours, declared, abs_tol=1e-3)  # as 232 pixels cut to 224, a crop of 0.966
    return ours == declared


def check_code(job: Job) -> None:
    """Raise `JobError` if the code of the user's own is not what it was when the job was planned."""
    now = Job.of(job.kind, dict(job.settings))
    for name, what in ((CODE, "model"), (METHOD, "kind")):
        if now.get(name) != job.get(name):
            raise JobError(f"the code of its {what} has changed since the job was planned; run the same command again")


def _loading_problem(entry: EntryPoint) -> str:
    try:
        plugin_value(entry, "model")
    except HarnessError as error:
        return str(error)
    return ""


def build_on_meta(
    name: str, res: Size, *, classes: int | None = None, shape: Mapping[str, float] | None = None
) -> nn.Module:
    """Build the model on the meta device: its structure and sizes, no weights, no memory.

    `classes` is timm's own number unless it is given; `shape` are arguments that differ from those of the name.  A
    program stays as it was exported, on the CPU.
    """
    if program_file(name):
        return _create(name, res)
    with _MetaDevice():
        return _create(name, res, classes=classes, shape=shape).to("meta")


def build_with_random_weights(name: str, res: Size, *, classes: int | None = None) -> nn.Module:
    """Build the model on the CPU, in eval mode, with random weights; throughput does not depend on which.

    timm's own initialisation draws each weight from a truncated normal distribution, which for a ViT-L takes longer
    than timing it once.  So the weights are filled from one block of random numbers, scaled by fan-in, unless the
    model has computed tensors, which building it on the meta device would lose.
    """
    model = build_on_meta(name, res, classes=classes)
    if program_file(name):
        return model
    if _has_computed_tensors(model):
        return _create(name, res, classes=classes)
    model = model.to_empty(device="cpu")
    _fill(model)
    return model


def build_initialised(name: str, res: Size) -> nn.Module:
    """Build the model on the CPU, in eval mode, with timm's own random weights and number of classes."""
    return _create(name, res)


def build_empty(name: str, res: int, *, classes: int, shape: Mapping[str, int] | None = None) -> nn.Module:
    """Build the model on the CPU, uninitialised, for weights that will fill every parameter."""
    model = build_on_meta(name, res, classes=classes, shape=shape)
    if _has_computed_tensors(model):
        return _create(name, res, classes=classes, shape=shape)
    return model.to_empty(device="cpu")


def build_trainable(name: str, res: int, *, classes: int, shape: Mapping[str, float]) -> nn.Module:
    """Build the model on the CPU with timm's own random weights.

    `shape` may have rates, too: `drop_path_rate`, and `drop_rate`, which in a model with attention is that of
    `transformer_dropouts`.
    """
    return _create(name, res, classes=classes, shape=shape)


def has_attention(model: nn.Module) -> bool:
    """Whether it is a transformer, or a convnet with attention."""
    return any(name.endswith(".proj_drop") for name, _ in model.named_modules())


def transformer_dropouts(model: nn.Module) -> dict[str, nn.Dropout]:
    """Return the places where a model with attention has dropout, by name; none of a convnet."""
    if not has_attention(model):
        return {}
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    return {name: module for name, module in modules.items() if name.rpartition(".")[2] in _TRANSFORMER_DROPOUT}


class _MetaDevice(TorchFunctionMode):
    """Creates parameters and buffers on the meta device, everything else where it belongs.

    Under `torch.device("meta")` the older timm fails: it reads the rates of stochastic depth from a `linspace`.
    """

    _factories = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 -- as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        if func in self._factories and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _create(name: str, res: Size, *, classes: int | None = None, shape: Mapping[str, float] | None = None) -> nn.Module:
    if message := unknown_model_message(name):
        raise JobError(message)
    own, source = own_model(name), source_of(name)
    build = own.load() if own else partial(timm.create_model, name, pretrained=False)
    if source:
        build = other_models.builder(name, _sides(res))
    config = timm.get_pretrained_cfg(name)
    arguments: dict[str, Any] = dict(shape or {})
    dropout = arguments.pop("drop_rate", 0.0)
    # A model of fixed input size (position embedding, windows) must be built for it; a convnet takes any.
    fixed = config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != _sides(res)
    if fixed or ((own or python_file(name)) and "img_size" in inspect.signature(build).parameters):
        arguments["img_size"] = res if isinstance(res, int) or res[0] != res[1] else res[0]
    if classes is not None and (config is None or config.num_classes != classes):
        arguments["num_classes"] = classes
    builder = own.value if own else source or "timm"
    try:
        model: object = build(**arguments)
        if dropout and isinstance(model, nn.Module) and not has_attention(model):
            model = build(drop_rate=dropout, **arguments)  # where a convnet has it is where its code puts it
    except JobError:
        raise
    except Exception as error:  # the user's code may fail in any way, and so may timm's
        raise JobError(f"{builder} cannot build '{name}' for {size_text(res)} pixels: {error}") from error
    if not isinstance(model, nn.Module):
        raise JobError(f"{builder} returns a {type(model).__name__} for '{name}', which must be a torch.nn.Module")
    for place in transformer_dropouts(model).values() if dropout else ():
        place.p = dropout
    _check_patches(name, res, model)
    return (other_models.logits_of(model) if own or source else model).eval()


def _check_patches(name: str, res: Size, model: nn.Module) -> None:
    """Refuse a size that the patches do not cover: timm would silently leave out the border."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(length % side for length, side in zip(_sides(res), patch, strict=True)):
        text = f"'{name}' has patches of {patch[0]} pixels, which do not divide {size_text(res)}; choose a multiple"
        raise JobError(text)


def _has_computed_tensors(model: nn.Module) -> bool:
    """Whether there is a tensor that is neither a parameter nor a norm's statistics."""
    for module in model.modules():
        buffers = {name for name, _ in module.named_buffers(recurse=False)}
        if buffers - {"running_mean", "running_var", "num_batches_tracked"}:
            return True
        if any(isinstance(value, torch.Tensor) for value in vars(module).values()):
            return True
    return False


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    block = torch.empty(2**20).uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)  # variance 1
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        flat, scale = parameter.view(-1), parameter[0].numel() ** -0.5
        for start in range(0, flat.numel(), block.numel()):
            piece = flat[start : start + block.numel()]
            torch.mul(block[: piece.numel()], scale, out=piece)
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if name.endswith("running_var") else 0)
