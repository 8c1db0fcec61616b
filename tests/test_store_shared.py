"""Several writers at once lose and duplicate no result; one that is killed leaves no half-written result.

The writers are processes; on a shared file system they would be on several hosts, which see the same renames.
"""

import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import StoreError
from harness.plan.job import Job
from harness.store.result import Result, from_json, to_json
from harness.store.store import Store
from tests.fakes import result_of

WRITERS, RESULTS = 8, 1000
JOBS = [Job.of("count", {"model": f"model{number}", "res": 224}) for number in range(50)]

# A writer that stops in the middle of its fifth file, however it writes, and waits to be killed.
STOPS_HALFWAY = """
import builtins, io, pathlib, sys, time
from harness.store.store import Store
from tests.test_store_shared import WRITERS, results_of

root, opened, count = sys.argv[1], io.open, 0

class Halfway:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, content):
        global count
        count += 1
        if count < 5:
            return self.file.write(content)
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        print("half", flush=True)
        time.sleep(600)

def halfway(path, mode="r", *more, **named):
    file = opened(path, mode, *more, **named)
    return Halfway(file) if "w" in mode and str(path).startswith(root) else file

io.open = builtins.open = halfway
for result in results_of(WRITERS):
    Store(pathlib.Path(root)).save(result)
"""


def results_of(writer: int) -> list[Result]:
    """Give a writer's share: each job is written by every writer."""
    return [
        replace(result_of(JOBS[number % len(JOBS)], minutes=number), seconds=float(writer), warnings=(f"{number}",))
        for number in range(RESULTS // WRITERS)
    ]


def write(root: Path, writer: int, ready: multiprocessing.synchronize.Barrier) -> None:
    ready.wait()
    store = Store(root)
    for result in results_of(writer):
        store.save(result)


Writers = list["multiprocessing.context.SpawnProcess"]


@contextmanager
def writing(root: Path, writers: int) -> Iterator[Writers]:
    """Have processes begin to write at the same moment."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(writers)
    processes = [context.Process(target=write, args=(root, writer, ready)) for writer in range(writers)]
    for process in processes:
        process.start()
    yield processes
    for process in processes:
        process.join()


def written(store: Store) -> list[tuple[str, float, str]]:
    results = [(r.job.key, r.seconds, r.warnings[0]) for job in JOBS for r in store.results(job)]
    assert store.damaged == []
    return sorted(results)


def expected(writers: int) -> list[tuple[str, float, str]]:
    return sorted(
        (JOBS[number % 50].key, float(writer), str(number)) for writer in range(writers) for number in range(125)
    )


def test_eight_writers_of_a_thousand_results_lose_and_duplicate_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    counts = [0]
    with writing(store.root, WRITERS) as processes:
        while any(process.is_alive() for process in processes):
            counts.append(len(written(store)))  # readers only meet whole results meanwhile
    assert counts == sorted(counts)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    results = written(store)
    assert len(results) == RESULTS
    assert results == expected(WRITERS)
    assert list(store.root.rglob("*.tmp")) == []
    assert len({result.id for result in store.all_results()}) == RESULTS


def is_whole(path: Path) -> bool:
    try:
        return to_json(from_json(path.read_text())) == path.read_text()
    except StoreError:
        return False


def test_a_writer_killed_in_the_middle_leaves_whole_results_only_and_the_others_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", STOPS_HALFWAY, str(store.root)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        with writing(store.root, 2) as others:
            assert victim.stdout.readline() == "half\n", "it was not stopped in the middle of a file"
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
    assert [process.exitcode for process in others] == [0, 0]
    half = [path for path in store.root.rglob("*") if path.is_file() and not is_whole(path)]
    assert [(path.name[0], path.suffix) for path in half] == [(".", ".tmp")]
    results = written(store)
    theirs = [result for result in results if result[1] == WRITERS]
    assert len(theirs) == 4
    assert sorted(set(results) - set(theirs)) == expected(2)
