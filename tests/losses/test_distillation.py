"""A student under a teacher: whole passes of tiny models."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune.data.batch import Batch, collate
from qtune.data.rows import EncodedRow
from qtune.losses import CausalLoss, DistillationLoss, Teacher
from tests.losses.largest import Largest
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = 320


def _batch(lengths: tuple[int, ...] = (12, 9, 6), seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        rows.append(EncodedRow(ids, [-100, -100, *ids[2:]], f"row:{number}"))
    return collate(rows, pad_id=2)


def _grads(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def _kl(teacher: Any, student: Any, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
    """Summed KL(teacher || student) over the supervised positions, of whole fp64 logits."""
    with torch.no_grad():
        logits = [m(**batch.inputs()).logits.double() / temperature for m in (teacher, student)]
    t, s = (each.flatten(0, 1)[batch.learnt].log_softmax(1) for each in logits)
    return (t.exp() * (t - s)).sum()


def test_sum_is_that_of_whole_logits() -> None:
    student, teacher = tiny_llama(1).train(), tiny_llama(2, hidden_size=96).eval()
    batch = _batch()
    loss = DistillationLoss(Teacher(teacher), chunk_size=5, temperature=2.0, soft_share=0.3)
    output = loss(student, batch)
    hard = CausalLoss(chunk_size=5)(student, batch)
    exact = 0.7 * hard.sum.double() + 0.3 * 4.0 * _kl(teacher, student, batch, 2.0)
    assert output.count == hard.count == 10 + 7 + 4
    torch.testing.assert_close(output.sum.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_teacher_that_is_the_student_gives_nothing() -> None:
    student = tiny_llama(1).train()
    loss = DistillationLoss(Teacher(tiny_llama(1).eval()), chunk_size=5, soft_share=1.0)
    total = loss(student, _batch()).sum
    total.backward()
    assert abs(total.item()) < 1e-6
    assert max(float(grad.abs().max()) for grad in _grads(student).values()) < 1e-5


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_accumulated_is_whole(divergence: Any) -> None:
    teacher = Teacher(tiny_llama(2).eval())
    loss = DistillationLoss(teacher, chunk_size=5, divergence=divergence)
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in (12, 9, 6)]
    rows = [EncodedRow(each, [-100, -100, *each[2:]], "row") for each in ids]
    found = []
    for parts in ([rows], [rows[:1], rows[1:]]):
        student = tiny_llama(1).train()
        batches = [collate(part, pad_id=2) for part in parts]
        count = sum(batch.supervised for batch in batches)
        total = 0.0
        for batch in batches:
            output = loss(student, batch, divisor=count)
            (output.sum / count).backward()
            total += output.sum.item()
        found.append((torch.tensor(total), _grads(student)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_nothing_of_all_tokens_and_the_vocabulary_is_ever_made() -> None:
    student, teacher = tiny_llama(1, vocab_size=4096), tiny_llama(2, vocab_size=4096).eval()
    student.requires_grad_(requires_grad=False)
    student.model.norm.weight.requires_grad_()
    with Largest(student, teacher) as mode:
        DistillationLoss(Teacher(teacher), chunk_size=4)(student, _batch()).sum.backward()
    assert mode.elements == 4 * 4096
    assert student.model.norm.weight.grad is not None


def test_a_teacher_that_is_the_student_alone_answers_without_dropout() -> None:
    student = tiny_llama(1, attention_dropout=0.5).train()
    entered = []

    @contextmanager
    def alone() -> Iterator[None]:
        entered.append(student.training)
        yield

    batch = _batch()
    teacher = Teacher(student, alone=alone)
    state = torch.get_rng_state()
    first, second = teacher.hidden(batch), teacher.hidden(batch)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert student.training
    assert len(entered) == 2
    assert not first.requires_grad


def test_a_student_gets_nearer_to_its_teacher() -> None:
    student, teacher = tiny_llama(1).train(), tiny_llama(2).eval()
    with torch.no_grad():
        teacher.lm_head.weight.mul_(8.0)  # a teacher with something to say
    batch = _batch((40, 40, 40))
    loss = DistillationLoss(Teacher(teacher), chunk_size=64, temperature=1.0, soft_share=1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    before = _kl(teacher, student, batch)
    for _ in range(15):
        optimizer.zero_grad()
        output = loss(student, batch)
        (output.sum / output.count).backward()
        optimizer.step()
    assert _kl(teacher, student, batch) < 0.5 * before
