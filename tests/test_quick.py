"""A quick table: a throughput ends when its place is as certain as it can make it, and never counts as a whole one."""

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks.quick_table import as_run, replay, results_of
from harness.jobs.speed.throughput import Shortening, measure_throughput, throughput_interval
from harness.jobs.speed.timing import Iterations, is_placed, time_until_placed, warm_up_briefly
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.forecast import Forecast
from harness.run.messages import Batch, Progress, Saved
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog
from harness.stats import Interval, kendall
from harness.store.select import select_results
from harness.store.store import Store, superseded
from tests.commands import run_harness
from tests.fakes import LAPTOP, VERSIONS, FakeLauncher, result_of, with_facts
from tests.test_budget import SPEC

REFERENCE = Path(__file__).parent.parent / "runs/reference/cpu-xeon-2-cores-2026-11-21"

# The method.


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("others", "placed"),
    [
        ([], True),
        ([interval(80, 89), interval(111, 120)], True),  # apart from it
        ([interval(85, 91)], False),  # overlaps, and is narrower: more iterations of ours may separate them
        ([interval(60, 95)], True),  # overlaps, but is wide itself: more iterations of ours would not
        ([interval(60, 95), interval(109, 112)], False),
    ],
)
def test_a_model_has_its_place_where_more_iterations_of_its_own_would_not_tell_more(
    others: list[Interval], *, placed: bool
) -> None:
    assert is_placed(interval(90, 110), others) is placed


def test_iterations_are_added_by_a_third_until_there_are_enough() -> None:
    asked: list[int] = []

    def time_more(count: int) -> Iterations:
        asked.append(count)
        return Iterations(seconds=(1.0,) * count)

    assert len(time_until_placed(time_more, 30, lambda seconds: False).seconds) == 30
    assert asked == [3, 1, 1, 1, 2, 2, 3, 4, 5, 7, 1]
    asked.clear()
    assert len(time_until_placed(time_more, 30, lambda seconds: len(seconds) >= 5).seconds) == 5
    assert asked == [3, 1, 1]


def test_a_brief_warm_up_is_three_iterations_and_a_third_of_a_second() -> None:
    assert warm_up_briefly(lambda: 0.5) == [0.5] * 3
    assert warm_up_briefly(lambda: 0.5, before=(0.5,)) == [0.5] * 3
    assert len(warm_up_briefly(lambda: 0.0625)) == 5


def order_of_a_quick_table(speeds: Sequence[float], variation: float, draw: random.Random) -> tuple[float, float]:
    """Return Kendall's τ of a simulated quick table with the truth, and the iterations of a model."""
    known: list[Interval] = []
    spent = []
    for speed in speeds:
        rivals = tuple(known)

        def time_more(count: int, speed: float = speed) -> Iterations:
            return Iterations(seconds=tuple(draw.gauss(1, variation) / speed for _ in range(count)))

        def has_place(seconds: Sequence[float], rivals: Sequence[Interval] = rivals) -> bool:
            return is_placed(throughput_interval(1, seconds), rivals)

        seconds = time_until_placed(time_more, 30, has_place).seconds
        known.append(throughput_interval(1, seconds))
        spent.append(len(seconds))
    return kendall([each.value for each in known], speeds), statistics.fmean(spent)


def test_a_simulated_quick_table_has_the_order_of_the_models_after_a_quarter_of_the_iterations() -> None:
    # 26 models as far from each other as those of table 5 on two cores, over two decades.
    draw = random.Random(7)
    speeds = [10 ** (2 * index / 25) for index in range(26)]
    outcomes = []
    for _ in range(20):
        draw.shuffle(speeds)
        outcomes.append(order_of_a_quick_table(speeds, 0.05, draw))
    assert statistics.fmean(tau for tau, _ in outcomes) > 0.99
    assert statistics.fmean(spent for _, spent in outcomes) < 7.5


def test_the_reference_results_of_table_5_replayed_quickly_have_their_order_within_150_seconds() -> None:
    results = results_of("table5", (), REFERENCE)
    full = as_run(results, sum(result.seconds for result in results))
    quick = [replay(results, random.Random(seed)) for seed in range(20)]
    assert len(full.throughputs) == 26
    assert full.seconds > 350
    assert max(run.seconds for run in quick) < 150
    assert min(run.tau(full) for run in quick) > 0.96
    assert statistics.median(run.tau(full) for run in quick) > 0.98


# The measurement.

SMALL = Job.of("throughput", {"model": "resnet18", "res": 64, "protocol": "paper", "repeats": 30, "batch": 1})


def test_a_quick_measurement_without_rivals_has_three_iterations_and_says_so() -> None:
    shortening = Shortening(rivals=())
    metrics, facts, warnings = measure_throughput(SMALL, lambda _: None, device="cpu", threads=1, shortening=shortening)
    assert len(metrics["throughput"].samples) == 3
    assert (facts["shortened"], facts["quick"], facts["warm_up_steady"]) == (3, True, True)
    assert "a quick measurement of 3 iterations: measure again without --quick" in warnings


def test_a_quick_measurement_that_cannot_be_placed_has_all_iterations_and_is_no_whole_one() -> None:
    # Whatever the throughput is, it lies in that of the rival, which is narrow for its value.
    shortening = Shortening(rivals=(Interval(value=1e12, low=1e-9, high=1e6),))
    metrics, facts, _ = measure_throughput(SMALL, lambda _: None, device="cpu", threads=1, shortening=shortening)
    assert len(metrics["throughput"].samples) == 30
    assert facts["shortened"] == 30


# The run.


@dataclass
class NotingLauncher(FakeLauncher):
    """Runs jobs at once, and keeps what each was to be compared with."""

    rivals: list[tuple[Interval, ...] | None] = field(default_factory=list)

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        self.rivals.append(batch.rivals)
        return super().run(batch)


TWO_ROWS = SPEC + '[row.other]\nlabel = "other"\nset = { model = "resnet50", res = 64 }\n'


def runner_of(root: Path, launcher: FakeLauncher, *, quick: bool) -> Runner:
    target = ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=root / "lock")
    return Runner(store=Store(root), launcher=launcher, target=target, observer=ProgressObserver(), quick=quick)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TWO_ROWS, encoding="utf-8")
    return path


def test_each_model_of_a_quick_run_is_compared_with_those_before_it(spec: Path, tmp_path: Path) -> None:
    plan = make_plan(Catalog().find([str(spec)]))
    launcher = NotingLauncher(value_of=lambda job: 50.0)
    runner_of(tmp_path / "runs", launcher, quick=True).run(plan)
    assert launcher.rivals == [(), (Interval(value=50.0, low=49.5, high=50.5),)]
    launcher = NotingLauncher()
    runner_of(tmp_path / "others", launcher, quick=False).run(plan)
    assert launcher.rivals == [None, None]


def test_throughputs_under_other_settings_are_no_rivals(spec: Path, tmp_path: Path) -> None:
    plan = make_plan(Catalog().find([str(spec)]))
    launcher = NotingLauncher()
    runner = runner_of(tmp_path / "runs", launcher, quick=True)
    other = Job.of("throughput", {**dict(plan.jobs[0].settings), "protocol": "modern"})
    failed = Job.of("throughput", {**dict(plan.jobs[0].settings), "model": "resnet34"})
    runner.results.update({other.key: result_of(other), failed.key: result_of(failed, error="it failed")})
    runner.run(plan)
    assert launcher.rivals[0] == ()


@pytest.mark.parametrize("quick", [True, False])
def test_a_run_that_is_not_quick_measures_a_quick_job_again(spec: Path, tmp_path: Path, *, quick: bool) -> None:
    plan = make_plan(Catalog().find([str(spec)]))
    runner = runner_of(tmp_path / "runs", FakeLauncher(), quick=quick)
    runner.store.save(with_facts(result_of(plan.jobs[0]), shortened=3, quick=True))
    runner.run(plan)
    assert [result.job for result in runner.measured] == list(plan.jobs[1:] if quick else plan.jobs)


def test_a_quick_result_is_shown_but_is_no_process_that_a_gate_compares(spec: Path, tmp_path: Path) -> None:
    plan, store = make_plan(Catalog().find([str(spec)])), Store(tmp_path / "runs")
    job = plan.jobs[0]
    whole, quick = result_of(job), with_facts(result_of(job, minutes=5), shortened=3, quick=True)
    for result in (whole, quick):
        store.save(result)
    selection = select_results(plan, store, LAPTOP)
    assert selection.results[job.key].id == quick.id
    assert [run.id for run in selection.throughputs[job.key]] == [whole.id]


def test_pruning_keeps_a_whole_result_though_a_quick_one_is_newer() -> None:
    whole, quick = result_of(SMALL), with_facts(result_of(SMALL, minutes=5), shortened=3, quick=True)
    later = result_of(SMALL, minutes=9)
    assert superseded([whole, quick]) == {}
    assert superseded([whole, quick, later]) == {whole.id: later, quick.id: later}


def test_how_long_a_quick_job_took_tells_nothing_about_a_whole_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    forecast = Forecast(store=store, machine=LAPTOP)
    store.save(replace(result_of(SMALL), seconds=30.0))
    store.save(replace(with_facts(result_of(SMALL, minutes=5), shortened=3, quick=True), seconds=2.0))
    forecast.plans([SMALL])
    assert forecast.expected(SMALL) == 30.0


@pytest.mark.parametrize(
    ("arguments", "other"),
    [(["--budget", "1min"], "--budget"), (["--launcher", "slurm"], "--launcher slurm")],
)
def test_a_quick_run_goes_neither_with_a_budget_nor_with_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], other: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_harness(tmp_path, "reproduce", "table5", "--throughput-only", "--quick", *arguments)
    assert ran.returncode == 2
    assert ran.stderr == (
        f"error: --quick compares throughputs in their order and does not go with {other}; leave one out\n"
    )
