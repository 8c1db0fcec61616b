"""The commands and the exit codes; the pipeline stands once, in `reproduce`."""

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from harness import __version__
from harness.charts import CHARTS, POINTS, STYLES, chart_of
from harness.cli import cluster, gating, history, options
from harness.cli.folders import filled_store, store_in, write
from harness.datasets import DATASETS
from harness.errors import HarnessError, did_you_mean
from harness.machine import Machine, describe, software
from harness.plan import Options, Plan, make_plan
from harness.spec import Catalog, Spec
from harness.store import Store

if TYPE_CHECKING:
    from harness.diff import Diff
    from harness.launch.slurm import Settings
    from harness.table import Table

OK, USAGE, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

# Imports inside the functions below are on purpose: `--help`, `list`, `plan` and every usage error answer at once,
# without rich, pandas or matplotlib.


class _Commands(click.Group):
    """Suggests the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], self.commands)}", ctx=None)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="harness")
@click.pass_context
def cli(context: click.Context) -> None:
    """Find out which numbers of the DeiT paper hold on this machine.

    Start with `harness reproduce table5 --throughput-only --rows 'resnet18,deit_ti'`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)
    context.default_map = options.settings_of_folder(cli.commands)


def main() -> NoReturn:
    """Run the command line; every mistake of the user ends in one sentence, without a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        _complain(error.format_message())
        code = USAGE
    except HarnessError as error:
        _complain(str(error))
        code = USAGE
    except KeyboardInterrupt:
        _complain("interrupted")
        code = INTERRUPTED
    except SystemExit:
        # So click ends when the reader went away (`| head`): nothing is wrong, and nothing more can be said.
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)


@cli.command("list")
@click.argument("table", required=False)
@options.edition
def list_tables(table: str | None, edition: str) -> None:
    """Show which tables there are, or the rows and columns of one."""
    from harness.cli.listing import listing, listing_of

    catalog = Catalog(edition=edition)
    if table is None:
        click.echo(listing(catalog.find(["all"])))
    else:
        for spec in catalog.find([table]):
            click.echo(listing_of(spec))


@cli.command()
@options.tables
@options.choice
@options.measuring
@options.explaining
@options.training
@options.data
@options.device
@options.edition
@options.runs
def plan(tables: tuple[str, ...], edition: str, runs: Path, device: str, **told: Any) -> None:  # noqa: ANN401
    """Show the distinct jobs of some tables: which cells share each, what is cached, what is blocked, what it costs."""
    from harness.cli.listing import listing_of_plan

    planned = make_plan(Catalog(edition=edition).find(tables), options.options_of(told))
    machine = describe(device)
    click.echo(listing_of_plan(planned, store_in(runs), machine, dict(software(machine))), nl=False)


@cli.command()
@options.tables
@options.choice
@options.measuring
@options.data
@options.weights
@options.reading
@options.explaining
@options.training
@options.device
@options.jobs
@options.cluster
@options.edition
@options.runs
@click.option("--yes", is_flag=True, help="Train at full scale without asking.")
@click.option("--rerun", is_flag=True, help="Measure again what is measured already.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Give the reason of every verdict.")
def reproduce(  # noqa: PLR0913 -- one parameter an option
    tables: tuple[str, ...],
    edition: str,
    runs: Path,
    device: str,
    *,
    jobs: int | None,
    yes: bool,
    rerun: bool,
    quiet: bool,
    verbose: bool,
    **told: Any,  # noqa: ANN401
) -> int:
    """Run what is missing, then print the tables."""
    from harness.cli.display import watcher
    from harness.cli.listing import names_in
    from harness.cluster import Controller
    from harness.launch import LocalLauncher
    from harness.launch.slurm import Slurm
    from harness.run import Done, Runner, lanes, look, site_of
    from harness.table import stored

    catalog = Catalog(edition=edition)
    chosen = options.options_of(told)
    plan = make_plan(catalog.find(tables), chosen)
    _check_data(plan, chosen)
    cores = len(os.sched_getaffinity(0))
    inputs = options.inputs_of(told, cores=cores)
    remote = _remote(told, device=device, jobs=jobs)
    if remote is None:
        site = site_of(device)
        site = replace(site, lanes=lanes(site, scale=chosen.scale, jobs=jobs, cores=cores, workers=told["workers"]))
    else:
        site = cluster.site_of_nodes(remote, runs)
    if not yes:
        _ask_before_training(plan, chosen)
    store, launcher, show, done = Store(runs), LocalLauncher(), watcher(quiet=quiet, named=names_in(plan)), Done()
    runner = Runner(store=store, launcher=launcher, site=site, watcher=show, inputs=inputs, done=done)
    asked = plan.jobs
    interrupted = False
    try:
        with show:
            plan, seen = look(plan, launcher, inputs)
            runner = replace(runner, seen=seen)
            if remote is None:
                runner.run(plan, rerun=rerun)
            else:
                said = Controller(runner=runner, slurm=Slurm(), settings=remote, workers=told["workers"]).run(
                    plan, rerun=rerun, detach=told["detach"]
                )
    except KeyboardInterrupt:
        interrupted = True
    if told["detach"] and not interrupted:
        click.echo(f"{said}.  `harness status` shows how they stand; the same command waits for them.")
        return OK
    if remote is not None:
        site = cluster.site_of_nodes(remote, runs)  # now it is known what is behind the partition
    results = {**runner.of_these(stored(plan, store, site.machine), asked), **done.results}
    if interrupted:
        why = "interrupted before it was measured; what is finished is kept, and the same command goes on from here"
        plan = plan.without({job.key: why for job in plan.jobs if job.key not in results})
    _print_tables(plan, results, verbose=verbose, explain=chosen.explain)
    figures = [] if interrupted else _draw_figures(catalog, plan, store, site.machine, chosen)
    _say_where(store, done, figures, interrupted=interrupted)
    if interrupted and remote is not None:
        print("the jobs on the cluster go on; `harness cancel` ends them", file=sys.stderr)
    if interrupted:
        return INTERRUPTED
    return SOME_FAILED if done.failed else OK


def _remote(told: dict[str, Any], **more: Any) -> "Settings | None":  # noqa: ANN401 -- what click gives
    """Give what a cluster is told; None for this machine."""
    if told["launcher"] == "slurm":
        return cluster.settings_of({**told, **more})
    source = click.get_current_context().get_parameter_source
    # Those of harness.toml wait there for the cluster; one that was typed was meant.
    given = [name for name in options.OF_CLUSTER if source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise HarnessError(f"--{given[0].replace('_', '-')} is about a cluster; add --launcher slurm")
    return None


def _ask_before_training(plan: Plan, chosen: Options) -> None:
    """Say what training at the published scale costs, and go on only if that is wanted.

    Raises `HarnessError` where nobody can be asked, and `click.Abort` if it is not wanted.
    """
    trainings = [job for job in plan.jobs if job.kind == "train"]
    if chosen.scale != "full" or not trainings:
        return
    known = [hours for job in trainings if (hours := plan.stages.hours(job)) is not None]
    unknown = len(trainings) - len(known)
    more = f" and {unknown} whose cost was not published" if unknown else ""
    count = f"{len(trainings)} training{'' if len(trainings) == 1 else 's'} at the published scale"
    cost = f"{count}, ≈ {sum(known):,.0f} V100-hours{more}"
    if not sys.stdin.isatty():
        raise HarnessError(f"{cost}; add --yes to begin, or --scale proxy for a stand-in")
    click.confirm(f"{cost}. Begin?", abort=True, err=True)


def _check_data(plan: Plan, chosen: Options) -> None:
    """Refuse the name of a data set that nothing knows: it would be passed over without a word."""
    known = _data_sets(plan)
    for name in chosen.data:
        if name not in known:
            raise HarnessError(f"--data {name}=…: no table has a data set '{name}'{did_you_mean(name, known)}")


def _data_sets(plan: Plan) -> set[str]:
    """Name the data sets that are known, or of which a plan's cells speak."""
    return {*DATASETS, *(str(p.cell.settings["data"]) for p in plan.cells if "data" in p.cell.settings)}


def _print_tables(plan: Plan, results: dict[str, Any], *, verbose: bool, explain: bool) -> None:
    from harness.diff import compare
    from harness.report import render_explanations, render_terminal
    from harness.table import fill

    width, color = _terminal()
    for number, spec in enumerate(plan.specs):
        diff = compare(fill(spec, plan, results))
        text = render_terminal(diff, width=width, color=color, verbose=verbose)
        if explain:
            text += render_explanations(diff, width=width, color=color)
        click.echo(("\n" if number else "") + text, nl=False, color=color)


def _terminal() -> tuple[int, bool]:
    """Give width and whether to colour: a pipe gets whole lines, unless COLUMNS says otherwise, and no colour."""
    shown = sys.stdout.isatty()
    color = shown and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    told = shown or os.environ.get("COLUMNS", "").isdigit()
    return (shutil.get_terminal_size().columns if told else 200), color


def _draw_figures(catalog: Catalog, plan: Plan, store: Store, machine: Machine, chosen: Options) -> list[Path]:
    """Draw the figures that go with the tables, where something was measured, as the tables were measured."""
    as_measured = replace(chosen, only=None, rows=(), columns=())
    names = dict.fromkeys(spec.figure for spec in plan.specs if spec.figure)
    drawn = []
    for name in names:
        path = Path("figures") / f"{name}.png"
        table = _stored_table(catalog.find([str(name)])[0], store, machine, as_measured)
        if any(filled.measurement for filled in table.cells.values()):
            _draw(table, path)
            drawn.append(path)
    return drawn


def _stored_table(spec: Spec, store: Store, machine: Machine, chosen: Options | None = None) -> "Table":
    from harness.table import fill, stored

    plan = make_plan([spec], chosen)
    return fill(spec, plan, stored(plan, store, machine))


def _draw(table: "Table", path: Path, **how: str) -> None:
    from harness.figure import draw

    draw(table, path, **how)


def _say_where(store: Store, done: Any, figures: Iterable[Path], *, interrupted: bool) -> None:  # noqa: ANN401
    for damage in store.damaged:
        print(f"warning: {damage}", file=sys.stderr)
    places = [f"{store.root}/", *map(str, figures)]
    counts = [(len(done.measured) - len(done.failed), "measured"), (len(done.failed), "failed")]
    counts.append((len(done.results) - len(done.measured), "known already"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count or what != "failed")
    click.echo(f"jobs: {said}.  {'  '.join(places)}")
    if interrupted:
        print("interrupted: what is finished is kept; the same command goes on from here", file=sys.stderr)


@cli.command()
@options.tables
@options.choice
@options.measuring
@options.explaining
@options.training
@options.data
@options.edition
@options.runs
@click.option(
    "--format",
    "form",
    type=click.Choice(("terminal", "markdown", "csv", "json", "latex", "pytest-benchmark", "html")),
    default="terminal",
    show_default=True,
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write, for html a folder; otherwise it is printed."
)
@click.option(
    "--diff",
    "published",
    type=click.Choice(("beside", "below")),
    is_flag=False,
    flag_value="below",
    help="In LaTeX, set the published value in grey beside or below ours  [alone: below]",
)
@click.option("--limits", is_flag=True, help="Show how close each speed comes to what the machine can do.")
@click.option("-v", "--verbose", is_flag=True, help="Give the reason of every verdict.")
def report(  # noqa: PLR0913 -- a branch a format
    tables: tuple[str, ...],
    edition: str,
    runs: Path,
    form: str,
    output: Path | None,
    *,
    published: str | None,
    limits: bool,
    verbose: bool,
    **told: Any,  # noqa: ANN401
) -> None:
    """Print tables from the results there are, measuring nothing."""
    from harness.diff import compare
    from harness.table import fill, stored

    if told["explain"] and form == "csv":
        raise HarnessError("--explain has no place in a line a cell; add --format json, or leave it out")
    if published and form != "latex":
        raise HarnessError(f"--diff: is for --format latex; --format {form} has the published values in any case")
    if form == "html":
        catalog, chosen = Catalog(edition=edition), options.options_of(told)
        _report_as_site(catalog, tables, chosen, filled_store(runs), output, limits=limits)
        return
    planned = make_plan(Catalog(edition=edition).find(tables), options.options_of(told))
    store = filled_store(runs)
    results = stored(planned, store, describe("auto"))
    diffs = [compare(fill(spec, planned, results)) for spec in planned.specs]
    if form == "terminal":
        width, color = (100, False) if output else _terminal()
        text = _for_terminal(
            diffs, store, width=width, color=color, verbose=verbose, limits=limits, explain=told["explain"]
        )
    else:
        text = _for_others(diffs, form, published, explain=told["explain"])
    for damage in store.damaged:
        print(f"warning: {damage}", file=sys.stderr)
    if output is None:
        click.echo(text, nl=False, color=True)
    else:
        write(output, text)
        click.echo(f"{output}")
    if not runs.exists():
        print(f"note: there is no folder {runs}/, so there are no results; --runs DIR names another", file=sys.stderr)


def _report_as_site(  # noqa: PLR0913
    catalog: Catalog, tables: Iterable[str], chosen: Options, store: Store, folder: Path | None, *, limits: bool
) -> None:
    """Write a site of the tables and of the figures that go with them."""
    from harness.cli.site import histories_of, with_figures, write_site
    from harness.diff import compare
    from harness.limits import limits_of
    from harness.report.html import Site, render_site
    from harness.table import fill, stored

    if folder is None:
        raise HarnessError("--format html writes a folder of pages; name it with -o DIR")
    planned = make_plan(with_figures(catalog, catalog.find(tables)), chosen)
    results = stored(planned, store, describe("auto"))
    diffs = tuple(compare(fill(spec, planned, results)) for spec in planned.specs)
    histories = histories_of(planned, store)
    site = Site(
        diffs=diffs,
        histories=histories,
        limits={diff.spec.id: limits_of(diff.table, store) for diff in diffs} if limits else {},
        unused=tuple(dict.fromkeys(store.damaged)),
    )
    write_site(folder, render_site(site))
    for damage in site.unused:
        print(f"warning: {damage}", file=sys.stderr)
    click.echo(f"{folder / 'index.html'}")


def _for_terminal(  # noqa: PLR0913 -- one parameter an option
    diffs: list["Diff"], store: Store, *, width: int, color: bool, verbose: bool, limits: bool, explain: bool
) -> str:
    from harness.limits import limits_of
    from harness.report import render_explanations, render_limits, render_terminal

    text = "\n".join(render_terminal(diff, width=width, color=color, verbose=verbose) for diff in diffs)
    if limits:
        text += "".join("\n" + render_limits(limits_of(d.table, store), width=width, color=color) for d in diffs)
    if explain:
        text += "".join(render_explanations(diff, width=width, color=color) for diff in diffs)
    return text


def _for_others(diffs: list["Diff"], form: str, published: str | None, *, explain: bool) -> str:
    """Write tables for other programs and for papers."""
    from harness import report

    if form == "latex":
        return report.render_latex(diffs, published)
    if form == "markdown":
        return report.render_comment(diffs, explain=explain)
    if form == "json":
        return report.render_json(diffs, explain=explain)
    renderers = {
        "csv": report.render_csv,
        "pytest-benchmark": report.render_pytest_benchmark,
    }
    return renderers[form](diffs)


@cli.command()
@click.argument("name")
@options.measuring
@options.training
@options.data
@options.edition
@options.runs
@click.option("--chart", type=click.Choice(tuple(CHARTS)), help="What to draw  [default: what the table is drawn as]")
@click.option(
    "--points",
    type=click.Choice(POINTS),
    default="both",
    show_default=True,
    help="Ours over the published, or either.",
)
@click.option("--style", type=click.Choice(STYLES), default="paper", show_default=True, help="Where it is to be seen.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="png, svg or pdf by its suffix  [default: figures/NAME.png]"
)
def figure(  # noqa: PLR0913
    name: str,
    edition: str,
    runs: Path,
    *,
    chart: str | None,
    points: str,
    style: str,
    output: Path | None,
    **told: Any,  # noqa: ANN401
) -> None:
    """Draw a figure from the results there are: over the published points, layer by layer, of speeds or trainings."""
    spec = Catalog(edition=edition).find([name])[0]
    chosen = chart_of(spec, chart)
    path = output or Path("figures") / f"{spec.name}{f'-{chart}' if chart else ''}.png"
    table = _stored_table(spec, filled_store(runs), describe("auto"), options.options_of(told))
    _draw(table, path, chart=chosen, points=points, style=style)
    click.echo(f"{path}")


@cli.command()
@options.data
@options.weights
@options.device
@options.runs
@click.option("--ceilings", is_flag=True, help="Measure what the device can do at most, and keep it with the results.")
def doctor(data: dict[str, str], weights: Path | None, device: str, runs: Path, *, ceilings: bool) -> int:
    """Show versions, devices, which cards this build of torch can run, what is wrong with data or weights."""
    from harness.cli.doctor import findings

    if weights is not None or data:
        sound = [_list_weights(weights)] if weights is not None else []
        sound += [_check_images(name, where) for name, where in data.items()]  # every one, also after a bad one
        return OK if all(sound) else SOME_FAILED
    text, healthy = findings()
    click.echo(text, nl=False)
    if ceilings:
        return _measure_ceilings(device, runs)
    return OK if healthy else SOME_FAILED


def _list_weights(folder: Path) -> bool:
    """Print which weights of the shipped tables are in a folder, and which are not; whether what is there fits."""
    from harness.launch import LocalLauncher
    from harness.progress import Inputs

    inputs, launcher = Inputs(weights=folder), LocalLauncher()
    jobs = {job.weights_name: job for job in make_plan(Catalog().find(["all"])).all_jobs if job.weights_name}
    seen = launcher.look(inputs, tuple(jobs.values()))
    absent = [name for name, why in seen.missing.items() if "no weights of" in why]
    problems = {name: why for name, why in seen.missing.items() if name not in absent}
    problems |= launcher.unfit(inputs, tuple(jobs[name] for name in seen.weights))
    found = {name: digest for name, digest in seen.weights.items() if name not in problems}
    click.echo(f"weights   {len(found)} of {len(jobs)} that the tables name: {folder}")
    for name, digest in found.items():
        click.echo(f"found     {name}, SHA-256 {str(digest)[:12]}…")
    for why in problems.values():
        click.echo(f"problem   {why}")
    for name in absent:
        click.echo(f"missing   {name}")
    return not problems


def _check_images(data: str, where: str) -> bool:
    """Look at every image of a data set and print what was found; whether nothing is wrong."""
    from harness.cli.display import counting
    from harness.launch import LocalLauncher
    from harness.progress import Checked, Inputs

    found = Checked()
    with counting(f"looking at {data}") as show:
        for found in LocalLauncher().check(Inputs(data={data: where}), data):
            show(found.done, found.total)
    notes = [*_strange_name(data), *found.notes]
    lines = [*found.lines, *(f"note      {note}" for note in notes), *(f"problem   {one}" for one in found.problems)]
    click.echo("\n".join([f"data      {data}: {where}", *lines]))
    return not found.problems


def _strange_name(data: str) -> list[str]:
    """Say that a name is none of ours: a misspelt one is taken for a data set that nothing is known of."""
    known = _data_sets(make_plan(Catalog().find(["all"])))
    return [] if data in known else [f"no shipped table has a data set '{data}'{did_you_mean(data, known)}"]


def _measure_ceilings(device: str, runs: Path) -> int:
    from harness.cli.display import watcher
    from harness.launch import LocalLauncher
    from harness.limits import PRECISION, ceilings_job
    from harness.run import Done, Runner, site_of

    store, done = Store(runs), Done()
    store.prepare()
    with watcher(quiet=False) as show:
        runner = Runner(store=store, launcher=LocalLauncher(), site=site_of(device), watcher=show, done=done)
        runner.measure([ceilings_job(precision) for precision in PRECISION.values()], rerun=True)
    for result in done.measured:
        found = ", ".join(f"{name} {m.value:.3g} {m.unit}" for name, m in result.metrics.items())
        click.echo(f"ceilings  {result.job['precision']}: {result.error or found}")
    return SOME_FAILED if done.failed else OK


cli.add_command(gating.check)
cli.add_command(gating.baseline)
cli.add_command(history.compare)
cli.add_command(history.runs)
cli.add_command(cluster.status)
cli.add_command(cluster.cancel)
