"""What is shown of long work: at once, job by job, how long it will take, in any window and in a log."""

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import doctor, reproduce
from harness.cli.console import meanwhile, note
from harness.cli.progress import LiveObserver, counting, fit
from harness.errors import HarnessError
from harness.plan.job import Job
from harness.plan.plan import make_plan
from harness.run.forecast import Forecast
from harness.run.launch.local import LOADING, LocalLauncher
from harness.run.log import LogObserver
from harness.run.messages import Progress
from harness.run.runner import Runner
from harness.run.target import ExecutionTarget
from harness.specs import Catalog
from harness.store.store import Store
from tests.commands import run_harness
from tests.fakes import LAPTOP, V100, VERSIONS, FakeLauncher, result_of


def throughput(model: str, **settings: str | int) -> Job:
    return Job.of("throughput", {"model": model, "res": 224, "protocol": "paper", **settings})


SMALL, LARGE = throughput("resnet18"), throughput("vit_large_patch16_384")
LONG = throughput("deit_base_distilled_patch16_384")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def forecast_of(tmp_path: Path, jobs: Sequence[Job] = (), *, parallel: int = 1) -> tuple[Forecast, Clock]:
    clock = Clock()
    forecast = Forecast(store=Store(tmp_path), machine=LAPTOP, parallel=parallel, now=clock)
    forecast.plans(jobs)
    return forecast, clock


# At once.


def test_that_torch_is_imported_is_said_before_the_import_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr("harness.run.launch.local.forkserver.ensure_running", lambda: events.append("import"))
    launcher = LocalLauncher(announce=events.append)
    launcher.warm()
    launcher.warm()
    assert events == [LOADING, "import", "import"]


def test_a_line_is_on_the_terminal_before_the_tables_are_planned_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, seen = Terminal(), []

    def plan(*_: object) -> None:
        seen.append(terminal.getvalue())
        raise HarnessError("that is all")

    monkeypatch.setattr(reproduce, "make_plan", plan)
    monkeypatch.setattr("harness.cli.console.sys.stderr", terminal)
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match="that is all"):
        reproduce.reproduce.main(["table5", "table8"], standalone_mode=False)
    assert seen == ["planning table5 table8…"]
    assert terminal.getvalue() == f"planning table5 table8…\r{'':23}\r"


@pytest.mark.parametrize(
    ("terminal", "quiet", "term"), [(False, False, "xterm"), (True, True, "xterm"), (True, False, "dumb")]
)
def test_a_log_a_quiet_command_and_a_terminal_that_cannot_erase_get_no_line_that_would_be_erased(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool, quiet: bool, term: str
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    with meanwhile("planning", quiet=quiet):
        pass
    assert stream.getvalue() == ""


def test_doctor_prints_the_device_before_it_imports_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []
    monkeypatch.setattr(doctor, "_torch_architectures", lambda: printed.append(sys.stdout.text))  # type: ignore[union-attr]
    ran = run_harness(tmp_path, "doctor")
    assert ran.returncode == 3  # torch "cannot be imported"
    assert re.match(r"device    \S+: .+\n", printed[0])
    assert re.search(r"^torch     ", printed[0], re.MULTILINE)
    assert ran.stdout.startswith(printed[0])
    assert "problem   torch cannot be imported" in ran.stdout[len(printed[0]) :]


def test_what_is_counted_says_in_a_log_what_it_begins_with(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("reading the images of imagenet") as show:
        assert capsys.readouterr().err == "reading the images of imagenet\n"
        show(5, 10)
    assert capsys.readouterr().err == ""  # a minute has not passed


# Job by job.


def screen_of(width: int, *, color: bool = False) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    system = "standard" if color else None
    return Console(file=screen, force_terminal=True, width=width, color_system=system, legacy_windows=False), screen  # type: ignore[arg-type]


def left_on(screen: io.StringIO) -> list[str]:
    """The lines that stay: those after which no line is erased."""
    lines = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue()).splitlines()
    return [line for line in lines if line.startswith("[")]


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("color", [False, True])
def test_each_finished_job_leaves_a_line_on_a_terminal(width: int, *, color: bool) -> None:
    console, screen = screen_of(width, color=color)
    with LiveObserver(console) as observer:
        observer.plans([SMALL, LONG])
        for number, job in enumerate([SMALL, LONG], 1):
            observer.starts(job, number, 2)
            observer.progress(Progress(job=job, phase="timing, batch 4", done=3, total=30))
            observer.finished(result_of(job, error="out of memory at batch 1: " + "x" * 90 if job == LONG else None))
    first, second = left_on(screen)
    assert first == "[1/2] throughput resnet18 at 224: 100.0 im/s at batch 4, 2 s"
    assert second.startswith("[2/2] throughput deit_base_distilled_patch16_384")
    assert (len(second), second[-1]) == (width, "…")
    assert ("\x1b[31m[2/2]" in screen.getvalue()) == color


def test_the_lines_that_change_show_the_job_the_bar_and_the_time_left(tmp_path: Path) -> None:
    forecast, _ = forecast_of(tmp_path)
    console, screen = screen_of(80)
    with LiveObserver(console, forecast=forecast) as observer:
        observer.waits(LOADING)
        observer.plans([SMALL, LARGE])
        observer.starts(SMALL, 1, 2)
        observer.progress(Progress(job=SMALL, phase="timing, batch 4", done=3, total=30))
    # From the first job on: 7 s for each model of unknown size.
    assert LOADING in screen.getvalue()
    assert "throughput resnet18 at 224: timing, batch 4, 3/30" in screen.getvalue()
    assert re.search(r"\n·{40}  0 of 2 jobs, about 14 s left", screen.getvalue())


def test_a_log_has_one_line_a_job_and_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [throughput(f"model{number}") for number in range(10)]
    target = ExecutionTarget(device="cpu", machine=LAPTOP, software=VERSIONS)
    observer = LogObserver(note, forecast=Forecast(store=Store(tmp_path), machine=LAPTOP))
    runner = Runner(
        store=Store(tmp_path),
        launcher=FakeLauncher(),
        target=replace(target, lock=tmp_path / "lock"),
        observer=observer,
    )
    runner.measure(jobs)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[ 1/10] throughput model0 at 224: 100.0 im/s at batch 4, 2 s"
    assert len(lines) == 10
    assert all(line.isprintable() for line in lines)


MODELS = sorted({str(job["model"]) for job in make_plan(Catalog().find(["all"])).all_jobs if job.get("model")}, key=len)


@pytest.mark.parametrize("model", [MODELS[0], MODELS[-1]])
def test_no_window_is_so_narrow_that_the_name_of_a_model_is_cut(model: str) -> None:
    job = Job.of("train", {"model": model, "res": 224, "recipe": "deit-b", "data": "imagenet", "seed": 3})
    name, text = f"{job} with mixup=0.0, cutmix=0.0", "epoch 3 of 300, loss 6.123, 1200/90000, about 20 h left"
    for width in range(20, 200):
        line = fit(job, name, text, width)
        assert line.startswith(f"train {model}")
        assert len(line) <= max(width, len(f"train {model}"))
        if len(f"train {model}…: {text}") <= width:
            assert line.endswith(f": {text}")  # what is cut first is what the model is trained with
    assert fit(job, name, text, 200) == f"{name}: {text}"


# How long it takes.


def test_a_job_takes_as_long_as_it_took_on_this_machine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(replace(result_of(SMALL, machine=V100), seconds=3.0))
    store.save(replace(result_of(SMALL), seconds=40.0))
    store.save(replace(result_of(throughput("resnet18", batch=8), minutes=5), seconds=60.0))
    store.save(replace(result_of(throughput("resnet18", protocol="modern"), minutes=9), seconds=500.0))
    store.save(replace(result_of(SMALL, error="out of memory", minutes=10), seconds=1.0))
    assert forecast_of(tmp_path, [SMALL])[0].seconds_left == 40.0
    # With another batch size: as long as the newest of the same protocol.
    assert forecast_of(tmp_path, [throughput("resnet18", batch=2)])[0].seconds_left == 60.0


def test_without_earlier_results_a_model_takes_the_longer_the_more_macs_it_has(tmp_path: Path) -> None:
    for job, gmacs in ((SMALL, 30.0), (LARGE, 180.0)):
        counted = Job.of("count", {"model": job["model"], "res": job["res"]})
        Store(tmp_path).save(result_of(counted, value=4 * gmacs))
    # 7 s for any model, doubled by 30 GMACs: 14 s and 49 s.
    assert forecast_of(tmp_path, [SMALL])[0].seconds_left == 14.0
    forecast, clock = forecast_of(tmp_path, [SMALL, LARGE])
    assert forecast.seconds_left == 63.0
    forecast.starts(SMALL)
    clock.seconds += 4.0
    assert forecast.seconds_left == 59.0
    assert forecast.share == pytest.approx(4 / 63)
    # It takes twice as long as expected, so the other will.
    forecast.finished(replace(result_of(SMALL), seconds=28.0))
    assert forecast.seconds_left == 98.0
    assert forecast.share == pytest.approx(28 / 126)


def test_what_is_counted_in_the_same_run_tells_how_large_the_models_are(tmp_path: Path) -> None:
    counted = Job.of("count", {"model": SMALL["model"], "res": SMALL["res"]})
    forecast, _ = forecast_of(tmp_path, [counted, SMALL])
    assert forecast.seconds_left == 0.5 + 7.0
    forecast.finished(result_of(counted, value=4 * 60.0))
    assert forecast.seconds_left == 21.0


def test_a_published_throughput_tells_how_large_a_model_is(tmp_path: Path) -> None:
    plan = make_plan(Catalog().find(["table5"]))
    forecast = Forecast.of(plan, Store(tmp_path), LAPTOP)
    job = next(job for job in plan.jobs if job.kind == "throughput" and job["model"] == "deit_base_patch16_224")
    # 292.3 images a second were published: 17.1 GMACs an image, at 5,000 a second.  timm counts 17.6.
    assert forecast.gmacs["deit_base_patch16_224", "224"] == pytest.approx(17.1, abs=0.05)
    forecast.plans([job])
    assert forecast.seconds_left == pytest.approx(7 * (1 + 17.1 / 30), abs=0.05)


def test_a_job_that_takes_longer_than_expected_is_not_taken_for_finished(tmp_path: Path) -> None:
    forecast, clock = forecast_of(tmp_path, [SMALL])
    forecast.starts(SMALL)
    clock.seconds += 100.0
    assert forecast.seconds_left == 10.0


def test_trainings_side_by_side_take_what_one_of_them_reports(tmp_path: Path) -> None:
    trainings = [
        Job.of(
            "train", {"model": "deit_tiny_patch16_224", "res": 32, "recipe": "deit-ti", "data": "digits", "seed": seed}
        )
        for seed in (1, 2, 3, 4)
    ]
    forecast, clock = forecast_of(tmp_path, trainings, parallel=2)
    for training in trainings[:2]:
        forecast.starts(training)
    assert forecast.seconds_left is None
    assert forecast.share is None
    clock.seconds += 10.0
    for training in trainings[:2]:
        forecast.progress(Progress(job=training, phase="epoch 1", done=100, total=1000, rate=10.0))
    # Each running one has 90 s left of 100, so four take 2 × 90 + 2 × 100 on two workers.
    assert forecast.seconds_left == 190.0


def test_evaluations_of_one_data_pass_take_its_time_once(tmp_path: Path) -> None:
    jobs = [
        Job.of("evaluate", {"model": model, "weights": "w", "res": 224, "data": "imagenet"})
        for model in ("a", "b", "c")
    ]
    forecast, _ = forecast_of(tmp_path, jobs)
    assert forecast.seconds_left is None
    forecast.progress(Progress(job=jobs[0], phase="", overview="3 models", done=200, total=1000, rate=20.0))
    assert forecast.seconds_left == 40.0
    for job in jobs:
        Store(tmp_path).save(replace(result_of(job), seconds=70.0))
    assert forecast_of(tmp_path, jobs)[0].seconds_left == 70.0
