"""Evaluate jobs over the same images -> their outcomes, in one pass: an image is read and decoded once for all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, name_few
from harness.jobs import models, other_models
from harness.jobs.data.images import Images, image_facts
from harness.jobs.data.open import open_images
from harness.jobs.data.preprocess import Preprocessing
from harness.jobs.evaluate import score
from harness.jobs.evaluate.evaluation_pass import EvaluationPass, PassOutcome, PendingEvaluation
from harness.jobs.evaluate.partial import PartialPredictions, Shard, split_into_shards
from harness.jobs.precision import PRECISIONS
from harness.jobs.training.trained_weights import find_input
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs, Progress, Report
from harness.store.predictions import Predictions
from harness.store.result import Measurement

# Models of one group are on the device together; a larger share of its memory in weights leaves too little for
# activations.
WEIGHTS_MEMORY_SHARE = 0.5

# Names of unreadable images that fit into a sentence.
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class EvaluationOutcome:
    """Metrics of a job, the predictions they derive from, and the partial predictions that are then superfluous."""

    metrics: dict[str, Measurement]
    facts: dict[str, Any]
    warnings: list[str]
    predictions: Predictions
    partial: PartialPredictions


def evaluate_batch(
    batch: Batch, report: Report, *, batch_size: int | None = None
) -> Iterator[tuple[Job, EvaluationOutcome | str]]:
    """Evaluate models over one set of images: each job's outcome, or the sentence that says why there is none.

    `batch_size` images are read and computed at once; None leaves that to the device.  Every finished shard is saved:
    what is interrupted, or fails at one image, resumes from there.
    """
    jobs, inputs, devices = batch.jobs, batch.inputs, batch.devices or (batch.device,)
    data = str(jobs[0]["data"])
    report(Progress(job=jobs[0], phase=f"listing the images of {data}"))
    try:
        images = open_images(data, inputs.where(data))
    except HarnessError as error:
        yield from ((job, str(error)) for job in jobs)
        return
    shards = split_into_shards(images)
    evaluations: list[PendingEvaluation] = []
    for job in jobs:
        try:
            evaluations.append(_prepare(job, shards, inputs, batch.runs))
        except HarnessError as error:
            yield job, str(error)
    groups = group_by_memory(evaluations, limit=int(WEIGHTS_MEMORY_SHARE * batch.machine.memory))
    outcome = PassOutcome()
    for number, group in enumerate(groups, 1):
        name = f", group {number} of {len(groups)}" if len(groups) > 1 else ""
        evaluation_pass = EvaluationPass(
            images=images, evaluations=group, inputs=inputs, report=report, group=name, batch_size=batch_size
        )
        outcome.add(evaluation_pass.run(devices))
    pass_facts = {
        **outcome.facts,
        "limits": list(outcome.limits),
        "devices": list(devices),
        "groups": [[str(evaluation.job) for evaluation in group] for group in groups],
    }
    for evaluation in evaluations:
        reason = outcome.failed.get(evaluation.job.key, "")
        # An image that this pass could not read is no loss to a model that had its shard before.
        if not reason and not all(map(evaluation.partial.has, shards)):
            reason = _unreadable_message(outcome.unreadable, images, inputs)
        yield evaluation.job, reason or _score(evaluation, images, shards, inputs, pass_facts)


def _prepare(job: Job, shards: Sequence[Shard], inputs: Inputs, runs: Path) -> PendingEvaluation:
    """Resolve the weights of a job and the shards that it lacks."""
    models.check_code(job)
    changed = {"autocast": job["precision"] != "float32"}
    other_models.check_flags(str(job["model"]), changed, remedy="precision = 'float32'")
    weights = find_input(job, "weights", folder=inputs.weights, runs=runs)
    partial = PartialPredictions(runs / job.key, weights=weights.file.sha256)
    return PendingEvaluation(
        job=job,
        weights=weights,
        partial=partial,
        view=Preprocessing.of(job),
        missing=frozenset(shard for shard in shards if not partial.has(shard)),
    )


def group_by_memory(evaluations: Sequence[PendingEvaluation], *, limit: int) -> list[list[PendingEvaluation]]:
    """Put unfinished evaluations into few groups of at most `limit` bytes of weights; a larger one is its own group."""
    groups: list[list[PendingEvaluation]] = []
    unfinished = [evaluation for evaluation in evaluations if evaluation.missing]
    for evaluation in sorted(unfinished, key=_weights_size, reverse=True):
        for group in groups:
            if sum(map(_weights_size, [*group, evaluation])) <= limit:
                group.append(evaluation)
                break
        else:
            groups.append([evaluation])
    return groups


def _weights_size(evaluation: PendingEvaluation) -> int:
    return evaluation.weights.file.path.stat().st_size


def _unreadable_message(unreadable: Mapping[int, str], images: Images, inputs: Inputs) -> str:
    """Name the unreadable images, unless the user wants them counted as wrong."""
    if not unreadable or inputs.skip_unreadable:
        return ""
    reasons = [unreadable[position].partition("; replace")[0] for position in sorted(unreadable)]
    return (
        f"{len(unreadable)} of {len(images):,} images of {images.data} cannot be read: "
        f"{name_few(reasons, most=NAMED, separator='; ')}; replace them and run the same command, which resumes from "
        "here, or count them as wrong with --skip-unreadable"
    )


def _score(
    evaluation: PendingEvaluation,
    images: Images,
    shards: Sequence[Shard],
    inputs: Inputs,
    pass_facts: Mapping[str, Any],
) -> EvaluationOutcome | str:
    """Join the partial predictions and derive every metric from them."""
    try:
        predictions = evaluation.partial.load(shards)
    except HarnessError as error:
        return str(error)
    first = predictions.heads[predictions.main_head].top[:, 0].tolist()
    unreadable = [name for name, label in zip(predictions.names, first, strict=True) if label < 0]
    if unreadable and not inputs.skip_unreadable:
        return (
            f"{len(unreadable)} images of {images.data} could not be read by an earlier run with --skip-unreadable "
            f"({name_few(unreadable, most=NAMED)}); replace them, or give --skip-unreadable again"
        )
    metrics, facts = score.accuracies(predictions)
    warnings = evaluation.weights.file.warnings
    if evaluation.job.need("weights") is None:
        warnings += models.preprocessing_warnings(evaluation.job)
    if unreadable:
        names = name_few(unreadable, most=NAMED)
        warnings.append(f"{len(unreadable)} of {len(images):,} images could not be read and count as wrong: {names}")
    which = image_facts(images)
    warnings += [which[name] for name in ("labels", "encoding") if name in which]
    warnings += [*score.chance_warnings(metrics, images.classes, len(images)), *pass_facts["limits"]]
    facts |= {
        "images": which,
        "weights": evaluation.weights.file.facts,
        "flags": PRECISIONS[str(evaluation.job["precision"])].facts,
        "unreadable": unreadable,
        "pass": dict(pass_facts),
    }
    return EvaluationOutcome(
        metrics=metrics, facts=facts, warnings=warnings, predictions=predictions, partial=evaluation.partial
    )
