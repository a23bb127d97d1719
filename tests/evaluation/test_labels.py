"""Measures of labels against their definitions, written out another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForSequenceClassification

from qtune.data import Rows
from qtune.data.batch import Batch
from qtune.data.rows import Encoded, RowStore
from qtune.evaluation import label_difference, measure_labels
from qtune.evaluation.labels import accuracy, confusion, macro_f1, matthews
from qtune.losses import scores
from tests.tiny import tiny_llama


def drawn(labels: int, rows: int, seed: int) -> tuple[list[int], list[int]]:
    random = np.random.default_rng(seed)
    true = random.integers(0, labels, rows)
    given = np.where(random.random(rows) < 0.6, true, random.integers(0, labels, rows))
    return true.tolist(), given.tolist()


@pytest.mark.parametrize(("labels", "rows"), [(2, 50), (5, 200), (40, 60)])
def test_measures_by_definition(labels: int, rows: int) -> None:
    true, given = drawn(labels, rows, seed=labels)
    counts = confusion(true, given, labels)
    pairs = list(zip(true, given, strict=True))
    assert counts[1, 0] == pairs.count((1, 0))
    assert accuracy(counts) == pytest.approx(sum(one == other for one, other in pairs) / rows)
    scores_of_labels = []
    for label in sorted({*true, *given}):
        hits = pairs.count((label, label))
        precision = hits / given.count(label) if label in given else 0.0
        recall = hits / true.count(label) if label in true else 0.0
        both = precision + recall
        scores_of_labels.append(2 * precision * recall / both if both else 0.0)
    assert macro_f1(counts) == pytest.approx(sum(scores_of_labels) / len(scores_of_labels))
    # Matthews: the correlation of the two as indicators of each label
    one, other = np.eye(labels)[true], np.eye(labels)[given]
    one, other = one - one.mean(0), other - other.mean(0)
    expected = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    assert matthews(counts) == pytest.approx(expected)


def test_of_two_labels_matthews_is_the_plain_correlation() -> None:
    true, given = drawn(2, 80, seed=7)
    counts = confusion(true, given, 2)
    assert matthews(counts) == pytest.approx(np.corrcoef(true, given)[0, 1])


def test_one_label_for_all_correlates_with_nothing() -> None:
    assert matthews(confusion([0, 1, 1], [1, 1, 1], 3)) == 0.0


def rows_with_labels(sizes: tuple[int, ...] = (5, 2, 9, 4, 3)) -> Rows:
    store = RowStore()
    for number, size in enumerate(sizes):
        ids = [10 + (number * 31 + step * 7) % 250 for step in range(size)]
        learnt = [*[False] * size, True]
        label = {"ids": [*ids, number % 3], "learnt": learnt, "prompt_length": size}
        store.add(Encoded(file="x", number=number + 1, answer="n", **label))  # type: ignore[arg-type]
    return Rows(store, range(len(store)))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_model_is_measured_row_by_row(batch_size: int) -> None:
    torch.manual_seed(0)
    config = tiny_llama(num_labels=3).config
    config.id2label = {0: "a", 1: "b", 2: "c"}
    model = LlamaForSequenceClassification(config).eval()
    rows = rows_with_labels()
    device = torch.device("cpu")
    found = measure_labels(model, rows, scores=scores, batch_size=batch_size, device=device)
    for row, told, loss in zip(rows, found.rows, found.loss.row_sums, strict=True):
        ids = torch.tensor([row.input_ids[:-1]])
        shares = model(input_ids=ids).logits[0].detach().log_softmax(-1)
        assert told.label == "abc"[row.input_ids[-1]]
        assert told.given == "abc"[int(shares.argmax())]
        assert loss == pytest.approx(-float(shares[row.input_ids[-1]]), abs=1e-5)
    figures = found.to_dict()
    assert figures["accuracy"] == sum(found.right) / 5
    assert sum(pair["rows"] for pair in figures["confused"]) == 5 - sum(found.right)
    assert label_difference(found, found)["accuracy"] == 0.0


def test_on_a_cpu_batches_have_few_lengths_and_none_is_longer_than_the_longest_row() -> None:
    seen = []

    def told(_: Any, batch: Batch) -> torch.Tensor:
        seen.append(batch.input_ids.shape[1])
        return torch.zeros(len(batch.labels), 3)

    config = tiny_llama(num_labels=3).config
    config.id2label = {0: "a", 1: "b", 2: "c"}
    model = LlamaForSequenceClassification(config)
    rows = rows_with_labels((40, 5, 37, 33, 3))
    measure_labels(model, rows, scores=told, batch_size=1, device=torch.device("cpu"))
    assert seen == [40, 40, 40, 16, 16]
