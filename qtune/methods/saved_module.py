"""A whole module trained beside its frozen original: a head, an embedding, a norm."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from qtune.errors import UsageError
from qtune.methods.adapter import Standin
from qtune.ops.linears import is_linear
from qtune.ops.nf4 import is_quantized


class SavedModule(Standin):
    """Computes with a trained copy in its own dtype and answers in the dtype of the original."""

    def __init__(self, base: nn.Module, *, dtype: torch.dtype, name: str) -> None:
        super().__init__(base)
        if any(is_quantized(module) for module in base.modules()):
            raise UsageError(
                f"{name!r} holds quantised weights, which cannot be trained",
                place="method.modules_to_save",
                hint=f"add {name.rpartition('.')[2]} to quantization.skip_modules",
            )
        self.trained = copy.deepcopy(base).to(dtype).requires_grad_()
        self.dtype = dtype
        self.base_dtype = next(base.parameters()).dtype

    @property
    def active(self) -> nn.Module:
        """The copy, or the original while adapters are disabled."""
        return self.trained if self.enabled else self.base

    @property
    def weight(self) -> Tensor:
        """The weight in use, for losses and heads that look at it."""
        return self.active.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The bias in use, if there is one."""
        return getattr(self.active, "bias", None)

    def __getattr__(self, name: str) -> Any:
        """Other attributes (num_embeddings, padding_idx, ...) are those of the original."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def tensors(self) -> dict[str, nn.Parameter]:
        """The copy's parameters under their own names."""
        return dict(self.trained.named_parameters())

    def forward(self, x: Tensor) -> Tensor:
        """As the original, with the trained weights."""
        if not self.enabled:
            return self.base(x)  # type: ignore[no-any-return]
        output: Tensor = self.trained(x.to(self.dtype) if self._casts(x) else x)
        return output.to(self.base_dtype)

    def _casts(self, x: Tensor) -> bool:
        # An RMSNorm of a model file promotes by itself and, given its usual input, starts out equal
        # to the original bit for bit; torch's own modules want one dtype for input and weight.
        return x.is_floating_point() and (
            is_linear(self.base) or isinstance(self.base, nn.LayerNorm)
        )
