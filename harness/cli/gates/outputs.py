"""A gate -> what a CI takes of it besides the text: files, the job's summary and outputs, a comment, the exit code."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cleaning import one_line
from harness.cli.console import ExitCode, check_output, print_error, warn, write_file
from harness.cli.usage import options
from harness.cli.usage.command import OUTPUT
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.gate.gate import Gate


def _parse_name(text: str) -> str:
    from harness.cli.gates.pull_request import parse_name

    return parse_name(text)


outputs = options.stack(
    options.option("--junit", group=OUTPUT, type=options.PATH, help="Write JUnit XML to this file as well."),
    options.option(
        "--markdown",
        group=OUTPUT,
        type=options.PATH,
        help="Write the Markdown of the job summary to this file as well.",
    ),
    options.option(
        "--badge",
        group=OUTPUT,
        type=options.PATH,
        help="Write a badge, as shields.io reads it, to this JSON file as well.",
    ),
    options.option(
        "--github",
        group=OUTPUT,
        is_flag=True,
        help="Print GitHub annotations as well, and write the job's summary and outputs.",
    ),
    options.option(
        "--comment",
        group=OUTPUT,
        metavar="NAME",
        type=options.ParsedType("NAME", _parse_name),
        help="In the CI of GitHub or GitLab, write the comment of this name to the pull request, or renew it.",
    ),
    options.option("--json", "as_json", group=OUTPUT, is_flag=True, help="Print JSON instead of text."),
)


def check_outputs(params: Mapping[str, Any]) -> None:
    """Refuse two outputs that would be one text."""
    if params["github"] and params["as_json"]:
        raise click.UsageError("--github and --json both print to stdout; take one, or --junit for a file")


def deliver(gate: "Gate", params: Mapping[str, Any], *, renew: str = "") -> int:
    """Write what else was asked for, and return the exit code; a file that fails hides no regression."""
    from harness.report.gate import render_annotations, render_badge, render_junit, render_summary

    summary = render_summary(gate, renew=renew)
    try:
        if params["junit"]:
            write_file(params["junit"], render_junit(gate), "--junit")
        if params["markdown"]:
            write_file(params["markdown"], summary, "--markdown")
        if params["badge"]:
            write_file(params["badge"], render_badge(gate), "--badge")
        if params["github"]:
            sys.stdout.write(render_annotations(gate))  # commands that are meant
            _append("GITHUB_STEP_SUMMARY", summary, "job summary")
            if os.environ.get("GITHUB_OUTPUT"):
                _append("GITHUB_OUTPUT", _job_outputs(gate, params["markdown"]), "job output")
        check_output(reader_may_leave=False)
    except HarnessError as error:
        if not gate.failing:
            raise
        print_error(str(error))
    finally:
        if params["comment"]:
            from harness.cli.gates import pull_request

            warn(*pull_request.comment(params["comment"], lambda most: render_summary(gate, renew=renew, most=most)))
    if gate.failing:
        return ExitCode.REGRESSION
    return ExitCode.NOTHING_TO_COMPARE if gate.empty else ExitCode.OK


def _job_outputs(gate: "Gate", report: Path | None) -> str:
    from harness.report.gate import headline

    status = "failed" if gate.failing else "undecided" if gate.empty else "passed"
    lines = [f"status={status}", f"headline={one_line(headline(gate))}", *([f"report={report}"] if report else [])]
    return "".join(f"{line}\n" for line in lines)


def _append(variable: str, text: str, name: str) -> None:
    """Add to a file that GitHub names in a variable."""
    path = os.environ.get(variable)
    if not path:
        warn(f"--github: {variable} is not set, so there is no {name}")
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HarnessError(f"{variable}={path}: {error.strerror}") from error
