"""Proof on the loaded model that packed rows do not see each other. B: sequences, T: tokens, V:
vocabulary; a probe is the row that is looked at, in each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qtune.errors import ModelError

PROBE = 8
AROUND = ((11, 0), (5, 6))
"""Tokens in front of the probe and behind it: its place differs from sequence to sequence."""
_HINT = "set data.packing: false, or another model.attn_implementation"
_ROUNDED = 2.0**-8  # relative error of rounding to bfloat16
CONTROLS = 3.0
_MOST_WALKS = 4.0


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the logits of a packed probe are from those of the probe alone.

    `leak`: how far they move with the other rows' tokens. `error`: their distance, relative to the
    root mean square of the logits; `control`: the same for the probe in front, where nothing can be
    seen of other rows, so it is what rounding does. `largest`: the largest difference.
    """

    leak: float
    error: float
    control: float
    largest: float
    largest_logit: float


def check_isolation(model: Any, *, vocabulary: int) -> None:
    """Raise `ModelError` unless a row packed behind another one is computed as if it were alone.

    Two proofs: other tokens around a row must not move its logits at all (the same kernels on the
    same shapes, whatever the dtype), and the row alone must give the same logits up to rounding, so
    its positions begin at 0 again and it sees all of itself.
    """
    found = measure(model, vocabulary=vocabulary)
    if found.leak > 1e-5:
        raise ModelError(
            f"packed rows see each other (logits move by {found.leak:.2g}) with "
            f"{_attention(model)} attention",
            hint=_HINT,
        )
    if model.get_input_embeddings().weight.dtype == torch.float32:
        error, bound = found.largest, 1e-5 * max(1.0, found.largest_logit)
    else:
        error, bound = found.error, rounding(model, CONTROLS * found.control)
    if error > bound:
        raise ModelError(
            f"a packed row gives other logits than alone (by {error:.2g}, {bound:.2g} is "
            f"rounding) with {_attention(model)} attention",
            hint=_HINT,
        )


def rounding(model: Any, evidence: float) -> float:
    """What rounding to bfloat16 may cause, relative to the logits' root mean square.

    Each layer rounds the residual stream twice, and independent errors add up as a random walk:
    measured, at most two thirds of that (scripts/bench/isolation.json). A large model's activations
    may be less tame; then `evidence` from the model itself shows it, within reason: a fault that is
    in it too must not excuse itself.
    """
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None) or 1
    walk: float = _ROUNDED * (2 * layers) ** 0.5
    return max(walk, min(evidence, _MOST_WALKS * walk))


@torch.no_grad()
def measure(model: Any, *, vocabulary: int) -> Distance:
    """Compare a probe packed, packed among other rows, packed in front, and alone.

    Flash attention takes one sequence a micro-batch (`qtune.data.feed`), so it is shown one.
    """
    training = model.training
    model.eval()
    around = AROUND[:1] if "flash" in _attention(model) else AROUND
    device = next(model.parameters()).device
    shape = (len(around), sum(AROUND[0]) + PROBE)
    draw = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocabulary, shape, generator=draw).to(device)
    others_BT = (ids_BT + 1) % vocabulary
    probes_BP = torch.stack([_probe(row, one) for row, one in zip(ids_BT, around, strict=True)])
    for row, probe, one in zip(others_BT, probes_BP, around, strict=True):
        _probe(row, one)[:] = probe
    front_BT = torch.cat([probes_BP, ids_BT[:, PROBE:]], dim=1)
    front = [(0, sum(one)) for one in around]
    packed_BPV = _logits(model, ids_BT, around)
    moved_BPV = _logits(model, others_BT, around)
    front_BPV = _logits(model, front_BT, front)
    alone_BPV = _logits(model, probes_BP, [(0, 0) for _ in around])
    model.train(training)
    return Distance(
        leak=float((packed_BPV - moved_BPV).abs().max()),
        error=relative(packed_BPV, alone_BPV),
        control=relative(front_BPV, alone_BPV),
        largest=float((packed_BPV - alone_BPV).abs().max()),
        largest_logit=float(alone_BPV.abs().max()),
    )


def _probe(row: torch.Tensor, around: tuple[int, int]) -> torch.Tensor:
    return row[around[0] : around[0] + PROBE]


def _logits(model: Any, ids_BT: torch.Tensor, around: Any) -> torch.Tensor:
    """Logits [B, PROBE, V] of the probes, without an attention mask, in fp32."""
    positions_BT = torch.stack(
        [torch.cat([torch.arange(n) for n in (before, PROBE, behind)]) for before, behind in around]
    ).to(ids_BT.device)
    made = model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False)
    found = [_probe(logits, one) for logits, one in zip(made.logits, around, strict=True)]
    return torch.stack(found).float()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root mean square of the difference over that of the logits, whose mean is no information."""
    return float((found - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm())


def _attention(model: Any) -> str:
    return str(getattr(model.config, "_attn_implementation", "this model's"))
