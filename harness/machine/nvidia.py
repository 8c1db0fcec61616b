"""The GPUs that CUDA may use here, as NVML describes them.  The only home of NVML; torch is never imported here."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any


@contextmanager
def nvml() -> Iterator[Any]:
    """Open NVML, or yield None where there is no NVIDIA driver or no permission to query it."""
    try:
        import pynvml  # noqa: PLC0415 -- not needed on machines without a GPU

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 -- whatever the driver's reason is, the answer is that NVML is not there
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU.  `index` counts as CUDA does, with CUDA_VISIBLE_DEVICES applied."""

    index: int
    name: str
    memory: int
    architecture: str
    driver: str
    uuid: str


@cache
def gpus() -> tuple[Gpu, ...]:
    """List the GPUs that CUDA may use here; empty where there is none."""
    with nvml() as api:
        if api is None:
            return ()
        driver = _text(api.nvmlSystemGetDriverVersion())
        handles = map(api.nvmlDeviceGetHandleByIndex, range(api.nvmlDeviceGetCount()))
        every = [
            Gpu(
                index=index,
                name=_text(api.nvmlDeviceGetName(handle)),
                memory=int(api.nvmlDeviceGetMemoryInfo(handle).total),
                architecture="sm_{}{}".format(*api.nvmlDeviceGetCudaComputeCapability(handle)),
                driver=driver,
                uuid=_text(api.nvmlDeviceGetUUID(handle)),
            )
            for index, handle in enumerate(handles)
        ]
    return visible_gpus(every, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(every: Sequence[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES: the GPUs that are left, renumbered as CUDA renumbers them."""
    if setting is None:
        return tuple(every)
    visible: list[Gpu] = []
    for word in filter(None, (part.strip() for part in setting.split(","))):
        match = [gpu for gpu in every if (str(gpu.index) == word if word.isdigit() else gpu.uuid.startswith(word))]
        if not match:
            break  # CUDA ignores what follows an entry that it does not know
        visible.append(match[0])
    return tuple(replace(gpu, index=index) for index, gpu in enumerate(visible))


def _text(value: str | bytes) -> str:
    """NVML's older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
