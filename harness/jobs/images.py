"""What the user gave for a data set -> its images, their names and labels, whatever they lie in."""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_dataset
from timm.data.readers import create_reader
from timm.data.readers.reader_image_tar import ReaderImageTar
from timm.utils.misc import natural_key

from harness.datasets import DATASETS
from harness.errors import JobError
from harness.jobs import labelling

# Folders in which the images of a split may lie, for data sets that are not known by name.
_TEST, _TRAIN = ("test", "val", "validation"), ("train",)

# Names of files or folders that fit into a sentence.
NAMED = 3

_IMAGE = re.compile(r"\.(jpe?g|png|webp|bmp|ppm|tiff?)", re.IGNORECASE)


class Unreadable(JobError):  # noqa: N818 -- reads as what happened
    """An image that cannot be read; `name` is its name, `why` the clause behind it."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"{name} {why}; replace the file or count it as wrong with --skip-unreadable")

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        """Pass between processes: an exception is rebuilt from its arguments, not its text."""
        return type(self), (self.name, self.why)


@dataclass(frozen=True, kw_only=True)
class Images:
    """The n images of one split of a data set, in a fixed order.

    `names` are unique: paths below the folder, members of a tar, or positions where a source has no names.  `labels`
    are class indices of the data set, `classes` how many it has, `sizes` bytes (0 where unknown).  `streamed` images
    can only be read from beginning to end.
    """

    data: str
    where: str
    names: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    classes: int
    notes: tuple[str, ...] = ()
    streamed: bool = False
    read: Callable[[int], Any] | None = None
    stream: Callable[[], Iterator[Any]] | None = None

    def __len__(self) -> int:
        """Count them."""
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Give a digest of names, labels and sizes: the same images have the same."""
        digest = hashlib.sha256()
        for name, label, size in zip(self.names, self.labels.tolist(), self.sizes.tolist(), strict=True):
            digest.update(f"{name}\t{label}\t{size}\n".encode())
        return digest.hexdigest()

    def image(self, position: int) -> Image.Image:
        """Read an image as RGB.

        Raises `Unreadable` for what is gone, empty, cut short or no image.
        """
        if self.read is None:
            raise JobError(f"{self.where} can only be read from beginning to end")
        try:
            return _rgb(self.read(position))
        except FileNotFoundError:
            raise Unreadable(self.names[position], "is gone") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise Unreadable(self.names[position], f"cannot be read ({_said(error)})") from None

    def raw(self, position: int) -> bytes | None:
        """Give the bytes of the file, or None where a source does not have them."""
        found = self.read(position) if self.read else None
        return found if isinstance(found, bytes) else None

    def __iter__(self) -> Iterator[tuple[int, Image.Image | Unreadable]]:
        """Read all of them in order; what cannot be read comes as its error."""
        if self.stream is not None:
            for position, found in enumerate(self.stream()):
                yield position, _rgb(found)
            return
        for position in range(len(self)):
            try:
                yield position, self.image(position)
            except Unreadable as error:
                yield position, error


def _rgb(found: Any) -> Image.Image:  # noqa: ANN401 -- bytes, a picture, or an open file
    if isinstance(found, bytes):
        found = Image.open(io.BytesIO(found))
    elif not isinstance(found, Image.Image):
        found = Image.open(found)
    return found.convert("RGB")  # type: ignore[no-any-return]


def _said(error: Exception) -> str:
    """Say what Pillow found, without the address of a buffer."""
    text = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", " ".join(str(error).split()))
    return text or type(error).__name__


def facts_of(images: Images) -> dict[str, Any]:
    """Say which images these are, and whether they are all that were published."""
    known = DATASETS.get(images.data)
    present = len(np.unique(images.labels))
    count, label = len(images), known.label if known else images.data
    whole = bool(known and count == known.test_images and present == known.classes)
    if whole or not known:
        said = f"all {count:,} images of {label}" if whole else f"{count:,} images of {label}"
    else:
        said = f"{count:,} of the {known.test_images:,} images of {label}"
        if present != known.classes:
            said += f", {present:,} of its {known.classes:,} classes"
    return {
        "name": images.data,
        "fingerprint": images.fingerprint,
        "images": count,
        "of": known.test_images if known else None,
        "classes": present,
        "classes_of": images.classes,
        "whole": whole,
        "said": said,
    }


def open_images(data: str, where: str, *, split: str = "test") -> Images:
    """Find the images of a split, `test` or `train`, of a data set.

    `where` is a folder, a tar file, or `wds/PATH`, `hfds/NAME`, `tfds/NAME`, `hfids/NAME`, `torch/NAME:PATH`.  Raises
    `JobError` with what is wrong with it.
    """
    prefix, _, rest = where.partition("/")
    if prefix == "wds" and rest:
        return _shards(data, Path(rest), split)
    if prefix == "hfds" and rest:
        return _hub(data, where, split)
    if prefix in ("tfds", "hfids") and rest:
        return _streamed(data, where, split)
    if prefix == "torch" and rest:
        return _torchvision(data, where, split)
    path = Path(where).expanduser()
    if not path.exists():
        raise JobError(f"--data {data}={where}: there is no such file or folder")
    return _in_tar(data, path) if path.is_file() else _in_folder(data, path, split)


# Folders.


def split_folder(data: str, root: Path, split: str) -> Path | None:
    """Find the folder of a split; the root itself holds the test images where it has no folder for them."""
    known = DATASETS.get(data)
    names = (known.test if known else _TEST) if split == "test" else (known.train if known else _TRAIN)
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is not None or split != "test":
        return found
    return root


def _in_folder(data: str, root: Path, split: str) -> Images:
    folder = split_folder(data, root, split)
    if folder is None:
        raise JobError(f"--data {data}={root}: has no folder of {split} images")
    archive = folder / "ILSVRC2012_img_val.tar"
    if archive.is_file():
        return _in_tar(data, archive)
    try:
        reader = create_reader("", root=str(folder))
    except RuntimeError:
        raise JobError(f"--data {data}={root}: no images in {folder} or the folders in it") from None
    paths = [Path(reader.filename(place, absolute=True)) for place in range(len(reader))]
    names = [path.relative_to(folder).as_posix() for path in paths]

    def read(position: int) -> bytes:
        return paths[position].read_bytes()

    sizes = [_size(path) for path in paths]
    return _listed(data, str(root), names, sizes, read, beside=folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _listed(  # noqa: PLR0913 -- what an `Images` is made of
    data: str, where: str, names: Sequence[str], sizes: Sequence[int], read: Callable[[int], Any], *, beside: Path
) -> Images:
    """Label images by the folders in their names, or by a file beside them if they lie in no folder."""
    folders = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
    if not any(folders):
        labels, notes = labelling.by_file(data, where, names, beside)
        classes = DATASETS[data].classes if data in DATASETS else int(max(labels)) + 1
    else:
        numbers, classes, notes = labelling.by_folder(data, where, sorted(set(folders), key=natural_key))
        labels = [numbers[folder] for folder in folders]
        labelling.check_against_file(data, where, names, labels, beside)
    return Images(
        data=data,
        where=where,
        names=tuple(names),
        labels=np.array(labels, dtype=np.int32),
        sizes=np.array(sizes, dtype=np.int64),
        classes=classes,
        notes=tuple(notes),
        read=read,
    )


# Tar files, read where they lie.


def _in_tar(data: str, path: Path) -> Images:
    try:
        samples = ReaderImageTar(str(path)).samples  # type: ignore[no-untyped-call]
    except (tarfile.TarError, OSError) as error:
        raise JobError(f"--data {data}={path}: is not a tar file that can be read ({error})") from None
    if not samples:
        raise JobError(f"--data {data}={path}: no images in it")
    members = [member for member, _ in samples]
    names = [member.name.removeprefix("./") for member in members]
    places = [(member.offset_data, member.size) for member in members]

    def read(position: int) -> bytes:
        return _cut_out(path, *places[position])

    return _listed(data, str(path), names, [size for _, size in places], read, beside=path.parent)


def _cut_out(path: Path, offset: int, size: int) -> bytes:
    """Read a piece of a file; opened each time, so that processes do not share a position in it."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), size, offset)


def _shards(data: str, root: Path, split: str) -> Images:
    """Index WebDataset shards: `KEY.jpg` beside `KEY.cls`.

    timm's reader only streams them and gives no names; with an index they are read in any order, by any number of
    processes, and ReaL finds its labels.
    """
    files = _shard_files(data, root, split)
    names: list[str] = []
    labels: list[int] = []
    places: list[tuple[Path, int, int]] = []
    for path in files:
        pictures: dict[str, tarfile.TarInfo] = {}
        classes: dict[str, int] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, ending = member.name.removeprefix("./").rpartition(".")
                if _IMAGE.fullmatch(f".{ending}"):
                    pictures[key] = member
                elif ending == "cls":
                    classes[key] = int((archive.extractfile(member) or io.BytesIO()).read())
        missing = [key for key in pictures if key not in classes]
        if missing:
            raise JobError(f"--data {data}=wds/{root}: {path.name} has no {missing[0]}.cls beside the image")
        for key, member in pictures.items():
            names.append(member.name.removeprefix("./"))
            labels.append(classes[key])
            places.append((path, member.offset_data, member.size))
    if not names:
        raise JobError(f"--data {data}=wds/{root}: no images in {', '.join(path.name for path in files[:NAMED])}")

    def read(position: int) -> bytes:
        return _cut_out(*places[position])

    return _numbered(data, f"wds/{root}", names, labels, [size for *_, size in places], read=read)


def _shard_files(data: str, root: Path, split: str) -> list[Path]:
    if root.is_file():
        return [root]
    folder = (split_folder(data, root, split) if root.is_dir() else None) or root
    files = sorted(folder.glob("*.tar"), key=_by_name) if folder.is_dir() else []
    words = _TEST if split == "test" else _TRAIN
    of_split = [path for path in files if any(word in path.name for word in words)]
    others = [path for path in files if any(word in path.name for word in (*_TEST, *_TRAIN))]
    found = of_split if others else files
    if not found:
        raise JobError(f"--data {data}=wds/{root}: no .tar files of the {split} split there")
    return found


# Other sources, through timm's readers.


def _numbered(  # noqa: PLR0913 -- what an `Images` is made of
    data: str,
    where: str,
    names: Sequence[str],
    labels: Sequence[int],
    sizes: Sequence[int],
    *,
    read: Callable[[int], Any] | None = None,
    stream: Callable[[], Iterator[Any]] | None = None,
) -> Images:
    """Make images of a source that numbers its classes itself."""
    known = DATASETS.get(data)
    classes = known.classes if known else max(labels) + 1
    wrong = next((place for place, label in enumerate(labels) if not 0 <= label < classes), None)
    if wrong is not None:
        raise JobError(
            f"--data {data}={where}: {names[wrong]} has class {labels[wrong]}, but {data} has classes 0 to "
            f"{classes - 1}"
        )
    return Images(
        data=data,
        where=where,
        names=tuple(names),
        labels=np.array(labels, dtype=np.int32),
        sizes=np.array(sizes, dtype=np.int64),
        classes=classes,
        streamed=stream is not None,
        read=read,
        stream=stream,
    )


def _positions(count: int) -> list[str]:
    return [f"{place:08d}" for place in range(count)]


def _reader(data: str, where: str, split: str) -> Any:  # noqa: ANN401 -- timm's readers share no useful base
    """Open a timm reader for the first name of the split that the source knows."""
    refused: Exception | None = None
    for name in ("validation", "val", "test") if split == "test" else _TRAIN:
        try:
            return create_reader(where, root=None, split=name)
        except (ImportError, AssertionError) as error:
            package = {"hfds": "datasets", "hfids": "datasets", "tfds": "tensorflow-datasets"}[where.partition("/")[0]]
            raise JobError(f"--data {data}={where}: needs the package {package}; pip install {package}") from error
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            refused = refused or error
    raise JobError(f"--data {data}={where}: cannot be opened ({_said(refused or Exception())[:200]})")


def _hub(data: str, where: str, split: str) -> Images:
    reader = _reader(data, where, split)
    table, key = reader.dataset, reader.image_key
    labels = [int(label) for label in table[reader.label_key]]
    paths = table.flatten()[f"{key}.path"] if f"{key}.path" in table.flatten().column_names else [None] * len(labels)
    names = [
        Path(path).name if path else position for path, position in zip(paths, _positions(len(labels)), strict=True)
    ]
    if len(set(names)) < len(names):
        names = _positions(len(labels))

    def read(position: int) -> Any:  # noqa: ANN401
        picture, _ = reader[position][:2]
        return picture.read()

    return _numbered(data, where, names, labels, [0] * len(labels), read=read)


def _streamed(data: str, where: str, split: str) -> Images:
    """Read a stream once for its labels; the pass reads it again for the pictures."""
    reader = _reader(data, where, split)
    labels = [int(label) for _, label in reader]
    if not labels:
        raise JobError(f"--data {data}={where}: no images in it")

    def stream() -> Iterator[Any]:
        return (picture for picture, _ in _reader(data, where, split))

    return _numbered(data, where, _positions(len(labels)), labels, [0] * len(labels), stream=stream)


def _torchvision(data: str, where: str, split: str) -> Images:
    name, _, root = where.partition(":")
    if not root:
        raise JobError(f"--data {data}={where}: write it as torch/NAME:FOLDER, as torch/cifar10:FOLDER")
    try:
        dataset: Any = create_dataset(name, root=root, split="validation" if split == "test" else "train")
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        raise JobError(f"--data {data}={where}: cannot be opened ({_said(error)[:200]})") from None
    labels = getattr(dataset, "targets", None) or getattr(dataset, "_labels", None) or [label for _, label in dataset]

    def read(position: int) -> Any:  # noqa: ANN401
        return dataset[position][0]

    return _numbered(data, where, _positions(len(labels)), [int(n) for n in labels], [0] * len(labels), read=read)


def _by_name(path: Path) -> Any:  # noqa: ANN401 -- timm's key is of no declared type
    return natural_key(path.name)  # type: ignore[no-untyped-call]
