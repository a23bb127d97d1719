"""What a fault between keys is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtune.recipe.sections import Recipe

Test = Callable[[Recipe], bool]
Blame = Callable[[Recipe], tuple[str, str]]
HELD_OUT = ("data.eval", "data.val_size")


@dataclass(frozen=True)
class Unread:
    """`keys` are read by nothing when `test` holds; `because` are the keys it looks at."""

    keys: tuple[str, ...]
    because: tuple[str, ...]
    reason: str
    test: Test


@dataclass(frozen=True)
class Conflict:
    """`key` cannot have its value when `test` holds.

    `blame`: of a table, the name in it that is at fault, and what was meant instead (or nothing).
    """

    key: str
    because: tuple[str, ...]
    message: str
    hint: str
    test: Test
    blame: Blame | None = None


def held_out(recipe: Recipe) -> bool:
    """Whether there are rows to evaluate on."""
    return bool(recipe.data.eval) or recipe.data.val_size > 0
