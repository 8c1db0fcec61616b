"""`--device` -> where jobs are run: the device, the machine behind it and its software."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.machine import Machine, describe, gpu_index, gpus, software, survey
from harness.machine.nvidia import NO_DRIVER
from harness.plan.plan import Plan
from harness.specs.kinds import SCRIPT, is_for_gpus


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What one training has that runs next to others: devices, CPU cores, and processes that load images."""

    devices: tuple[str, ...]
    cores: int
    loaders: int


@dataclass(frozen=True, kw_only=True)
class ExecutionTarget:
    """Where jobs are run: the device by its name in torch, the machine behind it, and the installed versions.

    `devices` may share an evaluation pass; throughput is measured on `device` alone.  `workers` train side by side.
    `lock` is the file of the exclusive lock (None: `speed_lock`).
    """

    device: str
    machine: Machine
    software: Mapping[str, str]
    devices: tuple[str, ...] = ()
    workers: tuple[Worker, ...] = ()
    lock: Path | None = None

    @property
    def all_devices(self) -> tuple[str, ...]:
        """The devices of an evaluation pass or of a training that has the whole machine."""
        return self.devices or (self.device,)

    def fit(self, plan: Plan) -> Plan:
        """Block what means nothing on the device, or would keep a CPU busy for days, as timm's script in float16."""
        if self.machine.device != "cpu":
            threads = [job.key for job in plan.jobs if job.get("threads")]
            return plan.block(dict.fromkeys(threads, "its threads are those of a CPU; needs --device cpu"))
        script = [job for job in plan.jobs if job.get("protocol") == SCRIPT]
        ours = [job for job in plan.jobs if job.kind == "throughput" and job not in script]
        halves = {
            job.key: f"published for a GPU, in {job['precision']}; needs --device cuda"
            for job in script
            if job.get("precision") != "float32"
        }
        switches = {
            job.key: "of use on a GPU alone; needs --device cuda" for job in ours if is_for_gpus(dict(job.settings))
        }
        return plan.block({**halves, **switches})

    def with_workers(self, *, scale: str, jobs: int | None, cores: int, loaders: int | None) -> "ExecutionTarget":
        """Share devices and cores among trainings that run side by side.

        At the published scale one training has all devices; small trainings are many, and have a GPU or a core each.
        """
        devices = self.all_devices
        on_cpu = devices[0] == "cpu"
        default = 1 if scale == "full" else (cores if on_cpu else len(devices))
        count = min(jobs or default, cores if on_cpu else len(devices))
        each = max(1, cores // count)
        if loaders is None:
            # With one core, a loader next to the training would only take its time: the training loads images itself.
            loaders = 0 if each == 1 else max(1, each // 2)
        shares = [devices if on_cpu else devices[index::count] for index in range(count)]
        return replace(self, workers=tuple(Worker(devices=share, cores=each, loaders=loaders) for share in shares))


def resolve_target(device: str) -> ExecutionTarget:
    """Return the target that `--device` names.

    Raises `HarnessError` for a device that does not exist.
    """
    machine = describe(device)
    first = min((gpu.index for gpu in gpus()), default=0)
    index = gpu_index(device) if ":" in device else first
    name = f"cuda:{index}" if machine.device == "cuda" else "cpu"
    share = device in ("auto", "cuda") and machine.device == "cuda"
    devices = tuple(f"cuda:{gpu.index}" for gpu in gpus() if gpu.name == machine.name) if share else (name,)
    return ExecutionTarget(device=name, machine=machine, software=software(machine), devices=devices)


def device_warnings(device: str) -> tuple[str, ...]:
    """Return a sentence for each GPU that is left out, and for a driver that fails where `auto` then takes the CPU."""
    listing = survey()
    if device == "cpu" or (listing.reason == NO_DRIVER and not listing.problems):
        return ()
    failed = (f"{listing.reason}, so the CPU is used",) if device == "auto" and not gpus() else ()
    return (*listing.problems, *failed)
