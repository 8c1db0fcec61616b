"""A damaged result is set aside by its name, and the rest goes on, whatever is wrong with it."""

import contextlib
import math
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.store.result import from_json, to_json
from tests.commands import run_harness
from tests.fuzz.mutations import damage
from tests.fuzz.profiles import profile
from tests.test_possible import KINDS, file_of, with_real_results

COMMANDS = [
    ("report", "table5", "--roofline"),
    ("report", "table8", "--train", "--scale", "proxy", "--format", "json"),
    *(("report", "table5", "--format", form) for form in ("csv", "pytest-benchmark", "markdown", "latex")),
    *(("trend", "table5", "--format", form) for form in ("terminal", "json", "markdown")),
    ("check", "table5"),
    ("plan", "table5", "--device", "cpu"),
    ("runs", "list"),
    ("runs", "show", "2026"),
    ("runs", "export", "-o", "all.csv"),
    ("runs", "prune", "--dry-run"),
]

DRAW = st.randoms(use_true_random=False)


@given(kind=st.sampled_from(KINDS), draw=DRAW)
@profile
def test_damaged_text_is_refused_or_holds_a_result_that_is_possible(kind: str, draw: random.Random) -> None:
    text = damage(file_of(kind).read_text(encoding="utf-8"), draw)
    with contextlib.suppress(StoreError):
        result = from_json(text)
        assert to_json(from_json(to_json(result))) == to_json(result)
        assert all(math.isfinite(m.value) for m in result.metrics.values() if not isinstance(m.value, str))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real result of each kind."""
    return with_real_results(tmp_path_factory.mktemp("damaged"))


@given(command=st.sampled_from(COMMANDS), kind=st.sampled_from(KINDS), draw=DRAW)
@profile
def test_a_damaged_result_ends_no_command_and_hides_no_other(
    folder: Path, command: tuple[str, ...], kind: str, draw: random.Random
) -> None:
    source = file_of(kind)
    path = folder / "runs" / source.parent.name / source.name
    path.write_text(damage(source.read_text(encoding="utf-8"), draw), encoding="utf-8", errors="replace")
    try:
        ran = run_harness(folder, *command)
    finally:
        shutil.copy(source, path)
        path.with_suffix(".json.damaged").unlink(missing_ok=True)
    assert "Traceback" not in ran.stderr
    assert ran.returncode in (0, 2, 4)
    if command == ("runs", "list"):
        assert all(file_of(other).stem in ran.stdout for other in KINDS if other != kind)
        assert source.stem in ran.stdout or str(path.relative_to(folder)) in ran.stderr
