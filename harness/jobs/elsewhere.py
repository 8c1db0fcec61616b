"""One side of `harness ab`: a process of some Python that does a batch of jobs.

It is started as `python -m harness.jobs.elsewhere`, by a Python that needs torch and timm alone.  The batch comes on
stdin, the messages of the worker go to stdout.
"""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

from harness.jobs.worker import run_batch
from harness.machine import software
from harness.plan.job import Job
from harness.run.messages import Batch, Inputs


class _Messages:
    """What the worker takes for its pipe."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._file.write(b"\n")  # tells that what a job needs could be imported
        self._file.flush()

    def send(self, message: object) -> None:
        pickle.dump(message, self._file)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _read_batch() -> Batch:
    given: dict[str, Any] = pickle.load(os.fdopen(os.dup(0), "rb"))  # noqa: S301 -- of the harness that started this process
    weights = given["inputs"]["weights"]
    return Batch(
        **{
            **given,
            "jobs": tuple(Job.of(job.kind, dict(job.settings)) for job in given["jobs"]),
            "software": software(given["machine"]),
            "runs": Path(given["runs"]),
            "inputs": Inputs(**{**given["inputs"], "weights": weights and Path(weights)}),
        }
    )


def _exit_with_stdin() -> None:
    """End when nobody holds the other end of stdin any more."""
    # Not by sys.stdin: a process that is forked meanwhile closes that, and would wait for whoever reads it.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Do the batch, with the code of the user's own models that there is in this environment."""
    messages: Any = _Messages(os.dup(1))
    os.dup2(2, 1)
    batch = _read_batch()
    threading.Thread(target=_exit_with_stdin, daemon=True).start()
    run_batch(batch, messages)


if __name__ == "__main__":
    main()
