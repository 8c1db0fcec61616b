"""Images -> what is wrong with them: at a glance before a run, thoroughly for `doctor`."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from harness.datasets import DATASETS
from harness.jobs.images import Images, Unreadable, facts_of, split_folder
from harness.jobs.labelling import imagenet_classes

# Names that fit into a sentence.
NAMED = 5

# Reading files waits for the disk, and decoding lets go of the interpreter, so threads do.
THREADS = 4


def quick(images: Images) -> list[str]:
    """Say what can be told without opening a file: images of no bytes."""
    if not images.sizes.any():  # a source that does not tell
        return []
    empty = [images.names[place] for place in np.flatnonzero(images.sizes == 0)]
    if not empty:
        return []
    problem = (
        f"--data {images.data}={images.where}: {len(empty)} of {len(images):,} images cannot be read, their files are "
        f"empty or gone ({_few(empty)}); replace them, or count them as wrong with --skip-unreadable"
    )
    return [problem]


def thorough(images: Images, report: Callable[[int, int], None]) -> tuple[list[str], list[str]]:
    """Read and decode every image: lines for people, and sentences for what is wrong."""
    facts = facts_of(images)
    lines = [
        f"images    {facts['said']}",
        f"labels    {facts['classes']:,} of {facts['classes_of']:,} classes have images",
        *(f"note      {note}" for note in images.notes),
        f"print     {facts['fingerprint'][:16]}, the fingerprint that results carry",
    ]
    problems = [*_classes(images), *_counted(images)]
    broken: list[Unreadable] = []
    contents: dict[bytes, list[str]] = {}
    for done, (name, digest, error) in enumerate(_looked_at(images), 1):
        if error is not None:
            broken.append(error)
        if digest:
            contents.setdefault(digest, []).append(name)
        report(done, len(images))
    if broken:
        said = "; ".join(f"{error.name} {error.why}" for error in broken[:NAMED])
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        problems.append(f"{len(broken)} of {len(images):,} images cannot be read: {said}{more}")
    twice = [names for names in contents.values() if len(names) > 1]
    if twice:
        problems.append(
            f"{len(twice)} pictures are there more than once: {_few([' = '.join(names) for names in twice])}"
        )
    if not broken:
        lines.append(f"decoded   all {len(images):,}")
    return lines, problems


def _looked_at(images: Images) -> Iterator[tuple[str, bytes, Unreadable | None]]:
    if images.streamed:
        for place, found in images:
            yield images.names[place], b"", found if isinstance(found, Unreadable) else None
        return

    def look(place: int) -> tuple[str, bytes, Unreadable | None]:
        try:
            raw = images.raw(place)
            if raw is not None:
                digest = hashlib.sha256(raw).digest()
                Image.open(io.BytesIO(raw)).convert("RGB")
                return images.names[place], digest, None
        except Exception:  # noqa: BLE001, S110 -- whatever it was, reading it the usual way below names it
            pass
        try:
            images.image(place)
        except Unreadable as error:
            return images.names[place], b"", error
        return images.names[place], b"", None

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), 256):  # in pieces, so that no more than these wait in memory
            yield from pool.map(look, range(start, min(start + 256, len(images))))


def _counted(images: Images) -> list[str]:
    known = DATASETS.get(images.data)
    if known is None or len(images) == known.test_images:
        return []
    problem = (
        f"{len(images):,} images instead of {known.test_images:,}: results are a sample's, shown and never judged "
        "against published ones"
    )
    return [problem]


def _classes(images: Images) -> list[str]:
    """Name the classes without images, and the folders that hold none."""
    problems = []
    known = DATASETS.get(images.data)
    absent = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    if known and absent:
        names = list(imagenet_classes()) if known.order == "imagenet" else [str(n) for n in range(images.classes)]
        problems.append(
            f"{len(absent):,} of {images.classes:,} classes have no images: {_few([names[n] for n in absent])}"
        )
    root = Path(images.where)
    if root.is_dir():
        folder = split_folder(images.data, root, "test") or root
        used = {name.split("/")[0] for name in images.names}
        empty = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in used)
        if empty and any("/" in name for name in images.names):
            problems.append(f"{len(empty)} class folders are empty: {_few(empty)}")
    return problems


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
