"""`harness report`, `trend` and `figure`: results -> tables and figures, measuring nothing."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.console import deliver, echo, meanwhile, note, page_of
from harness.cli.side_by_side import BY, WITHOUT, report_sides
from harness.cli.usage import options
from harness.cli.usage.command import OUTPUT, RESULTS, Command, argument
from harness.cli.usage.completion import complete_tables
from harness.cli.usage.options import open_store
from harness.errors import HarnessError
from harness.figure.catalog import CHARTS, POINTS, STYLES
from harness.machine import describe
from harness.plan.options import make_options
from harness.plan.plan import Options, make_plan
from harness.specs import Catalog

if TYPE_CHECKING:
    from harness.judge.verdict import Diff
    from harness.store.store import Store


@click.command(
    cls=Command,
    examples={
        "harness report table5": "Print table 5 from the results in runs/.",
        "harness report table5 --runs DIR --format markdown -o table5.md": "The same for a pull request.",
        "harness report all --format html -o site": "Write a site, which begins with site/index.html.",
    },
)
@options.tables
@options.selection
@options.throughput
@options.machine
@options.explaining
@options.show_training
@options.data
@options.edition
@options.several_runs
@options.option(
    "--by",
    group=RESULTS,
    type=click.Choice(BY),
    help="Put the results of each machine, of each version of torch and timm, or of each protocol side by side.",
)
@options.option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(("terminal", "markdown", "csv", "json", "latex", "pytest-benchmark", "html")),
    default="terminal",
    help="Format of the tables.",
)
@options.option(
    "-o",
    "--output",
    group=OUTPUT,
    type=options.PATH,
    help="File to write, for html a folder  [default: print]",
)
@options.option(
    "--diff",
    "published",
    group=OUTPUT,
    type=click.Choice(("beside", "below")),
    is_flag=False,
    flag_value="below",
    help="In LaTeX, set the published value in grey next to or below ours  [without a value: below]",
)
@options.option(
    "--all-columns",
    "everything",
    group=OUTPUT,
    is_flag=True,
    help="Show also columns and rows of which nothing was measured.",
)
@options.option("--roofline", group=OUTPUT, is_flag=True, help="Show each throughput as a share of the machine's peak.")
@options.option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show the reason of every verdict.")
def report(
    tables: tuple[str, ...],
    edition: str,
    runs: tuple[Path, ...],
    by: str | None,
    output: Path | None,
    **params: Any,  # noqa: ANN401
) -> None:
    """Print tables from the results there are, measuring nothing."""
    from harness.judge.judged import judged_tables
    from harness.report import render_comment, render_csv, render_json, render_latex, render_pytest_benchmark

    form, published, explain = params["form"], params["published"], params["explain"]
    everything = params["everything"]
    if explain and form == "csv":
        raise HarnessError(
            "--explain: CSV has one line a cell and no place for explanations; add --format json, or leave it out"
        )
    if published and form != "latex":
        raise HarnessError(f"--diff: is for --format latex; --format {form} has the published values in any case")
    catalog, requested = Catalog(edition=edition), make_options(params)
    if by:
        _refuse(
            by, form, {name: params[name] for name in ("published", "explain", "roofline", "everything", "verbose")}
        )
        stores = [open_store(folder) for folder in runs]
        report_sides(catalog.find(tables), requested, stores, by=by, form=form, output=output)
        return
    if len(runs) > 1:
        raise HarnessError("--runs is given twice; add --by machine to show their results side by side, or drop one")
    store = open_store(runs[0])
    if form == "html":
        _write_site(catalog, tables, requested, store, output, roofline=params["roofline"])
        return
    specs = catalog.find(tables)
    with meanwhile(f"reading {runs[0]}/"):
        diffs = judged_tables(specs, requested, store, describe("auto")).diffs
    peaks = store if params["roofline"] else None
    renderers = {
        "terminal": lambda: render_tables(
            diffs,
            verbose=params["verbose"],
            explain=explain,
            everything=everything,
            roofline=peaks,
            output=output,
        ),
        "latex": lambda: render_latex(diffs, published, everything=everything),
        "markdown": lambda: render_comment(diffs, explain=explain, everything=everything),
        "json": lambda: render_json(diffs, explain=explain),
        "csv": lambda: render_csv(diffs),
        "pytest-benchmark": lambda: render_pytest_benchmark(diffs),
    }
    text = renderers[form]()
    deliver(text, output)
    measurable = any(not cell.filled.planned.idle for diff in diffs for cell in diff.judged_cells.values())
    if measurable:
        _note_missing(*runs)


def _note_missing(*folders: Path) -> None:
    for folder in folders:
        if not folder.exists():
            note(f"note: there is no folder {folder}/, so there are no results; --runs DIR names another")


def _refuse(by: str, form: str, given: dict[str, object]) -> None:
    """Refuse what cannot be combined with `--by`."""
    if form in WITHOUT:
        raise HarnessError(f"--by {by}: --format {form} has one machine; choose another format, or leave out --by")
    names = {"published": "diff", "everything": "all-columns"}
    for name, value in given.items():
        if value:
            raise HarnessError(f"--by {by}: --{names.get(name, name)} is for a table of one machine; leave out either")


def render_tables(  # noqa: PLR0913
    diffs: Sequence["Diff"],
    *,
    verbose: bool,
    explain: bool,
    everything: bool = False,
    roofline: "Store | None" = None,
    output: Path | None = None,
) -> str:
    """Render tables for the terminal; `roofline` is the store of the peaks to hold the throughputs against."""
    from harness.judge.roofline import roofline_of
    from harness.report import render_explanations, render_roofline, render_terminal

    width, color = page_of(output)
    text = "\n".join(
        render_terminal(diff, width=width, color=color, verbose=verbose, everything=everything) for diff in diffs
    )
    if roofline is not None:
        for diff in diffs:
            text += "\n" + render_roofline(roofline_of(diff.table, roofline), width=width, color=color)
    if explain:
        text += "".join(render_explanations(diff, width=width, color=color) for diff in diffs)
    return text


def _write_site(  # noqa: PLR0913
    catalog: Catalog, tables: Sequence[str], requested: Options, store: "Store", folder: Path | None, *, roofline: bool
) -> None:
    """Write a site of the tables and of the figures that go with them."""
    from harness.judge.judged import judged_tables
    from harness.judge.roofline import roofline_of
    from harness.judge.trend import find_trends
    from harness.report.html import SiteContent, render_site
    from harness.report.html.write import histories_of, with_figures, write_site
    from harness.report.trend import is_shown
    from harness.store.store import Store

    if folder is None:
        raise HarnessError("--format html writes a folder of pages; name it with -o DIR")
    judged = judged_tables(with_figures(catalog, catalog.find(tables)), requested, store, describe("auto"))
    # A reader of its own: what is damaged is reported once, by the tables.
    trends = find_trends(judged.plan, Store(store.root).all_results(), requested)
    shown = [(diff, each) for diff, each in zip(judged.diffs, trends, strict=True) if any(map(is_shown, each.trends))]
    if shown:
        from harness.figure.draw import trend_svg
    site = SiteContent(
        diffs=judged.diffs,
        trends={diff.spec.id: (each, trend_svg(diff.table, each)) for diff, each in shown},
        histories=histories_of(judged.plan, store),
        rooflines={diff.spec.id: roofline_of(diff.table, store) for diff in judged.diffs} if roofline else {},
        unused=tuple(dict.fromkeys(store.damaged)),
    )
    write_site(folder, render_site(site))
    echo(f"{folder / 'index.html'}")


@click.command(
    cls=Command,
    examples={
        "harness trend table5": "Say which throughputs of table 5 changed, when, and between which versions.",
        "harness trend table5 --runs runs --runs nightly --format json": "The same of two folders, for a program.",
    },
)
@options.tables
@options.selection
@options.throughput
@options.machines
@options.show_training
@options.data
@options.edition
@options.several_runs
@options.option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(("terminal", "markdown", "json")),
    default="terminal",
    help="Format of the trend.",
)
@options.option("-o", "--output", group=OUTPUT, type=options.PATH, help="File to write  [default: print]")
def trend(tables: tuple[str, ...], edition: str, runs: tuple[Path, ...], output: Path | None, **params: Any) -> None:  # noqa: ANN401
    """Show which cells changed over time.

    For each change: when, and between which versions.  A cell on one machine is a series of all its results; a change
    is a step of its level that is more than noise.
    """
    from harness.judge.trend import find_trends
    from harness.report.trend import render_trend, render_trend_json, render_trend_markdown

    requested = make_options(params)
    plan = make_plan(Catalog(edition=edition).find(tables), requested)
    trends = find_trends(plan, chain.from_iterable(open_store(folder).all_results() for folder in runs), requested)
    if params["form"] == "terminal":
        width, color = page_of(output)
        text = "\n".join(render_trend(each, width=width, color=color) for each in trends)
    else:
        text = (render_trend_json if params["form"] == "json" else render_trend_markdown)(trends)
    deliver(text, output)
    _note_missing(*runs)


@click.command(
    cls=Command,
    examples={
        "harness figure figure1": "Draw throughput and accuracy over the published points.",
        "harness figure table5 --chart runs --style slides -o table5.svg": "Draw throughputs for slides.",
    },
)
@argument(
    "name",
    metavar="NAME",
    shell_complete=complete_tables,
    describes="figure1, figure3, a table or the path of a spec file.",
    needs="the name of a figure or a table",
    remedy="`harness list` shows the names",
)
@options.throughput
@options.machine
@options.show_training
@options.data
@options.edition
@options.runs
@options.option(
    "--chart",
    group=OUTPUT,
    type=click.Choice(tuple(CHARTS)),
    help="Kind of chart  [default: the one that the table is drawn as]",
)
@options.option(
    "--points",
    group=OUTPUT,
    type=click.Choice(POINTS),
    default="both",
    help="Measured over published values, or either.",
)
@options.option("--x", group=OUTPUT, metavar="COLUMN", help="Column on the horizontal axis of --chart points.")
@options.option("--y", group=OUTPUT, metavar="COLUMN", help="Column on its vertical axis.")
@options.option("--pareto/--no-pareto", group=OUTPUT, help="Draw the Pareto fronts of --chart points.")
@options.option("--style", group=OUTPUT, type=click.Choice(STYLES), default="paper", help="Medium to draw for.")
@options.option(
    "-o",
    "--output",
    group=OUTPUT,
    type=options.PATH,
    help="File to write, .png, .svg or .pdf  [default: figures/NAME.png]",
)
def figure(name: str, edition: str, runs: Path, output: Path | None, **params: Any) -> None:  # noqa: ANN401
    """Draw a figure from the results there are.

    It shows trade-offs, layers, throughputs, trainings or cells over time.
    """
    from harness.figure.drawing import Chart, make_drawing

    (spec,) = Catalog(edition=edition).find([name])
    asked = Chart(kind=params["chart"], **{key: params[key] for key in ("x", "y", "points", "style", "pareto")})
    chart, spec = asked.of(spec)
    path = output or Path("figures") / f"{asked.file_name(spec)}.png"
    store = open_store(runs)
    with meanwhile(f"drawing {path}"):
        drawing = make_drawing(spec, chart, make_options(params), store, describe("auto"))
        drawing.save(path)
    echo(f"{path}")
    if chart.points != "published" and not drawing.is_measured:
        note(f"note: no measured points in {runs}/: published values only")
