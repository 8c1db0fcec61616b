"""The available recipes and scales, by name."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.specs.catalog import shipped_specs
from harness.specs.recipe.model import Recipe, Scale
from harness.specs.recipe.reader import load_recipe, load_scale

SCALES = ("full", "proxy", "smoke")


@dataclass(frozen=True)
class Recipes:
    """The recipe files of a folder, found by name; a path that ends in `.toml` is a recipe of the user's own."""

    folder: Path = field(default_factory=lambda: shipped_specs() / "recipes")

    @property
    def names(self) -> tuple[str, ...]:
        """Every recipe of the folder."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.toml")))

    def find(self, name: str, lineage: tuple[str, ...] = ()) -> Recipe:
        """Return a recipe; `lineage` are the names of those that are like it and led here.

        Raises `HarnessError` for an unknown name, and `SpecError` with every mistake in its file.
        """
        return _load(self, name, lineage)

    def scale(self, name: str) -> Scale | None:
        """Return what stands in for the published size; None for the published size itself."""
        return None if name == "full" else load_scale(self.folder / "scales" / f"{name}.toml")


@cache
def _load(recipes: Recipes, name: str, lineage: tuple[str, ...]) -> Recipe:
    if name in lineage:
        raise HarnessError(f"recipe '{name}' is like itself ({' → '.join((*lineage, name))}); break the circle")
    own = name.endswith(".toml")
    if not own and name not in recipes.names:
        raise HarnessError(f"unknown recipe '{name}'{did_you_mean(name, recipes.names)}")
    path = Path(name) if own else recipes.folder / f"{name}.toml"
    return load_recipe(path, recipes.find, (*lineage, name))
