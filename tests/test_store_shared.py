"""Several writers at once lose no result and double none; one that is killed leaves nothing half written.

The writers are processes; on a shared file system they would be on several hosts, which see the same renames.
"""

import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.job import Job
from harness.result import Result, from_json, to_json
from harness.store import Store
from tests.fakes import result_of

WRITERS, RESULTS = 8, 1000
JOBS = [Job.of("count", {"model": f"network{number}", "res": 224}) for number in range(50)]

# What a writer that is to be killed does: the same, slowly, and so that most of the time a file is half written.
SLOW = """
import pathlib, sys, time
from harness import store
from tests.test_store_shared import JOBS, WRITERS, results_of
to_json = store.to_json
def half(result):
    print("writing", flush=True)
    return to_json(result)
store.to_json = half
opened = pathlib.Path.open
class Slow:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, text):
        self.file.write(text[: len(text) // 2]); self.file.flush()
        time.sleep(0.05)
        self.file.write(text[len(text) // 2 :])
    def flush(self): self.file.flush()
    def fileno(self): return self.file.fileno()
def slowly(self, mode="r", **more):
    file = opened(self, mode, **more)
    return Slow(file) if "w" in mode else file
pathlib.Path.open = slowly
for result in results_of(WRITERS):
    store.Store(pathlib.Path(sys.argv[1])).save(result)
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
    found = [(r.job.key, r.seconds, r.warnings[0]) for job in JOBS for r in store.results(job)]
    assert store.damaged == []
    return sorted(found)


def expected(writers: int) -> list[tuple[str, float, str]]:
    return sorted(
        (JOBS[number % 50].key, float(writer), str(number)) for writer in range(writers) for number in range(125)
    )


def test_eight_writers_of_a_thousand_results_lose_none_and_double_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    seen = [0]
    with writing(store.root, WRITERS) as processes:
        while any(process.is_alive() for process in processes):
            seen.append(len(written(store)))  # whoever reads meanwhile meets whole results only
    assert seen == sorted(seen)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    found = written(store)
    assert len(found) == RESULTS
    assert found == expected(WRITERS)
    assert list(store.root.rglob("*.tmp")) == []
    assert len({result.id for result in store.every()}) == RESULTS


def test_a_writer_killed_in_the_middle_leaves_whole_results_only_and_the_others_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store.root)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        for _ in range(4):
            victim.stdout.readline()
        with writing(store.root, 2) as others:
            victim.stdout.readline()
            time.sleep(0.02)  # it takes 0.05 s to write one
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
    assert [process.exitcode for process in others] == [0, 0]
    half = list(store.root.rglob(".*.tmp"))
    assert len(half) == 1, "it was not killed in the middle"
    found = written(store)
    theirs = [one for one in found if one[1] == WRITERS]
    assert len(theirs) >= 3
    assert sorted(set(found) - set(theirs)) == expected(2)
    assert all(to_json(from_json(path.read_text())) == path.read_text() for path in store.root.glob("*/[!.]*.json"))
