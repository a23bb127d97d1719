"""Memory that runs out in a step: the step done again in smaller micro-batches is that step."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qtune import optim
from qtune.errors import ResourceError
from qtune.losses import CausalLoss
from qtune.oom import BACKWARD, FORWARD, OutOfMemory
from qtune.recipe.steps import OptimSection
from qtune.training import Job, ShrinkEvent, StepEvent, fit, training_state
from tests.training.failing import Failing
from tests.training.learning import feed_of, learner, uneven_rows

STEPS = 4


def _job(folder: Path, *, micro: int = 4, capacity: int | None = None, **settings: Any) -> Job:
    torch.manual_seed(3)
    model, method = learner(folder)
    for adapter in method.adapters.values():
        adapter.dropout = 0.2  # type: ignore[assignment]
    section = OptimSection.model_validate({"name": "adamw_8bit", "learning_rate": 1e-2})
    groups = method.param_groups(learning_rate=1e-2, weight_decay=0.0)
    values: dict[str, Any] = {
        "model": model,
        "method": method,
        "loss": CausalLoss(chunk_size=16),
        "optimizer": optim.make(section, groups),
        "schedule": optim.schedule(section, total_steps=STEPS, warmup_steps=1),
        "feed": feed_of(uneven_rows(), batch_size=8, micro_batch_size=micro, capacity=capacity),
        "total_steps": STEPS,
        "steps_per_epoch": 2,
        "max_grad_norm": 1.0,
    }
    return Job(**(values | settings))


def _all(job: Job) -> dict[str, torch.Tensor]:
    tensors, _ = training_state(job.method, job.optimizer)
    return job.method.adapter_state() | tensors


def _equal(mine: Job, theirs: Job) -> bool:
    one, other = _all(mine), _all(theirs)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _told(events: list[Any]) -> list[tuple[float, float, int]]:
    return [(e.loss, e.grad_norm, e.tokens) for e in events if isinstance(e, StepEvent)]


def _switched(folder: Path, *, at: int, rows: int, **settings: Any) -> tuple[Job, list[Any]]:
    """The first `at` steps as planned, the others in micro-batches of `rows`, without a fault."""
    job = _job(folder, **settings)
    events = list(fit(replace(job, total_steps=at)))
    rest = replace(job, start=at, feed=job.feed.resized(rows))
    return job, events + list(fit(rest))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("capacity", [None, 24], ids=["padded", "packed"])
def test_the_rest_is_bit_equal_to_a_run_that_changed_there_by_itself(
    tiny_folder: Path, capacity: int | None, backward: bool
) -> None:
    def fails(batch: Any, call: int) -> bool:
        return batch.input_ids.shape[0] > most and call > before

    reference, events = _switched(tiny_folder, at=2, rows=2, capacity=capacity)
    plain = Failing(lambda *_: False)
    list(fit(replace(_job(tiny_folder, capacity=capacity, loss=plain), total_steps=2)))
    # the first micro-batch of the step that fails goes through, the second one does not
    before, most = plain.calls + (0 if capacity else 1), 2
    job = _job(tiny_folder, capacity=capacity, loss=Failing(fails, backward=backward), shrinks=True)
    found = list(fit(job))
    assert _told(found) == _told(events)
    assert _equal(job, reference)
    shrunk = [event for event in found if isinstance(event, ShrinkEvent)]
    assert [(e.step, e.before, e.rows) for e in shrunk] == [(2, 4, 2)]
    assert shrunk[0].where.startswith(BACKWARD if backward else FORWARD)


def test_to_begin_with_small_ones_is_the_same_but_for_rounding(tiny_folder: Path) -> None:
    def run(**settings: Any) -> list[tuple[float, float, int]]:
        job = _job(tiny_folder, **settings)
        for adapter in job.method.adapters.values():
            adapter.dropout = 0.0  # type: ignore[assignment]
        return _told(list(fit(job)))

    small = run(micro=1)
    shrunk = run(loss=Failing(lambda batch, _: batch.input_ids.shape[0] > 1), shrinks=True)
    for (loss, norm, tokens), (loss_small, norm_small, tokens_small) in zip(
        shrunk, small, strict=True
    ):
        assert loss == pytest.approx(loss_small, abs=1e-4)
        assert norm == pytest.approx(norm_small, rel=1e-3)
        assert tokens == tokens_small


def test_it_halves_until_it_fits_and_no_further(tiny_folder: Path) -> None:
    loss = Failing(lambda batch, _: batch.input_ids.shape[0] > 1)
    events = list(fit(_job(tiny_folder, loss=loss, shrinks=True)))
    sizes = [event.rows for event in events if isinstance(event, ShrinkEvent)]
    assert sizes == [2, 1]
    assert loss.seen[:3] == [4, 2, 1]
    assert set(loss.seen[2:]) == {1}
    assert len(_told(events)) == STEPS


def test_one_row_that_does_not_fit_is_an_error(tiny_folder: Path) -> None:
    job = _job(tiny_folder, loss=Failing(lambda *_: True), shrinks=True)
    with pytest.raises(OutOfMemory, match=r"in the forward pass of \d+ tokens: 3.22 GB more") as e:
        list(fit(job))
    assert isinstance(e.value, ResourceError)
    assert e.value.asked == 3 * 2**30


def test_unless_asked_it_is_an_error_and_nothing_has_changed(tiny_folder: Path) -> None:
    reference = _job(tiny_folder)
    list(fit(replace(reference, total_steps=2)))
    job = _job(tiny_folder, loss=Failing(lambda _, call: call == 6))
    with pytest.raises(OutOfMemory):
        list(fit(job))
    assert _equal(job, reference)  # random generators, too
    assert all(parameter.grad is None for parameter in job.method.parameters().values())


def test_an_update_that_lacks_memory_is_not_done_again(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("qtune.training.step.step_unless", refuse)
    job = _job(tiny_folder, shrinks=True)
    with pytest.raises(OutOfMemory, match="in the optimizer's update"):
        list(fit(job))


def test_what_the_failed_pass_held_is_free_before_the_next(tiny_folder: Path) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    counts: list[int] = []

    class Holding(Failing):
        def __call__(self, model: Any, batch: Any, *, divisor: float = 1.0) -> Any:
            counts.append(sum(one() is not None for one in alive))
            large = torch.zeros(8)
            alive.append(weakref.ref(large))
            return super().__call__(model, batch, divisor=divisor)

    loss = Holding(lambda _, call: call == 2)
    list(fit(_job(tiny_folder, loss=loss, shrinks=True)))
    assert counts[2] == 0


def test_no_thread_of_a_feed_stays(tiny_folder: Path) -> None:
    before = threading.active_count()
    loss = Failing(lambda batch, _: batch.input_ids.shape[0] > 2)
    list(fit(_job(tiny_folder, loss=loss, shrinks=True)))
    assert threading.active_count() == before
