"""What the user gave for a data set -> a listing of it, through timm's readers; and what a listing is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset

from harness.datasets import DATASETS, DataSet
from harness.errors import JobError
from harness.jobs.fresh import in_fresh_process

# Names of files or folders that fit into a sentence.
NAMED = 3

UNKNOWN = DataSet(label="", classes=0, test_images=0)

# What each reader of timm needs: its module and class, the modules that must be there, and the packages to install.
READERS = {
    "hfds": ("reader_hfds", "ReaderHfds", ("datasets",), "datasets"),
    "hfids": ("reader_hfids", "ReaderHfids", ("datasets",), "datasets"),
    "tfds": ("reader_tfds", "ReaderTfds", ("tensorflow", "tensorflow_datasets"), "tensorflow tensorflow-datasets"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was asked for: a split, `test` or `train`, of a data set, and where it is."""

    data: str
    where: str
    split: str

    @property
    def known(self) -> DataSet:
        """Give what is known of the data set, or of any."""
        return DATASETS.get(self.data, UNKNOWN)

    @property
    def folders(self) -> tuple[str, ...]:
        """Name the folders in which the split may lie."""
        return self.known.test if self.split == "test" else self.known.train

    def wrong(self, what: str) -> JobError:
        """Make the error of a sentence about this source."""
        return JobError(f"--data {self.data}={self.where}: {what}")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a source, in order: a name and a class for each, its bytes where they are counted, and how to read.

    `read` gives the bytes of an image or a picture, `head` its first bytes where that is cheaper; both may be called in
    any process.  `stream` gives the pictures of a source that is only read from beginning to end.  `classes` is None
    where only the data set, or the largest class, tells how many there are.
    """

    names: Sequence[str]
    labels: Sequence[int]
    sizes: Iterable[int] | None = None
    classes: int | None = None
    notes: tuple[str, ...] = ()
    read: Callable[[int], Any] | None = None
    head: Callable[[int], bytes] | None = None
    stream: Callable[[], Iterator[Any]] | None = None


def table(source: Source, prefix: str, name: str) -> Listing:
    """List a map-style data set of the Hugging Face hub, or a folder of that form."""
    reader = _reader(source, prefix, name)
    labels = _whole_numbers(source, reader.dataset[reader.label_key])

    def read(position: int) -> bytes:
        with reader[position][0] as file:
            content: bytes = file.read()
        return content

    return Listing(
        names=_names_in(reader.dataset, reader.image_key) or _positions(len(labels)), labels=labels, read=read
    )


def _names_in(found: Any, column: str) -> list[str]:  # noqa: ANN401
    """Give the names of a table's images, which lie beside their bytes; none if they do not tell images apart."""
    flat = found.flatten()
    if f"{column}.path" not in flat.column_names:
        return []
    names = [Path(path).name if path else "" for path in flat[f"{column}.path"]]
    return names if all(names) and len(set(names)) == len(names) else []


def streamed(source: Source, prefix: str, name: str) -> Listing:
    """Read a stream once for its labels; the pass reads it again for the pictures.

    In a process of its own, because what streams (TensorFlow, fsspec) does not survive a fork after its first use.
    """
    labels = _whole_numbers(source, in_fresh_process(_labels_of, source, prefix, name))

    def stream() -> Iterator[Any]:
        return _pictures(source, prefix, name)

    return Listing(names=_positions(len(labels)), labels=labels, stream=stream)


def _labels_of(source: Source, prefix: str, name: str) -> list[Any]:
    reader = _reader(source, prefix, name)
    try:
        return [label for _, label in reader]
    except Exception as error:
        raise source.wrong(f"cannot be read to its end ({_short(error)})") from error


def _pictures(source: Source, prefix: str, name: str) -> Iterator[Any]:
    try:
        for picture, _ in _reader(source, prefix, name):
            yield picture
    except JobError:
        raise
    except Exception as error:
        raise source.wrong(f"cannot be read to its end ({_short(error)})") from error


def torchvision(source: Source) -> Listing:
    """List one of torchvision's data sets that is on the disk."""
    name, _, root = source.where.partition(":")
    if not root:
        raise source.wrong("has no folder; write it as torch/NAME:FOLDER, as torch/cifar10:FOLDER")
    split = "validation" if source.split == "test" else "train"
    try:
        dataset: Any = create_dataset(name, root=str(Path(root).expanduser()), split=split)
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise source.wrong(f"cannot be opened ({_short(error)})") from None
    listed = next((getattr(dataset, name) for name in ("targets", "labels", "_labels") if hasattr(dataset, name)), None)
    labels = _whole_numbers(source, [label for _, label in dataset] if listed is None else listed)

    def read(position: int) -> Any:  # noqa: ANN401 -- a picture
        return dataset[position][0]

    return Listing(names=_positions(len(labels)), labels=labels, read=read)


def embedded(source: Source, name: str) -> Listing:
    """List the one set of real images that scikit-learn brings along: 1,797 digits of 8 × 8 pixels, written by people.

    Every fifth is for testing, as no other split was published with them.
    """
    if name != "digits":
        raise source.wrong(f"scikit-learn brings no images called '{name}'; the ones it has are sklearn/digits")
    from sklearn.datasets import load_digits  # noqa: PLC0415 -- half a second that nobody else needs

    found: Any = load_digits()
    chosen = [place for place in range(len(found.target)) if (place % 5 == 0) == (source.split == "test")]
    # Sixteen shades of grey -> 256.
    pictures = (found.images[chosen] * (255 / 16)).round().astype("uint8")

    def read(position: int) -> Any:  # noqa: ANN401 -- a picture
        return Image.fromarray(pictures[position])

    return Listing(
        names=[f"{place:04d}" for place in chosen], labels=found.target[chosen].tolist(), classes=10, read=read
    )


def _reader(source: Source, prefix: str, name: str) -> Any:  # noqa: ANN401 -- timm's readers share no useful base
    """Open a timm reader for the first name of the split that the source knows."""
    module, kind, needed, packages = READERS[prefix]
    # Asked first, because timm prints advice of its own when an import fails.
    missing = next((wanted for wanted in needed if find_spec(wanted) is None), None)
    if missing:
        raise source.wrong(f"needs the package {missing}, which is not installed; pip install {packages}")
    # Not through timm's factory: the older one writes the name in small letters, and a path with it.
    reader = getattr(import_module(f"timm.data.readers.{module}"), kind)
    refused: Exception | None = None
    for split in source.folders:
        if split not in (*UNKNOWN.test, *UNKNOWN.train):  # the name of a folder as it is unpacked
            continue
        try:
            return reader(name=name, root=None, split=split)
        except Exception as error:  # noqa: BLE001 -- each package has its own for a split or a set that is not there
            refused = refused or error
    raise source.wrong(f"cannot be opened ({_short(refused)})")


def _whole_numbers(source: Source, labels: Iterable[Any]) -> list[int]:
    try:
        found = [int(label) for label in labels]
    except (TypeError, ValueError) as error:
        raise source.wrong(f"its labels are not the numbers of classes ({_short(error)})") from None
    if not found:
        raise source.wrong("no images in it")
    return found


def _positions(count: int) -> list[str]:
    return [f"{place:08d}" for place in range(count)]


def few(names: Sequence[str]) -> str:
    """Name the first of them."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _short(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
