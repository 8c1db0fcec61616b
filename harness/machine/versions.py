"""Versions of the software here, read without importing it."""

import importlib.util
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness import __version__
from harness.errors import HarnessError
from harness.machine.machine import Machine
from harness.machine.nvidia import gpus

# What decides whether a measured throughput may replace another: not the kernel's patch level, not the harness's own
# version (a changed way of measuring raises the job's revision instead).
SPEED_SOFTWARE = ("torch", "timm", "cuda", "cudnn", "driver")


def torch_build() -> tuple[str, str | None]:
    """Return torch's version and the CUDA version it was built for (None: a CPU build), without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise HarnessError("torch is not installed in this environment; run `pip install torch`")
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    number = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda: .*= '([^']+)'|^cuda = '([^']+)'", text, re.MULTILINE)
    return (number[1] if number else version("torch")), (cuda[1] or cuda[2]) if cuda else None


def software(machine: Machine) -> Mapping[str, str]:
    """Return the version of everything that can change a throughput, by name, without importing any of it."""
    torch, cuda = torch_build()
    versions = {
        "python": platform.python_version(),
        "torch": torch,
        "timm": package_version("timm"),
        "numpy": package_version("numpy"),
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "harness": __version__,
    }
    if machine.device == "cuda":
        builds = (package_version(f"nvidia-cudnn-cu{cuda_version}") for cuda_version in (13, 12, 11))
        versions["cuda"] = cuda or "none"
        versions["cudnn"] = next((build for build in builds if build != _ABSENT), "unknown")
        versions["driver"] = next((gpu.driver for gpu in gpus()), "unknown")
    commit = _commit()
    if commit:
        versions["commit"] = commit
    return versions


def same_software(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether a throughput measured with one set of versions may replace one measured with the other."""
    pythons = {".".join(versions.get("python", "").split(".")[:2]) for versions in (first, second)}
    return len(pythons) == 1 and all(first.get(name) == second.get(name) for name in SPEED_SOFTWARE)


_ABSENT = "not installed"


def package_version(package: str) -> str:
    """Return the version of an installed package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT


@cache
def _commit() -> str | None:
    """Return the commit of a checkout, read from its files: a subprocess would cost more than all else here."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head[:12]
        return (git / head[5:]).read_text(encoding="ascii").strip()[:12]
    except (OSError, UnicodeDecodeError):
        return None
