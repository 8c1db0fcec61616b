"""Run a function in a process of its own, so that nothing it leaves behind affects the next."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from harness.errors import JobError
from harness.run.launch.local import PATIENCE, exit_message

P = ParamSpec("P")
T = TypeVar("T")

# Seconds between two looks whether a process is still alive.
LOOK_SECONDS = 1.0


def run_in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function in a forked process and return its value.

    To be called from a process that has not used the device yet.  Raises `JobError` as the function did, or if the
    process died.
    """
    return start_in_fresh_process(function, *args, **kwargs)()


def start_in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Start as `run_in_fresh_process` does and return what waits for the value, so that several can run in parallel.

    Not a thread for each: a process that is forked from a thread of a pool ends with an error, because Python waits
    there for the threads of the pool, of which it is one.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def body() -> None:
        exit_with_parent()
        try:
            sender.send(("value", function(*args, **kwargs)))
        except Exception as error:  # noqa: BLE001 -- whatever went wrong in here becomes the job's error out there
            sender.send(("error", error_message(error)))

    process = context.Process(target=body)
    process.start()
    sender.close()

    def wait() -> T:
        # Processes that it started may outlive it, and hold the other end of the pipe open.
        while not receiver.poll(LOOK_SECONDS) and process.is_alive():
            pass
        answer = None
        with contextlib.suppress(EOFError):
            answer = receiver.recv() if receiver.poll() else None
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join(PATIENCE)
        if answer is None:
            raise JobError(exit_message(process.exitcode))
        kind, value = answer
        if kind == "error":
            raise JobError(value)
        return value  # type: ignore[no-any-return]

    return wait


def error_message(error: BaseException) -> str:
    """Return an error in one line: a `JobError` as it is, anything else with its class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, JobError) else f"{type(error).__name__}: {text[:500]}"


def exit_with_parent() -> None:
    """End this process when its parent is gone, however it ended, so that nothing measures on unnoticed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="exit-with-parent").start()
