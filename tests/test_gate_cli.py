"""`harness check` and `harness baseline` as CI meets them: exit codes, files, stdout, and the example script."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.gate.baseline_file import read
from harness.store.store import Store
from tests.commands import Command, Completed, clean_environment
from tests.fakes import H200, V100, FakeLauncher
from tests.gating import mine, save_accuracy, save_throughput
from tests.test_gate import images
from tests.test_history import harness

__all__ = ["harness"]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    """A custom table, evaluated before and after a change that costs ten points."""
    spec = mine(tmp_path)
    old, new = Store(tmp_path / "main"), Store(tmp_path / "change")
    save_accuracy(old, spec, 0, images(right=722))
    save_accuracy(new, spec, 9, images(right=722, lost=100))
    (tmp_path / "empty").mkdir()
    return old, new


BASELINE = ("baseline", "mine.toml", "--runs", "main", "-o", "b.json")
CHECK = ("check", "mine.toml", "--fail-on", "none", "--baseline", "b.json", "--baseline-runs", "main")


def test_a_change_for_the_worse_exits_with_1_and_says_so_first(harness: Command, stores: object) -> None:
    assert harness(*BASELINE) == Completed(returncode=0, stdout="b.json: 1 cells from 1 runs\n", stderr="")
    ran = harness(*CHECK, "--runs", "change")
    assert (ran.returncode, ran.stderr) == (1, "")
    first, second, *_ = ran.stdout.splitlines()
    assert first == "fails: 1 regressed, 1 held, 3 not judged"
    assert second.startswith("✗ regressed: mine, top-1 of Tiny: 62.20 %, was 72.20 %: 10.00 [")


def test_no_change_exits_with_0(harness: Command, stores: tuple[Store, Store], tmp_path: Path) -> None:
    harness(*BASELINE)
    save_accuracy(stores[1], mine(tmp_path), 20, images(right=722))
    ran = harness(*CHECK, "--runs", "change", "-v")
    assert ran.returncode == 0
    assert "✓ held: mine, top-1 of Tiny: 72.20 %, was 72.20 %\n" in ran.stdout


def test_nothing_to_compare_exits_with_4(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    ran = harness(*CHECK, "--runs", "main")
    assert ran.returncode == 4
    assert ran.stdout.startswith("nothing to compare with the baseline, only with the paper: ")
    assert harness("check", "mine.toml", "--runs", "empty").returncode == 4
    ran = harness("baseline", "mine.toml", "--runs", "empty", "-o", "c.json")
    assert ran == Completed(
        returncode=4,
        stdout="",
        stderr="error: nothing of mine.toml is measured in empty/; `harness reproduce mine.toml` measures it\n",
    )


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("check", "mine.toml", "--runs", "gone"), "--runs"),
        (
            ("check", "mine.toml", "--baseline", "b.json", "--baseline-runs", "gone", "--runs", "change"),
            "--baseline-runs",
        ),
        (("baseline", "mine.toml", "-o", "c.json", "--runs", "gone"), "--runs"),
        (("runs", "list", "--runs", "gone"), "--runs"),
        (("runs", "export", "-o", "all.csv", "--runs", "gone"), "--runs"),
    ],
    ids=" ".join,
)
def test_a_named_folder_of_results_that_does_not_exist_is_refused(
    harness: Command, stores: object, command: tuple[str, ...], option: str
) -> None:
    harness(*BASELINE)
    sentence = f"error: {option} gone: there is no such folder; name that of the results\n"
    assert harness(*command) == Completed(returncode=2, stdout="", stderr=sentence)


def test_a_missing_cell_exits_with_1_unless_it_is_allowed(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    ran = harness(*CHECK, "--runs", "empty")
    assert ran.returncode == 1
    assert ran.stdout.startswith("fails: 1 missing")
    assert harness(*CHECK, "--runs", "empty", "--allow-missing").returncode == 4


def test_a_deviation_from_the_paper_exits_with_1_unless_fail_on_leaves_it_out(harness: Command, stores: object) -> None:
    ran = harness("check", "mine.toml", "--runs", "change")
    assert ran.returncode == 1
    assert "✗ deviates: mine, top-1 of Tiny: deviates: not within 0.05 % of the paper (72.2)\n" in ran.stdout
    assert harness("check", "mine.toml", "--runs", "change", "--fail-on", "failed").returncode == 0
    assert harness("check", "mine.toml", "--runs", "main").returncode == 0


def test_the_throughput_of_another_machine_is_shown_by_its_name(harness: Command, tmp_path: Path) -> None:
    spec, store = mine(tmp_path), Store(tmp_path / "runs")
    save_throughput(store, spec, 0, [0.04, 0.04, 0.04], machine=H200)
    save_throughput(store, spec, 1, [0.02, 0.02, 0.02], machine=V100)
    newest = harness("report", "mine.toml", "--columns", "speed")
    assert "Measured on Tesla V100-SXM2-16GB 16 GiB; " in newest.stdout
    other = harness("report", "mine.toml", "--columns", "speed", "--machine", "h200")
    assert "Measured on NVIDIA H200 140 GiB; " in other.stdout
    nowhere = harness("check", "mine.toml", "--columns", "speed", "--machine", "TPU")
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert nowhere.stderr == (
        "error: --machine TPU: none of these throughputs was measured on such a machine, but on: "
        "NVIDIA H200 140 GiB, Tesla V100-SXM2-16GB 16 GiB\n"
    )


def test_json_is_all_of_stdout(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    data = json.loads(harness(*CHECK, "--runs", "change", "--json").stdout)
    (cell,) = [cell for cell in data["cells"] if cell["against"] == "baseline"]
    assert (cell["outcome"], cell["now"], cell["before"]) == ("regressed", 62.2, 72.2)


def test_junit_is_written_in_addition_to_the_text(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    ran = harness(*CHECK, "--runs", "change", "--junit", "out/junit.xml")
    assert ran.stdout.startswith("fails: ")
    assert ET.parse("out/junit.xml").getroot().attrib["failures"] == "1"


def test_github_gets_annotations_on_stdout_and_a_summary_in_its_file(
    harness: Command, stores: object, tmp_path: Path
) -> None:
    harness(*BASELINE)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    ran = harness(*CHECK, "--runs", "change", "--github", GITHUB_STEP_SUMMARY=str(summary))
    assert ran.returncode == 1
    assert "\n::error title=mine regressed::mine, top-1 of Tiny: 62.20 %25, was 72.20 %25: " in ran.stdout
    assert summary.read_text().startswith("before\n### harness check fails: 1 regressed")


def test_without_a_path_of_the_job_summary_there_is_a_warning(harness: Command, stores: object) -> None:
    ran = harness("check", "mine.toml", "--runs", "main", "--github")
    assert (ran.returncode, ran.stderr) == (
        0,
        "warning: --github: GITHUB_STEP_SUMMARY is not set, so there is no job summary\n",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--json", "--github"), "--github and --json both print to stdout; take one, or --junit for a file"),
        (
            ("--fail-on", "deviate"),
            "Invalid value for '--fail-on': 'deviate' is not a verdict; did you mean 'deviates'?",
        ),
        (("--newest", "2"), "Invalid value for '--newest': '2' is not a whole number from 3 to 10"),
        (("--baseline", "gone"), "--baseline gone: No such file or directory; `harness baseline` writes one"),
        (
            ("--baseline-runs", "mine.toml"),
            "--baseline-runs mine.toml: is a file, not a folder; name the folder of the results",
        ),
        (("--junit", "main/x/", "--runs", "main"), "--junit main/x: Is a directory; name another file"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_answered_in_one_sentence(
    harness: Command, stores: object, arguments: tuple[str, ...], sentence: str
) -> None:
    Path("main/x").mkdir()
    ran = harness("check", "mine.toml", *arguments)
    assert (ran.returncode, ran.stderr) == (2, f"error: {sentence}\n")


def test_a_baseline_of_other_tables_is_named_with_what_it_has(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    ran = harness("check", "table5", "--baseline", "b.json", "--runs", "empty")
    assert (ran.returncode, ran.stderr) == (4, "warning: b.json has nothing of table5; it has mine\n")


def test_settings_of_the_folder_hold_for_the_gate_too(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    Path("harness.toml").write_text('runs = "change"\nbaseline = "b.json"\nbaseline-runs = "main"\nfail-on = "none"\n')
    assert harness("check", "mine.toml").returncode == 1


def test_the_same_results_give_the_same_bytes(harness: Command, stores: object) -> None:
    harness(*BASELINE)
    first = Path("b.json").read_bytes()
    harness(*BASELINE)
    assert Path("b.json").read_bytes() == first


# Calibrating.


def test_calibrating_measures_the_missing_runs_of_each_throughput(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(tmp_path)
    fake = FakeLauncher()
    monkeypatch.setattr("harness.cli.execution.LocalLauncher", lambda **_: fake)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # an exclusive lock of its own
    command = ("baseline", "mine.toml", "-o", "b.json", "--calibrate", "--device", "cpu", "-q")
    ran = harness(*command, "--rounds", "4")
    assert (ran.returncode, len(fake.batches)) == (0, 4)
    assert ran.stdout == (
        "b.json: 1 cells from 4 runs\nthroughputs of one model differ by 0.0 % from run to run on this machine\n"
        "`harness check` detects slowdowns of more than 1.0 % by 3 runs of each, "
        "of more than 1.0 % by 10 (--newest 10)\n"
    )
    harness(*command, "--rounds", "5")
    assert len(fake.batches) == 5
    assert len(read(Path("b.json")).runs) == 5


def test_noisy_runs_are_not_reported_as_missing(harness: Command, tmp_path: Path) -> None:
    save_throughput(Store(tmp_path / "main"), mine(tmp_path), 0, [0.04], noisy=True)
    assert harness(*BASELINE) == Completed(
        returncode=4,
        stdout="",
        stderr="error: 1 throughput runs are in main/, and something else used the machine during each; "
        "--calibrate measures again, or `harness reproduce mine.toml --rerun` when the machine is idle\n",
    )


def test_too_few_runs_are_one_warning_for_all_throughputs(harness: Command, tmp_path: Path) -> None:
    save_throughput(Store(tmp_path / "main"), mine(tmp_path), 0, [0.04])
    ran = harness(*BASELINE)
    assert ran.returncode == 0
    assert ran.stderr == (
        "warning: 1 throughputs have fewer than 3 clean runs (throughput tiny at 224 has 1) and will "
        "not be judged; --calibrate measures the missing ones\n"
    )


# How fast, and the examples.


def test_check_imports_neither_torch_nor_pandas(tmp_path: Path, stores: object) -> None:
    code = """
import sys
from harness.cli import main
def run(*arguments):
    sys.argv = ["harness", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code
assert run("baseline", "mine.toml", "--runs", "main", "-o", "b.json") == 0
assert run("check", "mine.toml", "--runs", "change", "--baseline", "b.json", "--baseline-runs", "main") == 1
print("heavy:", sorted({"torch", "timm", "pandas", "matplotlib", "scipy.stats"} & sys.modules.keys()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=clean_environment(tmp_path),
    )
    assert ran.stdout.splitlines()[-1:] == ["heavy: []"], ran.stderr


def test_the_story_of_the_examples_runs(tmp_path: Path) -> None:
    """The accuracies; the hundred measured repetitions take over an hour and are run by hand."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "gate_story.py"), "--repetitions", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "71.70 %, was 72.20 %: 0.50 [0.35, 0.66] points worse; p < 0.0001 on the same 50,000 images" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "the gate behaved"
