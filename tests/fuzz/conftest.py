"""A folder to start commands in, and nothing that would start a process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.plan.job import Job
from harness.run.messages import CheckReport, Inputs
from harness.store.store import Store
from tests.commands import run_harness
from tests.fakes import FakeLauncher
from tests.gating import FIVE, mine, save_accuracy, save_count, save_throughput
from tests.test_gate import images


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom table with results before and after a change, and a baseline."""
    folder = tmp_path_factory.mktemp("template")
    spec = mine(folder)
    for name, lost in (("main", 0), ("change", 100)):
        store = Store(folder / name)
        for minutes, seconds in enumerate(FIVE):
            save_throughput(store, spec, minutes, seconds)
        save_count(store, spec, 10, error="out of memory" if lost else None)
        save_accuracy(store, spec, 11, images(right=722, lost=lost))
    (folder / "table.csv").write_text("Model,params (M),top-1\nDeiT-S,22,79.8\n", encoding="utf-8")
    assert run_harness(folder, "baseline", "mine.toml", "--runs", "main", "-o", "b.json").returncode == 0
    return folder


class Launcher(FakeLauncher):
    """Knows no weights, and finds nothing wrong with any."""

    def unfit_weights(self, inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
        return {}

    def check(self, inputs: Inputs, data: str) -> Iterator[CheckReport]:
        yield CheckReport(lines=(data,))


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("harness.cli.execution", "harness.run.launch"):
        monkeypatch.setattr(f"{module}.LocalLauncher", Launcher)
    monkeypatch.setattr("harness.cli.doctor._torch_architectures", lambda: ["sm_80"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # an exclusive lock of its own
