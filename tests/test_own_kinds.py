"""Kinds of job of other packages: as ours from the spec to the report, each with its code in the keys of its jobs."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.jobs import worker
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.messages import Batch, Inventory
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Constraint, Kind, load
from harness.specs.kinds import KINDS, OUR_KINDS, settings_of
from harness.store.result import Measurement, Result
from harness.store.store import Store
from tests.commands import Completed, start_harness
from tests.fakes import LAPTOP, VERSIONS, FakeLauncher
from tests.own_models import forget, write

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "own_kinds"

KIND = """
from harness.specs import Constraint, Kind

COINS = Kind(
    function="coins.toss:measure",
    required=("seed",),
    defaults={"tosses": 10},
    own_settings={"tosses": Constraint(types=(int,), least=1)},
    metrics={"heads_up": "%"},
)
NUMBER = 3
"""

TOSS = """
from harness.jobs import Measurement

def measure(job, report):
    return {"heads_up": Measurement(unit="%", value=100 * job["seed"] / job["tosses"])}, {}, []
"""

SPEC = """
[table]
title = "Coins"
[source.paper]
kind = "paper"
[column.heads]
label = "heads"
job = "coin-toss"
metric = "heads_up"
unit = "%"
tolerance = 0.1
set = { tosses = 20 }
[row.five]
label = "five"
set = { seed = 5 }
paper = { heads = 25.0 }
"""


def install(folder: Path, entries: str, *, name: str = "coins", **files: str) -> None:
    """Write a package with entry points in `harness.jobs`, as an editable installation leaves it."""
    written = {path.replace("__", "/") + ".py": text for path, text in files.items()}
    about = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    points = f"[harness.jobs]\n{entries}\n"
    write(folder, {**written, f"{about}/METADATA": metadata, f"{about}/entry_points.txt": points})
    forget()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `coins` with a kind of job of that name, and a table of it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, {"coins/__init__.py": "", "mine.toml": SPEC})
    install(tmp_path, "coin-toss = coins.kinds:COINS", coins__kinds=KIND, coins__toss=TOSS)
    yield tmp_path
    for module in set(sys.modules) - before:
        if module.partition(".")[0] == "coins":
            del sys.modules[module]
    monkeypatch.undo()
    forget()


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(HarnessError) as refused:
        function(*arguments)
    return str(refused.value)


def measured(folder: Path, job: Job) -> Result:
    batch = Batch(jobs=(job,), device="cpu", machine=LAPTOP, software=VERSIONS, runs=folder / "runs")
    (result,) = worker._run_jobs(batch, Store(batch.runs), lambda _: None)
    return result


def job_of(folder: Path) -> Job:
    (job,) = make_plan([load(folder / "mine.toml")]).jobs
    return job


# What a spec, a plan and a process do with a kind of another package.


def test_a_spec_may_use_the_kind_its_settings_and_its_metrics(folder: Path) -> None:
    job = job_of(folder)
    settings = {name: value for name, value in job.settings if name != "method"}
    assert (job.kind, settings) == ("coin-toss", {"seed": 5, "tosses": 20})
    assert "coins.toss" not in sys.modules


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tosses = 20", "tosses = 0", "mine.toml:12: tosses in [column.heads.set] must be at least 1, not 0"),
        (
            "tosses = 20",
            "toses = 20",
            "mine.toml:12: unknown setting 'toses' in [column.heads.set]; did you mean 'tosses'?",
        ),
        (
            '"heads_up"',
            '"heads"',
            "mine.toml:9: job 'coin-toss' has no metric 'heads'; did you mean 'heads_up'?",
        ),
        (
            '"coin-toss"',
            '"cointoss"',
            (
                "mine.toml:8: unknown kind of job 'cointoss'; did you mean 'coin-toss'?\n"
                "mine.toml:12: unknown setting 'tosses' in [column.heads.set]"
            ),
        ),
    ],
)
def test_a_mistake_in_its_settings_or_metrics_has_its_place(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "mine.toml").write_text(SPEC.replace(old, new), encoding="utf-8")
    assert refusal(load, folder / "mine.toml").replace(f"{folder}/", "") == message


def test_its_function_measures_with_what_it_asks_for_by_name(folder: Path) -> None:
    result = measured(folder, job_of(folder))
    assert (result.error, result.metrics["heads_up"].value) == (None, 25.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"heads_up"', '"heads"', "a coin-toss job gave heads in '%', but its kind declares heads_up in '%'"),
        ('unit="%"', 'unit="im/s"', "a coin-toss job gave heads_up in 'im/s', but its kind declares heads_up in '%'"),
        (
            "(job, report)",
            "(job, gpu)",
            (
                "coins.toss:measure takes 'gpu', but a job is given job, report, device, devices, threads, cores, "
                "inputs, runs, store, weights, ends"
            ),
        ),
        ("def measure", "def count", "coins.toss:measure cannot be loaded"),
        ("100 *", "-1 *", "its result is damaged (heads_up must be at least 0, not -0.25)"),
        ("{}, []", "{'x': {1, 2}}, []", "its result Object of type set is not JSON serializable"),
    ],
    ids=["metric", "unit", "argument", "function", "impossible", "fact"],
)
def test_a_function_that_does_not_keep_to_its_kind_fails_with_a_sentence(
    folder: Path, old: str, new: str, message: str
) -> None:
    write(folder, {"coins/toss.py": TOSS.replace(old, new)})
    assert str(measured(folder, job_of(folder)).error).startswith(message)


@pytest.mark.parametrize("file", ["coins/kinds.py", "coins/toss.py", "coins/new.py"])
def test_changed_code_is_another_job(folder: Path, file: str) -> None:
    before = job_of(folder).key
    with (folder / file).open("a", encoding="utf-8") as opened:
        opened.write("# changed\n")
    assert job_of(folder).key != before


def test_a_job_whose_kind_changed_since_it_was_planned_is_not_run(folder: Path) -> None:
    job = job_of(folder)
    write(folder, {"coins/toss.py": TOSS + "# changed\n"})
    assert measured(folder, job).error == (
        "the code of its kind has changed since the job was planned; run the same command again"
    )
    assert job_of(folder).without_code != job.without_code  # so a gate does not compare the two


def test_the_package_of_its_function_counts_as_well(folder: Path) -> None:
    write(folder, {"elsewhere/__init__.py": "", "elsewhere/toss.py": TOSS})
    write(folder, {"coins/kinds.py": KIND.replace("coins.toss", "elsewhere.toss")})
    before = job_of(folder)
    assert measured(folder, before).error is None
    write(folder, {"elsewhere/toss.py": TOSS + "# changed\n"})
    assert job_of(folder).key != before.key
    del sys.modules["elsewhere"], sys.modules["elsewhere.toss"]


def test_a_raised_revision_is_another_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = job_of(folder)
    import coins.kinds  # type: ignore[import-not-found]

    monkeypatch.setattr(coins.kinds, "COINS", replace(coins.kinds.COINS, revision=2))
    forget()
    assert (job_of(folder).revision, job_of(folder).key == before.key) == (2, False)


IMAGES = {"fingerprint": "a", "said": "mine", "whole": True}


@pytest.mark.parametrize(
    ("facts", "counts"), [({}, False), ({"images": IMAGES}, True), ({"images": {**IMAGES, "fingerprint": "b"}}, False)]
)
def test_a_result_of_a_kind_that_reads_images_counts_for_these_images_only(
    folder: Path, *, facts: dict[str, object], counts: bool
) -> None:
    kind = KIND.replace('required=("seed",)', 'required=("seed", "data"),\n    reads_images=True')
    write(folder, {"coins/kinds.py": kind, "coins/toss.py": TOSS.replace("{}, []", f"{facts}, []")})
    job = Job.of("coin-toss", {"seed": 5, "tosses": 20, "data": "mine"})
    runner = Runner(
        store=Store(folder / "runs"),
        launcher=FakeLauncher(),
        target=ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS),
        observer=ProgressObserver(),
        inventory=Inventory(images={"mine": IMAGES}),
    )
    runner.store.prepare()
    runner.store.save(measured(folder, job))
    assert runner.reuse(job) is counts


# Plug-ins that are none.


def test_two_packages_that_name_one_kind_are_both_named(folder: Path) -> None:
    install(folder, "coin-toss = other.kinds:COINS", name="other")
    assert refusal(load, folder / "mine.toml") == (
        "coins.kinds:COINS and other.kinds:COINS both name a kind of job 'coin-toss' in harness.jobs; rename one of "
        "them"
    )


def test_a_name_of_ours_is_not_taken(folder: Path) -> None:
    install(folder, "coin-toss = coins.kinds:COINS\ncount = coins.kinds:COINS")
    assert KINDS["count"] is OUR_KINDS["count"]
    assert refusal(Job.of, "count", {"model": "resnet18", "res": 224}) == (
        "the harness has a kind of job 'count', too; rename coins.kinds:COINS in harness.jobs"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "coins.kinds:DICE",
            (
                "the kind of job 'coin-toss' in harness.jobs cannot be loaded (AttributeError: module 'coins.kinds' "
                "has no attribute 'DICE'): coins.kinds:DICE; repair or uninstall its package"
            ),
        ),
        (
            "coins.kinds:NUMBER",
            (
                "the kind of job 'coin-toss' in harness.jobs is coins.kinds:NUMBER, which is a int, not a Kind of "
                "harness.specs"
            ),
        ),
    ],
)
def test_a_broken_plug_in_is_named_by_what_uses_it_and_harms_nothing_else(
    folder: Path, entry: str, message: str
) -> None:
    install(folder, f"coin-toss = {entry}")
    assert refusal(load, folder / "mine.toml") == message
    assert "coin-toss" in KINDS
    other = (
        SPEC.replace('"coin-toss"', '"dataset"')
        .replace("heads_up", "classes")
        .replace("tosses = 20", 'data = "digits"')
    )
    (folder / "other.toml").write_text(other.replace("set = { seed = 5 }", ""), encoding="utf-8")
    assert make_plan([load(folder / "other.toml")]).jobs


COINS = Kind(function="coins.toss:measure", metrics={"heads_up": "%"})


# As somebody writes it who runs no mypy.
TUPLE: dict[str, Any] = {"metrics": ("heads_up",)}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (COINS, ""),
        (
            replace(COINS, required=("tosses",)),
            "takes the setting 'tosses' without a constraint; add it to own_settings",
        ),
        (
            replace(COINS, own_settings={"res": Constraint(types=(str,))}),
            "declares the setting 'res', which the harness has; rename it",
        ),
        (replace(COINS, defaults={"res": 0}), "has a default res that must be at least 1, not 0"),
        (
            replace(COINS, function="coins.toss"),
            "is measured by 'coins.toss', which is not of the form module:function",
        ),
        (replace(COINS, reads_images=True), "reads images, but has no setting 'data' that names them"),
        (replace(COINS, metrics={}), "has metrics without a unit by name"),
        (replace(COINS, **TUPLE), "has metrics without a unit by name"),
    ],
)
def test_what_is_wrong_with_a_kind_is_said_as_a_clause(kind: Kind, problem: str) -> None:
    assert kind.problem() == problem


def test_two_kinds_of_one_table_may_not_mean_different_things_by_one_setting(folder: Path) -> None:
    dice = KIND.replace("least=1", "least=2")
    install(folder, "coin-toss = coins.kinds:COINS\ndice = coins.dice:COINS", coins__dice=dice)
    assert set(settings_of(["coin-toss"])) - set(settings_of([])) == {"tosses"}
    assert refusal(settings_of, ["coin-toss", "dice"]) == (
        "the kinds of job 'coin-toss' and 'dice' both declare the setting 'tosses', each with another constraint; put "
        "them into tables of their own"
    )


def test_a_plug_in_that_is_gone_is_named_and_its_results_stay(folder: Path) -> None:
    job = job_of(folder)
    Store(folder / "runs").prepare()
    Store(folder / "runs").save(measured(folder, job))
    shutil.rmtree(folder / "coins-1.0.dist-info")
    forget()
    gone = "unknown kind of job 'coin-toss'; is the package not installed that has it in harness.jobs?"
    assert refusal(load, folder / "mine.toml").replace(f"{folder}/", "") == (f"mine.toml:8: {gone}")
    (result,) = Store(folder / "runs").results(job)
    assert result.metrics["heads_up"] == Measurement(unit="%", value=25.0)
    assert refusal(lambda: result.job.exclusive) == (gone)


def test_every_kind_of_ours_is_sound_and_its_function_is_given_what_it_takes() -> None:
    assert {name: problem for name, kind in OUR_KINDS.items() if (problem := kind.problem())} == {}
    batch = Batch(jobs=(), device="cpu", machine=LAPTOP, software=VERSIONS, runs=Path())
    for kind in OUR_KINDS.keys() - {"evaluate"}:
        job = Job(kind=kind, settings=(), revision=1)
        context = worker.JobContext(batch=batch, store=Store(Path()), report=lambda _: None, result_id="1")
        assert context.arguments(worker.OUR_FUNCTIONS[kind], job)["job"] is job


# The example.


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The package of the example, installed into a folder with the entry points of its pyproject.toml."""
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in of.items()) for group, of in groups.items()
    ]
    about = {"METADATA": "Metadata-Version: 2.1\nName: own-kinds\nVersion: 1.0\n", "entry_points.txt": "\n".join(lines)}
    write(folder / "own_kinds-1.0.dist-info", about)
    return folder


def run(folder: Path, *arguments: str) -> Completed:
    ran = start_harness(folder, *arguments, PYTHONPATH=f"{folder}:{ROOT}")
    assert ran.returncode == 0, ran.stderr
    return ran


def test_the_example_runs_from_its_list_to_its_report(example: Path) -> None:
    listed = run(example, "list", "./table.toml").stdout
    assert "  median   median (ms): latency-histogram\n" in listed
    reproduced = run(example, "reproduce", "./table.toml", "--device", "cpu")
    assert reproduced.stdout.splitlines()[-1] == "jobs: 4 measured, 0 known already.  runs/"
    cells = {
        (cell["row"], cell["column"]): cell
        for cell in json.loads(run(example, "report", "./table.toml", "--format", "json").stdout)["cells"]
    }
    assert {key: cell["verdict"] for key, cell in cells.items() if key[1] == "miou"} == {
        ("small", "miou"): "match",
        ("large", "miou"): "match",
    }
    assert all(cell["measured"] > 0 for cell in cells.values())
    assert cells["small", "slowest"]["measured"] >= cells["small", "median"]["measured"]
    planned = run(example, "plan", "./table.toml", "--device", "cpu").stdout
    assert "mean-iou: 2 distinct jobs, 2 measured already" in planned
    # What was measured is compared with a baseline, and drawn, as any other value.
    run(example, "baseline", "./table.toml", "-o", "baseline.toml")
    run(example, "figure", "./table.toml", "-o", "figure.svg")
    assert (example / "figure.svg").stat().st_size > 1000


def test_listing_and_planning_the_example_import_no_torch(example: Path) -> None:
    code = (
        "import sys; from harness.plan.plan import make_plan; from harness.specs import load; from pathlib import Path;"
        "jobs = make_plan([load(Path('table.toml'))]).jobs; sys.exit('torch' in sys.modules or len(jobs) != 4)"
    )
    environment = {"PYTHONPATH": f"{example}:{ROOT}", "PATH": ""}
    assert subprocess.run([sys.executable, "-c", code], cwd=example, env=environment, check=False).returncode == 0
