"""A LoRA layer whose weight moves with A and B: beside a frozen one, or folded into a dense copy.

What the weight gains, ratio s (B A - B_0 A_0), is the sum of the ratio's share of every change of
s B A since the snapshot (A_0, B_0): the steps telescope.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.errors import UsageError
from qtune.methods.adapter import Standin
from qtune.methods.lora_linear import LoraLinear
from qtune.ops.nf4 import is_quantized, is_transposed, weight_of

if TYPE_CHECKING:
    from qtune.ops.projection import Projection


class DeltaLinear(LoraLinear):
    """y = base(x) + s B A x + ratio s (B A - B_0 A_0) x; A and B learn as if by s B A alone."""

    ratio: float = 0.0
    moves: bool = False
    """Whether the snapshot was taken."""
    start_down: Tensor
    start_up: Tensor

    def prepare(self, ratio: float) -> DeltaLinear:
        """Set the ratio, and make room for the snapshot."""
        self.ratio = ratio
        self.register_buffer("start_down", self.down.detach().clone(), persistent=False)
        self.register_buffer("start_up", self.up.detach().clone(), persistent=False)
        return self

    @torch.no_grad()
    def take_snapshot(self) -> None:
        """The weight moves from here on."""
        self.start_down.copy_(self.down)
        self.start_up.copy_(self.up)
        self.moves = True
        self.fold()

    def fold(self) -> None:
        """Make the weight what it has become; here it is computed from its parts each time."""

    def gain(self) -> Tensor:
        """What the weight has gained, fp32 [n, m]."""
        now, then = (self.up.float(), self.down.float()), (self.start_up, self.start_down)
        change = now[0] @ now[1] - then[0].float() @ then[1].float()
        return change * (self.ratio * self.scale)

    def file_tensors(self) -> dict[str, Tensor]:
        """The snapshot as the file names it; A and B themselves before there is one."""
        snapshot = (self.start_down, self.start_up) if self.moves else (self.down, self.up)
        return dict(zip(("delta_A.weight", "delta_B.weight"), snapshot, strict=True))

    def projection(self) -> Projection:
        """As of `LoraLinear`, of twice the rank once the weight moves."""
        found = super().projection()
        if not (self.enabled and self.moves):
            return found
        down, up = self.joined()
        return replace(found, down=down, up=up)

    def joined(self) -> tuple[Tensor, Tensor]:
        """[A; A_0] and [(1 + ratio) B, -ratio B_0].

        The gradients of A and B must be those of s B A: B's goes to one B of the 1 + ratio, and
        A's, which then comes through all of them, is taken once.
        """
        held = self.down.detach()
        down = held + (self.down - held) / (1 + self.ratio)
        up = self.up + self.ratio * self.up.detach()
        down = torch.cat([down, self.start_down])
        return down, torch.cat([up, -self.ratio * self.start_up], dim=1)

    def update(self, x: Tensor) -> Tensor:
        """All that is added to base(x), in the adapter's dtype."""
        if not self.moves:
            return super().update(x)
        down, up = self.joined()
        return functional.linear(functional.linear(x.to(down.dtype), down) * self.scale, up)


class FoldedDeltaLinear(DeltaLinear):
    """The same with what the weight gained folded into a dense copy of it, after each step.

    Always from the frozen weight: sums of steps too small for 16 bits would round away.
    """

    def prepare(self, ratio: float) -> DeltaLinear:
        """As of `DeltaLinear`; `UsageError` on a weight that cannot take it up."""
        if isinstance(self.base, Standin) or is_quantized(self.base):
            raise UsageError(
                "in_place needs a 16-bit weight: rounding to 4 or 8 bits would undo its steps",
                place="method.form",
                hint="set it to virtual, which computes the same, or quantization.bits to 16",
            )
        # no submodule: the model's parameters stay those of the base and the adapter
        object.__setattr__(self, "_folded", _twin(self.base))
        return super().prepare(ratio)

    @torch.no_grad()
    def fold(self) -> None:
        """W_0 + ratio s (B A - B_0 A_0), rounded once."""
        weight: Tensor = self._folded.weight  # type: ignore[assignment]
        moved = weight_of(self.base).float() + self.gain()
        weight.copy_(moved.t() if is_transposed(self.base) else moved)

    def projection(self) -> Projection:
        """As of `LoraLinear`, on the weight as it has become."""
        found = LoraLinear.projection(self)
        return replace(found, base=self._folded) if self.enabled and self.moves else found

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        if not (self.enabled and self.moves):
            return super().forward(x)
        output: Tensor = self._folded(x)
        return output + LoraLinear.update(self, x).to(output.dtype)

    _folded: nn.Module


def _twin(base: nn.Module) -> nn.Module:
    """The layer with a weight of its own."""
    twin = copy.copy(base)
    weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)  # type: ignore[operator]
    twin._parameters = {**base._parameters, "weight": weight}
    return twin
