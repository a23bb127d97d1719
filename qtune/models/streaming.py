"""A frozen 4-bit base whose layers come to the device one after the other.

The codes and block constants of each decoder layer wait in host memory or in the quantised copy on
disk; two slots on the device hold the layer that computes and the next. A weight's codes are a view
at a fixed place in a slot. Every product with them reads their block constants first, and reading
those brings the layer: forward, backward, recomputed or dequantised, in whatever order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError, UsageError
from qtune.models.layer_files import LayerFiles, Piece
from qtune.models.layer_slots import Slots
from qtune.models.layer_sources import Disk, DiskToDevice, Pinned
from qtune.models.placing import check_finite, owner_of
from qtune.models.shards import DTYPES, read_from
from qtune.ops.nf4 import library
from qtune.plan import human
from qtune.plan.machine import host_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from qtune.models.layer_slots import Source
    from qtune.models.loading import Checkpoint
    from qtune.models.prequantized import Packed

SLOTS = 2
ALIGNMENT = 256  # bytes; what the device's kernels like best
HOST_SHARE = 0.8  # of the free host memory that may be pinned
ABSMAX = "absmax"
_LAYER = re.compile(r".*?\.\d+(?=\.)")


class StreamedConstants:
    """The quantisation state of a weight that comes and goes, in the place of bitsandbytes' own.

    Nothing computes with codes without their block constants: reading `absmax` brings both.
    """

    def __init__(self, resting: Any, bring: Callable[[], None]) -> None:
        self.resting = resting
        self._bring = bring

    @property
    def absmax(self) -> Tensor:
        """The block constants, with the layer in its slot."""
        self._bring()
        return self.resting.absmax  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name in ("resting", "_bring"):
            raise AttributeError(name)
        return getattr(self.resting, name)

    def as_dict(self, packed: bool = False) -> dict[str, Any]:
        """Refused: a state dict of slots would hold one layer under the name of another."""
        del packed
        raise ModelError("a streamed base has no state dict", hint="its weights lie in its copy")


@dataclass(frozen=True)
class Streamed:
    """What streams in a model: its slots and the bytes of each layer."""

    slots: Slots
    files: LayerFiles
    layer_bytes: tuple[int, ...]

    def account(self) -> dict[str, int | float]:
        """What came and went so far, for a report. Waits for a device are not among the seconds."""
        moves = zip(self.slots.moves, self.layer_bytes, strict=True)
        return {
            "layers": len(self.layer_bytes),
            "layer_bytes": sum(self.layer_bytes),
            "slot_bytes": self.slot_bytes,
            "moves": sum(self.slots.moves),
            "moved_bytes": sum(number * size for number, size in moves),
            "read_seconds": round(self.files.seconds, 3),
            "waited_seconds": round(self.slots.waited, 3),
        }

    @property
    def slot_bytes(self) -> int:
        """Bytes that the slots take on the device."""
        return SLOTS * max(self.layer_bytes)

    def line(self) -> str:
        """What streams, for the log."""
        return (
            f"the base is streamed: {len(self.layer_bytes)} layers of together "
            f"{human(sum(self.layer_bytes))} through {human(self.slot_bytes)} on the device"
        )


def layers_of(
    packed: Packed, targets: Mapping[str, str], *, bits: int, place: str
) -> list[dict[str, str]]:
    """The weights to stream (stored name -> the model's) of each numbered module, in order.

    Quantised weights outside of any stay on the device. `UsageError` or `ModelError` if there is
    nothing to stream.
    """
    if bits != 4:
        raise UsageError(
            f"only a 4-bit base can be streamed, not one of {bits} bits",
            place="memory.base",
            hint="set quantization.bits to 4, or memory.base to resident",
        )
    if not packed.four_bit:
        raise ModelError(
            "there is no 4-bit copy of it to stream from",
            place=place,
            hint="make one with qtune quantize",
        )
    layers: dict[str, dict[str, str]] = {}
    for name, target in targets.items():
        found = _LAYER.match(target)
        if found and name in packed.four_bit:
            layers.setdefault(found[0], {})[name] = target
    if not layers:
        raise ModelError("it has no numbered layers that could be streamed", place=place)
    return [layers[name] for name in sorted(layers, key=_by_number)]


def _by_number(name: str) -> list[str | int]:
    """layers.2 before layers.10: files often list them the other way round."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@dataclass
class Streamer:
    """Puts the layers of a quantised checkpoint into an empty model, as views of slots."""

    network: Any
    checkpoint: Checkpoint
    packed: Packed
    dtype: torch.dtype
    device: torch.device

    def fill(self, layers: Sequence[Mapping[str, str]], on_layer: Callable[[], None]) -> Streamed:
        """Give every weight of the layers its place in a slot."""
        pieces = [self._lay_out(layer) for layer in layers]
        files = LayerFiles([list(layer.values()) for layer in pieces])
        sizes = tuple(files.bytes_of(layer) for layer in range(len(layers)))
        buffers = [
            torch.empty(max(sizes), dtype=torch.uint8, device=self.device) for _ in range(SLOTS)
        ]
        slots = Slots(self._source(files, sizes, on_layer), buffers, layers=len(layers))
        kept = self._constants(layers)
        for number, layer in enumerate(layers):
            buffer, bring = buffers[number % SLOTS], partial(slots.require, number)
            for name, target in layer.items():
                codes, absmax = (
                    self._view(buffer, pieces[number][stored], stored)
                    for stored in (name, self.packed.four_bit[name][ABSMAX])
                )
                state = StreamedConstants(self._state(kept[name], absmax), bring)
                self._place(target, codes, state)
        return Streamed(slots, files, sizes)

    def _lay_out(self, layer: Mapping[str, str]) -> dict[str, Piece]:
        """Each stored tensor of a layer that streams: where it lies on disk and in a slot."""
        pieces: dict[str, Piece] = {}
        place = 0
        for weight in layer:
            for name in (self.packed.four_bit[weight][ABSMAX], weight):
                entry = self.checkpoint.table[name]
                start, end = entry["data_offsets"]
                file = self.checkpoint.index[name]
                pieces[name] = Piece(file, entry["data_start"], end - start, place)
                place += -(-(end - start) // ALIGNMENT) * ALIGNMENT
        return pieces

    def _source(
        self, files: LayerFiles, sizes: Sequence[int], on_layer: Callable[[], None]
    ) -> Source:
        if self.device.type == "cpu":
            return Disk(files)
        if sum(sizes) > HOST_SHARE * host_memory()[0]:
            return DiskToDevice(files, self.device, max(sizes))
        return Pinned(files, self.device, on_layer)

    def _view(self, buffer: Tensor, piece: Piece, name: str) -> Tensor:
        entry = self.checkpoint.table[name]
        flat = buffer[piece.place : piece.place + piece.size]
        return flat.view(DTYPES[entry["dtype"]]).view(entry["shape"])

    def _constants(self, layers: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Tensor]]:
        """Of each weight the constants that stay, which are small; all are checked."""
        owners = {
            stored: (name, key)
            for layer in layers
            for name in layer
            for key, stored in self.packed.four_bit[name].items()
            if key != ABSMAX or self.checkpoint.table[stored]["dtype"] == "F32"
        }
        kept: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for stored, constant in read_from(self.checkpoint.index, list(owners)):
            name, key = owners[stored]
            check_finite(f"{name} ({key})", constant)
            if key != ABSMAX:
                kept[name][key] = constant
        return kept

    def _state(self, kept: Mapping[str, Tensor], absmax: Tensor) -> Any:
        """bitsandbytes' state of a weight, its block constants a view of a slot."""
        state = library().functional.QuantState.from_dict({**kept, ABSMAX: absmax}, self.device)
        state.dtype = self.dtype
        return state

    def _place(self, target: str, codes: Tensor, state: StreamedConstants) -> None:
        owner, _ = owner_of(self.network, target)
        owner.weight = library().nn.Params4bit(
            codes,
            quant_state=state,
            blocksize=state.blocksize,
            compress_statistics=state.nested,
            quant_type=state.quant_type,
            quant_storage=codes.dtype,
            module=owner,
            bnb_quantized=True,
        )
        owner.quant_state = state
