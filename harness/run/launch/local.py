"""`Batch` -> messages: child processes on this machine, forked from one that has imported torch and timm."""

import contextlib
import importlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.plan.job import Job
from harness.run.messages import Batch, CheckReport, Inputs, Inventory, Progress, Saved

# Seconds that a stopped process has to end; a training first writes its checkpoint.
PATIENCE, PATIENCE_WITH_TRAINING = 5, 120

WORKER = "harness.jobs.worker"


class Crashed(Exception):  # noqa: N818 -- reads as what happened
    """A child process died and left jobs without a result; the text says how."""


class LocalLauncher:
    """Starts each batch in a fresh process of a fork server that has torch and timm imported already.

    A fresh Python per job would cost the import of both, three to six seconds, each time.
    """

    def __init__(self, *, preload: bool = True) -> None:
        # Windows has no fork server; a fresh Python is slower but measures the same.
        server = preload and "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if server else "spawn")
        if server:
            self._context.set_forkserver_preload([WORKER])
        self.running: list[BaseProcess] = []

    def stop(self) -> None:
        """Stop all child processes; a training first writes a checkpoint."""
        for process in list(self.running):
            process.terminate()

    def warm(self) -> None:
        """Start the process that all others are forked from, which inherits the settings of this one.

        It starts with SIGINT blocked: Ctrl-C reaches the whole process group, and a server that is importing torch
        would print a traceback.
        """
        if self._context.get_start_method() == "forkserver":
            resource_tracker.ensure_running()  # the server would start it, which lifts the block
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Run a batch and yield its messages.

        Raises `Crashed` if the process died.  If the caller stops early, the process is stopped.
        """
        training = any(job.kind == "train" for job in batch.jobs)
        return self._messages("run_batch", batch, patience=PATIENCE_WITH_TRAINING if training else PATIENCE)

    def unknown_models(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return a sentence for each model that timm does not know, by its name."""
        return self._ask("unknown_models", names)  # type: ignore[no-any-return]

    def inspect(self, inputs: Inputs, jobs: tuple[Job, ...]) -> Inventory:
        """Return what exists of the data and weights that these jobs need."""
        return self._ask("inspect", inputs, jobs)  # type: ignore[no-any-return]

    def unfit_weights(self, inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
        """Return a sentence for each file of weights that cannot be read or does not fit, by `MODEL.TAG`."""
        return self._ask("unfit_weights", inputs, jobs)  # type: ignore[no-any-return]

    def check(self, inputs: Inputs, data: str) -> Iterator[CheckReport]:
        """Read every image of a dataset; the last report has the outcome.  Raises `HarnessError` as `_answers` does."""
        return self._answers("check_dataset", inputs, data)

    def _ask(self, question: str, *arguments: object) -> Any:  # noqa: ANN401 -- the answers differ
        return next(self._answers("answer", question, arguments))

    def _answers(self, function: str, *arguments: object) -> Iterator[Any]:
        """Yield what a child process answers.  Raises `HarnessError` if it died: there is no job that has failed."""
        try:
            yield from self._messages(function, *arguments)
        except Crashed as crash:
            raise HarnessError(
                f"data, weights and models cannot be looked at: {crash}; give it more memory or run the command again"
            ) from crash

    def _messages(self, function: str, *arguments: object, patience: float = PATIENCE) -> Iterator[Any]:
        """Call a function of the worker in a child process and yield what it sends."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=(function, *arguments, theirs))
        self.warm()
        process.start()
        self.running.append(process)
        theirs.close()
        try:
            with contextlib.suppress(EOFError):
                while True:
                    wait([ours])
                    yield ours.recv()
            process.join()
        finally:
            self.running.remove(process)
            if process.is_alive():
                process.terminate()
                process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()
            ours.close()
        if process.exitcode != 0:
            raise Crashed(exit_message(process.exitcode))


def join_training(folder: Path, count: int) -> None:
    """Have `count` processes of this node take part in a training that another node leads."""
    _call("join_training", folder, count)


def _call(function: str, *arguments: object) -> None:
    """Call a function of the worker: named, not imported, so that this side never imports torch."""
    try:
        worker = importlib.import_module(WORKER)
    except (ImportError, MemoryError, OSError) as error:  # not installed, or too little memory
        sys.exit(f"error: torch, torchvision and timm cannot be loaded ({error})")
    getattr(worker, function)(*arguments)


def exit_message(exit_code: int | None) -> str:
    """Return how a child process ended that left no result."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with exit code {exit_code} and left no result; worker.log in the runs folder may say why"
