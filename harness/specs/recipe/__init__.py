"""`tables/recipes/*.toml` -> `Recipe`: how a model is trained; and the scales that stand in for the published one."""

from harness.specs.recipe.catalog import Recipes
from harness.specs.recipe.model import Recipe, Scale, Start

__all__ = ["Recipe", "Recipes", "Scale", "Start"]
