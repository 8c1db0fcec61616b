"""How fast a site is written and how large it is.  `tox -e bench` runs this; it is no part of the test-suite."""

import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.machine import describe, software
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.specs import Catalog
from harness.specs.kinds import KINDS
from harness.store.result import Measurement, Result, new_id, to_json
from tests.fakes import FACTS, NOON

RESULTS = 10_000
SECONDS = 10
BYTES = 15_000_000


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of 10,000 results of the jobs of all tables, every metric of each with all that a real one keeps."""
    root = tmp_path_factory.mktemp("store")
    machine, draw = describe("cpu"), random.Random(1)
    versions = software(machine)
    jobs = make_plan(Catalog().find(["all"])).all_jobs
    for number in range(RESULTS):
        job = jobs[number % len(jobs)]
        started = NOON + timedelta(minutes=number)
        result = Result(
            id=new_id(started),
            job=job,
            machine=machine,
            software=versions,
            started=started,
            seconds=3.0,
            metrics={name: measured(name, job, draw) for name in KINDS[job.kind].metrics or ("epochs",)},
            facts=facts(job, draw),
            warnings=("iterations vary by 3.1 %: measure again",) if number % 3 else (),
        )
        # Without syncing each file, which would take minutes here and is not what is timed.
        folder = root / job.key
        folder.mkdir(exist_ok=True)
        (folder / f"{result.id}.json").write_text(to_json(result), encoding="utf-8")
    return root


def measured(name: str, job: Job, draw: random.Random) -> Measurement:
    if name == "throughput":
        samples = tuple(0.04 + 0.001 * draw.random() for _ in range(30))
        rate = 4 * len(samples) / sum(samples)
        return Measurement(unit="im/s", value=rate, low=0.99 * rate, high=1.01 * rate, samples=samples, sample_unit="s")
    whole = {"res": job.get("res"), "batch": 4, **dict.fromkeys(("embed_dim", "heads", "layers", "tokens"), 12)}
    if name in whole:
        return Measurement(unit="", value=whole[name])
    value = draw.random() + (name == "top5")
    return Measurement(unit="%", value=value, low=0.99 * value, high=1.01 * value)


def facts(job: Job, draw: random.Random) -> dict[str, object]:
    if not job.exclusive:
        return dict(FACTS.get(job.kind, {}))
    probes = [{"batch": 2**power, "outcome": "timed", "seconds": draw.random()} for power in range(8)]
    return {"batch": 4, "warm_up": [0.05 + 0.001 * draw.random() for _ in range(30)], "probes": probes}


def test_a_site_of_all_tables_over_10000_results_takes_at_most_10_seconds_and_15_megabytes(
    benchmark: BenchmarkFixture, tmp_path: Path, ten_thousand: Path
) -> None:
    options = ("all", "--format", "html", "--roofline", "--runs", str(ten_thousand), "-o", str(tmp_path / "site"))

    def write() -> None:
        subprocess.run([sys.executable, "-m", "harness", "report", *options], check=True, capture_output=True)

    benchmark.pedantic(write, rounds=5, warmup_rounds=1)
    stats = benchmark.stats
    assert stats is not None
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"\n{len(files)} files, {size / 1e6:.1f} MB, median {float(stats.stats.median):.1f} s")
    assert size <= BYTES
    assert stats.stats.median <= SECONDS
