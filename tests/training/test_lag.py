"""A device that is behind the host: the same run, told a step later, and no update after a stop."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtune import optim
from qtune.errors import DivergedError
from qtune.losses import CausalLoss
from qtune.recipe.steps import OptimSection
from qtune.training import Boundary, Job, StepEvent, Watchdog, fit
from qtune.training.reading import Reading
from tests.training.learning import feed_of, learner, uneven_rows

NUMBERS = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, math.inf, math.nan])


def _job(folder: Path, name: str = "adamw", **settings: Any) -> Job:
    model, method = learner(folder)
    section = OptimSection.model_validate({"name": name, "learning_rate": 1e-2})
    optimizer = optim.make(section, method.param_groups(learning_rate=1e-2, weight_decay=0.0))
    values: dict[str, Any] = {
        "model": model,
        "method": method,
        "loss": CausalLoss(chunk_size=64),
        "optimizer": optimizer,
        "schedule": lambda _: 1.0,
        "feed": feed_of(uneven_rows(), batch_size=4, micro_batch_size=2),
        "total_steps": 7,
        "steps_per_epoch": 4,
        "max_grad_norm": 1.0,
        "due": lambda _: False,
    }
    return Job(**(values | settings))


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is ever there before somebody waits for it."""
    monkeypatch.setattr(Reading, "ready", lambda _: False)


def _told(events: list[Any]) -> list[str]:
    names = {StepEvent: "step", Boundary: "boundary"}
    return [f"{names.get(type(event), 'eval')} {event.step}" for event in events]


@pytest.mark.usefixtures("behind")
def test_a_step_is_told_while_the_next_one_runs(tmp_path: Path, tiny_folder: Path) -> None:
    del tmp_path
    told = _told(list(fit(_job(tiny_folder, due=lambda step: step == 3))))
    assert told == [
        *("step 1", "step 2", "step 3", "boundary 3"),
        *("step 4", "step 5", "step 6", "step 7", "boundary 7"),
    ]


@pytest.mark.usefixtures("behind")
def test_an_evaluation_waits_for_its_step(tiny_folder: Path) -> None:
    job = _job(tiny_folder, evaluate=lambda: {"loss": 1.0}, evaluate_every=3, total_steps=4)
    told = _told(list(fit(job)))
    assert told == [
        *("eval 0", "boundary 0", "step 1", "step 2", "step 3", "eval 3", "boundary 3"),
        *("step 4", "eval 4", "boundary 4"),
    ]


def test_losses_and_weights_are_those_of_a_device_that_keeps_up(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = _job(tiny_folder)
    steps = [event for event in fit(prompt) if isinstance(event, StepEvent)]
    monkeypatch.setattr(Reading, "ready", lambda _: False)
    late = _job(tiny_folder)
    others = [event for event in fit(late) if isinstance(event, StepEvent)]
    assert [(e.step, e.loss, e.grad_norm) for e in steps] == [
        (e.step, e.loss, e.grad_norm) for e in others
    ]
    assert all(one.seconds > 0 for one in others)
    for name, tensor in late.method.adapter_state().items():
        assert torch.equal(tensor, prompt.method.adapter_state()[name])


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize("name", ["adamw", "adamw fused", "paged_adamw_8bit"])
def test_no_update_is_made_from_the_bad_step_on(tiny_folder: Path, name: str) -> None:
    name, _, fused = name.partition(" ")
    job = _job(tiny_folder, name)
    if fused:
        for group in job.optimizer.param_groups:
            group |= {"fused": True, "foreach": False}
    first = next(iter(job.method.parameters().values()))
    calls: list[dict[str, torch.Tensor]] = []

    def spoil(step: int) -> None:
        calls.append({key: value.clone() for key, value in job.method.adapter_state().items()})
        if step == 3:
            first.grad[0, 0] = float("inf")

    job.method.after_backward = spoil  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"step 4: .* no update was made") as caught:
        list(fit(job))
    assert len(calls) == 5  # the fifth step ran before the fourth's numbers were read
    assert len(caught.value.rows) == 4
    for key, value in job.method.adapter_state().items():
        assert torch.equal(value, calls[3][key])
        assert torch.equal(value, calls[4][key])
    for one, other in pairwise(calls[:4]):
        assert any(not torch.equal(one[key], other[key]) for key in one)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8), st.integers(1, 3))
def test_the_device_judges_as_the_host(numbers: list[tuple[float, float]], patience: int) -> None:
    host = Watchdog(loss_limit=1.0, grad_norm_limit=1.5, patience=patience)
    device = Watchdog(loss_limit=1.0, grad_norm_limit=1.5, patience=patience)
    stopped = False
    for step, (loss, norm) in enumerate(numbers):
        stop = bool(device.judge(torch.tensor(loss), torch.tensor(norm)))
        if not stopped:
            try:
                host.check(loss, norm, step=step, micro_batches=[])
            except DivergedError:
                stopped = True
        assert stop == stopped
