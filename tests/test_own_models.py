"""The user's own models: their code is in the keys of their jobs, and nothing old is shown for changed code."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from harness.errors import HarnessError, JobError
from harness.jobs import count, models, weights, worker
from harness.jobs.evaluate import evaluate
from harness.machine.own_models import code_digest, own_model_names
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.run.messages import Batch, Inputs
from harness.specs import load
from harness.specs.checked import Scalar
from harness.store.store import Store
from tests.commands import start_harness
from tests.fakes import LAPTOP, VERSIONS
from tests.own_models import forget, install, install_net, write

Install = Callable[[Path], None]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put folders in front of those that are imported from; afterwards nothing of them is left."""
    before = set(sys.modules)

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        forget()

    yield add
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("nets", "other", "shared", "single"):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


FILES = {
    "nets/__init__.py": "",
    "nets/net.py": "import os, single\nfrom nets.parts import layers\n\ndef build():\n    from shared import norm\n",
    "nets/parts/layers.py": "DEPTH = 2\n",
    "nets/parts/sizes.yaml": "depth: 2\n",
    "nets/parts/count-net-224-0123456789/1.json": "{}",
    "nets/kernel.cu": "// fast\n",
    "nets/README.md": "A net.\n",
    "single.py": "import numpy as np, released.inner as inner\n",
    "shared/__init__.py": "",
    "shared/norm.py": "EPS = 1e-6\n",
    "unused/__init__.py": "",
    "site-packages/released/__init__.py": "",
}


@pytest.fixture
def checkout(tmp_path: Path, path: Install) -> Path:
    """A folder of code that is imported from where it is, as an editable installation leaves it."""
    folder = tmp_path / "checkout"
    install(folder, FILES, {"net": "nets.net:build", "wide": "nets.net:wide"})
    path(folder / "site-packages")
    path(folder)
    return folder


# The digest.


@pytest.mark.parametrize(
    "file",
    [
        "nets/net.py",
        "nets/parts/layers.py",
        "nets/parts/sizes.yaml",
        "nets/kernel.cu",
        "nets/new.py",
        "single.py",
        "shared/norm.py",
    ],
)
def test_a_change_of_what_the_model_is_made_of_is_another_code(checkout: Path, file: str) -> None:
    before = code_digest("net")
    with (checkout / file).open("a", encoding="utf-8") as opened:
        opened.write("# changed\n")
    assert code_digest("net") != before


@pytest.mark.parametrize(
    "file",
    [
        "nets/README.md",
        "nets/__pycache__/net.cpython-311.pyc",
        "nets/.cache/net.py",
        "nets/runs/count-net-224-0123456789/20261121T120000000000Z-00000000.json",
        "unused/__init__.py",
        "site-packages/released/__init__.py",
        "elsewhere.py",
    ],
)
def test_a_change_of_anything_else_is_not(checkout: Path, file: str) -> None:
    before = code_digest("net")
    write(checkout, {file: "changed\n"})
    assert code_digest("net") == before


def test_the_same_code_is_the_same_wherever_it_is_installed(
    checkout: Path, tmp_path: Path, path: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    editable = code_digest("net")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if str(checkout) not in folder])
    released = tmp_path / "lib" / "site-packages"
    install(released, FILES, {"net": "nets.net:build"}, record=True)
    path(released)
    assert code_digest("net") == editable


def test_what_a_package_installs_is_its_code_and_what_others_install_is_not(tmp_path: Path, path: Install) -> None:
    released = tmp_path / "site-packages"
    files = {name: text for name, text in FILES.items() if name.partition("/")[0] in ("nets", "single.py")}
    install(released, files, {"net": "nets.net:build"}, record=True)
    write(released, {"shared/__init__.py": "", "shared/norm.py": "EPS = 1e-6\n"})
    path(released)
    before = code_digest("net")
    write(released, {"shared/norm.py": "EPS = 1e-5\n"})
    assert code_digest("net") == before
    write(released, {"single.py": "WIDTH = 3\n"})
    assert code_digest("net") != before


def test_two_functions_of_one_package_are_two_codes(checkout: Path) -> None:
    assert code_digest("net") != code_digest("wide")


def test_a_package_without_init_is_found_and_one_that_a_link_brings_in(tmp_path: Path, path: Install) -> None:
    write(tmp_path / "far", {"layers.py": "DEPTH = 2\n"})
    install(tmp_path / "near", {"nets/net.py": "def build(): ...\n"}, {"net": "nets.net:build"})
    (tmp_path / "near" / "nets" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "far")
    path(tmp_path / "near")
    before = code_digest("net")
    write(tmp_path / "far", {"layers.py": "DEPTH = 3\n"})
    assert code_digest("net") != before


def test_an_editable_installation_that_only_a_finder_knows_is_found(
    tmp_path: Path, path: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        """As setuptools installs one for a package that is not at the top of its checkout."""

        @staticmethod
        def find_spec(
            name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
        ) -> ModuleSpec | None:
            start = tmp_path / "src" / "python" / "nets" / "__init__.py"
            return importlib.util.spec_from_file_location(name, start) if name == "nets" else None

    install(tmp_path / "installed", {}, {"net": "nets.net:build"})
    write(tmp_path / "src" / "python", FILES)
    path(tmp_path / "installed")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    before = code_digest("net")
    write(tmp_path / "src" / "python", {"nets/parts/layers.py": "DEPTH = 3\n"})
    assert code_digest("net") != before


def test_reading_the_code_imports_none_of_it(checkout: Path) -> None:
    write(checkout, {"nets/__init__.py": "raise RuntimeError('imported')\n"})
    assert code_digest("net")
    assert "nets" not in sys.modules


def test_other_names_have_no_code(checkout: Path) -> None:
    assert code_digest("deit_tiny_patch16_224") == ""
    assert own_model_names()[:2] == ("net", "wide")


@pytest.mark.parametrize(
    ("entries", "name", "message"),
    [
        (
            {"gone": "nowhere.net:build"},
            "gone",
            (
                "the model 'gone' in harness.models is nowhere.net:build, but nowhere has no file; install its "
                "package with its files, or uninstall it"
            ),
        ),
        (
            {"net.small": "nets.net:build"},
            "net.small",
            (
                "the model 'net.small' in harness.models has a '.' or '#' in its name, which separate weights and "
                "head; rename it"
            ),
        ),
        (
            {"net": "nets.other:build"},
            "net",
            "nets.net:build and nets.other:build both name a model 'net' in harness.models; rename one of them",
        ),
    ],
    ids=["gone", "dotted", "twice"],
)
def test_what_cannot_be_known_is_refused_in_a_sentence(
    checkout: Path, entries: Mapping[str, str], name: str, message: str
) -> None:
    install(checkout, {}, entries, name="second")
    with pytest.raises(HarnessError) as refused:
        code_digest(name)
    assert str(refused.value) == message


# Jobs.

SPEC = """
[table]
title = "Mine"
[source.paper]
kind = "paper"
[column.params]
label = "params"
job = "count"
metric = "params"
unit = "M"
[column.macs]
label = "MACs"
job = "count"
metric = "macs"
unit = "GMAC"
[column.speed]
label = "im/s"
job = "throughput"
metric = "throughput"
[column.top1]
label = "top-1"
job = "evaluate"
metric = "top1"
set = { data = "imagenet" }
[column.agreement]
label = "disagreement"
job = "agreement"
metric = "disagreement"
set = { first = "net.w#class", second = "labels", data = "imagenet" }
[column.trained]
label = "trained"
job = "train"
metric = "top1"
set = { recipe = "deit-b", data = "imagenet" }
[row.net]
label = "Net"
set = { model = "net", weights = "w", res = 8 }
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(SPEC, encoding="utf-8")
    return tmp_path / "mine.toml"


def keys(spec: Path) -> dict[str, str]:
    options = Options(data=frozenset({"imagenet"}), train=True, retrain=True)
    jobs = make_plan([load(spec)], options).jobs
    return {f"{job.kind} {job.get('weights')}": job.key for job in jobs}


def test_changed_code_is_another_job_of_every_kind(checkout: Path, spec: Path) -> None:
    before = keys(spec)
    assert set(before) == {"count ", "throughput ", "evaluate w", "evaluate trained", "agreement ", "train "}
    write(checkout, {"nets/net.py": "def build(depth=3): ...\n"})
    after = keys(spec)
    assert [kind for kind in before if before[kind] == after[kind]] == []


@pytest.mark.parametrize("part", ["teacher", "start"])
def test_the_code_of_a_teacher_and_of_what_a_training_starts_from_counts(checkout: Path, part: str) -> None:
    settings: dict[str, Scalar] = {"model": "deit_tiny_patch16_224", "res": 224, "recipe": "deit-b", part: "net.w"}
    before = Job.of("train", settings)
    write(checkout, {"nets/net.py": "def build(depth=3): ...\n"})
    assert Job.of("train", settings).key != before.key
    assert Job.of("train", settings).without_code == before.without_code


def test_jobs_of_timms_models_keep_the_keys_that_they_had_before_code_was_in_any(checkout: Path) -> None:
    # The SHA-256 of ["count", [["model", "deit_tiny_patch16_224"], ["res", 224]], 1].
    job = Job(kind="count", settings=(("model", "deit_tiny_patch16_224"), ("res", 224)), revision=1)
    assert job.key == "count-deit_tiny_patch16_224-224-3050a8b486"
    assert Job.of("count", dict(job.settings)).key.rpartition("-")[0] == "count-deit_tiny_patch16_224-224"
    assert "code" not in dict(Job.of("count", dict(job.settings)).settings)


def test_a_job_made_of_an_older_one_has_the_code_of_now(checkout: Path) -> None:
    older = Job.of("count", {"model": "net", "res": 8})
    write(checkout, {"nets/net.py": "def build(depth=3): ...\n"})
    now = Job.of("count", {"model": "net", "res": 8})
    assert Job.of("count", dict(older.settings)) == now != older


# What a process does with them.


def test_a_job_whose_code_changed_since_it_was_planned_is_not_run(checkout: Path, tmp_path: Path) -> None:
    counted = Job.of("count", {"model": "net", "res": 8})
    evaluated = Job.of("evaluate", {"model": "net", "weights": "w", "res": 8, "data": "digits"})
    models.check_code(counted)
    write(checkout, {"nets/net.py": "def build(depth=3): ...\n"})
    message = "the code of its model has changed since the job was planned; run the same command again"
    batch = Batch(jobs=(counted,), device="cpu", machine=LAPTOP, software=VERSIONS, runs=tmp_path / "runs")
    (result,) = worker._run_jobs(batch, Store(batch.runs), lambda _: None)
    assert result.error == message
    with pytest.raises(JobError) as refused:
        evaluate._prepare(evaluated, (), Inputs(), tmp_path / "runs")
    assert str(refused.value) == message


def test_an_own_model_is_built_for_the_classes_and_the_size_that_it_takes(tmp_path: Path, path: Install) -> None:
    text = (
        "from torch import nn\n"
        "def plain(num_classes=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n"
        "def sized(num_classes=10, img_size=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * img_size ** 2, num_classes))\n"
    )
    install(tmp_path, {"nets.py": text}, {"plain": "nets:plain", "sized": "nets:sized"})
    path(tmp_path)
    assert models.build_empty("plain", 2, classes=5)(torch.zeros(1, 3, 2, 2)).shape == (1, 5)
    assert models.build_empty("sized", 8, classes=5)(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    assert models.build_with_random_weights("plain", 2)(torch.zeros(1, 3, 2, 2)).shape == (1, 10)
    assert models.unknown_model_message("plian").endswith("knows no model 'plian'; did you mean 'plain'?")


BROKEN = """
from torch import nn
def number(): return 3
def greedy(): raise KeyError("depth")
"""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nets:number", "nets:number returns a int for 'net', which must be a torch.nn.Module"),
        ("nets:greedy", "nets:greedy cannot build 'net' for 8 pixels: 'depth'"),
        (
            "nets:gone",
            (
                "the model 'net' in harness.models cannot be loaded (AttributeError: module 'nets' has no attribute "
                "'gone'): nets:gone; repair or uninstall its package"
            ),
        ),
    ],
)
def test_an_own_model_that_is_none_is_refused_in_a_sentence(
    tmp_path: Path, path: Install, entry: str, message: str
) -> None:
    install(tmp_path, {"nets.py": BROKEN}, {"net": entry})
    path(tmp_path)
    with pytest.raises(JobError) as refused:
        models.build_on_meta("net", 8)
    assert str(refused.value) == message


def test_a_name_of_timms_is_not_taken(tmp_path: Path, path: Install) -> None:
    install(tmp_path, {"nets.py": "def build(): ...\n"}, {"resnet18": "nets:build"})
    path(tmp_path)
    assert models.unknown_model_messages(("resnet18", "resnet50")) == {
        "resnet18": "timm has a model 'resnet18', too; rename the entry point nets:build in harness.models"
    }


def test_a_model_that_only_timm_was_told_of_is_refused_for_its_code_would_be_in_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from timm.models import _registry

    def stranger(**options: object) -> None: ...

    monkeypatch.setitem(_registry._model_entrypoints, "stranger", stranger)
    assert models.unknown_model_message("stranger") == (
        f"'stranger' is registered with timm by {__name__}, where a change of its code would not be noticed; make it "
        "an entry point in harness.models"
    )


def test_the_hub_is_not_asked_for_weights_of_an_own_model(tmp_path: Path, path: Install) -> None:
    install_net(tmp_path, width=2)
    path(tmp_path)
    assert weights.unknown_tag_message("net", "w") == (
        "the weights net.w are not on timm's hub; provide them with --weights DIR, as a file net.w.safetensors"
    )


ROOT = Path(__file__).parent.parent


def reproduce(folder: Path) -> str:
    """Count the model of the table; return the last line of what the command printed."""
    ran = start_harness(
        folder, "reproduce", "mine.toml", "--columns", "params,macs", "--device", "cpu", PYTHONPATH=f"{folder}:{ROOT}"
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


def shown(folder: Path) -> dict[str, int]:
    """Return the numbers of parameters and MACs that a report shows."""
    columns = ("--columns", "params,macs", "--format", "json")
    ran = start_harness(folder, "report", "mine.toml", *columns, PYTHONPATH=f"{folder}:{ROOT}")
    scale = {"params": 1e6, "macs": 1e9}
    return {
        cell["column"]: round(cell["measured"] * scale[cell["column"]])
        for cell in json.loads(ran.stdout)["cells"]
        if cell["measured"] is not None
    }


def test_changed_code_is_measured_again_and_the_old_result_is_not_shown(tmp_path: Path, spec: Path) -> None:
    # Width w, 8 × 8 pixels, 10 classes: 3w + w and 10w + 10 parameters, 64 · 3w and 10w MACs.
    install_net(tmp_path, width=2)
    assert reproduce(tmp_path) == "jobs: 1 measured, 0 known already.  runs/"
    assert shown(tmp_path) == {"params": 8 + 30, "macs": 384 + 20}
    install_net(tmp_path, width=30)
    assert shown(tmp_path) == {}
    assert reproduce(tmp_path) == "jobs: 1 measured, 0 known already.  runs/"
    assert shown(tmp_path) == {"params": 120 + 310, "macs": 5760 + 300}
    assert reproduce(tmp_path) == "jobs: 0 measured, 1 known already.  runs/"


# Counting.


def test_an_own_model_is_counted(tmp_path: Path, path: Install) -> None:
    install_net(tmp_path, width=2)
    path(tmp_path)
    metrics, facts, _ = count.count_model(Job.of("count", {"model": "net", "res": 8}), lambda _: None)
    assert facts == {"parameters": 38, "multiply_adds": 404}
    assert metrics["res"].value == 8
