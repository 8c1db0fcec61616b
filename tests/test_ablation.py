"""The ablation of a table that was trained at a small scale, worked out by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.judge.table import fill
from harness.judge.verdict import Diff, Verdict, compare
from harness.plan.plan import Options, make_plan
from harness.report import render_csv, render_json, render_latex, render_markdown, render_terminal
from harness.report.ablation import heading, introduction
from harness.specs import load
from harness.store.result import Measurement, Result, new_id
from tests.fakes import LAPTOP
from tests.sites import links, page_text, pages, rendered, tree
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


NOTES = """
[footnote."*"]
text = "A star."
[footnote.B1]
text = "A note."
"""


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    return judged(tmp_path)


def judged(
    tmp_path: Path, trained: Mapping[str, Sequence[float]] | None = None, *, marks: str = "", notes: str = ""
) -> Diff:
    """Judge the table with the accuracies of each row, one for each seed."""
    text = SPEC
    for key, (published, changes, _) in ROWS.items():
        settings = ", ".join(f"{name} = {value}" for name, value in changes.items())
        text += f'[row.{key}]\nlabel = "Row {key}"\nset = {{ {settings} }}\npaper = {{ top1 = "{published}{marks}" }}\n'
    text += notes
    accuracies = {row: values for row, (_, _, values) in ROWS.items()} | dict(trained or {})
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec], Options(train=True, scale="proxy"))
    results = {}
    for (row, _), planned in plan.cells_in(spec).items():
        assert planned.job is not None
        for job, value in zip((planned.job, *planned.repeats), accuracies[row], strict=True):
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
    (effects,) = diff.ablations
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
    worse = diff.ablations[0].rows[0]
    # Differences -10, -9, -11: mean -10, deviation 1; t with two degrees of freedom at 97.5 % is 4.302653.
    assert worse.low == pytest.approx(-10 - 4.302653 / 3**0.5, abs=1e-5)
    assert worse.high == pytest.approx(-10 + 4.302653 / 3**0.5, abs=1e-5)
    assert worse.clear


def test_without_effects_no_published_value_is_shown_next_to_the_proxy(diff: Diff) -> None:
    alone = compare(replace(diff.table, spec=replace(diff.spec, default=None)))
    assert alone.ablations == ()
    texts = (render_terminal(alone, width=110, color=False), render_markdown(alone), render_csv([alone]))
    in_latex = (render_latex([alone]), render_latex([alone], "beside"))
    for text in (*texts, *in_latex, page_text(tree(rendered(alone)["tables/mine.html"]))):
        assert "52.0" in text
        for published, _, _ in ROWS.values():
            assert f"{published:.1f}" not in text
    for cell in json.loads(render_json([diff]))["cells"]:
        assert cell["delta"] is None


def test_latex_sets_each_effect_next_to_the_published_one(diff: Diff) -> None:
    text = render_latex([diff])
    heading, whole, *found = rows(text)
    assert heading == ["change", "here", r"95\,\% interval", "paper", "same sign"]
    assert whole[0].startswith(r"\multicolumn{5}{@{}l}{\textit{top-1: points above or below 'Row whole'")
    # Differences -10, -9, -11: 10 ± 4.302653 / √3.
    minus = "$-$"
    assert found[0] == ["Row worse", f"{minus}10.0", f"[{minus}12.5, {minus}7.5]", f"{minus}10.0", r"\checkmark{}"]
    assert [line[0] for line in found] == ["Row worse", "Row better", "Row same", "Row unsure"]
    assert "proxy scale: small models on all 360 images of some digits." in text
    assert "2 of 3 changes have the published sign" in text


def test_latex_raises_the_marks_of_the_published_effect_but_not_the_brackets_of_its_interval(tmp_path: Path) -> None:
    starred = judged(tmp_path, marks="[*][B1]", notes=NOTES)
    (worse,) = (line for line in rows(render_latex([starred])) if line[0] == "Row worse")
    minus = "$-$"
    assert worse[2:4] == [f"[{minus}12.5, {minus}7.5]", rf"{minus}10.0\textsuperscript{{*, B1}}"]


@needs_tex
def test_effects_compile(diff: Diff, tmp_path: Path) -> None:
    compiled(tmp_path, render_latex([diff]))


def test_a_page_has_each_effect_with_the_runs_behind_it(diff: Diff) -> None:
    files = rendered(diff)
    page = tree(files["tables/mine.html"])
    worse = next(line for line in page.iter("tr") if page_text(line).startswith("Row worse"))
    assert page_text(worse) == "Row worse −10.0 [−12.5, −7.5] −10.0 ✓ seed 1 , seed 2 , seed 3"  # the interval as above
    runs = [one.get("href") for one in worse.iter("a")]
    assert len(set(runs)) == 3
    places = {name: {one.get("id") for one in of.iter()} for name, of in pages(files).items()}
    for name, of in pages(files).items():
        for link in links(name, of):
            path, _, place = link.partition("#")
            assert path in files
            assert not place or place in places[path], f"{name} leads to {link}"


@pytest.mark.parametrize(
    ("trained", "same_sign"),
    [
        ([49.0, 51.0, 53.0], True),  # 1 point less at each seed, as published: 79 less 80
        ([51.0, 53.0, 55.0], False),  # 1 point more at each seed
        ([50.0, 52.0, 54.0], False),  # no difference, which is not the published sign
        ([49.0, 53.0, 54.0], False),  # -1, 1 and 0: none in the mean
    ],
)
def test_an_effect_has_the_published_sign_only_if_it_goes_the_same_way(
    tmp_path: Path, trained: list[float], *, same_sign: bool
) -> None:
    (ablation,) = judged(tmp_path, {"unsure": trained}).ablations
    (unsure,) = (effect for effect in ablation.rows if effect.row.key == "unsure")
    assert unsure.published == -1.0
    assert unsure.same_sign is same_sign


def test_signs_are_counted_where_the_paper_has_one(diff: Diff) -> None:
    (effects,) = diff.ablations
    assert effects.agreeing() == (2, 3)  # worse and unsure agree, better does not, the paper has none for same
    assert effects.agreeing(clear=True) == (1, 1)
    assert effects.order is not None
    # Pairs of (ours, paper): (-10, -10), (-0.5, 1), (1, 0), (-1, -1): five of six pairs in the same order.
    assert effects.order.value == pytest.approx(4 / 6)


def test_no_accuracy_of_the_proxy_is_shown_next_to_one_of_the_paper(diff: Diff) -> None:
    page = page_text(tree(rendered(diff)["tables/mine.html"]))
    for text in (render_terminal(diff, width=110, color=False), render_markdown(diff), page):
        assert "-10.0" in text.replace("−", "-")
        for published, _, values in ROWS.values():
            assert f"{published:.1f}" not in text
            assert not any(f"{value:.2f}" in text for value in values)
        assert "default row" in text


def test_cells_of_a_small_scale_are_never_judged(diff: Diff) -> None:
    assert {finding.verdict for finding in diff.judged_cells.values()} == {Verdict.NOT_COMPARABLE}
    reasons = {finding.reason for finding in diff.judged_cells.values()}
    assert reasons == {"trained at the proxy scale instead of the published one"}


def test_the_terminal_shows_ours_the_papers_and_whether_they_agree(diff: Diff) -> None:
    lines = render_terminal(diff, width=100, color=False).splitlines()
    (worse,) = [line for line in lines if line.startswith("Row worse")]
    assert worse.split() == ["Row", "worse", "−10.0", "[−12.5,", "−7.5]", "−10.0", "✓", "same", "sign"]
    (better,) = [line for line in lines if line.startswith("Row better")]
    assert better.split()[-3:] == ["✗", "opposite", "sign"]
    assert any(line.startswith("2 of 3 changes have the published sign; 1 of the 1 with an interval") for line in lines)


def test_json_has_the_effects(diff: Diff) -> None:
    (effects,) = json.loads(render_json([diff]))["effects"]
    assert (effects["column"], effects["default"]) == ("top1", "whole")
    assert [row["same_sign"] for row in effects["rows"]] == [True, False, None, True]


def test_a_cell_with_several_seeds_has_their_mean(diff: Diff) -> None:
    measurement = diff.table.cell("whole", "top1").measurement
    assert measurement is not None
    assert measurement.value == pytest.approx(52.0)
    assert measurement.samples == (50.0, 52.0, 54.0)


def with_results(diff: Diff, row: str, **changes: Any) -> Diff:  # noqa: ANN401 -- fields of a filled cell
    table = diff.table
    filled = replace(table.cell(row, "top1"), **changes)
    return compare(replace(table, cells={**table.cells, (row, "top1"): filled}))


def test_a_seed_that_failed_is_named_where_the_signs_are_counted(diff: Diff) -> None:
    second, third = diff.table.cell("worse", "top1").repeats
    failed = replace(third, error="the loss is NaN", metrics={})
    found = with_results(diff, "worse", repeats=(second, failed))
    (ablation,) = found.ablations
    worse = ablation.rows[0]
    assert worse.seeds == 2
    assert worse.measured == pytest.approx(-9.5)  # -10 and -9
    assert ablation.left_out == ("seed 3 of 'Row worse' (failed: the loss is NaN)",)
    assert "; left out: seed 3 of 'Row worse' (failed: the loss is NaN)" in render_markdown(found)
    cell = found.judged_cells["worse", "top1"]
    assert cell.reason == "2 of 3 seeds are there: seed 3 failed: the loss is NaN"
    missing = with_results(diff, "worse", repeats=(second,)).ablations[0]
    assert missing.left_out == ("seed 3 of 'Row worse' (is not measured)",)


def test_seeds_of_other_images_than_the_default_rows_are_no_effect(diff: Diff) -> None:
    first = diff.table.cell("worse", "top1").result
    assert first is not None
    fewer = replace(first, facts={"images": {**first.facts["images"], "fingerprint": "fewer"}})
    (ablation,) = with_results(diff, "worse", result=fewer).ablations
    worse = ablation.rows[0]
    assert worse.seeds == 2
    assert worse.measured == pytest.approx(-10.0)  # -9 and -11
    assert ablation.left_out == ("seed 1 of 'Row worse' (other images than those of 'Row whole')",)


def test_settings_that_were_changed_are_told_with_the_scale(diff: Diff) -> None:
    base = diff.table.cell("whole", "top1")
    found = with_results(diff, "whole", planned=replace(base.planned, changes="epochs = 10"))
    assert introduction(found).startswith("proxy scale with epochs = 10: small models on all 360 images")


def test_a_heading_has_the_seeds_of_the_default_row(diff: Diff) -> None:
    rows = {row: with_results(diff, row, repeats=()).table.cell(row, "top1") for row in ROWS if row != "whole"}
    table = replace(diff.table, cells={**diff.table.cells, **{(row, "top1"): filled for row, filled in rows.items()}})
    (ablation,) = compare(table).ablations
    assert heading(ablation).endswith("(at this scale 52.0 %, mean of 3 seeds)")


def test_without_a_default_row_there_are_no_effects(diff: Diff) -> None:
    table = replace(diff.table, spec=replace(diff.spec, default=None))
    assert compare(table).ablations == ()
