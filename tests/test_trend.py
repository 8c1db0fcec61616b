"""Cells over time: steps are found where they are and nowhere else, and a series is what may be compared."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats as scipy_stats

from harness.errors import HarnessError
from harness.figure.catalog import available_charts
from harness.figure.draw import draw
from harness.figure.style import PAPER, SLIDES, Style
from harness.figure.trend import trend_figure
from harness.judge.judged import judged_tables
from harness.judge.trend import TableTrend, Trend, find_trends
from harness.plan.job import CODE, Job
from harness.plan.plan import make_plan
from harness.report.trend import bars, render_trend, render_trend_json, render_trend_markdown
from harness.specs import Spec
from harness.stats import FALSE_STEPS, find_steps
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.commands import Command, run_harness
from tests.evaluations import result_of_evaluation
from tests.fakes import H200, IMAGES, LAPTOP, NOON
from tests.gating import job_of_kind, mine, options_of, save_accuracy, save_count, save_throughput

DAY = 24 * 60
FIRST = -30 * DAY  # long enough ago that no result is yet to come


@pytest.fixture
def harness(tmp_path: Path) -> Command:
    return partial(run_harness, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return mine(tmp_path)


def nights(store: Store, spec: Spec, throughputs: list[float], *, start: float = 0, **options: object) -> list[Result]:
    """Results of so many images a second, a night each."""
    return [
        save_throughput(store, spec, FIRST + int((start + night) * DAY), [4 / speed] * 30, **options)  # type: ignore[arg-type]
        for night, speed in enumerate(throughputs)
    ]


def trend_of(store: Store, spec: Spec, **options: object) -> TableTrend:
    settings = options_of(**options)
    (found,) = find_trends(make_plan([spec], settings), store.all_results(), settings)
    return found


def series(store: Store, spec: Spec, column: str = "speed", **options: object) -> list[Trend]:
    return [trend for trend in trend_of(store, spec, **options).trends if trend.cell.column.key == column]


def levels(trend: Trend) -> list[tuple[int, float | str]]:
    return [
        (len(level.points), level.value if isinstance(level.value, str) else round(level.value, 2))
        for level in trend.levels
    ]


# A little noise that is the same each time: it has no step of its own.
QUIET = [100.0, 101.0, 99.5, 100.5, 99.0, 100.0]


# Steps.


def best_by_trying(values: list[float], steps: int) -> list[int]:
    """The steps of the least scatter, by trying all."""

    def scatter(ends: Iterable[int]) -> float:
        return sum(float(np.var(values[i:j])) * (j - i) for i, j in pairwise((0, *ends, len(values))))

    fitting = (
        ends
        for ends in combinations(range(len(values)), steps)
        if all(j - i >= 3 for i, j in pairwise((0, *ends, len(values))))
    )
    return list(min(fitting, key=scatter))


def test_one_and_two_steps_are_where_the_scatter_is_least() -> None:
    draw_from = np.random.default_rng(7)
    for _ in range(20):
        one = [*draw_from.normal(0, 1, 8), *draw_from.normal(9, 1, 6)]
        assert [step.index for step in find_steps(one)] == best_by_trying(one, 1)
        two = [*draw_from.normal(0, 1, 6), *draw_from.normal(12, 1, 4), *draw_from.normal(0, 1, 6)]
        assert [step.index for step in find_steps(two)] == best_by_trying(two, 2)


def test_a_single_step_is_one_that_students_t_accepts_after_a_correction_for_its_places() -> None:
    accepted = rejected = 0
    for seed in range(60):
        draw_from = np.random.default_rng(seed)
        values = [*draw_from.normal(0, 1, 6), *draw_from.normal(2.8, 1, 6)]
        tested = (scipy_stats.ttest_ind(values[:place], values[place:]).pvalue for place in range(3, 10))
        significant = min(tested) * 7 <= FALSE_STEPS
        assert bool(find_steps(values)) == significant
        accepted, rejected = accepted + significant, rejected + (not significant)
    assert accepted > 5
    assert rejected > 5


def test_where_a_step_may_be_as_well_is_said() -> None:
    step = find_steps([0.0, 0.1, 0, 0.1, 0.5, 0, 1, 0.9, 1, 0.9, 1, 0.9, 1])[0]
    assert (step.earliest, step.index, step.latest) == (6, 6, 6)
    (step,) = find_steps([0.0, 0.1, 0, 0.1, 0, 0.5, 1, 0.9, 1, 0.9, 1, 0.9])
    assert (step.earliest, step.latest) == (5, 6)  # 0.5 belongs to neither


def test_values_without_noise_have_a_step_where_they_change_and_none_where_they_do_not() -> None:
    assert find_steps([5.0] * 30) == []
    assert [step.index for step in find_steps([5.0] * 4 + [6.0] * 3)] == [4]


def test_five_values_have_no_step_and_one_or_two_that_are_off_are_none() -> None:
    assert find_steps([1.0, 1, 1, 9, 9]) == find_steps([]) == find_steps([1.0]) == []
    assert find_steps([*QUIET, 50.0]) == find_steps([*QUIET, 50.0, 51.0]) == []


# All of them take seconds; ten times as many with `-m simulations`.
@pytest.mark.parametrize(("checks", "most"), [(300, 0), pytest.param(3000, 4, marks=pytest.mark.simulations)])
def test_of_300_unchanged_series_of_30_none_has_a_step(checks: int, most: int) -> None:
    draw_from = np.random.default_rng(20121)
    assert sum(bool(find_steps(draw_from.normal(0, 0.02, 30).tolist())) for _ in range(checks)) <= most


@pytest.mark.parametrize("checks", [100, pytest.param(1000, marks=pytest.mark.simulations)])
def test_a_step_of_5_percent_in_noise_of_2_is_found_where_it_is(checks: int) -> None:
    draw_from = np.random.default_rng(20121)
    right = near = 0
    for _ in range(checks):
        values = draw_from.normal(0, 0.02, 40)
        values[20:] += math.log(0.95)
        steps = find_steps(values.tolist())
        right += len(steps) == 1 and steps[0].earliest <= 20 <= steps[0].latest
        near += len(steps) == 1 and abs(steps[0].index - 20) <= 2
    assert right >= 0.95 * checks
    assert near >= 0.94 * checks


def test_a_loss_of_a_tenth_that_was_mended_is_two_steps() -> None:
    draw_from = np.random.default_rng(20121)
    both = 0
    for _ in range(100):
        values = draw_from.normal(0, 0.02, 30)
        values[10:20] -= 0.1
        both += [round(step.index, -1) for step in find_steps(values.tolist())] == [10, 20]
    assert both >= 95


# Series.


def test_a_throughput_that_fell_with_a_version_says_when_and_which(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, [speed / 1.2 for speed in QUIET], start=6, torch="2.16.0")
    (trend,) = series(store, spec)
    (change,) = trend.changes
    assert levels(trend) == [(6, 100.0), (6, 83.33)]
    assert change.versions == {"torch": ("2.15.0", "2.16.0")}
    assert change.difference == pytest.approx(100 / 1.2 - 100, rel=1e-4)
    assert (change.last_before.started - NOON).days == -25
    assert (change.first_after.started - NOON).days == -24


def test_the_band_holds_99_of_100_further_results(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    (level,) = series(store, spec)[0].levels
    logs = np.log(QUIET)
    half = scipy_stats.t.ppf(0.995, 5) * np.std(logs, ddof=1) * math.sqrt(1 + 1 / 6)
    assert (level.low, level.high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))


def test_a_step_of_less_than_1_percent_is_none_however_quiet_the_machine(store: Store, spec: Spec) -> None:
    nights(store, spec, [100.0] * 6 + [99.2] * 6)
    assert series(store, spec)[0].changes == ()
    nights(store, spec, [97.0] * 6, start=12)
    assert levels(series(store, spec)[0]) == [(12, 99.6), (6, 97.0)]


def test_machines_protocols_and_batch_sizes_are_series_of_their_own(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, [10 * speed for speed in QUIET], start=6, machine=H200)
    job = job_of_kind(spec, "throughput")
    modern = Job.of("throughput", {**dict(job.settings), "protocol": "modern", "batch": 8})
    nights(store, spec, [3 * speed for speed in QUIET], start=12, job=modern)
    found = {(trend.machine, trend.variant["protocol"], trend.variant["batch"]) for trend in series(store, spec)}
    assert found == {(LAPTOP, "paper", "4"), (H200, "paper", "4"), (LAPTOP, "modern", "8")}
    assert all(len(trend.points) == 6 and not trend.changes for trend in series(store, spec))
    assert [trend.variant["protocol"] for trend in series(store, spec, protocol="modern", batch=8)] == ["modern"]
    assert [trend.machine for trend in series(store, spec, machine="h200")] == [H200]


def test_the_code_of_an_own_model_changes_within_a_series(store: Store, spec: Spec) -> None:
    job = job_of_kind(spec, "throughput")
    for start, code in ((0, "one"), (6, "two")):
        changed = replace(job, settings=tuple(sorted({**dict(job.settings), CODE: code}.items())))
        nights(store, spec, [speed / (1 + start) for speed in QUIET], start=start, job=changed)
    ((change,),) = (trend.changes for trend in series(store, spec))
    assert change.versions == {CODE: ("one", "two")}


def test_results_of_an_older_method_are_counted_and_in_no_series(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, [50.0] * 3, start=6, job=replace(job_of_kind(spec, "throughput"), revision=1))
    found = trend_of(store, spec)
    assert found.retired == 3
    assert [len(trend.points) for trend in found.trends] == [6]


def test_noisy_results_are_shown_and_tell_nothing(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, [50.0] * 6, start=6, noisy=True)
    (trend,) = series(store, spec)
    assert [point.noisy for point in trend.points] == [False] * 6 + [True] * 6
    assert levels(trend) == [(6, 100.0)]


def test_failures_are_points_without_a_value(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET[:3])
    nights(store, spec, [1.0, 1.0], start=3, error="out of memory at batch 4")
    (trend,) = series(store, spec)
    assert [point.value is None for point in trend.points] == [False] * 3 + [True] * 2
    assert len(trend.failing) == 2
    nights(store, spec, QUIET[:1], start=5)
    assert series(store, spec)[0].failing == ()


def test_a_slower_reference_workload_is_the_machines_part(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET, reference_seconds=0.1)
    nights(store, spec, [speed / 1.2 for speed in QUIET], start=6, reference_seconds=0.13)
    ((change,),) = (trend.changes for trend in series(store, spec))
    assert change.slowdown == pytest.approx(0.3)
    assert change.versions == {}


def accuracies(hits: int) -> list[bool]:
    return [True] * hits + [False] * (10_000 - hits)


def test_an_accuracy_changes_when_it_is_another_one_by_more_than_its_tolerance(store: Store, spec: Spec) -> None:
    for day, hits in enumerate((7220, 7225, 7215, 7214, 7220)):  # 0.05 is within, 0.06 is not
        save_accuracy(store, spec, FIRST + day * DAY + 1, accuracies(hits), files=False)
    (trend,) = series(store, spec, "top1")
    assert levels(trend) == [(3, 72.2), (1, 72.14), (1, 72.2)]
    assert [round(change.difference or 0, 2) for change in trend.changes] == [-0.06, 0.06]


def test_other_images_or_weights_are_another_series(store: Store, spec: Spec) -> None:
    save_accuracy(store, spec, FIRST, accuracies(7220), files=False)
    save_accuracy(store, spec, FIRST + DAY, accuracies(7000), files=False, fingerprint="others")
    other = result_of_evaluation(
        job_of_kind(spec, "evaluate"),
        metrics={"top1": 60.0},
        images=IMAGES,
        weights={"sha256": "other", "file": "w.safetensors", "origin": "file"},
    )
    store.save(other)
    found = series(store, spec, "top1")
    assert [(len(trend.points), trend.changes) for trend in found] == [(1, ())] * 3
    assert {(trend.variant["images"], trend.variant["weights"]) for trend in found} == {
        ("f", "weights of tiny.w"),
        ("others", "weights of tiny.w"),
        ("f", "other"),
    }


def test_a_count_changes_with_any_difference(store: Store, spec: Spec) -> None:
    for day, value in enumerate((5.5, 5.5, 5.500001)):
        save_count(store, spec, FIRST + day * DAY + 2, value)
    assert levels(series(store, spec, "params")[0]) == [(2, 5.5), (1, 5.5)]


def test_text_changes_when_it_reads_otherwise(store: Store, spec: Spec) -> None:
    saved = [save_count(store, spec, FIRST + day * DAY) for day in range(3)]
    words = [
        replace(result, metrics={"params": Measurement(unit="", value=word)})
        for result, word in zip(saved, ("adamw", "adamw", "sgd"), strict=True)
    ]
    ((trend,),) = (table.trends for table in find_trends(make_plan([spec]), words))
    assert levels(trend) == [(2, "adamw"), (1, "sgd")]
    assert trend.changes[0].difference is None
    assert bars(trend) == "···"


def test_one_or_two_results_tell_nothing(store: Store, spec: Spec) -> None:
    nights(store, spec, [100.0, 50.0])
    (trend,) = series(store, spec)
    assert (trend.tells, trend.changes, trend.levels[0].low) == (False, (), None)


def test_only_selects_kinds_and_an_unknown_machine_is_refused(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    save_count(store, spec, FIRST + 2)
    only = trend_of(store, spec, only=frozenset({"count"}))
    assert [trend.cell.column.key for trend in only.trends] == ["params"]
    with pytest.raises(HarnessError) as refused:
        trend_of(store, spec, machine="A100")
    assert str(refused.value) == (
        "--machine A100: there are no results of such a machine, but of: Some Processor, 4 cores"
    )


# Texts.


@pytest.fixture
def told(store: Store, spec: Spec) -> TableTrend:
    nights(store, spec, QUIET, reference_seconds=0.1)
    nights(store, spec, [speed / 1.2 for speed in QUIET], start=6, torch="2.16.0", reference_seconds=0.13)
    nights(store, spec, [1.0], start=12, error="out of memory at batch 4")
    for day, hits in enumerate((7220, 7280)):
        save_accuracy(store, spec, FIRST + day * DAY + 1, accuracies(hits), files=False)
    save_count(store, spec, FIRST + 2)
    return trend_of(store, spec)


WHOLE = """\
mine over time  Small
2 of 3 series changed, 0 held, 1 with too few results to tell; 16 results, 2026-10-22 to 2026-11-03.

✗ speed of Tiny: between 2026-10-27 and 2026-10-28, 16.7 % slower: 100.00 im/s → 83.33 im/s; torch 2.15.0 → 2.16.0; the
  whole machine 30 % slower (reference workload)
↑ top-1 of Tiny: between 2026-10-22 and 2026-10-23, 0.60 points better: 72.20 % → 72.80 %; no version changed
! speed of Tiny: fails since 2026-11-03 (1 result): out of memory at batch 4

speed on Some Processor, 4 cores
        over time      now         noise   results
! Tiny  ▇█▇▇▇▇▂▂▂▂▁▂×  83.33 im/s  ±2.5 %  13, 1 failed

top-1 on Some Processor, 4 cores
        over time  now      noise  results
↑ Tiny  ▁█         72.80 %         2

Not listed: 1 series with one or two results. A timed value needs six to tell a change from noise, any other needs two;
`harness reproduce --rerun` adds one.
"""


def test_the_text_has_the_changes_first_and_a_line_for_each_series(told: TableTrend) -> None:
    assert render_trend(told, width=120, color=False) == WHOLE


@pytest.mark.parametrize("width", [30, 60, 80, 110, 160])
def test_the_text_fits_and_a_narrow_one_has_fewer_bars(told: TableTrend, width: int) -> None:
    text = render_trend(told, width=width, color=False)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert "torch" in text


def test_colours_are_all_that_colour_adds(told: TableTrend) -> None:
    colored = render_trend(told, width=120, color=True)
    assert "\x1b[31m✗ speed of Tiny" in colored
    for code in ("31", "32", "0"):
        colored = colored.replace(f"\x1b[{code}m", "")
    assert colored == WHOLE


def test_markdown_has_what_changed_as_a_table_and_all_series_collapsed(told: TableTrend) -> None:
    text = render_trend_markdown([told])
    assert "| ✗ | speed of Tiny | between 2026-10-27 and 2026-10-28, 16.7 % slower" in text
    assert "<details><summary>speed on Some Processor, 4 cores</summary>" in text
    assert text.count("### ") == 1


def test_json_has_every_result_level_and_change(told: TableTrend) -> None:
    data = json.loads(render_trend_json([told]))
    assert (data["schema"], data["table"], data["retired"]) == (1, "mine", 0)
    speed = next(each for each in data["series"] if each["cells"] == [{"row": "tiny", "column": "speed"}])
    assert [len(speed[part]) for part in ("results", "levels", "changes")] == [13, 2, 1]
    assert speed["results"][12]["error"] == "out of memory at batch 4"
    change = speed["changes"][0]
    assert change["versions"] == {"torch": ["2.15.0", "2.16.0"]}
    assert (change["outcome"], change["last_before"]) == ("regressed", speed["results"][5]["run"])
    assert change["first_after"] == speed["results"][6]["run"]
    assert change["after"] == speed["levels"][1]["value"]
    assert isinstance(json.loads(render_trend_json([told, told])), list)


# The command.


def test_the_command_prints_every_format_and_ends_with_0_whatever_it_finds(
    told: TableTrend, harness: Command, tmp_path: Path
) -> None:
    ran = harness("trend", "./mine.toml", COLUMNS="120")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, WHOLE, "")
    for form in ("json", "markdown"):
        assert harness("trend", "./mine.toml", "--format", form, "-o", f"out.{form}").stdout == f"out.{form}\n"
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["table"] == "mine"


def test_several_folders_add_up_and_a_result_in_two_of_them_counts_once(
    harness: Command, spec: Spec, tmp_path: Path
) -> None:
    for folder, start in (("first", 0), ("second", 6)):
        nights(Store(tmp_path / folder), spec, QUIET, start=start)
    nights(Store(tmp_path / "second"), spec, QUIET[:1])
    ran = harness("trend", "./mine.toml", "--runs", "first", "--runs", "second", "--format", "json")
    assert [len(each["results"]) for each in json.loads(ran.stdout)["series"]] == [12]


def test_without_results_the_command_says_how_to_get_some(harness: Command, spec: Spec) -> None:
    ran = harness("trend", "./mine.toml", COLUMNS="100")
    assert ran.returncode == 0
    assert ran.stderr == "note: there is no folder runs/, so there are no results; --runs DIR names another\n"
    assert ran.stdout.splitlines()[1] == "no results yet; `harness reproduce mine` measures some."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "nowhere"], "error: --runs nowhere: there is no such folder; name that of the results\n"),
        (["--machine", "A100"], "error: --machine A100: there are no results of such a machine, but of: none\n"),
    ],
)
def test_a_mistake_of_the_user_ends_with_2(harness: Command, spec: Spec, arguments: list[str], message: str) -> None:
    ran = harness("trend", "./mine.toml", *arguments)
    assert (ran.returncode, ran.stderr) == (2, message)


# The figure.


def figure_of(store: Store, spec: Spec, style: Style = PAPER) -> Figure:
    (table,) = judged_tables([spec], options_of(), store, LAPTOP).tables
    with mpl.rc_context(style.rc):
        figure = trend_figure(table, trend_of(store, spec), style)
        figure.draw_without_rendering()
    return figure


def test_a_panel_shows_each_result_each_change_and_what_changed_with_it(
    told: TableTrend, store: Store, spec: Spec
) -> None:
    figure = figure_of(store, spec)
    speed, top1 = figure.axes
    title = "Tiny\n1: 16.7 % slower, torch 2.15.0 → 2.16.0;\n   the whole machine 30 % slower …"
    assert speed.get_title(loc="left") == title
    assert speed.get_ylabel() == "speed, im/s"
    markers = [line.get_marker() for line in speed.lines]
    assert (markers.count("o"), markers.count("x")) == (12, 1)
    assert [line.get_marker() for line in top1.lines].count("o") == 2
    assert [text.get_text() for text in speed.texts] == ["1"]


@pytest.mark.parametrize(("style", "panels"), [(PAPER, 7), (SLIDES, 6)], ids=["paper", "slides"])
def test_nothing_of_the_figure_is_clipped_and_no_title_lies_over_another_panel(
    store: Store, spec: Spec, style: Style, panels: int
) -> None:
    settings = dict(job_of_kind(spec, "throughput").settings)
    for hour, batch in enumerate((4, 8, 16, 32, 64, 128, 256)):
        job = Job.of("throughput", {**settings, "batch": batch})
        nights(store, spec, QUIET, start=hour / 24, job=job, reference_seconds=0.1)
        slower = [speed / 1.2 for speed in QUIET] if hour else QUIET
        nights(store, spec, slower, start=6 + hour / 24, job=job, reference_seconds=0.13, torch="2.16.0+cu130.nightly")
    figure = figure_of(store, spec, style)
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox())]
    assert len(boxes) == panels
    first = figure.axes[0].get_title(loc="left").splitlines()
    # A screen has room for those that changed.
    assert first[0] == ("Tiny, batch 8" if style is SLIDES else "Tiny, batch 4")
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_the_same_results_give_the_same_bytes(harness: Command, told: TableTrend, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        assert harness("figure", "./mine.toml", "--chart", "trend", "-o", name).returncode == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_table_whose_cells_have_one_result_is_not_drawn(store: Store, spec: Spec, tmp_path: Path) -> None:
    assert "trend" in available_charts(spec)
    nights(store, spec, QUIET[:2])
    (table,) = judged_tables([spec], options_of(), store, LAPTOP).tables
    with pytest.raises(HarnessError) as refused:
        draw(table, tmp_path / "x.png", trend=trend_of(store, spec))
    assert str(refused.value) == (
        "no cell of 'mine' has three results yet, so there is no trend to draw; "
        "`harness reproduce mine --rerun` adds a result to each"
    )


def test_a_table_of_another_machine_than_the_figures_is_left_out(store: Store, spec: Spec) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, QUIET, start=6, machine=H200)
    assert len(trend_of(store, spec).trends) == 2
    assert len(figure_of(store, spec).axes) == 1


def test_the_site_has_a_page_of_what_changed_that_the_tables_page_leads_to(
    harness: Command, store: Store, spec: Spec, tmp_path: Path
) -> None:
    nights(store, spec, QUIET)
    nights(store, spec, [speed / 1.2 for speed in QUIET], start=6, torch="2.16.0")
    ran = harness("report", "./mine.toml", "--format", "html", "-o", "site")
    assert ran.returncode == 0
    page = (tmp_path / "site" / "trends" / "mine.html").read_text(encoding="utf-8")
    assert "torch 2.15.0 → 2.16.0" in page
    assert 'src="mine.svg"' in page
    assert (tmp_path / "site" / "trends" / "mine.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert 'href="../trends/mine.html"' in (tmp_path / "site" / "tables" / "mine.html").read_text(encoding="utf-8")


def test_a_site_of_single_results_has_no_page_over_time(
    harness: Command, store: Store, spec: Spec, tmp_path: Path
) -> None:
    nights(store, spec, QUIET[:1])
    assert harness("report", "./mine.toml", "--format", "html", "-o", "site").returncode == 0
    assert not (tmp_path / "site" / "trends").exists()
    assert "Over time" not in (tmp_path / "site" / "tables" / "mine.html").read_text(encoding="utf-8")
