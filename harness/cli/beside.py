"""`harness report --by`: results of several machines, versions or protocols -> one table with all of them."""

from collections.abc import Sequence
from pathlib import Path

from harness.cli.console import echo, terminal_width, use_color, write_file
from harness.plan.plan import Options
from harness.specs import Spec
from harness.store.store import Store

BY = ("machine", "software", "protocol")

# Formats that have no place for several machines.
WITHOUT = ("pytest-benchmark",)

FILE_WIDTH = 100


def report_sides(  # noqa: PLR0913
    specs: Sequence[Spec], options: Options, stores: Sequence[Store], *, by: str, form: str, output: Path | None
) -> None:
    """Write the tables with the sides beside each other, in a format that is not HTML."""
    from harness.judge.sides import side_by_side
    from harness.report import (
        render_sheets,
        render_sheets_latex,
        render_sheets_markdown,
        render_sides_csv,
        render_sides_json,
        sides_sheets,
    )

    tables = side_by_side(specs, options, stores, by=by)
    sheets = [sheet for table in tables for sheet in sides_sheets(table)]
    width, color = (FILE_WIDTH, False) if output is not None else (terminal_width(), use_color())
    text = {
        "terminal": lambda: render_sheets(sheets, width=width, color=color),
        "markdown": lambda: render_sheets_markdown(sheets),
        "latex": lambda: render_sheets_latex(sheets),
        "json": lambda: render_sides_json(tables),
        "csv": lambda: render_sides_csv(tables),
    }[form]()
    if output is None:
        echo(text, styled=True, end="")
    else:
        write_file(output, text)
        echo(f"{output}")
