"""glibc's malloc: whether freed memory is retained, and what the process has requested from the system.

By default malloc returns large blocks to the system as soon as they are freed.  A model's activations are such blocks,
so every step would fault in hundreds of megabytes page by page: nearly half the time of DeiT-Ti on two virtual cores,
varying with the state of the heap and of the host (docs/measuring-throughput.md).  CUDA's caching allocator retains
freed memory, so the published throughputs had retention too.
"""

import ctypes
import resource
from collections.abc import Mapping
from typing import NamedTuple

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1
# What glibc starts with.
_DEFAULT_MMAP_MAX = 65_536
_DEFAULT_THRESHOLD = 128 * 1024


def retain_freed_memory() -> bool:
    """Have malloc retain freed memory until this process ends; False where malloc has no such setting (not glibc)."""
    return _set_mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def release_freed_memory() -> None:
    """Release what malloc retained, and from now on each large block as soon as it is freed.

    The largest batch under a memory limit then depends on sizes alone, not on the fragmentation of a retained heap.
    """
    defaults = {
        _M_MMAP_MAX: _DEFAULT_MMAP_MAX,
        _M_MMAP_THRESHOLD: _DEFAULT_THRESHOLD,
        _M_TRIM_THRESHOLD: _DEFAULT_THRESHOLD,
    }
    if _set_mallopt(defaults):
        ctypes.CDLL(None).malloc_trim(0)


def _set_mallopt(settings: Mapping[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())


class ResourceUsage(NamedTuple):
    """What this process has used since it began: `page_faults`, CPU seconds, and those of them spent in the kernel."""

    page_faults: int
    cpu_seconds: float
    system_seconds: float

    @classmethod
    def now(cls) -> "ResourceUsage":
        """Read the counters."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(usage.ru_minflt, usage.ru_utime + usage.ru_stime, usage.ru_stime)

    def since(self, earlier: "ResourceUsage") -> "ResourceUsage":
        """Return the difference from an earlier reading."""
        return ResourceUsage(
            self.page_faults - earlier.page_faults,
            self.cpu_seconds - earlier.cpu_seconds,
            self.system_seconds - earlier.system_seconds,
        )
