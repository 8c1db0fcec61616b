"""In a container users lack a name, shared memory, a temporary folder or processes: it works, or says why."""

import errno
import getpass
import multiprocessing
import os
import pwd
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import util
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from harness.errors import HarnessError, JobError
from harness.jobs.data import loading
from harness.jobs.data.images import DataSource, Images
from harness.jobs.data.loading import LIMITS, load, load_batches
from harness.jobs.data.preprocess import Preprocessing
from harness.jobs.fresh import run_in_fresh_process
from harness.machine.exclusive import exclusive_lock
from harness.machine.user import ensure_user_name, in_home, temporary_folder
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.run.launch import Crashed, LocalLauncher, local
from harness.run.messages import Batch, Inputs, Progress, Saved
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget, Worker, resolve_target
from harness.run.worker_pool import WorkerPool
from harness.specs import Catalog
from harness.store.store import Store
from tests.commands import clean_environment, run_harness, start_harness
from tests.fakes import LAPTOP, VERSIONS, FakeLauncher, result_of
from tests.trainings import PLAIN, smoke, trained

COUNT = ("reproduce", "table5", "--rows", "resnet18", "--columns", "params", "--device", "cpu")

NO_FILES = (
    "processes that load images could not use shared memory ([Errno 24] Too many open files; /dev/shm has {} MiB in "
    "all), so images went through pipes, which is slower: give a container more of --shm-size, or use fewer --workers"
)
NO_PROCESS = (
    "no process could be started that loads images ([Errno 11] Resource temporarily unavailable), so they were loaded "
    "between computations, which is slower: give a container more of --pids-limit or --shm-size, or use --workers 0"
)


@pytest.fixture(autouse=True)
def _no_limits() -> Iterator[None]:
    """Forget afterwards what a test's loaders lacked."""
    yield
    LIMITS.clear()


# Images that are loaded by processes.


def drawn_images(count: int) -> Images:
    """Images of one colour each, of which the nth has the level n."""
    from PIL import Image

    source = DataSource(data="imagenet", where="nowhere", split="test")
    names, labels = [f"{number}.png" for number in range(count)], [0] * count
    return Images.of(source, names, labels, read=lambda n: Image.new("RGB", (256, 256), (n, n, n)))


def levels(workers: int, count: int = 24) -> list[int]:
    """Load images and return the level of each."""
    view = Preprocessing(res=224, crop=0.875, interpolation="bicubic")
    batches = [range(start, start + 8) for start in range(0, count, 8)]
    loaded = load_batches(drawn_images(count), [view], batches, workers=workers, pin=False)
    return [int(pixels[0, 100, 100]) for batch in loaded for pixels in batch.pixels[0]]


def no_files(*_arguments: object) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


def no_process() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def no_shared_memory_sentence() -> str:
    disk = os.statvfs("/dev/shm")
    return NO_FILES.format(f"{disk.f_blocks * disk.f_frsize / 2**20:,.0f}")


def test_a_batch_that_cannot_be_shared_goes_through_a_pipe_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ForkingPickler", SimpleNamespace(dumps=no_files))
    assert levels(workers=2) == list(range(24))
    assert list(LIMITS) == [no_shared_memory_sentence()]


def test_where_no_process_can_be_started_images_are_loaded_by_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_process)
    assert levels(workers=2) == list(range(24))
    assert list(LIMITS) == [NO_PROCESS]


def test_with_enough_of_everything_nothing_is_said() -> None:
    assert levels(workers=2) == list(range(24))
    assert not LIMITS


def test_a_training_whose_batches_cannot_be_shared_has_the_same_weights_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = smoke(**PLAIN, epochs=1)
    _, undisturbed = trained(job, tmp_path / "one")
    monkeypatch.setattr(loading, "ForkingPickler", SimpleNamespace(dumps=no_files))
    _, facts = trained(job, tmp_path / "two", workers=1)
    assert facts["weights"]["sha256"] == undisturbed["weights"]["sha256"]
    assert (undisturbed["limits"], facts["limits"]) == ([], [no_shared_memory_sentence()])


PRINT_LEVELS = """
from tests.test_containers import *
print(levels(2) == list(range(24)), shape_of_batch(), *LIMITS, sep="\\n")
"""


def shape_of_batch() -> list[int]:
    """Load a batch of large samples as a training does, and return its shape."""
    samples: Any = [(np.zeros((3, 512, 512), np.uint8), 1)] * 16
    from harness.jobs.training.data import _collate

    (batch,) = load(samples, workers=1, pin=False, collate=_collate, batch_size=16)
    return list(batch[0].shape)


def with_shared_memory(options: str) -> list[str]:
    """Load images where /dev/shm is mounted with these options, and return the lines printed."""
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm && "
    if subprocess.run(["unshare", "-m", "sh", "-c", f"{mount} true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a /dev/shm of its own")
    command = f"{mount} {shlex.join([sys.executable, '-W', 'ignore', '-c', PRINT_LEVELS])}; ls /dev/shm"
    root = Path(__file__).parent.parent
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False, cwd=root, timeout=120
    )
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("size=1m", " MiB are free; /dev/shm has 1 MiB in all)"),
        ("size=100m,ro", "Read-only file system"),
    ],
)
def test_a_small_or_read_only_dev_shm_loses_no_image_and_leaves_no_file(options: str, reason: str) -> None:
    complete, shape, limit, *left = with_shared_memory(options)
    assert (complete, shape) == ("True", "[16, 3, 512, 512]")
    assert reason in limit
    assert left == []


# Users.


@pytest.fixture
def _nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user that has no entry in the passwd file, in an environment without names."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_nameless")
def test_a_user_without_a_name_plans_throughputs_as_any_other(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, "plan", "table5", "--rows", "resnet18")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.usefixtures("_nameless")
def test_libraries_that_ask_for_a_nameless_users_name_get_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "")  # so that it is as it was afterwards
    ensure_user_name()
    assert getpass.getuser() == str(os.getuid())


@pytest.mark.usefixtures("_nameless")
def test_a_home_that_does_not_exist_stays_a_tilde() -> None:
    assert in_home("~/imagenet") == Path("~/imagenet")


# Temporary folders.


def test_a_temporary_folder_with_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * (118 - len(str(tmp_path)) if len(str(tmp_path)) < 100 else 40))
    folder.mkdir()
    ran = start_harness(tmp_path, *COUNT, TMPDIR=str(folder))
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "jobs: 1 measured, 0 known already.  runs/")


def test_where_no_folder_is_short_enough_for_a_socket_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 71)
    monkeypatch.setattr(local, "SHORT_FOLDERS", ("/missing/folder",))
    monkeypatch.setattr(util, "get_temp_dir", tempfile.mkdtemp)  # which remembers no folder
    with pytest.raises(HarnessError) as refused:
        local.place_sockets()
    assert str(refused.value) == (
        f"TMPDIR=/{'x' * 71}: a socket in it would have too long a path, and /missing/folder cannot be written; name a "
        "folder of at most 71 bytes"
    )
    assert tempfile.tempdir == "/" + "x" * 71


def test_without_any_temporary_folder_only_what_needs_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/missing"])
    for command in ("plan", "report", "check"):
        assert run_harness(tmp_path, command, "table5", "--rows", "resnet18").returncode in (0, 4)
    ran = run_harness(tmp_path, *COUNT)
    sentence = "No usable temporary directory found in ['/missing']; name a folder that can be written with TMPDIR"
    assert (ran.returncode, ran.stderr) == (2, f"error: {sentence}\n")
    with pytest.raises(HarnessError, match="No usable temporary directory"):
        temporary_folder()


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError) as refused, exclusive_lock(tmp_path / "file" / "lock", print):
        pass
    assert str(refused.value).startswith(f"{tmp_path}/file/lock: cannot be locked (")
    assert str(refused.value).endswith("; name another folder with TMPDIR")


def test_a_log_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "worker.log").mkdir()
    with pytest.raises(HarnessError) as refused:
        Store(tmp_path).prepare()
    assert str(refused.value) == f"{tmp_path}/worker.log: Is a directory; name another folder with --runs"


def test_a_figure_that_cannot_be_written_costs_no_table(tmp_path: Path) -> None:
    (tmp_path / "figures").touch()
    target = resolve_target("cpu")
    machine = replace(target.machine, threads=1)
    for job in make_plan(Catalog().find(["table5"]), Options(rows=("deit_s",), only=frozenset(["throughput"]))).jobs:
        Store(tmp_path / "runs").save(result_of(job, machine=machine, software=dict(target.software)))
    ran = run_harness(tmp_path, "reproduce", "table5", "--rows", "deit_s", "--throughput-only", "--device", "cpu")
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "jobs: 0 measured, 1 known already.  runs/")
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("warning: -o figures/figure1.png: ")
    assert last.endswith("; name another file; `harness figure figure1 -o FILE` draws it")


# Streams and signals.


def test_closed_streams_are_no_obstacle(tmp_path: Path) -> None:
    command = f"exec {shlex.join([sys.executable, '-m', 'harness', *COUNT])} <&- >&- 2>&-"
    ran = subprocess.run(["sh", "-c", command], check=False, cwd=tmp_path, env=clean_environment(tmp_path), timeout=120)
    assert ran.returncode == 2  # the answer was not printed
    (path,) = (tmp_path / "runs").glob("*/*.json")
    assert '"error": null' in path.read_text()


def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "reproduce", "table5", "--rows", "resnet18", "--throughput-only"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=clean_environment(tmp_path),
    ) as process:
        assert process.stderr
        for _ in ("torch is imported", "the first job is done"):
            process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "interrupted: what is finished is kept; the same command goes on from here"


# No wait for what does not come.


def leave_a_child_and_die() -> None:
    """Die, and leave a child that holds whatever this process had open."""
    if os.fork() == 0:
        os.closerange(0, 3)  # else pytest's own output would wait for it
        time.sleep(120)
        os._exit(0)
    os.abort()


def test_a_process_is_not_waited_for_that_left_a_child_and_died() -> None:
    started = time.monotonic()
    with pytest.raises(JobError, match=r"^the process was ended by SIGABRT$"):
        run_in_fresh_process(leave_a_child_and_die)
    assert time.monotonic() - started < 100


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> LocalLauncher:
    """Return a launcher whose child processes call functions of this module."""
    monkeypatch.setattr(local, "WORKER", __name__)
    launcher = LocalLauncher()
    launcher._context = multiprocessing.get_context("fork")
    return launcher


def answer(_question: str, _arguments: tuple[Any, ...], _pipe: Connection) -> None:
    """Stand in for the worker, which lacks something."""
    no_process()


def die_while_called(*_arguments: object) -> None:
    leave_a_child_and_die()


def test_a_question_whose_process_died_is_not_waited_for_and_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_call", die_while_called)
    launcher = LocalLauncher()
    launcher.warm()
    started = time.monotonic()
    with pytest.raises(HarnessError, match="the process was ended by SIGABRT; give it more memory"):
        launcher.unknown_models(("resnet18",))
    assert time.monotonic() - started < 100


def test_a_process_that_lacks_processes_says_so(launcher: LocalLauncher) -> None:
    with pytest.raises(HarnessError) as refused:
        launcher.inspect(Inputs(), ())
    assert str(refused.value) == (
        "a process could not be started or lacked something ([Errno 11] Resource temporarily unavailable); stop "
        "others, or raise the limits of the container"
    )


def test_a_fork_that_fails_says_so(launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_process)
    with pytest.raises(HarnessError, match=r"^a process could not be started or lacked something \(\[Errno 11\]"):
        launcher.unknown_models(("resnet18",))


class FailingLauncher(LocalLauncher):
    """Cannot even start a process."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        raise HarnessError(f"no process for {len(batch.jobs)} job")
        yield


def test_whatever_ends_a_training_ends_the_wait_for_it(tmp_path: Path) -> None:
    job = Job.of("train", {"model": "resnet18"})
    pool = WorkerPool(FailingLauncher(), [Worker(devices=("cpu",), cores=1, loaders=0)])
    pool.start(Batch(jobs=(job,), device="cpu", machine=LAPTOP, software={}, runs=tmp_path))
    messages: list[object] = []
    reader = threading.Thread(target=lambda: messages.append(pool.next_message()[1]), daemon=True)
    reader.start()
    reader.join(10)
    assert [str(message) for message in messages] == ["no process for 1 job"]


class DyingLauncher(FakeLauncher):
    """Dies when it has saved all results, as a driver may that is torn down."""

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        yield from super().run(batch)
        raise Crashed("the process was ended by SIGSEGV")


@pytest.mark.parametrize("job", [Job.of("count", {"model": "one", "res": 224}), smoke()], ids=["count", "training"])
def test_a_process_that_dies_after_its_result_has_not_failed(tmp_path: Path, job: Job) -> None:
    store, target = Store(tmp_path), ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS)
    runner = Runner(store=store, launcher=DyingLauncher(), target=target, observer=ProgressObserver())
    runner.measure([job])
    assert [(result.job, result.error) for result in runner.measured] == [(job, None)]
