"""Trainings side by side: one on each worker, and their messages in one queue."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from harness.plan.job import Job
from harness.run.launch import LocalLauncher
from harness.run.launch.local import PATIENCE_WITH_TRAINING
from harness.run.messages import Batch, Progress, Saved
from harness.run.target import Worker

Message = Progress | Saved | Exception | None


class WorkerPool:
    """Trainings that run side by side.  `busy` has the worker of each by the key of its job, `started` the time."""

    def __init__(self, launcher: LocalLauncher, workers: Sequence[Worker]) -> None:
        self._launcher, self.idle = launcher, list(workers)
        self._messages: queue.SimpleQueue[tuple[Job, Message]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.busy: dict[str, Worker] = {}
        self.started: dict[str, datetime] = {}

    def start(self, batch: Batch) -> None:
        """Start a training on an idle worker."""
        job, worker = batch.jobs[0], self.idle.pop(0)
        self.busy[job.key], self.started[job.key] = worker, datetime.now(tz=UTC)
        inputs = replace(batch.inputs, workers=worker.loaders)
        batch = replace(batch, inputs=inputs, devices=worker.devices, device=worker.devices[0], cores=worker.cores)
        thread = threading.Thread(target=self._follow, args=(job, batch), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, job: Job, batch: Batch) -> None:
        try:
            for message in self._launcher.run(batch):
                self._messages.put((job, message))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other side waits for it
            self._messages.put((job, error))
        self._messages.put((job, None))

    def next_message(self) -> tuple[Job, Message]:
        """Wait for the next message of a training, or what ended it early; None says that it has ended."""
        job, message = self._messages.get()
        if message is None:
            self.idle.append(self.busy.pop(job.key))
        return job, message

    def stop(self) -> None:
        """Stop all trainings, which first write a checkpoint; one that does not end in time is left to its own end."""
        self._launcher.stop()
        deadline = time.monotonic() + PATIENCE_WITH_TRAINING
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
