"""Small trainings on the embedded digits, for the tests of the trainer."""

from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.jobs import train
from harness.plan.job import Job
from harness.plan.stages import TrainingStages
from harness.run.launch import LocalLauncher
from harness.run.messages import Inputs, Progress
from harness.specs.checked import Scalar
from harness.specs.recipe import Recipes
from harness.store.result import Measurement

# A transformer that learns within seconds: one layer, sixteen patches.
SMALL: dict[str, Scalar] = {"depth": 1, "embed_dim": 32, "num_heads": 2}

# No augmentation: it learns fast.
PLAIN: dict[str, Any] = {
    "rand_augment": False,
    "color_jitter": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "erasing": 0.0,
    "drop_path": 0.0,
    "repeated_aug": False,
}


def smoke(recipe: str = "deit-b", seed: int = 1, **changes: Scalar) -> Job:
    """Make the smoke training of a recipe, with some settings changed afterwards."""
    recipes = Recipes()
    job = TrainingStages(recipes=recipes, scale=recipes.scale("smoke")).training({"recipe": recipe}, seed)
    return changed(job, **{**SMALL, **changes})


def changed(job: Job, **changes: Scalar) -> Job:
    """Return the same job with other settings."""
    return Job.of(job.kind, {**dict(job.settings), **changes}, dict(job.needs))


def trained(
    job: Job,
    runs: Path,
    **options: Any,  # noqa: ANN401 -- what `train.train` takes
) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Train on one core without loader processes, and leave the weights in `runs`."""
    inputs = Inputs(workers=options.pop("workers", 0))
    metrics, facts, _ = train.train(
        job,
        inputs,
        options.pop("report", ignored),
        devices=("cpu",),
        runs=runs,
        weights=runs / "weights.safetensors",
        cores=1,
        **options,
    )
    return metrics, facts


def ignored(_progress: Progress) -> None:
    """Ignore what a training reports."""


def start_forked(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function in a process as a job has it: forked from one that has torch, which costs its import once."""
    launcher = LocalLauncher()
    launcher.warm()
    process: BaseProcess = launcher._context.Process(target=function, args=arguments)
    process.start()
    return process
