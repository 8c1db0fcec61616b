"""What it does for a network's speed that freed memory stays with the process: kept against given back, by turns.

    python -m benchmarks.kept_memory [--pairs 15]

Each measurement has a process of its own, as the harness's have.  Prints a table for the README: the memory that a step
asks the system for where freed memory is given back, the ratio kept / given back, its median over the pairs, and the
95 % interval of that median.
"""

import argparse
import resource
import statistics

import torch

from benchmarks.bare_loop import NETWORKS, bare_loop, interval
from harness.jobs.fresh import in_fresh_process
from harness.jobs.malloc import Asked, keep_freed
from harness.machine import describe

WARM_UP, RUNS = 10, 20


def speed(model: str, res: int, batch: int, threads: int, *, keep: bool) -> tuple[float, float]:
    """Time the loop that a person would write; give images a second, and the MiB that a step asks for anew."""
    if keep and not keep_freed():
        raise SystemExit("this machine's malloc cannot be told to keep what is freed")
    torch.set_num_threads(threads)
    loop = bare_loop(model, res, batch)
    loop(WARM_UP)
    before = Asked.now()
    found = loop(RUNS)
    asked = Asked.now().since(before)
    return found, asked.pages * resource.getpagesize() / RUNS / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    pairs, threads = parser.parse_args().pairs, describe("cpu").threads
    print(f"| network, batch | asked for anew in a step | kept / given back, median of {pairs} pairs | 95 % interval |")
    print("|---|--:|--:|--:|")
    for model, res, batch in NETWORKS:
        ratios, anew = [], []
        for pair in range(pairs):
            order = (True, False) if pair % 2 else (False, True)
            found = {keep: in_fresh_process(speed, model, res, batch, threads, keep=keep) for keep in order}
            ratios.append(found[True][0] / found[False][0])
            anew.append(found[False][1])
        ratio = interval(sorted(ratios))
        print(
            f"| {model}, {batch} | {statistics.median(anew):.0f} MiB | {ratio.median:.2f} "
            f"| [{ratio.low:.2f}, {ratio.high:.2f}] |",
            flush=True,
        )


if __name__ == "__main__":
    main()
