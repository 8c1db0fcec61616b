"""Child processes on this machine, forked from one that has torch and timm imported already."""

import importlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.job import Job
from harness.progress import Batch, Checked, Inputs, Progress, Saved, Seen

# Seconds that a process has to end when it is told to: one that trains writes its checkpoint first.
PATIENCE, PATIENCE_WITH_TRAINING = 5, 120

WORKER = "harness.jobs.worker"


class Crashed(Exception):  # noqa: N818 -- reads as what happened
    """A child died and left jobs without a result; the text says how."""


class LocalLauncher:
    """Starts each batch in a fresh process of a fork server that has torch and timm imported already.

    A fresh Python per job would cost the import of both, three to six seconds, each time.
    """

    def __init__(self, *, preload: bool = True) -> None:
        self._context = _context(preload=preload)
        self._running: list[BaseProcess] = []

    def stop(self) -> None:
        """End what runs: a training first writes where it stands."""
        for process in list(self._running):
            process.terminate()

    @property
    def busy(self) -> bool:
        """Whether a batch is in hand."""
        return bool(self._running)

    def warm(self) -> None:
        """Start the process that all others are forked from, which inherits what is set in this one now."""
        if self._context.get_start_method() == "forkserver":
            resource_tracker.ensure_running()
            forkserver.ensure_running()

    def run(self, batch: Batch) -> Iterator[Progress | Saved]:
        """Do a batch and pass on what it says.

        Raises `Crashed` if the process died.  Ended early, it ends the process.
        """
        patience = PATIENCE_WITH_TRAINING if any(job.kind == "train" for job in batch.jobs) else PATIENCE
        log = str(batch.runs / "worker.log")
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=("work", batch, theirs, log))
        self._start(process)
        self._running.append(process)
        theirs.close()
        try:
            yield from _messages(ours)
            process.join()
        finally:
            self._running.remove(process)
            if process.is_alive():
                process.terminate()
                process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()
            ours.close()
        if process.exitcode != 0:
            raise Crashed(_death(process.exitcode))

    def unknown_models(self, names: tuple[str, ...]) -> dict[str, str]:
        """Ask which networks timm does not know: a sentence for each."""
        return self._ask("unknown_models", names)  # type: ignore[no-any-return]

    def look(self, inputs: Inputs, jobs: tuple[Job, ...]) -> Seen:
        """Ask what is there of the data and weights that these jobs need."""
        return self._ask("look", inputs, jobs)  # type: ignore[no-any-return]

    def unfit(self, inputs: Inputs, jobs: tuple[Job, ...]) -> dict[str, str]:
        """Ask which weights of these jobs cannot be read or do not fit: a sentence for each, by `MODEL.TAG`."""
        return self._ask("unfit", inputs, jobs)  # type: ignore[no-any-return]

    def check(self, inputs: Inputs, data: str) -> Iterator[Checked]:
        """Look at every image of a data set; the last thing said is what was found."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=("check", inputs, data, theirs))
        self._start(process)
        theirs.close()
        try:
            yield from _messages(ours)
            process.join()
        finally:
            if process.is_alive():
                process.terminate()
                process.join()
            ours.close()
        if process.exitcode != 0:
            raise Crashed(_death(process.exitcode))

    def _ask(self, function: str, *args: object) -> Any:  # noqa: ANN401 -- what the function answers
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=(function, *args, theirs))
        self._start(process)
        theirs.close()
        try:
            answer = ours.recv()
        except EOFError:
            process.join()
            raise Crashed(_death(process.exitcode)) from None
        process.join()
        return answer

    def _start(self, process: BaseProcess) -> None:
        """Start a process; the fork server, if it is not there yet, deaf to Ctrl-C.

        Ctrl-C reaches the whole group, and a server that is importing torch would answer with a traceback.
        """
        if self._context.get_start_method() == "forkserver":
            resource_tracker.ensure_running()  # the server would start it, which lifts the block
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        process.start()


def take_part(folder: Path, count: int) -> None:
    """Have `count` processes of this node take part in a training that another node leads."""
    _call("follow", folder, count)


def _context(*, preload: bool) -> Any:  # noqa: ANN401 -- the contexts share no typed base
    # Windows has no fork server; a fresh Python is slower but measures the same.
    method = "forkserver" if preload and "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([WORKER])
    return context


def _call(function: str, *args: object) -> None:
    """Call a function of the worker: named, not imported, so that this side never imports torch."""
    getattr(importlib.import_module(WORKER), function)(*args)


def _messages(pipe: Connection) -> Iterator[Any]:
    while True:
        wait([pipe])
        try:
            yield pipe.recv()
        except EOFError:
            return


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with exit code {exit_code} and left no result; worker.log in the runs folder may say why"
