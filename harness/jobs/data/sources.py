"""What timm's readers, torchvision and scikit-learn have of a dataset -> its images."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset

from harness.jobs.data.images import UNKNOWN, DataSource, Images
from harness.jobs.fresh import run_in_fresh_process

# What each reader of timm needs: its module and class, the modules that must be there, and the packages to install.
READERS = {
    "hfds": ("reader_hfds", "ReaderHfds", ("datasets",), "datasets"),
    "hfids": ("reader_hfids", "ReaderHfids", ("datasets",), "datasets"),
    "tfds": ("reader_tfds", "ReaderTfds", ("tensorflow", "tensorflow_datasets"), "tensorflow tensorflow-datasets"),
}


def index_hf_dataset(source: DataSource, prefix: str, name: str) -> Images:
    """Index a map-style dataset of the Hugging Face hub, or a folder of that form."""
    reader = _open_reader(source, prefix, name)
    labels = _check_labels(source, reader.dataset[reader.label_key])

    def read(position: int) -> bytes:
        with reader[position][0] as file:
            content: bytes = file.read()
        return content

    names = _hf_names(reader.dataset, reader.image_key) or _number(len(labels))
    return Images.of(source, names, labels, read=read)


def _hf_names(dataset: Any, column: str) -> list[str]:  # noqa: ANN401
    """Return the file names of a dataset's images; empty if they are not unique."""
    flat = dataset.flatten()
    if f"{column}.path" not in flat.column_names:
        return []
    names = [Path(path).name if path else "" for path in flat[f"{column}.path"]]
    return names if all(names) and len(set(names)) == len(names) else []


def index_stream(source: DataSource, prefix: str, name: str) -> Images:
    """Read a stream once for its labels; the evaluation pass reads it again for the pictures.

    In a process of its own, because streaming libraries (TensorFlow, fsspec) do not survive a fork after their first
    use.
    """
    labels = run_in_fresh_process(lambda: [label for _, label in _read_stream(source, prefix, name)])
    labels = _check_labels(source, labels)
    return Images.of(
        source,
        _number(len(labels)),
        labels,
        stream=lambda: (picture for picture, _ in _read_stream(source, prefix, name)),
    )


def _read_stream(source: DataSource, prefix: str, name: str) -> Iterator[tuple[Any, Any]]:
    reader = _open_reader(source, prefix, name)
    try:
        yield from reader
    except Exception as error:
        raise source.error(f"cannot be read to its end ({_shorten(error)})") from error


def index_torchvision(source: DataSource, _prefix: str, _name: str) -> Images:
    """Index one of torchvision's datasets that is on disk."""
    name, _, root = source.where.partition(":")
    if not root:
        raise source.error("has no folder; write it as torch/NAME:FOLDER, as torch/cifar10:FOLDER")
    split = "validation" if source.split == "test" else "train"
    try:
        dataset: Any = create_dataset(name, root=str(Path(root).expanduser()), split=split)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise source.error(f"cannot be opened ({_shorten(error)})") from None
    listed = next((getattr(dataset, name) for name in ("targets", "labels", "_labels") if hasattr(dataset, name)), None)
    labels = _check_labels(source, [label for _, label in dataset] if listed is None else listed)
    return Images.of(source, _number(len(labels)), labels, read=lambda position: dataset[position][0])


def index_sklearn(source: DataSource, _prefix: str, name: str) -> Images:
    """Index the one set of real images that comes with scikit-learn: 1,797 handwritten digits of 8 × 8 pixels.

    Every fifth is for testing, as no other split was published with them.
    """
    if name != "digits":
        raise source.error(f"scikit-learn has no images called '{name}'; the ones it has are sklearn/digits")
    from sklearn.datasets import load_digits  # noqa: PLC0415 -- half a second that nobody else needs

    digits: Any = load_digits()
    indices = [index for index in range(len(digits.target)) if (index % 5 == 0) == (source.split == "test")]
    # Sixteen shades of grey -> 256.
    pictures = (digits.images[indices] * (255 / 16)).round().astype("uint8")
    return Images.of(
        source,
        [f"{index:04d}" for index in indices],
        digits.target[indices].tolist(),
        classes=10,
        read=lambda position: Image.fromarray(pictures[position]),
    )


INDEXERS: Mapping[str, Callable[[DataSource, str, str], Images]] = {
    "hfds": index_hf_dataset,
    "hfids": index_stream,
    "tfds": index_stream,
    "sklearn": index_sklearn,
    "torch": index_torchvision,
}


def _open_reader(source: DataSource, prefix: str, name: str) -> Any:  # noqa: ANN401 -- timm's readers share no useful base
    """Open a timm reader for the first name of the split that the source knows."""
    module, kind, modules, packages = READERS[prefix]
    # Checked first, because timm prints advice of its own when an import fails.
    missing = next((module for module in modules if find_spec(module) is None), None)
    if missing:
        raise source.error(f"needs the package {missing}, which is not installed; pip install {packages}")
    # Not through timm's factory: the older one converts the name to lower case, and a path with it.
    reader = getattr(import_module(f"timm.data.readers.{module}"), kind)
    first: Exception | None = None
    for split in source.folders:
        if split not in (*UNKNOWN.test, *UNKNOWN.train):  # the name of an unpacked folder
            continue
        try:
            return reader(name=name, root=None, split=split)
        except Exception as error:  # noqa: BLE001 -- each package has its own for a missing split or dataset
            first = first or error
    raise source.error(f"cannot be opened ({_shorten(first)})")


def _check_labels(source: DataSource, labels: Iterable[Any]) -> list[int]:
    try:
        # A number that is not whole is no index; a numeral is.
        indices = [int(label) if isinstance(label, str) else operator.index(label) for label in labels]
    except (TypeError, ValueError, OverflowError) as error:
        raise source.error(f"its labels are not class indices ({_shorten(error)})") from None
    if not indices:
        raise source.error("no images in it")
    return indices


def _number(count: int) -> list[str]:
    return [f"{index:08d}" for index in range(count)]


def _shorten(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
