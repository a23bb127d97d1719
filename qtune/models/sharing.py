"""Whether rows of a pack may share their first tokens on this model, and the proof that they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError
from qtune.models.fused_blocks import FusedAttention
from qtune.models.isolation import relative, rounding

if TYPE_CHECKING:
    from torch import nn

PREFIX, REST = 12, 7
_EXACT = 1e-5
_OF_A_FAULT = 0.1
"""Rounding moves logits by less than this share of what one place too far does: 0.06 at most."""


def why_apart(model: nn.Module) -> str:
    """Why the first tokens of each row are computed for each row; "" where they can be shared.

    It takes an attention that computes each row's pairs alone: under one mask over all pairs of a
    pass the time that is won is lost again.
    """
    config: Any = model.config
    if next(model.parameters()).is_cuda:
        return "on a GPU a mask of all pairs is slower than the rows apart"
    if config._attn_implementation != "sdpa":
        return f"with {config._attn_implementation} attention"
    if _has_window(config.get_text_config()):
        return "with a sliding window"
    attentions = [each for each in model.modules() if hasattr(each, "is_causal")]
    fused = [each for each in attentions if isinstance(each, FusedAttention)]
    return "" if fused and len(fused) == len(attentions) else "the attention is not fused"


def _has_window(text: Any) -> bool:
    kinds = getattr(text, "layer_types", None) or ()
    if kinds:
        return any(kind != "full_attention" for kind in kinds)
    return getattr(text, "sliding_window", None) is not None


def check_sharing(model: Any, *, vocabulary: int) -> None:
    """Raise `ModelError` unless rows behind one copy of their beginning are as if alone.

    In bfloat16 a row behind the copy is summed in another order, so it may differ by rounding; how
    much that can be is told by what a fault does here, the row one place too far to the right.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    prefix, *rests = (
        torch.randint(vocabulary, (size,), generator=draw).to(device)
        for size in (PREFIX, REST, REST)
    )
    first, second = _shared(model, torch.cat([prefix, *rests]), places=PREFIX)
    _, faulty = _shared(model, torch.cat([prefix, *rests]), places=PREFIX + 1)
    alone = [_logits(model, torch.cat([prefix, rest]))[PREFIX:] for rest in rests]
    model.train(training)
    error = max(relative(first, alone[0]), relative(second, alone[1]))
    exact = next(model.parameters()).dtype == torch.float32
    bound = _EXACT if exact else rounding(model, _OF_A_FAULT * relative(faulty, alone[1]))
    if error > bound:
        raise ModelError(
            f"rows that share their first tokens give other logits than alone (by {error:.2g}, "
            f"{bound:.2g} is rounding)",
            hint="set data.share_prefixes: false",
        )


def _shared(model: Any, ids_T: torch.Tensor, *, places: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [REST, V] of two rows behind one prefix, the second one's positions from `places`."""
    positions = torch.arange(PREFIX + REST, device=ids_T.device)
    second = torch.arange(places, places + REST, device=ids_T.device)
    found_TV = _logits(
        model,
        ids_T,
        position_ids=torch.cat([positions, second])[None],
        attention_mask=_mask(ids_T.device),
    )
    return found_TV[PREFIX : PREFIX + REST], found_TV[PREFIX + REST :]


def _mask(device: torch.device) -> torch.Tensor:
    """[1, 1, T, T] of the prefix and two rows behind it."""
    seen = torch.ones(PREFIX + 2 * REST, PREFIX + 2 * REST, dtype=torch.bool, device=device).tril()
    seen[PREFIX + REST :, PREFIX : PREFIX + REST] = False
    return seen[None, None]


def _logits(model: Any, ids_T: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
    """[T, V] in fp32, on the way that training takes."""
    with torch.enable_grad():
        found: torch.Tensor = model(input_ids=ids_T[None], use_cache=False, **given).logits
    return found[0].detach().float()
