"""A small MLP behind a module, or beside it.

d hidden size, r width: down [r, d] and up [d, r] with biases; up starts at zero, so the adapter
starts as nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.methods.adapter import Standin
from qtune.ops.spread import device_of

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
SPREAD = 0.02  # of the first matrix at the start, as of BERT's


class Bottleneck(Standin):
    """h + scale * up(f(down(h))) of the base's output h."""

    def __init__(
        self,
        base: nn.Module,
        *,
        hidden_size: int,
        width: int,
        scale: float,
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base)
        device = device_of(next(base.parameters()))
        down = torch.empty(width, hidden_size).normal_(0.0, SPREAD, generator=generator)
        self.down = nn.Parameter(down.to(device))
        self.down_bias = nn.Parameter(torch.zeros(width, device=device))
        self.up = nn.Parameter(torch.zeros(hidden_size, width, device=device))
        self.up_bias = nn.Parameter(torch.zeros(hidden_size, device=device))
        self.scale = scale
        self.activation = ACTIVATIONS[activation]

    def tensors(self) -> dict[str, nn.Parameter]:
        """Both matrices and their biases."""
        return {
            "bottleneck_down.weight": self.down,
            "bottleneck_down.bias": self.down_bias,
            "bottleneck_up.weight": self.up,
            "bottleneck_up.bias": self.up_bias,
        }

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The base's output, its first part changed where it gives several."""
        output = self.base(x, *args, **kwargs)
        if not self.enabled:
            return output
        if isinstance(output, tuple):
            return (self.change(x, output[0]), *output[1:])
        return self.change(x, output)

    def change(self, x: Tensor, output: Tensor) -> Tensor:
        """The new output of a module that made `output` of `x`; all [..., d]."""
        del x
        return output + self.update(output).to(output.dtype)

    def update(self, x: Tensor) -> Tensor:
        """scale * up(f(down(x))) in fp32."""
        inner = self.activation(functional.linear(x.to(self.down.dtype), self.down, self.down_bias))
        return functional.linear(inner, self.up, self.up_bias) * self.scale


class ParallelBottleneck(Bottleneck):
    """output + scale * up(f(down(x))) of the base's input x."""

    def change(self, x: Tensor, output: Tensor) -> Tensor:
        """The new output of a module that made `output` of `x`; all [..., d]."""
        return output + self.update(x).to(output.dtype)
