"""Which recipes and scales there are, by name."""

from functools import cache
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.recipe.model import Recipe, Scale
from harness.recipe.read import load_recipe, load_scale
from harness.spec.catalog import shipped_specs

SCALES = ("full", "proxy", "smoke")


class Recipes:
    """The recipe files of a folder, found by name; a path that ends in `.toml` names a recipe of the user's own."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or shipped_specs() / "recipes"
        self.names = tuple(sorted(path.stem for path in self.folder.glob("*.toml")))

    def find(self, name: str) -> Recipe:
        """Give a recipe.

        Raises `HarnessError` for an unknown name, and `SpecError` with every mistake in its file.
        """
        return _found(self, name, ())

    def like(self, name: str, seen: tuple[str, ...]) -> Recipe:
        """Give the recipe that another one is like; `seen` are those that led here."""
        return _found(self, name, seen)

    def scale(self, name: str) -> Scale | None:
        """Give what stands in for the published size; None for the published size itself."""
        return None if name == "full" else load_scale(self.folder / "scales" / f"{name}.toml")

    def __eq__(self, other: object) -> bool:
        """Two catalogs of one folder are the same."""
        return isinstance(other, Recipes) and self.folder == other.folder

    def __hash__(self) -> int:
        """As equality has it."""
        return hash(self.folder)


@cache
def _found(recipes: Recipes, name: str, seen: tuple[str, ...]) -> Recipe:
    if name in seen:
        raise HarnessError(f"recipe '{name}' is like itself ({' → '.join((*seen, name))}); break the circle")
    if name.endswith(".toml"):
        return load_recipe(Path(name), recipes.like, (*seen, name))
    if name not in recipes.names:
        raise HarnessError(f"unknown recipe '{name}'{did_you_mean(name, recipes.names)}")
    return load_recipe(recipes.folder / f"{name}.toml", recipes.like, (*seen, name))
