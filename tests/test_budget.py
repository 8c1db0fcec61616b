"""A time budget: what tells most comes first, what is short of time is shortened or left out, and the rest is named."""

import time
from functools import partial
from pathlib import Path

import pytest

from harness.jobs.speed.throughput import LEAST_ITERATIONS, Shortening, measure_throughput
from harness.plan.job import Job
from harness.plan.plan import dependencies, make_plan
from harness.run.budget import Budget
from harness.run.forecast import Forecast
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog
from harness.store.store import Store
from tests.commands import Command, run_harness
from tests.fakes import LAPTOP, VERSIONS, FakeLauncher, result_of, with_facts

SPEC = """
[table]
title = "Mine"
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
[row.net]
label = "net"
set = { model = "resnet18", res = 64 }
"""


def throughput(model: str, **settings: str | int) -> Job:
    return Job.of("throughput", {"model": model, "res": 224, "protocol": "paper", **settings})


SMALL, MIDDLE, LARGE = (throughput(name) for name in ("small", "middle", "large"))
COUNT = Job.of("count", {"model": "small", "res": 224})
EVALUATIONS = tuple(
    Job.of("evaluate", {"model": name, "weights": "w", "res": 224, "data": "imagenet"}) for name in ("a", "b")
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def budget_of(seconds: float, expected: dict[Job, float], root: Path, **cells: int) -> tuple[Budget, Clock]:
    """Return a budget on a machine where each of these jobs took so long before."""
    store, clock = Store(root), Clock()
    for number, (job, took) in enumerate(expected.items()):
        result = result_of(job, minutes=number)
        store.save(with_facts(result.__class__(**{**vars(result), "seconds": took})))
    forecast = Forecast(store=store, machine=LAPTOP, now=clock)
    counts = {job.key: cells[str(job.get("model"))] for job in expected if str(job.get("model")) in cells}
    budget = Budget(seconds=seconds, forecast=forecast, cells=counts, now=clock)
    budget.starts(expected)
    return budget, clock


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return partial(run_harness, tmp_path)


# Which jobs, and for how long.


def test_the_job_that_fills_the_most_cells_in_its_time_comes_first(tmp_path: Path) -> None:
    # 10 s for one cell; 24 s for four, so 6 for each; 60 s for five, so 12 for each.
    budget, _ = budget_of(1, {SMALL: 10, MIDDLE: 24, LARGE: 60}, tmp_path, small=1, middle=4, large=5)
    assert budget.ordered([(LARGE,), (SMALL,), (MIDDLE,)]) == [(MIDDLE,), (SMALL,), (LARGE,)]


def test_with_time_enough_nothing_is_shortened(tmp_path: Path) -> None:
    budget, clock = budget_of(100, {SMALL: 10, LARGE: 60}, tmp_path)
    assert budget.allowance((SMALL,), [(LARGE,)]) == 100
    clock.seconds += 20
    assert budget.allowance((LARGE,), []) == 80
    assert budget.left_out == {}


def test_where_time_is_short_each_measurement_gets_its_share_of_it(tmp_path: Path) -> None:
    # 80 s of work in 40 s: half of the time for each.
    budget, clock = budget_of(40, {SMALL: 20, LARGE: 60}, tmp_path)
    assert budget.allowance((SMALL,), [(LARGE,)]) == 10
    clock.seconds += 10
    assert budget.allowance((LARGE,), []) == 30


def test_a_measurement_is_shortened_to_a_third_and_left_out_where_that_is_too_long(tmp_path: Path) -> None:
    budget, clock = budget_of(15, {SMALL: 12, MIDDLE: 30, LARGE: 60}, tmp_path)
    assert budget.allowance((SMALL,), [(MIDDLE,), (LARGE,)]) == 4
    clock.seconds += 4
    assert budget.allowance((MIDDLE,), [(LARGE,)]) == 10
    clock.seconds += 10
    assert budget.allowance((LARGE,), []) is None
    assert budget.left_out == {LARGE: 60}


def test_what_cannot_be_shortened_is_run_whole_or_not_at_all(tmp_path: Path) -> None:
    budget, _ = budget_of(8, {COUNT: 10}, tmp_path)
    assert budget.allowance((COUNT,), []) is None


def test_evaluations_of_the_same_images_take_as_long_as_the_longest_of_them(tmp_path: Path) -> None:
    budget, _ = budget_of(70, dict(zip(EVALUATIONS, (40, 60), strict=True)), tmp_path)
    assert budget.allowance(EVALUATIONS, []) == 70


def test_what_takes_an_unknown_time_is_left_out_and_does_not_hold_up_others(tmp_path: Path) -> None:
    budget, _ = budget_of(1000, {SMALL: 10}, tmp_path)
    assert budget.ordered([EVALUATIONS, (SMALL,)]) == [(SMALL,), EVALUATIONS]
    assert budget.allowance(EVALUATIONS, []) is None
    assert budget.left_out == dict.fromkeys(EVALUATIONS)


def test_nothing_comes_before_what_it_needs_and_is_left_out_with_it(tmp_path: Path) -> None:
    shared: dict[str, str | float] = {
        "crop": 0.875,
        "interpolation": "bicubic",
        "norm": "imagenet",
        "precision": "float32",
    }
    agreement = Job.of("agreement", {"first": "a.w", "second": "b.w", "data": "imagenet", "res": 224, **shared})
    evaluations = dependencies(agreement)
    assert len(evaluations) == 2
    budget, _ = budget_of(30, {**dict.fromkeys(evaluations, 60), agreement: 1}, tmp_path)
    order = budget.ordered([(agreement,), tuple(evaluations)])
    assert order == [tuple(evaluations), (agreement,)]
    assert [budget.allowance(jobs, []) for jobs in order] == [None, None]
    assert budget.left_out.keys() == {*evaluations, agreement}


# The measurement.


def test_a_measurement_without_time_has_a_few_iterations_and_says_so() -> None:
    job = throughput("resnet18", res=64, repeats=30, batch=1)
    now = Shortening(ends=time.monotonic())
    metrics, facts, warnings = measure_throughput(job, lambda _: None, device="cpu", threads=1, shortening=now)
    assert (len(metrics["throughput"].samples), facts["shortened"]) == (LEAST_ITERATIONS, LEAST_ITERATIONS)
    assert "5 of 30 iterations, for want of time: measure again without --budget" in warnings


def test_a_measurement_with_time_enough_has_all_its_iterations() -> None:
    job = throughput("resnet18", res=64, repeats=6, batch=1)
    later = Shortening(ends=time.monotonic() + 600)
    metrics, facts, warnings = measure_throughput(job, lambda _: None, device="cpu", threads=1, shortening=later)
    assert len(metrics["throughput"].samples) + len(facts["dropped"]) >= 6  # more if others use this machine
    assert "shortened" not in facts
    assert not any("want of time" in warning for warning in warnings)


def test_a_shortened_result_counts_until_there_is_time_for_a_whole_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    result = with_facts(result_of(SMALL), shortened=5)
    store.save(result)
    assert store.find(SMALL, LAPTOP, VERSIONS) == result
    assert store.find(SMALL, LAPTOP, VERSIONS, whole=True) is None


@pytest.mark.parametrize(("seconds", "measures"), [(None, True), (1000.0, False)])
def test_a_run_without_a_budget_measures_a_shortened_job_again(
    tmp_path: Path,
    seconds: float | None,
    measures: bool,  # noqa: FBT001
) -> None:
    spec = tmp_path / "mine.toml"
    spec.write_text(SPEC, encoding="utf-8")
    plan, store = make_plan(Catalog().find([str(spec)])), Store(tmp_path / "runs")
    store.save(with_facts(result_of(plan.jobs[0]), shortened=5))
    target = ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "lock")
    forecast = Forecast.of(plan, store, LAPTOP)
    runner = Runner(
        store=store,
        launcher=FakeLauncher(),
        target=target,
        observer=ProgressObserver(),
        budget=Budget.of(seconds, plan, forecast) if seconds else None,
    )
    runner.run(plan)
    assert [result.job for result in runner.measured] == (list(plan.jobs) if measures else [])
    assert runner.results.keys() == {plan.jobs[0].key}


# The command.


def test_what_there_was_no_time_for_is_printed_with_how_long_it_takes(harness: Command) -> None:
    ran = harness("reproduce", "table5", "--throughput-only", "--rows", "resnet18,resnet50", "--budget", "1s")
    assert ran.returncode == 0
    assert (
        "throughput of ResNet-18, ResNet-50: left out for want of time; the same command goes on with it" in ran.stdout
    )
    assert ran.stdout.splitlines()[-1].startswith(
        "left for want of time: 2 jobs, about 15 s; the same command goes on with them: throughput resnet18 at 224 ≈ "
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--budget", "10"], "'10' is not a time; write it as 90s, 10min or 2h"),
        (["--budget", "0min"], "'0min' is not a time; write it as 90s, 10min or 2h"),
        (["--budget", "1h", "--train", "--scale", "smoke"], "does not go with --train; leave one out"),
        (["--budget", "1h", "--launcher", "slurm"], "does not go with --launcher slurm, which has --hours; leave"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(harness: Command, arguments: list[str], error: str) -> None:
    ran = harness("reproduce", "table3", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert error in ran.stderr
