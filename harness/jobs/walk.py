"""A group of networks × the shards they lack -> parts: the pass itself, on one device or several."""

import contextlib
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import HarnessError, JobError
from harness.job import Job
from harness.jobs import trained, weights
from harness.jobs.device import ran_out_of_memory
from harness.jobs.fresh import begun, sentence
from harness.jobs.heads import Reader
from harness.jobs.images import Images
from harness.jobs.loading import Loaded, loader
from harness.jobs.parts import Parts, Shard
from harness.jobs.preprocess import View, normalised
from harness.predictions import Head, Predictions, joined
from harness.progress import Inputs, Progress

# Images that are read and computed at once, at 224 pixels; a network of larger input takes fewer at once, by area.
TOGETHER = {"cpu": 32, "cuda": 128}

Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What decides the arithmetic of an evaluation."""

    autocast: str | None
    tf32: bool

    @property
    def facts(self) -> dict[str, Any]:
        """Give it for the result."""
        return asdict(self)


FLAGS: Mapping[str, Precision] = {
    "float32": Precision(autocast=None, tf32=False),
    "tf32": Precision(autocast=None, tf32=True),
    "bfloat16": Precision(autocast="bfloat16", tf32=True),
    "float16": Precision(autocast="float16", tf32=True),
}


@dataclass(kw_only=True)
class Entry:
    """One network of a pass, and the shards that it lacks."""

    job: Job
    found: weights.Found
    parts: Parts
    view: View
    todo: frozenset[Shard]

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return self.found.path.stat().st_size


@dataclass(kw_only=True)
class Cost:
    """Where the time of a pass goes, in seconds; `read` and `cut` are summed over the reading processes."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    images: int = 0
    wall: float = 0.0

    def add(self, other: "Cost") -> None:
        """Add what another group of networks cost, after this one."""
        for name, value in other.seconds.items():
            self.seconds[name] += value
        self.images += other.images
        self.wall += other.wall

    @property
    def facts(self) -> dict[str, Any]:
        """Give it for the result."""
        spent = {name: round(value, 3) for name, value in sorted(self.seconds.items())}
        return {"images_read": self.images, "wall": round(self.wall, 3), "seconds": spent}

    @contextlib.contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        before = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - before


@dataclass(kw_only=True)
class Spent:
    """What a walk leaves besides the parts: its cost, networks that failed, images that could not be read."""

    cost: Cost = field(default_factory=Cost)
    failed: dict[str, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Network:
    """A network on the device; `together` images at once, halved when the memory does not suffice."""

    entry: Entry
    reader: Reader
    together: int
    buffer: list[Predictions] = field(default_factory=list)


class Threads:
    """How many threads compute on a processor whose cores the reading processes want as well.

    Threads that wait for one another on cores that somebody else has are ten times slower (measured on two cores).  So
    computing begins with the cores that the readers leave, and takes all of them if even then it, and not reading, is
    what takes the time.
    """

    TRIES = 3

    def __init__(self, *, workers: int) -> None:
        self._cores, self._workers = torch.get_num_threads(), workers
        self._seen: list[bool] = []
        if workers:
            torch.set_num_threads(max(1, self._cores - workers))

    def learn(self, *, computing: float, reading: float) -> None:
        """Take the seconds that a batch took to compute, and to read in one process; the first one warms up."""
        if not self._workers or len(self._seen) > self.TRIES:
            return
        self._seen.append(computing > reading / self._workers)
        if len(self._seen) > self.TRIES and all(self._seen[1:]):
            self.restore()

    def restore(self) -> None:
        """Compute with all cores."""
        torch.set_num_threads(self._cores)


class Stage:
    """The batch in hand on the device: each view of it is moved once and normalised once for each norm.

    The memory for it is taken once and used again for every batch.
    """

    def __init__(self, device: str, views: Sequence[View]) -> None:
        self._device, self._views = device, views
        self._memory: dict[tuple[View, str], torch.Tensor] = {}
        self._ready: dict[tuple[View, str], torch.Tensor] = {}
        self._pixels: dict[View, torch.Tensor] = {}

    def put(self, loaded: Loaded) -> None:
        """Take the next batch."""
        self._ready.clear()
        self._pixels = dict(zip(self._views, loaded.pixels, strict=True))

    def images(self, view: View, norm: str) -> torch.Tensor:
        """Give the batch as a network sees it, float32 of shape (n, 3, res, res)."""
        use = view, norm
        if use not in self._ready:
            pixels = self._pixels[view].to(self._device, non_blocking=True)
            self._ready[use] = normalised(pixels, norm, into=self._room(pixels, use))
        return self._ready[use]

    def _room(self, pixels: torch.Tensor, use: tuple[View, str]) -> torch.Tensor:
        taken = self._memory.get(use)
        if taken is None or taken.shape[0] < pixels.shape[0]:
            taken = self._memory[use] = torch.empty(pixels.shape, device=pixels.device)
        return taken[: pixels.shape[0]]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One walk through the images for a group of networks."""

    images: Images
    entries: Sequence[Entry]
    inputs: Inputs
    report: Report
    said: str = ""
    together: int | None = None

    def on(self, devices: Sequence[str]) -> Spent:
        """Walk on these devices side by side, a process and every n-th shard for each.

        A source that can only be streamed is read once, so it has one device.
        """
        todo = sorted({shard for entry in self.entries for shard in entry.todo}, key=lambda shard: shard.start)
        used = devices[:1] if self.images.streamed else devices[: max(1, len(todo))]
        counter = multiprocessing.get_context("fork").Value("Q", 0)
        total = sum(len(shard) for shard in todo)
        started = time.perf_counter()
        if len(used) == 1:
            spent = self._alone(used[0], todo, counter, total, workers=self.inputs.workers)
        else:
            spent = self._side_by_side(used, todo, counter, total)
        spent.cost.wall = time.perf_counter() - started
        return spent

    def _side_by_side(self, devices: Sequence[str], todo: Sequence[Shard], counter: Any, total: int) -> Spent:  # noqa: ANN401
        each = max(1, self.inputs.workers // len(devices)) if self.inputs.workers else 0
        shares = [
            begun(self._alone, device, todo[place :: len(devices)], counter, total, workers=each)
            for place, device in enumerate(devices)
        ]
        whole = Spent()
        for share in shares:
            try:
                spent = share()
            except JobError as error:
                spent = Spent(failed={entry.job.key: str(error) for entry in self.entries})
            whole.cost.add(spent.cost)
            whole.failed |= spent.failed
            whole.broken |= spent.broken
        return whole

    def _alone(self, device: str, todo: Sequence[Shard], counter: Any, total: int, *, workers: int) -> Spent:  # noqa: ANN401
        """Do these shards on one device, in this process."""
        spent = Spent()
        with spent.cost.counted("load weights"):
            networks = self._load(device, spent)
        if not networks:
            return spent
        views = list(dict.fromkeys(network.entry.view for network in networks))
        size = self.together or TOGETHER[device.partition(":")[0]]
        batches = [(shard, places) for shard in todo for places in _batches(shard, size)]
        reading = loader(self.images, views, [places for _, places in batches], workers=workers, pin=device != "cpu")
        started, before = time.perf_counter(), counter.value
        threads, stage = Threads(workers=workers if device == "cpu" else 0), Stage(device, views)
        ended = time.perf_counter()
        for (shard, _), loaded in zip(batches, reading, strict=True):
            came = time.perf_counter()
            spent.cost.seconds["wait for images"] += came - ended
            wanting = [network for network in networks if shard in network.entry.todo]
            self._through(loaded, wanting, stage, spent)
            if loaded.positions[-1] == shard.stop - 1:
                with spent.cost.counted("write"):
                    self._keep(shard, networks, spent)
            with counter.get_lock():
                counter.value += len(loaded.positions)
                done = counter.value
            rate = (done - before) / (time.perf_counter() - started)
            self._say(done, total, rate)
            ended = time.perf_counter()
            threads.learn(computing=ended - came, reading=loaded.read + loaded.cut)
        threads.restore()
        return spent

    def _say(self, done: int, total: int, rate: float) -> None:
        networks = len({(entry.job["model"], entry.job.get("weights")) for entry in self.entries})
        views = f", {len(self.entries)} evaluations" if len(self.entries) != networks else ""
        what = f"{networks} network{'s' if networks != 1 else ''}{views} over {self.images.data}{self.said}"
        self.report(Progress(job=self.entries[0].job, phase="", together=what, done=done, total=total, rate=rate))

    def _load(self, device: str, spent: Spent) -> list[Network]:
        """Bring the networks onto the device; one that does not load fails alone."""
        networks = []
        for entry in self.entries:
            job = entry.job
            self.report(Progress(job=job, phase="loading weights"))
            try:
                model = self._network(entry).to(device)
            except (HarnessError, RuntimeError, OSError) as error:
                spent.failed[job.key] = sentence(error)
                continue
            size = self.together or max(1, TOGETHER[device.partition(":")[0]] * 224**2 // entry.view.res**2)
            networks.append(Network(entry=entry, reader=Reader(model), together=size))
        return networks

    def _network(self, entry: Entry) -> nn.Module:
        job, classes = entry.job, self.images.classes
        behind = job.need("weights")
        if behind is None:
            return weights.load(str(job["model"]), res=int(job["res"]), classes=classes, found=entry.found)
        built = trained.network(behind, entry.found.path, res=int(job["res"]))
        known = trained.classes_in(entry.found.path)
        if known != classes:
            raise JobError(f"it was trained for {known:,} classes, {self.images.data} has {classes:,}")
        return built

    def _through(self, loaded: Loaded, networks: Sequence[Network], stage: Stage, spent: Spent) -> None:
        """Show a batch to the networks that lack it."""
        cost = spent.cost
        cost.seconds["read and decode"] += loaded.read
        cost.seconds["resize and crop"] += loaded.cut
        cost.images += len(loaded.positions)
        spent.broken |= loaded.broken
        stage.put(loaded)
        for network in networks:
            job = network.entry.job
            if job.key in spent.failed:
                continue
            with cost.counted("to device and normalise"):
                images = stage.images(network.entry.view, str(job["norm"]))
            try:
                with cost.counted("forward"):
                    heads = _forward(network, images, FLAGS[str(job["precision"])])
            except (JobError, RuntimeError) as error:
                spent.failed[job.key] = self._at(loaded, error)
                continue
            network.buffer.append(self._named(loaded, heads))

    def _at(self, loaded: Loaded, error: Exception) -> str:
        first, last = loaded.positions[0], loaded.positions[-1]
        return f"{sentence(error)} (images {self.images.names[first]} to {self.images.names[last]})"

    def _named(self, loaded: Loaded, heads: Mapping[str, Head]) -> Predictions:
        """Put names and labels to what the heads say; an image that was not read has no guess."""
        for place, position in enumerate(loaded.positions):
            if position in loaded.broken:
                for head in heads.values():
                    head.top[place], head.scores[place], head.probability[place] = -1, 0, 0
        return Predictions(
            names=tuple(self.images.names[position] for position in loaded.positions),
            labels=self.images.labels[loaded.positions],
            heads=heads,
        )

    def _keep(self, shard: Shard, networks: Sequence[Network], spent: Spent) -> None:
        """Write what the networks said of a shard, unless an image of it could not be read and must be."""
        whole = self.inputs.skip_unreadable or not any(shard.start <= place < shard.stop for place in spent.broken)
        for network in networks:
            if whole and shard in network.entry.todo and network.entry.job.key not in spent.failed:
                network.entry.parts.keep(shard, joined(network.buffer))
            network.buffer = []


def _batches(shard: Shard, size: int) -> list[range]:
    """Cut a shard into batches, so that none straddles two shards."""
    return [range(start, min(start + size, shard.stop)) for start in range(shard.start, shard.stop, size)]


def _forward(network: Network, images: torch.Tensor, precision: Precision) -> dict[str, Head]:
    """Compute a batch in as few pieces as the memory allows; the result does not depend on how many."""
    torch.backends.cuda.matmul.allow_tf32 = precision.tf32
    torch.backends.cudnn.allow_tf32 = precision.tf32
    kind, lower = images.device.type, precision.autocast
    while True:
        try:
            with torch.autocast(kind, dtype=getattr(torch, lower)) if lower else contextlib.nullcontext():
                pieces = [network.reader.read(piece) for piece in torch.split(images, network.together)]
        except RuntimeError as error:
            if not ran_out_of_memory(error) or network.together == 1:
                raise
            network.together //= 2
            continue
        return {
            name: Head(
                top=np.concatenate([piece[name].top for piece in pieces]),
                scores=np.concatenate([piece[name].scores for piece in pieces]),
                probability=np.concatenate([piece[name].probability for piece in pieces]),
            )
            for name in pieces[0]
        }
