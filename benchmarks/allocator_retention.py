"""The effect of allocator retention on a model's throughput: freed memory retained against released, by turns.

    python -m benchmarks.allocator_retention [--pairs 15]

Each measurement has a process of its own, as the harness's have.  Prints a table for docs/results.md: the memory that
a step pages in where freed memory is released, the ratio retained / released, its median over the pairs, and the 95 %
interval of that median.
"""

import argparse
import resource
import statistics

import torch

from benchmarks.bare_loop import MODELS, bare_loop, interval
from harness.jobs.fresh import run_in_fresh_process
from harness.jobs.speed.allocator import ResourceUsage, retain_freed_memory
from harness.machine import describe

WARM_UP, RUNS = 10, 20


def measure(model: str, res: int, batch: int, threads: int, *, retain: bool) -> tuple[float, float]:
    """Time the loop that a person would write; return images a second, and the MiB that a step pages in."""
    if retain and not retain_freed_memory():
        raise SystemExit("this machine's malloc cannot retain freed memory")
    torch.set_num_threads(threads)
    loop = bare_loop(model, res, batch)
    loop(WARM_UP)
    before = ResourceUsage.now()
    throughput = loop(RUNS)
    usage = ResourceUsage.now().since(before)
    return throughput, usage.page_faults * resource.getpagesize() / RUNS / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    pairs, threads = parser.parse_args().pairs, describe("cpu").threads
    print(f"| model, batch | paged in per step | retained / released, median of {pairs} pairs | 95 % interval |")
    print("|---|--:|--:|--:|")
    for model, res, batch in MODELS:
        ratios, paged_in = [], []
        for pair in range(pairs):
            order = (True, False) if pair % 2 else (False, True)
            outcomes = {
                retain: run_in_fresh_process(measure, model, res, batch, threads, retain=retain) for retain in order
            }
            ratios.append(outcomes[True][0] / outcomes[False][0])
            paged_in.append(outcomes[False][1])
        ratio = interval(sorted(ratios))
        print(
            f"| {model}, {batch} | {statistics.median(paged_in):.0f} MiB | {ratio.median:.2f} "
            f"| [{ratio.low:.2f}, {ratio.high:.2f}] |",
            flush=True,
        )


if __name__ == "__main__":
    main()
