"""Bytes of the frozen base, as bitsandbytes and PyTorch lay it out.

4-bit, blocks of 64 weights: n/2 packed + one fp32 constant a block (4.5 bits a weight), or, double
quantised, one byte a block + one fp32 for 256 blocks + one fp32 offset a matrix (4.127 bits;
Dettmers et al. 2023). 8-bit (LLM.int8): n + one fp32 a row. Everything else: the compute dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from qtune.errors import UsageError
from qtune.plan.targets import find_modules

if TYPE_CHECKING:
    from qtune.plan.shape import LinearShape, ModelShape, StoredQuantization
    from qtune.recipe.inputs import QuantizationSection

BLOCK_SIZE = 64
NESTED_BLOCK_SIZE = 256


@dataclass(frozen=True)
class Holding:
    """How the linear modules are held."""

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

    `UsageError` for an entry of skip_modules that names no linear module, and for a recipe that
    asks for another quantisation than the checkpoint's.
    """
    names = [linear.name for linear in shape.linears]
    skipped = find_modules(names, quantization.skip_modules, key="quantization.skip_modules")
    if shape.stored is not None:
        refuse_clash(shape.stored, quantization)
    return Holding(
        bits=quantization.bits,
        quant_type=quantization.quant_type,
        double_quant=quantization.double_quant,
        compute_bytes=2 if quantization.compute_dtype == "bfloat16" else 4,
        skipped=frozenset(skipped),
        already=shape.stored is not None,
    )


def refuse_clash(stored: StoredQuantization, quantization: QuantizationSection) -> None:
    """`UsageError` when a quantised checkpoint and the recipe say different things."""
    for key in ("bits", "quant_type", "double_quant") if stored.bits == 4 else ("bits",):
        value, asked = getattr(stored, key), getattr(quantization, key)
        if asked != value:
            raise UsageError(
                f"the checkpoint is already quantised with {_text(value)}, the recipe says "
                f"{_text(asked)}",
                place=f"quantization.{key}",
                hint=f"set {key}: {_text(value)}, or take the 16-bit model",
            )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
    """Bytes of embeddings, norms, biases and head, a tied head once; a classifier's are in fp32."""
    wide = 4 * shape.head_parameters
    return (shape.other_parameters - shape.head_parameters) * holding.compute_bytes + wide


def dequantized_bytes(shape: ModelShape, holding: Holding) -> int:
    """The largest weight that a matrix product unfolds into the compute dtype."""
    sizes = [linear.weights for linear in shape.linears if holding.quantizes(linear)]
    return max(sizes, default=0) * holding.compute_bytes
