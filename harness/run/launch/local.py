"""`Batch` -> messages: child processes on this machine, forked from one that has imported torch and timm."""

import errno
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import HarnessError
from harness.machine.user import temporary_folder
from harness.plan.job import Job
from harness.run.messages import Batch, CheckReport, Inputs, Inventory, Progress, Saved
from harness.specs.importing.models import PublicWeights

# Seconds that a stopped process has to end; a training first writes its checkpoint.
PATIENCE, PATIENCE_WITH_TRAINING = 5, 120

# Seconds between two looks whether a process is there that sends nothing.
LOOK_SECONDS = 1.0

WORKER = "harness.jobs.worker"

LOADING = "importing torch and timm, which can take ten seconds"

# Bytes that the path of a socket may have (on macOS), less the two names that multiprocessing adds to the folder.
SOCKET_BYTES = 103 - len("/pymp-12345678/listener-12345678")
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 -- a folder with a random name is made in them

_SHORTAGE = "a process could not be started or lacked something ({}); stop others, or raise the limits of the container"


class Crashed(Exception):  # noqa: N818 -- reads as what happened
    """A child process died and left jobs without a result; the text says how."""


class LocalLauncher:
    """Starts each batch in a fresh process of a fork server that has torch and timm imported already.

    A fresh Python per job would cost the import of both, three to six seconds, each time.  `announce` is called before
    the first import, for which somebody waits.
    """

    def __init__(self, *, preload: bool = True, announce: Callable[[str], None] = lambda _: None) -> None:
        self._announce: Callable[[str], None] | None = announce
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
        would print a traceback.  Raises `HarnessError` where it has no place for its socket.
        """
        place_sockets()
        if self._announce is not None:  # once: each process after the first is a copy
            self._announce(LOADING)
            self._announce = None
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

    def model_names(self) -> dict[str, tuple[PublicWeights, ...]]:
        """Return every model of timm's and of the user's own, each with its public weights."""
        return self._ask("model_names")  # type: ignore[no-any-return]

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
                f"data, weights and models cannot be inspected: {crash}; give it more memory or run the command again"
            ) from crash

    def _messages(self, function: str, *arguments: object, patience: float = PATIENCE) -> Iterator[Any]:
        """Call a function of the worker in a child process and yield what it sends."""
        ours, theirs = self._context.Pipe(duplex=False)
        try:
            self.warm()
            process = self._context.Process(target=_call, args=(function, *arguments, theirs))
            with _without_main():
                process.start()
        except (OSError, EOFError) as error:
            raise HarnessError(_SHORTAGE.format(str(error) or "its server ended")) from error
        self.running.append(process)
        theirs.close()
        try:
            yield from _received(ours, process)
            _await_end(process.pid, PATIENCE_WITH_TRAINING)
        finally:
            self.running.remove(process)
            for end in (signal.SIGTERM, signal.SIGKILL):
                if process.pid is not None and _is_running(process.pid):
                    with suppress(ProcessLookupError):  # it has ended meanwhile
                        os.kill(process.pid, end)
                _await_end(process.pid, patience)
            process.join(PATIENCE)  # the server tells how it ended
            ours.close()
        if process.exitcode != 0:
            raise Crashed(exit_message(process.exitcode))


@contextmanager
def _without_main() -> Iterator[None]:
    """Have a child not import the program that starts it: a script that measures would begin again in each child.

    Nothing that a program or a notebook defines is sent to a child.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _received(pipe: Connection, process: BaseProcess) -> Iterator[Any]:
    """Yield what a process sends until it has ended.

    Processes that it started may outlive it and hold the other end of the pipe open.  The end of the fork server, which
    would tell of the end of the process, looks like it.
    """
    watched: list[Any] = [pipe, process.sentinel]
    while pipe in (ready := wait(watched, LOOK_SECONDS)) or _is_running(process.pid):
        if pipe in ready:
            try:
                message = pipe.recv()
            except EOFError:
                return
            if isinstance(message, HarnessError):
                raise message
            yield message
        elif ready:
            watched = [pipe]


def _is_running(pid: int | None) -> bool:
    """Whether a process is there that has not ended; the server that would tell of its end may be gone."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # a system without /proc
        return True
    return state != "Z"


def _await_end(pid: int | None, patience: float) -> None:
    deadline = time.monotonic() + patience
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def place_sockets() -> None:
    """Have this process and its children make their sockets where a path is short enough, once.

    Raises `HarnessError` if there is no such folder.
    """
    usual = str(temporary_folder())
    for folder in (usual, *SHORT_FOLDERS):
        if len(os.fsencode(folder)) <= SOCKET_BYTES:
            try:
                tempfile.tempdir = folder
                util.get_temp_dir()
            except OSError:
                continue
            finally:
                tempfile.tempdir = usual
            return
    raise HarnessError(
        f"TMPDIR={usual}: a socket in it would have too long a path, and {', '.join(SHORT_FOLDERS)} cannot be written; "
        f"name a folder of at most {SOCKET_BYTES} bytes"
    )


def join_training(folder: Path, count: int) -> None:
    """Have `count` processes of this node take part in a training that another node leads."""
    _call("join_training", folder, count)


def _call(function: str, *arguments: Any) -> None:  # noqa: ANN401 -- those of the function
    """Call a function of the worker: named, not imported, so that this side never imports torch.

    Where a process lacks what every process needs, it sends a `HarnessError` that says so.
    """
    try:
        getattr(importlib.import_module(WORKER), function)(*arguments)
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        pipe = next((last for last in arguments[-1:] if isinstance(last, Connection)), None)
        if pipe is not None and _is_shortage(error):
            pipe.send(HarnessError(_SHORTAGE.format(str(error) or type(error).__name__)))
        elif WORKER not in sys.modules:  # not installed, or too little memory
            sys.exit(f"error: torch, torchvision and timm cannot be loaded ({error})")
        else:
            raise


def _is_shortage(error: Exception) -> bool:
    """Whether an error says that processes, threads, memory, open files or the disk are used up."""
    codes = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT)
    used_up = isinstance(error, MemoryError) or "can't start new thread" in str(error)
    return used_up or (isinstance(error, OSError) and error.errno in codes)


def exit_message(exit_code: int | None) -> str:
    """Return how a child process ended that left no result."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with exit code {exit_code} and left no result; worker.log in the runs folder may say why"
