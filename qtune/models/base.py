"""A loaded base model and the table of what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import Linear

from qtune.ops.nf4 import bits_of, int8_parts, state_of
from qtune.ops.spread import device_of, here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from qtune.models.sharding import Sharded
    from qtune.models.streaming import Streamed
    from qtune.recipe.inputs import ModelSection, QuantizationSection

KINDS = ("4-bit", "8-bit", "16-bit", "trainable")


@dataclass(frozen=True)
class InventoryRow:
    """One kind of weight: tensors, parameters (dense count) and bytes with all constants; of what
    lies in shards the bytes of this process."""

    kind: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Inventory:
    """What a model is made of, by how it is held."""

    rows: tuple[InventoryRow, ...]

    @property
    def parameters(self) -> int:
        """All parameters, counted dense and once."""
        return sum(row.parameters for row in self.rows)

    @property
    def bytes(self) -> int:
        """All bytes of weights, constants and buffers."""
        return sum(row.bytes for row in self.rows)

    def row(self, kind: str) -> InventoryRow:
        """The row of one kind; zeros when there is none."""
        return next((row for row in self.rows if row.kind == kind), InventoryRow(kind, 0, 0, 0))

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Rows by kind, for JSON."""
        return {
            row.kind: {"tensors": row.tensors, "parameters": row.parameters, "bytes": row.bytes}
            for row in self.rows
        }


@dataclass
class Base:
    """A frozen base model as loaded, with what it was loaded from."""

    model: Any
    section: ModelSection
    quantization: QuantizationSection
    inventory: Inventory
    fingerprint: str
    copy: Path | None = None
    """The quantised copy that the weights were read from."""
    streamed: Streamed | None = None
    """The layers that come to the device in turn."""
    sharded: Sharded | None = None
    """The layers of which this process holds a part."""


def inventory(model: nn.Module) -> Inventory:
    """Count a model's tensors, each once, by kind; 16-bit holds every dense frozen tensor."""
    totals = {kind: [0, 0, 0] for kind in KINDS}
    for kind, parameters, size in _entries(model):
        total = totals[kind]
        total[0] += 1
        total[1] += parameters
        total[2] += size
    return Inventory(tuple(InventoryRow(kind, *totals[kind]) for kind in KINDS if totals[kind][0]))


def _entries(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(kind, dense parameters, bytes) of every tensor; a buffer has bytes and no parameters."""
    quantised: set[int] = set()
    for module in model.modules():
        bits = bits_of(module)
        if bits < 16:
            assert isinstance(module, Linear)
            quantised.add(id(module.weight))
            yield f"{bits}-bit", module.in_features * module.out_features, _held(module, bits)
    for parameter in model.parameters():
        if id(parameter) not in quantised:
            kind = "trainable" if parameter.requires_grad else "16-bit"
            yield kind, parameter.numel(), _bytes(parameter)
    for buffer in model.buffers():
        yield "16-bit", 0, _bytes(buffer)


def _held(module: Any, bits: int) -> int:
    """Bytes of a quantised weight with all its constants; the 16-value code table is shared."""
    if bits == 8:
        return sum(_bytes(part) for part in int8_parts(module))
    state = state_of(module)
    state = getattr(state, "resting", state)  # a streamed layer is counted where it lies
    parts = [module.weight, state.absmax]
    if state.nested:
        parts += [state.state2.absmax, state.offset]
    return sum(_bytes(part) for part in parts)


def _bytes(tensor: Tensor) -> int:
    """What this process holds of it where it computes; shards may wait in host memory."""
    return here(tensor).nbytes if tensor.device == device_of(tensor) else 0
