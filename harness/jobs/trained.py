"""A training that was done -> its weights, and the network with them."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.errors import JobError
from harness.job import Job
from harness.jobs import network as networks
from harness.jobs.training.hyperparameters import shape_of
from harness.jobs.training.positions import fitted
from harness.jobs.weights import Found
from harness.store import Store


def found(job: Job, runs: Path) -> Found:
    """Find the weights of the newest good result of a training.

    Raises `JobError` if there are none.
    """
    store = Store(runs)
    result = store.latest(job, lambda one: one.error is None and store.weights_of(one).is_file())
    if result is not None:
        path, digest = store.weights_of(result), str(result.facts["weights"]["sha256"])
        return Found(path=path, sha256=digest, origin="trained")
    failed = store.latest(job, lambda one: one.error is not None)
    why = f": {failed.error}" if failed is not None else ""
    raise JobError(f"it takes the weights of '{job}', which is not trained{why}")


def state(job: Job, runs: Path) -> dict[str, Tensor]:
    """Read the weights that a training left."""
    return dict(load_file(found(job, runs).path))


def network(job: Job, path: Path, *, res: int) -> nn.Module:
    """Build the network of a training with the weights in a file, for images of `res`: on the CPU, in eval mode."""
    built = networks.blank(str(job["model"]), res, classes=classes_in(path), shape=shape_of(job))
    built.load_state_dict(fitted(built, dict(load_file(path))), strict=True)
    return built.float().eval()


def classes_in(path: Path) -> int:
    """Read how many classes the network of a file of ours knows."""
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["classes"])
