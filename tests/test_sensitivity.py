"""What a machine can tell apart: played with the decisions of `check` and `ab`, and rendered for `doctor --noise`."""

import math
import random
from collections.abc import Sequence

import pytest

from harness.cli import machine_noise
from harness.cli.machine_noise import MinuteOfNoise, render_noise, take_minute, watch_others
from harness.errors import JobError
from harness.gate.decision import Outcome
from harness.gate.noise import detectable_change
from harness.gate.sensitivity import Spreads, predict_check, predict_turns, spreads_of
from harness.gate.turns import decide
from harness.machine import CpuClock
from harness.plan.job import Job
from harness.run.turns import ProcessPair
from harness.stats import Noise

JOB = Job.of("throughput", {"model": "resnet18", "res": 128, "protocol": "paper", "batch": 2, "repeats": 30})


def pairs_of(count: int, *, processes: float, pairs: float, seed: int = 1) -> list[ProcessPair]:
    draw = random.Random(seed)
    levels = [100 * math.exp(draw.gauss(0, processes)) for _ in range(count)]
    ratios = [math.exp(draw.gauss(0, pairs)) for _ in range(count)]
    return [
        ProcessPair(before=level, now=level / slower, slower=slower)
        for level, slower in zip(levels, ratios, strict=True)
    ]


def test_the_spreads_are_those_of_processes_one_after_the_other_and_of_pairs() -> None:
    spreads = spreads_of(pairs_of(400, processes=0.03, pairs=0.01))
    assert spreads is not None
    assert spreads.processes == pytest.approx(0.03, rel=0.1)
    assert spreads.pairs == pytest.approx(0.01, rel=0.1)


def test_the_drift_is_of_the_time_of_both_sides_from_the_first_third_to_the_last() -> None:
    pairs = [ProcessPair(before=level, now=level, slower=1.0) for level in (100, 100, 99, 101, 96, 80, 80)]
    spreads = spreads_of(pairs)
    assert spreads is not None
    assert spreads.drift == pytest.approx(0.25)  # a third of seven are two: 80 images/s are 1.25 times the time of 100


def test_two_pairs_tell_nothing() -> None:
    assert spreads_of(pairs_of(2, processes=0.03, pairs=0.01)) is None


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("throughputs", [1, 26])
def test_what_a_check_notices_is_beyond_what_its_noise_allows(spread: float, throughputs: int) -> None:
    # A loss as large as the gate allows fails half of the time; one that fails nine times in ten is larger, by what
    # the medians of three and of five scatter.
    noise = Noise(spread=spread, degrees=4 * throughputs)
    allowed = detectable_change(noise, 5, 3, tests=throughputs, slower=True)
    loss = predict_check(Spreads(processes=spread, pairs=spread, drift=0), throughputs).loss
    assert loss is not None
    assert allowed < loss < allowed + 3 * spread


def share_regressed(loss: float, spread: float, count: int) -> float:
    """The share of 300 tables of one model that `ab` fails, decided after every pair, with other randomness."""
    draw, failed = random.Random(99), 0
    for _ in range(300):
        pairs: list[ProcessPair] = []
        outcome = Outcome.NOT_JUDGED
        while outcome is Outcome.NOT_JUDGED and len(pairs) < count:
            slower = math.exp(draw.gauss(0, spread)) / (1 - loss)
            pairs.append(ProcessPair(before=1, now=1 / slower, slower=slower))
            outcome = decide(pairs, 0.02).outcome
        failed += outcome is Outcome.REGRESSED
    return failed / 300


@pytest.mark.parametrize(("spread", "count"), [(0.01, 20), (0.03, 40)])
def test_what_ab_is_said_to_notice_fails_nine_times_in_ten_and_half_a_percent_less_does_not(
    spread: float, count: int
) -> None:
    prediction = predict_turns(Spreads(processes=spread, pairs=spread, drift=0), count, 0.02)
    assert prediction.loss is not None
    assert share_regressed(prediction.loss, spread, count) == pytest.approx(0.93, abs=0.07)
    assert share_regressed(prediction.loss - 0.01, spread, count) < 0.9
    assert 5 <= prediction.processes <= count


def test_a_machine_on_which_nothing_repeats_notices_nothing() -> None:
    spreads = Spreads(processes=2.0, pairs=2.0, drift=0)
    assert predict_check(spreads, 26).loss is None
    prediction = predict_turns(spreads, 6, 0.02)
    assert prediction.loss is None
    assert prediction.processes == pytest.approx(6, abs=0.5)


# The minute.


def test_what_others_use_is_looked_at_while_nothing_is_done() -> None:
    # Half a core in the first half second, nothing in the second; we use a tenth of a second ourselves.
    clocks = iter([CpuClock(own=1.0, busy=10.0, stolen=0), CpuClock(own=1.1, busy=10.35, stolen=0)])
    later = CpuClock(own=1.1, busy=10.35, stolen=0)
    waited: list[float] = []
    assert list(watch_others(1.0, look=lambda: next(clocks, later), wait=waited.append)) == [
        pytest.approx(0.5),
        pytest.approx(0.0),
    ]
    assert waited == [0.5, 0.5]
    assert list(watch_others(1.0, look=lambda: None, wait=waited.append)) == []


def test_pairs_are_measured_for_less_than_a_minute_and_the_host_is_watched() -> None:
    clock: list[float] = [0.0]
    reported: list[float] = []

    def measure(_job: Job) -> ProcessPair:
        clock[0] += 10.0
        return ProcessPair(before=100, now=100, slower=1.0)

    minute = take_minute(
        measure,
        JOB,
        reported.append,
        now=lambda: clock[0],
        look=lambda: CpuClock(own=0, busy=0, stolen=clock[0] / 20),
    )
    # After four pairs of ten seconds a fifth would end after the 45.
    assert (len(minute.pairs), minute.seconds_a_pair, minute.stolen) == (4, 10.0, 0.05)
    assert reported == [10.0, 20.0, 30.0, 40.0]


def test_a_model_that_cannot_be_timed_is_an_error() -> None:
    def measure(_job: Job) -> ProcessPair:
        raise JobError("it fails in the old environment: no memory")

    with pytest.raises(JobError) as caught:
        take_minute(measure, JOB, lambda _: None)
    assert str(caught.value) == (
        "throughput resnet18 at 128 cannot be timed, so noise cannot be measured: it fails in the old environment: "
        "no memory"
    )


def minute_of(pairs: Sequence[ProcessPair], *, idle: Sequence[float] = (0.01, 0.03)) -> MinuteOfNoise:
    return MinuteOfNoise(pairs=pairs, seconds_a_pair=4.0, idle=idle, stolen=0.004)


def test_the_lines_tell_who_is_there_what_differs_and_what_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    spreads = Spreads(processes=0.02, pairs=0.008, drift=-0.012)
    monkeypatch.setattr(machine_noise, "spreads_of", lambda _pairs: spreads)
    check, turns = predict_check(spreads, 26), predict_turns(spreads, 150, 0.02)
    assert check.loss is not None
    assert turns.loss is not None
    lines, enough = render_noise(minute_of(pairs_of(11, processes=0.02, pairs=0.008)), throughputs=26)
    assert enough
    assert lines == [
        "others    used 0.02 cores while this was idle, 0.03 at most",
        "host      took 0.00 cores away",
        "work      resnet18, two equal sides by turns, a fresh process each",
        "spread    2.0 % from process to process",
        "          0.8 % from pair to pair, of 11 pairs",
        "drift     -1.2 % from the first third to the last",
        f"check     notices a loss of {100 * check.loss:.1f} %, 9 times in 10",
        "          by 3 runs against 5 in a baseline of 26 models",
        f"ab        notices a loss of {100 * turns.loss:.1f} %, 9 times in 10",
        f"          of one model, after {turns.processes:.0f} pairs, {4 * turns.processes:.0f} s; 2 % allowed",
    ]
    assert max(map(len, lines)) < 80


def test_a_machine_too_busy_to_tell_says_so() -> None:
    lines, enough = render_noise(minute_of(pairs_of(2, processes=0, pairs=0), idle=(1.5, 2.0)), throughputs=26)
    assert not enough
    assert lines[:2] == [
        "others    used 1.75 cores while this was idle, 2.00 at most",
        "note      others make throughputs noisy: run it again when they have ended",
    ]
    assert lines[-1] == "problem   4 s for a pair of processes, too slow to tell: run it when others have ended"
