"""The parts of the manual that the program itself knows: options, export columns, reference results and schemas.

`python -m docs.generate` writes each part between its markers, `<!-- generated: NAME -->` and `<!-- /generated -->`.
tests/test_docs.py fails while a page and the program differ.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from math import exp
from pathlib import Path
from random import Random
from textwrap import fill

import click

from docs import schemas
from harness import atomic
from harness.cli.importing import describe
from harness.cli.main import cli
from harness.cli.usage.command import Command, by_group
from harness.judge.judged import judged_tables
from harness.judge.trend import find_trends
from harness.plan.plan import Options, make_plan
from harness.report import render_markdown, render_terminal
from harness.report.export import FIELDS
from harness.report.trend import render_trend
from harness.specs import Catalog, Spec
from harness.specs.catalog import schema_file
from harness.specs.importing.models import ModelNames, PublicWeights
from harness.specs.importing.plain import read_markdown
from harness.specs.importing.table import ImportedTable, read_table
from harness.specs.importing.toml import write_spec
from harness.specs.reader import parse
from harness.store.result import Result
from harness.store.store import Store

DOCS = Path(__file__).parent
REFERENCE = DOCS.parent / "runs" / "reference"
CPU_RESULTS = REFERENCE / "cpu-xeon-2-cores-2026-11-21"
CAIT_RESULTS = REFERENCE / "cait-counts-cpu-2026-11-30"
PROXY_RESULTS = REFERENCE / "proxy-digits-cpu-2026-11-30"

_BLOCK = re.compile(r"(?<=<!-- generated: )(?P<name>[^>]+)(?P<open> -->\n).*?(?=<!-- /generated -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that runs something, with its whole name: `report`, `runs list`."""
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", command.commands[inner]) for inner in command.commands)
        else:
            yield name, command


def reference_results(table: str, runs: Path, options: Options | None = None) -> str:
    """Return a table of stored results as `harness report --format markdown` prints it."""
    specs = Catalog().find([table])
    (diff,) = judged_tables(specs, options, Store(runs), None).diffs
    return render_markdown(diff)


def first_table() -> str:
    """Return the table of some models as a terminal of 96 columns shows it, in a block of code."""
    options = Options(rows=("resnet18", "deit_ti", "deit_s"))
    (diff,) = judged_tables(Catalog().find(["table5"]), options, Store(CPU_RESULTS), None).diffs
    return f"```text\n{render_terminal(diff, width=96, color=False)}```"


def imported_table() -> tuple[ImportedTable, Spec]:
    """Return the table that "Your paper in ten minutes" copies, and the spec that it becomes."""
    page = (DOCS / "your-paper.md").read_text(encoding="utf-8")
    (grid,) = read_markdown(page.partition("```markdown\n")[2].partition("```")[0])
    sizes = {"cait_s24_224": 224, "cait_xs24_384": 384, "cait_s24_384": 384}
    own = {"tag": "fb_dist_in1k", "crop": 1.0, "interpolation": "bicubic", "norm": "imagenet"}
    names = {name: (PublicWeights(res=res, **own),) for name, res in sizes.items()}  # type: ignore[arg-type]
    table = read_table(grid, ModelNames(names))
    cite = "arXiv 2103.17239, the authors' README"
    return table, parse(Path("mine.toml"), write_spec(table, origin="table.md", cite=cite, schema=schema_file("spec")))


def shown_import() -> str:
    """Return what `harness import` prints of that table."""
    return "```text\n" + "\n".join([*describe(imported_table()[0], 100), "next: harness plan ./mine.toml"]) + "\n```"


def first_verdict() -> str:
    """Return what counting its models gives."""
    (diff,) = judged_tables([imported_table()[1]], Options(only=frozenset({"count"})), Store(CAIT_RESULTS), None).diffs
    return f"```text\n{render_terminal(diff, width=100, color=False)}```"


def simulated_trend() -> str:
    """Return what `harness trend` prints of forty simulated nights of two models, one of which becomes 6 % slower."""
    plan = make_plan(Catalog().find(["table5"]), Options(rows=("resnet18", "deit_ti"), columns=("throughput",)))
    measured = [next(Store(CPU_RESULTS).results(job)) for job in plan.jobs]
    (trend,) = find_trends(plan, (_night(result, night) for night in range(40) for result in measured))
    return f"```text\n{render_trend(trend, width=100, color=False)}```\n"


def _night(result: Result, night: int) -> Result:
    """Return a measured throughput as it might be on a later night."""
    throughput, is_later = result.metrics["throughput"], night >= 24
    factor = exp(Random(f"{result.job.key} {night}").gauss(0, 0.02))  # noqa: S311 -- noise, not secrets
    if is_later and "deit" in str(result.job["model"]):
        factor *= 0.94
    started = result.started + timedelta(days=night - 40)
    return replace(
        result,
        id=f"{started:%Y%m%dT%H%M%S}{result.id[15:]}",
        started=started,
        software={**result.software, "torch": "2.14.1" if is_later else "2.13.0"},
        metrics={"throughput": replace(throughput, value=factor * float(throughput.value))},
        warnings=(),
    )


def option_list(command: click.Command) -> str:
    """Return the options of a command by group, with their help and defaults, one line each, and its examples."""
    groups = by_group([option for option in command.params if isinstance(option, click.Option)])
    lists = [f"{heading}:\n\n" + "".join(f"- {_entry(option)}\n" for option in options) for heading, options in groups]
    examples = command.examples if isinstance(command, Command) else {}
    commands = "\n".join(f"# {does}\n{text}" for text, does in examples.items())
    return "\n".join([*lists, f"Examples:\n\n```sh\n{commands}\n```"])


def _entry(option: click.Option) -> str:
    # Not click's own text, whose form changes from version to version.
    short_first = sorted(option.opts, key=len)
    names = f"{', '.join(short_first)} {_value(option)}".strip()
    value = ", ".join(option.default) if isinstance(option.default, tuple) else option.default
    default = f" [default: {value}]" if option.show_default and not option.is_flag else ""
    return f"`{names}`: {option.help or ''}{default}".replace("  [", " [").replace(":  ", ": ").rstrip(": ")


def _value(option: click.Option) -> str:
    """Return what stands for the value of an option; a flag has none."""
    if option.is_flag or option.metavar:
        return option.metavar or ""
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    return {"integer range": "N", "float range": "X"}.get(option.type.name, option.type.name.upper())


def variables() -> str:
    """Return the environment variables behind the options."""
    options = (option for _, command in commands() for option in command.params)
    names = {str(option.envvar) for option in options if option.envvar}
    return fill(", ".join(f"`{name}`" for name in sorted(names)) + ".", width=120)


def export_columns() -> str:
    """Return the columns of `harness runs export`."""
    lines = [f"| `{name}` | {field.type} | {field.holds} |\n" for name, field in FIELDS.items()]
    return "".join(["| column | type | holds |\n", "|---|---|---|\n", *lines])


def blocks() -> Mapping[str, Callable[[], str]]:
    """Return what makes each generated part, by the name in its marker."""
    return {
        "first table": first_table,
        "an import": shown_import,
        "a first verdict": first_verdict,
        "table5": lambda: reference_results("table5", CPU_RESULTS),
        "table3-proxy": lambda: reference_results("table3", PROXY_RESULTS, Options(train=True, scale="proxy")),
        "table8-proxy": lambda: reference_results("table8", PROXY_RESULTS, Options(train=True, scale="proxy")),
        "trend-example": simulated_trend,
        "export-columns": export_columns,
        "variables": variables,
        **{f"options of {name}": partial(option_list, command) for name, command in commands()},
    }


def renew(page: str) -> str:
    """Return a page with its generated parts as the program has them now."""
    known = blocks()
    return _BLOCK.sub(lambda match: f"{match['name']}{match['open']}\n{known[match['name']]().strip()}\n\n", page)


def main() -> int:
    """Write the schemas, and the generated parts of every page; the exit code is 0."""
    pages = (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))
    for path, after in {**{page: renew(page.read_text(encoding="utf-8")) for page in pages}, **schemas.texts()}.items():
        if not path.exists() or after != path.read_text(encoding="utf-8"):
            atomic.write(path, after)
            print(f"renewed {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
