"""The data of recipe files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.specs.checked import Scalar


@dataclass(frozen=True, kw_only=True)
class Start:
    """The stage before: the recipe whose weights this one fine-tunes, and the side of its images in pixels."""

    recipe: str
    res: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    `settings` are all of `harness.specs.kinds.RECIPE`, and what else the recipe fixes (`model`, `res`, `data`,
    `teacher`).  `assumed` has the reason for each value that is not published.  `hours` are the published V100-hours
    for the recipe's own epochs, None where there are none.  `lineage` names the recipes that it is like, the first one
    first, and itself last.
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
        """The recipe's own length."""
        return int(self.settings["epochs"])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What stands in for the published size: a small model, small images and a short schedule.

    `epochs` is the factor on a recipe's epochs, kept between `least_epochs` and `most_epochs`.  `settings` change every
    stage, `recipes` the stages of one recipe, `models` and `sizes` (sides in pixels) stand in for the published ones;
    `weights` names the recipe that trains what the paper took ready-made.  `data` are datasets, best first, of which
    the first available one stands in for each of `replaces`.
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
        """Return the length of a stage that the paper trains for `epochs`."""
        return min(max(round(epochs * self.epochs), self.least_epochs), self.most_epochs)
