"""What this device can do at most: the largest sustained rate of matrix products, and of copying its memory."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from harness.job import Job
from harness.jobs.device import Device, opened
from harness.jobs.timing import warm_up
from harness.progress import Progress
from harness.result import Measurement

# Sides of the square matrices that are tried: a card needs large ones to be busy, a CPU is busy with small ones.
SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
# Larger than any cache, so that the copy goes through memory: 256 MiB on a CPU, 1 GiB on a card.
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
RUNS = 10

Report = Callable[[Progress], None]
Outcome = tuple[dict[str, Measurement], dict[str, Any], list[str]]


def work(job: Job, report: Report, *, device: str, threads: int) -> Outcome:
    """Measure both ceilings in the precision that the job names.

    A product of two n x n matrices takes 2 n³ floating-point operations; a copy reads and writes each byte once.
    """
    precision, kind = str(job["precision"]), device.partition(":")[0]
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    rates: dict[int, float] = {}
    with opened(device, threads) as there, torch.inference_mode():
        for side in SIDES[kind]:
            report(Progress(job=job, phase=f"matrix product of side {side}", done=len(rates), total=len(SIDES[kind])))
            one, other = (torch.randn(side, side, device=there.torch_name).to(dtype) for _ in range(2))
            out = torch.empty_like(one)
            seconds = _median(lambda a=one, b=other, c=out: torch.mm(a, b, out=c), there)  # type: ignore[misc]
            rates[side] = 2 * side**3 / seconds
            del one, other, out
            there.forget()
        report(Progress(job=job, phase="copy"))
        source = torch.ones(COPY_BYTES[kind] // 4, device=there.torch_name)
        target = torch.empty_like(source)
        copied = _median(lambda: target.copy_(source), there)
    metrics = {
        "matmul": Measurement(unit="TFLOP/s", value=max(rates.values()) / 1e12),
        "copy": Measurement(unit="GB/s", value=2 * COPY_BYTES[kind] / copied / 1e9),
    }
    return metrics, {"matmul_by_side": {str(side): rate for side, rate in rates.items()}}, []


def _median(step: Callable[[], object], device: Device) -> float:
    warm_up(step, device)
    return statistics.median(device.time_runs(step, RUNS, lambda _: None).seconds)
