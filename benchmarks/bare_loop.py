"""The harness's im/s against the loop a person would write: same network, batch, threads and flags, by turns.

    python benchmarks/bare_loop.py [--pairs 12]

Prints a table for the README: for each network the ratio harness / bare loop, its median over the pairs and the 95 %
interval of that median (sign test, no assumption about the noise).
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

import timm
import torch
from scipy.stats import binom
from timm.layers import set_fused_attn

from harness.jobs import throughput
from harness.kinds import Scalar
from harness.machine import describe
from harness.plan import Job

NETWORKS = (("resnet18", 224, 4), ("deit_tiny_patch16_224", 224, 4), ("tf_efficientnet_b0", 224, 4))
REPEATS = 30


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A median of paired ratios with its interval."""

    median: float
    low: float
    high: float


def bare_loop(model: str, res: int, batch: int, threads: int) -> float:
    """Images a second as a person would measure them."""
    torch.set_num_threads(threads)
    set_fused_attn(enable=False)
    network = timm.create_model(model).eval()
    images = torch.randn(batch, 3, res, res)
    with torch.inference_mode():
        until = time.perf_counter() + 1.0
        while time.perf_counter() < until:
            network(images)
        start = time.perf_counter()
        for _ in range(REPEATS):
            network(images)
        seconds = time.perf_counter() - start
    return batch * REPEATS / seconds


def harness_loop(model: str, res: int, batch: int, threads: int) -> float:
    """Images a second as the harness measures them."""
    settings: dict[str, Scalar] = {
        "model": model,
        "res": res,
        "protocol": "paper",
        "repeats": REPEATS,
        "batch": batch,
    }
    job = Job.of("throughput", settings)
    metrics, _, _ = throughput.work(job, lambda _: None, device="cpu", threads=threads)
    return float(metrics["throughput"].value)


def compare(model: str, res: int, batch: int, pairs: int) -> Ratio:
    """Measure by turns, in changing order, and give the ratio harness / bare loop."""
    threads = describe("cpu").threads
    ratios = []
    for pair in range(pairs):
        order = (harness_loop, bare_loop) if pair % 2 else (bare_loop, harness_loop)
        found = {loop: loop(model, res, batch, threads) for loop in order}
        ratios.append(found[harness_loop] / found[bare_loop])
    return interval(sorted(ratios))


def interval(ordered: list[float]) -> Ratio:
    """Median and its 95 % interval between two order statistics."""
    below = int(binom.ppf(0.025, len(ordered), 0.5))
    return Ratio(
        median=statistics.median(ordered),
        low=ordered[max(0, below - 1)],
        high=ordered[min(len(ordered) - 1, len(ordered) - below)],
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    pairs = parser.parse_args().pairs
    print(f"| network, batch | harness / bare loop, median of {pairs} pairs | 95 % interval |\n|---|--:|--:|")
    for model, res, batch in NETWORKS:
        ratio = compare(model, res, batch, pairs)
        print(f"| {model}, {batch} | {ratio.median:.4f} | [{ratio.low:.4f}, {ratio.high:.4f}] |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
