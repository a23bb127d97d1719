"""Rows that begin alike: which, how far, and what the model is given of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtune.data import EncodedRow
from qtune.data.batch import collate_packed, collate_shared
from qtune.data.rows import IGNORED
from qtune.data.sharing import LEAST, Group, groups, mask_of, saved, shareable
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from collections.abc import Sequence


def row(ids: Sequence[int], prompt: int, place: str = "x:1") -> EncodedRow:
    labels = [IGNORED] * prompt + list(ids[prompt:])
    return EncodedRow(input_ids=list(ids), labels=labels, place=place)


PREFIX = list(range(100, 112))


def test_a_common_beginning_is_shared_up_to_what_predicts() -> None:
    one, two = row([*PREFIX, 1, 2, 3], 13), row([*PREFIX, 4, 5], 12)
    assert shareable(one) == 12
    assert shareable(two) == 11, "the last of the prompt predicts the answer's first token"
    assert groups([one, two]) == [Group((0, 1), 11)]


def test_two_beginnings_are_two_groups_when_that_saves_more() -> None:
    other = [*PREFIX[:9], *range(50, 60)]
    rows = [row([*start, n, n], len(start) + 1) for n in (1, 2, 3) for start in (PREFIX, other)]
    assert groups(rows) == [Group((0, 2, 4), 12), Group((1, 3, 5), 19)]
    # but one of nine tokens with all is more than two of twelve and nineteen for one row each
    assert groups(rows[:2]) == [Group((0, 1), 9)]


def test_little_and_nothing_is_not_shared() -> None:
    short = PREFIX[: LEAST - 1]
    rows = [row([*short, n, n], len(short) + 1) for n in (1, 2)] + [row([7, 8, 9], 1)]
    found = groups(rows)
    assert sorted(found) == [Group((0,), 0), Group((1,), 0), Group((2,), 0)]
    assert saved(found) == 0


def test_a_row_learnt_from_its_start_shares_nothing() -> None:
    rows = [row([*PREFIX, n], 0) for n in (1, 2)]
    assert [shareable(one) for one in rows] == [0, 0]


def test_what_the_model_is_given() -> None:
    rows = [row([*PREFIX, 1, 2, 3], 13, "a:1"), row([7, 8, 9], 1, "a:2"), row([*PREFIX, 4, 5], 13)]
    batch = collate_shared(rows)
    ids = [*PREFIX, 1, 2, 3, 4, 5, 7, 8, 9]
    assert batch.input_ids.tolist() == [ids]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[*range(12), 12, 13, 14, 12, 13, 0, 1, 2]]
    no = IGNORED
    assert batch.labels.tolist() == [[no] * 12 + [no, 2, 3] + [no, 5] + [no, 8, 9]]
    assert batch.tokens == sum(len(one.input_ids) for one in rows)
    assert batch.shared == 12
    assert batch.computed == batch.tokens - 12
    assert batch.places == ["a:1", "x:1", "a:2"]
    assert batch.attention_mask is not None
    seen = batch.attention_mask[0, 0]
    assert seen[13].nonzero().flatten().tolist() == [*range(14)]
    assert seen[16].nonzero().flatten().tolist() == [*range(12), 15, 16]
    assert seen[19].nonzero().flatten().tolist() == [17, 18, 19]


def test_a_mask_of_spans() -> None:
    mask = mask_of(4, [(0, 2, 0, 0), (2, 4, 0, 2)])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[0, 0].int().tolist() == expected


@st.composite
def some_rows(draw: st.DrawFn) -> list[EncodedRow]:
    starts = draw(st.lists(st.lists(st.integers(3, 9), max_size=14), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.sampled_from(starts))
        rest = draw(st.lists(st.integers(3, 319), min_size=2, max_size=9))
        ids = [*start, *rest]
        rows.append(row(ids, draw(st.integers(0, len(ids) - 1))))
    return rows


@settings(max_examples=20, deadline=None)
@given(some_rows())
def test_losses_and_gradients_are_those_of_the_rows_apart(rows: list[EncodedRow]) -> None:
    """Against the same model on rows packed behind one another, none of them shared."""
    model = tiny_llama(num_hidden_layers=1)
    found = []
    for batch in (collate_shared(rows), collate_packed([rows], pad_id=2)):
        model.zero_grad()
        out = model(**batch.inputs(), use_cache=False)
        flat = out.logits.flatten(0, 1)
        labels = batch.labels.flatten()
        loss = torch.nn.functional.cross_entropy(
            flat[batch.learnt], labels[batch.learnt + 1], reduction="sum"
        )
        loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        found.append((loss.detach(), batch.supervised, batch.tokens, gradients))
    (loss, count, tokens, gradients), (wanted, counted, real, others) = found
    assert (count, tokens) == (counted, real)
    assert torch.allclose(loss, wanted, rtol=1e-6)
    for one, other in zip(gradients, others, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
