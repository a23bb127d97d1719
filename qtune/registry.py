"""Tables of names: `name -> "module:object"`, imported on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from qtune.errors import UsageError


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known words closest to `name`, or lists them all when none is close."""
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(words)}"


class Registry(Mapping[str, Any]):
    """A readable table of plug-ins of one kind; looking a name up imports it."""

    def __init__(self, kind: str, table: dict[str, str]) -> None:
        self.kind = kind
        self._table = table

    def __getitem__(self, name: str) -> Any:
        """The object behind `name`; `UsageError` with the nearest names when there is none."""
        if name not in self._table:
            raise UsageError(f"unknown {self.kind} {name!r}", hint=nearest(name, self._table))
        module, _, attribute = self._table[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table
