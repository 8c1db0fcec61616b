"""Options that several commands share, and the settings file and variables behind them."""

import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from harness.cli.console import warn
from harness.cli.usage.command import (
    CELLS,
    CLUSTER,
    INPUTS,
    OTHER,
    PLACE,
    RESULTS,
    THROUGHPUT,
    TRAINING,
    Argument,
    Option,
    check_text,
)
from harness.cli.usage.completion import complete_columns, complete_kinds, complete_rows, complete_tables
from harness.errors import HarnessError, abridged, did_you_mean
from harness.plan.options import check_change, check_kinds, check_weights
from harness.specs.catalog import EDITIONS
from harness.specs.checked import count_of, shown
from harness.specs.document import Document, parse_toml
from harness.specs.kinds import PROTOCOLS, parse_memory
from harness.specs.recipe.catalog import SCALES
from harness.store.store import Store

SETTINGS_FILE = Path("harness.toml")

# What every library can count to, and hours that no cluster gives.
MOST, LONGEST = 2**31 - 1, 100_000

F = TypeVar("F", bound=Callable[..., Any])


# What options accept.


class ParsedType(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions
    """A type whose values a function parses; its `HarnessError` becomes one about the option."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the parsed value."""
        try:
            return self._parse(str(value))
        except HarnessError as error:
            self.fail(str(error), param, ctx)


class _PathType(click.Path):
    """A path that can be one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the path."""
        if not str(value):
            self.fail("it is empty; name a file or a folder, '.' for the working folder", param, ctx)
        check_text(str(value))
        return super().convert(value, param, ctx)


def _parse_count(least: int, most: int, text: str) -> int:
    number = count_of(text)
    if number is None or not least <= number <= most:
        limit = f"from {least} to {most}" if most < MOST else f"of at least {least}"
        raise HarnessError(f"'{abridged(text)}' is not a whole number {limit}")
    return number


def count(least: int, most: int = MOST) -> ParsedType:
    """Return the type of whole numbers in some range."""
    return ParsedType("N", partial(_parse_count, least, most))


def _parse_hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0
    if not 0 < hours <= LONGEST:
        raise HarnessError(f"'{abridged(text)}' is not a number of hours above 0 and up to {LONGEST:,}")
    return hours


_DURATION = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)\s*(?P<unit>s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def _parse_duration(text: str) -> float:
    duration = _DURATION.fullmatch(text.strip())
    seconds = float(duration["number"]) * _SECONDS[duration["unit"]] if duration else 0.0
    if not seconds:
        raise HarnessError(f"'{abridged(text)}' is not a time; write it as 90s, 10min or 2h")
    return seconds


DURATION = ParsedType("TIME", _parse_duration)


def parse_percentage(text: str) -> float:
    """Return the fraction that `5%` is.  Raises `HarnessError` for what is no percentage from 0.5 to 100."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*%?", text.strip())
    percentage = float(match[1]) if match else 0.0
    if not 0.5 <= percentage < 100:
        raise HarnessError(f"'{abridged(text)}' is not a percentage from 0.5% up; write it as 2%")
    return percentage / 100


def split_list(text: str) -> tuple[str, ...]:
    """Split `a,b`."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _parse_kinds(text: str) -> tuple[str, ...]:
    return check_kinds(split_list(text))


def _parse_batch(text: str) -> int | str:
    if text in ("auto", "largest"):
        return text
    size = count_of(text)
    if not size or size > MOST:
        raise HarnessError(f"'{abridged(text)}' is not auto, largest or a batch size")
    return size


def _check_memory(text: str) -> str:
    parse_memory(text)
    return text


def _parse_amount(text: str) -> int:
    amount = parse_memory(text)
    if amount is None:
        raise HarnessError("memory 'all' is not an amount; write it as 32GiB")
    return amount


def _split_pair(form: str, text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise HarnessError(f"'{text}' is not {form}")
    return name, value


def _parse_change(text: str) -> tuple[str, Any]:
    """Parse `NAME=VALUE` as a recipe file would have it."""
    name, value = _split_pair("NAME=VALUE, as epochs=100", text)
    try:
        parsed = parse_toml(f"value = {value}")["value"]
    except TOMLDecodeError:
        parsed = abridged(value)  # a word needs no quotes
    return name, check_change(name, parsed)


PATH = _PathType(path_type=Path)
GLOBS = ParsedType("glob,...", split_list)
KIND_LIST = ParsedType("kind,...", _parse_kinds)


# The options.


def stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine decorators into one; `--help` shows the options in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def option(*names: str, group: str = OTHER, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 -- passed on to click
    """Make an option, which the help shows in a group and with its default."""
    return click.option(*names, cls=Option, group=group, show_default=bool(settings.get("default")), **settings)


def _option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 -- passed on to click
    """Make an option that HARNESS_NAME sets as well."""
    return option(*names, envvar="HARNESS_" + names[-1].lstrip("-").upper().replace("-", "_"), **settings)


def _pair_option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 -- passed on to click
    """Make an option that is given once for each pair, and becomes a dictionary."""
    return _option(*names, multiple=True, callback=_to_dictionary, **settings)


def _to_dictionary(
    _context: click.Context, option: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if values.setdefault(name, value) != value:
            raise HarnessError(f"{option.opts[0]} {name} is given twice, as {values[name]} and {value}; leave one out")
    return values


tables = click.argument(
    "tables",
    cls=Argument,
    nargs=-1,
    required=True,
    metavar="TABLE...",
    shell_complete=complete_tables,
    describes="table5 or 5, icml:table6, all, or the path of a spec file; `harness list` shows the names.",
    needs="the name of a table",
    remedy="`harness list` shows the tables",
)

edition = _option(
    "--edition",
    group=CELLS,
    metavar="arxiv|icml|NAME",
    default=EDITIONS[0],
    shell_complete=lambda _context, _parameter, start: [name for name in EDITIONS if name.startswith(start)],
    help="Edition for table numbers and published values; ICML's table 6 is arXiv's table 7. A spec may have others.",
)

runs = _option("--runs", group=RESULTS, type=PATH, default=Path("runs"), help="Folder of the results.")

several_runs = _option(
    "--runs",
    group=RESULTS,
    type=PATH,
    multiple=True,
    default=("runs",),
    help="Folder of results; several add up, for `report` with --by.",
)

device = _option("--device", group=PLACE, default="auto", metavar="auto|cpu|cuda[:N]", help="Device to use.")

budget = _option(
    "--budget",
    group=PLACE,
    type=DURATION,
    metavar="10min",
    help="Measure what there is time for, the most cells a second first; the same command goes on with the rest.",
)

quick = _option(
    "--quick",
    group=THROUGHPUT,
    is_flag=True,
    help="End each throughput when its place among those before is certain; such a result is never a whole one.",
)

machine = _option(
    "--machine",
    group=RESULTS,
    metavar="NAME",
    help="Show the throughputs of the machine with this in its name  [default: this one, else that of the newest]",
)

machines = _option(
    "--machine", group=RESULTS, metavar="NAME", help="Only machines with this in their name  [default: all]"
)

jobs = _option(
    "--jobs",
    group=TRAINING,
    type=count(1),
    help="Trainings in parallel  [default: 1 at full scale, else one per GPU or core]",
)

selection = stack(
    _option("--rows", group=CELLS, type=GLOBS, default="", shell_complete=complete_rows, help="Only these rows."),
    _option(
        "--columns", group=CELLS, type=GLOBS, default="", shell_complete=complete_columns, help="Only these columns."
    ),
    _option(
        "--only",
        group=CELLS,
        type=KIND_LIST,
        default="",
        shell_complete=complete_kinds,
        help="Only these kinds of jobs.",
    ),
    _option(
        "--throughput-only",
        group=CELLS,
        is_flag=True,
        help="Same as --only throughput: needs no weights and no dataset.",
    ),
)

throughput = stack(
    _option(
        "--protocol",
        group=THROUGHPUT,
        type=click.Choice(PROTOCOLS),
        help="Throughput protocol  [default: as in the spec]",
    ),
    _option(
        "--memory",
        group=THROUGHPUT,
        type=ParsedType("amount", _check_memory),
        metavar="16GiB",
        help="Memory cap for the largest batch size.",
    ),
    _option(
        "--batch",
        group=THROUGHPUT,
        type=ParsedType("batch", _parse_batch),
        metavar="auto|largest|N",
        help="Batch size for throughput.",
    ),
    _option("--repeats", group=THROUGHPUT, type=count(2), help="Timed iterations  [default: as in the spec, 30]"),
)


def _make_training(train: str, retrain: str) -> Callable[[F], F]:
    """Return the options of training with the help of two: some commands train, others show what was trained."""
    return stack(
        _option("--train", group=TRAINING, is_flag=True, help=train),
        _option(
            "--scale",
            group=TRAINING,
            type=click.Choice(SCALES),
            default="full",
            help="full: as published; proxy: a small stand-in that really trains; smoke: one or two epochs.",
        ),
        _option(
            "--seeds", group=TRAINING, type=count(1), help="Seeds of each training  [default: 1, or as the scale sets]"
        ),
        _option("--retrain", group=TRAINING, is_flag=True, help=retrain),
        _pair_option(
            "--set",
            "changes",
            group=TRAINING,
            type=ParsedType("name=value", _parse_change),
            help="Override a setting of every recipe.",
        ),
    )


training = _make_training("Train models without public weights.", "Train models with public weights as well.")
show_training = _make_training(
    "Show results trained for rows without public weights.",
    "Show results trained for rows with public weights as well.",
)

cluster = stack(
    _option(
        "--launcher",
        group=PLACE,
        type=click.Choice(("local", "slurm")),
        default="local",
        help="Measure on this machine, or on the nodes of a Slurm cluster.",
    ),
    _option("--detach", group=CLUSTER, is_flag=True, help="Return when the jobs are submitted."),
    _option("--partition", group=CLUSTER, metavar="NAME", help="Partition  [default: the cluster's]"),
    _option("--account", group=CLUSTER, metavar="NAME", help="Account."),
    _option("--qos", group=CLUSTER, metavar="NAME", help="Quality of service."),
    _option("--constraint", group=CLUSTER, metavar="FEATURE", help="Features that a node must have."),
    _option("--container", group=CLUSTER, metavar="IMAGE", help="Container image, where the cluster has pyxis."),
    _option(
        "--hours",
        group=CLUSTER,
        type=ParsedType("X", _parse_hours),
        help="Time limit of a job; a training continues in the next  [default: as estimated]",
    ),
    _option("--gpus", group=CLUSTER, type=count(0), help="GPUs per node  [default: 1 with --device cuda]"),
    _option("--nodes", group=CLUSTER, type=count(1), default=1, help="Nodes of a training."),
    _option("--cpus", group=CLUSTER, type=count(1), help="CPU cores of a job  [default: 8 per GPU, else 1]"),
    _option(
        "--job-memory",
        group=CLUSTER,
        type=ParsedType("amount", _parse_amount),
        metavar="32GiB",
        help="Memory per node  [default: 64GiB per GPU, else 3GiB]",
    ),
    _option("--setup", group=CLUSTER, multiple=True, metavar="COMMAND", help="Shell command to run before a job."),
    _pair_option(
        "--sbatch",
        group=CLUSTER,
        type=ParsedType("name=value", partial(_split_pair, "NAME=VALUE, as reservation=deit")),
        help="Another option of sbatch.",
    ),
)

data = _pair_option(
    "--data",
    group=INPUTS,
    type=ParsedType("name=path", partial(_split_pair, "NAME=PATH, as imagenet=/data/imagenet")),
    help="Where a dataset is: a folder, a tar, or wds/…, hfds/…, tfds/…, torch/….",
)

weights = _option(
    "--weights",
    group=INPUTS,
    callback=lambda _context, _parameter, value: check_weights(value),
    type=PATH,
    metavar="DIR",
    help="Folder of weights, files named after timm's models  [default: timm's hub]",
)

loading = stack(
    _option("--workers", group=INPUTS, type=count(0), help="Data-loading processes  [default: one per core]"),
    _option("--skip-unreadable", group=INPUTS, is_flag=True, help="Count unreadable images as wrong predictions."),
)

explaining = stack(
    _option(
        "--explain",
        group=INPUTS,
        is_flag=True,
        help="Include alternative crops; show the accuracy of each crop and head.",
    ),
    _option(
        "--allow-nearest",
        group=INPUTS,
        is_flag=True,
        help="Use the nearest public weights where the paper's are not public.",
    ),
)


# What the parameters of a command become.


def open_store(runs: Path, option: str = "--runs", *, existing: bool = True) -> Store:
    """Return the store of a folder; if its results are to be shown, a folder that was named must exist.

    The command ends with a warning for each file in it that could not be used.  Raises `HarnessError` for a file, and
    for a folder that was named and does not exist.
    """
    parameter = option.removeprefix("--").replace("-", "_")
    context = click.get_current_context()
    named = context.get_parameter_source(parameter) is not ParameterSource.DEFAULT
    store = Store.open(runs, option, existing=existing and named)
    context.call_on_close(lambda: warn(*store.damaged))
    return store


# The settings file.


def load_settings(commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """Read harness.toml of the working folder: defaults for the options of every command that has them.

    Raises `HarnessError` for what is not TOML or not an option.
    """
    if not os.path.lexists(SETTINGS_FILE):
        return {}
    document = Document.read(SETTINGS_FILE, expected="a file of settings")
    options = {name: options_by_name(command) for name, command in commands.items()}
    known = dict.fromkeys(name for names in options.values() for name in names)
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in document.data.items():
        name = key.replace("_", "-")
        if name not in known:
            document.add(f"unknown setting '{key}'{did_you_mean(name, known)}", key)
        for command, names in options.items():
            if name in names:
                try:
                    defaults[command][str(names[name].name)] = _command_line_value(value, names[name])
                except HarnessError as error:
                    document.add(f"{key} {error}", key)
    document.check()
    return defaults


def _command_line_value(value: object, option: click.Option) -> object:
    """Convert a value of the file to the command line's form: a list to `a,b`, a table to a `NAME=PATH` each.

    Raises `HarnessError` with what it must be instead.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise HarnessError(f"must be true or false, not {shown(value)}")
        return value
    if option.multiple:
        if isinstance(value, dict):
            return [f"{key}={_word(item, bool, str, int, Decimal)}" for key, item in value.items()]
        return list(map(_word, value)) if isinstance(value, list) else [_word(value, str, int, Decimal)]
    if isinstance(value, list) and option.type.name.endswith(",..."):
        return ",".join(map(_word, value))
    return _word(value, str, int, Decimal)


def _word(value: object, *types: type) -> str:
    """Return a single value as it is written on the command line."""
    if type(value) not in (types or (str,)) or (isinstance(value, Decimal) and not value.is_finite()):
        raise HarnessError(f"must be a string{' or a number' if types else ''}, not {shown(value)}")
    return str(value).lower() if isinstance(value, bool) else check_text(str(value))


def drop_unusable_variables() -> None:
    """Forget the size of a terminal that is no size: libraries would stop at it."""
    for name in ("COLUMNS", "LINES"):
        size = count_of(os.environ.get(name, ""))
        if size is None or not 0 < size < 10_000:
            os.environ.pop(name, None)


def options_by_name(command: click.Command) -> dict[str, click.Option]:
    """Return the option behind each long name that harness.toml may set: `--format` fills `form`."""
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and not getattr(parameter, "typed", False)
    }
