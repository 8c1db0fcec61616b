"""A train job -> its weights next to the result, and its metrics; on one device here, on several through torchrun."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import JobError, name_few
from harness.jobs import Outcome
from harness.jobs.evaluate import score
from harness.jobs.training.check import teacher_warning
from harness.jobs.training.checkpoint import Checkpoints
from harness.jobs.training.distributed import World
from harness.jobs.training.hyperparameters import Hyperparameters
from harness.jobs.training.process import node_count, train_in_processes
from harness.jobs.training.run import ProcessContext, train_in_process
from harness.machine import usable_cores
from harness.plan.job import Job
from harness.run.messages import Inputs, Report
from harness.store.result import Measurement, Result
from harness.store.store import Store

# A device that waits for images for a larger share of a training is worth a warning.
WAITING_SHARE = 0.1

_UNTRAINED_HEAD = (
    "without a teacher the class head alone is trained, as in the released code, and top1 adds a distillation head "
    "that stays as it began: read top1_class, or name a teacher"
)


def train(  # noqa: PLR0913 -- what a training needs
    job: Job,
    inputs: Inputs,
    report: Report,
    *,
    devices: tuple[str, ...],
    runs: Path,
    weights: Path,
    cores: int = 0,
    processes: int = 0,
) -> Outcome:
    """Train a model on all devices in parallel; `weights` is the file to write.

    A training that ended without its result being saved is taken up from its last checkpoint: no step is done again.
    `cores` CPU cores are for it (0: all); `processes` share them, which tests do.  Raises `TrainingStopped` if a signal
    asked for that.
    """
    count, nodes = processes or len(devices), node_count()
    context = ProcessContext(
        device=devices[0],
        cores=cores or usable_cores(),
        # Where there is one core, reading in the process itself interferes less.
        inputs=replace(inputs, workers=max(1, inputs.workers // count) if inputs.workers else 0),
        runs=runs,
    )
    batch = int(job["batch_size"])
    if batch % (count * nodes):
        raise JobError(
            f"a batch of {batch} cannot be shared by {count * nodes} devices; choose fewer with --device or --nodes"
        )
    weights.parent.mkdir(parents=True, exist_ok=True)
    Checkpoints(runs / job.key, job).remove_finished(Store(runs).results(job))
    if count * nodes == 1:
        facts = train_in_process(job, context=context, world=World(), path=weights, report=report)
    else:
        worker_devices = [devices[number % len(devices)] for number in range(count)]
        facts = train_in_processes(job, context=context, path=weights, devices=worker_devices, report=report)
    waiting = sum(row["waiting"] * row["seconds"] for row in facts["history"])
    share = waiting / max(1e-9, sum(row["seconds"] for row in facts["history"]))
    waited = f"the device waited for images {100 * share:.0f} % of the time: give more --workers, or smaller images"
    metrics, tests = _metrics(facts), facts["tests"]
    damaged = f"damaged and set aside, {name_few(facts['damaged_checkpoints'])}: check the disk of {runs}"
    warnings = {
        waited: share > WAITING_SHARE,
        _UNTRAINED_HEAD: "top1_class" in metrics and Hyperparameters.of(job).class_head_alone,
        damaged: bool(facts["damaged_checkpoints"]),
        teacher_warning(job): True,
        **{facts[split].get("labels", ""): True for split in ("images", "tests")},
        **dict.fromkeys(facts["limits"], True),
        **dict.fromkeys(score.chance_warnings(metrics, tests["classes_of"], tests["images"]), True),
    }
    return metrics, facts, [text for text, applies in warnings.items() if text and applies]


def clean_up(result: Result, store: Store) -> None:
    """Remove the checkpoints of a training whose result is saved, and not before: they are all that it could lose."""
    if result.error is None and store.weights_of(result).is_file():
        Checkpoints(store.root / result.job.key, result.job).remove()


def _metrics(facts: dict[str, Any]) -> dict[str, Measurement]:
    last = facts["history"][-1]
    metrics = {
        name: Measurement(unit="% top-1", value=last[name])
        for name in ("top1", "top1_class", "top1_distil")
        if name in last
    }
    if "top1_class" in metrics:
        metrics["top1_softmax_sum"] = metrics["top1"]
    return {**metrics, "hours": Measurement(unit="h", value=facts["hours"])}
