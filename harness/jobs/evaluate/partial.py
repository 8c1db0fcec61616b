"""A job's unfinished predictions <-> one small file per shard, so that an interrupted pass resumes where it stopped."""

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.jobs.data.images import Images
from harness.store.leftovers import SHARDS
from harness.store.predictions import Predictions, concatenate, read, write

# An interruption costs at most one shard; its file is about 10 kB.
SHARD_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Images whose predictions share a file: positions `start` to `stop` - 1, and a digest of their identity."""

    start: int
    stop: int
    digest: str

    def __len__(self) -> int:
        """Count its images."""
        return self.stop - self.start


def split_into_shards(images: Images, *, size: int = SHARD_SIZE) -> list[Shard]:
    """Split the images into shards; the last may be smaller, none is empty.

    The digest covers names, labels and bytes of the images of that shard alone: replacing a broken file costs one
    shard, not the pass.
    """
    names, labels, sizes = images.names, images.labels.tolist(), images.sizes.tolist()
    shards = []
    for start in range(0, len(names), size):
        part = slice(start, start + size)
        rows = zip(names[part], labels[part], sizes[part], strict=True)
        text = "\n".join(f"{name}\t{label}\t{bytes_}" for name, label, bytes_ in rows)
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        shards.append(Shard(start=start, stop=min(start + size, len(names)), digest=digest))
    return shards


class PartialPredictions:
    """The finished shards of one job, below the folder of its results; they belong to the job's weights."""

    def __init__(self, folder: Path, *, weights: str) -> None:
        self.folder = folder / f"{SHARDS}{weights[:16]}"

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.start:08d}-{shard.digest}.npz"

    def has(self, shard: Shard) -> bool:
        """Whether a shard is finished."""
        return self._path(shard).exists()

    def save(self, shard: Shard, predictions: Predictions) -> None:
        """Write the predictions of a shard."""
        write(predictions, self._path(shard), sync=False)

    def load(self, shards: Sequence[Shard]) -> Predictions:
        """Read the predictions of these shards, in order.

        Raises `StoreError` if one is damaged; it is removed, so that the next pass computes it again.
        """
        parts: list[Predictions] = []
        for shard in shards:
            path, part = self._path(shard), None
            with contextlib.suppress(StoreError):
                part = read(path)
            # Nor is one of other images or of another model whole.
            if part is None or len(part.names) != len(shard) or (parts and part.heads.keys() != parts[0].heads.keys()):
                path.unlink(missing_ok=True)
                raise StoreError(f"{path}: was damaged; run the same command, which computes it again")
            parts.append(part)
        return concatenate(parts)

    def remove(self) -> None:
        """Remove all shards once the whole is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)
