"""The labels of a classification by name, before anything else is done with its recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtune.recipe import Origin
from qtune.run.left_dense import left_dense

if TYPE_CHECKING:
    from qtune.recipe import Loaded
    from qtune.recipe.sections import Recipe


def named(loaded: Loaded) -> Loaded:
    """The recipe with its labels, and with the linears that it trains left in 16 bits; `DataError`
    where the rows do not tell the labels."""
    loaded = left_dense(loaded)
    asked = loaded.recipe
    if asked.model.task != "classification" or asked.model.labels:
        return loaded
    origins = loaded.origins | {"model.labels": Origin("default", note="all that the rows hold")}
    return replace(loaded, recipe=with_labels(asked), origins=origins)


def with_labels(asked: Recipe) -> Recipe:
    """The recipe with the labels that its sources list or its training rows hold."""
    if asked.model.task != "classification" or asked.model.labels:
        return asked
    from qtune.data.classes import class_names

    model = asked.model.model_copy(update={"labels": class_names(asked)})
    return asked.model_copy(update={"model": model})
