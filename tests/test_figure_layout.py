"""Every chart of every table in every style: nothing clipped, nothing over anything else, no row missing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.figure.catalog import STYLES as STYLE_NAMES
from harness.figure.catalog import available_charts, numeric_columns, with_axes
from harness.figure.draw import CHARTS
from harness.figure.style import GREY, STYLES
from harness.judge.table import Table, fill
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.specs import Catalog, Spec, load
from harness.specs.kinds import KINDS
from harness.store.result import Measurement, Result
from tests.fakes import result_of

PROXY = Options(train=True, scale="proxy")
TRAINED = ("curves", "losses")
CATALOG = Catalog()


def specs() -> Iterator[Spec]:
    for name in CATALOG.names:
        yield from CATALOG.find([name])


def measured(job: Job, number: int) -> Result:
    """A result with every metric of its kind; the number makes it differ from others."""
    if job.kind in ("throughput", "count"):
        return result_of(job, value=3.0 * 1.3 ** (number % 30))
    result = result_of(job)
    history = [{"epoch": epoch, "top1": 90.0 - number % 40 / epoch, "loss": 3 / epoch} for epoch in range(1, 5)]
    facts = {**result.facts, **({"history": history} if job.kind == "train" else {})}
    value = Measurement(unit="%", value=70.0 + number % 20, low=60.0, high=95.0)
    return replace(result, metrics=dict.fromkeys(KINDS[job.kind].metrics, value), facts=facts)


def filled(spec: Spec, options: Options | None = None, *, results: bool = True) -> Table:
    plan = make_plan([spec], options)
    jobs = [job for job in plan.all_jobs if job.kind in ("throughput", "count", "evaluate", "tokens", "train")]
    (spec,) = plan.specs  # without the extra columns
    return fill(spec, plan, {job.key: measured(job, n) for n, job in enumerate(jobs)} if results else {})


@contextmanager
def drawn(table: Table, chart: str, style: str) -> Iterator[Figure]:
    with mpl.rc_context(STYLES[style].rc):  # which ticks there are follows from the size of their labels as well
        figure = CHARTS[chart](table, STYLES[style], "both")
        figure.draw_without_rendering()
        yield figure


# What is looked at.


def tick_labels(axes: Axes) -> Iterator[list[Text]]:
    """The labels that are shown, axis by axis."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        yield [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


def texts(figure: Figure) -> list[Text]:
    every = {id(text): text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for tick in (*axis.majorTicks, *axis.minorTicks):  # more than are drawn
                every.pop(id(tick.label1), None)
                every.pop(id(tick.label2), None)
        every |= {id(text): text for labels in tick_labels(axes) for text in labels}
    return list(every.values())


def legend_lines(figure: Figure) -> list[Line2D]:
    return [line for legend in figure.legends for line in legend.get_lines()]


def marks(figure: Figure) -> list[Line2D]:
    return [line for axes in figure.axes for line in axes.lines if len(np.asarray(line.get_xydata()))]


def overlapping(boxes: Mapping[tuple[str, int], Bbox]) -> list[tuple[str, str]]:
    """The texts that lie over each other by more than a tenth of a line."""
    names = [text for text, _ in boxes]
    sizes = [0.1 * min(box.width, box.height) for box in boxes.values()]
    x0, y0, x1, y1 = np.array([box.padded(-size).extents for box, size in zip(boxes.values(), sizes, strict=True)]).T
    across = (x0[:, None] < x1) & (x0 < x1[:, None])
    up = (y0[:, None] < y1) & (y0 < y1[:, None])
    return [(names[a], names[b]) for a, b in np.argwhere(np.triu(across & up, 1))]


def assert_legible(figure: Figure) -> None:
    boxes = {(text.get_text(), id(text)): text.get_window_extent() for text in texts(figure)}
    page = figure.bbox
    outside = [
        text
        for (text, _), box in boxes.items()
        if not (box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= page.width + 0.5 and box.y1 <= page.height + 0.5)
    ]
    assert outside == []
    assert overlapping(boxes) == []
    assert min(float(text.get_fontsize()) for text in texts(figure)) >= 5
    for axes in figure.axes:
        frame = axes.get_window_extent()
        assert frame.height > 0.05 * page.height
        assert frame.width > 0.1 * page.width


def assert_the_legend_is_what_is_drawn(figure: Figure, table: Table) -> None:
    entries = legend_lines(figure)
    lines = marks(figure)
    colors = {to_hex(line.get_color()) for line in lines if line.get_alpha() is None}
    assert {to_hex(line.get_color()) for line in entries} - {GREY} <= colors | {"#000000"}
    for style in {line.get_linestyle() for line in entries} - {"None"}:
        assert style in {line.get_linestyle() for line in lines}
    faces = {line.get_markerfacecolor() == "white" for line in entries if line.get_marker() not in ("None", ".", "")}
    assert faces <= {line.get_markerfacecolor() == "white" for line in lines if line.get_marker() not in ("None", "")}
    if table.spec.families:
        shown = colors - {GREY, "#000000"}
        assert shown <= {to_hex(line.get_color()) for line in entries}


# What is there, from the results alone.


def throughputs(table: Table) -> list[str]:
    cells = {key: f for key, f in table.cells.items() if f.cell.kind == f.cell.metric == "throughput" and f.result}
    several = len({column for _, column in cells}) > 1
    return [f"{f.cell.row.label}, {f.cell.column.label}" if several else f.cell.row.label for f in cells.values()]


def drawn_points(figure: Figure, *, hollow: bool) -> int:
    lines = [line for line in marks(figure) if line.get_marker() not in ("None", "")]
    return sum(
        len(np.asarray(line.get_xdata())) for line in lines if bool(line.get_markerfacecolor() == "white") is hollow
    )


def assert_no_row_is_missing(figure: Figure, table: Table, chart: str) -> None:
    rows = table.spec.rows
    remark = " ".join(figure.get_supxlabel().split())
    if chart == "runs":
        strips = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        names = [name if len(name) <= 48 else f"{name[:47].rstrip()}…" for name in throughputs(table)]
        assert strips == names[: len(strips)]
        said = f"{len(names) - len(strips)} of {len(names)} throughputs have no room"
        assert len(strips) == len(names) or said in remark
    elif chart == "points":
        pairs = [[table.cell(row.key, key) for key in table.spec.axes or ()] for row in rows]
        published = [pair for pair in pairs if all(f.published_number is not None for f in pair)]
        assert drawn_points(figure, hollow=True) == len(published)
        ours = [pair for pair in pairs if all(f.number is not None for f in pair)]
        assert drawn_points(figure, hollow=False) >= len(ours)
        labels = len(figure.axes[0].texts)
        every = drawn_points(figure, hollow=True) + drawn_points(figure, hollow=False)
        said = f"{every - labels} of {every} points have no label"
        assert labels == every or said in remark
    elif chart == "epochs":
        cells = [f for f in table.cells.values() if "epochs" in f.cell.settings]
        assert drawn_points(figure, hollow=True) == sum(f.published_number is not None for f in cells)
        values = sum(f.number is not None for f in cells)
        said = "values are not comparable and not drawn"
        assert drawn_points(figure, hollow=False) == values or said in remark
    elif chart in TRAINED:
        trained = [
            row.label for row in rows if any(f.trainings for (key, _), f in table.cells.items() if key == row.key)
        ]
        titles = ", ".join(" ".join(axes.get_title(loc="left").split()) for axes in figure.axes)
        assert sorted(titles.split(", ")) == sorted(", ".join(trained).split(", "))


@cache
def spec_with(chart: str, name: str) -> tuple[Table, Table]:
    """The table with results of every job, and without any."""
    (spec,) = CATALOG.find([name])
    # Of the 81 rows of timm's speeds, in 22 columns, some are enough.
    rows = tuple(row.key for row in spec.rows[:16]) if name == "timm-speed" else ()
    options = PROXY if chart in TRAINED else Options(rows=rows)
    return filled(spec, options), filled(spec, options, results=False)


# A trend is drawn of a history, which these tables have none of; tests/test_trend.py draws it.  Ratios are those to
# published values, of which `choices` has none.
UNDRAWN = {("choices", "ratios")}
DRAWINGS = [
    (spec.name, chart)
    for spec in specs()
    for chart in available_charts(spec)
    if chart != "trend" and (spec.name, chart) not in UNDRAWN
]


@pytest.mark.parametrize("style", STYLE_NAMES)
@pytest.mark.parametrize(("name", "chart"), DRAWINGS)
def test_every_chart_of_every_table_is_legible_and_whole(name: str, chart: str, style: str) -> None:
    for table in spec_with(chart, name)[: 2 if chart in ("points", "epochs") else 1]:
        if chart in TRAINED and not any(filled.trainings for filled in table.cells.values()):
            continue  # nothing of it is trained at the proxy scale
        with drawn(table, chart, style) as figure:
            assert_legible(figure)
            assert_the_legend_is_what_is_drawn(figure, table)
            assert_no_row_is_missing(figure, table, chart)


@pytest.mark.parametrize("style", STYLE_NAMES)
@pytest.mark.parametrize("name", [spec.name for spec in specs() if len(numeric_columns(spec)) > 1])
@pytest.mark.filterwarnings("error")
def test_two_columns_of_any_table_make_a_legible_figure(name: str, style: str) -> None:
    (spec,) = CATALOG.find([name])
    columns = numeric_columns(spec)
    spec = with_axes(spec, columns[0], columns[-1])
    table = filled(spec, Options(columns=(columns[0], columns[-1])))
    if name in ("costs", "train-speed"):  # of whose jobs this has no results
        first, last = columns[0], columns[-1]
        with pytest.raises(HarnessError, match=rf"^no row of '{name}' has values of both '{first}' and '{last}'"):
            CHARTS["points"](table, STYLES[style], "both")
        return
    with drawn(table, "points", style) as figure:
        assert_legible(figure)
        assert_the_legend_is_what_is_drawn(figure, table)
        assert_no_row_is_missing(figure, table, "points")


# Tables of others.

LONG = "a name of many words that nobody would want to read on a slide, or anywhere else"
WORD = "tf_efficientnet_b7_noisy_student_pretrained_on_jft300m_finetuned_at_600_pixels"

MINE = """
[table]
title = "{name} {name}"
x = "speed"
y = "top1"
[source.paper]
kind = "paper"
cite = "us"
[column.speed]
label = "{name}"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "{name}"
[column.top1]
label = "{name}"
job = "evaluate"
metric = "top1"
unit = "% top-1"
set = {{ data = "imagenet" }}
[column.short]
label = "{name}"
job = "train"
metric = "top1"
unit = "% {name}"
set = {{ epochs = 298, recipe = "deit-b" }}
[column.longer]
label = "{name}"
job = "train"
metric = "top1"
unit = "% {name}"
set = {{ epochs = 300, recipe = "deit-b" }}
[column.longest]
label = "{name}"
job = "train"
metric = "top1"
unit = "% {name}"
set = {{ epochs = 1000, recipe = "deit-b" }}
"""
ROW = """
[row.r{number}]
label = "{number} {name}"
family = "f{family}"
set = {{ model = "m{number}", weights = "w", res = 224 }}
paper = {{ speed = {speed}, top1 = 80.{number}, short = 7{family}.5, longer = 7{family}, longest = 7{family} }}
"""
FAMILY = '[family.f{number}]\nlabel = "{number} {name}"\n'


@pytest.mark.parametrize("style", STYLE_NAMES)
@pytest.mark.parametrize("name", [LONG, WORD, "x"], ids=["words", "a word", "x"])
@pytest.mark.parametrize("rows", [1, 12])
def test_a_table_of_any_size_and_names_is_legible(tmp_path: Path, rows: int, name: str, style: str) -> None:
    families = min(rows, 9)
    text = MINE.format(name=name) + "".join(FAMILY.format(number=n, name=name) for n in range(families))
    for number in range(rows):
        text += ROW.format(number=number, family=number % families, speed=10 * (number + 1), name=name)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    table = filled(load(path))
    for chart in ("points", "runs", "ratios", "epochs"):
        with drawn(table, chart, style) as figure:
            assert_legible(figure)
            assert_no_row_is_missing(figure, table, chart)
