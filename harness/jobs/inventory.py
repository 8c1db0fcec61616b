"""What the user brings -> what is really there, before anything is measured."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
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
from harness.specs.model_names import split_weights


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
    inventory = Inventory(images=images, problems=tuple(problems), notes=tuple(notes))
    names = dict.fromkeys(name for job in jobs for name in job.weights_names)
    here = [name for name in names if _is_here(name, inputs.weights)]
    return _on_hub(_found(inventory, here, inputs.weights), [name for name in names if name not in here])


def _is_here(name: str, folder: Path | None) -> bool:
    """Whether weights are looked for on this machine."""
    try:
        return folder is not None or weights.included(*split_weights(name)) is not None
    except JobError:  # which the search for them reports
        return True


def _on_hub(inventory: Inventory, names: Iterable[str]) -> Inventory:
    """Add which weights timm has on its hub, where those of a tag do not change: the download can wait."""
    unknown = {name: weights.unknown_tag_message(*split_weights(name)) for name in names}
    missing = {name: message for name, message in unknown.items() if message}
    known = (name for name in unknown if name not in missing)
    return replace(
        inventory, weights={**inventory.weights, **dict.fromkeys(known)}, missing={**inventory.missing, **missing}
    )


def _found(inventory: Inventory, names: Iterable[str], folder: Path | None) -> Inventory:
    """Add which weights are in a folder, or come with their model."""
    files: dict[str, weights.WeightsFile] = {}
    missing: dict[str, str] = {}
    for name in names:
        model, tag = split_weights(name)
        try:
            files[name] = weights.find_weights(model, tag, folder)
        except JobError as error:
            missing[name] = str(error)
    hashes = {name: file.sha256 for name, file in files.items()}
    also_fits = {name: file.also_fits for name, file in files.items()}
    return replace(inventory, weights=hashes, also_fits=also_fits, missing=missing)


def unfit_weights(inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
    """Read the weights of these jobs and return what is wrong with those that do not fit, by `MODEL.TAG`."""
    problems: dict[str, str] = {}
    for job in jobs:
        model, tag = split_weights(job.weights_name)
        known = DATASETS.get(str(job["data"]))
        try:
            file = weights.find_weights(model, tag, inputs.weights)
            weights.read_state_dict(model, res=int(job["res"]), classes=known.classes if known else None, file=file)
        except JobError as error:
            problems[job.weights_name] = str(error)
    return problems
