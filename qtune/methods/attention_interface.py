"""Another attention in a model's layers, through transformers' attention interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

BASE = "sdpa"
"""The implementation that is replaced, and whose masks the new one gets."""


def refuse_other_bases(model: Any, what: str) -> None:
    """`UsageError` for a model whose attention is not `BASE`."""
    used = model.config._attn_implementation
    if used != BASE:
        raise UsageError(f"{what} works with {BASE}, not {used}", place="model.attn_implementation")


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The self-attentions that go through the interface, by layer."""
    found = [
        module
        for module in model.modules()
        if hasattr(module, "layer_idx") and hasattr(module, "is_causal")
    ]
    return sorted(found, key=lambda module: int(module.layer_idx))  # type: ignore[arg-type]


def put_in(model: Any, name: str, attention: Callable[..., Any]) -> None:
    """Have all layers call `attention`, known to transformers by `name`; again does no harm."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[BASE])
    model.set_attn_implementation(name)


def take_out(model: Any) -> None:
    """Give the model its own attention back."""
    model.set_attn_implementation(BASE)


def plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' own attention."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    answer: tuple[Tensor, Tensor | None] = ALL_ATTENTION_FUNCTIONS[BASE](
        module, query, key, value, attention_mask, **settings
    )
    return answer
