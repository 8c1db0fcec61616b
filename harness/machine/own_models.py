"""The user's own models -> their entry points and a digest of their code, read without importing any of it."""

import hashlib
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from glob import escape
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from harness.errors import HarnessError
from harness.machine.versions import package_version
from harness.specs.kinds import GROUP as KINDS_GROUP
from harness.specs.kinds import KINDS, OUR_KINDS
from harness.specs.model_names import in_source, program_file, python_file, source_of
from harness.specs.plugins import find_plugin, plugin_names

# The group of the entry points: the name is the model's, the value a function that builds it.
GROUP = "harness.models"

# The package whose code a model of another source is.
_SOURCE_PACKAGES = {"torchvision": "torchvision", "hf": "transformers", "onnx": "onnxruntime"}

# What can change a model: Python, compiled extensions, what they are compiled from, and configuration.
_CODE = (
    *(".py", *EXTENSION_SUFFIXES, ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"),
    *(".cfg", ".ini", ".json", ".toml", ".yaml", ".yml"),
)

# Code that is no part of a model: results name the versions of these.
_LIBRARIES = frozenset({"harness", "torch", "torchvision", *sys.stdlib_module_names})

# The folders of released packages.
_RELEASED = {"site-packages", "dist-packages"}

# The first name of what a line of Python imports, but for the package that it is in.
_IMPORT = re.compile(rb"(?:^|[;:])[ \t]*(?:from[ \t]+(\w+)|import[ \t]+(\w[\w., \t]*))", re.MULTILINE)

# Folders that hold none of it: hidden ones, caches, and those of results, which are called by the keys of jobs.
_NO_CODE = re.compile(r"^\.|^__pycache__$|-[0-9a-f]{10}$")


def own_model_names() -> tuple[str, ...]:
    """Return the names of all of the user's own models."""
    return plugin_names(GROUP)


def own_model(name: str) -> EntryPoint | None:
    """Return what builds a model of the user's own; None for any other name.

    Raises `HarnessError` where two packages claim the name, or where its name has a separator of weights or heads.
    """
    entry = find_plugin(GROUP, "model", name)
    if entry and re.search("[.#]", name):
        raise HarnessError(
            f"the model '{name}' in {GROUP} has a '.' or '#' in its name, which separate weights and head; rename it"
        )
    return entry


def code_digest(name: str) -> str:
    """Return a digest of the code of a model of the user's own; empty for any other name.

    The code is the package that the entry point names, or its module where that is in no package, and whatever these
    import from anywhere but released packages other than their own.  The same code has the same digest wherever it is
    installed.  Raises `HarnessError` where it is not there to be read, and as `own_model` does.
    """
    if source_of(name):
        return _source_digest(name)
    entry = own_model(name)
    return "" if entry is None else _digest(entry, "model", _top(entry.module))


def _source_digest(name: str) -> str:
    """Return what identifies the code of a model of another source: a version, a file's content, or both."""
    source, package = source_of(name), _SOURCE_PACKAGES.get(source_of(name))
    version = f"{package} {package_version(package).partition('+')[0]}" if package else ""
    path, function = python_file(name) or (program_file(name), "")
    if path is None:
        config = Path(in_source(name), "config.json")
        return f"{version}+{_file_digest(config)}" if source == "hf" and config.is_file() else version
    if not path.is_file():
        raise HarnessError(f"'{name}': there is no file {path.resolve()}; a path is relative to the working folder")
    if function:
        digest, imported = _scan(path, path.stat().st_size, path.stat().st_mtime_ns)
        files = {path.name: digest, **_code_of(set(), imported - _LIBRARIES)}
        return _joined(function, files)
    # An ONNX model may have its weights in files next to it, which begin with its name.
    files = {file.name: _file_digest(file) for file in sorted(path.parent.glob(f"{escape(path.name)}*"))}
    return "+".join(filter(None, (version, _joined("", files))))


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns)


@cache
def _content_digest(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _joined(start: str, files: Mapping[str, str]) -> str:
    digest = hashlib.sha256(start.encode())
    for file in sorted(files):
        digest.update(f"\0{file}\0{files[file]}".encode())
    return digest.hexdigest()[:16]


def kind_digest(name: str) -> str:
    """Return a digest of the code of a kind of job of another package; empty for any other name.

    The code is collected as that of a model is, and the function that measures is part of it.  Raises as `code_digest`.
    """
    entry = find_plugin(KINDS_GROUP, "kind of job", name)
    if entry is None:
        return ""
    if name in OUR_KINDS:
        raise HarnessError(f"the harness has a kind of job '{name}', too; rename {entry.value} in {KINDS_GROUP}")
    return _digest(entry, "kind of job", _top(entry.module), _top(KINDS[name].function.partition(":")[0]))


def _digest(entry: EntryPoint, what: str, *roots: str) -> str:
    own = {*roots, *(_top(Path(file).parts[0]) for file in (entry.dist and entry.dist.files) or ())}
    files = _code_of(own, roots)
    if missing := set(roots) - {file.partition("/")[0] for file in files}:
        raise HarnessError(
            f"the {what} '{entry.name}' in {entry.group} is {entry.value}, but {min(missing)} has no file; install "
            "its package with its files, or uninstall it"
        )
    return _joined(entry.value, files)


def _code_of(own: Collection[str], roots: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of the code, by its path from the name that is imported.

    Of released packages it has those that are the user's `own`.
    """
    waiting, known = set(roots), _LIBRARIES - set(roots)
    files: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        known |= {name}
        for place in _places(name):
            if name not in own and _RELEASED.intersection(place.parts):
                continue
            for path in _files_below(place):
                stat = path.stat()
                digest, imported = _scan(path, stat.st_size, stat.st_mtime_ns)
                files.setdefault(Path(name, path.relative_to(place)).as_posix(), digest)
                waiting |= imported - known
    return files


def _top(name: str) -> str:
    return name.partition(".")[0]


def _places(name: str) -> list[Path]:
    """Return the folders of a package, or the file of a module, that is imported by this name without a dot."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module that was made by hand, as `__main__`
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def _files_below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    walked: set[str] = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        if os.path.realpath(folder) in walked:  # a link that leads back
            folders.clear()
            continue
        walked.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not _NO_CODE.search(name))
        paths = (Path(folder, name) for name in names if name.endswith(_CODE) and not name.startswith("."))
        yield from (path for path in paths if path.is_file())


@cache
def _scan(path: Path, _size: int, _modified: int) -> tuple[str, frozenset[str]]:
    """Return the SHA-256 of a file and the first names of what it imports; an unchanged file is read once."""
    content = path.read_bytes()
    lines = _IMPORT.findall(content) if path.suffix == ".py" else ()
    names = (name.split()[0] for source, sources in lines for name in (source or sources).split(b",") if name.strip())
    return hashlib.sha256(content).hexdigest(), frozenset(_top(name.decode()) for name in names)
