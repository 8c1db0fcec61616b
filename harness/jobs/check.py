"""Images -> what is wrong with them: at a glance before a run, thoroughly for `doctor`."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.datasets import DATASETS
from harness.errors import JobError
from harness.jobs.files import split_folder
from harness.jobs.images import Images, Unreadable, facts_of
from harness.jobs.labelling import imagenet_classes
from harness.jobs.sources import Source

# Names that fit into a sentence.
NAMED = 5

# Images that wait in memory for the slowest of them.
TOGETHER = 256

Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found: `lines` for people, `notes` on what a sample lacks, `problems`, and all of it as `facts`."""

    lines: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What a look at one image found: why it cannot be read, and a digest of its bytes where there are any."""

    name: str
    error: str = ""
    digest: bytes = b""


@dataclass(kw_only=True)
class _Found:
    """What the looks at all images came to."""

    broken: dict[str, str] = field(default_factory=dict)
    contents: dict[bytes, list[str]] = field(default_factory=dict)

    @property
    def twice(self) -> list[list[str]]:
        """Give the names of images that have the same bytes, in the order of the images."""
        return [names for names in self.contents.values() if len(names) > 1]


def quick(images: Images, report: Report = lambda _done, _total: None, *, workers: int = 0) -> list[str]:
    """Say what would stop a pass and can be told from headers: images that are empty, gone, or no images."""
    broken = _found(images, _glanced, report, workers).broken
    if not broken:
        return []
    problem = (
        f"--data {images.data}={images.where}: {_unread(images, broken)}; replace them, or count them as wrong with "
        "--skip-unreadable"
    )
    return [problem]


def check(images: Images, *, thorough: bool, report: Report = lambda _done, _total: None, workers: int = 0) -> Checked:
    """Look through the images: at their headers, or thoroughly by decoding every one.

    `report` is told how many of how many are done; `workers` threads read, 0 leaves their number to the machine.
    """
    facts = facts_of(images)
    absent, empty = _absent(images), _empty_folders(images)
    found = _found(images, _decoded if thorough else _glanced, report, workers)
    looked = f"{'decoded' if thorough else 'opened'}   ".ljust(10)
    readable = f"{looked}{len(images) - len(found.broken):,} of {len(images):,} images"
    return Checked(
        lines=(
            f"images    {facts['said']}",
            f"classes   {facts['classes']:,} of {facts['classes_of']:,} have images",
            *(f"labels    {note}" for note in images.notes),
            *([] if images.streamed and not thorough else [readable]),
            f"print     {facts['fingerprint'][:16]}, the fingerprint that results carry",
        ),
        notes=(
            *_fewer(facts),
            *_said(f"{len(absent):,} of {images.classes:,} classes have no images", absent),
            *_said(f"{len(empty)} class folders are empty", empty),
        ),
        problems=(
            *_more_than_published(facts),
            *([_unread(images, found.broken)] if found.broken else []),
            *_said(f"{len(found.twice)} pictures are there more than once", [" = ".join(same) for same in found.twice]),
        ),
        facts={
            **facts,
            "missing_classes": absent,
            "empty_folders": empty,
            "unreadable": found.broken,
            "duplicates": found.twice,
        },
    )


def _fewer(facts: Mapping[str, Any]) -> list[str]:
    return [_instead(facts, "a sample's")] if facts["of"] and facts["images"] < facts["of"] else []


def _more_than_published(facts: Mapping[str, Any]) -> list[str]:
    if not facts["of"] or facts["images"] <= facts["of"]:
        return []
    return [_instead(facts, "of more images than were published")]


def _instead(facts: Mapping[str, Any], kind: str) -> str:
    return (
        f"{facts['images']:,} images instead of {facts['of']:,}: results are {kind}, shown and never judged against "
        "published ones"
    )


def _absent(images: Images) -> list[str]:
    """Name the classes without images, as their folders would be called."""
    known = DATASETS.get(images.data)
    absent = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    if known is None or known.order != "imagenet" or _folder_of(images.names[0]).isdecimal():
        return [str(number) for number in absent]
    names = list(imagenet_classes())
    return [names[number] for number in absent]


def _empty_folders(images: Images) -> list[str]:
    """Name the class folders that hold no image."""
    root = Path(images.where).expanduser()
    source = Source(data=images.data, where=images.where, split=images.split)
    folder = split_folder(source, root) if root.is_dir() else None
    used = {name.partition("/")[0] for name in images.names if "/" in name}
    if folder is None or not used:
        return []
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and entry.name not in used and not entry.name.startswith(".")
    )


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _found(images: Images, look: Callable[[Images, int], _Look], report: Report, workers: int) -> _Found:
    found = _Found()
    for done, seen in enumerate(_looks(images, look, workers), 1):
        if seen.error:
            found.broken[seen.name] = seen.error
        if seen.digest:
            found.contents.setdefault(seen.digest, []).append(seen.name)
        report(done, len(images))
    return found


def _looks(images: Images, look: Callable[[Images, int], _Look], workers: int) -> Iterator[_Look]:
    """Look at every image, in order."""
    if images.streamed:
        yield from _streamed(images) if look is _decoded else ()
        return
    # Reading waits for the disk, and decoding lets go of the interpreter: threads do.
    with ThreadPoolExecutor(workers or 2 * len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(images), TOGETHER):
            yield from pool.map(lambda place: look(images, place), range(start, min(start + TOGETHER, len(images))))


def _glanced(images: Images, place: int) -> _Look:
    try:
        images.glance(place)
    except Unreadable as error:
        return _Look(name=error.name, error=error.why)
    return _Look(name=images.names[place])


def _decoded(images: Images, place: int) -> _Look:
    digest = b""
    try:
        found = images.found(place)
        digest = hashlib.sha256(found).digest() if isinstance(found, bytes) and found else b""
        images.decoded(place, found)
    except Unreadable as error:
        return _Look(name=error.name, error=error.why, digest=digest)
    return _Look(name=images.names[place], digest=digest)


def _streamed(images: Images) -> Iterator[_Look]:
    """Read a stream; what breaks it off ends it, and the images behind are not reached."""
    done = 0
    try:
        for place, found in images:
            done = place + 1
            yield _Look(name=images.names[place], error=found.why if isinstance(found, Unreadable) else "")
    except JobError as error:
        yield from (_Look(name=name, error=str(error)) for name in images.names[done:])


def _unread(images: Images, broken: Mapping[str, str]) -> str:
    few = "; ".join(f"{name}: {why}" for name, why in list(broken.items())[:NAMED])
    return f"{len(broken):,} of {len(images):,} images cannot be read ({few}{_more(len(broken))})"


def _said(sentence: str, names: list[str]) -> list[str]:
    return [f"{sentence}: {', '.join(names[:NAMED])}{_more(len(names))}"] if names else []


def _more(count: int) -> str:
    return f", and {count - NAMED:,} more" if count > NAMED else ""
