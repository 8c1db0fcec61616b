"""`tables/recipes/*.toml` -> `Recipe`: how a network is trained; and the scales that stand in for the published one."""

from harness.recipe.catalog import Recipes
from harness.recipe.model import Recipe, Scale, Start

__all__ = ["Recipe", "Recipes", "Scale", "Start"]
