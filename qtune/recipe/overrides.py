"""`--set a.b=value`, over everything a file says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

from qtune.errors import Fault, UsageError
from qtune.recipe import suggest
from qtune.recipe.aliases import Writer
from qtune.recipe.keys import SECTIONS, is_key, keys_of
from qtune.recipe.layers import Layer, overlay
from qtune.recipe.node import Node, Source
from qtune.recipe.scalars import scalar
from qtune.recipe.syntax import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUOTE = "a text that starts like this needs quotes of its own: '\"...\"'"
_FORM = "write --set section.key=value, such as --set optim.learning_rate=1e-4"


@dataclass(frozen=True)
class Override:
    """One `--set`: the steps of its key and its value."""

    steps: tuple[str, ...]
    node: Node


def apply(layer: Layer, texts: Sequence[str], faults: list[Fault]) -> Layer:
    """The layer with the overrides over it; of two for one key the last counts."""
    overrides = _read_all(texts, faults)
    upper = Layer()
    writer = Writer(upper.settings, faults)
    inner = [o for o in overrides if len(o.steps) > 2 and is_key(".".join(o.steps[:2]))]
    for override in overrides:
        if override not in inner:
            _write(writer, upper, override, faults)
    writer.join()
    layer = overlay(layer, upper)
    for override in inner:
        layer = _inside(layer, override, faults)
    return layer


def _read_all(texts: Sequence[str], faults: list[Fault]) -> list[Override]:
    overrides: dict[tuple[str, ...], Override] = {}
    for text in texts:
        try:
            override = _read(text)
        except UsageError as error:
            faults.extend(error.faults)
        else:
            overrides[override.steps] = override
    return list(overrides.values())


def _read(text: str) -> Override:
    shown = f"--set {text}"
    key, equals, value = text.partition("=")
    steps = tuple(key.strip().split("."))
    if not equals or not all(steps):
        raise UsageError("not of the form key=value", place=shown, hint=_FORM)
    if "\0" in text:
        raise UsageError("holds a NUL byte", place="--set")
    if steps[0] == "extends":
        raise UsageError("extends: only a file can extend", place=shown)
    source = Source(name=shown, label=shown, folder=Path.cwd(), kind="override")
    return Override(steps, _value(value.strip(), source))


def _value(text: str, source: Source) -> Node:
    """Lists, tables and quoted texts are YAML; everything else is one scalar as it stands."""
    if text[:1] not in ("[", "{", '"', "'"):
        return Node(scalar(text), source, 0)
    try:
        return replace(parse(text, source), line=0)
    except UsageError as error:
        raise UsageError(
            error.faults[0].message,
            place=source.name,
            hint=_QUOTE,
        ) from None


def _write(writer: Writer, upper: Layer, override: Override, faults: list[Fault]) -> None:
    first, *rest = override.steps
    node = override.node
    if not rest:
        _write_flat(writer, first, node, faults)
    elif first not in SECTIONS:
        hint = suggest.close(first, SECTIONS) or f"sections: {', '.join(SECTIONS)}"
        faults.append(Fault(message=f"{first}: unknown section", place=node.place, hint=hint))
    elif len(rest) > 1:
        faults.append(suggest.unknown(rest[0], node, section=first))
    elif is_key(f"{first}.{rest[0]}"):
        writer.write(f"{first}.{rest[0]}", node)
    elif not writer.write_near(first, rest[0], node):
        upper.settings.setdefault(first, {})[rest[0]] = node  # unknown: the schema refuses it


def _write_flat(writer: Writer, name: str, node: Node, faults: list[Fault]) -> None:
    if name in SECTIONS:
        hint = f"set one of its keys: {name}.{next(iter(keys_of(name)))}=..."
        faults.append(Fault(message=f"{name}: a section", place=node.place, hint=hint))
    elif not writer.write_flat(name, node):
        faults.append(suggest.unknown(name, node, section=None))


def _inside(layer: Layer, override: Override, faults: list[Fault]) -> Layer:
    """Set a value below a key: an item of a list, an entry of a table."""
    section, key, *rest = override.steps
    old = layer.settings.get(section, {}).get(key)
    if old is None and get_origin(keys_of(section)[key].annotation) is dict:
        old = override.node.like({})
    path = f"{section}.{key}"
    new = None if old is None else _replaced(old, rest, override.node)
    if new is None:
        faults.append(_nothing_there(path, ".".join(rest), override.node, old))
        return layer
    upper = Layer()
    Writer(upper.settings, faults).write(path, new)
    return overlay(layer, upper)


def _replaced(old: Node, steps: Sequence[str], new: Node) -> Node | None:
    """`old` with `new` at `steps`; None if there is no such place."""
    if not steps:
        return new
    step, *rest = steps
    if isinstance(old.value, dict):
        below = old.value.get(step, old.like({}) if rest else old.like(None))
        inner = _replaced(below, rest, new)
        return None if inner is None else replace(old, value={**old.value, step: inner})
    if isinstance(old.value, list) and step.isdecimal() and int(step) < len(old.value):
        items = list(old.value)
        inner = _replaced(items[int(step)], rest, new)
        if inner is None:
            return None
        items[int(step)] = inner
        return replace(old, value=items)
    return None


def _nothing_there(path: str, rest: str, node: Node, old: Node | None) -> Fault:
    count = len(old.value) if old is not None and isinstance(old.value, list) else 0
    hint = f"the last one is {path}.{count - 1}" if count else f"set {path} itself"
    return Fault(message=f"{path}.{rest}: there is no such item", place=node.place, hint=hint)
