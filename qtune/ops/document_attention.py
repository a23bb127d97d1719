"""Causal attention inside each document of a batch, on a CPU: one small product a document.

Legend: B sequences, H heads, K key-value heads (H is a multiple), T tokens, n of one document, D
head size. `plain` is sdpa with a mask over all T x T pairs; `fused` computes a document's pairs
alone. What belongs to no document (padding) comes out as zeros. A document may see a prefix that it
shares with others: both parts are computed apart and joined by their log-sums, as blocks of keys
are (Dao et al. 2022); with those of the whole, each part's backward pass is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

# Up to so many tokens the products of the backward pass, written out, are faster than the flash
# kernel's (7 x at 32 tokens, 2.8 x at 123, 1.4 x at 240, 1.1 x at 400), and no less exact.
SHORT = 400


class Document(NamedTuple):
    """Tokens [begin, end) of one sequence of a batch, behind a prefix [prefix, prefix_end)."""

    sequence: int
    begin: int
    end: int
    prefix: int = 0
    prefix_end: int = 0


def documents_of(mask_BTT: Tensor) -> tuple[Document, ...] | None:
    """The documents that a boolean attention mask [B, 1, T, T] isolates; None if it does more.

    A query that does not see itself is padding. One sees a run of tokens up to itself, and may see
    one run before that, its prefix.
    """
    if mask_BTT.dtype != torch.bool or mask_BTT.dim() != 4 or mask_BTT.shape[1] != 1:
        return None
    seen_BTT = mask_BTT[:, 0]
    tokens = seen_BTT.shape[-1]
    if seen_BTT.shape[-2] != tokens:
        return None
    real_BT = seen_BTT.diagonal(dim1=-2, dim2=-1)
    begins_BTT = seen_BTT.clone()
    begins_BTT[..., 1:] &= ~seen_BTT[..., :-1]
    runs_BT = begins_BTT.sum(dim=-1)
    first_BT = begins_BTT.to(torch.uint8).argmax(dim=-1)
    last_BT = tokens - 1 - begins_BTT.flip(-1).to(torch.uint8).argmax(dim=-1)
    own_BT = torch.arange(tokens, device=mask_BTT.device) - last_BT + 1
    behind_BT = torch.where(runs_BT == 2, seen_BTT.sum(dim=-1) - own_BT, 0)
    ahead_BT = seen_BTT.triu(1).any(dim=-1)
    if not ((runs_BT <= 2) & ~ahead_BT)[real_BT].all():
        return None
    prefix_BT = torch.where(behind_BT > 0, first_BT, 0)
    sees = torch.stack([last_BT, prefix_BT, prefix_BT + behind_BT], dim=-1)
    found = [
        Document(number, *run)
        for number, (rows, real) in enumerate(zip(sees.tolist(), real_BT.tolist(), strict=True))
        for run in _runs(rows, real)
    ]
    # a window moves its first token along: then a run does not begin where it looks back to
    if any(last_BT[one.sequence, one.begin] != one.begin for one in found):
        return None
    return tuple(found)


def _runs(sees: list[list[int]], real: list[bool]) -> list[tuple[int, int, int, int]]:
    """(begin, end, prefix, prefix_end) of consecutive real tokens that see the same beginnings."""
    runs: list[tuple[int, int, int, int]] = []
    for at, ((_, *prefix), is_real) in enumerate(zip(sees, real, strict=True)):
        if not is_real:
            continue
        if runs and runs[-1][1] == at and sees[at - 1] == sees[at]:
            runs[-1] = (runs[-1][0], at + 1, *runs[-1][2:])
        else:
            runs.append((at, at + 1, prefix[0], prefix[1]))
    return runs


def plain(
    query: Tensor, key: Tensor, value: Tensor, documents: tuple[Document, ...], *, scale: float
) -> Tensor:
    """[B, H, T, D], twice [B, K, T, D] -> [B, T, H, D]."""
    batch, heads, tokens, _ = query.shape
    mask = torch.zeros(batch, 1, tokens, tokens, dtype=torch.bool, device=query.device)
    for number, begin, end, prefix, prefix_end in documents:
        mask[number, 0, begin:end, begin:end] = True
        mask[number, 0, begin:end, prefix:prefix_end] = True
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
        for number, begin, end, _, _ in documents:
            q = _part(query, number, begin, end, heads)
            made, sums = _attended(q, key, value, (number, begin, end), causal=True, scale=scale)
            output_BTHD[number, begin:end] = made[0].transpose(0, 1)
            sums_BHT[number, :, begin:end] = sums[0]
        for number, begin, end, prefix, prefix_end in _behind_prefixes(documents):
            q = _part(query, number, begin, end, heads)
            seen = (number, prefix, prefix_end)
            more, more_sums = _attended(q, key, value, seen, causal=False, scale=scale)
            made, sums = output_BTHD[number, begin:end], sums_BHT[number, :, begin:end]
            _join(made, sums, more[0].transpose(0, 1), more_sums[0])
        ctx.documents, ctx.scale = documents, scale
        ctx.save_for_backward(query, key, value, output_BTHD, sums_BHT)
        return output_BTHD

    @staticmethod
    def backward(ctx: Any, gradient_BTHD: Tensor) -> tuple[Any, ...]:
        query, key, value, output_BTHD, sums_BHT = ctx.saved_tensors
        heads = query.shape[1]
        output, gradient = output_BTHD.transpose(1, 2), gradient_BTHD.transpose(1, 2)
        made = [_empty(states) for states in (query, key, value)]

        def part(asking: Document, begin: int, end: int, *, causal: bool) -> list[Tensor]:
            """What flows to the asking queries and to the keys and values in [begin, end)."""
            number, at, until, _, _ = asking
            q, o, g = (
                _part(states, number, at, until, heads) for states in (query, output, gradient)
            )
            k, v = (_part(states, number, begin, end, heads) for states in (key, value))
            sums = sums_BHT[number : number + 1, :, at:until].contiguous()
            way = _written_out if q.shape[2] * k.shape[2] <= SHORT**2 else _by_kernel
            found = way(q, k, v, o, g, sums, causal=causal, scale=ctx.scale)
            return [_by_share(each, i.shape[1]) for each, i in zip(found, made, strict=True)]

        for document in ctx.documents:
            number, begin, end, _, _ = document
            for into, found in zip(made, part(document, begin, end, causal=True), strict=True):
                into[number, :, begin:end] = found
        for run in _behind_prefixes(ctx.documents):
            number, begin, end, prefix, prefix_end = run
            places = [(begin, end), (prefix, prefix_end), (prefix, prefix_end)]
            more = part(run, prefix, prefix_end, causal=False)
            for into, found, place in zip(made, more, places, strict=True):
                into[number, :, slice(*place)] += found
        return *made, None, None


def _behind_prefixes(documents: tuple[Document, ...]) -> list[Document]:
    """Neighbouring documents behind the same prefix as one, whose queries all see it whole."""
    runs: list[Document] = []
    for document in documents:
        sequence, begin, end, *prefix = document
        if not document.prefix_end:
            continue
        if runs and [runs[-1].sequence, runs[-1].end, *runs[-1][3:]] == [sequence, begin, *prefix]:
            runs[-1] = runs[-1]._replace(end=end)
        else:
            runs.append(document)
    return runs


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: tuple[int, int, int],
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """([1, H, n, D], log-sums [1, H, n]) of queries [1, H, n, D] over tokens of one sequence."""
    k, v = (_part(states, *seen, query.shape[1]) for states in (key, value))
    made, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, k, v, 0.0, causal, scale=scale
    )
    return made, sums


def _join(made_nHD: Tensor, sums_Hn: Tensor, more_nHD: Tensor, more_Hn: Tensor) -> None:
    """Attention over two runs of keys from that over each, in place of the first."""
    total_Hn = torch.logaddexp(sums_Hn, more_Hn)
    share_nH1 = (more_Hn - total_Hn).exp_().t().unsqueeze(-1)
    made_nHD.copy_(torch.lerp(made_nHD.float(), more_nHD.float(), share_nH1))
    sums_Hn.copy_(total_Hn)


def _by_share(gradient: Tensor, shares: int) -> Tensor:
    """[.., H, n, D] -> [K, n, D]: queries of a group share their keys and values."""
    grouped = gradient.reshape(shares, -1, *gradient.shape[-2:])
    return grouped.sum(dim=1) if grouped.shape[1] > 1 else grouped[:, 0]


def _part(states: Tensor, sequence: int, begin: int, end: int, heads: int) -> Tensor:
    """Tokens of one sequence of [B, K, T, D] as [1, H, n, D]."""
    part = states[sequence : sequence + 1, :, begin:end]
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
    causal: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
        gradient, query, key, value, output, sums, 0.0, causal, scale=scale
    )


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    gradient: Tensor,
    sums: Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    """Gradients of q [H, n, D], k and v [H, m, D] by the products that define them, in fp32.

    In bf16 they are no faster at these sizes, and oneDNN would keep a kernel for each length.
    """
    q, k, v, o, g = (states[0].float() for states in (query, key, value, output, gradient))
    shares_HNN = torch.bmm(q, k.transpose(1, 2)).mul_(scale).sub_(sums[0].unsqueeze(-1)).exp_()
    if causal:
        shares_HNN.tril_()
    into_HNN = torch.bmm(g, v.transpose(1, 2)).sub_((g * o).sum(dim=-1, keepdim=True))
    into_HNN.mul_(shares_HNN).mul_(scale)
    return (
        torch.bmm(into_HNN, k),
        torch.bmm(into_HNN.transpose(1, 2), q),
        torch.bmm(shares_HNN.transpose(1, 2), g),
    )
