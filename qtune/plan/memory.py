"""The table of bytes: what every part of a run takes, one way to run it.

T = tokens of a micro-batch, V vocabulary, c bytes of the compute dtype. Logits: a chunk of
positions x V x 2 c, the head's output and its gradient, on CUDA with 4 of fp32. A streamed base
has the two largest of its layers on the device, the rest in pinned host memory or, on a CPU, in
the file. With fsdp a device has its share of the quantised values, and copies of a layer: the one
that computes, and two that arrive. Slack: 3% (CPU: 10%) of what goes through the allocator, which
is all but the context and the pageable states.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from qtune.plan.activations import Activations, activations_of
from qtune.plan.adapters import (
    LOW_RANK,
    SPARSE,
    AdaptedLinear,
    TrainableTensor,
    adapted_linears,
    trainable_tensors,
)
from qtune.plan.fused import fuses
from qtune.plan.kept import columns_by_layer, frozen_bytes
from qtune.plan.layers import LayerBytes, layers_held, layers_of
from qtune.plan.optimizers import OptimizerStates, states_of
from qtune.plan.plan import FROZEN, MemoryItem
from qtune.plan.teacher import teacher_pass, teacher_weights
from qtune.plan.weights import (
    Holding,
    constant_bytes,
    dequantized_bytes,
    holding_of,
    leftover_bytes,
    weight_bytes,
)
from qtune.recipe.methods import (
    DeltaLoraConfig,
    RosaConfig,
    SoftPromptConfig,
    leading,
    parts_of,
)
from qtune.sizes import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.plan.machine import Machine
    from qtune.plan.shape import ModelShape
    from qtune.plan.way import Way
    from qtune.recipe.sections import Recipe
    from qtune.recipe.steps import ActivationPolicy

# What allocators lose between tensors: PyTorch's on CUDA, and the system's, where it is measured
# (scripts/bench/plan_error.json).
SLACK = {"cuda": 0.03, "cpu": 0.1}
LOSS_CHUNK = 1024
SPARSE_ROWS = 2048
# Bytes of the gradients that are summed over all processes at a time.
BUCKET = 2**25
CUDA_CONTEXT = 700_000_000
# Resident size of an interpreter with torch, transformers, bitsandbytes and datasets: 475 MB
# measured; threads and buffers on top.
LIBRARIES = 600_000_000


@dataclass(frozen=True)
class Costs:
    """What a recipe takes on a machine, apart from the choice of micro-batch and policy."""

    recipe: Recipe
    machine: Machine
    shape: ModelShape
    holding: Holding
    tensors: tuple[TrainableTensor, ...]
    adapted: tuple[AdaptedLinear, ...]
    states: OptimizerStates
    activations: Activations
    quantized: tuple[MemoryItem, ...]
    """Values and constants of the quantised weights."""
    fixed: tuple[MemoryItem, ...]
    layers: LayerBytes
    unfolded: int
    """The largest weight, dequantised."""
    pageable: int
    """Optimizer states that may move to host memory."""
    processes: int = 1
    """That train together, one a device."""

    @property
    def rows(self) -> int:
        """Of a step, the most that one process takes."""
        return ceil(self.recipe.train.batch_size / self.processes)

    @property
    def adapter_bytes(self) -> int:
        """Of the adapter's file: what trains, and what of it stays as it was drawn."""
        return sum(tensor.size for tensor in self.tensors) + frozen_bytes(
            self.recipe.method, self.shape
        )

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row, a soft prompt included."""
        return row_tokens(self.recipe, self.shape)

    def items(self, way: Way) -> list[MemoryItem]:
        """The table, with all optimizer states on the device."""
        tokens = way.micro_batch_size * self.row_tokens
        passing = list(self._activations(tokens, way.activations))
        base = layers_held(
            self.layers, self.quantized, way, processes=self.processes, device=self.machine.device
        )
        passing += self._masks(way)
        table = [*base, *self.fixed, *passing]
        table += self._columns(way.activations)
        table.append(self._logits(tokens, way.loss_chunk_size))
        table += teacher_pass(
            self.recipe,
            self.shape,
            tokens=tokens,
            length=self.row_tokens,
            chunk=way.loss_chunk_size,
            device=self.machine.device,
            free=self.unfolded + sum(item.bytes for item in passing if item.where == "device"),
        )
        if self.unfolded:
            table.append(_item("dequantised weight", self.unfolded, "the largest, one at a time"))
        there = sum(item.bytes for item in table if item.where == "device")
        share = SLACK[self.machine.device]
        slack = int(share * (there - self.pageable))
        table += self._process()
        table.append(_item("allocator slack", slack, f"{share:.0%} of the above"))
        return table

    def _activations(self, tokens: int, policy: ActivationPolicy) -> Iterator[MemoryItem]:
        each, layers = self.activations, self.activations.layers
        if policy == "none":
            working = max(each.in_flight, each.ends)
            reason = f"{tokens:,} tokens x {each.kept:,} B, all layers"
            yield _item("activations", each.kept * tokens, reason)
            yield _item("gradients in flight", working * tokens, "of one layer, in the backward")
            return
        reason = f"{layers} layers x {tokens:,} tokens x {each.layer_input:,} B"
        inputs = MemoryItem("layer inputs", layers * each.layer_input * tokens, "device", reason)
        working = max(each.in_flight + each.largest_layer, each.ends)
        if policy == "offload" and self.machine.device == "cuda":
            yield replace(inputs, where="host")
            way = 2 * each.layer_input * tokens
            yield _item("layer inputs on their way", way, "two, to host memory or back")
        else:
            yield inputs
        if policy == "selective":
            reason = f"{layers} layers x {tokens:,} tokens x {each.products:,} B"
            yield _item("matrix products", layers * each.products * tokens, reason)
            working = max(each.in_flight, each.ends, working - each.products)
        yield _item("work of one layer", working * tokens, "kept while it is recomputed")

    def _masks(self, way: Way) -> Iterator[MemoryItem]:
        """On a GPU sdpa takes a mask of all pairs of tokens where rows are packed, or padded beside
        others; each layer makes a copy in the compute dtype, and keeps it for its backward pass."""
        several = self.recipe.data.packing or way.micro_batch_size > 1
        by_mask = self.recipe.model.attn_implementation == "sdpa"
        if self.machine.device == "cpu" or not (several and by_mask):
            return
        kept = way.activations == "none" or (
            way.activations == "selective" and fuses(self.recipe, self.shape)
        )
        copies = self.activations.layers if kept else 1
        pairs, each = way.micro_batch_size * self.row_tokens**2, self.holding.compute_bytes
        reason = f"{pairs:,} pairs of tokens x (1 + {copies} x {each} B)"
        yield _item("attention masks", pairs * (1 + copies * each), reason)

    def _columns(self, policy: ActivationPolicy) -> Iterator[MemoryItem]:
        made = columns_by_layer(self.recipe.method, self.shape)
        if made and policy in ("none", "selective"):
            yield _item("orthonormal columns", sum(made.values()), "made and kept in each pass")
        elif made:
            yield _item("orthonormal columns", max(made.values()), "of one layer, made again")

    def _logits(self, tokens: int, chunk: int) -> MemoryItem:
        if self.shape.classes:
            # in fp32, as the heads: what they read, and their output with its gradient
            positions = tokens // self.row_tokens if self.shape.encoder else tokens
            each = 4 * self.shape.hidden_size + 8 * self.shape.classes
            reason = f"{positions:,} positions x {each:,} B of the head and its labels"
            return _item("logits", positions * each, reason)
        chunk = min(tokens, chunk)
        each = 2 * self.holding.compute_bytes + (4 if self.machine.device == "cuda" else 0)
        reason = f"{chunk:,} positions x {self.shape.vocab_size:,} x {each} B"
        return _item("logits", chunk * self.shape.vocab_size * each, reason)

    def _process(self) -> Iterator[MemoryItem]:
        process = _item("interpreter and libraries", LIBRARIES, "Python, torch, transformers")
        if self.machine.device == "cpu":
            yield process
            return
        yield _item("CUDA context", CUDA_CONTEXT, "kernels and the driver")
        yield replace(process, where="host")


def costs_of(recipe: Recipe, machine: Machine, shape: ModelShape, *, processes: int = 1) -> Costs:
    """Everything about a recipe's memory that does not depend on the micro-batch."""
    holding = holding_of(recipe.quantization, shape)
    tensors = tuple(trainable_tensors(recipe.method, shape))
    adapted = tuple(adapted_linears(recipe.method, shape))
    states = states_of(recipe.optim.name, device=machine.device)
    fixed = (
        *_rest(shape, holding),
        *_trained(tensors),
        *_frozen(recipe, shape),
        *_sparse(recipe, shape, tensors, holding),
        *_moving(recipe, adapted, tensors, holding),
        _states(states, tensors),
        *_travelling(tensors, processes),
        *teacher_weights(recipe, shape.teacher),
    )
    return Costs(
        recipe=recipe,
        machine=machine,
        shape=shape,
        holding=holding,
        tensors=tensors,
        adapted=adapted,
        states=states,
        activations=activations_of(
            recipe,
            shape,
            adapted,
            compute_bytes=holding.compute_bytes,
            length=row_tokens(recipe, shape),
            device=machine.device,
        ),
        quantized=tuple(_quantized(shape, holding)),
        fixed=fixed,
        layers=layers_of(shape, holding),
        unfolded=dequantized_bytes(shape, holding),
        pageable=min(states.pageable(tensors), machine.host_memory or sys.maxsize),
        processes=processes,
    )


def loss_chunk_size(recipe: Recipe) -> int:
    """Positions whose logits exist at a time."""
    wish = recipe.memory.loss_chunk_size
    return LOSS_CHUNK if wish == "auto" else wish


def row_tokens(recipe: Recipe, shape: ModelShape) -> int:
    """Tokens of the longest row as the model sees it."""
    if shape.image_tokens:
        return shape.image_tokens
    prompts = (part for part in parts_of(recipe.method) if isinstance(part, SoftPromptConfig))
    return recipe.data.max_length + sum(prompt.num_virtual_tokens for prompt in prompts)


def _quantized(shape: ModelShape, holding: Holding) -> Iterator[MemoryItem]:
    linears = [linear for linear in shape.linears if holding.quantizes(linear)]
    if not linears:
        return
    code = "int8" if holding.bits == 8 else holding.quant_type.upper()
    values = sum(weight_bytes(linear, holding) for linear in linears)
    constants = sum(constant_bytes(linear, holding) for linear in linears)
    weights = sum(linear.weights for linear in linears)
    yield _item(f"{code} weights", values, f"{len(linears)} linears, {count(weights)} weights")
    bits = 8 * (values + constants) / weights
    reason = f"{'double quantised; ' if holding.double_quant else ''}{bits:.3f} bits a weight"
    yield _item(f"{code} constants", constants, reason)


def _rest(shape: ModelShape, holding: Holding) -> Iterator[MemoryItem]:
    dense = [linear for linear in shape.linears if not holding.quantizes(linear)]
    if dense:
        size = sum(weight_bytes(linear, holding) for linear in dense)
        yield _item("linears not quantised", size, f"{len(dense)} in {holding.dense}")
    parts = "embeddings, norms, biases" + ("; the head is tied" if shape.tied else ", head")
    yield _item(
        "the rest of the base", leftover_bytes(shape, holding), f"{parts} in {holding.dense}"
    )


def _trained(tensors: tuple[TrainableTensor, ...]) -> Iterator[MemoryItem]:
    for part in dict.fromkeys(tensor.part for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.part == part]
        number = sum(tensor.elements for tensor in chosen)
        reason = f"{count(number)} parameters x {chosen[0].bytes_each} B"
        yield _item(part, sum(tensor.size for tensor in chosen), reason)
    yield _item("gradients", sum(tensor.size for tensor in tensors), "as the trained parameters")


def _frozen(recipe: Recipe, shape: ModelShape) -> Iterator[MemoryItem]:
    if size := frozen_bytes(recipe.method, shape):
        yield _item(FROZEN, size, "LoRA-FA's A: no gradients, no states")


def _sparse(
    recipe: Recipe, shape: ModelShape, tensors: tuple[TrainableTensor, ...], holding: Holding
) -> Iterator[MemoryItem]:
    """What RoSA holds beside its values: their places, and a block of rows at a time made dense;
    in the step that chooses the places a block's sizes, sorted with their positions."""
    number = sum(tensor.elements for tensor in tensors if tensor.part == SPARSE)
    if number:
        yield _item("places of the sparse values", 4 * number, "int32, one each")
        widest = max(linear.in_features for linear in shape.linears)
        tallest = min(SPARSE_ROWS, max(linear.out_features for linear in shape.linears))
        chosen = any(isinstance(p, RosaConfig) and not p.mask_from for p in parts_of(recipe.method))
        each = holding.compute_bytes + (8 if chosen else 0)
        size = tallest * widest * each
        yield _item("rows of the sparse part", size, f"{tallest:,} x {widest:,} x {each} B")


def _moving(
    recipe: Recipe,
    adapted: tuple[AdaptedLinear, ...],
    tensors: tuple[TrainableTensor, ...],
    holding: Holding,
) -> Iterator[MemoryItem]:
    """What Delta-LoRA holds beside its matrices: a copy of them from the end of the warm-up, and
    each pair joined, or the weights as they become."""
    method = leading(recipe.method)
    if not isinstance(method, DeltaLoraConfig):
        return
    size = sum(tensor.size for tensor in tensors if tensor.part == LOW_RANK)
    yield _item("low-rank snapshot", size, "the matrices after the warm-up")
    if method.form == "virtual":
        yield _item("low-rank pairs joined", 2 * size, "of twice the rank, for each pass")
        return
    weights = sum(each.linear.weights for each in adapted)
    yield _item("moved weights", weights * holding.compute_bytes, "a dense copy of each adapted")


def _states(states: OptimizerStates, tensors: tuple[TrainableTensor, ...]) -> MemoryItem:
    moments = "one moment" if states.moments == 1 else f"{states.moments} moments"
    held = f"in {states.held}" if states.held != "as the parameter" else "in the parameters' dtype"
    return _item("optimizer states", states.total(tensors), f"{moments} {held}")


def _travelling(tensors: tuple[TrainableTensor, ...], processes: int) -> Iterator[MemoryItem]:
    """Gradients laid end to end while they are summed over all processes."""
    sizes = [tensor.size for tensor in tensors]
    if processes > 1 and sizes:
        size = max(min(sum(sizes), BUCKET), *sizes)
        yield _item("gradients on their way", size, "some at a time, to be summed over all")


def _item(part: str, size: int, reason: str) -> MemoryItem:
    return MemoryItem(part=part, bytes=size, where="device", reason=reason)
