"""A machine as results record it: all that decides its throughput and is known without measuring."""

import re
from dataclasses import dataclass

GIB = 2**30

# Words that make the name of a GPU that of another one: an RTX 4090 D or an RTX 4090 Laptop GPU is no RTX 4090.
_OTHER_PRODUCT = ("TI", "SUPER", "D", "LAPTOP", "MOBILE", "MAX", "MIG")


def _words(name: str) -> list[str]:
    return re.split(r"[\s\-_]+", name.upper().strip())


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device that does the work.

    `device` is `cpu` or `cuda`, `name` the model of the CPU or GPU, `memory` its bytes, `cores` and `threads` the CPU
    cores that this process may use and the threads that torch is given (0 on a GPU, where neither matters).
    """

    device: str
    name: str
    memory: int
    cores: int = 0
    threads: int = 0

    @property
    def label(self) -> str:
        """The machine's name for people."""
        if self.device == "cpu":
            threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads != self.cores else ""
            return f"{self.name}, {self.cores} core{'s' if self.cores != 1 else ''}{threads}"
        return f"{self.name} {self.memory / GIB:.0f} GiB"

    def matches(self, published: str, cores: int | None = None) -> bool:
        """Whether a column names this machine, as `"V100 16GB"`: each word is in the name or is its memory.

        A CPU is one only where the published number of `cores` is known, and a GPU only where it is not.  With how many
        threads the CPU was used is another matter.
        """
        sizes = {f"{round(self.memory / base)}{unit}" for base, unit in ((GIB, "GB"), (GIB, "GiB"), (10**9, "GB"))}
        name, wanted = _words(self.name), _words(published)
        known = name + [size.upper() for size in sizes]
        # Whole words only: an A100 is no A10, and a V100S no V100.  Nor is an RTX 3090 Ti an RTX 3090.
        other_product = any(word in name and word not in wanted for word in _OTHER_PRODUCT)
        device = "cuda" if cores is None else "cpu"
        return self.device == device and all(word in known for word in wanted) and not other_product

    def is_equivalent(self, other: "Machine") -> bool:
        """Whether a throughput measured on the other may replace one measured here."""
        here = (self.device, self.name, self.cores, self.threads)
        there = (other.device, other.name, other.cores, other.threads)
        # The memory a machine reports moves a little between drivers and boots.
        return here == there and abs(self.memory - other.memory) < 0.05 * self.memory
