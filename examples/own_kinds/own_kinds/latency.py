"""How long single images take, one after the other: percentiles, and their histogram among the facts."""

import numpy as np
import torch

from harness.jobs import Job, Measurement, Outcome, Progress, Report, models
from harness.jobs.speed.device import open_device

WARM_UP = 10


def measure(job: Job, report: Report, device: str, threads: int) -> Outcome:
    """Time requests of one image each; what a function takes is given to it by the names of its parameters."""
    requests, res = int(job["requests"]), int(job["res"])
    model = models.build_initialised(str(job["model"]), res)
    with open_device(device, threads) as opened, torch.inference_mode():
        model.to(opened.torch_name)
        image = torch.rand(1, 3, res, res, device=opened.torch_name)
        for _ in range(WARM_UP):
            opened.time_step(lambda: model(image))
        seconds = []
        for request in range(requests):
            report(Progress(job=job, phase="timing", done=request, total=requests))
            seconds.append(opened.time_step(lambda: model(image)))
    counts, edges = np.histogram(np.array(seconds) * 1000, bins=int(job["bins"]))
    samples = tuple(seconds)
    metrics = {
        f"p{percent}": Measurement(
            unit="ms", value=1000 * float(np.percentile(seconds, percent)), samples=samples, sample_unit="s"
        )
        for percent in (50, 90, 99)
    }
    return metrics, {"histogram": {"counts": counts.tolist(), "edges_ms": edges.tolist()}}, []
