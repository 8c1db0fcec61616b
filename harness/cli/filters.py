"""Which runs a command is about: the options of `runs list`, `runs prune` and `runs export`."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import click

from harness.errors import did_you_mean
from harness.kinds import KINDS
from harness.result import Result

F = TypeVar("F", bound=Callable[..., Any])

_AGE = re.compile(r"(?P<number>\d+)\s*(?P<unit>min|h|d|w)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a run must be; empty takes every one.  `since` and `before` bound the time at which it began."""

    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    failed: bool = False

    def takes(self, result: Result) -> bool:
        """Whether a run is meant."""
        model = str(dict(result.job.settings).get("model", ""))
        return (
            (not self.kinds or result.job.kind in self.kinds)
            and (not self.models or _fits(model, self.models))
            and (not self.machines or _fits(result.machine.label, self.machines))
            and (self.since is None or result.started >= self.since)
            and (self.before is None or result.started < self.before)
            and (not self.failed or result.error is not None)
        )

    def of(self, results: Iterable[Result]) -> Iterator[Result]:
        """Give the runs that are meant."""
        return (result for result in results if self.takes(result))


def moment(text: str, now: datetime) -> datetime | None:
    """Read a time: an age as `90min`, `36h`, `7d`, `2w`, or a date as `2026-11-21`; None for anything else."""
    age = _AGE.fullmatch(text.strip())
    try:
        if age:
            return now - timedelta(**{_UNITS[age["unit"]]: int(age["number"])})
        found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def options(function: F) -> F:
    """Give a command the options of a filter; `filter_of` makes it."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def filter_of(told: dict[str, Any]) -> Filter:
    """Make the filter of what the command line told."""
    return Filter(**{name: told[name] for name in ("kinds", "models", "machines", "since", "before", "failed")})


def _fits(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns)


def _words(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in (value or "").split(","))))


def _kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = _words(context, parameter, value)
    for name in names:
        if name not in KINDS:
            raise click.BadParameter(f"unknown kind of job '{name}'{did_you_mean(name, KINDS)}")
    return names


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    found = moment(value, datetime.now(tz=UTC))
    if found is None:
        raise click.BadParameter(f"'{value}' is no time; write an age as 36h or 7d, or a date as 2026-11-21")
    return found


# Not to be had from variables or harness.toml: what `prune` removes stands on its own line.
_OPTIONS = (
    click.option("--kind", "kinds", callback=_kinds, metavar="KIND,...", help="Only these kinds of job."),
    click.option("--model", "models", callback=_words, metavar="GLOB,...", help="Only these networks."),
    click.option("--machine", "machines", callback=_words, metavar="GLOB,...", help="Only these machines."),
    click.option("--since", callback=_moment, metavar="AGE|DATE", help="Only runs begun since then, as 7d."),
    click.option("--before", callback=_moment, metavar="AGE|DATE", help="Only runs begun before then, as 30d."),
    click.option("--failed", is_flag=True, help="Only runs that failed."),
)
