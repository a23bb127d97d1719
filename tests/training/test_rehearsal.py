"""The longest batch that runs first leaves no trace in the run, but finds what memory it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qtune import optim
from qtune.oom import OutOfMemory
from qtune.recipe.steps import OptimSection
from qtune.training import RehearsalEvent, ShrinkEvent, fit, rehearsal
from tests.training.failing import Failing
from tests.training.learning import LENGTHS, learner
from tests.training.test_shrinking import STEPS, _all, _equal, _job, _told

OPTIMIZERS = ("adamw_8bit", "paged_adamw_32bit", "ademamix_8bit", "lion_8bit", "adamw", "sgd")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "CPU_SHARE", 1.0)


def _with(folder: Path, name: str, **settings: Any) -> Any:
    job = _job(folder, **settings)
    section = OptimSection.model_validate({"name": name, "learning_rate": 1e-2})
    groups = job.method.param_groups(learning_rate=1e-2, weight_decay=0.0)
    object.__setattr__(job, "optimizer", optim.make(section, groups))
    return job


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_run_is_bit_equal_to_one_without_it(tiny_folder: Path, name: str) -> None:
    plain = _with(tiny_folder, name)
    told = _told(list(fit(plain)))
    job = _with(tiny_folder, name, rehearse=True)
    events = list(fit(job))
    assert _told(events) == told
    assert _equal(job, plain)
    first = events[0]
    assert isinstance(first, RehearsalEvent)
    assert (first.rows, first.length) == (4, max(LENGTHS))


@pytest.mark.usefixtures("always")
def test_it_is_the_first_thing_and_changes_nothing(tiny_folder: Path) -> None:
    loss = Failing(lambda *_: False)
    job = _job(tiny_folder, loss=loss, rehearse=True, evaluate=lambda: {"loss": 1.0})
    job.model.eval()
    before, random = job.method.adapter_state(), torch.get_rng_state()
    events = fit(job)
    assert isinstance(next(events), RehearsalEvent)
    assert loss.seen == [4]
    assert not job.model.training
    assert torch.equal(torch.get_rng_state(), random)
    after = job.method.adapter_state()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in job.method.parameters().values())
    events.close()


@pytest.mark.usefixtures("always")
def test_the_states_of_the_optimizer_are_there_beside_it(tiny_folder: Path) -> None:
    sizes: list[int] = []

    class Looking(Failing):
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            sizes.append(optim.state_bytes(job.optimizer))
            return super().__call__(*arguments, **keywords)

    job = _job(tiny_folder, loss=Looking(lambda *_: False), rehearse=True)
    list(fit(job))
    assert sizes[0] == sizes[-1] > 0


@pytest.mark.usefixtures("always")
def test_memory_that_is_not_enough_is_found_before_anything_else(tiny_folder: Path) -> None:
    def evaluate() -> dict[str, float]:
        raise AssertionError

    loss = Failing(lambda *_: True, backward=True)
    tokens = 4 * max(LENGTHS)
    with pytest.raises(OutOfMemory, match=f"in the backward pass of {tokens} tokens"):
        list(fit(_job(tiny_folder, loss=loss, rehearse=True, evaluate=evaluate)))
    assert loss.seen == [4]


@pytest.mark.usefixtures("always")
def test_the_run_begins_with_micro_batches_that_fit(tiny_folder: Path) -> None:
    small = _job(tiny_folder, micro=2)
    told = _told(list(fit(small)))
    loss = Failing(lambda batch, _: batch.input_ids.shape[0] > 2)
    job = _job(tiny_folder, loss=loss, rehearse=True, shrinks=True)
    events = list(fit(job))
    assert isinstance(events[0], ShrinkEvent)
    assert (events[0].step, events[0].before, events[0].rows) == (0, 4, 2)
    assert isinstance(events[1], RehearsalEvent)
    assert events[1].rows == 2
    assert _told(events) == told
    assert _equal(job, small)


def test_a_cpu_does_not_compute_a_large_part_of_a_run_twice(tiny_folder: Path) -> None:
    loss = Failing(lambda *_: False)
    events = list(fit(_job(tiny_folder, loss=loss, rehearse=True)))
    assert not any(isinstance(event, RehearsalEvent) for event in events)
    assert len(_told(events)) == STEPS


@pytest.mark.usefixtures("always")
def test_nothing_is_rehearsed_when_no_step_is_left(tiny_folder: Path) -> None:
    assert list(fit(_job(tiny_folder, rehearse=True, start=STEPS))) == []


@pytest.mark.parametrize(("name", "each"), [("adamw", 2), ("sgd", 1)])
def test_states_that_torch_makes_itself_are_stood_in_for(
    tiny_folder: Path, name: str, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, method = learner(tiny_folder)
    section = OptimSection.model_validate({"name": name, "learning_rate": 1e-2})
    groups = method.param_groups(learning_rate=1e-2, weight_decay=0.0)
    optimizer, made = optim.make(section, groups), []
    zeros = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like: made.append(like.nbytes) or zeros(like))
    with optim.states_held(optimizer):
        assert sum(made) == each * sum(p.nbytes for p in method.parameters().values())
    monkeypatch.undo()
    for parameter in method.parameters().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    counted = optim.state_bytes(optimizer)
    assert 0 <= counted - sum(made) <= 8 * len(made)  # and a step counter a tensor
    made.clear()
    with optim.states_held(optimizer):
        assert made == []


def test_nothing_of_a_checkpoint_is_made_again(tiny_folder: Path) -> None:
    job = _job(tiny_folder)
    list(fit(job))
    before = _all(job)
    with optim.states_held(job.optimizer):
        after = _all(job)
    assert all(torch.equal(after[name], before[name]) for name in before)
