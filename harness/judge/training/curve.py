"""The epochs of a log -> what the curve itself shows, whatever the settings were."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.judge.training.given import LoggedEpoch

NOT_FINITE = "the loss is not finite"


@dataclass(frozen=True, kw_only=True)
class CurveFinding:
    """What a curve shows, where, what that means, and what to try; a `certain` one needs no other cause."""

    name: str
    evidence: str
    meaning: str
    advice: str
    certain: bool = True


# Mixed images and smoothed labels make the loss of training the larger one; this share of epochs shows it is not.
_MOST = 0.5


def read_curve(
    epochs: Sequence[LoggedEpoch], *, mixed: bool, horizon: float, noise: float, warmup: float
) -> list[CurveFinding]:
    """Return what the epochs show.

    `mixed` tells that training mixes or smooths, `horizon` is over how many epochs the moving average reaches back,
    `noise` by how many points two runs differ, `warmup` how many epochs the rate rises.
    """
    findings = [_not_finite(epochs), _falls_back(epochs, noise=noise, warmup=warmup), _average(epochs, noise)]
    if mixed:
        findings.append(_test_loss_above(epochs, horizon))
    return [finding for finding in findings if finding]


def _not_finite(epochs: Sequence[LoggedEpoch]) -> CurveFinding | None:
    broken = next((e for e in epochs if e.train_loss is not None and not math.isfinite(e.train_loss)), None)
    return not_finite(f"in epoch {broken.number}") if broken else None


def not_finite(where: str) -> CurveFinding:
    """Return what it means that the loss is not finite."""
    return CurveFinding(
        name=NOT_FINITE,
        evidence=f"{where}; what follows is no training",
        meaning="the rate is too high for the arithmetic, most often for that of float16",
        advice="go on from the last checkpoint before it in bfloat16 or float32, or with half of the learning rate",
    )


def _falls_back(epochs: Sequence[LoggedEpoch], *, noise: float, warmup: float) -> CurveFinding | None:
    """Whether the accuracy falls and the loss rises while the rate is near its peak: ten times what two runs differ."""
    early = [e for e in epochs if e.number <= max(4 * warmup, 10) and e.top1 is not None and e.train_loss is not None]
    for before, after in pairwise(early):
        assert before.top1 is not None and after.top1 is not None  # noqa: PT018 -- chosen so
        assert before.train_loss is not None and after.train_loss is not None  # noqa: PT018
        if before.top1 - after.top1 > 10 * noise and after.train_loss > before.train_loss:
            rate = f" at a rate of {after.rate:g}" if after.rate is not None else ""
            return CurveFinding(
                name="the rate is too high early",
                evidence=f"top-1 falls from {before.top1:.1f} to {after.top1:.1f} % in epoch {after.number}{rate}, and "
                f"the training loss rises from {before.train_loss:.2f} to {after.train_loss:.2f}",
                meaning="the training nearly diverged, and what it lost then it may not regain",
                advice="check the rate against the rule for your batch size; lower it, or clip gradients, before "
                "lengthening the warm-up",
            )
    return None


def _average(epochs: Sequence[LoggedEpoch], noise: float) -> CurveFinding | None:
    last = epochs[-1] if epochs else None
    if last is None or last.top1 is None or last.top1_ema is None or last.top1 - last.top1_ema <= noise:
        return None
    return CurveFinding(
        name="the moving average is behind",
        evidence=f"in the last epoch the model has {last.top1:.2f} %, its moving average {last.top1_ema:.2f} %",
        meaning="whoever reads the average reads less than was trained",
        advice="report the model, or take an average that reaches back over fewer steps",
        certain=False,
    )


def _test_loss_above(epochs: Sequence[LoggedEpoch], horizon: float) -> CurveFinding | None:
    """Tell by when the loss on clean test images is above that on mixed ones what it is that was evaluated."""
    both = [e for e in epochs if e.train_loss is not None and e.test_loss is not None and e.number > 0]
    above = [e for e in both if e.test_loss > e.train_loss]  # type: ignore[operator]
    early, late = ([e for e in both if (e.number <= horizon) is side] for side in (True, False))
    shares = [len([e for e in above if e in part]) / len(part) if part else 0.0 for part in (early, late)]
    if not above or max(shares) <= _MOST:
        return None
    first, last = above[0], above[-1]
    evidence = (
        f"the test loss is above the training loss in epochs {first.number} to {last.number} "
        f"({last.test_loss:.2f} and {last.train_loss:.2f} in the last of them), though training images are mixed"
    )
    if shares[0] > _MOST >= shares[1] and late:
        return CurveFinding(
            name="the moving average was evaluated",
            evidence=evidence,
            meaning=f"only in the first {horizon:.0f} epochs, over which the average reaches back",
            advice="evaluate the model itself, as the authors do, or average over fewer steps",
        )
    if shares[0] <= _MOST and early:
        return CurveFinding(
            name="the model overfits",
            evidence=evidence,
            meaning="it learns the training images by heart: regularization or augmentation is missing",
            advice="check that repeated augmentation, mixing, erasing and stochastic depth reach the loader",
            certain=False,
        )
    return CurveFinding(
        name="the evaluation is wrong",
        evidence=evidence,
        meaning="in every epoch: the test images, their classes, crop or normalisation are not those of training",
        advice="evaluate public weights in the same way; `harness reproduce --explain` shows each crop",
    )
