"""`harness check` and `harness baseline`: what a CI gate decides by."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.console import ExitCode, echo, meanwhile, print_error, warn, write_file
from harness.cli.gates import outputs
from harness.cli.usage import options
from harness.cli.usage.command import GATE, OUTPUT, Command
from harness.cli.usage.options import open_store
from harness.errors import HarnessError, did_you_mean
from harness.machine import describe
from harness.plan.options import make_options
from harness.plan.plan import Plan, make_plan
from harness.specs import Catalog, Spec
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.gate.baseline import Baseline
    from harness.judge.verdict import Verdict

# Runs of each throughput job that `--calibrate` makes: three of each allow a test, five a sharp one.
ROUNDS = 5

NONE = "none"


def _parse_verdicts(text: str) -> frozenset["Verdict"]:
    """Parse `deviates,failed`; `none` fails on no verdict."""
    from harness.judge.verdict import Verdict

    known = {str(verdict): verdict for verdict in Verdict}
    words = options.split_list(text)
    for word in words:
        if word not in (*known, NONE):
            hint = did_you_mean(word, known) or f"; they are {', '.join(known)}"
            raise HarnessError(f"'{word}' is not a verdict{hint}")
    return frozenset(known[word] for word in words if word != NONE)


@click.command(
    cls=Command,
    examples={
        "harness check table5": "Fail where a result deviates from the paper.",
        "harness check table5 --baseline baseline.json --fail-on none --junit check.xml": (
            "Fail where a result is worse than a baseline by more than chance, and write JUnit XML for CI."
        ),
    },
)
@options.tables
@options.selection
@options.throughput
@options.machine
@options.edition
@options.runs
@options.option("--baseline", group=GATE, type=options.PATH, help="Compare the results with this baseline as well.")
@options.option(
    "--baseline-runs",
    group=GATE,
    type=options.PATH,
    help="Folder with the runs of the baseline, for their predictions  [default: that of --runs]",
)
@options.option(
    "--fail-on",
    group=GATE,
    default="deviates",
    type=options.ParsedType("verdict,...", _parse_verdicts),
    help="Verdicts against the paper that fail the check; none for none.",
)
@options.option(
    "--allow-missing", group=GATE, is_flag=True, help="Pass cells that the baseline has and the results do not have."
)
@options.option(
    "--newest",
    group=GATE,
    type=options.count(3, 10),
    default=3,
    help="Runs of each throughput to judge by: the newest clean ones since the baseline.",
)
@outputs.outputs
@options.option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show the outcome of every cell.")
def check(tables: tuple[str, ...], edition: str, runs: Path, **params: Any) -> int:  # noqa: ANN401 -- the options
    """Fail on deviations or regressions.

    Results deviate from the paper; they regress where they are worse than a baseline by more than chance.  Exit code 0:
    neither is the case; 1: one of them is; 4: there was nothing to compare.
    """
    baseline, baseline_runs = params["baseline"], params["baseline_runs"]
    outputs.check_outputs(params)
    from harness.gate.baseline import name_of
    from harness.gate.gate import BaselineJudge, Gate, against_paper
    from harness.judge.judged import judged_tables
    from harness.report.gate import render_gate, render_gate_json

    specs = Catalog(edition=edition).find(tables)
    reference = None if baseline is None else _read_baseline(baseline, specs)
    store = open_store(runs)
    before = open_store(baseline_runs, "--baseline-runs") if baseline_runs else store
    requested = make_options(params)
    with meanwhile(f"reading {runs}/"):
        judged = judged_tables(specs, requested, store, describe("auto"), newest_failures=True)
    gated = [cell for diff in judged.diffs for cell in against_paper(diff, params["fail_on"])]
    if reference is None:
        gate = Gate(cells=tuple(gated))
    else:
        judge = BaselineJudge(
            baseline=reference,
            selection=judged.selection,
            store=store,
            baseline_store=before,
            runs=params["newest"],
            allow_missing=params["allow_missing"],
        )
        gated += judge.judge(judged.diffs)
        new = sum(
            (name_of(diff.spec), *key) not in reference.cells
            for diff in judged.diffs
            for key, cell in diff.judged_cells.items()
            # A derived cell has no run of its own: the cells that it is computed from are compared.
            if cell.is_counted and cell.filled.measurement is not None and not cell.filled.operands
        )
        gate = Gate(cells=tuple(gated), with_baseline=True, new=new)

    renew = f"harness baseline {' '.join(tables)} -o {baseline}" if baseline else ""
    text = render_gate_json(gate) if params["as_json"] else render_gate(gate, renew=renew, verbose=params["verbose"])
    echo(text, end="")
    return outputs.deliver(gate, params, renew=renew)


def _read_baseline(path: Path, specs: Sequence[Spec]) -> "Baseline":
    """Read a baseline, with a warning where it has none of the tables.

    Raises `HarnessError` where it cannot be read or belongs to other tables of the same names.
    """
    from harness.gate.baseline import check_names, name_of
    from harness.gate.baseline_file import check_fits, read

    check_names(specs)
    baseline = read(path)
    check_fits(baseline, path, specs)
    names = [name_of(spec) for spec in specs]
    if not baseline.papers.keys() & set(names):
        warn(f"{path} has nothing of {' '.join(names)}; it has {' '.join(baseline.papers) or 'no table'}")
    return baseline


@click.command(
    cls=Command,
    examples={
        "harness baseline table5 -o baseline.json": "Write what runs/ has of table 5.",
        "harness baseline table5 --throughput-only --calibrate -o baseline.json": (
            "First measure each throughput five times, so that the noise between runs is known."
        ),
    },
)
@options.tables
@options.selection
@options.throughput
@options.edition
@options.device
@options.runs
@options.option("-o", "--output", metavar="FILE", group=OUTPUT, type=options.PATH, required=True, help="File to write.")
@options.option(
    "--calibrate",
    group=GATE,
    is_flag=True,
    help="First measure each throughput until it has --rounds clean runs, for the noise between runs.",
)
@options.option("--rounds", group=GATE, type=options.count(3, 10), default=ROUNDS, help="Runs for --calibrate.")
@options.option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Show no progress.")
def baseline(
    tables: tuple[str, ...],
    edition: str,
    device: str,
    runs: Path,
    output: Path,
    **params: Any,  # noqa: ANN401
) -> int:
    """Write the baseline for `harness check`.

    It is a small file of what was measured; `harness check --baseline FILE` compares later results with it.
    """
    from harness.gate.baseline import check_names, make_baseline
    from harness.gate.baseline_file import to_json
    from harness.judge.judged import judged_tables
    from harness.store.select import is_noisy

    specs, requested = Catalog(edition=edition).find(tables), make_options(params)
    check_names(specs)
    store = open_store(runs, existing=not params["calibrate"])
    if params["calibrate"]:
        _calibrate(make_plan(specs, requested), store, device, params["rounds"], quiet=params["quiet"])
    judged = judged_tables(specs, requested, store, describe(device), newest_failures=True)
    made = make_baseline(judged.tables, judged.selection)
    if not made.cells:
        noisy = sum(is_noisy(result) for results in judged.selection.throughputs.values() for result in results)
        command = f"harness reproduce {' '.join(tables)}"
        reason = f"nothing of {', '.join(tables)} is measured in {runs}/; `{command}` measures it"
        if noisy:
            reason = (
                f"{noisy} throughput runs are in {runs}/, and something else used the machine during each; "
                f"--calibrate measures again, or `{command} --rerun` when the machine is idle"
            )
        print_error(reason)
        return ExitCode.NOTHING_TO_COMPARE
    write_file(output, to_json(made))
    echo(f"{output}: {len(made.cells)} cells from {len(made.runs)} runs")
    _print_sensitivity(made)
    return ExitCode.OK


def _print_sensitivity(baseline: "Baseline") -> None:
    """Print which slowdowns a check by this baseline detects, and of which throughputs it has too few runs."""
    from harness.gate.baseline import sensitivity, short_of_runs
    from harness.gate.noise import LEAST_PROCESSES, MOST_PROCESSES

    if baseline.noise:
        echo(f"throughputs of one model differ by {100 * baseline.noise.spread:.1f} % from run to run on this machine")
    few, many = (sensitivity(baseline, processes) for processes in (LEAST_PROCESSES, MOST_PROCESSES))
    if few and many:
        echo(
            f"`harness check` detects slowdowns of more than {100 * few:.1f} % by {LEAST_PROCESSES} runs of each, "
            f"of more than {100 * many:.1f} % by {MOST_PROCESSES} (--newest {MOST_PROCESSES})"
        )
    short = short_of_runs(baseline)
    if short:
        job, count = next(iter(short.items()))
        warn(
            f"{len(short)} throughputs have fewer than {LEAST_PROCESSES} clean runs ({job} has "
            f"{count}) and will not be judged; --calibrate measures the missing ones"
        )


def _calibrate(plan: Plan, store: Store, device: str, rounds: int, *, quiet: bool) -> None:
    """Measure missing throughput runs, each job once and then all again, so that noise of minutes is included."""
    from harness.cli.execution import local_runner
    from harness.store.select import is_noisy, select_results

    jobs = [job for job in plan.jobs if job.exclusive]
    with local_runner(store, device, quiet=quiet) as runner:
        # Noisy runs do not count; a machine that is never quiet is not waited for.
        for _ in range(2 * rounds):
            known = select_results(plan, store, runner.target.machine, newest_failures=True).throughputs
            left = [job for job in jobs if sum(not is_noisy(run) for run in known.get(job.key, ())) < rounds]
            if not left:
                return
            runner.measure(left, rerun=True)
