"""Names and errors that a terminal, a CI, a spreadsheet, XML, MLflow or a page would obey."""

import csv
import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cleaning import csv_cell, github, json_text, markdown, mlflow_name, one_line, printable, visible
from harness.cli.console import note
from harness.errors import HarnessError
from harness.judge.judged import judged_tables
from harness.plan.job import Job
from harness.pytest_plugin import plugin
from harness.pytest_plugin.measure import MeasuredValue
from harness.report import render_terminal
from harness.report.markdown import collapsed
from harness.run.launch.slurm import run_tool
from harness.run.log import LogObserver
from harness.specs import Spec
from harness.store.store import Store
from tests.commands import Completed, run_harness
from tests.fakes import result_of
from tests.gating import SPEC, mine, save_accuracy, save_count, save_throughput
from tests.test_gate import images

ANY = st.text(st.characters() | st.sampled_from("\x1b\x07\x9b\u202e\u2028\ud800\udc80\n\r\t:#[%,=+-@|`*_<&'\""))

# What makes a terminal do something, or turns the order of the letters.
OBEYED = [*map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x61C, 0x200B, 0x200E, 0x200F, 0xFEFF))]
OBEYED += [*map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xD800, 0xDFFF, 0xE0001, 0xFFFE))]


@pytest.mark.parametrize("letter", OBEYED, ids=lambda letter: f"U+{ord(letter):04X}")
def test_what_is_obeyed_is_written_as_its_number(letter: str) -> None:
    shown = visible(f"a{letter}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == f"a{letter}b"


@given(ANY)
def test_json_stays_the_same_data_and_holds_nothing_that_is_obeyed(text: str) -> None:
    written = json_text({"a": [text]})
    # JSON joins the two halves of a character.
    assert json.loads(written) == {"a": [json.loads(json.dumps(text))]}
    assert not set(OBEYED) & set(written)
    assert json.loads(printable(written)) == json.loads(written)


@given(ANY)
def test_no_text_begins_a_command_of_a_ci(text: str) -> None:
    for shown in (printable(text), printable(f"\n  {text}"), printable(f"::error::{text}##[add-mask]")):
        assert not any(line.lstrip().startswith("::") for line in shown.split("\n"))
        assert not re.search(r"##\w*\[", shown)
        assert not set(OBEYED) & set(shown)
    assert "\n" not in one_line(text)


def test_what_is_shown_of_hostile_text_tells_what_it_was() -> None:
    assert printable("\x1b[2J::error::x") == "\\u001b[2J::error::x"
    assert printable(" ::error file=a::x") == " \\u003a:error file=a::x"
    assert printable("##[error]x ##vso[task]x") == "\\u0023#[error]x \\u0023#vso[task]x"
    assert printable("a :: b # c, ##d") == "a :: b # c, ##d"
    assert printable("\x1b[1mbold\x1b[0m\x1b[2J", styled=True) == "\x1b[1mbold\x1b[0m\\u001b[2J"
    assert one_line("a\r\n  b\u2028::c") == "a b ::c"


@given(ANY)
def test_an_annotation_is_one_line_and_its_properties_end_where_they_should(text: str) -> None:
    assert not set("\n\r") & set(github(text))
    assert not set("\n\r:,") & set(github(text, is_property=True))
    assert github("100%\n%0A") == "100%25%0A%250A"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        (" =x", "' =x"),
        ("\tx", "'\tx"),
        ("＝x", "'＝x"),
        ("-1.5", "-1.5"),
        ("-1.5=x", "'-1.5=x"),
        (-1.5, -1.5),
        (None, None),
        ("adamw", "adamw"),
    ],
)
def test_a_spreadsheet_computes_no_text(value: object, cell: object) -> None:
    assert csv_cell(value) == cell


def test_markdown_shows_a_text_as_it_is() -> None:
    assert markdown("a|b\n[x](y) *z* ~~s~~ $m$ `") == "a\\|b \\[x\\](y) \\*z\\* \\~\\~s\\~\\~ \\$m\\$ \\`"
    assert markdown("run `harness plan`, @me <b>") == "run `harness plan`, @\u200bme &lt;b>"


def test_mlflow_has_letters_digits_and_a_few_signs_in_names() -> None:
    assert mlflow_name("a b/c.d-e_f:g") == "a b/c.d-e_f:g"
    assert mlflow_name("é\n\x1b=") == "____"


# A table whose names and errors are all hostile, in every output.

EVIL = "\x1b[2J\x07\x9b31m\u202e\n::error file=x::owned %0A ##[error]y =1|2"


@pytest.fixture
def evil(tmp_path: Path) -> Spec:
    label = json.dumps(EVIL)  # JSON's escapes are TOML's
    text = SPEC.replace('label = "Tiny"', f"label = {label}").replace('title = "', f"title = {label[:-1]}")
    spec = mine(tmp_path, text)
    store = Store(tmp_path / "runs")
    save_accuracy(store, spec, 0, images(right=722))
    save_throughput(store, spec, 1, [0.04] * 3, error=EVIL)
    save_count(store, spec, 2, error=EVIL)
    return spec


COMMANDS = (
    "list mine.toml",
    "plan mine.toml --device cpu --data imagenet=x",
    *(
        f"report mine.toml --data imagenet=x --format {form}"
        for form in ("terminal", "markdown", "csv", "json", "latex")
    ),
    "report mine.toml -v --explain --data imagenet=x",
    "check mine.toml -v",
    "check mine.toml --json",
    "baseline mine.toml -o b.json",
    "runs list",
    "runs show 2026",
    "runs prune --dry-run",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_what_a_terminal_or_a_ci_obeys(evil: Spec, tmp_path: Path, command: str) -> None:
    ran = run_harness(tmp_path, *command.split())
    assert "Traceback" not in ran.stderr
    for text in (ran.stdout, ran.stderr):
        assert not set(OBEYED) & set(text)
        assert not any(line.lstrip().startswith("::") for line in text.split("\n"))
        assert not re.search(r"##\w*\[", text)


def test_what_a_user_wrote_is_cleaned_in_the_error(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "report", EVIL)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert not set(OBEYED) & set(ran.stderr)
    assert all(line.startswith("error: ") for line in ran.stderr.splitlines())


def written(tmp_path: Path, name: str, *arguments: str, **variables: str) -> tuple[Completed, str]:
    ran = run_harness(tmp_path, *arguments, **variables)
    return ran, (tmp_path / name).read_text(encoding="utf-8")


def test_junit_and_the_annotations_of_a_check_are_well_formed(evil: Spec, tmp_path: Path) -> None:
    assert run_harness(tmp_path, "baseline", "mine.toml", "-o", "b.json").returncode == 0
    summary = tmp_path / "summary.md"
    check = ("check", "mine.toml", "--baseline", "b.json", "--runs", "new", "--github", "--junit", "j.xml")
    (tmp_path / "new").mkdir()
    ran, xml = written(tmp_path, "j.xml", *check, GITHUB_STEP_SUMMARY=str(summary))
    assert ran.returncode == 1
    assert ET.fromstring(xml).attrib["failures"] == "1"
    commands = [line for line in ran.stdout.splitlines() if line.startswith("::")]
    assert [line.partition("::")[2].split("::")[0] for line in commands] == ["error title=mine missing"]
    for text in (xml, ran.stdout, summary.read_text(encoding="utf-8")):
        assert not set(OBEYED) - {"\u200b"} & set(text)


def test_exports_hold_nothing_that_is_obeyed_or_computed(evil: Spec, tmp_path: Path) -> None:
    save_count(Store(tmp_path / "runs"), evil, 5, error="=HYPERLINK(0)")
    _, runs = written(tmp_path, "x.csv", "runs", "export", "-o", "x.csv")
    _, cells = written(tmp_path, "y.csv", "report", "mine.toml", "--format", "csv", "-o", "y.csv")
    rows = [row for text in (runs, cells) for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert not set(OBEYED) & set(runs + cells)
    assert not [value for row in rows for value in row.values() if re.match(r"[=@]|[+-]\D", value)]
    assert "'=HYPERLINK(0)" in {row.get("error") for row in rows}


def test_a_page_and_a_figure_are_well_formed(evil: Spec, tmp_path: Path) -> None:
    assert run_harness(tmp_path, "report", "mine.toml", "--format", "html", "-o", "site").returncode == 0
    for page in (tmp_path / "site").rglob("*.html"):
        assert not set(OBEYED) & set(page.read_text(encoding="utf-8")), page
    save_throughput(Store(tmp_path / "runs"), evil, 9, [0.04, 0.05, 0.04])
    drawn = run_harness(tmp_path, "figure", "mine.toml", "--chart", "runs", "-o", "f.svg")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    ET.parse(tmp_path / "f.svg")


def test_colours_of_others_do_not_reach_a_terminal_or_a_file(tmp_path: Path) -> None:
    label = json.dumps("\x1b[8mhidden")
    spec = mine(tmp_path, SPEC.replace('label = "Tiny"', f"label = {label}"))
    (diff,) = judged_tables([spec], None, Store(tmp_path / "runs"), None).diffs
    assert "\\u001b[8mhidden" in render_terminal(diff, width=100, color=True)
    _, text = written(tmp_path, "t.txt", "report", "mine.toml", "-o", "t.txt")
    assert "\\u001b[8mhidden" in text


def test_a_log_has_a_line_for_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    log = LogObserver(note)
    job = Job.of("count", {"model": "tiny", "res": 224})
    log.starts(job, 1, 1)
    log.finished(result_of(job, error="out of\n::error::memory\x1b[2J"))
    log.waits("x\n::warning::y")
    assert capsys.readouterr().err == (
        "[1/1] count tiny at 224: failed: out of ::error::memory\\u001b[2J\nx ::warning::y\n"
    )


def test_a_fixture_fails_without_commands() -> None:
    def fail() -> MeasuredValue:
        raise HarnessError("::error::x\x1b[2J")

    with pytest.raises(pytest.fail.Exception) as failed:
        plugin._or_fail(fail)
    assert str(failed.value) == "\\u003a:error::x\\u001b[2J"


def test_a_summary_stays_one_line_of_markdown() -> None:
    assert collapsed("a\n\n<b>", ["x"])[0] == "<details><summary>a &lt;b&gt;</summary>"


# Names that are no text.


def test_a_file_whose_name_is_no_text_is_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "b\udcff.toml").write_text(SPEC, encoding="utf-8")
    for form in ("json", "csv", "markdown", "latex", "terminal"):
        ran, text = written(tmp_path, "out", "report", "b\udcff.toml", "--format", form, "-o", "out")
        assert (ran.returncode, ran.stdout) == (0, "out\n")
        assert "\\udcff" in text or form not in ("json", "csv")
    assert "\\udcff" in run_harness(tmp_path, "check", "b\udcff.toml", "-v").stdout


def test_a_tool_that_answers_in_another_encoding_is_understood() -> None:
    assert run_tool([sys.executable, "-c", "import os; os.write(1, b'caf\\xe9')"]) == "caf\N{REPLACEMENT CHARACTER}"
