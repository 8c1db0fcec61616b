"""LaTeX and Markdown for others: what is written compiles, loses no cell, and no name breaks it."""

import re
import shutil
import string
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge.judged import judged_tables
from harness.judge.table import fill
from harness.judge.verdict import Diff, Verdict, compare
from harness.plan.plan import make_plan
from harness.report import render_comment, render_latex, render_markdown
from harness.report.formatting import SIGNS as SIGNS_IN_WORDS
from harness.report.latex import SIGNS, escaped
from harness.specs import Catalog, load
from harness.store.store import Store
from tests.fakes import V100, result_of
from tests.test_report import SPEC
from tests.test_report import diff_of as report_of

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "runs" / "reference" / "cpu-xeon-2-cores-2026-11-21"

needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs")


def diff_of(tmp_path: Path, text: str = SPEC, **values: float) -> Diff:
    """Fill a table on the published machine: the value of each row's jobs, or nothing."""
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    spec = load(tmp_path / "spec.toml")
    plan = make_plan([spec])
    results = {
        job.key: result_of(job, machine=V100, value=values[str(job["model"])])
        for job in plan.jobs
        if job.kind in ("count", "throughput") and str(job["model"]) in values
    }
    return compare(fill(spec, plan, results))


def reference(*names: str) -> list[Diff]:
    return list(judged_tables(Catalog().find(names), None, Store(REFERENCE), None).diffs)


def rows(text: str) -> list[list[str]]:
    """The lines of a table as their cells."""
    lines = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines]


def compiled(tmp_path: Path, text: str, *, name: str = "table") -> str:
    """Compile a file and give the log."""
    (tmp_path / f"{name}.tex").write_text(text, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = (tmp_path / f"{name}.log").read_text(encoding="latin-1")
    assert ran.returncode == 0, log[-3000:]
    assert (tmp_path / f"{name}.pdf").stat().st_size > 1000
    return log


# What a table holds.


def test_a_table_holds_what_was_measured_with_its_verdict_and_leaves_out_the_rest(tmp_path: Path) -> None:
    actual = rows(render_latex([diff_of(tmp_path, small=1020.0, tiny=5.0)]))
    assert actual[0] == ["", "by", r"\#param.", "speed", "bf16 speed"]
    assert actual[1] == ["", "", "(M)", "(im/s, batch 4)", "(im/s, batch 4)"]
    assert actual[2] == [r"\multicolumn{5}{c}{Convnets}"]
    measured = r"1020{\scriptsize\,$\pm$\,10}"
    deviates = r"\deviates{1020.0 $\neq$}"
    assert actual[3] == [
        *(r"CNN\textbar{}small", "Ann", deviates, rf"{measured} \checkmark", rf"{measured} $\cdot$"),
    ]
    assert actual[4] == [r"\multicolumn{5}{c}{Transformers}"]
    assert actual[5][0] == r"ViT\textless{}tiny\textgreater{}"
    assert len(actual) == 6


def test_everything_has_a_sign_for_what_is_missing_too(tmp_path: Path) -> None:
    actual = rows(render_latex([diff_of(tmp_path, small=1020.0)], everything=True))
    assert actual[4] == ["CNN[big]", "Bob", r"$\circ$", r"$\circ$", r"$\circ$", r"$\circ$"]
    assert actual[7] == [r"ViT\alembic{}$\uparrow$384", "", r"$\circ$", r"$\circ$", r"$\circ$", r"$\circ$"]


def test_the_published_value_stands_below_in_grey_with_difference_and_verdict(tmp_path: Path) -> None:
    actual = rows(render_latex([diff_of(tmp_path, small=1020.0)], "below", everything=True))
    interval = r"{\scriptsize\,$\pm$\,10}"
    assert actual[3][2:4] == [r"\deviates{1020.0 $\neq$}", rf"1020{interval} \checkmark"]
    assert actual[4] == [
        *("", r"\published{Ann}", r"\published{12 +1008.0}", r"\published{1000 +2.0 \%}"),
        *(r"\published{2000 49 \% slower}", r"\published{71.2}"),
    ]
    assert actual[5][2] == r"$\circ$"
    assert actual[6][2] == r"\published{60\textsuperscript{B1}}"
    assert actual[6][4] == r"\published{--}"  # nothing was published, which is not the same as missing


def test_beside_it_stands_in_a_column_of_its_own(tmp_path: Path) -> None:
    text = render_latex([diff_of(tmp_path, small=1020.0)], "beside")
    actual = rows(text)
    assert actual[0][2] == r"\multicolumn{2}{c}{\#param.}"
    assert actual[3][3:5] == [r"\deviates{1020.0 $\neq$}", r"\published{12 +1008.0}"]
    assert len(actual[3]) == 9
    assert r"\begin{tabular}{@{}lll" in text


def test_marks_are_explained_below_and_signs_too(tmp_path: Path) -> None:
    text = render_latex([diff_of(tmp_path, small=1020.0)], "below")
    notes = text.partition("\\end{tabular}%\n}{%\n")[2].partition("%\n}\n\\end{table}")[0]
    assert notes.splitlines() == [
        (
            r"\published{Grey: as published, -- where nothing was.} 2 of 16 values judged: 1 match, 1 deviates; "
            r"1 not comparable, 13 missing. Measured on Tesla V100-SXM2-16GB 16 GiB; torch 2.15.0, timm 1.0.31. "
            r"A match is within \ensuremath{\pm} 1 M (\#param.), \ensuremath{\pm} 5 \% (speed); "
            r"behind \ensuremath{\pm} is the 95 \% interval. "
            r"Signs: \checkmark match, $\neq$ deviates, $\cdot$ not comparable.\par"
        ),
        r"Not measured and left out: top-1; 3 of 4 rows (-{}-all-columns shows them).\par",
        r"\textsuperscript{B1} Counted without the \textless{}head\textgreater{}.\par",
        r"\textsuperscript{w} A slip \textbar{} of the pen.",
    ]


def test_without_published_values_nothing_is_grey_but_verdicts_are_there(tmp_path: Path) -> None:
    text = render_latex([diff_of(tmp_path, small=1020.0)]).partition("\\begin{table}")[2]
    assert "\\published{" not in text
    assert r"Signs: \checkmark match" in text


def test_every_verdict_has_a_sign_and_no_two_the_same() -> None:
    assert SIGNS.keys() == SIGNS_IN_WORDS.keys() == set(Verdict)
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_the_caption_says_which_table_and_the_notes_which_machine() -> None:
    (diff,) = reference("table5")
    text = render_latex([diff])
    assert (
        r"\caption{Throughput and accuracy of models trained with no external data (Table 5 of the paper).}"
        r"\label{tab:table5}"
    ) in text
    assert "Measured on Intel Xeon Processor, 2 cores; torch " in text


def test_no_cell_of_table_5_is_lost() -> None:
    (diff,) = reference("table5")
    actual = rows(render_latex([diff], "beside", everything=True))
    named = {line[0]: line for line in actual if len(line) == 13}
    for row in diff.spec.rows:
        line = named[escaped(row.label)]
        for number, column in enumerate(diff.spec.columns):
            judged = diff.judged_cells[row.key, column.key]
            if not judged.filled.matches_by_construction:
                assert bool(judged.filled.measurement) == bool(re.match(r"[\d]", line[1 + 2 * number]))
            value = judged.filled.cell.published
            assert (value.text if value else "") in line[2 + 2 * number]
            assert bool(value) == (line[2 + 2 * number] not in ("", r"\published{--}"))


def test_a_long_table_comes_in_parts_of_one_number_with_its_notes_last() -> None:
    (diff,) = reference("table5")
    text = render_latex([diff], "below")
    assert text.count("\\begin{table}") == 2
    assert text.count("\\addtocounter{table}{-1}") == text.count("(continued)}") == 1
    assert text.count("\\label{") == 1
    assert text.index("Grey: as published,") > text.index("(continued)}")
    labels = [line[0] for line in rows(text)]
    assert all(escaped(row.label) in labels for row in diff.spec.rows)


def test_a_blank_of_the_paper_is_told_from_what_is_missing() -> None:
    # timm has values where the paper prints none: EfficientNet-B7's on V2, for one.
    (diff,) = reference("table5")
    text = render_latex([diff], "beside", everything=True)
    line = next(line for line in rows(text) if line[0] == "EfficientNet-B7")
    assert line[-4:] == [r"$\circ$", r"\published{--}", r"$\circ$", r"\published{--}"]


def test_what_nothing_measures_shows_what_its_own_source_says() -> None:
    (diff,) = reference("author-statements")
    text = render_latex([diff], "beside")
    first = next(iter(diff.judged_cells.values())).filled.cell.references[0].published.text
    assert escaped(first) in text


def test_the_same_results_give_the_same_text() -> None:
    assert render_latex(reference("table5"), "below") == render_latex(reference("table5"), "below")


# Names.

NASTY = 'x & y % $z$ #1 {a} \\b ~ ^ _ <b>"bold"</b> `c` -- | é ñ Ł 中 α ⚗ – ' + "long " * 100


def test_special_letters_are_set_as_they_are() -> None:
    assert escaped("a_b & 5 % of $1 #2 {x} ~^\\") == (
        r"a\_b \& 5 \% of \$1 \#2 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escaped("é Ñ ø ß ę 中") == r"\'e \~N \o{} \ss{} [U+0119] [U+4E2D]"
    assert escaped("τ ≈ 1 ± 2 × 3") == r"\ensuremath{\tau} \ensuremath{\approx} 1 \ensuremath{\pm} 2 $\times$ 3"
    assert escaped("--data\n\tx") == "-{}-data x"


@given(st.text())
def test_any_text_becomes_plain_ascii_with_balanced_braces(text: str) -> None:
    actual = escaped(text)
    assert actual.isascii()
    assert "\n" not in actual
    bare = re.sub(r"\\[\\{}$&#%_]", "", actual)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"(?<!\\)[&#%_]", actual)


@needs_tex
@pytest.mark.parametrize("published", [None, "beside", "below"])
def test_every_shipped_table_compiles_as_it_stands(tmp_path: Path, published: str | None) -> None:
    log = compiled(tmp_path, render_latex(reference("all"), published))
    assert "Missing character" not in log
    assert "Float too large" not in log


@needs_tex
def test_a_table_goes_into_a_paper_by_input(tmp_path: Path) -> None:
    for name, published in (("one", None), ("two", "below")):
        (tmp_path / f"{name}.tex").write_text(render_latex(reference("table10"), published), encoding="ascii")
    packages = "\\usepackage{array,booktabs,graphicx,xcolor,amssymb}"
    log = compiled(
        tmp_path,
        f"\\documentclass{{article}}{packages}\\newcommand{{\\alembic}}{{!}}\\begin{{document}}Before.\n"
        "\\input{one}\\input{two}After.\\end{document}\n",
        name="paper",
    )
    assert "Overfull" not in log


@needs_tex
def test_any_name_and_every_known_letter_compiles(tmp_path: Path) -> None:
    letters = [*string.printable, *(letter for letter in map(chr, range(128, 0x2800)) if "[U+" not in escaped(letter))]
    diff = diff_of(tmp_path, small=1.0)
    labels = iter([NASTY, " ".join(letters), "'''", ""])
    spec = replace(diff.spec, title=NASTY, rows=tuple(replace(row, label=next(labels)) for row in diff.spec.rows))
    compiled(tmp_path, render_latex([replace(diff, table=replace(diff.table, spec=spec))], "below"))


# Markdown for a pull request.


def test_one_table_in_markdown_is_the_report_itself() -> None:
    (diff,) = reference("table5")
    assert render_comment([diff]) == render_markdown(diff)


def test_several_tables_begin_with_an_overview_and_fold_away() -> None:
    diffs = reference("table1", "table10")
    text = render_comment(diffs)
    head = text.splitlines()[:4]
    assert head[0] == "| table | ✓ match | · not comparable | – missing |"
    assert head[1] == "|---|--:|--:|--:|"
    for line, diff in zip(head[2:], diffs, strict=True):
        counts = [diff.counts[v] or "" for v in (Verdict.MATCH, Verdict.NOT_COMPARABLE, Verdict.MISSING)]
        assert line.endswith(" | ".join(map(str, counts)) + " |")
    assert text.count("<details>") == text.count("</details>")
    for diff in diffs:
        assert render_markdown(diff).rstrip() in text


def test_a_comment_that_would_be_too_long_leaves_out_details_then_tables_and_says_so() -> None:
    diffs = reference("table1", "table5", "table10")
    whole = render_comment(diffs)
    sizes = [len(render_comment(diffs, longest=longest)) for longest in range(400, len(whole) + 200, 400)]
    assert all(size <= 400 * number for number, size in enumerate(sizes, start=1))
    assert all(item <= other for item, other in pairwise(sizes))
    assert render_comment(diffs, longest=len(whole)) == whole
    shorter = render_comment(diffs, longest=len(whole) - 1)
    assert shorter.splitlines()[-1] == (
        f"Reasons, footnotes and warnings are left out: a comment takes {len(whole) - 1:,} characters; "
        "`harness report TABLE` prints them."
    )
    assert "ResNet-18" in shorter
    least = render_comment(diffs, longest=1500)
    assert "and the tables table5 table10 are left out" in least or "and the tables table1 table5 table10" in least


def test_all_tables_together_fit_into_one_comment() -> None:
    assert len(render_comment(reference("all"))) <= 65_536


def test_no_name_in_markdown_calls_anybody_or_becomes_markup(tmp_path: Path) -> None:
    text = SPEC.replace('label = "CNN[big]"', "label = '@team *big* #12 _x_ a_b \\ <i>'")
    few = report_of(tmp_path, text, {("big", "params"): (60.0, None, None)})
    small = render_markdown(few).replace("\N{NO-BREAK SPACE}", " ")
    line = next(line for line in small.splitlines() if "team" in line)
    assert line.startswith("| @\u200bteam \\*big\\* #\u200b12 \\_x\\_ a_b \\\\ &lt;i> |")
