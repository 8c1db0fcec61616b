"""Sites as a reader has them: made of results, written to a folder, and read back as trees of elements."""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from harness.judge.table import fill
from harness.judge.verdict import Diff, compare
from harness.plan.plan import make_plan
from harness.report.html import SiteContent, render_site
from harness.specs import load
from harness.store.result import Measurement
from tests.fakes import LAPTOP, result_of

# Elements that have no end tag.
VOID = {"link", "meta", "input", "br", "img"}

# Text that would be something else than text wherever it is not escaped.
HOSTILE = (
    """<b>bold</b><img src=x onerror="window.hacked=1">'"&amp;</script><script>window.hacked=1</script>\nnext line"""
)

# The published points: a (100, 70), c (80, 75) and b (50, 80) are a Pareto front, d (40, 78) is behind b.
FIGURE = """
[table]
title = "Four points"
arxiv = "Figure 7"
x = "speed"
y = "top1"
[source.paper]
kind = "paper"
cite = "the paper"
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
better = "higher"
tolerance = "5%"
machine = "V100 16GB"
set = { protocol = "paper" }
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "%"
better = "higher"
tolerance = 0.05
set = { data = "imagenet" }
[family.one]
label = "One"
[family.two]
label = "Two"
[row.a]
label = "a"
family = "one"
set = { model = "a", res = 224, weights = "w" }
paper = { speed = 100, top1 = 70 }
[row.b]
label = "b"
family = "one"
set = { model = "b", res = 224, weights = "w" }
paper = { speed = 50, top1 = 80 }
[row.c]
label = "c"
family = "two"
set = { model = "c", res = 224, weights = "w" }
paper = { speed = 80, top1 = 75 }
[row.d]
label = "d"
family = "two"
set = { model = "d", res = 224, weights = "w" }
paper = { speed = 40, top1 = 78 }
"""

# Ours: a and b as fast as published, c slower than both, d not measured.
SPEEDS = {"a": 100.0, "b": 50.0, "c": 20.0}


def figure(folder: Path, speeds: Mapping[str, float] = SPEEDS, **accuracies: float) -> Diff:
    path = folder / "figure7.toml"
    path.write_text(FIGURE, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    results = {}
    for (row, _), planned in plan.cells_in(spec).items():
        job = planned.job
        if job is not None and job.kind == "throughput" and row in speeds:
            results[job.key] = result_of(job, value=speeds[row])
        if job is not None and job.kind == "evaluate" and row in accuracies:
            metrics = {"top1": Measurement(unit="%", value=accuracies[row])}
            results[job.key] = replace(result_of(job), metrics=metrics)
    return compare(fill(spec, plan, results))


def relabelled(diff: Diff, text: str) -> Diff:
    """Call everything in a table `text`: its title, rows, groups, columns, families, machine, and all that runs say."""
    rows = {row.key: replace(row, label=text, group=text, note=text) for row in diff.spec.rows}
    columns = {column.key: replace(column, label=text, note=text) for column in diff.spec.columns}
    machine = replace(LAPTOP, name=text)
    spec = replace(
        diff.spec,
        title=text,
        note=text,
        numbers={"arxiv": text},
        rows=tuple(rows.values()),
        columns=tuple(columns.values()),
        families={key: replace(family, label=text) for key, family in diff.spec.families.items()},
        footnotes={mark: replace(note, text=text) for mark, note in diff.spec.footnotes.items()},
    )
    cells = {}
    for (row, column), filled in diff.table.cells.items():
        cell = replace(filled.cell, row=rows[row], column=columns[column], unit=text)
        result = filled.result and replace(
            filled.result,
            id=f"{text}{filled.result.id}",
            machine=machine,
            software={text: text},
            warnings=(text,),
            facts={**filled.result.facts, text: [text], "nested": {text: {text: [{text: text}]}}},
            error=filled.result.error and text,
        )
        cells[row, column] = replace(filled, planned=replace(filled.planned, cell=cell), result=result)
    return compare(replace(diff.table, spec=spec, machine=machine, cells=cells))


class _Reader(HTMLParser):
    """Builds a tree; a tag that is not closed by its own end tag is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.builder = ET.TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.builder.data(data)


def tree(page: str) -> ET.Element:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader.builder.close()


def text_of(element: ET.Element) -> str:
    return "".join(element.itertext())


def page_text(page: ET.Element) -> str:
    """All text of a page, that of each element apart from the next, however it is laid out."""
    return " ".join(" ".join(page.itertext()).split())


def links(name: str, page: ET.Element) -> Iterator[str]:
    """Yield the targets within the site of the links of a page, from its root, with the anchor within the page."""
    for element in page.iter():
        for attribute in ("href", "src"):
            target = element.get(attribute)
            if target is None or target == "data:," or target.startswith("https://"):
                continue
            path, mark, anchor = target.partition("#")
            yield (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) + mark + anchor
                if path
                else f"{name}#{anchor}"
            )


def cells(page: ET.Element) -> Iterator[dict[str, Any]]:
    """Read the cells of a table back, in the form that the JSON report has them."""
    for cell in page.iter("td"):
        if cell.get("data-row") is None:
            continue
        why = next(item for item in cell.iter("div") if item.get("class") == "why")
        reason = next(item for item in why.iter("p") if item.get("class") == "reason")
        details = {name: [item for item in why.iter("dd") if item.get("class") == name] for name in ("m", "p", "d")}
        values = [data.get("value") for item in details["m"] for data in item.iter("data")]
        run = [text_of(item) for item in why.iter() if (item.text or "").startswith("run ")]
        kinds = [text_of(item) for item in why.iter("dt") if text_of(item) not in ("measured", "difference")]
        yield {
            "row": cell.get("data-row"),
            "column": cell.get("data-column"),
            "measured": values[0] if values else None,
            "low": values[1] if len(values) > 1 else None,
            "high": values[2] if len(values) > 2 else None,
            "references": [
                {
                    "kind": "paper" if kind == "published" else kind,
                    "value": next(item.iter("data")).get("value"),
                    "source": text_of(next(item.iter("cite"))),
                }
                for kind, item in zip(kinds, details["p"], strict=True)
            ],
            "delta": next(details["d"][0].iter("data")).get("value") if details["d"] else None,
            "verdict": cell.get("data-verdict"),
            "reason": text_of(reason.findall("span")[-1]),
            "run": run[0].removeprefix("run ") if run else None,
        }


def rendered(*diffs: Diff, **content: Any) -> dict[str, str]:  # noqa: ANN401 -- passed on
    return render_site(SiteContent(diffs=diffs, **content))


def pages(files: Mapping[str, str]) -> dict[str, ET.Element]:
    return {name: tree(text) for name, text in files.items() if name.endswith(".html")}
