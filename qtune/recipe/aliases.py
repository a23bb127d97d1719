"""Rewriting other tools' names and values into ours; the tables are in `foreign.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtune.errors import Fault
from qtune.recipe import foreign

if TYPE_CHECKING:
    from qtune.recipe.node import Node

BATCH_HINT = "give both micro_batch_size and gradient_accumulation_steps, or train.batch_size"


def is_foreign(name: str) -> bool:
    """Whether another tool's top-level name is understood."""
    pairs = foreign.MICRO | foreign.ACCUMULATION | foreign.BITS.keys()
    return name in foreign.FLAT or name in pairs


class Writer:
    """Writes values into `settings` under our names; two names for one key are a fault."""

    def __init__(self, settings: dict[str, dict[str, Node]], faults: list[Fault]) -> None:
        self._settings = settings
        self._faults = faults
        self._bits: dict[str, Node] = {}
        self._micro: Node | None = None
        self._accumulation: Node | None = None

    def write(self, key: str, node: Node) -> None:
        """Set one of our keys."""
        node = _converted(node, foreign.BY_KEY.get(key, {}))
        if key in ("data.train", "data.eval"):
            node = _sources(node)
        section, _, name = key.partition(".")
        keys = self._settings.setdefault(section, {})
        other = keys.get(name)
        if other is None or other.value is None:
            keys[name] = node
        elif node.value is not None and not _agree(other, node):
            self._faults.append(_twice(key, other, node))

    def write_flat(self, name: str, node: Node) -> bool:
        """Set what a foreign top-level name means; False if it means nothing."""
        if name in foreign.BITS:
            if node.value is not None:
                self._bits[name] = node
        elif name in foreign.MICRO | foreign.ACCUMULATION:
            self._write_batch(name, node)
        elif name in foreign.FLAT:
            self.write_alias(name, foreign.FLAT[name], node)
        else:
            return False
        return True

    def write_near(self, section: str, name: str, node: Node) -> bool:
        """Set what a foreign name inside a section means; False if it means nothing there."""
        key = foreign.NEAR.get(f"{section}.{name}") or foreign.FLAT.get(name, "")
        if key.startswith(f"{section}."):
            self.write_alias(name, key, node)
            return True
        if (section == "quantization" and name in foreign.BITS) or (
            section == "train" and name in foreign.MICRO | foreign.ACCUMULATION
        ):
            return self.write_flat(name, node)
        return False

    def join(self) -> None:
        """Set what needs two foreign names to be understood; call once, at the end."""
        self._join_bits()
        self._join_batch()

    def write_alias(self, name: str, key: str, node: Node) -> None:
        """Set `key`, which was written as the foreign `name`."""
        note = node.note or f"written {name}"
        self.write(key, _converted(replace(node, note=note), foreign.BY_NAME.get(name, {})))

    def _write_batch(self, name: str, node: Node) -> None:
        if node.value is None:
            return
        micro = name in foreign.MICRO
        if (other := self._micro if micro else self._accumulation) is not None:
            self._faults.append(_twice(name, other, node))
        node = replace(node, note=f"written {name}")
        if micro:
            self._micro = node
        else:
            self._accumulation = node

    def _join_bits(self) -> None:
        """load_in_4bit and load_in_8bit: the true one, or 16 bits if there is none."""
        chosen = [name for name, node in self._bits.items() if node.value is True]
        for name, node in self._bits.items():
            if not isinstance(node.value, bool):
                self.write("quantization.bits", replace(node, note=f"written {name}"))
                return
        for name in chosen or list(self._bits)[:1]:
            bits = foreign.BITS[name] if chosen else 16
            note = f"written {' and '.join(self._bits)}"
            self.write("quantization.bits", self._bits[name].like(bits, note))

    def _join_batch(self) -> None:
        """Rows of an optimizer step are micro-batch times accumulation."""
        micro, accumulation = self._micro, self._accumulation
        if micro is None and accumulation is None:
            return
        if micro is not None and accumulation is not None:
            self.write("memory.micro_batch_size", micro)
            if type(micro.value) is int and type(accumulation.value) is int:
                note = f"{micro.note} x {accumulation.note.removeprefix('written ')}"
                product = micro.value * accumulation.value
                self.write("train.batch_size", accumulation.like(product, note))
            else:
                self.write("train.batch_size", accumulation)
            return
        if micro is not None and "batch_size" in self._settings.get("train", {}):
            self.write("memory.micro_batch_size", micro)
            return
        alone = micro or accumulation
        assert alone is not None
        name = alone.note.removeprefix("written ")
        message = f"{name}: alone it does not say how many rows an optimizer step has"
        self._faults.append(Fault(message=message, place=alone.place, hint=BATCH_HINT))


def _converted(node: Node, values: foreign.Values) -> Node:
    """The node with its value in our words; a changed value is noted."""
    if isinstance(values, Mapping):
        if isinstance(node.value, dict | list) or node.value not in values:
            return node
        value: Any = values[node.value]
    else:
        value = values(node.plain())
        if value == node.plain():
            return node
    return node.like(value, node.note or f"written {node.value}")


def _sources(node: Node) -> Node:
    """The tables of a list of data sources with our key names."""
    if not isinstance(node.value, list):
        return node
    return replace(node, value=[_source(item) for item in node.value])


def _source(item: Node) -> Node:
    if not isinstance(item.value, dict):
        return item
    table: dict[str, Node] = {}
    for name, node in item.value.items():
        ours = foreign.SOURCE_NAMES.get(name, name)
        if ours in table or (ours != name and ours in item.value):
            ours = name  # both are there: the schema refuses the foreign one
        named = node if ours == name else replace(node, note=f"written {name}")
        formats = foreign.SOURCE_FORMATS if ours == "format" else {}
        table[ours] = _converted(named, formats)
    return replace(item, value=table)


def _agree(first: Node, second: Node) -> bool:
    """Two foreign names that say the same, as torch_dtype: bfloat16 and bf16: true."""
    return bool(first.note and second.note) and first.plain() == second.plain()


def _twice(key: str, first: Node, second: Node) -> Fault:
    written = f" ({second.note})" if second.note else ""
    before = f" ({first.note})" if first.note else ""
    return Fault(
        message=f"{key}{written}: set twice, first in {first.place}{before}",
        place=second.place,
        hint="keep one",
    )
