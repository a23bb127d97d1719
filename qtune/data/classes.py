"""The labels of a classification: which there are, and how its sources are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.data.checking import examples_of
from qtune.data.faults import Faults
from qtune.data.formats.detect import detect
from qtune.data.formats.labelled import LABELLED
from qtune.data.formats.labels import labels_of
from qtune.data.source import label, read
from qtune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qtune.recipe.inputs import SourceSection
    from qtune.recipe.sections import Recipe

MOST = 1000
"""More labels than that are hardly meant to be found in the rows."""
_FORMATS = ("auto", "classification", "messages")


def sources_of(recipe: Recipe, sources: Sequence[SourceSection]) -> tuple[SourceSection, ...]:
    """The sources as the recipe's task reads them."""
    if recipe.model.task != "classification":
        return tuple(sources)
    return tuple(_labelled(source, recipe.model.labels) for source in sources)


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """The labels by their numbers: those of the recipe or its sources, or all of the training rows,
    in order; `DataError` where there are not two of them, or far too many."""
    if recipe.model.labels:
        return recipe.model.labels
    names: dict[str, None] = {}
    listed = [found for source in recipe.data.train if (found := labels_of(source))]
    for labels in listed:
        names.update(dict.fromkeys(labels.names))
    if len(listed) < len(recipe.data.train):
        held = set(_held(sources_of(recipe, recipe.data.train)))
        names.update(dict.fromkeys(_sorted(held - names.keys())))
    place = ", ".join(label(source) for source in recipe.data.train)
    if len(names) < 2:
        raise DataError(f"the rows have {len(names)} label, two are needed", place=place)
    if len(names) > MOST:
        raise DataError(
            f"the rows have {len(names):,} labels",
            place=place,
            hint="is it the column of labels? Then list them in model.labels",
        )
    return tuple(names)


def _labelled(source: SourceSection, names: tuple[str, ...]) -> SourceSection:
    if source.format not in (*_FORMATS, LABELLED):
        raise UsageError(
            f"format: {source.format} rows have no label for a classification",
            place=source.path,
            hint="leave the format out, and map text and label with columns",
        )
    return source.model_copy(update={"format": LABELLED, "labels": source.labels or names})


def _held(sources: Iterable[SourceSection]) -> Iterator[str]:
    """The label of each row; faulty rows are told of when all are read."""
    for source in sources:
        detected = None
        for row in read(source, Faults()):
            detected = detected or detect(row, source)
            try:
                (example,) = examples_of(row, detected, source, None)
            except DataError:
                continue
            yield example.turns[-1].text


def _sorted(names: Iterable[str]) -> list[str]:
    """Numbers by their size, names by their letters."""
    names = list(names)
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
