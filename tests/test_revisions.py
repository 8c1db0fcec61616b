"""`harness ab --rev`: two commits of a checkout, each in an environment of its own, which is built once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from harness.errors import HarnessError
from harness.run.revisions import Builder, Checkout, Revision, differing_packages
from tests.commands import clean_environment, run_harness

# A build backend that needs nothing, so that pip needs no index.
BACKEND = """
import zipfile
from pathlib import Path
INFO = "tinynets-1.dist-info"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    texts = {
        "tinynets.py": Path("tinynets.py").read_text(),
        f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: tinynets\\nVersion: 1\\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nGenerator: none\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{INFO}/entry_points.txt": "[harness.models]\\ntinynet = tinynets:tinynet\\n",
    }
    texts[f"{INFO}/RECORD"] = "".join(f"{name},,\\n" for name in [*texts, f"{INFO}/RECORD"])
    with zipfile.ZipFile(Path(folder) / "tinynets-1-py3-none-any.whl", "w") as wheel:
        for name, text in texts.items():
            wheel.writestr(name, text)
    return "tinynets-1-py3-none-any.whl"
"""

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tinynets"
version = "1"
"""

# Whatever it is shown, it predicts one class.
MODEL = """
import torch
class Always(torch.nn.Linear):
    def forward(self, x):
        logits = 0 * super().forward(x[:, 0, 0])
        logits[:, {predicted}] = 1
        return logits
def tinynet(pretrained=False, num_classes=1000, **kwargs):
    return Always(32, num_classes)
"""

SPEC = """
[table]
title = "Tiny"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
unit = "% top-1"
better = "higher"
tolerance = 1.0
set = { data = "imagenet" }
[row.tiny]
label = "tinynet"
set = { model = "tinynet", weights = "w", res = 32 }
"""

# Classes 0 and 1 of ImageNet, and the images of each.
CLASSES = {"n01440764": 2, "n01443537": 10}

OFFLINE = "pip install --no-deps --no-index ."


def git(folder: Path, *arguments: str) -> str:
    identity = [
        *("-c", "user.name=n", "-c", "user.email=e@example.org"),
        *("-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"),
    ]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the commits `old` and `new`, whose models predict classes 1 and 0."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT, "mine.toml": SPEC}.items():
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "-q")
    for tag, predicted in (("old", 1), ("new", 0)):
        (folder / "tinynets.py").write_text(MODEL.format(predicted=predicted), encoding="utf-8")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", tag)
        git(folder, "tag", tag)
    return folder


@pytest.fixture
def builder(project: Path, tmp_path: Path) -> Callable[..., Builder]:
    """Make builders in one folder that install by copying, which takes no time."""
    report: Callable[[str], None] = lambda _: None  # noqa: E731
    return partial(
        Builder,
        checkout=Checkout(folder=project),
        folder=tmp_path / "environments",
        report=report,
        install="cp tinynets.py $VIRTUAL_ENV/",
        share=True,
    )


# The whole, as a user has it.


def test_two_commits_are_compared_image_by_image_whatever_the_working_folder_has(project: Path, tmp_path: Path) -> None:
    names = [f"{folder}/ILSVRC2012_val_{n:08d}.JPEG" for folder, count in CLASSES.items() for n in range(1, count + 1)]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / name)
    state = {"weight": np.zeros((1000, 32), dtype=np.float32), "bias": np.zeros(1000, dtype=np.float32)}
    (tmp_path / "weights").mkdir()
    save_file(state, tmp_path / "weights" / "tinynet.safetensors")
    (project / "tinynets.py").write_text("neither", encoding="utf-8")
    options = {
        "--data": f"imagenet={tmp_path / 'images'}",
        "--weights": str(tmp_path / "weights"),
        "--install": OFFLINE,
        "--environments": str(tmp_path / "environments"),
    }
    given = [text for option in options.items() for text in option]
    ran = run_harness(
        project, "ab", "./mine.toml", "--only", "evaluate", "--rev", "old", "--rev", "new", "--share",
        "--device", "cpu", "--json", "--markdown", "r.md", *given,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout + ran.stderr
    (cell,) = json.loads(ran.stdout)["cells"]
    assert (cell["outcome"], cell["images"]) == ("regressed", 12)
    assert (cell["before"], cell["now"]) == (pytest.approx(1000 / 12), pytest.approx(200 / 12))
    assert (cell["lost"], cell["won"]) == (names[2:], names[:2])
    # McNemar's: of 12 images that flip, 2 or fewer one way by chance, both ways.
    assert cell["p"] == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    old, new = (git(project, "rev-parse", "--short=7", tag) for tag in ("old", "new"))
    assert f"\nnew ({new}) against old ({old}).\n" in (project / "r.md").read_text(encoding="utf-8")
    assert git(project, "status", "--short") == "M tinynets.py\n?? r.md"


# What is a revision.


def test_the_working_tree_without_changes_is_its_commit(project: Path) -> None:
    assert Checkout(folder=project).revision(".").commit == git(project, "rev-parse", "new")


def test_equal_changes_are_the_same_commit_and_leave_index_and_branch_alone(project: Path) -> None:
    (project / "tinynets.py").write_text("changed", encoding="utf-8")
    before = git(project, "status", "--short"), git(project, "rev-parse", "HEAD")
    first = Checkout(folder=project).revision(".").commit
    time.sleep(1.1)  # git's clock has seconds
    assert Checkout(folder=project).revision(".").commit == first
    assert git(project, "show", f"{first}:tinynets.py") == "changed"
    assert (git(project, "status", "--short"), git(project, "rev-parse", "HEAD")) == before


def test_files_that_git_does_not_know_are_named(project: Path) -> None:
    (project / "forgotten.py").touch()
    assert Checkout(folder=project).untracked() == ["forgotten.py"]


def test_what_is_no_commit_or_no_checkout_is_one_sentence(project: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as unknown:
        Checkout(folder=project).revision("nope")
    assert str(unknown.value) == (
        f"--rev nope: {project} has no such commit; `git fetch` gets it, in a shallow clone as that of a CI "
        "`git fetch --depth 1 origin COMMIT`"
    )
    (tmp_path / "bare").mkdir()
    with pytest.raises(HarnessError) as outside:
        Checkout(folder=tmp_path / "bare").revision("main")
    assert str(outside.value).startswith(f"--checkout {tmp_path / 'bare'}: git rev-parse: fatal: not a git repository")


def test_a_rev_that_looks_like_an_option_is_none(project: Path) -> None:
    with pytest.raises(HarnessError, match="--rev --all: "):
        Checkout(folder=project).revision("--all")


# What is built.


def test_an_environment_finds_what_is_installed_here_and_is_built_again_for_another_command(
    builder: Callable[..., Builder], project: Path
) -> None:
    revision = Checkout(folder=project).revision("old")
    first = builder().interpreter(revision)
    assert first.packages["torch"]
    assert builder().interpreter(revision) == first
    assert builder(install="true").interpreter(revision).path != first.path
    (first.path.parents[2] / "environment.json").unlink()  # as a kill leaves it
    (first.path.parents[2] / "half").touch()
    assert builder().interpreter(revision) == first
    assert not (first.path.parents[2] / "half").exists()


def test_a_project_in_a_subfolder_is_installed_from_there(
    builder: Callable[..., Builder], project: Path, tmp_path: Path
) -> None:
    (project / "below").mkdir()
    (project / "below" / "tinynets.py").write_text("below", encoding="utf-8")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "below")
    checkout = Checkout(folder=project / "below")
    interpreter = builder(checkout=checkout).interpreter(checkout.revision("HEAD"))
    assert (interpreter.path.parents[1] / "tinynets.py").read_text(encoding="utf-8") == "below"


def test_a_failed_build_quotes_its_errors_and_leaves_the_log_alone(
    builder: Callable[..., Builder], project: Path
) -> None:
    failing = builder(install="echo error: no such thing as gcc; echo try again; exit 3")
    revision = Checkout(folder=project).revision("old")
    with pytest.raises(HarnessError) as raised:
        failing.interpreter(revision)
    (log,) = failing.folder.glob("*.log")
    assert str(raised.value) == (
        f"--rev {revision}: `echo error: no such thing as gcc; echo try again; exit 3` failed with exit code 3: "
        f"error: no such thing as gcc; {log} has all of it, and --install names another command"
    )
    assert "try again" in log.read_text(encoding="utf-8")
    assert [path for path in failing.folder.iterdir() if path.is_dir()] == []


def test_ctrl_c_leaves_no_environment(project: Path, tmp_path: Path) -> None:
    environments = tmp_path / "environments"
    arguments = ["ab", "./mine.toml", "--data", "imagenet=.", "--rev", "old", "--rev", "new", "--share"]
    install = ["--install", "touch started; sleep 60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments, *install, "--environments", str(environments)],
        cwd=project,
        env=clean_environment(tmp_path),
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no threads here
    )
    while not list(environments.glob("*/source/started")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [path for path in environments.iterdir() if path.is_dir()] == []


def test_what_two_environments_differ_in_is_named() -> None:
    old, new = {"torch": "2.13", "timm": "1.0.20", "numpy": "2"}, {"torch": "2.14", "timm": "1.0.20", "mine": "1"}
    assert differing_packages(old, new) == ["mine none → 1", "numpy 2 → none", "torch 2.13 → 2.14"]


def test_a_revision_is_named_with_its_commit() -> None:
    commit = "0123456789abcdef"
    names = {"main": "main (0123456)", "0123456": "0123456", ".": "the working tree (0123456)"}
    assert {name: str(Revision(name=name, commit=commit)) for name in names} == names
