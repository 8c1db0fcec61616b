"""The GPUs that CUDA may use here, as NVML describes them.  The only home of NVML; torch is never imported here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

NO_DRIVER = "no NVIDIA driver answers"

# How torch numbers the GPUs where CUDA_DEVICE_ORDER has another order than that of the bus, which is NVML's.
_PRINT_UUIDS = """
import json, torch
cuda = torch.cuda
print(json.dumps([str(cuda.get_device_properties(number).uuid) for number in range(cuda.device_count())]))
"""


def _open() -> tuple[Any, str]:
    """Open NVML; what it is, or None and the driver's reason where there is one to tell."""
    try:
        import pynvml  # noqa: PLC0415 -- not needed on machines without a GPU
    except ImportError:
        return None, ""
    try:
        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the answer is that NVML is not there
        absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return None, "" if getattr(error, "value", None) in absent else _words(error)
    return pynvml, ""


@contextmanager
def nvml() -> Iterator[Any]:
    """Open NVML, or yield None where there is no NVIDIA driver or no permission to query it."""
    api, _ = _open()
    try:
        yield api
    finally:
        if api is not None:
            api.nvmlShutdown()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, or one MIG instance of one.  `index` counts as CUDA does, with CUDA_VISIBLE_DEVICES applied.

    `problem` says why it cannot be used although CUDA counts it.  `number` is NVML's; the second and later instances of
    a GPU have none, as a process gets one of them only by its UUID.
    """

    index: int
    name: str
    memory: int
    architecture: str
    driver: str
    uuid: str
    problem: str = ""
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The GPUs that CUDA counts here, and a sentence for each one and for all that cannot be used."""

    counted: tuple[Gpu, ...] = ()
    problems: tuple[str, ...] = ()
    reason: str = NO_DRIVER


def gpus() -> tuple[Gpu, ...]:
    """List the GPUs that CUDA may use here; empty where there is none."""
    return tuple(gpu for gpu in survey().counted if not gpu.problem)


@cache
def survey() -> Survey:
    """Ask NVML for every GPU, each for itself: one that does not answer leaves the others as they are."""
    api, reason = _open()
    if api is None:
        return Survey(reason=f"{NO_DRIVER} ({reason})" if reason else NO_DRIVER)
    try:
        driver = _text(api.nvmlSystemGetDriverVersion())
        count = int(api.nvmlDeviceGetCount())
        every, problems = _every_gpu(api, count, driver)
    except api.NVMLError as error:
        return Survey(reason=f"{NO_DRIVER} ({_words(error)})")
    finally:
        api.nvmlShutdown()
    every, problem = _in_order(every, os.environ)
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    counted = visible_gpus(every, setting)
    problems += [f"cuda:{gpu.index} {gpu.name} is left out: {gpu.problem}" for gpu in counted if gpu.problem]
    problems += [problem] if problem else []
    left = [gpu.uuid for gpu in every if _is_instance(gpu) and gpu.uuid not in {each.uuid for each in counted}]
    if left and setting is None:
        problems.append(
            f"{len(left)} MIG instance{'s are' if len(left) > 1 else ' is'} left out, as a process gets one alone: "
            f"choose it with CUDA_VISIBLE_DEVICES, of {', '.join(left)}"
        )
    reason = "no GPU answers"
    if every and not counted:
        names = ", ".join(f"{gpu.name} {gpu.uuid}" for gpu in every)
        reason = f"CUDA_VISIBLE_DEVICES={setting} leaves no GPU of {names}"
    return Survey(counted=counted, problems=tuple(problems), reason=reason)


def _every_gpu(api: Any, count: int, driver: str) -> tuple[list[Gpu], list[str]]:  # noqa: ANN401
    """Return what CUDA counts, MIG instances in the place of their GPU, and a sentence for each GPU that is out."""
    every: list[Gpu] = []
    problems = []
    for number in range(count):
        try:
            handle = api.nvmlDeviceGetHandleByIndex(number)
            capability = api.nvmlDeviceGetCudaComputeCapability(handle)
            instances = _instances(api, handle)
            listed = [_gpu(api, each, capability, driver) for each in ([handle] if instances is None else instances)]
        except api.NVMLError as error:
            problems.append(f"GPU {number} is left out: {_words(error)}")
            continue
        if not listed:
            problems.append(
                f"GPU {number} is left out: it is in MIG mode and has no instance; `nvidia-smi mig` makes one"
            )
        numbers = (number, *[None] * len(listed))
        every += [replace(gpu, number=n) for gpu, n in zip(listed, numbers, strict=False)]
    return every, problems


def _instances(api: Any, handle: Any) -> list[Any] | None:  # noqa: ANN401
    """Return the MIG instances of a GPU; None where it is not in that mode, or has none."""
    try:
        if not api.nvmlDeviceGetMigMode(handle)[0]:
            return None
    except api.NVMLError:
        return None
    instances = []
    for number in range(api.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(api.NVMLError):  # a place without one
            instances.append(api.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
    return instances


def _gpu(api: Any, handle: Any, capability: tuple[int, int], driver: str) -> Gpu:  # noqa: ANN401
    memory, problem = 0, ""
    try:
        memory = int(api.nvmlDeviceGetMemoryInfo(handle).total)
    except api.NVMLError as error:
        problem = f"the driver does not say how much memory it has ({_words(error)})"
    return Gpu(
        index=0,
        name=_text(api.nvmlDeviceGetName(handle)),
        memory=memory,
        architecture="sm_{}{}".format(*capability),
        driver=driver,
        uuid=_text(api.nvmlDeviceGetUUID(handle)),
        problem=problem,
    )


def visible_gpus(every: Sequence[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES: the GPUs that are left, renumbered as CUDA renumbers them.

    Numbers count the GPUs that answer.  Of MIG instances a process gets one, and none next to whole GPUs.
    """
    numbered = [gpu for gpu in every if gpu.number is not None or not _is_instance(gpu)]
    visible: list[Gpu] = []
    if setting is None:
        visible = numbered
    for word in filter(None, (part.strip() for part in (setting or "").split(","))):
        match = [gpu for n, gpu in enumerate(numbered) if word.isdecimal() and n == int(word)]
        match = match or [gpu for gpu in every if not word.isdecimal() and gpu.uuid.startswith(word)]
        if len(match) != 1:
            break  # CUDA ignores what follows an entry that it does not know
        if match[0] in visible:
            return ()  # nor does it take one twice
        visible += match
    whole = [gpu for gpu in visible if not _is_instance(gpu)]
    if whole != visible:
        visible = visible[:1] if _is_instance(visible[0]) and setting else whole or visible[:1]
    return tuple(replace(gpu, index=index) for index, gpu in enumerate(visible))


def _is_instance(gpu: Gpu) -> bool:
    return gpu.uuid.startswith("MIG-")


def _in_order(every: list[Gpu], environment: Mapping[str, str]) -> tuple[list[Gpu], str]:
    """Put different GPUs into the order that CUDA_DEVICE_ORDER asks for, which only CUDA knows; say where it fails."""
    order = environment.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if order == "PCI_BUS_ID" or len({gpu.name for gpu in every}) < 2 or any(map(_is_instance, every)):
        return every, ""
    bare = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
    ran = subprocess.run(  # noqa: S603 -- our own interpreter, our own text
        [sys.executable, "-c", _PRINT_UUIDS], capture_output=True, text=True, errors="replace", check=False, env=bare
    )
    if ran.returncode:
        return every, f"CUDA_DEVICE_ORDER={order}: torch does not say its order, so GPUs are counted as nvidia-smi does"
    uuids = [uuid.removeprefix("GPU-") for uuid in json.loads(ran.stdout.splitlines()[-1])]
    places = {uuid: place for place, uuid in enumerate(uuids)}
    return sorted(every, key=lambda gpu: places.get(gpu.uuid.removeprefix("GPU-"), len(places))), ""


def pin_gpus() -> None:
    """Have CUDA count the GPUs as `gpus` does, by their UUIDs, in this process and those that it starts.

    To be called before CUDA is initialised.
    """
    counted = survey().counted
    if counted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in counted)


def _text(value: str | bytes) -> str:
    """NVML's older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
