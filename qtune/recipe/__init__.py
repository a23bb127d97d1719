"""The recipe language: YAML to a frozen, fully checked Recipe. No torch."""

from qtune.recipe.json_schema import schema
from qtune.recipe.keys import leaves
from qtune.recipe.loading import Loaded, Origin, for_model, load
from qtune.recipe.sections import Recipe
from qtune.recipe.writing import to_yaml

__all__ = ["Loaded", "Origin", "Recipe", "for_model", "leaves", "load", "schema", "to_yaml"]
