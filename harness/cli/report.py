"""`harness report` and `harness figure`: results -> tables and figures, measuring nothing."""

from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.completion import complete_tables
from harness.cli.console import echo, note, terminal_width, use_color, write_file
from harness.cli.options import open_store
from harness.errors import HarnessError
from harness.figure.catalog import CHARTS, POINTS, STYLES, select_chart, with_axes
from harness.machine import describe
from harness.plan.plan import Options
from harness.specs import Catalog

if TYPE_CHECKING:
    from harness.judge.verdict import Diff
    from harness.store.store import Store

FILE_WIDTH = 100


@click.command()
@options.tables
@options.selection
@options.throughput
@options.machine
@options.explaining
@options.show_training
@options.data
@options.edition
@options.runs
@options.option(
    "--format",
    "form",
    type=click.Choice(("terminal", "markdown", "csv", "json", "latex", "pytest-benchmark", "html")),
    default="terminal",
    help="Format of the tables.",
)
@options.option("-o", "--output", type=options.PATH, help="File to write, for html a folder  [default: print]")
@options.option(
    "--diff",
    "published",
    type=click.Choice(("beside", "below")),
    is_flag=False,
    flag_value="below",
    help="In LaTeX, set the published value in grey next to or below ours  [without a value: below]",
)
@options.option("--roofline", is_flag=True, help="Show each throughput as a share of the machine's peak.")
@options.option("-v", "--verbose", is_flag=True, help="Show the reason of every verdict.")
def report(tables: tuple[str, ...], edition: str, runs: Path, output: Path | None, **params: Any) -> None:  # noqa: ANN401
    """Print tables from the results there are, measuring nothing."""
    from harness.judge.judged import judged_tables
    from harness.report import render_comment, render_csv, render_json, render_latex, render_pytest_benchmark

    form, published, explain = params["form"], params["published"], params["explain"]
    if explain and form == "csv":
        raise HarnessError("--explain has no place in a line a cell; add --format json, or leave it out")
    if published and form != "latex":
        raise HarnessError(f"--diff: is for --format latex; --format {form} has the published values in any case")
    catalog, requested = Catalog(edition=edition), options.make_options(params)
    if form == "html":
        _write_site(catalog, tables, requested, open_store(runs), output, roofline=params["roofline"])
        return
    specs, store = catalog.find(tables), open_store(runs)
    diffs = judged_tables(specs, requested, store, describe("auto")).diffs
    peaks, to_file = store if params["roofline"] else None, output is not None
    renderers = {
        "terminal": lambda: render_tables(
            diffs, verbose=params["verbose"], explain=explain, roofline=peaks, to_file=to_file
        ),
        "latex": lambda: render_latex(diffs, published),
        "markdown": lambda: render_comment(diffs, explain=explain),
        "json": lambda: render_json(diffs, explain=explain),
        "csv": lambda: render_csv(diffs),
        "pytest-benchmark": lambda: render_pytest_benchmark(diffs),
    }
    text = renderers[form]()
    if output is None:
        echo(text, styled=True, end="")
    else:
        write_file(output, text)
        echo(f"{output}")
    measurable = any(not cell.filled.planned.idle for diff in diffs for cell in diff.judged_cells.values())
    if measurable and not runs.exists():
        note(f"note: there is no folder {runs}/, so there are no results; --runs DIR names another")


def render_tables(
    diffs: Sequence["Diff"], *, verbose: bool, explain: bool, roofline: "Store | None" = None, to_file: bool = False
) -> str:
    """Render tables for the terminal; `roofline` is the store of the peaks to hold the throughputs against."""
    from harness.judge.roofline import roofline_of
    from harness.report import render_explanations, render_roofline, render_terminal

    width, color = (FILE_WIDTH, False) if to_file else (terminal_width(), use_color())
    text = "\n".join(render_terminal(diff, width=width, color=color, verbose=verbose) for diff in diffs)
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
    from harness.report.html import SiteContent, render_site
    from harness.report.html.write import histories_of, with_figures, write_site

    if folder is None:
        raise HarnessError("--format html writes a folder of pages; name it with -o DIR")
    judged = judged_tables(with_figures(catalog, catalog.find(tables)), requested, store, describe("auto"))
    site = SiteContent(
        diffs=judged.diffs,
        histories=histories_of(judged.plan, store),
        rooflines={diff.spec.id: roofline_of(diff.table, store) for diff in judged.diffs} if roofline else {},
        unused=tuple(dict.fromkeys(store.damaged)),
    )
    write_site(folder, render_site(site))
    echo(f"{folder / 'index.html'}")


@click.command()
@click.argument("name", shell_complete=complete_tables)
@options.throughput
@options.machine
@options.show_training
@options.data
@options.edition
@options.runs
@options.option(
    "--chart", type=click.Choice(tuple(CHARTS)), help="Kind of chart  [default: the one that the table is drawn as]"
)
@options.option(
    "--points", type=click.Choice(POINTS), default="both", help="Measured over published values, or either."
)
@options.option("--x", metavar="COLUMN", help="Column on the horizontal axis of --chart points.")
@options.option("--y", metavar="COLUMN", help="Column on its vertical axis.")
@options.option("--pareto/--no-pareto", help="Draw the Pareto fronts of --chart points.")
@options.option("--style", type=click.Choice(STYLES), default="paper", help="Medium to draw for.")
@options.option(
    "-o", "--output", type=options.PATH, help="File to write, .png, .svg or .pdf  [default: figures/NAME.png]"
)
def figure(name: str, edition: str, runs: Path, output: Path | None, **params: Any) -> None:  # noqa: ANN401
    """Draw a figure from the results there are.

    It shows trade-offs, layers, throughputs or trainings.
    """
    from harness.figure.draw import draw
    from harness.judge.judged import judged_tables

    (spec,) = Catalog(edition=edition).find([name])
    x, y, requested = params["x"], params["y"], params["chart"]
    if x or y:
        if requested not in (None, "points"):
            raise HarnessError(f"--chart {requested}: has no columns on its axes; leave out --chart, or --x and --y")
        spec, requested = with_axes(spec, x, y), "points"
    chart, settings = select_chart(spec, requested), options.make_options(params)
    if chart == "points" and spec.axes:
        settings = replace(settings, columns=tuple(map(escape, spec.axes)))  # they may be extra ones
    of = spec.axes if (x or y) and spec.axes else filter(None, [requested])
    path = output or Path("figures") / f"{'-'.join((spec.name, *of))}.png"
    (table,) = judged_tables([spec], settings, open_store(runs), describe("auto")).tables
    draw(table, path, chart=chart, points=params["points"], style=params["style"], pareto=params["pareto"])
    echo(f"{path}")
    if params["points"] != "published" and not any(filled.measurement for filled in table.cells.values()):
        note(f"note: no measured points in {runs}/: published values only")
