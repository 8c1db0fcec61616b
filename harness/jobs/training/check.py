"""A training job and what is known of its images -> what is impossible about it, before anything is allocated."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from harness.errors import JobError
from harness.job import Job
from harness.jobs import network
from harness.jobs.training.hyperparameters import Hyperparameters, shape_of
from harness.jobs.training.networks import other_classes, published_classes
from harness.progress import train_split

# Repeated augmentation sees this many images' worth of an epoch, or a multiple: the released sampler rounds so.
ROUND = 256


def impossible(job: Job, images: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what keeps a training from being done; empty if nothing does.

    `images` are facts of the data sets by name, as `Seen` has them.
    """
    hyper = Hyperparameters.of(job)
    reason = _of_network(hyper.model, hyper.res, tuple(sorted(shape_of(job).items())), hyper.distillation == "token")
    train = images.get(train_split(hyper.data))
    if not reason and train is not None:
        reason = _of_images(job, hyper, train, images.get(hyper.data))
    return f"{job}: {reason}" if reason else ""


@cache
def _of_network(model: str, res: int, shape: tuple[tuple[str, int], ...], token: bool) -> str:  # noqa: FBT001
    try:
        built = network.skeleton(model, res, shape=dict(shape))
    except JobError as error:
        return str(error)
    if token and not hasattr(built, "head_dist"):
        return f"'{model}' has no distillation token; choose distillation hard or soft, or a network with the token"
    return ""


def _of_images(job: Job, hyper: Hyperparameters, train: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    seen = train["images"] // ROUND * ROUND if hyper.repeated_aug and train["images"] >= ROUND else train["images"]
    if seen < hyper.batch_size:
        rounded = f" ({seen} an epoch with repeated augmentation)" if hyper.repeated_aug else ""
        return (
            f"{train['images']} images to train with{rounded} are fewer than the batch of {hyper.batch_size}; "
            "give more images, or a smaller batch with --set batch_size=N"
        )
    if test is not None and test["classes_of"] != train["classes_of"]:
        return f"{train['classes_of']} classes to train with, {test['classes_of']} to test with; give both splits whole"
    if hyper.distilled and job.need("teacher") is None:
        knows = published_classes(hyper.teacher)
        if knows != train["classes_of"]:
            return other_classes(hyper.teacher, knows, train["classes_of"])
    return ""
