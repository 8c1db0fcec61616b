"""What the user gave for a data set -> its images, their names and labels, whatever they lie in."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets import DATASETS, DataSet
from harness.errors import JobError
from harness.jobs import files, sources
from harness.jobs.sources import Listing, Source


class Unreadable(JobError):  # noqa: N818 -- reads as what happened
    """An image that cannot be read; `name` is its name, `why` the clause behind it."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"{name}: {why}; replace the file or give --skip-unreadable")

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        """Pass between processes: an exception is rebuilt from its arguments, not its text."""
        return type(self), (self.name, self.why)


@dataclass(frozen=True, kw_only=True)
class Images:
    """The n images of one split, `test` or `train`, of a data set, in a fixed order.

    `names` are unique: paths below the folder, members of a tar, or positions where a source has no names.  `labels`
    are class indices of the data set, `classes` how many it has, `sizes` bytes (0 where unknown), `notes` what to know
    about the labels.  `read` gives the bytes of an image or a picture, `head` its first bytes where that is cheaper;
    both may be called in any process.  `streamed` images can only be read from beginning to end.
    """

    data: str
    where: str
    names: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    classes: int
    split: str = "test"
    notes: tuple[str, ...] = ()
    streamed: bool = False
    read: Callable[[int], Any] | None = None
    head: Callable[[int], bytes] | None = None
    stream: Callable[[], Iterator[Any]] | None = None

    def __len__(self) -> int:
        """Count them."""
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Give a digest of names, labels and sizes: the same images have the same."""
        digest = hashlib.sha256()
        for row in zip(self.names, self.labels.tolist(), self.sizes.tolist(), strict=True):
            digest.update(json.dumps(row).encode())  # whatever is in a name, no two lists are written alike
        return digest.hexdigest()

    def image(self, position: int) -> Image.Image:
        """Read an image as RGB.

        Raises `Unreadable` for what is gone, empty, cut short or no image.
        """
        return self.decoded(position, self.found(position))

    def found(self, position: int) -> Any:  # noqa: ANN401 -- what the source has: bytes or a picture
        """Fetch an image without decoding it, as bytes where the source has them.

        Raises `Unreadable` for what is gone.
        """
        if self.read is None:
            raise JobError(f"--data {self.data}={self.where}: can only be read from beginning to end")
        try:
            return self.read(position)
        except FileNotFoundError:
            raise Unreadable(self.names[position], "the file is gone") from None
        except (OSError, SyntaxError, ValueError) as error:  # some sources decode when they fetch
            raise Unreadable(self.names[position], _cannot(error)) from None

    def decoded(self, position: int, found: Any) -> Image.Image:  # noqa: ANN401
        """Decode what was found as RGB, exactly as timm does.

        Raises `Unreadable` for what is empty, cut short or no image.
        """
        if found == b"":
            raise Unreadable(self.names[position], "the file is empty")
        try:
            return _opened(found).convert("RGB")
        except Exception as error:  # noqa: BLE001 -- Pillow's decoders raise what they come across, as struct.error
            raise Unreadable(self.names[position], _cannot(error)) from None

    def glance(self, position: int) -> None:
        """Look at the header of an image, if that is cheap.

        Raises `Unreadable` for what is gone, empty or no image.
        """
        if self.head is None:
            return
        try:
            _opened(self.head(position))
        except Exception:  # noqa: BLE001 -- a long header ends anywhere, and Pillow says so in many ways
            found = self.found(position)
        else:
            return
        try:
            _opened(found)
        except Exception as error:  # noqa: BLE001
            why = _cannot(error) if found else "the file is empty"
            raise Unreadable(self.names[position], why) from None

    def __iter__(self) -> Iterator[tuple[int, Image.Image | Unreadable]]:
        """Read all of them in order; what cannot be read comes as its error."""
        if self.stream is not None:
            for position, found in enumerate(self.stream()):
                yield position, _or_error(self.decoded, position, found)
            return
        for position in range(len(self)):
            yield position, _or_error(self.image, position)


def _or_error(read: Callable[..., Image.Image], *of: Any) -> Image.Image | Unreadable:  # noqa: ANN401
    try:
        return read(*of)
    except Unreadable as error:
        return error


def _opened(found: Any) -> Image.Image:  # noqa: ANN401
    return found if isinstance(found, Image.Image) else Image.open(io.BytesIO(found))


def _cannot(error: Exception) -> str:
    """Say what Pillow found, without the address of a buffer."""
    text = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", " ".join(str(error).split()))
    return f"cannot be read ({text or type(error).__name__})"


def facts_of(images: Images) -> dict[str, Any]:
    """Say which images these are, and whether they are all that were published."""
    known = DATASETS.get(images.data)
    of = _published(known, images.split) if known else None
    count, present = len(images), len(np.unique(images.labels))
    whole = bool(known and count == of and present == known.classes)
    return {
        "name": images.data,
        "fingerprint": images.fingerprint,
        "images": count,
        "of": of,
        "classes": present,
        "classes_of": images.classes,
        "whole": whole,
        "said": _said(known, images.data, count, of, present),
    }


def _published(known: DataSet, split: str) -> int | None:
    return (known.test_images if split == "test" else known.train_images) or None


def _said(known: DataSet | None, data: str, count: int, of: int | None, present: int) -> str:
    if known is None or of is None:
        return f"{count:,} images of {known.label if known else data}"
    part = f"all {count:,}" if count == of else f"{count:,} of the {of:,}"
    less = f", {present:,} of its {known.classes:,} classes" if present != known.classes else ""
    return f"{part} images of {known.label}{less}"


def open_images(data: str, where: str, *, split: str = "test") -> Images:
    """Find the images of a split, `test` or `train`, of a data set.

    `where` is a folder, a tar file, or `wds/PATH`, `hfds/NAME`, `tfds/NAME`, `hfids/NAME`, `torch/NAME:PATH`,
    `sklearn/digits`.  Raises
    `JobError` with what is wrong with it.
    """
    source = Source(data=data, where=where, split=split)
    return _images(source, _listing(source))


def _listing(source: Source) -> Listing:
    prefix, _, rest = source.where.partition("/")
    if prefix == "hfds" and rest:
        return sources.table(source, prefix, rest)
    if prefix in ("hfids", "tfds") and rest:
        return sources.streamed(source, prefix, rest)
    if prefix == "sklearn" and rest:
        return sources.embedded(source, rest)
    if prefix == "torch" and rest:
        return sources.torchvision(source)
    sharded = bool(prefix == "wds" and rest)
    path = Path(rest if sharded else source.where).expanduser()
    if not path.exists():
        raise source.wrong(f"there is no file or folder {path}")
    if sharded:
        return files.in_shards(source, path)
    return files.in_tar(source, path) if path.is_file() else files.in_folder(source, path)


def _images(source: Source, listing: Listing) -> Images:
    """Make images of a listing; a class that the data set does not have is an error."""
    labels = np.array(listing.labels, dtype=np.int64)
    classes = listing.classes or source.known.classes or int(labels.max()) + 1
    strange = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(strange):
        first = strange[0]
        raise source.wrong(
            f"{len(strange):,} of {len(labels):,} images have a class that {source.data} does not have "
            f"({listing.names[first]} has {labels[first]}); its classes are 0 to {classes - 1}"
        )
    sizes = np.zeros(len(labels)) if listing.sizes is None else np.fromiter(listing.sizes, dtype=np.int64)
    return Images(
        data=source.data,
        where=source.where,
        split=source.split,
        names=tuple(listing.names),
        labels=labels.astype(np.int32),
        sizes=sizes.astype(np.int64),
        classes=classes,
        notes=listing.notes,
        streamed=listing.stream is not None,
        read=listing.read,
        head=listing.head,
        stream=listing.stream,
    )


def sizes(data: str, where: str) -> dict[str, int]:
    """Count what is there: `test_images` and `train_images` of the splits there are, and `classes`.

    The files of a folder are listed and not opened.  Raises `JobError` if there are no images.
    """
    found: dict[str, int] = {}
    problems: list[JobError] = []
    for split in ("test", "train"):
        try:
            count, classes = _count(Source(data=data, where=where, split=split))
        except JobError as error:
            problems.append(error)
            continue
        found[f"{split}_images"] = count
        found.setdefault("classes", classes)
    if not found:
        raise problems[0]
    return found


def _count(source: Source) -> tuple[int, int]:
    """Count the images and the classes of a split."""
    root = Path(source.where).expanduser()
    counted = files.count_in_folder(source, root) if root.is_dir() else None
    if counted is not None:
        return counted
    images = open_images(source.data, source.where, split=source.split)
    return len(images), len(np.unique(images.labels))
