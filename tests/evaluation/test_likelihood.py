"""Loss over rows against plain cross-entropy, row by row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from qtune.data import Rows
from qtune.errors import DataError, ModelError
from qtune.evaluation.likelihood import difference, measure_loss, summarise
from qtune.evaluation.measure import evaluate
from qtune.losses import CausalLoss
from qtune.recipe.results import EvalSection
from tests.evaluation.rows import rows_of
from tests.tiny import tiny_llama, tiny_tokenizer

ROWS = rows_of((5, 3), (1, 9), (30, 2), (4, 4), (2, 17))


def measured(model: nn.Module, rows: Rows = ROWS, *, batch_size: int = 2) -> object:
    return measure_loss(
        model,
        rows,
        loss=CausalLoss(chunk_size=7, label_smoothing=0.2),
        batch_size=batch_size,
        pad_id=2,
        device=torch.device("cpu"),
    )


def reference(model: nn.Module, rows: Rows) -> list[tuple[float, int]]:
    """Sum and count of each row alone, from the model's own logits."""
    result = []
    for row in rows:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([row.input_ids])).logits[0]
        labels = torch.tensor(row.labels)[1:]
        total = functional.cross_entropy(logits[:-1], labels, reduction="sum", ignore_index=-100)
        result.append((float(total), int((labels != -100).sum())))
    return result


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_plain_cross_entropy(batch_size: int) -> None:
    model = tiny_llama(seed=1, initializer_range=0.2)
    found = measured(model, batch_size=batch_size)
    wanted = reference(model, ROWS)
    assert found.row_counts == tuple(count for _, count in wanted)
    assert found.row_sums == pytest.approx([total for total, _ in wanted], rel=1e-5)
    loss = sum(total for total, _ in wanted) / sum(count for _, count in wanted)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert found.low < found.loss < found.high
    assert (found.rows, found.tokens) == (5, 35)


def test_training_mode_comes_back_and_dropout_is_off() -> None:
    model = tiny_llama(attention_dropout=0.5)
    model.train()
    assert measured(model).loss == measured(model).loss
    assert model.training


def test_paired_difference() -> None:
    base, ours = summarise([4.0, 10.0], [2, 5]), summarise([2.0, 5.0], [2, 5])
    moved = difference(ours, base)
    # every row is better by exactly 1 nat a token: no doubt is left
    figures = {"loss": -1.0, "loss_low": -1.0, "loss_high": -1.0}
    assert {key: moved[key] for key in figures} == pytest.approx(figures)
    assert moved["loss_p"] == pytest.approx(0.5, abs=0.05)  # two rows of one sign: a fair coin
    assert summarise([4.0, 10.0], [2, 5]).high > base.low - 1e-9


def test_what_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="no row has a token"):
        summarise([0.0], [0])
    with pytest.raises(ModelError, match="NaN"):
        summarise([float("nan"), 1.0], [1, 1])


def test_evaluate_gives_training_its_measures() -> None:
    model, news = tiny_llama(), []
    figures = evaluate(
        model,
        tiny_tokenizer(),
        ROWS,
        EvalSection(generate_rows=3, max_new_tokens=4, batch_size=2),
        loss=CausalLoss(chunk_size=64),
        on_progress=lambda *event: news.append(event),
    )
    assert figures.keys() == {"loss", "perplexity", "exact_match", "token_f1", "stopped"}
    assert all(isinstance(value, float) for value in figures.values())
    assert ("evaluating", 5, 5) in news
    assert ("answering", 3, 3) in news
    without = EvalSection(generate_rows=0, batch_size=2)
    plain = evaluate(model, tiny_tokenizer(), ROWS, without, loss=CausalLoss(chunk_size=64))
    assert plain.keys() == {"loss", "perplexity"}
