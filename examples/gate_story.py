"""Plays what a gate in CI lives through, and fails if the gate does not behave.

A baseline; a change that drops accuracy by half a point; a change within noise; and, on this machine as noisy as it
is, one unchanged measurement repeated a hundred times.  Accuracies are played (fifty thousand images, no data needed),
speeds are measured.

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

from harness.cli.display import Quiet
from harness.job import Job
from harness.launch import LocalLauncher
from harness.machine import Machine
from harness.newest import is_disturbed
from harness.plan import Options, make_plan
from harness.predictions import Head, Predictions, write
from harness.result import Measurement, Result, new_id
from harness.run import Runner, site_of
from harness.spec import Spec, load
from harness.store import Store

SPEC = Path(__file__).with_name("story.toml")
IMAGES = 50_000
RIGHT = 36_100  # 72.20 %

PASSED, FAILED, NOTHING = 0, 1, 4

# Speeds of a check, and how often what does not count is measured again: runs that were disturbed, and those of a
# machine that was slower as a whole than in the baseline.
RUNS = 3
TRIES = 3


def main() -> int:
    """Play the story; the exit code is 0 if the gate did what it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=100, help="unchanged measurements to judge")
    parser.add_argument("--folder", type=Path, help="keep the results here  [default: a temporary folder]")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.folder or Path(temporary)
        well = play_accuracy(folder)
        if told.repetitions:
            well = play_speed(folder, told.repetitions) and well
    print("the gate behaved" if well else "the gate did NOT behave")
    return 0 if well else 1


# Accuracy.


def play_accuracy(folder: Path) -> bool:
    """Play a baseline and three changes; whether each came to what it should."""
    baseline = folder / "accuracy.json"
    keep(folder / "main", lost=0, won=0)
    said = harness("baseline", SPEC, "--columns", "top1", "--runs", folder / "main", "-o", baseline)
    print(f"1. a baseline\n{indented(said.stdout)}")
    acts = [
        ("a change that drops accuracy by half a point", {"lost": 900, "won": 650}, FAILED, "0.50 "),
        ("a change within noise", {"lost": 480, "won": 445}, PASSED, "may be chance"),
        ("the same weights again", {"lost": 0, "won": 0}, PASSED, "passes"),
    ]
    well = said.returncode == PASSED
    for number, (title, change, code, words) in enumerate(acts, 2):
        runs = folder / f"change{number}"
        keep(runs, **change)
        here = ("--runs", runs, "--baseline", baseline, "--baseline-runs", folder / "main")
        ran = harness("check", SPEC, "--columns", "top1", *here, "-v")
        print(f"{number}. {title}: exit code {ran.returncode}\n{indented(ran.stdout + ran.stderr)}")
        well = well and ran.returncode == code and words in ran.stdout
    return well


def keep(runs: Path, *, lost: int, won: int) -> None:
    """Keep an evaluation as a pass over the images would: so many images lost and won against the first one."""
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
        machine=Machine(device="cpu", name="played", memory=0),
        software={},
        started=started,
        seconds=0.0,
        metrics={"top1": Measurement(unit="%", value=100 * float(right.mean()))},
        facts={
            "images": {"fingerprint": "played", "whole": True, "said": "50,000 played images"},
            "weights": {"file": "played", "sha256": "0" * 64, "origin": "file"},
        },
    )
    store = Store(runs)
    write(Predictions(names=names, labels=labels, heads={"class": head}), store.predictions_of(result))
    store.save(result)


# Speed.


def play_speed(folder: Path, repetitions: int) -> bool:
    """Calibrate, then judge the same speeds again and again; whether no check that judged them raised an alarm."""
    baseline = folder / "speed.json"
    print("5. a baseline of speeds, with the noise of this machine", flush=True)
    said = harness(
        "baseline", SPEC, "--columns", "speed", "--runs", folder / "calibration", "-o", baseline, "--calibrate", "-q"
    )
    print(indented(said.stdout + said.stderr), flush=True)
    if said.returncode:
        return False
    print(f"6. {repetitions} repetitions of the unchanged measurement", flush=True)
    (spec,) = [load(SPEC)]
    counts: Counter[int] = Counter()
    speeds: Counter[str] = Counter()
    start = time.monotonic()
    for number in range(1, repetitions + 1):
        code, judged = repetition(number, folder / "repetitions" / f"{number:03d}", spec, baseline)
        counts[code] += 1
        speeds.update(judged)
        if number % 10 == 0:
            print(f"   {number}: {said_of(counts)}; {time.monotonic() - start:.0f} s", flush=True)
    print(f"   {said_of(counts)}")
    print(f"   of the speeds: {', '.join(f'{count} {outcome}' for outcome, count in speeds.most_common())}")
    return counts[PASSED] > 0 and not set(counts) - {PASSED, NOTHING}


def repetition(number: int, runs: Path, spec: Spec, baseline: Path) -> tuple[int, list[str]]:
    """Measure and check, and while a speed cannot be judged measure once more; give the exit code and the outcomes."""
    measure(spec, runs)
    arguments = ("check", SPEC, "--columns", "speed", "--runs", runs, "--baseline", baseline, "--fail-on", "none")
    for left in reversed(range(TRIES + 1)):
        ran = harness(*arguments, "--json")
        judged = [str(one["outcome"]) for one in json.loads(ran.stdout)["cells"] if one["against"] == "baseline"]
        if not left or "not judged" not in judged:
            break
        measure(spec, runs, times=1)
    if ran.returncode not in (PASSED, NOTHING) or number == 1:
        said = harness(*arguments, "-v")
        print(indented(f"{number}: exit code {ran.returncode}\n{said.stdout}{said.stderr}"), flush=True)
    return ran.returncode, judged


def measure(spec: Spec, runs: Path, *, times: int = RUNS) -> None:
    """Measure each speed in processes of their own, in turns, as so many `harness reproduce --rerun` would."""
    store = Store(runs)
    store.prepare()
    runner = Runner(store=store, launcher=LAUNCHER, site=site_of("cpu"), watcher=Quiet())
    jobs = [job for job in make_plan([spec]).jobs if job.exclusive]
    wanted = {job: quiet(store, job) + times for job in jobs}
    for _ in range(times + TRIES):
        runner.measure([job for job in jobs if quiet(store, job) < wanted[job]], rerun=True)


def quiet(store: Store, job: Job) -> int:
    """Count the undisturbed runs that there are."""
    return sum(not is_disturbed(one) for one in store.results(job))


def said_of(counts: Mapping[int, int]) -> str:
    """Sum up what the checks came to."""
    false = sum(counts.values()) - counts[PASSED] - counts[NOTHING]
    judged = f"{counts[PASSED]} passed, {false} false alarms"
    return f"{judged}, {counts[NOTHING]} not judged because the machine was disturbed or slower as a whole"


LAUNCHER = LocalLauncher()


# The command line, as CI calls it.


def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def indented(text: str) -> str:
    """Set what a command said apart."""
    return "".join(f"   | {line}\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
