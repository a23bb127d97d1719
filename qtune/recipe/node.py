"""Values with the place they were written at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Source:
    """One file or one `--set`: `name` stands in faults, `label` in origins.

    Relative inputs are read from `folder`.
    """

    name: str
    label: str
    folder: Path
    kind: Literal["file", "override"] = "file"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a recipe; `line` is that of its key, `note` says how else it was written."""

    value: Scalar | dict[str, Node] | list[Node]
    source: Source
    line: int
    note: str = ""

    @property
    def place(self) -> str:
        """`recipes/a.yaml:12` or `--set a.b=c`, for faults."""
        return self._at(self.source.name)

    @property
    def label(self) -> str:
        """`a.yaml:12` or `--set a.b=c`, for origins."""
        return self._at(self.source.label)

    def _at(self, name: str) -> str:
        return f"{name}:{self.line}" if self.source.kind == "file" else name

    def plain(self) -> Any:
        """The value without places; keys of a table that have no value are left out."""
        if isinstance(self.value, dict):
            return {k: n.plain() for k, n in self.value.items() if n.value is not None}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def like(self, value: Any, note: str = "") -> Node:
        """Another plain value at the same place."""
        if isinstance(value, dict):
            value = {k: self.like(v, note) for k, v in value.items()}
        elif isinstance(value, list):
            value = [self.like(v, note) for v in value]
        return replace(self, value=value, note=note)

    def child(self, step: str | int) -> Node | None:
        """The value below a key or an index."""
        if isinstance(self.value, dict):
            return self.value.get(str(step))
        if isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None

    def walk(self) -> Iterator[Node]:
        """This value and all below it."""
        yield self
        below = self.value if isinstance(self.value, list) else []
        for item in self.value.values() if isinstance(self.value, dict) else below:
            yield from item.walk()
