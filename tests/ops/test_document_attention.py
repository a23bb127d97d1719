"""Attention document by document is attention under the mask that isolates them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from qtune.ops import document_attention
from qtune.ops.document_attention import SHORT, Document, documents_of

SIZE, SCALE = 8, 0.3


def masks(lengths: list[list[int]], tokens: int) -> torch.Tensor:
    """[B, 1, T, T] for documents behind one another, padding behind them."""
    mask = torch.zeros(len(lengths), 1, tokens, tokens, dtype=torch.bool)
    for number, row in enumerate(lengths):
        at = 0
        for length in row:
            mask[number, 0, at : at + length, at : at + length] = True
            at += length
    return mask.tril()


def laid_out(lengths: list[list[int]]) -> tuple[Document, ...]:
    return tuple(
        Document(number, sum(row[:index]), sum(row[: index + 1]))
        for number, row in enumerate(lengths)
        for index in range(len(row))
    )


rows = some.lists(some.lists(some.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(lengths=rows, padding=some.integers(0, 5))
def test_documents_are_read_off_the_mask(lengths: list[list[int]], padding: int) -> None:
    tokens = max(map(sum, lengths)) + padding
    assert documents_of(masks(lengths, tokens)) == laid_out(lengths)


def test_padded_rows_as_transformers_masks_them() -> None:
    seen = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    seen[1, :, :, 4:] = False  # padding still sees the row before it
    assert documents_of(seen) == (Document(0, 0, 6), Document(1, 0, 4))


@pytest.mark.parametrize("change", ["window", "hole", "ahead", "float"])
def test_other_masks_are_left_to_the_kernel(change: str) -> None:
    mask = masks([[6]], 6)
    if change == "window":
        mask = mask.triu(-2)
    elif change == "hole":
        mask[0, 0, 4, 2] = False
    elif change == "ahead":
        mask[0, 0, 1, 3] = True
    else:
        mask = mask.float()
    assert documents_of(mask) is None


def gradients(
    way: object, heads: int, shares: int, lengths: list[list[int]], dtype: torch.dtype
) -> list[torch.Tensor]:
    tokens = max(map(sum, lengths))
    draw = torch.Generator().manual_seed(tokens)
    states = [
        torch.randn(len(lengths), tokens, count, SIZE, generator=draw)
        .to(torch.bfloat16)
        .to(dtype)
        .requires_grad_()
        for count in (heads, shares, shares)
    ]
    output = way(*(s.transpose(1, 2) for s in states), laid_out(lengths), scale=SCALE)
    seed = torch.randn(output.shape, generator=draw).to(torch.bfloat16).to(dtype)
    return [output.detach().double()] + [
        found.double() for found in torch.autograd.grad(output, states, seed)
    ]


def worst(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    return [
        float((one - other).norm() / other.norm().clamp_min(1e-30))
        for one, other in zip(found, expected, strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(lengths=rows, shares=some.sampled_from([1, 2, 4]))
def test_fused_is_plain(lengths: list[list[int]], shares: int) -> None:
    given_ = (4, shares, lengths, torch.float32)
    fused = gradients(document_attention.fused, *given_)
    plain = gradients(document_attention.plain, *given_)
    for found, expected in zip(fused, plain, strict=True):
        assert (found - expected).norm() <= 2e-6 * expected.norm() + 1e-6


PREFIXED = (
    Document(0, 0, 9),  # a prefix of six, and the first row behind it
    Document(0, 9, 14, 0, 6),
    Document(0, 14, 15, 0, 6),
    Document(1, 0, 3),
    Document(1, 3, 8),
    Document(1, 8, 13, 3, 5),
)


def prefixed(way: object, shares: int, dtype: torch.dtype) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    states = [
        torch.randn(2, count, 15, SIZE, generator=draw).to(dtype).requires_grad_()
        for count in (4, shares, shares)
    ]
    output = way(*states, PREFIXED, scale=SCALE)  # type: ignore[operator]
    seed = torch.randn(output.shape, generator=draw).to(dtype)
    found = torch.autograd.grad(output, states, seed)
    return [output.detach().double(), *(each.double() for each in found)]


@pytest.mark.parametrize("shares", [1, 2, 4])
@pytest.mark.parametrize("short", [SHORT, 0])
def test_a_shared_prefix_is_seen_by_all_its_rows(
    shares: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_attention, "SHORT", short)
    found = prefixed(document_attention.fused, shares, torch.float32)
    wanted = prefixed(document_attention.plain, shares, torch.float64)
    assert all(error < 2e-6 for error in worst(found, wanted))
    rounded = prefixed(document_attention.fused, shares, torch.bfloat16)
    plain = prefixed(document_attention.plain, shares, torch.bfloat16)
    pairs = zip(worst(rounded, wanted), worst(plain, wanted), strict=True)
    assert all(ours <= 1.2 * theirs + 1e-3 for ours, theirs in pairs)


def test_prefixes_are_read_off_the_mask() -> None:
    mask = torch.zeros(2, 1, 15, 15, dtype=torch.bool)
    for number, begin, end, prefix, prefix_end in PREFIXED:
        mask[number, 0, begin:end, begin:end] = True
        mask[number, 0, begin:end, prefix:prefix_end] = True
    assert documents_of(mask.tril()) == PREFIXED


@pytest.mark.parametrize("length", [SHORT, SHORT + 31])
def test_bf16_rounds_no_worse_than_plain(length: int) -> None:
    given_ = (4, 2, [[length, 7]])
    truth = gradients(document_attention.plain, *given_, torch.float64)
    plain = worst(gradients(document_attention.plain, *given_, torch.bfloat16), truth)
    fused = worst(gradients(document_attention.fused, *given_, torch.bfloat16), truth)
    assert all(ours <= 1.1 * theirs for ours, theirs in zip(fused, plain, strict=True))


def test_padding_is_zero_and_gets_nothing() -> None:
    states = [torch.randn(1, 2, 9, SIZE, requires_grad=True) for _ in range(3)]
    output = document_attention.fused(*states, (Document(0, 0, 5),), scale=SCALE)
    output.sum().backward()
    assert not output[0, 5:].any()
    assert all(not part.grad[0, :, 5:].any() for part in states)
