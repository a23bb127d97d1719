"""Recipes of other tools, turned into ours: nothing is run, nothing is dropped in silence."""

from qtune.recipe.importing.convert import Imported, convert

__all__ = ["Imported", "convert"]
