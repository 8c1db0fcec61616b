"""`harness reproduce`: options -> plan -> run -> judge -> printed tables and figures."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.console import ExitCode, echo, meanwhile, note, warn
from harness.cli.usage import options
from harness.cli.usage.command import OUTPUT, RESULTS, TRAINING, Command
from harness.errors import HarnessError, name_few
from harness.plan.job import Job
from harness.plan.options import check_data_sets, make_options
from harness.plan.plan import Options, make_plan
from harness.run.training_clock import UNCONFIRMED, TrainingClock, full_trainings
from harness.specs import Catalog

if TYPE_CHECKING:
    from harness.run.execution import ExecutionOutcome

# Imports inside the functions of this package are on purpose: `--help`, `list`, `plan` and every usage error answer at
# once, without rich, numpy, pandas or matplotlib.


@click.command(
    cls=Command,
    examples={
        "harness reproduce table5 --throughput-only --rows 'resnet18,deit_ti'": (
            "Measure the throughput of two models, which takes a minute and needs no weights and no images."
        ),
        "harness reproduce table5 --data imagenet=/data/imagenet": "Fill the whole table; timm's hub has the weights.",
        "harness reproduce table8 --train --scale proxy": "Train every row of the ablation at a small scale.",
        "harness reproduce table5 --throughput-only --budget 10min": "Measure as many rows as ten minutes allow.",
        "harness reproduce table5 --throughput-only --quick": "Find out the order of the models in a few minutes.",
        "harness reproduce table5 --launcher slurm --partition gpu --gpus 1": "Measure on the nodes of a cluster.",
    },
)
@options.tables
@options.selection
@options.throughput
@options.data
@options.weights
@options.loading
@options.explaining
@options.training
@options.device
@options.budget
@options.quick
@options.jobs
@options.cluster
@options.edition
@options.runs
@options.option("--yes", group=TRAINING, is_flag=True, help="Train at full scale without asking.")
@options.option("--rerun", group=RESULTS, is_flag=True, help="Measure again even where results exist.")
@options.option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Show no progress.")
@options.option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show the reason of every verdict.")
def reproduce(tables: tuple[str, ...], edition: str, runs: Path, **params: Any) -> int:  # noqa: ANN401 -- the options
    """Run what is missing, then print the tables."""
    with meanwhile(f"planning {' '.join(tables)}", quiet=params["quiet"]):
        catalog, requested = Catalog(edition=edition), make_options(params)
        plan = make_plan(catalog.find(tables), requested)
        check_data_sets(plan, requested.data)

        # Not before: a mistake in the options is answered at once.
        from harness.cli.execution import prepare
        from harness.cli.report import render_tables
        from harness.judge.judged import judge_plan
        from harness.run.execution import execute

        runner, cluster = prepare(plan, runs, params)
    if not params["yes"]:
        nodes = cluster.settings if cluster else None
        devices = max(1, nodes.gpus) * nodes.nodes if nodes else len(runner.target.all_devices)
        _confirm_training(TrainingClock(plan, runner.store, runner.target, devices), requested)

    outcome = execute(plan, runner, cluster, rerun=params["rerun"])
    if outcome.submitted:
        echo(f"{outcome.submitted}.  `harness status` shows their state; the same command waits for them.")
        return ExitCode.OK

    diffs = judge_plan(outcome.plan, outcome.results, outcome.elsewhere)
    echo(render_tables(diffs, verbose=params["verbose"], explain=requested.explain), styled=True, end="")
    figures = [] if outcome.interrupted else _draw_figures(catalog, outcome, requested, quiet=params["quiet"])
    _print_summary(outcome, figures)
    if outcome.interrupted and cluster is not None:
        note("the jobs on the cluster go on; `harness cancel` ends them")
    if outcome.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.SOME_FAILED if outcome.runner.failed else ExitCode.OK


def _confirm_training(clock: TrainingClock, requested: Options) -> None:
    """Ask before training at the published scale, naming the cost, on the published machine and on this one.

    Raises `HarnessError` where nobody can be asked, and `click.Abort` if the answer is no.
    """
    cost = full_trainings(clock, requested)
    if not cost:
        return
    if not sys.stdin.isatty():
        raise HarnessError(f"{cost}; {UNCONFIRMED}")
    click.confirm(f"{cost}. Begin?", abort=True, err=True)


def _draw_figures(catalog: Catalog, outcome: "ExecutionOutcome", requested: Options, *, quiet: bool) -> list[Path]:
    """Draw the figures that go with the tables, with the same settings, where something was measured."""
    from harness.judge.judged import judged_tables

    settings = replace(requested, only=None, rows=(), columns=())
    drawn = []
    for name in dict.fromkeys(spec.figure for spec in outcome.plan.specs if spec.figure):
        runner, specs = outcome.runner, catalog.find([str(name)])
        (table,) = judged_tables(specs, settings, runner.store, runner.target.machine).tables
        if any(filled.measurement for filled in table.cells.values()):
            from harness.figure.draw import draw  # only then: it takes a second

            path = Path("figures") / f"{name}.png"
            try:
                with meanwhile(f"drawing {path}", quiet=quiet):
                    draw(table, path)
            except HarnessError as error:  # what was measured is worth more than its figure
                warn(f"{error}; `harness figure {name} -o FILE` draws it")
            else:
                drawn.append(path)
    return drawn


def _print_summary(outcome: "ExecutionOutcome", figures: Iterable[Path]) -> None:
    """Print how many jobs were measured, and which files there are now."""
    runner, store = outcome.runner, outcome.runner.store
    warn(*store.damaged, *runner.inventory.notes)
    failed, measured = len(runner.failed), len(runner.measured)
    counts = f"{measured - failed} measured{f', {failed} failed' if failed else ''}"
    paths = "  ".join([f"{store.root}/", *map(str, figures)])
    echo(f"jobs: {counts}, {len(runner.results) - measured} known already.  {paths}")
    if outcome.interrupted:
        note("interrupted: what is finished is kept; the same command goes on from here")
    if runner.budget is not None and runner.budget.left_out:
        echo(_left_for_want_of_time(runner.budget.left_out))


def _left_for_want_of_time(left_out: Mapping[Job, float | None]) -> str:
    """Return a sentence about the jobs that a budget left out, the quickest first, and how long they would take."""
    from harness.run.log import format_seconds

    known = sorted((seconds, str(job)) for job, seconds in left_out.items() if seconds is not None)
    unknown = sorted(str(job) for job, seconds in left_out.items() if seconds is None)
    each = [*(f"{job} ≈ {format_seconds(seconds)}" for seconds, job in known), *unknown]
    total = f"about {format_seconds(sum(seconds for seconds, _ in known))}" if known else "of unknown length"
    jobs = f"{len(each)} job{'' if len(each) == 1 else 's'}"
    return f"left for want of time: {jobs}, {total}; the same command goes on with them: {name_few(each)}"
