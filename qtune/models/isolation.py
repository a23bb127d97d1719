"""Proof on the loaded model that packed rows do not see each other."""

from __future__ import annotations

from typing import Any

import torch

from qtune.errors import ModelError

FIRST, SECOND = 11, 8
_HINT = "set data.packing: false, or another model.attn_implementation"


@torch.no_grad()
def check_isolation(model: Any, *, vocabulary: int) -> None:
    """Raise `ModelError` unless a row packed behind another one is computed as if it were alone.

    Two proofs: other tokens in the first row must not move the second row's logits at all (the
    same kernels on the same shapes, whatever the dtype), and the second row alone must give the
    same logits up to rounding (1e-5 in fp32), so its positions begin at 0 again.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids_T = torch.randint(vocabulary, (FIRST + SECOND,), generator=draw).to(device)
    other_T = ids_T.clone()
    other_T[:FIRST] = (other_T[:FIRST] + 1) % vocabulary
    positions_T = torch.cat([torch.arange(FIRST), torch.arange(SECOND)]).to(device)
    packed_TV = _logits(model, ids_T, positions_T)[FIRST:]
    moved_TV = _logits(model, other_T, positions_T)[FIRST:]
    alone_TV = _logits(model, ids_T[FIRST:], positions_T[FIRST:])
    model.train(training)
    leak = float((packed_TV - moved_TV).abs().max())
    if leak > 1e-5:
        raise ModelError(
            f"packed rows see each other (logits move by {leak:.2g}) with "
            f"{_attention(model)} attention",
            hint=_HINT,
        )
    error = float((packed_TV - alone_TV).abs().max())
    bound = _rounding(model) * max(1.0, float(alone_TV.abs().max()))
    if error > bound:
        raise ModelError(
            f"a packed row gives other logits than alone (by {error:.2g}, {bound:.2g} is "
            f"rounding) with {_attention(model)} attention",
            hint=_HINT,
        )


def _logits(model: Any, ids_T: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
    """Logits [T, V] of one sequence without an attention mask, in fp32."""
    made = model(input_ids=ids_T[None], position_ids=positions_T[None], use_cache=False)
    logits_TV: torch.Tensor = made.logits[0].float()
    return logits_TV


def _rounding(model: Any) -> float:
    """The error that the shapes of the kernels alone may cause, relative to the largest logit."""
    computed = model.get_input_embeddings().weight.dtype
    return 1e-5 if computed == torch.float32 else 0.05


def _attention(model: Any) -> str:
    return str(getattr(model.config, "_attn_implementation", "this model's"))
