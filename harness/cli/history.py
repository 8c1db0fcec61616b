"""What was measured before: the commands `compare` and `runs`."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from shutil import get_terminal_size
from textwrap import TextWrapper, wrap
from typing import TYPE_CHECKING, Any

import click

from harness.cli import filters, options
from harness.cli.folders import filled_store
from harness.errors import HarnessError
from harness.kinds import KINDS
from harness.result import Measurement, Result
from harness.store import Store, read, superseded

if TYPE_CHECKING:
    from harness.compare import Evaluated

# `top1_class` is the accuracy of the head `class`.
HEADS = tuple(name.removeprefix("top1_") for name in KINDS["evaluate"].metrics if name.startswith("top1_"))


@click.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--head", type=click.Choice(HEADS), help="Head to read of both  [default: the main one of each]")
@click.option("--images", type=click.IntRange(min=0), default=10, show_default=True, help="Images to list at most.")
@click.option("--format", "form", type=click.Choice(("terminal", "json")), default="terminal", show_default=True)
@options.runs
def compare(  # noqa: PLR0913 -- one parameter an option
    first: str, second: str, *, head: str | None, images: int, form: str, runs: Path
) -> None:
    """Tell which of two evaluations is better, and whether that is more than chance.

    RUN is the id of a run or its beginning, as `harness runs list` shows it, or the file of a result.
    """
    from harness.compare import compare as compared
    from harness.report.comparison import render_comparison, render_comparison_json

    store = filled_store(runs)
    one, other = _evaluated(store, first), _evaluated(store, second)
    if one.result.id == other.result.id:
        raise HarnessError(
            f"{first} and {second} are the same run {one.result.id}; name two, `harness runs list` shows them"
        )
    found = compared(one, other, head)
    if form == "json":
        click.echo(render_comparison_json(found, images=images), nl=False)
    else:
        click.echo(render_comparison(found, width=_width(), images=images), nl=False)


@click.group()
@click.pass_context
def runs(context: click.Context) -> None:
    """List, show and prune the runs there are."""
    # harness.toml sets --runs for every command alike; click hands a group only what stands under the group's own name.
    settings = (context.parent and context.parent.default_map) or {}
    context.default_map = dict.fromkeys(runs.commands, settings.get("compare", {}))


@runs.command("list")
@options.runs
@filters.options
@click.option("--limit", type=click.IntRange(min=1), help="Runs to list at most  [default: all]")
def list_runs(runs: Path, *, limit: int | None, **told: Any) -> None:  # noqa: ANN401 -- the filter
    """List runs, newest first: id, age, what it came to, job and machine."""
    store = filled_store(runs)
    now, width = datetime.now(tz=UTC), _width()
    chosen = filters.filter_of(told)
    newest = islice(chosen.of(store.every()), limit)
    found = [(one.id, _age(now - one.started), _came_to(one), str(one.job), one.machine.label) for one in newest]
    click.echo("".join(f"{line}\n" for line in _laid_out(found, width)) or _none(runs, chosen), nl=False)
    _name_damaged(store)


def _none(runs: Path, chosen: filters.Filter) -> str:
    return f"no runs in {runs}/\n" if chosen == filters.Filter() else f"no such runs in {runs}/\n"


@runs.command()
@click.argument("run")
@options.runs
def show(run: str, runs: Path) -> None:
    """Show all that is known of a run."""
    result, path = _found(filled_store(runs), run)
    click.echo("\n".join(_whole(result, path, _width())))


@runs.command()
@options.runs
@filters.options
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(runs: Path, *, dry_run: bool, yes: bool, **told: Any) -> None:  # noqa: ANN401 -- the filter
    """Remove failed runs and those that a newer one stands for, with their predictions.

    A filter spares all others.  What stays is the newest good run of each job on each machine, for the same software,
    images and weights.
    """
    store = filled_store(runs)
    results = list(store.every())
    newer = superseded(results)
    chosen = filters.filter_of(told)
    gone = [one for one in results if (one.error is not None or one.id in newer) and chosen.takes(one)]
    _name_damaged(store)
    for result in gone:
        why = f"{newer[result.id].id} is newer" if result.id in newer else _came_to(result)
        click.echo(f"{result.id}  {result.job}: {why}")
    said = f"{len(gone)} of {len(results)} runs, {_megabytes(store, gone):.1f} MB"
    if not gone or dry_run:
        click.echo(f"would remove {said}" if gone else f"nothing to remove; runs in {runs}/: {len(results)}")
        return
    if not yes and not _agreed(f"remove {said}?"):
        click.echo("nothing was removed")
        return
    for result in gone:
        store.remove(result)
    click.echo(f"removed {said}")


@runs.command()
@options.runs
@filters.options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="A .csv or .parquet file; for MLflow a folder, or a .db file.",
)
@click.option("--mlflow", is_flag=True, help="Add the runs to MLflow's store at -o, those that are not there yet.")
def export(runs: Path, output: Path, *, mlflow: bool, **told: Any) -> None:  # noqa: ANN401 -- the filter
    """Write runs for other programs: a line for each metric, as CSV or Parquet, or as runs of MLflow."""
    from harness.cli.exporting import write

    store = filled_store(runs)
    click.echo(write(list(filters.filter_of(told).of(store.every())), output, mlflow=mlflow))
    _name_damaged(store)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise HarnessError("nobody is there to ask whether these may go; give --yes, or --dry-run to look only")
    return click.confirm(question)


def _megabytes(store: Store, results: list[Result]) -> float:
    paths = [path for one in results for path in (store.path_of(one), store.predictions_of(one))]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def _name_damaged(store: Store) -> None:
    for damage in store.damaged:
        print(f"warning: {damage}", file=sys.stderr)


def _width() -> int:
    """A pipe gets long lines."""
    return get_terminal_size().columns if sys.stdout.isatty() else 200


# Finding runs.


def _found(store: Store, run: str) -> tuple[Result, Path]:
    """Find a run and its file, by its id, the beginning of that, or its file."""
    if run.endswith(".json") or "/" in run:
        return read(Path(run)), Path(run)
    result = store.by_id(run)
    return result, store.path_of(result)


def _evaluated(store: Store, run: str) -> "Evaluated":
    from harness.compare import Evaluated
    from harness.predictions import read as predictions_in

    result, path = _found(store, run)
    if result.job.kind != "evaluate":
        raise HarnessError(f"run {result.id} is of {result.job}, which keeps no predictions; compare evaluate runs")
    if result.error is not None:
        raise HarnessError(f"run {result.id} of {result.job} failed ({result.error}), so there is nothing to compare")
    return Evaluated(result=result, predictions=predictions_in(path.with_name(f"{result.id}.predictions.npz")))


# Runs in words.


def _came_to(result: Result) -> str:
    from harness.cli.display import line_of

    if result.error is not None or {"top1", "throughput"} & result.metrics.keys():
        return " ".join(line_of(result).split())  # an error may have several lines
    few = [f"{name} {_value(measurement)}" for name, measurement in result.metrics.items()][:2]
    return ", ".join(few) or line_of(result)


def _value(found: Measurement) -> str:
    value = found.value if isinstance(found.value, str) else f"{found.value:.6g}"
    ends = f" [{found.low:.6g}, {found.high:.6g}]" if found.low is not None and found.high is not None else ""
    return f"{value} {found.unit}".rstrip() + ends


def _age(passed: timedelta) -> str:
    minutes = passed.total_seconds() / 60
    if minutes < 1:
        return "just now"
    if minutes < 90:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 36 * 60 else f"{minutes / 60 / 24:.0f} d ago"


def _laid_out(rows: Sequence[tuple[str, ...]], width: int) -> Iterator[str]:
    """Give a line for each row where all fit; else the first three cells on one line and each other on its own."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * len(widths) <= width:
        for row in rows:
            yield "  ".join(cell.ljust(room) for cell, room in zip(row, widths, strict=True)).rstrip()
        return
    for run, age, *others in rows:
        yield f"{run}  {age}"
        for other in others:
            yield from wrap(other, width, initial_indent="  ", subsequent_indent="    ")


def _whole(result: Result, path: Path, width: int) -> Iterator[str]:
    """Write everything that a result holds, for a person."""
    predictions = path.with_name(f"{result.id}.predictions.npz")
    told: dict[str, Any] = {
        "run": result.id,
        "job": str(result.job),
        "came to": _came_to(result),
        "started": f"{result.started:%Y-%m-%d %H:%M:%S %Z}, took {result.seconds:.1f} s",
        "machine": result.machine.label,
        "file": str(path),
        "predictions": str(predictions) if predictions.exists() else None,
        "warnings": list(result.warnings),
        "metrics": {name: _with_samples(found) for name, found in result.metrics.items()},
        "settings": dict(result.job.settings),
        "software": dict(result.software),
        "facts": dict(result.facts),
    }
    yield from _lines({name: value for name, value in told.items() if value not in (None, [], {})}, width, "")


def _with_samples(found: Measurement) -> str:
    samples = ", ".join(f"{sample:.4g}" for sample in found.samples)
    return _value(found) + (f", samples in {found.sample_unit}: {samples}" if samples else "")


def _lines(told: Mapping[str, Any], width: int, indent: str) -> Iterator[str]:
    """Write names and values, what is within something further to the right."""
    room = max(map(len, told), default=0)
    for name, value in told.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}"
            yield from _lines(value, width, f"{indent}  ")
            continue
        several = isinstance(value, list) and value and all(isinstance(one, (str, list, dict)) for one in value)
        for number, part in enumerate(value if several else [value]):
            head = f"{indent}{'' if number else name}".ljust(len(indent) + room + 2)
            # Digests and ids stay in one piece, to be copied.
            whole = TextWrapper(width, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
            yield from whole.wrap(_plain(part)) or [head]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
