"""Causal attention inside each document of a batch, on a CPU: one small product a document.

Legend: B sequences, H heads, K key-value heads (H is a multiple), T tokens, n of one document, D
head size. `plain` is sdpa with a mask over all T x T pairs; `fused` computes a document's pairs
alone. What belongs to no document (padding) comes out as zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

# Up to so many tokens the products of the backward pass, written out in fp32, are faster than the
# flash kernel's (7 x at 16 tokens, 1.4 x at 180, 0.85 x at 240) and more exact.
SHORT = 200


class Document(NamedTuple):
    """Tokens [begin, end) of one sequence of a batch."""

    sequence: int
    begin: int
    end: int


def documents_of(mask_BTT: Tensor) -> tuple[Document, ...] | None:
    """The documents that a boolean attention mask [B, 1, T, T] isolates; None if it does more.

    A query that does not see itself is padding.
    """
    if mask_BTT.dtype != torch.bool or mask_BTT.dim() != 4 or mask_BTT.shape[1] != 1:
        return None
    seen_BTT = mask_BTT[:, 0]
    tokens = seen_BTT.shape[-1]
    if seen_BTT.shape[-2] != tokens:
        return None
    real_BT = seen_BTT.diagonal(dim1=-2, dim2=-1)
    first_BT = seen_BTT.to(torch.uint8).argmax(dim=-1)
    expected_BT = torch.arange(tokens, device=mask_BTT.device) - first_BT + 1
    whole = seen_BTT.sum(dim=-1) == expected_BT  # from the first one seen to itself, no gap
    ahead = seen_BTT.triu(1).any(dim=-1)
    if not (whole & ~ahead)[real_BT].all():
        return None
    found = [
        Document(number, begin, end)
        for number, (starts, real) in enumerate(
            zip(first_BT.tolist(), real_BT.tolist(), strict=True)
        )
        for begin, end in _runs(starts, real)
    ]
    # a window moves its first token along: then a run does not begin where it looks back to
    if any(first_BT[number, begin] != begin for number, begin, _ in found):
        return None
    return tuple(found)


def _runs(starts: list[int], real: list[bool]) -> list[tuple[int, int]]:
    """[begin, end) of consecutive real tokens that see the same first token."""
    runs: list[tuple[int, int]] = []
    for at, (start, is_real) in enumerate(zip(starts, real, strict=True)):
        if not is_real:
            continue
        if runs and runs[-1][1] == at and starts[at - 1] == start:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def plain(
    query: Tensor, key: Tensor, value: Tensor, documents: tuple[Document, ...], *, scale: float
) -> Tensor:
    """[B, H, T, D], twice [B, K, T, D] -> [B, T, H, D]."""
    batch, heads, tokens, _ = query.shape
    mask = torch.zeros(batch, 1, tokens, tokens, dtype=torch.bool, device=query.device)
    for number, begin, end in documents:
        mask[number, 0, begin:end, begin:end] = True
    mask = mask.tril()
    real = mask.any(dim=-1, keepdim=True)
    groups = heads // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    made = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask | ~real, scale=scale
    )
    return (made * real).transpose(1, 2)


def fused(
    query: Tensor, key: Tensor, value: Tensor, documents: tuple[Document, ...], *, scale: float
) -> Tensor:
    """As `plain`; keeps what it is given, its output and a number for each token and head."""
    return _Documents.apply(query, key, value, documents, scale)  # type: ignore[no-any-return, no-untyped-call]


class _Documents(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        documents: tuple[Document, ...],
        scale: float,
    ) -> Tensor:
        batch, heads, tokens, size = query.shape
        output_BTHD = query.new_zeros(batch, tokens, heads, size)
        sums_BHT = query.new_zeros(batch, heads, tokens, dtype=torch.float32)
        for document in documents:
            number, begin, end = document
            q, k, v = (_part(states, document, heads) for states in (query, key, value))
            made, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, 0.0, True, scale=scale
            )
            output_BTHD[number, begin:end] = made[0].transpose(0, 1)
            sums_BHT[number, :, begin:end] = sums[0]
        ctx.documents, ctx.scale = documents, scale
        ctx.save_for_backward(query, key, value, output_BTHD, sums_BHT)
        return output_BTHD

    @staticmethod
    def backward(ctx: Any, gradient_BTHD: Tensor) -> tuple[Any, ...]:
        query, key, value, output_BTHD, sums_BHT = ctx.saved_tensors
        heads = query.shape[1]
        given = (query, key, value, output_BTHD.transpose(1, 2), gradient_BTHD.transpose(1, 2))
        made = [_empty(states) for states in given[:3]]
        for document in ctx.documents:
            number, begin, end = document
            q, k, v, o, g = (_part(states, document, heads) for states in given)
            sums = sums_BHT[number : number + 1, :, begin:end].contiguous()
            way = _written_out if end - begin <= SHORT else _by_kernel
            found = way(q, k, v, o, g, sums, scale=ctx.scale)
            for into, gradient in zip(made, found, strict=True):
                shares = into.shape[1]
                grouped = gradient.reshape(shares, heads // shares, *gradient.shape[-2:])
                total = grouped.sum(dim=1) if heads > shares else grouped[:, 0]
                into[number, :, begin:end] = total.to(into.dtype)
        return *made, None, None


def _part(states: Tensor, document: Document, heads: int) -> Tensor:
    """One document of [B, K, T, D] as [1, H, n, D]."""
    number, begin, end = document
    part = states[number : number + 1, :, begin:end]
    groups = heads // part.shape[1]
    return part if groups == 1 else part.repeat_interleave(groups, dim=1)


def _empty(states: Tensor) -> Tensor:
    """Zeros like [B, K, T, D], laid out as the projections give them: [B, T, K, D]."""
    batch, heads, tokens, size = states.shape
    return states.new_zeros(batch, tokens, heads, size).transpose(1, 2)


def _by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    gradient: Tensor,
    sums: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
        gradient, query, key, value, output, sums, 0.0, True, scale=scale
    )


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    gradient: Tensor,
    sums: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    """Gradients of q, k and v [H, n, D] by the products that define them, in fp32."""
    q, k, v, o, g = (states[0].float() for states in (query, key, value, output, gradient))
    scores_HNN = torch.bmm(q, k.transpose(1, 2)).mul_(scale).sub_(sums[0].unsqueeze(-1))
    shares_HNN = scores_HNN.exp_().tril_()
    into_v = torch.bmm(shares_HNN.transpose(1, 2), g)
    into_HNN = torch.bmm(g, v.transpose(1, 2)).sub_((g * o).sum(dim=-1, keepdim=True))
    into_HNN.mul_(shares_HNN).mul_(scale)
    return torch.bmm(into_HNN, k), torch.bmm(into_HNN.transpose(1, 2), q), into_v
