"""What `doctor` finds: versions, devices, and which cards this build of torch can run."""

import json
import subprocess
import sys

from harness.machine import describe, gpus, software, torch_build

# Asked of a Python of its own: torch takes seconds to import, and a broken build may crash it.  Without a card torch's
# public list is empty, though the build has its architectures all the same.
_ASK_TORCH = """
import json, torch
flags = torch.cuda.get_arch_list() or (torch._C._cuda_getArchFlags() or "").split()
print(json.dumps({"architectures": flags}))
"""


def findings() -> tuple[str, bool]:
    """Say what there is, and whether all of it works together."""
    here = describe("auto")
    lines = [f"device    {here.device}: {here.label}"]
    if here.device != "cpu":
        lines.append(f"host      {describe('cpu').label}")
    lines += [f"{name.ljust(9)} {value}" for name, value in software(here).items()]
    torch, cuda = torch_build()
    lines.append(f"build     torch {torch}, " + (f"CUDA {cuda}" if cuda else "CPU only"))
    answer = _ask_torch()
    healthy = True
    if answer is None:
        return "\n".join(
            [*lines, "problem   torch cannot be imported: run `python -c 'import torch'` to see why"]
        ) + "\n", False
    architectures = [str(name) for name in answer["architectures"]]
    lines.append(f"compiled  for {' '.join(architectures) or 'no card'}")
    for gpu in gpus():
        runs, advice = can_run(gpu.architecture, architectures)
        healthy = healthy and runs
        lines.append(f"cuda:{gpu.index}    {gpu.name}, {gpu.architecture}, driver {gpu.driver}: {advice}")
    if not gpus():
        lines.append("cuda      no NVIDIA driver answers; speeds are measured on the CPU")
    return "\n".join(lines) + "\n", healthy


def _ask_torch() -> dict[str, list[str]] | None:
    answer = subprocess.run(  # noqa: S603 -- our own interpreter, our own text
        [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        return None
    found: dict[str, list[str]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def can_run(card: str, compiled: list[str]) -> tuple[bool, str]:
    """Whether a build compiled for these architectures runs on a card of this one, and what to do if not.

    Machine code (`sm_80`) runs on the same major version from its minor on; portable code (`compute_90`) on any later
    card.
    """
    major, minor = _version(card)
    for name in compiled:
        of_major, of_minor = _version(name)
        if name.startswith("compute_") and (of_major, of_minor) <= (major, minor):
            return True, "runs"
        if name.startswith("sm_") and of_major == major and of_minor <= minor:
            return True, "runs"
    if not compiled:
        return False, "this build of torch is for the CPU only; install one for CUDA"
    if (major, minor) < min(map(_version, compiled)):
        return False, (
            f"this build of torch has no code for {card}; install an older one: builds from torch 2.11 on start at "
            "sm_75, `pip install 'torch<2.11'` gives a build for CUDA 12 that still has Volta (sm_70)"
        )
    return False, f"this build of torch has no code for {card}; install a newer one"


def _version(name: str) -> tuple[int, int]:
    """`sm_75` is (7, 5), `sm_100a` is (10, 0)."""
    digits = "".join(c for c in name.partition("_")[2] if c.isdigit())
    return int(digits[:-1] or 0), int(digits[-1:] or 0)
