"""What a store holds after a disturbance, held against what it held before and against an undisturbed one."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.errors import StoreError
from harness.store.predictions import Predictions, read_of
from harness.store.result import Result
from harness.store.store import Store


@dataclass(kw_only=True)
class State:
    """The good results of a store, their weights as SHA-256 and their predictions; `unreadable` has what is not whole.

    All are by the text of the job.
    """

    results: list[Result] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    predictions: dict[str, Predictions] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        return {result.id for result in self.results}

    @property
    def jobs(self) -> Counter[str]:
        return Counter(str(result.job) for result in self.results)


def look(runs: Path) -> State:
    """Read everything in a store."""
    store = Store(runs)
    state = State(results=[result for result in store.all_results() if result.error is None])
    state.unreadable += store.damaged
    state.unreadable += [str(path) for path in runs.rglob("*.damaged")]
    for result in state.results:
        name = str(result.job)
        if result.job.kind == "evaluate":
            try:
                state.predictions[name] = read_of(result, store.predictions_of(result))
            except StoreError as error:
                state.unreadable.append(str(error))
        if result.job.kind == "train":
            file = store.weights_of(result)
            digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "gone"
            state.weights[name] = digest
            if digest != result.facts["weights"]["sha256"]:
                state.unreadable.append(f"{file}: is not what its result says ({digest})")
    return state


def lost(before: State, after: State, reported: Mapping[str, int]) -> list[str]:
    """Name results that were there, or were said to be saved, and are not."""
    missing = [f"result {id_} is gone" for id_ in sorted(before.ids - after.ids)]
    new = Counter(result.job.kind for result in after.results if result.id not in before.ids)
    return missing + [f"{n} {kind} were reported as saved" for kind, n in reported.items() if n > new[kind]]


def doubled(state: State) -> list[str]:
    return [f"'{job}' has {count} results" for job, count in state.jobs.items() if count > 1]


def differences(state: State, whole: State) -> list[str]:
    """Name jobs whose outcome is not bit for bit that of an undisturbed command."""
    names = [f"'{job}' has no result" for job in whole.jobs.keys() - state.jobs.keys()]
    names += [f"'{job}' has other weights" for job, digest in whole.weights.items() if state.weights.get(job) != digest]
    for job, predictions in whole.predictions.items():
        if job in state.predictions and not _equal(predictions, state.predictions[job]):
            names.append(f"'{job}' has other predictions")
    return names


def _equal(one: Predictions, other: Predictions) -> bool:
    heads = one.heads.keys() == other.heads.keys()
    return (
        heads
        and one.names == other.names
        and all(np.array_equal(head.top, other.heads[name].top) for name, head in one.heads.items())
        and all(np.allclose(head.scores, other.heads[name].scores, atol=1e-5) for name, head in one.heads.items())
    )
