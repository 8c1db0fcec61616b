"""`harness doctor --noise`: a minute of equal work by turns -> what this machine can tell apart."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cli.console import ExitCode, echo, note
from harness.errors import JobError
from harness.gate.sensitivity import CALIBRATED, CHECKED, Prediction, predict_check, predict_turns, spreads_of
from harness.machine import CpuClock
from harness.plan.job import Job
from harness.plan.plan import Options, make_plan
from harness.run.turns import ProcessPair, Turns, open_sides, take_turns
from harness.specs import Catalog
from harness.specs.checked import Scalar
from harness.specs.kinds import throughput_settings

# Seconds of looking at an idle machine, before and after; of pairs of processes; and of the budget of `ab`.
IDLE_SECONDS, PAIRS_SECONDS, AB_SECONDS = 2.0, 45.0, 600.0
LOOK_SECONDS = 0.5

# What `ab` allows without --allow, and the table that a check is predicted for.
ALLOWED, TABLE = 0.02, "table5"

# Small enough for a dozen pairs in the time: steps of some 20 ms on two cores.
MODEL: dict[str, Scalar] = {"model": "resnet18", "res": 128, "batch": 2}

# Cores from which on others disturb, and the host.
MUCH = 0.05


@dataclass(frozen=True, kw_only=True)
class MinuteOfNoise:
    """What a minute showed: pairs of equal sides and seconds of each, cores that others used while we were idle.

    `stolen` are the cores that the host took while we worked.  `idle` is empty and `stolen` None where nothing tells.
    """

    pairs: Sequence[ProcessPair]
    seconds_a_pair: float
    stolen: float | None
    idle: Sequence[float] = ()


def measure_noise(device: str) -> int:
    """Measure the noise of this machine and print what it allows to notice."""
    from harness.cli.execution import local_target
    from harness.cli.progress import counting
    from harness.machine.exclusive import exclusive_lock, speed_lock
    from harness.run.interpreter import Interpreter

    target, plan = local_target(device), make_plan(Catalog().find([TABLE]), Options(only=frozenset(["throughput"])))
    python, job = Interpreter.of(Path(sys.executable)), Job.of("throughput", throughput_settings(MODEL, {}))
    with exclusive_lock(speed_lock(), note), counting("seconds of equal work, by turns") as show:
        idle = list(watch_others(IDLE_SECONDS))
        with open_sides([python, python]) as sides:
            turns = Turns(sides=sides, device=target.device, threads=target.machine.threads)
            minute = take_minute(turns.measure_pair, job, lambda spent: show(round(spent), round(PAIRS_SECONDS)))
        idle += watch_others(IDLE_SECONDS)
    lines, enough = render_noise(replace(minute, idle=idle), throughputs=len(plan.jobs))
    echo("\n".join([f"machine   {target.machine.label}", *lines]))
    return ExitCode.OK if enough else ExitCode.SOME_FAILED


def watch_others(
    seconds: float, *, look: Callable[[], CpuClock | None] = CpuClock.now, wait: Callable[[float], None] = time.sleep
) -> Iterator[float]:
    """Do nothing for some seconds, and yield the cores that all processes used in each half of one."""
    before = look()
    for _ in range(round(seconds / LOOK_SECONDS)):
        wait(LOOK_SECONDS)
        after = look()
        if before is None or after is None:
            return
        yield max(0.0, (after.busy - before.busy) - (after.own - before.own)) / LOOK_SECONDS
        before = after


def take_minute(
    measure: Callable[[Job], ProcessPair],
    job: Job,
    report: Callable[[float], None],
    *,
    now: Callable[[], float] = time.monotonic,
    look: Callable[[], CpuClock | None] = CpuClock.now,
) -> MinuteOfNoise:
    """Measure pairs of one job for `PAIRS_SECONDS`.  Raises `JobError` as the job does, and `KeyboardInterrupt`."""
    began, before = now(), look()
    measured = take_turns(
        [job],
        measure,
        lambda _pairs: False,
        seconds=PAIRS_SECONDS,
        report=lambda *_: report(min(PAIRS_SECONDS, now() - began)),
        now=now,
    )
    for error in measured.failed.values():
        raise JobError(f"{job} cannot be timed, so noise cannot be measured: {error}")
    if measured.interrupted:
        raise KeyboardInterrupt
    seconds, after, pairs = now() - began, look(), measured.pairs[job]
    stolen = None if before is None or after is None else (after.stolen - before.stolen) / seconds
    return MinuteOfNoise(pairs=pairs, seconds_a_pair=seconds / len(pairs), stolen=stolen)


def render_noise(minute: MinuteOfNoise, *, throughputs: int) -> tuple[list[str], bool]:
    """Return who else is there, how equal work differs, which losses are noticed, and whether the pairs were enough.

    A check is of so many throughputs.
    """
    lines = [*_others(minute), "work      resnet18, two equal sides by turns, a fresh process each"]
    taken, spreads = len(minute.pairs), spreads_of(minute.pairs)
    if spreads is None:
        each = f"{minute.seconds_a_pair:.0f} s for a pair of processes"
        return [*lines, f"problem   {each}, too slow to tell: run it when others have ended"], False
    count = max(taken, int(AB_SECONDS / minute.seconds_a_pair))
    check, turns = predict_check(spreads, throughputs), predict_turns(spreads, count, ALLOWED)
    seconds = turns.processes * minute.seconds_a_pair
    return [
        *lines,
        f"spread    {100 * spreads.processes:.1f} % from process to process",
        f"          {100 * spreads.pairs:.1f} % from pair to pair, of {taken} pairs",
        f"drift     {100 * spreads.drift:+.1f} % from the first third to the last",
        f"check     {_noticed(check)}",
        f"          by {CHECKED} runs against {CALIBRATED} in a baseline of {throughputs} models",
        f"ab        {_noticed(turns)}",
        f"          of one model, after {turns.processes:.0f} pairs, {_duration(seconds)}; {100 * ALLOWED:g} % allowed",
    ], True


def _others(minute: MinuteOfNoise) -> list[str]:
    lines = []
    if minute.idle:
        mean = sum(minute.idle) / len(minute.idle)
        lines.append(f"others    used {mean:.2f} cores while this was idle, {max(minute.idle):.2f} at most")
        if mean > MUCH:
            lines.append("note      others make throughputs noisy: run it again when they have ended")
    if minute.stolen is not None:
        lines.append(f"host      took {minute.stolen:.2f} cores away")
    return lines


def _noticed(prediction: Prediction) -> str:
    if prediction.loss is None:
        return "notices not even a loss of 50 %"
    return f"notices a loss of {100 * prediction.loss:.1f} %, 9 times in 10"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
