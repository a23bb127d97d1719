"""The events of a run, in their order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from qtune import optim
from qtune.losses import CausalLoss
from qtune.recipe.steps import OptimSection
from qtune.training import Best, Boundary, EvalEvent, Event, Interrupted, Job, StepEvent, fit
from tests.training.learning import feed_of, learner, uneven_rows


def _job(folder: Path, **settings: Any) -> Job:
    model, method = learner(folder)
    section = OptimSection.model_validate({"name": "adamw", "learning_rate": 1e-2})
    groups = method.param_groups(learning_rate=1e-2, weight_decay=0.0)
    values: dict[str, Any] = {
        "model": model,
        "method": method,
        "loss": CausalLoss(chunk_size=64),
        "optimizer": optim.make(section, groups),
        "schedule": optim.schedule(section, total_steps=6, warmup_steps=2),
        "feed": feed_of(uneven_rows(), batch_size=4, micro_batch_size=2),
        "total_steps": 6,
        "steps_per_epoch": 4,
        "max_grad_norm": 1.0,
    }
    return Job(**(values | settings))


def _kinds(events: list[Event]) -> list[str]:
    names = {StepEvent: "step", EvalEvent: "eval"}
    return [f"{names[type(e)]} {e.step}" for e in events if not isinstance(e, Boundary)]


def test_evaluations_come_first_between_and_last(tiny_folder: Path) -> None:
    events = list(fit(_job(tiny_folder, evaluate=lambda: {"loss": 1.0}, evaluate_every=4)))
    steps = [f"step {step}" for step in range(1, 7)]
    assert _kinds(events) == ["eval 0", *steps[:4], "eval 4", *steps[4:], "eval 6"]


def test_the_last_evaluation_is_not_done_twice(tiny_folder: Path) -> None:
    job = _job(tiny_folder, evaluate=lambda: {"loss": 1.0}, evaluate_every=3, evaluate_first=False)
    assert [kind for kind in _kinds(list(fit(job))) if "eval" in kind] == ["eval 3", "eval 6"]


def test_without_rows_to_measure_there_are_only_steps(tiny_folder: Path) -> None:
    assert _kinds(list(fit(_job(tiny_folder)))) == [f"step {step}" for step in range(1, 7)]


def test_the_model_trains_again_after_an_evaluation(tiny_folder: Path) -> None:
    job = _job(tiny_folder, evaluate_every=1)

    def evaluate() -> dict[str, float]:
        job.model.eval()
        return {"loss": 1.0}

    events = fit(Job(**(vars(job) | {"evaluate": evaluate})))
    modes = [job.model.training for event in events if isinstance(event, StepEvent)]
    assert modes == [True] * 6


def test_the_rate_warms_up_and_the_loss_falls(tiny_folder: Path) -> None:
    events = [event for event in fit(_job(tiny_folder)) if isinstance(event, StepEvent)]
    rates = [event.learning_rate for event in events]
    assert rates == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2, 1e-2, 1e-2])
    assert [event.epoch for event in events] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert events[-1].loss < events[0].loss


@pytest.mark.parametrize(
    ("metric", "values", "step"),
    [("loss", [2.0, 1.0, 1.0, 3.0], 2), ("exact_match", [0.1, 0.7, 0.7, 0.2], 2)],
)
def test_the_best_is_the_earliest_best(metric: str, values: list[float], step: int) -> None:
    best = Best(metric)
    better = [
        best.update(EvalEvent(step=number, measures={metric: value}, seconds=0.0))
        for number, value in enumerate(values, start=1)
    ]
    assert better == [True, True, False, False]
    assert (best.step, best.value) == (step, values[1])


def test_a_boundary_ends_all_that_belongs_to_a_step(tiny_folder: Path) -> None:
    events = list(fit(_job(tiny_folder, evaluate=lambda: {"loss": 1.0}, evaluate_every=3)))
    for event, following in itertools.pairwise(events):
        if isinstance(following, Boundary):
            assert following.step == event.step
            assert following.evaluated
    boundaries = [event.step for event in events if isinstance(event, Boundary)]
    assert boundaries == [0, 1, 2, 3, 4, 5, 6]


def test_an_interrupted_evaluation_is_owed_and_ends_the_run(tiny_folder: Path) -> None:
    calls = []

    def evaluate() -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted
        return {"loss": 1.0}

    events = list(fit(_job(tiny_folder, evaluate=evaluate, evaluate_every=2)))
    assert events[-1] == Boundary(step=2, evaluated=False)
    assert _kinds(events) == ["eval 0", "step 1", "step 2"]


def test_a_later_start_takes_the_later_rows_and_rates(tiny_folder: Path) -> None:
    whole = [event for event in fit(_job(tiny_folder)) if isinstance(event, StepEvent)]
    rest = [event for event in fit(_job(tiny_folder, start=4)) if isinstance(event, StepEvent)]
    told = [(event.step, event.learning_rate, event.tokens, event.epoch) for event in whole[4:]]
    assert [(event.step, event.learning_rate, event.tokens, event.epoch) for event in rest] == told
