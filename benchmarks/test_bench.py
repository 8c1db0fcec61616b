"""How fast the harness itself is.  `tox -e bench` runs this; nothing here is part of the test-suite.

pytest-benchmark keeps what is timed here: a first `tox -e bench -- --benchmark-autosave`, then
`tox -e bench -- --benchmark-compare --benchmark-compare-fail=median:30%` fails on a slower harness.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.machine import describe, software
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.launch import LocalLauncher
from harness.run.messages import Batch
from harness.specs import Catalog
from harness.store.result import Measurement, Result, new_id, to_json
from harness.store.store import Store
from tests.fakes import FACTS, NOON


def command(*arguments: str, folder: Path) -> Callable[[], None]:
    def run() -> None:
        subprocess.run([sys.executable, "-m", "harness", *arguments], cwd=folder, check=True, capture_output=True)

    return run


def median(benchmark: BenchmarkFixture, run: Callable[[], None], *, rounds: int) -> float:
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=2)
    stats = benchmark.stats
    assert stats is not None
    return float(stats.stats.median)


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("plan", "table5", "--device", "cpu")], ids=" ".join)
def test_light_commands_answer_within_0_3_seconds(
    benchmark: BenchmarkFixture, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert median(benchmark, command(*arguments, folder=tmp_path), rounds=11) <= 0.3


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of 10,000 results of table 5's jobs, as years of measuring would leave it."""
    root = tmp_path_factory.mktemp("store")
    store, machine = Store(root), describe("cpu")
    versions = software(machine)
    jobs = make_plan(Catalog().find(["table5"])).jobs
    for number in range(10_000):
        job = jobs[number % len(jobs)]
        started = NOON.replace(microsecond=number)
        samples = tuple(0.04 + 0.0001 * ((number * 7 + i) % 13) for i in range(30))
        rate = 4 * 30 / sum(samples)
        result = Result(
            id=new_id(started),
            job=job,
            machine=machine,
            software=versions,
            started=started,
            seconds=3.0,
            metrics={
                "throughput": Measurement(
                    unit="im/s", value=rate, low=0.95 * rate, high=1.05 * rate, samples=samples, sample_unit="s"
                ),
                "params": Measurement(unit="M", value=22.05),
                "macs": Measurement(unit="GMAC", value=4.6),
                "res": Measurement(unit="px", value=job["res"]),
            },
            facts={"batch": 4, "warm_up": list(samples), **FACTS.get(job.kind, {})},
        )
        # Without syncing each file, which would take minutes here and is not what is timed.
        folder = root / job.key
        folder.mkdir(exist_ok=True)
        (folder / f"{result.id}.json").write_text(to_json(result), encoding="utf-8")
    assert store.find(jobs[0], machine) is not None
    return root


def test_a_report_over_10000_results_takes_at_most_1_5_seconds(
    benchmark: BenchmarkFixture, tmp_path: Path, ten_thousand: Path
) -> None:
    run = command("report", "table5", "--runs", str(ten_thousand), folder=tmp_path)
    assert median(benchmark, run, rounds=7) <= 1.5


def test_a_check_of_all_tables_against_a_baseline_takes_at_most_2_seconds(
    benchmark: BenchmarkFixture, tmp_path: Path, ten_thousand: Path
) -> None:
    runs = ("--runs", str(ten_thousand))
    command("baseline", "all", *runs, "-o", "baseline.json", folder=tmp_path)()
    # The results are the baseline's own, so that no throughput is judged, but every file is read; exit code 4 shows it.
    check = [sys.executable, "-m", "harness", "check", "all", *runs, "--baseline", "baseline.json"]

    def run() -> None:
        assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 4

    assert median(benchmark, run, rounds=7) <= 2.0


def test_an_export_of_10000_results_takes_at_most_10_seconds(
    benchmark: BenchmarkFixture, tmp_path: Path, ten_thousand: Path
) -> None:
    run = command("runs", "export", "-o", "all.csv", "--runs", str(ten_thousand), folder=tmp_path)
    assert median(benchmark, run, rounds=3) <= 10


@pytest.mark.parametrize("name", ["figure1", "figure3"])
def test_a_figure_takes_at_most_5_seconds(benchmark: BenchmarkFixture, tmp_path: Path, name: str) -> None:
    run = command("figure", name, "-o", "drawn.png", folder=tmp_path)
    assert median(benchmark, run, rounds=3) <= 5


def test_a_job_in_the_fork_server_saves_the_import_that_a_fresh_python_costs(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """Print what a process costs from either; the ratio is the point, the seconds are this machine's."""
    machine = describe("cpu")
    batch = Batch(
        jobs=(Job.of("count", {"model": "resnet18", "res": 224}),),
        device="cpu",
        machine=machine,
        software=software(machine),
        runs=tmp_path,
    )
    served, fresh = LocalLauncher(), LocalLauncher(preload=False)
    list(served.run(batch))  # starts the server, once for all jobs
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(4):
        for launcher in (served, fresh):
            again = replace(batch, runs=tmp_path / str(len(times[True])))
            again.runs.mkdir(exist_ok=True)
            start = time.perf_counter()
            list(launcher.run(again))
            times[launcher is served].append(time.perf_counter() - start)
    print(f"\nfork server {min(times[True]):.2f} s, fresh Python {min(times[False]):.2f} s a job")
    assert min(times[False]) > 5 * min(times[True])
    numbers = iter(range(100))

    def a_job() -> None:
        folder = tmp_path / f"again-{next(numbers)}"
        folder.mkdir()
        list(served.run(replace(batch, runs=folder)))

    benchmark.pedantic(a_job, rounds=7, warmup_rounds=1)


def test_the_harness_measures_what_the_bare_loop_measures() -> None:
    from benchmarks.bare_loop import compare

    ratio = compare("resnet18", 224, 4, pairs=100)
    print(f"\nharness / bare loop: {ratio.median:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]")
    # Within 1 % as far as this machine's noise allows: the interval reaches into it, and the median is not far off.
    assert ratio.low <= 1.01
    assert ratio.high >= 0.99
    assert ratio.median == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("number", range(3))
def test_the_timm_protocol_measures_what_timms_script_measures(number: int) -> None:
    """Run each network in a Python of its own: what another test set of malloc's would count on both sides."""
    program = (
        "from benchmarks.timm_script import MODELS, compare, script_of_the_environment as script; "
        f"ratio = compare(script(), *MODELS[{number}], pairs=100); print(ratio.median, ratio.low, ratio.high)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ratio, low, high = map(float, ran.stdout.split()[-3:])
    print(f"\nharness / timm's script: {ratio:.4f} [{low:.4f}, {high:.4f}]")
    assert low <= 1.02
    assert high >= 0.98
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_a_training_steps_at_97_percent_of_the_bare_loop_s_rate(tmp_path: Path) -> None:
    from benchmarks.training_rate import SIZES, compare

    for name, changes in SIZES.items():
        ratio = compare(changes, pairs=20, runs=tmp_path)
        print(f"\n{name}: harness / bare loop: {ratio.median:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]")
        assert ratio.high >= 0.97
        assert ratio.median >= 0.95  # background load may slow down either a little


def test_at_least_85_percent_of_a_whole_table_is_spent_measuring(tmp_path: Path) -> None:
    """Run all of table 5 on the CPU, which takes minutes, and count what was warm-up and timed runs."""
    start = time.perf_counter()
    command("reproduce", "table5", "--throughput-only", "--device", "cpu", "-q", folder=tmp_path)()
    wall = time.perf_counter() - start
    measuring = 0.0
    store = Store(tmp_path / "runs")
    for job in make_plan(Catalog().find(["table5"])).jobs:
        for result in store.results(job):
            measuring += sum(result.facts["warm_up"]) + result.facts["wall"]
    share = measuring / wall
    print(f"\n{measuring:.0f} of {wall:.0f} s, {100 * share:.0f} %, were warm-up and timed iterations")
    assert share >= 0.85
