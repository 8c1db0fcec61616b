"""Figures: every point is there, every label can be read, and the same results give the same bytes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from harness.errors import HarnessError
from harness.figure.catalog import CHARTS, POINTS, available_charts, select_chart, with_axes
from harness.figure.catalog import STYLES as STYLE_NAMES
from harness.figure.curves import curves_figure
from harness.figure.draw import draw
from harness.figure.epochs import epochs_figure
from harness.figure.points import points_figure
from harness.figure.strips import ratios_figure, runs_figure, throughput_ratio, timed_runs
from harness.figure.style import COLORS, MARKERS, PAPER, SLIDES, STYLES, line_style
from harness.judge.judged import judged_tables
from harness.judge.table import Table, fill
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.specs import Catalog, Spec, load
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, V100, result_of, with_facts, with_trainings

TITLE = "Figure 1. Throughput and accuracy on ImageNet"
REFERENCE = Path(__file__).parent.parent / "runs" / "reference" / "cpu-xeon-2-cores-2026-11-21"
REMARK = "The {} of {} is the published one: it was not measured."

ON_V100 = {  # figure 1 of the paper, images a second
    "vit_l16_384": 27.3,
    "vit_b16_384": 85.9,
    "efficientnet_b0": 2694.3,
    "efficientnet_b1": 1662.5,
    "efficientnet_b2": 1255.7,
    "efficientnet_b3": 732.1,
    "efficientnet_b4": 349.4,
    "efficientnet_b7": 55.1,
    "deit_s": 940.4,
    "deit_b": 292.3,
    "deit_b_384": 85.9,
    "deit_s_dist_1000ep": 936.2,
    "deit_b_dist_1000ep": 290.9,
    "deit_b_dist_384_1000ep": 85.8,
}


def filled(
    spec: Spec,
    throughputs: Mapping[str, float],
    *,
    machine: Machine = LAPTOP,
    accuracies: Mapping[str, float] | None = None,
) -> Table:
    plan = make_plan([spec])
    results = {}
    for (row, _), planned in plan.cells_in(spec).items():
        job = planned.job
        if job is not None and job.kind == "throughput" and row in throughputs:
            results[job.key] = result_of(job, machine=machine, value=throughputs[row])
        if job is not None and job.kind == "evaluate" and accuracies and row in accuracies:
            top1 = Measurement(unit="%", value=accuracies[row])
            metrics = dict.fromkeys(("top1", "top1_softmax_sum"), top1)
            results[job.key] = replace(result_of(job, machine=machine), metrics=metrics)
    return fill(spec, plan, with_trainings(*results.values()))


@pytest.fixture(scope="module")
def figure1() -> Spec:
    return Catalog().find(["figure1"])[0]


def drawn(table: Table) -> tuple[Figure, Axes]:
    with mpl.rc_context(PAPER.rc):
        figure = points_figure(table)
        figure.draw_without_rendering()
    (axes,) = figure.axes
    return figure, axes


def labels(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def overlapping(boxes: Mapping[str, Bbox]) -> list[tuple[str, str]]:
    return [(item, other) for item, other in combinations(boxes, 2) if boxes[item].overlaps(boxes[other])]


def laptop(v100: float) -> float:
    return 0.02 * v100


def nearly_the_same(v100: float) -> float:
    return 1.04 * v100


def h200(v100: float) -> float:
    return 1.7 * v100 if v100 > 500 else 1.2 * v100  # so the clouds lie over each other


CLOUDS = [(LAPTOP, laptop), (V100, nearly_the_same), (H200, h200)]


# What is drawn.


@pytest.mark.parametrize(("machine", "speed"), CLOUDS, ids=["laptop", "V100", "H200"])
def test_labels_overlap_neither_each_other_nor_a_point_nor_the_edge(
    figure1: Spec, machine: Machine, speed: Callable[[float], float]
) -> None:
    throughputs = {row: speed(value) for row, value in ON_V100.items()}
    figure, axes = drawn(filled(figure1, throughputs, machine=machine))
    named = {f"{label.get_text()} {number}": label.get_window_extent() for number, label in enumerate(labels(axes))}
    assert len(named) == 28  # 14 published points and 14 of ours
    assert overlapping(named) == []
    frame = axes.get_window_extent()
    assert [name for name, box in named.items() if not (frame.x0 <= box.x0 and box.x1 <= frame.x1)] == []
    assert [name for name, box in named.items() if not (frame.y0 <= box.y0 and box.y1 <= frame.y1)] == []
    half = 3 * figure.dpi / 72  # a marker is 6 points wide
    points = [axes.transData.transform(point) for line in axes.lines for point in np.asarray(line.get_xydata())]
    markers = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points]
    assert [name for name, box in named.items() if any(box.overlaps(marker) for marker in markers)] == []


def test_labels_do_not_lie_on_the_lines(figure1: Spec) -> None:
    measured = {row.key: 0.5 + row_number / 10 + 80 for row_number, row in enumerate(figure1.rows)}
    throughputs = {row: h200(value) for row, value in ON_V100.items()}
    for accuracies in (None, measured):
        _, axes = drawn(filled(figure1, throughputs, machine=H200, accuracies=accuracies))
        for label in labels(axes):
            box = label.get_window_extent()
            for line in axes.lines:
                path = line.get_transform().transform_path(line.get_path())
                assert not path.intersects_bbox(box, filled=False), label.get_text()


def points(axes: Axes, *, hollow: bool) -> set[tuple[float, float]]:
    lines = [line for line in axes.lines if (line.get_markerfacecolor() == "white") is hollow]
    pairs = [pair for line in lines for pair in np.asarray(line.get_xydata()).tolist()]
    return {(round(x, 4), y) for x, y in pairs}


def test_every_published_and_every_measured_row_is_drawn(figure1: Spec) -> None:
    throughputs = {row: laptop(value) for row, value in ON_V100.items() if row != "deit_s"}
    _, axes = drawn(filled(figure1, throughputs))
    published = {(ON_V100[row.key], figure1.cell(row.key, "top1").published) for row in figure1.rows}
    assert points(axes, hollow=True) == {(x, y.value) for x, y in published if y}
    assert len(points(axes, hollow=False)) == 13
    assert points(axes, hollow=False) == {(round(0.02 * x, 4), y) for x, y in points(axes, hollow=True) if x != 940.4}


def test_a_measured_accuracy_takes_the_place_of_the_published_one(figure1: Spec) -> None:
    _, axes = drawn(filled(figure1, {"deit_b": 100.0}, accuracies={"deit_b": 81.846}))
    assert points(axes, hollow=False) == {(100.0, 81.846)}


def test_points_are_named_without_what_the_legend_says(figure1: Spec) -> None:
    _, axes = drawn(filled(figure1, {}))
    assert {label.get_text() for label in labels(axes)} == {
        *("ViT-L", "ViT-B", "B0", "B1", "B2", "B3", "B4", "B7"),
        *("DeiT-S", "DeiT-B", "DeiT-B↑384", "DeiT-S⚗", "DeiT-B⚗", "DeiT-B⚗↑384"),
    }


def test_families_differ_in_colour_and_in_marker(figure1: Spec) -> None:
    throughputs = {row: laptop(value) for row, value in ON_V100.items()}
    _, axes = drawn(filled(figure1, throughputs))
    styles = {(to_hex(line.get_color()), str(line.get_marker())) for line in axes.lines}
    assert len(styles) == 4
    assert len({color for color, _ in styles}) == 4
    assert len({marker for _, marker in styles}) == 4


def test_the_legend_names_families_and_machines(figure1: Spec) -> None:
    families = ["EfficientNet", "ViT", "DeiT", "DeiT⚗"]
    assert legend_of(drawn(filled(figure1, {}))[0]) == [*families, "published (V100 16GB)"]
    assert legend_of(drawn(filled(figure1, ON_V100, machine=H200))[0]) == [
        *families,
        "published (V100 16GB)",
        "measured (NVIDIA H200 140 GiB)",
    ]


def test_the_axes_are_the_specs_with_speed_on_a_log_scale(figure1: Spec) -> None:
    figure, axes = drawn(filled(figure1, ON_V100))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlabel() == "throughput (im/s), log scale"
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    assert figure.get_suptitle().splitlines()[0] == TITLE


# The remark about what was not measured.

ALL = dict.fromkeys(ON_V100, 80.0)
# The spec says of these two that there are no public weights to evaluate, and has no recipe to train them.
WITH_WEIGHTS = sorted(set(ON_V100) - {"vit_l16_384", "vit_b16_384"})


@pytest.mark.parametrize(
    ("throughputs", "accuracies", "whose"),
    [
        ({}, {}, None),
        (ON_V100, {}, "all our points"),
        ({"deit_b": 1.0}, {}, "all our points"),
        (ON_V100, ALL, "2 of our 14 points"),
        (dict.fromkeys(WITH_WEIGHTS, 1.0), ALL, None),
        ({"deit_b": 1.0, "deit_s": 2.0}, {"deit_b": 81.8}, "1 of our 2 points"),
        ({"deit_b": 1.0}, {"deit_b": 81.8, "deit_s": 79.9}, None),
    ],
)
def test_borrowed_accuracies_are_owned_up_to(
    figure1: Spec, throughputs: dict[str, float], accuracies: dict[str, float], whose: str | None
) -> None:
    figure, _ = drawn(filled(figure1, throughputs, accuracies=accuracies))
    title = f"{TITLE}\n{REMARK.format('top-1 accuracy', whose)}" if whose else TITLE
    assert figure.get_suptitle() == title


# Rows without a published value.

MINE = """
[table]
title = "Mine"
x = "speed"
y = "params"
[source.paper]
kind = "paper"
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "V100 16GB"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
[row.one]
label = "One"
set = { model = "one", res = 224 }
paper = { speed = 100, params = 12 }
[row.two]
label = "Two"
set = { model = "two", res = 224 }
"""


def test_a_row_that_nobody_published_is_drawn_once_both_its_values_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    throughputs = {job.key: result_of(job, value=50.0) for job in plan.jobs if job.kind == "throughput"}
    counts = {job.key: result_of(job, value=7.0) for job in plan.jobs if job.kind == "count"}
    figure, axes = drawn(fill(spec, plan, throughputs))
    assert points(axes, hollow=True) == {(100.0, 12.0)}
    assert points(axes, hollow=False) == {(50.0, 12.0)}
    assert figure.get_suptitle() == f"mine. Mine\n{REMARK.format('#param.', 'all our points')}"
    figure, axes = drawn(fill(spec, plan, {**throughputs, **counts}))
    assert points(axes, hollow=False) == {(50.0, 7.0)}
    assert [label.get_text() for label in labels(axes)].count("Two") == 1
    assert figure.get_suptitle() == "mine. Mine"


def test_a_long_name_at_the_edge_stays_inside(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    name = "A model with quite a long name"
    path.write_text(MINE.replace('label = "Two"', f'label = "{name}"'), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    results = {job.key: result_of(job, value=300.0 if job["model"] == "two" else 100.0) for job in plan.jobs}
    _, axes = drawn(fill(spec, plan, results))
    (label,) = (label for label in labels(axes) if label.get_text() == name)
    assert label.get_window_extent().x1 <= axes.get_window_extent().x1


# Other columns, and fronts.


def table5_of(*columns: str, results: bool = True) -> Table:
    spec = with_axes(Catalog().find(["table5"])[0], *columns)
    store = Store(REFERENCE if results else REFERENCE / "none")
    (table,) = judged_tables([spec], Options(columns=columns), store, None).tables
    return table


def test_any_two_columns_are_drawn_with_their_units() -> None:
    figure, axes = drawn(table5_of("params", "throughput"))
    assert axes.get_xlabel() == "#param. (M), log scale"
    assert axes.get_ylabel() == "throughput (im/s), log scale"
    assert sum(len(np.asarray(line.get_xdata())) for line in axes.lines) == 64  # 32 rows, published and measured
    assert (11.6895, 63.0557) in {(x, round(y, 4)) for x, y in points(axes, hollow=False)}  # ResNet-18
    assert legend_of(figure)[-2:] == ["published (V100 16GB)", "measured (Intel Xeon Processor, 2 cores)"]


def test_an_axis_is_logarithmic_over_more_than_a_decade_unless_it_has_shares() -> None:
    _, axes = drawn(table5_of("params", "top1"))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    _, axes = drawn(table5_of("top1", "real", results=False))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    table8 = with_axes(Catalog().find(["table8"])[0], "pretrained", "finetuned")
    _, axes = drawn(fill(table8, make_plan([table8]), {}))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")  # from 3.4 to 81.9 %


def test_a_throughput_that_was_not_measured_is_not_borrowed(figure1: Spec) -> None:
    turned = replace(figure1, axes=("top1", "throughput"))
    figure, axes = drawn(filled(turned, {"deit_b": 9.0}, accuracies={"deit_b": 81.8, "deit_s": 79.9}))
    assert points(axes, hollow=False) == {(81.8, 9.0)}  # and not DeiT-S at the 940 im/s of another machine
    assert figure.get_suptitle() == TITLE
    figure, axes = drawn(filled(turned, {"deit_b": 9.0}))
    assert points(axes, hollow=False) == {(81.8, 9.0)}
    assert figure.get_suptitle() == f"{TITLE}\n{REMARK.format('top-1 accuracy', 'all our points')}"


def test_rows_without_both_values_are_counted() -> None:
    figure, _ = drawn(table5_of("top1", "real", results=False))
    assert figure.get_supxlabel().splitlines()[0].startswith("4 of 32 rows have no value on one of the axes.")


@pytest.mark.parametrize(
    ("table", "x", "y", "sentence"),
    [
        (
            "table5",
            "throughputs",
            "top1",
            (
                "--x throughputs: the columns of numbers of 'table5' are "
                "params, res, throughput, top1, real, v2, top5, macs; did you mean 'throughput'?"
            ),
        ),
        ("table8", "pretrained", "mixup", "--y mixup: the columns of numbers of 'table8' are pretrained, finetuned"),
        (
            "table8",
            "pretrained",
            None,
            "--x pretrained: name a column with --y too; the columns of numbers of 'table8' are pretrained, finetuned",
        ),
        (
            "table8",
            "pretrained",
            "pretrained",
            (
                "--x pretrained, --y pretrained: that is one column, so every point lies on a line; "
                "the columns of numbers of 'table8' are pretrained, finetuned"
            ),
        ),
    ],
)
def test_a_column_that_is_none_of_numbers_is_refused_with_those_there_are(
    table: str, x: str | None, y: str | None, sentence: str
) -> None:
    with pytest.raises(HarnessError) as refused:
        with_axes(Catalog().find([table])[0], x, y)
    assert str(refused.value) == sentence


def test_a_column_is_named_by_its_label_too_and_the_other_axis_stays(figure1: Spec) -> None:
    assert with_axes(Catalog().find(["table5"])[0], "#PARAM.", "ImNet top-1").axes == ("params", "top1")
    assert with_axes(figure1, None, "top1").axes == ("throughput", "top1")


def front_of(axes: Axes, linestyle: str) -> list[tuple[float, float]]:
    (line,) = [line for line in axes.lines if line.get_alpha() == 0.35 and line.get_linestyle() == linestyle]
    return [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]


def test_the_pareto_front_has_the_points_that_none_beats_on_both_axes(figure1: Spec) -> None:
    table = filled(figure1, {"deit_b": 9.0, "deit_s": 30.0, "efficientnet_b4": 8.0, "vit_b16_384": 40.0})
    with mpl.rc_context(PAPER.rc):
        figure, without = points_figure(table, pareto=True), points_figure(table)
    # B4 has 82.9 at 8 im/s, DeiT-B 81.8 at 9, DeiT-S 79.8 at 30, ViT-B 77.9 at 40: none beats another.
    assert front_of(figure.axes[0], "-") == [(8, 82.9), (9, 81.8), (30, 79.8), (40, 77.9)]
    published = front_of(figure.axes[0], "--")
    assert (85.8, 85.2) in published  # the most accurate, so nothing beats it
    assert not {(27.3, 76.5), (292.3, 81.8)} & set(published)  # DeiT⚗ beats ViT-L and DeiT-B
    assert legend_of(figure)[-2:] == ["Pareto front, published", "Pareto front, measured"]
    assert [line for line in without.axes[0].lines if line.get_alpha() == 0.35] == []


def test_fewer_parameters_are_better_and_another_column_must_say_so(tmp_path: Path) -> None:
    with mpl.rc_context(PAPER.rc):
        front = front_of(points_figure(table5_of("params", "top1", results=False), pareto=True).axes[0], "--")
    assert [y for _, y in front] == sorted(y for _, y in front)
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    spec = load(tmp_path / "mine.toml")
    with pytest.raises(HarnessError) as refused:
        points_figure(fill(spec, make_plan([spec]), {}), pareto=True)
    assert str(refused.value) == (
        "--pareto: 'mine' does not say which way 'speed' is better; "
        f'write better = "higher" or "lower" under [column.speed] of {spec.path}'
    )
    with pytest.raises(HarnessError, match=r"^--pareto: a chart of runs has no Pareto front; leave it out, or name"):
        draw(table5_of("params", "throughput"), tmp_path / "x.png", chart="runs", pareto=True)


def test_trainings_at_a_small_scale_are_not_among_published_points_and_the_figure_says_so(table8: Spec) -> None:
    spec = with_axes(table8, "pretrained", "finetuned")
    plan = make_plan([spec], Options(train=True, scale="proxy", seeds=1))
    jobs = [planned.job for planned in plan.cells_in(spec).values() if planned.job]
    top1 = {"top1": Measurement(unit="%", value=70.0)}
    table = fill(spec, plan, with_trainings(*(replace(result_of(job), metrics=top1) for job in jobs)))
    figure, axes = drawn(table)
    sentence = "13 of our 13 points are not comparable and not drawn: trained at the proxy scale instead of the"
    assert sentence in " ".join(figure.get_supxlabel().split())
    assert points(axes, hollow=False) == set()
    with pytest.raises(HarnessError, match=f"^{sentence}"):
        points_figure(table, points="ours")


# One side alone.


def test_the_paper_s_figure_is_drawn_from_either_side(figure1: Spec) -> None:
    throughputs = {row: laptop(value) for row, value in ON_V100.items() if row != "deit_s"}
    table = filled(figure1, throughputs)
    both = drawn(table)[1]
    with mpl.rc_context(PAPER.rc):
        alone = [points_figure(table, points=points) for points in ("ours", "published")]
    ours, published = (figure.axes[0] for figure in alone)
    assert points(ours, hollow=True) == points(published, hollow=True) == set()
    assert points(ours, hollow=False) == points(both, hollow=False)
    assert points(published, hollow=False) == points(both, hollow=True)
    assert legend_of(alone[1])[-1] == "published (V100 16GB)"
    assert legend_of(alone[0])[-1] == "measured (Some Processor, 4 cores)"


def test_nothing_of_ours_cannot_be_drawn_alone(figure1: Spec) -> None:
    with pytest.raises(HarnessError) as refused:
        points_figure(filled(figure1, {}), points="ours")
    assert str(refused.value) == (
        "nothing of 'figure1' was measured yet, so there is nothing of ours to draw; run `harness reproduce figure1`, "
        "or draw the paper's with --points published"
    )


# Figure 3.


@pytest.fixture(scope="module")
def figure3() -> Spec:
    return Catalog().find(["figure3"])[0]


def trained(spec: Spec, accuracies: Mapping[tuple[str, str], float], **facts: object) -> Table:
    plan = make_plan([spec])
    results = {}
    for place, value in accuracies.items():
        job = plan.cells_in(spec)[place].job
        assert job
        metrics = {"top1": Measurement(unit="%", value=value)}
        results[job.key] = with_facts(replace(result_of(job), metrics=metrics), **facts)
    return fill(spec, plan, with_trainings(*results.values()))


def by_epochs(axes: Axes, *, hollow: bool) -> list[list[tuple[float, float]]]:
    lines = [line for line in axes.lines if (line.get_markerfacecolor() == "white") is hollow]
    return [[(x, y) for x, y in np.asarray(line.get_xydata()).tolist()] for line in lines]


def test_figure_3_has_a_line_a_row_over_the_epochs_of_the_columns(figure3: Spec) -> None:
    (axes,) = epochs_figure(trained(figure3, {})).axes
    assert by_epochs(axes, hollow=True) == [
        [(300, 82.2), (500, 82.2), (800, 82.2), (1000, 82.2)],
        [(300, 81.8), (500, 82.2), (800, 81.6), (1000, 81.8)],
        [(300, 83.0), (500, 83.8), (800, 84.1), (1000, 84.1)],
        [(300, 83.4), (500, 84.1), (800, 84.2), (1000, 84.2)],
        [(300, 84.5), (500, 84.9), (800, 85.1), (1000, 85.2)],
    ]
    assert by_epochs(axes, hollow=False) == []
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["300", "500", "800", "1000"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs", "accuracy (% top-1)")
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 5


def test_trainings_of_one_length_at_two_sizes_are_two_lines(tmp_path: Path) -> None:
    columns = "".join(
        f'[column.c{res}_{epochs}]\nlabel = "at {res}"\njob = "train"\nmetric = "top1"\nunit = "%"\n'
        f'set = {{ epochs = {epochs}, recipe = "deit-b", model = "deit_base_patch16_224", res = {res} }}\n'
        for res in (224, 384)
        for epochs in (100, 102, 300)
    )
    published = ", ".join(f"c{res}_{e} = {v}" for res, v in ((224, 80), (384, 95)) for e in (100, 102, 300))
    head, row = '[table]\ntitle = "T"\n[source.paper]\nkind = "paper"\ncite = "us"\n', '[row.b]\nlabel = "B"\n'
    (tmp_path / "mine.toml").write_text(f"{head}{columns}{row}paper = {{ {published} }}", encoding="utf-8")
    spec = load(tmp_path / "mine.toml")
    figure = epochs_figure(fill(spec, make_plan([spec]), {}))
    assert by_epochs(figure.axes[0], hollow=True) == [
        [(100, 80), (102, 80), (300, 80)],
        [(100, 95), (102, 95), (300, 95)],
    ]
    assert legend_of(figure) == ["B, at 224", "B, at 384", "published"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "", "300"]


def test_our_trainings_are_filled_over_the_published_points(figure3: Spec) -> None:
    table = trained(figure3, {("hard_distillation", "e500"): 83.6, ("hard_distillation", "e300"): 83.1})
    (axes,) = epochs_figure(table).axes
    assert by_epochs(axes, hollow=False) == [[(300, 83.1), (500, 83.6)]]
    assert len(by_epochs(axes, hollow=True)) == 5
    alone = epochs_figure(table, points="ours")
    assert by_epochs(alone.axes[0], hollow=False) == [[(300, 83.1), (500, 83.6)]]
    assert by_epochs(alone.axes[0], hollow=True) == []
    assert legend_of(alone) == ["Hard distillation", "measured"]


def test_a_training_on_other_images_is_not_drawn_and_the_figure_says_so(figure3: Spec) -> None:
    images = {"whole": False, "said": "10 of the 50,000 images of ImageNet"}
    table = trained(figure3, {("hard_distillation", "e500"): 40.0}, images=images)
    figure = epochs_figure(table)
    assert by_epochs(figure.axes[0], hollow=False) == []
    assert " ".join(figure.get_supxlabel().split()) == (
        "1 of our 1 values are not comparable and not drawn: measured on 10 of the 50,000 images of ImageNet."
    )
    with pytest.raises(HarnessError, match=r"^nothing of 'figure3' was measured yet"):
        epochs_figure(table, points="ours")


# Throughputs: every run, and over the published ones.


@pytest.fixture(scope="module")
def table5() -> Table:
    (table,) = judged_tables(Catalog().find(["table5"]), None, Store(REFERENCE), None).tables
    return table


def spread(job: Job, seconds: tuple[float, ...]) -> Result:
    result = result_of(job)
    speed = Measurement(
        unit="im/s", value=4 * len(seconds) / sum(seconds), low=90.0, high=110.0, samples=seconds, sample_unit="s"
    )
    return replace(result, metrics={"throughput": speed})


def test_each_run_is_drawn_as_a_share_of_the_mean(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    spec = load(tmp_path / "mine.toml")
    plan = make_plan([spec])
    jobs = [job for job in plan.jobs if job.kind == "throughput"]
    # Four images in 40 and in 60 ms: 100 and 66.7 im/s, 80 together, which is 125 and 83.3 %.
    table = fill(spec, plan, {job.key: spread(job, (0.04, 0.06)) for job in jobs})
    throughputs = timed_runs(table.cell("one", "speed"))
    assert list(throughputs.shares) == pytest.approx([1.25, 5 / 6])
    assert (throughputs.low, throughputs.high) == (90 / 80, 110 / 80)
    (axes,) = runs_figure(table).axes
    dots = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[pytest.approx(1.25), pytest.approx(5 / 6)]] * 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["One", "Two"]
    ratios = ratios_figure(table).axes[0]
    assert [label.get_text() for label in ratios.get_yticklabels()] == ["One"]  # nobody published the other
    assert throughput_ratio(table.cell("one", "speed")) == (0.8, 0.9, 1.1)
    said = "1 of the 2 measured throughputs have no published value and are not drawn."
    assert ratios_figure(table).get_supxlabel() == said


def test_a_throughput_of_one_run_is_drawn_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    spec = load(tmp_path / "mine.toml")
    plan = make_plan([spec])
    jobs = [job for job in plan.jobs if job.kind == "throughput"]
    table = fill(spec, plan, {job.key: spread(job, (0.04,)) for job in jobs})
    for chart, rows in ((runs_figure, ["One", "Two"]), (ratios_figure, ["One"])):
        labels = chart(table).axes[0].get_yticklabels()
        assert [label.get_text() for label in labels] == rows
        assert all(label.get_fontsize() == PAPER.small for label in labels)


def test_a_screen_has_the_strips_that_can_be_read_and_says_how_many_it_has_not(tmp_path: Path) -> None:
    rows = "".join(f'[row.r{n}]\nlabel = "{n}"\nset = {{ model = "m{n}", res = 224 }}\n' for n in range(58))
    (tmp_path / "mine.toml").write_text(MINE + rows, encoding="utf-8")
    spec = load(tmp_path / "mine.toml")
    plan = make_plan([spec])
    table = fill(spec, plan, {job.key: result_of(job) for job in plan.jobs if job.kind == "throughput"})
    screen, page = runs_figure(table, SLIDES), runs_figure(table, PAPER)
    assert (len(screen.axes[0].get_yticks()), len(page.axes[0].get_yticks())) == (50, 60)
    assert screen.get_supxlabel() == "10 of 60 throughputs have no room and are not drawn."
    assert page.get_supxlabel() == ""


def test_rows_that_share_a_job_show_the_same_runs_each_and_the_figure_says_so(table5: Table) -> None:
    runs, ratios = runs_figure(table5), ratios_figure(table5)
    assert (len(runs.axes[0].get_yticks()), len(ratios.axes[0].get_yticks())) == (32, 32)
    names = [label.get_text() for label in runs.axes[0].get_yticklabels()]
    assert names == [row.label for row in table5.spec.rows]
    assert runs.get_supxlabel() == "6 of the 32 strips show the runs of another one: their rows share a measurement."
    assert ratios.get_supxlabel() == ""


def test_ratios_stand_family_by_family_with_a_wrong_value_hollow_and_left_out_of_the_median(table5: Table) -> None:
    (axes,) = ratios_figure(table5).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    (wrong,) = hollow
    assert names[int(np.asarray(wrong.get_ydata())[0])] == "EfficientNet-B5 RA"
    families = [str(row.family) for name in names for row in table5.spec.rows if row.label == name]
    assert families == sorted(families, key=list(table5.spec.families).index)
    # ResNets: 63.06/4458.4, 23.05/1226.1, 12.16/753.6 and 10.56/526.4; the middle of the second and the third.
    bars = [line for line in axes.lines if line.get_alpha() == 0.35]
    assert np.asarray(bars[0].get_xdata())[0] == pytest.approx((0.01880 + 0.01614) / 2, abs=1e-5)
    assert len(bars) == 6
    rights = [row.key for row in table5.spec.rows if row.family == "efficientnet" and row.key != "efficientnet_b5_ra"]
    ratios = [throughput_ratio(table5.cell(row, "throughput"))[0] for row in rights]
    assert (len(ratios), np.asarray(bars[2].get_xdata())[0]) == (10, np.median(ratios))


@pytest.mark.parametrize("chart", [runs_figure, ratios_figure])
def test_speeds_that_were_not_measured_are_not_drawn(figure1: Spec, chart: Callable[[Table], Figure]) -> None:
    with pytest.raises(HarnessError) as refused:
        chart(filled(figure1, {}))
    assert str(refused.value) == (
        "no throughput of 'figure1' was measured yet; run `harness reproduce figure1 --throughput-only`"
    )


# Which figure a table gives, and for whom.


def test_a_table_says_which_figures_it_gives() -> None:
    actual = {
        name: available_charts(Catalog().find([name])[0]) for name in ("figure1", "figure3", "text", "table5", "table6")
    }
    assert actual == {
        "figure1": ("points", "runs", "ratios", "curves", "losses", "trend"),
        "figure3": ("epochs", "curves", "losses", "trend"),
        "text": ("layers", "trend"),
        "table5": ("runs", "ratios", "curves", "losses", "trend"),
        "table6": ("trend",),
    }
    assert select_chart(Catalog().find(["figure1"])[0], "ratios") == "ratios"
    with pytest.raises(HarnessError, match=r"^--chart runs: 'table6' has no data for that; it can be drawn as trend$"):
        select_chart(Catalog().find(["table6"])[0], "runs")


def test_every_name_of_the_command_line_is_drawn(
    tmp_path: Path, table5: Table, figure1: Spec, figure3: Spec, table8: Spec
) -> None:
    assert tuple(STYLES) == STYLE_NAMES
    tables = {"points": filled(figure1, ON_V100), "epochs": trained(figure3, {}), "runs": table5, "ratios": table5}
    tables |= dict.fromkeys(("curves", "losses"), taught(table8, {("dropout", "pretrained"): THREE}))
    assert {*tables, "layers", "trend"} == set(CHARTS)
    for style in STYLE_NAMES:
        for chart, table in tables.items():
            draw(table, tmp_path / f"{chart}-{style}.svg", chart=chart, style=style)
    for shown in POINTS:
        draw(tables["points"], tmp_path / f"{shown}.svg", points=shown)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 2 * 6 + 3 - 1  # `both` is what is usual


def test_slides_fill_a_screen_with_type_of_twice_the_size(figure1: Spec) -> None:
    with mpl.rc_context(SLIDES.rc):
        figure = points_figure(filled(figure1, ON_V100), SLIDES)
        width, height = figure.get_size_inches() * SLIDES.dpi
        assert (round(width / 10), round(height)) == (192, 1080)
        (legend,) = figure.legends
    assert {text.get_fontsize() for text in legend.get_texts()} == {15}


def test_labels_do_not_overlap_on_slides_either(figure1: Spec) -> None:
    with mpl.rc_context(SLIDES.rc):
        figure = points_figure(filled(figure1, {row: laptop(v) for row, v in ON_V100.items()}), SLIDES)
        figure.draw_without_rendering()
    (axes,) = figure.axes
    named = {f"{label.get_text()} {number}": label.get_window_extent() for number, label in enumerate(labels(axes))}
    assert len(named) == 28
    assert overlapping(named) == []


# Colours.

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as one without one kind of cones sees it.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}


def seen(color: str, matrix: list[list[float]]) -> np.ndarray:
    """CIE Lab of a colour, D65, after the matrix."""
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    r = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ r
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", BLIND)
def test_colours_are_told_apart_whatever_cones_one_has(sight: str) -> None:
    apart = {
        (item, other): float(np.linalg.norm(seen(item, BLIND[sight]) - seen(other, BLIND[sight])))
        for item, other in combinations(COLORS, 2)
    }
    # Ten is five times what can just be told apart side by side.
    assert min(apart.values()) > 10, min(apart, key=apart.__getitem__)
    assert all(np.linalg.norm(seen(color, BLIND[sight]) - seen("#ffffff", BLIND[sight])) > 25 for color in COLORS)


def test_49_lines_differ_in_colour_or_marker() -> None:
    assert len({line_style(number) for number in range(49)}) == 49
    assert len(COLORS) == len(MARKERS) == 7


# Names.


def test_no_name_is_a_formula_or_pushes_the_drawing_aside(tmp_path: Path) -> None:
    nasty = r"<b>x</b> $\\frac{ $ & " + 60 * "long "
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace('"One"', f'"{nasty}"').replace('"Mine"', f'"{nasty}"'), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    table = fill(spec, plan, {job.key: result_of(job, value=50.0) for job in plan.jobs})
    for chart in ("points", "runs", "ratios"):
        draw(table, tmp_path / f"{chart}.png", chart=chart)
    with mpl.rc_context(PAPER.rc):
        (axes,) = ratios_figure(table).axes
    (label,) = axes.get_yticklabels()
    assert label.get_text() == r"<b>x</b> $\frac{ $ & long long long long long l…"
    assert axes.get_position().width > 0.3


# Files.


@pytest.mark.parametrize(
    ("suffix", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_the_same_results_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure1: Spec, suffix: str, begins: bytes
) -> None:
    table = filled(figure1, {row: laptop(value) for row, value in ON_V100.items()})
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    draw(table, tmp_path / f"one.{suffix}")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # would be the date in the file if there were one
    draw(table, tmp_path / f"two.{suffix}")
    one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
    assert one.startswith(begins)
    assert one == two


def test_other_results_give_other_bytes(tmp_path: Path, figure1: Spec) -> None:
    draw(filled(figure1, {"deit_b": 100.0}), tmp_path / "one.svg")
    draw(filled(figure1, {"deit_b": 200.0}), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "two.svg").read_bytes()


def test_missing_folders_are_made(tmp_path: Path, figure1: Spec) -> None:
    draw(filled(figure1, {}), tmp_path / "new" / "folder" / "figure1.svg")
    assert (tmp_path / "new" / "folder" / "figure1.svg").stat().st_size > 0


@pytest.mark.parametrize("name", ["figure1.jpg", "figure1", "figure1.svg.gz"])
def test_another_suffix_is_refused(tmp_path: Path, figure1: Spec, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(HarnessError) as refused:
        draw(filled(figure1, {}), path)
    assert str(refused.value) == f"-o {path}: a figure is written as .png, .svg, .pdf; choose one by the suffix"
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, figure1: Spec) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(HarnessError) as refused:
        draw(filled(figure1, {}), tmp_path / "folder.png")
    assert str(refused.value) == f"-o {tmp_path}/folder.png: Is a directory; name another file"


# Trainings: every epoch of every seed.


def taught(spec: Spec, histories: Mapping[tuple[str, str], list[list[float]]]) -> Table:
    """Fill cells with trainings at the proxy scale, one history of top-1 a seed."""
    plan = make_plan([spec], Options(train=True, scale="proxy"))
    results = {}
    for place, seeds in histories.items():
        planned = plan.cells_in(spec)[place]
        assert planned.job
        for job, values in zip((planned.job, *planned.repeats), seeds, strict=True):
            training = job.need("weights")
            assert training
            history = [{"epoch": epoch, "top1": top1, "loss": 2.0} for epoch, top1 in enumerate(values, 1)]
            results[training.key] = replace(result_of(training), facts={"history": history})
    return fill(spec, plan, results)


@pytest.fixture(scope="module")
def table8() -> Spec:
    return Catalog().find(["table8"])[0]


THREE = [[10.0, 40.0], [20.0, 50.0], [30.0, 90.0]]


def test_each_seed_is_drawn_thin_and_their_mean_bold(table8: Spec) -> None:
    (panel,) = curves_figure(taught(table8, {("dropout", "pretrained"): THREE})).axes
    drawn = sorted((line.get_linewidth(), np.asarray(line.get_xydata()).tolist()) for line in panel.lines)
    assert [points for _, points in drawn] == [
        [[1, 10], [2, 40]],
        [[1, 20], [2, 50]],
        [[1, 30], [2, 90]],
        [[1, 20], [2, 60]],  # by hand
    ]
    assert drawn[-1][0] > drawn[-2][0]
    assert panel.get_title(loc="left") == "Dropout"


def test_the_default_row_is_dotted_into_the_panels_of_the_others(table8: Spec) -> None:
    both = {("none", "pretrained"): THREE, ("dropout", "pretrained"): [[1.0, 2.0]] * 3}
    default, other = curves_figure(taught(table8, both)).axes
    dotted = [np.asarray(line.get_xydata()).tolist() for line in other.lines if line.get_linestyle() == ":"]
    assert dotted == [[[1, 20], [2, 60]]]
    assert all(line.get_linestyle() == "-" for line in default.lines)
    # The row of another optimiser for fine-tuning has the default row's pre-training, and shares its panel.
    assert default.get_title(loc="left") == "none: DeiT-B, fine-tuning SGD"


def test_curves_say_what_was_trained_and_stay_apart_from_it(table8: Spec) -> None:
    figure = curves_figure(taught(table8, {("dropout", "pretrained"): THREE}))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert figure.get_suptitle().endswith("\ntrained on digits at the proxy scale, 3 seeds")
    drawn = figure.axes[0].get_tightbbox()
    assert drawn
    assert legend.get_window_extent().y1 <= drawn.y0


def test_what_was_not_trained_has_no_curves(table8: Spec) -> None:
    with pytest.raises(HarnessError, match=r"^nothing of 'table8' was trained at the proxy scale; name another"):
        curves_figure(taught(table8, {}))


def test_fine_tuning_follows_the_pre_training_that_it_starts_from(table8: Spec) -> None:
    both = {("none", "pretrained"): THREE, ("none", "finetuned"): [[60.0, 70.0]] * 3}
    figure = curves_figure(taught(table8, both))
    panel = figure.axes[0]
    bold = [line for line in panel.lines if line.get_linewidth() == 1.3 * PAPER.line]
    drawn = [np.asarray(line.get_xydata()).tolist() for line in bold]
    assert drawn == [[[1, 20], [2, 60]], [[46, 60], [47, 70]]]  # 45 epochs of pre-training at the proxy scale
    assert legend_of(figure) == ["pre-trained 224²", "fine-tuned 384²", "each seed", "the default row"]
    assert figure.get_supxlabel() == "Epochs of fine-tuning follow those of pre-training."


def test_a_row_of_fine_tuning_alone_shows_what_it_starts_from() -> None:
    (spec,) = Catalog().find(["table10"])
    plan = make_plan([spec], Options(train=True, scale="proxy", seeds=1))
    (tuned,) = (job for job in plan.all_jobs if job.kind == "train" and job.need("start") and job["res"] == 56)
    start = tuned.need("start")
    assert start
    results = {
        job.key: replace(
            result_of(job), facts={"history": [{"epoch": 1, "top1": top1}, {"epoch": 2, "top1": top1 + 1}]}
        )
        for job, top1 in ((start, 20.0), (tuned, 60.0))
    }
    alone = fill(replace(spec, rows=spec.rows[3:], default=None), plan, results)
    figure = curves_figure(alone)
    (panel,) = figure.axes
    assert [np.asarray(line.get_xydata()).tolist() for line in panel.lines] == [
        [[46, 60], [47, 61]],
        [[1, 20], [2, 21]],
    ]
    assert legend_of(figure) == ["Imagenet acc. top-1", "the pre-training"]
    # Where the default row is that pre-training, it is drawn once.
    figure = curves_figure(fill(spec, plan, results))
    assert legend_of(figure) == ["Imagenet acc. top-1", "the default row"]


def test_trainings_that_failed_are_counted(table8: Spec) -> None:
    table = taught(table8, {("dropout", "pretrained"): THREE, ("ema", "pretrained"): THREE})
    cells = {
        key: replace(cell, trainings=tuple(replace(each, error="NaN in step 3") for each in cell.trainings))
        if key == ("ema", "pretrained")
        else cell
        for key, cell in table.cells.items()
    }
    figure = curves_figure(replace(table, cells=cells))
    assert figure.get_supxlabel() == "3 of 6 trainings failed or kept no top1, and are not drawn."
    failed = {key: cell for key, cell in cells.items() if key == ("ema", "pretrained")}
    with pytest.raises(HarnessError) as refused:
        curves_figure(replace(table, cells=cells | {("dropout", "pretrained"): failed["ema", "pretrained"]}))
    assert str(refused.value) == (
        "every training of 'table8' at the proxy scale failed; "
        "`harness reproduce table8 --train --scale proxy` tries again"
    )


def test_a_column_named_by_its_epochs_says_how_many_a_small_scale_has(figure3: Spec) -> None:
    figure = curves_figure(taught(figure3, {("no_distillation", "e300"): THREE}))
    assert legend_of(figure) == ["300 epochs (45 here)", "each seed"]
