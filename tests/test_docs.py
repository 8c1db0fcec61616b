"""What the README shows is what the code does."""

import re
from pathlib import Path

import click
import pytest

from harness.cli.commands import cli
from harness.diff import Verdict, compare
from harness.plan import Options, make_plan
from harness.report import render_markdown
from harness.report.words import SIGNS
from harness.spec import Catalog
from harness.store import Store
from harness.table import fill, stored

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = next(iter(sorted((ROOT / "runs" / "reference").glob("cpu-*"))), ROOT / "runs" / "reference" / "none")


def block(name: str) -> str:
    return README.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert cli.commands[name].help
    assert f"| `harness {name}" in README


@pytest.mark.parametrize("name", ["reproduce", "report", "figure", "plan", "check", "baseline"])
def test_every_option_has_help_or_choices_and_those_of_reproduce_stand_in_the_readme(name: str) -> None:
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice), parameter.opts
            assert any(f"`{option}" in README for option in parameter.opts), parameter.opts


def test_every_verdict_stands_in_the_readme_with_its_sign() -> None:
    for verdict in Verdict:
        assert f"| {SIGNS[verdict]} | {verdict} |" in README


def test_the_table_in_the_readme_is_the_one_that_the_reference_results_give() -> None:
    plan = make_plan(Catalog().find(["table5"]))
    (spec,) = plan.specs
    store = Store(REFERENCE)
    rendered = render_markdown(compare(fill(spec, plan, stored(plan, store, None))))
    assert store.damaged == []
    command = f"harness report table5 --runs {REFERENCE.relative_to(ROOT)} --format markdown"
    assert block("reference").strip() == rendered.strip(), f"renew it with `{command}`"


@pytest.mark.parametrize(("marker", "table"), [("proxy3", "table3"), ("proxy", "table8")])
def test_the_proxies_in_the_readme_are_those_that_the_reference_results_give(marker: str, table: str) -> None:
    runs = ROOT / "runs" / "reference" / "proxy-digits-cpu-2026-11-21"
    spec = Catalog().find([table])[0]
    plan = make_plan([spec], Options(train=True, scale="proxy"))
    rendered = render_markdown(compare(fill(spec, plan, stored(plan, Store(runs), None))))
    assert block(marker).strip() == rendered.strip(), f"renew it with `harness report {table} --train --scale proxy`"


def test_the_reference_results_fill_every_cell_that_needs_no_images() -> None:
    plan = make_plan(Catalog().find(["table5"]))
    (spec,) = plan.specs
    table = fill(spec, plan, stored(plan, Store(REFERENCE), None))
    for (row, column), filled in table.cells.items():
        if column in ("params", "res", "throughput"):
            assert filled.measurement is not None, (row, column)


def test_the_commands_of_the_readme_are_those_that_ci_runs() -> None:
    found = re.findall(r"^python3 .*tox$", README, re.MULTILINE)
    assert len(found) == 1
    assert "python3 .*tox" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_files_that_the_readme_links_to_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
