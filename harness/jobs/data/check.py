"""Images -> what is wrong with them: from their headers before a run, from every pixel for `doctor`."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.errors import JobError, name_few
from harness.jobs.data.files import split_folder
from harness.jobs.data.identity import imagenet_class_indices
from harness.jobs.data.images import Images, UnreadableImage, image_facts
from harness.jobs.data.walk import PICTURE, is_hidden
from harness.machine import usable_cores
from harness.machine.user import in_home
from harness.run.messages import CheckReport

NAMED = 5  # names that fit into a sentence

# Images that wait in memory for the slowest of them.
CHUNK = 256

# Gets how many images of how many are done.
ReportCount = Callable[[int, int], None]


# Why an image cannot be read, and a digest of its bytes; either may be empty.
_Status = tuple[str, bytes]
_Inspect = Callable[[Images, int], _Status]


def check_headers(images: Images) -> list[str]:
    """Return what would stop a pass and shows in headers: images that are empty, missing, or no images."""
    unreadable, _ = _scan(images, _check_header)
    if not unreadable:
        return []
    problem = f"{_unreadable_message(images, unreadable)}; replace them, or count them as wrong with --skip-unreadable"
    return [str(images.error(problem))]


def check_images(
    images: Images, *, thorough: bool, report: ReportCount = lambda *_: None, workers: int = 0
) -> CheckReport:
    """Check the headers of the images, or thoroughly by decoding every one; `workers` threads read (0: automatic)."""
    facts = image_facts(images)
    unreadable, duplicates = _scan(images, _decode if thorough else _check_header, report, workers)
    missing, empty = _missing_classes(images), _empty_folders(images)
    count = f"{len(images) - len(unreadable):,} of {len(images):,} images"
    duplicate_names = [name_few(names, separator=" = ") for names in duplicates]
    published = facts["of"] or len(images)
    return CheckReport(
        lines=(
            f"images    {facts['said']}",
            f"classes   {facts['classes']:,} of {facts['classes_of']:,} have images",
            *(f"labels    {note}" for note in images.notes),
            *([] if images.streamed and not thorough else [f"{'decoded' if thorough else 'opened':<10}{count}"]),
            f"digest    {facts['fingerprint'][:16]}, the beginning of the fingerprint in results",
        ),
        notes=(
            *([_count_message(facts, "a sample's")] if len(images) < published else []),
            *images.left_out_messages,
            *([facts["encoding"]] if "encoding" in facts else []),
            *_name_problem(f"{len(missing):,} of {images.classes:,} classes have no images", missing),
            *_name_problem(f"{len(empty)} class folders are empty", empty),
        ),
        problems=(
            *([_count_message(facts, "of more images than were published")] if len(images) > published else []),
            *_identity_problems(images, facts),
            *([_unreadable_message(images, unreadable)] if unreadable else []),
            *_name_problem(f"{len(duplicates)} images are there more than once", duplicate_names),
        ),
    )


def _count_message(facts: Mapping[str, Any], kind: str) -> str:
    return (
        f"{facts['images']:,} images instead of {facts['of']:,}: results are {kind}, shown and never judged against "
        "published ones"
    )


def _identity_problems(images: Images, facts: Mapping[str, Any]) -> list[str]:
    """Return what shows that these images, or their labels, are not the published ones."""
    labels = [facts["labels"]] if "labels" in facts else []
    sample = len(images) != facts["of"] or facts["classes"] < images.known.classes
    if facts["whole"] or not images.known.label or (sample and images.known.label in facts["said"]):
        return labels
    problem = f"{facts['said']}: these are not the images of {images.known.label} as published"
    return [f"{problem}, and results are shown and never judged against published ones", *labels]


def _missing_classes(images: Images) -> list[str]:
    """Return the classes without images, as their folders would be called."""
    missing = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    folder = images.names[0].rpartition("/")[0].rpartition("/")[2]
    if images.known.order != "imagenet" or folder.isdecimal():
        return [str(index) for index in missing]
    names = list(imagenet_class_indices())
    return [names[index] for index in missing]


def _empty_folders(images: Images) -> list[str]:
    """Return the class folders that contain no image, nor a picture that was left out."""
    root = in_home(images.where)
    folder = split_folder(images, root) if root.is_dir() else None
    used = {name.partition("/")[0] for name in images.names if "/" in name}
    if folder is None or not used:
        return []
    used |= {name.partition("/")[0] for name in images.left_out.get(PICTURE, ())}
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and entry.name not in used and not is_hidden(entry.name)
    )


def _scan(
    images: Images, inspect: _Inspect, report: ReportCount = lambda *_: None, workers: int = 0
) -> tuple[dict[str, str], list[list[str]]]:
    """Inspect every image: why which are unreadable, and the names of those with the same bytes."""
    unreadable: dict[str, str] = {}
    names: dict[bytes, list[str]] = {}
    for position, (error, digest) in enumerate(_inspect_all(images, inspect, workers)):
        name = images.names[position]
        if error:
            unreadable[name] = error
        if digest:
            names.setdefault(digest, []).append(name)
        report(position + 1, len(images))
    return unreadable, [same for same in names.values() if len(same) > 1]


def _inspect_all(images: Images, inspect: _Inspect, workers: int) -> Iterator[_Status]:
    """Inspect every image, in order."""
    if images.streamed:
        yield from _decode_stream(images) if inspect is _decode else ()
        return
    # Threads are enough: reading waits for the disk, and decoding releases the interpreter.
    with ThreadPoolExecutor(workers or 2 * usable_cores()) as pool:
        for start in range(0, len(images), CHUNK):
            positions = range(start, min(start + CHUNK, len(images)))
            yield from pool.map(lambda position: inspect(images, position), positions)


def _check_header(images: Images, position: int) -> _Status:
    try:
        images.check_header(position)
    except UnreadableImage as error:
        return error.reason, b""
    return "", b""


def _decode(images: Images, position: int) -> _Status:
    digest = b""
    try:
        content = images.fetch(position)
        digest = hashlib.sha256(content).digest() if isinstance(content, bytes) and content else b""
        images.decode(position, content)
    except UnreadableImage as error:
        return error.reason, digest
    return "", digest


def _decode_stream(images: Images) -> Iterator[_Status]:
    """Read a stream; an error that breaks it off is that of the remaining images."""
    done = 0
    try:
        for position, image in images:
            done = position + 1
            yield (image.reason if isinstance(image, UnreadableImage) else ""), b""
    except JobError as error:
        yield from [(str(error), b"")] * (len(images) - done)


def _unreadable_message(images: Images, unreadable: Mapping[str, str]) -> str:
    reasons = name_few([f"{name}: {reason}" for name, reason in unreadable.items()], most=NAMED, separator="; ")
    return f"{len(unreadable):,} of {len(images):,} images cannot be read ({reasons})"


def _name_problem(problem: str, names: list[str]) -> list[str]:
    return [f"{problem}: {name_few(names, most=NAMED)}"] if names else []
