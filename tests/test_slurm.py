"""On a real Slurm: jobs run once, continue after a stop, a time limit and a dead node, and end when cancelled."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.run.launch.local import LOADING

ROOT = Path(__file__).parent.parent
LOCAL_SLURM = ROOT.parent / "shared" / "slurm" / "local-slurm"

pytestmark = pytest.mark.slurm

# One cell of table 3: a teacher, its student, and the student's evaluation.
CHAIN = ("table3", "--train", "--scale", "smoke", "--rows", "hard_distillation", "--columns", "ti_224")
ALONE = ("table3", "--train", "--scale", "smoke", "--rows", "no_distillation", "--columns", "ti_224")


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    if not LOCAL_SLURM.exists():
        pytest.skip(f"needs {LOCAL_SLURM}, which starts a Slurm of one host")
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"needs Slurm: run `{LOCAL_SLURM} install` as root")
    pytest.importorskip("submitit")
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    told = {**os.environ, "SLURM_LOCAL_DIR": folder}
    ran = subprocess.run([str(LOCAL_SLURM), "start"], env=told, check=True, text=True, stdout=subprocess.PIPE)
    env = dict(shlex.split(line)[1].split("=", 1) for line in ran.stdout.splitlines())
    # The threads of a job are Slurm's to say.
    ours = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    yield {**ours, **env, "PYTHONPATH": str(ROOT)}
    subprocess.run([str(LOCAL_SLURM), "stop"], env={**os.environ, **env}, check=True)


class Shell:
    """A folder on a login node."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def run(self, *command: str, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def harness(self, *arguments: str, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "harness", *arguments, timeout=timeout)

    def reproduce(self, *arguments: str, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        return self.harness("reproduce", *arguments, "--launcher", "slurm", "--device", "cpu", timeout=timeout)

    def slurm(self, *command: str) -> str:
        ran = self.run(*command)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def results(self, kind: str) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob(f"runs/{kind}-*/*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def queue(self) -> list[list[str]]:
        return [line.split("|") for line in self.slurm("squeue", "-h", "-r", "-o", "%i|%T|%N|%j").splitlines()]

    def until(self, true: Callable[[], Any], *, seconds: float = 400) -> Any:  # noqa: ANN401
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds} s; {self.harness('status').stdout}; {self.queue()}")

    def checkpoint(self) -> Path | None:
        return next(iter(sorted(self.folder.glob("runs/train-*/checkpoint-*.safetensors"))), None)


@pytest.fixture
def shell(tmp_path: Path, slurm: dict[str, str]) -> Iterator[Shell]:
    found = Shell(tmp_path, slurm)
    yield found
    found.run("scancel", "-u", found.slurm("id", "-un").strip())
    found.until(lambda: not found.queue())


def weights(shell: Shell) -> str:
    results = shell.results("train")
    assert [result["error"] for result in results] == [None]
    return str(results[0]["facts"]["weights"]["sha256"])


def test_throughputs_are_an_array_whose_results_are_stored_and_not_measured_again(shell: Shell) -> None:
    asked = ("table5", "--throughput-only", "--rows", "resnet18,deit_ti", "--repeats", "2", "--batch", "1")
    ran = shell.reproduce(*asked)
    assert ran.returncode == 0, ran.stderr
    assert "jobs: 2 measured, 0 known already." in ran.stdout
    assert len(shell.results("throughput")) == 2
    arrays = [json.loads(path.read_text()) for path in shell.folder.glob("runs/.slurm/arrays/*.json")]
    assert [len(array["tasks"]) for array in arrays] == [2]
    again = shell.reproduce(*asked)
    assert "jobs: 0 measured, 2 known already." in again.stdout
    assert len(list(shell.folder.glob("runs/.slurm/arrays/*.json"))) == 1


def test_a_teacher_its_student_and_the_evaluation_follow_each_other_unattended(shell: Shell) -> None:
    ran = shell.reproduce(*CHAIN, "--detach")
    assert ran.stdout == ("3 jobs submitted.  `harness status` shows their state; the same command waits for them.\n")
    dependent = shell.slurm("squeue", "-h", "-o", "%E").split()
    assert len([one for one in dependent if one.startswith("afterany:")]) == 2
    shell.until(lambda: not shell.queue(), seconds=400)
    status = shell.harness("status")
    assert (status.returncode, status.stdout) == (0, "3 done\n")
    # Accounts may lag, our own files do not: nothing is submitted again.
    after = shell.reproduce(*CHAIN)
    assert after.returncode == 0, after.stderr
    assert "jobs: 0 measured, 3 known already." in after.stdout
    teacher, student = sorted(shell.results("train"), key=lambda result: result["id"])
    assert student["facts"]["took"] == {"teacher": teacher["facts"]["weights"]["sha256"]}


def occupied(shell: Shell) -> list[str]:
    """Fill both nodes, so that whatever is submitted next stays pending; the ids of the jobs that do."""
    others = [shell.slurm("sbatch", "--parsable", "--exclusive", "--wrap", "sleep 3000").strip() for _ in range(2)]
    shell.until(lambda: all(row[1] == "RUNNING" for row in shell.queue()))
    return others


def test_the_same_command_waits_for_jobs_that_are_submitted(shell: Shell) -> None:
    others = occupied(shell)
    shell.reproduce(*CHAIN, "--detach")
    again = shell.reproduce(*CHAIN, "--detach")
    assert again.stdout.startswith("0 jobs submitted, 3 on their way already."), again.stdout
    shell.slurm("scancel", *others)
    after = shell.reproduce(*CHAIN)
    assert after.returncode == 0, after.stderr
    assert re.search(r"^jobs: [0-3] measured, [0-3] known already\.", after.stdout, re.MULTILINE), after.stdout
    assert len(list(shell.folder.glob("runs/.slurm/arrays/*.json"))) == 3
    assert len(shell.results("train")) == 2


def test_two_at_once_submit_each_job_once(shell: Shell) -> None:
    command = [sys.executable, "-m", "harness", "reproduce", *CHAIN, "--launcher", "slurm", "--device", "cpu"]
    both = [
        subprocess.Popen(command, cwd=shell.folder, env=shell.env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [one.communicate(timeout=600)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert (len(shell.results("train")), len(shell.results("evaluate"))) == (2, 1)
    tasks = [json.loads(path.read_text())["tasks"] for path in shell.folder.glob("runs/.slurm/arrays/*.json")]
    assert sum(len(array) for array in tasks) == 3


def test_a_training_that_is_preempted_or_loses_its_node_ends_with_the_same_weights(
    shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    long = (*ALONE, "--set", "epochs=25", "--only", "train,evaluate")
    alone = Shell(tmp_path_factory.mktemp("alone"), shell.env)
    ran = alone.reproduce(*long)
    assert ran.returncode == 0, ran.stderr
    shell.reproduce(*long, "--detach")
    shell.until(shell.checkpoint)
    number = next(row[0] for row in shell.queue() if row[1] == "RUNNING")
    shell.slurm("scancel", "--signal=USR2", number)
    before = shell.until(lambda: [row for row in shell.queue() if row[0] == number and row[1] == "PENDING"])
    assert before
    node = shell.until(lambda: next((row[2] for row in shell.queue() if row[:2] == [number, "RUNNING"]), ""))
    shell.until(lambda: len(list(shell.folder.glob("runs/.slurm/arrays/harness-train-*/0.started"))) == 1)
    time.sleep(8)  # it trains
    shell.slurm(str(LOCAL_SLURM), "node-fail", node)
    shell.slurm(str(LOCAL_SLURM), "node-start", node)
    after = shell.reproduce(*long)
    assert after.returncode == 0, after.stderr
    assert weights(shell) == weights(alone)
    result = shell.results("train")[0]
    assert result["facts"]["resumed"] >= 1


def test_a_training_over_two_nodes_is_one_training(shell: Shell) -> None:
    ran = shell.reproduce(*ALONE, "--nodes", "2")
    assert ran.returncode == 0, ran.stderr
    (result,) = shell.results("train")
    assert (result["error"], result["facts"]["processes"]) == (None, 2)
    log = "".join(path.read_text() for path in shell.folder.glob("runs/.slurm/arrays/harness-train-*/0.started"))
    assert log.count("began") == 1


def test_a_training_that_reaches_its_time_limit_continues_by_itself(
    shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Slurm counts in minutes, and signals up to one early: between 30 and 90 s into two minutes.
    long = (*ALONE, "--set", "epochs=150", "--only", "train,evaluate")
    alone = Shell(tmp_path_factory.mktemp("alone"), shell.env)
    alone.reproduce(*long, "--detach")
    ran = shell.reproduce(*long, "--hours", "0.034", timeout=900)
    assert ran.returncode == 0, ran.stderr
    result = shell.results("train")[0]
    assert result["facts"]["resumed"] >= 1
    assert alone.reproduce(*long, timeout=900).returncode == 0
    assert weights(shell) == weights(alone)


def test_cancel_ends_the_jobs_of_this_folder_and_no_others(shell: Shell) -> None:
    other = shell.slurm("sbatch", "--parsable", "--wrap", "sleep 300", "-o", "/dev/null").strip()
    shell.reproduce(*CHAIN, "--detach")
    # In the middle of a training, whose processes end before the one that would have to tell why.
    shell.until(lambda: "epoch" in shell.harness("status").stdout)
    ran = shell.harness("cancel")
    assert ran.stdout == "3 jobs cancelled; what is done is kept\n"
    shell.until(lambda: [row[0] for row in shell.queue()] == [other])
    status = shell.harness("status")
    assert status.stdout.splitlines()[-1] == "3 cancelled"
    assert shell.harness("runs", "list", "--failed").stdout.startswith("no such runs")
    again = shell.reproduce(*CHAIN)
    assert again.returncode == 0, again.stderr
    assert shell.harness("status").stdout == "3 done\n"


def test_jobs_wait_behind_those_of_others(shell: Shell) -> None:
    others = occupied(shell)
    shell.reproduce("table5", "--only", "count", "--rows", "resnet18", "--detach")
    shell.until(lambda: "count resnet18 at 224: Resources" in shell.harness("status").stdout)
    assert shell.harness("status").stdout.splitlines()[-1] == "1 pending"
    shell.slurm("scancel", *others)
    shell.until(lambda: shell.harness("status").stdout == "1 done\n")


def test_a_wrong_partition_is_one_sentence(shell: Shell) -> None:
    ran = shell.reproduce("table5", "--only", "count", "--rows", "resnet18", "--partition", "mian")
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        2,
        "",
        "error: --partition mian: this cluster has no such partition; it has main, spare\n",
    )


def test_what_slurm_refuses_is_one_sentence_and_leaves_nothing(shell: Shell) -> None:
    ran = shell.reproduce("table5", "--only", "count", "--rows", "resnet18", "--job-memory", "900GiB", "--detach")
    assert ran.returncode == 2
    assert re.fullmatch(
        r"error: Slurm refused the jobs: .*Requested node configuration is not available; "
        r"ask for less with --gpus, --cpus, --job-memory or --nodes\n",
        ran.stderr.removeprefix(f"{LOADING}\n"),
    ), ran.stderr
    assert shell.queue() == []
    assert list(shell.folder.glob("runs/.slurm/arrays/*.json")) == []


def test_a_job_that_will_never_start_says_so(shell: Shell) -> None:
    shell.reproduce("table5", "--only", "count", "--rows", "resnet18", "--cpus", "64", "--detach")
    shell.until(lambda: "PartitionConfig" in shell.harness("status").stdout)
    assert (
        "count resnet18 at 224: it will never start (PartitionConfig): no node there has these resources; "
        "ask for less with --cpus, --gpus or --job-memory, after `harness cancel`\n"
    ) in shell.harness("status").stdout


def test_missing_gpus_are_the_reason_of_the_cell(shell: Shell) -> None:
    ran = shell.harness(
        *("reproduce", "table5", "--throughput-only", "--rows", "resnet18", "--launcher", "slurm", "--gpus", "1"),
        *("--cpus", "1", "--job-memory", "2GiB"),
    )
    assert ran.returncode == 3, ran.stderr
    assert [result["error"] for result in shell.results("throughput")] == [
        "--device cuda: no NVIDIA driver answers on this machine; use --device cpu"
    ]
