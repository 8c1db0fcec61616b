"""Which machine and which software this is.  The only home of NVML; torch is never imported here."""

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device that does the work: all that decides its speed and can be told from outside.

    `device` is `cpu` or `cuda`, `name` the model of the processor or card, `memory` its bytes, `cores` and `threads`
    the processor cores that this process may use and the threads that torch is given (0 on a GPU, where neither
    decides the speed).
    """

    device: str
    name: str
    memory: int
    cores: int = 0
    threads: int = 0

    @property
    def label(self) -> str:
        """How people call it."""
        if self.device == "cpu":
            plural = "s" if self.cores != 1 else ""
            threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads != self.cores else ""
            return f"{self.name}, {self.cores} core{plural}{threads}"
        return f"{self.name} {self.memory / GIB:.0f} GiB"

    def is_called(self, published: str) -> bool:
        """Whether this is the machine that a column names, as `"V100 16GB"`: each word is in the name or its size."""
        sizes = {f"{round(self.memory / base)}{unit}" for base, unit in ((GIB, "GB"), (GIB, "GiB"), (10**9, "GB"))}
        words = re.split(r"[\s\-_]+", self.name.upper()) + [size.upper() for size in sizes]
        # Whole words only: an A100 is no A10, and a V100S no V100.
        return self.device == "cuda" and all(word in words for word in published.upper().split())

    def does_the_same_as(self, other: "Machine") -> bool:
        """Whether a speed measured on the other may stand for one measured here."""
        here = (self.device, self.name, self.cores, self.threads)
        there = (other.device, other.name, other.cores, other.threads)
        # The memory a machine reports moves a little between drivers and boots.
        return here == there and abs(self.memory - other.memory) < 0.05 * self.memory


def cores() -> int:
    """Count the cores that this process may use: its affinity, bounded by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    if quota == "max":
        return allowed
    return max(1, min(allowed, int(quota) // int(period)))


def threads() -> int:
    """Give the threads that torch gets on the CPU: OMP_NUM_THREADS where it is set, else one a core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores()


def cpu_name() -> str:
    """Name the model of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine() or "unknown processor"
    return re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)|CPU", "", name)).strip()


def memory_of_host() -> int:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


@contextmanager
def nvml() -> "Iterator[Any]":
    """NVML while it is needed, or None where there is no NVIDIA driver or no permission to ask it."""
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
    """One card as NVML tells it.  `index` counts as CUDA does, with CUDA_VISIBLE_DEVICES applied."""

    index: int
    name: str
    memory: int
    architecture: str
    driver: str
    uuid: str


@cache
def gpus() -> tuple[Gpu, ...]:
    """List the cards that CUDA may use here; empty where there is none."""
    with nvml() as api:
        if api is None:
            return ()
        driver = _text(api.nvmlSystemGetDriverVersion())
        found = []
        for place in range(api.nvmlDeviceGetCount()):
            handle = api.nvmlDeviceGetHandleByIndex(place)
            major, minor = api.nvmlDeviceGetCudaComputeCapability(handle)
            found.append(
                Gpu(
                    index=place,
                    name=_text(api.nvmlDeviceGetName(handle)),
                    memory=int(api.nvmlDeviceGetMemoryInfo(handle).total),
                    architecture=f"sm_{major}{minor}",
                    driver=driver,
                    uuid=_text(api.nvmlDeviceGetUUID(handle)),
                )
            )
    return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(found: list[Gpu], setting: str | None) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES: which cards are left, renumbered as CUDA renumbers them."""
    if setting is None:
        return tuple(found)
    left = []
    for word in filter(None, (part.strip() for part in setting.split(","))):
        match = [g for g in found if (str(g.index) == word if word.isdigit() else g.uuid.startswith(word))]
        if not match:
            break  # CUDA ignores what follows an entry that it does not know
        left.append(match[0])
    return tuple(
        Gpu(index=i, name=g.name, memory=g.memory, architecture=g.architecture, driver=g.driver, uuid=g.uuid)
        for i, g in enumerate(left)
    )


def _text(value: str | bytes) -> str:
    """NVML's older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value


def torch_build() -> tuple[str, str | None]:
    """Give torch's version and the CUDA version that it was built for (None: a CPU build), without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise HarnessError("torch is not installed in this environment; run `pip install torch`")
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    number = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda: .*= '([^']+)'|^cuda = '([^']+)'", text, re.MULTILINE)
    return (number[1] if number else version("torch")), (cuda[1] or cuda[2]) if cuda else None


def describe(device: str) -> Machine:
    """Describe the machine behind `--device auto|cpu|cuda|cuda:N`.

    Raises `HarnessError` for a device that is not there.
    """
    if device == "auto":
        device = "cuda" if gpus() and torch_build()[1] else "cpu"
    if device == "cpu":
        return Machine(device="cpu", name=cpu_name(), memory=memory_of_host(), cores=cores(), threads=threads())
    index = gpu_index(device)
    present = gpus()
    if not present:
        raise HarnessError(f"--device {device}: no NVIDIA driver answers on this machine; use --device cpu")
    if index >= len(present):
        names = ", ".join(f"cuda:{gpu.index} {gpu.name}" for gpu in present)
        raise HarnessError(f"--device {device}: there is no such card; this machine has {names}")
    torch, cuda = torch_build()
    if cuda is None:
        raise HarnessError(f"--device {device}: torch {torch} is a CPU build; install a CUDA build of torch")
    return Machine(device="cuda", name=present[index].name, memory=present[index].memory)


def gpu_index(device: str) -> int:
    """Give N of `cuda:N`; plain `cuda` is the first card."""
    found = re.fullmatch(r"cuda(?::(\d+))?", device)
    if found is None:
        raise HarnessError(f"--device {device}: not a device; write auto, cpu, cuda or cuda:N")
    return int(found[1] or 0)


def software(machine: Machine) -> Mapping[str, str]:
    """Versions of everything that can move a speed, by name, without importing any of it."""
    torch, cuda = torch_build()
    found = {
        "python": platform.python_version(),
        "torch": torch,
        "timm": _version("timm"),
        "numpy": _version("numpy"),
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "harness": __version__,
    }
    if machine.device == "cuda":
        found["cuda"] = cuda or "none"
        found["cudnn"] = _first_version("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu11")
        found["driver"] = next((gpu.driver for gpu in gpus()), "unknown")
    commit = _commit()
    if commit:
        found["commit"] = commit
    return found


# What decides whether a speed may stand for another: not the kernel's patch level, not the harness's own version (a
# changed way of measuring raises the job's revision instead).
SPEED_SOFTWARE = ("torch", "timm", "cuda", "cudnn", "driver")


def same_software(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether a speed measured with one set of versions may stand for one measured with the other."""
    pythons = [".".join(versions.get("python", "").split(".")[:2]) for versions in (one, other)]
    return pythons[0] == pythons[1] and all(one.get(name) == other.get(name) for name in SPEED_SOFTWARE)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first_version(*packages: str) -> str:
    return next((v for v in map(_version, packages) if v != "not installed"), "unknown")


@cache
def _commit() -> str | None:
    """Give the commit of a checkout, read from its files: a subprocess would cost more than all else here."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head[:12]
        return (git / head[5:]).read_text(encoding="ascii").strip()[:12]
    except (OSError, UnicodeDecodeError):
        return None


@dataclass(frozen=True, kw_only=True)
class CpuClock:
    """Processor time so far in seconds: of this process, of all processes, and taken by other virtual machines."""

    own: float
    busy: float
    stolen: float

    @classmethod
    def now(cls) -> "CpuClock | None":
        """Read the counters, or None where the system has none."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        except OSError:
            return None
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) / tick for word in first[:8])
        times = os.times()
        return cls(own=times.user + times.system, busy=user + nice + system + irq + softirq, stolen=steal)
