"""Checkpoints that bitsandbytes quantised before: all constants there, no clash with the recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError
from qtune.models.shards import read_from
from qtune.plan import refuse_clash, stored_quantization

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qtune.recipe.inputs import QuantizationSection

STATE = "quant_state.bitsandbytes__"
SINGLE = ("absmax", "quant_map")
NESTED = ("nested_absmax", "nested_quant_map")
EIGHT_BIT = ("SCB", "weight_format")
_REPAIR = "the checkpoint is not whole: copy it, or quantise it, again"


@dataclass(frozen=True)
class Packed:
    """Quantised weights of a checkpoint: weight name -> {constant: its tensor's name}."""

    four_bit: dict[str, dict[str, str]] = field(default_factory=dict)
    eight_bit: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of all tensors that are no weights."""
        return frozenset(name for group in self.groups.values() for name in group.values())

    @cached_property
    def weights(self) -> frozenset[str]:
        """Names of the quantised weights."""
        return frozenset(self.groups)

    @cached_property
    def groups(self) -> dict[str, dict[str, str]]:
        """Every quantised weight with its constants."""
        return self.four_bit | self.eight_bit


def check_config(config: Mapping[str, Any], quantization: QuantizationSection) -> bool:
    """Whether config.json tells of bitsandbytes weights; refuses other methods and a clash."""
    stored = stored_quantization(config)
    if stored is None:
        return False
    refuse_clash(stored, quantization)
    return True


def find(table: Mapping[str, Mapping[str, Any]]) -> Packed:
    """The quantised weights by their dtype and by their constants."""
    packed = Packed()
    for name in table:
        weight, mark, constant = name.rpartition(".weight.")
        if mark and (constant in (*SINGLE, *NESTED) or constant.startswith(STATE)):
            packed.four_bit.setdefault(f"{weight}.weight", {})[constant] = name
            continue
        parent, _, leaf = name.rpartition(".")
        if leaf in EIGHT_BIT:
            packed.eight_bit.setdefault(f"{parent}.weight", {})[leaf] = name
    for name, entry in table.items():
        if name.endswith(".weight") and entry["dtype"] == "U8":
            packed.four_bit.setdefault(name, {})
        elif name.endswith(".weight") and entry["dtype"] == "I8":
            packed.eight_bit.setdefault(name, {})
    return packed


def check_constants(
    packed: Packed, table: Mapping[str, Mapping[str, Any]], index: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """The state of each 4-bit weight, as `read_states` gives it; `ModelError` naming the first
    constant that a quantised weight lacks, or that is cut."""
    for weight, constants in packed.eight_bit.items():
        _require(weight, constants, ["SCB"], prefix=weight.removesuffix("weight"))
    for weight, constants in packed.four_bit.items():
        states = [constant for constant in constants if constant.startswith(STATE)]
        wanted = [*SINGLE, *(states or [f"{STATE}nf4"])]
        _require(weight, constants, wanted, prefix=f"{weight}.")
    found = read_states(packed, index)
    for weight, constants in packed.four_bit.items():
        state = found[weight]
        if "nested_offset" in state:
            _require(weight, constants, list(NESTED), prefix=f"{weight}.")
        _check_sizes(weight, constants, state, table)
    for weight in packed.weights - table.keys():
        raise ModelError(f"{weight} is missing, though its constants are there", hint=_REPAIR)
    return found


def read_states(packed: Packed, index: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The packed JSON of each 4-bit weight: block size, dtype, shape, nested constants."""
    owners = {
        name: weight
        for weight, constants in packed.four_bit.items()
        for constant, name in constants.items()
        if constant.startswith(STATE)
    }
    found = {}
    for name, tensor in read_from(index, list(owners)):
        try:
            found[owners[name]] = json.loads(bytes(tensor.tolist()))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{name} is not readable", place=str(index[name])) from error
    return found


def _require(weight: str, constants: Mapping[str, str], wanted: list[str], *, prefix: str) -> None:
    for constant in wanted:
        if constant not in constants:
            raise ModelError(
                f"{prefix}{constant} is missing: {weight} cannot be read without it", hint=_REPAIR
            )


def _check_sizes(
    weight: str,
    constants: Mapping[str, str],
    state: Mapping[str, Any],
    table: Mapping[str, Mapping[str, Any]],
) -> None:
    """One block constant for each block, one nested constant for each block of those."""
    blocks = -(-prod(state["shape"]) // state["blocksize"])
    sizes = {"absmax": blocks}
    if "nested_offset" in state:
        sizes["nested_absmax"] = -(-blocks // state["nested_blocksize"])
    for constant, size in sizes.items():
        found = prod(table[constants[constant]]["shape"])
        if found != size:
            raise ModelError(
                f"{constants[constant]} holds {found} values, {weight} needs {size}", hint=_REPAIR
            )
