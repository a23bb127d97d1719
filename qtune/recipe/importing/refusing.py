"""Files that hold no supervised training of adapters: told with a reason and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from qtune.errors import UsageError
from qtune.recipe.importing.facts import OBJECTIVES, SUPERVISED

if TYPE_CHECKING:
    from qtune.recipe.importing.draft import Draft
    from qtune.recipe.node import Node

WHOLE = "qtune trains adapters; method: {name: selective} trains chosen parts of the model"


def refuse(node: Node, message: str, hint: str) -> NoReturn:
    """Raise the `UsageError` that points at the line which says so."""
    raise UsageError(message, place=node.place, hint=hint)


def refuse_objective(draft: Draft, key: str) -> None:
    """Raise if a key names another objective than imitating answers."""
    node = draft.peek(key)
    if node is None or node.value is False:
        return
    name = str(node.value).lower()
    refuse(node, f"{key}: {node.value}: trains {OBJECTIVES.get(name, name)}", SUPERVISED)


def refuse_any(draft: Draft, keys: tuple[str, ...], message: str, hint: str) -> None:
    """Raise if one of these keys is set, and not to false."""
    for key in keys:
        node = draft.peek(key)
        if node is not None and node.value is not False:
            refuse(node, f"{key}: {message}", hint)
