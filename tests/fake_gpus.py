"""Fake GPUs for whole commands: a fake torch.cuda and a fake NVML, in `tests/fake_cuda/`."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "fake_cuda"
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)

TIMEOUT = 600  # seconds, on a machine that has much else to do

TORCH = tuple(int(part) for part in version("torch").split(".")[:2])

needs_compiler = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux" or TORCH < (2, 6),
    reason="needs Linux, a C compiler for the fake NVML, and torch 2.6, whose torch.accelerator is faked as well",
)


@cache
def fake_nvml() -> Path:
    """Build the fake library, once for all tests, and return its folder."""
    folder = Path(mkdtemp(prefix="fake-nvml-"))
    library = folder / "libnvidia-ml.so.1"
    command = [str(COMPILER), "-shared", "-fPIC", "-w", "-o", str(library), str(FOLDER / "nvml.c")]
    subprocess.run(command, check=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left: its exit code, both of its outputs, and the log of the fake."""

    code: int
    out: str
    error: str
    log: str

    @property
    def cards(self) -> set[str]:
        """The cards on which any process made a context."""
        return {card for cards in self.contexts().values() for card in cards}

    def contexts(self) -> dict[str, list[str]]:
        """Return the cards that each process made a context on, by the number of the process."""
        found: dict[str, list[str]] = {}
        for line in self.log.splitlines():
            process, _, what = line.partition(" ")
            if what.startswith("context on "):
                found.setdefault(process, []).append(what.removeprefix("context on "))
        return found


def run_python(folder: Path, *arguments: str, **settings: str) -> Ran:
    """Run Python in a folder with fake GPUs; `settings` are those of the fake, as `FAKE_GPUS="2"`."""
    log = folder / "fake.log"
    log.unlink(missing_ok=True)
    dropped = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {
        "FAKE_CUDA": "1",
        "FAKE_LOG": str(log),
        "FAKE_CONTEXTS": str(folder / "contexts"),
        "LD_LIBRARY_PATH": str(fake_nvml()),
        "PYTHONPATH": os.pathsep.join((str(FOLDER), str(ROOT))),
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    (folder / "contexts").unlink(missing_ok=True)
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return Ran(code=ran.returncode, out=ran.stdout, error=ran.stderr, log=text)
