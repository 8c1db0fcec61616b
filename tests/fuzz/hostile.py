"""Values that programs stumble over, and what holds for a command whatever it was given."""

import re
from pathlib import Path

from hypothesis import strategies as st

from tests.commands import Completed

NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "²",
    "٣",
    "9" * 5000,
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-inf",
    "1_0",
    "0x10",
    "1.5",
    "-0.0",
)
TEXTS = (
    *(
        "",
        " ",
        "a\0b",
        "\udc80",
        "\ud800",
        "\x1b[31mred\x07",
        "\x9b2J",
        "\u202eabc",
        "x\n::error::x",
        "##[error]x",
        "\ufeff",
    ),
    *(
        "x" * 300,
        "x" * 70_000,
        "[",
        "[!a",
        "*" * 60,
        "{}",
        "'\"`",
        "%00%s%n",
        "a=b=c",
        "=",
        "=x",
        "x=",
        "-",
        "--",
        "@x",
    ),
    *("--", "@x", "true", "None", "null", "1 2", "a,b,,c", ",", "🂡", "e\u0301", "$(id)", "\\", "\r", "\t"),
)
# Nothing outside the working folder may be written to by a test.
PATHS = (
    ".",
    "..",
    "mine.toml",
    "runs",
    "b.json",
    "runs/x/y",
    "mine.toml/x",
    "/dev/full",
    "/dev/null",
    "/proc/nope/x",
    "x.csv",
)

values = st.sampled_from((*NUMBERS, *TEXTS, *PATHS)) | st.text(max_size=6).filter(lambda text: "/" not in text)

# Half characters, control codes and marks of direction, which no output has.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_COMMAND = re.compile(r"^\s*::\w+|##\w*\[", re.MULTILINE)


def check(ran: Completed, *, gate: bool = False) -> None:
    """Assert what holds for every command: no traceback, no code of the gate, and nothing that a terminal obeys."""
    assert "Traceback" not in ran.stderr, ran.stderr
    assert ran.returncode in {0, 2, 3, 4, *([1] if gate and ran.stdout.startswith(("fails: ", "{")) else [])}, ran
    assert ran.returncode != 2 or re.search("^(error|Usage): ", ran.stderr, re.MULTILINE), ran
    for text in (ran.stdout, ran.stderr):
        assert not _OBEYED.search(text), text
        assert not _COMMAND.search(text), text


def unchanged(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, to compare."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
