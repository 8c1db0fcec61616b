"""Where the CPU's memory comes from: a step's is kept for the next one, and what is asked for anew is counted.

glibc's malloc gives large blocks back to the system as soon as they are freed.  A network's activations are such
blocks, so every step would ask for hundreds of megabytes anew, page by page: nearly half the time of DeiT-Ti on two
virtual cores, more or less of it by the luck of the heap and of the host (README, How speed is measured).  A card's
allocator keeps what was freed, so that a kept heap is also what the published speeds had.
"""

import ctypes
import resource
from collections.abc import Mapping
from dataclasses import dataclass

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1
# What glibc starts with.
_MMAP_MAX = 65_536
_THRESHOLD = 128 * 1024


def keep_freed() -> bool:
    """Have malloc keep what is freed, until this process ends; whether this machine's can be told so (glibc's can)."""
    return _told({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def give_back_freed() -> None:
    """Have malloc give back what was kept, and from now on each large block as soon as it is freed.

    How much fits under a cap is then a matter of sizes; in a kept heap it is one of the holes that earlier blocks left.
    """
    if _told({_M_MMAP_MAX: _MMAP_MAX, _M_MMAP_THRESHOLD: _THRESHOLD, _M_TRIM_THRESHOLD: _THRESHOLD}):
        ctypes.CDLL(None).malloc_trim(0)


def _told(settings: Mapping[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What this process has had of the system since it began: `pages` of memory, and processor `seconds`.

    `system` are those of the seconds that the system itself took, most of them to give memory.
    """

    pages: int
    seconds: float
    system: float

    @classmethod
    def now(cls) -> "Asked":
        """Look it up."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(pages=used.ru_minflt, seconds=used.ru_utime + used.ru_stime, system=used.ru_stime)

    def since(self, before: "Asked") -> "Asked":
        """Give what came after."""
        return Asked(
            pages=self.pages - before.pages,
            seconds=self.seconds - before.seconds,
            system=self.system - before.system,
        )
