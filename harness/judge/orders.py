"""The speeds of some models -> on which of the machines that timm published results of they come in the same order.

The order of models is that of no machine in particular only as far as machines agree.  How far they do is published:
a table names another with results of several machines by its key `orders`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from harness.specs import Catalog, Cell, Spec

# Two models differ clearly by more than this share; with fewer the order may be that of chance.  An order holds where
# this share of the pairs that differ clearly on both sides has it.
CLEAR = 0.05
HOLDS = 0.9

# With fewer models an order says little about a machine.
LEAST_MODELS = 3

# A model and the side of its images, in pixels.
Sized = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class MachineOrder:
    """How many `pairs` of models differ clearly here and in a machine's published results, and how many agree."""

    machine: str
    pairs: int
    agreeing: int

    @property
    def holds(self) -> bool:
        """Whether the order is that of the machine."""
        return self.agreeing >= HOLDS * self.pairs


def published_orders(speeds: Mapping[Sized, float], *, step: str, table: Path) -> tuple[MachineOrder, ...]:
    """Compare the order of these throughputs with that on every machine of the table, over all of its results.

    `step` is `inference` or `training`, which are not compared with each other.  A machine that has fewer than three
    of the models, or none that differ clearly, is left out.
    """
    by_machine: dict[str, list[tuple[int, int]]] = {}
    for machine, results in _published_results(table, step):
        shared = sorted(speeds.keys() & results.keys())
        if len(shared) >= LEAST_MODELS:
            by_machine.setdefault(machine, []).append(_agreement([(speeds[model], results[model]) for model in shared]))
    orders = (
        MachineOrder(machine=machine, pairs=sum(pairs for pairs, _ in counts), agreeing=sum(same for _, same in counts))
        for machine, counts in by_machine.items()
    )
    return tuple(order for order in orders if order.pairs)


def _agreement(models: list[tuple[float, float]]) -> tuple[int, int]:
    """Return the number of pairs that differ clearly on both sides, and of those in the same order."""
    signs = [_sign(first[0], second[0]) * _sign(first[1], second[1]) for first, second in combinations(models, 2)]
    return sum(sign != 0 for sign in signs), sum(sign > 0 for sign in signs)


def _sign(first: float, second: float) -> int:
    """Return which of two speeds is clearly the higher: 1, -1, or 0 for neither."""
    if max(first, second) <= (1 + CLEAR) * min(first, second):
        return 0
    return 1 if first > second else -1


@lru_cache
def _published_results(table: Path, step: str) -> tuple[tuple[str, Mapping[Sized, float]], ...]:
    """Return the published throughputs of each result, with the machine it is of."""
    (spec,) = Catalog().find([str(table)])
    return tuple(
        (column.machine, values)
        for column in spec.columns
        if column.machine and (values := _values(spec, column.key, step))
    )


def _values(spec: Spec, column: str, step: str) -> dict[Sized, float]:
    cells = [spec.cell(row.key, column) for row in spec.rows]
    return {
        (str(cell.settings["model"]), int(cell.settings["res"])): value
        for cell in cells
        if cell.settings.get("step") == step and (value := _value(spec, cell)) is not None
    }


def _value(spec: Spec, cell: Cell) -> float | None:
    published = cell.published
    if published is None or spec.is_wrong(published):
        return None
    return published.value
