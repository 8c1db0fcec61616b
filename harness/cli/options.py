"""Options that several commands share, and the settings file and variables behind them."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.errors import HarnessError, did_you_mean
from harness.kinds import KINDS, RECIPE, parse_memory
from harness.plan import Options
from harness.progress import Inputs
from harness.recipe.catalog import SCALES
from harness.recipe.read import checked
from harness.spec.catalog import EDITIONS

SETTINGS_FILE = Path("harness.toml")

F = TypeVar("F", bound=Callable[..., Any])


def _words(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split `a,b`; a list in harness.toml serves as well."""
    if value is None:
        return ()
    return tuple(word for word in (part.strip() for part in value.split(",")) if word)


def _kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = _words(context, parameter, value)
    for name in names:
        if name not in KINDS:
            raise click.BadParameter(f"unknown kind of job '{name}'{did_you_mean(name, KINDS)}")
    return names


def _batch(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    if value in (None, "auto", "largest"):
        return value
    if not str(value).isdigit() or int(str(value)) == 0:
        raise click.BadParameter(f"'{value}' is not auto, largest or a number of images")
    return int(str(value))


def _memory(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            parse_memory(value)
        except HarnessError as error:
            raise click.BadParameter(str(error)) from error
    return value


def _data(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return dict(_pair(value, "NAME=PATH, as imagenet=/data/imagenet") for value in values)


def _pair(value: str, form: str) -> tuple[str, str]:
    name, _, told = value.partition("=")
    if not name or not told:
        raise click.BadParameter(f"'{value}' is not {form}")
    return name, told


def _folder(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a folder of weights that is not there, before results of other weights are shown in their place."""
    if value is not None and not value.is_dir():
        what = "is a file, not a folder; name the folder that it is in" if value.exists() else "there is no such folder"
        raise HarnessError(f"--weights {value}: {what}")
    return value


def _stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 -- passed on to click
    """Make an option that HARNESS_NAME sets as well."""
    variable = "HARNESS_" + names[-1].lstrip("-").upper().replace("-", "_")
    return click.option(*names, envvar=variable, **settings)


tables = click.argument("tables", nargs=-1, required=True, metavar="TABLE...")

edition = _option(
    "--edition",
    type=click.Choice(EDITIONS),
    default="arxiv",
    show_default=True,
    help="Whose numbering and values; ICML's table 6 is arXiv's 7.",
)

runs = _option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the results.",
)

device = _option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to measure.")

jobs = _option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Trainings side by side  [default: 1 at full scale, else one a GPU or core]",
)

choice = _stack(
    _option("--rows", callback=_words, metavar="GLOB,...", help="Only these rows."),
    _option("--columns", callback=_words, metavar="GLOB,...", help="Only these columns."),
    _option("--only", callback=_kinds, metavar="KIND,...", help="Only these kinds of job."),
    _option("--throughput-only", is_flag=True, help="Only speeds: no weights, no data set."),
)

measuring = _stack(
    _option(
        "--protocol", type=click.Choice(("paper", "modern")), help="How speed is measured  [default: as the spec says]"
    ),
    _option("--memory", callback=_memory, metavar="16GiB", help="Memory cap for the largest batch."),
    _option("--batch", callback=_batch, metavar="auto|largest|N", help="Images a run."),
    _option("--repeats", type=click.IntRange(min=2), help="Timed runs  [default: as the spec says, 30]"),
)


def _changes(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Read `NAME=VALUE` as a recipe file would have it."""
    found = {}
    for value in values:
        name, text = _pair(value, "NAME=VALUE, as epochs=100")
        if name not in RECIPE:
            raise click.BadParameter(f"recipes have no setting '{name}'{did_you_mean(name, RECIPE)}")
        try:
            told = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            told = text  # a word does without its quotes
        try:
            found[name] = checked(name, told)
        except HarnessError as error:
            raise click.BadParameter(str(error)) from error
    return found


training = _stack(
    _option("--train", is_flag=True, help="Train what has no public weights."),
    _option(
        "--scale",
        type=click.Choice(SCALES),
        default="full",
        show_default=True,
        help="As published, as a small stand-in that really trains, or a few steps.",
    ),
    _option("--seeds", type=click.IntRange(min=1), help="Trainings of each  [default: 1, or as the scale says]"),
    _option("--retrain", is_flag=True, help="Train what has public weights as well."),
    _option(
        "--set",
        "changes",
        callback=_changes,
        multiple=True,
        metavar="NAME=VALUE",
        help="Change a setting of every recipe.",
    ),
)


def _amount(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value == "all":
        raise click.BadParameter("memory 'all' is not an amount; write it as 32GiB")
    return _memory(_context, _parameter, value)


def _pairs(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return dict(_pair(value, "NAME=VALUE, as reservation=deit") for value in values)


# The options below that mean nothing without a cluster, as parameters.
OF_CLUSTER = (
    *("detach", "partition", "account", "qos", "constraint", "container", "hours"),
    *("gpus", "nodes", "cpus", "job_memory", "setup", "sbatch"),
)
cluster = _stack(
    _option(
        "--launcher",
        type=click.Choice(("local", "slurm")),
        default="local",
        show_default=True,
        help="Measure on this machine, or on the nodes of a Slurm cluster.",
    ),
    _option("--detach", is_flag=True, help="Slurm: return when the jobs are submitted."),
    _option("--partition", metavar="NAME", help="Slurm: partition  [default: the cluster's]"),
    _option("--account", metavar="NAME", help="Slurm: account."),
    _option("--qos", metavar="NAME", help="Slurm: quality of service."),
    _option("--constraint", metavar="FEATURE", help="Slurm: features that a node must have."),
    _option("--container", metavar="IMAGE", help="Slurm: image to run in, where the cluster has pyxis."),
    _option(
        "--hours",
        type=click.FloatRange(min=0, min_open=True),
        help="Slurm: most hours at a time; training goes on after  [default: as estimated]",
    ),
    _option("--gpus", type=click.IntRange(min=0), help="Slurm: GPUs of each node  [default: 1 with --device cuda]"),
    _option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Slurm: nodes of a training."),
    _option("--cpus", type=click.IntRange(min=1), help="Slurm: processor cores of a job  [default: 8 a GPU, else 1]"),
    _option(
        "--job-memory",
        callback=_amount,
        metavar="32GiB",
        help="Slurm: memory of each node  [default: 64GiB a GPU, else 3GiB]",
    ),
    _option("--setup", multiple=True, metavar="COMMAND", help="Slurm: shell command before a job."),
    _option("--sbatch", callback=_pairs, multiple=True, metavar="NAME=VALUE", help="Slurm: another option of sbatch."),
)

data = _option(
    "--data",
    callback=_data,
    multiple=True,
    metavar="NAME=PATH",
    help="Where a data set is: a folder, a tar, or wds/…, hfds/…, tfds/…, torch/….",
)

weights = _option(
    "--weights",
    callback=_folder,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of weights, files named after timm's models  [default: timm's hub]",
)

reading = _stack(
    _option("--workers", type=click.IntRange(min=0), help="Processes that read images  [default: one a core]"),
    _option("--skip-unreadable", is_flag=True, help="Count images that cannot be read as wrong."),
)

explaining = _stack(
    _option("--explain", is_flag=True, help="Measure the other crops too, and show what each crop and head gives."),
    _option("--allow-nearest", is_flag=True, help="Show the nearest public weights where the paper's are not public."),
)


def inputs_of(told: dict[str, Any], *, cores: int) -> Inputs:
    """Make what a pass over images needs of what the command line told."""
    return Inputs(
        data=told.get("data") or {},
        weights=told.get("weights"),
        workers=cores if told.get("workers") is None else told["workers"],
        skip_unreadable=bool(told.get("skip_unreadable")),
    )


def options_of(told: dict[str, Any]) -> Options:
    """Make the plan's options of what the command line told."""
    only = told.get("only") or ()
    if told.get("throughput_only"):
        only = (*only, "throughput")
    trains = told.get("train") or told.get("retrain")
    for name, wanted in (
        ("scale", told.get("scale") not in (None, "full")),
        ("seeds", told.get("seeds")),
        ("set", told.get("changes")),
    ):
        if wanted and not trains:
            raise HarnessError(f"--{name} is about training; add --train")
    return Options(
        only=frozenset(only) if only else None,
        rows=told.get("rows") or (),
        columns=told.get("columns") or (),
        protocol=told.get("protocol"),
        repeats=told.get("repeats"),
        batch=told.get("batch"),
        memory=told.get("memory"),
        data=frozenset(told.get("data") or ()),
        explain=bool(told.get("explain")),
        allow_nearest=bool(told.get("allow_nearest")),
        train=bool(told.get("train") or told.get("retrain")),
        retrain=bool(told.get("retrain")),
        scale=told.get("scale") or "full",
        seeds=told.get("seeds"),
        changes=told.get("changes") or {},
    )


def settings_of_folder(commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """Read harness.toml of the working folder: defaults for the options of every command that has them.

    Raises `HarnessError` for what is not TOML or not an option.
    """
    try:
        data = tomllib.loads(SETTINGS_FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"{SETTINGS_FILE}: cannot be read: {error}") from error
    options = {name: _options_by_name(command) for name, command in commands.items()}
    known = dict.fromkeys(name for names in options.values() for name in names)
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in data.items():
        name = key.replace("_", "-")
        if name not in known:
            raise HarnessError(f"{SETTINGS_FILE}: unknown setting '{key}'{did_you_mean(name, known)}")
        for command, names in options.items():
            if name in names:
                defaults[command][str(names[name].name)] = _plain(value, names[name])
    return defaults


def _plain(value: object, option: click.Option) -> object:
    """Write a value of the file as the command line would have it: a list is `a,b`, a table is `NAME=PATH` each."""
    if option.multiple:
        pairs = [f"{key}={path}" for key, path in value.items()] if isinstance(value, dict) else value
        return [pairs] if isinstance(pairs, str) else pairs
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _options_by_name(command: click.Command) -> dict[str, click.Option]:
    """Give the option behind each long name: `--format` fills `form`."""
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
