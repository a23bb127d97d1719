"""The weights that an adapter is added to: those it was trained on, or the stored originals.

They are read in blocks of rows, each as the whole tensor has them: no tensor is ever whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Protocol

import torch

from qtune.models.placing import check_finite, owner_of
from qtune.models.skeleton import keeps_fp32
from qtune.ops import nf4_rows
from qtune.ops.nf4 import (
    BLOCK_SIZE,
    bits_of,
    dequantize_int8,
    quantize_int8,
    quantize_pieces,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from qtune.merging.blueprint import Blueprint
    from qtune.recipe.inputs import QuantizationSection

BLOCK = 2**20  # elements that are worked on at a time; results must not depend on memory


@dataclass(frozen=True)
class Rows:
    """A dense parameter by its rows: `read(start, stop)`, start a multiple of `step`."""

    shape: tuple[int, ...]
    read: Callable[[int, int], Tensor]
    step: int = 1

    @property
    def count(self) -> int:
        """Rows; a scalar is one."""
        return self.shape[0] if self.shape else 1

    def spans(self, elements: int = BLOCK) -> Iterator[tuple[int, int]]:
        """(start, stop) of even blocks of at most so many elements, but at least one step each: the
        last few rows alone would be multiplied by another kernel, that rounds otherwise."""
        steps = -(-self.count // self.step)
        most = max(1, elements // max(1, prod(self.shape[1:])) // self.step)
        blocks = max(1, -(-steps // most))
        size = max(1, -(-steps // blocks)) * self.step
        for start in range(0, self.count, size):
            yield start, min(start + size, self.count)

    def whole(self) -> Tensor:
        """All of it."""
        return self.read(0, self.count)


class Base(Protocol):
    """Where the weights come from that edits are applied to."""

    def rows(self, name: str) -> Rows:
        """A parameter by the model's name, dense."""


class OriginalBase:
    """The stored weights: another model than the one that was trained."""

    def __init__(self, base: Blueprint) -> None:
        self._base = base

    def rows(self, name: str) -> Rows:
        """By the model's name, in the stored dtype."""
        origin = self._base.stored[name]
        shape = self._base.shapes[origin]
        return Rows(shape, partial(self._base.checkpoint.rows, origin))


class TrainedBase:
    """What the quantised base computes with: cast, quantised and unfolded as the loader does."""

    def __init__(self, base: Blueprint, quantization: QuantizationSection) -> None:
        self._base = base
        self._quantization = quantization

    def rows(self, name: str) -> Rows:
        """By the model's name; in the dtype that the loaded model computes with."""
        base = self._base
        origin = base.stored[name]
        owner, leaf = owner_of(base.network, name)
        bits = bits_of(owner) if leaf == "weight" else 16
        if origin in base.packed.four_bit:
            return self._packed(origin)
        if origin in base.packed.eight_bit:
            return self._packed_int8(origin)
        if bits == 4:
            return self._quantized(name)
        if bits == 8:
            return Rows(base.shapes[origin], partial(self._int8, name))
        wide = keeps_fp32(base.network, name)
        dtype = torch.float32 if wide else owner._parameters[leaf].dtype
        return Rows(base.shapes[origin], partial(self._cast, name, dtype=dtype))

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self._quantization.compute_dtype)  # type: ignore[no-any-return]

    def _stored(self, name: str, start: int, stop: int) -> Tensor:
        """Checked rows as they are stored."""
        origin = self._base.stored[name]
        shape = self._base.shapes[origin]
        rows = self._base.checkpoint.rows(origin, start, stop)
        check_finite(name, rows, first=start * prod(shape[1:]), of=prod(shape))
        return rows

    def _cast(self, name: str, start: int, stop: int, *, dtype: torch.dtype) -> Tensor:
        return self._stored(name, start, stop).to(dtype)

    def _quantized(self, name: str) -> Rows:
        """A dense weight that its layer quantises: twice through its rows, as the constants of
        double quantisation depend on all."""
        shape = self._base.shapes[self._base.stored[name]]
        dtype, quantization = self._dtype, self._quantization
        rows = Rows(shape, partial(self._stored, name), nf4_rows.rows_at_once(shape, BLOCK_SIZE))
        found = [
            nf4_rows.maxima(rows.read(*span).to(dtype), BLOCK_SIZE) for span in rows.spans(2**20)
        ]
        absmax = nf4_rows.settled(torch.cat(found), double_quant=quantization.double_quant)
        kind = quantization.quant_type

        def read(start: int, stop: int) -> Tensor:
            codes, _ = quantize_pieces(rows.read(start, stop), kind, BLOCK_SIZE, dtype)
            return _unfold(codes, absmax, shape, (start, stop), kind, BLOCK_SIZE, dtype)

        return Rows(shape, read, rows.step)

    def _packed(self, origin: str) -> Rows:
        """A weight that is stored in 4 bits."""
        base, dtype = self._base, self._dtype
        constants = base.checkpoint.constants(base.packed, origin)
        for constant, part in constants.items():
            check_finite(f"{origin} ({constant})", part)
        state = nf4_rows.state_of(constants)
        absmax, size, kind = nf4_rows.constants_of(state), state.blocksize, state.quant_type
        shape = base.shapes[origin]
        row = prod(shape[1:])

        def read(start: int, stop: int) -> Tensor:
            codes = base.checkpoint.raw(origin, start * row // 2, -(-stop * row // 2))
            return _unfold(codes, absmax, shape, (start, stop), kind, size, dtype)

        return Rows(shape, read, nf4_rows.rows_at_once(shape, size))

    def _packed_int8(self, origin: str) -> Rows:
        base = self._base
        scale = base.checkpoint.constants(base.packed, origin)["SCB"].float()
        check_finite(f"{origin} (SCB)", scale)

        def read(start: int, stop: int) -> Tensor:
            codes = base.checkpoint.rows(origin, start, stop)
            return dequantize_int8(codes, scale[start:stop], dtype=torch.float32)

        return Rows(base.shapes[origin], read)

    def _int8(self, name: str, start: int, stop: int) -> Tensor:
        rows = self._stored(name, start, stop)
        return dequantize_int8(*quantize_int8(rows, dtype=self._dtype), dtype=torch.float32)


def _unfold(
    codes: Tensor,
    absmax: Tensor,
    shape: tuple[int, ...],
    span: tuple[int, int],
    kind: str,
    size: int,
    dtype: torch.dtype,
) -> Tensor:
    """Rows of a weight of its codes there and the constants of all its blocks."""
    start, stop = span
    row = prod(shape[1:])
    there = absmax[start * row // size : -(-stop * row // size)]
    return nf4_rows.unfold(
        codes, there, (stop - start, *shape[1:]), quant_type=kind, block_size=size, dtype=dtype
    )
