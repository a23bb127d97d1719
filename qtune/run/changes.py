"""Whether a run may go on: what has changed since its last checkpoint, key by key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune.errors import Fault, ResumeError, UsageError
from qtune.recipe import leaves
from qtune.recipe.keys import SECTIONS, field_at, is_key, keys_of
from qtune.recipe.paths import portable
from qtune.recipe.suggest import close

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from qtune.recipe import Origin
    from qtune.recipe.sections import Recipe

# what a run leaves behind, when it stops and where it is held is no part of what it learns
_FREE = (
    "checkpoint",
    "data.cache_dir",
    "distributed",
    "gates",
    "logging",
    "memory.base",
    "memory.budget",
    "memory.on_oom",
    "memory.dequantized_layers",
    "merge",
    "model.offline",
    "pins",
    "train.max_time",
    "train.output_dir",
    "watchdog",
)
# the run may be made longer, where its schedule stays, or measured otherwise, and says so
_SAID = ("eval", "train.max_steps", "train.num_train_epochs")
_CONTENTS = {
    "data.train": "training rows are not those",
    "data.eval": "held-out rows are not those",
    "model": "base model is not the one",
    "teacher": "teacher is not the one",
}
_MOST_KEYS = 4


def require_keys(allowed: Collection[str]) -> None:
    """`UsageError` for what --allow-change names and no recipe has, which would allow nothing."""
    known = {
        *SECTIONS,
        *_CONTENTS,
        *(f"{name}.{key}" for name in SECTIONS for key in keys_of(name)),
    }
    for name in allowed:
        steps = name.split(".")
        below = is_key(".".join(steps[:2])) and field_at(tuple(steps), method="") is not None
        if name not in known and not below:
            hint = close(name, known) or "qtune schema lists all keys"
            raise UsageError(f"{name}: unknown key", place="--allow-change", hint=hint)


def recipe_facts(asked: Recipe) -> dict[str, Any]:
    """Every key of a recipe that a resumed run must find again, without this machine's paths."""
    return {key: portable(_plain(value)) for key, value in leaves(asked) if not within(key, _FREE)}


def compare(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    allowed: Collection[str],
    origins: Mapping[str, Origin] | None = None,
) -> list[str]:
    """Lines for the changes that are allowed; `ResumeError` with a line for each other one.

    `allowed` holds keys or sections of --allow-change, `origins` says where a key is set now.
    """
    said: list[str] = []
    faults: dict[str, Fault] = {}
    for key, old, new in _changes(before, now):
        text = f"{key} was {_short(old)}, is {_short(new)}"
        if key in _CONTENTS:
            text = f"{key}: the {_CONTENTS[key]} the run began with"
        if within(key, [*_SAID, *allowed]):
            said.append(f"changed: {text}")
        else:
            origin = (origins or {}).get(key)
            faults[key] = Fault(message=text, place=origin.place if origin else "")
    if faults:
        key, last = faults.popitem()
        keys = [*faults, key]
        options = " ".join(f"--allow-change {key}" for key in keys[:_MOST_KEYS])
        hint = f"undo it, begin anew with -o, or go on nevertheless: {options}"
        raise ResumeError.of([*faults.values(), replace(last, hint=hint)])
    return said


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if old != new:
            yield key, old, new


def within(key: str, sections: Collection[str]) -> bool:
    """Whether some sections or keys hold this one."""
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
