"""What the user brings -> what is really there, before anything is measured."""

from typing import Any

from harness.errors import JobError
from harness.jobs import weights
from harness.jobs.check import quick
from harness.jobs.images import facts_of, open_images
from harness.plan import Job
from harness.progress import Inputs, Seen


def look(inputs: Inputs, jobs: tuple[Job, ...]) -> Seen:
    """Open each set of images that these jobs need and the user gave, look through it, and find the weights."""
    images: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    needed = dict.fromkeys(str(job["data"]) for job in jobs if "data" in dict(job.settings))
    for data in needed:
        if data not in inputs.data:
            continue
        try:
            found = open_images(data, inputs.data[data])
        except JobError as error:
            problems.append(str(error))
            continue
        images[data] = facts_of(found)
        if not inputs.skip_unreadable:
            problems += quick(found)
    there: dict[str, str | None] = {}
    missing: dict[str, str] = {}
    for model, tag in dict.fromkeys(
        (str(j["model"]), str(j["weights"])) for j in jobs if "weights" in dict(j.settings)
    ):
        name = f"{model}.{tag}"
        try:
            there[name] = _weights(model, tag, inputs)
        except JobError as error:
            missing[name] = str(error)
    return Seen(images=images, weights=there, problems=tuple(problems), missing=missing)


def _weights(model: str, tag: str, inputs: Inputs) -> str | None:
    """Find the hash of a file, or nothing for the hub: a tag's weights there do not change, and fetching can wait."""
    if inputs.weights is not None:
        return weights.find(model, tag, inputs.weights).sha256
    unknown = weights.unknown_tag(model, tag)
    if unknown:
        raise JobError(unknown)
    return None
