"""`--device` -> `Machine`."""

import re

from harness.errors import HarnessError, abridged
from harness.machine.cpu import cpu_name, host_memory, torch_threads, usable_cores
from harness.machine.machine import Machine
from harness.machine.nvidia import NO_DRIVER, gpus, survey
from harness.machine.versions import torch_build


def describe(device: str) -> Machine:
    """Describe the machine behind `--device auto|cpu|cuda|cuda:N`.

    Raises `HarnessError` for a device that is not there.
    """
    if device == "auto":
        device = "cuda" if gpus() and torch_build()[1] else "cpu"
    if device == "cpu":
        cores, threads = usable_cores(), torch_threads()
        return Machine(device="cpu", name=cpu_name(), memory=host_memory(), cores=cores, threads=threads)
    index = gpu_index(device)
    present = {gpu.index: gpu for gpu in gpus()}
    if not present:
        reason = "; ".join([survey().reason, *survey().problems])
        reason = reason.replace(NO_DRIVER, f"{NO_DRIVER} on this machine", 1)
        raise HarnessError(f"--device {device}: {reason}; use --device cpu")
    if ":" not in device:
        index = min(present)
    if index not in present:
        names = ", ".join(f"cuda:{gpu.index} {gpu.name}" for gpu in present.values())
        raise HarnessError(f"--device {device}: there is no such GPU; this machine has {names}")
    torch, cuda = torch_build()
    if cuda is None:
        raise HarnessError(f"--device {device}: torch {torch} is a CPU build; install a CUDA build of torch")
    return Machine(device="cuda", name=present[index].name, memory=present[index].memory)


def gpu_index(device: str) -> int:
    """Return N of `cuda:N`; plain `cuda` is the first."""
    match = re.fullmatch(r"cuda(?::([0-9]{1,9}))?", device)
    if match is None:
        raise HarnessError(f"--device {abridged(device)}: not a device; write auto, cpu, cuda or cuda:N")
    return int(match[1] or 0)
