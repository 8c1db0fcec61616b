"""A training job and the facts of its images -> why it cannot be done, before anything is allocated."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from harness.errors import JobError
from harness.jobs import models
from harness.jobs.training.hyperparameters import Hyperparameters, shape_of
from harness.jobs.training.student import teacher_message
from harness.jobs.weights import published_classes, published_size
from harness.plan.job import Job
from harness.run.messages import train_split

# An epoch with repeated augmentation has a multiple of this many images: the released sampler rounds so.
SAMPLER_MULTIPLE = 256


def find_problem(job: Job, images: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the reason why a training cannot be done; empty if there is none.

    `images` are facts of the datasets by name, as `Inventory` has them.
    """
    hyper = Hyperparameters.of(job)
    shape = tuple(sorted(shape_of(job).items()))
    reason = _problem_of_model(hyper.model, hyper.res, shape, token=hyper.distillation == "token")
    train = images.get(train_split(hyper.data))
    if not reason and train is not None:
        reason = _problem_of_images(hyper, train, images.get(hyper.data))
    return f"{job}: {reason}" if reason else ""


def teacher_warning(job: Job) -> str:
    """Return what is doubtful of a training that can be done: a public teacher of another size; empty if nothing is."""
    hyper = Hyperparameters.of(job)
    size = published_size(hyper.teacher) if hyper.distilled and hyper.teacher else None
    if size in (None, hyper.res):
        return ""
    return (
        f"the teacher {hyper.teacher} is published for images of {size} pixels and sees {hyper.res} here: set "
        f"teacher_res = {size}, and it is adapted first"
    )


@cache
def _problem_of_model(model: str, res: int, shape: tuple[tuple[str, int], ...], *, token: bool) -> str:
    try:
        built = models.build_on_meta(model, res, shape=dict(shape))
    except JobError as error:
        return str(error)
    if token and not hasattr(built, "head_dist"):
        return f"'{model}' has no distillation token; choose distillation hard or soft, or a model with the token"
    return ""


def _problem_of_images(hyper: Hyperparameters, train: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    count = train["images"]
    if hyper.repeated_aug and count >= SAMPLER_MULTIPLE:
        count = count // SAMPLER_MULTIPLE * SAMPLER_MULTIPLE
    if count < hyper.batch_size:
        rounded = f" ({count} an epoch with repeated augmentation)" if hyper.repeated_aug else ""
        return (
            f"{train['images']} images to train with{rounded} are fewer than the batch of {hyper.batch_size}; "
            "give more images, or a smaller batch with --set batch_size=N"
        )
    if test is not None and test["classes_of"] != train["classes_of"]:
        return f"{train['classes_of']} classes to train with, {test['classes_of']} to test with; give both splits whole"
    # Public weights that teach, or are adapted so that they can.
    for name in (hyper.teacher if hyper.distilled else "", hyper.start if hyper.fixres else ""):
        if name and (classes := published_classes(name)) != train["classes_of"]:
            return teacher_message(name, classes, train["classes_of"])
    return ""
