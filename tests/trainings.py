"""Small trainings on the embedded digits, for the tests of the trainer."""

from pathlib import Path
from typing import Any

from harness.job import Job
from harness.jobs import train
from harness.kinds import Scalar
from harness.progress import Inputs, Progress
from harness.recipe import Recipes
from harness.result import Measurement
from harness.stages import Stages

# A transformer that learns within seconds: one layer, sixteen patches.
SMALL: dict[str, Scalar] = {"depth": 1, "embed_dim": 32, "num_heads": 2}

# No augmentation: what is learnt is learnt fast.
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
    """Make the smoke training of a recipe, with some settings changed behind its back."""
    recipes = Recipes()
    job = Stages(recipes=recipes, scale=recipes.scale("smoke")).training({"recipe": recipe}, seed)
    return changed(job, **{**SMALL, **changes})


def changed(job: Job, **changes: Scalar) -> Job:
    """Make the same job with other settings."""
    return Job.of(job.kind, {**dict(job.settings), **changes}, dict(job.needs))


def trained(
    job: Job,
    runs: Path,
    **told: Any,  # noqa: ANN401 -- what `train.work` takes
) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Train on one core without readers, and leave the weights in `runs`."""
    inputs = Inputs(workers=told.pop("workers", 0))
    metrics, facts, _ = train.work(
        job,
        inputs,
        told.pop("report", ignored),
        devices=("cpu",),
        runs=runs,
        weights=runs / "weights.safetensors",
        cores=1,
        **told,
    )
    return metrics, facts


def ignored(_progress: Progress) -> None:
    """Pass over what a training says."""
