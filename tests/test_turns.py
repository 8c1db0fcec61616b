"""Two environments by turns: what is slower is detected, what is not is not, whatever the machine does meanwhile."""

import json
import math
import os
import random
import runpy
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import HarnessError, JobError
from harness.gate.decision import Outcome
from harness.gate.gate import Gate
from harness.gate.turns import Outcomes, change_of, decide, gate_of, is_decided
from harness.judge.compare import Evaluation
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.report.gate import render_annotations, render_badge, render_junit, render_summary, render_turns
from harness.run.interpreter import Interpreter
from harness.run.turns import FailsBeforeError, Measured, ProcessPair, Turns, open_sides, take_turns
from harness.specs import Catalog, load
from harness.store.predictions import Predictions, write
from harness.store.store import Store
from tests.commands import Command, run_harness
from tests.evaluations import FOUR, LABELS, NAMES, SIX, head_of, result_of_evaluation
from tests.evaluations import evaluation as evaluation_job

ROOT = Path(__file__).parent.parent

SPEC = """
[table]
title = "Small ones"
[column.speed]
label = "speed"
job = "throughput"
metric = "throughput"
unit = "im/s"
set = { batch = 2 }
[row.net]
label = "net"
set = { model = "resnet18", res = 64 }
"""


def throughput(model: str = "resnet18", **settings: int) -> Job:
    given: dict[str, str | int] = {
        "model": model,
        "res": 64,
        "protocol": "paper",
        "batch": 2,
        "repeats": 30,
        **settings,
    }
    return Job.of("throughput", given)


def pairs_of(*slower: float, before: float = 100.0) -> list[ProcessPair]:
    return [ProcessPair(before=before, now=before / ratio, slower=ratio) for ratio in slower]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(SPEC, encoding="utf-8")
    return partial(run_harness, tmp_path)


# What is decided.


def test_the_change_is_of_the_throughput_with_students_interval_over_the_pairs() -> None:
    ratios = (1.04, 1.05, 1.06, 1.05, 1.05)
    logs = [math.log(ratio) for ratio in ratios]
    half = 4.604 * statistics.stdev(logs) / math.sqrt(5)  # 4.604: of Student's t with 4 degrees of freedom, 99.5 %
    change = change_of(pairs_of(*ratios))
    assert change.value == pytest.approx(1 / math.exp(statistics.fmean(logs)) - 1)
    assert change.low == pytest.approx((1 + change.value) * math.exp(-half) - 1, rel=1e-3)
    assert change.high == pytest.approx((1 + change.value) * math.exp(half) - 1, rel=1e-3)


@pytest.mark.parametrize(
    ("slower", "outcome"),
    [
        ((1.05, 1.06, 1.05, 1.04, 1.05), Outcome.REGRESSED),
        ((0.95, 0.94, 0.95, 0.96, 0.95), Outcome.IMPROVED),
        ((1.00, 1.005, 0.995, 1.00, 1.00), Outcome.HELD),
        ((1.01, 1.012, 1.008, 1.01, 1.01), Outcome.HELD),  # slower, but by no more than is allowed
        ((1.05, 0.95, 1.10, 0.90, 1.00), Outcome.NOT_JUDGED),
        ((1.05, 1.05, 1.05, 1.05), Outcome.NOT_JUDGED),  # too few, however well they agree
    ],
)
def test_what_the_interval_is_on_one_side_of_is_decided(slower: Sequence[float], outcome: Outcome) -> None:
    assert decide(pairs_of(*slower), 0.02).outcome is outcome
    assert is_decided(pairs_of(*slower), 0.02) is (outcome is not Outcome.NOT_JUDGED)


def test_of_a_thousand_unchanged_networks_in_noise_of_3_percent_none_is_called_slower_by_more_than_2() -> None:
    draw, alarms = random.Random(7), 0
    for _ in range(1000):
        pairs = pairs_of(*(draw.gauss(1, 0.03) for _ in range(5)))
        while not is_decided(pairs, 0.02) and len(pairs) < 40:
            pairs += pairs_of(draw.gauss(1, 0.03))
        alarms += decide(pairs, 0.02).outcome is Outcome.REGRESSED
    assert alarms == 0


def test_of_a_hundred_networks_that_are_5_percent_slower_95_are_detected_within_40_pairs() -> None:
    draw, detected = random.Random(7), 0
    for _ in range(100):
        pairs = pairs_of(*(draw.gauss(1.05, 0.03) for _ in range(5)))
        while not is_decided(pairs, 0.02) and len(pairs) < 40:
            pairs += pairs_of(draw.gauss(1.05, 0.03))
        detected += decide(pairs, 0.02).outcome is Outcome.REGRESSED
    assert detected >= 95


# Who is measured, and for how long.


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def taken(
    slower: dict[Job, list[float]], seconds: float, *, fails: Job | None = None
) -> tuple[dict[Job, Sequence[ProcessPair]], dict[Job, str], list[Job]]:
    """Take turns where a pair takes ten seconds; return what that does, and the order of the pairs."""
    clock, order = Clock(), []

    def measure(job: Job) -> ProcessPair:
        clock.seconds += 10
        order.append(job)
        if job == fails:
            raise JobError("no such model")
        return pairs_of(slower[job][sum(each == job for each in order) - 1])[0]

    measured = take_turns(
        list(slower),
        measure,
        lambda pairs: is_decided(pairs, 0.02),
        seconds=seconds,
        report=lambda *_: None,
        now=clock,
    )
    return dict(measured.pairs), {job: str(error) for job, error in measured.failed.items()}, order


NOISY = [1.1, 0.9] * 100
ONE, OTHER = throughput("resnet18"), throughput("resnet34")


def test_jobs_take_turns_and_each_ends_when_it_is_decided() -> None:
    pairs, _, order = taken({ONE: [1.05] * 40, OTHER: [1.0] * 4 + NOISY}, 1000)
    assert order[:4] == [ONE, OTHER, ONE, OTHER]
    assert len(pairs[ONE]) == 5
    assert len(pairs[OTHER]) > 5


def test_it_ends_before_the_time_is_over_even_where_nothing_is_decided() -> None:
    pairs, _, _ = taken({ONE: NOISY, OTHER: NOISY}, 95)
    assert sum(map(len, pairs.values())) == 9  # ten would take 100 s


def test_each_job_has_one_pair_however_little_time_there_is() -> None:
    pairs, _, _ = taken({ONE: NOISY, OTHER: NOISY}, 1)
    assert [len(each) for each in pairs.values()] == [1, 1]


def test_a_job_that_fails_is_named_and_the_others_go_on() -> None:
    pairs, failed, _ = taken({ONE: [1.05] * 40, OTHER: []}, 1000, fails=OTHER)
    assert failed == {OTHER: "no such model"}
    assert len(pairs[ONE]) == 5


# The processes.


class FakeSide:
    """A side whose steps take so many seconds; `log` gets each turn."""

    def __init__(self, name: str, seconds: float, log: list[str]) -> None:
        self.name, self.seconds, self.log, self._begins = name, seconds, log, True

    def tell(self, **command: Any) -> None:  # noqa: ANN401
        self._begins = "job" in command
        self.log.append(f"{self.name} {'begins' if self._begins else 'turn' if command else 'ends'}")

    def hear(self) -> dict[str, Any]:
        return {"batch": 2, "seconds": self.seconds, "cost": None}

    def stop(self) -> None:
        self.log.append(f"{self.name}'s process stops")

    def start(self) -> None:
        self.log.append(f"{self.name}'s process starts")

    def wait(self) -> None:
        self.log.append(f"{self.name}'s process is ready")


def test_both_sides_take_turns_in_random_order_and_the_ratio_is_now_over_before() -> None:
    log: list[str] = []
    sides: Any = (FakeSide("old", 1.0, log), FakeSide("new", 1.25, log))
    pair = Turns(sides=sides, device="cpu", threads=1, draw=random.Random(1)).measure_pair(throughput())
    assert pair == ProcessPair(before=2.0, now=1.6, slower=1.25)
    turns = [line.split()[0] for line in log if line.endswith("turn")]
    blocks = [tuple(turns[at : at + 2]) for at in range(0, len(turns), 2)]
    assert {frozenset(block) for block in blocks} == {frozenset(("old", "new"))}
    assert len(set(blocks)) == 2  # now one begins, now the other
    assert sorted(log[:2] + log[-2:]) == ["new begins", "new ends", "old begins", "old ends"]


def test_no_two_pairs_of_a_job_are_forked_from_the_same_processes() -> None:
    log: list[str] = []
    sides: Any = (FakeSide("old", 1.0, log), FakeSide("new", 1.0, log))
    turns = Turns(sides=sides, device="cpu", threads=1)
    renewals = []
    for job in (ONE, OTHER, ONE, OTHER, ONE):
        log.clear()
        turns.measure_pair(job)
        renewals.append([line for line in log if "process" in line])
    # Both start before the first is waited for: they import torch at the same time.
    renewed = [f"{name}'s process {verb}" for name in ("old", "new") for verb in ("stops", "starts")]
    renewed += ["old's process is ready", "new's process is ready"]
    assert renewals == [[], [], renewed, [], renewed]


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_job_that_fails_or_is_killed_leaves_the_environments_ready_for_the_next() -> None:
    here = Path(sys.executable)
    with open_sides([Interpreter.of(here)] * 2) as sides:
        turns = Turns(sides=sides, device="cpu", threads=1)
        pair = turns.measure_pair(throughput())
        assert pair.slower == pytest.approx(1, abs=0.9)
        assert pair.now == pytest.approx(pair.before, rel=0.9)
        with pytest.raises(JobError, match="resnet_19"):
            turns.measure_pair(throughput("resnet_19"))
        sides[0].tell(job=dict(throughput().settings), device="cpu", threads=1, batch=2, counts=False)
        sides[0].hear()
        (child,) = children_of(sides[0].process.pid)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(JobError, match="the process was ended by SIGKILL"):
            sides[0].hear()
        assert turns.measure_pair(throughput()).before > 0
    assert [side.process.returncode for side in sides] == [0, 0]


def test_an_environment_without_torch_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = tmp_path / "bare" / "bin" / "python"
    with (
        pytest.raises(HarnessError) as raised,
        open_sides([Interpreter.of(bare), Interpreter.of(Path(sys.executable))]),
    ):
        pass
    assert str(raised.value) == (
        f"--python {bare}: ModuleNotFoundError: No module named 'timm'; it needs Python 3.11 or later, torch and timm"
    )


def test_a_python_that_is_none_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    message = "No such file or directory; name the Python of an environment"
    with pytest.raises(HarnessError, match=message), open_sides([Interpreter.of(tmp_path / "python")]):
        pass


# The command.


def test_an_environment_that_is_half_as_fast_fails(harness: Command, tmp_path: Path) -> None:
    make_environment = runpy.run_path(str(ROOT / "examples" / "ab_story.py"))["make_environment"]
    same, slow = (str(make_environment(tmp_path / name, factor)) for name, factor in (("same", 1.0), ("slow", 2.0)))
    failing = harness("ab", "./mine.toml", "--python", same, "--python", slow, "--device", "cpu", "--junit", "ab.xml")
    assert failing.returncode == 1, failing.stdout + failing.stderr
    assert failing.stdout.startswith("fails: 1 regressed, 1 held\n")  # whose forward pass does the same
    assert "% slower, 2 % allowed; 5 pairs of processes" in failing.stdout
    assert '<testsuites name="harness ab" tests="2" failures="1"' in (tmp_path / "ab.xml").read_text()


def test_what_is_not_decided_within_the_budget_is_said_and_ends_with_4(harness: Command) -> None:
    here = "--python", sys.executable
    ran = harness("ab", "./mine.toml", *here, *here, "--device", "cpu", "--budget", "1s")
    assert ran.returncode == 4, ran.stdout + ran.stderr
    assert "not decided by 1 pair of processes; give more --budget" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            [],
            "give --python twice: that of the old environment, then that of the new one; or --rev twice, as --rev main",
        ),
        (["--rev", "main"], "or --rev twice, as --rev main --rev ."),
        (["--rev", "main", "--rev", ".", "--python", "a"], "or --rev twice, as --rev main --rev ."),
        (
            ["--python", "a", "--python", "b", "--only", "train,throughput"],
            "count, cost, evaluate, throughput, not train",
        ),
        (["--python", "a", "--python", "b", "--comment", "a-->b"], "'a-->b' is not a name of letters, digits"),
        (["--python", "a", "--python", "b", "--allow", "0"], "'0' is not a percentage from 0.5% up; write it as 2%"),
        (
            ["--python", "a", "--python", "b", "--repeats", "9"],
            "so it takes no --repeats, --memory and --batch largest",
        ),
        (["--python", "a", "--python", "b", "--batch", "largest"], "give --batch N for another one"),
        (["--python", "a", "--python", "b", "--github", "--json"], "--github and --json both print to stdout"),
        (["--python", "a", "--python", "b"], "--python a: No such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence(harness: Command, arguments: list[str], error: str) -> None:
    ran = harness("ab", "./mine.toml", "--device", "cpu", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert error in ran.stderr
    assert "Traceback" not in ran.stderr


# What fails, and what Ctrl-C leaves.


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FailsBeforeError("it fails in the old environment: no such model"), Outcome.NOT_JUDGED),
        (JobError("it fails in the new environment: no such model"), Outcome.MISSING),
    ],
)
def test_what_fails_in_the_new_environment_alone_is_a_regression(error: JobError, outcome: Outcome) -> None:
    plan = make_plan(Catalog().find(["table5"]))
    job = next(planned.job for planned in plan.cells if planned.cell.metric == "throughput" and planned.job)
    (cell, *_) = gate_of(plan, Measured(pairs={job: []}, failed={job: error}), 0.02).cells
    assert (cell.outcome, cell.reason) == (outcome, str(error))


@pytest.mark.parametrize("fails", [0, 1])
def test_it_is_said_in_which_environment_a_model_fails(fails: int) -> None:
    class Failing(FakeSide):
        def hear(self) -> dict[str, Any]:
            raise JobError("out of memory at batch 2")

    log: list[str] = []
    sides: Any = [FakeSide("old", 1.0, log), FakeSide("new", 1.0, log)]
    sides[fails] = Failing("failing", 1.0, log)
    with pytest.raises(JobError) as raised:
        Turns(sides=tuple(sides), device="cpu", threads=1).measure_pair(throughput())
    assert isinstance(raised.value, FailsBeforeError) is (fails == 0)
    assert str(raised.value) == f"it fails in the {('old', 'new')[fails]} environment: out of memory at batch 2"
    for name in ("old", "new"):
        assert log.count(f"{name} begins") == log.count(f"{name} ends")


def test_ctrl_c_keeps_what_was_decided() -> None:
    def measure(job: Job) -> ProcessPair:
        if job == OTHER:
            raise KeyboardInterrupt
        return pairs_of(1.0)[0]

    measured = take_turns([ONE, OTHER], measure, lambda _: True, seconds=100, report=lambda *_: None)
    assert measured.interrupted
    assert [len(pairs) for pairs in measured.pairs.values()] == [1, 0]


# What is shown.


ACCURACIES = """
[table]
title = "Tiny"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "% top-1"
better = "higher"
tolerance = 0.05
set = { data = "imagenet" }
[row.tiny]
label = "Tiny"
set = { model = "deit_tiny_patch16_224", weights = "fb_in1k", res = 224 }
"""


def accuracies(folder: Path, *, old: Evaluation | str, new: Evaluation | str) -> Gate:
    """Compare two evaluations, or the sentences why there is none, as two environments left them."""
    (folder / "mine.toml").write_text(ACCURACIES, encoding="utf-8")
    plan = make_plan([load(folder / "mine.toml")], Options(data=frozenset({"imagenet"})))
    (job,) = plan.jobs
    sides = []
    for name, evaluation in (("old", old), ("new", new)):
        store, outcome = Store(folder / name), evaluation
        if isinstance(outcome, Evaluation):
            result = replace(outcome.result, job=job)
            store.save(result)
            write(outcome.predictions, store.predictions_of(result))
            sides.append(Outcomes(store=store, outcomes={job: result}))
        else:
            sides.append(Outcomes(store=store, outcomes={job: outcome}))
    return gate_of(plan, Measured(pairs={}, failed={}), 0.02, sides, names=("main (abc1234)", "the working tree"))


def evaluated(predicted: Sequence[int], top1: float) -> Evaluation:
    return Evaluation(
        result=result_of_evaluation(evaluation_job(), metrics={"top1": top1}),
        predictions=Predictions(
            names=NAMES, labels=np.array(LABELS, dtype=np.int32), heads={"class": head_of(predicted)}
        ),
    )


def test_accuracies_are_compared_on_the_same_images_and_those_that_flip_are_named(tmp_path: Path) -> None:
    # Right at the first six, and at 0, 1, 2 and 6: three are lost and one is won.
    gate = accuracies(tmp_path, old=evaluated(SIX, 60.0), new=evaluated(FOUR, 40.0))
    (cell,) = gate.cells
    assert cell.evidence is not None
    assert (cell.evidence.lost, cell.evidence.won) == (NAMES[3:6], NAMES[6:7])
    # McNemar's: of four that flip, one or fewer one way by chance, both ways.
    assert cell.evidence.p == pytest.approx(2 * (1 + 4) / 2**4)
    assert cell.outcome is Outcome.HELD
    text = render_summary(gate)
    assert text.startswith("### harness ab passes: 1 held\n\nthe working tree against main (abc1234).\n\n")
    row = "| ✓&nbsp;held | mine, top-1 of Tiny | 60.00&nbsp;% | 40.00&nbsp;% |"
    assert f"|  | cell | old | new | change |\n|---|---|--:|--:|---|\n{row}" in text
    assert f"- mine, top-1 of Tiny: 1 image that only the new one has right: {NAMES[6]}\n" in text.replace("\\", "")
    assert render_turns(gate).splitlines()[-2:] == [
        f"mine, top-1 of Tiny: 3 images that only the old one has right: {', '.join(NAMES[3:6])}",
        f"mine, top-1 of Tiny: 1 image that only the new one has right: {NAMES[6]}",
    ]


def test_an_accuracy_that_fails_in_the_new_environment_alone_is_a_regression(tmp_path: Path) -> None:
    whole = evaluated(SIX, 60.0)
    (cell,) = accuracies(tmp_path, old=whole, new="no such model").cells
    assert (cell.outcome, cell.reason) == (Outcome.MISSING, "it fails in the new environment: no such model")
    (cell,) = accuracies(tmp_path, old="no such model", new=whole).cells
    assert (cell.outcome, cell.reason) == (Outcome.NOT_JUDGED, "it fails in the old environment: no such model")


def test_a_summary_is_cut_to_what_a_comment_takes(tmp_path: Path) -> None:
    gate = accuracies(tmp_path, old=evaluated(SIX, 60.0), new="no such model")
    many = replace(gate, cells=gate.cells * 2000)
    text = render_summary(many, most=65_536)
    assert 60_000 < len(text.encode()) <= 65_536
    assert text.endswith("|\nMore is left out here, it would not fit; `--junit` has it.\n\n")


def test_a_badge_has_the_color_of_the_outcome(tmp_path: Path) -> None:
    failing = accuracies(tmp_path, old=evaluated(SIX, 60.0), new="no such model")
    assert json.loads(render_badge(failing)) == {
        "schemaVersion": 1, "label": "harness ab", "message": "fails: 1 missing", "color": "red"
    }  # fmt: skip
    assert json.loads(render_badge(replace(failing, cells=())))["color"] == "lightgrey"


def test_old_new_and_change_stand_side_by_side() -> None:
    plan = make_plan(Catalog().find(["table5"]))
    jobs = {
        planned.cell.row.key: planned.job
        for planned in plan.cells
        if planned.cell.metric == "throughput" and planned.job and planned.cell.row.key in ("resnet18", "resnet50")
    }
    first, second = jobs["resnet18"], jobs["resnet50"]
    assert first is not None
    assert second is not None
    pairs = {first: pairs_of(1.05, 1.06, 1.05, 1.04, 1.05), second: pairs_of(1.0)}
    gate = gate_of(plan, Measured(pairs=pairs, failed={}), 0.02)
    change = "4.8 [3.4, 6.1] % slower, 2 % allowed; 5 pairs of processes"
    few = "not decided by 1 pair of processes; give more --budget"
    assert render_turns(gate).splitlines() == [
        "fails: 1 regressed, 1 not judged",
        "                                               old         new         change",
        f"✗ regressed   table5, throughput of ResNet-18  100.0 im/s  95.24 im/s  {change}",
        f"· not judged  table5, throughput of ResNet-50                          {few}",
    ]
    assert 'name="harness ab"' in render_junit(gate)
    assert render_annotations(gate).startswith("::error title=table5 regressed::table5, throughput of ResNet-18: ")
