"""What is missing is measured once, saved before the next begins, and never lost."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.plan import Options, Plan, make_plan
from harness.progress import Progress
from harness.result import Result
from harness.run import Done, Runner, Site
from harness.spec import load
from harness.store import Store
from tests.fakes import LAPTOP, V100, VERSIONS, FakeLauncher

SPEC = """
[table]
title = "Two networks"
[column.params]
label = "#param."
job = "count"
metric = "params"
[column.speed]
label = "speed"
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


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return Site(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "speed.lock")


def run(
    plan: Plan,
    store: Store,
    launcher: FakeLauncher,
    site: Site,
    notes: "Notes",
    *,
    rerun: bool = False,
    done: Done | None = None,
) -> Done:
    runner = Runner(store=store, launcher=launcher, site=site, watcher=notes, done=done if done is not None else Done())
    return runner.run(plan, rerun=rerun)


class Notes:
    """A watcher that takes notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def starts(self, job: object, number: int, total: int) -> None:
        self.said.append(f"{number}/{total} {job}")

    def progress(self, progress: Progress) -> None:
        pass

    def finished(self, result: Result) -> None:
        self.said.append(f"{result.job}: {result.error or 'done'}")

    def waits(self, why: str) -> None:
        self.said.append(why)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "two.toml"
    path.write_text(SPEC, encoding="utf-8")
    return make_plan([load(path)])


def test_counts_share_a_process_and_each_speed_has_its_own(tmp_path: Path, plan: Plan, here: Site) -> None:
    launcher = FakeLauncher()
    run(plan, Store(tmp_path / "runs"), launcher, here, Notes())
    assert launcher.batches == [
        ("count one at 224", "count two at 224"),
        ("throughput one at 224",),
        ("throughput two at 224",),
    ]


HOLDER = """
import pathlib, sys
from harness.machine.alone import alone
with alone(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_waits_for_another_to_measure_its_speed_says_for_which_process(
    tmp_path: Path, plan: Plan, here: Site
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
    assert f"another harness (process {other.pid}) measures speed on this machine; waiting for it" in notes.said
    assert notes.said[-1] == "throughput two at 224: done"
    assert not list(tmp_path.glob("*.pid"))


def test_a_second_time_nothing_is_measured(tmp_path: Path, plan: Plan, here: Site) -> None:
    store = Store(tmp_path / "runs")
    first = run(plan, store, FakeLauncher(), here, Notes())
    launcher = FakeLauncher()
    second = run(plan, store, launcher, here, Notes())
    assert launcher.batches == []
    assert second.measured == []
    assert second.results == first.results


def test_rerun_measures_again_and_keeps_the_history(tmp_path: Path, plan: Plan, here: Site) -> None:
    store = Store(tmp_path / "runs")
    run(plan, store, FakeLauncher(), here, Notes())
    done = run(plan, store, FakeLauncher(), here, Notes(), rerun=True)
    assert len(done.measured) == 4
    assert all(len(list(store.results(job))) == 2 for job in plan.jobs)


def test_another_machine_measures_speeds_again_but_takes_the_counts(tmp_path: Path, plan: Plan, here: Site) -> None:
    store = Store(tmp_path / "runs")
    run(plan, store, FakeLauncher(), here, Notes())
    launcher = FakeLauncher()
    run(plan, store, launcher, replace(here, device="cuda:0", machine=V100), Notes())
    assert launcher.batches == [("throughput one at 224",), ("throughput two at 224",)]


def test_a_failing_job_fails_alone_and_is_tried_again_next_time(tmp_path: Path, plan: Plan, here: Site) -> None:
    store = Store(tmp_path / "runs")
    done = run(plan, store, FakeLauncher(errors={"throughput one": "no luck"}), here, Notes())
    assert [(str(r.job), r.error) for r in done.failed] == [("throughput one at 224", "no luck")]
    assert len(done.results) == 4
    launcher = FakeLauncher()
    again = run(plan, store, launcher, here, Notes())
    assert launcher.batches == [("throughput one at 224",)]
    assert again.failed == []


def test_a_process_that_dies_loses_the_job_in_hand_only(tmp_path: Path, plan: Plan, here: Site) -> None:
    notes = Notes()
    done = run(plan, Store(tmp_path / "runs"), FakeLauncher(crashes={"count one"}), here, notes)
    assert [(str(r.job), r.error) for r in done.failed] == [("count one at 224", "the process was ended by SIGSEGV")]
    assert notes.said == [
        "1/4 count one at 224",
        "count one at 224: the process was ended by SIGSEGV",
        "2/4 count two at 224",
        "count two at 224: done",
        "3/4 throughput one at 224",
        "throughput one at 224: done",
        "4/4 throughput two at 224",
        "throughput two at 224: done",
    ]


def test_an_interruption_keeps_what_is_finished_and_the_next_run_goes_on(
    tmp_path: Path, plan: Plan, here: Site
) -> None:
    store = Store(tmp_path / "runs")
    done = Done()
    with pytest.raises(KeyboardInterrupt):
        run(plan, store, FakeLauncher(interrupts={"throughput two"}), here, Notes(), done=done)
    assert len(done.measured) == 3
    launcher = FakeLauncher()
    run(plan, store, launcher, here, Notes())
    assert launcher.batches == [("throughput two at 224",)]


def test_unknown_networks_are_refused_together_and_before_anything_is_measured(
    tmp_path: Path, plan: Plan, here: Site
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


def test_nothing_is_measured_where_nothing_could_be_kept(tmp_path: Path, plan: Plan, here: Site) -> None:
    (tmp_path / "runs").write_text("")
    launcher = FakeLauncher()
    with pytest.raises(HarnessError):
        run(plan, Store(tmp_path / "runs"), launcher, here, Notes())
    assert launcher.batches == []


def test_two_at_once_measure_each_speed_once(tmp_path: Path, plan: Plan, here: Site) -> None:
    started = threading.Barrier(2, timeout=20)
    launchers = [FakeLauncher(), FakeLauncher()]
    speeds = make_plan(plan.specs, Options(only=frozenset({"throughput"})))

    def go(launcher: FakeLauncher) -> None:
        started.wait()
        run(speeds, Store(tmp_path / "runs"), launcher, here, Notes())

    threads = [threading.Thread(target=go, args=(launcher,)) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(launchers[0].batches + launchers[1].batches) == [
        ("throughput one at 224",),
        ("throughput two at 224",),
    ]
