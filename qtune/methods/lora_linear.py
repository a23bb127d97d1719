"""A linear layer with a low-rank update beside it, and its weight-decomposed form.

m inputs, n outputs, r rank: down A [r, m], up B [n, r], magnitude [n].
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.methods.adapter import Standin
from qtune.ops.linears import features
from qtune.ops.nf4 import weight_of
from qtune.ops.projection import Projection

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 2048


class LoraLinear(Standin):
    """y = base(x) + scale * B A dropout(x); B starts at zero, so y starts as base(x)."""

    def __init__(
        self,
        base: nn.Module,
        *,
        rank: int,
        scale: float,
        dropout: float,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base)
        inputs, outputs = features(base)
        bound = 1.0 / math.sqrt(inputs)  # kaiming uniform with a = sqrt(5)
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(self.device, dtype))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=self.device, dtype=dtype))
        self.scale = scale
        self.dropout = dropout

    def tensors(self) -> dict[str, nn.Parameter]:
        """A and B under PEFT's names."""
        return {"lora_A.weight": self.down, "lora_B.weight": self.up}

    def projection(self) -> Projection:
        """What this layer computes, for ops that compute it with others."""
        if not self.enabled:
            return Projection(self.base)
        dropout = self.dropout if self.training else 0.0
        return Projection(self.base, self.down, self.up, self.scale, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output: Tensor = self.base(x)
        return output + self.update(x).to(output.dtype) if self.enabled else output

    def update(self, x: Tensor) -> Tensor:
        """scale * B A dropout(x) in the adapter's dtype."""
        x = functional.dropout(x.to(self.down.dtype), self.dropout, self.training)
        return functional.linear(functional.linear(x, self.down) * self.scale, self.up)


class DoraLinear(LoraLinear):
    """DoRA: y = base(x) + (g-1) W x + g scale B A dropout(x), g = magnitude / ||W + scale B A||.

    The norm is taken as a constant by the gradient (section 4.3 of the paper). It comes from
    ||W||^2 + 2 scale rowdot(B, W A^T) + scale^2 rowdot(B, B A A^T): W + scale B A is never built.
    Dropout acts on the low-rank path only, which saves the second product with W.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        rank: int,
        scale: float,
        dropout: float,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            base, rank=rank, scale=scale, dropout=dropout, dtype=dtype, generator=generator
        )
        squares = torch.cat([rows.pow(2).sum(dim=1) for rows in self._weight_rows()])
        self.base_norm_squared: Tensor
        self.register_buffer("base_norm_squared", squares, persistent=False)
        self.magnitude = nn.Parameter(squares.sqrt().to(dtype))

    def tensors(self) -> dict[str, nn.Parameter]:
        """A, B and the magnitude under PEFT's names."""
        return {**super().tensors(), "lora_magnitude_vector": self.magnitude}

    def projection(self) -> Projection:
        """As of `LoraLinear`, with the gain of each output."""
        found = super().projection()
        return replace(found, gain=self.magnitude / self.weight_norm()) if self.enabled else found

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output: Tensor = self.base(x)
        if not self.enabled:
            return output
        gain = self.magnitude / self.weight_norm()
        bias = self.bias
        product = output if bias is None else output - bias
        return output + ((gain - 1) * product + gain * self.update(x)).to(output.dtype)

    @torch.no_grad()
    def weight_norm(self) -> Tensor:
        """Row norms of W + scale B A, fp32 [n]; skinny products, W a block of rows at a time."""
        down, up = self.down.float(), self.up.float()
        product = torch.cat([rows @ down.t() for rows in self._weight_rows()])
        cross = (up * product).sum(dim=1)
        own = (up * (up @ (down @ down.t()))).sum(dim=1)
        squares = self.base_norm_squared + 2 * self.scale * cross + self.scale**2 * own
        return squares.clamp_min(torch.finfo(torch.float32).tiny).sqrt()

    def _weight_rows(self) -> Iterator[Tensor]:
        """The dense base weight in fp32, in blocks: a whole fp32 copy would double the peak."""
        for rows in weight_of(self.base).split(ROWS):
            yield rows.float()
