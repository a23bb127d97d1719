"""The recipe as a run's own folder keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune import recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qtune.recipe.loading import Origin
    from qtune.recipe.sections import Recipe


def own_recipe(asked: Recipe, origins: Mapping[str, Origin], folder: Path) -> str:
    """YAML without the output folder: run again, it must not meet its results."""
    train = asked.train.model_copy(update={"output_dir": None})
    said = {key: origin for key, origin in origins.items() if key != "train.output_dir"}
    kept = asked.model_copy(update={"train": train})
    return recipe.to_yaml(kept, relative_to=folder, origins=said)
