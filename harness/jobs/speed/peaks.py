"""The roofline's peaks on this device: the highest sustained rate of matrix products, and of copying its memory."""

import statistics
from collections.abc import Callable

import torch

from harness.jobs import Outcome
from harness.jobs.precision import PRECISIONS
from harness.jobs.speed.device import Device, open_device
from harness.jobs.speed.timing import warm_up
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.store.result import Measurement

# Sides of the square matrices that are tried: large ones saturate a GPU, small ones a CPU.
SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
# Larger than any cache, so that the copy goes through memory: 256 MiB on a CPU, 1 GiB on a GPU.
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
ITERATIONS = 10


def measure_peaks(job: Job, report: Report, *, device: str, threads: int) -> Outcome:
    """Measure peak throughput, in the precision that the job names, and peak bandwidth.

    A product of two n x n matrices takes 2 n³ floating-point operations; a copy reads and writes each byte once.
    """
    precision, kind = PRECISIONS[str(job["precision"])], device.partition(":")[0]
    precision.set_tf32()
    dtype = getattr(torch, precision.autocast or "float32")
    rates: dict[int, float] = {}
    with open_device(device, threads) as opened, torch.inference_mode():
        for side in SIDES[kind]:
            report(Progress(job=job, phase=f"matrix product of side {side}", done=len(rates), total=len(SIDES[kind])))
            left, right = (torch.randn(side, side, device=opened.torch_name).to(dtype) for _ in range(2))
            product = torch.empty_like(left)
            seconds = _median(lambda a=left, b=right, out=product: torch.mm(a, b, out=out), opened)  # type: ignore[misc]
            rates[side] = 2 * side**3 / seconds
            del left, right, product
            opened.empty_cache()
        report(Progress(job=job, phase="copy"))
        source = torch.ones(COPY_BYTES[kind] // 4, device=opened.torch_name)
        target = torch.empty_like(source)
        copy_seconds = _median(lambda: target.copy_(source), opened)
    metrics = {
        "matmul": Measurement(unit="TFLOP/s", value=max(rates.values()) / 1e12),
        "copy": Measurement(unit="GB/s", value=2 * COPY_BYTES[kind] / copy_seconds / 1e9),
    }
    return metrics, {"matmul_by_side": {str(side): rate for side, rate in rates.items()}}, []


def _median(step: Callable[[], object], device: Device) -> float:
    warm_up(lambda: device.time_step(step))
    return statistics.median(device.time_steps(step, ITERATIONS, lambda _: None).seconds)
