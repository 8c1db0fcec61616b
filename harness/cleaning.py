"""Text of others -> text that means nothing to what shows it: one function for each kind of output.

A label, an error, a model's or a file's name may hold anything: escape sequences, characters that reverse the line,
commands to a CI, formulas.  What would be obeyed is written as its number instead, in the way of JSON, so that JSON
stays the same data.  HTML is escaped by jinja2, and LaTeX in `harness.report.latex`.
"""

import json
import re

# Characters that no font shows: control codes but for tab and line feed, marks that change the direction or hide, line
# ends that only some programs know, half characters, and numbers that are none.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")

# GitHub obeys a line that begins with `::`, behind blanks too, and `##[`; Azure and TeamCity have words in between.
_COMMAND = re.compile(r"^(?P<blanks>\s*):(?=:)|#(?=#\w*\[)", re.MULTILINE)

# What a spreadsheet computes instead of showing it.
_FORMULA = re.compile(r"\s*[=@\uff1d\uff0b\uff0d\uff20]|[\t\n]|\s*[+\-](?!\d+(\.\d+)?$)")

_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")

# How signs of ours are written where an encoding lacks them.
_SPELLED = {
    **dict.fromkeys("–—−─━", "-"),
    **dict.fromkeys("·", "."),
    **dict.fromkeys("×✗", "x"),
    **dict.fromkeys("✻⚗", "*"),
    "✓": "v",
    "≈": "~",
    "±": "+-",
    "…": "...",
    "→": "->",
    "↑": "^",
    "│": "|",
    "τ": "tau",
    "ρ": "rho",
    **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True)),
}


def visible(text: str) -> str:
    r"""Return text without characters that are not seen but do something: `\u001b` in place of an escape."""
    return _HIDDEN.sub(lambda match: _number(match[0]), text.replace("\r\n", "\n"))


def printable(text: str, *, styled: bool = False) -> str:
    """Return text for a terminal or the log of a CI; with `styled`, the codes of colours in it stay."""
    parts = _STYLE.split(text) if styled else [text]
    cleaned = "".join(part if styled and index % 2 else visible(part) for index, part in enumerate(parts))
    return _COMMAND.sub(lambda match: (match["blanks"] or "") + _number(match[0][-1]), cleaned)


def one_line(text: str) -> str:
    """Return text as one line for a terminal or a log."""
    return printable(_BREAK.sub(" ", text))


def markdown(text: str) -> str:
    """Keep a text from breaking the table, becoming a link or another type, or calling somebody by name."""
    plain = re.sub(r"([\\|\[\]*~$]|(?<!\w)_|_(?!\w))", r"\\\1", visible(_BREAK.sub(" ", text)))
    if plain.count("`") % 2:  # in pairs they are a command that a message names
        plain = plain.replace("`", "\\`")
    return re.sub(r"@(?=\w)|#(?=\d)", "\\g<0>\u200b", plain).replace("<", "&lt;")


def json_text(data: object) -> str:
    """Write data as JSON, where what is not seen is written as its number."""
    return visible(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def csv_cell(value: object) -> object:
    """Keep a spreadsheet from computing a text; numbers stay as they are."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) else text


def github(text: str, *, is_property: bool = False) -> str:
    """Return the text of an annotation, or the value of one of its properties."""
    data = visible(text).replace("%", "%25").replace("\n", "%0A")
    return data.replace(":", "%3A").replace(",", "%2C") if is_property else data


def mlflow_name(text: str) -> str:
    """Return a name that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_\-. :/]", "_", text)


def spelled(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in ASCII: the handler of such errors."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SPELLED.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def _number(letter: str) -> str:
    code = ord(letter)
    # JSON writes what is beyond 16 bits as two halves.
    halves = (code,) if code < 0x10000 else (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF))
    return "".join(f"\\u{half:04x}" for half in halves)
