"""The site: every page rendered from its template, with the style, the scripts and the plotting library beside them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import __version__
from harness.diff import Diff, Verdict
from harness.errors import HarnessError
from harness.limits import Limits
from harness.report import effects, words
from harness.report.data import render_json
from harness.report.html.addresses import Addresses, addresses_of
from harness.report.html.cells import EffectView, effects_of, groups_of, place_of
from harness.report.html.chart import Chart, chart_of
from harness.report.html.front import front_of, name_of, shares_of
from harness.report.html.runs import cells_by_run, run_of
from harness.result import Result
from harness.spec import Column

HERE = Path(__file__).parent
ASSETS = ("style.css", "site.js", "plots.js")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the pages are made of.

    `histories` has the results of each job, newest first, by the key of the job; `limits` those that were asked for,
    by the id of the table; `unused` a sentence for each file of the store that could not be used.
    """

    diffs: tuple[Diff, ...]
    histories: Mapping[str, tuple[Result, ...]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[Column, list[Limits]]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def render_site(site: Site) -> dict[str, str]:
    """Give the text of every file of the site by its path.  The same results give the same text."""
    results = _results(site.diffs)
    addresses = addresses_of(site.diffs, results)
    pages = _environment(site.diffs, addresses)
    files = {f"assets/{name}": (HERE / "static" / name).read_text(encoding="utf-8") for name in ASSETS}
    files["assets/plotly.min.js"] = _plotly()
    files |= _tables(site, addresses, pages)
    shown = cells_by_run(site.diffs, addresses)
    run = pages.get_template("run.html")
    for result in results:
        history = site.histories.get(result.job.key, ())
        view = run_of(result, addresses, shown.get(addresses.of_run(result), ()), history)
        files[view.page] = run.render(root="../", run=view)
    front = front_of(site.diffs, addresses)
    files["index.html"] = pages.get_template("front.html").render(
        root="", front=front, chart=_first_chart(site.diffs, addresses), unused=site.unused
    )
    return files


def _results(diffs: Iterable[Diff]) -> list[Result]:
    """Find every run behind a cell, once."""
    found: dict[tuple[str, str], Result] = {}
    for diff in diffs:
        for finding in diff.findings.values():
            for result in finding.filled.results:
                found.setdefault((result.job.key, result.id), result)
    return list(found.values())


def _environment(diffs: Iterable[Diff], addresses: Addresses) -> Environment:
    """Make the templates: what they are given is always escaped, and a name they do not know is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "version": __version__,
        "contents": [(name_of(diff), diff.spec.title, addresses.of_table(diff)) for diff in diffs],
        "signs": {str(verdict): sign for verdict, sign in words.SIGNS.items()},
        "number": words.number,
        "plural": lambda count, word: f"{count:,} {word}{'' if count == 1 else 's'}",
        "Verdict": Verdict,
    }
    return environment


def _plotly() -> str:
    """Read the plotting library that the package plotly brings; the package itself is never imported."""
    found = find_spec("plotly")
    path = Path(str(found.origin)).parent / "package_data" / "plotly.min.js" if found else None
    if path is None or not path.is_file():
        raise HarnessError(
            "--format html needs plotly.min.js of the package plotly; run `pip install --upgrade plotly`"
        )
    return path.read_text(encoding="utf-8")


def _tables(site: Site, addresses: Addresses, pages: Environment) -> Iterator[tuple[str, str]]:
    template = pages.get_template("table.html")
    for diff in site.diffs:
        page = addresses.of_table(diff)
        data = page.replace(".html", ".json")
        yield data, render_json([diff])
        limits = site.limits.get(diff.spec.id, {})
        yield (
            page,
            template.render(
                root="../",
                diff=diff,
                name=name_of(diff),
                groups=groups_of(diff, addresses),
                effects=_effects_in(diff, addresses),
                introduction=effects.introduction(diff) if diff.effects else "",
                shares=shares_of(diff.counts),
                headings=[words.heading(column.label, _unit(diff, column)) for column in diff.spec.columns],
                notes=_notes(diff),
                reasons=words.reasons(diff),
                footnotes=words.footnotes(diff),
                doubts=words.doubts(diff),
                shapes=[
                    (shape, words.shape_sentence(shape), words.ratios_by_reference(shape)) for shape in diff.shapes
                ],
                limits=[(column, words.limits_lines(rows)) for column, rows in limits.items()],
                chart=chart_of(diff, addresses, "../"),
                figure=_figure_of(diff, site.diffs, addresses),
                data=data.rpartition("/")[2],
            ),
        )


def _effects_in(diff: Diff, addresses: Addresses) -> list[tuple[str, str, list[EffectView], str]]:
    """Give place and text of the heading of each column, its lines, and what they come to."""
    return [
        (
            place_of(diff, column.default_row, column.column),
            effects.heading(column),
            effects_of(column, diff, addresses),
            effects.signs_sentence(column),
        )
        for column in diff.effects
    ]


def _notes(diff: Diff) -> list[tuple[str, str]]:
    """Give the remarks on columns and on rows."""
    columns = [(column.label, column.note) for column in diff.spec.columns if column.note]
    return columns + [(row.label, row.note) for row in diff.spec.rows if row.note]


def _unit(diff: Diff, column: Column) -> str:
    """Give the unit of a column, or nothing where its rows have several."""
    units = {diff.findings[row.key, column.key].filled.cell.unit for row in diff.spec.rows}
    return units.pop() if len(units) == 1 else ""


def _figure_of(diff: Diff, diffs: Iterable[Diff], addresses: Addresses) -> tuple[str, str] | None:
    """Give name and page of the figure that goes with a table, where the site has it."""
    same = (one for one in diffs if one.spec.name == diff.spec.figure and one.spec.edition == diff.spec.edition)
    return next(((name_of(one), addresses.of_table(one)) for one in same), None)


def _first_chart(diffs: Iterable[Diff], addresses: Addresses) -> Chart | None:
    return next((chart for diff in diffs if (chart := chart_of(diff, addresses, ""))), None)
