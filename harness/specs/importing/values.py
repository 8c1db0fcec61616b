"""The text of a cell -> the value of a spec, with its digits as printed; None for what is no value."""

import re
from dataclasses import dataclass
from decimal import Decimal

from harness.specs.model import PublishedValue

# No number in a table is as long, with all that stands around it.
LONGEST = 100

# Signs that lead to a footnote, wherever they are.
SIGNS = "*†‡§¶⋆★∗✻⁎"

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_MARKS = rf"(?:\s*(?:\[[^\[\]]{{1,40}}\]|\^\{{[^{{}}±]{{1,40}}\}}|[{SIGNS}⁰¹²³⁴-⁹ᵃ-ᶻ]))*"
_PLUS_MINUS = r"(?:±|\+/-|\+-)"
_NUMBER = re.compile(
    rf"(?P<value>[+-]?(?:{_DIGITS}))"
    r"(?:\s*[×x·]\s*10\s*\^?\{?(?P<power>[+-]?[0-9]{1,2})\}?|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
    rf"\s*(?P<unit>%|[A-Za-zµ°#][A-Za-z/]{{0,11}}\.?)?(?P<marks>{_MARKS})"
    rf"(?:\s*[_^(]?\{{?\s*{_PLUS_MINUS}\s*(?P<uncertainty>{_DIGITS})\s*%?\s*[)}}]?)?"
    rf"\s*(?P<last_unit>%)?(?P<last_marks>{_MARKS})"
)
_SIDE = re.compile(r"(?P<side>[0-9]{2,5})\s*(?:(?:[×x]|\^\{2\}|²)\s*(?P<other>[0-9]{2,5})?)?\s*(?:px|pixels)?")
_MARK = re.compile(r"\[([^\[\]]+)\]|\^\{([^{}]*)\}|(.)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_SCALED = re.compile(r"[kKMGBT]|[MGBT](?:FLOPs?|MACs?|flops?)|[MG]Params")
_SCALES = {"k": 3, "m": 6, "g": 9, "b": 9, "t": 12}


@dataclass(frozen=True, kw_only=True)
class CellValue:
    """A number as printed, with the unit behind it.

    `scale` is the power of ten of the unit, `exponent` the one of its notation; None where there is none.
    """

    digits: str
    uncertainty: str = ""
    marks: tuple[str, ...] = ()
    unit: str = ""
    scale: int | None = None
    exponent: int | None = None

    def published(self, power: int | None = None) -> str:
        """Return the value as a spec has it: in units of ten to this power, or in its own unit."""
        own = (self.exponent or 0) + (0 if power is None else (self.scale or 0))
        is_scaled = self.exponent is not None or (power is not None and self.scale is not None)
        shift = own - (power or 0) if is_scaled else 0
        return as_published(_shifted(self.digits, shift), _shifted(self.uncertainty, shift), self.marks)


def as_published(digits: str, uncertainty: str = "", marks: tuple[str, ...] = ()) -> str:
    """Return a value as a spec writes it."""
    text = f"{digits} ± {uncertainty}" if uncertainty else digits
    return text + "".join(f"[{mark}]" for mark in marks)


def is_blank(text: str) -> bool:
    """Whether nothing was published in a cell."""
    return text.strip() in ("", "-", "–", "—", "--", "---", "...", "…")


def read_number(text: str) -> CellValue | None:
    """Return the number that a cell is, in any of the ways in which papers write one; None for any other text."""
    match = _NUMBER.fullmatch(text.strip()) if len(text) < LONGEST else None
    if match is None:
        return None
    unit, exponent = match["unit"] or match["last_unit"] or "", match["power"] or match["exponent"]
    return CellValue(
        digits=_plain(match["value"]),
        uncertainty=_plain(match["uncertainty"] or ""),
        marks=read_marks(match["marks"] + match["last_marks"]),
        unit=unit,
        scale=_SCALES[unit[0].lower()] if _SCALED.fullmatch(unit) else None,
        exponent=int(exponent) if exponent else None,
    )


def read_side(text: str) -> str | None:
    """Return the side of square images, of `224`, `224×224` or `224²`; None for any other text."""
    match = _SIDE.fullmatch(text.strip())
    return match["side"] if match and match["other"] in (None, match["side"]) else None


def read_marks(text: str) -> tuple[str, ...]:
    """Return the marks of footnotes in `[B1][B2]`, `^{a, b}`, `*†` or `¹`."""
    marks: list[str] = []
    for bracket, raised, sign in _MARK.findall(text):
        inner = re.sub(r"[\[\]]", "", (bracket or raised or sign).translate(_SUPERSCRIPTS)).strip()
        marks += list(inner) if inner and all(letter in SIGNS for letter in inner) else inner.split(",")
    return tuple(dict.fromkeys(mark.strip() for mark in marks if mark.strip()))


def split_words(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text without the marks at its end, and those."""
    match = re.fullmatch(r"(?P<words>.*?)(?P<marks>(?:\s*(?:\[[^\[\]]{1,40}\]|\^\{[^{}]{1,40}\}))*)", text, re.DOTALL)
    return (readable(match["words"]), read_marks(match["marks"])) if match else (readable(text), ())


def leading_mark(line: str) -> tuple[str, str]:
    """Return the mark at the beginning of a footnote, `[B1] …`, `^{a} …` or `* …`, and the text behind it."""
    match = re.match(
        rf"\s*(?P<mark>\[[^\[\]]+\]|\^\{{[^{{}}]+\}}|[{SIGNS}⁰¹²³⁴-⁹])[\s:.]*(?P<text>.*)", line, re.DOTALL
    )
    marks = read_marks(match["mark"]) if match else ()
    return (marks[0], match["text"].strip()) if match and len(marks) == 1 else ("", "")


def readable(text: str) -> str:
    """Return a text without the braces around what is raised or lowered."""
    return re.sub(r"[\^_]\{([^{}]*)\}", lambda part: {"2": "²", "3": "³"}.get(part[1], part[1]), text).strip()


def is_number(text: str) -> bool:
    """Whether the reader of specs takes a text for a number."""
    return PublishedValue.read(text, words=False) is not None


def _shifted(digits: str, power: int) -> str:
    return f"{Decimal(digits).scaleb(power):f}" if digits and power else digits


def _plain(digits: str) -> str:
    plain = digits.replace(",", "")
    return re.sub(r"^([+-]?)\.", r"\g<1>0.", plain)
