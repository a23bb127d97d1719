"""Data sets of the Hugging Face hub, read and cached by `datasets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.data.row import Row
from qtune.errors import DataError
from qtune.hub import why_offline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.sections import SourceSection


def read(source: SourceSection) -> Iterator[Row]:
    """The rows of a hub data set, numbered from 1; its place is `id[split]`."""
    label = f"{source.path}[{source.split}]"
    for number, values in enumerate(_load(source), 1):
        yield Row(label, number, values)


def _load(source: SourceSection) -> Any:
    """The data set; `DataError` in one line for all that the hub can answer."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.load_dataset(
            source.path, name=source.config, split=source.split, revision=source.revision
        )
    except (OSError, ValueError, KeyError, RuntimeError, DatasetsError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        offline = why_offline()
        reach = f"{offline}, so only cached data sets open" if offline else ""
        raise DataError(
            f"neither a local file nor a hub data set that opens: {lines[0]}",
            place=source.path,
            hint=reach or "check the id, config, split and revision; a private one needs HF_TOKEN",
        ) from None
