"""JSON text -> checked data: the reader under results, baselines and whatever else the harness writes for itself.

Types and ranges are checked here, at the door, so that nobody behind it has to.
"""

import errno
import json
import re
import stat
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import StoreError
from harness.machine import Machine
from harness.plan.job import Job
from harness.specs.checked import DEPTH, TABLE, Constraint, Reader, excess
from harness.specs.kinds import KINDS, SETTINGS, Kind

# Integers that the formats of the exports can hold, and their digits; and a fraction whose square is no overflow.
_INT64, _DIGITS, _LARGEST = 2**63, 20, 1e100


def number(*, required: bool = False, **limits: float) -> Constraint:
    """Return what a number may be that stays an integer where it is one."""
    return Constraint(types=(int, float), form="a number", required=required, **limits)  # type: ignore[arg-type]


STRING = Constraint(types=(str,), required=True)
TABLES = Constraint(types=(dict,), required=True)
COUNT = Constraint(types=(int,), least=1, required=True)
AMOUNT = Constraint(types=(int,), least=0, required=True)
TEXT_OR_NULL = Constraint(types=(str, type(None)), required=True)

# Part of a file's name.
ID = Constraint(
    types=(str,),
    pattern=re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}"),
    form="letters, digits, '-', '_' and '.'",
    required=True,
)

_JOB = {"kind": STRING, "revision": AMOUNT, "settings": TABLES, "needs": TABLE}
_SCALAR = Constraint(types=(str, int, float, bool), form="a string, a number, true or false")
_MACHINE = {
    "device": Constraint(types=(str,), choices=("cpu", "cuda"), required=True),
    "name": STRING,
    "memory": AMOUNT,
    **dict.fromkeys(("cores", "threads"), Constraint(types=(int,), least=0)),
}


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises `OSError` for what is no file, as a pipe, which would be waited for, and `UnicodeDecodeError`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, f"it is {'a folder' if path.is_dir() else 'no file'}")
    return path.read_text(encoding="utf-8")


class RecordReader(Reader):
    """Reads one record; the first mistake ends it: `refuse` raises an error with the text that it is given."""

    def __init__(self, refuse: Callable[..., NoReturn]) -> None:
        super().__init__(refuse)
        self.refuse = refuse
        self._decoder = _decoder(refuse)

    def parse(self, text: str) -> Any:  # noqa: ANN401 -- whatever the text holds
        """Return the data in a text.

        No number in it is too large for an export, infinite or NaN, no name is twice in one place, nothing is nested
        without end.  Half a character, which no output takes, is written as its number.  Raises `json.JSONDecodeError`
        for what is no JSON.
        """
        try:
            data = self._decoder.decode(text)
        except RecursionError:
            self.refuse("is nested without end")
        if text.count("[") + text.count("{") > DEPTH and (problem := excess(data)):
            self.refuse(problem)
        return _with_whole_characters(data) if "\\ud" in text or "\\uD" in text else data

    def job(self, raw: object, *keys: str) -> Job:
        """Return a job, with the trainings that it needs.

        The settings have the types that the kind has for them now, unless the job is of an earlier revision.
        """
        data = self.table(raw, _JOB, *keys)
        kind = KINDS.get(data["kind"])
        current = kind is not None and data["revision"] == kind.revision
        settings = data["settings"]
        self.mapping(settings, _SCALAR, *keys, "settings")
        self.table(settings, _types(kind) if kind and current else {}, *keys, "settings", more=True)
        for name in kind.required if kind else ():
            if name not in settings:
                self.refuse(f"{name} in [{'.'.join((*keys, 'settings'))}] is missing, which every {data['kind']} has")
        needs = data.get("needs", {})
        return Job(
            kind=data["kind"],
            revision=data["revision"],
            settings=tuple(sorted(settings.items())),
            needs=tuple(sorted((part, self.job(need, *keys, "needs", part)) for part, need in needs.items())),
        )

    def machine(self, raw: object, *keys: str) -> Machine:
        """Return a machine."""
        return Machine(**self.table(raw, _MACHINE, *keys))

    def time(self, text: str, name: str) -> datetime:
        """Return a time, in UTC."""
        try:
            time = datetime.fromisoformat(text)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, OverflowError):
            self.refuse(f"{name} must be a time, not {text!r}")


def _decoder(refuse: Callable[..., NoReturn]) -> json.JSONDecoder:
    """Return a decoder that refuses what JSON can write and the program cannot handle."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            refuse(f"has '{next(name for name in names if names.count(name) > 1)}' twice in one place")
        return table

    def fraction(digits: str) -> float:
        number = float(digits)
        return number if -_LARGEST < number < _LARGEST else too_large(digits)

    def integer(digits: str) -> int:
        # The digits first: Python takes no integer of thousands of them.
        number = int(digits) if len(digits) <= _DIGITS else _INT64
        return number if -_INT64 <= number < _INT64 else too_large(digits)

    def too_large(digits: str) -> NoReturn:
        refuse(f"holds {digits if len(digits) < 30 else f'{digits[:20]}…'}, which is too large")

    def not_a_number(word: str) -> NoReturn:
        refuse(f"holds {word}, which is not a number")

    return json.JSONDecoder(
        object_pairs_hook=unique, parse_float=fraction, parse_int=integer, parse_constant=not_a_number
    )


def _with_whole_characters(data: Any) -> Any:  # noqa: ANN401 -- whatever JSON holds
    """Return data without lone surrogates, as the names of files have them that are no text."""
    if isinstance(data, dict):
        return {_with_whole_characters(name): _with_whole_characters(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_with_whole_characters(item) for item in data]
    return data.encode(errors="backslashreplace").decode() if isinstance(data, str) else data


# A range or a list of choices may have been another one when a job was made; its key holds what it was.
_TYPES: Mapping[str, Constraint] = {name: Constraint(types=known.types) for name, known in SETTINGS.items()}


def _types(kind: Kind) -> Mapping[str, Constraint]:
    own = {name: Constraint(types=known.types) for name, known in kind.own_settings.items()}
    return {**_TYPES, **own} if own else _TYPES


def refuse_as_damage(text: str, *_keys: str) -> NoReturn:
    """Raise `StoreError` with a clause that says what is damaged."""
    raise StoreError(f"is damaged ({text})")
