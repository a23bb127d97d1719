"""How far a merged model is from the trained one: KL divergence and top-1 agreement.

Both compute in fp32, so that only the weights differ. N sampled positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.methods.saved_module import SavedModule
from qtune.ops.linears import class_heads
from qtune.ops.nf4 import is_quantized, weight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_POSITIONS = 2048
MAX_BYTES = 2**30  # of kept logits
_CHUNK, _CHUNK_ELEMENTS = 256, 2**19  # positions, and logits, compared at a time in fp64


@dataclass(frozen=True)
class Fidelity:
    """Mean KL(trained || merged) in nats per token, and how often both prefer the same token."""

    kl: float
    max_kl: float
    top1: float
    positions: int

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON; max_kl is that of the worst position."""
        return {
            "kl": self.kl,
            "max_kl": self.max_kl,
            "top1": self.top1,
            "positions": self.positions,
        }


def sample(
    rows: Sequence[Sequence[int]], *, vocabulary: int, most: int = MAX_POSITIONS
) -> list[list[int]]:
    """The first rows that fit `most` positions and `MAX_BYTES` of fp32 logits, the last one cut."""
    room = max(1, min(most, MAX_BYTES // (4 * vocabulary)))
    chosen: list[list[int]] = []
    for row in rows:
        if room == 0:
            break
        chosen.append(list(row[:room]))
        room -= len(chosen[-1])
    return [row for row in chosen if row]


def kept_bytes(vocabulary: int) -> int:
    """The most that kept logits take."""
    return min(MAX_BYTES, 4 * vocabulary * MAX_POSITIONS)


def fixed_rows(vocabulary: int, *, rows: int = 8, length: int = 64) -> list[list[int]]:
    """Seeded random token ids, for when a run's data is gone."""
    random = torch.Generator().manual_seed(0)
    ids: list[list[int]] = torch.randint(vocabulary, (rows, length), generator=random).tolist()
    return ids


class Widened(nn.Module):
    """A quantised linear that computes in fp32 with the very weight of its compute dtype.

    The 4-bit kernels decode into the dtype of their input: fed with fp32 they would multiply with
    a finer weight than the one that a bf16 model was trained with.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @property
    def weight(self) -> Tensor:
        """[out, in], decoded anew each time."""
        return weight_of(self.layer).float()

    @property
    def bias(self) -> Tensor | None:
        """[out], if there is one."""
        held = getattr(self.layer, "bias", None)
        return held if isinstance(held, Tensor) else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return functional.linear(x, self.weight, self.bias)


def widen(model: nn.Module) -> None:
    """Compute in fp32 with the very weights that are there; quantised ones stay packed."""
    quantized = [name for name, module in model.named_modules() if is_quantized(module)]
    for name in quantized:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Widened(model.get_submodule(name)))
    for module in model.modules():
        if isinstance(module, SavedModule):
            module.dtype = module.base_dtype = torch.float32
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()


@torch.no_grad()
def logits_of(model: nn.Module, row: Sequence[int] | Tensor) -> Tensor:
    """fp32 logits [T, V] of one row, on the CPU; of a classifier [1, labels], whose row may be an
    image [C, H, W]."""
    device = next(model.parameters()).device
    if isinstance(row, Tensor):
        seen: Tensor = model(pixel_values=row[None].to(device)).logits
        return seen.float().cpu()
    ids = torch.tensor([list(row)], dtype=torch.int64, device=device)
    if class_heads(model):
        logits: Tensor = model(input_ids=ids).logits
    else:
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return logits.float().cpu()


def all_logits(model: nn.Module, rows: Sequence[Sequence[int] | Tensor]) -> list[Tensor]:
    """The logits of each row; what is kept of the trained model while the merged one is loaded."""
    model.eval()
    return [logits_of(model, row) for row in rows]


def compare(
    trained: Sequence[Tensor], merged: nn.Module, rows: Sequence[Sequence[int] | Tensor]
) -> Fidelity:
    """KL and top-1 of the merged model against the kept logits, row by row."""
    merged.eval()
    return against(trained, (logits_of(merged, row) for row in rows))


def against(trained: Sequence[Tensor], merged: Iterable[Tensor]) -> Fidelity:
    """KL and top-1 of the merged model's logits against the trained one's, row by row."""
    divergences: list[Tensor] = []
    agreements: list[Tensor] = []
    for ours, theirs in zip(trained, merged, strict=True):
        chunk = max(1, min(_CHUNK, _CHUNK_ELEMENTS // ours.shape[-1]))
        divergences.extend(
            _divergence(ours[start : start + chunk], theirs[start : start + chunk])
            for start in range(0, len(ours), chunk)
        )
        agreements.append(ours.argmax(dim=-1) == theirs.argmax(dim=-1))
    kl_N, same_N = torch.cat(divergences), torch.cat(agreements)
    return Fidelity(
        kl=float(kl_N.mean()),
        max_kl=float(kl_N.max()),
        top1=float(same_N.double().mean()),
        positions=len(kl_N),
    )


def _divergence(trained: Tensor, merged: Tensor) -> Tensor:
    """KL(trained || merged) of each position; fp64, because its first-order terms cancel."""
    ours = torch.log_softmax(trained.double(), dim=-1)
    theirs = torch.log_softmax(merged.double(), dim=-1)
    return (ours.exp() * (ours - theirs)).sum(dim=-1)
