"""Bytes of the frozen base, as bitsandbytes and PyTorch lay it out.

4-bit, blocks of 64 weights: n/2 packed + one fp32 constant a block (4.5 bits a weight), or, double
quantised, one byte a block + one fp32 for 256 blocks + one fp32 offset a matrix (4.127 bits;
Dettmers et al. 2023). 8-bit (LLM.int8): n + one fp32 a row. Everything else: the compute dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from qtune.plan.targets import find_modules

if TYPE_CHECKING:
    from qtune.plan.shape import LinearShape, ModelShape
    from qtune.recipe.sections import QuantizationSection

BLOCK_SIZE = 64
NESTED_BLOCK_SIZE = 256


@dataclass(frozen=True)
class Holding:
    """How the linear modules are held: the recipe's wish, or what the checkpoint already is."""

    bits: Literal[4, 8, 16]
    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    compute_bytes: int
    skipped: frozenset[str]
    already: bool
    """The checkpoint is quantised, so the recipe's bits do not apply."""

    @property
    def name(self) -> str:
        """A short name: NF4 + double quant, FP4, int8, bfloat16."""
        if self.bits == 16:
            return self.dense
        if self.bits == 8:
            return "int8"
        return self.quant_type.upper() + (" + double quant" if self.double_quant else "")

    @property
    def dense(self) -> str:
        """The dtype of everything that is not quantised."""
        return "bfloat16" if self.compute_bytes == 2 else "float32"

    def quantizes(self, linear: LinearShape) -> bool:
        """True if this linear is quantised."""
        return self.bits < 16 and linear.quantizable and linear.name not in self.skipped


def holding_of(quantization: QuantizationSection, shape: ModelShape) -> Holding:
    """What the base will be held in; an already quantised checkpoint stays as it is.

    `UsageError` for an entry of skip_modules that names no linear module.
    """
    names = [linear.name for linear in shape.linears]
    skipped = find_modules(names, quantization.skip_modules, key="quantization.skip_modules")
    stored = shape.stored
    return Holding(
        bits=stored.bits if stored else quantization.bits,
        quant_type=stored.quant_type if stored else quantization.quant_type,
        double_quant=stored.double_quant if stored else quantization.double_quant,
        compute_bytes=2 if quantization.compute_dtype == "bfloat16" else 4,
        skipped=frozenset(skipped),
        already=stored is not None,
    )


def weight_bytes(linear: LinearShape, holding: Holding) -> int:
    """Bytes of the values of one linear's matrix."""
    if not holding.quantizes(linear):
        return linear.weights * holding.compute_bytes
    return linear.weights if holding.bits == 8 else ceil(linear.weights / 2)


def constant_bytes(linear: LinearShape, holding: Holding) -> int:
    """Bytes of the constants that go with a quantised matrix."""
    if not holding.quantizes(linear):
        return 0
    if holding.bits == 8:
        return 4 * linear.out_features
    blocks = ceil(linear.weights / BLOCK_SIZE)
    if not holding.double_quant:
        return 4 * blocks
    return blocks + 4 * ceil(blocks / NESTED_BLOCK_SIZE) + 4


def leftover_bytes(shape: ModelShape, holding: Holding) -> int:
    """Bytes of embeddings, norms, biases and head, a tied head once."""
    return shape.other_parameters * holding.compute_bytes


def dequantized_bytes(shape: ModelShape, holding: Holding) -> int:
    """The largest weight that a matrix product unfolds into the compute dtype."""
    sizes = [linear.weights for linear in shape.linears if holding.quantizes(linear)]
    return max(sizes, default=0) * holding.compute_bytes
