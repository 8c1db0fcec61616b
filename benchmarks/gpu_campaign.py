"""Measure all that a GPU can tell of the paper, in calls of a few minutes that go on where the last one stopped.

    python -m benchmarks.gpu_campaign -o campaign --seconds 540
    python -m benchmarks.gpu_campaign -o campaign --seconds 540 --take-up results.tar    # on a fresh machine

It needs no network and no images: PyTorch, timm and what the harness itself needs.  The steps are ordered so that each
call leaves something whole, and what a step has measured is never measured again.  `-o` gets `results.tar` with all
results (`harness merge` adds them to a folder of runs), `steps.json` with what became of each step, and the output of
each step as text.  `--short` takes a few rows and iterations, to see that every step works.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent

# What `reproduce --budget` prints where it left something out.
LEFT = "left for want of time"

# Seconds kept for writing the bundle, and those that a call of the harness takes to begin.
RESERVE, BEGINNING = 10.0, 15.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: its command, and the seconds without which it is not begun.  `budgeted` ones take what there is."""

    name: str
    command: Sequence[str]
    least: float
    budgeted: bool = True


def harness(*arguments: str) -> list[str]:
    """Return the command line of the harness, as it is in this checkout."""
    return [sys.executable, "-m", "harness", *arguments]


def steps(runs: Path, *, repeats: int, short: bool) -> list[Step]:
    """Return the steps, the most telling first."""

    def speeds(table: str, rows: str, *options: str) -> list[str]:
        few = ("--repeats", "2", "--batch", "1") if short else ("--repeats", f"{repeats}")
        which = "--throughput-only", "--rows", rows, "--device", "cuda", "--runs", f"{runs}"
        return harness("reproduce", table, *which, *few, *options)

    convnets = "resnet18" if short else "resnet*,regnet*,efficientnet*,kdforaa*"
    transformers = "deit_ti" if short else "vit*,deit*"
    every = "resnet18" if short else "*"
    paper = ("--protocol", "paper", *(() if short else ("--memory", "16GiB")))
    choices = ("--columns", "resnet50,resnet50_change") if short else ("--batch", "256")
    trained = ("--train", "--scale", "smoke", "--rows", "none", "--runs", f"{runs}", "--device", "cuda")
    return [
        Step(
            name="doctor", command=harness("doctor", "--device", "cuda", "--runs", f"{runs}"), least=10, budgeted=False
        ),
        Step(name="convnets", command=speeds("table5", convnets, *paper), least=30),
        Step(name="transformers", command=speeds("table5", transformers, *paper), least=30),
        Step(name="choices", command=speeds("choices", "paper,no_grad" if short else "*", *choices), least=30),
        Step(name="modern", command=speeds("table5", every, "--protocol", "modern"), least=30),
        Step(name="timm", command=speeds("table5", every, "--protocol", "timm"), least=30),
        Step(
            name="ceilings",
            command=harness("doctor", "--peaks", "--device", "cuda", "--runs", f"{runs}"),
            least=60,
            budgeted=False,
        ),
        Step(
            name="training-speed",
            command=harness(
                *("reproduce", "train-speed", "--device", "cuda", "--runs", f"{runs}"),
                *(("--rows", "deit_ti", "--repeats", "2", "--batch", "2") if short else ()),
            ),
            least=60,
        ),
        Step(name="training", command=harness("reproduce", "table8", *trained), least=90, budgeted=False),
        Step(
            name="tests",
            command=[
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{ROOT / 'tests' / 'test_gpu.py'}"),
                *(("--collect-only",) if short else ()),
            ],
            least=150,
            budgeted=False,
        ),
    ]


@dataclass(kw_only=True)
class Campaign:
    """A folder with what is done, and the end of this call by the monotonic clock."""

    folder: Path
    ends: float
    states: dict[str, str] = field(default_factory=dict)

    def take_up(self, bundle: Path | None) -> None:
        """Read what earlier calls left: the state of the steps, and the results of another machine's."""
        path = self.folder / "steps.json"
        if path.exists():
            self.states = json.loads(path.read_text(encoding="utf-8"))
        if bundle is not None:
            subprocess.run(harness("merge", f"{bundle}", "--runs", f"{self.folder / 'runs'}"), check=True, cwd=ROOT)

    @property
    def left(self) -> float:
        """The seconds that are left for measuring."""
        return self.ends - time.monotonic() - RESERVE

    def run(self, step: Step) -> None:
        """Run a step that is not done and has the time that it needs."""
        if self.states.get(step.name, "").startswith("done") or self.left < step.least:
            return
        budget = ["--budget", f"{max(1.0, self.left - BEGINNING):.0f}s"] if step.budgeted else []
        began, path = time.monotonic(), self.folder / f"{step.name}.txt"
        with path.open("a", encoding="utf-8") as file:
            before = file.tell()
            code = _run(before_the_end=max(1.0, self.left), command=[*step.command, *budget], output=file)
        is_whole = LEFT not in path.read_bytes()[before:].decode(errors="replace")
        state = f"failed with exit code {code}" if code > 0 else "done" if is_whole and code == 0 else "begun"
        self.states[step.name] = f"{state}, {time.monotonic() - began:.0f} s"
        self._save()
        print(f"{step.name}: {self.states[step.name]}", flush=True)

    def finish(self) -> None:
        """Write the bundle of all results."""
        runs, bundle = self.folder / "runs", self.folder / "results.tar"
        if runs.is_dir():
            subprocess.run(harness("bundle", "-o", f"{bundle}", "--runs", f"{runs}"), check=False, cwd=ROOT)

    def _save(self) -> None:
        (self.folder / "steps.json").write_text(json.dumps(self.states, indent=1) + "\n", encoding="utf-8")


def _run(*, before_the_end: float, command: Sequence[str], output: IO[str]) -> int:
    """Run a command; what takes longer is stopped as by Ctrl-C, which keeps what it has measured, and returns -1."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        return process.wait(timeout=before_the_end)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=RESERVE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return -1


def summary(planned: Sequence[Step], states: Mapping[str, str]) -> str:
    """Return a line for each step: what became of it, or that it is still to come."""
    return "\n".join(f"{step.name}: {states.get(step.name, 'still to come')}" for step in planned)


def main() -> int:
    """Run what there is time for; 0 if every step is done, 1 if one failed, 4 if some are still to come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the campaign")
    parser.add_argument("--seconds", type=float, default=540.0, help="how long this call may take")
    parser.add_argument("--repeats", type=int, default=30, help="timed iterations of each throughput")
    parser.add_argument("--take-up", type=Path, help="the results.tar that another machine left")
    parser.add_argument("--without", default="", help="steps to leave out, as ceilings,tests")
    parser.add_argument("--short", action="store_true", help="a few rows and iterations")
    given = parser.parse_args()
    folder = given.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder=folder, ends=time.monotonic() + given.seconds)
    campaign.take_up(given.take_up)
    every = steps(folder / "runs", repeats=given.repeats, short=given.short)
    planned = [step for step in every if step.name not in given.without.split(",")]
    try:
        for step in planned:
            campaign.run(step)
    finally:
        campaign.finish()
    print(summary(planned, campaign.states))
    outcomes = [campaign.states.get(step.name, "") for step in planned]
    if any(state.startswith("failed") for state in outcomes):
        return 1
    return 0 if all(state.startswith("done") for state in outcomes) else 4


if __name__ == "__main__":
    sys.exit(main())
