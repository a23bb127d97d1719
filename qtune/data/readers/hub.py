"""Data sets of the Hugging Face hub, read and cached by `datasets`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtune.data.row import Row
from qtune.errors import DataError
from qtune.hub import why_offline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.inputs import SourceSection


def read(source: SourceSection, *, streaming: bool = False) -> Iterator[Row]:
    """The rows of a hub data set, numbered from 1; its place is `id[split]`."""
    label = f"{source.path}[{source.split}]"
    loaded = _load(source, streaming=streaming)
    names = _label_names(loaded)
    for number, values in enumerate(_values(loaded, label), 1):
        named = {
            column: own[values[column]]
            for column, own in names.items()
            if values[column] in range(len(own))
        }
        yield Row(label, number, {**values, **named})


def _values(loaded: Any, label: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set; `DataError` where the network or a file of it fails on the way."""
    from datasets.exceptions import DatasetsError

    rows = enumerate(loaded, 1)
    number = 0
    while True:
        try:
            number, values = next(rows)
        except StopIteration:
            return
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = f"cannot be read on: {reason}"
            raise DataError(message, place=f"{label}:{number + 1}") from None
        yield values


def _label_names(loaded: Any) -> dict[str, list[str]]:
    """The columns whose numbers stand for labels, and the names that the data set gives them."""
    features = getattr(loaded, "features", None) or {}
    found = {column: getattr(feature, "names", None) for column, feature in features.items()}
    return {column: names for column, names in found.items() if isinstance(names, list)}


def fingerprint(source: SourceSection) -> str | None:
    """What `datasets` calls the content of a stored data set, the same as long as it is."""
    found = getattr(_load(source, streaming=False), "_fingerprint", None)
    return found if isinstance(found, str) else None


def _load(source: SourceSection, *, streaming: bool) -> Any:
    """The data set; `DataError` in one line for all that the hub can answer."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        with _quiet_offline():
            return datasets.load_dataset(
                source.path,
                name=source.config,
                split=source.split,
                revision=source.revision,
                streaming=streaming,
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


@contextmanager
def _quiet_offline() -> Iterator[None]:
    """Who asked to stay offline need not be told at each look that the cache was taken."""
    from datasets.utils import logging

    before = logging.get_verbosity()
    if why_offline():
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
