"""The name of a model -> the source that it is from, and the file, if it is in one."""

from pathlib import Path

# What a name begins with that is neither timm's nor of an entry point, up to its colon.
SOURCES = ("torchvision", "hf", "file", "onnx")

# The tag of weights that come with the model: in its file, its folder, or its repository on the hub.
INCLUDED = "included"

# Kinds of job that need a model as timm builds it, or one like that.
_BUILT_ANEW = ("train", "train-speed", "recipe", "tokens")


def source_of(model: str) -> str:
    """Return the source that the name of a model begins with; empty for a plain name."""
    source, colon, _ = model.partition(":")
    return source if colon and source in SOURCES else ""


def in_source(model: str) -> str:
    """Return what a model is called in its source: its name, its path or its repository."""
    return model.partition(":")[2]


def split_weights(name: str) -> tuple[str, str]:
    """Split `MODEL.TAG`, where a tag has no dot if the model is of a source, as names of files have them."""
    model, _, tag = name.rpartition(".") if source_of(name) else name.partition(".")
    return model, tag


def python_file(model: str) -> tuple[Path, str] | None:
    """Return the path and the function of `file:NETS.py:FUNCTION`; None for any other name."""
    path, colon, function = in_source(model).rpartition(":")
    return (Path(path), function) if source_of(model) == "file" and colon and path.endswith(".py") else None


def program_file(model: str) -> Path | None:
    """Return the file of a model that was exported whole, by torch.export or to ONNX; None for any other name."""
    whole = source_of(model) == "onnx" or (source_of(model) == "file" and not python_file(model))
    return Path(in_source(model)) if whole else None


def file_stem(name: str) -> str:
    """Return how a file of weights is called: `MODEL` or `MODEL.TAG`, with `_` for what no name of a file has."""
    return name.replace(":", "_").replace("/", "_") if source_of(name) else name


def unsupported(kind: str, model: str, tag: str = "") -> str:
    """Return why a kind of job can do nothing with a model and weights of this tag; empty if it may."""
    if source_of(model) and "." in tag:
        return f"the tag '{tag}' of weights of '{model}' has a dot, as names of files have; rename it"
    if kind in {"count", "cost"} and source_of(model) == "onnx":
        return f"ONNX Runtime counts neither parameters nor MACs of '{model}'; export it with torch.export as well"
    if kind in _BUILT_ANEW and source_of(model):
        return f"{kind} jobs take models of timm and of entry points in harness.models, not '{model}'"
    return ""
