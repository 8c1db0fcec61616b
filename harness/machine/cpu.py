"""The CPU: how many cores this process may use, and how much time they have spent."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.specs.checked import count_of


def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, bounded by the CPU quota of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(min(cpu_quotas(), default=allowed))))


def cpu_quotas(system: Path = Path("/")) -> Iterator[float]:
    """Yield each CPU quota, in cores, on the control groups of this process and the groups above them.

    Version 2 has one hierarchy and the file `cpu.max`, version 1 has one for each controller and a file each for quota
    and period.  A container may see its own group as the root, or the path that its host knows the group by, which is
    then not there.
    """
    mount = system / "sys/fs/cgroup"
    try:
        groups = (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        groups = []
    for _, controllers, path in (line.split(":", 2) for line in ("0::/", "1:cpu:/", *groups)):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / ("cpu" if controllers else "")
        group = root / path.lstrip("/")
        while group.is_relative_to(root):
            quota = _quota(group)
            if quota is not None:
                yield quota
            group = group.parent


def _quota(group: Path) -> float | None:
    """Return the cores of one control group's quota; None where it has none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # version 2 writes `max` for no quota
        return None


def torch_threads() -> int:
    """Count the threads that torch gets on the CPU: OMP_NUM_THREADS where it is set, else one per core."""
    return count_of(os.environ.get("OMP_NUM_THREADS", "")) or usable_cores()


def cpu_name() -> str:
    """Name the model of the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = match[1] if match else platform.processor() or platform.machine() or "unknown processor"
    return re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)|CPU", "", name)).strip()


def host_memory() -> int:
    """Return the bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


@dataclass(frozen=True, kw_only=True)
class CpuClock:
    """CPU time so far in seconds: of this process, of all processes, and taken by other virtual machines."""

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
