"""`harness why`: a training came out low; plain text, at once."""

from pathlib import Path

import click

from harness.cli.console import echo, terminal_width, use_color
from harness.cli.diagnosis import render_json, render_markdown, render_terminal
from harness.cli.usage import options
from harness.cli.usage.command import OUTPUT, TRAINING, Command, argument
from harness.specs import Catalog
from harness.specs.recipe import Recipes


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples={
        "harness why train.log": "Of what DeiT's main.py printed, which begins with Namespace(…).",
        "harness why args.yaml --log summary.csv": "Of a training of timm's train.py.",
        "harness why model=deit_base_patch16_224 batch_size=60 world_size=8 top1=78.8": "Of what you remember.",
    },
)
@argument(
    "training",
    nargs=-1,
    required=True,
    metavar="FILE|TEXT|KEY=VALUE...",
    describes="A file that the training wrote, the command it was started with, or settings as KEY=VALUE.",
    needs="what the training was started with",
    remedy="give a file that it wrote, its command line, or settings as batch_size=60",
)
@options.option(
    "--recipe",
    group=TRAINING,
    metavar="NAME",
    help="Recipe to compare with  [default: the one that trains their model]",
)
@options.option(
    "--log",
    group=TRAINING,
    type=options.PATH,
    help="A log.txt of DeiT or a summary.csv of timm; FILE may be one as well.",
)
@options.option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(("terminal", "markdown", "json")),
    default="terminal",
    help="Format of the answer.",
)
def why(training: tuple[str, ...], recipe: str | None, log: Path | None, form: str) -> None:
    """Say what differs between a training that came out low and a recipe.

    The training is what DeiT's main.py or timm's train.py was started with or left: the whole command line, a file with
    the Namespace(…) line, an args.yaml, a log.txt, a summary.csv, or pairs as batch_size=60 world_size=8 top1=78.8.
    The most likely cause is first.
    """
    from harness.judge.training.given import read_given
    from harness.judge.training.why import diagnose

    given = read_given(training, [log] if log else [])
    diagnosis = diagnose(given, Catalog().find(["all"]), Recipes(), recipe)
    if form == "terminal":
        echo(render_terminal(diagnosis, width=terminal_width(), color=use_color()), styled=True, end="")
    else:
        echo((render_json if form == "json" else render_markdown)(diagnosis), end="")
