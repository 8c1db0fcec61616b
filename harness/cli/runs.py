"""`harness compare` and `harness runs`: what was measured before."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

import click

from harness import atomic
from harness.cli.console import UNBROKEN, align, break_lines, echo, terminal_width
from harness.cli.usage import filters, options
from harness.cli.usage.command import FILTER, GATE, OUTPUT, Command, Group, argument
from harness.cli.usage.options import open_store
from harness.errors import HarnessError
from harness.specs.kinds import KINDS
from harness.store.leftovers import Leftover, find_leftovers, format_size, remove_leftovers
from harness.store.result import Measurement, Result
from harness.store.store import Store, read, superseded

if TYPE_CHECKING:
    from harness.judge.compare import Evaluation

# `top1_class` is the accuracy of the head `class`.
HEADS = tuple(name.removeprefix("top1_") for name in KINDS["evaluate"].metrics if name.startswith("top1_"))

EXPORT_SUFFIXES = (".csv", ".parquet")

# Characters of an id down to the second, and columns of a window that has no room for the age of a run.
TO_THE_SECOND = len("20261121T200344")
NARROW = 70


@click.command(
    cls=Command,
    examples={
        "harness compare 20261121T200344 20261122T091012": "Compare the predictions of two evaluations.",
        "harness compare a.json b.json --head distil --images 50": "Compare one head of two files, and list 50 images.",
    },
)
@argument(
    "first",
    metavar="RUN",
    describes="The id of a run or its beginning, as `harness runs list` shows it, or the file of a result.",
    needs="the ids of two runs",
    remedy="`harness runs list` shows the runs",
)
@argument(
    "second",
    metavar="RUN",
    describes="The same, of the run to compare with.",
    needs="a second run",
    remedy="`harness runs list` shows the runs",
)
@options.option(
    "--head", group=GATE, type=click.Choice(HEADS), help="Head whose predictions to compare  [default: the main one]"
)
@options.option("--images", group=OUTPUT, type=options.count(0), default=10, help="Differing images to list at most.")
@options.option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(("terminal", "json")),
    default="terminal",
    help="Format of the comparison.",
)
@options.runs
def compare(  # noqa: PLR0913 -- one parameter an option
    first: str, second: str, *, head: str | None, images: int, form: str, runs: Path
) -> None:
    """Compare two evaluations image by image.

    The comparison says which one is better, and whether by more than chance.  RUN is the id of a run or its beginning,
    as `harness runs list` shows it, or the file of a result.
    """
    from harness.judge.compare import compare as compare_evaluations
    from harness.report.comparison import render_comparison, render_comparison_json

    store = open_store(runs)
    evaluations = _read_evaluation(store, first), _read_evaluation(store, second)
    ids = {evaluation.result.id for evaluation in evaluations}
    if len(ids) == 1:
        raise HarnessError(
            f"{first} and {second} are the same run {ids.pop()}; name two, `harness runs list` shows them"
        )
    comparison = compare_evaluations(*evaluations, head)
    if form == "json":
        text = render_comparison_json(comparison, images=images)
    else:
        text = render_comparison(comparison, width=terminal_width(), images=images)
    echo(text, end="")


@click.group(
    cls=Group,
    examples={
        "harness runs list --kind throughput --since 7d": "List the throughput runs of the last week.",
        "harness runs show 20261121T200344": "Show everything that is stored of a run.",
    },
)
@click.pass_context
def runs(context: click.Context) -> None:
    """List, show, prune and export stored runs."""
    # harness.toml sets --runs for every command alike; click passes a group only what is under the group's own name.
    settings = (context.parent and context.parent.default_map) or {}
    context.default_map = dict.fromkeys(runs.commands, settings.get("compare", {}))


@runs.command(
    "list",
    examples={
        "harness runs list --limit 20": "List the newest 20 runs.",
        "harness runs list --model 'deit_*' --failed": "List the failed runs of some models, with their errors.",
    },
)
@options.runs
@filters.options
@options.option("--limit", group=FILTER, type=options.count(1), help="Runs to list at most  [default: all]")
def list_runs(runs: Path, *, limit: int | None, **params: Any) -> None:  # noqa: ANN401 -- the filter
    """List runs, newest first: id, age, outcome, job and machine."""
    store, run_filter, now = open_store(runs), filters.RunFilter(**params), datetime.now(tz=UTC)
    newest = list(islice(filter(run_filter.matches, store.all_results()), limit))
    none = f"no runs in {runs}/" if run_filter == filters.RunFilter() else f"no such runs in {runs}/"
    echo("\n".join(_table(newest, now, terminal_width(UNBROKEN)) if newest else [none]))


@runs.command(examples={"harness runs show 20261121T200344": "Show everything that is stored of a run."})
@argument(
    "run",
    metavar="RUN",
    describes="The id of a run or its beginning, as `harness runs list` shows it, or the file of a result.",
    needs="the id of a run",
    remedy="`harness runs list` shows the runs",
)
@options.runs
def show(run: str, runs: Path) -> None:
    """Show everything that is stored of a run."""
    result, path = _find_run(open_store(runs), run)
    echo("\n".join(_describe(result, path, terminal_width())))


@runs.command(
    examples={
        "harness runs prune --dry-run": "Show what would be removed.",
        "harness runs prune --failed --before 30d --yes": "Remove failed runs that are older than 30 days.",
    },
)
@options.runs
@filters.options
@options.option("--dry-run", group=OUTPUT, is_flag=True, help="Only list what would be removed.")
@options.option("--yes", group=OUTPUT, is_flag=True, help="Remove without asking.")
def prune(runs: Path, *, dry_run: bool, yes: bool, **params: Any) -> None:  # noqa: ANN401 -- the filter
    """Remove failed and superseded runs, and what killed processes left.

    Runs that do not match the filter are kept.  So is the newest good run of each job on each machine, for the same
    software, images and weights; it supersedes the older ones.  Without a filter, files go as well that nothing reads
    again: half-written ones, predictions and weights without a result, what was set aside as damaged.
    """
    store, run_filter = open_store(runs), filters.RunFilter(**params)
    results = list(store.all_results())
    newer = superseded(results)
    removable = [run for run in results if (run.error is not None or run.id in newer) and run_filter.matches(run)]
    for run in removable:
        reason = f"{newer[run.id].id} is newer" if run.id in newer else _outcome(run)
        echo(f"{run.id}  {run.job}: {reason}")
    leftovers, kept = find_leftovers(runs) if run_filter == filters.RunFilter() else ([], [])
    for leftover in leftovers:
        echo(f"{leftover.path}: {leftover.reason}, {format_size(leftover.size)}")
    for sentence in kept:
        echo(f"kept: {sentence}")
    total = _total(store, removable, len(results), leftovers)
    if not removable and not leftovers:
        echo(f"nothing to remove; runs in {runs}/: {len(results)}")
    elif dry_run:
        echo(f"would remove {total}")
    elif not yes and not sys.stdin.isatty():
        raise HarnessError("stdin is not a terminal, so nobody can confirm; add --yes to remove, or --dry-run to list")
    elif yes or click.confirm(f"remove {total}?"):
        for run in removable:
            store.remove(run)
        busy = len(leftovers) - len(remove_leftovers(leftovers))
        echo(f"removed {total}" + (f", but for {busy} leftovers that a process uses now" if busy else ""))
    else:
        echo("nothing was removed")


@runs.command(
    examples={
        "harness runs export -o runs.csv": "Write a line for each metric of each run.",
        "harness runs export --mlflow -o mlruns": "Add the runs to a store of MLflow.",
    },
)
@options.runs
@filters.options
@options.option(
    "-o",
    "--output",
    group=OUTPUT,
    type=options.PATH,
    required=True,
    help="A .csv or .parquet file; for MLflow a folder, or a .db file.",
)
@options.option(
    "--mlflow", group=OUTPUT, is_flag=True, help="Add the runs to MLflow's store at -o, those that it does not have."
)
def export(runs: Path, output: Path, *, mlflow: bool, **params: Any) -> None:  # noqa: ANN401 -- the filter
    """Write runs as CSV, Parquet or runs of MLflow.

    CSV and Parquet have a line for each metric.
    """
    store = open_store(runs)
    results = list(filter(filters.RunFilter(**params).matches, store.all_results()))
    suffix = output.suffix.lower()
    if mlflow and (suffix in EXPORT_SUFFIXES or (suffix != ".db" and output.is_file())):
        raise HarnessError(f"-o {output}: MLflow keeps its runs in a folder, or in a .db file; name one")
    if not mlflow and suffix not in EXPORT_SUFFIXES:
        forms = " or ".join(EXPORT_SUFFIXES)
        raise HarnessError(f"-o {output}: runs are written as {forms}; choose one by the suffix, or add --mlflow")
    from harness.report.export import render_results_csv, write_parquet
    from harness.report.tracking import export_to_mlflow

    written, known = len(results), 0
    try:
        if mlflow:
            written = export_to_mlflow(results, output)
            known = len(results) - written
        elif suffix == ".csv":
            atomic.write(output, render_results_csv(results))
        else:
            write_parquet(results, output)
    except OSError as error:
        raise HarnessError(f"-o {output}: {error.strerror or error}; name another file") from error
    echo(f"{output}: {written} runs{f', {known} there already' if known else ''}")


def _total(store: Store, removable: Sequence[Result], of: int, leftovers: Sequence[Leftover]) -> str:
    """Return how many runs and leftovers these are, and their size."""
    paths = [path for run in removable for path in store.files_of(run) if path.is_file()]
    size = sum(path.stat().st_size for path in paths) + sum(leftover.size for leftover in leftovers)
    left = f" and {len(leftovers)} leftover{'' if len(leftovers) == 1 else 's'}" if leftovers else ""
    return f"{len(removable)} of {of} runs{left}, {format_size(size)}"


def _find_run(store: Store, run: str) -> tuple[Result, Path]:
    """Return a run and its file, by its id, the beginning of its id, or its file."""
    if run.endswith(".json") or "/" in run:
        return read(Path(run)), Path(run)
    result = store.by_id(run)
    return result, store.path_of(result)


def _read_evaluation(store: Store, run: str) -> "Evaluation":
    from harness.judge.compare import Evaluation
    from harness.store.predictions import read_of

    result, path = _find_run(store, run)
    if result.job.kind != "evaluate":
        raise HarnessError(f"run {result.id} is of {result.job}, which keeps no predictions; compare evaluate runs")
    if result.error is not None:
        raise HarnessError(f"run {result.id} of {result.job} failed ({result.error}), so there is nothing to compare")
    return Evaluation(result=result, predictions=read_of(result, path.with_name(f"{result.id}.predictions.npz")))


# Runs as text.


def _outcome(result: Result) -> str:
    from harness.run.log import outcome_line

    return " ".join(outcome_line(result).split())  # an error may have several lines


def _age(age: timedelta) -> str:
    minutes = age.total_seconds() / 60
    if minutes < 1:
        return "just now"
    if minutes < 90:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 36 * 60 else f"{minutes / 60 / 24:.0f} d ago"


def _table(runs: Sequence[Result], now: datetime, width: int) -> list[str]:
    """Return runs as lines under a heading.

    Where they do not fit, what is the same for all is printed once, ids are shortened, and cells are broken.
    """
    labels = {run.machine.label for run in runs}
    rows: list[tuple[str, ...]] = [
        ("run", "age", "outcome", "job", "machine"),
        *((run.id, _age(now - run.started), _outcome(run), str(run.job), run.machine.label) for run in runs),
    ]
    if max(map(len, align(rows))) <= width:
        return align(rows)
    rows = [(cut, *rest) for cut, (_, *rest) in zip(["run", *_short([run.id for run in runs])], rows, strict=True)]
    if width < NARROW:  # the ids begin with the time
        rows = [(run, *rest) for run, _, *rest in rows]
    title = [f"measured on {labels.pop()}"] if len(labels) == 1 else []
    rows = [row[:-1] for row in rows] if title else rows
    # The name of the model, in the job, stays whole as long as anything else can be broken.
    broken = [column for name in ("machine", "job", "outcome") if name in rows[0] for column in [rows[0].index(name)]]
    return [*break_lines(title, width), *align(rows, width, broken=broken)]


def _short(ids: Sequence[str]) -> list[str]:
    """Return beginnings of ids, down to the second where that tells them apart."""
    length = next(
        (length for length in range(TO_THE_SECOND, len(ids[0])) if len({run[:length] for run in ids}) == len(ids)),
        len(ids[0]),
    )
    return [run[:length] for run in ids]


def _describe(result: Result, path: Path, width: int) -> Iterator[str]:
    """Return lines with everything that a result holds."""
    predictions = path.with_name(f"{result.id}.predictions.npz")
    fields: dict[str, Any] = {
        "run": result.id,
        "job": str(result.job),
        "outcome": _outcome(result),
        "started": f"{result.started:%Y-%m-%d %H:%M:%S %Z}, took {result.seconds:.1f} s",
        "machine": result.machine.label,
        "file": str(path),
        "predictions": str(predictions) if predictions.exists() else None,
        "warnings": list(result.warnings),
        "metrics": {name: _with_samples(metric) for name, metric in result.metrics.items()},
        "settings": dict(result.job.settings),
        "software": dict(result.software),
        "facts": dict(result.facts),
    }
    return _lines({name: value for name, value in fields.items() if value not in (None, [], {})}, width, "")


def _with_samples(metric: Measurement) -> str:
    from harness.run.log import value_text

    samples = ", ".join(f"{sample:.4g}" for sample in metric.samples)
    return value_text(metric) + (f", samples in {metric.sample_unit}: {samples}" if samples else "")


def _lines(fields: Mapping[str, Any], width: int, indent: str) -> Iterator[str]:
    """Return lines with names and values; nested ones are indented."""
    room = max(map(len, fields), default=0)
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}"
            yield from _lines(value, width, f"{indent}  ")
            continue
        is_list = isinstance(value, list) and value and all(isinstance(item, (str, list, dict)) for item in value)
        for number, item in enumerate(value if is_list else [value]):
            head = f"{indent}{'' if number else name}".ljust(len(indent) + room + 2)
            # Digests and ids stay in one piece, to be copied.
            wrapper = TextWrapper(width, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
            yield from wrapper.wrap(_plain(item)) or [head]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
