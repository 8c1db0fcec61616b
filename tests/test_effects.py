"""What a small scale says of the changes in a table, worked out by hand."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.diff import Diff, Verdict, compare
from harness.plan import Options, make_plan
from harness.report import render_csv, render_json, render_latex, render_markdown, render_terminal
from harness.result import Measurement, Result, new_id
from harness.spec import load
from harness.table import fill
from tests.fakes import LAPTOP
from tests.sites import links, pages, rendered, said, tree
from tests.test_latex import compiled, needs_tex, rows

SPEC = """
[table]
title = "mine"
default = "whole"
[source.paper]
kind = "paper"
cite = "the paper"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
unit = "% top-1"
digits = 2
set = { model = "deit_tiny_patch16_224", res = 224, recipe = "deit-ti" }
"""

ROWS = {
    "whole": (80.0, {}, [50.0, 52.0, 54.0]),
    "worse": (70.0, {"mixup": 0.0}, [40.0, 43.0, 43.0]),
    "better": (81.0, {"cutmix": 0.0}, [49.0, 51.0, 54.5]),
    "same": (80.0, {"erasing": 0.0}, [51.0, 53.0, 55.0]),
    "unsure": (79.0, {"drop_path": 0.0}, [45.0, 55.0, 53.0]),
}


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    text = SPEC
    for key, (printed, changes, _) in ROWS.items():
        told = ", ".join(f"{name} = {value}" for name, value in changes.items())
        text += f'[row.{key}]\nlabel = "Row {key}"\nset = {{ {told} }}\npaper = {{ top1 = {printed} }}\n'
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(train=True, scale="proxy"))
    results = {}
    for (row, _), planned in plan.of(spec).items():
        assert planned.job is not None
        for job, value in zip((planned.job, *planned.repeats), ROWS[row][2], strict=True):
            started = datetime(2026, 1, 1, tzinfo=UTC)
            results[job.key] = Result(
                id=new_id(started),
                job=job,
                machine=LAPTOP,
                software={},
                started=started,
                seconds=1.0,
                metrics={"top1": Measurement(unit="% top-1", value=value)},
                facts={"images": {"said": "all 360 images of some digits", "whole": True}},
            )
    return compare(fill(spec, plan, results))


def test_an_effect_is_the_mean_difference_from_the_default_row_seed_by_seed(diff: Diff) -> None:
    (effects,) = diff.effects
    assert effects.default == pytest.approx(52.0)
    found = {effect.row.key: effect for effect in effects.rows}
    assert {key: pytest.approx(effect.measured) for key, effect in found.items()} == {
        "worse": -10.0,
        "better": -0.5,
        "same": 1.0,
        "unsure": -1.0,
    }
    assert {key: effect.published for key, effect in found.items()} == {
        "worse": -10.0,
        "better": 1.0,
        "same": 0.0,
        "unsure": -1.0,
    }


def test_the_interval_is_students_over_seeds(diff: Diff) -> None:
    worse = diff.effects[0].rows[0]
    # Differences -10, -9, -11: mean -10, deviation 1; t with two degrees of freedom at 97.5 % is 4.302653.
    assert worse.low == pytest.approx(-10 - 4.302653 / 3**0.5, abs=1e-5)
    assert worse.high == pytest.approx(-10 + 4.302653 / 3**0.5, abs=1e-5)
    assert worse.clear


def test_nothing_of_the_paper_stands_beside_the_proxy_where_there_are_no_effects_to_show(diff: Diff) -> None:
    alone = compare(replace(diff.table, spec=replace(diff.spec, default=None)))
    assert alone.effects == ()
    texts = (render_terminal(alone, width=110, color=False), render_markdown(alone), render_csv([alone]))
    in_latex = (render_latex([alone]), render_latex([alone], "beside"))
    for text in (*texts, *in_latex, said(tree(rendered(alone)["tables/mine.html"]))):
        assert "52.0" in text
        for printed, _, _ in ROWS.values():
            assert f"{printed:.1f}" not in text
    for cell in json.loads(render_json([diff]))["cells"]:
        assert cell["delta"] is None


def test_latex_sets_each_effect_beside_the_published_one(diff: Diff) -> None:
    text = render_latex([diff])
    heading, whole, *found = rows(text)
    assert heading == ["change", "here", r"95\,\% interval", "paper", "same sign"]
    assert whole[0].startswith(r"\multicolumn{5}{@{}l}{\textit{top-1: points above or below 'Row whole'")
    # Differences -10, -9, -11: 10 ± 4.302653 / √3.
    assert found[0] == ["Row worse", "$-$10.0", "[$-$12.5, $-$7.5]", "$-$10.0", r"\checkmark{}"]
    assert [line[0] for line in found] == ["Row worse", "Row better", "Row same", "Row unsure"]
    assert "proxy scale: small networks on all 360 images of some digits." in text
    assert "top-1: 2 of 3 changes have the sign in print" in text


def test_latex_raises_the_marks_of_the_published_effect_but_not_the_brackets_of_its_interval(diff: Diff) -> None:
    (effects,) = diff.effects
    starred = replace(effects, rows=tuple(replace(one, marks=("*", "B1")) for one in effects.rows))
    (worse,) = (line for line in rows(render_latex([replace(diff, effects=(starred,))])) if line[0] == "Row worse")
    assert worse[2:4] == ["[$-$12.5, $-$7.5]", r"$-$10.0\textsuperscript{*, B1}"]


@needs_tex
def test_effects_compile(diff: Diff, tmp_path: Path) -> None:
    compiled(tmp_path, render_latex([diff]))


def test_a_page_has_each_effect_with_the_runs_behind_it(diff: Diff) -> None:
    files = rendered(diff)
    page = tree(files["tables/mine.html"])
    worse = next(line for line in page.iter("tr") if said(line).startswith("Row worse"))
    assert said(worse) == "Row worse −10.0 [−12.5, −7.5] −10.0 ✓ seed 1 , seed 2 , seed 3"  # the interval as above
    runs = [one.get("href") for one in worse.iter("a")]
    assert len(set(runs)) == 3
    places = {name: {one.get("id") for one in of.iter()} for name, of in pages(files).items()}
    for name, of in pages(files).items():
        for link in links(name, of):
            path, _, place = link.partition("#")
            assert path in files
            assert not place or place in places[path], f"{name} leads to {link}"


def test_signs_are_counted_where_the_print_has_one(diff: Diff) -> None:
    (effects,) = diff.effects
    assert effects.agreeing == (2, 3)  # worse and unsure agree, better does not, same has none in print
    assert effects.clearly_agreeing == (1, 1)
    assert effects.order is not None
    # Pairs of (ours, paper): (-10, -10), (-0.5, 1), (1, 0), (-1, -1): five of six pairs in the same order.
    assert effects.order.value == pytest.approx(4 / 6)


def test_no_accuracy_of_the_proxy_stands_beside_one_of_the_paper(diff: Diff) -> None:
    page = said(tree(rendered(diff)["tables/mine.html"]))
    for text in (render_terminal(diff, width=110, color=False), render_markdown(diff), page):
        assert "-10.0" in text.replace("−", "-")
        for printed, _, values in ROWS.values():
            assert f"{printed:.1f}" not in text
            assert not any(f"{value:.2f}" in text for value in values)
        assert "default row" in text


def test_cells_of_a_small_scale_are_never_judged(diff: Diff) -> None:
    assert {finding.verdict for finding in diff.findings.values()} == {Verdict.NOT_COMPARABLE}
    reasons = {finding.reason for finding in diff.findings.values()}
    assert reasons == {"trained at the proxy scale, which stands in for the published one"}


def test_the_terminal_shows_ours_the_papers_and_whether_they_agree(diff: Diff) -> None:
    lines = render_terminal(diff, width=100, color=False).splitlines()
    (worse,) = [line for line in lines if line.startswith("Row worse")]
    assert worse.split() == ["Row", "worse", "−10.0", "[−12.5,", "−7.5]", "−10.0", "✓"]
    (better,) = [line for line in lines if line.startswith("Row better")]
    assert better.split()[-1] == "✗"
    assert any(line.startswith("2 of 3 changes have the sign in print; 1 of the 1 whose interval") for line in lines)


def test_json_has_the_effects(diff: Diff) -> None:
    (effects,) = json.loads(render_json([diff]))["effects"]
    assert (effects["column"], effects["default"]) == ("top1", "whole")
    assert [row["same_sign"] for row in effects["rows"]] == [True, False, None, True]


def test_a_cell_with_several_seeds_has_their_mean(diff: Diff) -> None:
    measurement = diff.table.cell("whole", "top1").measurement
    assert measurement is not None
    assert measurement.value == pytest.approx(52.0)
    assert measurement.samples == (50.0, 52.0, 54.0)


def test_without_a_default_row_there_are_no_effects(diff: Diff) -> None:
    table = replace(diff.table, spec=replace(diff.spec, default=None))
    assert compare(table).effects == ()
