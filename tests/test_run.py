"""Missing jobs are measured once, each result is saved before the next job starts, and none is lost."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from filelock import FileLock

from harness.errors import HarnessError
from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.run.claims import Claims
from harness.run.launch.local import Crashed, LocalLauncher, _call, _received, exit_message
from harness.run.messages import Batch, Inputs, Inventory, Progress, Saved
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog, load
from harness.specs.checked import Scalar
from harness.specs.recipe import Recipes
from harness.store.result import Result, new_id
from harness.store.store import Store
from tests.fakes import H200, LAPTOP, V100, VERSIONS, FakeLauncher, images_of, result_of

SPEC = """
[table]
title = "Two models"
[column.params]
label = "#param."
job = "count"
metric = "params"
[column.throughput]
label = "throughput"
job = "throughput"
metric = "throughput"
[row.one]
label = "One"
set = { model = "one", res = 224 }
[row.two]
label = "Two"
set = { model = "two", res = 224 }
[row.two_again]
label = "Two again"
set = { model = "two", res = 224 }
"""

OF_A_TRAINING: dict[str, Scalar] = {"model": "tiny", "res": 32, "data": "digits", "recipe": "deit-b", "seed": 1}
TRAINING = Job.of("train", {**Recipes().find("deit-b").settings, **OF_A_TRAINING})


@pytest.fixture
def here(tmp_path: Path) -> ExecutionTarget:
    return ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "speed.lock")


def run(
    plan: Plan,
    store: Store,
    launcher: FakeLauncher,
    target: ExecutionTarget,
    notes: "Notes",
    *,
    rerun: bool = False,
    measured: list[Result] | None = None,
) -> Runner:
    runner = Runner(
        store=store,
        launcher=launcher,
        target=target,
        observer=notes,
        measured=measured if measured is not None else [],
    )
    runner.run(plan, rerun=rerun)
    return runner


class SlowLauncher(FakeLauncher):
    """Takes its time, so that another run comes in between."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        time.sleep(0.3)
        for message in super().run(batch):
            if isinstance(message, Saved) and message.job.kind == "train":
                Store(batch.runs).weights_for(message.job, message.id).touch()
            yield message


class Notes(ProgressObserver):
    """An observer that takes notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def starts(self, job: Job, number: int, total: int) -> None:
        self.lines.append(f"{number}/{total} {job}")

    def finished(self, result: Result) -> None:
        self.lines.append(f"{result.job}: {result.error or 'done'}")

    def waits(self, why: str) -> None:
        self.lines.append(why)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "two.toml"
    path.write_text(SPEC, encoding="utf-8")
    return make_plan([load(path)])


class DiesWhenSaved(FakeLauncher):
    """The process dies when it has saved its result, before it can say so."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        for job in batch.jobs:
            started = datetime.now(tz=UTC)
            Store(batch.runs).save(replace(result_of(job), started=started, id=new_id(started)))
            raise Crashed("the process was ended by SIGKILL")
        yield from ()


def test_a_job_whose_process_died_after_its_result_was_saved_has_not_failed(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    store = Store(tmp_path / "runs")
    runner = run(plan, store, DiesWhenSaved(), here, Notes())
    assert runner.failed == []
    assert len(runner.measured) == len(list(store.all_results())) == 4


def test_counts_share_a_process_and_each_throughput_has_its_own(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    launcher = FakeLauncher()
    run(plan, Store(tmp_path / "runs"), launcher, here, Notes())
    assert launcher.batches == [
        ("count one at 224", "count two at 224"),
        ("throughput one at 224",),
        ("throughput two at 224",),
    ]


HOLDER = """
import pathlib, sys
from harness.machine.exclusive import exclusive_lock
with exclusive_lock(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_waiting_for_another_throughput_names_the_process_that_measures_it(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    ours = Store(tmp_path / "runs")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(here.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        stdin = other.stdin

        class LetsGo(Notes):
            def waits(self, why: str) -> None:
                super().waits(why)
                stdin.close()

        notes = LetsGo()
        run(plan, ours, FakeLauncher(), here, notes)
    assert f"another harness (process {other.pid}) measures throughput on this machine; waiting for it" in notes.lines
    assert notes.lines[-1] == "throughput two at 224: done"
    assert not list(tmp_path.glob("*.pid"))


def test_a_second_time_nothing_is_measured(tmp_path: Path, plan: Plan, here: ExecutionTarget) -> None:
    store = Store(tmp_path / "runs")
    first = run(plan, store, FakeLauncher(), here, Notes())
    launcher = FakeLauncher()
    second = run(plan, store, launcher, here, Notes())
    assert launcher.batches == []
    assert second.measured == []
    assert second.results == first.results


def test_rerun_measures_again_and_keeps_the_history(tmp_path: Path, plan: Plan, here: ExecutionTarget) -> None:
    store = Store(tmp_path / "runs")
    run(plan, store, FakeLauncher(), here, Notes())
    runner = run(plan, store, FakeLauncher(), here, Notes(), rerun=True)
    assert len(runner.measured) == 4
    assert all(len(list(store.results(job))) == 2 for job in plan.jobs)


def test_another_machine_measures_throughputs_again_but_reuses_the_counts(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    store = Store(tmp_path / "runs")
    run(plan, store, FakeLauncher(), here, Notes())
    launcher = FakeLauncher()
    run(plan, store, launcher, replace(here, device="cuda:0", machine=V100), Notes())
    assert launcher.batches == [("throughput one at 224",), ("throughput two at 224",)]


def test_a_failing_job_fails_alone_and_is_tried_again_next_time(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    store = Store(tmp_path / "runs")
    runner = run(plan, store, FakeLauncher(errors={"throughput one": "no luck"}), here, Notes())
    assert [(str(r.job), r.error) for r in runner.failed] == [("throughput one at 224", "no luck")]
    assert len(runner.results) == 4
    launcher = FakeLauncher()
    again = run(plan, store, launcher, here, Notes())
    assert launcher.batches == [("throughput one at 224",)]
    assert again.failed == []


def test_a_process_that_dies_fails_only_its_current_job(tmp_path: Path, plan: Plan, here: ExecutionTarget) -> None:
    notes = Notes()
    runner = run(plan, Store(tmp_path / "runs"), FakeLauncher(crashes={"count one"}), here, notes)
    assert [(str(r.job), r.error) for r in runner.failed] == [("count one at 224", "the process was ended by SIGSEGV")]
    assert notes.lines == [
        "1/4 count one at 224",
        "count one at 224: the process was ended by SIGSEGV",
        "2/4 count two at 224",
        "count two at 224: done",
        "3/4 throughput one at 224",
        "throughput one at 224: done",
        "4/4 throughput two at 224",
        "throughput two at 224: done",
    ]


def test_an_interruption_keeps_finished_results_and_the_next_run_continues(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    store = Store(tmp_path / "runs")
    measured: list[Result] = []
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, FakeLauncher(interrupts={"throughput two"}), here, Notes(), measured=measured)
    assert len(measured) == 3
    launcher = FakeLauncher()
    run(plan, store, launcher, here, Notes())
    assert launcher.batches == [("throughput two at 224",)]


def test_unknown_models_are_refused_together_and_before_anything_is_measured(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    launcher = FakeLauncher(unknown={"one": "timm knows no model 'one'", "two": "timm knows no model 'two'"})
    store = Store(tmp_path / "runs")
    with pytest.raises(HarnessError) as refused:
        run(plan, store, launcher, here, Notes())
    assert str(refused.value) == (
        f"{tmp_path}/two.toml: row 'one': timm knows no model 'one'\n"
        f"{tmp_path}/two.toml: row 'two': timm knows no model 'two'"
    )
    assert launcher.batches == []


def test_nothing_is_measured_where_nothing_can_be_saved(tmp_path: Path, plan: Plan, here: ExecutionTarget) -> None:
    (tmp_path / "runs").write_text("")
    launcher = FakeLauncher()
    with pytest.raises(HarnessError):
        run(plan, Store(tmp_path / "runs"), launcher, here, Notes())
    assert launcher.batches == []


@pytest.mark.parametrize("kind", ["throughput", "count", "train"])
def test_two_runs_at_once_do_each_job_once(tmp_path: Path, plan: Plan, here: ExecutionTarget, kind: str) -> None:
    started = threading.Barrier(2, timeout=20)
    launchers = [SlowLauncher(), SlowLauncher()]
    jobs = (TRAINING,) if kind == "train" else make_plan(plan.specs, Options(only=frozenset({kind}))).jobs
    inventory = Inventory(images={"digits/train": images_of("digits/train")})

    def go(launcher: FakeLauncher) -> None:
        runner = Runner(
            store=Store(tmp_path / "runs"),
            launcher=launcher,
            target=here,
            observer=ProgressObserver(),
            inventory=inventory,
        )
        runner.store.prepare()
        missing = [job for job in jobs if not runner.reuse(job)]
        started.wait()
        runner.measure(missing)

    threads = [threading.Thread(target=go, args=(launcher,)) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [job for launcher in launchers for batch in launcher.batches for job in batch]
    assert sorted(done) == sorted(map(str, jobs))


def test_what_another_run_is_at_is_waited_for_and_said(tmp_path: Path, plan: Plan, here: ExecutionTarget) -> None:
    store, notes = Store(tmp_path / "runs"), Notes()
    counts = make_plan(plan.specs, Options(only=frozenset({"count"})))
    first, other = counts.jobs
    theirs = Claims(store.root, notes.waits)
    assert theirs.take([other])
    thread = threading.Thread(target=run, args=(counts, store, FakeLauncher(), here, notes))
    thread.start()
    store.save(result_of(other))
    while not notes.lines:
        time.sleep(0.01)
    theirs.release([other])
    thread.join()
    assert notes.lines == [
        f"another harness process runs {other} in {store.root}/; waiting for it",
        f"1/2 {first}",
        f"{first}: done",
    ]


def test_a_folder_that_cannot_be_locked_is_said_and_used(
    tmp_path: Path, plan: Plan, here: ExecutionTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: FileLock, timeout: float) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    notes = Notes()
    counts = make_plan(plan.specs, Options(only=frozenset({"count"})))
    run(counts, Store(tmp_path / "runs"), FakeLauncher(), here, notes)
    reason = f"[Errno {errno.ENOLCK}] No locks available"
    assert notes.lines == [
        f"{tmp_path / 'runs'}/ cannot be locked ({reason}); run one command at a time there",
        "1/2 count one at 224",
        "count one at 224: done",
        "2/2 count two at 224",
        "count two at 224: done",
    ]


@pytest.mark.parametrize("ask", [lambda it: it.inspect(Inputs(), ()), lambda it: list(it.check(Inputs(), "digits"))])
def test_a_process_that_dies_while_it_looks_at_the_inputs_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[LocalLauncher], object]
) -> None:
    def messages(self: LocalLauncher, function: str, *arguments: object) -> Iterator[object]:
        raise Crashed(exit_message(-9))
        yield

    monkeypatch.setattr(LocalLauncher, "_messages", messages)
    with pytest.raises(HarnessError) as died:
        ask(LocalLauncher())
    assert str(died.value) == (
        "data, weights and models cannot be inspected: the process was ended by SIGKILL; the system may have run out "
        "of memory; give it more memory or run the command again"
    )


def test_libraries_that_cannot_be_loaded_are_said_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.launch.local.WORKER", "torch_of_nobody")
    with pytest.raises(SystemExit) as ended:
        _call("answer")
    assert str(ended.value) == (
        "error: torch, torchvision and timm cannot be loaded (No module named 'torch_of_nobody')"
    )


def test_a_process_that_is_lost_after_its_last_result_has_failed_nothing(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    class Lost(FakeLauncher):
        def run(self, batch: Batch) -> Iterator[Progress | Saved]:
            yield from super().run(batch)
            raise Crashed(exit_message(255))

    runner = run(plan, Store(tmp_path / "runs"), Lost(), here, Notes())
    assert runner.failed == []
    assert len(runner.measured) == 4


def test_a_failure_is_readable_although_the_clock_was_set_back(
    tmp_path: Path, plan: Plan, here: ExecutionTarget
) -> None:
    runner = Runner(store=Store(tmp_path), launcher=FakeLauncher(), target=here, observer=ProgressObserver())
    runner.fail(plan.jobs[0], datetime.now(tz=UTC) + timedelta(hours=1), "the process was ended by SIGSEGV")
    (result,) = runner.store.results(plan.jobs[0])
    assert (result.error, result.seconds) == ("the process was ended by SIGSEGV", 0.0)
    assert runner.store.damaged == []


@pytest.mark.parametrize("machine", [LAPTOP, H200], ids=["CPU", "GPU"])
def test_what_timm_published_of_gpus_in_half_precision_is_left_to_gpus(machine: Machine) -> None:
    plan = make_plan(Catalog().find(["timm-speed"]))
    fitted = ExecutionTarget(device=machine.device, machine=machine, software=VERSIONS).fit(plan)
    blocked = {planned.blocked for planned in fitted.cells if "-amp" in planned.cell.column.label and planned.job}
    words = "published for a GPU, in {}; needs --device cuda"
    assert blocked == ({words.format("float16"), words.format("bfloat16")} if machine is LAPTOP else {""})
    assert {planned.blocked for planned in fitted.cells if "-fp32-" in planned.cell.column.label} == {""}


@pytest.mark.parametrize(
    ("machine", "blocked"), [(LAPTOP, ""), (H200, "its threads are those of a CPU; needs --device cpu")]
)
def test_a_number_of_threads_is_left_to_cpus(tmp_path: Path, machine: Machine, blocked: str) -> None:
    path = tmp_path / "threads.toml"
    path.write_text(
        """
[table]
title = "One thread"
[column.latency]
label = "latency"
job = "throughput"
metric = "latency"
set = { threads = 1, batch = 1 }
[row.net]
label = "net"
set = { model = "net", res = 224 }
""",
        encoding="utf-8",
    )
    plan = make_plan(Catalog().find([str(path)]))
    fitted = ExecutionTarget(device=machine.device, machine=machine, software=VERSIONS).fit(plan)
    assert [planned.blocked for planned in fitted.cells] == [blocked]


def send_later(pipe: Connection) -> None:
    time.sleep(2)
    pipe.send("late")


def test_a_process_whose_fork_server_was_killed_is_heard_to_its_end() -> None:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_later, args=(theirs,))
    process.start()
    theirs.close()
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert list(_received(ours, process)) == ["late"]


def test_a_process_that_was_killed_ends_what_is_heard_though_another_holds_its_pipe() -> None:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)  # held open here
    process = context.Process(target=send_later, args=(theirs,))
    process.start()
    process.kill()
    assert list(_received(ours, process)) == []
    theirs.close()
