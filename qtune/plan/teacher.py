"""What a teacher takes beside its student: its weights, its pass, and logits of both.

Its pass comes before the student's, without gradients: one layer's tensors at a time. They count
where they are more than what the student's pass takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.plan.activations import activations_of
from qtune.plan.plan import MemoryItem
from qtune.plan.weights import (
    constant_bytes,
    dequantized_bytes,
    holding_of,
    leftover_bytes,
    weight_bytes,
)
from qtune.recipe.inputs import QuantizationSection
from qtune.recipe.lessons import lessons_of, read_notes
from qtune.recipe.methods import LoraConfig
from qtune.sizes import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe

BLOCKS = 8
"""Tensors in fp32 of a block of logits while its gradient is made."""
CPU_BLOCK, GPU_BLOCK = 1 << 18, 1 << 24


def teacher_quantization(recipe: Recipe, teacher: ModelShape) -> QuantizationSection:
    """How the teacher is held: as it is stored, if that is quantised, or as the recipe says."""
    dtype = recipe.quantization.compute_dtype
    stored = teacher.stored
    if stored is None:
        return QuantizationSection(bits=recipe.loss.teacher_bits, compute_dtype=dtype)
    if stored.bits == 8:
        return QuantizationSection(bits=8, compute_dtype=dtype)
    return QuantizationSection(
        bits=4, quant_type=stored.quant_type, double_quant=stored.double_quant, compute_dtype=dtype
    )


def teacher_weights(recipe: Recipe, teacher: ModelShape | None) -> Iterator[MemoryItem]:
    """All that is loaded of another model."""
    if teacher is None:
        return
    holding = holding_of(teacher_quantization(recipe, teacher), teacher)
    linears = (
        weight_bytes(linear, holding) + constant_bytes(linear, holding)
        for linear in teacher.linears
    )
    size = sum(linears) + leftover_bytes(teacher, holding)
    reason = f"{teacher.family}, {count(teacher.total_parameters)} parameters, {holding.name}"
    yield MemoryItem("teacher", size, "device", reason)


def _lessons(
    written: Path, chunk: int, vocabulary: int, *, tokens: int, device: Literal["cpu", "cuda"]
) -> MemoryItem:
    """What was written of a micro-batch, and blocks of logits in fp32."""
    top = int(read_notes(written)["top"])
    cap = CPU_BLOCK if device == "cpu" else GPU_BLOCK
    block = min(chunk * vocabulary, max(vocabulary, cap))
    reason = f"{tokens:,} tokens x {top:,} most likely ones x 8 B, and blocks of logits in fp32"
    return MemoryItem("lessons", 8 * top * tokens + 4 * BLOCKS * block, "device", reason)


def teacher_pass(
    recipe: Recipe,
    shape: ModelShape,
    *,
    tokens: int,
    length: int,
    chunk: int,
    device: Literal["cpu", "cuda"],
    free: int,
) -> Iterator[MemoryItem]:
    """What a micro-batch takes more for its teacher; `free`: bytes of the student's own pass."""
    if recipe.loss.teacher is None:
        return
    written = lessons_of(recipe)
    if written is not None:
        yield _lessons(written, min(tokens, chunk), shape.vocab_size, tokens=tokens, device=device)
        return
    teacher = shape.teacher or shape
    holding = holding_of(teacher_quantization(recipe, teacher), teacher)
    each = holding.compute_bytes
    plain = recipe.memory.model_copy(update={"kernels": "plain"})
    alone = recipe.model_copy(update={"method": LoraConfig(dropout=0.0), "memory": plain})
    kept = activations_of(alone, teacher, (), compute_bytes=each, length=length, device=device)
    unfolded = dequantized_bytes(teacher, holding) if shape.teacher else 0
    size = (kept.largest_layer + 2 * kept.layer_input) * tokens + unfolded - free
    if size > 0:
        yield MemoryItem("teacher's pass", size, "device", "one layer, beyond the student's")
    size = each * teacher.hidden_size * tokens
    reason = f"{tokens:,} tokens x {teacher.hidden_size:,} x {each} B, kept for the head"
    yield MemoryItem("teacher's hidden states", size, "device", reason)
    chunk = min(tokens, chunk)
    logits = chunk * teacher.vocab_size
    block = min(logits, max(teacher.vocab_size, CPU_BLOCK if device == "cpu" else GPU_BLOCK))
    reason = f"{chunk:,} positions x {teacher.vocab_size:,} x {each} B, and blocks of both in fp32"
    yield MemoryItem("teacher's logits", each * logits + 4 * BLOCKS * block, "device", reason)
