"""Evaluate jobs over the same images -> their predictions, in one pass: an image is read and decoded once for all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.job import Job
from harness.jobs import score, trained, weights
from harness.jobs.images import Images, facts_of, open_images
from harness.jobs.parts import Parts, Shard, shards
from harness.jobs.preprocess import View
from harness.jobs.walk import FLAGS, Cost, Entry, Report, Walk
from harness.predictions import Predictions
from harness.progress import Inputs, Progress
from harness.result import Measurement

# Networks of one group are on the device together; more than this share of its memory in weights leaves too little for
# what they compute.
SHARE_FOR_WEIGHTS = 0.5

# Names of unreadable images that fit into a sentence.
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a job came to: numbers, the predictions they were derived from, and the parts that are then superfluous."""

    metrics: dict[str, Measurement]
    facts: dict[str, Any]
    warnings: list[str]
    predictions: Predictions
    parts: Parts


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a pass runs: devices as torch calls them, the memory of each in bytes, and where results are kept."""

    devices: tuple[str, ...]
    memory: int
    runs: Path


def work(
    jobs: Sequence[Job], inputs: Inputs, site: Site, report: Report, *, together: int | None = None
) -> Iterator[tuple[Job, Evaluated | str]]:
    """Evaluate networks over one set of images: each job's outcome, or the sentence that says why there is none.

    `together` images are read and computed at once; None leaves that to the device.  Every shard that is done is kept:
    what is interrupted, or fails at one image, goes on from there.
    """
    data = str(jobs[0]["data"])
    report(Progress(job=jobs[0], phase=f"looking through {data}"))
    try:
        images = open_images(data, inputs.where(data))
    except HarnessError as error:
        yield from ((job, str(error)) for job in jobs)
        return
    cut = shards(images.names, images.labels.tolist(), images.sizes.tolist())
    entries: list[Entry] = []
    for job in jobs:
        try:
            entries.append(_entry(job, inputs, site.runs, cut))
        except HarnessError as error:
            yield job, str(error)
    groups = grouped(entries, room=int(SHARE_FOR_WEIGHTS * site.memory))
    cost = Cost()
    failed: dict[str, str] = {}
    broken: dict[int, str] = {}
    for number, group in enumerate(groups, 1):
        said = f", group {number} of {len(groups)}" if len(groups) > 1 else ""
        walk = Walk(images=images, entries=group, inputs=inputs, report=report, said=said, together=together)
        spent = walk.on(site.devices)
        cost.add(spent.cost)
        failed |= spent.failed
        broken |= spent.broken
    told = {**cost.facts, "devices": list(site.devices), "groups": [[str(e.job) for e in group] for group in groups]}
    for entry in entries:
        # What one network could not be shown is no loss to another that had seen it before.
        whole = all(map(entry.parts.has, cut))
        reason = failed.get(entry.job.key) or ("" if whole else _unread(broken, images, inputs))
        yield entry.job, reason or _finished(entry, images, cut, inputs, told)


def _entry(job: Job, inputs: Inputs, runs: Path, cut: Sequence[Shard]) -> Entry:
    behind = job.need("weights")
    if behind is not None:
        found = trained.found(behind, runs)
    else:
        found = weights.find(str(job["model"]), str(job["weights"]), inputs.weights)
    parts = Parts(runs / job.key, weights=found.sha256)
    todo = frozenset(shard for shard in cut if not parts.has(shard))
    return Entry(job=job, found=found, parts=parts, view=View.of(job), todo=todo)


def grouped(entries: Sequence[Entry], *, room: int) -> list[list[Entry]]:
    """Put the networks that are not done into few groups, `room` bytes of weights each; a larger one stands alone."""
    groups: list[list[Entry]] = []
    for entry in sorted((entry for entry in entries if entry.todo), key=lambda entry: -entry.size):
        for group in groups:
            if sum(other.size for other in group) + entry.size <= room:
                group.append(entry)
                break
        else:
            groups.append([entry])
    return groups


def _unread(broken: Mapping[int, str], images: Images, inputs: Inputs) -> str:
    """Say which images could not be read, unless the user wants them counted as wrong."""
    if not broken or inputs.skip_unreadable:
        return ""
    first = "; ".join(broken[place].partition("; replace")[0] for place in sorted(broken)[:NAMED])
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return (
        f"{len(broken)} of {len(images):,} images of {images.data} cannot be read: {first}{more}; replace them and run "
        "the same command, which goes on from here, or count them as wrong with --skip-unreadable"
    )


def _finished(
    entry: Entry, images: Images, cut: Sequence[Shard], inputs: Inputs, told: Mapping[str, Any]
) -> Evaluated | str:
    """Put the parts together and derive every number from them."""
    try:
        predictions = entry.parts.load(cut)
    except HarnessError as error:
        return str(error)
    unread = [name for name, top in zip(predictions.names, _first(predictions), strict=True) if top < 0]
    if unread and not inputs.skip_unreadable:
        return (
            f"{len(unread)} images of {images.data} could not be read by an earlier run with --skip-unreadable "
            f"({', '.join(unread[:NAMED])}); replace them, or give --skip-unreadable again"
        )
    metrics, facts = score.metrics_of(predictions)
    warnings = []
    if unread:
        warnings.append(
            f"{len(unread)} of {len(images):,} images could not be read and count as wrong: {', '.join(unread[:NAMED])}"
            + (", …" if len(unread) > NAMED else "")
        )
    facts |= {
        "images": facts_of(images),
        "weights": entry.found.facts,
        "flags": FLAGS[str(entry.job["precision"])].facts,
        "unreadable": unread,
        "pass": dict(told),
    }
    return Evaluated(metrics=metrics, facts=facts, warnings=warnings, predictions=predictions, parts=entry.parts)


def _first(predictions: Predictions) -> list[int]:
    found: list[int] = predictions.heads[predictions.main].top[:, 0].tolist()
    return found
