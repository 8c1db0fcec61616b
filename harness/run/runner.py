"""`Plan` -> `Result`s: what is missing is measured, and each result is saved before the next job starts."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from harness.errors import HarnessError
from harness.machine.exclusive import exclusive_lock, speed_lock
from harness.plan.job import CODE, Job
from harness.plan.plan import Plan, dependencies
from harness.run.batches import share_processes
from harness.run.budget import Budget
from harness.run.claims import LOOK_SECONDS, Claims
from harness.run.launch import Crashed, LocalLauncher
from harness.run.messages import Batch, Inputs, Inventory, Progress, Saved, train_split
from harness.run.observer import ProgressObserver
from harness.run.target import ExecutionTarget, Worker
from harness.run.worker_pool import WorkerPool
from harness.stats import Interval
from harness.store.result import Result, new_id
from harness.store.store import Store

# The settings that say which model a throughput is of.
_MODEL = ("model", "res", CODE)


def inspect_inputs(plan: Plan, launcher: LocalLauncher, inputs: Inputs) -> tuple[Plan, Inventory]:
    """Inspect the data and weights that a plan needs, and block the cells whose weights do not exist.

    Raises `HarnessError` for images that are not what they should be.
    """
    jobs = tuple(job for job in plan.jobs if job.reads_images)
    if not jobs:
        return plan, Inventory()
    inventory = launcher.inspect(inputs, jobs)
    if inventory.problems:
        raise HarnessError("\n".join(inventory.problems))
    missing = inventory.missing
    blocked = {job.key: missing[name] for job in jobs for name in job.weights_names if name in missing}
    return plan.block(blocked), inventory


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Measures what a store lacks, on one target, from the user's inputs and their inventory.

    `results` has the newest result of each job by its key, `measured` those that this run measured.  With a `budget`,
    what it has no time for is left out; a `quick` run ends each throughput when it knows its place among the others.
    """

    store: Store
    launcher: LocalLauncher
    target: ExecutionTarget
    observer: ProgressObserver
    inputs: Inputs = field(default_factory=Inputs)
    inventory: Inventory = field(default_factory=Inventory)
    budget: Budget | None = None
    quick: bool = False
    results: dict[str, Result] = field(default_factory=dict)
    measured: list[Result] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """The failed jobs of this run."""
        return [result for result in self.measured if result.error is not None]

    def run(self, plan: Plan, *, rerun: bool = False) -> None:
        """Measure what is missing.

        `results` is filled meanwhile, so that it has the finished jobs if Ctrl-C ends the run.  Raises `HarnessError`
        for a model that timm does not know, before anything is measured, and `StoreError` if results cannot be saved.
        """
        self.measure(self.missing(plan, rerun=rerun), rerun=rerun)

    def missing(self, plan: Plan, *, rerun: bool = False) -> list[Job]:
        """Return the jobs to measure, after checking that they can be.  Raises as `run` does."""
        missing = self._left(plan.jobs, rerun=rerun)
        if missing:
            self.store.prepare()
            self._check_models(plan, missing)
        return missing

    def _check_models(self, plan: Plan, jobs: Iterable[Job]) -> None:
        """Raise one `HarnessError` for all models that timm does not know, each with its row."""
        rows: dict[str, str] = {}
        for job in jobs:
            if "model" in dict(job.settings):
                cell = plan.cells_needing(job)[0]
                spec = next(spec for spec in plan.specs if spec.id == cell.table)
                rows.setdefault(str(job["model"]), f"{spec.path}: row '{cell.cell.row.key}'")
        unknown = self.launcher.unknown_models(tuple(rows))
        if unknown:
            raise HarnessError("\n".join(f"{rows[name]}: {reason}" for name, reason in unknown.items()))

    def measure(self, jobs: Sequence[Job], *, rerun: bool = False) -> None:
        """Measure jobs: first the trainings, then each batch.  The store has been prepared.

        What another process of the same store is at is waited for, and reused.
        """
        trainings = [job for job in jobs if job.kind == "train"]
        self.observer.plans(jobs)
        with Claims(self.store.root, self.observer.waits) as claims:
            self._train(trainings, len(jobs), claims, rerun=rerun)
            number = len(trainings)
            for batch, seconds in self._in_time(share_processes(job for job in jobs if job.kind != "train")):
                while not claims.take(batch):
                    time.sleep(LOOK_SECONDS)
                with self._alone() if batch[0].exclusive else nullcontext():
                    self._run_batch(self._left(batch, rerun=rerun), number, len(jobs), seconds)
                claims.release(batch)
                number += len(batch)

    def _in_time(self, batches: Sequence[tuple[Job, ...]]) -> Iterator[tuple[tuple[Job, ...], float | None]]:
        """Yield the batches that are run, each with the seconds that it may take, if there is a budget."""
        if self.budget is None:
            yield from ((batch, None) for batch in batches)
            return
        self.budget.starts(job for batch in batches for job in batch)
        ordered = self.budget.ordered(batches)
        for number, batch in enumerate(ordered, start=1):
            seconds = self.budget.allowance(batch, ordered[number:])
            if seconds is not None:
                yield batch, seconds

    def _alone(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.target.lock or speed_lock(), self.observer.waits)

    def _left(self, jobs: Iterable[Job], *, rerun: bool) -> list[Job]:
        """Return the jobs that no other process has measured in the meantime; all of them to measure them again."""
        return [job for job in jobs if rerun or not self.reuse(job)]

    # Stored results.

    def reuse(self, job: Job) -> bool:
        """Whether the store has a result that counts as if the job was run now; the result is then in `results`."""
        if _depends_on_inputs(job):
            result = self.store.latest(job, self._is_current)
        else:
            whole = self.budget is None and not self.quick
            result = self.store.find(job, self.target.machine, self.target.software, whole=whole)
        if result is not None:
            self.results[job.key] = result
        return result is not None

    def with_current_inputs(self, results: Mapping[str, Result], requested: Iterable[Job]) -> dict[str, Result]:
        """Leave out results of other images or weights than those that the user gave now.

        Results of jobs that were not requested are kept, unless their images were inspected.
        """
        keys = {job.key for job in requested}

        def is_kept(result: Result) -> bool:
            data = str(result.job.get("data"))
            inspected = data in self.inventory.images or train_split(data) in self.inventory.images
            if not _depends_on_inputs(result.job) or not (result.job.key in keys or inspected):
                return True
            return self._is_current(result)

        return {key: result for key, result in results.items() if is_kept(result)}

    def _is_current(self, result: Result) -> bool:
        """Whether a result was measured on the same images with the same weights as there are now."""
        job, facts = result.job, result.facts
        if result.error is not None or job.kind == "dataset":  # counting is cheaper than finding out what changed
            return False
        if dependencies(job):
            evaluations = (self.results.get(evaluation.key) for evaluation in dependencies(job))
            ids = {result.id for result in evaluations if result is not None}
            return set(facts.get("evaluations", ())) == ids and bool(ids)
        data = str(job["data"])
        images = self.inventory.images.get(train_split(data) if job.kind == "train" else data)
        before = facts.get("images") or {}  # of which a kind of another package may say nothing
        if images is None or any(before.get(name) != images.get(name) for name in ("fingerprint", "whole")):
            return False
        if job.kind == "train":
            return self.store.weights_of(result).is_file() and self._has_current_weights(job, facts["took"])
        if job.needs:
            return self._has_current_weights(job, {"weights": facts["weights"]["sha256"]})
        if facts.get("unreadable") and not self.inputs.skip_unreadable:
            return False
        if not job.weights_name:
            return True
        weights, digest = facts.get("weights") or {}, self.inventory.weights.get(job.weights_name, "")
        if digest is None:
            return bool(weights.get("origin") == "hub")
        # A file that was given a name that says more is measured again, so that the result says so too.
        also_fits = self.inventory.also_fits.get(job.weights_name, ())
        return bool(weights.get("sha256") == digest and tuple(weights.get("also_fits", ())) == also_fits)

    def _has_current_weights(self, job: Job, digests: Mapping[str, str]) -> bool:
        """Whether the weights behind a result, SHA-256 by part, are those that exist now."""
        for part, training in job.needs:
            result = self.results.get(training.key)
            if result is None or result.error is not None or result.facts["weights"]["sha256"] != digests.get(part):
                return False
        names = {part: str(job.get(part)) for part in digests if job.need(part) is None}
        return all(self.inventory.weights.get(name) in (None, digests[part]) for part, name in names.items())

    # Running.

    def _train(self, jobs: Sequence[Job], total: int, claims: Claims, *, rerun: bool) -> None:
        """Train side by side, each job once the trainings that it takes weights from have ended."""
        whole = Worker(devices=self.target.all_devices, cores=self.target.machine.threads, loaders=self.inputs.workers)
        pool = WorkerPool(self.launcher, self.target.workers or (whole,))
        waiting, number = list(jobs), 0
        try:
            while waiting or pool.busy:
                before = len(waiting)
                for job in list(waiting):
                    unfinished = {other.key for other in waiting} | pool.busy.keys()
                    blocked = not pool.idle or unfinished & {training.key for training in job.lineage}
                    if blocked or not claims.take([job]):
                        continue
                    waiting.remove(job)
                    number += 1
                    if self._left([job], rerun=rerun) and not self._fails_with_dependency(job):
                        self.observer.starts(job, number, total)
                        pool.start(self._batch([job]))
                if pool.busy:
                    self._handle_message(pool)
                elif len(waiting) == before:  # others have them all
                    time.sleep(LOOK_SECONDS)
                claims.release([job for job in jobs if job.key not in pool.busy])
        except BaseException:
            if pool.busy:
                self.observer.waits("stopping; each training first writes a checkpoint")
            pool.stop()
            raise

    def _handle_message(self, pool: WorkerPool) -> None:
        job, message = pool.next_message()
        if isinstance(message, Progress):
            self.observer.progress(message)
        elif isinstance(message, Saved):
            self.collect(message)
        elif isinstance(message, Crashed):
            if job.key not in self.results:  # else it died when all was done
                self.fail(job, pool.started[job.key], str(message))
        elif isinstance(message, Exception):
            raise message
        elif job.key not in self.results:
            raise KeyboardInterrupt  # something else stopped it: it has written a checkpoint, and this run stops too

    def _run_batch(self, jobs: list[Job], before: int, total: int, seconds: float | None) -> None:
        """Run a batch; if its process dies, the current job has failed and the others go on in a new process."""
        left = [job for job in jobs if not self._fails_with_dependency(job)]
        while left:
            started = datetime.now(tz=UTC)
            self.observer.starts(left[0], before + len(jobs) - len(left) + 1, total)
            try:
                batch = replace(self._batch(left), seconds=seconds, rivals=self._rivals(left[0]))
                for message in self.launcher.run(batch):
                    if isinstance(message, Progress):
                        self.observer.progress(message)
                        continue
                    left.remove(message.job)
                    self.collect(message)
                    if left:
                        self.observer.starts(left[0], before + len(jobs) - len(left) + 1, total)
            except Crashed as crash:
                if left:  # else it died when all was done
                    self.fail(left.pop(0), started, str(crash))

    def _rivals(self, job: Job) -> tuple[Interval, ...] | None:
        """Return the throughputs known so far that a quick one is compared with: all but the model is the same."""
        if not self.quick or job.kind != "throughput":
            return None
        alike = job.without(*_MODEL)
        measured = [
            result.metrics["throughput"]
            for result in self.results.values()
            if result.error is None and result.job.key != job.key and result.job.without(*_MODEL) == alike
        ]
        return tuple(
            Interval(value=float(each.value), low=each.low or 0.0, high=each.high or math.inf) for each in measured
        )

    def _batch(self, jobs: Sequence[Job]) -> Batch:
        return Batch(
            jobs=tuple(jobs),
            device=self.target.device,
            machine=self.target.machine,
            software=self.target.software,
            runs=self.store.root,
            inputs=self.inputs,
            devices=self.target.devices,
        )

    def collect(self, saved: Saved) -> None:
        """Add a result that a child process has just saved."""
        result = self.store.latest(saved.job, lambda result: result.id == saved.id)
        if result is None:
            raise HarnessError(f"{self.store.root / saved.job.key}: the result just written is gone; was it removed?")
        self._add(result)

    def _add(self, result: Result) -> None:
        self.results[result.job.key] = result
        self.measured.append(result)
        self.observer.finished(result)
        if self.budget is not None:
            self.budget.forecast.finished(result)

    def _fails_with_dependency(self, job: Job) -> bool:
        """Whether a training that a job takes weights from has failed; the job is then recorded as failed, too."""
        results = (self.results.get(training.key) for training in job.lineage)
        failed = next((result for result in results if result is not None and result.error is not None), None)
        if failed is None:
            return False
        reason = str(failed.error)
        if "takes the weights" not in reason:
            reason = f"it takes the weights of '{failed.job}', which failed: {reason}"
        self.fail(job, datetime.now(tz=UTC), reason)
        return True

    def fail(self, job: Job, started: datetime, reason: str) -> None:
        """Add the failure of a job of this run, unless its process had saved a result when it died."""
        self._add(self.saved_since(started, job) or self.save_failure(job, started, reason))

    def saved_since(self, moment: datetime, job: Job) -> Result | None:
        """Return the newest good result that a job left here since a moment."""

        def counts(result: Result) -> bool:
            here = not job.exclusive or result.machine.is_equivalent(self.target.machine)
            return here and result.error is None and result.started >= moment

        return self.store.latest(job, counts)

    def save_failure(self, job: Job, started: datetime, reason: str) -> Result:
        """Save the result of a job whose process could not write one."""
        result = Result(
            id=new_id(started),
            job=job,
            machine=self.target.machine,
            software=self.target.software,
            started=started,
            seconds=max(0.0, (datetime.now(tz=UTC) - started).total_seconds()),  # the clock may have been set back
            error=reason,
        )
        self.store.save(result)
        return result


def _depends_on_inputs(job: Job) -> bool:
    """Whether the outcome depends on the user's images or weights, apart from the job."""
    return bool(job.reads_images or dependencies(job) or job.needs)
