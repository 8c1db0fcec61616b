"""Outputs that do not take all text: encodings, full disks, closed streams, readers that leave; and exit codes."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.main import cli
from harness.store.store import Store
from tests.commands import Completed, clean_environment, run_harness
from tests.gating import mine, save_accuracy
from tests.test_gate import images

PACKAGE = Path(__file__).parents[1] / "harness"

CHECK = ("check", "mine.toml", "--fail-on", "none", "--baseline", "b.json", "--baseline-runs", "main", "--runs")
REGRESSION = (*CHECK, "change")
PASSES = (*CHECK, "same")

# A reader that is gone before anything is written, as `head` may be.
GONE = "| true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom table with a baseline, a change that costs nothing, and one that costs ten points."""
    folder = tmp_path_factory.mktemp("gate")
    spec = mine(folder)
    save_accuracy(Store(folder / "main"), spec, 0, images(right=722))
    save_accuracy(Store(folder / "same"), spec, 9, images(right=722))
    save_accuracy(Store(folder / "change"), spec, 9, images(right=722, lost=100))
    assert run_harness(folder, "baseline", "mine.toml", "--runs", "main", "-o", "b.json").returncode == 0
    return folder


def shell(folder: Path, redirection: str, *arguments: str, **variables: str) -> Completed:
    """Run a command whose streams a shell redirects; the exit code is its own, not that of a reader."""
    # A pipe waits until its reader is gone.
    waits = "sleep 0.2; " if redirection == GONE else ""
    command = f'{{ {waits}exec "$0" -m harness "$@"; }} {redirection}; exit "${{PIPESTATUS[0]}}"'
    process = subprocess.run(
        ["bash", "-c", command, sys.executable, *arguments],
        capture_output=True,
        check=False,
        cwd=folder,
        env=clean_environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    encoding = variables.get("PYTHONIOENCODING", "ascii" if "PYTHONUTF8" in variables else "utf-8")
    return Completed(
        returncode=process.returncode, stdout=process.stdout.decode(encoding), stderr=process.stderr.decode(encoding)
    )


@pytest.mark.parametrize(
    ("variables", "held"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, "v held"),
        ({"PYTHONIOENCODING": "cp1252"}, "v held"),
        ({"PYTHONIOENCODING": "ascii"}, "v held"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "v held"),
        ({"PYTHONIOENCODING": "utf-16"}, "✓ held"),
    ],
    ids=str,
)
def test_what_an_encoding_lacks_is_spelled_in_others(folder: Path, variables: dict[str, str], held: str) -> None:
    ran = shell(folder, "", *PASSES, "-v", **variables)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{held}: mine, top-1 of Tiny: 72.20 %, was 72.20 %" in ran.stdout


@pytest.mark.parametrize(
    ("redirection", "reason"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_an_answer_that_cannot_be_printed_is_an_error(folder: Path, redirection: str, reason: str) -> None:
    ran = shell(folder, redirection, "list")
    sentence = f"error: stdout: {reason}, so the output could not be written; redirect it elsewhere\n"
    assert ran == Completed(returncode=2, stdout="", stderr=sentence)


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", GONE, "> /dev/full 2>&1", ">&- 2>&-"])
def test_a_regression_is_told_by_the_exit_code_whoever_can_read_it(folder: Path, redirection: str) -> None:
    ran = shell(folder, redirection, *REGRESSION)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", GONE, ">&- 2>&-"])
def test_a_check_that_nobody_could_read_does_not_pass(folder: Path, redirection: str) -> None:
    ran = shell(folder, redirection, *PASSES)
    assert ran.returncode == 2
    assert re.fullmatch("(error: stdout: .*, so the output could not be written; .*\n)?", ran.stderr)


def test_a_regression_whose_file_cannot_be_written_stays_one(folder: Path) -> None:
    junit = ("--junit", "mine.toml/x.xml")
    sentence = "error: --junit mine.toml/x.xml: Not a directory; name another file\n"
    ran = run_harness(folder, *REGRESSION, *junit)
    assert (ran.returncode, ran.stderr) == (1, sentence.replace("Not a directory", "File exists"))
    assert run_harness(folder, *PASSES, *junit).returncode == 2


@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full"])
def test_warnings_that_cannot_be_printed_change_nothing(folder: Path, redirection: str) -> None:
    assert shell(folder, redirection, "list", "table99") == Completed(returncode=2, stdout="", stderr="")
    # `main` has results of mine.toml alone, which the note would say of a folder that is not there.
    ran = shell(folder, redirection, "report", "mine.toml", "--format", "json")
    assert ran.returncode == 0
    assert ran.stdout.startswith("{")
    assert ran.stdout.endswith("}\n")


def test_without_stdin_nobody_is_asked(folder: Path) -> None:
    save_accuracy(Store(folder / "twice"), mine(folder), 0, images(right=722))
    save_accuracy(Store(folder / "twice"), mine(folder), 9, images(right=722))
    ran = shell(folder, "<&-", "runs", "prune", "--runs", "twice")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: stdin is not a terminal")


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    code = "import os; from harness.cli.console import open_streams; open_streams(); os._exit(os.open('/dev/null', 0))"
    command = ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    assert subprocess.run(command, check=False, env=path, timeout=60).returncode > 2


# Exit codes.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecursionError("deep"), 70),
        (AssertionError(), 70),
        (SystemExit(1), 70),
        (SystemExit("a library gives up"), 70),
        (GeneratorExit(), 70),
        (OSError(errno.ENOENT, "our own file is gone"), 70),
        (MemoryError(), 70),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "x", "some/file"), 2),
        (OSError(errno.EACCES, "x", "some/file"), 2),
    ],
    ids=repr,
)
def test_no_error_ends_with_the_code_of_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.commands["list"], "callback", fail)
    ran = run_harness(tmp_path, "list")
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.startswith("Traceback (most recent call last):\n") == (code == 70)
    last = ran.stderr.splitlines()[-1]
    if code == 70:
        assert last == (
            "error: this is a bug in the harness; please report it with the lines above and `harness doctor`"
        )
    if code == 2:
        assert last.startswith(f"error: some/file: {os.strerror(error.errno)}; ")  # type: ignore[attr-defined]


def test_an_installation_that_cannot_be_loaded_ends_with_70(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError('half an upgrade')\n")
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    ran = shell(tmp_path, "", "list", PYTHONPATH=path)
    assert (ran.returncode, ran.stdout) == (70, "")
    assert "ImportError: half an upgrade\n" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("error: the harness cannot be loaded")


def test_completion_for_a_shell_that_has_none_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    ran = run_harness(tmp_path, _HARNESS_COMPLETE="tcsh_source")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: _HARNESS_COMPLETE=tcsh_source: is for bash, zsh and fish; `harness --help` shows how to set it\n"
    )
    assert run_harness(tmp_path, _HARNESS_COMPLETE="bash_source").returncode == 0


def test_only_the_gate_names_the_code_of_a_regression() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "REGRESSION" in path.read_text(encoding="utf-8")]
    assert sorted(users) == ["console.py", "outputs.py"]
    assert callable(main)


def test_a_line_that_ctrl_c_follows_at_once_is_written_once(tmp_path: Path) -> None:
    # The signal is handled as soon as the system has taken the line, before anybody hears that it did.
    program = """
import os
from harness.cli.console import note, open_streams
real = os.write
def write(descriptor, data):
    os.write = real
    real(descriptor, data)
    raise KeyboardInterrupt
open_streams()
os.write = write
try:
    note("first")
except KeyboardInterrupt:
    note("second")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "first\nsecond\n")
