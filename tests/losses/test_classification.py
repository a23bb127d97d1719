"""The loss of labels against straight code, and its gradients however rows are split."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from qtune.data.batch import collate_labelled
from qtune.data.rows import EncodedRow
from qtune.losses import ClassificationLoss, scores
from tests.tiny import tiny_llama

ROWS = [([0, 9, 30, 41], 2), ([0, 12], 0), ([0, 77, 5, 6, 200, 31, 8], 1), ([0, 3, 3, 3, 60], 2)]


def rows() -> list[EncodedRow]:
    return [
        EncodedRow([*ids, label], [-100] * len(ids) + [label], "x:1", ids, "name")
        for ids, label in ROWS
    ]


def model() -> Any:
    torch.manual_seed(0)
    return LlamaForSequenceClassification(tiny_llama(num_labels=3).config).double()


def by_hand(network: Any, ids: list[int], label: int) -> torch.Tensor:
    """-log p of one row without padding, its head read at the last token."""
    hidden = network.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    return -torch.log_softmax(network.score.weight @ hidden, dim=-1)[label]


def test_a_batch_costs_what_its_rows_cost_alone() -> None:
    network = model()
    loss = ClassificationLoss()(network, collate_labelled(rows(), pad_id=2))
    expected = torch.stack([by_hand(network, ids, label) for ids, label in ROWS]).sum()
    assert loss.count == 4
    torch.testing.assert_close(loss.sum.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_whole_batch_and_its_parts_have_one_gradient() -> None:
    gradients = []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 3), slice(3, 4)]):
        network = model()
        for part in parts:
            loss = ClassificationLoss()(network, collate_labelled(rows()[part], pad_id=2))
            (loss.sum / len(ROWS)).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, accumulated, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.2}, {"z_loss": 0.1}])
def test_smoothing_and_z_loss(settings: dict[str, float]) -> None:
    network = model()
    batch = collate_labelled(rows(), pad_id=2)
    logits = scores(network, batch).double()
    shares = torch.log_softmax(logits, dim=-1)
    smoothing, z = settings.get("label_smoothing", 0.0), settings.get("z_loss", 0.0)
    right = -shares[range(4), [label for _, label in ROWS]]
    expected = (1 - smoothing) * right - smoothing * shares.mean(-1)
    expected = expected + z * logits.logsumexp(-1) ** 2
    found = ClassificationLoss(**settings)(network, batch).sum
    torch.testing.assert_close(found.double(), expected.sum(), rtol=1e-6, atol=1e-6)
