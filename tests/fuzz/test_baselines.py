"""A damaged baseline is one sentence with place and remedy, and never a regression."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.baseline_file import read, to_json
from harness.store.store import Store
from tests.commands import run_harness
from tests.fuzz.mutations import damage
from tests.fuzz.profiles import profile
from tests.gating import mine
from tests.test_baseline import full
from tests.test_possible import REFERENCE

FORMS = [(), ("--json",), ("--github",), ("--junit", "junit.xml"), ("-v",)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table with five runs of a throughput, and the reference runs of a large one, each with its baseline."""
    root = tmp_path_factory.mktemp("baselines")
    store = Store(root / "runs")
    (root / "whole-mine.json").write_text(to_json(full(store, mine(root))), encoding="utf-8")
    (reference,) = REFERENCE.glob("cpu-*")
    shutil.copytree(reference, root / "reference")
    written = ("baseline", "table5", "--only", "count", "--runs", "reference", "-o", "whole-table5.json")
    assert run_harness(root, *written).returncode == 0
    return root


TABLES = {
    "mine": ("mine.toml", "--runs", "runs"),
    "table5": ("table5", "--runs", "reference"),
}


@given(
    table=st.sampled_from(sorted(TABLES)),
    form=st.sampled_from(FORMS),
    draw=st.randoms(use_true_random=False),
)
@profile
def test_a_damaged_baseline_is_refused_in_a_sentence(
    folder: Path, table: str, form: tuple[str, ...], draw: random.Random
) -> None:
    text = damage((folder / f"whole-{table}.json").read_text(encoding="utf-8"), draw)
    path = folder / "mine.json"
    path.write_text(text, encoding="utf-8", errors="replace")
    ran = run_harness(folder, "check", *TABLES[table], "--baseline", "mine.json", "--fail-on", "none", *form)
    assert "Traceback" not in ran.stderr
    assert ran.returncode in (0, 1, 2, 4), ran
    if ran.returncode == 1:
        read(path)  # a whole baseline, of better results
    if ran.returncode == 2:
        error = next(line for line in ran.stderr.splitlines() if line.startswith("error: "))
        assert "mine.json" in error or "the baseline" in error, ran.stderr
