"""`harness doctor`: versions, devices, the GPUs that this build of torch can run, and problems of data or weights."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from harness.cli.console import ExitCode, echo, meanwhile
from harness.cli.usage import options
from harness.cli.usage.command import PLACE, Command
from harness.errors import did_you_mean, name_few
from harness.machine import describe, gpus, software, survey, torch_build
from harness.plan.options import known_data_sets
from harness.plan.plan import make_plan
from harness.specs import Catalog
from harness.store.store import Store

# In a Python of its own: torch takes seconds to import, and a broken build may crash it.  Without a GPU torch's public
# list is empty, though the build has its architectures all the same.
_PRINT_ARCHITECTURES = """
import json, torch
print(json.dumps(torch.cuda.get_arch_list() or (torch._C._cuda_getArchFlags() or "").split()))
"""


@click.command(
    cls=Command,
    examples={
        "harness doctor": "Show versions and devices, and whether this build of torch runs on them.",
        "harness doctor --data imagenet=/data/imagenet": "Read every image, and name what is wrong.",
        "harness doctor --noise": "Tell how small a change this machine can tell from noise.",
        "harness doctor --weights DIR": "Show which weights of the tables a folder has.",
    },
)
@options.data
@options.weights
@options.device
@options.runs
@options.option(
    "--peaks", group=PLACE, is_flag=True, help="Measure peak throughput and bandwidth of the device, and store them."
)
@options.option(
    "--noise", group=PLACE, is_flag=True, help="Find out in a minute which change `check` and `ab` would notice here."
)
def doctor(  # noqa: PLR0913 -- the options
    data: dict[str, str], weights: Path | None, device: str, runs: Path, *, peaks: bool, noise: bool
) -> int:
    """Show versions, devices, and problems of data or weights."""
    if weights is not None or data:
        sound = [_check_weights(weights)] if weights is not None else []
        sound += [_check_images(name, path) for name, path in data.items()]  # every one, also after a bad one
        return ExitCode.OK if all(sound) else ExitCode.SOME_FAILED
    if noise:
        from harness.cli.machine_noise import measure_noise

        return measure_noise(device)
    healthy = _describe_environment()
    if peaks:
        return _measure_peaks(device, runs)
    return ExitCode.OK if healthy else ExitCode.SOME_FAILED


def _describe_environment() -> bool:
    """Print a line for each version and device; whether all of them work together."""
    here = describe("auto")
    lines = [f"device    {here.device}: {here.label}"]
    if here.device != "cpu":
        lines.append(f"host      {describe('cpu').label}")
    lines += [f"{name.ljust(9)} {value}" for name, value in software(here).items()]
    torch, cuda = torch_build()
    lines.append(f"build     torch {torch}, " + (f"CUDA {cuda}" if cuda else "CPU only"))
    echo("\n".join(lines))
    with meanwhile("importing torch"):
        architectures = _torch_architectures()
    if architectures is None:
        echo("problem   torch cannot be imported: run `python -c 'import torch'` to see why")
        return False
    lines, healthy = [f"compiled  for {' '.join(architectures) or 'no GPU'}"], True
    for gpu in gpus():
        supported, advice = can_run(gpu.architecture, architectures)
        healthy = healthy and supported
        lines.append(f"cuda:{gpu.index}    {gpu.name}, {gpu.architecture}, driver {gpu.driver}: {advice}")
    if not gpus():
        lines.append(f"cuda      {survey().reason}; throughput is measured on the CPU")
    lines += [f"problem   {problem}" for problem in survey().problems]
    echo("\n".join(lines))
    return healthy


def _torch_architectures() -> list[str] | None:
    """Return the architectures that this build of torch has code for; None if it cannot be imported."""
    completed = subprocess.run(  # noqa: S603 -- our own interpreter, our own text
        [sys.executable, "-c", _PRINT_ARCHITECTURES], capture_output=True, text=True, errors="replace", check=False
    )
    return list(map(str, json.loads(completed.stdout.splitlines()[-1]))) if completed.returncode == 0 else None


def can_run(architecture: str, compiled: Sequence[str]) -> tuple[bool, str]:
    """Whether a build compiled for some architectures runs on a GPU of this one, and what to do if not.

    Machine code (`sm_80`) runs on the same major version from its minor on; portable code (`compute_90`) on any later
    GPU.
    """
    version = _version(architecture)
    for name in compiled:
        code = _version(name)
        fits = name.startswith("compute_") or (name.startswith("sm_") and code[0] == version[0])
        if fits and code <= version:
            return True, "runs"
    if not compiled:
        return False, "this build of torch is for the CPU only; install one for CUDA"
    if version < min(map(_version, compiled)):
        return False, (
            f"this build of torch has no code for {architecture}; install an older one: builds from torch 2.11 on "
            "start at sm_75, `pip install 'torch<2.11'` gives a build for CUDA 12 that still has Volta (sm_70)"
        )
    return False, f"this build of torch has no code for {architecture}; install a newer one"


def _version(name: str) -> tuple[int, int]:
    """`sm_75` is (7, 5), `sm_100a` is (10, 0)."""
    digits = "".join(c for c in name.partition("_")[2] if c.isdigit())
    return int(digits[:-1] or 0), int(digits[-1:] or 0)


def _check_weights(folder: Path) -> bool:
    """Print which weights of the shipped tables a folder has; whether those can be loaded."""
    from harness.cli.progress import counting
    from harness.run.launch import LocalLauncher
    from harness.run.messages import Inputs

    inputs, launcher = Inputs(weights=folder), LocalLauncher()
    jobs = {job.weights_name: job for job in make_plan(Catalog().find(["all"])).all_jobs if job.weights_name}
    with counting(f"reading the weights in {folder}"):
        inventory = launcher.inspect(inputs, tuple(jobs.values()))
        absent = [name for name, reason in inventory.missing.items() if "no weights of" in reason]
        problems = {name: reason for name, reason in inventory.missing.items() if name not in absent}
        problems |= launcher.unfit_weights(inputs, tuple(jobs[name] for name in inventory.weights))
    sound = {name: digest for name, digest in inventory.weights.items() if name not in problems}
    lines = [f"weights   {len(sound)} of {len(jobs)} that the tables name: {folder}"]
    lines += [f"found     {name}, SHA-256 {str(digest)[:12]}…" for name, digest in sound.items()]
    lines += [
        f"note      {name}: the name of its file fits {name_few(others)} as well; rename it to say which"
        for name, others in inventory.also_fits.items()
        if others and name in sound
    ]
    lines += [f"problem   {reason}" for reason in problems.values()]
    lines += [f"missing   {name}" for name in absent]
    echo("\n".join(lines))
    return not problems


def _check_images(data: str, path: str) -> bool:
    """Check every image of a dataset and print what is wrong; whether nothing is."""
    from harness.cli.progress import counting
    from harness.run.launch import LocalLauncher
    from harness.run.messages import CheckReport, Inputs

    report = CheckReport()
    with counting(f"reading the images of {data}") as show:
        for report in LocalLauncher().check(Inputs(data={data: path}), data):
            show(report.done, report.total)
    known = known_data_sets(make_plan(Catalog().find(["all"])))
    # A misspelt name is taken for a dataset about which nothing is known.
    notes = [] if data in known else [f"no shipped table has a dataset '{data}'{did_you_mean(data, known)}"]
    lines = [f"data      {data}: {path}", *report.lines, *(f"note      {note}" for note in (*notes, *report.notes))]
    echo("\n".join([*lines, *(f"problem   {problem}" for problem in report.problems)]))
    return not report.problems


def _measure_peaks(device: str, runs: Path) -> int:
    from harness.cli.execution import local_runner
    from harness.judge.roofline import PRECISION, peak_job

    with local_runner(Store(runs), device, quiet=False) as runner:
        runner.measure([peak_job(precision) for precision in PRECISION.values()], rerun=True)
    for result in runner.measured:
        metrics = ", ".join(f"{name} {metric.value:.3g} {metric.unit}" for name, metric in result.metrics.items())
        echo(f"peaks     {result.job['precision']}: {result.error or metrics}")
    return ExitCode.SOME_FAILED if runner.failed else ExitCode.OK
