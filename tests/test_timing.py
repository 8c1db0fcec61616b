"""The method of measuring, with a fake clock and a fake memory."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import JobError
from harness.jobs.speed.batch_size import Probe, find_saturation, largest_batch, saturation_warning
from harness.jobs.speed.timing import warm_up


def fake_seconds(*seconds: float) -> Callable[[], float]:
    """Return these seconds one after the other, then the last of them."""
    return itertools.chain(seconds, itertools.repeat(seconds[-1])).__next__


def test_a_warm_up_goes_on_until_three_runs_agree_with_the_three_before() -> None:
    # 0.2 s a run in the end: three slow runs, three of 0.3 and from the seventh on 0.2.
    seconds, steady = warm_up(fake_seconds(1.0, 0.9, 0.8, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2))
    assert steady
    assert seconds == [1.0, 0.9, 0.8, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_a_fast_model_is_warmed_up_for_a_second() -> None:
    seconds, steady = warm_up(fake_seconds(0.01))
    assert steady
    assert sum(seconds) == pytest.approx(1.0, abs=0.011)


def test_runs_that_just_happened_count_for_the_warm_up() -> None:
    assert warm_up(fake_seconds(0.3), before=[0.3] * 6)[0] == [0.3] * 6


def test_a_slow_model_is_warmed_up_by_two_runs() -> None:
    seconds, steady = warm_up(fake_seconds(6.0, 6.0))
    assert seconds == [6.0, 6.0]
    assert steady


def test_a_warm_up_that_never_settles_is_stopped_and_not_steady() -> None:
    seconds, steady = warm_up(fake_seconds(*(0.05 * 0.98**n for n in range(300))))
    assert not steady
    assert len(seconds) == 200


def test_throughput_saturates_where_doubling_the_batch_stops_gaining() -> None:
    # Images a second at 1, 2, 4, ...: eight gain three percent over four, sixteen none, which is not worth it twice.
    throughput = {1: 100.0, 2: 180.0, 4: 300.0, 8: 310.0, 16: 310.0}
    saturation = find_saturation(lambda size: [size / throughput[size]])
    assert saturation.batch == 4
    assert [probe.batch for probe in saturation.probes] == [1, 2, 4, 8, 16]
    assert saturation.seconds == ()


def test_one_unlucky_batch_does_not_hide_the_saturation() -> None:
    throughput = {1: 100.0, 2: 90.0, 4: 300.0, 8: 600.0, 16: 600.0, 32: 600.0}
    assert find_saturation(lambda size: [size / throughput[size]]).batch == 8


def test_a_long_run_that_gains_nothing_ends_the_search() -> None:
    # Batch 2 takes 0.4 s and has no higher throughput; 4 would still be below a second.
    assert [probe.batch for probe in find_saturation(lambda size: [0.2 * size]).probes] == [1, 2]


def test_the_shortest_run_of_a_batch_counts() -> None:
    assert find_saturation(lambda size: [9.0, 0.6 * size, 7.0]).probes[0].seconds == 0.6


def test_no_run_is_meant_to_last_longer_than_about_a_second() -> None:
    # Each doubling would be worth it, but the run of 256 images lasts 0.556 s, so that of 512 would pass a second.
    assert find_saturation(lambda size: [0.3 + size * 0.001]).batch == 256


def test_a_slow_model_is_measured_at_batch_one_and_its_run_counts_for_the_warm_up() -> None:
    saturation = find_saturation(lambda size: [3.0 * size])
    assert (saturation.batch, len(saturation.probes), saturation.seconds) == (1, 1, (3.0,))


def fake_memory(limit: int, base: int, each: int, *, rounding: int = 1) -> Callable[[int], Probe]:
    def probe_batch(batch: int) -> Probe:
        needed = base + -(-batch * each // rounding) * rounding
        fits = needed <= limit
        return Probe(
            batch=batch, outcome="fits" if fits else "out of memory", seconds=0.1, allocated=needed if fits else 0
        )

    return probe_batch


@given(
    answer=st.integers(1, 5000),
    base=st.integers(0, 10**9),
    each=st.integers(10**5, 10**8),
    rounding=st.sampled_from([1, 512, 2 * 2**20, 20 * 2**20]),
)
def test_the_largest_batch_is_exact_to_one_image(answer: int, base: int, each: int, rounding: int) -> None:
    limit = base + -(-answer * each // rounding) * rounding
    probe_batch = fake_memory(limit, base, each, rounding=rounding)
    probes = list(largest_batch(probe_batch, limit=limit))
    best = max(p.batch for p in probes if p.outcome == "fits")
    assert probe_batch(best).outcome == "fits"
    assert probe_batch(best + 1).outcome == "out of memory"
    assert best + 1 in [p.batch for p in probes], "the next larger batch was really tried"


@pytest.mark.parametrize("answer", [1, 2, 3, 5, 40, 333, 2048, 4321])
def test_a_typical_search_takes_at_most_twelve_probes(answer: int) -> None:
    # Weights of 100 MB, 5 MB an image in 2 MiB blocks, and a limit that falls in the middle of an image.
    limit = 100_000_000 + answer * 5_000_000 + 2_500_000
    probes = list(largest_batch(fake_memory(limit, 100_000_000, 5_000_000, rounding=2 * 2**20), limit=limit))
    assert len(probes) <= 12


def test_a_memory_that_grows_in_a_jump_is_still_searched_exactly() -> None:
    # From 100 images on the algorithm takes a workspace of as much again: the line of small batches is far off.
    def probe_batch(batch: int) -> Probe:
        needed = batch * 10 * (2 if batch >= 100 else 1)
        fits = needed <= 3000
        return Probe(
            batch=batch, outcome="fits" if fits else "out of memory", seconds=0.1, allocated=needed if fits else 0
        )

    probes = list(largest_batch(probe_batch, limit=3000))
    assert max(p.batch for p in probes if p.outcome == "fits") == 150
    assert len(probes) <= 12


def test_without_a_memory_limit_the_search_grows_and_bisects() -> None:
    probes = list(largest_batch(fake_memory(777, 0, 1), limit=None))
    assert max(p.batch for p in probes if p.outcome == "fits") == 777


@pytest.mark.parametrize(("most", "answer"), [(1, 1), (3, 3), (500, 500), (776, 776), (777, 777), (5000, 777)])
def test_no_batch_above_what_kernels_can_count_is_tried(most: int, answer: int) -> None:
    for limit in (777, None):
        probes = list(largest_batch(fake_memory(777, 0, 1), limit=limit, most=most))
        assert max(p.batch for p in probes if p.outcome == "fits") == answer
        assert max(p.batch for p in probes) <= most


def test_the_search_for_saturation_ends_where_a_batch_is_too_large() -> None:
    found = find_saturation(lambda batch: [0.01] if batch <= 8 else [])
    assert [(probe.batch, probe.outcome) for probe in found.probes] == [
        *((batch, "timed") for batch in (1, 2, 4, 8)),
        (16, "too large"),
    ]
    assert (found.batch, found.seconds) == (8, ())
    with pytest.raises(JobError, match="batch 1, the smallest, is too large for the memory; give more with --memory"):
        find_saturation(lambda batch: [])


def test_a_model_that_does_not_fit_at_all_is_tried_once() -> None:
    probes = list(largest_batch(fake_memory(10, 0, 11), limit=10))
    assert [(p.batch, p.outcome) for p in probes] == [(1, "out of memory")]


def fitting_probe(batch: int, seconds: float) -> Probe:
    return Probe(batch=batch, outcome="fits", seconds=seconds)


def test_a_largest_batch_at_which_throughput_still_grew_raises_a_warning() -> None:
    # 100 images a second at 40, 125 at 90: a quarter more.
    probes = [
        fitting_probe(1, 0.1),
        fitting_probe(40, 0.4),
        fitting_probe(90, 0.72),
        Probe(batch=91, outcome="out of memory", seconds=0),
    ]
    assert saturation_warning(probes) == (
        "throughput still grew by 25 % from batch 40 to 90, the largest that fits: it would be higher "
        "with more --memory"
    )
    assert saturation_warning([fitting_probe(40, 0.4), fitting_probe(90, 0.88)]) == ""
    assert saturation_warning([fitting_probe(1, 0.1)]) == ""
    assert saturation_warning([]) == ""


def test_another_error_ends_the_search_at_once() -> None:
    def probe_batch(batch: int) -> Probe:
        if batch > 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return Probe(batch=1, outcome="fits", seconds=0.1, allocated=1)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(largest_batch(probe_batch, limit=100))
