"""How long `reproduce --quick` takes for a table, and whether it has the order of the models that a full run has.

    python -m benchmarks.quick_table                       # one full run and one quick run, on this machine
    python -m benchmarks.quick_table --repeats 3           # three quick runs after the full one
    python -m benchmarks.quick_table --rows 'resnet*'      # some rows only
    python -m benchmarks.quick_table --replay runs/reference/cpu-xeon-2-cores-2026-11-21 --repeats 200

It needs a quiet machine, and prints how many results something disturbed.  `--replay` needs none: it applies the rules
of a quick run to the iterations of stored results, each from a random one of them on.  What a job takes besides its
warm-up and its iterations is what it took when those results were measured.  Exit code 1 where a goal is missed.
"""

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.jobs.speed.throughput import throughput_interval
from harness.jobs.speed.timing import Iterations, is_placed, time_until_placed, warm_up_briefly
from harness.plan.plan import Options, make_plan
from harness.specs import Catalog
from harness.stats import Interval, kendall
from harness.store.result import Result
from harness.store.select import is_noisy, select_results
from harness.store.store import Store

# The goals: seconds for table 5 on two quiet cores, and Kendall's τ of its order with that of a full run.
MOST_SECONDS, LEAST_TAU = 150, 0.97


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """A run of a table: images/s and iterations by the key of each job, its seconds, and its noisy results."""

    throughputs: dict[str, float]
    iterations: dict[str, int]
    seconds: float
    noisy: int = 0

    def tau(self, full: "TableRun") -> float:
        """Return Kendall's τ with a full run, over the models of both."""
        keys = sorted(self.throughputs.keys() & full.throughputs.keys())
        return kendall([self.throughputs[key] for key in keys], [full.throughputs[key] for key in keys])


def results_of(table: str, rows: Sequence[str], runs: Path) -> list[Result]:
    """Return the good results of the throughputs of a table, in its order."""
    plan = make_plan(Catalog().find([table]), Options(only=frozenset(["throughput"]), rows=tuple(rows)))
    results = select_results(plan, Store(runs), None).results
    return [results[job.key] for job in plan.jobs if job.key in results and results[job.key].error is None]


def samples_of(result: Result) -> tuple[float, ...]:
    """Return the seconds of the iterations."""
    return result.metrics["throughput"].samples


def as_run(results: Sequence[Result], seconds: float) -> TableRun:
    """Summarise the results of a run."""
    return TableRun(
        throughputs={result.job.key: float(result.metrics["throughput"].value) for result in results},
        iterations={result.job.key: len(samples_of(result)) for result in results},
        seconds=seconds,
        noisy=sum(map(is_noisy, results)),
    )


def measure(table: str, rows: Sequence[str], *options: str) -> TableRun:
    """Run `harness reproduce` in a folder that is empty."""
    with tempfile.TemporaryDirectory(prefix="harness-quick-") as folder:
        runs = Path(folder) / "runs"
        command = [sys.executable, "-m", "harness", "reproduce", table, "--throughput-only", "--runs", str(runs)]
        command += ["--rows", ",".join(rows)] if rows else []
        # There, too, since it draws figures where it is run; with the harness of this checkout.
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        began = time.perf_counter()
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
        return as_run(results_of(table, rows, runs), time.perf_counter() - began)


def replay(results: Sequence[Result], draw: random.Random) -> TableRun:
    """Apply the rules of a quick run to the iterations of a full one."""
    known: dict[str, Interval] = {}
    iterations, seconds = {}, 0.0
    for result in results:
        batch, begin = int(result.facts["batch"]), draw.randrange(len(samples_of(result)))
        # As often as needed: what warms up is of the same iterations.
        times = itertools.islice(itertools.cycle(samples_of(result)), begin, None)
        warm_up = warm_up_briefly(times.__next__)
        timed = time_until_placed(take_from(times), int(result.job["repeats"]), placing(batch, [*known.values()]))
        known[result.job.key] = throughput_interval(batch, timed.seconds)
        iterations[result.job.key] = len(timed.seconds)
        besides = result.seconds - sum(result.facts["warm_up"]) - float(result.facts["wall"])
        seconds += besides + sum(warm_up) + sum(timed.seconds)
    throughputs = {key: interval.value for key, interval in known.items()}
    return TableRun(throughputs=throughputs, iterations=iterations, seconds=seconds)


def take_from(times: "itertools.islice[float]") -> Callable[[int], Iterations]:
    """Return what times so many iterations, as they were recorded."""
    return lambda count: Iterations(seconds=tuple(itertools.islice(times, count)))


def placing(batch: int, rivals: Sequence[Interval]) -> Callable[[Sequence[float]], bool]:
    """Return whether iterations of so many images have their place among other models."""
    return lambda seconds: is_placed(throughput_interval(batch, seconds), rivals)


def report(full: TableRun, quick: Sequence[TableRun]) -> bool:
    """Print what the runs took and how well their order agrees; whether the goals are reached."""
    models, taus = len(full.throughputs), [run.tau(full) for run in quick]
    print(f"full     {full.seconds:6.0f} s, {models} models, {full.noisy} of them noisy")
    for run, tau in list(zip(quick, taus, strict=True))[:5]:
        mean = statistics.fmean(run.iterations.values())
        print(f"quick    {run.seconds:6.0f} s, {mean:.1f} iterations a model, {run.noisy} noisy, τ {tau:.3f}")
    seconds = statistics.median(run.seconds for run in quick)
    reached = sum(tau >= LEAST_TAU for tau in taus)
    print(f"all {len(quick)}: median {seconds:.0f} s (goal {MOST_SECONDS}), {full.seconds / seconds:.1f} × faster;")
    print(f"  τ {min(taus):.3f} to {max(taus):.3f}, in {reached} of {len(taus)} at least {LEAST_TAU}")
    return seconds <= MOST_SECONDS and reached == len(taus)


def main() -> int:
    """Measure or replay, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", default="table5")
    parser.add_argument("--rows", default="", help="patterns of rows, as for reproduce")
    parser.add_argument("--repeats", type=int, default=1, help="quick runs")
    parser.add_argument("--replay", type=Path, metavar="RUNS", help="a folder of results to take iterations from")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rows = [row for row in arguments.rows.split(",") if row]
    if arguments.replay:
        results, draw = results_of(arguments.table, rows, arguments.replay), random.Random(arguments.seed)
        full = as_run(results, sum(result.seconds for result in results))
        quick = [replay(results, draw) for _ in range(arguments.repeats)]
    else:
        full = measure(arguments.table, rows)
        quick = [measure(arguments.table, rows, "--quick") for _ in range(arguments.repeats)]
    return 0 if report(full, quick) else 1


if __name__ == "__main__":
    sys.exit(main())
