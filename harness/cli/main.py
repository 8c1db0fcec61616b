"""The command group, and what becomes of errors."""

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from click.core import ParameterSource

from harness import __version__
from harness.cleaning import printable
from harness.cli import bundles, cluster, doctor, importing, listing, report, reproduce, runs
from harness.cli.console import ExitCode, check_output, open_streams, print_error
from harness.cli.gates import ab, check
from harness.cli.usage import options
from harness.cli.usage.command import Group
from harness.cli.why import why
from harness.errors import HarnessError
from harness.machine.user import ensure_user_name

# Failures of the system that can meet any file, and how the user can mend them; other errors of files are bugs.
_OF_THE_SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or name another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow this user to use it, or name another"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR), "name another"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files, as `ulimit -n 4096` does"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOMEM), "see the log of the system"),
}


@click.group(
    cls=Group,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples={
        "harness reproduce table5 --throughput-only --rows 'resnet18,deit_ti'": (
            "Measure the throughput of two models, which takes a minute and needs no weights and no images."
        ),
        "harness report table5": "Print what was measured so far next to what was published.",
    },
    epilog="""\b
Completion of commands, options, tables, rows and columns:
  bash  eval "$(_HARNESS_COMPLETE=bash_source harness)"    in ~/.bashrc
  zsh   eval "$(_HARNESS_COMPLETE=zsh_source harness)"     in ~/.zshrc
  fish  _HARNESS_COMPLETE=fish_source harness | source     in ~/.config/fish/config.fish""",
)
@click.version_option(__version__, "-V", "--version", prog_name="harness")
@click.pass_context
def cli(context: click.Context) -> None:
    """Reproduce the tables of the DeiT paper and judge every cell."""
    context.default_map = options.load_settings(cli.commands)


cli.add_section(
    *("Tables", listing.list_tables, listing.plan, reproduce.reproduce, report.report, report.figure),
    importing.import_table,
)
cli.add_section("Regressions, in CI", check.check, check.baseline, ab.ab, report.trend)
cli.add_section("Stored results", runs.runs, runs.compare, bundles.bundle, bundles.merge, why)
cli.add_section("Machines", doctor.doctor, cluster.status, cluster.cancel)


def main() -> NoReturn:
    """Run the command line; a mistake of the user ends in one sentence, a bug in its traceback."""
    open_streams()
    ensure_user_name()
    options.drop_unusable_variables()
    code = _outcome()
    try:
        if code == ExitCode.OK:
            check_output(reader_may_leave=True)
    except HarnessError as error:
        print_error(str(error))
        code = ExitCode.USAGE
    sys.exit(code)


def _outcome() -> int:
    try:
        with stoppable():
            code = cli.main(prog_name="harness", standalone_mode=False)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        print_error(_origin(error) + error.format_message())
        return ExitCode.USAGE
    except HarnessError as error:
        print_error(str(error))
        return ExitCode.USAGE
    except KeyboardInterrupt:
        print_error("interrupted")
        return ExitCode.INTERRUPTED
    except BaseException as error:  # noqa: BLE001 -- all others are bugs, which Python would end with 1, a regression's code
        return _failure(error)
    return code if isinstance(code, int) else ExitCode.OK


def _origin(error: click.ClickException) -> str:
    """Return where the value of an option comes from that is wrong, unless it is the command line."""
    if not isinstance(error, click.BadParameter) or error.param is None or error.ctx is None:
        return ""
    source = error.ctx.get_parameter_source(str(error.param.name))
    origins = {ParameterSource.ENVIRONMENT: error.param.envvar, ParameterSource.DEFAULT_MAP: options.SETTINGS_FILE}
    return f"{origins[source]}: " if source in origins else ""


def _failure(error: BaseException) -> int:
    """Print an error that no command expects, and return its exit code."""
    completion = os.environ.get("_HARNESS_COMPLETE")
    # So click ends after a completion, and where a shell did not set the variables of one.
    if isinstance(error, (SystemExit, KeyError, ValueError)) and completion is not None:
        if isinstance(error, SystemExit) and not error.code:
            return ExitCode.OK
        print_error(f"_HARNESS_COMPLETE={completion}: is for bash, zsh and fish; `harness --help` shows how to set it")
        return ExitCode.USAGE
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        place = f"{error.filename}: " if error.filename is not None else ""
        print_error(f"{place}{os.strerror(error.errno)}; {_OF_THE_SYSTEM[error.errno]}")
        return ExitCode.USAGE
    print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print_error("this is a bug in the harness; please report it with the lines above and `harness doctor`")
    return ExitCode.BUG


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, which `docker stop` and schedulers send, end the block as Ctrl-C does: trainings are resumed."""
    inherited = signal.getsignal(signal.SIGTERM)
    # No other thread can, and a signal that is ignored or handled stays so.
    if threading.current_thread() is not threading.main_thread() or inherited is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, inherited)
