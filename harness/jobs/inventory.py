"""What the user brings -> what is really there, before anything is measured."""

from typing import Any

from harness.errors import JobError
from harness.jobs import weights
from harness.jobs.data.check import check_headers
from harness.jobs.data.images import image_facts
from harness.jobs.data.open import open_images
from harness.jobs.training import check
from harness.plan.job import Job
from harness.run.messages import Inputs, Inventory, train_split
from harness.specs.datasets import DATASETS


def inspect_inputs(inputs: Inputs, jobs: tuple[Job, ...]) -> Inventory:
    """Open each dataset that these jobs need and the user gave, check its image headers, and find the weights."""
    images: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    notes: list[str] = []
    trained = {str(job.get("data")) for job in jobs if job.kind == "train"}
    names = dict.fromkeys(str(job.get("data")) for job in jobs)
    for data, split in ((data, split) for data in names for split in ("train", "test")):
        if not inputs.has(data) or (split == "train" and data not in trained):
            continue
        try:
            opened = open_images(data, inputs.where(data), split=split)
        except JobError as error:
            problems.append(str(error))
            continue
        images[data if split == "test" else train_split(data)] = image_facts(opened)
        notes += [str(opened.error(message)) for message in opened.left_out_messages]
        if opened.labelled is not None and opened.labelled.wrong:
            problems.append(str(opened.error(opened.labelled.warning)))
        if not inputs.skip_unreadable:
            problems += check_headers(opened)
    problems += [problem for job in jobs if job.kind == "train" and (problem := check.find_problem(job, images))]
    hashes: dict[str, str | None] = {}
    also_fits: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(name for job in jobs for name in job.weights_names):
        model, _, tag = name.partition(".")
        if inputs.weights is None:  # on the hub a tag's weights do not change, and the download can wait
            if message := weights.unknown_tag_message(model, tag):
                missing[name] = message
            else:
                hashes[name] = None
            continue
        try:
            file = weights.find_weights(model, tag, inputs.weights)
        except JobError as error:
            missing[name] = str(error)
        else:
            hashes[name], also_fits[name] = file.sha256, file.also_fits
    return Inventory(
        images=images,
        weights=hashes,
        also_fits=also_fits,
        problems=tuple(problems),
        notes=tuple(notes),
        missing=missing,
    )


def unfit_weights(inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
    """Read the weights of these jobs and return what is wrong with those that do not fit, by `MODEL.TAG`."""
    problems: dict[str, str] = {}
    for job in jobs:
        model, _, tag = job.weights_name.partition(".")
        known = DATASETS.get(str(job["data"]))
        try:
            file = weights.find_weights(model, tag, inputs.weights)
            weights.read_state_dict(model, res=int(job["res"]), classes=known.classes if known else None, file=file)
        except JobError as error:
            problems[job.weights_name] = str(error)
    return problems
