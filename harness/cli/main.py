"""The command group, and what becomes of errors."""

import sys
import traceback
from typing import NoReturn

import click

from harness import __version__
from harness.cli import cluster, doctor, gate, listing, options, report, reproduce, runs
from harness.cli.console import ExitCode, open_streams, sigterm_as_ctrl_c
from harness.errors import HarnessError, did_you_mean
from harness.machine.user import ensure_user_name


class _Commands(click.Group):
    """Suggests the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], self.commands)}", ctx=None)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Completion of commands, options, tables, rows and columns:
  bash  eval "$(_HARNESS_COMPLETE=bash_source harness)"    in ~/.bashrc
  zsh   eval "$(_HARNESS_COMPLETE=zsh_source harness)"     in ~/.zshrc
  fish  _HARNESS_COMPLETE=fish_source harness | source     in ~/.config/fish/config.fish""",
)
@click.version_option(__version__, "-V", "--version", prog_name="harness")
@click.pass_context
def cli(context: click.Context) -> None:
    """Reproduce the tables of the DeiT paper and judge every cell.

    Start with `harness reproduce table5 --throughput-only --rows 'resnet18,deit_ti'`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)
    context.default_map = options.load_settings(cli.commands)


for command in (
    *(listing.list_tables, listing.plan, reproduce.reproduce, report.report, report.figure, doctor.doctor),
    *(gate.check, gate.baseline, runs.compare, runs.runs, cluster.status, cluster.cancel),
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line; a mistake of the user ends in one sentence, a bug in its traceback."""
    open_streams()
    ensure_user_name()
    try:
        with sigterm_as_ctrl_c():
            code = cli.main(prog_name="harness", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.Abort:
        code = ExitCode.INTERRUPTED
    except (click.ClickException, HarnessError) as error:
        _print_error(error.format_message() if isinstance(error, click.ClickException) else str(error))
        code = ExitCode.USAGE
    except KeyboardInterrupt:
        _print_error("interrupted")
        code = ExitCode.INTERRUPTED
    except SystemExit:
        # So click ends when the reader went away (`| head`): nothing is wrong, and nothing more can be said.
        code = ExitCode.OK
    except Exception:  # noqa: BLE001 -- all others are bugs, which Python would end with 1, the code of a regression
        traceback.print_exc()
        _print_error("this is a bug in the harness; please report it with the lines above and `harness doctor`")
        code = ExitCode.BUG
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _print_error(text: str) -> None:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)
