"""`harness import`: a table that was copied -> a spec of one's own."""

from collections import Counter
from pathlib import Path
from shlex import quote

import click

from harness.cli.console import align, break_lines, echo, note, terminal_width, write_file
from harness.cli.usage import options
from harness.cli.usage.command import CELLS, OUTPUT, Command, argument
from harness.errors import HarnessError
from harness.specs.catalog import schema_file
from harness.specs.importing.grid import FORMATS
from harness.specs.importing.models import ModelNames
from harness.specs.importing.table import ImportedTable, read_table
from harness.specs.importing.toml import left_alone, sureness, write_spec
from harness.specs.reader import parse


@click.command(
    "import",
    cls=Command,
    examples={
        "harness import table.tex -o mine.toml": "Make a spec of a table in LaTeX.",
        "harness import README.md --table 2 -o mine.toml": "Of the second table of a page in Markdown.",
        "harness import README.md --family deit3 -o mine.toml": "Of one whose ViT-B is timm's deit3_base.",
    },
)
@argument(
    "file",
    metavar="FILE",
    type=options.PATH,
    describes="The file that has the table; - is stdin.",
    needs="the file of a table",
    remedy="name a file in LaTeX, HTML, Markdown or CSV, or - for stdin",
)
@options.option(
    *("-o", "--output"),
    group=OUTPUT,
    typed=True,
    type=options.PATH,
    required=True,
    help="The spec to write, a new .toml file.",
)
@options.option(
    "--format",
    "form",
    group=CELLS,
    typed=True,
    type=click.Choice(tuple(FORMATS)),
    help="Format of the file  [default: by its suffix]",
)
@options.option("--table", "number", group=CELLS, type=options.count(1), help="Which of several tables, from 1 on.")
@options.option(
    "--family",
    group=CELLS,
    metavar="NAME",
    help="How timm's names of the models begin, as deit3  [default: by the labels and titles]",
)
@options.option("--cite", group=OUTPUT, metavar="TEXT", help="Where the values were published  [default: FILE]")
def import_table(  # noqa: PLR0913
    file: Path, output: Path, *, form: str | None, number: int | None, family: str | None, cite: str | None
) -> None:
    """Make a spec of a table in LaTeX, HTML, Markdown or CSV.

    Columns are recognised by their headings, models by timm's names.  Digits stay as printed, marks become footnotes,
    and what is not understood becomes a comment.  The spec has to be compared with its source before it is used.
    """
    from harness.run.launch import LocalLauncher
    from harness.specs.importing.files import STDIN, read_grid

    if output.suffix != ".toml":
        raise HarnessError(f"-o {output}: a spec is a file that ends in .toml; name it {output}.toml")
    if output.exists():
        raise HarnessError(f"-o {output}: exists already; remove it, or name another file")
    grid = read_grid(file, form, number)
    names = ModelNames(LocalLauncher(announce=note).model_names())
    origin = "stdin" if file == STDIN else file.name
    try:
        table = read_table(grid, names, family=family)
    except HarnessError as error:
        raise HarnessError(f"{origin}: {error}") from error
    text = write_spec(table, origin=origin, cite=cite or origin, schema=schema_file("spec"))
    parse(output, text)
    write_file(output, text)
    path = str(output) if output.is_absolute() or output.parts[0] == ".." else f"./{output}"
    echo("\n".join([*describe(table, terminal_width()), f"next: harness plan {quote(path)}"]))


def describe(table: ImportedTable, width: int) -> list[str]:
    """Return what was understood of a table and what was not, in lines."""
    unknown = left_alone(table.rows)
    count = sum(len(row.published) for row in table.rows)
    shape = (
        f"{len(table.rows)} rows × {len(table.columns)} columns, {count} of {count + len(unknown)} values understood"
    )
    columns = [
        (column.label, f"{column.meaning.says} ({column.meaning.job})" if column.meaning else column.remark)
        for column in table.columns
    ]
    lines = [shape, "", "columns", *align(columns, width, broken=[1], indent=2)]
    if table.measures:
        levels = Counter(row.match.sureness for row in table.rows)
        models = ", ".join(f"{number} {level}" for level, number in levels.items())
        rows = [(row.label, sureness(row.match)) for row in table.rows]
        lines += ["", f"models: {models}", *align(rows, width, broken=[1], indent=2)]
    unclear = [*table.left_out, *unknown]
    lines += (
        ["", "not understood, comments in the file", *break_lines(map("  {}".format, unclear), width)]
        if unclear
        else []
    )
    return [*lines, ""]
