"""Several adapted projections of one input (q, k and v; gate and up; o alone) as one node.

`plain` is the definition. `fused` keeps x, the adapters' A x and dropout's masks, unfolds each
quantised weight once forward and once backward, and makes one product of the adapters' first ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from qtune.ops.low_rank import Kept, back, enter, leave
from qtune.ops.projection import adapter_tensors, input_needed, projection_of
from qtune.ops.rms_norm import input_again, kept_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from qtune.ops.projection import Projection


def plain(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Each layer's output [..., N] of one input [..., M]."""
    return tuple(layer(x) for layer in layers)


def fused(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """As `plain`, in one node of the graph."""
    projections = tuple(projection_of(layer) for layer in layers)
    given = _Given(projections, kept_input(x, wanted=input_needed(projections)))
    return _Projections.apply(x, given, *adapter_tensors(projections))  # type: ignore[no-any-return, no-untyped-call]


class _Given(NamedTuple):
    projections: tuple[Projection, ...]
    kept_x: tuple[Tensor | None, ...]


class _Projections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, given: _Given, *_: Tensor | None) -> tuple[Tensor, ...]:
        projections, kept_x = given
        x_TM = x.reshape(-1, x.shape[-1])
        kept = enter(x_TM, projections)
        outputs = leave(x_TM, projections, kept)
        ctx.projections, ctx.shape = projections, x.shape
        ctx.save_for_backward(*kept_x, *kept.tensors())
        return tuple(output.view(*x.shape[:-1], output.shape[-1]) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        x_TM, kept = input_again(saved[:4]), Kept.of(saved[4:])
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        wanted = ctx.needs_input_grad[0]
        gradient_TM, found = back(flat, x_TM, ctx.projections, kept, input_wanted=wanted)
        into_x = None if gradient_TM is None else gradient_TM.view(ctx.shape)
        return into_x, None, *(tensor for gradients in found for tensor in gradients)
