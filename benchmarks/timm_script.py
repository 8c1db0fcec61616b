"""The harness's im/s under the timm protocol against timm's own benchmark.py: same batch and threads, by turns.

    python -m benchmarks.timm_script [--script benchmark.py] [--pairs 60]

benchmark.py is no part of the installed timm: give the path of a checkout's, here or as TIMM_BENCHMARK.  Without one a
loop stands in for it that builds, warms up and times as it does.  Neither side sets anything of malloc's.  Prints the
ratio harness / script, its median over the pairs, and the 95 % interval of that median.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from benchmarks.bare_loop import MODELS, RUNS_PER_TURN, Ratio, by_turns, harness_loop
from harness.machine import describe

WARM_UP = 10


def script_loop(script: Path | None, model: str, res: int, batch: int) -> Callable[[int], float]:
    """Return what benchmark.py does: images a second over so many runs, after a warm-up where it is asked for one."""
    if script is None:
        return _loop_like_the_script(model, res, batch)
    spec = importlib.util.spec_from_file_location("timm_benchmark", script)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{script} is no Python file; give the benchmark.py of a checkout of timm")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # `gp` and `input_size` as without and with an option of the command line.
    arguments = {"device": "cpu", "batch_size": batch, "num_warm_iter": 0, "input_size": (3, res, res), "gp": None}
    runner = module.InferenceBenchmarkRunner(model, **arguments)

    def loop(runs: int) -> float:
        runner.num_bench_iter = runs
        return float(runner.run()["samples_per_sec"])

    return loop


def _loop_like_the_script(model: str, res: int, batch: int) -> Callable[[int], float]:
    module = timm.create_model(model).eval()

    def loop(runs: int) -> float:
        with torch.inference_mode():
            images = torch.randn(batch, 3, res, res)
            start = time.perf_counter()
            for _ in range(runs):
                module(images)
            return batch * runs / (time.perf_counter() - start)

    return loop


def compare(script: Path | None, model: str, res: int, batch: int, pairs: int) -> Ratio:
    """Measure by turns, in alternating order, and return the ratio harness / script."""
    ours = harness_loop(model, res, batch, describe("cpu").threads, protocol="timm")
    theirs = script_loop(script, model, res, batch)
    ours(WARM_UP)
    theirs(WARM_UP)
    return by_turns(ours, theirs, pairs, RUNS_PER_TURN)


def script_of_the_environment() -> Path | None:
    """Return the benchmark.py that TIMM_BENCHMARK names."""
    name = os.environ.get("TIMM_BENCHMARK")
    return Path(name) if name else None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", type=Path, default=script_of_the_environment())
    parser.add_argument("--pairs", type=int, default=60)
    given = parser.parse_args()
    theirs = "benchmark.py" if given.script else "loop like benchmark.py"
    print(f"| model, batch | harness / {theirs}, median of {given.pairs} pairs | 95 % interval |\n|---|--:|--:|")
    for model, res, batch in MODELS:
        ratio = compare(given.script, model, res, batch, given.pairs)
        print(f"| {model}, {batch} | {ratio.median:.4f} | [{ratio.low:.4f}, {ratio.high:.4f}] |", flush=True)


if __name__ == "__main__":
    main()
