"""Packed = padded: the same loss, the same gradients, the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qtune import optim
from qtune.losses import CausalLoss
from qtune.recipe.steps import ActivationPolicy, OptimSection
from qtune.training import Job, StepEvent, fit
from qtune.training.step import accumulate
from tests.training.learning import feed_of, gradients, learner, uneven_rows


@pytest.mark.parametrize("micro_batch_size", [1, 2])
@pytest.mark.parametrize("activations", ["none", "selective", "layer"])
def test_loss_and_gradients(
    tiny_folder: Path, micro_batch_size: int, activations: ActivationPolicy
) -> None:
    model, method = learner(tiny_folder, activations=activations)
    model.train()
    found = []
    for capacity in (None, 40):
        feed = feed_of(
            uneven_rows(), batch_size=16, micro_batch_size=micro_batch_size, capacity=capacity
        )
        (batches,) = feed.steps(1)
        supervised = sum(batch.supervised for batch in batches)
        loss = accumulate(model, CausalLoss(chunk_size=64), batches, supervised)
        found.append((float(loss), supervised, gradients(method)))
        for parameter in method.parameters().values():
            parameter.grad = None
    (padded, count, plain), (packed, same_count, other) = found
    assert count == same_count
    assert packed == pytest.approx(padded, rel=1e-6)
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6)


def _losses(folder: Path, capacity: int | None) -> list[float]:
    model, method = learner(folder)
    section = OptimSection.model_validate({"name": "adamw", "learning_rate": 1e-2})
    job = Job(
        model=model,
        method=method,
        loss=CausalLoss(chunk_size=64),
        optimizer=optim.make(section, method.param_groups(learning_rate=1e-2, weight_decay=0.0)),
        schedule=optim.schedule(section, total_steps=12, warmup_steps=0),
        feed=feed_of(uneven_rows(), batch_size=4, micro_batch_size=2, capacity=capacity),
        total_steps=12,
        steps_per_epoch=4,
        max_grad_norm=1.0,
    )
    return [event.loss for event in fit(job) if isinstance(event, StepEvent)]


def test_a_run_has_the_same_losses(tiny_folder: Path) -> None:
    padded, packed = (_losses(tiny_folder, capacity) for capacity in (None, 24))
    assert packed == pytest.approx(padded, abs=1e-5)
    assert padded[-1] < padded[0]
