"""What the user gave for a dataset, a folder, a tar file, or what timm reads -> its images, or how many (table 6)."""

import numpy as np

from harness.errors import JobError
from harness.jobs import Outcome
from harness.jobs.data import files, sources
from harness.jobs.data.images import DataSource, Images
from harness.jobs.data.walk import LeftOut, describe_left_out
from harness.machine.user import in_home
from harness.plan.job import Job
from harness.run.messages import Inputs, Progress, Report
from harness.store.result import Measurement

UNITS = {"test_images": "images", "train_images": "images", "classes": "classes"}


def open_images(data: str, where: str, *, split: str = "test") -> Images:
    """Find the images of a split, `test` or `train`, of a dataset.

    `where` is a folder, a tar file, or `wds/PATH`, `hfds/NAME`, `tfds/NAME`, `hfids/NAME`, `torch/NAME:PATH`,
    `sklearn/digits`.  Raises `JobError` with what is wrong with it.
    """
    source = DataSource(data=data, where=where, split=split)
    prefix, _, name = where.partition("/")
    if name and prefix in sources.INDEXERS:
        return sources.INDEXERS[prefix](source, prefix, name)
    sharded = bool(prefix == "wds" and name)
    path = in_home(name if sharded else where)
    if not path.exists():
        raise source.error(f"there is no file or folder {path}")
    if sharded:
        return files.index_shards(source, path)
    return files.index_tar(source, path) if path.is_file() else files.index_folder(source, path)


def count_images(data: str, where: str) -> dict[str, int]:
    """Count `test_images` and `train_images` of the splits that are there, and `classes`.

    The files of a folder are listed and not opened; several links to one are one image.  Raises `JobError` if there are
    no images.
    """
    return _count_splits(data, where)[0]


def _count_splits(data: str, where: str) -> tuple[dict[str, int], dict[str, LeftOut]]:
    """Return the counts, and what was left out, by split."""
    counts: dict[str, int] = {}
    left_out: dict[str, LeftOut] = {}
    errors: list[JobError] = []
    root = in_home(where)
    for split in ("test", "train"):
        try:
            source = DataSource(data=data, where=where, split=split)
            counted = files.count_in_folder(source, root) if root.is_dir() else None
            if counted is None:
                opened = open_images(data, where, split=split)
                distinct = len(opened) if opened.files is None else len(np.unique(opened.files))
                counted = distinct, len(np.unique(opened.labels)), opened.left_out
        except JobError as error:
            errors.append(error)
            continue
        counts[f"{split}_images"] = counted[0]
        counts.setdefault("classes", counted[1])
        left_out |= {split: counted[2]} if counted[2] else {}
    if not counts:
        raise errors[0]
    return counts, left_out


def inspect_dataset(job: Job, inputs: Inputs, report: Report) -> Outcome:
    """Count images and classes; a split that is missing has no number.

    Raises `JobError` if there are no images at all.
    """
    data = str(job["data"])
    report(Progress(job=job, phase="counting images"))
    counts, left_out = _count_splits(data, inputs.where(data))
    metrics = {name: Measurement(unit=UNITS[name], value=count) for name, count in counts.items()}
    missing = [name.removesuffix("_images") for name in UNITS if name not in counts]
    facts = {
        split: {reason: len(names) for reason, names in sorted(reasons.items())} for split, reasons in left_out.items()
    }
    warnings = [f"{data} has no {split} images there" for split in missing]
    warnings += [
        f"left out of the {split} images: {clause}"
        for split, reasons in left_out.items()
        for clause in describe_left_out(reasons)
    ]
    return metrics, {"left_out": facts} if facts else {}, warnings
