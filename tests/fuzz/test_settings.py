"""harness.toml and the environment with values of every type and of none."""

import json
import shutil
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.main import cli
from tests.commands import run_harness
from tests.fuzz.hostile import NUMBERS, PATHS, TEXTS, check, values
from tests.fuzz.profiles import profile

COMMANDS = tuple(
    line.split()
    for line in (
        "list mine.toml",
        "plan mine.toml --device cpu",
        "report mine.toml",
        "reproduce mine.toml -q --device cpu",
        "check mine.toml",
        "baseline mine.toml -o new.json",
        "runs list",
        "runs export -o x.csv",
        "compare a b",
        "status",
        "doctor --device cpu",
    )
)
OPTIONS = [option for command in cli.commands.values() for option in command.params if isinstance(option, click.Option)]
KEYS = sorted({max(option.opts, key=len).lstrip("-") for option in OPTIONS})
VARIABLES = sorted(
    {
        *(str(option.envvar) for option in OPTIONS if option.envvar),
        *("COLUMNS", "LINES", "NO_COLOR", "TERM", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
        *("GITHUB_STEP_SUMMARY", "_HARNESS_COMPLETE", "COMP_WORDS", "COMP_CWORD"),
    }
)

# A value as TOML writes it.
_BARE = (
    *("true", "false", "inf", "-inf", "nan", "1e400", "-0.0", "1.5", "0", "-7", "0x1F", "9" * 5000, str(2**63)),
    *("1e-99999999", "2026-11-21", "07:32:00", "2026-11-21T07:32:00Z", "2026-13-45", "[]", "{}", "[[]]", "{ a = {} }"),
    *("word", "", "=", '"x', "[" * 3000 + "]" * 3000, "{ a = " * 3000 + "}" * 3000, "'''a\nb'''"),
    *('"\\u0000"', '"\\u202e"', '"\\U0010ffff"'),
)
_strings = st.sampled_from((*TEXTS, *NUMBERS, *PATHS, "cpu", "slurm", "smoke", "epochs=2", "imagenet=x")).map(
    json.dumps
)
_scalars = st.sampled_from(_BARE) | _strings
toml_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(("imagenet", "epochs", "a", '""')), inner, max_size=2).map(
            lambda items: f"{{ {', '.join(f'{key} = {value}' for key, value in items.items())} }}"
        )
    ),
    max_leaves=4,
)
_lines = st.builds(
    "{} = {}\n".format, st.sampled_from((*KEYS, "nonsense", "a.b", "data.imagenet", "x" * 99)), toml_values
)
_tables = st.builds(
    "[{}]\n{} = {}\n".format,
    st.sampled_from(("data", "set", "sbatch", "runs", "a" + ".a" * 3000)),
    st.sampled_from(("imagenet", "epochs", "ema", "optimizer")),
    toml_values,
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of settings, now and then with a byte order mark or damaged."""
    text = "".join(draw(st.lists(_lines, min_size=1, max_size=3))) + draw(st.just("") | _tables)
    raw = text.encode(errors="surrogatepass")
    mutation = draw(st.sampled_from(("none", "none", "none", "mark", "cut", "bytes", "utf-16")))
    if mutation == "mark":
        return b"\xef\xbb\xbf" + raw
    if mutation == "cut":
        return raw[: draw(st.integers(0, len(raw)))]
    if mutation == "bytes":
        at = draw(st.integers(0, len(raw)))
        return raw[:at] + draw(st.binary(max_size=4)) + raw[at:]
    return text.encode("utf-16", errors="surrogatepass") if mutation == "utf-16" else raw


def _possible(value: str) -> bool:
    """Whether the system lets a variable have this value."""
    try:
        return b"\0" not in value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False


_texts = values.filter(_possible) | st.sampled_from(("bash_source", "bash_complete", "zsh_complete", "harness rep"))
environments = st.dictionaries(st.sampled_from(VARIABLES), _texts, min_size=1, max_size=3)


def prepared(template: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    (folder / "main").rename(folder / "runs")
    return folder


@pytest.mark.usefixtures("without_processes")
@profile
@given(line=st.sampled_from(COMMANDS), raw=files())
def test_no_file_of_settings_ends_in_a_traceback(template: Path, tmp_path: Path, line: list[str], raw: bytes) -> None:
    folder = prepared(template, tmp_path)
    (folder / "harness.toml").write_bytes(raw)
    check(run_harness(folder, *line), gate="check" in line)


@pytest.mark.usefixtures("without_processes")
@profile
@given(line=st.sampled_from(COMMANDS), variables=environments)
def test_no_environment_ends_in_a_traceback(
    template: Path, tmp_path: Path, line: list[str], variables: dict[str, str]
) -> None:
    folder = prepared(template, tmp_path)
    check(run_harness(folder, *line, **variables), gate="check" in line)
