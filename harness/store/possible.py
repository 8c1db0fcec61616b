"""What a result can be: the one rule for results, for the cells of a baseline, and for the predictions of a model.

A number that cannot be is damage, never a value: a share above 100 %, a negative size, a throughput that contradicts
its own samples.  Each function returns what is wrong as a clause, or an empty string.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.specs.checked import Constraint
from harness.specs.kinds import PERCENTILES
from harness.store.record import number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.store.result import Measurement, Result

_PERCENTAGE = number(least=0, most=100)
_FRACTION = number(least=0, most=1)
# Single precision rounds the cosine of a vector with itself to a little more than one.
_COSINE = number(least=-1.001, most=1.001)
_COUNT = number(least=1)
_AMOUNT = number(least=0)
_ABOVE_ZERO = number(above=0)
_ANYTHING = Constraint(types=(int, float, str), form="a number or a string")

# The range of what has this unit.
UNITS: Mapping[str, Constraint] = {
    "%": _PERCENTAGE,
    "fraction": _FRACTION,
    **dict.fromkeys(("im/s", "TFLOP/s", "GB/s"), _ABOVE_ZERO),
    **dict.fromkeys(("M", "GMAC", "MB", "px", "images", "classes", "h", "d", "ms", "GiB", "GFLOP"), _AMOUNT),
    **dict.fromkeys(("epochs", "J/image"), _AMOUNT),
}

# The range of a metric, whatever its unit; others have that of their unit.
METRICS: Mapping[str, Constraint] = {
    **dict.fromkeys(("top1", "top5", "real"), _PERCENTAGE),
    **dict.fromkeys(("top1_class", "top1_distil", "top1_softmax_sum", "top1_logit_mean"), _PERCENTAGE),
    "disagreement": _FRACTION,
    **dict.fromkeys(("cosine_in", "cosine_out", "cosine_class"), _COSINE),
    **dict.fromkeys(("res", "batch", "embed_dim", "heads", "layers", "tokens"), _COUNT),
    **dict.fromkeys(("params", "macs", "energy", "hours", "train_images", "test_images", "classes"), _AMOUNT),
    **dict.fromkeys(("days", "memory", "augment", "forward", "backward", "update"), _AMOUNT),
    **dict.fromkeys(("operators", "flops", "read", "written", "allocations", "peak"), _AMOUNT),
    **dict.fromkeys(("activations", "throughput", "step", "matmul", "copy"), _ABOVE_ZERO),
    **dict.fromkeys(("latency", *PERCENTILES, "compile_time", "peak_memory"), _ABOVE_ZERO),
}

# Metrics without which a good result of a kind is not whole.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "count": ("params", "macs"),
    "cost": ("operators", "flops"),
    "throughput": ("throughput",),
    "train-speed": ("throughput", "step"),
    "ceilings": ("matmul", "copy"),
}

# A metric that a fact or a setting has as well, and the factor between them.
_TWINS = {"params": ("parameters", 1e6), "macs": ("multiply_adds", 1e9), "batch": ("batch", 1), "hours": ("hours", 1)}

# Classes that are kept of each prediction.
TOP = 5

# Sums and quotients of the same numbers in another order differ in their last digits.
_ROUNDING = 1e-6


def value_problem(value: object, unit: str, metric: str = "") -> str:
    """Return why a value of a metric in a unit cannot be."""
    kind = "%" if unit.startswith("%") else unit  # some units say of what
    return METRICS.get(metric, UNITS.get(kind, _ANYTHING)).problem(value)


def measurement_problem(metric: str, measurement: "Measurement") -> str:
    """Return why a measurement cannot be: its value, the ends of its interval, or their order."""
    value, low, high = measurement.value, measurement.low, measurement.high
    if problem := value_problem(value, measurement.unit, metric):
        return f"{metric} {problem}"
    if low is None and high is None:
        return ""
    if isinstance(value, str):
        return f"{metric} is text but has an interval"
    # An interval by Student's t may exceed what the value may be; one of a share of images never does.
    if METRICS.get(metric) is _PERCENTAGE:
        for end in (end for end in (low, high) if end is not None):
            if not -_ROUNDING <= end <= 100 + _ROUNDING:
                return f"an end of the interval of {metric} must lie between 0 and 100 %, not at {end:g} %"
    rounding = _ROUNDING * abs(value)
    if (low is not None and low > value + rounding) or (high is not None and high < value - rounding):
        return f"{metric} is {value:g}, outside its own interval from {low} to {high}"
    return ""


def throughput_problem(value: float | str, batch: int, seconds: Sequence[float]) -> str:
    """Return why a throughput cannot be: it is batch size times iterations over their time."""
    if not seconds:
        return "throughput has no samples"
    if min(seconds) <= 0:
        return f"a sample of throughput must be above 0 s, not {min(seconds):g}"
    rate = batch * len(seconds) / sum(seconds)
    if isinstance(value, str) or not math.isclose(value, rate, rel_tol=_ROUNDING):
        return f"throughput is {value}, but its {len(seconds)} samples of {batch} images come to {rate:g} im/s"
    return ""


def result_problem(result: "Result") -> str:
    """Return why a result cannot be, beyond the range of each of its numbers."""
    for name, measurement in result.metrics.items():
        if problem := measurement_problem(name, measurement):
            return problem
    if result.error is not None:
        return ""
    missing = [name for name in _PARTS.get(result.job.kind, ()) if name not in result.metrics]
    if missing:
        return f"a {result.job.kind} result without {missing[0]}"
    for check in _CHECKS.get(result.job.kind, ()):
        if problem := check(result):
            return problem
    return ""


def _check_throughput(result: "Result") -> str:
    measurement = result.metrics["throughput"]
    return throughput_problem(measurement.value, result.facts["batch"], measurement.samples)


def _check_dropped(result: "Result") -> str:
    """Hold the iterations that were dropped against those that count: each has a place of its own among all."""
    dropped = [iteration["index"] for iteration in result.facts.get("dropped", ())]
    total = len(dropped) + len(result.metrics["throughput"].samples)
    if len(set(dropped)) < len(dropped):
        return "an iteration was dropped twice"
    last = max(dropped, default=0)
    return f"iteration {last} was dropped, of only {total} from 0 on" if last >= total else ""


def _check_step(result: "Result") -> str:
    """Hold the time of a step against its throughput, and days against hours."""
    values = {name: float(metric.value) for name, metric in result.metrics.items()}
    expected = 1000 * result.facts["batch"] / values["throughput"]
    if not math.isclose(values["step"], expected, rel_tol=_ROUNDING):
        return f"step is {values['step']:g} ms, but its throughput comes to {expected:g} ms"
    hours, days = values.get("hours"), values.get("days")
    if hours is not None and days is not None and not math.isclose(24 * days, hours, rel_tol=_ROUNDING):
        return f"days are {days:g}, but hours are {hours:g}"
    return ""


def _check_latency(result: "Result") -> str:
    """Hold the time of a batch against the throughput, and its percentiles against each other."""
    values = {name: float(metric.value) for name, metric in result.metrics.items() if not isinstance(metric.value, str)}
    expected = 1000 * result.facts["batch"] / values["throughput"]
    if "latency" in values and not math.isclose(values["latency"], expected, rel_tol=_ROUNDING):
        return f"latency is {values['latency']:g} ms, but its throughput comes to {expected:g} ms"
    there = [name for name in PERCENTILES if name in values]
    for lower, higher in pairwise(there):
        if values[lower] > values[higher]:
            return f"{lower} is {values[lower]:g} ms, more than a {higher} of {values[higher]:g} ms"
    return ""


def _check_twins(result: "Result") -> str:
    """Hold metrics against what else the result says of the same."""
    for metric, (fact, factor) in _TWINS.items():
        if metric in result.metrics and isinstance(other := result.facts.get(fact), (int, float)):
            value = result.metrics[metric].value
            if not math.isclose(float(value) * factor, other, rel_tol=_ROUNDING):
                return f"{metric} is {value}, but its {fact} are {other}"
    res = result.metrics.get("res")
    if res is not None and res.value != result.job["res"]:
        return f"res is {res.value}, but the job is of {result.job['res']} pixels"
    return ""


def _check_heads(result: "Result") -> str:
    """Hold accuracies against those of each head, from which they are taken."""
    heads: Mapping[str, Mapping[str, float]] = result.facts.get("heads", {})
    main = "softmax_sum" if "softmax_sum" in heads else "class"
    for metric, measurement in result.metrics.items():
        name, _, head = metric.partition("_")
        other = heads.get(head or main, {}).get(name)
        if other is not None and not _close(measurement.value, other):
            return f"{metric} is {measurement.value}, but its head has {other}"
    top1, top5 = (result.metrics.get(name) for name in ("top1", "top5"))
    if top1 and top5 and top1.value > top5.value:  # type: ignore[operator]  # both are percentages
        return f"top1 is {top1.value}, more than a top5 of {top5.value}"
    return ""


def _close(value: float | str, other: float) -> bool:
    return not isinstance(value, str) and math.isclose(value, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


_CHECKS: Mapping[str, tuple[Callable[["Result"], str], ...]] = {
    "count": (_check_twins,),
    "throughput": (_check_twins, _check_throughput, _check_dropped, _check_latency),
    "train-speed": (_check_twins, _check_throughput, _check_dropped, _check_step),
    "evaluate": (_check_heads,),
    "train": (_check_twins,),
}


def labels_problem(labels: "NDArray[Any]") -> str:
    """Return why the class indices of some images cannot be: one for each image, none negative."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return f"the labels are {_described(labels)}, not a class index for each image"
    return "a label is negative" if labels.size and labels.min() < 0 else ""


def top_problem(top: "NDArray[Any]", images: int) -> str:
    """Return why the predicted class indices of so many images cannot be; -1 is no class, which ends a row."""
    if top.shape != (images, TOP) or top.dtype.kind != "i":
        return f"the predicted classes are {_described(top)}, not {TOP} class indices for each of {images} images"
    return "a predicted class is below -1" if top.size and top.min() < -1 else ""


def scores_problem(scores: "NDArray[Any]", probability: "NDArray[Any]", images: int) -> str:
    """Return why the scores of the predicted classes, or the probabilities of the first, cannot be."""
    if scores.shape != (images, TOP) or scores.dtype.kind != "f":
        return f"the scores are {_described(scores)}, not {TOP} numbers for each of {images} images"
    if probability.shape != (images,) or probability.dtype.kind != "f":
        return f"the probabilities are {_described(probability)}, not a number for each of {images} images"
    if not images:
        return ""
    if not math.isfinite(scores.min()) or not math.isfinite(scores.max()):
        return "a score is not finite"
    # NaN is neither; single precision rounds a probability of one up a little.
    return "" if probability.min() >= 0 and probability.max() <= 1.001 else "a probability is not between 0 and 1"


def _described(array: "NDArray[Any]") -> str:
    return f"of shape {array.shape} and type {array.dtype}"
