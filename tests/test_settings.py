"""Values that are none: in options, harness.toml, the environment, specs and recipes; each is one sentence, exit 2."""

import codecs
import os
import re
import tempfile
from pathlib import Path

import pytest

from harness.cli.main import cli
from harness.cli.usage.options import load_settings
from harness.errors import HarnessError
from harness.machine.cpu import torch_threads, usable_cores
from harness.specs.document import parse_toml
from harness.specs.reader import load
from harness.specs.recipe.catalog import Recipes
from tests.commands import run_harness
from tests.fakes import FakeLauncher
from tests.gating import SPEC, mine

DIGITS = "9" * 5000
SHORT = "9" * 59 + "…"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mine(tmp_path)
    return tmp_path


# Options.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--batch", DIGITS), f"Invalid value for '--batch': '{SHORT}' is not auto, largest or a batch size"),
        (("--batch", "²"), "Invalid value for '--batch': '²' is not auto, largest or a batch size"),
        (("--repeats", DIGITS), f"Invalid value for '--repeats': '{SHORT}' is not a whole number of at least 2"),
        (("--repeats", "²"), "Invalid value for '--repeats': '²' is not a whole number of at least 2"),
        (("--memory", f"{DIGITS}GiB"), f"Invalid value for '--memory': memory '{SHORT}' is not an amount"),
        (
            ("--device", f"cuda:{DIGITS}"),
            "--device cuda:" + "9" * 54 + "…: not a device; write auto, cpu, cuda or cuda:N",
        ),
        (
            ("--runs", ""),
            "Invalid value for '--runs': it is empty; name a file or a folder, '.' for the working folder",
        ),
        (("--runs", "a\0b"), "'a\\u0000b' has a NUL character in it; leave it out"),
        (("--runs", "\ud800"), "'\\ud800' is not valid text; write it in the encoding of the terminal"),
        (("--runs", "x" * 300), "x" * 300 + ": File name too long; name another"),
        (("--train", "--set", f"epochs={DIGITS}"), "Invalid value for '--set': epochs must be an integer, not '"),
        (
            ("--train", "--set", "epochs=" + "[" * 3000),
            "Invalid value for '--set': epochs must be an integer, not '[[[",
        ),
        (("--train", "--set", "mixup=nan"), "Invalid value for '--set': mixup must be a number, not nan"),
        (
            ("--train", "--set", "epochs=1", "--set", "epochs=2"),
            "--set epochs is given twice, as 1 and 2; leave one out",
        ),
        (("--data", "a=x", "--data", "a=y"), "--data a is given twice, as x and y; leave one out"),
    ],
    ids=lambda value: ascii(" ".join(value))[:40] if isinstance(value, tuple) else "",
)
def test_an_option_that_is_none_is_refused(folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    device = () if "--device" in arguments else ("--device", "cpu")
    ran = run_harness(folder, "plan", "mine.toml", *device, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {sentence}")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "0", "1e9", "soon"])
def test_hours_are_a_number_that_a_cluster_may_give(folder: Path, hours: str) -> None:
    ran = run_harness(folder, "reproduce", "mine.toml", "--launcher", "slurm", "--hours", hours)
    assert ran.stderr == (
        f"error: Invalid value for '--hours': '{hours}' is not a number of hours above 0 and up to 100,000\n"
    )


# harness.toml.


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("runs = 2026-11-21", "harness.toml:1: runs must be a string or a number, not 2026-11-21"),
        ("\nruns = {}", "harness.toml:2: runs must be a string or a number, not a table"),
        ("runs = ['a', 'b']", "harness.toml:1: runs must be a string or a number, not a list"),
        ("runs = true", "harness.toml:1: runs must be a string or a number, not true"),
        ("batch = inf", "harness.toml:1: batch must be a string or a number, not inf"),
        ("train = 'yes'", "harness.toml:1: train must be true or false, not 'yes'"),
        ("rows = [1]", "harness.toml:1: rows must be a string, not 1"),
        ("data = [['a']]", "harness.toml:1: data must be a string, not a list"),
        ("data = { imagenet = {} }", "harness.toml:1: data must be a string or a number, not a table"),
        ('runs = "a\\u0000b"', "harness.toml:1: runs 'a\\u0000b' has a NUL character in it; leave it out"),
        ("batch = " + DIGITS, "harness.toml:1: not TOML: it holds an integer beyond 64 bits"),
        ("batch = 1e999999999", "harness.toml:1: not TOML: 1e999999999 is beyond what a number can be"),
        ("batch = " + "[" * 3000 + "]" * 3000, "harness.toml:1: not TOML: it is nested without end"),
        ("seeds = 0", "harness.toml: Invalid value for '--seeds': '0' is not a whole number of at least 1"),
    ],
    ids=lambda value: value[:24],
)
def test_a_setting_of_a_wrong_type_is_refused_with_its_line(folder: Path, text: str, sentence: str) -> None:
    (folder / "harness.toml").write_text(text, encoding="utf-8")
    ran = run_harness(folder, "plan", "mine.toml", "--device", "cpu")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {sentence}\n")


def test_every_wrong_setting_of_a_file_is_named_at_once(folder: Path) -> None:
    (folder / "harness.toml").write_text("runs = {}\nbtach = 8\nexplain = 1\n", encoding="utf-8")
    assert run_harness(folder, "list").stderr == (
        "error: harness.toml:1: runs must be a string or a number, not a table\n"
        "error: harness.toml:2: unknown setting 'btach'; did you mean 'batch'?\n"
        "error: harness.toml:3: explain must be true or false, not 1\n"
    )


def test_a_recipe_is_changed_by_truth_values_of_the_file_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "harness.toml").write_text("[set]\nema = false\nepochs = 7\nmixup = 0.5\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert load_settings(cli.commands)["plan"] == {"changes": ["ema=false", "epochs=7", "mixup=0.5"]}
    assert run_harness(folder, "plan", "mine.toml", "--train", "--device", "cpu").returncode == 0


def test_settings_of_a_cluster_wait_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.execution.LocalLauncher", FakeLauncher)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # an exclusive lock of its own
    (folder / "harness.toml").write_text("detach = true\npartition = 'gpu'\n", encoding="utf-8")
    ran = run_harness(folder, "reproduce", "mine.toml", "--device", "cpu", "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "jobs: 2 measured, 0 known already.  runs/\n" in ran.stdout


# The environment.


@pytest.mark.parametrize("columns", ["²", "٣", DIGITS, "0", "-1", "1e3", "5", ""])
def test_columns_that_are_none_are_ignored(folder: Path, columns: str) -> None:
    (folder / "runs").mkdir()
    ran = run_harness(folder, "report", "mine.toml", COLUMNS=columns, LINES=columns)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("threads", ["²", "-1", "0", "1.5", DIGITS, "four", ""])
def test_threads_that_are_none_are_those_that_torch_takes_without(
    monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert torch_threads() == usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert torch_threads() == 3


def test_a_wrong_variable_is_named(folder: Path) -> None:
    ran = run_harness(folder, "plan", "mine.toml", "--device", "cpu", HARNESS_REPEATS="²")
    sentence = "HARNESS_REPEATS: Invalid value for '--repeats': '²' is not a whole number of at least 2"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {sentence}\n")


@pytest.mark.parametrize("variables", [{}, {"COMP_WORDS": "harness re", "COMP_CWORD": "²"}], ids=str)
def test_a_completion_without_the_variables_of_a_shell_is_refused(folder: Path, variables: dict[str, str]) -> None:
    ran = run_harness(folder, _HARNESS_COMPLETE="bash_complete", **variables)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: _HARNESS_COMPLETE=bash_complete: ")


# Specs and recipes.


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("cost = -inf", "cost in [row.tiny] must be a number, not -inf"),
        ("cost = nan", "cost in [row.tiny] must be a number, not nan"),
        ("cost = -1", "cost in [row.tiny] must be at least 0, not -1"),
        ("cost = " + DIGITS, "not TOML: it holds an integer beyond 64 bits"),
        ("cost = 1e400", "not TOML: 1e400 is beyond what a number can be"),
        ("cost = 1e-999999999", "not TOML: 1e-999999999 is beyond what a number can be"),
        ("cost = 1e" + "9" * 30, "not TOML: 1e" + "9" * 27 + "… is beyond what a number can be"),
        ("cost = " + "[" * 3000 + "]" * 3000, "not TOML: it is nested without end"),
        ("cost = " + "{ a = " * 3000 + "1" + " }" * 3000, "not TOML: it is nested without end"),
        ("cost" + ".a" * 3000 + " = 1", "not TOML: it is nested without end"),
        ("digits = 100000000000000000000", "not TOML: it holds an integer beyond 64 bits"),
    ],
    ids=lambda value: value[:24],
)
def test_a_number_that_is_none_is_refused_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    text = SPEC.replace('label = "Tiny"', f'label = "Tiny"\n{line}')
    number = text.splitlines().index(line) + 1
    with pytest.raises(HarnessError, match=f"^{re.escape(f'{tmp_path}/mine.toml:{number}: {problem}')}$"):
        mine(tmp_path, text)


def test_a_published_value_that_no_number_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"top1 in \[row\.tiny\.paper\] must be a number, or a string like"):
        mine(tmp_path, SPEC.replace("top1 = 72.2", f'top1 = "{DIGITS}"'))


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 3000 + "]" * 3000, f"hours = {DIGITS}", f"{'a.' * 3000}a = 1"], ids=len
)
def test_a_recipe_is_refused_as_a_spec_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[recipe]\ntitle = "Mine"\n{text}', encoding="utf-8")
    with pytest.raises(HarnessError, match=f"^{re.escape(str(path))}:3: not TOML: it "):
        Recipes().find(str(path))


def test_what_the_largest_numbers_are_is_read(tmp_path: Path) -> None:
    assert parse_toml(f"x = {2**63 - 1}\ny = -{2**63}") == {"x": 2**63 - 1, "y": -(2**63)}
    assert parse_toml("x = " + "[" * 40 + "]" * 40)["x"]


@pytest.mark.parametrize("name", ["mine.toml", "harness.toml"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    ran = run_harness(tmp_path, "list", "mine.toml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {name}: cannot be read (it is no file); name ")


# The mark that some editors put at the beginning of a file.


def test_a_byte_order_mark_is_no_part_of_a_spec_or_of_the_settings(folder: Path) -> None:
    (folder / "marked.toml").write_bytes(codecs.BOM_UTF8 + SPEC.encode())
    assert load(folder / "marked.toml").rows == load(folder / "mine.toml").rows
    (folder / "harness.toml").write_bytes(codecs.BOM_UTF8 + b"batch = 8\n")
    ran = run_harness(folder, "plan", "marked.toml", "--device", "cpu")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "batch=8" in ran.stdout
