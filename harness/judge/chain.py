"""The chain behind a cell's number -> its first link that is not what was published.

A number is judged only where every link is: the seeds that were trained, the weights and the trainings that made them,
the images of each training and evaluation, the settings, the machine, and what else the machine did meanwhile.  A link
that nothing is known of is no reason to trust it.
"""

import re
from collections.abc import Iterator, Mapping

from harness.judge.table import FilledCell
from harness.plan.job import Job
from harness.plan.plan import Options, dependencies, make_job
from harness.stats import timing_warnings
from harness.store.result import Result
from harness.store.select import interference

# What was done with the images of a result, by the part that it has in the number.
_DONE = {"": "measured", "weights": "trained", "start": "pre-trained", "teacher": "its teacher trained"}

# A GPU that does not report these may have been slowed down or shared.
_UNMONITORED = re.compile(r"were not monitored|does not report .*(throttle reasons|other processes)")


def broken_link(filled: FilledCell) -> str:
    """Return why a measured cell may not be judged, which names the first broken link; empty if the chain is whole."""
    return broken_input(filled) or next((reason for link in _CONDITIONS for reason in link(filled)), "")


def broken_input(filled: FilledCell) -> str:
    """Return the first link that is not as published among seeds, weights and images; empty if all are.

    Such a number does not belong among published ones even where settings and machine do not matter.  Of a derived cell
    it is that of the first operand that has one.
    """
    own = (reason for link in _INPUTS for reason in link(filled))
    operands = ((operand.planned.name, broken_input(operand)) for operand in filled.operands)
    return next((f"{name}: {reason}" for name, reason in operands if reason), "") or next(own, "")


def unknown_origin(filled: FilledCell) -> str:
    """Return why it is not known what a number was made from; empty if it is."""
    return next(_origins(filled), "")


# What was measured.


def _seeds(filled: FilledCell) -> Iterator[str]:
    """Every seed that was asked for is in the mean."""
    requested, there = filled.requested_seeds, filled.by_seed
    for seed in requested if len(requested) > 1 else ():
        if seed not in there:
            result = filled.result_by_seed.get(seed)
            reason = f"failed: {result.error}" if result is not None and result.error else "is not measured"
            yield f"{len(there)} of {len(requested)} seeds are there: seed {seed} {reason}"


def _substitutes(filled: FilledCell) -> Iterator[str]:
    """Nothing stands in for weights or settings of the paper by request."""
    planned = filled.planned
    if planned.other_weights:
        yield planned.other_weights
    if planned.scaled_down:
        yield f"trained at the {planned.scale} scale instead of the published one"
    if planned.changes:
        yield f"trained with {planned.changes}, which is not how the published value was"


def _origins(filled: FilledCell) -> Iterator[str]:
    """What the number was made from is known: whose weights a file has, and runs that are those in the store."""
    if filled.unclear_weights:
        yield filled.unclear_weights
    for result in _own(filled):
        yield from (problem for _, _, problem in _followed(result, filled.behind) if problem)


def _images(filled: FilledCell) -> Iterator[str]:
    """Images are the published ones, those of every training behind the number as well."""
    for own in _own(filled):
        for result, part, _ in _followed(own, filled.behind):
            yield from _own_images(result, _DONE[part or ("weights" if result.job.kind == "train" else "")])


def _own_images(result: Result, done: str) -> Iterator[str]:
    facts, images = result.facts, result.facts.get("images")
    if images is None and result.job.reads_images and result.job.kind != "dataset":
        yield f"nothing is known of the images that it was {done} on"
    elif images is not None and not images.get("whole"):
        yield f"{done} on {images.get('said', 'other images')}"
    if facts.get("unreadable"):
        count = f" of {images['images']:,}" if images and "images" in images else ""
        yield f"{len(facts['unreadable']):,}{count} images could not be read and count as wrong"


def _own(filled: FilledCell) -> list[Result]:
    return [result for result in (filled.result, *filled.repeats) if result is not None and result.error is None]


def _followed(result: Result, behind: Mapping[str, Result], part: str = "") -> Iterator[tuple[Result, str, str]]:
    """Yield all that a result was made from, itself last: each result, its part, and why no more is known (or "")."""
    for name, job, taken in _made_from(result):
        source = behind.get(job.key)
        if source is None:
            yield result, part, f"nothing is known of what it was made from: there is no result of '{job}'"
        elif source.error is not None:
            yield result, part, f"the newest run of what it was made from, '{job}', failed: {source.error}"
        elif _product(source) is None or _product(source) not in taken:
            remedy = "`harness reproduce` with the same inputs measures it again"
            yield result, part, f"made from another run of '{job}' than the newest, {source.id}; {remedy}"
        else:
            yield from _followed(source, behind, name)
    yield result, part, ""


def _made_from(result: Result) -> Iterator[tuple[str, Job, tuple[object, ...]]]:
    """Yield each job that a result was made from: its part, the job, and which products of it were taken."""
    facts = result.facts
    digests = {"weights": (facts.get("weights") or {}).get("sha256"), **(facts.get("took") or {})}
    for part, training in result.job.needs:
        yield part, training, (digests.get(part),)
    for evaluation in dependencies(result.job):
        yield "", evaluation, tuple(facts.get("evaluations") or ())


def _product(source: Result) -> object:
    """Return what others take of a result: a training's weights by their SHA-256, an evaluation by its run."""
    return (source.facts.get("weights") or {}).get("sha256") if source.job.kind == "train" else source.id


# How, and on which machine.


def _settings(filled: FilledCell) -> Iterator[str]:
    """The settings are those of the spec, and the machine is the one that the column names."""
    result, machine = filled.result, filled.cell.machine
    assert result is not None
    job = result.job
    changed: list[str] = []
    if not job.needs and job.kind not in ("train", "recipe"):  # those are what the recipe says
        published = make_job(filled.cell, Options())
        changed = sorted({name for name, _ in set(job.settings) ^ set(published.settings)})
        if "protocol" in changed:
            yield f"measured under the {job['protocol']} protocol, published under the {published['protocol']} one"
    cores = filled.cell.column.cores
    if machine and not filled.any_machine:
        if not result.machine.matches(machine, cores):
            yield f"measured on {result.machine.label}, published for {machine}"
        elif cores and (threads := int(job.get("threads", result.machine.threads))) != cores:
            yield (
                f"measured with {threads} thread{'s' if threads != 1 else ''}, published for the {cores} cores of "
                f"{machine}: set OMP_NUM_THREADS={cores}"
            )
        elif cores and result.machine.cores < cores:
            here = result.machine.cores
            yield f"measured on {here} of the {cores} cores of {machine}: allow this process all of them"
    if not machine and not filled.any_machine and (job.exclusive or filled.cell.metric == "hours"):
        yield f"measured on {result.machine.label}, and the spec does not name the published machine"
    if changed:
        described = ", ".join(f"{name} = {job.get(name, 'None')}" for name in changed)
        yield f"measured with {described}, which is not how the published value was"


def _noise(filled: FilledCell) -> Iterator[str]:
    """Nothing else used or slowed the machine while a throughput was measured, as far as it tells."""
    result = filled.result
    if result is None or not result.job.exclusive:
        return
    samples = next((metric.samples for metric in result.metrics.values() if metric.samples), ())
    for warning in filter(None, (interference(result), *(timing_warnings(samples, serious=True) if samples else ()))):
        yield f"noisy measurement: {warning.replace(': ', '; ', 1)}"
    if "quick" in result.facts:
        yield "measured with --quick, which tells the order of models and no more; measure again without"
    if not result.facts.get("warm_up_steady", True):
        yield "noisy measurement: the warm-up was not steady; measure again when the machine is idle"
    if reason := result.facts.get("not_compiled"):
        yield str(reason)
    yield from (warning for warning in result.warnings if _UNMONITORED.search(warning))


_INPUTS = (_seeds, _substitutes, _origins, _images)
_CONDITIONS = (_settings, _noise)
