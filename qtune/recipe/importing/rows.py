"""The data sources of a draft: tables of source keys, each with the line it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft
    from qtune.recipe.node import Node

Table = dict[str, Any]


def put_sources(draft: Draft, key: str, found: list[tuple[Node, Table]], note: str) -> None:
    """Set data.train or data.eval; keys of a table that are None are left out."""
    if not found:
        return
    items = [
        node.like({name: value for name, value in table.items() if value is not None}, note)
        for node, table in found
    ]
    section, _, name = key.partition(".")
    first = found[0][0]
    draft.settings.setdefault(section, {}).setdefault(name, replace(first, value=items, note=note))


def evaluated_apart(draft: Draft, splits: list[tuple[Node, Table]], note: str) -> None:
    """Sources whose split is for testing are held out; the others are learnt."""
    tests = [each for each in splits if is_test(each[1].get("split"))]
    learnt = [each for each in splits if each not in tests]
    put_sources(draft, "data.train", learnt, note)
    put_sources(draft, "data.eval", tests, note)


def is_test(split: Any) -> bool:
    """Whether a split's name says that it is held out."""
    return str(split or "").startswith(("test", "valid", "val", "eval", "dev"))
