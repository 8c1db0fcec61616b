"""The pytest plugin: other people's tests measure with it, pytest-benchmark stores what it measured."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.judge.table import fill
from harness.judge.verdict import compare
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.pytest_plugin import measure
from harness.pytest_plugin.measure import (
    MeasuredValue,
    MeasurementSetup,
    accuracy,
    parse_data,
    prediction_accuracy,
    step_throughput,
)
from harness.report import render_pytest_benchmark
from harness.specs import Catalog, load
from tests.fakes import LAPTOP, result_of
from tests.test_report import SPEC

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pytest-plugin.md").read_text(encoding="utf-8")
ASSETS = ROOT.parent / "shared" / "assets"
# Where the harness is not installed as it stands here, its entry point is that of another version or of none.
INSTALLED = any(found.value == "harness.pytest_plugin.plugin" for found in entry_points(group="pytest11"))


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str


def run_pytest(folder: Path, text: str, *options: str, **variables: str) -> Ran:
    """Run a test file of somebody else's in a folder of its own, with a lock that no other test holds."""
    (folder / "test_mine.py").write_text(text, encoding="utf-8")
    plugin = () if INSTALLED else ("-p", "harness.pytest_plugin.plugin")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    # Not in `folder`, whose name is too long for the socket of a fork server.
    with tempfile.TemporaryDirectory(prefix="p") as temporary:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, "-q", "-s", "-p", "no:cacheprovider", *options, "test_mine.py"],
            cwd=folder,
            env={**environment, "TMPDIR": temporary, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
    return Ran(code=ran.returncode, out=ran.stdout + ran.stderr)


# What it costs those who do not use it.


def test_nothing_of_the_harness_is_imported_before_a_test_asks_for_a_fixture(tmp_path: Path) -> None:
    ran = run_pytest(
        tmp_path,
        """
import sys
def test_it():
    mine = sorted(name for name in sys.modules if name.startswith("harness"))
    print("imported:", mine, sorted({"torch", "timm", "numpy", "scipy", "click"} & sys.modules.keys()))
""",
    )
    assert "imported: ['harness', 'harness.pytest_plugin', 'harness.pytest_plugin.plugin'] []" in ran.out


def test_the_plugin_is_an_entry_point() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nharness = "harness.pytest_plugin.plugin"\n' in text


def test_without_pytest_benchmark_a_throughput_is_measured_all_the_same(tmp_path: Path) -> None:
    ran = run_pytest(
        tmp_path,
        """
def test_it(harness_throughput):
    harness_throughput.of_step(lambda: None, batch=1).assert_at_least(1)
""",
        *("-p", "no:benchmark"),
    )
    assert (ran.code, "1 passed" in ran.out) == (0, True), ran.out


# Throughput.

SLEEP = """
import time
def test_sleep(harness_throughput):
    harness_throughput.of_step(lambda: time.sleep({seconds}), batch=2, repeats=10)
"""


def test_a_step_that_takes_20_ms_for_2_images_does_at_most_100_a_second(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, SLEEP.format(seconds=0.02), "--benchmark-json", "found.json")
    assert ran.code == 0, ran.out
    (found,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["benchmarks"]
    assert 20 < found["stats"]["ops"] <= 100
    assert found["stats"]["ops"] == pytest.approx(found["extra_info"]["images_a_second"])
    assert (found["stats"]["rounds"], found["extra_info"]["batch"], found["name"]) == (10, 2, "test_sleep")
    assert min(found["stats"]["data"]) >= 0.01  # seconds an image


def test_a_slower_step_fails_where_pytest_benchmark_compares(tmp_path: Path) -> None:
    gate = ("--benchmark-compare", "--benchmark-compare-fail=median:50%")
    assert run_pytest(tmp_path, SLEEP.format(seconds=0.02), "--benchmark-autosave").code == 0
    assert run_pytest(tmp_path, SLEEP.format(seconds=0.021), *gate).code == 0
    ran = run_pytest(tmp_path, SLEEP.format(seconds=0.06), *gate)
    assert ran.code == 1
    assert "Performance has regressed" in ran.out
    assert "test_sleep" in ran.out.partition("Performance has regressed")[2]


def test_a_mark_of_the_user_s_own_and_the_options_of_pytest_benchmark_hold(tmp_path: Path) -> None:
    text = "import pytest\n" + SLEEP.format(seconds=0).replace(
        "def test", '@pytest.mark.benchmark(group="naps")\ndef test'
    )
    ran = run_pytest(tmp_path, text, "--benchmark-only")
    assert "benchmark 'naps': 1 tests" in ran.out
    assert "1 passed" in ran.out
    assert "1 skipped" in run_pytest(tmp_path, text, "--benchmark-skip").out
    assert "1 passed" in run_pytest(tmp_path, text, "--benchmark-disable").out


def test_a_timm_model_is_measured_and_stored(tmp_path: Path) -> None:
    ran = run_pytest(
        tmp_path,
        """
def test_it(harness_throughput):
    found = harness_throughput("test_vit", res=160, batch=2, repeats=5)
    assert (found.batch, len(found.samples), found.unit) == (2, 5, "im/s")
    found.assert_at_least(0.1)
    found.assert_at_least(1e9)
""",
        *("--harness-runs", "kept", "--harness-device", "cpu"),
        OMP_NUM_THREADS="2",
    )
    assert ran.code == 1
    said = re.search(r"^E +AssertionError: (.*)$", ran.out, re.MULTILINE)
    assert said, ran.out
    assert re.fullmatch(
        r"throughput test_vit at 160: [\d.e+]+ \[[\d.e+]+, [\d.e+]+\] im/s at batch 2 "
        r"is less than 1e\+09, by more than chance.*",
        said[1],
    )
    (result,) = (tmp_path / "kept").glob("throughput-test_vit-160-*/*.json")
    assert json.loads(result.read_text(encoding="utf-8"))["facts"]["threads"] == 2


# Calls, and what a test that makes one fails with.
MISTAKES = [
    (
        'harness_throughput("resnet18", batsch=4)',
        "a throughput job has no setting 'batsch'; did you mean 'batch'?",
    ),
    (
        'harness_throughput("resnet18", batch=4.5)',
        "batch must be 'auto' or 'largest' or an integer, not 4.5",
    ),
    (
        'harness_throughput("resnet18", compile="no")',
        "compile must be true or false, not 'no'",
    ),
    (
        "[harness_throughput.of_step(lambda: None, batch=1) for _ in range(2)]",
        "harness_throughput measures one throughput per test; parametrize it for more",
    ),
    (
        'harness_accuracy("deit_tiny_patch16_224")',
        "'deit_tiny_patch16_224' names no weights; write MODEL.TAG, as deit_tiny_patch16_224.fb_in1k",
    ),
    (
        'harness_accuracy("deit_tiny_patch16_224.fb_in1k", data="imagenet-v2")',
        "deit_tiny_patch16_224.fb_in1k needs images: pytest --harness-data imagenet-v2=PATH",
    ),
    (
        "harness_accuracy.of_predictions([1, 2], [1])",
        "2 predictions for 1 labels; give one for each, and at least one",
    ),
]


def test_a_mistake_fails_the_test_with_one_sentence(tmp_path: Path) -> None:
    signature = "def test_{}(harness_throughput, harness_accuracy):\n    {}\n"
    ran = run_pytest(tmp_path, "".join(signature.format(number, call) for number, (call, _) in enumerate(MISTAKES)))
    for number, (_, sentence) in enumerate(MISTAKES):
        failure = ran.out.partition(f"____ test_{number} ____")[2].partition("\n")[2]
        failure = re.split(r"\n(?:===|---|____)", failure)[0]
        assert failure.strip() == sentence, ran.out


def test_what_timm_does_not_know_fails_with_its_sentence(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, 'def test_it(harness_throughput):\n    harness_throughput("resnet19", batch=1)\n')
    assert re.search(r"^throughput resnet19 at 224: timm [\d.]+ knows no model 'resnet19'", ran.out, re.MULTILINE)
    assert "Traceback" not in ran.out


# Accuracy.


def test_the_largest_batch_of_a_gpu_is_searched_under_the_limit_of_the_paper_as_for_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[Job] = []
    monkeypatch.setattr(measure, "_measure", lambda _setup, job: measured.append(job))
    measure.throughput(MeasurementSetup(runs=tmp_path), "resnet18", 224, {})
    of_table = {job.key: job for job in make_plan(Catalog().find(["table5"])).jobs}
    assert of_table[measured[0].key]["memory"] == "16GiB"


def test_predictions_are_counted_with_wilson_s_interval() -> None:
    # 80 of 100: Wilson's interval is 0.7112 to 0.8666, worked out by hand from its formula.
    found = prediction_accuracy([1] * 80 + [0] * 20, [1] * 100)
    assert (found.value, found.unit, found.name) == (80.0, "%", "80 of 100 right")
    assert found.low == pytest.approx(71.12, abs=0.01)
    assert found.high == pytest.approx(86.66, abs=0.01)
    found.assert_at_least(86.6)
    with pytest.raises(AssertionError) as failed:
        found.assert_at_least(86.7)
    assert str(failed.value) == "80 of 100 right: 80 [71.12, 86.66] % is less than 86.7, by more than chance"


@pytest.mark.skipif(not ASSETS.is_dir(), reason="needs the weights and images of shared/assets")
def test_weights_are_evaluated_over_real_images_and_once_for_the_same(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for path in sorted((ASSETS / "imagenet_sample" / "val").rglob("*.JPEG"))[:1400:70]:
        (images / path.parent.name).mkdir(parents=True, exist_ok=True)
        (images / path.parent.name / path.name).symlink_to(path)
    ran = run_pytest(
        tmp_path,
        """
import pytest
@pytest.mark.parametrize("again", [False, True])
def test_it(harness_accuracy, again):
    found = harness_accuracy("deit_tiny_patch16_224.fb_in1k", data="imagenet")
    assert 40 <= found.value <= 100
    found.assert_at_least(60)
    print("run", found.run)
""",
        *("--harness-data", "imagenet=images", "--harness-weights", str(ASSETS / "weights")),
    )
    assert ran.code == 0, ran.out
    runs = re.findall(r"run (\S+)", ran.out)
    assert len(runs) == 2
    assert len(set(runs)) == 1


def test_data_is_named_and_relative_paths_hold_wherever_a_test_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert parse_data(["imagenet=here", "imagenet-v2=wds/there"]) == (
        ("imagenet", str(tmp_path / "here")),
        ("imagenet-v2", "wds/there"),
    )
    with pytest.raises(HarnessError, match=r"^--harness-data here: is not NAME=PATH, as imagenet=/data/imagenet$"):
        parse_data(["here"])
    with pytest.raises(HarnessError, match="names no weights"):
        accuracy(MeasurementSetup(runs=tmp_path), "resnet18", {})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_an_interval_holds_its_value(pairs: list[tuple[int, int]]) -> None:
    found = prediction_accuracy([one for one, _ in pairs], [other for _, other in pairs])
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 100 + 1e-9


def test_a_step_without_a_name_and_a_step_with_one_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.pytest_plugin.measure.speed_lock", lambda: tmp_path / "lock")

    def forward() -> None:
        pass

    assert step_throughput(forward, batch=1, repeats=2).name == "forward"
    assert step_throughput(lambda: None, batch=1, repeats=2).name == "step"


def test_a_measured_value_is_shown_with_its_warnings() -> None:
    found = MeasuredValue(
        name="net", unit="im/s", value=18.76, low=17.9, high=19.7, batch=4, warnings=("iterations vary by 7 %",)
    )
    assert str(found) == "net: 18.76 [17.9, 19.7] im/s at batch 4; warning: iterations vary by 7 %"


# The file for pytest-benchmark.


@pytest.fixture
def exported(tmp_path: Path) -> str:
    (tmp_path / "spec.toml").write_text(SPEC, encoding="utf-8")
    spec = load(tmp_path / "spec.toml")
    plan = make_plan([spec], Options())
    speeds = {"small": 1000.0, "big": 400.0}
    results = {
        job.key: result_of(job, machine=LAPTOP, value=speeds[str(job["model"])])
        for job in plan.jobs
        if job.kind == "throughput" and str(job["model"]) in speeds and job["protocol"] == "paper"
    }
    return render_pytest_benchmark([compare(fill(spec, plan, results))])


def test_a_round_is_a_timed_run_in_seconds_an_image(exported: str) -> None:
    found = json.loads(exported)
    assert [one["fullname"] for one in found["benchmarks"]] == ["spec::speed[small]", "spec::speed[big]"]
    first = found["benchmarks"][0]
    # Four images took 4/1000 s, thirty times.
    assert first["stats"]["data"] == [pytest.approx(0.001)] * 30
    assert first["stats"]["ops"] == pytest.approx(1000)
    assert first["extra_info"]["published"] == 1000
    assert found["machine_info"]["node"] == LAPTOP.label


def test_pytest_benchmark_compares_two_files_of_ours_and_draws_them(tmp_path: Path, exported: str) -> None:
    (tmp_path / "before.json").write_text(exported, encoding="utf-8")
    (tmp_path / "after.json").write_text(exported, encoding="utf-8")
    if not (Path(sys.executable).parent / "pytest-benchmark").exists():
        pytest.skip("needs the command of pytest-benchmark")
    command = [str(Path(sys.executable).parent / "pytest-benchmark")]
    told = ["compare", "before.json", "after.json", "--columns=median,ops", "--sort=fullname", "--csv=all.csv"]
    ran = subprocess.run([*command, *told], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("speed[small]") == 2
    assert "1,000.0000" in ran.stdout
    # Not importorskip: pygal leaves an importer behind that later imports warn of.
    if importlib.util.find_spec("pygal") is None:
        pytest.skip("needs pygal, which pytest-benchmark[histogram] brings")
    drawing = subprocess.run([*command, *told, "--histogram=h"], cwd=tmp_path, capture_output=True, check=False)
    assert drawing.returncode == 0
    assert (tmp_path / "h.svg").read_text(encoding="utf-8").count("speed[big]") >= 2


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "table5",
            (
                "no throughput of table5 was measured yet, and pytest-benchmark compares throughput; "
                "run `harness reproduce table5 --throughput-only`"
            ),
        ),
        ("table3", "pytest-benchmark compares throughput, and table3 has none; table5 has"),
    ],
)
def test_where_no_throughput_was_measured_one_sentence_says_so(table: str, sentence: str) -> None:
    plan = make_plan(Catalog().find([table]))
    with pytest.raises(HarnessError) as refused:
        render_pytest_benchmark([compare(fill(plan.specs[0], plan, {}))])
    assert str(refused.value) == sentence


# The manual.


def test_the_example_in_the_manual_passes_and_fails_as_it_says(tmp_path: Path) -> None:
    example = PAGE.partition("<!-- gate -->\n```python\n")[2].partition("```")[0]
    assert "harness_throughput" in example
    assert "harness_accuracy" in example
    ran = run_pytest(tmp_path, example, "--harness-device", "cpu", "--deselect", "test_mine.py::test_our_weights")
    assert ran.code == 0, ran.out
    assert "2 passed" in ran.out
