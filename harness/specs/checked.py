"""Data of a file -> checked values: what each name may hold, and every mistake with its place."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias

from harness.errors import HarnessError, did_you_mean

Scalar: TypeAlias = str | int | float | bool

# Tables and lists within each other: ten is the most that anything has.  And the integers of TOML and of the exports.
DEPTH, _INT64 = 50, 2**63

_TYPE_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    date: "a date",
    type(None): "null",
}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What a value of one name may be.

    A string is one of `choices` or matches `pattern`, whose meaning `form` tells; a number lies between `least` and
    `most`, and above `above`; a list has at least one item unless it `may_be_empty`, and each fits `items`.
    """

    types: tuple[type, ...]
    choices: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    form: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    items: "Constraint | None" = None
    may_be_empty: bool = False
    required: bool = False

    @property
    def expectation(self) -> str:
        """What is accepted, for an error message."""
        names = [f"'{choice}'" for choice in self.choices]
        return self.form or " or ".join([*names, *(_TYPE_NAMES[t] for t in self.types if t is not str or not names)])

    @cached_property
    def free_types(self) -> frozenset[type]:
        """The types of which every value is accepted as it is: a store has many thousands of values to check."""
        free = {bool, dict, type(None)}
        if not self.choices and not self.pattern:
            free.add(str)
        if self.least is self.above is self.most is None and float not in self.types:
            free.add(int)
        return frozenset(free.intersection(self.types))

    def problem(self, raw: object) -> str:
        """Return what is wrong with a value, to follow its name; empty if nothing is."""
        value = plain(raw)
        if not self._accepts(value):
            return f"must be {self.expectation}, not {shown(value)}"
        if isinstance(value, list) and self.items:
            problems = (f"{text} (item {i})" for i, item in enumerate(value) if (text := self.items.problem(item)))
            return next(problems, "") if value or self.may_be_empty else "must not be empty"
        if isinstance(value, (int, float)):
            if self.least is not None and value < self.least:
                return f"must be at least {self.least:g}, not {value}"
            if self.above is not None and value <= self.above:
                return f"must be above {self.above:g}, not {value}"
            if self.most is not None and value > self.most:
                return f"must be at most {self.most:g}, not {value}"
        return ""

    def _accepts(self, value: object) -> bool:
        if isinstance(value, bool):  # which Python takes for an integer
            return bool in self.types
        if isinstance(value, (int, float)) and float in self.types:
            return abs(value) <= sys.float_info.max  # neither NaN nor infinite
        if isinstance(value, str) and self.choices:
            return value in self.choices
        if isinstance(value, str) and self.pattern:
            return self.pattern.fullmatch(value) is not None
        return isinstance(value, self.types)

    def value(self, raw: object) -> Any:  # noqa: ANN401 -- of any of the types
        """Return a value that has no problem as the program uses it: a number that may be a fraction is a float."""
        if isinstance(raw, list) and self.items:
            return [self.items.value(item) for item in raw]
        integer_for_float = isinstance(raw, int) and not isinstance(raw, self.types)
        return float(raw) if isinstance(raw, Decimal) or integer_for_float else raw  # type: ignore[arg-type]


TABLE = Constraint(types=(dict,))
TEXT = Constraint(types=(str,))


def check(name: str, value: object, constraint: Constraint) -> Any:  # noqa: ANN401 -- of any of the types
    """Return a single value that is in no file as the program uses it.

    Raises `HarnessError` for a value that the constraint does not allow.
    """
    problem = constraint.problem(value)
    if problem:
        raise HarnessError(f"{name} {problem}")
    return constraint.value(value)


def plain(value: object) -> object:
    """Return a number with a point as Python's float; everything else as it is."""
    return float(value) if isinstance(value, Decimal) else value


def shown(value: object) -> str:
    """Write a value for an error message, as TOML and JSON have it."""
    if isinstance(value, (bool, date)):
        return str(value).lower()
    return _TYPE_NAMES[type(value)] if isinstance(value, (dict, list, type(None))) else repr(plain(value))


def count_of(text: str) -> int | None:
    """Return the whole number that a text writes in digits; None for any other text, and for one beyond 64 bits."""
    # Not `isdigit`, which holds for ² as well; and Python reads no integer of thousands of digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def excess(data: object) -> str:
    """Return what is too much for the program in the data of a file: its depth, or an integer; empty if nothing is."""
    level: list[Any] = [data]
    for _ in range(DEPTH):
        items = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        if any(isinstance(item, int) and not -_INT64 <= item < _INT64 for item in items):
            return "holds an integer beyond 64 bits"
        level = [item for item in items if isinstance(item, (dict, list)) and item]
        if not level:
            return ""
    return "is nested without end"


class Reader:
    """Checks the tables of a file; `report` is called with each mistake and the keys of its place."""

    def __init__(self, report: Callable[..., object]) -> None:
        self.report = report

    def table(
        self, raw: object, constraints: Mapping[str, Constraint], *keys: str, what: str = "key", more: bool = False
    ) -> dict[str, Any]:
        """Return what is right in a table of known names; `what` they are called.

        A table that may have `more` names keeps what it has under them.
        """
        path = ".".join(keys)
        if not isinstance(raw, dict):
            self.report(f"[{path}] must be a table, not {shown(raw)}", *keys)
            return {}
        where = f" in [{path}]" if keys else ""
        values = {}
        for name, value in raw.items():
            constraint = constraints.get(name)
            if constraint is None:
                if more:
                    values[name] = value
                else:
                    self.known(name, constraints, what, *keys, name, where=where)
            elif type(value) in constraint.free_types:
                values[name] = value
            elif problem := constraint.problem(value):
                self.report(f"{name}{where} {problem}", *keys, name)
            else:
                values[name] = constraint.value(value)
        for name, constraint in constraints.items():
            if constraint.required and name not in raw:
                self.report(f"{name}{where} is missing; it must be {constraint.expectation}", *keys)
        return values

    def mapping(self, raw: object, constraint: Constraint, *keys: str) -> dict[str, Any]:
        """Return what is right in a table of any names whose values are alike."""
        return self.table(raw, dict.fromkeys(raw if isinstance(raw, dict) else (), constraint), *keys)

    def known(self, name: str, names: Iterable[str], what: str, *keys: str, where: str = "") -> bool:
        """Whether a name is among others; if it is not, report the nearest one."""
        if name in names:
            return True
        self.report(f"unknown {what} '{name}'{where}{did_you_mean(name, names)}", *keys)
        return False
