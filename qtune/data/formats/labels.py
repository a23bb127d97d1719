"""The names of a classification's labels: as the recipe lists them, or read from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune.data.faults import Faults
from qtune.data.readers.opening import text_lines
from qtune.errors import DataError

if TYPE_CHECKING:
    from qtune.recipe.inputs import SourceSection

_HINT = "one name a line (or number, tab, name), or a JSON list or object of names"


@dataclass(frozen=True, slots=True)
class Labels:
    """Every name there is, and which number stands for which."""

    numbered: dict[int, str]

    @property
    def names(self) -> list[str]:
        """The names in the order of their numbers."""
        return list(self.numbered.values())


def labels_of(source: SourceSection) -> Labels | None:
    """The labels that a source lists or whose file it names, None when it does neither."""
    if not source.labels:
        return None
    if not isinstance(source.labels, str):
        return _checked(dict(enumerate(source.labels)), "labels")
    path = Path(source.labels).expanduser()
    try:
        state = path.stat()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"labels: cannot be read: {reason}", place=path.name) from None
    return _from_file(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _from_file(path: Path, *_: int) -> Labels:
    """The labels of a file, read again when its time or size is another."""
    faults = Faults()
    lines = list(text_lines(path, path.name, faults))
    faults.raise_if_any()
    if path.suffix.lower() == ".json":
        return _checked(_of_json("\n".join(lines), path.name), path.name)
    filled = [line.strip() for line in lines if line.strip()]
    pairs = [line.split("\t") for line in filled]
    if filled and all(len(pair) == 2 and pair[0].isdecimal() for pair in pairs):
        return _checked({int(number): name.strip() for number, name in pairs}, path.name)
    return _checked(dict(enumerate(filled)), path.name)


def _of_json(text: str, place: str) -> dict[int, Any]:
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return {int(number): name for number, name in value.items()}
    except (ValueError, RecursionError):
        raise DataError("holds no labels", place=place, hint=_HINT) from None
    return dict(enumerate(value)) if isinstance(value, list) else {}


def _checked(numbered: dict[int, Any], place: str) -> Labels:
    """`DataError` unless there are names, all of them text, no two the same."""
    names = list(numbered.values())
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError("holds no labels, or an empty one", place=place, hint=_HINT)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"holds the label {twice!r} twice", place=place)
    return Labels(numbered)
