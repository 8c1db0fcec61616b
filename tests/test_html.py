"""The site: nothing of a report is lost in it, every link leads somewhere, and no name is anything but a name."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.judge.judged import judged_tables
from harness.judge.verdict import Diff, compare
from harness.plan.plan import make_plan
from harness.report import formatting, render_json
from harness.report.html import SiteContent, render_site, site
from harness.report.html.links import page_links
from harness.specs import Catalog
from harness.store.store import Store
from tests.commands import Completed
from tests.commands import start_harness as harness
from tests.fakes import LAPTOP, result_of
from tests.sites import HOSTILE, cells, figure, links, page_text, pages, relabelled, rendered, text_of, tree
from tests.test_cli import SPEC as TWO_NETWORKS
from tests.test_cli import keep
from tests.test_report import MEASURED, SPEC, VERDICTS, diff_of

REFERENCE = next((Path(__file__).parent.parent / "runs" / "reference").glob("cpu-*"))


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    """One cell at least of every verdict."""
    return diff_of(tmp_path, SPEC, dict(MEASURED), failed={("distilled", "speed"): "out of memory"})


@pytest.fixture(scope="module")
def all_tables() -> tuple[Diff, ...]:
    return judged_tables(Catalog().find(["all"]), None, Store(REFERENCE), None).diffs


def in_json(diff: Diff) -> list[dict[str, Any]]:
    """The cells of the JSON report, each number written out; a difference only where it was judged."""

    def written(value: object) -> object:
        return value if value is None or isinstance(value, str) else json.dumps(value)

    actual = []
    for cell in json.loads(render_json([diff]))["cells"]:
        references = [{**item, "value": written(item["value"])} for item in cell["references"]]
        numbers = {name: written(cell[name]) for name in ("measured", "low", "high", "delta")}
        if cell["verdict"] == "not comparable":
            numbers["delta"] = None
        elsewhere = ("unit", "row_label", "column_label", "model", "machine")
        actual.append({**{k: v for k, v in cell.items() if k not in elsewhere}, **numbers, "references": references})
    return actual


def page_of(diff: Diff) -> ET.Element:
    return tree(rendered(diff)[f"tables/{diff.spec.name}.html"])


# Nothing is lost.


def test_a_page_has_every_cell_of_the_json_report_with_the_same_numbers_verdict_reason_and_run(diff: Diff) -> None:
    assert set(VERDICTS.values()) == {str(verdict) for verdict in formatting.SIGNS}
    assert list(cells(page_of(diff))) == in_json(diff)


def test_no_cell_of_any_shipped_table_is_lost(all_tables: tuple[Diff, ...]) -> None:
    files = rendered(*all_tables)
    for diff in all_tables:
        assert list(cells(tree(files[f"tables/{diff.spec.name}.html"]))) == in_json(diff)
        assert files[f"tables/{diff.spec.name}.json"] == render_json([diff])


def shown_in(page: ET.Element) -> dict[tuple[str, str], list[str]]:
    """The texts of each cell of a table, by row and column."""
    shown = {}
    for row in page.iter("tr"):
        parts = {cell.get("data-cell") or cell.get("id") or "": list[str]() for cell in row.findall("td")}
        for cell in row.findall("td"):
            text = text_of(next(cell.iter("button"), cell))
            parts[cell.get("data-cell") or cell.get("id") or ""].append(" ".join(text.split()))
        for cell in row.findall("td"):
            if cell.get("data-row"):
                shown[str(cell.get("data-row")), str(cell.get("data-column"))] = parts[str(cell.get("id"))]
    return shown


def test_a_cell_shows_measured_published_difference_and_verdict_each_under_its_heading(diff: Diff) -> None:
    page = page_of(diff)
    shown = shown_in(page)
    assert shown["small", "params"] == ["12.3", "12", "+0.3", "✓ match"]
    assert shown["small", "modern"] == ["1500 ± 15", "2000", "25 % slower", "· not comparable"]
    assert shown["tiny", "speed"] == ["1235 ± 12", "99.9[w]", "+1135.8 %", "✻ explained"]
    assert shown["big", "top1"] == ["", "80.1 ± 0.2", "", "– missing"]
    assert shown["big", "modern"] == ["", "", "", "– missing"]
    assert shown["distilled", "speed"] == ["", "85.9", "", "! failed"]
    assert shown["small", "by"] == ["Ann"]
    assert len(shown) == len(VERDICTS)
    (head,) = page.iter("thead")
    over, under = ([text_of(item) for item in row if item.tag == "th"] for row in head)
    assert over == [
        "by",
        "#param., M",
        "speed, im/s, batch 4, published: V100 16GB",
        "bf16 speed, im/s, batch 4, published: A100 40GB",
        "top-1, %",
    ]
    assert under == ["measured", "published", "Δ", "verdict"] * 4


def test_what_nobody_measured_is_there_but_shown_only_on_request(all_tables: tuple[Diff, ...]) -> None:
    (diff,) = (item for item in all_tables if item.spec.name == "table5")
    page = page_of(diff)
    assert "Show also what was not measured: ImNet top-1, Real top-1, V2 top-1 " in page_text(page)
    columns = {cell.get("data-column") for cell in page.iter("td") if "unmeasured" in cell.get("class", "")}
    assert columns - {None} == {"top1", "real", "v2"}
    assert shown_in(page)["resnet18", "top1"] == ["", "69.8", "– missing"]
    (nothing,) = (item for item in all_tables if item.spec.name == "table9")  # of which nothing is measured
    assert "Show also" not in page_text(page_of(nothing))


def test_the_summary_of_a_table_is_above_it(diff: Diff) -> None:
    text = page_text(page_of(diff))
    by_hand = "8 of 16 values judged: 3 match, 1 within noise, 3 explained, 1 deviates; 1 not comparable, 6 missing, 1"
    assert text.index(by_hand) < text.index("#param., M")
    assert "Measured on Tesla V100-SXM2-16GB 16 GiB; torch " in text


def test_a_table_of_another_source_than_a_paper_shows_its_values(all_tables: tuple[Diff, ...]) -> None:
    (diff,) = (item for item in all_tables if item.spec.name == "timm-speed")
    shown = list(shown_in(page_of(diff)).values())
    values = [judged.filled.cell.published for judged in diff.judged_cells.values()]
    marks = ["".join(f"[{mark}]" for mark in value.marks) if value else "" for value in values]
    texts = [f"{value.text}{mark}" if value else "" for value, mark in zip(values, marks, strict=True)]
    assert shown == [[text or "nothing published"] for text in texts]
    assert sum(map(bool, texts)) > 300


def test_a_value_leads_to_the_page_of_its_source(tmp_path: Path) -> None:
    text = SPEC.replace('cite = "the paper"', 'cite = "the paper"\nurl = "https://example.org/?a=1&b=2"', 1)
    page = page_of(diff_of(tmp_path, text, dict(MEASURED)))
    links = {(a.get("href"), a.text) for cite in page.iter("cite") for a in cite.iter("a")}
    assert links == {("https://example.org/?a=1&b=2", "the paper")}
    diff = diff_of(tmp_path, text, dict(MEASURED))
    references = [reference for cell in json.loads(render_json([diff]))["cells"] for reference in cell["references"]]
    assert {(one["source"], one.get("url")) for one in references} == {
        ("the paper", "https://example.org/?a=1&b=2"),
        ("timm", None),
    }


def test_rows_are_under_the_headings_of_the_paper_in_its_order(diff: Diff) -> None:
    (table,) = (item for item in page_of(diff).iter("table") if item.get("class") == "paper")
    actual = [(item.get("scope"), text_of(item)) for item in table.iter("th")]
    assert actual == [
        ("col", "by"),
        *(
            ("colgroup", f"{label}")
            for label in (
                "#param., M",
                "speed, im/s, batch 4, published: V100 16GB",
                "bf16 speed, im/s, batch 4, published: A100 40GB",
                "top-1, %",
            )
        ),
        *[("col", part) for part in ("measured", "published", "Δ", "verdict")] * 4,
        ("rowgroup", "Convnets"),
        ("row", "CNN|small"),
        ("row", "CNN[big]"),
        ("rowgroup", "Transformers"),
        ("row", "ViT<tiny>"),
        ("row", "ViT⚗↑384"),
    ]


def test_the_page_of_a_table_has_its_reasons_footnotes_warnings_and_notes(diff: Diff) -> None:
    text = page_text(page_of(diff))
    for _, reason, of in formatting.reasons(diff):
        assert f"{of}: {reason}" in text
    for warning in formatting.warnings(diff):
        assert warning in text
    assert "[B1] Counted without the <head>. [w] A slip | of the pen." in text
    assert "Read this first." in text


def test_the_order_and_the_ratios_of_a_throughput_column_are_shown(all_tables: tuple[Diff, ...]) -> None:
    (diff,) = (item for item in all_tables if item.spec.name == "table5")
    text = page_text(page_of(diff))
    assert "order of 26 models against the published one: Kendall's τ 0.88 [0.77, 0.95]" in text
    assert "ResNet-18 ResNet-50 2.74 3.64" in text  # 63.06 / 23.05, and 4458.4 / 1226.1 published


# The index page.


def test_the_index_page_counts_what_holds_and_names_what_deviates(diff: Diff) -> None:
    front = tree(rendered(diff)["index.html"])
    actual = Counter(verdict for (_, column), verdict in VERDICTS.items() if column != "by")
    text = page_text(front)
    # By hand: 3 match, 1 noise, 3 explained; 1 deviates, 1 failed, 1 not comparable, 6 missing.
    hold = {"match": 3, "noise": 1, "explained": 3}
    assert actual == hold | {"deviates": 1, "failed": 1, "not comparable": 1, "missing": 6}
    assert "16 cells: 9 measured, 8 judged, 7 hold (✓ match, ≈ noise, ✻ explained). 2 cells deviate or failed." in text
    assert "cells measured judged hold deviate or failed counted or read 4 4 4 3 1 timed 8 4 3 3 1 " in text
    assert "evaluated or trained 4 1 1 1 0" in text
    assert "Table 12 Every verdict 16 9 8 7 2" in text
    assert "no throughput and no accuracy" not in text
    assert "3 ✓ match 1 ≈ noise 1 ✗ deviates 3 ✻ explained 1 · not comparable 6 – missing 1 ! failed" in text
    assert "Table 12 #param. of ViT⚗↑384 90.0 86 +4.0 ✗ deviates not within 1 M of the paper (86)" in text
    assert "Table 12 speed of ViT⚗↑384 85.9 ! failed out of memory" in text
    assert "The newest result is of 2026-11-21." in text


def test_the_front_page_says_where_only_counted_values_are_judged(all_tables: tuple[Diff, ...]) -> None:
    text = page_text(tree(rendered(*all_tables)["index.html"]))
    # By hand: of the 22 throughputs and 22 models the throughputs are of another machine than the published ones.
    # The first row of `choices` has three of them once more.  Of the 260 that are counted 26 times 6 are of `costs`.
    assert "112 measured, 44 judged, 44 hold (✓ match, ≈ noise, ✻ explained). None deviates." in text
    assert "All that is judged was counted on a model or read from a recipe: no throughput and no accuracy." in text
    assert "counted or read 260 44 44 44 0 timed 774 68 0 0 0 evaluated or trained 336 0 0 0 0" in text


PAPER = """
title = "Of <tables> & figures"
authors = ["Ada Byron", "Bo <b>Li</b>"]
url = "https://example.org/paper.pdf"
"""


def test_the_front_page_names_the_paper_and_where_it_can_be_read(all_tables: tuple[Diff, ...]) -> None:
    of_the_paper = [diff for diff in all_tables if diff.spec.name != "timm-speed"]
    front = tree(rendered(*of_the_paper)["index.html"])
    assert page_text(front).count("Training data-efficient image transformers & distillation through attention") == 2
    assert "Hugo Touvron, Matthieu Cord, Matthijs Douze, Francisco Massa, Alexandre Sablayrolles, " in page_text(front)
    assert "How much of the paper is reproduced" in page_text(front)
    (link,) = (item for item in front.iter("a") if text_of(item) == "arXiv:2012.12877")
    assert link.get("href") == "https://arxiv.org/abs/2012.12877"
    assert "How much of these tables is reproduced" in page_text(tree(rendered(*all_tables)["index.html"]))


def test_a_table_of_another_paper_names_that_one_and_a_table_of_none_names_no_paper(tmp_path: Path, diff: Diff) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "own.toml").write_text(PAPER, encoding="utf-8")
    own = diff_of(tmp_path, SPEC.replace("[source.paper]", 'paper = "own"\n[source.paper]', 1), {}, name="own")
    files = rendered(own)
    for name in ("index.html", "tables/own.html"):
        page = tree(files[name])
        assert "Of <tables> & figures" in page_text(page)
        assert "https://example.org/paper.pdf" in [item.get("href") for item in page.iter("a")]
    assert "Ada Byron, Bo <b>Li</b>" in page_text(tree(files["index.html"]))
    assert all("DeiT" not in page_text(tree(text)) for name, text in rendered(diff).items() if name == "index.html")
    assert "How much of these tables is reproduced" in page_text(tree(rendered(diff)["index.html"]))
    both = page_text(tree(rendered(own, diff)["index.html"]))
    assert "How much of these tables is reproduced Of <tables> & figures" in both


def test_a_table_leads_to_the_one_before_and_the_one_after_it(all_tables: tuple[Diff, ...]) -> None:
    files = rendered(*all_tables[:3])
    turns = {
        name: [(item.get("rel"), item.get("href")) for item in tree(text).iter("a") if item.get("rel")]
        for name, text in files.items()
        if re.fullmatch(r"tables/.*\.html", name)
    }
    assert turns == {  # above and below
        "tables/table1.html": [("next", "../tables/table2.html")] * 2,
        "tables/table2.html": [("prev", "../tables/table1.html"), ("next", "../tables/table3.html")] * 2,
        "tables/table3.html": [("prev", "../tables/table2.html")] * 2,
    }


def test_a_difference_is_shown_only_where_it_was_judged(diff: Diff) -> None:
    shown = {(cell["row"], cell["column"]): cell["delta"] for cell in cells(page_of(diff))}
    assert diff.judged_cells["small", "modern"].delta == -500.0
    assert shown["small", "modern"] is None
    assert shown["distilled", "params"] == "4.0"


def test_the_index_page_says_what_is_missing_and_why_the_most_frequent_reason_first(diff: Diff) -> None:
    front = tree(rendered(diff)["index.html"])
    text = page_text(front).partition("What is missing, and why")[2]
    assert text.startswith(
        " – missing 3 cells : not measured yet; `harness reproduce FILE` measures it Table 12 (3) "
        "– missing 2 cells : needs --data imagenet=PATH Table 12 (2) "
        "– missing 1 cell : no public weights; needs --train Table 12 (1)"
    )


def test_a_reason_leads_to_its_first_cell_and_a_deviation_to_its_own(diff: Diff) -> None:
    front = tree(rendered(diff)["index.html"])
    targets = [(text_of(item), item.get("href")) for item in front.iter("a")]
    assert ("#param. of ViT⚗↑384", "tables/mine.html#r4c2") in targets
    # Of the missing ones: not measured yet, no data, no weights.
    assert [target for name, target in targets if name == "Table 12"][-3:] == [
        "tables/mine.html#r2c4",
        "tables/mine.html#r1c5",
        "tables/mine.html#r4c5",
    ]


def test_without_any_result_the_index_page_says_so_and_every_cell_is_missing(tmp_path: Path) -> None:
    empty = diff_of(tmp_path, SPEC, {})
    files = rendered(empty)
    text = page_text(tree(files["index.html"]))
    assert "16 cells: 0 measured, 0 judged, 0 hold" in text
    assert "Nothing is measured yet: harness reproduce all measures what can be measured here." in text
    assert list(cells(tree(files["tables/mine.html"]))) == in_json(empty)
    assert [name for name in files if name.startswith("runs/")] == []


def test_a_site_of_no_table_and_a_table_of_no_row_are_empty_pages(diff: Diff) -> None:
    assert "This report is about no table." in page_text(tree(rendered()["index.html"]))
    none = replace(diff, table=replace(diff.table, spec=replace(diff.spec, rows=()), cells={}), judged_cells={})
    files = rendered(none)
    assert "Nothing in these tables is to be measured." in page_text(tree(files["index.html"]))
    assert "No cell of this table was asked for." in page_text(tree(files["tables/mine.html"]))


# Runs.

FACTS = {
    "flags": {"tf32": False},
    "probes": [
        {"batch": 4, "seconds": 0.5, "allocated": 3 * 2**20, "reserved": 0},
        {"batch": 8, "seconds": 0.9, "allocated": 0, "reserved": 0},
    ],
    "variation": 0.0525,
    "yardstick": [0.0125, 0.013],
    "pass": {"seconds": {"forward": 2.03}},
    "peak_allocated": 1610612736,
    # What a CPU, or a GPU without these counters, has no value for; and zeros that were measured.
    "peak_reserved": 0,
    "nvml": {"energy": None, "samples": [{"power": 0.0, "sm_clock": 0, "temperature": None}]},
    "images_per_second": 0.0,
    "steps": 0,
    "cores_stolen": 0.0,
    "pages_asked_for": 0,
}


def test_the_page_of_a_run_has_its_numbers_samples_settings_machine_warnings_and_cells(tmp_path: Path) -> None:
    diff = figure(tmp_path)
    result = diff.table.cell("b", "speed").result
    assert result is not None
    newest = replace(result, warnings=("iterations vary by 9 %",), facts=FACTS)
    older = replace(result_of(result.job, value=48.0, minutes=-5), error="out of memory")
    cells = {**diff.table.cells, ("b", "speed"): replace(diff.table.cell("b", "speed"), result=newest)}
    diff = compare(replace(diff.table, cells=cells))
    page = tree(rendered(diff, histories={result.job.key: (newest, older)})[f"runs/{result.id}.html"])
    text = page_text(page)
    assert text.startswith(f"throughput b at 224, run {result.id}")
    assert "throughput 50 49.5 to 50.5 im/s" in text
    assert "30 samples, mean 0.08000, median 0.08000 s" in text  # 4 images at 50 a second
    assert "Warnings iterations vary by 9 % Raw samples" in text
    assert "Cells that show it Figure 7: speed of b Settings" in text
    assert "model b" in text
    assert "name Some Processor memory 16.0 GiB cores 4 threads 4" in text
    assert "torch 2.15.0" in text
    assert (
        "flags tf32 no probes batch seconds allocated 4 0.5 s 3.0 MiB 8 0.9 s not measured variation 5.25 % "
        "yardstick 0.0125 s, 0.013 s pass seconds forward 2.03 s peak_allocated 1,536.0 MiB "
        "cores_stolen 0 cores pages_asked_for 0 Other runs"
    ) in text
    assert f"Other runs of this job {older.id} , 2026-11-21 11:55:00 UTC, Some Processor, 4 cores: failed: out" in text
    (data,) = (json.loads(text_of(item)) for item in page.iter("script") if item.get("type") == "application/json")
    assert data == {"unit": "s", "samples": [0.08] * 30, "mean": pytest.approx(0.08), "warmUp": []}


def test_a_run_that_failed_says_why_and_has_no_samples(diff: Diff) -> None:
    result = diff.table.cell("distilled", "speed").result
    assert result is not None
    text = page_text(tree(rendered(diff)[f"runs/{result.id}.html"]))
    assert "! failed out of memory" in text
    assert "The run failed, so there are none." in text


def test_two_results_that_claim_the_same_run_have_pages_of_their_own(diff: Diff) -> None:
    same = {
        place: replace(filled, result=filled.result and replace(filled.result, id="one"))
        for place, filled in diff.table.cells.items()
    }
    files = rendered(compare(replace(diff.table, cells=same)))
    jobs = {filled.result.job.key for filled in same.values() if filled.result}
    assert len([name for name in files if name.startswith("runs/")]) == len(jobs)
    links_of_cells = {
        link for name, page in pages(files).items() if name.startswith("tables/") for link in links(name, page)
    }
    assert {name for name in files if name.startswith("runs/")} <= links_of_cells


# The figure.


def chart_in(page: ET.Element) -> dict[str, Any]:
    (place,) = (item for item in page.iter("figure") if item.get("class") == "chart")
    actual: dict[str, Any] = json.loads("".join(text_of(item) for item in place.iter("script")))
    return actual


def test_the_figure_has_the_published_and_the_measured_points(tmp_path: Path) -> None:
    data = chart_in(page_of(figure(tmp_path)))
    points = {(item["kind"], item["row"]): (item["x"], item["y"]) for item in data["points"]}
    published = {"a": (100.0, 70.0), "b": (50.0, 80.0), "c": (80.0, 75.0), "d": (40.0, 78.0)}
    assert {row: at for (kind, row), at in points.items() if kind == "published"} == published
    assert {row: at for (kind, row), at in points.items() if kind == "measured"} == {
        "a": (100.0, 70.0),
        "b": (50.0, 80.0),
        "c": (20.0, 75.0),
    }
    assert (data["published"], data["measured"]) == ("published (V100 16GB)", "measured (Some Processor, 4 cores)")


def test_every_point_leads_to_its_cell_from_the_index_page_and_from_its_own(tmp_path: Path) -> None:
    files = rendered(figure(tmp_path))
    for name, root in (("index.html", ""), ("tables/figure7.html", "../")):
        actual = {item["row"]: item["link"] for item in chart_in(tree(files[name]))["points"]}
        assert actual == {row: f"{root}tables/figure7.html#r{n}c1" for n, row in enumerate("abcd", start=1)}


def test_an_accuracy_that_was_not_measured_is_said_to_be_the_published_one(tmp_path: Path) -> None:
    page = page_of(figure(tmp_path, b=79.5))
    ours = {item["row"]: item for item in chart_in(page)["points"] if item["kind"] == "measured"}
    assert ours["b"]["text"] == [
        "b",
        "measured",
        "speed: 50.0 ± 0.5 im/s; published 50",
        "top-1: 79.50 %; published 80",
    ]
    assert ours["a"]["text"][3] == "top-1: 70 %, the published value: not measured"
    assert "The top-1 of 2 of our 3 points is the published one: it was not measured." in page_text(page)


def test_a_figure_without_results_says_that_nothing_of_ours_is_in_it(tmp_path: Path) -> None:
    assert "only published points are drawn" in page_text(page_of(figure(tmp_path, {})))


# Names.


NAMES = {"html": HOSTILE, "long": "x" * 3000, "lines": "one\r\ntwo\u2028three", "wide": "⚗" * 300}
SHOWN = {NAMES["lines"]: "one\ntwo\\u2028three"}


@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES)
def test_a_name_that_could_be_more_is_shown_as_it_is_and_nothing_else(tmp_path: Path, diff: Diff, text: str) -> None:
    text_shown, drawn = SHOWN.get(text, text), figure(tmp_path)
    renamed, as_shown = ((relabelled(diff, name), relabelled(drawn, name)) for name in (text, text_shown))
    plain = rendered(diff, figure(tmp_path), unused=("x",))
    files = rendered(*renamed, unused=(text,))
    trees = pages(files)
    # The same elements as with tame names, wherever a page is made of as many parts.
    allowed = {item.tag for page in pages(plain).values() for item in page.iter()}
    for name, page in trees.items():
        assert {item.tag for item in page.iter()} <= allowed, name
        assert not [key for item in page.iter() for key in item.attrib if key.startswith("on")], name
        assert text_shown in text_of(page), name
    assert all(list(cells(trees[f"tables/{item.spec.name}.html"])) == in_json(item) for item in as_shown)
    assert max(len(part) for name in files for part in name.split("/")) <= 100


def test_what_a_page_hands_to_its_script_cannot_end_the_script(tmp_path: Path) -> None:
    files = rendered(relabelled(figure(tmp_path), HOSTILE))
    for name, text in files.items():
        if name.endswith(".html"):
            for content in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
                json.loads(content)
                assert "<" not in content


@given(st.lists(st.tuples(st.text(max_size=100), st.text(max_size=100)), unique=True, max_size=30))
def test_every_run_has_an_address_of_its_own_that_every_file_system_takes(names: list[tuple[str, str]]) -> None:
    plan = make_plan(Catalog().find(["table1"]))
    jobs = [replace(plan.jobs[0], settings=(("model", model),)) for model, _ in names]
    results = [replace(result_of(plan.jobs[0]), job=job, id=run) for job, (_, run) in zip(jobs, names, strict=True)]
    actual = page_links([], results)
    assert all(re.fullmatch(r"runs/[A-Za-z0-9_-]{1,90}\.html", page) for page in actual.runs.values())
    assert len({page.lower() for page in actual.runs.values()}) == len({(r.job.key, r.id) for r in results})


# Links.


def test_every_link_of_every_page_leads_to_a_file_or_to_a_place_in_one(all_tables: tuple[Diff, ...]) -> None:
    files = rendered(*all_tables)
    trees = pages(files)
    places = {name: [item.get("id") for item in page.iter() if item.get("id")] for name, page in trees.items()}
    assert len(trees) > 60
    for name, page in trees.items():
        assert len(places[name]) == len(set(places[name])), f"{name} has an id twice"
        for link in links(name, page):
            path, _, place = link.partition("#")
            assert path in files, f"{name} leads to {link}"
            assert not place or place in places[path], f"{name} leads to {link}"


def test_every_measured_cell_leads_to_its_run_and_the_run_back(all_tables: tuple[Diff, ...]) -> None:
    files = rendered(*all_tables)
    trees = pages(files)
    leading = {name: set(links(name, page)) for name, page in trees.items()}
    for diff in all_tables:
        page = f"tables/{diff.spec.name}.html"
        for number, row in enumerate(diff.spec.rows, start=1):
            for place, column in enumerate(diff.spec.columns, start=1):
                result = diff.judged_cells[row.key, column.key].filled.result
                if result:
                    assert f"runs/{result.id}.html" in leading[page]
                    assert f"{page}#r{number}c{place}" in leading[f"runs/{result.id}.html"]


def test_no_page_refers_to_another_host(all_tables: tuple[Diff, ...]) -> None:
    files = rendered(*all_tables)
    for name, text in files.items():
        if name.endswith((".html", ".css")):  # a link to the paper is followed by a reader, and by no page
            own = text.replace('<a href="https://arxiv.org/abs/2012.12877">', "")
            assert not re.search(r"""(href|src|action)=["']?(https?:)?//|url\(|@import""", own), name


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    names = ("one", "other")
    arguments = ("report", "table5", "--format", "html", "--runs", str(REFERENCE), "-o")
    for seed, name in enumerate(names):
        ran = harness(tmp_path, *arguments, name, PYTHONHASHSEED=str(seed))
        assert (ran.returncode, ran.stderr) == (0, "")
    item, other = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in names
    )
    assert item == other


# The command.


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TWO_NETWORKS, encoding="utf-8")
    return path


def write_report(folder: Path, *more: str) -> Completed:
    return harness(folder, "report", "mine.toml", "--format", "html", "-o", "site", *more)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_html_needs_a_folder(tmp_path: Path, mine: Path) -> None:
    ran = harness(tmp_path, "report", "mine.toml", "--format", "html")
    sentence = "error: --format html writes a folder of pages; name it with -o DIR\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", sentence)


def test_the_command_says_where_the_first_page_is(tmp_path: Path, mine: Path) -> None:
    ran = write_report(tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "site/index.html\n", "")
    assert files_of(tmp_path / "site") == {
        *("index.html", "harness-site.json", "tables/mine.html", "tables/mine.json"),
        *("assets/style.css", "assets/site.js", "assets/plots.js", "assets/plotly.min.js"),
    }


def test_a_site_takes_the_place_of_an_earlier_one_and_leaves_other_files_alone(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=1020.0)
    assert write_report(tmp_path).returncode == 0
    before = files_of(tmp_path / "site")
    assert any(name.startswith("runs/") for name in before)
    (tmp_path / "site" / "CNAME").write_text("mine")
    for path in (tmp_path / "runs").rglob("*.json"):
        path.unlink()
    assert write_report(tmp_path).returncode == 0
    after = files_of(tmp_path / "site")
    assert after == {name for name in before if not name.startswith("runs/")} | {"CNAME"}


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (
            lambda site: (site.mkdir(), (site / "thesis.tex").write_text("")),
            "-o site: holds files that are not a site of this program; name a new or an empty folder",
        ),
        (lambda site: site.write_text(""), "-o site: is a file, not a folder; name a folder for the site"),
        (
            lambda site: (
                site.mkdir(),
                (site / "harness-site.json").write_text(json.dumps({"schema": 1, "files": ["../mine.toml"]})),
            ),
            "-o site: holds files that are not a site of this program; name a new or an empty folder",
        ),
        (
            lambda site: (site.mkdir(), (site / "harness-site.json").write_text('{"schema": 9, "files": []}')),
            "-o site: holds a site of a later version (schema 9); update the harness or name a new folder",
        ),
    ],
    ids=["other files", "a file", "a list that leads elsewhere", "a later version"],
)
def test_a_folder_that_is_no_site_is_not_written_to(
    tmp_path: Path, mine: Path, prepare: Callable[[Path], object], sentence: str
) -> None:
    prepare(tmp_path / "site")
    before = files_of(tmp_path)
    ran = write_report(tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: {sentence}\n")
    assert files_of(tmp_path) == before


def test_a_result_of_a_future_version_is_named_and_left_alone(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=1020.0)
    for path in (tmp_path / "runs").rglob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace('"schema": 1', '"schema": 2'), encoding="utf-8")
    before = files_of(tmp_path / "runs")
    ran = write_report(tmp_path)
    assert ran.returncode == 0
    assert files_of(tmp_path / "runs") == before
    sentences = [line.removeprefix("warning: ") for line in ran.stderr.splitlines()]
    assert len(sentences) == len(before)
    text = page_text(tree((tmp_path / "site" / "index.html").read_text(encoding="utf-8")))
    for sentence in sentences:
        assert "has schema 2, this version reads 1; update the harness; left as it is and not used" in sentence
        assert sentence in text
    assert "Nothing is measured yet" in text


def test_a_result_with_half_a_character_in_it_is_shown_all_the_same(tmp_path: Path, mine: Path) -> None:
    keep(tmp_path / "runs", mine, value=1020.0)
    path = next(item for item in (tmp_path / "runs").rglob("*.json") if "throughput" in str(item))
    path.write_text(path.read_text(encoding="utf-8").replace('"warnings": []', '"warnings": ["half \\ud800"]'))
    ran = write_report(tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "half \\ud800" in (tmp_path / "site" / "tables" / "mine.html").read_text(encoding="utf-8")


def test_the_figure_of_a_table_is_in_its_site_and_linked_from_it(tmp_path: Path) -> None:
    ran = harness(tmp_path, "report", "table5", "--format", "html", "-o", "site")
    assert ran.returncode == 0
    page = tree((tmp_path / "site" / "tables" / "table5.html").read_text(encoding="utf-8"))
    assert "tables/figure1.html" in set(links("tables/table5.html", page))


def test_the_roofline_is_shown_on_request(tmp_path: Path) -> None:
    arguments = ("report", "table5", "--format", "html", "--runs", str(REFERENCE), "--rows", "resnet*", "--roofline")
    assert harness(tmp_path, *arguments, "-o", "site").returncode == 0
    text = page_text(tree((tmp_path / "site" / "tables" / "table5.html").read_text(encoding="utf-8")))
    assert "throughput: roofline GFLOP/s of peak FLOP/byte" in text


def test_without_the_plotting_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "find_spec", lambda name: None)
    with pytest.raises(HarnessError) as actual:
        render_site(SiteContent(diffs=()))
    assert (
        str(actual.value)
        == "--format html needs plotly.min.js of the package plotly; run `pip install --upgrade plotly`"
    )


def test_other_reports_wait_neither_for_templates_nor_for_the_plotting_library(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['harness', 'report', 'table1']\n"
        "from harness.cli import main\n"
        "try:\n    main()\nfinally:\n    print('late:', sorted({'jinja2', 'plotly'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "late: []"


def test_the_machine_of_the_throughputs_is_on_the_index_page(tmp_path: Path) -> None:
    assert f"Throughput was measured on {LAPTOP.label}." in page_text(tree(rendered(figure(tmp_path))["index.html"]))
