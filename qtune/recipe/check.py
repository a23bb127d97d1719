"""From settings to a checked Recipe, with every fault told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from qtune.errors import Fault
from qtune.recipe import phrasing
from qtune.recipe.conflicts import CONFLICTS
from qtune.recipe.keys import SECTIONS
from qtune.recipe.sections import Recipe
from qtune.recipe.unread import unread

if TYPE_CHECKING:
    from qtune.recipe.layers import Layer
    from qtune.recipe.node import Node
    from qtune.recipe.rule import Conflict, Unread

_STAND_IN: dict[str, dict[str, Any]] = {
    "model": {"name_or_path": "-"},
    "data": {"train": [{"path": "-"}]},
}


def check(layer: Layer, faults: list[Fault], *, file: str) -> Recipe | None:
    """The recipe, or None with at least one more fault in `faults`."""
    plain = plain_settings(layer)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        found = phrasing.faults_of(errors, plain, layer, file=file)
        faults.extend(found.values())
        partial = _without(plain, found)
        if partial is not None:
            faulty = {".".join(map(str, path[:2])) for path in found}
            faults.extend(_between(partial, layer, faulty, file))
        return None
    between = _between(recipe, layer, set(), file)
    faults.extend(between)
    return None if between else recipe


def plain_settings(layer: Layer) -> dict[str, Any]:
    """What pydantic reads: keys with an empty value left out, the default method named."""
    plain: dict[str, Any] = {}
    for section in SECTIONS:
        if section in layer.settings:
            keys = layer.settings[section]
            plain[section] = {k: n.plain() for k, n in keys.items() if n.value is not None}
    if "method" in plain:
        plain["method"].setdefault("name", "lora")
        parts = plain["method"].get("parts")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                part.setdefault("name", "lora")
    return plain


def _without(plain: dict[str, Any], found: dict[phrasing.Path, Fault]) -> Recipe | None:
    """The recipe as it would be without its faulty keys, for the checks between keys."""
    for path in found:
        section = str(path[0])
        if len(path) == 1 or path[:2] == ("method", "name"):
            plain.pop(section, None)
        else:
            plain.get(section, {}).pop(str(path[1]), None)
    for section, stand_in in _STAND_IN.items():
        plain[section] = {**stand_in, **plain.get(section, {})}
    try:
        return Recipe.model_validate(plain)
    except ValidationError:  # what is left is not enough to go on
        return None


def _between(recipe: Recipe, layer: Layer, faulty: set[str], file: str) -> list[Fault]:
    """Faults between keys, but none that rests on a key that is faulty itself."""
    faults = []
    for key, rule in unread(recipe).items():
        node = layer.value_set(key)
        if node is None or _rests_on(rule, key, faulty) or _idled(node, rule, layer, file):
            continue
        faults.append(_unread_fault(key, node, rule))
    for conflict in CONFLICTS:
        node = layer.value_set(conflict.key)
        if node and conflict.test(recipe) and not _rests_on(conflict, conflict.key, faulty):
            faults.append(_conflict_fault(node, conflict, recipe))
    return faults


def _idled(node: Node, rule: Unread, layer: Layer, file: str) -> bool:
    """Whether a --set, or a file over its fragment, took away what a key worked on: no fault of
    where the key stands."""
    if node.source.kind == "override":
        return False
    causes = [cause for key in rule.because if (cause := layer.written(key)) is not None]
    of_fragment = node.source.name != file
    return any(
        cause.source.kind == "override" or (of_fragment and cause.source.name != node.source.name)
        for cause in causes
    )


def _rests_on(rule: Unread | Conflict, key: str, faulty: set[str]) -> bool:
    looked_at = (key, *rule.because)
    return any(".".join(name.split(".")[:2]) in faulty for name in looked_at)


def _unread_fault(key: str, node: Node, rule: Unread) -> Fault:
    hint = "remove it" if node.source.kind == "override" else f"remove it, or --set {key}="
    return Fault(
        message=f"{phrasing.named(key, node)}: nothing would read it: {rule.reason}",
        place=node.place,
        hint=hint,
    )


def _conflict_fault(node: Node, conflict: Conflict, recipe: Recipe) -> Fault:
    shown, meant = conflict.blame(recipe) if conflict.blame else (node.plain(), "")
    message = f"{phrasing.named(conflict.key, node)}: {phrasing.show(shown)} {conflict.message}"
    return Fault(message=message, place=node.place, hint=meant or conflict.hint)
