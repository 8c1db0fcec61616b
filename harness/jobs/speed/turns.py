"""One side of `harness ab`: a process of some Python that builds models and times their steps on command.

It is started as `python -m harness.jobs.speed.turns`, by a Python that needs torch and timm alone.  Commands and
answers are lines of JSON on stdin and stdout.  torch and timm are imported once for a pair of each job; each job is
built in a child that is forked from here, so that it leaves nothing to the next.
"""

import json
import os
import platform
from collections.abc import Callable
from typing import IO, Any

import timm
import torch

from harness.jobs.fresh import error_message
from harness.jobs.speed.batch_size import find_saturation
from harness.jobs.speed.device import Device, Step
from harness.jobs.speed.throughput import open_for
from harness.jobs.speed.workload import Workload, flags_of, set_flags
from harness.plan.job import Job
from harness.run.launch.local import exit_message

# A fresh process is warm after a few steps; pairs of processes, of which there are many, show what is left.
WARM_UP_STEPS, WARM_UP_SECONDS = 3, 0.3

# Of a small model several steps are timed as one.
SHORTEST_TURN = 0.02

Ask = Callable[[], dict[str, Any] | None]
Answer = Callable[..., None]


def serve(ask: Ask, answer: Answer) -> None:
    """Fork a child for each job, which then takes the commands until one ends it."""
    while (command := ask()) is not None:
        if not command:  # meant for a child that has ended by itself
            continue
        child = os.fork()
        if not child:
            _serve_job(command, ask, answer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            answer(error=exit_message(os.waitstatus_to_exitcode(status)))


def _serve_job(command: dict[str, Any], ask: Ask, answer: Answer) -> None:
    """Build a job, say which batch it has and how long a step takes, and time steps until a command ends it.

    Without a `batch` it takes the one at which throughput saturates.
    """
    try:
        job = Job.of("throughput", command["job"])
        with open_for(job, command["device"], command["threads"]) as device:
            set_flags(flags_of(job))
            workload = Workload(job, device.torch_name)
            step, batch = _make_step(workload, device, command["batch"])
            seconds = [device.time_step(step) for _ in range(WARM_UP_STEPS)]
            while sum(seconds) < WARM_UP_SECONDS:
                seconds.append(device.time_step(step))
            count = max(1, round(SHORTEST_TURN / min(seconds)))
            cost = workload.count_cost() if command["counts"] else None
            answer(batch=batch, seconds=count * min(seconds), cost=cost)
            while ask():
                answer(seconds=_turn(device, step, count) / count)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other side waits for it
        answer(error=error_message(error))


def _make_step(workload: Workload, device: Device, batch: int | None) -> tuple[Step, int]:
    workload.check_output()
    if batch is None:
        batch = find_saturation(lambda size: [device.time_step(workload.make_step(size)) for _ in range(3)]).batch
    step, _ = workload.make_compiled_step(batch)
    device.empty_cache()
    return step, batch


def _turn(device: Device, step: Step, count: int) -> float:
    """Return the seconds of so many steps, waiting for the device once, at the end."""

    def steps() -> object:
        for _ in range(count - 1):
            step()
        return step()

    return device.time_step(steps)


def main() -> None:
    """Serve on stdin and stdout, where nothing else may write."""
    # Without a buffer: what a child read ahead would be lost with it.
    commands: IO[bytes] = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.dup(1)
    os.dup2(2, 1)

    def ask() -> dict[str, Any] | None:
        """Return the next command, an empty one to end a job, None where nobody will ask for anything more."""
        line = commands.readline()
        return dict(json.loads(line)) if line.strip() else {} if line else None

    def answer(**values: Any) -> None:  # noqa: ANN401 -- whatever JSON takes
        os.write(answers, json.dumps(values).encode() + b"\n")

    answer(python=platform.python_version(), torch=torch.__version__, timm=timm.__version__)
    serve(ask, answer)


if __name__ == "__main__":
    main()
