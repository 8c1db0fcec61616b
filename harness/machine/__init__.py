"""Which machine and which software this is."""

from harness.machine.cpu import CpuClock, usable_cores
from harness.machine.devices import describe, gpu_index
from harness.machine.machine import GIB, Machine
from harness.machine.nvidia import Gpu, gpus, pin_gpus, survey
from harness.machine.versions import same_software, software, torch_build

__all__ = [
    "GIB",
    "CpuClock",
    "Gpu",
    "Machine",
    "describe",
    "gpu_index",
    "gpus",
    "pin_gpus",
    "same_software",
    "software",
    "survey",
    "torch_build",
    "usable_cores",
]
