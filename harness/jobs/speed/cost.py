"""The `cost` job: what one forward pass of a model does, without computing it."""

import torch
from timm.layers import set_fused_attn
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.errors import JobError
from harness.jobs import Outcome, models
from harness.jobs.speed.operators import IMAGES, count_cost
from harness.jobs.speed.workload import flags_of
from harness.plan.job import Job
from harness.run.messages import Progress, Report
from harness.store.result import Measurement


def measure_cost(job: Job, report: Report) -> Outcome:
    """Count a forward pass of a model under a protocol, as a CPU would compute it, without computing it.

    So the number is the same on every machine.  What the pass costs on a GPU, and what a compiler makes of it, is in
    the facts of a throughput that is measured there.
    """
    report(Progress(job=job, phase="counting"))
    name, size, flags = str(job["model"]), models.size_of(job), flags_of(job)
    set_fused_attn(flags.fused_attention)
    model = flags.arranged(models.build_on_meta(name, size))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        images = flags.arranged(torch.empty(IMAGES, models.CHANNELS, *size))
        try:
            model._apply(_on_cpu)  # type: ignore[no-untyped-call]  # noqa: SLF001 -- as `to` does
            cost = count_cost(model, images, flags.precision.context("cpu"))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise JobError(f"'{name}' fails on images of {models.size_text(size)} pixels: {error}") from error
    metrics = {
        "operators": Measurement(unit="", value=cost.calls),
        "flops": Measurement(unit="GFLOP", value=cost.flops / IMAGES / 1e9),
        "read": Measurement(unit="MB", value=cost.read / 1e6),
        "written": Measurement(unit="MB", value=cost.written / 1e6),
        "allocations": Measurement(unit="", value=cost.allocations),
        "peak": Measurement(unit="MB", value=cost.peak / 1e6),
    }
    return metrics, {"cost": cost.to_data()}, []


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like one of the meta device; made anew, since a fake mode is slow to take over what it finds."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
