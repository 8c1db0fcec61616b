"""`Result`s -> why the weights behind some of them may not be those that their jobs name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.errors import name_few
from harness.store.result import Result


def unclear_weights(results: Iterable[Result]) -> dict[str, str]:
    """Return, by the key of a result's job, the reason why its weights may be others than the job names.

    A file cannot be two of timm's weights: where results have two names for it, neither is known to be right.  (Jobs of
    one name, as of another size or crop, share their file rightly, and the hub may have one file under two names.)  A
    file whose name has no tag may be any of those that timm has of the model; it says nothing about a file with a tag.
    """
    uses = [(result.job.key, name, file) for result in results for name, file in _named_files(result)]
    names: dict[object, set[str]] = {}
    for _, name, file in uses:
        if not file.get("also_fits"):
            names.setdefault(file.get("sha256"), set()).add(name)
    reasons = {}
    for key, name, file in uses:
        label = f"{file.get('file', 'the file')} (SHA-256 {str(file.get('sha256'))[:12]}…)"
        sharing = sorted(names.get(file.get("sha256"), ()))
        if also_fits := file.get("also_fits"):
            reasons[key] = f"{label} may be {name} or {name_few(also_fits)}; rename it to say which"
        elif len(sharing) > 1 and file.get("origin") != "hub":
            reasons[key] = f"{label} was taken for {' and '.join(sharing)}, and can only be one of them"
    return reasons


def _named_files(result: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the files of public weights that a result took, each with the name, `MODEL.TAG`, that it was taken for."""
    job, facts = result.job, result.facts
    if job.weights_name and facts.get("weights"):
        yield job.weights_name, facts["weights"]
    for part, digest in facts.get("took", {}).items():
        if job.need(part) is None:
            yield str(job.get(part)), {"sha256": digest}
