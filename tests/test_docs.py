"""What the README and the manual show is what the program does."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import generate, pictures
from harness import __version__
from harness.cli.console import ExitCode
from harness.cli.main import cli
from harness.judge.judged import judged_tables
from harness.judge.verdict import Verdict
from harness.report.formatting import SIGNS
from harness.specs import Catalog
from harness.store.store import Store
from tests.test_architecture import LAYERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tables/README.md"))]
COMMANDS = dict(generate.commands())


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


# Commands, options, exit codes, verdicts.


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_and_is_in_the_readme(name: str) -> None:
    assert cli.commands[name].help
    assert f"| `harness {name}" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_reference_and_each_of_its_options_has_help(name: str) -> None:
    reference = page("command-line")
    assert f"\n## `harness {name}" in reference
    options = reference.partition(f"<!-- generated: options of {name} -->")[2].partition("<!-- /generated -->")[0]
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            assert all(option in options for option in parameter.opts), parameter.opts


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_what_is_generated_in_a_page_is_what_the_program_says_now(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == generate.renew(text), "renew it with `python -m docs.generate`"


def test_the_pictures_are_of_what_the_program_shows_now() -> None:
    drawn = json.loads(pictures.SOURCES.read_text(encoding="utf-8"))
    assert drawn == pictures.hashes(), "draw them again with `python -m docs.pictures`"
    assert {path.name for path in pictures.FOLDER.iterdir()} == {*drawn, pictures.SOURCES.name}


def test_every_generated_part_is_on_a_page() -> None:
    text = README + "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert set(generate.blocks()) == set(re.findall(r"<!-- generated: ([^>]+) -->", text))


def test_every_exit_code_is_in_the_reference_and_no_other() -> None:
    table = page("command-line").partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)


@pytest.mark.parametrize("text", [README, page("index")], ids=["README.md", "index.md"])
def test_every_verdict_is_explained_with_its_sign(text: str) -> None:
    for verdict in Verdict:
        assert f"| {SIGNS[verdict]} | {verdict} |" in text


def test_every_verdict_is_in_the_glossary() -> None:
    assert all(f"*{verdict}*" in page("glossary") for verdict in Verdict)


def test_the_design_has_the_packages_in_the_order_of_the_layers() -> None:
    table = page("design").partition("| package |")[2].partition("\n\n")[0]
    rows = [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in table.splitlines()[2:]]
    assert [{"__init__"}, *rows, {"__main__"}] == list(LAYERS)


# Results.


def test_the_reference_results_are_whole_and_fill_every_cell_that_needs_no_images() -> None:
    store = Store(generate.CPU_RESULTS)
    (table,) = judged_tables(Catalog().find(["table5"]), None, store, None).tables
    assert store.damaged == []
    for (row, column), filled in table.cells.items():
        if column in ("params", "res", "throughput"):
            assert filled.measurement is not None, (row, column)


# The README.


def test_the_readme_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_the_readme_has_the_one_command_that_ci_runs() -> None:
    assert len(re.findall(r"^python3 .*tox$", README, re.MULTILINE)) == 1
    assert "python3 .*tox" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_of_ones_own_in_the_readme_is_a_spec(tmp_path: Path) -> None:
    example = README.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "small.toml").write_text(example, encoding="utf-8")
    (spec,) = Catalog().find([str(tmp_path / "small.toml")])
    assert [row.key for row in spec.rows] == ["resnet18"]


# Links.


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as Git hosts and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def links(path: Path) -> Iterator[tuple[Path, str]]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        yield (path.parent / name if name else path), anchor


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    for target, anchor in links(path):
        assert target.exists(), target
        if target == DOCS / "specs.md":
            target = ROOT / "tables" / "README.md"  # noqa: PLW2901 -- the page includes it
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), (target, anchor)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:harness|tests|tables|examples|docs|figures)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for module, function in re.findall(r"`(harness/[\w/]+\.py)`: `(\w+)`", text):
        assert f"\ndef {function}(" in (ROOT / module).read_text(encoding="utf-8"), (module, function)


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r"[\w-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == [path.name for path in PAGES]


# What a package has.


def test_the_citations_name_this_version_and_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"version = {{{__version__}}}" in README
    assert "arXiv:2012.12877" in citation


def test_the_package_is_typed_and_links_to_nothing_that_may_not_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (ROOT / "harness" / "py.typed").exists()
    assert list(project["urls"]) == ["Paper"]
