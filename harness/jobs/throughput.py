"""Images a second of a network: batch, warm-up, timed runs, under a protocol whose every flag is in the result."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from timm.layers import set_fused_attn
from torch import nn

from harness.errors import JobError
from harness.jobs import network
from harness.jobs.device import Device, open_device
from harness.jobs.fresh import in_fresh_process
from harness.jobs.timing import Probe, knee, largest_batch, warm_up
from harness.kinds import parse_memory
from harness.plan import Job
from harness.progress import Progress
from harness.result import Measurement
from harness.stats import doubts, summarise

# A batch that fitted in the search may not fit in the measurement, by the allocator's luck; more steps than these down
# mean that something else takes the memory.
MOST_STEPS_DOWN = 4

Report = Callable[[Progress], None]
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Every switch that can move the number, as it was set."""

    dtype: str
    autocast: str | None
    tf32_matmul: bool
    tf32_cudnn: bool
    fused_attention: bool
    cudnn_benchmark: bool
    memory_format: str
    compile: str | None

    @property
    def channels_last(self) -> bool:
        """Whether images and weights lie in memory channel by channel last."""
        return self.memory_format == "channels_last"


PROTOCOLS: Mapping[str, Flags] = {
    # Section 5 and the authors' statements: float32, inference.  PyTorch 1.7 had no fused attention, and a V100 has no
    # TF32.  cuDNN's search for the fastest algorithm is not mentioned; it is left off, torch's default.
    "paper": Flags(
        dtype="float32",
        autocast=None,
        tf32_matmul=False,
        tf32_cudnn=False,
        fused_attention=False,
        cudnn_benchmark=False,
        memory_format="contiguous",
        compile=None,
    ),
    "modern": Flags(
        dtype="float32",
        autocast="bfloat16",
        tf32_matmul=True,
        tf32_cudnn=True,
        fused_attention=True,
        cudnn_benchmark=True,
        memory_format="channels_last",
        compile="default",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the measuring process brings home."""

    batch: int
    seconds: tuple[float, ...]
    facts: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class TooLarge:
    """The measuring process ran out of memory."""

    batch: int


def work(
    job: Job, report: Report, *, device: str, threads: int
) -> tuple[dict[str, Measurement], dict[str, Any], list[str]]:
    """Measure one network on one device.

    On a GPU the largest batch is searched in a process of its own and confirmed by the measurement in another.  On a
    CPU `auto` takes the batch at which speed stops growing, found where it is measured.
    """
    wanted = job["batch"]
    probes: list[Probe] = []
    if wanted == "largest" or (wanted == "auto" and device != "cpu"):
        probes = in_fresh_process(_search, job, report, device, threads)
        batch: int | None = max((p.batch for p in probes if p.outcome == "fits"), default=0)
        if not batch:
            raise JobError(f"out of memory at batch 1 under {job['memory']}; give more with --memory")
        timed, stepped = _confirmed(job, report, device, threads, batch)
    else:
        batch = None if wanted == "auto" else int(wanted)
        outcome = _measure(job, report, open_device(device, threads), batch)
        if isinstance(outcome, TooLarge):
            raise JobError(f"out of memory at batch {outcome.batch}")
        timed, stepped = outcome, 0
    summary = summarise(timed.seconds)
    throughput = Measurement(
        unit="im/s",
        value=timed.batch * len(timed.seconds) / sum(timed.seconds),
        low=timed.batch / summary.high,
        high=timed.batch / summary.low if summary.low > 0 else None,
        samples=timed.seconds,
        sample_unit="s",
    )
    facts = {
        **timed.facts,
        "batch": timed.batch,
        "seconds_mean": summary.mean,
        "seconds_median": summary.median,
        "variation": summary.variation,
    }
    if probes:
        facts["probes"] = [asdict(probe) for probe in probes]
        facts["steps_down"] = stepped
    warnings = [*doubts(timed.seconds), *timed.warnings]
    return {"throughput": throughput, "batch": Measurement(unit="images", value=timed.batch)}, facts, warnings


def _confirmed(job: Job, report: Report, device: str, threads: int, batch: int) -> tuple[Timed, int]:
    """Measure in a fresh process; if the batch does not fit after all, with one image less."""
    for stepped in range(MOST_STEPS_DOWN + 1):
        outcome = in_fresh_process(_open_and_measure, job, report, device, threads, batch - stepped)
        if isinstance(outcome, Timed):
            return outcome, stepped
        if batch - stepped == 1:
            break
    raise JobError(
        f"batch {batch} fitted in the search but not in the measurement: does something else use the memory?"
    )


def _search(job: Job, report: Report, device: str, threads: int) -> list[Probe]:
    opened = open_device(device, threads)
    flags = PROTOCOLS[str(job["protocol"])]
    cap = parse_memory(str(job["memory"]))
    with applied(flags):
        model = _on_device(job, flags, opened.torch_name)
        limited = opened.limit_memory(cap)
        usable = limited.get("memory_cap")
        room = int(usable) - int(str(limited.get("context", 0))) if isinstance(usable, int) else None
        attempt = _attempt(job, model, flags, opened)
        probes = []
        for probe in largest_batch(attempt, cap=room):
            probes.append(probe)
            report(Progress(job=job, phase=f"batch {probe.batch}: {probe.outcome}", done=len(probes)))
    return probes


def _attempt(job: Job, model: nn.Module, flags: Flags, device: Device) -> Callable[[int], Probe]:
    """Make a function that tries one batch; only a lack of memory counts as too large."""

    def attempt(batch: int) -> Probe:
        device.forget()
        seconds, outcome = 0.0, "fits"
        try:
            step = _step(model, _images(job, batch, flags, device.torch_name), flags, device.torch_name)
            # Twice: a second pass may find the first one's output still held.
            seconds = device.seconds_of(step)
            seconds = device.seconds_of(step)
        except (RuntimeError, MemoryError) as error:
            if not device.ran_out(error):
                raise
            outcome = "out of memory"
        memory = device.memory()
        step = None  # type: ignore[assignment]  # lets go of the images before the next batch
        return Probe(
            batch=batch,
            outcome=outcome,
            seconds=seconds,
            allocated=memory.allocated,
            reserved=memory.reserved,
        )

    return attempt


def _open_and_measure(job: Job, report: Report, device: str, threads: int, batch: int) -> Timed | TooLarge:
    return _measure(job, report, open_device(device, threads), batch)


def _measure(job: Job, report: Report, device: Device, batch: int | None) -> Timed | TooLarge:
    """Build, check, warm up, time.  A batch of None is chosen where im/s stop growing."""
    flags = PROTOCOLS[str(job["protocol"])]
    report(Progress(job=job, phase="building"))
    with applied(flags):
        model = _on_device(job, flags, device.torch_name)
        limited = device.limit_memory(parse_memory(str(dict(job.settings).get("memory", "all"))) if batch else None)

        def step_of(size: int) -> Callable[[], torch.Tensor]:
            return _step(model, _images(job, size, flags, device.torch_name), flags, device.torch_name)

        try:
            _check_output(job, model, flags, device.torch_name)
            timed = _timed(job, report, device, step_of, batch)
        except (RuntimeError, MemoryError) as error:
            if batch is None or not device.ran_out(error):
                raise
            return TooLarge(batch=batch)
    return replace(timed, facts={"flags": asdict(flags), **limited, **timed.facts})


def _timed(
    job: Job,
    report: Report,
    device: Device,
    step_of: Callable[[int], Callable[[], object]],
    batch: int | None,
) -> Timed:
    """Choose the batch if none was given, warm up, time the runs."""
    probes: tuple[Probe, ...] = ()
    before: tuple[float, ...] = ()
    if batch is None:
        report(Progress(job=job, phase="finding the batch"))
        found = knee(lambda size: _few_runs(step_of(size), device))
        batch, probes, before = found.batch, found.probes, found.runs
    step = step_of(batch)
    report(Progress(job=job, phase=f"warming up, batch {batch}"))
    warm = warm_up(step, device, before=before)
    repeats = int(job["repeats"])
    rate = batch / warm.seconds[-1]
    device.forget()
    runs = device.time_runs(
        step,
        repeats,
        lambda run: report(
            Progress(job=job, phase=f"timing, batch {batch}", done=run, total=repeats, rate=rate),
        ),
    )
    memory = device.memory()
    warnings = list(runs.warnings)
    if not warm.steady:
        warnings.append(f"the warm-up was not steady after {len(warm.seconds)} runs")
    facts: dict[str, Any] = {
        "warm_up": list(warm.seconds),
        "warm_up_steady": warm.steady,
        "wall": runs.wall,
        "peak_allocated": memory.allocated,
        "peak_reserved": memory.reserved,
        **runs.facts,
    }
    if probes:
        facts["probes"] = [asdict(probe) for probe in probes]
    if device.torch_name == "cpu":
        facts["threads"] = torch.get_num_threads()
    return Timed(batch=batch, seconds=runs.seconds, facts=facts, warnings=warnings)


def _few_runs(step: Callable[[], object], device: Device) -> list[float]:
    """Time one run of a slow network, a few of a fast one."""
    runs = [device.seconds_of(step)]
    while len(runs) < 5 and sum(runs) < 0.5:
        runs.append(device.seconds_of(step))
    return runs


def _on_device(job: Job, flags: Flags, device: str) -> nn.Module:
    model = network.with_random_weights(str(job["model"]), int(job["res"])).to(device)
    if flags.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return torch.compile(model, mode=flags.compile) if flags.compile else model  # type: ignore[return-value]


def _images(job: Job, batch: int, flags: Flags, device: str) -> torch.Tensor:
    res = int(job["res"])
    images = torch.randn(batch, network.CHANNELS, res, res, device=device)
    return images.to(memory_format=torch.channels_last) if flags.channels_last else images


def _step(model: nn.Module, images: torch.Tensor, flags: Flags, device: str) -> Callable[[], torch.Tensor]:
    """Make the thing that is timed: one batch through the network, nothing else."""
    kind = device.partition(":")[0]

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        found: torch.Tensor = model(images)
        return found

    if flags.autocast is None:
        return plain

    @torch.inference_mode()
    def cast() -> torch.Tensor:
        with torch.autocast(kind, dtype=getattr(torch, str(flags.autocast))):
            found: torch.Tensor = model(images)
        return found

    return cast


def _check_output(job: Job, model: nn.Module, flags: Flags, device: str) -> None:
    """Put one fixed image through: a network whose output is not a row of finite numbers is not worth timing."""
    res = int(job["res"])
    image = torch.linspace(-1, 1, network.CHANNELS * res * res, device=device).view(1, network.CHANNELS, res, res)
    output: object = _step(model, image, flags, device)()
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[0] != 1:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise JobError(f"'{job['model']}' gives {shape} for one image, not one row of class scores")
    if not bool(torch.isfinite(output).all()):
        raise JobError(f"'{job['model']}' gives numbers that are not finite for a fixed image")


@contextlib.contextmanager
def applied(flags: Flags) -> Iterator[None]:
    """Set every switch explicitly, whatever torch's or the environment's defaults are."""
    torch.backends.cuda.matmul.allow_tf32 = flags.tf32_matmul
    torch.backends.cudnn.allow_tf32 = flags.tf32_cudnn
    torch.backends.cudnn.benchmark = flags.cudnn_benchmark
    set_fused_attn(flags.fused_attention)
    torch.manual_seed(0)
    yield
