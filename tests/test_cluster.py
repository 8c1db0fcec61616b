"""What is submitted, waited for and tried again, with a fake Slurm; and what a task does on its node."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, StoreError
from harness.plan.job import Job
from harness.plan.plan import Options, Plan, make_plan
from harness.run.cluster import Controller, Ledger, task_statuses
from harness.run.cluster.controller import RETRY_FULL
from harness.run.cluster.ledger import JobOutcome, append_json, read_outcomes
from harness.run.cluster.status import GRACE
from harness.run.cluster.task import MAX_DEATHS, MAX_STANDSTILLS, Task, killed_for_memory
from harness.run.launch.slurm import QueueFull, Resources, Settings, Slurm, SlurmRecord
from harness.run.messages import Inputs, Inventory
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog, load
from harness.store.result import new_id
from harness.store.store import Store
from tests.fakes import LAPTOP, VERSIONS, FakeLauncher, result_of
from tests.test_atomic import full_disk
from tests.test_run import SPEC, Notes


@dataclass
class FakeSlurm(Slurm):
    """Keeps arrays in a queue.  `room` is how many arrays it accepts, `acts` what happens at each query."""

    room: int = 10**9
    longest: int = 1000
    queue: dict[str, SlurmRecord] = field(default_factory=dict)
    accounts: dict[str, SlurmRecord] = field(default_factory=dict)
    submitted: list[tuple[str, tuple[str, ...], list[Task]]] = field(default_factory=list)
    resources: list[Resources] = field(default_factory=list)
    acts: list[Callable[[], None]] = field(default_factory=list)
    queries: int = 0
    accounted: int = 0

    def check(self, settings: Settings) -> None:
        pass

    def longest_array(self) -> int:
        return self.longest

    def submit(
        self,
        tasks: Sequence[Callable[[], Any]],
        *,
        folder: Path,
        resources: Resources,
        settings: Settings,
        after: Iterable[str] = (),
        timeouts: int = 3,
    ) -> str:
        if len(self.submitted) >= self.room:
            raise QueueFull("QOSMaxSubmitJobPerUserLimit")
        number = str(100 + len(self.submitted))
        self.submitted.append((number, tuple(after), [task for task in tasks if isinstance(task, Task)]))
        self.resources.append(resources)
        numbers = [number] if len(tasks) == 1 else [f"{number}_{index}" for index in range(len(tasks))]
        self.queue |= dict.fromkeys(numbers, SlurmRecord(state="PENDING", reason="Priority"))
        folder.mkdir(parents=True)
        return number

    def queued(self, ids: Iterable[str], name: str = "") -> dict[str, SlurmRecord]:
        self.queries += 1
        if self.acts:
            self.acts.pop(0)()
        return dict(self.queue)

    def ended(self, ids: Iterable[str]) -> dict[str, SlurmRecord]:
        self.accounted += bool(set(ids))
        return dict(self.accounts)

    def cancel(self, numbers: Sequence[str]) -> None:
        for number in numbers:
            del self.queue[number]


def finish(slurm: FakeSlurm, store: Store, number: str, error: str | None = None) -> None:
    """Write the outcomes of all jobs of an array, as its tasks would."""
    for submitted, _, tasks in slurm.submitted:
        if submitted == number:
            for index, task in enumerate(tasks):
                for job in task.jobs:
                    result = result_of(job, error=error)
                    store.save(result)
                    ledger = Ledger(runs=store.root)
                    array = next(array for array in ledger.arrays() if array.number == number)
                    ledger.add_outcome(array, index, JobOutcome(key=job.key, id=result.id, error=error))
                slurm.queue.pop(number, None)
                slurm.queue.pop(f"{number}_{index}", None)


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        assert self.at < 3600, "it waits for ever"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "two.toml"
    path.write_text(SPEC, encoding="utf-8")
    return make_plan([load(path)])


def controller(tmp_path: Path, slurm: Slurm, **settings: Any) -> Controller:  # noqa: ANN401
    target = ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS, lock=tmp_path / "speed.lock")
    runner = Runner(store=Store(tmp_path / "runs"), launcher=FakeLauncher(), target=target, observer=Notes())
    clock = Clock()
    return Controller(runner=runner, slurm=slurm, settings=Settings(**settings), now=clock, sleep=clock.sleep)


def submissions(slurm: FakeSlurm) -> list[tuple[tuple[str, ...], list[list[str]]]]:
    return [(after, [[str(job) for job in task.jobs] for task in tasks]) for _, after, tasks in slurm.submitted]


# Submitting.


def test_counts_share_a_task_and_each_throughput_has_its_own(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm()
    message = controller(tmp_path, slurm).run(plan, detach=True)
    assert message == "4 jobs submitted"
    assert submissions(slurm) == [
        ((), [["count one at 224", "count two at 224"]]),
        ((), [["throughput one at 224"], ["throughput two at 224"]]),
    ]
    assert [resources.exclusive for resources in slurm.resources] == [False, True]


def test_a_second_command_submits_nothing_and_says_how_many_jobs_are_submitted(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm()
    controller(tmp_path, slurm).run(plan, detach=True)
    assert controller(tmp_path, slurm).run(plan, detach=True) == "0 jobs submitted, 4 on their way already"
    assert len(slurm.submitted) == 2


def test_arrays_are_no_longer_than_the_cluster_allows(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm(longest=1)
    controller(tmp_path, slurm).run(plan, detach=True)
    assert [len(tasks) for _, _, tasks in slurm.submitted] == [1, 1, 1]


def test_a_student_waits_for_its_teacher_and_its_evaluation_for_it(tmp_path: Path) -> None:
    options = Options(train=True, scale="smoke", rows=("hard_distillation",), columns=("ti_224",))
    plan = make_plan(Catalog().find(["table3"]), options)
    slurm = FakeSlurm()
    controller(tmp_path, slurm).run(plan, detach=True)
    assert [(after, [job.kind for task in tasks for job in task.jobs]) for _, after, tasks in slurm.submitted] == [
        ((), ["train"]),
        (("100",), ["train"]),
        (("101",), ["evaluate"]),
    ]


def test_a_training_at_the_published_scale_asks_for_the_published_hours(tmp_path: Path) -> None:
    options = Options(
        train=True, rows=("no_distillation",), columns=("b_224",), data=frozenset({"imagenet"}), retrain=True
    )
    plan = make_plan(Catalog().find(["table3"]), options)
    job = next(job for job in plan.jobs if job.kind == "train")
    requested = controller(tmp_path, FakeSlurm(), gpus=4, nodes=2).resources(job, plan)
    # DeiT-B: 53 hours on eight GPUs (section 6), with half as much again.
    assert requested == Resources(minutes=round(53 * 60 * 1.5), cpus=32, gpus=4, nodes=2, memory=4 * 64 * 2**30)
    assert requested.notice == 120
    bounded = controller(tmp_path, FakeSlurm(), gpus=8, hours=24.0, cpus=40, job_memory=2**38).resources(job, plan)
    assert bounded == Resources(minutes=1440, cpus=40, gpus=8, nodes=1, memory=2**38)


def test_a_full_queue_is_tried_again_later(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm(room=1)
    message = controller(tmp_path, slurm).run(plan, detach=True)
    assert message == ("2 jobs submitted, 2 not taken (QOSMaxSubmitJobPerUserLimit): give the same command again later")
    submitter = controller(tmp_path, slurm)
    store = Store(tmp_path / "runs")

    def more() -> None:
        slurm.room = 2

    slurm.acts = [lambda: None, lambda: finish(slurm, store, "100"), more]
    slurm.acts += [lambda: None] * int(RETRY_FULL / 5) + [lambda: finish(slurm, store, "101")]
    assert submitter.run(plan) == "2 jobs submitted, 2 on their way already"
    assert sorted(submitter.runner.results) == sorted(job.key for job in plan.jobs)


def test_an_array_whose_submitter_died_is_recovered_by_its_name(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm()
    submitter = controller(tmp_path, slurm)
    submitter.run(plan, detach=True)
    ledger = Ledger(runs=tmp_path / "runs")
    throughputs = ledger.arrays()[-1]
    ledger.save(replace(throughputs, number=""))
    slurm.queue.pop("100")

    class Named(FakeSlurm):
        def queued(self, ids: Iterable[str], name: str = "") -> dict[str, SlurmRecord]:
            return slurm.queue if name == throughputs.name else {}

    with ledger.locked():
        tasks = task_statuses(ledger, Named(), locked=True)
    assert [task.number for task in tasks if task.array.name == throughputs.name] == ["101_0", "101_1"]
    assert [array.number for array in Ledger(runs=tmp_path / "runs").arrays()] == ["100", "101"]


# Following.


def test_results_are_collected_as_they_come_with_one_query_of_slurm_every_five_seconds(
    tmp_path: Path, plan: Plan
) -> None:
    slurm, store = FakeSlurm(), Store(tmp_path / "runs")
    submitter = controller(tmp_path, slurm)
    slurm.acts = [*[lambda: None] * 5, lambda: finish(slurm, store, "100"), lambda: finish(slurm, store, "101")]
    submitter.run(plan)
    assert len(submitter.runner.measured) == 4
    assert isinstance(submitter.now, Clock)
    assert slurm.queries <= 2 + submitter.now.at / 5
    assert slurm.accounted == 0  # nothing ended without a result


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("OUT_OF_MEMORY", "out of memory: it used more than it had asked Slurm for; give more with --job-memory"),
        ("TIMEOUT", "it ran into its time limit; give more with --hours"),
        ("CANCELLED", "it was cancelled"),
        ("FAILED", "it ended as FAILED (exit code 1:0) and left no result"),
    ],
)
def test_a_job_without_a_result_has_failed_for_the_reason_that_slurm_gives(
    tmp_path: Path, plan: Plan, state: str, why: str
) -> None:
    slurm, store = FakeSlurm(), Store(tmp_path / "runs")
    submitter = controller(tmp_path, slurm)

    def ends() -> None:
        del slurm.queue["101_0"]
        slurm.accounts["101_0"] = SlurmRecord(state=state, reason="1:0")
        finish(slurm, store, "100")

    def rest() -> None:
        for task in slurm.submitted[1][2][1:]:
            result = result_of(task.jobs[0])
            store.save(result)
            ledger = Ledger(runs=store.root)
            ledger.add_outcome(ledger.arrays()[1], 1, JobOutcome(key=task.jobs[0].key, id=result.id))
        del slurm.queue["101_1"]

    slurm.acts = [lambda: None, ends, rest]
    submitter.run(plan)
    array = Ledger(runs=tmp_path / "runs").arrays()[1]
    log = tmp_path / "runs" / ".slurm" / "arrays" / array.name / "101_0_0_log.err"
    assert [(str(r.job), r.error) for r in submitter.runner.failed] == [
        ("throughput one at 224", f"{why}; Slurm job 101_0, log {log}")
    ]
    assert len(submitter.runner.results) == 4


def test_jobs_of_a_failed_node_are_submitted_again_at_most_twice(tmp_path: Path, plan: Plan) -> None:
    slurm, store = FakeSlurm(), Store(tmp_path / "runs")
    submitter = controller(tmp_path, slurm)
    counts = make_plan(plan.specs, Options(only=frozenset({"count"})))

    def dies() -> None:
        for number in list(slurm.queue):
            slurm.accounts[number] = SlurmRecord(state="NODE_FAIL", node="n1")
            del slurm.queue[number]

    slurm.acts = [lambda: None] + [dies] * 60
    submitter.run(counts)
    assert [array.attempts for array in Ledger(runs=store.root).arrays()] == [(0,), (1,), (2,)]
    assert [str(r.error).partition(";")[0] for r in submitter.runner.failed] == ["its node failed"] * 2


def test_a_task_that_slurm_has_forgotten_is_pending_until_its_files_would_exist(tmp_path: Path, plan: Plan) -> None:
    slurm = FakeSlurm()
    controller(tmp_path, slurm).run(plan, detach=True)
    slurm.queue.clear()
    ledger = Ledger(runs=tmp_path / "runs")
    assert {task.state.value for task in task_statuses(ledger, slurm)} == {"pending"}
    for array in ledger.arrays():
        ledger.save(replace(array, submitted=array.submitted - GRACE - timedelta(seconds=1)))
    assert {(task.state.value, task.reason) for task in task_statuses(ledger, slurm)} == {
        ("lost", "Slurm does not know it any more")
    }


# Slurm's own words.


def answers(outputs: Mapping[str, str]) -> Slurm:
    return Slurm(run=lambda command: outputs[command[0]])


def test_the_queue_and_the_accounting_are_read_as_slurm_writes_them() -> None:
    squeue = "12_0|RUNNING|None|n1\n12_1|PENDING|Resources|\n7|RUNNING|None|n2\n"
    sacct = "12_0|OUT_OF_MEMORY|0:125|n1\n12_1|CANCELLED by 1000|0:0|None assigned\n12_[2-9]|PENDING|0:0|\n"
    slurm = answers({"squeue": squeue, "sacct": sacct, "scontrol": "MaxArraySize            = 1001\n"})
    assert slurm.queued(["12"]) == {
        "12_0": SlurmRecord(state="RUNNING", node="n1"),
        "12_1": SlurmRecord(state="PENDING", reason="Resources"),
    }
    assert {number: record.state for number, record in slurm.ended(["12"]).items()} == {
        "12_0": "OUT_OF_MEMORY",
        "12_1": "CANCELLED",
    }
    assert slurm.longest_array() == 1000


def test_a_machine_without_slurm_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError) as refused:
        Slurm().check(Settings())
    assert str(refused.value) == (
        "--launcher slurm: sbatch is not on this machine; run on a login node of the cluster, or without "
        "--launcher slurm"
    )


# A task.


def task(tmp_path: Path, job: Job, **fields: Any) -> Task:  # noqa: ANN401
    folder = tmp_path / "runs" / ".slurm" / "arrays" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    return Task(
        **{
            "jobs": (job,),
            "runs": tmp_path / "runs",
            "folder": folder,
            "index": 0,
            "inputs": Inputs(),
            "inventory": Inventory(),
            "workers": None,
            "resources": Resources(minutes=60, cpus=1, gpus=0, nodes=1, memory=2**30),
            "node_kind": "here",
            **fields,
        }
    )


def began(tmp_path: Path, notes: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps({"what": what, "node": node, "reached": reached}) for what, node, reached in notes]
    (tmp_path / "runs" / ".slurm" / "arrays" / "one" / "0.started").write_text("".join(f"{line}\n" for line in lines))


COUNT = Job.of("count", {"model": "resnet18", "res": 224})
TRAIN = Job.of("train", {"model": "deit_tiny_patch16_224", "res": 32, "recipe": "deit-ti", "seed": 1})


def test_a_task_runs_its_jobs_once_however_often_it_starts(tmp_path: Path) -> None:
    started = task(tmp_path, COUNT)
    started()
    started()
    results = list(Store(tmp_path / "runs").results(COUNT))
    assert [result.metrics["params"].value for result in results] == [11.689512]
    assert Ledger(runs=tmp_path / "runs").machine_of("here") is not None


def test_a_task_that_died_between_a_result_and_its_note_of_it_does_not_run_the_job_again(tmp_path: Path) -> None:
    store, ledger = Store(tmp_path / "runs"), Ledger(runs=tmp_path / "runs")
    array = ledger.new("train", ((TRAIN,),), (0,))
    earlier, saved = (replace(result_of(TRAIN), started=array.submitted + timedelta(seconds=s)) for s in (-1, 1))
    for result in (earlier, saved):
        store.save(replace(result, id=new_id(result.started)))
    started = task(tmp_path, TRAIN, folder=ledger.folder_of(array))
    (newest, _) = store.results(TRAIN)
    started()
    assert ledger.outcomes(array) == {0: (JobOutcome(key=TRAIN.key, id=newest.id),)}
    assert len(list(store.results(TRAIN))) == 2


def test_a_result_of_a_lost_task_that_did_not_note_it_counts(tmp_path: Path, plan: Plan) -> None:
    slurm, store = FakeSlurm(), Store(tmp_path / "runs")
    submitter = controller(tmp_path, slurm)
    counts = make_plan(plan.specs, Options(only=frozenset({"count"})))

    def dies() -> None:
        for number in list(slurm.queue):
            slurm.accounts[number] = SlurmRecord(state="FAILED", node="n1")
            del slurm.queue[number]
        for job in counts.jobs:
            started = datetime.now(tz=UTC)
            store.save(replace(result_of(job), started=started, id=new_id(started)))

    slurm.acts = [lambda: None, dies]
    submitter.run(counts)
    assert submitter.runner.failed == []
    assert len(submitter.runner.results) == len(list(store.all_results())) == 2


def test_a_task_whose_node_fails_again_and_again_gives_up(tmp_path: Path) -> None:
    started = task(tmp_path, COUNT)
    began(tmp_path, [("began", f"n{number % 2 + 1}", "") for number in range(MAX_DEATHS + 1)])
    started()
    assert [result.error for result in Store(tmp_path / "runs").results(COUNT)] == [
        "its node failed or was taken away 4 times without warning (n1, n2)"
    ]


def test_a_task_that_was_stopped_each_time_continues(tmp_path: Path) -> None:
    started = task(tmp_path, COUNT)
    began(tmp_path, [(what, "n1", "") for _ in range(9) for what in ("began", "stopped")])
    started()
    assert [result.error for result in Store(tmp_path / "runs").results(COUNT)] == [None]


@pytest.mark.parametrize("line", ["", "[1]", "{", '{"key": 1}', '{"key": "a", "error": []}', "[" * 5000, "1" * 5000])
def test_a_damaged_line_of_a_task_is_left_out_and_the_rest_is_read(tmp_path: Path, line: str) -> None:
    path = tmp_path / "0.done"
    good = ['{"key": "one", "id": "x", "error": null, "unmet": false}', '{"key": "two", "error": "out of memory"}']
    path.write_text(f"{good[0]}\n{line}\n{good[1]}\n{good[0][:20]}", encoding="utf-8")
    assert read_outcomes(path) == (JobOutcome(key="one", id="x"), JobOutcome(key="two", error="out of memory"))


def test_a_line_after_one_that_was_not_finished_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0.done"
    path.write_text('{"key": "a"}\n{"key": "half', encoding="utf-8")
    append_json(path, {"key": "b"})
    append_json(path, {"key": "c"})
    assert [outcome.key for outcome in read_outcomes(path)] == ["a", "b", "c"]


def test_a_line_that_finds_the_disk_full_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "0.done"
    append_json(path, {"key": "a"})
    with full_disk(), pytest.raises(StoreError) as error:
        append_json(path, {"key": "b" * 100})
    assert str(error.value) == f"{path}: cannot be written (File too large)"
    append_json(path, {"key": "c"})
    assert [outcome.key for outcome in read_outcomes(path)] == ["a", "c"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"machine": {}, "software": {}}', '{"machine": 5, "software": []}', '{"phase": 5, "done": "x"}']
)
def test_what_a_task_wrote_about_its_node_and_its_progress_may_be_damaged(tmp_path: Path, text: str) -> None:
    ledger = Ledger(runs=tmp_path)
    array = ledger.new("count", ((COUNT,),), (0,))
    for path in (ledger.folder.parent / "nodes" / "here", ledger.folder_of(array) / "0.progress"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert ledger.machine_of("here") is None
    assert ledger.progress(array, 0) == {}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("tasks", [[{}]], "kind in [tasks] is missing; it must be a string"),
        ("tasks", 5, "tasks must be a list, not 5"),
        ("attempts", ["x"], "attempts must be an integer, not 'x' (item 0)"),
        ("attempts", [0, 0], "it has 1 tasks, but 2 numbers of attempts"),
        ("submitted", "noon", "submitted must be a time, not 'noon'"),
        ("over", None, "over must be true or false, not null"),
    ],
)
def test_a_damaged_array_is_named_before_its_jobs_are_submitted_twice(
    tmp_path: Path, name: str, value: object, reason: str
) -> None:
    ledger = Ledger(runs=tmp_path)
    array = ledger.new("count", ((COUNT,),), (0,))
    assert ledger.arrays() == [array]
    path = ledger.folder / f"{array.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(StoreError) as refused:
        ledger.arrays()
    assert str(refused.value) == f"{path}: is damaged ({reason}); remove it if none of its jobs is running"


def test_a_training_without_progress_gives_up(tmp_path: Path) -> None:
    started = task(tmp_path, TRAIN)
    stops = [
        (what, "n1", "checkpoint-000000007.safetensors")
        for _ in range(MAX_STANDSTILLS)
        for what in ("began", "stopped")
    ]
    began(tmp_path, stops)
    started()
    assert [result.error for result in Store(tmp_path / "runs").results(TRAIN)] == [
        "it was stopped 5 times at checkpoint-000000007.safetensors: give it more --hours"
    ]


def test_a_job_whose_weights_do_not_exist_leaves_no_result(tmp_path: Path) -> None:
    student = Job.of("evaluate", {"model": "deit_tiny_patch16_224", "data": "digits"}, {"weights": TRAIN})
    task(tmp_path, student)()
    assert list(Store(tmp_path / "runs").results(student)) == []
    outcome = (tmp_path / "runs" / ".slurm" / "arrays" / "one" / "0.done").read_text()
    assert json.loads(outcome) == {"key": student.key, "id": "", "error": None, "unmet": True}


def test_processes_killed_for_memory_are_counted_in_both_kinds_of_control_group(tmp_path: Path) -> None:
    proc, group = tmp_path / "proc/self", tmp_path / "sys/fs/cgroup"
    proc.mkdir(parents=True)
    assert killed_for_memory(tmp_path) == 0
    (proc / "cgroup").write_text("0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_0\n")
    new = group / "system.slice/slurmstepd.scope/job_12"
    new.mkdir(parents=True)
    (new / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert killed_for_memory(tmp_path) == 2
    (proc / "cgroup").write_text("9:cpu,cpuacct:/slurm\n4:memory:/slurm/uid_0/job_13/step_0\n")
    old = group / "memory/slurm/uid_0/job_13"
    old.mkdir(parents=True)
    (old / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert killed_for_memory(tmp_path) == 1
