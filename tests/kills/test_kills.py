"""Nothing is lost, doubled or unreadable, and training resumes bit for bit, whatever happens at whichever moment.

A dozen random moments in an ordinary run; `tox -e kills` has 200, and KILLS and KILLS_SEED set number and seed.
"""

import os
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kills import state
from tests.kills.disturbances import DISTURBANCES, Moment
from tests.kills.jobs import WORKS, Work, make_inputs
from tests.kills.runs import Run
from tests.kills.state import State

DOZEN = 12
MOMENTS = int(os.environ.get("KILLS", str(DOZEN)))
SEED = int(os.environ.get("KILLS_SEED", "10" if MOMENTS == DOZEN else str(time.time_ns() % 10**6)))

# Moments in one store before an undisturbed command completes it: a training is resumed several times.
IN_A_ROW = 6

# Tries to strike before the command ends.
TRIES = 3

COUNTED = ("moments", "lost", "doubled", "unreadable", "other")


@dataclass(kw_only=True)
class Campaign:
    """All moments of a kind of work, each a name of a disturbance, and what became of them."""

    inputs: Path
    work: Work
    draw: random.Random
    moments: list[str]
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Disturb the work at every moment."""
        whole, span = self._undisturbed()
        for first in range(0, len(self.moments), IN_A_ROW):
            runs = self.inputs / f"runs-{self.work.name}-{first}"
            names, last = self.moments[first : first + IN_A_ROW], State()
            for name in names:
                if last.jobs.keys() >= whole.jobs.keys():  # the last one let it finish
                    self._complete(names, runs, last, whole)
                    last = State()
                last = self._disturb(name, runs, last, span)
            self._complete(names, runs, last, whole)

    def _complete(self, names: Sequence[str], runs: Path, before: State, whole: State) -> None:
        """Complete a store with an undisturbed command, and remove it; what is wrong counts for the last moment."""
        run = Run(self.inputs, runs, self.work)
        self._count(names, "other", [problem] if (problem := run.wait()) else [])
        now = state.look(runs)
        self._count(names, "lost", [*state.lost(before, now, run.reported), *state.differences(now, whole)])
        self._count(names, "doubled", state.doubled(now))
        self._count(names, "unreadable", now.unreadable)
        shutil.rmtree(runs)

    def _undisturbed(self) -> tuple[State, float]:
        """What it leaves undisturbed, and the seconds that its child processes take."""
        runs = self.inputs / f"runs-{self.work.name}"
        run = Run(self.inputs, runs, self.work)
        run.wait_for_work()
        began = time.monotonic()
        assert not run.wait()
        assert run.process.returncode == 0, run.output
        return state.look(runs), time.monotonic() - began

    def _disturb(self, name: str, runs: Path, before: State, span: float) -> State:
        for _ in range(TRIES):
            moment = Moment(inputs=self.inputs, runs=runs, work=self.work, span=span, draw=self.draw)
            happened = DISTURBANCES[name](moment)
            now = state.look(runs)
            self._count([name], "lost", state.lost(before, now, moment.reported))
            self._count([name], "doubled", state.doubled(now))
            self._count([name], "unreadable", now.unreadable)
            self._count([name], "other", moment.problems)
            before = now
            if happened:
                self.counts[name, self.work.name]["moments"] += 1
                break
            span /= 2
            if now.jobs:  # nothing is left to do, or soon
                shutil.rmtree(runs)
                before = State()
        return before

    def _count(self, names: Sequence[str], what: str, problems: Sequence[str]) -> None:
        self.counts[names[-1], self.work.name][what] += len(problems)
        for problem in problems:
            self.problems.append(f"{self.work.name}, {', '.join(names)}: {what}: {problem}")
            print(self.problems[-1], file=sys.stderr, flush=True)


def draw_moments(count: int, draw: random.Random) -> dict[str, list[str]]:
    """Draw kinds of work and of disturbance: every pair once before any is drawn again.  A dozen is of two kinds."""
    pairs: list[tuple[str, str]] = []
    works = WORKS if count > DOZEN else WORKS[:2]
    while len(pairs) < count:
        every = [(work.name, name) for work in works for name in DISTURBANCES if work.loads or "loader" not in name]
        pairs += draw.sample(every, len(every))
    moments: dict[str, list[str]] = defaultdict(list)
    for work, name in pairs[:count]:
        moments[work].append(name)
    return moments


def render(counts: dict[tuple[str, str], Counter[str]]) -> str:
    """Lay out the counts: a line for each kind of disturbance and of work."""
    lines = [f"{'disturbance':24}{'work':14}" + "".join(f"{name:>12}" for name in COUNTED)]
    total: Counter[str] = Counter()
    for (name, work), cell in sorted(counts.items()):
        lines.append(f"{name:24}{work:14}" + "".join(f"{cell[column]:12}" for column in COUNTED))
        total += cell
    return "\n".join([*lines, f"{'all':38}" + "".join(f"{total[column]:12}" for column in COUNTED)])


def test_nothing_is_lost_whatever_happens_at_whichever_moment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_inputs(tmp_path)
    draw = random.Random(SEED)
    moments = draw_moments(MOMENTS, draw)
    counts: dict[tuple[str, str], Counter[str]] = {}
    problems: list[str] = []
    with capsys.disabled():
        print(f"\n{MOMENTS} moments, seed {SEED}", flush=True)
        for work in WORKS:
            campaign = Campaign(inputs=tmp_path, work=work, draw=draw, moments=moments[work.name])
            if campaign.moments:
                campaign.run()
            counts |= campaign.counts
            problems += campaign.problems
        print(render(counts), flush=True)
    assert not problems, "\n".join(problems)
