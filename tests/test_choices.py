"""What each choice of a throughput is worth: one switch at a time, against the protocol of the paper."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.jobs.speed.workload import PROTOCOLS, Flags, Workload, flags_of
from harness.judge.judged import judge_plan
from harness.plan.job import Job
from harness.plan.plan import Plan, make_plan
from harness.run.target import ExecutionTarget
from harness.specs import Catalog, Spec
from tests.fakes import LAPTOP, V100, VERSIONS, result_of


def throughput(**settings: str | bool | int) -> Job:
    return Job.of("throughput", {"model": "resnet18", "res": 32, "protocol": "paper", "batch": 2, **settings})


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Catalog().find(["choices"])[0]


@pytest.fixture(scope="module")
def plan(spec: Spec) -> Plan:
    return make_plan([spec])


# The switches of a job.


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"precision": "tf32"}, {"tf32_matmul": True, "tf32_cudnn": True}),
        ({"precision": "bfloat16"}, {"autocast": "bfloat16"}),
        ({"precision": "bfloat16", "autocast": False}, {"dtype": "bfloat16"}),
        ({"precision": "float32"}, {}),
        ({"fused_attention": True}, {"fused_attention": True}),
        ({"channels_last": True}, {"channels_last": True}),
        ({"cudnn_benchmark": True}, {"cudnn_benchmark": True}),
        ({"compile": True}, {"compile": "default"}),
        ({"inference_mode": False}, {"inference_mode": False}),
        ({"synchronize": True}, {"synchronize": True}),
        ({"step": "training"}, {"training": True}),
    ],
)
def test_a_switch_changes_itself_and_nothing_else(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    assert flags_of(throughput(**settings)) == replace(Flags(), **changes)


def test_a_switch_may_be_turned_off_in_the_protocol_that_has_it_on() -> None:
    job = throughput(protocol="modern", compile=False, precision="float32")
    assert flags_of(job) == replace(PROTOCOLS["modern"], compile=None, autocast=None)


def test_a_switch_makes_another_job() -> None:
    keys = {throughput(**settings).key for settings in ({}, {"channels_last": True}, {"channels_last": False})}
    assert len(keys) == 3


def test_a_result_records_the_switches_that_were_changed() -> None:
    usual = flags_of(throughput()).facts
    assert flags_of(throughput(inference_mode=False)).facts == {**usual, "inference_mode": False}


@pytest.mark.parametrize("mode", [True, False])
def test_the_timed_step_runs_in_the_mode_that_was_asked_for(mode: bool) -> None:  # noqa: FBT001
    output = Workload(throughput(inference_mode=mode), "cpu").make_step(2)()
    assert isinstance(output, torch.Tensor)
    assert (output.is_inference(), output.requires_grad) == (mode, False)


# The table.


def test_each_row_differs_from_the_first_in_one_setting(spec: Spec) -> None:
    first, *others, together = spec.rows
    assert (first.key, together.key) == ("paper", "modern")
    for row in others:
        for column in ("deit_s", "deit_b"):
            base = dict(spec.cell("paper", column).settings)
            assert len(dict(spec.cell(row.key, column).settings).items() ^ base.items()) == 1, row.key


def test_a_change_is_against_the_first_row_of_the_same_network(plan: Plan, spec: Spec) -> None:
    speeds = {"paper": 200.0, "compiled": 250.0, "no_grad": 190.0}
    results = {}
    for planned in plan.cells:
        if planned.cell.column.key == "deit_s" and planned.cell.row.key in speeds and planned.job:
            results[planned.job.key] = result_of(planned.job, machine=V100, value=speeds[planned.cell.row.key])
    (diff,) = judge_plan(plan, results)
    change = {row: diff.judged_cells[row, "deit_s_change"].filled.number for row in ("compiled", "no_grad")}
    assert change == {"compiled": pytest.approx(25.0), "no_grad": pytest.approx(-5.0)}


def test_what_cannot_be_says_why_and_is_nobodys_job(plan: Plan, spec: Spec) -> None:
    cells = plan.cells_in(spec)
    attention = cells["fused_attention", "resnet50"]
    assert (attention.job, attention.idle, attention.blocked) == (None, True, "it has no attention")
    assert cells["paper", "deit_b_change"].blocked == "what the others are compared with"


def test_a_cpu_leaves_out_what_does_nothing_there_and_a_gpu_measures_all(plan: Plan, spec: Spec) -> None:
    for_gpus = {"tf32", "float16", "cudnn_benchmark", "synchronized"}
    for machine, expected in ((LAPTOP, for_gpus), (V100, set())):
        target = ExecutionTarget(device=machine.device, machine=machine, software=VERSIONS)
        cells = target.fit(plan).cells_in(spec)
        assert {row for (row, column), cell in cells.items() if column == "deit_s" and cell.blocked} == expected
