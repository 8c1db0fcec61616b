"""The harness's im/s against the loop a person would write: same batch, threads and flags, by turns in one process.

    python -m benchmarks.bare_loop [--pairs 60]

The person's loop has a model of its own, built and initialised by timm.  The two take turns of a few runs each, so that
background load affects both.  Prints a table for docs/results.md: the ratio harness / bare loop, its median over the
pairs, and the 95 % interval of that median (between order statistics, no assumption about the noise).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from scipy.stats import binom
from timm.layers import set_fused_attn

from harness.jobs.speed.device import Cpu
from harness.jobs.speed.workload import Workload, flags_of, set_flags
from harness.machine import describe
from harness.plan.job import Job
from harness.run.messages import Progress
from harness.specs.checked import Scalar
from harness.specs.kinds import throughput_settings

MODELS = (("resnet18", 224, 4), ("deit_tiny_patch16_224", 224, 4), ("tf_efficientnet_b0", 224, 4))
RUNS_PER_TURN = 5


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A median of paired ratios with its interval."""

    median: float
    low: float
    high: float


def bare_loop(model: str, res: int, batch: int) -> Callable[[int], float]:
    """Return the person's loop: images a second over so many runs."""
    set_fused_attn(enable=False)
    module = timm.create_model(model).eval()
    images = torch.randn(batch, 3, res, res)

    def loop(runs: int) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            for _ in range(runs):
                module(images)
            seconds = time.perf_counter() - start
        return batch * runs / seconds

    return loop


def harness_loop(model: str, res: int, batch: int, threads: int, protocol: str = "paper") -> Callable[[int], float]:
    """Return the harness's loop: its model, its step, its way of timing and of reporting progress."""
    settings: dict[str, Scalar] = {"model": model, "res": res, "protocol": protocol, "batch": batch}
    job = Job.of("throughput", throughput_settings(settings, {}))
    flags = flags_of(job)
    device = Cpu(threads, as_script=flags.as_script)
    reports: list[Progress] = []
    set_flags(flags)
    step = Workload(job, "cpu").make_step(batch)

    def loop(runs: int) -> float:
        timings = device.time_steps(step, runs, lambda run: reports.append(Progress(job=job, phase="timing", done=run)))
        return batch * runs / sum(timings.seconds)

    return loop


def compare(model: str, res: int, batch: int, pairs: int) -> Ratio:
    """Measure by turns, in alternating order, and return the ratio harness / bare loop."""
    ours = harness_loop(model, res, batch, describe("cpu").threads)
    theirs = bare_loop(model, res, batch)
    ours(20)
    theirs(20)
    return by_turns(ours, theirs, pairs, RUNS_PER_TURN)


def by_turns(ours: Callable[[int], float], theirs: Callable[[int], float], pairs: int, runs: int) -> Ratio:
    """Run two loops by turns, in alternating order, and return the ratio of their throughputs."""
    ratios = []
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        throughputs = {loop: loop(runs) for loop in order}
        ratios.append(throughputs[ours] / throughputs[theirs])
    return interval(sorted(ratios))


def interval(ordered: list[float]) -> Ratio:
    """Return the median and its 95 % interval between two order statistics."""
    below = int(binom.ppf(0.025, len(ordered), 0.5))
    return Ratio(
        median=statistics.median(ordered),
        low=ordered[max(0, below - 1)],
        high=ordered[min(len(ordered) - 1, len(ordered) - below)],
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    pairs = parser.parse_args().pairs
    print(f"| model, batch | harness / bare loop, median of {pairs} pairs | 95 % interval |\n|---|--:|--:|")
    for model, res, batch in MODELS:
        ratio = compare(model, res, batch, pairs)
        print(f"| {model}, {batch} | {ratio.median:.4f} | [{ratio.low:.4f}, {ratio.high:.4f}] |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
