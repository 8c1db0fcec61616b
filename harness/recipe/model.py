"""What a recipe file says, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.kinds import Scalar


@dataclass(frozen=True, kw_only=True)
class Start:
    """The stage before: the recipe that trains what this one goes on from, and the side of its images in pixels."""

    recipe: str
    res: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    `settings` are all of `harness.kinds.RECIPE`, and what the recipe fixes beside them (`model`, `res`, `data`,
    `teacher`).  `assumed` gives, by setting, why a value that no publication gives was chosen.  `hours` are V100-hours
    as published for the recipe's own length, None where they were not.  `lineage` names the recipes that it is like,
    the first one first, and itself last.
    """

    name: str
    title: str
    cite: str
    settings: Mapping[str, Scalar]
    assumed: Mapping[str, str]
    start: Start | None
    hours: float | None
    lineage: tuple[str, ...]

    @property
    def epochs(self) -> int:
        """Give its own length."""
        return int(self.settings["epochs"])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What stands in for the published size: a small network, small images and a short schedule.

    `epochs` is the factor on a recipe's epochs, kept between `least_epochs` and `most_epochs`.  `settings` change every
    stage, `recipes` the stages of one recipe, `models` and `sizes` (sides in pixels) stand in for the published ones;
    `weights` names the recipe that trains what the paper took ready-made.  `data` are the sets, best first, of which
    the first that is there stands in for each of `replaces`.
    """

    name: str
    title: str
    seeds: int
    epochs: float
    least_epochs: int
    most_epochs: int
    data: tuple[str, ...]
    replaces: tuple[str, ...]
    settings: Mapping[str, Scalar]
    recipes: Mapping[str, Mapping[str, Scalar]]
    models: Mapping[str, Mapping[str, Scalar]]
    sizes: Mapping[int, int]
    weights: Mapping[str, str]
    path: Path = field(default=Path())

    def length(self, epochs: int) -> int:
        """Give the length of a stage that the paper trains for `epochs`."""
        return min(max(round(epochs * self.epochs), self.least_epochs), self.most_epochs)
