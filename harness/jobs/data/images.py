"""The images of one split of a dataset: their names and labels, and how each is read."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.errors import JobError
from harness.jobs.data import identity
from harness.jobs.data.walk import LeftOut, describe_left_out
from harness.specs.datasets import DATASETS, DataSet

UNKNOWN = DataSet(label="", classes=0, test_images=0)

# Times that an image may be longer than it is narrow.  Resized to a narrow side of 224 pixels, one of 1 × 60,000 would
# take gigabytes; among ImageNet's the longest are about ten times as long.
MOST_ELONGATED = 200

# Classes of a dataset about which nothing is known: a label beyond is a damaged one.
MOST_CLASSES = 1_000_000


class UnreadableImage(JobError):  # noqa: N818 -- reads as what happened
    """An image that cannot be read; `name` is its name, `reason` a clause."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}; replace the file or give --skip-unreadable")

    def __reduce__(self) -> tuple[type["UnreadableImage"], tuple[str, str]]:
        """Pass between processes: an exception is rebuilt from its arguments, not its text."""
        return type(self), (self.name, self.reason)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What the user gave: a split, `test` or `train`, of a dataset, and where it is."""

    data: str
    where: str
    split: str = "test"

    @property
    def known(self) -> DataSet:
        """What is known of the dataset, or of any."""
        return DATASETS.get(self.data, UNKNOWN)

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders that may contain the split."""
        return self.known.test if self.split == "test" else self.known.train

    def error(self, message: str) -> JobError:
        """Return the error with a message about this source."""
        return JobError(f"--data {self.data}={self.where}: {message}")


@dataclass(frozen=True, kw_only=True)
class Images(DataSource):
    """The n images of a source, in a fixed order.

    `names` are unique: paths below the folder, members of a tar, or positions where a source has no names.  `labels`
    are class indices of the dataset, `classes` how many it has, `sizes` bytes (0 where unknown), `notes` about the
    labels.  `files` are equal for images that are links to one file, `path` is the folder or file that they are in;
    both are empty where a source does not tell.  `left_out` names by reason what is there as well.  `read` returns the
    bytes of an image or a picture, `head` its first bytes where that is cheaper; both may be called in any process.
    `stream` returns the pictures of a source that is only read from beginning to end.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    classes: int
    notes: tuple[str, ...] = ()
    files: NDArray[np.int64] | None = None
    path: str = ""
    left_out: LeftOut = field(default_factory=dict)
    read: Callable[[int], Any] | None = None
    head: Callable[[int], bytes] | None = None
    stream: Callable[[], Iterator[Any]] | None = None

    @classmethod
    def of(
        cls,
        source: DataSource,
        names: Sequence[str],
        labels: Sequence[int],
        *,
        sizes: Iterable[int] | None = None,
        classes: int | None = None,
        **fields: Any,  # noqa: ANN401 -- the other fields
    ) -> "Images":
        """Build the images of a source; `classes` is None where only the dataset, or the largest label, tells it.

        Raises `JobError` for a label that the dataset does not have.
        """
        classes = classes or source.known.classes or min(max(labels) + 1, MOST_CLASSES)
        invalid = [position for position, label in enumerate(labels) if not 0 <= label < classes]
        if invalid:
            first = invalid[0]
            raise source.error(
                f"{len(invalid):,} of {len(labels):,} images have a class that {source.data} does not have "
                f"({names[first]} has {labels[first]}); its classes are 0 to {classes - 1}"
            )
        return cls(
            data=source.data,
            where=source.where,
            split=source.split,
            names=tuple(names),
            labels=np.array(labels, dtype=np.int32),
            sizes=np.zeros(len(labels), np.int64) if sizes is None else np.fromiter(sizes, dtype=np.int64),
            classes=classes,
            **fields,
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def streamed(self) -> bool:
        """Whether they can only be read from beginning to end."""
        return self.stream is not None

    @property
    def fingerprint(self) -> str:
        """Digest of names, labels and sizes: the same images have the same."""
        digest = hashlib.sha256()
        for row in zip(self.names, self.labels.tolist(), self.sizes.tolist(), strict=True):
            digest.update(json.dumps(row).encode())  # whatever is in a name, no two lists are written alike
        return digest.hexdigest()

    @cached_property
    def labelled(self) -> identity.LabelCheck | None:
        """How many labels are those that the images' names tell; None where names tell nothing."""
        return identity.check_labels(self.known, self.names, self.labels)

    @cached_property
    def copies(self) -> int:
        """How many have the bytes of another one; reads those of equal size in part, once."""
        head = self.head
        if head is None:
            return identity.count_copies(self.files, self.sizes, None)
        return identity.count_copies(
            self.files, self.sizes, lambda position, whole: self.fetch(position) if whole else head(position)
        )

    @property
    def left_out_messages(self) -> list[str]:
        """A sentence for each reason why something that is there was not taken."""
        return [f"left out: {clause}" for clause in describe_left_out(self.left_out)]

    def image(self, position: int) -> Image.Image:
        """Read an image as RGB.

        Raises `UnreadableImage` for what is missing, empty, truncated or no image.
        """
        return self.decode(position, self.fetch(position))

    def fetch(self, position: int) -> Any:  # noqa: ANN401 -- what the source has: bytes or a picture
        """Fetch an image without decoding it, as bytes where the source has them.

        Raises `UnreadableImage` for what is missing.
        """
        if self.read is None:
            raise self.error("can only be read from beginning to end")
        try:
            return self.read(position)
        except FileNotFoundError:
            raise UnreadableImage(self.names[position], "the file is missing") from None
        except (OSError, SyntaxError, ValueError) as error:  # some sources decode when they fetch
            raise UnreadableImage(self.names[position], _reason(error)) from None

    def decode(self, position: int, content: Any) -> Image.Image:  # noqa: ANN401
        """Decode what was fetched as RGB, exactly as timm does.

        Raises `UnreadableImage` for what is empty, truncated or no image.
        """
        try:
            return _open(content).convert("RGB")
        except Exception as error:  # noqa: BLE001 -- Pillow's decoders raise what they come across, as struct.error
            raise UnreadableImage(self.names[position], _reason(error, content)) from None

    def check_header(self, position: int) -> None:
        """Check the header of an image, if that is cheap.

        Raises `UnreadableImage` for what is missing, empty or no image.
        """
        if self.head is None:
            return
        with suppress(Exception):  # a long header may be cut anywhere, which Pillow reports in many ways
            _open(self.head(position))
            return
        content = self.fetch(position)
        try:
            _open(content)
        except Exception as error:  # noqa: BLE001
            raise UnreadableImage(self.names[position], _reason(error, content)) from None

    def __iter__(self) -> Iterator[tuple[int, Image.Image | UnreadableImage]]:
        """Read all of them in order; an unreadable one is returned as its error."""
        if self.stream is not None:
            for position, content in enumerate(self.stream()):
                yield position, image_or_error(self.decode, position, content)
            return
        for position in range(len(self)):
            yield position, image_or_error(self.image, position)


def image_or_error(read: Callable[..., Image.Image], *arguments: Any) -> Image.Image | UnreadableImage:  # noqa: ANN401
    """Return an image, or the error of an unreadable one."""
    try:
        return read(*arguments)
    except UnreadableImage as error:
        return error


def _open(content: Any) -> Image.Image:  # noqa: ANN401
    image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
    narrow, long = sorted(image.size)
    if long > MOST_ELONGATED * max(1, narrow):
        raise ValueError(f"{image.width:,} × {image.height:,} pixels are too long and narrow to be resized")
    return image


def _reason(error: Exception, content: Any = None) -> str:  # noqa: ANN401
    """Return why an image cannot be read: Pillow's message without the address of a buffer."""
    if content == b"":
        return "the file is empty"
    text = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", " ".join(str(error).split()))
    return f"cannot be read ({text or type(error).__name__})"


def image_facts(images: Images) -> dict[str, Any]:
    """Return which images these are, and whether they are all that were published, by number, name, label and bytes.

    `copies`, `labels` and `encoding` (sentences) and `left_out` are there only where there is something to tell.
    """
    known = images.known
    published = (known.test_images if images.split == "test" else known.train_images) or None
    count, present = len(images), len(np.unique(images.labels))
    label, exact = known.label, None
    if images.split == "test":
        path = identity.full_path(images.where, images.path, images.names[0])
        label, exact = identity.find_variant(known, path, images.names)
    flaws, copies = [], 0
    if count == published:
        copies = images.copies if label == known.label else 0
        flaws = identity.find_flaws(known, images.names, images.labels, labelled=images.labelled, exact=exact)
    too_many_copies = copies > identity.allowed_copies(known, count)
    summary = f"{count:,} images of {label or images.data}"
    if too_many_copies:
        summary = f"{count - copies:,} of the {published:,} images of {label}, in {count:,} files"
    elif published is not None and (count != published or not flaws) and label == known.label:
        summary = f"{f'all {count:,}' if count == published else f'{count:,} of the {published:,}'} images of {label}"
    if published is not None and present != known.classes:
        summary += f", {present:,} of its {known.classes:,} classes"
    facts: dict[str, Any] = {
        "name": images.data,
        "fingerprint": images.fingerprint,
        "images": count,
        "of": published,
        "classes": present,
        "classes_of": images.classes,
        "whole": count == published
        and present == known.classes
        and label == known.label
        and not (flaws or too_many_copies),
        "said": "; ".join([summary, *flaws]),
    }
    if copies:
        facts["copies"] = copies
    if count == known.test_images and (encoding := identity.encoding_warning(known, images.sizes)):
        facts["encoding"] = encoding
    if images.labelled is not None and images.labelled.doubtful:
        facts["labels"] = images.labelled.warning
    if images.left_out:
        facts["left_out"] = {reason: len(names) for reason, names in sorted(images.left_out.items())}
    return facts
