"""`harness ab`: two environments, or two commits of a checkout, side by side."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from harness.cli.console import ExitCode, echo, note, warn
from harness.cli.gates import outputs
from harness.cli.usage import options
from harness.cli.usage.command import GATE, OUTPUT, Command
from harness.errors import HarnessError, name_few
from harness.machine import usable_cores
from harness.plan.job import Job
from harness.plan.options import make_options
from harness.plan.plan import make_plan
from harness.run.revisions import INSTALL, Builder, Checkout, differing_packages, environments_folder
from harness.specs import Catalog
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.gate.turns import Outcomes
    from harness.run.interpreter import Interpreter
    from harness.run.target import ExecutionTarget
    from harness.run.turns import Measured, ProcessPair

# What can be compared, in the order in which it is.
KINDS = ("count", "cost", "evaluate", "throughput")


@click.command(
    cls=Command,
    examples={
        "harness ab table5 --rows resnet18,deit_ti --python old/bin/python --python new/bin/python": (
            "Say whether the second environment is slower than the first, whatever else the machine does."
        ),
        "harness ab table5 --rev main --rev . --share": (
            "Compare what the project in the working folder installs, as it is, with its branch main."
        ),
        "harness ab table5 --rev main --rev HEAD --only evaluate --data imagenet=/data/imagenet": (
            "Compare the accuracies of two commits on the same images, one by one."
        ),
    },
)
@options.tables
@options.selection
@options.throughput
@options.edition
@options.device
@options.data
@options.weights
@options.option(
    "--python",
    "pythons",
    group=GATE,
    type=options.PATH,
    multiple=True,
    help="The Pythons of two environments with torch and timm, the old one first; give it twice.",
)
@options.option(
    "--rev",
    "revisions",
    group=GATE,
    metavar="COMMIT",
    multiple=True,
    help="Two commits of a checkout instead, the old one first, each in an environment of its own; . is what is there.",
)
@options.option(
    "--checkout",
    group=GATE,
    type=options.PATH,
    default=Path(),
    metavar="DIR",
    help="Folder of the project, in a git repository, for --rev.",
)
@options.option(
    "--install",
    group=GATE,
    metavar="COMMAND",
    default=INSTALL,
    help="Shell command that installs the project, run in its folder with the environment active, for --rev.",
)
@options.option(
    "--share",
    group=GATE,
    is_flag=True,
    help="Let both environments find what is installed here, as torch, so that they need not install it; for --rev.",
)
@options.option(
    "--environments",
    group=GATE,
    type=options.PATH,
    metavar="DIR",
    help="Folder in which the environments of --rev are kept  [default: ~/.cache/deit-harness/environments]",
)
@options.option(
    "--allow",
    group=GATE,
    type=options.ParsedType("PERCENT", options.parse_percentage),
    default="2%",
    help="Change of a throughput that is no regression.",
)
@options.option(
    "--budget",
    group=GATE,
    type=options.DURATION,
    metavar="10min",
    default="10min",
    help="The longest that throughputs may take; it ends as soon as it is sure.",
)
@outputs.outputs
@options.option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Show no progress.")
def ab(tables: tuple[str, ...], edition: str, device: str, **params: Any) -> int:  # noqa: ANN401 -- the options
    """Say whether one environment is slower, or less accurate.

    The same models run in both, a fresh process each, and their steps take turns in random order.  So what else the
    machine does slows both down alike.  Processes are paired until the 99 % interval of the change, over the pairs, is
    on one side of what is allowed.  With --data, both evaluate the same images, and a paired test decides.  Exit code
    0: nothing is slower or worse by more; 1: something is, or failed; 4: nothing was decided within the budget.
    """
    _check(params)
    plan = make_plan(Catalog(edition=edition).find(tables), make_options({**params, "only": _kinds(params)}))
    from harness.cli.execution import local_target
    from harness.gate.turns import gate_of
    from harness.report.gate import render_gate_json, render_turns
    from harness.run.turns import Measured

    target = local_target(device)
    jobs = [job for job in target.fit(plan).jobs if job.kind in KINDS]
    if not jobs:
        raise HarnessError(
            f"no throughput among what was asked of {' '.join(tables)}; ab compares throughputs, with --data "
            "accuracies as well, and with --only count parameters and MACs"
        )
    interpreters = _interpreters(params)
    timed = [job for job in jobs if job.kind == "throughput"]
    measured, interrupted = Measured(pairs={}, failed={}), False
    with TemporaryDirectory(prefix="harness-ab-") as folder:
        sides: Sequence[Outcomes] = ()
        try:
            sides = _measure_values(
                [job for job in jobs if job not in timed], interpreters, target, Path(folder), params
            )
            if timed:
                measured = _take_turns(timed, interpreters, target, params)
        except KeyboardInterrupt:
            interrupted = True
        gate = gate_of(plan, measured, params["allow"], sides, names=tuple(map(str, interpreters)))
    echo(render_gate_json(gate) if params["as_json"] else render_turns(gate), end="")
    code = outputs.deliver(gate, params)
    if measured.interrupted or interrupted:
        note("interrupted: what was decided until then is above")
        return ExitCode.INTERRUPTED
    return code


def _check(params: Mapping[str, Any]) -> None:
    """Refuse what would be ignored."""
    if params["repeats"] or params["memory"] or params["batch"] == "largest":
        raise click.UsageError(
            "ab times until it is sure, at the batch size at which throughput saturates, so it takes no --repeats, "
            "--memory and --batch largest; give --batch N for another one"
        )
    if (len(params["pythons"]), len(params["revisions"])) not in ((2, 0), (0, 2)):
        raise click.UsageError(
            "give --python twice: that of the old environment, then that of the new one; or --rev twice, as --rev main "
            "--rev ."
        )
    unknown = set(params["only"] or ()) - set(KINDS)
    if unknown:
        raise click.UsageError(f"ab compares {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    outputs.check_outputs(params)


def _kinds(params: Mapping[str, Any]) -> tuple[str, ...]:
    if params["only"] or params["throughput_only"]:
        return tuple(params["only"] or ())
    return ("evaluate", "throughput") if params["data"] else ("throughput",)


def _interpreters(params: Mapping[str, Any]) -> "tuple[Interpreter, ...]":
    """Return the Pythons of both environments; those of commits are built where they are not there yet."""
    from harness.run.interpreter import Interpreter

    if params["pythons"]:
        return tuple(map(Interpreter.of, params["pythons"]))
    checkout = Checkout(folder=params["checkout"])
    revisions = [checkout.revision(name) for name in params["revisions"]]
    if any(revision.name == "." for revision in revisions) and (files := checkout.untracked()):
        warn(f"--rev .: {name_few(files)} are not known to git and in no revision; `git add` them")
    builder = Builder(
        checkout=checkout,
        folder=params["environments"] or environments_folder(),
        report=(lambda _: None) if params["quiet"] else note,
        install=params["install"],
        share=params["share"],
    )
    old, new = map(builder.interpreter, revisions)
    differing = differing_packages(old.packages, new.packages)
    if differing:
        note(f"the environments differ in {name_few(differing, most=10)}")
    return old, new


def _measure_values(
    jobs: Sequence[Job],
    interpreters: "Sequence[Interpreter]",
    target: "ExecutionTarget",
    folder: Path,
    params: Mapping[str, Any],
) -> "tuple[Outcomes, ...]":
    """Count and evaluate in one environment after the other: other load of the machine changes no such value."""
    from harness.cli.progress import counting
    from harness.gate.turns import Outcomes
    from harness.run.launch.elsewhere import measure_elsewhere
    from harness.run.messages import Batch, Inputs

    sides: list[Outcomes] = []
    for number, interpreter in enumerate(interpreters if jobs else ()):
        batch = Batch(
            jobs=tuple(jobs),
            device=target.device,
            machine=target.machine,
            software=target.software,
            runs=folder / str(number),
            inputs=Inputs(data=params["data"], weights=params["weights"], workers=usable_cores()),
            devices=target.devices,
        )
        with nullcontext(lambda *_: None) if params["quiet"] else counting(f"measuring in {interpreter}") as show:
            outcomes = measure_elsewhere(interpreter, batch, show)
        sides.append(Outcomes(store=Store(batch.runs), outcomes=outcomes))
    return tuple(sides)


def _take_turns(
    jobs: Sequence[Job], interpreters: "Sequence[Interpreter]", target: "ExecutionTarget", params: Mapping[str, Any]
) -> "Measured":
    """Measure pairs in both environments, with the machine to ourselves as far as other harnesses go."""
    from harness.cli.progress import counting
    from harness.gate.turns import decide, is_decided
    from harness.machine.exclusive import exclusive_lock, speed_lock
    from harness.run.turns import Turns, open_sides, take_turns

    allowed, decided = params["allow"], []

    with (
        open_sides(interpreters) as sides,  # first, as who waits for the lock wants to know that he may
        exclusive_lock(speed_lock(), note),
        nullcontext(lambda *_: None) if params["quiet"] else counting("pairs of processes, by turns") as show,
    ):

        def report(job: Job, pairs: "Sequence[ProcessPair]") -> None:
            if is_decided(pairs, allowed):
                decided.append(job)
                if not params["quiet"]:
                    note(f"{job}: {decide(pairs, allowed).outcome} after {len(pairs)} pairs of processes")
            show(len(decided), len(jobs))

        for side in sides if not params["quiet"] else ():
            note(f"{side.interpreter}: {', '.join(f'{name} {version}' for name, version in side.software.items())}")
        turns = Turns(sides=sides, device=target.device, threads=target.machine.threads)
        measured = take_turns(
            jobs,
            turns.measure_pair,
            lambda pairs: is_decided(pairs, allowed),
            seconds=params["budget"],
            report=report,
        )
    return replace(measured, costs=turns.costs)
