"""What a wrong name was meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from qtune.errors import Fault
from qtune.recipe import foreign
from qtune.recipe.keys import METHODS, SECTIONS, keys_of, section_kinds, sections_with

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qtune.recipe.node import Node

_SHORTHANDS = {
    "model": "write model: {{name_or_path: {0}}}",
    "data": "write data: {{train: [{{path: {0}}}]}}",
    "method": "write method: {{name: {0}}}",
    "optim": "write optim: {{name: {0}}}",
}


def unknown(name: str, node: Node, *, section: str | None, method: str = "") -> Fault:
    """The fault of a key that does not exist where it stands."""
    path = f"{section}.{name}" if section else name
    return Fault(
        message=f"{path}: unknown key", place=node.place, hint=_hint(name, section, method)
    )


def unknown_item(path: str, name: str, node: Node, known: list[str]) -> Fault:
    """The fault of an unknown key below a section's key, such as in a data source."""
    hint = foreign.SOURCE_NOT_HERE.get(name, "")
    hint = hint or close(name, known) or f"known here: {', '.join(known)}"
    return Fault(message=f"{path}: unknown key", place=node.place, hint=hint)


def no_table(section: str, node: Node) -> Fault:
    """The fault of a section that is a text or a list."""
    value = node.plain()
    shown = "a list" if isinstance(value, list) else repr(value)
    short = isinstance(value, str) and value.isprintable() and len(value) <= 80
    shorthand = _SHORTHANDS.get(section) if short else None
    hint = shorthand.format(value) if shorthand else f"its keys: {', '.join(keys_of(section))}"
    return Fault(message=f"{section}: {shown} is not a table of keys", place=node.place, hint=hint)


def _hint(name: str, section: str | None, method: str) -> str:
    here = _keys_here(section, method)
    elsewhere = [s for s in sections_with(name) if s != section]
    if section == "method" and method in METHODS and (owners := _owners(name)):
        return f"a key of method {' and '.join(owners)}, not of {method}"
    if name in foreign.NOT_HERE and name not in here:
        return foreign.NOT_HERE[name]
    if here_close := close(name, here, cutoff=0.75):
        return here_close
    if elsewhere and section:
        return f"belongs to {' or '.join(elsewhere)}"
    if elsewhere:
        return f"write {' or '.join(f'{s}.{name}' for s in elsewhere)}"
    if name in foreign.FLAT:
        return f"write {foreign.FLAT[name]}"
    return (close(name, here) if section else "") or _far(name, section, here)


def _keys_here(section: str | None, method: str) -> list[str]:
    if section is None:
        return [*SECTIONS, "extends", *foreign.FLAT]
    if section == "method" and method in METHODS:
        return list(METHODS[method].model_fields)
    return list(keys_of(section))


def _owners(name: str) -> list[str]:
    return [method for method, kind in METHODS.items() if name in kind.model_fields]


def _far(name: str, section: str | None, here: list[str]) -> str:
    """A close name in any section, or the list of what there is."""
    paths = [f"{s}.{k}" for s in SECTIONS for kind in section_kinds(s) for k in kind.model_fields]
    by_last = {path.partition(".")[2]: path for path in paths}
    found = difflib.get_close_matches(name, by_last, n=1, cutoff=0.75)
    if found:
        return f"did you mean {by_last[found[0]]}?"
    return f"keys: {', '.join(here)}" if section else "qtune schema lists all keys"


def close(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A hint that names the closest word, letters that changed places before others, or no hint."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    best = max(found, key=lambda word: sorted(word) == sorted(name), default="")
    return f"did you mean {best}?" if best else ""
