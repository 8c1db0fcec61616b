"""`Spec` -> which figures can be drawn of it, without matplotlib."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.errors import HarnessError, did_you_mean
from harness.specs import Spec

# Which points a figure with published points and ours shows: both over each other, or either alone.
POINTS = ("both", "ours", "published")
STYLES = ("paper", "slides")


def _has_lengths(spec: Spec) -> bool:
    lengths = {cell.settings["epochs"] for cell in spec.cells.values() if "epochs" in cell.settings}
    return len(lengths) > 1 and all(isinstance(length, int) for length in lengths)


def _has_throughput(spec: Spec) -> bool:
    return any(cell.kind == cell.metric == "throughput" for cell in spec.cells.values())


def _has_trainings(spec: Spec) -> bool:
    return any(cell.training for cell in spec.cells.values())


CHARTS: Mapping[str, Callable[[Spec], bool]] = {
    "points": lambda spec: spec.axes is not None,
    "epochs": _has_lengths,
    "layers": lambda spec: any(cell.kind == "tokens" for cell in spec.cells.values()),
    "runs": _has_throughput,
    "ratios": _has_throughput,
    "curves": _has_trainings,
    "losses": _has_trainings,
    "trend": lambda spec: any(cell.kind for cell in spec.cells.values()),
}
# What a table is drawn as without --chart: charts of throughput and of trainings are drawn on request.
DEFAULT = ("points", "epochs", "layers")
ON_DEMAND = {"throughput": ("runs", "ratios"), "trainings": ("curves", "losses")}


def available_charts(spec: Spec) -> tuple[str, ...]:
    """Return the names of the charts that can be drawn of a table."""
    return tuple(name for name, fits in CHARTS.items() if fits(spec))


def select_chart(spec: Spec, requested: str | None = None) -> str:
    """Return the requested chart, else the default one of the table.

    Raises `HarnessError` where the table does not have what that chart shows.
    """
    possible = available_charts(spec)
    if requested is None:
        default = next((name for name in possible if name in DEFAULT), None)
        if default:
            return default
        others = "".join(
            f", --chart {' or '.join(names)} draws its {quantity}"
            for quantity, names in ON_DEMAND.items()
            if set(names) <= set(possible)
        )
        raise HarnessError(
            f"'{spec.name}' has no axes, so it is not drawn; `harness report {spec.name}` prints it{others}"
        )
    if requested not in possible:
        remedy = f"it can be drawn as {' or '.join(possible)}" if possible else "it cannot be drawn at all"
        raise HarnessError(f"--chart {requested}: '{spec.name}' has no data for that; {remedy}")
    return requested


def numeric_columns(spec: Spec) -> tuple[str, ...]:
    """Return the keys of the columns that have numbers, published or to be measured."""
    cells = [
        cell for cell in spec.cells.values() if not cell.text and (cell.references or cell.kind or cell.derivation)
    ]
    numeric = {cell.column.key for cell in cells}
    return tuple(column.key for column in spec.columns if column.key in numeric)


def with_axes(spec: Spec, x: str | None, y: str | None) -> Spec:
    """Return a table with these columns, by key or label, on the axes of its points; None leaves the table's own.

    Raises `HarnessError`, with the columns there are, where one is no column of numbers, or an axis has none.
    """
    columns, axes = numeric_columns(spec), spec.axes or (None, None)
    names = {name.lower(): c.key for c in spec.columns if c.key in columns for name in (c.label, c.key)}
    there = f"the columns of numbers of '{spec.name}' are {', '.join(columns)}"
    if not columns:
        there = f"'{spec.name}' has no columns of numbers"
    for option, name in (("--x", x), ("--y", y)):
        if name is not None and name.lower() not in names:
            raise HarnessError(f"{option} {name}: {there}{did_you_mean(name, columns)}")
    across, up = (names[name.lower()] if name else axis for name, axis in zip((x, y), axes, strict=True))
    if across is None or up is None:
        raise HarnessError(f"--{'x' if x else 'y'} {x or y}: name a column with --{'y' if x else 'x'} too; {there}")
    if across == up:
        raise HarnessError(f"--x {across}, --y {up}: that is one column, so every point lies on a line; {there}")
    return replace(spec, axes=(across, up))
