"""Commands whose help has options in groups and examples, and which say what to type where something is missing."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from harness.cli.console import ExitCode
from harness.errors import HarnessError, did_you_mean

# The groups of options, in the order of the help.
ARGUMENTS, CELLS, THROUGHPUT, INPUTS = "Arguments", "Which cells", "Throughput", "Images and weights"
TRAINING, PLACE, CLUSTER, FILTER = "Training", "Where to run", "Slurm, with --launcher slurm", "Which runs"
RESULTS, GATE, OUTPUT, OTHER = "Stored results", "What to compare", "Output", "Other"
GROUPS = (*(ARGUMENTS, CELLS, THROUGHPUT, INPUTS, TRAINING, PLACE, CLUSTER, FILTER, RESULTS, GATE, OUTPUT, OTHER),)

Examples = Mapping[str, str]

P = TypeVar("P", bound=click.Parameter)


def check_text(text: str) -> str:
    """Return a text that can be the name of a file or an argument of a program.

    Raises `HarnessError` for any other.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise HarnessError(f"'{text}' is not valid text; write it in the encoding of the terminal") from None
    if "\0" in text:
        raise HarnessError(f"'{text}' has a NUL character in it; leave it out")
    return text


class Argument(click.Argument):
    """An argument with help; `needs` says in a sentence what it is, `remedy` where its values are shown."""

    def __init__(
        self,
        *names: Any,  # noqa: ANN401 -- passed on to click
        metavar: str,
        describes: str,
        needs: str,
        remedy: str = "",
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*names, metavar=metavar, **settings)
        self.describes, self.needs, self.remedy, self.group = describes, needs, remedy, ARGUMENTS


class Option(click.Option):
    """An option that the help shows in a group; one that is `typed` each time is none of harness.toml's."""

    def __init__(self, *names: Any, group: str = OTHER, typed: bool = False, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*names, **settings)
        self.group, self.typed = group, typed


def argument(*names: str, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401 -- passed on to `Argument`
    """Make an argument with help."""
    return click.argument(*names, cls=Argument, **settings)


def by_group(parameters: Sequence[P]) -> Iterator[tuple[str, list[P]]]:
    """Yield each group with the parameters in it; those without one of ours are in the last."""
    for group in GROUPS:
        members = [parameter for parameter in parameters if getattr(parameter, "group", OTHER) == group]
        if members:
            yield group, members


class Command(click.Command):
    """A command with `examples`: what each does, by the text to type."""

    def __init__(self, *names: Any, examples: Examples, **settings: Any) -> None:  # noqa: ANN401 -- passed on to click
        super().__init__(*names, **settings)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and say what to type where one is missing; of an option given twice none would win."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            once = [one for one in order if isinstance(one, Option) and not (one.multiple or one.is_flag or one.count)]
            twice = next((one for number, one in enumerate(once) if one in once[:number]), None)
            if twice is not None:
                raise click.UsageError(f"{max(twice.opts, key=len)} is given twice; leave one out", ctx=None)
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            raise click.UsageError(self._what_to_type(ctx, error.param)) from None

    def _what_to_type(self, ctx: click.Context, parameter: click.Parameter | None) -> str:
        needs = (
            parameter.needs
            if isinstance(parameter, Argument)
            else f"{' or '.join(parameter.opts if parameter else [])}"
        )
        remedy = parameter.remedy if isinstance(parameter, Argument) else ""
        options = f"`{ctx.command_path} --help` shows the options"
        return (
            f"`{ctx.command_path}` needs {needs}, as in `{next(iter(self.examples))}`; "
            f"{f'{remedy}, ' if remedy else ''}{options}"
        )

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: new versions of click would show the arguments apart."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and options, group by group."""
        for group, parameters in by_group(self.get_params(ctx)):
            records = [_record(parameter, ctx) for parameter in parameters]
            with formatter.section(group):
                formatter.write_dl([record for record in records if record is not None])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples: they are the last that is on the screen."""
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


def write_examples(examples: Examples, formatter: click.HelpFormatter) -> None:
    """Write what to type, each with what it does in the line below; no text to type is broken into lines."""
    with formatter.section("Examples"):
        for text, does in examples.items():
            formatter.write(f"{'':{formatter.current_indent}}{text}\n")
            with formatter.indentation():
                formatter.write_text(does)


def _record(parameter: click.Parameter, ctx: click.Context) -> tuple[str, str] | None:
    if isinstance(parameter, Argument):
        return str(parameter.metavar), parameter.describes
    return parameter.get_help_record(ctx)


class Group(click.Group):
    """Commands in sections; suggests the nearest one, and refuses what is no text before anything else looks at it."""

    command_class = Command

    def __init__(self, *names: Any, examples: Examples, **settings: Any) -> None:  # noqa: ANN401 -- passed on to click
        super().__init__(*names, **settings)
        self.examples = examples
        self.sections: dict[str, Sequence[click.Command]] = {}

    def add_section(self, heading: str, *commands: click.Command) -> None:
        """Add commands under a heading of the help."""
        self.sections[heading] = commands
        for command in commands:
            self.add_command(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help to stderr and end, as after wrong usage."""
        for text in args:
            check_text(text)
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named first; raise an error with the nearest one if there is none."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], self.commands)}", ctx=None)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands, section by section, aligned throughout."""
        width = max(map(len, self.commands))
        for heading, commands in (self.sections or {"Commands": list(self.commands.values())}).items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (str(command.name).ljust(width), command.get_short_help_str(formatter.width))
                        for command in commands
                    ]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and what follows them."""
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)
