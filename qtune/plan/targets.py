"""Which modules a name, a suffix or a pattern of the recipe means; the plan and the methods agree.

Names are full module names such as "model.layers.3.self_attn.q_proj".
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from qtune.errors import UsageError
from qtune.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ALL_LINEAR = "all-linear"
_Value = TypeVar("_Value")


def ends_with(name: str, suffix: str) -> bool:
    """True if `suffix` is the whole name or its last dotted parts."""
    return name == suffix or name.endswith(f".{suffix}")


def is_within(name: str, module: str) -> bool:
    """True if `name` is the module or lies inside it."""
    return name == module or name.startswith(f"{module}.")


@cache
def layer_index(name: str) -> int | None:
    """The first number in the name: the layer it belongs to."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def suffixes(names: Iterable[str]) -> list[str]:
    """The distinct last parts of the names, in the order they appear."""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))


def lookup(patterns: Mapping[str, _Value], name: str, default: _Value) -> _Value:
    """The value of the first name, suffix or regular expression that fits, as PEFT reads them."""
    for pattern, value in patterns.items():
        if _compiled(rf"(?:.*\.)?(?:{pattern})", shown=pattern).fullmatch(name):
            return value
    return default


def find_modules(
    names: Iterable[str], entries: Iterable[str], *, key: str, kind: str = "linear module"
) -> list[str]:
    """The names that the entries of `key` mean, whole or by their last parts, in order.

    `UsageError` with the nearest names when an entry means none: a misspelt module is never passed
    over in silence.
    """
    names, entries = list(names), list(entries)
    for entry in entries:
        if not any(ends_with(name, entry) for name in names):
            known = [word for word in suffixes(names) if not word.isdecimal()]
            raise UsageError(f"no {kind} is named {entry!r}", place=key, hint=nearest(entry, known))
    return [name for name in names if any(ends_with(name, entry) for entry in entries)]


def refuse_unused_patterns(
    patterns: Mapping[str, object], names: Iterable[str], *, key: str
) -> None:
    """`UsageError` for a pattern that fits none of the chosen modules: nothing would read it."""
    names = list(names)
    for pattern in patterns:
        if not any(lookup({pattern: True}, name, False) for name in names):
            raise UsageError(
                f"{pattern!r} fits no chosen module",
                place=key,
                hint=nearest(pattern, suffixes(names)),
            )


def select_targets(
    names: Sequence[str],
    *,
    target_modules: str | Sequence[str],
    exclude_modules: Sequence[str] = (),
    layers_to_transform: Sequence[int] = (),
) -> list[str]:
    """The names that the recipe's filters leave, in order; `names` holds no output head.

    `UsageError` that lists what exists when nothing is left, or when one entry of a list means
    nothing.
    """
    excluded = set(find_modules(names, exclude_modules, key="method.exclude_modules"))
    chosen = _targeted(names, target_modules)
    if layers_to_transform:
        _require_layers(names, layers_to_transform)
        chosen = [name for name in chosen if layer_index(name) in layers_to_transform]
    chosen = [name for name in chosen if name not in excluded]
    if not chosen:
        raise UsageError(
            "no module of the model is chosen",
            place="method.target_modules",
            hint=f"the linear modules are {', '.join(suffixes(names)) or 'none'}",
        )
    return chosen


def _targeted(names: Sequence[str], target_modules: str | Sequence[str]) -> list[str]:
    if target_modules == ALL_LINEAR:
        return list(names)
    if isinstance(target_modules, str):
        pattern = _compiled(target_modules, shown=target_modules)
        return [name for name in names if pattern.fullmatch(name)]
    return find_modules(names, target_modules, key="method.target_modules")


def _require_layers(names: Sequence[str], layers: Sequence[int]) -> None:
    known = {index for name in names if (index := layer_index(name)) is not None}
    missing = sorted(set(layers) - known)
    if missing:
        raise UsageError(
            f"the model has no layer {', '.join(map(str, missing))}",
            place="method.layers_to_transform",
            hint=f"its layers are {min(known)} to {max(known)}" if known else "it has no layers",
        )


def _compiled(pattern: str, *, shown: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{shown!r} is not a regular expression: {error}", place="method"
        ) from None
