"""A job's unfinished predictions <-> a small file a shard, so that an interrupted pass goes on where it stopped."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.predictions import Predictions, joined, read, write

# A shard is what an interruption can cost; its file is about 10 kB.
SHARD = 128


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Images that are kept together: positions `start` to `stop` - 1, and a digest of what lies there."""

    start: int
    stop: int
    mark: str

    def __len__(self) -> int:
        """Count its images."""
        return self.stop - self.start


def shards(names: Sequence[str], labels: Sequence[int], sizes: Sequence[int], *, size: int = SHARD) -> list[Shard]:
    """Cut the images into shards; the last may be smaller, none is empty.

    The digest is over names, labels and bytes of the images of that shard alone: replacing a broken file costs one
    shard, not the pass.
    """
    found = []
    for start in range(0, len(names), size):
        here = slice(start, start + size)
        rows = zip(names[here], labels[here], sizes[here], strict=True)
        text = "\n".join(f"{name}\t{label}\t{bytes_}" for name, label, bytes_ in rows)
        mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        found.append(Shard(start=start, stop=min(start + size, len(names)), mark=mark))
    return found


class Parts:
    """The shards of one job that are done, below the folder of its results; they belong to the job's weights."""

    def __init__(self, folder: Path, *, weights: str) -> None:
        self.folder = folder / f".parts-{weights[:16]}"

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.start:08d}-{shard.mark}.npz"

    def has(self, shard: Shard) -> bool:
        """Whether a shard is done."""
        return self._path(shard).exists()

    def keep(self, shard: Shard, predictions: Predictions) -> None:
        """Write a shard's predictions."""
        write(predictions, self._path(shard), sync=False)

    def load(self, wanted: Sequence[Shard]) -> Predictions:
        """Read the predictions of these shards, in order.

        Raises `StoreError` if one is damaged; it is removed, so that the next pass makes it again.
        """
        found = []
        for shard in wanted:
            try:
                found.append(read(self._path(shard)))
            except StoreError as error:
                self._path(shard).unlink(missing_ok=True)
                raise StoreError(
                    f"{self._path(shard)}: was damaged; run the same command, which makes it again"
                ) from error
        return joined(found)

    def remove(self) -> None:
        """Remove all parts once the whole is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)
