"""What a gate decides about a cell, and the numbers that it decides by."""

from dataclasses import dataclass
from enum import StrEnum

from harness.stats import Interval


class Outcome(StrEnum):
    """The outcome of the gate for a cell, worst first."""

    REGRESSED = "regressed"
    CHANGED = "changed"
    DEVIATES = "deviates"
    MISSING = "missing"
    IMPROVED = "improved"
    HELD = "held"
    NOT_JUDGED = "not judged"

    @property
    def fails(self) -> bool:
        """Whether it makes the gate fail."""
        return self in (Outcome.REGRESSED, Outcome.CHANGED, Outcome.DEVIATES, Outcome.MISSING)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers behind an outcome, in the cell's unit; None where there is no such number.

    `difference` is now less before, with its 95 % interval where there is one; where `relative` it is a fraction of
    before, as is `allowed`, by which it may differ.  `images` counts those of a paired test, of which `lost` and `won`
    are right only before and only now; `processes` counts those of a throughput, now and before.
    """

    now: float | str
    before: float | str
    difference: Interval | None = None
    allowed: float | None = None
    relative: bool = False
    p: float | None = None
    images: int | None = None
    processes: tuple[int, int] | None = None
    lost: tuple[str, ...] = ()
    won: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The outcome for a cell.  `reason` has what the numbers do not tell."""

    outcome: Outcome
    reason: str = ""
    evidence: Evidence | None = None
