"""Gradient descent with momentum, whose weight decay is decoupled as that of AdamW is.

torch's SGD adds the decay to the gradient, so that momentum carries and multiplies it; here w
shrinks by lr x decay, and then takes the step (Loshchilov and Hutter 2019, algorithm 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import SGD


class DecoupledSGD(SGD):
    """torch's SGD but for the decay; a fused one that `found_inf` stops leaves weights alone."""

    def step(self, closure: Any = None) -> Any:
        """Shrink every weight that has a gradient, then update it."""
        decays = [group["weight_decay"] for group in self.param_groups]
        self._shrink()
        try:
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            return super().step(closure)
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay

    @torch.no_grad()
    def _shrink(self) -> None:
        stopped = getattr(self, "found_inf", None)
        for group in self.param_groups:
            if not group["weight_decay"]:
                continue
            kept: Any = 1 - group["lr"] * group["weight_decay"]
            if stopped is not None:  # asked on the device, as the fused update does
                kept = torch.where(stopped > 0, 1.0, kept)
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(kept if stopped is None else kept.to(weight.device))
