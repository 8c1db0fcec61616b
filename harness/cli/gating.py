"""What a machine decides on: the commands `check` and `baseline`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.folders import filled_store, store_in, write
from harness.errors import HarnessError, did_you_mean
from harness.machine import describe
from harness.plan import Plan, make_plan
from harness.spec import Catalog
from harness.store import Store

if TYPE_CHECKING:
    from harness.baseline import Baseline
    from harness.diff import Verdict
    from harness.gate import Gate

PASSED, FAILED, NOTHING = 0, 1, 4

# Runs of each speed that `--calibrate` sees to: with three of each there is a test, with five it is a sharp one.
ROUNDS = 5

NONE = "none"


def _verdicts(_context: click.Context, _parameter: click.Parameter, value: str) -> frozenset["Verdict"]:
    """Read `deviates,failed`; `none` fails on no verdict."""
    from harness.diff import Verdict

    known = {str(verdict): verdict for verdict in Verdict}
    words = [word.strip() for word in value.split(",") if word.strip()]
    for word in words:
        if word not in (*known, NONE):
            raise click.BadParameter(
                f"'{word}' is no verdict{did_you_mean(word, known) or '; they are ' + ', '.join(known)}"
            )
    return frozenset(known[word] for word in words if word != NONE)


@click.command()
@options.tables
@options.choice
@options.measuring
@options.edition
@options.runs
@click.option("--baseline", type=click.Path(path_type=Path), help="Hold the results against this baseline too.")
@click.option(
    "--baseline-runs",
    type=click.Path(path_type=Path),
    help="Folder with the runs of the baseline, for their predictions  [default: that of --runs]",
)
@click.option(
    "--fail-on",
    default="deviates",
    show_default=True,
    callback=_verdicts,
    metavar="VERDICT,...",
    help="Verdicts against the paper that fail; none for none.",
)
@click.option("--allow-missing", is_flag=True, help="Pass cells that the baseline has and the results have not.")
@click.option(
    "--newest",
    type=click.IntRange(min=3, max=10),
    default=3,
    show_default=True,
    help="Runs of each speed to judge by: so many undisturbed ones since the baseline.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file too.")
@click.option("--github", is_flag=True, help="Print GitHub's annotations too, and write its job summary.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("-v", "--verbose", is_flag=True, help="Say of every cell how it stands.")
def check(  # noqa: PLR0913 -- one parameter an option
    tables: tuple[str, ...],
    edition: str,
    runs: Path,
    *,
    baseline: Path | None,
    baseline_runs: Path | None,
    fail_on: frozenset["Verdict"],
    allow_missing: bool,
    newest: int,
    junit: Path | None,
    github: bool,
    as_json: bool,
    verbose: bool,
    **told: Any,  # noqa: ANN401
) -> int:
    """Fail where results deviate from the paper, or are worse than a baseline by more than chance.

    Exit code 0: nothing of the kind; 1: something; 4: there was nothing to compare.
    """
    if github and as_json:
        raise click.UsageError("--github and --json both print to stdout; take one, or --junit for a file")
    from harness.report import gate as report

    catalog = Catalog(edition=edition)
    specs = catalog.find(tables)
    kept = None
    if baseline is not None:
        from harness.baseline import check_names, name_of
        from harness.baseline_file import check_fits, read

        check_names(specs)
        kept = read(baseline)
        check_fits(kept, baseline, specs)
        asked = [name_of(spec) for spec in specs]
        if not kept.papers.keys() & set(asked):
            there = " ".join(kept.papers) or "no table"
            print(f"warning: {baseline} has nothing of {' '.join(asked)}; it has {there}", file=sys.stderr)
    plan = make_plan(specs, options.options_of(told))
    store = filled_store(runs)
    before = filled_store(baseline_runs, "--baseline-runs") if baseline_runs else store
    gate = _gate(plan, store, kept, before, fail_on, allow_missing=allow_missing, newest_runs=newest)
    renew = f"harness baseline {' '.join(tables)} -o {baseline}" if baseline else ""
    for damage in store.damaged:
        print(f"warning: {damage}", file=sys.stderr)
    click.echo(
        report.render_gate_json(gate) if as_json else report.render_gate(gate, renew=renew, verbose=verbose), nl=False
    )
    if junit:
        write(junit, report.render_junit(gate), "--junit")
    if github:
        click.echo(report.render_annotations(gate), nl=False)
        _summarise(report.render_summary(gate, renew=renew))
    return FAILED if gate.failing else NOTHING if gate.empty else PASSED


def _gate(  # noqa: PLR0913
    plan: Plan,
    store: Store,
    baseline: "Baseline | None",
    before: Store,
    fail_on: frozenset["Verdict"],
    *,
    allow_missing: bool,
    newest_runs: int,
) -> "Gate":
    """Run the pipeline of a gate: what stands now, held against the paper and against a baseline."""
    from harness.baseline import name_of
    from harness.diff import Diff, judge
    from harness.gate import Gate, Judge, against_paper
    from harness.newest import newest
    from harness.table import fill

    now = newest(plan, store, describe("auto"))
    diffs = []
    for spec in plan.specs:
        table = fill(spec, plan, now.results)
        findings = {place: judge(filled, spec) for place, filled in table.cells.items()}
        # The order of the rows fails no gate, and its intervals take as long as all the rest.
        diffs.append(Diff(table=table, findings=findings, shapes=()))
    judged = [one for diff in diffs for one in against_paper(diff, fail_on)]
    if baseline is None:
        return Gate(judged=tuple(judged))
    against = Judge(
        baseline=baseline, newest=now, store=store, before=before, runs=newest_runs, allow_missing=allow_missing
    )
    new = sum(
        finding.filled.measurement is not None and (name_of(diff.spec), *place) not in baseline.entries
        for diff in diffs
        for place, finding in diff.findings.items()
    )
    return Gate(judged=(*judged, *against.judge(diffs)), with_baseline=True, new=new)


def _summarise(text: str) -> None:
    """Append to the job summary, as GitHub wants it."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        print("warning: --github: GITHUB_STEP_SUMMARY is not set, so there is no job summary", file=sys.stderr)
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HarnessError(f"GITHUB_STEP_SUMMARY={path}: {error.strerror}") from error


@click.command()
@options.tables
@options.choice
@options.measuring
@options.edition
@options.device
@options.runs
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="First measure each speed until it has --rounds undisturbed runs, for how far runs differ by chance.",
)
@click.option(
    "--rounds", type=click.IntRange(min=3, max=10), default=ROUNDS, show_default=True, help="Runs for --calibrate."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def baseline(  # noqa: PLR0913
    tables: tuple[str, ...],
    edition: str,
    device: str,
    runs: Path,
    *,
    output: Path,
    calibrate: bool,
    rounds: int,
    quiet: bool,
    **told: Any,  # noqa: ANN401
) -> int:
    """Write what was measured to a small file that `harness check --baseline` holds later results against."""
    from harness.baseline import check_names, make_baseline, sensitivity, short_of_runs
    from harness.baseline_file import to_json
    from harness.newest import is_disturbed, newest
    from harness.noise import LEAST_PROCESSES, MOST_PROCESSES
    from harness.table import fill

    specs = Catalog(edition=edition).find(tables)
    check_names(specs)
    plan = make_plan(specs, options.options_of(told))
    store = store_in(runs) if calibrate else filled_store(runs)
    if calibrate:
        _calibrate(plan, store, device, rounds, quiet=quiet)
    now = newest(plan, store, describe(device))
    found = make_baseline([fill(spec, plan, now.results) for spec in plan.specs], now)
    for damage in store.damaged:
        print(f"warning: {damage}", file=sys.stderr)
    if not found.entries:
        disturbed = sum(is_disturbed(one) for results in now.speeds.values() for one in results)
        why = (
            f"{disturbed} runs of speeds are in {runs}/, and something else used the machine during each; "
            "--calibrate measures again, or `harness reproduce --rerun` when the machine is idle"
            if disturbed
            else f"nothing of {', '.join(tables)} is measured in {runs}/; `harness reproduce` does"
        )
        print(f"error: {why}", file=sys.stderr)
        return NOTHING
    write(output, to_json(found), "-o")
    click.echo(f"{output}: {len(found.entries)} cells from {len(found.runs)} runs")
    if found.noise:
        click.echo(f"speeds of one network differ by {found.noise.spread:.1%} from run to run on this machine")
    few, many = (sensitivity(found, processes) for processes in (LEAST_PROCESSES, MOST_PROCESSES))
    if few and many:
        click.echo(
            f"`harness check` sees slowdowns of more than {few:.1%} by {LEAST_PROCESSES} runs of each, of more than "
            f"{many:.1%} by {MOST_PROCESSES} (--newest {MOST_PROCESSES})"
        )
    short = short_of_runs(found)
    if short:
        first = next(iter(short))
        print(
            f"warning: {len(short)} speeds have fewer than {LEAST_PROCESSES} undisturbed runs ({first} has "
            f"{short[first]}) and will not be judged; --calibrate measures what they lack",
            file=sys.stderr,
        )
    return PASSED


def _calibrate(plan: Plan, store: Store, device: str, rounds: int, *, quiet: bool) -> None:
    """Measure what speeds lack, all of them once and then again, so that noise of minutes is in it too."""
    from harness.cli.display import watcher
    from harness.launch import LocalLauncher
    from harness.newest import is_disturbed, newest
    from harness.run import Runner, site_of

    site = site_of(device)
    store.prepare()
    jobs = [job for job in plan.jobs if job.exclusive]
    with watcher(quiet=quiet) as show:
        runner = Runner(store=store, launcher=LocalLauncher(), site=site, watcher=show)
        # A disturbed run does not count; a machine that is never quiet is not waited for.
        for _ in range(2 * rounds):
            there = newest(plan, store, site.machine).speeds
            left = [job for job in jobs if sum(not is_disturbed(one) for one in there.get(job.key, ())) < rounds]
            if not left:
                return
            runner.measure(left, rerun=True)
