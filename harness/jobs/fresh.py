"""Run a function in a process of its own, so that nothing it leaves behind can disturb the next."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

from harness.errors import JobError

P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function in a forked process and give its value.

    To be called from a process that has not used the device yet.  Raises `JobError` as the function did, or if the
    process died.
    """
    return begun(function, *args, **kwargs)()


def begun(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Begin as `in_fresh_process` does, and give what waits for the value: so several run side by side.

    Not a thread for each: what is forked from a pool's thread ends with an error, because Python waits there for the
    pool's threads, of which it is one.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def body() -> None:
        die_with_parent()
        _answer(theirs, function, args, kwargs)

    process = context.Process(target=body)
    process.start()
    theirs.close()

    def value() -> T:
        try:
            kind, found = ours.recv()
        except EOFError:
            process.join()
            raise JobError(death(process.exitcode)) from None
        process.join()
        if kind == "error":
            raise JobError(found)
        return found  # type: ignore[no-any-return]

    return value


def _answer(
    pipe: Connection, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    try:
        pipe.send(("value", function(*args, **kwargs)))
    except Exception as error:  # noqa: BLE001 -- whatever went wrong in there becomes the job's error out here
        pipe.send(("error", sentence(error)))


def sentence(error: BaseException) -> str:
    """Put an error into one line: a `JobError` as it is, anything else with its class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, JobError) else f"{type(error).__name__}: {text[:500]}"


def death(exit_code: int | None) -> str:
    """Say how a process ended that left no answer."""
    if exit_code == -9:
        return "the process was killed (signal 9); the system may have run out of memory"
    if exit_code is not None and exit_code < 0:
        return f"the process was ended by signal {-exit_code}"
    return f"the process ended with exit code {exit_code} and left no result"


def die_with_parent() -> None:
    """End this process when the one that started it is gone, however it went, so that nothing measures on unseen."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="die-with-parent").start()
