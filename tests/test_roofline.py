"""How close a model comes to what its machine can do, by numbers worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.judged import judged_tables
from harness.judge.roofline import Roofline, peak_job, peak_precision, roofline_of
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.specs import load
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, result_of

SPEC = """
[table]
title = "One model"
[source.paper]
kind = "paper"
cite = "the paper"
[machine."V100 16GB"]
tflops = 10
[column.throughput]
label = "throughput"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "V100 16GB"
[row.a]
label = "A"
set = { model = "a", res = 224 }
paper = { throughput = 500 }
[row.uncounted]
label = "Uncounted"
set = { model = "uncounted", res = 224 }
"""

# 2 GMAC are 4e9 operations an image.  A batch of 4 reads 5 M parameters of four bytes, 20e6 bytes, once: 5e6 an image,
# and with 35 MB that the layers read and write 40e6.  4e9 / 40e6 = 100 operations a byte.
COUNT = {
    "macs": Measurement(unit="GMAC", value=2.0),
    "params": Measurement(unit="M", value=5.0),
    "activations": Measurement(unit="MB", value=35.0),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def plan_of(tmp_path: Path, **options: str) -> Plan:
    path = tmp_path / "one.toml"
    path.write_text(SPEC, encoding="utf-8")
    return make_plan([load(path)], Options(protocol=options.get("protocol")))


def peak(precision: str, *, tflops: float, bandwidth: float, machine: Machine = LAPTOP) -> Result:
    metrics = {
        "matmul": Measurement(unit="TFLOP/s", value=tflops),
        "copy": Measurement(unit="GB/s", value=bandwidth),
    }
    return replace(result_of(peak_job(precision), machine=machine), metrics=metrics)


def roofline(tmp_path: Path, store: Store, *peaks: Result, protocol: str = "paper") -> Roofline:
    """The roofline of a model that takes 250 images a second, with these peaks in the store."""
    plan = plan_of(tmp_path, protocol=protocol)
    for job in plan.jobs:
        store.save(result_of(job, value=250.0))
    (job,) = (job for job in plan.jobs if job["model"] == "a")
    count = result_of(job.of("count", {"model": "a", "res": 224}))
    for result in (replace(count, metrics=COUNT), *peaks):
        store.save(result)
    (table,) = judged_tables(plan.specs, Options(protocol=protocol), store, LAPTOP).tables
    (rooflines,) = roofline_of(table, store).values()
    (only,) = rooflines  # a model without a count is left out
    assert only.row.key == "a"
    return only


def test_a_share_of_the_peak_is_throughput_times_operations(tmp_path: Path, store: Store) -> None:
    found = roofline(tmp_path, store, peak("float32", tflops=4.0, bandwidth=50.0))
    # 250 im/s of 4e9 operations are 1e12 a second, a quarter of 4e12; 500 im/s are 2e12, a fifth of the V100's 10e12.
    assert (found.measured.flops, found.measured.share) == pytest.approx((1e12, 0.25))
    assert found.published is not None
    assert (found.published.flops, found.published.share) == pytest.approx((2e12, 0.2))


@pytest.mark.parametrize(
    ("bandwidth", "bound"),
    [
        (50.0, "arithmetic"),  # the ridge is at 4e12 / 50e9 = 80 operations a byte, below 100
        (20.0, "bandwidth"),  # at 4e12 / 20e9 = 200, above 100
    ],
)
def test_a_model_is_bound_by_what_takes_longer_at_its_peak(
    tmp_path: Path, store: Store, bandwidth: float, bound: str
) -> None:
    found = roofline(tmp_path, store, peak("float32", tflops=4.0, bandwidth=bandwidth))
    assert found.intensity == pytest.approx(100.0)
    assert found.bound == bound


def test_without_the_peaks_of_this_machine_and_precision_there_is_no_share(tmp_path: Path, store: Store) -> None:
    others = (
        peak("float32", tflops=4.0, bandwidth=50.0, machine=H200),
        peak("bfloat16", tflops=8.0, bandwidth=50.0),
    )
    found = roofline(tmp_path, store, *others)
    assert found.measured.flops == pytest.approx(1e12)
    assert found.measured.share is None
    assert found.bound is None


def test_the_modern_protocol_is_held_against_the_peak_of_bfloat16(tmp_path: Path, store: Store) -> None:
    found = roofline(tmp_path, store, peak("bfloat16", tflops=8.0, bandwidth=50.0), protocol="modern")
    assert found.measured.share == pytest.approx(0.125)


def test_the_step_of_a_training_which_is_more_than_its_forward_pass_has_no_roofline(
    tmp_path: Path, store: Store
) -> None:
    path = tmp_path / "steps.toml"
    row = '[row.step]\nlabel = "Step"\njob = "train-speed"\nset = { recipe = "deit-ti" }\n'
    path.write_text(f"{SPEC[: SPEC.index('[row.a]')]}{row}", encoding="utf-8")
    plan = make_plan([load(path)])
    (job,) = plan.jobs
    count = result_of(job.of("count", {"model": job["model"], "res": job["res"]}))
    store.save(replace(count, metrics=COUNT))
    store.save(result_of(job))
    (table,) = judged_tables(plan.specs, Options(), store, LAPTOP).tables
    assert table.cell("step", "throughput").number == 100
    assert roofline_of(table, store) == {}


@pytest.mark.parametrize(
    ("settings", "device", "precision"),
    [
        ({"protocol": "paper"}, "cuda", "float32"),
        ({"protocol": "modern"}, "cuda", "bfloat16"),
        ({"protocol": "timm", "precision": "float16"}, "cuda", "float16"),
        ({"protocol": "timm", "precision": "float32"}, "cuda", "tf32"),  # timm's script allows TF32
        ({"protocol": "timm", "precision": "float32"}, "cpu", "float32"),
    ],
)
def test_a_throughput_is_held_against_the_peak_in_its_own_precision(
    settings: dict[str, str], device: str, precision: str
) -> None:
    assert peak_precision(Job.of("throughput", settings), device) == precision


def test_a_training_has_no_roofline_because_its_operations_are_not_counted(tmp_path: Path, store: Store) -> None:
    for step, rows in (("inference", ["a"]), ("training", [])):
        path = tmp_path / f"{step}.toml"
        settings = f"set = {{ protocol = 'timm', batch = 4, step = '{step}' }}"
        path.write_text(SPEC.replace("[row.a]", f"{settings}\n[row.a]"), encoding="utf-8")
        plan = make_plan([load(path)])
        for job in plan.jobs:
            store.save(result_of(job, value=250.0))
        store.save(replace(result_of(Job.of("count", {"model": "a", "res": 224})), metrics=COUNT))
        (table,) = judged_tables(plan.specs, Options(), store, LAPTOP).tables
        found = [one.row.key for rooflines in roofline_of(table, store).values() for one in rooflines]
        assert found == rows
