"""One optimizer step: splits, checkpointing, evaluation between steps, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qtune import optim
from qtune.data.batch import Batch, collate
from qtune.errors import DivergedError
from qtune.losses import CausalLoss
from qtune.methods.base import Method
from qtune.ranks import ALONE
from qtune.recipe.steps import OptimSection
from qtune.training import Counts, Learning, Watchdog, check_finite, train_step
from qtune.training.step import accumulate
from tests.training.learning import gradients, learner, uneven_rows

LOSS = CausalLoss(chunk_size=16)


def _split(size: int) -> list[Batch]:
    rows = uneven_rows()
    return [collate(rows[at : at + size], pad_id=2) for at in range(0, len(rows), size)]


def _supervised(batches: list[Batch]) -> int:
    return sum(batch.supervised for batch in batches)


def _gradients_of(model: Any, method: Method, batches: list[Batch]) -> dict[str, torch.Tensor]:
    for parameter in method.parameters().values():
        parameter.grad = None
    accumulate(model, LOSS, batches, _supervised(batches))
    return gradients(method)


def _step(model: Any, method: Method, batches: list[Batch], **settings: Any) -> Any:
    return _take(model, method, optim.make(*_settings(method)), batches, **settings)


def _settings(method: Method) -> tuple[OptimSection, list[dict[str, Any]]]:
    section = OptimSection.model_validate({"name": "adamw", "learning_rate": 1e-2})
    return section, method.param_groups(learning_rate=1e-2, weight_decay=0.0)


def _take(model: Any, method: Method, optimizer: Any, batches: list[Batch], **settings: Any) -> Any:
    step = settings.pop("step", 0)
    arguments = {"max_grad_norm": 0.3, "watchdog": Watchdog()} | settings
    learning = Learning(model=model, loss=LOSS, method=method, optimizer=optimizer, **arguments)
    counts = Counts.of(batches, ALONE)
    return train_step(learning, batches, step=step, counts=counts).settle()


@pytest.mark.parametrize("bits", [4, 16])
def test_accumulated_is_whole(tiny_folder: Path, bits: int) -> None:
    model, method = learner(tiny_folder, bits=bits)
    whole = _gradients_of(model, method, _split(16))
    for size in (1, 2, 5):
        parts = _gradients_of(model, method, _split(size))
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-6)


def test_loss_and_norm_do_not_depend_on_the_split(tiny_folder: Path) -> None:
    results = []
    for size in (16, 4, 1):
        model, method = learner(tiny_folder)
        results.append(_step(model, method, _split(size)))
    for result in results[1:]:
        assert result.loss == pytest.approx(results[0].loss, abs=1e-6)
        assert result.grad_norm == pytest.approx(results[0].grad_norm, rel=1e-5)
        assert result.counts.supervised == results[0].counts.supervised


def test_the_loss_is_the_mean_over_supervised_tokens(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    result = _step(model, method, _split(16))
    model, _ = learner(tiny_folder)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in uneven_rows():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].double()
            for place, label in enumerate(row.labels[1:]):
                if label != -100:
                    total -= float(logits[place].log_softmax(0)[label])
                    count += 1
    assert result.counts.supervised == count
    assert result.loss == pytest.approx(total / count, rel=1e-5)


def test_checkpointed_is_not_checkpointed(tiny_folder: Path) -> None:
    kept = _gradients_of(*learner(tiny_folder), _split(8))
    again = _gradients_of(*learner(tiny_folder, activations="layer"), _split(8))
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_an_evaluation_changes_no_later_gradient(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    before = _gradients_of(model, method, _split(8))
    model.eval()
    with torch.no_grad():
        LOSS(model, _split(16)[0])
    model.train()
    after = _gradients_of(model, method, _split(8))
    for name, gradient in before.items():
        assert torch.equal(after[name], gradient), name


def test_gradients_are_clipped_together(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    free = _gradients_of(model, method, _split(16))
    norm = torch.stack([gradient.norm() for gradient in free.values()]).norm()
    method.after_step = lambda _: seen.update(gradients(method))  # type: ignore[method-assign]
    seen: dict[str, torch.Tensor] = {}
    for parameter in method.parameters().values():
        parameter.grad = None
    result = _step(model, method, _split(16), max_grad_norm=float(norm) / 2)
    assert result.grad_norm == pytest.approx(float(norm), rel=1e-5)
    for name, gradient in free.items():
        torch.testing.assert_close(seen[name], gradient / 2, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_nothing_is_updated_on_a_nan(tiny_folder: Path, where: str) -> None:
    model, method = learner(tiny_folder)
    parameters = method.parameters()
    name = next(iter(parameters))
    if where == "weight":
        with torch.no_grad():
            parameters[name][0, 0] = float("nan")
    else:
        parameters[name].register_hook(lambda gradient: gradient * float("inf"))
    before = {key: value.detach().clone() for key, value in parameters.items()}
    with pytest.raises(DivergedError, match=r"step 8: .* no update was made") as caught:
        _step(model, method, _split(16), step=7)
    assert "rows.jsonl:1" in caught.value.faults[0].place
    assert int(caught.value.code) == 6
    for key, value in parameters.items():
        assert torch.equal(value.nan_to_num(7.0), before[key].nan_to_num(7.0))


def test_a_dead_gradient_is_an_error_in_the_first_step(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    dead = torch.nn.Parameter(torch.zeros(3))
    known = method.parameters()
    method.parameters = lambda: {**known, "dead": dead}  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="1 of 29 trainable tensors got no gradient"):
        _step(model, method, _split(16))


def test_a_first_update_that_changes_nothing_is_an_error(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    for group in (optimizer := optim.make(*_settings(method))).param_groups:
        group["lr"] = 0.0
    with pytest.raises(DivergedError, match="changed no trainable tensor"):
        _take(model, method, optimizer, _split(16), step=0)
    _take(model, method, optimizer, _split(16), step=1)  # later steps are not looked at


def test_a_limit_must_be_passed_for_so_many_steps(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    before = method.adapter_state()
    watchdog = Watchdog(loss_limit=1.0, patience=3)
    _step(model, method, _split(16), step=3, watchdog=watchdog)
    _step(model, method, _split(16), step=4, watchdog=watchdog)
    after = method.adapter_state()
    with pytest.raises(DivergedError, match=r"step 6: .* above the watchdog's limits for 3 steps"):
        _step(model, method, _split(16), step=5, watchdog=watchdog)
    for name, tensor in method.adapter_state().items():
        assert torch.equal(tensor, after[name])
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_the_rows_of_a_step_beyond_the_limit_are_known(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    with pytest.raises(DivergedError, match="gradient norm") as caught:
        _step(model, method, _split(5), watchdog=Watchdog(grad_norm_limit=1e-6))
    assert caught.value.rows == tuple(f"rows.jsonl:{number}" for number in range(1, 17))


def test_a_good_step_between_starts_the_count_anew() -> None:
    watchdog = Watchdog(loss_limit=1.0, patience=2)
    for step, loss in enumerate((2.0, 0.5, 2.0, 0.5)):
        watchdog.check(loss, 1.0, step=step, micro_batches=[])
    watchdog.check(2.0, 1.0, step=4, micro_batches=[])
    with pytest.raises(DivergedError, match="step 6"):
        watchdog.check(2.0, 1.0, step=5, micro_batches=[])


@pytest.mark.parametrize("loss", [0.01, 5.8])
def test_a_loss_without_any_gradient_is_the_end(loss: float) -> None:
    watchdog = Watchdog()
    watchdog.check(loss, 1e-12, step=3, micro_batches=[])
    with pytest.raises(DivergedError, match=r"step 5: .* exactly zero"):
        watchdog.check(loss, 0.0, step=4, micro_batches=[])


def test_nothing_left_to_learn_is_no_fault() -> None:
    Watchdog().check(0.0, 0.0, step=3, micro_batches=[])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_found(value: float) -> None:
    parameters = {"a": torch.nn.Parameter(torch.ones(3)), "b": torch.nn.Parameter(torch.ones(2))}
    check_finite(parameters)
    with torch.no_grad():
        parameters["b"][1] = value
    with pytest.raises(DivergedError, match="1 trainable tensors") as caught:
        check_finite(parameters)
    assert caught.value.faults[0].place == "b"


def test_hooks_come_in_their_order(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    calls: list[str] = []
    for hook in ("before_step", "after_backward", "after_step"):
        setattr(method, hook, lambda step, hook=hook: calls.append(f"{hook} {step}"))
    _step(model, method, _split(8), step=0)
    assert calls == ["before_step 0", "after_backward 0", "after_step 0"]


def test_an_extra_loss_adds_to_the_gradient_and_not_to_the_loss(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    plain = _step(model, method, _split(16))
    model, method = learner(tiny_folder)
    method.extra_loss = lambda: sum(  # type: ignore[method-assign, assignment]
        (parameter**2).sum() for parameter in method.parameters().values()
    )
    other = _step(model, method, _split(16))
    assert other.loss == pytest.approx(plain.loss, rel=1e-6)
    assert other.grad_norm > plain.grad_norm


def test_counts_follow_a_step_that_is_split_anew() -> None:
    whole, halves = _split(16), _split(2)
    counts = Counts.of(whole, ALONE)
    assert counts.computed > sum(batch.computed for batch in halves)  # less padding in small ones
    assert counts.split_anew(whole, halves) == Counts.of(halves, ALONE)
    others = Counts(*(2 * getattr(counts, name) for name in vars(counts)))
    assert others.split_anew(whole, whole) == others


def test_an_idle_batch_goes_through_and_teaches_nothing(tiny_folder: Path) -> None:
    model, method = learner(tiny_folder)
    batches = _split(4)
    plain = _gradients_of(model, method, batches)
    idle = _gradients_of(model, method, [*batches, batches[0].idled()])
    assert all(torch.equal(idle[name], gradient) for name, gradient in plain.items())
    for parameter in method.parameters().values():
        parameter.grad = None
    assert accumulate(model, LOSS, [batches[0].idled()], 5) == 0.0
    assert all(not gradient.any() for gradient in gradients(method).values())
