"""Side by side: several machines, versions or protocols in one table, and how each pair of them compares."""

import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import HarnessError
from harness.judge.sides import SideBySide, side_by_side
from harness.machine import Machine
from harness.plan.plan import Options, make_plan
from harness.report import render_sheets, render_sheets_latex, render_sheets_markdown, sides_sheets
from harness.specs import load
from harness.store.store import Store
from tests.commands import run_harness
from tests.fakes import H200, LAPTOP, V100, VERSIONS, result_of
from tests.sites import tree

SPEC = """
[table]
title = "Speeds"
[source.paper]
kind = "paper"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 1
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
better = "higher"
machine = "V100 16GB"
"""
PUBLISHED = {"a": 100, "b": 200, "c": 300, "d": 400}
ROWS = "".join(
    f'[row.{key}]\nlabel = "Model {key.upper()}"\nset = {{ model = "{key}", res = 224 }}\n'
    f"paper = {{ params = 10, speed = {value} }}\n"
    for key, value in PUBLISHED.items()
)

# The laptop is ten times slower but for the last model, which is twenty times slower: then its order is another one.
ON_LAPTOP = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 20.5}
ON_H200 = {"a": 1000.0, "b": 2000.0, "c": 3000.0, "d": 4000.0}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC + ROWS, encoding="utf-8")
    return path


def keep(
    folder: Path,
    spec: Path,
    speeds: Mapping[str, float],
    machine: Machine,
    *,
    protocol: str | None = None,
    torch: str = VERSIONS["torch"],
    minutes: int = 0,
) -> Store:
    store = Store(folder)
    for job in make_plan([load(spec)], Options(protocol=protocol)).jobs:
        value = speeds[str(job["model"])] if job.kind == "throughput" else 10.4
        software = {**VERSIONS, "torch": torch}
        store.save(result_of(job, machine=machine, value=value, software=software, minutes=minutes))
    return store


def beside(spec: Path, *stores: Store, by: str = "machine", options: Options | None = None) -> SideBySide:
    (table,) = side_by_side([load(spec)], options or Options(), stores, by=by)
    return table


def two_machines(tmp_path: Path, spec: Path) -> SideBySide:
    stores = keep(tmp_path / "one", spec, ON_LAPTOP, LAPTOP), keep(tmp_path / "two", spec, ON_H200, H200)
    return beside(spec, *stores)


def test_each_machine_has_a_side_with_its_own_verdicts(tmp_path: Path, spec: Path) -> None:
    stores = keep(tmp_path / "one", spec, ON_H200, H200), keep(tmp_path / "two", spec, dict(PUBLISHED), V100)
    table = beside(spec, *stores)
    assert [side.name for side in table.sides] == [H200.label, V100.label]
    verdicts = [{str(cell.verdict) for cell in side.diff.judged_cells.values()} for side in table.sides]
    assert verdicts == [{"match", "not comparable"}, {"match"}]


def test_every_pair_has_its_ratio_and_the_agreement_of_its_orders(tmp_path: Path, spec: Path) -> None:
    pairs = {(pair.first, pair.second): pair for pair in two_machines(tmp_path, spec).pairs}
    assert pairs.keys() == {
        ("published", H200.label),
        ("published", LAPTOP.label),
        (H200.label, LAPTOP.label),
    }
    ours = pairs["published", LAPTOP.label]
    # Ratios 0.1, 0.1, 0.1 and 20.5 / 400.
    assert (ours.ratio.value, ours.ratio.low, ours.ratio.high) == pytest.approx((0.1, 0.05125, 0.1))
    assert ours.kendall is not None
    assert ours.kendall.value == pytest.approx(4 / 6)  # d is behind c: of six pairs five agree, one does not
    tenfold = pairs["published", H200.label]
    assert (tenfold.ratio.value, tenfold.ratio.low, tenfold.ratio.high) == (10, 10, 10)


def test_a_published_value_that_is_known_to_be_wrong_is_compared_with_nothing(tmp_path: Path, spec: Path) -> None:
    wrong = '[footnote.w]\ntext = "A slip."\neffect = "wrong"\n'
    text = spec.read_text(encoding="utf-8").replace("speed = 400", 'speed = "400[w]"')
    spec.write_text(text + wrong, encoding="utf-8")
    pairs = {(pair.first, pair.second): pair for pair in two_machines(tmp_path, spec).pairs}
    ours = pairs["published", LAPTOP.label]
    assert ours.rows == 3
    assert (ours.ratio.low, ours.ratio.high) == pytest.approx((0.1, 0.1))
    assert pairs[H200.label, LAPTOP.label].rows == 4


def test_too_few_models_have_a_ratio_but_no_order(tmp_path: Path, spec: Path) -> None:
    stores = keep(tmp_path / "one", spec, ON_LAPTOP, LAPTOP), keep(tmp_path / "two", spec, ON_H200, H200)
    table = beside(spec, *stores, options=Options(rows=("a", "b")))
    assert {(pair.rows, pair.kendall, pair.spearman) for pair in table.pairs} == {(2, None, None)}


def test_the_newest_result_counts_whichever_folder_it_is_in(tmp_path: Path, spec: Path) -> None:
    new = keep(tmp_path / "new", spec, ON_H200, H200, minutes=10)
    old = keep(tmp_path / "old", spec, ON_LAPTOP, H200)
    for stores in ((new, old), (old, new)):
        (side,) = beside(spec, *stores).sides
        assert side.diff.judged_cells["a", "speed"].filled.number == 1000.0


def test_a_pattern_chooses_the_machines(tmp_path: Path, spec: Path) -> None:
    stores = [
        keep(tmp_path / machine.name, spec, ON_H200, machine)
        for machine in (LAPTOP, H200, replace(H200, name="NVIDIA H100"))
    ]
    names = [side.name for side in beside(spec, *stores, options=Options(machine="*h?00*")).sides]
    assert names == [replace(H200, name="NVIDIA H100").label, H200.label]
    with pytest.raises(HarnessError, match=r"nothing of these tables was measured on a machine like A100 in .*one/"):
        beside(spec, Store(tmp_path / "one"), options=Options(machine="A100"))


def test_versions_are_sides_and_name_the_machine_only_where_there_are_several(tmp_path: Path, spec: Path) -> None:
    old = keep(tmp_path / "runs", spec, ON_LAPTOP, LAPTOP, torch="2.4.0+cpu")
    keep(tmp_path / "runs", spec, ON_LAPTOP, LAPTOP, torch="2.15.0", minutes=5)
    assert [side.name for side in beside(spec, old, by="software").sides] == [
        "torch 2.15.0, timm 1.0.31",
        "torch 2.4.0, timm 1.0.31",
    ]
    other = keep(tmp_path / "other", spec, ON_H200, H200)
    assert f"torch 2.15.0, timm 1.0.31 on {H200.label}" in [
        s.name for s in beside(spec, old, other, by="software").sides
    ]


def test_protocols_are_sides_where_something_was_timed_by_them(tmp_path: Path, spec: Path) -> None:
    store = keep(tmp_path / "runs", spec, ON_LAPTOP, LAPTOP, protocol="paper")
    assert [side.name for side in beside(spec, store, by="protocol").sides] == ["paper"]  # counts are of any protocol
    keep(tmp_path / "runs", spec, ON_H200, LAPTOP, protocol="modern", minutes=5)
    table = beside(spec, store, by="protocol")
    assert [side.name for side in table.sides] == ["modern", "paper"]
    speeds = [side.diff.judged_cells["b", "speed"].filled.number for side in table.sides]
    assert speeds == [2000.0, 20.0]


def test_the_terminal_has_the_published_value_once_and_what_all_sides_share_once(tmp_path: Path, spec: Path) -> None:
    text = render_sheets(sides_sheets(two_machines(tmp_path, spec)), width=200, color=False)
    lines = text.splitlines()
    assert lines[1] == f"{H200.label}: 4 of 8 values judged: 4 match; 4 not comparable."
    (row,) = (line for line in lines if line.startswith("Model D"))
    assert row.split() == [
        *("Model", "D", "10.40", "10", "0", "✓", "match", "400"),
        *("4000", "±", "40", "10×", "faster", "·", "not", "comparable"),
        *("20.5", "±", "0.2", "20×", "slower", "·", "not", "comparable"),
    ]
    (pair,) = (line for line in lines if line.startswith(f"{H200.label} → {LAPTOP.label}"))
    assert "100× slower  195× to 100× slower" in pair


def test_markdown_and_latex_have_every_value(tmp_path: Path, spec: Path) -> None:
    sheets = sides_sheets(two_machines(tmp_path, spec))
    for text in (render_sheets_markdown(sheets), render_sheets_latex(sheets)):
        for value in ("20.5", "4000", "400", "0.67 [", "slower"):
            assert value in text.replace("$-$", "−")


def test_json_and_csv_name_the_side_of_each_cell(tmp_path: Path, spec: Path) -> None:
    two_machines(tmp_path, spec)
    folders = ("--runs", "one", "--runs", "two")
    ran = run_harness(tmp_path, "report", "mine.toml", "--by", "machine", *folders, "--format", "json")
    data = json.loads(ran.stdout)
    assert [side["side"] for side in data["sides"]] == [H200.label, LAPTOP.label]
    assert [pair["ratio"][0] for pair in data["pairs"]] == pytest.approx([10, 0.1, 0.01])
    ran = run_harness(tmp_path, "report", "mine.toml", "--by", "machine", *folders, "--format", "csv")
    frame = pd.read_csv(StringIO(ran.stdout))
    speeds = frame[frame["column"] == "speed"].groupby("side")["measured"].sum()
    assert speeds.to_dict() == pytest.approx({H200.label: 10_000, LAPTOP.label: 80.5})


def test_two_folders_without_a_way_to_tell_their_results_apart_are_refused(tmp_path: Path, spec: Path) -> None:
    two_machines(tmp_path, spec)
    ran = run_harness(tmp_path, "report", "mine.toml", "--runs", "one", "--runs", "two")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: --runs is given twice; add --by machine to show their results side by side, or drop one\n"
    )


@pytest.mark.parametrize("option", ["--diff", "--roofline", "--all-columns", "-v"])
def test_what_belongs_to_one_machine_is_refused_beside_several(tmp_path: Path, spec: Path, option: str) -> None:
    two_machines(tmp_path, spec)
    form = ("--format", "latex") if option == "--diff" else ()
    ran = run_harness(tmp_path, "report", "mine.toml", "--by", "machine", "--runs", "one", option, *form)
    named = {"-v": "--verbose"}.get(option, option)
    assert (ran.returncode, ran.stderr) == (
        2,
        f"error: --by machine: {named} is for a table of one machine; leave out either\n",
    )


def test_a_page_has_every_value_with_its_heading_and_what_programs_read(tmp_path: Path, spec: Path) -> None:
    two_machines(tmp_path, spec)
    ran = run_harness(
        tmp_path,
        "report",
        "mine.toml",
        "--by",
        "machine",
        "--runs",
        "one",
        "--runs",
        "two",
        "--format",
        "html",
        "-o",
        "x",
    )
    assert (ran.returncode, ran.stdout) == (0, "x/index.html\n")
    page = tree((tmp_path / "x" / "index.html").read_text(encoding="utf-8"))
    rows = [" ".join(" ".join(line.itertext()).split()) for line in page.iter("tr")]
    (row,) = (row for row in rows if row.startswith("Model D"))
    assert row.endswith(
        "400 4000 ± 40 4 10× faster · not comparable 20.5 ± 0.2 4 20× slower · not comparable".replace(" 4 ", " ")
    )
    assert any("Speeds" in text for text in page.itertext())
    data = json.loads((tmp_path / "x" / "sides.json").read_text(encoding="utf-8"))
    assert [side["side"] for side in data["sides"]] == [H200.label, LAPTOP.label]


def test_a_page_needs_a_folder(tmp_path: Path, spec: Path) -> None:
    two_machines(tmp_path, spec)
    ran = run_harness(tmp_path, "report", "mine.toml", "--by", "machine", "--runs", "one", "--format", "html")
    assert (ran.returncode, ran.stderr) == (2, "error: --format html writes a folder of pages; name it with -o DIR\n")
