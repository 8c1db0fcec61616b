"""The device of a process: it is made the current one before anything is put there, and asked for cuDNN's version."""

from functools import cache

import torch

from harness.errors import JobError
from harness.jobs.fresh import run_in_fresh_process


def use(device: str) -> None:
    """Make a device, `cpu` or `cuda:N`, that of this process.

    Pinned memory, communication and the loader's threads take the current GPU, which is the first one unless it is set:
    they would make a context there, some hundred MiB, next to whoever has that GPU.
    """
    if device != "cpu":
        torch.cuda.set_device(device)


@cache
def cudnn_version() -> str:
    """Return the version of cuDNN that torch has loaded.

    Asking initialises CUDA, after which no process can be forked that uses it: where it is not initialised yet, another
    process is asked.
    """
    ask = torch.backends.cudnn.version
    try:
        return str(ask() if torch.cuda.is_initialized() else run_in_fresh_process(ask))  # type: ignore[no-untyped-call]
    except JobError:
        return "unknown"
