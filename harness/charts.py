"""`Spec` -> which figures can be drawn of it, without matplotlib."""

from collections.abc import Callable, Mapping

from harness.errors import HarnessError
from harness.spec import Spec

# Which points a figure shows that has published ones and ours: both over each other, or the paper's figure with either.
POINTS = ("both", "ours", "published")
STYLES = ("paper", "slides")


def _has_axes(spec: Spec) -> bool:
    return spec.axes is not None


def _has_lengths(spec: Spec) -> bool:
    lengths = {cell.settings["epochs"] for cell in spec.cells.values() if "epochs" in cell.settings}
    return len(lengths) > 1 and all(isinstance(length, int) for length in lengths)


def _has_tokens(spec: Spec) -> bool:
    return any(cell.kind == "tokens" for cell in spec.cells.values())


def _has_speeds(spec: Spec) -> bool:
    return any((cell.kind, cell.metric) == ("throughput", "throughput") for cell in spec.cells.values())


def _has_trainings(spec: Spec) -> bool:
    return any(cell.training for cell in spec.cells.values())


CHARTS: Mapping[str, Callable[[Spec], bool]] = {
    "points": _has_axes,
    "epochs": _has_lengths,
    "layers": _has_tokens,
    "runs": _has_speeds,
    "ratios": _has_speeds,
    "curves": _has_trainings,
    "losses": _has_trainings,
}
# What a table is drawn as unless another is asked for: figures of speeds and of trainings are for those who ask.
USUAL = ("points", "epochs", "layers")
ON_DEMAND = {"speeds": ("runs", "ratios"), "trainings": ("curves", "losses")}


def charts_of(spec: Spec) -> tuple[str, ...]:
    """Name the figures that can be drawn of a table."""
    return tuple(name for name, fits in CHARTS.items() if fits(spec))


def chart_of(spec: Spec, wanted: str | None = None) -> str:
    """Choose the figure: the one that is wanted, else the usual one of the table.

    Raises `HarnessError` where the table has not what that figure shows.
    """
    possible = charts_of(spec)
    if wanted is None:
        usual = [name for name in possible if name in USUAL]
        if usual:
            return usual[0]
        others = "".join(
            f", --chart {' or '.join(names)} draws its {what}"
            for what, names in ON_DEMAND.items()
            if set(names) <= set(possible)
        )
        raise HarnessError(
            f"'{spec.name}' has no axes, so it is not drawn; `harness report {spec.name}` prints it{others}"
        )
    if wanted not in possible:
        there = f"it can be drawn as {' or '.join(possible)}" if possible else "it cannot be drawn at all"
        raise HarnessError(f"--chart {wanted}: '{spec.name}' has not what that shows; {there}")
    return wanted
