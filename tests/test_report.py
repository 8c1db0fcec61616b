"""Reports: the same table in every format, nothing lost in a narrow window, and numbers that stay numbers."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from harness.judge.table import fill
from harness.judge.verdict import Diff, compare
from harness.plan.plan import make_plan
from harness.report import formatting, render_csv, render_json, render_latex, render_markdown, render_terminal
from harness.specs import Catalog, load
from harness.store.result import Measurement, Result
from tests.fakes import V100, result_of

SPEC = """
[table]
title = "Every verdict"
arxiv = "Table 12"
note = "Read this first."
[source.paper]
kind = "paper"
cite = "the paper"
[source.timm]
kind = "timm"
cite = "timm"
[column.by]
label = "by"
text = true
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 1
digits = 1
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "V100 16GB"
set = { protocol = "paper" }
[column.modern]
label = "bf16 speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "A100 40GB"
set = { protocol = "modern" }
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "%"
tolerance = 0.05
digits = 2
set = { data = "imagenet" }
[row.small]
label = "CNN|small"
group = "Convnets"
set = { model = "small", res = 224, weights = "w" }
paper = { by = "Ann", params = 12, speed = 1000, modern = 2000, top1 = 71.2 }
[row.big]
label = "CNN[big]"
group = "Convnets"
set = { model = "big", res = 224, weights = "w" }
paper = { by = "Bob", params = "60[B1]", speed = 400, top1 = "80.1 ± 0.2" }
[row.tiny]
label = "ViT<tiny>"
group = "Transformers"
set = { model = "tiny", res = 224, weights = "w" }
paper = { by = "Cid", params = 5, speed = "99.9[w]", top1 = 72.2 }
timm = { top1 = 72.13 }
[row.distilled]
label = "ViT⚗↑384"
group = "Transformers"
set = { model = "distilled", res = 384 }
unreleased = "never released"
cost = 1413
train = { recipe = "deit-b" }
paper = { params = 86, speed = 85.9, modern = 300, top1 = "85.2[w]" }
[footnote.B1]
text = "Counted without the <head>."
effect = "explains"
corrected = { params = 57 }
[footnote.w]
text = "A slip | of the pen."
effect = "wrong"
corrected = { speed = 1200 }
"""

LABELS = ("CNN|small", "CNN[big]", "ViT<tiny>", "ViT⚗↑384")
MEASURED = {  # value, low and high of every cell that has one
    ("small", "params"): (12.3, None, None),
    ("small", "speed"): (1020.0, 1009.8, 1030.2),
    ("small", "modern"): (1500.0, 1485.0, 1515.0),
    ("big", "params"): (57.0, None, None),
    ("big", "speed"): (440.0, 390.0, 490.0),
    ("tiny", "params"): (4.996, None, None),
    ("tiny", "speed"): (1234.5678, 1222.222122, 1246.913478),
    ("tiny", "top1"): (72.134, 71.74, 72.53),
    ("distilled", "params"): (90.0, None, None),
}
VERDICTS = {
    ("small", "by"): "not comparable",
    ("small", "params"): "match",
    ("small", "speed"): "match",
    ("small", "modern"): "not comparable",
    ("small", "top1"): "missing",
    ("big", "by"): "not comparable",
    ("big", "params"): "explained",
    ("big", "speed"): "noise",
    ("big", "modern"): "missing",
    ("big", "top1"): "missing",
    ("tiny", "by"): "not comparable",
    ("tiny", "params"): "match",
    ("tiny", "speed"): "explained",
    ("tiny", "modern"): "missing",
    ("tiny", "top1"): "explained",
    ("distilled", "by"): "not comparable",
    ("distilled", "params"): "deviates",
    ("distilled", "speed"): "failed",
    ("distilled", "modern"): "missing",
    ("distilled", "top1"): "missing",
}
DELTAS = {
    ("small", "params"): 0.3,
    ("small", "speed"): 20.0,
    ("small", "modern"): -500.0,
    ("big", "params"): -3.0,
    ("big", "speed"): 40.0,
    ("tiny", "params"): -0.004,
    ("tiny", "speed"): 1134.6678,
    ("tiny", "top1"): -0.066,
    ("distilled", "params"): 4.0,
}
WARNINGS = {
    ("small", "speed"): ("iterations vary by 3.1 %: measure again",),
    ("big", "speed"): ("iterations vary by 2.4 %: measure again",),
    ("tiny", "speed"): ("iterations vary by 2.4 %: measure again", "warm-up not steady after 9 iterations"),
}


def diff_of(
    tmp_path: Path,
    text: str,
    measured: dict[tuple[str, str], tuple[float | str, float | None, float | None]],
    *,
    failed: dict[tuple[str, str], str] | None = None,
    name: str = "mine",
) -> Diff:
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    results: dict[str, Result] = {}
    for place, planned in plan.cells_in(spec).items():
        if planned.job and place in measured:
            value, low, high = measured[place]
            metric = Measurement(unit=planned.cell.unit, value=value, low=low, high=high)
            result = result_of(planned.job, machine=V100, warnings=WARNINGS.get(place, ()))
            results[planned.job.key] = replace(result, metrics={str(planned.cell.metric): metric})
        elif planned.job and failed and place in failed:
            results[planned.job.key] = result_of(planned.job, machine=V100, error=failed[place])
    return compare(fill(spec, plan, results))


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    error = "out of memory at batch 1 under 16GiB; give more with --memory"
    return diff_of(tmp_path, SPEC, dict(MEASURED), failed={("distilled", "speed"): error})


# The terminal.

AT_114 = """\
Table 12  Every verdict
8 of 16 values judged: 3 match, 1 within noise, 3 explained, 1 deviates; 1 not comparable, 6 missing, 1 failed.
Measured on Tesla V100-SXM2-16GB 16 GiB; torch 2.15.0, timm 1.0.31.
A match is within ± 1 M (#param.), ± 5 % (speed), ± 0.05 % (top-1); behind ± is the 95 % interval.

            #param., M                                   speed, im/s, batch 4, published: V100 16GB
            measured  published         Δ  verdict        measured  published             Δ  verdict
─────────   ──────────────────────────────────────────   ───────────────────────────────────────────────
Convnets
CNN|small       12.3         12      +0.3  ✓ match       1020 ± 10       1000        +2.0 %  ✓ match
CNN[big]        57.0         60[B1]  −3.0  ✻ explained    440 ± 50        400       +10.0 %  ≈ noise
Transformers
ViT<tiny>        5.0          5       0.0  ✓ match       1235 ± 12       99.9[w]  +1135.8 %  ✻ explained
ViT⚗↑384        90.0         86      +4.0  ✗ deviates                    85.9                ! failed

            bf16 speed, im/s, batch 4, published: A100 40GB       top-1, %
             measured  published            Δ  verdict              measured   published         Δ  verdict
─────────   ───────────────────────────────────────────────────   ─────────────────────────────────────────────
Convnets
CNN|small   1500 ± 15       2000  25 % slower  · not comparable                     71.2            – missing
CNN[big]                                       – missing                      80.1 ± 0.2            – missing
Transformers
ViT<tiny>                                      – missing          72.1 ± 0.4        72.2     −0.07  ✻ explained
ViT⚗↑384                     300               – missing                            85.2[w]         – missing
Left out for want of room: by.

≈ noise: speed of CNN[big]: outside 5 %, but the 95 % interval holds the paper (400)
✗ deviates: #param. of ViT⚗↑384: not within 1 M of the paper (86)
✻ explained: #param. of CNN[big]: Counted without the <head>.
✻ explained: speed of ViT<tiny>: within 5 % of the paper as corrected (1200); A slip | of the pen.
✻ explained: top-1 of ViT<tiny>: matches timm (72.13), not the paper (72.2)
· not comparable: bf16 speed of CNN|small: measured on Tesla V100-SXM2-16GB 16 GiB, published for A100 40GB
– missing: top-1 of CNN|small, CNN[big]: needs --data imagenet=PATH
– missing: bf16 speed of CNN[big], ViT<tiny>, ViT⚗↑384: not measured yet; `harness reproduce FILE` measures it
– missing: top-1 of ViT⚗↑384: no public weights: never released; needs --train (≈ 1,413 V100-hours)
! failed: speed of ViT⚗↑384: out of memory at batch 1 under 16GiB; give more with --memory
[B1] Counted without the <head>.
[w] A slip | of the pen.
warning: CNN|small: iterations vary by 3.1 %: measure again (and 2 more like it, -v shows all)
warning: ViT<tiny>: warm-up not steady after 9 iterations
"""

NOTHING_AT_114 = """\
Table 12  Every verdict
None of 16 values is measured.
This is what was published.

                                                bf16 speed,
            by    #param., M   speed, im/s             im/s        top-1, %
─────────   ───   ──────────   ───────────   ──────────────   ─────────────
Convnets
CNN|small   Ann       12           1000                2000         71.2
CNN[big]    Bob       60[B1]        400                       80.1 ± 0.2
Transformers
ViT<tiny>   Cid        5           99.9[w]                          72.2
ViT⚗↑384              86           85.9                 300         85.2[w]

– missing: #param., speed, bf16 speed of 4 rows: not measured yet; `harness reproduce FILE` measures it
– missing: top-1 of CNN|small, CNN[big], ViT<tiny>: needs --data imagenet=PATH
– missing: top-1 of ViT⚗↑384: no public weights: never released; needs --train (≈ 1,413 V100-hours)
"""


def test_a_terminal_of_114_columns_has_a_line_a_row_and_columns_without_room_below(diff: Diff) -> None:
    assert render_terminal(diff, width=114, color=False) == AT_114


@pytest.mark.parametrize("width", [200, 110, 80, 60])
def test_nothing_is_wider_than_the_window_and_nothing_is_lost_in_it(diff: Diff, width: int) -> None:
    lines = render_terminal(diff, width=width, color=False).splitlines()
    assert max(map(cell_len, lines)) <= width
    rows = [" ".join(line.split()) for line in lines]
    for label in LABELS:
        # Each label stands before the values of its row on one line.
        assert any(re.match(rf"{re.escape(label)} .*\d", row) for row in rows)
    text = " ".join(rows)
    for cell in ("12.3 12 +0.3 ✓", "57.0 60[B1] −3.0 ✻", "5.0 5 0.0 ✓", "90.0 86 +4.0 ✗", "1020 ± 10 1000 +2.0 % ✓"):
        assert cell in text
    for cell in ("440 ± 50 400 +10.0 % ≈", "1500 ± 15 2000 25 % slower ·", "72.1 ± 0.4 72.2 −0.07 ✻", "80.1 ± 0.2 –"):
        assert cell in text
    assert "not comparable: bf16 speed of" in text
    assert "…" not in text


def test_a_window_that_is_much_too_narrow_breaks_texts_and_cuts_none(diff: Diff) -> None:
    lines = render_terminal(diff, width=30, color=False).splitlines()
    assert max(map(cell_len, lines)) <= 30
    letters = "".join("".join(lines).split())
    assert all(label.replace(" ", "") in letters for label in LABELS)
    assert "…" not in letters


def test_signs_replace_words_where_all_columns_then_stand_beside_each_other(diff: Diff) -> None:
    lines = render_terminal(diff, width=200, color=False).splitlines()
    assert lines[4] == "✓ match, ≈ noise, ✗ deviates, ✻ explained, · not comparable, – missing, ! failed."
    assert [" ".join(line.split()) for line in lines[7:16]] == [
        "#param., M 16GB published: A100 40GB top-1, %",
        "by measured published Δ measured published Δ measured published Δ measured published Δ",
        " ".join(lines[9].split()),
        "Convnets",
        "CNN|small Ann 12.3 12 +0.3 ✓ 1020 ± 10 1000 +2.0 % ✓ 1500 ± 15 2000 25 % slower · 71.2 –",
        "CNN[big] Bob 57.0 60[B1] −3.0 ✻ 440 ± 50 400 +10.0 % ≈ – 80.1 ± 0.2 –",
        "Transformers",
        "ViT<tiny> Cid 5.0 5 0.0 ✓ 1235 ± 12 99.9[w] +1135.8 % ✻ – 72.1 ± 0.4 72.2 −0.07 ✻",
        "ViT⚗↑384 90.0 86 +4.0 ✗ 85.9 ! 300 – 85.2[w] –",
    ]


def test_what_was_not_measured_is_left_out_and_said_once(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, SPEC, {("small", "speed"): MEASURED["small", "speed"]})
    text = render_terminal(diff, width=114, color=False)
    assert text.count("CNN|small") == 3  # its row, what it lacks, and a warning
    assert "ViT<tiny>" not in text.partition("Not measured")[0]
    assert (
        "Not measured and left out: #param., bf16 speed, top-1; 3 of 4 rows (`--all-columns` shows them)."
    ) in text.splitlines()
    everything = render_terminal(diff, width=114, color=False, everything=True)
    assert all(label in everything.partition("– missing: ")[0] for label in LABELS)
    assert "Not measured and left out" not in everything


def test_colour_is_there_only_when_asked_for_and_changes_nothing_else(diff: Diff) -> None:
    plain, coloured = (render_terminal(diff, width=114, color=color) for color in (False, True))
    assert "\x1b" not in plain
    assert "\x1b[32m✓ match" in coloured  # green
    assert "\x1b[1;31m✗ deviates" in coloured  # bold red
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()


def test_verbose_adds_the_allowed_difference_why_cells_match_every_warning_and_the_note(diff: Diff) -> None:
    short = AT_114.splitlines()
    long = render_terminal(diff, width=114, color=False, verbose=True).splitlines()
    table, reasons = long[: long.index("Left out for want of room: by.")], long[long.index("") :]
    tolerances = [line for line in table if "CNN[big]" in line]
    assert "−3.0 ± 1 M ✻" in " ".join(tolerances[0].split())
    assert "+10.0 % ± 5 % ≈" in " ".join(" ".join(tolerances).split())
    assert "80.1 ± 0.2 ± 0.2 % –" in " ".join(" ".join(tolerances).split())  # the published uncertainty
    after = reasons[reasons.index("Left out for want of room: by.") :]
    assert [line for line in after if line not in short] == [
        "✓ match: #param. of CNN|small: within 1 M of the paper (12)",
        "✓ match: speed of CNN|small: within 5 % of the paper (1000)",
        "✓ match: #param. of ViT<tiny>: within 1 M of the paper (5)",
        "note: Read this first.",
        "warning: CNN|small: iterations vary by 3.1 %: measure again",
        "warning: CNN[big]: iterations vary by 2.4 %: measure again",
        "warning: ViT<tiny>: iterations vary by 2.4 %: measure again",
    ]


def test_without_any_result_the_table_says_what_is_missing(tmp_path: Path) -> None:
    empty = diff_of(tmp_path, SPEC, {})
    assert render_terminal(empty, width=114, color=False) == NOTHING_AT_114


def test_footnotes_of_what_is_not_measured_are_shown_when_asked_for(tmp_path: Path) -> None:
    empty = diff_of(tmp_path, SPEC, {})
    long = render_terminal(empty, width=114, color=False, verbose=True).splitlines()
    assert [line for line in long if line not in NOTHING_AT_114.splitlines()] == [
        "[B1] Counted without the <head>.",
        "[w] A slip | of the pen.",
        "note: Read this first.",
    ]


# Markdown.

MARKDOWN = r"""### Table 12  Every verdict

8 of 16 values judged: 3 match, 1 within noise, 3 explained, 1 deviates; 1 not comparable, 6 missing, 1 failed. Measured on Tesla V100-SXM2-16GB 16 GiB; torch 2.15.0, timm 1.0.31. A match is within ± 1 M (#param.), ± 5 % (speed), ± 0.05 % (top-1); behind ± is the 95 % interval.

```text
                                               speed, im/s, batch 4, published: V100
            #param., M                         16GB
            measured  published         Δ       measured  published             Δ
─────────   ────────────────────────────────   ─────────────────────────────────────
Convnets
CNN|small       12.3         12      +0.3  ✓   1020 ± 10       1000        +2.0 %  ✓
CNN[big]        57.0         60[B1]  −3.0  ✻    440 ± 50        400       +10.0 %  ≈
Transformers
ViT<tiny>        5.0          5       0.0  ✓   1235 ± 12       99.9[w]  +1135.8 %  ✻
ViT⚗↑384        90.0         86      +4.0  ✗                   85.9                !

            bf16 speed, im/s, batch 4,
            published: A100 40GB                   top-1, %
             measured  published            Δ        measured   published         Δ
─────────   ────────────────────────────────────   ───────────────────────────────────
Convnets
CNN|small   1500 ± 15       2000  25 % slower  ·                     71.2            –
CNN[big]                                       –               80.1 ± 0.2            –
Transformers
ViT<tiny>                                      –   72.1 ± 0.4        72.2     −0.07  ✻
ViT⚗↑384                     300               –                     85.2[w]         –
```

✓ match, ≈ noise, ✗ deviates, ✻ explained, · not comparable, – missing, ! failed. Left out for want of room: by.

<details><summary>why cells are not plain matches</summary>

- ≈ **noise**: speed of CNN\[big\]: outside 5 %, but the 95 % interval holds the paper (400)
- ✗ **deviates**: #param. of ViT⚗↑384: not within 1 M of the paper (86)
- ✻ **explained**: #param. of CNN\[big\]: Counted without the &lt;head>.
- ✻ **explained**: speed of ViT&lt;tiny>: within 5 % of the paper as corrected (1200); A slip \| of the pen.
- ✻ **explained**: top-1 of ViT&lt;tiny>: matches timm (72.13), not the paper (72.2)
- · **not comparable**: bf16 speed of CNN\|small: measured on Tesla V100-SXM2-16GB 16 GiB, published for A100 40GB
- – **missing**: top-1 of CNN\|small, CNN\[big\]: needs --data imagenet=PATH
- – **missing**: bf16 speed of CNN\[big\], ViT&lt;tiny>, ViT⚗↑384: not measured yet; `harness reproduce FILE` measures it
- – **missing**: top-1 of ViT⚗↑384: no public weights: never released; needs --train (≈ 1,413 V100-hours)
- ! **failed**: speed of ViT⚗↑384: out of memory at batch 1 under 16GiB; give more with --memory

</details>

<details><summary>footnotes and warnings</summary>

- \[B1\] Counted without the &lt;head>.
- \[w\] A slip \| of the pen.
- warning: CNN\|small: iterations vary by 3.1 %: measure again (and 2 more like it)
- warning: ViT&lt;tiny>: warm-up not steady after 9 iterations

</details>
"""  # noqa: E501 -- as it is rendered


def test_markdown_is_the_whole_report(diff: Diff) -> None:
    assert render_markdown(diff) == MARKDOWN


def test_a_small_table_is_one_of_githubs_whose_texts_are_never_broken(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, SPEC, {key: MEASURED[key] for key in (("small", "params"), ("big", "params"))})
    lines = render_markdown(diff).splitlines()[4:8]
    blank, hyphen = "\N{NO-BREAK SPACE}", "\N{NON-BREAKING HYPHEN}"
    assert [line.replace(blank, " ").replace(hyphen, "-") for line in lines] == [
        r"|  | by | #param., M<br>measured | published | Δ | verdict |",
        "|---|---|--:|--:|--:|---|",
        r"| CNN\|small | Ann | 12.3 | 12 | +0.3 | ✓ match |",
        r"| CNN\[big\] | Bob | 57.0 | 60<sup>B1</sup> | −3.0 | ✻ explained |",
    ]
    assert f"✓{blank}match" in lines[2]


def test_a_fence_is_longer_than_any_in_a_name(tmp_path: Path) -> None:
    text = SPEC.replace('label = "CNN|small"', 'label = "CNN ```` small"')
    fences = [line for line in render_markdown(diff_of(tmp_path, text, dict(MEASURED))).splitlines() if "`````" in line]
    assert fences == ["`````text", "`````"]


def test_a_title_is_no_markup_in_markdown(tmp_path: Path) -> None:
    text = SPEC.replace("Every verdict", "Networks [small] and <big>")
    assert render_markdown(diff_of(tmp_path, text, {})).splitlines()[0] == (
        r"### Table 12  Networks \[small\] and &lt;big>"
    )


# CSV and JSON.


def test_csv_has_a_line_for_every_cell(diff: Diff) -> None:
    text = render_csv([diff])
    assert text.splitlines()[3].endswith(",4")
    frame = pd.read_csv(StringIO(text))
    assert list(frame.columns) == [
        *("table", "edition", "row", "row_label", "column", "column_label", "model", "machine", "unit"),
        *("measured", "low", "high", "delta", "verdict", "reason", "run", "published", "source", "references", "batch"),
    ]
    assert set(frame["table"]) == {"mine"}
    lines = {(line["row"], line["column"]): line for line in frame.to_dict("records")}
    assert {place: line["verdict"] for place, line in lines.items()} == VERDICTS
    for place, line in lines.items():
        expected = [*MEASURED.get(place, (None, None, None)), DELTAS.get(place)]
        actual = [None if pd.isna(line[name]) else line[name] for name in ("measured", "low", "high", "delta")]
        assert actual == pytest.approx(expected), place
    tiny = lines["tiny", "top1"]
    assert (tiny["row_label"], tiny["model"], tiny["machine"]) == ("ViT<tiny>", "tiny", "Tesla V100-SXM2-16GB 16 GiB")
    assert [reference["value"] for reference in json.loads(tiny["references"])] == [72.2, 72.13]
    published = {place: line["published"] for place, line in lines.items() if not pd.isna(line["published"])}
    assert published["small", "by"] == "Ann"
    assert float(published["big", "params"]) == 60.0
    assert len(published) == 17  # 3 names, 4 parameter counts, 4 speeds, 2 modern speeds, 4 accuracies
    batches = {place for place, line in lines.items() if not pd.isna(line["batch"])}
    assert batches == {("small", "speed"), ("small", "modern"), ("big", "speed"), ("tiny", "speed")}


def test_csv_of_several_tables_is_one_frame(diff: Diff, tmp_path: Path) -> None:
    other = diff_of(tmp_path, SPEC, {}, name="other")
    frame = pd.read_csv(StringIO(render_csv([diff, other])))
    assert frame["table"].value_counts().to_dict() == {"mine": 20, "other": 20}


def test_json_has_the_keys_that_other_programs_rely_on(diff: Diff) -> None:
    table = json.loads(render_json([diff]))
    assert table.keys() == {"schema", "table", "edition", "machine", "cells", "shapes", "effects"}
    assert (table["schema"], table["table"], table["edition"]) == (1, "mine", "arxiv")
    assert table["machine"] == "Tesla V100-SXM2-16GB 16 GiB"
    for cell in table["cells"]:
        assert cell.keys() == {
            *("row", "row_label", "column", "column_label", "model", "machine", "unit", "measured", "low", "high"),
            *("references", "delta", "verdict", "reason", "run"),
        }
        assert all(reference.keys() == {"kind", "value", "source"} for reference in cell["references"])


def test_json_says_what_the_table_says_cell_by_cell(diff: Diff) -> None:
    cells = {(cell["row"], cell["column"]): cell for cell in json.loads(render_json([diff]))["cells"]}
    assert {place: cell["verdict"] for place, cell in cells.items()} == VERDICTS
    for place, cell in cells.items():
        numbers = [cell[name] for name in ("measured", "low", "high", "delta")]
        assert numbers == pytest.approx([*MEASURED.get(place, (None, None, None)), DELTAS.get(place)]), place
        assert all(number is None or isinstance(number, (int, float)) for number in numbers), place
        assert (cell["run"] is None) == (place not in {*MEASURED, ("distilled", "speed")}), place
    assert cells["small", "speed"]["unit"] == "im/s"
    assert cells["small", "by"]["references"] == [{"kind": "paper", "value": "Ann", "source": "the paper"}]
    assert cells["tiny", "top1"]["references"] == [
        {"kind": "paper", "value": 72.2, "source": "the paper"},
        {"kind": "timm", "value": 72.13, "source": "timm"},
    ]
    assert cells["big", "modern"]["references"] == []
    assert cells["distilled", "speed"]["reason"] == "out of memory at batch 1 under 16GiB; give more with --memory"


def test_json_of_several_tables_is_a_list(diff: Diff, tmp_path: Path) -> None:
    other = diff_of(tmp_path, SPEC, {}, name="other")
    assert [table["table"] for table in json.loads(render_json([diff, other]))] == ["mine", "other"]


def test_without_any_result_json_names_no_machine_and_measures_nothing(tmp_path: Path) -> None:
    table = json.loads(render_json([diff_of(tmp_path, SPEC, {})]))
    assert (table["machine"], table["shapes"]) == (None, [])
    assert {cell["measured"] for cell in table["cells"]} == {None}


# The order of a speed column.

SHAPE = """
[table]
title = "Speeds"
[source.paper]
kind = "paper"
[column.speed]
label = "<a|b>[c]"
job = "throughput"
metric = "throughput"
unit = "im/s"
tolerance = "5%"
machine = "A100 40GB"
[family.f]
label = "F"
reference = "f2"
[row.f1]
label = "F1|a"
family = "f"
set = { model = "f1", res = 224 }
paper = { speed = 400 }
[row.f2]
label = "F2|b"
family = "f"
set = { model = "f2", res = 224 }
paper = { speed = 100 }
[row.g]
label = "G"
set = { model = "g", res = 224 }
paper = { speed = 50 }
[row.h]
label = "H"
set = { model = "h", res = 224 }
paper = { speed = 25 }
"""
SPEEDS: dict[tuple[str, str], tuple[float | str, float | None, float | None]] = {
    ("f1", "speed"): (30.0, None, None),
    ("f2", "speed"): (10.0, None, None),
    ("g", "speed"): (9.0, None, None),
    ("h", "speed"): (8.0, None, None),
}
ORDER = "order of 4 models against the published one: Kendall's τ 1.00 [1.00, 1.00], Spearman's ρ 1.00 [1.00, 1.00]"


RATIOS = r"""<details><summary>&lt;a|b&gt;[c]: other machines, and models relative to one of their family</summary>

| model | relative to | measured | published |
|---|---|--:|--:|
| F1\|a | F2\|b | 3.00 | 4.00 |

</details>
"""


def test_the_order_of_a_speed_column_and_its_ratios_are_told_in_words(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, SHAPE, SPEEDS)
    terminal = render_terminal(diff, width=200, color=False, verbose=True).splitlines()
    assert terminal[4].strip() == "<a|b>[c], im/s, batch 4, published: A100 40GB"
    assert f"<a|b>[c]: {ORDER}." in terminal
    assert "  × F2|b (published): F1|a 3.00 (4.00)" in terminal
    markdown = render_markdown(diff)
    order = ORDER.replace("[", "\\[").replace("]", "\\]")
    assert f"**&lt;a\\|b>\\[c\\]**: {order}.\n\n{RATIOS}" in markdown
    assert json.loads(render_json([diff]))["shapes"] == [
        {
            "column": "speed",
            "rows": 4,
            "kendall": [1.0, 1.0, 1.0],
            "spearman": [1.0, 1.0, 1.0],
            "ratios": [{"row": "f1", "to": "f2", "measured": 3.0, "published": 4.0}],
        }
    ]


def test_an_order_that_does_not_exist_is_null_in_json(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, SHAPE, dict.fromkeys(SPEEDS, (10.0, None, None)))
    (shape,) = json.loads(render_json([diff]))["shapes"]
    assert (shape["kendall"], shape["spearman"]) == ([None] * 3, [None] * 3)


# Words instead of numbers.

WORDS = """
[table]
title = "A recipe"
[source.paper]
kind = "paper"
[column.value]
label = "DeiT-B"
job = "recipe"
metric = "optimizer"
text = true
[row.one]
label = "pre-training"
set = { recipe = "deit-b" }
paper = { value = "AdamW" }
[row.two]
label = "fine-tuning"
set = { recipe = "vit-b" }
paper = { value = "SGD" }
"""


def test_words_are_compared_as_words_and_shown_as_they_are(tmp_path: Path) -> None:
    measured: dict[tuple[str, str], tuple[float | str, float | None, float | None]] = {
        ("one", "value"): ("AdamW", None, None),
        ("two", "value"): ("AdamW", None, None),
    }
    diff = diff_of(tmp_path, WORDS, measured)
    lines = render_terminal(diff, width=100, color=False).splitlines()
    assert lines[1] == "2 of 2 values judged: 1 match, 1 deviates."
    assert lines[-4:] == [
        "pre-training   AdamW     AdamW      ✓ match",
        "fine-tuning    AdamW     SGD        ✗ deviates",
        "",
        "✗ deviates: DeiT-B of fine-tuning: published is SGD",
    ]
    cells = json.loads(render_json([diff]))["cells"]
    assert [(cell["measured"], cell["delta"], cell["verdict"]) for cell in cells] == [
        ("AdamW", None, "match"),
        ("AdamW", None, "deviates"),
    ]


# Units and sources.

MIXED = """
[table]
title = "Numbers of a text"
[source.paper]
kind = "paper"
[source.timm]
kind = "timm"
[column.value]
label = "value"
[row.hours]
label = "training"
unit = "h"
paper = { value = "53[n]" }
[row.params]
label = "parameters"
job = "count"
metric = "params"
unit = "M"
digits = 1
tolerance = 1
set = { model = "m", res = 224 }
paper = { value = "6 ± 0.5" }
[row.speed]
label = "timm's speed"
unit = "im/s"
timm = { value = 2764.22 }
[row.flag]
label = "clipping"
unit = "flag"
text = true
paper = { value = "no" }
[footnote.n]
text = "On eight."
"""


def test_a_unit_that_only_a_row_has_is_in_its_cells(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, MIXED, {("params", "value"): (5.7, 5.6, 5.8)})
    lines = [line.split() for line in render_terminal(diff, width=100, color=False).splitlines()]
    assert ["training", "53", "h[n]"] in lines
    assert ["parameters", "5.7", "±", "0.1", "M", "6", "±", "0.5", "M", "−0.3", "✓", "match"] in lines
    assert ["clipping", "no"] in lines
    markdown = render_markdown(diff).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "| training |  | 53 h<sup>n</sup> |  |  |\n| parameters | 5.7 ± 0.1 M | 6 ± 0.5 M | −0.3 | ✓ match |\n"
        in markdown
    )


def test_a_statement_of_another_source_than_the_paper_has_its_name(tmp_path: Path) -> None:
    diff = diff_of(tmp_path, MIXED, {})
    lines = [line.split() for line in render_terminal(diff, width=100, color=False).splitlines()]
    assert ["timm's", "speed", "2764.22", "im/s", "(timm)"] in lines
    assert "| timm's speed | 2764.22 im/s (timm) |\n" in render_markdown(diff).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("name", ["timm-speed", "author-statements"])
def test_a_table_of_another_source_than_a_paper_prints_its_values(name: str) -> None:
    (spec,) = Catalog().find([name])
    diff = compare(fill(spec, make_plan([spec]), {}))
    # LaTeX shows the published values of what can be measured on request only.
    latex = render_latex([diff], "below" if name == "timm-speed" else None)
    texts = render_terminal(diff, width=100, color=False), render_markdown(diff), latex
    published = [str(cell.published).split()[0] for cell in spec.cells.values() if cell.published]
    assert len(published) == sum(bool(cell.references) for cell in spec.cells.values()) > 30
    for text in texts:
        assert all(value in text for value in published)


# Numbers and warnings.


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12.34, 1, "12.3"),
        (12.0, 2, "12.00"),
        (-0.001, 2, "0.00"),
        (-0.006, 2, "-0.01"),
        (0.0, None, "0"),
        (1234.5678, None, "1235"),
        (56.789, None, "56.79"),
        (0.00012346, None, "0.0001235"),
        (2_500_000.0, None, "2500000"),
    ],
)
def test_a_number_has_the_decimals_of_its_column_or_four_significant_digits(
    value: float, digits: int | None, text: str
) -> None:
    assert formatting.number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "half", "digits", "text"),
    [
        (63.0557, 2.18, None, "63 ± 2"),
        (522.8, 1911.0, None, "523 ± 1911"),
        (4.7823, 0.0961, None, "4.8 ± 0.1"),  # 0.0961 is 0.1 with one digit
        (0.69491, 0.0412, None, "0.69 ± 0.04"),
        (0.0, 0.25, None, "0.0 ± 0.2"),
        (81.846, 0.004, 2, "81.85"),  # rounds to nothing with the decimals of its column
        (12345.678, 0.0001, None, "12346"),  # seven digits are too many to read
        (50.0, 0.0, 1, "50.0"),
    ],
)
def test_a_value_and_its_uncertainty_have_the_same_decimals(
    value: float, half: float, digits: int | None, text: str
) -> None:
    assert formatting.with_uncertainty(value, half, digits) == text


@given(
    value=st.floats(min_value=-1e9, max_value=1e9, allow_subnormal=False),
    half=st.floats(min_value=1e-12, max_value=1e12),
    digits=st.none() | st.integers(min_value=0, max_value=6),
)
def test_decimals_agree_for_every_value_and_the_value_is_never_off_by_more_than_its_uncertainty(
    value: float, half: float, digits: int | None
) -> None:
    shown, _, uncertainty = formatting.with_uncertainty(value, half, digits).partition(" ± ")
    if uncertainty:
        assert len(shown.partition(".")[2]) == len(uncertainty.partition(".")[2])
        assert abs(float(shown) - value) <= max(half, 0.5)


@pytest.mark.parametrize(
    ("ratio", "better", "text"),
    [
        (1 / 71, "higher", "71× slower"),
        (3.2, "higher", "3.2× faster"),
        (0.86, "higher", "14 % slower"),
        (1.014, "higher", "1.4 % faster"),
        (2.0, "lower", "2.0× slower"),  # twice as long
        (0.5, "lower", "2.0× faster"),
        (1.0, "higher", "as fast"),
        (1.5, None, "50 % more"),
        (0.25, None, "4.0× less"),
        (0.0, "higher", ""),
        (float("inf"), "higher", ""),
    ],
)
def test_another_machine_is_so_many_times_faster_or_slower(ratio: float, better: str | None, text: str) -> None:
    assert formatting.pace(ratio, better) == text


@pytest.mark.parametrize(
    ("measured", "difference"),
    [(5.004, "0.0"), (4.996, "0.0"), (4.96, "0.0"), (4.94, "−0.1"), (5.06, "+0.1"), (3.0, "−2.0")],
)
def test_a_difference_that_rounds_to_nothing_has_no_sign(tmp_path: Path, measured: float, difference: str) -> None:
    diff = diff_of(tmp_path, SPEC, {("tiny", "params"): (measured, None, None)})
    assert formatting.cell_text(diff.judged_cells["tiny", "params"]).difference == difference


def test_warnings_that_differ_only_in_row_and_number_are_told_once(diff: Diff) -> None:
    assert formatting.merged_warnings(diff) == [
        "CNN|small: iterations vary by 3.1 %: measure again (and 2 more like it)",
        "ViT<tiny>: warm-up not steady after 9 iterations",
    ]
    assert formatting.warnings(diff) == [
        "CNN|small: iterations vary by 3.1 %: measure again",
        "CNN[big]: iterations vary by 2.4 %: measure again",
        "ViT<tiny>: iterations vary by 2.4 %: measure again",
        "ViT<tiny>: warm-up not steady after 9 iterations",
    ]
