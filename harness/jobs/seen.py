"""What the user brings -> what is really there, before anything is measured."""

from typing import Any

from harness.datasets import DATASETS
from harness.errors import JobError
from harness.job import Job
from harness.jobs import weights
from harness.jobs.check import quick
from harness.jobs.images import facts_of, open_images
from harness.jobs.training import check
from harness.progress import Inputs, Seen, train_split


def look(inputs: Inputs, jobs: tuple[Job, ...]) -> Seen:
    """Open each set of images that these jobs need and the user gave, look through it, and find the weights."""
    images: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for data, split in dict.fromkeys(needed for job in jobs for needed in _images_of(job)):
        if not inputs.has(data):
            continue
        try:
            found = open_images(data, inputs.where(data), split=split)
        except JobError as error:
            problems.append(str(error))
            continue
        images[data if split == "test" else train_split(data)] = facts_of(found)
        if not inputs.skip_unreadable:
            problems += quick(found)
    problems += [problem for job in jobs if job.kind == "train" and (problem := check.impossible(job, images))]
    there: dict[str, str | None] = {}
    missing: dict[str, str] = {}
    for model, tag in dict.fromkeys(tuple(name.partition(".")[::2]) for job in jobs for name in job.weights_names):
        name = f"{model}.{tag}"
        try:
            there[name] = _weights(model, tag, inputs)
        except JobError as error:
            missing[name] = str(error)
    return Seen(images=images, weights=there, problems=tuple(problems), missing=missing)


def _images_of(job: Job) -> list[tuple[str, str]]:
    """Name the data sets and splits that a job reads."""
    data = str(job.get("data"))
    if not data:
        return []
    return [(data, "train"), (data, "test")] if job.kind == "train" else [(data, "test")]


def unfit(inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
    """Read the weights that these jobs measure, and say which are not what their file's name says, by `MODEL.TAG`."""
    problems: dict[str, str] = {}
    for job in jobs:
        model, _, tag = job.weights_name.partition(".")
        known = DATASETS.get(str(job["data"]))
        try:
            found = weights.find(model, tag, inputs.weights)
            weights.read(model, res=int(job["res"]), classes=known.classes if known else None, found=found)
        except JobError as error:
            problems[job.weights_name] = str(error)
    return problems


def _weights(model: str, tag: str, inputs: Inputs) -> str | None:
    """Find the hash of a file, or nothing for the hub: a tag's weights there do not change, and fetching can wait."""
    if inputs.weights is not None:
        return weights.find(model, tag, inputs.weights).sha256
    unknown = weights.unknown_tag(model, tag)
    if unknown:
        raise JobError(unknown)
    return None
