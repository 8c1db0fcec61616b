"""The campaign on a GPU, in short and on a fake one: each call leaves something whole, and the next goes on with it."""

import json
from pathlib import Path

import pytest

from tests.fake_gpus import ROOT, needs_compiler, run_python

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs a checkout"),
]


def states_in(folder: Path) -> dict[str, str]:
    states = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    return {name: state.partition(",")[0] for name, state in states.items()}


def test_every_step_of_the_campaign_runs_and_is_not_run_again(tmp_path: Path) -> None:
    # The ceilings are products of matrices that take a CPU an hour.
    whole = "-m", "benchmarks.gpu_campaign", "-o", "campaign", "--seconds", "500", "--short", "--without", "ceilings"
    ran = run_python(tmp_path, *whole, FAKE_IMAGE_MIB="100")
    folder = tmp_path / "campaign"
    assert ran.code == 0, ran.out + ran.error + "".join(path.read_text() for path in folder.glob("*.txt"))
    assert set(states_in(folder).values()) == {"done"}
    kinds = {path.parent.name.split("-")[0] for path in folder.glob("runs/*/*.json")}
    assert kinds >= {"throughput", "train"}
    assert ran.cards == {"a"}
    assert "BAD FORK" not in ran.log
    # On a fresh machine, which has the results and not the folder of the runs.
    before = (folder / "steps.json").read_bytes()
    (folder / "runs").rename(tmp_path / "elsewhere")
    again = run_python(tmp_path, *whole, "--take-up", str(folder / "results.tar"))
    assert again.code == 0, again.out + again.error
    assert "runs added to" in again.out
    assert (folder / "steps.json").read_bytes() == before  # which has the seconds of each step


def test_a_call_without_time_leaves_the_steps_to_the_next(tmp_path: Path) -> None:
    ran = run_python(tmp_path, "-m", "benchmarks.gpu_campaign", "-o", "campaign", "--seconds", "1", "--short")
    assert ran.code == 4, ran.error
    assert ran.out.count(": still to come\n") == 10
