"""`harness bundle` and `harness merge`: results travel from one machine to another as one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.cli.console import ExitCode, echo, meanwhile, print_error, warn
from harness.cli.usage import filters, options
from harness.cli.usage.command import OUTPUT, Command, argument
from harness.errors import HarnessError, StoreError
from harness.store.leftovers import format_size


@click.command(
    cls=Command,
    examples={
        "harness bundle -o results.tar": "Write all runs of runs/ into one file.",
        "harness bundle -o h200.tar --kind throughput --since 7d": "Write the throughputs of the last week.",
    },
)
@options.option(
    "-o", "--output", group=OUTPUT, type=options.PATH, required=True, help="The file to write, a plain tar."
)
@options.option("--weights", group=OUTPUT, is_flag=True, help="Take the weights along that trainings left, too.")
@options.runs
@filters.options
def bundle(output: Path, *, weights: bool, runs: Path, **params: Any) -> None:  # noqa: ANN401 -- the filter
    """Write runs into one file, for `harness merge` on another machine.

    It holds results, predictions and the SHA-256 of each file, and needs no harness to be read: `tar xf` and `sha256sum
    -c` do.  Equal runs give equal bytes.
    """
    from harness.store.bundle import write_bundle

    store, run_filter = options.open_store(runs), filters.RunFilter(**params)
    results = list(filter(run_filter.matches, store.all_results()))
    if not results:
        such = "such " if run_filter != filters.RunFilter() else ""
        raise HarnessError(f"no {such}runs in {runs}/, so there is nothing to bundle; name another folder with --runs")
    try:
        with meanwhile(f"writing {output}"):
            size = write_bundle(store, results, output, weights=weights)
    except OSError as error:
        raise HarnessError(f"-o {output}: {error.strerror or error}; name another file") from error
    echo(f"{output}: {_runs(len(results))}, {format_size(size)}")
    left = [path for path in map(store.weights_of, results) if path.is_file()]
    if left and not weights:
        left_size = format_size(sum(path.stat().st_size for path in left))
        trainings = f"{len(left)} training{'' if len(left) == 1 else 's'}"
        warn(f"the weights of {trainings} were left out, {left_size}; --weights takes them along")


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


@click.command(
    cls=Command,
    examples={
        "harness merge results.tar": "Add the runs of a bundle to runs/.",
        "harness merge v100.tar h200.tar --runs all": "Collect the runs of two machines in a folder of their own.",
    },
)
@argument(
    "bundles",
    metavar="BUNDLE...",
    nargs=-1,
    required=True,
    type=options.PATH,
    describes="Files that `harness bundle` wrote.",
    needs="a bundle",
    remedy="`harness bundle -o FILE` writes one",
)
@options.runs
def merge(bundles: Sequence[Path], *, runs: Path) -> int:
    """Add the runs of bundles to a folder of runs.

    Runs that are there already stay as they are, so merging twice changes nothing.  Each bundle is checked as a whole
    first; nothing is taken from a damaged one, and the others are merged.  `harness report --by machine` shows the
    runs of several machines side by side.
    """
    from harness.store.bundle import merge as merge_bundle

    store = options.open_store(runs, existing=False)
    store.prepare()
    refused: list[str] = []
    for path in bundles:
        try:
            with meanwhile(f"reading {path}"):
                merged = merge_bundle(path, store)
        except StoreError as error:
            refused.append(str(error))
            continue
        refused += merged.refused
        there = f", {merged.known} there already" if merged.known else ""
        echo(f"{path}: {_runs(merged.added)} added to {runs}/{there}")
    for sentence in refused:
        print_error(sentence)
    return ExitCode.USAGE if refused else ExitCode.OK
