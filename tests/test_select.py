"""Which stored result counts: the newest, of one machine, and a failure only where the rule says so."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, StoreError
from harness.judge.judged import judged_tables
from harness.judge.verdict import Verdict
from harness.machine import Machine
from harness.machine.monitor import HARDWARE_SLOWDOWNS, Sample, Window
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.specs import load
from harness.store.result import Result
from harness.store.select import Elsewhere, Selection, is_noisy, select_results
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, V100, VERSIONS, result_of

SPEC = """
[table]
title = "Two models"
[source.paper]
kind = "paper"
cite = "the paper"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
[column.throughput]
label = "throughput"
job = "throughput"
metric = "throughput"
unit = "im/s"
machine = "V100 16GB"
[row.a]
label = "A"
set = { model = "a", res = 224 }
paper = { params = 5, throughput = 100 }
[row.b]
label = "B"
set = { model = "b", res = 224 }
paper = { params = 9, throughput = 200 }
"""


TRAINED = """
[table]
title = "Trained"
[source.paper]
kind = "paper"
[column.top1]
label = "top-1"
job = "train"
metric = "top1"
set = { model = "deit_tiny_patch16_224", res = 224, recipe = "deit-ti" }
[row.a]
label = "A"
paper = { top1 = 72.2 }
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "two.toml"
    path.write_text(SPEC, encoding="utf-8")
    return make_plan([load(path)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def job_of(plan: Plan, kind: str, model: str) -> Job:
    return next(job for job in plan.jobs if job.kind == kind and job["model"] == model)


def save(
    store: Store,
    job: Job,
    minutes: int,
    *,
    machine: Machine = LAPTOP,
    software: Mapping[str, str] = VERSIONS,
    error: str | None = None,
) -> Result:
    result = result_of(job, machine=machine, software=software, minutes=minutes, error=error)
    store.save(result)
    return result


def ids(selection: Selection) -> set[str]:
    return {result.id for result in selection.results.values()}


def test_the_newest_result_of_each_job_counts(plan: Plan, store: Store) -> None:
    save(store, job_of(plan, "count", "a"), 0)
    count = save(store, job_of(plan, "count", "a"), 1)
    save(store, job_of(plan, "throughput", "a"), 2)
    throughput = save(store, job_of(plan, "throughput", "a"), 3)
    for newest_failures in (False, True):
        assert ids(select_results(plan, store, None, newest_failures=newest_failures)) == {count.id, throughput.id}


@pytest.mark.parametrize("newest_failures", [False, True])
def test_throughputs_of_different_machines_never_meet_in_one_table(
    plan: Plan, store: Store, *, newest_failures: bool
) -> None:
    a, b = (job_of(plan, "throughput", model) for model in "ab")
    a_here, a_there = save(store, a, 0), save(store, a, 9, machine=H200)
    b_here = save(store, b, 1)
    count = save(store, job_of(plan, "count", "a"), 2, machine=H200)  # the same on every machine
    here = select_results(plan, store, LAPTOP, newest_failures=newest_failures)
    assert (here.machine, ids(here)) == (LAPTOP, {a_here.id, b_here.id, count.id})
    # A machine without results takes those of the machine that was measured on last, and of no other.
    elsewhere = select_results(plan, store, V100, newest_failures=newest_failures)
    assert (elsewhere.machine, ids(elsewhere)) == (H200, {a_there.id, count.id})


def test_the_cells_of_a_judged_table_are_of_one_machine(plan: Plan, store: Store) -> None:
    a, b = (job_of(plan, "throughput", model) for model in "ab")
    save(store, a, 0, machine=H200)
    save(store, b, 1, machine=LAPTOP)
    (table,) = judged_tables(plan.specs, None, store, LAPTOP).tables
    assert table.machine == LAPTOP
    assert table.cell("a", "throughput").result is None
    assert table.cell("b", "throughput").measurement is not None


@pytest.mark.parametrize("kind", ["count", "throughput"])
def test_a_table_shows_a_failure_only_where_no_good_result_is_known(plan: Plan, store: Store, kind: str) -> None:
    a, b = (job_of(plan, kind, model) for model in "ab")
    good = save(store, a, 0)
    failure = save(store, a, 1, error="out of memory")
    only = save(store, b, 2, error="out of memory")
    assert ids(select_results(plan, store, LAPTOP)) == {good.id, only.id}
    assert ids(select_results(plan, store, LAPTOP, newest_failures=True)) == {failure.id, only.id}


def test_a_failure_chooses_the_machine_only_where_it_counts(plan: Plan, store: Store) -> None:
    job = job_of(plan, "throughput", "a")
    save(store, job, 0, machine=H200)
    save(store, job, 1, machine=LAPTOP, error="out of memory")
    assert select_results(plan, store, None).machine == H200
    assert select_results(plan, store, None, newest_failures=True).machine == LAPTOP


def test_throughputs_are_the_good_runs_with_the_software_of_the_newest_one(plan: Plan, store: Store) -> None:
    job = job_of(plan, "throughput", "a")
    save(store, job, 0, software={**VERSIONS, "torch": "2.4.0"})
    first, second = save(store, job, 1), save(store, job, 2)
    save(store, job, 3, machine=H200)
    save(store, job, 4, error="out of memory")
    runs = select_results(plan, store, LAPTOP).throughputs[job.key]
    assert [run.id for run in runs] == [second.id, first.id]


@pytest.mark.parametrize("newest_failures", [False, True])
@pytest.mark.parametrize("kind", ["count", "throughput"])
def test_two_results_of_two_jobs_may_not_claim_one_run(
    plan: Plan, store: Store, kind: str, *, newest_failures: bool
) -> None:
    a, b = job_of(plan, kind, "a"), job_of(plan, "throughput", "b")
    result = save(store, b, 0)
    assert ids(select_results(plan, store, LAPTOP, newest_failures=newest_failures)) == {result.id}
    store.save(replace(save(store, a, 1), id=result.id, started=result.started))
    store.remove(next(one for one in store.results(a) if one.id != result.id))
    with pytest.raises(StoreError) as reason:
        select_results(plan, store, LAPTOP, newest_failures=newest_failures)
    folders = {f"{store.root / job.key}/" for job in (a, b)}
    message = str(reason.value)
    assert message.startswith(f"two results claim the run {result.id}, in ")
    assert message.endswith("; remove the one that is a copy")
    assert all(folder in message for folder in folders)


def test_a_run_is_noisy_if_something_else_used_the_machine(plan: Plan) -> None:
    result = result_of(job_of(plan, "throughput", "a"))
    assert not is_noisy(result)
    assert is_noisy(replace(result, facts={**result.facts, "disturbed": True}))


@pytest.mark.parametrize("reasons", [*HARDWARE_SLOWDOWNS, 0])
def test_a_run_is_noisy_by_what_the_monitor_of_a_gpu_says_of_it(plan: Plan, reasons: int) -> None:
    sample = Sample(
        seconds=0.1, sm_clock=1380, memory_clock=877, power=250.0, temperature=60, reasons=reasons, others=()
    )
    alone = Window(samples=(sample,), energy=None, missing=())
    shared = Window(samples=(replace(sample, others=(4711, 4712)),), energy=None, missing=())
    for window, noisy in ((alone, bool(reasons)), (shared, True)):
        result = result_of(job_of(plan, "throughput", "a"), warnings=(*window.interference, *window.warnings))
        assert is_noisy(result) is noisy


# What was measured otherwise.


def reason_of(plan: Plan, store: Store, here: Machine, **options: Any) -> str:  # noqa: ANN401 -- passed on
    (diff,) = judged_tables(plan.specs, Options(**options), store, here).diffs
    cell = diff.judged_cells["a", "throughput"]
    assert cell.verdict is Verdict.MISSING
    return cell.reason


def shown(plan: Plan, store: Store, here: Machine, **options: Any) -> str | None:  # noqa: ANN401 -- passed on
    (table,) = judged_tables(plan.specs, Options(**options), store, here).tables
    result = table.cell("a", "throughput").result
    return result.id if result else None


def test_a_throughput_of_another_batch_size_is_named_with_the_option_that_shows_it(plan: Plan, store: Store) -> None:
    job = job_of(plan, "throughput", "a")
    at_8 = save(
        store, next(j for j in make_plan(plan.specs, Options(batch=8)).jobs if j["model"] == "a" and j.exclusive), 1
    )
    assert reason_of(plan, store, LAPTOP) == (
        f"measured, but with other settings: batch = 8 (run {at_8.id}); `harness report` shows it with --batch 8"
    )
    assert shown(plan, store, LAPTOP, batch=8) == at_8.id
    usual = save(store, job, 2)
    assert reason_of(plan, store, LAPTOP, batch=4) == (
        f"measured, but with other settings: batch = auto, memory = 16GiB (run {usual.id}); "
        "`harness report` shows it without --batch"
    )


def test_a_throughput_of_another_machine_is_named_with_the_option_that_shows_it(plan: Plan, store: Store) -> None:
    save(store, job_of(plan, "throughput", "b"), 0)
    there = save(store, job_of(plan, "throughput", "a"), 1, machine=H200)
    assert reason_of(plan, store, LAPTOP) == (
        f"measured, but on another machine: on NVIDIA H200 140 GiB (run {there.id}); "
        "`harness report` shows it with --machine 'NVIDIA H200 140 GiB'"
    )
    assert shown(plan, store, LAPTOP, machine="NVIDIA H200 140 GiB") == there.id
    assert shown(plan, store, LAPTOP, machine="h200") == there.id


def test_a_throughput_of_another_machine_and_protocol_needs_both_options(plan: Plan, store: Store) -> None:
    save(store, job_of(plan, "throughput", "b"), 0)
    modern = make_plan(plan.specs, Options(protocol="modern"))
    there = save(store, job_of(modern, "throughput", "a"), 1, machine=H200)
    assert reason_of(plan, store, LAPTOP) == (
        "measured, but with other settings: protocol = modern, memory = all, on NVIDIA H200 140 GiB "
        f"(run {there.id}); "
        "`harness report` shows it with --protocol modern --memory all --machine 'NVIDIA H200 140 GiB'"
    )
    assert shown(plan, store, LAPTOP, protocol="modern", memory="all", machine="H200") == there.id


@pytest.mark.parametrize("kind", ["count", "throughput"])
def test_what_an_older_method_measured_is_named(plan: Plan, store: Store, kind: str) -> None:
    job = job_of(plan, kind, "a")
    older = save(store, replace(job, revision=job.revision - 1), 1)
    (diff,) = judged_tables(plan.specs, None, store, LAPTOP).diffs
    cell = diff.judged_cells["a", "params" if kind == "count" else "throughput"]
    assert (cell.verdict, cell.reason) == (
        Verdict.MISSING,
        (
            f"measured, but by a method that was corrected since: run {older.id}; "
            "`harness reproduce FILE` measures it again"
        ),
    )


def test_what_an_older_method_trained_is_named(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "trained.toml"
    path.write_text(TRAINED, encoding="utf-8")
    plan = make_plan([load(path)], Options(train=True, scale="proxy", seeds=1))
    (job,) = (job for job in plan.jobs if job.kind == "evaluate")
    (training,) = job.lineage
    older = Job.of(job.kind, dict(job.settings), {"weights": replace(training, revision=training.revision - 1)})
    result = save(store, older, 1)
    selection = select_results(plan, store, LAPTOP)
    assert selection.elsewhere[job.key] == Elsewhere(result=result, other_machine=False, retired=True)


def test_failures_and_other_models_were_not_measured(plan: Plan, store: Store) -> None:
    job = job_of(plan, "throughput", "a")
    at_8 = Job.of(job.kind, {**dict(job.settings), "batch": 8})
    save(store, at_8, 0, error="out of memory")
    save(store, Job.of(job.kind, {**dict(at_8.settings), "res": 384}), 2)
    copied = save(store, at_8, 3)
    store.path_of(copied).rename(store.root / at_8.key / "a-copy.json")
    assert reason_of(plan, store, LAPTOP) == "not measured yet; `harness reproduce FILE` measures it"


def test_a_machine_on_which_nothing_was_measured_is_refused(plan: Plan, store: Store) -> None:
    save(store, job_of(plan, "throughput", "a"), 0)
    with pytest.raises(HarnessError) as reason:
        judged_tables(plan.specs, Options(machine="TPU"), store, LAPTOP)
    assert str(reason.value) == (
        "--machine TPU: none of these throughputs was measured on such a machine, but on: Some Processor, 4 cores"
    )
