"""What a plan refuses because the recipe and the model contradict one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.adapters import saved_modules
from qtune.plan.choices import why_whole
from qtune.plan.selective import trained_weights
from qtune.plan.targets import is_within
from qtune.recipe.methods import LowRankConfig, SelectiveConfig, parts_of

if TYPE_CHECKING:
    from qtune.plan.memory import Costs
    from qtune.plan.shape import ModelShape
    from qtune.recipe.sections import Recipe


def refuse_model(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` for what a model of this family cannot be asked."""
    _refuse_attention(recipe, shape)
    _refuse_length(recipe, shape)


def refuse_holding(costs: Costs) -> None:
    """`UsageError` for weights that cannot be held or trained as the recipe asks."""
    _refuse_quantized_copies(costs)
    _refuse_base(costs)
    _refuse_strategy(costs)


def _refuse_attention(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` when transformers has no such attention for the family."""
    if recipe.model.attn_implementation == "sdpa" and not shape.sdpa:
        raise UsageError(
            f"transformers runs {shape.family} without sdpa",
            place="model.attn_implementation",
            hint="set it to eager",
        )


def _refuse_length(recipe: Recipe, shape: ModelShape) -> None:
    """`UsageError` for rows with more tokens than an encoder has positions."""
    if shape.encoder and shape.max_positions and recipe.data.max_length > shape.max_positions:
        raise UsageError(
            f"{recipe.data.max_length:,} tokens, {shape.family} has {shape.max_positions:,} "
            "positions",
            place="data.max_length",
            hint=f"set it to {shape.max_positions}, and data.overlong: truncate_end",
        )


def _refuse_base(costs: Costs) -> None:
    """`UsageError` for a base that cannot be held as the recipe asks."""
    memory, four = costs.recipe.memory, costs.holding.bits == 4 and costs.layers.number > 0
    if memory.base == "stream" and not (four and costs.layers.number > 2):
        raise UsageError(
            "only 4-bit layers are streamed, three of them or more",
            place="memory.base",
            hint="set quantization.bits: 4, or memory.base: resident",
        )
    if memory.dequantized_layers in ("auto", 0):
        return
    if memory.base == "stream" or not four:
        what = "layers that are streamed" if four else "weights that are not in 4 bits"
        raise UsageError(f"{what} are not kept unfolded", place="memory.dequantized_layers")


def _refuse_strategy(costs: Costs) -> None:
    """`UsageError` for layers that cannot be shared out, where the recipe wants that."""
    reason = why_whole(costs)
    if costs.processes > 1 and costs.recipe.distributed.strategy == "fsdp" and reason:
        raise UsageError(
            f"cannot be fsdp: {reason}", place="distributed.strategy", hint="set it to ddp or auto"
        )


def _refuse_quantized_copies(costs: Costs) -> None:
    """`UsageError` when a module to train whole holds quantised weights."""
    parts = [part for part in parts_of(costs.recipe.method) if isinstance(part, LowRankConfig)]
    for module in (name for part in parts for name in saved_modules(part, costs.shape)):
        for linear in costs.shape.linears:
            if is_within(linear.name, module) and costs.holding.quantizes(linear):
                raise UsageError(
                    f"{module} holds quantised weights, which cannot be trained",
                    place="method.modules_to_save",
                    hint=f"add {linear.name.rpartition('.')[2]} to quantization.skip_modules",
                )
    for part in parts_of(costs.recipe.method):
        names = trained_weights(part, costs.shape) if isinstance(part, SelectiveConfig) else ()
        linears = {linear.name: linear for linear in costs.shape.linears}
        for name in names:
            if costs.holding.quantizes(linears[name]):
                raise UsageError(
                    f"{name} is quantised, and a quantised matrix cannot be trained",
                    place="method.parts",
                    hint="take the 16-bit model" if costs.holding.already else "",
                )
