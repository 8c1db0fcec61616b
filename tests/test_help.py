"""Help in groups with examples that hold, and what to type where something is missing."""

import os
import re
import shlex
from pathlib import Path

import click
import pytest

from docs import generate
from harness.cli.main import cli
from harness.cli.usage.command import GROUPS, OTHER, Argument, Command, Option, by_group
from harness.specs import Catalog
from tests.commands import run_harness

COMMANDS = dict(generate.commands())
GROUPED = {"": cli, "runs": cli.commands["runs"], **COMMANDS}
EXAMPLES = [text for command in GROUPED.values() for text in command.examples]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_a_group_and_every_argument_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert isinstance(command, Command)
    for parameter in command.params:
        assert isinstance(parameter, Option | Argument), parameter.name
        assert parameter.group in GROUPS[: GROUPS.index(OTHER)], parameter.name


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", GROUPED)
def test_help_has_its_groups_in_order_and_ends_with_examples(tmp_path: Path, name: str, width: int) -> None:
    ran = run_harness(tmp_path, *name.split(), "--help", COLUMNS=str(width))
    assert (ran.returncode, ran.stderr) == (0, "")
    headings = re.findall(r"^(\S.*):$", ran.stdout, re.MULTILINE)
    if name in COMMANDS:
        groups = [heading for heading, _ in by_group(COMMANDS[name].params)]
        assert headings == [*groups, OTHER, "Examples"]
    assert headings[-1] == "Examples"
    examples = ran.stdout.partition("\nExamples:\n")[2].splitlines()
    assert [line[2:] for line in examples if line.startswith("  harness ")] == list(GROUPED[name].examples)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_command_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    program, *words = shlex.split(text)
    context = click.Context(cli, info_name=program)
    command: click.Command = cli
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    params = command.make_context(command.name, words, parent=context.parent).params
    names = params.get("tables") or [params.get("table") or params.get("name") or "table5"]
    assert Catalog(edition=params.get("edition", "arxiv")).find(names)


OPTIONS = "`harness {0} --help` shows the options"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        *(
            (
                command,
                (
                    f"`harness {command}` needs the name of a table, as in `harness {example}`; "
                    f"`harness list` shows the tables, {OPTIONS.format(command)}"
                ),
            )
            for command, example in (
                ("plan", "plan table5"),
                ("reproduce", "reproduce table5 --throughput-only --rows 'resnet18,deit_ti'"),
                ("report", "report table5"),
                ("check", "check table5"),
                ("baseline", "baseline table5 -o baseline.json"),
            )
        ),
        (
            "figure --style slides",
            (
                "`harness figure` needs the name of a figure or a table, as in `harness figure figure1`; "
                "`harness list` shows the names, `harness figure --help` shows the options"
            ),
        ),
        (
            "baseline table5",
            (
                "`harness baseline` needs -o or --output, as in `harness baseline table5 -o baseline.json`; "
                "`harness baseline --help` shows the options"
            ),
        ),
        (
            "compare 2026",
            (
                "`harness compare` needs a second run, as in `harness compare 20261121T200344 20261122T091012`; "
                "`harness runs list` shows the runs, `harness compare --help` shows the options"
            ),
        ),
        (
            "runs show",
            (
                "`harness runs show` needs the id of a run, as in `harness runs show 20261121T200344`; "
                "`harness runs list` shows the runs, `harness runs show --help` shows the options"
            ),
        ),
        ("runs lst", "unknown command 'lst'; did you mean 'list'?"),
    ],
)
def test_where_something_is_missing_the_command_says_what_to_type(tmp_path: Path, typed: str, message: str) -> None:
    ran = run_harness(tmp_path, *typed.split())
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize("group", ["", "runs"])
def test_a_group_without_a_command_shows_its_help_as_wrong_usage(tmp_path: Path, group: str) -> None:
    ran = run_harness(tmp_path, *group.split())
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == run_harness(tmp_path, *group.split(), "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("check", "table5", "--runs", "a", "--runs", "b"), "--runs"),
        (("report", "table5", "--rows", "deit_ti", "--rows", "deit_s"), "--rows"),
        (("figure", "figure1", "-o", "a.png", "--output", "b.png"), "--output"),
        (("reproduce", "table5", "--repeats", "3", "--repeats=3"), "--repeats"),
    ],
)
def test_an_option_that_is_given_twice_is_refused_since_one_of_them_would_be_ignored(
    tmp_path: Path, arguments: tuple[str, ...], option: str
) -> None:
    ran = run_harness(tmp_path, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"error: {option} is given twice; leave one out\n"


def test_options_that_add_up_may_be_given_several_times(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ran = run_harness(tmp_path, "trend", "table5", "--runs", "a", "--runs", "a", "-h")
    assert (ran.returncode, ran.stderr) == (0, "")
