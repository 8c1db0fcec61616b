"""The site: every page rendered from its template, with the style, the scripts and the plotting library."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import __version__
from harness.cleaning import visible
from harness.errors import HarnessError
from harness.judge.ablation import Ablation
from harness.judge.roofline import Roofline
from harness.judge.sides import SideBySide
from harness.judge.trend import TableTrend
from harness.judge.verdict import Diff, Verdict
from harness.report import ablation, formatting, trend
from harness.report.data import render_json, render_sides_json
from harness.report.html.cells import exact, readable, sheet_view, signed
from harness.report.html.chart import interactive_chart
from harness.report.html.index import index_page, tally
from harness.report.html.links import PageLinks, cell_ids, contents, page_links, table_name
from harness.report.html.runs import HISTORY, cells_by_run, facts, is_measured, machine_facts, outcome, samples
from harness.report.sheet import JUDGED, Sheet, SheetColumn, sections, table_sheets
from harness.report.sides import sides_sheets
from harness.specs import Column, Row
from harness.store.result import Result

HERE = Path(__file__).parent
ASSETS = ("style.css", "site.js", "plots.js")


@dataclass(frozen=True, kw_only=True)
class SiteContent:
    """What the pages are made of.

    `histories` has the results of each job, newest first, by the key of the job; `rooflines` those that were asked
    for, by the id of the table; `unused` a sentence for each file of the store that could not be used.  `trends` has
    the history of tables of which some cell has one, each with its figure as SVG, by the id of the table.
    """

    diffs: tuple[Diff, ...]
    histories: Mapping[str, tuple[Result, ...]] = field(default_factory=dict)
    rooflines: Mapping[str, Mapping[Column, list[Roofline]]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    trends: Mapping[str, tuple[TableTrend, str]] = field(default_factory=dict)


def render_site(content: SiteContent) -> dict[str, str]:
    """Return the text of every file of the site by its path.  The same results give the same text."""
    cells = [judged.filled for diff in content.diffs for judged in diff.judged_cells.values()]
    results = {(result.job.key, result.id): result for filled in cells for result in filled.results}
    links = page_links(content.diffs, results.values())
    environment = _environment(content.diffs, links)
    files = {f"assets/{name}": (HERE / "static" / name).read_text(encoding="utf-8") for name in ASSETS}
    files["assets/plotly.min.js"] = _plotly()
    files |= _tables(content, links, environment)
    files |= _trends(content, links, environment)
    shown = cells_by_run(content.diffs, links)
    template = environment.get_template("run.html")
    for result in results.values():
        others = [run for run in content.histories.get(result.job.key, ()) if run.id != result.id][:HISTORY]
        page = links.run(result)
        files[page] = template.render(
            root="../", result=result, samples=dict(samples(result)), cells=shown.get(page, ()), others=others
        )
    charts = (interactive_chart(diff, links, "") for diff in content.diffs)
    files["index.html"] = environment.get_template("index.html").render(
        root="", **index_page(content.diffs, links), chart=next(filter(None, charts), None), unused=content.unused
    )
    return files


def render_sides_site(tables: Sequence[SideBySide]) -> dict[str, str]:
    """Return a site of one page: tables with their sides next to each other."""
    environment = _environment((), page_links((), ()))
    files = {
        f"assets/{name}": (HERE / "static" / name).read_text(encoding="utf-8") for name in ("style.css", "site.js")
    }
    files["sides.json"] = render_sides_json(tables)
    files["index.html"] = environment.get_template("sides.html").render(
        root="",
        by=tables[0].by,
        sheets=[sheet for table in tables for sheet in sides_sheets(table)],
        columns_of=_all_shown,
        sections=sections,
    )
    return files


def render_fragment(diffs: Sequence[Diff]) -> str:
    """Return tables as HTML to put into a page, as a notebook shows it; the reason of each verdict is on its cell."""
    environment = _environment((), page_links((), ()))
    reasons = [{key: judged.reason for key, judged in diff.judged_cells.items() if judged.is_counted} for diff in diffs]
    return environment.get_template("notebook.html").render(
        style=(HERE / "static" / "notebook.css").read_text(encoding="utf-8"),
        sheets=[(sheet, why) for diff, why in zip(diffs, reasons, strict=True) for sheet in table_sheets(diff)],
        columns_of=_all_shown,
        sections=sections,
    )


def _all_shown(sheet: Sheet) -> list[tuple[SheetColumn, bool]]:
    return [(column, False) for column in sheet.columns]


def _environment(diffs: Iterable[Diff], links: PageLinks) -> Environment:
    """Make the templates: what they are given is always escaped, and a name they do not know is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"exact": exact, "facts": facts, "readable": readable, "signed": signed}
    environment.globals |= {
        "version": __version__,
        "contents": contents(diffs, links),
        "plural": lambda count, word: f"{count:,} {word}{'' if count == 1 else 's'}",
        "links": links,
        "formatting": formatting,
        "ablation": ablation,
        "table_name": table_name,
        "tally": tally,
        "is_measured": is_measured,
        "machine_facts": machine_facts,
        "outcome": outcome,
        "Verdict": Verdict,
        "JUDGED": JUDGED,
    }
    return environment


def _visible(value: object) -> object:
    return visible(value) if type(value) is str else value  # what jinja2 escaped already is of another type


def _plotly() -> str:
    """Read the plotting library that the package plotly brings; the package itself is never imported."""
    spec = find_spec("plotly")
    path = Path(str(spec.origin)).parent / "package_data" / "plotly.min.js" if spec else None
    if path is None or not path.is_file():
        raise HarnessError(
            "--format html needs plotly.min.js of the package plotly; run `pip install --upgrade plotly`"
        )
    return path.read_text(encoding="utf-8")


def _tables(content: SiteContent, links: PageLinks, environment: Environment) -> Iterator[tuple[str, str]]:
    template = environment.get_template("table.html")
    figures: dict[tuple[str | None, str], Diff] = {(d.spec.name, d.spec.edition): d for d in reversed(content.diffs)}
    pages = contents(content.diffs, links)
    for number, diff in enumerate(content.diffs):
        page = links.table(diff)
        turns = {"prev": pages[number - 1] if number else None, "next": next(iter(pages[number + 1 :]), None)}
        data = page.replace(".html", ".json")
        yield data, render_json([diff])
        labelled: list[Column | Row] = [*diff.spec.columns, *diff.spec.rows]
        notes = [f"{part.label}: {part.note}" for part in labelled if part.note]
        html = template.render(
            root="../",
            diff=diff,
            turns={way: target for way, target in turns.items() if target},
            ids=cell_ids(diff),
            sheet=sheet_view(diff, links),
            ablations=[(column, _training_links(diff, column, links)) for column in diff.ablations],
            notes=[diff.spec.note, *notes] if diff.spec.note else notes,
            footnotes=[f"[{note.mark}] {note.text}" for note in formatting.footnotes(diff)],
            rooflines=content.rooflines.get(diff.spec.id, {}),
            chart=interactive_chart(diff, links, "../"),
            figure=figures.get((diff.spec.figure, diff.spec.edition)),
            data=data.rpartition("/")[2],
            over_time=_over_time(page) if diff.spec.id in content.trends else "",
        )
        yield page, html


def _over_time(page: str) -> str:
    """Return the page of a table's history, by that of the table."""
    return f"trends/{page.rpartition('/')[2]}"


def _trends(content: SiteContent, links: PageLinks, environment: Environment) -> Iterator[tuple[str, str]]:
    """Yield the history of each table that has one, and its figure."""
    template = environment.get_template("trend.html")
    for diff in content.diffs:
        if diff.spec.id in content.trends:
            table_trend, figure = content.trends[diff.spec.id]
            page = _over_time(links.table(diff))
            if figure:
                yield page.replace(".html", ".svg"), figure
            yield (
                page,
                template.render(
                    root="../",
                    diff=diff,
                    headline=trend.headline(table_trend),
                    remarks=list(trend.remarks(table_trend)),
                    sections=trend.series_by_column(table_trend),
                    heading=trend.HEADING,
                    notes=trend.notes_of(table_trend),
                    figure=page.rpartition("/")[2].replace(".html", ".svg") if figure else "",
                ),
            )


def _training_links(diff: Diff, column: Ablation, links: PageLinks) -> dict[str, list[tuple[int, str]]]:
    """Return for each row the seeds and pages of its trainings, or of what was measured where they are not stored."""
    pages = {}
    for effect in column.rows:
        filled = diff.judged_cells[effect.row.key, column.column.key].filled
        results = [(result, links.run(result)) for result in filled.trainings or filled.results]
        pages[effect.row.key] = [
            (int((result.job.need("weights") or result.job)["seed"]), page) for result, page in results if page
        ]
    return pages
