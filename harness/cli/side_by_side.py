"""`harness report --by`: results of several machines, versions or protocols -> one table with all of them."""

from collections.abc import Sequence
from pathlib import Path

from harness.cli.console import deliver, echo, meanwhile, page_of
from harness.errors import HarnessError
from harness.plan.plan import Options
from harness.specs import Spec
from harness.store.store import Store

BY = ("machine", "software", "protocol")

# Formats that have no place for several machines.
WITHOUT = ("pytest-benchmark",)


def report_sides(  # noqa: PLR0913
    specs: Sequence[Spec], options: Options, stores: Sequence[Store], *, by: str, form: str, output: Path | None
) -> None:
    """Write the tables with their sides next to each other; as HTML into the folder `output`."""
    from harness.judge.sides import side_by_side
    from harness.report import (
        render_sheets,
        render_sheets_latex,
        render_sheets_markdown,
        render_sides_csv,
        render_sides_json,
        sides_sheets,
    )

    with meanwhile(f"reading {', '.join(f'{store.root}/' for store in stores)}"):
        tables = side_by_side(specs, options, stores, by=by)
    if form == "html":
        from harness.report.html import render_sides_site
        from harness.report.html.write import write_site

        if output is None:
            raise HarnessError("--format html writes a folder of pages; name it with -o DIR")
        write_site(output, render_sides_site(tables))
        echo(f"{output / 'index.html'}")
        return
    sheets = [sheet for table in tables for sheet in sides_sheets(table)]
    width, color = page_of(output)
    text = {
        "terminal": lambda: render_sheets(sheets, width=width, color=color),
        "markdown": lambda: render_sheets_markdown(sheets),
        "latex": lambda: render_sheets_latex(sheets),
        "json": lambda: render_sides_json(tables),
        "csv": lambda: render_sides_csv(tables),
    }[form]()
    deliver(text, output)
