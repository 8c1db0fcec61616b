"""Which runs a command is about: the options of `runs list`, `runs prune` and `runs export`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial

from harness.cli.usage.command import FILTER
from harness.cli.usage.completion import complete_kinds
from harness.cli.usage.options import GLOBS, KIND_LIST, ParsedType, option, stack
from harness.errors import HarnessError
from harness.store.result import Result

_AGE = re.compile(r"(?P<number>\d+)\s*(?P<unit>min|h|d|w)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Conditions on runs; an empty filter matches every one.  `since` and `before` bound the time of the start."""

    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    failed: bool = False

    def matches(self, result: Result) -> bool:
        """Whether a run meets every condition."""
        model = str(dict(result.job.settings).get("model", ""))
        return (
            (not self.kinds or result.job.kind in self.kinds)
            and (not self.models or _matches_any(model, self.models))
            and (not self.machines or _matches_any(result.machine.label, self.machines))
            and (self.since is None or result.started >= self.since)
            and (self.before is None or result.started < self.before)
            and (not self.failed or result.error is not None)
        )


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """Parse an age as `90min`, `36h`, `7d`, `2w`, or a date as `2026-11-21`.

    Raises `HarnessError` for anything else.
    """
    age = _AGE.fullmatch(text.strip())
    try:
        if age:
            return (now or datetime.now(tz=UTC)) - timedelta(**{_UNITS[age["unit"]]: int(age["number"])})
        time = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise HarnessError(f"'{text}' is not a time; write an age as 36h or 7d, or a date as 2026-11-21") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _matches_any(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns)


TIME = ParsedType("age|date", parse_time)

_option = partial(option, group=FILTER)

# Without variables and harness.toml: what `prune` removes is written on its own command line.
options = stack(
    _option(
        "--kind", "kinds", type=KIND_LIST, default="", shell_complete=complete_kinds, help="Only these kinds of jobs."
    ),
    _option("--model", "models", type=GLOBS, default="", help="Only these models."),
    _option("--machine", "machines", type=GLOBS, default="", help="Only these machines."),
    _option("--since", type=TIME, help="Only runs started since then, as 7d."),
    _option("--before", type=TIME, help="Only runs started before then, as 30d."),
    _option("--failed", is_flag=True, help="Only runs that failed."),
)
