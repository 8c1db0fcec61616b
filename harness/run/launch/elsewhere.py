"""`Batch` -> results in a store, measured by the Python of another environment."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from tempfile import TemporaryFile
from typing import Any

from harness.plan.job import Job
from harness.run.batches import share_processes
from harness.run.interpreter import Interpreter, end, harness_alone
from harness.run.launch.local import exit_message
from harness.run.messages import Batch, Progress, Saved
from harness.store.result import Result
from harness.store.store import Store

_MODULE = "harness.jobs.elsewhere"


def measure_elsewhere(
    interpreter: Interpreter, batch: Batch, show: Callable[[int, int], None]
) -> dict[Job, Result | str]:
    """Return the result of each job, by the job without code, or the sentence that says why there is none.

    `show` gets how many steps of a phase are done, and of how many.  The results, and the predictions next to them, are
    in the store of the batch.  Raises `HarnessError` for a Python that cannot be started or lacks what it needs.
    """
    store, outcomes = Store(batch.runs), dict[Job, Result | str]()
    store.prepare()
    for jobs in share_processes(batch.jobs):
        reason = "its process left no result"
        for message in _messages(interpreter, replace(batch, jobs=jobs)):
            if isinstance(message, Progress):
                show(message.done, message.total)
            elif isinstance(message, Saved):
                outcomes[message.job.without_code] = _saved(store, message)
            else:
                reason = message
        outcomes |= {job.without_code: reason for job in jobs if job.without_code not in outcomes}
    return outcomes


def _saved(store: Store, message: Saved) -> Result | str:
    result = store.latest(message.job, lambda result: result.id == message.id)
    if result is None:
        return "its result is gone"
    return result if result.error is None else result.error


def _messages(interpreter: Interpreter, batch: Batch) -> Iterator[Progress | Saved | str]:
    """Yield what a process sends, and how it ended if that was before its time."""
    with harness_alone() as folder, TemporaryFile() as log:
        process = interpreter.start(_MODULE, folder, log)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                pickle.dump(_plain(batch), process.stdin)
                process.stdin.flush()
            if not process.stdout.read(1):  # it sends a byte when it has imported what it needs
                interpreter.fail(log, process.wait())
            with suppress(EOFError, pickle.UnpicklingError):
                while True:
                    yield pickle.load(process.stdout)  # noqa: S301 -- of a process of our own
            if process.wait():
                yield exit_message(process.returncode)
        finally:
            end(process)


def _plain(batch: Batch) -> dict[str, Any]:
    """Return a batch without paths, whose pickles one version of Python writes and another cannot read."""
    weights = batch.inputs.weights
    inputs = {**vars(batch.inputs), "weights": None if weights is None else str(weights)}
    return {**vars(batch), "runs": str(batch.runs), "inputs": inputs}
