"""Takes a gate through what happens in CI, and fails if the gate does not behave.

A baseline; a change that drops accuracy by half a point; a change within noise; and, on this machine as noisy as it
is, one unchanged measurement repeated a hundred times.  Accuracies are made up (fifty thousand images, no data needed),
throughputs are measured.

    python examples/gate_story.py                    # all of it: an hour and more on two cores
    python examples/gate_story.py --repetitions 0    # without the repetitions: seconds
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from harness.machine import Machine
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.run.launch import LocalLauncher
from harness.run.observer import ProgressObserver
from harness.run.runner import Runner
from harness.run.target import resolve_target
from harness.specs import Spec, load
from harness.store.predictions import Head, Predictions, write
from harness.store.result import Measurement, Result, new_id
from harness.store.select import is_noisy
from harness.store.store import Store

SPEC = Path(__file__).with_name("story.toml")
IMAGES = 50_000
RIGHT = 36_100  # 72.20 %

PASSED, FAILED, NOTHING = 0, 1, 4

# Runs of each throughput for a check, and how often those that do not count are measured again: noisy ones, and those
# of a machine that was slower as a whole than in the baseline.
RUNS = 3
TRIES = 3


def main() -> int:
    """Run the story; the exit code is 0 if the gate did what it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=100, help="unchanged measurements to judge")
    parser.add_argument("--folder", type=Path, help="store the results here  [default: a temporary folder]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        behaved = gate_accuracy(folder)
        if arguments.repetitions:
            behaved = gate_throughput(folder, arguments.repetitions) and behaved
    print("the gate behaved" if behaved else "the gate did NOT behave")
    return 0 if behaved else 1


# Accuracy.


def gate_accuracy(folder: Path) -> bool:
    """Make a baseline and three changes; whether each has the outcome that it should."""
    baseline = folder / "accuracy.json"
    save_evaluation(folder / "main", lost=0, won=0)
    made = harness("baseline", SPEC, "--columns", "top1", "--runs", folder / "main", "-o", baseline)
    print(f"1. a baseline\n{indented(made.stdout)}")
    changes = [
        ("a change that drops accuracy by half a point", {"lost": 900, "won": 650}, FAILED, "0.50 "),
        ("a change within noise", {"lost": 480, "won": 445}, PASSED, "may be chance"),
        ("the same weights again", {"lost": 0, "won": 0}, PASSED, "passes"),
    ]
    behaved = made.returncode == PASSED
    for number, (title, change, code, text) in enumerate(changes, 2):
        runs = folder / f"change{number}"
        save_evaluation(runs, **change)
        folders = ("--runs", runs, "--baseline", baseline, "--baseline-runs", folder / "main")
        ran = harness("check", SPEC, "--columns", "top1", *folders, "-v")
        print(f"{number}. {title}: exit code {ran.returncode}\n{indented(ran.stdout + ran.stderr)}")
        behaved = behaved and ran.returncode == code and text in ran.stdout
    return behaved


def save_evaluation(runs: Path, *, lost: int, won: int) -> None:
    """Save an evaluation with so many images lost and won against the first one."""
    job = next(
        job for job in make_plan([load(SPEC)], Options(data=frozenset({"imagenet"}))).jobs if job.kind == "evaluate"
    )
    labels = np.arange(IMAGES, dtype=np.int32) % 1000
    right = np.arange(IMAGES) < RIGHT
    right[:lost] = False
    right[RIGHT : RIGHT + won] = True
    top = np.full((IMAGES, 5), -1, dtype=np.int32)
    top[:, 0] = np.where(right, labels, (labels + 1) % 1000)
    head = Head(top=top, scores=np.zeros((IMAGES, 5), np.float32), probability=np.zeros(IMAGES, np.float32))
    names = tuple(f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, IMAGES + 1))
    started = datetime.now(tz=UTC)
    result = Result(
        id=new_id(started),
        job=job,
        machine=Machine(device="cpu", name="fake", memory=0),
        software={},
        started=started,
        seconds=0.0,
        metrics={"top1": Measurement(unit="%", value=100 * float(right.mean()))},
        facts={
            "images": {"fingerprint": "fake", "whole": True, "said": "50,000 fake images"},
            "weights": {"file": "fake", "sha256": "0" * 64, "origin": "file"},
        },
    )
    store = Store(runs)
    write(Predictions(names=names, labels=labels, heads={"class": head}), store.predictions_of(result))
    store.save(result)


# Throughput.


def gate_throughput(folder: Path, repetitions: int) -> bool:
    """Calibrate, then judge the same throughputs again and again; whether no check gave a false positive."""
    baseline = folder / "speed.json"
    print("5. a baseline of throughputs, with the noise of this machine", flush=True)
    made = harness(
        "baseline", SPEC, "--columns", "speed", "--runs", folder / "calibration", "-o", baseline, "--calibrate", "-q"
    )
    print(indented(made.stdout + made.stderr), flush=True)
    if made.returncode:
        return False
    print(f"6. {repetitions} repetitions of the unchanged measurement", flush=True)
    (spec,) = [load(SPEC)]
    counts: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    for number in range(1, repetitions + 1):
        code, judged = repetition(number, folder / "repetitions" / f"{number:03d}", spec, baseline)
        counts[code] += 1
        outcomes.update(judged)
        if number % 10 == 0:
            print(f"   {number}: {summary_of(counts)}; {time.monotonic() - start:.0f} s", flush=True)
    print(f"   {summary_of(counts)}")
    print(f"   of the throughputs: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}")
    return counts[PASSED] > 0 and not set(counts) - {PASSED, NOTHING}


def repetition(number: int, runs: Path, spec: Spec, baseline: Path) -> tuple[int, list[str]]:
    """Measure and check, and while a throughput cannot be judged measure again; return exit code and outcomes."""
    measure(spec, runs)
    arguments = ("check", SPEC, "--columns", "speed", "--runs", runs, "--baseline", baseline, "--fail-on", "none")
    for left in reversed(range(TRIES + 1)):
        ran = harness(*arguments, "--json")
        judged = [str(cell["outcome"]) for cell in json.loads(ran.stdout)["cells"] if cell["against"] == "baseline"]
        if not left or "not judged" not in judged:
            break
        measure(spec, runs, times=1)
    if ran.returncode not in (PASSED, NOTHING) or number == 1:
        verbose = harness(*arguments, "-v")
        print(indented(f"{number}: exit code {ran.returncode}\n{verbose.stdout}{verbose.stderr}"), flush=True)
    return ran.returncode, judged


def measure(spec: Spec, runs: Path, *, times: int = RUNS) -> None:
    """Measure each throughput in its own processes, in turns, as so many `harness reproduce --rerun` would."""
    store = Store(runs)
    store.prepare()
    runner = Runner(store=store, launcher=LAUNCHER, target=resolve_target("cpu"), observer=ProgressObserver())
    jobs = [job for job in make_plan([spec]).jobs if job.exclusive]
    needed = {job: quiet_runs(store, job) + times for job in jobs}
    for _ in range(times + TRIES):
        runner.measure([job for job in jobs if quiet_runs(store, job) < needed[job]], rerun=True)


def quiet_runs(store: Store, job: Job) -> int:
    """Count the clean runs."""
    return sum(not is_noisy(result) for result in store.results(job))


def summary_of(counts: Mapping[int, int]) -> str:
    """Summarise the outcomes of the checks."""
    false = sum(counts.values()) - counts[PASSED] - counts[NOTHING]
    judged = f"{counts[PASSED]} passed, {false} false positives"
    return f"{judged}, {counts[NOTHING]} not judged because the machine was noisy or slower as a whole"


LAUNCHER = LocalLauncher()


# The command line, as CI calls it.


def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def indented(text: str) -> str:
    """Indent the output of a command."""
    return "".join(f"   | {line}\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
