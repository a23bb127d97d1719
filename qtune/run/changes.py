"""Whether a run may go on: what has changed since its last checkpoint, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import Fault, ResumeError
from qtune.recipe import leaves
from qtune.recipe.paths import portable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from qtune.recipe.sections import Recipe

# what a run leaves behind and when it stops is no part of what it learns
_FREE = (
    "checkpoint",
    "data.cache_dir",
    "gates",
    "logging",
    "memory.budget",
    "merge",
    "train.max_time",
    "train.output_dir",
    "watchdog",
)
# the run may be made longer, or measured otherwise, and says so
_SAID = ("eval", "train.max_steps", "train.num_train_epochs")
_CONTENTS = {"data.train": "training rows", "data.eval": "held-out rows", "model": "base model"}


def recipe_facts(asked: Recipe) -> dict[str, Any]:
    """Every key of a recipe that a resumed run must find again, without this machine's paths."""
    return {key: portable(_plain(value)) for key, value in leaves(asked) if not _within(key, _FREE)}


def compare(
    before: Mapping[str, Any], now: Mapping[str, Any], *, allowed: Collection[str]
) -> list[str]:
    """Lines for the changes that are allowed; `ResumeError` with a line for each other one.

    `allowed` holds keys or sections of --allow-change.
    """
    said: list[str] = []
    faults: list[Fault] = []
    for key, old, new in _changes(before, now):
        text = f"{key} was {_short(old)}, is {_short(new)}"
        if key in _CONTENTS:
            text = f"{key}: the {_CONTENTS[key]} are not those the run began with"
        if _within(key, [*_SAID, *allowed]):
            said.append(f"changed: {text}")
        else:
            faults.append(Fault(message=text))
    if faults:
        named = " ".join(f"--allow-change {fault.message.split(' ')[0]}" for fault in faults[:1])
        faults[-1] = Fault(
            message=faults[-1].message,
            hint=f"undo it, begin anew with -o, or go on nevertheless: {named.replace(':', '')}",
        )
        raise ResumeError.of(faults)
    return said


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if old != new:
            yield key, old, new


def _within(key: str, sections: Collection[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
