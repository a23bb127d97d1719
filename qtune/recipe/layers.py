"""A file's settings by section and key, foreign names rewritten; and one layer over another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qtune.errors import Fault
from qtune.recipe import aliases, suggest
from qtune.recipe.foreign import TEXT_SECTIONS
from qtune.recipe.keys import METHODS, SECTIONS, keys_of
from qtune.recipe.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Settings = dict[str, dict[str, Node]]
_DEFAULT_METHOD = next(iter(METHODS))


@dataclass(frozen=True)
class Layer:
    """What one file or the command line sets: section -> key -> value.

    A key with an empty value is kept: it unsets the key in the layers below. `sections` holds the
    section nodes, for the place of a missing key; `blamed` the sections that already have a fault.
    """

    settings: Settings = field(default_factory=dict)
    sections: dict[str, Node] = field(default_factory=dict)
    blamed: set[str] = field(default_factory=set)
    extends: Node | None = None

    def written(self, key: str) -> Node | None:
        """What was written for a key such as data.train.0.path, empty values included."""
        section, name, *rest = key.split(".")
        node = self.settings.get(section, {}).get(name)
        for step in rest:
            node = node.child(int(step) if step.isdecimal() else step) if node else None
        return node

    def value_set(self, key: str) -> Node | None:
        """The value that was set for a key; None for a default or an empty value."""
        node = self.written(key)
        return None if node is None or node.value is None else node


def read_layer(items: Mapping[str, Node], faults: list[Fault]) -> Layer:
    """The settings of a file's top level; what is no setting goes into `faults`."""
    layer = Layer(extends=items.get("extends"))
    writer = aliases.Writer(layer.settings, faults)
    for name, node in items.items():
        if name == "extends":
            continue
        if name in SECTIONS and node.value is not None:
            layer.sections[name] = node
            _read_section(name, node, writer, layer, faults)
        elif name not in SECTIONS and not writer.write_flat(name, node) and node.value is not None:
            faults.append(suggest.unknown(name, node, section=None))
    writer.join()
    return layer


def _read_section(
    section: str, node: Node, writer: aliases.Writer, layer: Layer, faults: list[Fault]
) -> None:
    layer.settings.setdefault(section, {})
    if isinstance(node.value, str) and section in TEXT_SECTIONS:
        writer.write_alias(section, TEXT_SECTIONS[section], node)
        return
    if section == "method" and isinstance(node.value, list):
        parts = replace(node, value=[_part(each) for each in node.value])
        layer.settings[section] = {"name": node.like("combination"), "parts": parts}
        return
    if not isinstance(node.value, dict):
        layer.blamed.add(section)
        faults.append(suggest.no_table(section, node))
        return
    for key, value in node.value.items():
        if (section, key) == ("method", "type") and "name" not in node.value:
            writer.write_alias(key, "method.name", value)  # with a name it is the tuner of PEFT
        elif key in keys_of(section):
            writer.write(f"{section}.{key}", value)
        elif not writer.write_near(section, key, value) and value.value is not None:
            layer.settings[section][key] = value  # unknown: the schema refuses it


def _part(node: Node) -> Node:
    """A method in a list of them: a table, or its name alone."""
    return replace(node, value={"name": node}) if isinstance(node.value, str) else node


def overlay(lower: Layer, upper: Layer) -> Layer:
    """`upper` over `lower`: key by key, but another `method.name` replaces that section."""
    return _join(without_other_method(lower, upper), upper)


def without_other_method(lower: Layer, upper: Layer) -> Layer:
    """`lower` without its method section if `upper` names another method."""
    named = upper.settings.get("method", {}).get("name")
    below = lower.settings.get("method")
    if named is None or named.value is None or below is None:
        return lower
    name = below.get("name")
    if named.value == (_DEFAULT_METHOD if name is None or name.value is None else name.value):
        return lower
    settings = {s: keys for s, keys in lower.settings.items() if s != "method"}
    return replace(lower, settings=settings)


def beside(siblings: Iterable[Layer], own: Layer, faults: list[Fault]) -> Layer:
    """Sibling fragments together; a key they set differently is a fault unless `own` decides it."""
    merged = Layer()
    for sibling in siblings:
        layer = without_other_method(sibling, own)
        faults.extend(_clashes(merged, layer, own))
        # after a clash of methods the rest of the section says nothing
        merged = _join(merged, without_other_method(layer, merged))
    return merged


def _clashes(first: Layer, second: Layer, own: Layer) -> Iterator[Fault]:
    for section, keys in second.settings.items():
        decided = own.settings.get(section, {})
        for key, node in keys.items():
            other = first.settings.get(section, {}).get(key)
            if other is not None and key not in decided and other.plain() != node.plain():
                yield _clash(f"{section}.{key}", other, node)
                if (section, key) == ("method", "name"):
                    break


def _join(first: Layer, second: Layer) -> Layer:
    settings: Settings = {s: dict(keys) for s, keys in first.settings.items()}
    for section, keys in second.settings.items():
        settings[section] = {**settings.get(section, {}), **keys}
    return Layer(
        settings=settings,
        sections={**first.sections, **second.sections},
        blamed=first.blamed | second.blamed,
    )


def _clash(key: str, first: Node, second: Node) -> Fault:
    return Fault(
        message=f"{key}: {second.plain()!r} here, but {first.plain()!r} in {first.place}",
        place=second.place,
        hint="set it in the recipe to decide",
    )
