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
from harness.figure import STYLE, draw, figure_of
from harness.machine import Machine
from harness.plan import make_plan
from harness.result import Measurement
from harness.spec import Catalog, Spec, load
from harness.table import Table, fill
from tests.fakes import H200, LAPTOP, V100, result_of

REMARK = "The accuracy of {} is the published one: it was not measured."

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
    spec: Spec, speeds: Mapping[str, float], *, machine: Machine = LAPTOP, accuracies: Mapping[str, float] | None = None
) -> Table:
    plan = make_plan([spec])
    results = {}
    for (row, _), planned in plan.of(spec).items():
        job = planned.job
        if job is not None and job.kind == "throughput" and row in speeds:
            results[job.key] = result_of(job, machine=machine, value=speeds[row])
        if job is not None and job.kind == "evaluate" and accuracies and row in accuracies:
            top1 = Measurement(unit="%", value=accuracies[row])
            metrics = dict.fromkeys(("top1", "top1_softmax_sum"), top1)
            results[job.key] = replace(result_of(job, machine=machine), metrics=metrics)
    return fill(spec, plan, results)


@pytest.fixture(scope="module")
def figure1() -> Spec:
    return Catalog().find(["figure1"])[0]


def drawn(table: Table) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = figure_of(table)
        figure.draw_without_rendering()
    (axes,) = figure.axes
    return figure, axes


def labels(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def overlapping(boxes: Mapping[str, Bbox]) -> list[tuple[str, str]]:
    return [(one, other) for one, other in combinations(boxes, 2) if boxes[one].overlaps(boxes[other])]


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
    speeds = {row: speed(value) for row, value in ON_V100.items()}
    figure, axes = drawn(filled(figure1, speeds, machine=machine))
    named = {f"{label.get_text()} {number}": label.get_window_extent() for number, label in enumerate(labels(axes))}
    assert len(named) == 28  # 14 published points and 14 of ours
    assert overlapping(named) == []
    frame = axes.get_window_extent()
    assert [name for name, box in named.items() if not (frame.x0 <= box.x0 and box.x1 <= frame.x1)] == []
    assert [name for name, box in named.items() if not (frame.y0 <= box.y0 and box.y1 <= frame.y1)] == []
    half = 3 * figure.dpi / 72  # a marker is 6 points wide
    points = [axes.transData.transform(place) for line in axes.lines for place in np.asarray(line.get_xydata())]
    markers = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points]
    assert [name for name, box in named.items() if any(box.overlaps(marker) for marker in markers)] == []


def test_labels_do_not_lie_on_the_lines(figure1: Spec) -> None:
    measured = {row.key: 0.5 + row_number / 10 + 80 for row_number, row in enumerate(figure1.rows)}
    speeds = {row: h200(value) for row, value in ON_V100.items()}
    for accuracies in (None, measured):
        _, axes = drawn(filled(figure1, speeds, machine=H200, accuracies=accuracies))
        for label in labels(axes):
            box = label.get_window_extent()
            for line in axes.lines:
                path = line.get_transform().transform_path(line.get_path())
                assert not path.intersects_bbox(box, filled=False), label.get_text()


def points(axes: Axes, *, hollow: bool) -> set[tuple[float, float]]:
    lines = [line for line in axes.lines if (line.get_markerfacecolor() == "white") is hollow]
    places = [place for line in lines for place in np.asarray(line.get_xydata()).tolist()]
    return {(round(x, 4), y) for x, y in places}


def test_every_published_and_every_measured_row_is_drawn(figure1: Spec) -> None:
    speeds = {row: laptop(value) for row, value in ON_V100.items() if row != "deit_s"}
    _, axes = drawn(filled(figure1, speeds))
    published = {(ON_V100[row.key], figure1.cell(row.key, "top1").printed) for row in figure1.rows}
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
    speeds = {row: laptop(value) for row, value in ON_V100.items()}
    _, axes = drawn(filled(figure1, speeds))
    looks = {(to_hex(line.get_color()), str(line.get_marker())) for line in axes.lines}
    assert len(looks) == 4
    assert len({color for color, _ in looks}) == 4
    assert len({marker for _, marker in looks}) == 4


def test_the_legend_names_families_and_machines(figure1: Spec) -> None:
    def legend(table: Table) -> list[str]:
        found = drawn(table)[1].get_legend()
        assert found
        return [text.get_text() for text in found.get_texts()]

    families = ["EfficientNet", "ViT", "DeiT", "DeiT⚗"]
    assert legend(filled(figure1, {})) == [*families, "published (V100 16GB)"]
    assert legend(filled(figure1, ON_V100, machine=H200)) == [
        *families,
        "published (V100 16GB)",
        "measured (NVIDIA H200 140 GiB)",
    ]


def test_the_axes_are_the_specs_with_speed_on_a_log_scale(figure1: Spec) -> None:
    figure, axes = drawn(filled(figure1, ON_V100))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlabel() == "throughput (im/s), log scale"
    assert axes.get_ylabel() == "top-1 accuracy (% top-1)"
    assert figure.get_suptitle() == "Figure 1. Throughput and accuracy on ImageNet"


# The remark about what was not measured.

ALL = dict.fromkeys(ON_V100, 80.0)
# The spec says of these four that there are no public weights to evaluate.
WITH_WEIGHTS = sorted(set(ON_V100) - {"vit_l16_384", "vit_b16_384", "deit_s_dist_1000ep", "deit_b_dist_1000ep"})


@pytest.mark.parametrize(
    ("speeds", "accuracies", "whose"),
    [
        ({}, {}, None),
        (ON_V100, {}, "all our points"),
        ({"deit_b": 1.0}, {}, "all our points"),
        (ON_V100, ALL, "4 of our 14 points"),
        (dict.fromkeys(WITH_WEIGHTS, 1.0), ALL, None),
        ({"deit_b": 1.0, "deit_s": 2.0}, {"deit_b": 81.8}, "1 of our 2 points"),
        ({"deit_b": 1.0}, {"deit_b": 81.8, "deit_s": 79.9}, None),
    ],
)
def test_borrowed_accuracies_are_owned_up_to(
    figure1: Spec, speeds: dict[str, float], accuracies: dict[str, float], whose: str | None
) -> None:
    figure, _ = drawn(filled(figure1, speeds, accuracies=accuracies))
    assert figure.get_supxlabel() == (REMARK.format(whose) if whose else "")


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
    speeds = {job.key: result_of(job, value=50.0) for job in plan.jobs if job.kind == "throughput"}
    counts = {job.key: result_of(job, value=7.0) for job in plan.jobs if job.kind == "count"}
    figure, axes = drawn(fill(spec, plan, speeds))
    assert points(axes, hollow=True) == {(100.0, 12.0)}
    assert points(axes, hollow=False) == {(50.0, 12.0)}
    assert figure.get_supxlabel() == REMARK.format("all our points")
    figure, axes = drawn(fill(spec, plan, {**speeds, **counts}))
    assert points(axes, hollow=False) == {(50.0, 7.0)}
    assert [label.get_text() for label in labels(axes)].count("Two") == 1
    assert figure.get_supxlabel() == ""


def test_a_long_name_at_the_edge_stays_inside(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    name = "A network with quite a long name"
    path.write_text(MINE.replace('label = "Two"', f'label = "{name}"'), encoding="utf-8")
    spec = load(path)
    plan = make_plan([spec])
    results = {job.key: result_of(job, value=300.0 if job["model"] == "two" else 100.0) for job in plan.jobs}
    _, axes = drawn(fill(spec, plan, results))
    (label,) = (label for label in labels(axes) if label.get_text() == name)
    assert label.get_window_extent().x1 <= axes.get_window_extent().x1


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
